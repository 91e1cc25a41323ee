//! QUIT: closes the connection, once all replies are out.

use crate::{Categories, Command, CommandError, Flags, Handler, Host, Reply, Session};

/// QUIT
pub(crate) const COMMAND: Command = Command {
    name: "quit",
    arity: -1,
    flags: Flags::FAST.with(Flags::LOADING).with(Flags::STALE).with(Flags::NO_AUTH).with(Flags::NOSCRIPT),
    group: "connection",
    summary: "Closes the connection.",
    categories: Categories::FAST.with(Categories::CONNECTION),
    handler: Handler::Session(run),
    ..Command::BASE
};

fn run(session: &mut Session, _: &mut dyn Host, _: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    session.close_after_reply = true;
    Ok(Reply::ok())
}

#[cfg(test)]
mod tests {
    use crate::testing::World;

    #[test]
    fn quit() {
        let mut world = World::with_password("secret");
        assert_eq!(world.run("quit"), "OK");
        assert!(world.session.close_after_reply);
    }
}
