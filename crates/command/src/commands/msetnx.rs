//! MSETNX: stores several strings at once, if none of the keys is there.
//!
//! All or nothing needs one partition, so its keys may not lie in several.

use super::put_string;
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Over, Reply};
use storage::Keyspace;
use types::limits::VALUE_BYTES_MAX;

/// MSETNX key value [key value ...]
pub(crate) const COMMAND: Command = Command {
    name: "msetnx",
    syntax: "key value [key value ...]",
    arity: -3,
    flags: Flags::WRITE.with(Flags::DENYOOM),
    keys: KeySpec { first: 1, last: -1, step: 2 },
    group: "string",
    since: "1.0.1",
    complexity: "O(N), N the number of keys",
    summary: "Stores several strings if none of the keys is there; atomic.",
    categories: Categories::WRITE.with(Categories::STRING).with(Categories::SLOW),
    handler: Handler::Keys { run, over: Over::One },
    ..Command::BASE
};

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    let pairs = || args[1..].chunks_exact(2);
    // All or nothing: everything is checked before the first is stored.
    COMMAND.check_keys(args)?;
    if pairs().any(|pair| pair[1].len() > VALUE_BYTES_MAX) {
        return Err(CommandError::ValueTooLong);
    }
    if pairs().any(|pair| keyspace.get(pair[0]).is_some()) {
        return Ok(Reply::Integer(0));
    }
    for pair in pairs() {
        put_string(keyspace, pair[0], pair[1], None)?;
    }
    Ok(Reply::Integer(1))
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn msetnx() {
        check(&[
            ("", "msetnx a 1 b 2", "(integer) 1"),
            ("msetnx a 1 b 2", "mget a b", "['1', '2']"),
            ("msetnx a 1 b 2 a 3", "mget a b", "['3', '2']"),
            ("set b 0", "msetnx a 1 b 2", "(integer) 0"),
            ("set b 0; msetnx a 1 b 2", "mget a b", "[(nil), '0']"),
            ("set a 0 px 1; sleep 1", "msetnx a 1", "(integer) 1"),
            ("set a 0 px 1; sleep 1; msetnx a 1", "ttl a", "(integer) -1"),
            ("", "msetnx a", "(error) ERR wrong number of arguments for 'msetnx' command"),
            ("", "msetnx a 1 b", "(error) ERR wrong number of arguments for 'msetnx' command"),
        ]);
    }
}
