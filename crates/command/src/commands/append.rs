//! APPEND: a string made longer.

use super::{put_string, string_of};
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Over, Reply};
use storage::Keyspace;
use types::limits::VALUE_BYTES_MAX;

/// APPEND key value
pub(crate) const COMMAND: Command = Command {
    name: "append",
    syntax: "key value",
    arity: 3,
    flags: Flags::WRITE.with(Flags::DENYOOM).with(Flags::FAST),
    keys: KeySpec::ONE,
    group: "string",
    since: "2.0.0",
    complexity: "O(N), N the new length",
    summary: "Appends to a string, or stores it where there was none; the reply is the new length.",
    categories: Categories::WRITE.with(Categories::STRING).with(Categories::FAST),
    handler: Handler::Keys { run, over: Over::One },
    ..Command::BASE
};

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    let (key, tail) = (args[1], args[2]);
    let (value, expire_at_ms) = match keyspace.get(key) {
        Some(entry) => {
            let old = string_of(entry.value)?;
            // Before anything is copied.
            if old.len() + tail.len() > VALUE_BYTES_MAX {
                return Err(CommandError::ValueTooLong);
            }
            ([old, tail].concat(), entry.expire_at_ms)
        }
        None => (tail.to_vec(), None),
    };
    put_string(keyspace, key, &value, expire_at_ms)?;
    Ok(Reply::count(value.len()))
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn append() {
        check(&[
            ("", "append a xy", "(integer) 2"),
            ("set a xy", "append a z", "(integer) 3"),
            ("set a xy; append a z", "get a", "'xyz'"),
            ("set a xy px 50; append a z", "pttl a", "(integer) 50"),
            ("", "append a", "(error) ERR wrong number of arguments for 'append' command"),
        ]);
    }
}
