//! EXISTS, TOUCH: how many of the keys there are.
//!
//! TOUCH is for Redis, where it counts as a use of the keys; here both do the same.

use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Merge, Over, Reply};
use storage::Keyspace;

/// EXISTS key [key ...]
pub(crate) const COMMAND: Command = Command {
    name: "exists",
    syntax: "key [key ...]",
    arity: -2,
    flags: Flags::READONLY.with(Flags::FAST),
    keys: KeySpec::ALL,
    group: "generic",
    complexity: "O(N), N the number of keys",
    summary: "How many of the keys there are; one named twice counts twice.",
    categories: Categories::KEYSPACE.with(Categories::READ).with(Categories::FAST),
    handler: Handler::Keys { run, over: Over::Split(Merge::Sum) },
    ..Command::BASE
};

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    Ok(Reply::count(args[1..].iter().filter(|key| keyspace.get(key).is_some()).count()))
}

/// TOUCH key [key ...]
pub(crate) const TOUCH: Command = Command { name: "touch", since: "3.2.1", ..COMMAND };

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn exists() {
        check(&[
            ("", "exists a", "(integer) 0"),
            ("mset a 1 b 2", "exists a b c a", "(integer) 3"),
            ("set a 1 px 1; sleep 1", "exists a", "(integer) 0"),
            ("", "exists", "(error) ERR wrong number of arguments for 'exists' command"),
        ]);
    }

    #[test]
    fn touch() {
        check(&[
            ("", "touch a", "(integer) 0"),
            ("mset a 1 b 2", "touch a b c a", "(integer) 3"),
            ("set a 1 px 1; sleep 1", "touch a", "(integer) 0"),
            ("set a 1 px 10; touch a", "pttl a", "(integer) 10"),
            ("", "touch", "(error) ERR wrong number of arguments for 'touch' command"),
        ]);
    }
}
