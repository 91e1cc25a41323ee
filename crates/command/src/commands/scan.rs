//! SCAN: every key, in small steps. The node drives it from partition to partition and makes the cursors; here is what a
//! request says, and a step within one partition.

use super::{integer, is, type_name};
use crate::{Categories, Command, CommandError, Flags, Handler, glob};
use storage::Keyspace;

/// SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]
pub(crate) const COMMAND: Command = Command {
    name: "scan",
    syntax: "cursor [MATCH pattern] [COUNT count] [TYPE type]",
    arity: -2,
    flags: Flags::READONLY,
    group: "generic",
    since: "2.8.0",
    complexity: "O(1) a step, O(N) for all of them, N the number of keys",
    summary: "Some keys, and the cursor that leads on; 0 begins and ends. A key that stays is shown at least once.",
    categories: Categories::KEYSPACE.with(Categories::READ).with(Categories::SLOW),
    handler: Handler::Scan,
    ..Command::BASE
};

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanRequest {
    /// Where to go on: the node's own number. 0 begins.
    pub cursor: u64,
    /// Which keys to show.
    pub pattern: Option<Vec<u8>>,
    /// How many entries to look at, about.
    pub count: usize,
    /// The name of the type to show, in lower case; one that does not exist shows nothing.
    pub type_filter: Option<Vec<u8>>,
}

/// The most entries that one step looks at, so that no step stands still for long.
const COUNT_MAX: i64 = 10_000;

/// A cursor as C's `strtoul` reads it, but for negative ones: nothing at all is 0.
fn read_cursor(text: &[u8]) -> Option<u64> {
    match text {
        [] => Some(0),
        [b'+' | b'0'..=b'9', ..] => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

/// Reads a request.
pub fn parse(args: &[&[u8]]) -> Result<ScanRequest, CommandError> {
    let [_, cursor, options @ ..] = args else { return Err(CommandError::Syntax) };
    let cursor = read_cursor(cursor).ok_or(CommandError::InvalidCursor)?;
    let mut request = ScanRequest { cursor, pattern: None, count: 10, type_filter: None };
    for option in options.chunks(2) {
        let [word, value] = option else { return Err(CommandError::Syntax) };
        if is(word, "match") {
            request.pattern = (*value != b"*").then(|| value.to_vec());
        } else if is(word, "count") {
            let count = integer(value)?;
            if count < 1 {
                return Err(CommandError::Syntax);
            }
            request.count = count.min(COUNT_MAX) as usize;
        } else if is(word, "type") {
            request.type_filter = Some(value.to_ascii_lowercase());
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok(request)
}

/// One step within a partition: appends the keys that it shows, and returns where to go on, if not at the end.
pub fn run_partition(
    keyspace: &mut Keyspace<'_>,
    inner_cursor: u64,
    request: &ScanRequest,
    found: &mut Vec<Vec<u8>>,
) -> Option<u64> {
    keyspace.scan(inner_cursor, request.count, &mut |entry| {
        let fits = |pattern: &Vec<u8>| glob::matches(pattern, entry.key);
        let of_type = |name: &Vec<u8>| name == type_name(entry.value).as_bytes();
        if request.type_filter.as_ref().is_none_or(of_type) && request.pattern.as_ref().is_none_or(fits) {
            found.push(entry.key.to_vec());
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, check};

    #[test]
    fn scan() {
        check(&[
            ("mset a 1 b 2", "scan 0", "['0', ['a', 'b']]"),
            ("mset a 1 b 2", "scan 0 match a*", "['0', ['a']]"),
            ("mset a 1 b 2", "scan 0 TYPE String match *", "['0', ['a', 'b']]"),
            ("mset a 1 b 2", "scan 0 type hash", "['0', []]"),
            ("mset a 1 b 2", "scan 0 count 1000000000000", "['0', ['a', 'b']]"),
            ("set a 1 px 1; sleep 1", "scan 0", "['0', []]"),
            ("set a 1", "scan  count 10", "['0', ['a']]"),
            ("set a 1", "scan +0", "['0', ['a']]"),
            ("", "scan +", "(error) ERR invalid cursor"),
            ("", "scan x", "(error) ERR invalid cursor"),
            ("", "scan -1", "(error) ERR invalid cursor"),
            ("", "scan 18446744073709551616", "(error) ERR invalid cursor"),
            ("", "scan 0 count", "(error) ERR syntax error"),
            ("", "scan 0 count 0", "(error) ERR syntax error"),
            ("", "scan 0 count x", "(error) ERR value is not an integer or out of range"),
            ("", "scan 0 nonsense x", "(error) ERR syntax error"),
        ]);
    }

    #[test]
    fn small_steps_show_everything() {
        let mut world = World::new();
        for i in 0..1000 {
            world.run(&format!("set key{i} {i}"));
        }
        let request = parse(&[b"scan", b"0", b"count", b"7"]).unwrap();
        let mut found = Vec::new();
        let mut cursor = Some(0);
        let mut steps = 0;
        while let Some(at) = cursor {
            cursor = world.keyspace(|keyspace| run_partition(keyspace, at, &request, &mut found));
            steps += 1;
        }
        assert!(steps > 10, "{steps} steps");
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), 1000);
    }
}
