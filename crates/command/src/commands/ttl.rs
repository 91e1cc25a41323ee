//! TTL, PTTL: how long a key will live. EXPIRETIME, PEXPIRETIME: until when.

use crate::{Categories, Command, Flags, Handler, KeySpec, KeysFn, Over, Reply};
use storage::Keyspace;

const fn row(name: &'static str, since: &'static str, summary: &'static str, run: KeysFn) -> Command {
    Command {
        name,
        syntax: "key",
        arity: 2,
        flags: Flags::READONLY.with(Flags::FAST),
        keys: KeySpec::ONE,
        group: "generic",
        since,
        summary,
        categories: Categories::KEYSPACE.with(Categories::READ).with(Categories::FAST),
        handler: Handler::Keys { run, over: Over::One },
        ..Command::BASE
    }
}

/// TTL key
pub(crate) const TTL: Command = row(
    "ttl",
    "1.0.0",
    "Seconds that a key will live; -1 where it has no end, -2 where there is no key.",
    |keyspace, args| {
        Ok(Reply::Integer(left_ms(keyspace, args[1]).map_or_else(|none| none, |ms| (ms + 500) / 1000)))
    },
);

/// PTTL key
pub(crate) const PTTL: Command = row(
    "pttl",
    "2.6.0",
    "Milliseconds that a key will live; -1 where it has no end, -2 where there is no key.",
    |keyspace, args| Ok(Reply::Integer(left_ms(keyspace, args[1]).unwrap_or_else(|none| none))),
);

/// EXPIRETIME key
pub(crate) const EXPIRETIME: Command = row(
    "expiretime",
    "7.0.0",
    "Unix time in seconds at which a key will end; -1 where it has no end, -2 where there is no key.",
    |keyspace, args| Ok(Reply::Integer(end_ms(keyspace, args[1]).map_or_else(|none| none, seconds))),
);

/// PEXPIRETIME key
pub(crate) const PEXPIRETIME: Command = row(
    "pexpiretime",
    "7.0.0",
    "Unix time in milliseconds at which a key will end; -1 where it has no end, -2 where there is no key.",
    |keyspace, args| Ok(Reply::Integer(end_ms(keyspace, args[1]).map_or_else(|none| none, whole))),
);

fn whole(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// To the nearest second.
fn seconds(ms: u64) -> i64 {
    whole(ms.saturating_add(500) / 1000)
}

/// The Unix milliseconds at which a key ends, or what Redis shows where it does not.
fn end_ms(keyspace: &mut Keyspace<'_>, key: &[u8]) -> Result<u64, i64> {
    keyspace.get(key).ok_or(-2)?.expire_at_ms.ok_or(-1)
}

/// The milliseconds left, or what Redis shows where there are none.
fn left_ms(keyspace: &mut Keyspace<'_>, key: &[u8]) -> Result<i64, i64> {
    let now_ms = keyspace.now_ms();
    let entry = keyspace.get(key).ok_or(-2)?;
    let left = entry.expire_at_ms.ok_or(-1)?.saturating_sub(now_ms);
    // Room for rounding up to seconds.
    Ok(i64::try_from(left).unwrap_or(i64::MAX).min(i64::MAX - 500))
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn ttl() {
        check(&[
            ("", "ttl a", "(integer) -2"),
            ("", "pttl a", "(integer) -2"),
            ("set a 1", "ttl a", "(integer) -1"),
            ("set a 1", "pttl a", "(integer) -1"),
            ("set a 1 px 1499", "ttl a", "(integer) 1"),
            ("set a 1 px 1500", "ttl a", "(integer) 2"),
            ("set a 1 px 499", "ttl a", "(integer) 0"),
            ("set a 1 px 1500; sleep 500", "pttl a", "(integer) 1000"),
        ]);
    }

    #[test]
    fn expire_time() {
        check(&[
            ("", "expiretime a", "(integer) -2"),
            ("", "pexpiretime a", "(integer) -2"),
            ("set a 1", "expiretime a", "(integer) -1"),
            ("set a 1", "pexpiretime a", "(integer) -1"),
            ("set a 1 px 1; sleep 1", "expiretime a", "(integer) -2"),
            ("set a 1; expireat a 1700000010", "expiretime a", "(integer) 1700000010"),
            ("set a 1; expireat a 1700000010; sleep 500", "pexpiretime a", "(integer) 1700000010000"),
            ("set a 1; pexpireat a 1700000010499", "expiretime a", "(integer) 1700000010"),
            ("set a 1; pexpireat a 1700000010500", "expiretime a", "(integer) 1700000011"),
            ("set a 1; pexpireat a 9223372036854775807", "pexpiretime a", "(integer) 9223372036854775807"),
            ("set a 1; pexpireat a 9223372036854775807", "expiretime a", "(integer) 9223372036854776"),
            ("", "expiretime", "(error) ERR wrong number of arguments for 'expiretime' command"),
            ("", "pexpiretime a b", "(error) ERR wrong number of arguments for 'pexpiretime' command"),
        ]);
    }
}
