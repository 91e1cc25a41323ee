//! GETRANGE, SUBSTR: a part of a string.

use super::{integer, string_of};
use crate::{Blob, Categories, Command, CommandError, Flags, Handler, KeySpec, Over, Reply};
use storage::Keyspace;

/// GETRANGE key start end
pub(crate) const GETRANGE: Command = Command {
    name: "getrange",
    syntax: "key start end",
    arity: 4,
    flags: Flags::READONLY,
    keys: KeySpec::ONE,
    group: "string",
    since: "2.4.0",
    complexity: "O(N), N the length of the part",
    summary: "The bytes of a string from start to end, both included; a negative place counts from the string's end.",
    categories: Categories::READ.with(Categories::STRING).with(Categories::SLOW),
    handler: Handler::Keys { run, over: Over::One },
    ..Command::BASE
};

/// SUBSTR key start end
pub(crate) const SUBSTR: Command =
    Command { name: "substr", since: "1.0.0", summary: "GETRANGE by its old name.", ..GETRANGE };

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    let (start, end) = (integer(args[2])?, integer(args[3])?);
    Ok(Reply::Bulk(match keyspace.get(args[1]) {
        Some(entry) => Blob::part_of(&entry, part(string_of(entry.value)?, start, end)),
        None => Blob::Borrowed(&[]),
    }))
}

fn part(value: &[u8], start: i64, end: i64) -> &[u8] {
    // Said of the places as they were given: below, those before the string's beginning become its beginning.
    if value.is_empty() || (start < 0 && end < 0 && start > end) {
        return &[];
    }
    let length = value.len() as i64;
    let place = |at: i64| if at < 0 { (at + length).max(0) } else { at };
    let (start, end) = (place(start), place(end).min(length - 1));
    if start > end { &[] } else { &value[start as usize..=end as usize] }
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    const NOT_INTEGER: &str = "(error) ERR value is not an integer or out of range";

    #[test]
    fn getrange() {
        check(&[
            ("", "getrange a 0 -1", "''"),
            ("set a hello", "getrange a 0 -1", "'hello'"),
            ("set a hello", "getrange a 0 0", "'h'"),
            ("set a hello", "getrange a 1 3", "'ell'"),
            ("set a hello", "getrange a -3 -2", "'ll'"),
            ("set a hello", "getrange a -3 100", "'llo'"),
            ("set a hello", "getrange a -100 1", "'he'"),
            ("set a hello", "getrange a 0 -100", "'h'"),
            ("set a hello", "getrange a -100 -100", "'h'"),
            ("set a hello", "getrange a -100 -101", "''"),
            ("set a hello", "getrange a 3 1", "''"),
            ("set a hello", "getrange a 5 9", "''"),
            ("set a hello", "getrange a -1 -2", "''"),
            ("set a hello", "getrange a -9223372036854775808 9223372036854775807", "'hello'"),
            ("", "getrange a x 1", NOT_INTEGER),
            ("", "getrange a 0 1.5", NOT_INTEGER),
            ("", "getrange a 0", "(error) ERR wrong number of arguments for 'getrange' command"),
        ]);
    }

    #[test]
    fn substr() {
        check(&[
            ("set a hello", "substr a 1 3", "'ell'"),
            ("", "substr a 0 -1", "''"),
            ("", "substr a 0", "(error) ERR wrong number of arguments for 'substr' command"),
        ]);
    }
}
