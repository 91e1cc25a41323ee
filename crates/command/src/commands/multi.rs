//! MULTI, EXEC, DISCARD: there are no transactions yet, and nothing of one is ever run.
//!
//! Clients send a transaction in one breath: MULTI, the commands, EXEC. Were MULTI only unknown, the commands would run
//! one by one before the client learns of it. So a refused MULTI refuses what follows, up to EXEC or DISCARD.

use crate::{Categories, Command, CommandError, Flags, Handler, Host, Reply, Session};

const ROW: Command = Command {
    arity: 1,
    flags: Flags::NOSCRIPT.with(Flags::LOADING).with(Flags::STALE).with(Flags::FAST),
    group: "transactions",
    since: "1.2.0",
    categories: Categories::FAST,
    ..Command::BASE
};

/// MULTI
pub(crate) const MULTI: Command = Command {
    name: "multi",
    summary: "Not supported yet: refused, with every command up to EXEC or DISCARD. Nothing of it is run.",
    handler: Handler::Session(multi),
    ..ROW
};

/// EXEC
pub(crate) const EXEC: Command = Command {
    name: "exec",
    summary: "Ends a refused transaction: nothing was run.",
    handler: Handler::Session(exec),
    ..ROW
};

/// DISCARD
pub(crate) const DISCARD: Command = Command {
    name: "discard",
    since: "2.0.0",
    summary: "Ends a refused transaction: nothing was run.",
    handler: Handler::Session(discard),
    ..ROW
};

/// Whether a command ends a refused transaction; any other is refused with it.
pub(crate) fn ends_refusal(command: &Command) -> bool {
    matches!(command.name, "exec" | "discard" | "quit" | "reset")
}

/// What the commands of a refused transaction are answered.
pub(crate) fn not_run() -> CommandError {
    CommandError::Other("ERR not run: MULTI is not supported yet, so nothing up to EXEC or DISCARD is".into())
}

/// What EXEC is answered when it has arguments: Redis aborts whatever it would have run.
pub(crate) fn malformed_exec() -> CommandError {
    CommandError::Other(
        "EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command".into(),
    )
}

fn multi(session: &mut Session, _: &mut dyn Host, _: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    session.refuses_transaction = true;
    Err(CommandError::Other(
        "ERR MULTI is not supported yet; nothing up to EXEC or DISCARD is run. Send the commands without it"
            .into(),
    ))
}

fn exec(session: &mut Session, _: &mut dyn Host, _: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    match std::mem::take(&mut session.refuses_transaction) {
        true => {
            Err(CommandError::Other("EXECABORT Transaction discarded: MULTI is not supported yet".into()))
        }
        false => Err(CommandError::Other("ERR EXEC without MULTI".into())),
    }
}

fn discard(session: &mut Session, _: &mut dyn Host, _: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    match std::mem::take(&mut session.refuses_transaction) {
        true => Ok(Reply::ok()),
        false => Err(CommandError::Other("ERR DISCARD without MULTI".into())),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;

    #[test]
    fn a_refused_transaction_says_so_until_it_ends() {
        let mut world = World::new();
        assert!(world.run("multi").starts_with("(error) ERR MULTI is not supported yet"));
        assert!(world.session.refuses_transaction);
        assert!(world.run("exec").starts_with("(error) EXECABORT"));
        assert!(!world.session.refuses_transaction);
        assert_eq!(world.run("exec"), "(error) ERR EXEC without MULTI");
        world.run("multi");
        assert_eq!(world.run("discard"), "OK");
        assert_eq!(world.run("discard"), "(error) ERR DISCARD without MULTI");
    }
}
