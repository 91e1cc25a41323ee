//! GETEX: a string's value, and its key gets a time to live or loses it.

use super::{blob_of, end_ms, is};
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Over, Reply};
use storage::Keyspace;
use types::planted::{self, Bug};

/// GETEX key [EX | PX | EXAT | PXAT time | PERSIST]
pub(crate) const COMMAND: Command = Command {
    name: "getex",
    syntax: "key [EX seconds | PX milliseconds | EXAT unix-seconds | PXAT unix-milliseconds | PERSIST]",
    arity: -2,
    flags: Flags::WRITE.with(Flags::FAST),
    keys: KeySpec::ONE,
    group: "string",
    since: "6.2.0",
    summary: "The value of a string, or nothing; the key is given a time to live, or PERSIST takes it away.",
    categories: Categories::WRITE.with(Categories::STRING).with(Categories::FAST),
    handler: Handler::Keys { run, over: Over::One },
    ..Command::BASE
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lifetime<'a> {
    /// As it is.
    Keep,
    Forever,
    /// An amount, whether it is in seconds, and whether it counts from now.
    Time {
        amount: &'a [u8],
        seconds: bool,
        relative: bool,
    },
}

fn parse<'a>(args: &[&'a [u8]]) -> Result<Lifetime<'a>, CommandError> {
    let mut lifetime = Lifetime::Keep;
    let mut words = args.iter().skip(2);
    while let Some(&word) = words.next() {
        if is(word, "persist") && !matches!(lifetime, Lifetime::Time { .. }) {
            lifetime = Lifetime::Forever;
            continue;
        }
        let (seconds, relative) = match () {
            () if is(word, "ex") => (true, true),
            () if is(word, "px") => (false, true),
            () if is(word, "exat") => (true, false),
            () if is(word, "pxat") => (false, false),
            () => return Err(CommandError::Syntax),
        };
        // The same unit twice is allowed, and the last counts, as in Redis.
        let fits = match lifetime {
            Lifetime::Keep => true,
            Lifetime::Forever => false,
            Lifetime::Time { seconds: s, relative: r, .. } => (s, r) == (seconds, relative),
        };
        let amount = words.next().filter(|_| fits).ok_or(CommandError::Syntax)?;
        lifetime = Lifetime::Time { amount, seconds, relative };
    }
    Ok(lifetime)
}

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    let key = args[1];
    let lifetime = parse(args)?;
    let now_ms = keyspace.now_ms();
    // An absent key is the reply, even to a time that is none, as in Redis.
    let Some(entry) = keyspace.get(key) else { return Ok(Reply::Null) };
    let ends = entry.expire_at_ms.is_some();
    let value = Reply::Bulk(blob_of(&entry)?.without_borrow());
    match lifetime {
        Lifetime::Keep => {}
        Lifetime::Forever => {
            if ends {
                keyspace.set_expiry(key, None);
            }
        }
        Lifetime::Time { amount, seconds, relative } => {
            let end = end_ms("getex", amount, seconds, relative, now_ms)?;
            if end <= now_ms || planted::is(Bug::GetexTakesValue) {
                keyspace.remove(key);
            } else {
                keyspace.set_expiry(key, Some(end));
            }
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    const SYNTAX: &str = "(error) ERR syntax error";
    const INVALID: &str = "(error) ERR invalid expire time in 'getex' command";
    const NOT_INTEGER: &str = "(error) ERR value is not an integer or out of range";

    #[test]
    fn getex_replies() {
        check(&[
            ("", "getex a", "(nil)"),
            ("", "getex a ex 10", "(nil)"),
            ("", "getex a ex 0", "(nil)"),
            ("set a 1", "getex a", "'1'"),
            ("set a 1", "getex a ex 10", "'1'"),
            ("set a 1 ex 10", "getex a PERSIST", "'1'"),
            ("set a 1", "getex a exat 1", "'1'"),
            ("", "getex", "(error) ERR wrong number of arguments for 'getex' command"),
        ]);
    }

    #[test]
    fn getex_changes_the_time_to_live() {
        check(&[
            ("set a 1 px 50; getex a", "pttl a", "(integer) 50"),
            ("set a 1; getex a ex 10", "pttl a", "(integer) 10000"),
            ("set a 1; getex a px 10", "pttl a", "(integer) 10"),
            ("set a 1; getex a exat 1700000001", "pttl a", "(integer) 1000"),
            ("set a 1; getex a pxat 1700000000001", "pttl a", "(integer) 1"),
            ("set a 1; getex a pxat 1700000000000", "exists a", "(integer) 0"),
            ("set a 1; getex a exat 1", "exists a", "(integer) 0"),
            ("set a 1 ex 10; getex a persist", "ttl a", "(integer) -1"),
            ("set a 1 ex 10; getex a persist persist", "ttl a", "(integer) -1"),
            ("set a 1; getex a persist", "ttl a", "(integer) -1"),
            ("set a 1; getex a ex 5 ex 6", "ttl a", "(integer) 6"),
            ("set a 1 px 50; getex a ex 0", "pttl a", "(integer) 50"),
        ]);
    }

    #[test]
    fn getex_refuses() {
        check(&[
            ("", "getex a nonsense", SYNTAX),
            ("", "getex a ex", SYNTAX),
            ("", "getex a ex 5 px 6", SYNTAX),
            ("", "getex a ex 5 persist", SYNTAX),
            ("", "getex a persist ex 5", SYNTAX),
            ("set a 1", "getex a keepttl", SYNTAX),
            ("set a 1", "getex a nx", SYNTAX),
            ("set a 1", "getex a ex 0", INVALID),
            ("set a 1", "getex a px -5", INVALID),
            ("set a 1", "getex a ex 9223372036854775807", INVALID),
            ("set a 1", "getex a px 9223372036854775807", INVALID),
            ("set a 1", "getex a ex x", NOT_INTEGER),
            ("set a 1", "getex a ex 1.5", NOT_INTEGER),
        ]);
    }
}
