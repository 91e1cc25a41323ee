//! CONFIG: the settings, and what clients and tools ask Redis for. Some of them change while the node runs.

use super::shown;
use crate::table::{help_of, run_subcommand};
use crate::{
    Categories, ClusterOrder, Command, CommandError, Flags, Handler, Host, Reply, Session, SessionFn, glob,
};
use types::settings::{SETTINGS, SettingError, Settings};
use types::shared_settings::ChangeError;

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
        row("resetstat", "", 2, "2.0.0", "Counts anew what INFO and LATENCY HISTOGRAM tell.", reset),
        row(
            "rewrite",
            "",
            2,
            "2.8.0",
            "An error: what is to last is written into the node's file by hand.",
            rewrite,
        ),
        row(
            "set",
            "parameter value [parameter value ...]",
            -4,
            "2.0.0",
            "Changes settings of this node while it runs, all that are named or none; `copies` and `min_in_sync` change for the whole cluster.",
            set,
        ),
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

/// Settings that are Redis' too, under its names: what a pattern finds of both is shown as Redis does, for clients that keep
/// and restore them.
const ALSO_OF_REDIS: &[&str] = &[
    "client_output_buffer_limit",
    "latency_tracking",
    "maxmemory_clients",
    "proto_max_bulk_len",
    "slowlog_log_slower_than",
    "slowlog_max_len",
];

/// Settings that the whole cluster has, and that change while it runs.
const CLUSTER: &[&str] = &["copies", "min_in_sync"];

fn get(_: &mut Session, host: &mut dyn Host, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    let asked =
        |name: &str| args[2..].iter().any(|pattern| glob::matches_ignoring_case(pattern, name.as_bytes()));
    let mut found = Vec::new();
    for setting in SETTINGS {
        // Redis writes names with dashes; either is answered as it was asked for.
        let dashed = setting.name.replace('_', "-");
        let name = match () {
            () if ALSO_OF_REDIS.contains(&setting.name) && asked(&dashed) => &dashed,
            () if asked(setting.name) => setting.name,
            () if asked(&dashed) => &dashed,
            () => continue,
        };
        let value = host.cluster_value(setting.name).or_else(|| host.settings().get(setting.name));
        let value = value.unwrap_or_default();
        let value = if setting.secret && !value.is_empty() { "(hidden)".to_owned() } else { value };
        found.push((Reply::bulk(name), Reply::bulk(value)));
    }
    for (name, value) in REDIS.iter().filter(|(name, _)| asked(name)) {
        found.push((Reply::bulk(*name), Reply::bulk(*value)));
    }
    Ok(Reply::Map(found))
}

fn set(_: &mut Session, host: &mut dyn Host, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    let pairs = &args[2..];
    if !pairs.len().is_multiple_of(2) {
        return Err(CommandError::WrongArity { command: "config|set".into() });
    }
    let text = |arg: &[u8]| {
        std::str::from_utf8(arg).map(str::to_owned).map_err(|_| refused(&shown(arg), "argument is not UTF-8"))
    };
    let mut wanted: Vec<(String, String)> = Vec::new();
    for pair in pairs.chunks_exact(2) {
        let (name, value) = (text(pair[0])?, text(pair[1])?);
        if wanted.iter().any(|(other, _)| same_name(other, &name)) {
            return Err(refused(&name, "duplicate parameter"));
        }
        match REDIS.iter().find(|(fixed, _)| same_name(fixed, &name)) {
            // What is so anyway may be asked for.
            Some((_, fixed)) if value.eq_ignore_ascii_case(fixed) => {}
            Some(_) => return Err(refused(&name, "can't set immutable config")),
            None => wanted.push((name, value)),
        }
    }
    let (orders, wanted): (Vec<_>, Vec<_>) =
        wanted.into_iter().partition(|(name, _)| CLUSTER.iter().any(|cluster| same_name(cluster, name)));
    let orders =
        orders.iter().map(|(name, value)| order(host, name, value)).collect::<Result<Vec<_>, _>>()?;
    let changes: Vec<(&str, &str)> =
        wanted.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    host.change_settings(&changes).map_err(|error| match error {
        ChangeError::Fixed { name } => refused(asked_as(&wanted, name), "can't set immutable config"),
        ChangeError::Setting(SettingError::Invalid { name, expected, .. }) => {
            refused(asked_as(&wanted, name), &format!("argument must be {expected}"))
        }
        ChangeError::Setting(SettingError::Unknown { name }) => {
            let name = asked_as(&wanted, &name);
            CommandError::Other(format!(
                "ERR Unknown option or number of arguments for CONFIG SET - '{}'",
                shown(name.as_bytes())
            ))
        }
    })?;
    orders.into_iter().for_each(|order| host.order(order));
    Ok(Reply::ok())
}

