//! SELECT: there is one database, 0.

use super::database;
use crate::{Categories, Command, CommandError, Flags, Handler, Host, Reply, Session};

/// SELECT index
pub(crate) const COMMAND: Command = Command {
    name: "select",
    syntax: "index",
    arity: 2,
    flags: Flags::FAST.with(Flags::LOADING).with(Flags::STALE),
    group: "connection",
    summary: "Chooses a database: 0, the only one.",
    categories: Categories::FAST.with(Categories::CONNECTION),
    handler: Handler::Session(run),
    ..Command::BASE
};

fn run(_: &mut Session, _: &mut dyn Host, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    database(args[1]).map(|()| Reply::ok())
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn select() {
        check(&[
            ("", "select 0", "OK"),
            ("", "select 1", "(error) ERR DB index is out of range"),
            ("", "select -1", "(error) ERR DB index is out of range"),
            (
                "",
                "select 99999999999",
                "(error) ERR value is out of range, value must between -2147483648 and 2147483647",
            ),
            ("", "select x", "(error) ERR value is not an integer or out of range"),
        ]);
    }
}
