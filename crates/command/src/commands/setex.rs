//! SETEX, PSETEX: stores a string for a time.

use super::{end_ms, put_string};
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, KeysFn, Over, Reply};
use storage::Keyspace;

const fn row(
    name: &'static str,
    syntax: &'static str,
    since: &'static str,
    summary: &'static str,
    run: KeysFn,
) -> Command {
    Command {
        name,
        syntax,
        arity: 4,
        flags: Flags::WRITE.with(Flags::DENYOOM),
        keys: KeySpec::ONE,
        group: "string",
        since,
        summary,
        categories: Categories::WRITE.with(Categories::STRING).with(Categories::SLOW),
        handler: Handler::Keys { run, over: Over::One },
        ..Command::BASE
    }
}

/// SETEX key seconds value
pub(crate) const SETEX: Command = row(
    "setex",
    "key seconds value",
    "2.0.0",
    "Stores a string, whatever was there, with seconds to live.",
    |keyspace, args| run(keyspace, args, "setex", true),
);

/// PSETEX key milliseconds value
pub(crate) const PSETEX: Command = row(
    "psetex",
    "key milliseconds value",
    "2.6.0",
    "Stores a string, whatever was there, with milliseconds to live.",
    |keyspace, args| run(keyspace, args, "psetex", false),
);

fn run<'t>(
    keyspace: &'t mut Keyspace<'_>,
    args: &[&[u8]],
    name: &'static str,
    seconds: bool,
) -> Result<Reply<'t>, CommandError> {
    let end = end_ms(name, args[2], seconds, true, keyspace.now_ms())?;
    put_string(keyspace, args[1], args[3], Some(end))?;
    Ok(Reply::ok())
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    const NOT_INTEGER: &str = "(error) ERR value is not an integer or out of range";
    const SETEX_INVALID: &str = "(error) ERR invalid expire time in 'setex' command";
    const PSETEX_INVALID: &str = "(error) ERR invalid expire time in 'psetex' command";

    #[test]
    fn setex_and_psetex() {
        check(&[
            ("", "setex a 10 1", "OK"),
            ("", "psetex a 10 1", "OK"),
            ("setex a 10 1", "get a", "'1'"),
            ("setex a 10 1", "pttl a", "(integer) 10000"),
            ("psetex a 10 1", "pttl a", "(integer) 10"),
            ("psetex a 10 1; sleep 10", "get a", "(nil)"),
            ("set a 1; setex a 10 2", "get a", "'2'"),
            ("set a 1 px 5; setex a 10 2", "ttl a", "(integer) 10"),
            ("", "setex a 0 1", SETEX_INVALID),
            ("", "setex a -1 1", SETEX_INVALID),
            ("", "setex a 9223372036854775807 1", SETEX_INVALID),
            ("", "psetex a 0 1", PSETEX_INVALID),
            ("", "psetex a 9223372036854775807 1", PSETEX_INVALID),
            ("set a 1; setex a 0 2", "get a", "'1'"),
            ("", "setex a x 1", NOT_INTEGER),
            ("", "psetex a 1.5 1", NOT_INTEGER),
            ("", "setex a 10", "(error) ERR wrong number of arguments for 'setex' command"),
            ("", "psetex a 10", "(error) ERR wrong number of arguments for 'psetex' command"),
        ]);
    }
}
