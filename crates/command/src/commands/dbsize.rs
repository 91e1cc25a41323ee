//! DBSIZE: how many keys there are.

use crate::{Categories, Command, CommandError, Flags, Handler, Merge, Reply};
use storage::Keyspace;

/// DBSIZE
pub(crate) const COMMAND: Command = Command {
    name: "dbsize",
    flags: Flags::READONLY.with(Flags::FAST),
    group: "server",
    summary: "How many keys there are; one whose time has come may still be counted for a moment.",
    categories: Categories::KEYSPACE.with(Categories::READ).with(Categories::FAST),
    handler: Handler::Everywhere { run, merge: Merge::Sum },
    ..Command::BASE
};

fn run<'t>(keyspace: &'t mut Keyspace<'_>, _args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    Ok(Reply::count(keyspace.len()))
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn dbsize() {
        check(&[
            ("", "dbsize", "(integer) 0"),
            ("mset a 1 b 2", "dbsize", "(integer) 2"),
            ("", "dbsize x", "(error) ERR wrong number of arguments for 'dbsize' command"),
        ]);
    }
}
