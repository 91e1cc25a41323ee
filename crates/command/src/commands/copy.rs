//! COPY: stores a value under another key too. Its time to live is copied with it.
//!
//! Both keys have to lie in one partition. There is one database, 0.

use super::{copy_of, database, is, put_copy};
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Over, Reply};
use storage::Keyspace;

/// COPY source destination [DB destination-db] [REPLACE]
pub(crate) const COMMAND: Command = Command {
    name: "copy",
    syntax: "source destination [DB destination-db] [REPLACE]",
    arity: -3,
    flags: Flags::WRITE.with(Flags::DENYOOM),
    keys: KeySpec { first: 1, last: 2, step: 1 },
    group: "generic",
    since: "6.2.0",
    summary: "Stores a value under another key too, if nothing is there; REPLACE whatever is there. 1 if it did.",
    categories: Categories::KEYSPACE.with(Categories::WRITE).with(Categories::SLOW),
    handler: Handler::Keys { run, over: Over::One },
    ..Command::BASE
};

/// Whether to replace what is there.
fn parse(words: &[&[u8]]) -> Result<bool, CommandError> {
    let mut replace = false;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if is(word, "replace") {
            replace = true;
        } else if is(word, "db") {
            database(words.next().ok_or(CommandError::Syntax)?)?;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok(replace)
}

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    let (source, destination) = (args[1], args[2]);
    let replace = parse(&args[3..])?;
    if source == destination {
        return Err(CommandError::Other("ERR source and destination objects are the same".into()));
    }
    if !replace && keyspace.get(destination).is_some() {
        return Ok(Reply::Integer(0));
    }
    let Some((value, expire_at_ms)) = copy_of(keyspace, source) else { return Ok(Reply::Integer(0)) };
    put_copy(keyspace, destination, value, expire_at_ms)?;
    Ok(Reply::Integer(1))
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn copy() {
        check(&[
            ("", "copy a b", "(integer) 0"),
            ("set b 2", "copy a b replace", "(integer) 0"),
            ("set b 2; copy a b replace", "get b", "'2'"),
            ("set a 1", "copy a b", "(integer) 1"),
            ("set a 1; copy a b", "mget a b", "['1', '1']"),
            ("set a 1; copy a b; append b 2", "get a", "'1'"),
            ("mset a 1 b 2", "copy a b", "(integer) 0"),
            ("mset a 1 b 2; copy a b", "get b", "'2'"),
            ("mset a 1 b 2", "copy a b replace", "(integer) 1"),
            ("mset a 1 b 2; copy a b REPLACE", "get b", "'1'"),
            ("set a 1 px 10; copy a b", "pttl b", "(integer) 10"),
            ("set a 1; set b 2 px 10; copy a b replace", "pttl b", "(integer) -1"),
            ("set a 1 px 1; sleep 1", "copy a b", "(integer) 0"),
            ("set a 1; set b 2 px 1; sleep 1", "copy a b", "(integer) 1"),
            ("", "copy a a", "(error) ERR source and destination objects are the same"),
            ("", "copy a", "(error) ERR wrong number of arguments for 'copy' command"),
        ]);
    }

    #[test]
    fn copy_with_options() {
        check(&[
            ("set a 1", "copy a b db 0", "(integer) 1"),
            ("mset a 1 b 2", "copy a b replace db 0 replace", "(integer) 1"),
            ("set a 1", "copy a b db 1", "(error) ERR DB index is out of range"),
            ("set a 1", "copy a b db -1", "(error) ERR DB index is out of range"),
            ("set a 1", "copy a a db 99", "(error) ERR DB index is out of range"),
            ("set a 1", "copy a b db x", "(error) ERR value is not an integer or out of range"),
            (
                "set a 1",
                "copy a b db 99999999999",
                "(error) ERR value is out of range, value must between -2147483648 and 2147483647",
            ),
            ("set a 1", "copy a b db", "(error) ERR syntax error"),
            ("set a 1", "copy a b again", "(error) ERR syntax error"),
        ]);
    }
}
