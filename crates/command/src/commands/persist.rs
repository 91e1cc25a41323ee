//! PERSIST: takes a key's time to live away.

use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Over, Reply};
use storage::Keyspace;

/// PERSIST key
pub(crate) const COMMAND: Command = Command {
    name: "persist",
    syntax: "key",
    arity: 2,
    flags: Flags::WRITE.with(Flags::FAST),
    keys: KeySpec::ONE,
    group: "generic",
    since: "2.2.0",
    summary: "Takes a key's time to live away; 1 if it had one.",
    categories: Categories::KEYSPACE.with(Categories::WRITE).with(Categories::FAST),
    handler: Handler::Keys { run, over: Over::One },
    ..Command::BASE
};

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    let ends = keyspace.get(args[1]).is_some_and(|entry| entry.expire_at_ms.is_some());
    Ok(Reply::flag(ends && keyspace.set_expiry(args[1], None)))
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn persist() {
        check(&[
            ("", "persist a", "(integer) 0"),
            ("set a 1", "persist a", "(integer) 0"),
            ("set a 1 ex 5", "persist a", "(integer) 1"),
            ("set a 1 ex 5; persist a", "ttl a", "(integer) -1"),
        ]);
    }
}
