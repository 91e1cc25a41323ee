//! GETDEL: a string's value, and the key is gone.

use super::blob_of;
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Over, Reply};
use storage::Keyspace;

/// GETDEL key
pub(crate) const COMMAND: Command = Command {
    name: "getdel",
    syntax: "key",
    arity: 2,
    flags: Flags::WRITE.with(Flags::FAST),
    keys: KeySpec::ONE,
    group: "string",
    since: "6.2.0",
    summary: "The value of a string, or nothing; the key is removed.",
    categories: Categories::WRITE.with(Categories::STRING).with(Categories::FAST),
    handler: Handler::Keys { run, over: Over::One },
    ..Command::BASE
};

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    let Some(entry) = keyspace.get(args[1]) else { return Ok(Reply::Null) };
    let value = Reply::Bulk(blob_of(&entry)?.without_borrow());
    keyspace.remove(args[1]);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn getdel() {
        check(&[
            ("", "getdel a", "(nil)"),
            ("set a 1", "getdel a", "'1'"),
            ("set a 1; getdel a", "exists a", "(integer) 0"),
            ("set a 1; getdel a", "getdel a", "(nil)"),
            ("set a 1 px 5; sleep 5", "getdel a", "(nil)"),
            ("", "getdel", "(error) ERR wrong number of arguments for 'getdel' command"),
            ("", "getdel a b", "(error) ERR wrong number of arguments for 'getdel' command"),
        ]);
    }
}
