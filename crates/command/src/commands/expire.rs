//! EXPIRE, PEXPIRE, EXPIREAT, PEXPIREAT: gives a key a time to live, counted from now, or a time at which it ends.

use super::{integer, is, shown};
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, KeysFn, Over, Reply};
use storage::Keyspace;

/// What an amount of time counts from.
#[derive(Clone, Copy)]
enum Since {
    Now,
    Epoch,
}

const FROM_NOW: &str = "Gives a key a time to live: NX only if it has none, XX only if it has one, GT only to lengthen it, LT only to shorten it.";
const FROM_EPOCH: &str = "Gives a key a Unix time at which it ends: NX only if it has none, XX only if it has one, GT only for a later one, LT only for an earlier one.";

const fn row(
    name: &'static str,
    syntax: &'static str,
    since: &'static str,
    summary: &'static str,
    run: KeysFn,
) -> Command {
    Command {
        name,
        syntax,
        arity: -3,
        flags: Flags::WRITE.with(Flags::FAST),
        keys: KeySpec::ONE,
        group: "generic",
        since,
        summary,
        categories: Categories::KEYSPACE.with(Categories::WRITE).with(Categories::FAST),
        handler: Handler::Keys { run, over: Over::One },
        ..Command::BASE
    }
}

/// EXPIRE key seconds [NX | XX | GT | LT]
pub(crate) const EXPIRE: Command =
    row("expire", "key seconds [NX | XX | GT | LT]", "1.0.0", FROM_NOW, |keyspace, args| {
        run(keyspace, args, Since::Now, 1000, "expire")
    });

/// PEXPIRE key milliseconds [NX | XX | GT | LT]
pub(crate) const PEXPIRE: Command =
    row("pexpire", "key milliseconds [NX | XX | GT | LT]", "2.6.0", FROM_NOW, |keyspace, args| {
        run(keyspace, args, Since::Now, 1, "pexpire")
    });

/// EXPIREAT key unix-time-seconds [NX | XX | GT | LT]
pub(crate) const EXPIREAT: Command =
    row("expireat", "key unix-time-seconds [NX | XX | GT | LT]", "1.2.0", FROM_EPOCH, |keyspace, args| {
        run(keyspace, args, Since::Epoch, 1000, "expireat")
    });

/// PEXPIREAT key unix-time-milliseconds [NX | XX | GT | LT]
pub(crate) const PEXPIREAT: Command = row(
    "pexpireat",
    "key unix-time-milliseconds [NX | XX | GT | LT]",
    "2.6.0",
    FROM_EPOCH,
    |keyspace, args| run(keyspace, args, Since::Epoch, 1, "pexpireat"),
);

#[derive(Default)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

fn parse(words: &[&[u8]]) -> Result<Conditions, CommandError> {
    let mut conditions = Conditions::default();
    for word in words {
        let flag = match () {
            () if is(word, "nx") => &mut conditions.nx,
            () if is(word, "xx") => &mut conditions.xx,
            () if is(word, "gt") => &mut conditions.gt,
            () if is(word, "lt") => &mut conditions.lt,
            () => return Err(CommandError::Other(format!("ERR Unsupported option {}", shown(word)))),
        };
        *flag = true;
    }
    let Conditions { nx, xx, gt, lt } = conditions;
    if nx && (xx || gt || lt) {
        let text = "ERR NX and XX, GT or LT options at the same time are not compatible";
        return Err(CommandError::Other(text.into()));
    }
    if gt && lt {
        return Err(CommandError::Other("ERR GT and LT options at the same time are not compatible".into()));
    }
    Ok(conditions)
}

