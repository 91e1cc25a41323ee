//! GETV: a string's value with its version and what is left of its time. Annulet's own, for compare-and-set.

use super::string_of;
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Over, Reply};
use storage::Keyspace;

/// GETV key
pub(crate) const COMMAND: Command = Command {
    name: "getv",
    syntax: "key",
    arity: 2,
    flags: Flags::READONLY.with(Flags::FAST),
    keys: KeySpec::ONE,
    group: "string",
    since: "0.1.0",
    summary: "The version of a string, the milliseconds until it expires (-1: never) and its value; nothing where the key is absent.",
    categories: Categories::READ.with(Categories::STRING).with(Categories::FAST),
    handler: Handler::Keys { run, over: Over::One },
    ..Command::BASE
};

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    let now_ms = keyspace.now_ms();
    let Some(entry) = keyspace.get(args[1]) else { return Ok(Reply::Null) };
    let left_ms = entry.expire_at_ms.map_or(-1, |end| end.saturating_sub(now_ms) as i64);
    let value = Reply::bulk(string_of(entry.value)?);
    Ok(Reply::Array(vec![Reply::Integer(entry.version.0 as i64), Reply::Integer(left_ms), value]))
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
            ("", "getv", "(error) ERR wrong number of arguments for 'getv' command"),
        ]);
    }
}
