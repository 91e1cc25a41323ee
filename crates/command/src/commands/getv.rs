//! GETV: a string's value with its version and what is left of its time. Annulet's own, for compare-and-set; and for stale reads, which
//! may want to know how old what they are shown may be.

use super::{blob_of, is};
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Over, Reply};
use storage::Keyspace;

/// GETV key [AGE]
pub(crate) const COMMAND: Command = Command {
    name: "getv",
    syntax: "key [AGE]",
    arity: -2,
    flags: Flags::READONLY.with(Flags::FAST),
    keys: KeySpec::ONE,
    group: "string",
    since: "0.1.0",
    summary: "The version of a string, the milliseconds until it expires (-1: never) and its value; nothing where the key is absent. AGE: behind that, how many milliseconds ago at most what is shown was the newest; nil where that is not known.",
    categories: Categories::READ.with(Categories::STRING).with(Categories::FAST),
    handler: Handler::Keys { run, over: Over::One },
    ..Command::BASE
};

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    let (now_ms, age_ms) = (keyspace.now_ms(), keyspace.age_ms());
    let age = match args.get(2..) {
        None | Some([]) => None,
        Some([word]) if is(word, "age") => Some(age_ms.map_or(Reply::Null, |age| Reply::Integer(age as i64))),
        Some(_) => return Err(CommandError::Syntax),
    };
    let Some(entry) = keyspace.get(args[1]) else {
        return Ok(
            age.map_or(Reply::Null, |age| Reply::Array(vec![Reply::Null, Reply::Null, Reply::Null, age]))
        );
    };
    let left_ms = entry.expire_at_ms.map_or(-1, |end| end.saturating_sub(now_ms) as i64);
    let value = Reply::Bulk(blob_of(&entry)?.without_borrow());
    let mut parts = vec![Reply::Integer(entry.version.0 as i64), Reply::Integer(left_ms), value];
    parts.extend(age);
    Ok(Reply::Array(parts))
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn getv() {
        check(&[
            ("", "getv a", "(nil)"),
            ("set a 1", "getv a", "[(integer) 111411200000000000, (integer) -1, '1']"),
            ("set a 1 px 90", "getv a", "[(integer) 111411200000000000, (integer) 90, '1']"),
            ("set a 1; set a 2", "getv a", "[(integer) 111411200000000001, (integer) -1, '2']"),
            ("set a 1 px 5; sleep 5", "getv a", "(nil)"),
            ("set a 1", "getv a age", "[(integer) 111411200000000000, (integer) -1, '1', (integer) 0]"),
            ("", "getv a age", "[(nil), (nil), (nil), (integer) 0]"),
            ("set a 1", "getv a ages", "(error) ERR syntax error"),
            ("", "getv", "(error) ERR wrong number of arguments for 'getv' command"),
        ]);
    }
}
