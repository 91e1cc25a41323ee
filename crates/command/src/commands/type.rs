//! TYPE: what kind of value a key holds.

use super::type_name;
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Over, Reply};
use storage::Keyspace;

/// TYPE key
pub(crate) const COMMAND: Command = Command {
    name: "type",
    syntax: "key",
    arity: 2,
    flags: Flags::READONLY.with(Flags::FAST),
    keys: KeySpec::ONE,
    group: "generic",
    summary: "The type of a key's value, or none.",
    categories: Categories::KEYSPACE.with(Categories::READ).with(Categories::FAST),
    handler: Handler::Keys { run, over: Over::One },
    ..Command::BASE
};

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    Ok(Reply::simple(keyspace.get(args[1]).map_or("none", |entry| type_name(entry.value))))
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn type_of_a_key() {
        check(&[("", "type a", "none"), ("set a 1", "type a", "string")]);
    }
}
