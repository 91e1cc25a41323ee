//! RENAME, RENAMENX: gives a value another key. Its time to live goes with it.
//!
//! Both keys have to lie in one partition.

use super::{copy_of, put_copy};
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Over, Reply};
use storage::Keyspace;
use types::planted::{self, Bug};

/// RENAME key newkey
pub(crate) const RENAME: Command = Command {
    name: "rename",
    syntax: "key newkey",
    arity: 3,
    flags: Flags::WRITE,
    keys: KeySpec { first: 1, last: 2, step: 1 },
    group: "generic",
    summary: "Gives a value another key, whatever was there.",
    categories: Categories::KEYSPACE.with(Categories::WRITE).with(Categories::SLOW),
    handler: Handler::Keys { run: rename, over: Over::One },
    ..Command::BASE
};

/// RENAMENX key newkey
pub(crate) const RENAMENX: Command = Command {
    name: "renamenx",
    flags: Flags::WRITE.with(Flags::FAST),
    summary: "Gives a value another key if nothing is there; 1 if it did.",
    categories: Categories::KEYSPACE.with(Categories::WRITE).with(Categories::FAST),
    handler: Handler::Keys { run: rename_if_absent, over: Over::One },
    ..RENAME
};

fn rename<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    relocate(keyspace, args[1], args[2], true)?;
    Ok(Reply::ok())
}

fn rename_if_absent<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    Ok(Reply::flag(relocate(keyspace, args[1], args[2], false)?))
}

/// Whether the value has moved.
fn relocate(
    keyspace: &mut Keyspace<'_>,
    from: &[u8],
    to: &[u8],
    replace: bool,
) -> Result<bool, CommandError> {
    if keyspace.get(from).is_none() {
        return Err(CommandError::Other("ERR no such key".into()));
    }
    if from == to || !replace && keyspace.get(to).is_some() {
        return Ok(false);
    }
    if let Some((value, expire_at_ms)) = copy_of(keyspace, from) {
        let expire_at_ms = expire_at_ms.filter(|_| !planted::is(Bug::RenameLeavesLifetime));
        put_copy(keyspace, to, value, expire_at_ms)?;
        keyspace.remove(from);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn rename() {
        check(&[
            ("", "rename a b", "(error) ERR no such key"),
            ("", "rename a a", "(error) ERR no such key"),
            ("set a 1 px 1; sleep 1", "rename a b", "(error) ERR no such key"),
            ("set a 1", "rename a b", "OK"),
            ("set a 1; rename a b", "mget a b", "[(nil), '1']"),
            ("mset a 1 b 2; rename a b", "mget a b", "[(nil), '1']"),
            ("set b 2; rename a b", "get b", "'2'"),
            ("set a 1", "rename a a", "OK"),
            ("set a 1 px 10; rename a a", "pttl a", "(integer) 10"),
            ("set a 1 px 10; rename a b", "pttl b", "(integer) 10"),
            ("set a 1; set b 2 px 10; rename a b", "pttl b", "(integer) -1"),
            ("", "rename a", "(error) ERR wrong number of arguments for 'rename' command"),
            ("", "rename a b c", "(error) ERR wrong number of arguments for 'rename' command"),
        ]);
    }

    #[test]
    fn rename_if_absent() {
        check(&[
            ("", "renamenx a b", "(error) ERR no such key"),
            ("", "renamenx a a", "(error) ERR no such key"),
            ("set a 1", "renamenx a b", "(integer) 1"),
            ("set a 1; renamenx a b", "mget a b", "[(nil), '1']"),
            ("mset a 1 b 2", "renamenx a b", "(integer) 0"),
            ("mset a 1 b 2; renamenx a b", "mget a b", "['1', '2']"),
            ("set a 1", "renamenx a a", "(integer) 0"),
            ("set a 1; renamenx a a", "get a", "'1'"),
            ("set a 1 px 10; renamenx a b", "pttl b", "(integer) 10"),
            ("set a 1; set b 2 px 1; sleep 1", "renamenx a b", "(integer) 1"),
            ("", "renamenx a", "(error) ERR wrong number of arguments for 'renamenx' command"),
        ]);
    }
}
