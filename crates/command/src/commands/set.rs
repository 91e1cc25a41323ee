//! SET: stores a string, maybe only under a condition, maybe for a time. PUT is the same.

use super::{blob_of, end_ms, is, put_string, string_of};
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Over, Reply};
use storage::Keyspace;
use types::planted::{self, Bug};

/// SET key value [NX | XX | IFEQ comparison] [GET] [EX | PX | EXAT | PXAT time | KEEPTTL]
pub(crate) const COMMAND: Command = Command {
    name: "set",
    aliases: &["put"],
    syntax: "key value [NX | XX | IFEQ comparison] [GET] [EX seconds | PX milliseconds | EXAT unix-seconds | PXAT unix-milliseconds | KEEPTTL]",
    arity: -3,
    flags: Flags::WRITE.with(Flags::DENYOOM),
    keys: KeySpec::ONE,
    group: "string",
    summary: "Stores a string, whatever was there; NX only if nothing was, XX only if something was; IFEQ only if that was it. GET replies with what was there.",
    categories: Categories::WRITE.with(Categories::STRING).with(Categories::SLOW),
    handler: Handler::Keys { run, over: Over::One },
    ..Command::BASE
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition<'a> {
    Always,
    IfAbsent,
    IfPresent,
    /// Valkey's: only where the value is this.
    IfEqual(&'a [u8]),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lifetime<'a> {
    Forever,
    Keep,
    /// An amount, whether it is in seconds, and whether it counts from now.
    Time {
        amount: &'a [u8],
        seconds: bool,
        relative: bool,
    },
}

struct Options<'a> {
    condition: Condition<'a>,
    get: bool,
    lifetime: Lifetime<'a>,
}

fn parse<'a>(args: &[&'a [u8]]) -> Result<Options<'a>, CommandError> {
    let mut options = Options { condition: Condition::Always, get: false, lifetime: Lifetime::Forever };
    let mut words = args.iter().skip(3);
    while let Some(&word) = words.next() {
        if is(word, "nx") && matches!(options.condition, Condition::Always | Condition::IfAbsent) {
            options.condition = Condition::IfAbsent;
        } else if is(word, "xx") && matches!(options.condition, Condition::Always | Condition::IfPresent) {
            options.condition = Condition::IfPresent;
        } else if is(word, "ifeq") && options.condition == Condition::Always {
            options.condition = Condition::IfEqual(words.next().ok_or(CommandError::Syntax)?);
        } else if is(word, "get") {
            options.get = true;
        } else if is(word, "keepttl") && !matches!(options.lifetime, Lifetime::Time { .. }) {
            options.lifetime = Lifetime::Keep;
        } else {
            let (seconds, relative) = match () {
                () if is(word, "ex") => (true, true),
                () if is(word, "px") => (false, true),
                () if is(word, "exat") => (true, false),
                () if is(word, "pxat") => (false, false),
                () => return Err(CommandError::Syntax),
            };
            // The same unit twice is allowed, and the last counts, as in Redis.
            let fits = match options.lifetime {
                Lifetime::Forever => true,
                Lifetime::Keep => false,
                Lifetime::Time { seconds: s, relative: r, .. } => (s, r) == (seconds, relative),
            };
            let amount = words.next().filter(|_| fits).ok_or(CommandError::Syntax)?;
            options.lifetime = Lifetime::Time { amount, seconds, relative };
        }
    }
    Ok(options)
}

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    let (key, value) = (args[1], args[2]);
    if args.len() == 3 {
        put_string(keyspace, key, value, None)?;
        return Ok(Reply::ok());
    }
    let options = parse(args)?;
    let now_ms = keyspace.now_ms();
    let end = match options.lifetime {
        Lifetime::Time { amount, seconds, relative } => {
            Some(end_ms("set", amount, seconds, relative, now_ms)?)
        }
        _ => None,
    };
    let old = keyspace.get(key);
    let found = old.is_some();
    let forgets = planted::is(Bug::KeepTtlForgetsUnderXx) && options.condition == Condition::IfPresent;
    let old_end = old.as_ref().and_then(|entry| entry.expire_at_ms).filter(|_| !forgets);
    let refused = match options.condition {
        Condition::Always => false,
        Condition::IfAbsent => found,
        Condition::IfPresent => !found,
        Condition::IfEqual(comparison) => match &old {
            Some(entry) => string_of(entry.value)? != comparison && !planted::is(Bug::SetsUnequal),
            None => true,
        },
    };
    let shown = match old {
        Some(entry) if options.get => Some(Reply::Bulk(blob_of(&entry)?.without_borrow())),
        None if options.get => Some(Reply::Null),
        _ => None,
    };
    if refused {
        return Ok(shown.unwrap_or(Reply::Null));
    }
    match end {
        // Stored and gone at once.
        Some(end) if end <= now_ms => {
            keyspace.remove(key);
        }
        Some(end) => put_string(keyspace, key, value, Some(end))?,
        None if options.lifetime == Lifetime::Keep => put_string(keyspace, key, value, old_end)?,
        None => put_string(keyspace, key, value, None)?,
    }
    Ok(shown.unwrap_or_else(Reply::ok))
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    const SYNTAX: &str = "(error) ERR syntax error";
    const INVALID: &str = "(error) ERR invalid expire time in 'set' command";

    #[test]
    fn set_stores() {
        check(&[
            ("", "set a 1", "OK"),
            ("put a 1", "get a", "'1'"),
            ("set a 1 ex 10; set a 2", "ttl a", "(integer) -1"),
            ("", "set a", "(error) ERR wrong number of arguments for 'set' command"),
            ("", "set a 1 nonsense", SYNTAX),
        ]);
    }

    #[test]
    fn set_under_a_condition() {
        check(&[
            ("", "set a 1 nx", "OK"),
            ("set a 1", "set a 2 nx", "(nil)"),
            ("set a 1; set a 2 nx", "get a", "'1'"),
            ("", "set a 1 XX", "(nil)"),
            ("set a 1", "set a 2 xx", "OK"),
            ("", "set a 1 nx nx", "OK"),
            ("", "set a 1 nx xx", SYNTAX),
            ("", "set a 1 xx nx", SYNTAX),
        ]);
    }

    // As Valkey 9.1 answers.
    #[test]
    fn set_if_equal() {
        check(&[
            ("set a 1", "set a 2 ifeq 1", "OK"),
            ("set a 1; set a 2 ifeq 1", "get a", "'2'"),
            ("set a 1", "set a 2 IFEQ 3", "(nil)"),
            ("set a 1; set a 2 ifeq 3", "get a", "'1'"),
            ("", "set a 2 ifeq ", "(nil)"),
            ("set a 2 ifeq 1", "exists a", "(integer) 0"),
            ("set a 1", "set a 2 ifeq 1 get", "'1'"),
            ("set a 1", "set a 2 get ifeq 3", "'1'"),
            ("set a 1; set a 2 get ifeq 3", "get a", "'1'"),
            ("", "set a 2 ifeq 1 get", "(nil)"),
            ("set a 1; set a 2 ifeq 1 ex 10", "ttl a", "(integer) 10"),
            ("set a 1 ex 10; set a 2 ifeq 1 keepttl", "ttl a", "(integer) 10"),
            ("set a 1 ex 10; set a 2 ifeq 1", "ttl a", "(integer) -1"),
            ("set a 1 ex 10; set a 2 ifeq 3", "ttl a", "(integer) 10"),
            ("set a ifeq", "set a 2 ifeq ifeq", "OK"),
            ("", "set a 1 ifeq", SYNTAX),
            ("", "set a 1 ifeq 1 ifeq 1", SYNTAX),
            ("", "set a 1 ifeq 1 nx", SYNTAX),
            ("", "set a 1 nx ifeq 1", SYNTAX),
            ("", "set a 1 ifeq 1 xx", SYNTAX),
            ("", "set a 1 xx ifeq 1", SYNTAX),
        ]);
    }

    #[test]
    fn set_and_get() {
        check(&[
            ("", "set a 1 get", "(nil)"),
            ("set a 1 get", "get a", "'1'"),
            ("set a 1", "set a 2 get", "'1'"),
            ("set a 1; set a 2 get", "get a", "'2'"),
            ("set a 1", "set a 2 nx get", "'1'"),
            ("set a 1; set a 2 nx get", "get a", "'1'"),
            ("", "set a 1 nx get", "(nil)"),
            ("set a 1 nx get", "get a", "'1'"),
            ("", "set a 1 xx get", "(nil)"),
            ("set a 1 xx get", "exists a", "(integer) 0"),
        ]);
    }

    #[test]
    fn set_for_a_time() {
        check(&[
            ("set a 1 ex 10", "pttl a", "(integer) 10000"),
            ("set a 1 px 10", "pttl a", "(integer) 10"),
            ("set a 1 exat 1700000001", "pttl a", "(integer) 1000"),
            ("set a 1 pxat 1700000000001", "pttl a", "(integer) 1"),
            ("set a 1", "set a 2 exat 1", "OK"),
            ("set a 1; set a 2 exat 1", "get a", "(nil)"),
            ("set a 1 px 10; set a 2 keepttl", "pttl a", "(integer) 10"),
            ("set a 1 px 10; set a 2 keepttl keepttl", "get a", "'2'"),
            ("set a 1 ex 5 ex 6", "ttl a", "(integer) 6"),
            ("", "set a 1 ex 5 px 6", SYNTAX),
            ("", "set a 1 ex 5 keepttl", SYNTAX),
            ("", "set a 1 keepttl ex 5", SYNTAX),
            ("", "set a 1 ex", SYNTAX),
            ("", "set a 1 ex 0", INVALID),
            ("", "set a 1 px -5", INVALID),
            ("", "set a 1 ex 9223372036854775807", INVALID),
            ("", "set a 1 px 9223372036854775807", INVALID),
            ("", "set a 1 exat 9223372036854776", INVALID),
            ("set a 1 pxat 9223372036854775807", "get a", "'1'"),
            ("", "set a 1 ex x", "(error) ERR value is not an integer or out of range"),
            ("", "set a 1 ex 1.5", "(error) ERR value is not an integer or out of range"),
        ]);
    }
}
