//! MEMORY USAGE: the bytes that a key takes in its table.

use super::{integer, is};
use crate::table::{help_of, run_subcommand};
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Over, Reply};
use storage::Keyspace;

/// MEMORY subcommand
pub(crate) const COMMAND: Command = Command {
    name: "memory",
    syntax: "subcommand [argument ...]",
    arity: -2,
    group: "server",
    since: "4.0.0",
    summary: "What keys take.",
    categories: Categories::SLOW,
    handler: Handler::Session(run_subcommand),
    subcommands: &[
        Command {
            name: "help",
            parent: "memory",
            arity: 2,
            flags: Flags::LOADING.with(Flags::STALE),
            group: "server",
            since: "4.0.0",
            summary: "The subcommands.",
            categories: Categories::SLOW,
            handler: Handler::Session(|_, _, _| Ok(help_of("memory"))),
            ..Command::BASE
        },
        Command {
            name: "usage",
            parent: "memory",
            syntax: "key [SAMPLES count]",
            arity: -3,
            flags: Flags::READONLY,
            keys: KeySpec { first: 2, last: 2, step: 1 },
            group: "server",
            since: "4.0.0",
            summary: "The bytes that a key and its value take in one copy, as the allocator rounds them, with the key's place in the index. SAMPLES says nothing about strings.",
            categories: Categories::READ.with(Categories::SLOW),
            handler: Handler::Keys { run: usage, over: Over::One },
            ..Command::BASE
        },
    ],
    ..Command::BASE
};

fn usage<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    for option in args[3..].chunks(2) {
        match *option {
            [word, count] if is(word, "samples") => {
                if integer(count)? < 0 {
                    return Err(CommandError::Syntax);
                }
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    Ok(keyspace.get(args[2]).map_or(Reply::Null, |entry| Reply::count(entry.table_bytes())))
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn memory_usage() {
        let syntax = "(error) ERR syntax error";
        check(&[
            ("", "memory usage a", "(nil)"),
            // 9 of head and version, two lengths of 1, 1 + 1 bytes: 13, in the class of 16; and 8 in the index.
            ("set a 1", "memory usage a", "(integer) 24"),
            ("set a 1 ex 10", "memory usage a", "(integer) 40"),
            ("set a 1", "memory usage a SAMPLES 0 samples 5", "(integer) 24"),
            ("", "memory usage a samples", syntax),
            ("", "memory usage a samples -1", syntax),
            ("", "memory usage a nonsense 1", syntax),
            ("", "memory usage a samples x", "(error) ERR value is not an integer or out of range"),
            ("", "memory usage", "(error) ERR wrong number of arguments for 'memory|usage' command"),
            ("", "memory doctor", "(error) ERR unknown subcommand 'doctor'. Try MEMORY HELP."),
        ]);
    }
}
