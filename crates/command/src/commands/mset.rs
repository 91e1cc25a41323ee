//! MSET: stores several strings at once.

use super::put_string;
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Merge, Over, Reply};
use storage::Keyspace;

/// MSET key value [key value ...]
pub(crate) const COMMAND: Command = Command {
    name: "mset",
    syntax: "key value [key value ...]",
    arity: -3,
    flags: Flags::WRITE.with(Flags::DENYOOM),
    keys: KeySpec { first: 1, last: -1, step: 2 },
    group: "string",
    since: "1.0.1",
    complexity: "O(N), N the number of keys",
    summary: "Stores several strings; atomic within a partition.",
    categories: Categories::WRITE.with(Categories::STRING).with(Categories::SLOW),
    handler: Handler::Keys { run, over: Over::Split(Merge::AllOk) },
    ..Command::BASE
};

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    // All or nothing: keys are checked before the first is stored.
    COMMAND.check_keys(args)?;
    for pair in args[1..].chunks_exact(2) {
        put_string(keyspace, pair[0], pair[1], None)?;
    }
    Ok(Reply::ok())
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn mset() {
        check(&[
            ("", "mset a 1 b 2", "OK"),
            ("mset a 1 b 2 a 3", "mget a b", "['3', '2']"),
            ("set a 1 ex 10; mset a 2", "ttl a", "(integer) -1"),
            ("", "mset a", "(error) ERR wrong number of arguments for 'mset' command"),
            ("", "mset a 1 b", "(error) ERR wrong number of arguments for 'mset' command"),
        ]);
    }
}
