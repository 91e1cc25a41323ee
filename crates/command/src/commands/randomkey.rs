//! RANDOMKEY: any key. The node knows how many keys each partition has, or asks; it chooses one by that, and asks it for a
//! key. Here is what a partition answers.

use crate::{Categories, Command, Flags, Handler, Reply};
use storage::Keyspace;

/// RANDOMKEY
pub(crate) const COMMAND: Command = Command {
    name: "randomkey",
    flags: Flags::READONLY,
    group: "generic",
    complexity: "O(1), once a second for each partition",
    summary: "A key, any as likely as another; nothing where there is none.",
    categories: Categories::KEYSPACE.with(Categories::READ).with(Categories::SLOW),
    handler: Handler::RandomKey,
    ..Command::BASE
};

/// The node's question to a partition: without an argument how many keys it has, with one a key, chosen by that number.
pub fn run_partition(keyspace: &mut Keyspace<'_>, args: &[&[u8]]) -> Reply<'static> {
    match args.get(1) {
        None => Reply::count(keyspace.len()),
        Some(number) => {
            let number = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
            keyspace.random(number).map_or(Reply::Null, |entry| Reply::bulk(entry.key))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn a_partition_has_a_key_or_none() {
        check(&[
            ("", "randomkey", "(nil)"),
            ("set a 1", "randomkey", "'a'"),
            ("set a 1 px 1; set b 1; sleep 1", "randomkey", "'b'"),
            ("set a 1 px 1; sleep 1", "randomkey", "(nil)"),
            ("", "randomkey x", "(error) ERR wrong number of arguments for 'randomkey' command"),
        ]);
    }
}
