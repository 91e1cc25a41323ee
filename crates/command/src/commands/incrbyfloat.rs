//! INCRBYFLOAT: a string that holds a number with a point, plus another.

use super::{put_string, string_of};
use crate::long_double::{LongDouble, Parsed, format, parse};
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Over, Reply};
use storage::Keyspace;

/// INCRBYFLOAT key increment
pub(crate) const COMMAND: Command = Command {
    name: "incrbyfloat",
    syntax: "key increment",
    arity: 3,
    flags: Flags::WRITE.with(Flags::DENYOOM).with(Flags::FAST),
    keys: KeySpec::ONE,
    group: "string",
    since: "2.6.0",
    summary: "Adds a floating-point number to another; an absent key is 0, and the reply is the sum.",
    categories: Categories::WRITE.with(Categories::STRING).with(Categories::FAST),
    handler: Handler::Keys { run, over: Over::One },
    ..Command::BASE
};

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    let (old, expire_at_ms) = match keyspace.get(args[1]) {
        Some(entry) => (number(string_of(entry.value)?)?, entry.expire_at_ms),
        None => (Parsed::Finite(LongDouble::ZERO), None),
    };
    let sum = match (old, number(args[2])?) {
        (Parsed::Finite(old), Parsed::Finite(increment)) => old.add(increment),
        _ => None,
    };
    let sum = sum
        .map(format)
        .ok_or_else(|| CommandError::Other("ERR increment would produce NaN or Infinity".into()))?;
    put_string(keyspace, args[1], sum.as_bytes(), expire_at_ms)?;
    Ok(Reply::bulk(sum))
}

fn number(text: &[u8]) -> Result<Parsed, CommandError> {
    parse(text).ok_or(CommandError::NotFloat)
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    const NOT_FLOAT: &str = "(error) ERR value is not a valid float";
    const INFINITE: &str = "(error) ERR increment would produce NaN or Infinity";

    #[test]
    fn incrbyfloat() {
        check(&[
            ("", "incrbyfloat a 1.5", "'1.5'"),
            ("set a 10.50", "incrbyfloat a 0.1", "'10.6'"),
            ("set a 10.50; incrbyfloat a 0.1", "get a", "'10.6'"),
            ("set a 10.6", "incrbyfloat a -5", "'5.6'"),
            ("set a 5.0e3", "incrbyfloat a 2.0e2", "'5200'"),
            ("set a 3", "incrbyfloat a 1.000000000000000005", "'4.00000000000000001'"),
            ("set a 1 px 50; incrbyfloat a 1", "pttl a", "(integer) 50"),
            ("incrbyfloat a 1.5; incrbyfloat a 1.5", "incr a", "(integer) 4"),
        ]);
    }

    #[test]
    fn incrbyfloat_refuses() {
        check(&[
            ("", "incrbyfloat a x", NOT_FLOAT),
            ("", "incrbyfloat a nan", NOT_FLOAT),
            ("", "incrbyfloat a 1e5000", NOT_FLOAT),
            ("set a x", "incrbyfloat a 1", NOT_FLOAT),
            ("set a x", "incrbyfloat a inf", NOT_FLOAT),
            ("", "incrbyfloat a inf", INFINITE),
            ("set a -inf", "incrbyfloat a inf", INFINITE),
            ("set a 1e4932", "incrbyfloat a 1e4932", INFINITE),
            ("set a 1; incrbyfloat a inf", "get a", "'1'"),
            ("", "incrbyfloat a", "(error) ERR wrong number of arguments for 'incrbyfloat' command"),
        ]);
    }
}
