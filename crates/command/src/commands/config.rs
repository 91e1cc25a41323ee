//! CONFIG GET: the settings, and what clients and tools ask Redis for.

use crate::table::{help_of, run_subcommand};
use crate::{Categories, Command, CommandError, Flags, Handler, Host, Reply, Session, SessionFn, glob};
use types::settings::SETTINGS;

const FLAGS: Flags = Flags::ADMIN.with(Flags::NOSCRIPT).with(Flags::LOADING).with(Flags::STALE);
const CATEGORIES: Categories = Categories::ADMIN.with(Categories::SLOW).with(Categories::DANGEROUS);

/// CONFIG subcommand
pub(crate) const COMMAND: Command = Command {
    name: "config",
    syntax: "subcommand [argument ...]",
    arity: -2,
    flags: FLAGS,
    group: "server",
    since: "2.0.0",
    summary: "This node's settings.",
    categories: CATEGORIES,
    handler: Handler::Session(run_subcommand),
    subcommands: &[
        row("get", "pattern [pattern ...]", -3, "2.0.0", "The settings whose names match a pattern.", get),
        row("help", "", 2, "5.0.0", "The subcommands.", |_, _, _| Ok(help_of("config"))),
    ],
    ..Command::BASE
};

const fn row(
    name: &'static str,
    syntax: &'static str,
    arity: i32,
    since: &'static str,
    summary: &'static str,
    run: SessionFn,
) -> Command {
    Command {
        name,
        parent: "config",
        syntax,
        arity,
        flags: FLAGS,
        group: "server",
        since,
        summary,
        categories: CATEGORIES,
        handler: Handler::Session(run),
        ..Command::BASE
    }
}

/// What tools read of Redis before they start, and what is true here.
const REDIS: &[(&str, &str)] = &[
    ("appendonly", "no"),
    ("databases", "1"),
    ("maxmemory-policy", "noeviction"),
    ("notify-keyspace-events", ""),
    ("save", ""),
];

fn get(_: &mut Session, host: &mut dyn Host, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    let asked =
        |name: &str| args[2..].iter().any(|pattern| glob::matches_ignoring_case(pattern, name.as_bytes()));
    let mut found = Vec::new();
    for setting in SETTINGS {
        // Redis writes names with dashes; either is answered as it was asked for.
        let dashed = setting.name.replace('_', "-");
        let name = match () {
            () if asked(setting.name) => setting.name,
            () if asked(&dashed) => &dashed,
            () => continue,
        };
        let value = host.settings().get(setting.name).unwrap_or_default();
        let value = if setting.secret && !value.is_empty() { "(hidden)".to_owned() } else { value };
        found.push((Reply::bulk(name), Reply::bulk(value)));
    }
    for (name, value) in REDIS.iter().filter(|(name, _)| asked(name)) {
        found.push((Reply::bulk(*name), Reply::bulk(*value)));
    }
    Ok(Reply::Map(found))
}

#[cfg(test)]
mod tests {
    use crate::testing::{World, check};

    #[test]
    fn config_get() {
        check(&[
            ("", "config get lease_ms", "{'lease_ms': '350'}"),
            ("", "config get LEASE-ms", "{'lease-ms': '350'}"),
            ("", "config get lease* grace*", "{'lease_ms': '350', 'grace_ms': '420'}"),
            ("", "config get save appendonly", "{'appendonly': 'no', 'save': ''}"),
            ("", "config get nonsense", "{}"),
            ("", "config get requirepass", "{'requirepass': ''}"),
            ("", "config get", "(error) ERR wrong number of arguments for 'config|get' command"),
            ("", "config set lease_ms 1", "(error) ERR unknown subcommand 'set'. Try CONFIG HELP."),
        ]);
        let mut world = World::with_password("secret");
        world.run("auth secret");
        assert!(!world.run("config get *").contains("secret"));
    }
}
