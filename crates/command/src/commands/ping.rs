//! PING: whether anybody is there.

use crate::{Categories, Command, CommandError, Flags, Handler, Host, Reply, Session};

/// PING [message]
pub(crate) const COMMAND: Command = Command {
    name: "ping",
    syntax: "[message]",
    arity: -1,
    flags: Flags::FAST.with(Flags::LOADING).with(Flags::STALE),
    group: "connection",
    summary: "PONG, or the message.",
    categories: Categories::FAST.with(Categories::CONNECTION),
    handler: Handler::Session(run),
    ..Command::BASE
};

fn run(_: &mut Session, _: &mut dyn Host, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    match args {
        [_] => Ok(Reply::simple("PONG")),
        [_, message] => Ok(Reply::bulk(*message)),
        _ => Err(CommandError::WrongArity { command: "ping".into() }),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn ping() {
        check(&[
            ("", "ping", "PONG"),
            ("", "PING hello", "'hello'"),
            ("", "ping a b", "(error) ERR wrong number of arguments for 'ping' command"),
        ]);
    }
}
