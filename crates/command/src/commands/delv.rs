//! DELV: removes a key, maybe only where it has one version. Annulet's own, for compare-and-set.

use super::is;
use super::setv::version;
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Over, Reply};
use storage::Keyspace;

/// DELV key [IFVERSION version]
pub(crate) const COMMAND: Command = Command {
    name: "delv",
    syntax: "key [IFVERSION version]",
    arity: -2,
    flags: Flags::WRITE.with(Flags::FAST),
    keys: KeySpec::ONE,
    group: "string",
    since: "0.1.0",
    summary: "Removes a key: 1 where it was there, 0 where not, nothing where IFVERSION forbids it. GETV shows versions.",
    categories: Categories::WRITE.with(Categories::STRING).with(Categories::FAST),
    handler: Handler::Keys { run, over: Over::One },
    ..Command::BASE
};

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    let wanted = match args.get(2..).unwrap_or_default() {
        [] => None,
        [word, number] if is(word, "ifversion") => Some(version(number)?),
        _ => return Err(CommandError::Syntax),
    };
    let Some(found) = keyspace.get(args[1]).map(|entry| entry.version.0) else {
        return Ok(Reply::Integer(0));
    };
    if wanted.is_some_and(|wanted| wanted != found) {
        return Ok(Reply::Null);
    }
    Ok(Reply::Integer(keyspace.remove(args[1]).into()))
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn delv() {
        check(&[
            ("", "delv a", "(integer) 0"),
            ("set a 1", "delv a", "(integer) 1"),
            ("set a 1; delv a", "exists a", "(integer) 0"),
            ("set a 1", "delv a ifversion 111411200000000000", "(integer) 1"),
            ("set a 1; set a 1", "delv a ifversion 111411200000000000", "(nil)"),
            ("set a 1; delv a ifversion 3", "exists a", "(integer) 1"),
            ("", "delv a ifversion 3", "(integer) 0"),
            ("", "delv a ifversion", "(error) ERR syntax error"),
            ("", "delv a nx 3", "(error) ERR syntax error"),
            ("", "delv a ifversion x", "(error) ERR value is not an integer or out of range"),
        ]);
    }
}
