//! SETRANGE: a part of a string overwritten.

use super::{integer, put_string, string_of};
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Over, Reply};
use storage::Keyspace;
use types::limits::VALUE_BYTES_MAX;
use types::planted::{self, Bug};

/// SETRANGE key offset value
pub(crate) const COMMAND: Command = Command {
    name: "setrange",
    syntax: "key offset value",
    arity: 4,
    flags: Flags::WRITE.with(Flags::DENYOOM),
    keys: KeySpec::ONE,
    group: "string",
    since: "2.2.0",
    complexity: "O(N), N the new length",
    summary: "Overwrites a string from an offset on, with zero bytes up to there where it was shorter; the reply is the new length.",
    categories: Categories::WRITE.with(Categories::STRING).with(Categories::SLOW),
    handler: Handler::Keys { run, over: Over::One },
    ..Command::BASE
};

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    let (key, part) = (args[1], args[3]);
    let Ok(offset) = u64::try_from(integer(args[2])?) else {
        return Err(CommandError::Other("ERR offset is out of range".into()));
    };
    let (old, expire_at_ms) = match keyspace.get(key) {
        Some(entry) => (string_of(entry.value)?, entry.expire_at_ms),
        None => (&[][..], None),
    };
    // Nothing to write makes no key and no zero bytes, wherever it was to go.
    if part.is_empty() {
        return Ok(Reply::count(old.len()));
    }
    // Before anything is copied.
    let start = usize::try_from(offset).map_err(|_| CommandError::ValueTooLong)?;
    let end = start
        .checked_add(part.len())
        .filter(|end| *end <= VALUE_BYTES_MAX)
        .ok_or(CommandError::ValueTooLong)?;
    let mut value = Vec::with_capacity(old.len().max(end));
    value.extend_from_slice(old);
    value.resize(old.len().max(end), 0);
    value[start..end].copy_from_slice(part);
    if planted::is(Bug::SetRangeCutsTail) {
        value.truncate(end);
    }
    put_string(keyspace, key, &value, expire_at_ms)?;
    Ok(Reply::count(value.len()))
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    const TOO_LONG: &str = "(error) ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    const OUT_OF_RANGE: &str = "(error) ERR offset is out of range";

    #[test]
    fn setrange() {
        check(&[
            ("", "setrange a 0 xy", "(integer) 2"),
            ("setrange a 2 xy", "get a", "'\0\0xy'"),
            ("set a hello", "setrange a 1 ipp", "(integer) 5"),
            ("set a hello; setrange a 1 ipp", "get a", "'hippo'"),
            ("set a hello; setrange a 4 xy", "get a", "'hellxy'"),
            ("set a hello; setrange a 6 x", "get a", "'hello\0x'"),
            ("set a hello px 50; setrange a 0 j", "pttl a", "(integer) 50"),
            ("set a 10", "setrange a 0 2", "(integer) 2"),
        ]);
    }

    #[test]
    fn setrange_of_nothing() {
        check(&[
            ("", "setrange a 5 ", "(integer) 0"),
            ("", "setrange a 9223372036854775807 ", "(integer) 0"),
            ("set a hello", "setrange a 9 ", "(integer) 5"),
            ("", "setrange a -1 ", OUT_OF_RANGE),
        ]);
    }

    #[test]
    fn setrange_refuses() {
        check(&[
            ("", "setrange a -1 x", OUT_OF_RANGE),
            ("", "setrange a x x", "(error) ERR value is not an integer or out of range"),
            ("", "setrange a 536870912 x", TOO_LONG),
            ("", "setrange a 536870911 xy", TOO_LONG),
            ("", "setrange a 9223372036854775807 x", TOO_LONG),
            ("set a 1; setrange a 536870912 x", "get a", "'1'"),
            ("setrange a 536870912 x", "exists a", "(integer) 0"),
            ("", "setrange a 0", "(error) ERR wrong number of arguments for 'setrange' command"),
        ]);
    }
}
