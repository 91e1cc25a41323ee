//! WAIT: how many backups hold this connection's writes. The node counts; here is what a request says.

use super::integer;
use crate::number::parse_i64;
use crate::{Categories, Command, CommandError, Flags, Handler};

/// WAIT numreplicas timeout
pub(crate) const COMMAND: Command = Command {
    name: "wait",
    syntax: "numreplicas timeout",
    arity: 3,
    flags: Flags::BLOCKING,
    group: "generic",
    since: "3.0.0",
    summary: "Waits until that many backups hold this connection's last writes, or the milliseconds are over (0: no limit); the fewest that do.",
    categories: Categories::SLOW.with(Categories::BLOCKING).with(Categories::CONNECTION),
    handler: Handler::Wait,
    ..Command::BASE
};

/// Reads a request: how many backups, and for how many milliseconds at most (0: without limit).
pub fn parse(args: &[&[u8]]) -> Result<(i64, u64), CommandError> {
    let [_, backups, timeout] = args else { return Err(CommandError::WrongArity { command: "wait".into() }) };
    let backups = integer(backups)?;
    let timeout = parse_i64(timeout).ok_or(CommandError::BadTimeout)?;
    Ok((backups, u64::try_from(timeout).map_err(|_| CommandError::NegativeTimeout)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait() {
        assert_eq!(parse(&[b"wait", b"1", b"100"]), Ok((1, 100)));
        assert_eq!(parse(&[b"wait", b"-1", b"0"]), Ok((-1, 0)));
        assert_eq!(parse(&[b"wait", b"x", b"0"]), Err(CommandError::NotInteger));
        assert_eq!(parse(&[b"wait", b"1", b"x"]), Err(CommandError::BadTimeout));
        assert_eq!(parse(&[b"wait", b"1", b"-1"]), Err(CommandError::NegativeTimeout));
    }
}
