//! FLUSHALL, FLUSHDB: removes every key. There is one database, so both do the same.

use super::is;
use crate::{Categories, Command, CommandError, Flags, Handler, Merge, Reply};
use storage::Keyspace;

/// FLUSHALL [ASYNC | SYNC]
pub(crate) const COMMAND: Command = Command {
    name: "flushall",
    syntax: "[ASYNC | SYNC]",
    arity: -1,
    flags: Flags::WRITE,
    group: "server",
    complexity: "O(N), N the number of keys of the cluster",
    summary: "Removes every key.",
    categories: Categories::KEYSPACE
        .with(Categories::WRITE)
        .with(Categories::SLOW)
        .with(Categories::DANGEROUS),
    handler: Handler::Everywhere { run, merge: Merge::AllOk },
    ..Command::BASE
};

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    match args {
        [_] => {}
        // Either way the keys are gone when the reply comes.
        [_, how] if is(how, "async") || is(how, "sync") => {}
        _ => return Err(CommandError::Syntax),
    }
    keyspace.clear();
    Ok(Reply::ok())
}

/// FLUSHDB [ASYNC | SYNC]
pub(crate) const FLUSHDB: Command = Command { name: "flushdb", ..COMMAND };

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn flushall() {
        check(&[
            ("", "flushall", "OK"),
            ("mset a 1 b 2; flushall", "dbsize", "(integer) 0"),
            ("set a 1; flushall async", "get a", "(nil)"),
            ("set a 1; flushall SYNC", "get a", "(nil)"),
            ("", "flushall now", "(error) ERR syntax error"),
            ("", "flushall sync async", "(error) ERR syntax error"),
        ]);
    }

    #[test]
    fn flushdb() {
        check(&[
            ("", "flushdb", "OK"),
            ("mset a 1 b 2; flushdb", "dbsize", "(integer) 0"),
            ("set a 1; flushdb async", "get a", "(nil)"),
            ("set a 1; flushdb SYNC", "get a", "(nil)"),
            ("", "flushdb now", "(error) ERR syntax error"),
            ("", "flushdb sync async", "(error) ERR syntax error"),
        ]);
    }
}
