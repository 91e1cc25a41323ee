//! KEYS: every key that matches a pattern.

use crate::{Categories, Command, CommandError, Flags, Handler, Merge, Reply, glob};
use storage::Keyspace;

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
    handler: Handler::Everywhere { run, merge: Merge::Concat },
    ..Command::BASE
};

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    const BUDGET: usize = 4096;
    let mut found = Vec::new();
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        cursor = keyspace.scan(at, BUDGET, &mut |entry| {
            if glob::matches(args[1], entry.key) {
                found.push(entry.key.to_vec());
            }
        });
    }
    Ok(Reply::Array(found.into_iter().map(Reply::bulk).collect()))
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn keys() {
        check(&[
            ("", "keys *", "[]"),
            ("mset a 1 b 2 ab 3", "keys a?", "['ab']"),
            ("mset a 1 b 2; del b", "keys *", "['a']"),
            ("set a 1 px 1; sleep 1", "keys *", "[]"),
        ]);
    }
}
