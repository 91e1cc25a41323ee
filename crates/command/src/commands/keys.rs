//! KEYS: every key that matches a pattern. The node walks all partitions by steps of SCAN, between which it serves
//! others, and gathers what they show.

use crate::{Categories, Command, Flags, Handler};
use bytes::Bytes;

/// KEYS pattern
pub(crate) const COMMAND: Command = Command {
    name: "keys",
    syntax: "pattern",
    arity: 2,
    flags: Flags::READONLY,
    group: "generic",
    complexity: "O(N), N the number of keys of the cluster",
    summary: "Every key that matches a pattern. SCAN does the same in small steps.",
    categories: Categories::KEYSPACE
        .with(Categories::READ)
        .with(Categories::SLOW)
        .with(Categories::DANGEROUS),
    handler: Handler::Listing,
    ..Command::BASE
};

/// Entries that one step looks at, so that none takes long.
const STEP_ENTRIES: &str = "256";

/// The request that goes on from a cursor within a partition: a step of SCAN.
pub fn step(pattern: &[u8], cursor: u64) -> [Bytes; 6] {
    [
        Bytes::from_static(b"scan"),
        Bytes::from(cursor.to_string()),
        Bytes::from_static(b"match"),
        Bytes::copy_from_slice(pattern),
        Bytes::from_static(b"count"),
        Bytes::from_static(STEP_ENTRIES.as_bytes()),
    ]
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn keys() {
        check(&[
            ("", "keys *", "[]"),
            ("", "keys", "(error) ERR wrong number of arguments for 'keys' command"),
            ("mset a 1 b 2 ab 3", "keys a?", "['ab']"),
            ("mset a 1 b 2; del b", "keys *", "['a']"),
            ("set a 1 px 1; sleep 1", "keys *", "[]"),
        ]);
    }
}
