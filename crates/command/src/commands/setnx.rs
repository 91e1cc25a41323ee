//! SETNX: stores a string where there was nothing.

use super::put_string;
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Over, Reply};
use storage::Keyspace;

/// SETNX key value
pub(crate) const COMMAND: Command = Command {
    name: "setnx",
    syntax: "key value",
    arity: 3,
    flags: Flags::WRITE.with(Flags::DENYOOM).with(Flags::FAST),
    keys: KeySpec::ONE,
    group: "string",
    summary: "Stores a string if the key is absent; 1 if it was.",
    categories: Categories::WRITE.with(Categories::STRING).with(Categories::FAST),
    handler: Handler::Keys { run, over: Over::One },
    ..Command::BASE
};

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    let absent = keyspace.get(args[1]).is_none();
    if absent {
        put_string(keyspace, args[1], args[2], None)?;
    }
    Ok(Reply::flag(absent))
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn setnx() {
        check(&[
            ("", "setnx a 1", "(integer) 1"),
            ("setnx a 1", "get a", "'1'"),
            ("setnx a 1", "ttl a", "(integer) -1"),
            ("set a 1", "setnx a 2", "(integer) 0"),
            ("set a 1; setnx a 2", "get a", "'1'"),
            ("set a 1 px 50; setnx a 2", "pttl a", "(integer) 50"),
            ("set a 1 px 5; sleep 5", "setnx a 2", "(integer) 1"),
            ("", "setnx a", "(error) ERR wrong number of arguments for 'setnx' command"),
            ("", "setnx a 1 2", "(error) ERR wrong number of arguments for 'setnx' command"),
        ]);
    }
}
