//! INCR, INCRBY, DECR, DECRBY: a string that holds an integer, plus another.

use super::{integer, put_string, string_of};
use crate::number::{Digits, parse_i64};
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, KeysFn, Over, Reply};
use storage::Keyspace;

const fn row(name: &'static str, run: KeysFn, summary: &'static str) -> Command {
    Command {
        name,
        syntax: "key",
        arity: 2,
        flags: Flags::WRITE.with(Flags::DENYOOM).with(Flags::FAST),
        keys: KeySpec::ONE,
        group: "string",
        summary,
        categories: Categories::WRITE.with(Categories::STRING).with(Categories::FAST),
        handler: Handler::Keys { run, over: Over::One },
        ..Command::BASE
    }
}

/// INCR key
pub(crate) const INCR: Command =
    row("incr", |keyspace, args| add(keyspace, args[1], 1), "Adds 1 to an integer; an absent key is 0.");

/// DECR key
pub(crate) const DECR: Command =
    row("decr", |keyspace, args| add(keyspace, args[1], -1), "Takes 1 from an integer; an absent key is 0.");

/// INCRBY key increment
pub(crate) const INCRBY: Command = Command {
    syntax: "key increment",
    arity: 3,
    ..row(
        "incrby",
        |keyspace, args| add(keyspace, args[1], integer(args[2])?),
        "Adds a number to an integer; an absent key is 0.",
    )
};

/// DECRBY key decrement
pub(crate) const DECRBY: Command = Command {
    syntax: "key decrement",
    arity: 3,
    ..row(
        "decrby",
        |keyspace, args| {
            let decrement = integer(args[2])?.checked_neg().ok_or(CommandError::DecrementOverflow)?;
            add(keyspace, args[1], decrement)
        },
        "Takes a number from an integer; an absent key is 0.",
    )
};

fn add<'t>(keyspace: &'t mut Keyspace<'_>, key: &[u8], by: i64) -> Result<Reply<'t>, CommandError> {
    let (old, expire_at_ms) = match keyspace.get(key) {
        Some(entry) => {
            let old = parse_i64(string_of(entry.value)?).ok_or(CommandError::NotInteger)?;
            (old, entry.expire_at_ms)
        }
        None => (0, None),
    };
    let new = old.checked_add(by).ok_or(CommandError::IncrementOverflow)?;
    put_string(keyspace, key, Digits::new(new).as_bytes(), expire_at_ms)?;
    Ok(Reply::Integer(new))
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    const NOT_INTEGER: &str = "(error) ERR value is not an integer or out of range";
    const OVERFLOW: &str = "(error) ERR increment or decrement would overflow";

    #[test]
    fn incr_and_decr() {
        check(&[
            ("", "incr a", "(integer) 1"),
            ("set a 41; incr a", "get a", "'42'"),
            ("", "decr a", "(integer) -1"),
            ("", "incrby a 5", "(integer) 5"),
            ("set a 10", "incrby a -3", "(integer) 7"),
            ("set a 10", "decrby a 3", "(integer) 7"),
            ("set a 10", "decrby a -3", "(integer) 13"),
            ("set a 1 px 100; incr a", "pttl a", "(integer) 100"),
            ("set a x", "incr a", NOT_INTEGER),
            ("set a 01", "incr a", NOT_INTEGER),
            ("set a 9223372036854775808", "incr a", NOT_INTEGER),
            ("", "incrby a x", NOT_INTEGER),
            ("", "incrby a 1.5", NOT_INTEGER),
            ("set a 9223372036854775807", "incr a", OVERFLOW),
            ("set a 9223372036854775807; incr a", "get a", "'9223372036854775807'"),
            ("set a -9223372036854775808", "decr a", OVERFLOW),
            ("", "incrby a -9223372036854775808", "(integer) -9223372036854775808"),
            ("", "decrby a -9223372036854775808", "(error) ERR decrement would overflow"),
            ("", "incrby a", "(error) ERR wrong number of arguments for 'incrby' command"),
        ]);
    }
}