fn run<'t>(
    keyspace: &'t mut Keyspace<'_>,
    args: &[&[u8]],
    since: Since,
    unit_ms: i64,
    name: &'static str,
) -> Result<Reply<'t>, CommandError> {
    let conditions = parse(&args[3..])?;
    let amount = integer(args[2])?;
    let now_ms = i64::try_from(keyspace.now_ms()).unwrap_or(i64::MAX);
    let base_ms = match since {
        Since::Now => now_ms,
        Since::Epoch => 0,
    };
    let end = amount
        .checked_mul(unit_ms)
        .and_then(|amount_ms| amount_ms.checked_add(base_ms))
        .ok_or(CommandError::InvalidExpire { command: name.into() })?;
    let Some(entry) = keyspace.get(args[1]) else { return Ok(Reply::Integer(0)) };
    let present = entry.expire_at_ms.map(|end| i64::try_from(end).unwrap_or(i64::MAX));
    // Without a time to live a key lives longer than with any.
    let allowed = match present {
        Some(present) => {
            !(conditions.nx || conditions.gt && end <= present || conditions.lt && end >= present)
        }
        None => !(conditions.xx || conditions.gt),
    };
    if !allowed {
        return Ok(Reply::Integer(0));
    }
    if end <= now_ms {
        keyspace.remove(args[1]);
    } else {
        keyspace.set_expiry(args[1], Some(end as u64));
    }
    Ok(Reply::Integer(1))
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn expire() {
        check(&[
            ("", "expire a 10", "(integer) 0"),
            ("set a 1", "expire a 10", "(integer) 1"),
            ("set a 1; expire a 10", "pttl a", "(integer) 10000"),
            ("set a 1; pexpire a 10", "pttl a", "(integer) 10"),
            ("set a 1", "expire a -1", "(integer) 1"),
            ("set a 1; expire a -1", "exists a", "(integer) 0"),
            ("set a 1; expire a 0", "exists a", "(integer) 0"),
            ("set a 1; expire a 10; sleep 10000", "exists a", "(integer) 0"),
            ("set a 1; expire a 10; sleep 9999", "exists a", "(integer) 1"),
            ("set a 1", "expire a x", "(error) ERR value is not an integer or out of range"),
            (
                "set a 1",
                "expire a 9223372036854775807",
                "(error) ERR invalid expire time in 'expire' command",
            ),
            (
                "set a 1",
                "expire a -9223372036854775807",
                "(error) ERR invalid expire time in 'expire' command",
            ),
            (
                "set a 1",
                "pexpire a 9223372036854775807",
                "(error) ERR invalid expire time in 'pexpire' command",
            ),
            ("set a 1", "pexpire a -9223372036854775808", "(integer) 1"),
        ]);
    }

    #[test]
    fn expire_under_a_condition() {
        check(&[
            ("set a 1", "expire a 10 nx", "(integer) 1"),
            ("set a 1 ex 5", "expire a 10 nx", "(integer) 0"),
            ("set a 1", "expire a 10 xx", "(integer) 0"),
            ("set a 1 ex 5", "expire a 10 xx", "(integer) 1"),
            ("set a 1", "expire a 10 gt", "(integer) 0"),
            ("set a 1 ex 5", "expire a 10 gt", "(integer) 1"),
            ("set a 1 ex 10", "expire a 10 gt", "(integer) 0"),
            ("set a 1", "expire a 10 lt", "(integer) 1"),
            ("set a 1 ex 5", "expire a 10 lt", "(integer) 0"),
            ("set a 1 ex 50", "expire a 10 lt", "(integer) 1"),
            ("set a 1", "expire a 10 xx lt", "(integer) 0"),
            ("set a 1", "expire a 10 zz", "(error) ERR Unsupported option zz"),
            (
                "set a 1",
                "expire a 10 nx xx",
                "(error) ERR NX and XX, GT or LT options at the same time are not compatible",
            ),
            (
                "set a 1",
                "expire a 10 gt lt",
                "(error) ERR GT and LT options at the same time are not compatible",
            ),
        ]);
    }

    // It is 1700000000 when these begin.
    #[test]
    fn expire_at() {
        check(&[
            ("", "expireat a 1700000010", "(integer) 0"),
            ("", "pexpireat a 1700000010000", "(integer) 0"),
            ("set a 1", "expireat a 1700000010", "(integer) 1"),
            ("set a 1; expireat a 1700000010", "pttl a", "(integer) 10000"),
            ("set a 1; pexpireat a 1700000000010", "pttl a", "(integer) 10"),
            ("set a 1; pexpireat a 1700000000010; sleep 9", "exists a", "(integer) 1"),
            ("set a 1; pexpireat a 1700000000010; sleep 10", "exists a", "(integer) 0"),
            ("set a 1", "expireat a 1700000000", "(integer) 1"),
            ("set a 1; expireat a 1700000000", "exists a", "(integer) 0"),
            ("set a 1; expireat a 0", "exists a", "(integer) 0"),
            ("set a 1; pexpireat a -1", "exists a", "(integer) 0"),
            ("set a 1", "pexpireat a 9223372036854775807", "(integer) 1"),
            ("set a 1", "pexpireat a -9223372036854775808", "(integer) 1"),
            ("set a 1", "expireat a 9223372036854775", "(integer) 1"),
            (
                "set a 1",
                "expireat a 9223372036854776",
                "(error) ERR invalid expire time in 'expireat' command",
            ),
            ("", "expireat a -9223372036854775807", "(error) ERR invalid expire time in 'expireat' command"),
            ("", "expireat a x", "(error) ERR value is not an integer or out of range"),
            ("", "pexpireat a x", "(error) ERR value is not an integer or out of range"),
            ("", "expireat a", "(error) ERR wrong number of arguments for 'expireat' command"),
            ("", "pexpireat a", "(error) ERR wrong number of arguments for 'pexpireat' command"),
        ]);
    }

    #[test]
    fn expire_at_under_a_condition() {
        check(&[
            ("set a 1", "expireat a 1700000010 nx", "(integer) 1"),
            ("set a 1 ex 5", "expireat a 1700000010 nx", "(integer) 0"),
            ("set a 1", "pexpireat a 1700000010000 xx", "(integer) 0"),
            ("set a 1 ex 5", "pexpireat a 1700000010000 xx", "(integer) 1"),
            ("set a 1", "expireat a 1700000010 gt", "(integer) 0"),
            ("set a 1 ex 5", "expireat a 1700000010 gt", "(integer) 1"),
            ("set a 1 ex 10", "expireat a 1700000010 gt", "(integer) 0"),
            ("set a 1", "pexpireat a 1700000010000 lt", "(integer) 1"),
            ("set a 1 ex 10", "pexpireat a 1700000010000 lt", "(integer) 0"),
            ("set a 1 ex 50", "pexpireat a 1700000010000 lt", "(integer) 1"),
            ("set a 1; expireat a 0 gt", "exists a", "(integer) 1"),
            ("set a 1 ex 5; expireat a 0 nx", "exists a", "(integer) 1"),
            ("", "expireat a x zz", "(error) ERR Unsupported option zz"),
            (
                "",
                "pexpireat a 10 nx gt",
                "(error) ERR NX and XX, GT or LT options at the same time are not compatible",
            ),
            ("", "expireat a 10 gt lt", "(error) ERR GT and LT options at the same time are not compatible"),
        ]);
    }
}
