//! MGET: several strings at once.

use super::blob_of;
use crate::{Blob, Categories, Command, CommandError, Flags, Handler, KeySpec, Merge, Over, Reply};
use storage::Keyspace;

/// MGET key [key ...]
pub(crate) const COMMAND: Command = Command {
    name: "mget",
    syntax: "key [key ...]",
    arity: -2,
    flags: Flags::READONLY.with(Flags::FAST),
    keys: KeySpec::ALL,
    group: "string",
    complexity: "O(N), N the number of keys",
    summary: "The values of several strings; nothing for a key that is absent or holds another type.",
    categories: Categories::READ.with(Categories::STRING).with(Categories::FAST),
    handler: Handler::Keys { run, over: Over::Split(Merge::InKeyOrder) },
    ..Command::BASE
};

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    let one = |key: &&[u8]| match keyspace.get(key).map(|entry| blob_of(&entry).map(Blob::without_borrow)) {
        Some(Ok(value)) => Reply::Bulk(value),
        // Of another type, or absent.
        Some(Err(_)) | None => Reply::Null,
    };
    Ok(Reply::Array(args[1..].iter().map(one).collect()))
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn mget() {
        check(&[
            ("", "mget a", "[(nil)]"),
            ("mset a 1 b 2", "mget b x a b", "['2', (nil), '1', '2']"),
            ("", "mget", "(error) ERR wrong number of arguments for 'mget' command"),
        ]);
    }
}
