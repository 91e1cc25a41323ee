//! TTL, PTTL: how long a key will live.

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
}
