//! COMMAND: the command table, as clients read it.

use super::is;
use crate::table::{help_of, run_subcommand};
use crate::{
    Categories, Command, CommandError, Flags, Handler, Host, Reply, Session, SessionFn, glob, lookup, table,
};

const FLAGS: Flags = Flags::LOADING.with(Flags::STALE);
const CATEGORIES: Categories = Categories::SLOW.with(Categories::CONNECTION);

/// COMMAND [subcommand]
pub(crate) const COMMAND: Command = Command {
    name: "command",
    syntax: "[subcommand [argument ...]]",
    arity: -1,
    flags: FLAGS,
    group: "server",
    since: "2.8.13",
    complexity: "O(N), N the number of commands",
    summary: "Every command, for clients.",
    categories: CATEGORIES,
    handler: Handler::Session(|session, host, args| match args {
        [_] => Ok(Reply::Array(table().iter().map(describe).collect())),
        _ => run_subcommand(session, host, args),
    }),
    subcommands: &[
        row("count", "", 2, "2.8.13", "How many commands there are.", |_, _, _| {
            Ok(Reply::count(table().len()))
        }),
        row("docs", "[command-name ...]", -2, "7.0.0", "What commands do, for people.", docs),
        row("getkeys", "command [argument ...]", -3, "2.8.13", "The keys of a request.", get_keys),
        row("help", "", 2, "5.0.0", "The subcommands.", |_, _, _| Ok(help_of("command"))),
        row("info", "[command-name ...]", -2, "2.8.13", "Some commands, for clients.", info),
        row(
            "list",
            "[FILTERBY MODULE name | ACLCAT category | PATTERN pattern]",
            -2,
            "7.0.0",
            "The names of commands.",
            list,
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
        parent: "command",
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

/// The command with this name, or the subcommand named `client|id`.
fn find(name: &[u8]) -> Option<&'static Command> {
    match name.iter().position(|&byte| byte == b'|') {
        Some(bar) => lookup(&name[..bar])?.subcommand(&name[bar + 1..]),
        None => lookup(name),
    }
}

fn words(words: impl Iterator<Item = &'static str>) -> Reply<'static> {
    Reply::Set(words.map(Reply::simple).collect())
}

/// A command as `COMMAND INFO` shows it.
fn describe(command: &Command) -> Reply<'static> {
    let keys = command.keys;
    Reply::Array(vec![
        Reply::bulk(&*command.full_name()),
        Reply::Integer(i64::from(command.arity)),
        words(command.flags.words()),
        Reply::count(keys.first),
        Reply::Integer(keys.last as i64),
        Reply::count(keys.step),
        words(command.categories.words()),
        Reply::Set(Vec::new()),
        Reply::Set(key_specs(command)),
        Reply::Array(command.subcommands.iter().map(describe).collect()),
    ])
}

/// The keys as Redis 7 describes them: where they begin, and how the rest is found from there.
fn key_specs(command: &Command) -> Vec<Reply<'static>> {
    let keys = command.keys;
    if keys.first == 0 {
        return Vec::new();
    }
    let word = |word: &'static str| Reply::bulk(word);
    let last = if keys.last > 0 { keys.last - keys.first as isize } else { keys.last };
    let access = if command.is_write() { ["RW", "update"] } else { ["RO", "access"] };
    let find = vec![
        (word("lastkey"), Reply::Integer(last as i64)),
        (word("keystep"), Reply::count(keys.step)),
        (word("limit"), Reply::Integer(0)),
    ];
    vec![Reply::Map(vec![
        (word("flags"), words(access.into_iter())),
        (
            word("begin_search"),
            Reply::Map(vec![
                (word("type"), word("index")),
                (word("spec"), Reply::Map(vec![(word("index"), Reply::count(keys.first))])),
            ]),
        ),
        (
            word("find_keys"),
            Reply::Map(vec![(word("type"), word("range")), (word("spec"), Reply::Map(find))]),
        ),
    ])]
}

/// A command as `COMMAND DOCS` shows it.
fn document(command: &Command) -> (Reply<'static>, Reply<'static>) {
    let mut fields = vec![
        (Reply::bulk("summary"), Reply::bulk(command.summary)),
        (Reply::bulk("since"), Reply::bulk(command.since)),
        (Reply::bulk("group"), Reply::bulk(command.group)),
        (Reply::bulk("complexity"), Reply::bulk(command.complexity)),
    ];
    if !command.subcommands.is_empty() {
        let subcommands = command.subcommands.iter().map(document).collect();
        fields.push((Reply::bulk("subcommands"), Reply::Map(subcommands)));
    }
    (Reply::bulk(&*command.full_name()), Reply::Map(fields))
}

fn info(_: &mut Session, _: &mut dyn Host, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    if args.len() == 2 {
        return Ok(Reply::Array(table().iter().map(describe).collect()));
    }
    Ok(Reply::Array(args[2..].iter().map(|name| find(name).map_or(Reply::Null, describe)).collect()))
}

fn docs(_: &mut Session, _: &mut dyn Host, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    if args.len() == 2 {
        return Ok(Reply::Map(table().iter().map(document).collect()));
    }
    Ok(Reply::Map(args[2..].iter().filter_map(|name| find(name)).map(document).collect()))
}

fn list(_: &mut Session, _: &mut dyn Host, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    let names = |wanted: &dyn Fn(&Command) -> bool| {
        Reply::Array(table().iter().filter(|row| wanted(row)).map(|row| Reply::bulk(row.name)).collect())
    };
    match args[2..] {
        [] => Ok(names(&|_| true)),
        [filter, kind, _] if is(filter, "filterby") && is(kind, "module") => Ok(names(&|_| false)),
        [filter, kind, name] if is(filter, "filterby") && is(kind, "aclcat") => {
            Ok(names(&|row| row.categories.words().any(|word| is(name, &word[1..]))))
        }
        [filter, kind, pattern] if is(filter, "filterby") && is(kind, "pattern") => {
            Ok(names(&|row| glob::matches_ignoring_case(pattern, row.name.as_bytes())))
        }
        _ => Err(CommandError::Syntax),
    }
}

fn get_keys(_: &mut Session, _: &mut dyn Host, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    let request = &args[2..];
    let error = |text: &str| Err(CommandError::Other(text.into()));
    let command = lookup(request[0]).and_then(|command| match request.get(1) {
        Some(name) if !command.subcommands.is_empty() => command.subcommand(name),
        _ => Some(command),
    });
    let Some(command) = command else { return error("ERR Invalid command specified") };
    if command.keys.first == 0 {
        return error("ERR The command has no key arguments");
    }
    if command.check_arity(request).is_err() {
        return error("ERR Invalid number of arguments specified for command");
    }
    Ok(Reply::Array(command.key_positions(request).map(|at| Reply::bulk(request[at])).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, check};

    #[test]
    fn command() {
        check(&[
            ("", "command count", &format!("(integer) {}", table().len())),
            (
                "",
                "command info get nope",
                "[['get', (integer) 2, [readonly, fast], (integer) 1, (integer) 1, (integer) 1, [@read, @string, @fast], [], [{'flags': [RO, access], 'begin_search': {'type': 'index', 'spec': {'index': (integer) 1}}, 'find_keys': {'type': 'range', 'spec': {'lastkey': (integer) 0, 'keystep': (integer) 1, 'limit': (integer) 0}}}], []], (nil)]",
            ),
            (
                "",
                "command docs get nope",
                "{'get': {'summary': 'The value of a string, or nothing.', 'since': '1.0.0', 'group': 'string', 'complexity': 'O(1)'}}",
            ),
            ("", "command getkeys mset a 1 b 2", "['a', 'b']"),
            ("", "command getkeys get a", "['a']"),
            ("", "command getkeys object encoding a", "['a']"),
            ("", "command getkeys object nope a", "(error) ERR Invalid command specified"),
            ("", "command getkeys nope", "(error) ERR Invalid command specified"),
            ("", "command getkeys ping", "(error) ERR The command has no key arguments"),
            ("", "command getkeys get", "(error) ERR Invalid number of arguments specified for command"),
            ("", "command list filterby pattern EC*", "['echo']"),
            ("", "command list filterby module x", "[]"),
            ("", "command list filterby x y", "(error) ERR syntax error"),
            ("", "command list x", "(error) ERR syntax error"),
            ("", "command nope", "(error) ERR unknown subcommand 'nope'. Try COMMAND HELP."),
        ]);
        let mut world = World::new();
        assert!(world.run("command").contains("'client|setname'"));
        assert!(world.run("command list").contains("'mset'"));
        assert!(world.run("command info client|id").contains("'client|id'"));
        assert!(world.run("command docs").contains("'annulet|status'"));
        assert!(world.run("command list filterby aclcat write").contains("'set'"));
        assert!(!world.run("command list filterby aclcat write").contains("'get'"));
    }
}
