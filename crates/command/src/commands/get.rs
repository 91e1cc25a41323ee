//! GET: a string's value.

use super::blob_of;
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Over, Reply};
use storage::Keyspace;

/// GET key
pub(crate) const COMMAND: Command = Command {
    name: "get",
    syntax: "key",
    arity: 2,
    flags: Flags::READONLY.with(Flags::FAST),
    keys: KeySpec::ONE,
    group: "string",
    summary: "The value of a string, or nothing.",
    categories: Categories::READ.with(Categories::STRING).with(Categories::FAST),
    handler: Handler::Keys { run, over: Over::One },
    ..Command::BASE
};

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    match keyspace.get(args[1]) {
        Some(entry) => Ok(Reply::Bulk(blob_of(&entry)?)),
        None => Ok(Reply::Null),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn get() {
        check(&[
            ("", "get a", "(nil)"),
            ("set a 1", "get a", "'1'"),
            ("set a 1 px 5; sleep 5", "get a", "(nil)"),
            ("", "get", "(error) ERR wrong number of arguments for 'get' command"),
        ]);
    }
}