/// What changes for the whole cluster, by an order to its coordinator.
fn order(host: &dyn Host, name: &str, value: &str) -> Result<ClusterOrder, CommandError> {
    let mut parsed = Settings::default();
    parsed.set(name, value).map_err(|error| match error {
        SettingError::Invalid { expected, .. } => refused(name, &format!("argument must be {expected}")),
        SettingError::Unknown { .. } => refused(name, "can't set immutable config"),
    })?;
    let order = match same_name(name, "copies") {
        true => ClusterOrder::Copies(parsed.copies),
        false => ClusterOrder::MinInSync(parsed.min_in_sync),
    };
    host.refusal(order).map_or(Ok(order), |why| Err(refused(name, &why)))
}

fn same_name(one: &str, other: &str) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    one.bytes().map(plain).eq(other.bytes().map(plain))
}

/// A setting's name as the request wrote it.
fn asked_as<'a>(wanted: &'a [(String, String)], name: &'a str) -> &'a str {
    wanted.iter().find(|(asked, _)| same_name(asked, name)).map_or(name, |(asked, _)| asked)
}

fn refused(name: &str, why: &str) -> CommandError {
    let name = shown(name.as_bytes());
    CommandError::Other(format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}"))
}

fn reset(_: &mut Session, host: &mut dyn Host, _: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    host.reset_figures();
    Ok(Reply::ok())
}

fn rewrite(_: &mut Session, _: &mut dyn Host, _: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    // A node reads its file once and does not know it afterwards.
    Err(CommandError::Other("ERR The server is running without a config file".into()))
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
            ("", "config get slowlog*max*", "{'slowlog-max-len': '128'}"),
            ("", "config get slowlog_max_len", "{'slowlog_max_len': '128'}"),
            ("", "config get nonsense", "{}"),
            ("", "config get requirepass", "{'requirepass': ''}"),
            ("", "config get", "(error) ERR wrong number of arguments for 'config|get' command"),
        ]);
        let mut world = World::with_password("secret");
        world.run("auth secret");
        assert!(!world.run("config get *").contains("secret"));
    }

    #[test]
    fn config_set() {
        let failed = |name: &str, why: &str| {
            format!("(error) ERR CONFIG SET failed (possibly related to argument '{name}') - {why}")
        };
        let immutable = "can't set immutable config";
        let range = "argument must be a whole number from 1 to 1000000";
        check(&[
            (
                "config set maxclients 5 maxmemory 2mb",
                "config get maxclients maxmemory",
                "{'maxclients': '5', 'maxmemory': '2097152'}",
            ),
            (
                "config set slowlog-log-slower-than 0",
                "config get slowlog-log-slower-than",
                "{'slowlog-log-slower-than': '0'}",
            ),
            ("", "config set lease-ms 400", &failed("lease-ms", immutable)),
            ("", "config set maxclients 0", &failed("maxclients", range)),
            ("", "config set maxclients 5 MaxClients 6", &failed("MaxClients", "duplicate parameter")),
            ("", "config set appendonly no save  maxmemory-policy noeviction", "OK"),
            ("", "config set appendonly yes", &failed("appendonly", immutable)),
            (
                "",
                "config set colour-x red",
                "(error) ERR Unknown option or number of arguments for CONFIG SET - 'colour-x'",
            ),
            (
                "",
                "config set maxclients 5 maxmemory",
                "(error) ERR wrong number of arguments for 'config|set' command",
            ),
            ("config set maxclients 5 port 1", "config get maxclients", "{'maxclients': '10000'}"),
            ("config set copies 3", "config get copies", "{'copies': '3'}"),
            ("config set copies 3 port 1", "config get copies", "{'copies': '2'}"),
            ("", "config set copies 8", &failed("copies", "argument must be a whole number from 1 to 7")),
            ("", "config set min-in-sync 3", &failed("min-in-sync", "more than there are copies")),
            ("config set copies 3", "config set min_in_sync 3 maxclients 5", "OK"),
            ("", "config resetstat", "OK"),
            ("", "config rewrite", "(error) ERR The server is running without a config file"),
        ]);
    }
}
