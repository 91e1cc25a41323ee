//! STRLEN: a string's length.

use super::string_of;
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Over, Reply};
use storage::Keyspace;

/// STRLEN key
pub(crate) const COMMAND: Command = Command {
    name: "strlen",
    syntax: "key",
    arity: 2,
    flags: Flags::READONLY.with(Flags::FAST),
    keys: KeySpec::ONE,
    group: "string",
    since: "2.2.0",
    summary: "The length of a string in bytes; 0 where there is none.",
    categories: Categories::READ.with(Categories::STRING).with(Categories::FAST),
    handler: Handler::Keys { run, over: Over::One },
    ..Command::BASE
};

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    match keyspace.get(args[1]) {
        Some(entry) => Ok(Reply::count(string_of(entry.value)?.len())),
        None => Ok(Reply::Integer(0)),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn strlen() {
        check(&[("", "strlen a", "(integer) 0"), ("set a xyz", "strlen a", "(integer) 3")]);
    }
}
