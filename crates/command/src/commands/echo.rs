//! ECHO: the message back.

use crate::{Categories, Command, Flags, Handler, Reply};

/// ECHO message
pub(crate) const COMMAND: Command = Command {
    name: "echo",
    syntax: "message",
    arity: 2,
    flags: Flags::FAST.with(Flags::LOADING).with(Flags::STALE),
    group: "connection",
    summary: "The message.",
    categories: Categories::FAST.with(Categories::CONNECTION),
    handler: Handler::Session(|_, _, args| Ok(Reply::bulk(args[1]))),
    ..Command::BASE
};

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn echo() {
        check(&[
            ("", "echo hello", "'hello'"),
            ("", "echo", "(error) ERR wrong number of arguments for 'echo' command"),
        ]);
    }
}
