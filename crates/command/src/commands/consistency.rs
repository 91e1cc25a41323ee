//! CONSISTENCY: what this connection's reads may show, and when its writes are acknowledged.

use super::{is, shown};
use crate::{Categories, Command, CommandError, Flags, Handler, Host, Reply, Session};

/// CONSISTENCY [READ level] [WRITE level]
pub(crate) const COMMAND: Command = Command {
    name: "consistency",
    syntax: "[READ linearizable | stale] [WRITE all | quorum | one]",
    arity: -1,
    flags: Flags::FAST.with(Flags::LOADING).with(Flags::STALE),
    group: "connection",
    since: "0.1.0",
    summary: "Chooses this connection's levels; without arguments shows both.",
    categories: Categories::FAST.with(Categories::CONNECTION),
    handler: Handler::Session(run),
    ..Command::BASE
};

fn run(session: &mut Session, _: &mut dyn Host, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    if args.len() == 1 {
        return Ok(Reply::Map(vec![
            (Reply::bulk("read"), Reply::bulk(session.read_level.to_string())),
            (Reply::bulk("write"), Reply::bulk(session.write_level.to_string())),
        ]));
    }
    // Both are read before either takes effect.
    let (mut read_level, mut write_level) = (session.read_level, session.write_level);
    for option in args[1..].chunks(2) {
        let [word, level] = option else { return Err(CommandError::Syntax) };
        let text = String::from_utf8_lossy(level);
        if is(word, "read") {
            read_level = text.parse().map_err(|()| unknown("read", level, "linearizable or stale"))?;
        } else if is(word, "write") {
            write_level = text.parse().map_err(|()| unknown("write", level, "all, quorum or one"))?;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    (session.read_level, session.write_level) = (read_level, write_level);
    Ok(Reply::ok())
}

fn unknown(what: &str, level: &[u8], expected: &str) -> CommandError {
    CommandError::Other(format!("ERR unknown {what} level '{}': {expected}", shown(level)))
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn consistency() {
        check(&[
            ("", "consistency", "{'read': 'linearizable', 'write': 'all'}"),
            ("", "consistency read stale", "OK"),
            ("consistency read stale", "consistency", "{'read': 'stale', 'write': 'all'}"),
            ("consistency WRITE One READ STALE", "consistency", "{'read': 'stale', 'write': 'one'}"),
            ("consistency write one read x", "consistency", "{'read': 'linearizable', 'write': 'all'}"),
            ("", "consistency read x", "(error) ERR unknown read level 'x': linearizable or stale"),
            ("", "consistency write x", "(error) ERR unknown write level 'x': all, quorum or one"),
            ("", "consistency read", "(error) ERR syntax error"),
            ("", "consistency x y", "(error) ERR syntax error"),
        ]);
    }
}
