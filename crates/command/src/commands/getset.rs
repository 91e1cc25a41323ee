//! GETSET: stores a string and shows what was there.

use super::{blob_of, put_string};
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Over, Reply};
use storage::Keyspace;

/// GETSET key value
pub(crate) const COMMAND: Command = Command {
    name: "getset",
    syntax: "key value",
    arity: 3,
    flags: Flags::WRITE.with(Flags::DENYOOM).with(Flags::FAST),
    keys: KeySpec::ONE,
    group: "string",
    summary: "Stores a string and replies with the string that was there, or nothing.",
    categories: Categories::WRITE.with(Categories::STRING).with(Categories::FAST),
    handler: Handler::Keys { run, over: Over::One },
    ..Command::BASE
};

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    let old = match keyspace.get(args[1]) {
        Some(entry) => Reply::Bulk(blob_of(&entry)?.without_borrow()),
        None => Reply::Null,
    };
    put_string(keyspace, args[1], args[2], None)?;
    Ok(old)
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn getset() {
        check(&[
            ("", "getset a 1", "(nil)"),
            ("getset a 1", "get a", "'1'"),
            ("set a 1", "getset a 2", "'1'"),
            ("set a 1; getset a 2", "get a", "'2'"),
            ("set a 1 ex 10; getset a 2", "ttl a", "(integer) -1"),
            ("", "getset a", "(error) ERR wrong number of arguments for 'getset' command"),
        ]);
    }
}
