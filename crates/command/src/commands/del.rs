//! DEL, UNLINK: removes keys. DELETE is the same as DEL.
//!
//! UNLINK is for Redis, where it leaves the freeing of memory for later; here both do the same.

use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Merge, Over, Reply};
use storage::Keyspace;

/// DEL key [key ...]
pub(crate) const COMMAND: Command = Command {
    name: "del",
    aliases: &["delete"],
    syntax: "key [key ...]",
    arity: -2,
    flags: Flags::WRITE,
    keys: KeySpec::ALL,
    group: "generic",
    complexity: "O(N), N the number of keys",
    summary: "Removes keys; the reply is how many there were.",
    categories: Categories::KEYSPACE.with(Categories::WRITE).with(Categories::SLOW),
    handler: Handler::Keys { run, over: Over::Split(Merge::Sum) },
    ..Command::BASE
};

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    Ok(Reply::count(args[1..].iter().filter(|key| keyspace.remove(key)).count()))
}

/// UNLINK key [key ...]
pub(crate) const UNLINK: Command = Command {
    name: "unlink",
    aliases: &[],
    flags: Flags::WRITE.with(Flags::FAST),
    since: "4.0.0",
    categories: Categories::KEYSPACE.with(Categories::WRITE).with(Categories::FAST),
    ..COMMAND
};

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn del() {
        check(&[
            ("", "del a", "(integer) 0"),
            ("mset a 1 b 2", "del a b c", "(integer) 2"),
            ("set a 1", "delete a a", "(integer) 1"),
            ("set a 1; del a", "get a", "(nil)"),
            ("set a 1 px 1; sleep 1", "del a", "(integer) 0"),
            ("", "del", "(error) ERR wrong number of arguments for 'del' command"),
        ]);
    }

    #[test]
    fn unlink() {
        check(&[
            ("", "unlink a", "(integer) 0"),
            ("mset a 1 b 2", "unlink a b c", "(integer) 2"),
            ("set a 1", "unlink a a", "(integer) 1"),
            ("set a 1; unlink a", "get a", "(nil)"),
            ("set a 1 px 1; sleep 1", "unlink a", "(integer) 0"),
            ("", "unlink", "(error) ERR wrong number of arguments for 'unlink' command"),
        ]);
    }
}
