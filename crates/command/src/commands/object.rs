//! OBJECT: how a value is kept, in Redis' words.
//!
//! A value is its bytes here: there is one representation, one reference, and no record of when it was last used. So the
//! encoding is what Redis would choose for a `SET` of those bytes, the count of references is 1, and idle time and
//! frequency are not told.

use super::string_of;
use crate::number::parse_i64;
use crate::table::{help_of, run_subcommand};
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, KeysFn, Over, Reply};
use storage::{Keyspace, Value};

const CATEGORIES: Categories = Categories::KEYSPACE.with(Categories::READ).with(Categories::SLOW);

/// The longest string that Redis keeps in one piece with its head.
const EMBSTR_BYTES_MAX: usize = 44;

/// OBJECT subcommand
pub(crate) const COMMAND: Command = Command {
    name: "object",
    syntax: "subcommand [argument ...]",
    arity: -2,
    group: "generic",
    since: "2.2.3",
    summary: "How a key's value is kept.",
    categories: Categories::SLOW,
    handler: Handler::Session(run_subcommand),
    subcommands: &[
        row("encoding", "2.2.3", "How Redis would keep the value: int, embstr or raw.", |keyspace, args| {
            of_value(keyspace, args[2], |value| Ok(Reply::bulk(encoding(string_of(value)?))))
        }),
        row(
            "freq",
            "4.0.0",
            "An error: nothing is evicted, so how often a key is used is not counted.",
            |keyspace, args| {
                of_value(keyspace, args[2], |_| {
                    let text = "ERR An LFU maxmemory policy is not selected, access frequency not tracked. \
                            Please note that when switching between policies at runtime LRU and LFU data will \
                            take some time to adjust.";
                    Err(CommandError::Other(text.into()))
                })
            },
        ),
        Command {
            name: "help",
            parent: "object",
            arity: 2,
            flags: Flags::LOADING.with(Flags::STALE),
            group: "generic",
            since: "6.2.0",
            summary: "The subcommands.",
            categories: Categories::KEYSPACE.with(Categories::SLOW),
            handler: Handler::Session(|_, _, _| Ok(help_of("object"))),
            ..Command::BASE
        },
        row(
            "idletime",
            "2.2.3",
            "An error: nothing is evicted, so when a key was last used is not kept.",
            |keyspace, args| {
                of_value(keyspace, args[2], |_| {
                    let text = "ERR nothing is evicted, idle time not tracked";
                    Err(CommandError::Other(text.into()))
                })
            },
        ),
        row("refcount", "2.2.3", "1: values are not shared.", |keyspace, args| {
            of_value(keyspace, args[2], |_| Ok(Reply::Integer(1)))
        }),
    ],
    ..Command::BASE
};

const fn row(name: &'static str, since: &'static str, summary: &'static str, run: KeysFn) -> Command {
    Command {
        name,
        parent: "object",
        syntax: "key",
        arity: 3,
        flags: Flags::READONLY,
        keys: KeySpec { first: 2, last: 2, step: 1 },
        group: "generic",
        since,
        summary,
        categories: CATEGORIES,
        handler: Handler::Keys { run, over: Over::One },
        ..Command::BASE
    }
}

fn of_value(
    keyspace: &mut Keyspace<'_>,
    key: &[u8],
    show: impl FnOnce(Value<'_>) -> Result<Reply<'static>, CommandError>,
) -> Result<Reply<'static>, CommandError> {
    keyspace.get(key).map_or(Ok(Reply::Null), |entry| show(entry.value))
}

/// What Redis chooses for a string: `tryObjectEncoding` in its object.c.
fn encoding(value: &[u8]) -> &'static str {
    match value.len() {
        0..=20 if parse_i64(value).is_some() => "int",
        0..=EMBSTR_BYTES_MAX => "embstr",
        _ => "raw",
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{World, check};

    #[test]
    fn encodings_are_those_of_redis() {
        check(&[
            ("set a 9223372036854775807", "object encoding a", "'int'"),
            ("set a -9223372036854775808", "object encoding a", "'int'"),
            ("set a 9223372036854775808", "object encoding a", "'embstr'"),
            ("set a 007", "object encoding a", "'embstr'"),
            ("set a  px 50", "object encoding a", "'embstr'"),
            ("", "object encoding a", "(nil)"),
        ]);
        let mut world = World::new();
        for (length, encoding) in [(44, "'embstr'"), (45, "'raw'")] {
            world.run(&format!("set a {}", "x".repeat(length)));
            assert_eq!(world.run("OBJECT ENCODING a"), encoding);
        }
    }

    #[test]
    fn what_is_not_kept_is_not_told() {
        check(&[
            ("set a 1", "object refcount a", "(integer) 1"),
            ("set a 1", "object idletime a", "(error) ERR nothing is evicted, idle time not tracked"),
            ("", "object idletime a", "(nil)"),
            ("", "object freq a", "(nil)"),
            ("", "object", "(error) ERR wrong number of arguments for 'object' command"),
            ("", "object freq", "(error) ERR wrong number of arguments for 'object|freq' command"),
            ("", "object nope", "(error) ERR unknown subcommand 'nope'. Try OBJECT HELP."),
        ]);
        let mut world = World::new();
        world.run("set a 1");
        assert!(
            world.run("object freq a").starts_with("(error) ERR An LFU maxmemory policy is not selected")
        );
        assert!(world.run("object help").contains("ENCODING key"));
    }
}
