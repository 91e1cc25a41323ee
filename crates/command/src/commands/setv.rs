//! SETV: stores a string, maybe only over one version, and replies with the version that it got. Annulet's own, for
//! compare-and-set: with the value that was read, another's change to the same value would go unnoticed.

use super::{end_ms, is, put_string};
use crate::number::parse_i64;
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Over, Reply};
use storage::Keyspace;

/// SETV key value [NX | XX | IFVERSION version] [EX seconds | PX milliseconds | KEEPTTL]
pub(crate) const COMMAND: Command = Command {
    name: "setv",
    syntax: "key value [NX | XX | IFVERSION version] [EX seconds | PX milliseconds | KEEPTTL]",
    arity: -3,
    flags: Flags::WRITE.with(Flags::DENYOOM),
    keys: KeySpec::ONE,
    group: "string",
    since: "0.1.0",
    summary: "Stores a string and replies with its new version; with nothing where NX, XX or IFVERSION forbids it. GETV shows versions.",
    categories: Categories::WRITE.with(Categories::STRING).with(Categories::SLOW),
    handler: Handler::Keys { run, over: Over::One },
    ..Command::BASE
};

enum Condition {
    Always,
    IfAbsent,
    IfPresent,
    IfVersion(u64),
}

enum Lifetime<'a> {
    Forever,
    Keep,
    Time { amount: &'a [u8], seconds: bool },
}

/// A version as an argument.
pub(super) fn version(arg: &[u8]) -> Result<u64, CommandError> {
    parse_i64(arg).and_then(|version| u64::try_from(version).ok()).ok_or(CommandError::NotInteger)
}

fn parse<'a>(args: &[&'a [u8]]) -> Result<(Condition, Lifetime<'a>), CommandError> {
    let (mut condition, mut lifetime) = (Condition::Always, Lifetime::Forever);
    let mut words = args.iter().skip(3);
    while let Some(&word) = words.next() {
        let mut next = || words.next().copied().ok_or(CommandError::Syntax);
        match (&condition, &lifetime) {
            (Condition::Always, _) if is(word, "nx") => condition = Condition::IfAbsent,
            (Condition::Always, _) if is(word, "xx") => condition = Condition::IfPresent,
            (Condition::Always, _) if is(word, "ifversion") => {
                condition = Condition::IfVersion(version(next()?)?);
            }
            (_, Lifetime::Forever) if is(word, "keepttl") => lifetime = Lifetime::Keep,
            (_, Lifetime::Forever) if is(word, "ex") || is(word, "px") => {
                lifetime = Lifetime::Time { amount: next()?, seconds: is(word, "ex") };
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    Ok((condition, lifetime))
}

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    let (key, value) = (args[1], args[2]);
    let (condition, lifetime) = parse(args)?;
    let now_ms = keyspace.now_ms();
    let end = match lifetime {
        Lifetime::Time { amount, seconds } => Some(end_ms("setv", amount, seconds, true, now_ms)?),
        _ => None,
    };
    let old = keyspace.get(key).map(|entry| (entry.version, entry.expire_at_ms));
    let allowed = match condition {
        Condition::Always => true,
        Condition::IfAbsent => old.is_none(),
        Condition::IfPresent => old.is_some(),
        Condition::IfVersion(version) => old.is_some_and(|(old, _)| old.0 == version),
    };
    if !allowed {
        return Ok(Reply::Null);
    }
    let end = match lifetime {
        Lifetime::Keep => old.and_then(|(_, end)| end),
        _ => end,
    };
    put_string(keyspace, key, value, end)?;
    Ok(keyspace.get(key).map_or(Reply::Null, |entry| Reply::Integer(entry.version.0 as i64)))
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    const FIRST: &str = "(integer) 111411200000000000";
    const SECOND: &str = "(integer) 111411200000000001";
    const SYNTAX: &str = "(error) ERR syntax error";

    #[test]
    fn setv_tells_the_version() {
        check(&[
            ("", "setv a 1", FIRST),
            ("setv a 1", "setv a 1", SECOND),
            ("setv a 1", "get a", "'1'"),
            ("setv a 1 px 9", "pttl a", "(integer) 9"),
            ("setv a 1 ex 9; setv a 2 keepttl", "ttl a", "(integer) 9"),
            ("setv a 1 ex 9; setv a 2", "ttl a", "(integer) -1"),
        ]);
    }

    #[test]
    fn setv_under_a_condition() {
        check(&[
            ("", "setv a 1 nx", FIRST),
            ("set a 1", "setv a 2 nx", "(nil)"),
            ("", "setv a 1 xx", "(nil)"),
            ("set a 1", "setv a 2 xx", SECOND),
            ("", "setv a 1 ifversion 0", "(nil)"),
            ("set a 1", "setv a 2 ifversion 111411200000000000", SECOND),
            ("set a 1; set a 1", "setv a 2 ifversion 111411200000000000", "(nil)"),
            ("set a 1 px 5; sleep 5", "setv a 2 ifversion 111411200000000000", "(nil)"),
            ("set a 1; setv a 2 ifversion 7", "get a", "'1'"),
        ]);
    }

    #[test]
    fn setv_refuses_what_it_does_not_know() {
        check(&[
            ("", "setv a 1 nx xx", SYNTAX),
            ("", "setv a 1 ifversion", SYNTAX),
            ("", "setv a 1 ex 1 keepttl", SYNTAX),
            ("", "setv a 1 get", SYNTAX),
            ("", "setv a 1 ifversion -1", "(error) ERR value is not an integer or out of range"),
            ("", "setv a 1 ifversion x", "(error) ERR value is not an integer or out of range"),
            ("", "setv a 1 px 0", "(error) ERR invalid expire time in 'setv' command"),
        ]);
    }
}
