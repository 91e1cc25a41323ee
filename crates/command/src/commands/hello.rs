//! HELLO: chooses the protocol, and says who is there.

use super::auth::authenticate;
use super::client::set_name;
use super::{is, shown};
use crate::number::parse_i64;
use crate::{Categories, Command, CommandError, Door, Flags, Handler, Host, Reply, Session};

/// The version of Redis whose commands and replies these are: clients turn features on by it.
pub(crate) const REDIS_VERSION: &str = "7.2.4";

/// HELLO [protover [AUTH username password] [SETNAME name]]
pub(crate) const COMMAND: Command = Command {
    name: "hello",
    syntax: "[protover [AUTH username password] [SETNAME name]]",
    arity: -1,
    flags: Flags::NOSCRIPT
        .with(Flags::LOADING)
        .with(Flags::STALE)
        .with(Flags::FAST)
        .with(Flags::NO_AUTH)
        .with(Flags::SENSITIVE),
    group: "connection",
    since: "6.0.0",
    summary: "Chooses RESP2 or RESP3, may authenticate and name the connection, and describes the server.",
    categories: Categories::FAST.with(Categories::CONNECTION),
    handler: Handler::Session(run),
    ..Command::BASE
};

fn run(session: &mut Session, host: &mut dyn Host, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    let protocol = match args.get(1) {
        None => session.protocol,
        Some(version) => match parse_i64(version) {
            Some(2) => 2,
            Some(3) => 3,
            Some(_) => return Err(CommandError::NoProto),
            None => {
                let text = "ERR Protocol version is not an integer or out of range";
                return Err(CommandError::Other(text.into()));
            }
        },
    };
    // Everything is read before anything takes effect.
    let mut credentials = None;
    let mut name = None;
    let mut rest = args.get(2..).unwrap_or_default();
    while let [word, after @ ..] = rest {
        rest = match after {
            [user, password, after @ ..] if is(word, "auth") => {
                credentials = Some((*user, *password));
                after
            }
            [value, after @ ..] if is(word, "setname") => {
                name = Some(*value);
                after
            }
            _ => {
                let text = format!("ERR Syntax error in HELLO option '{}'", shown(word));
                return Err(CommandError::Other(text));
            }
        };
    }
    if let Some((user, password)) = credentials {
        authenticate(session, host, user, password)?;
    }
    if !session.authenticated {
        return Err(CommandError::NoAuthHello);
    }
    if let Some(name) = name {
        set_name(session, name)?;
    }
    session.protocol = protocol;
    let mode = match session.door {
        Door::Plain | Door::Held => "standalone",
        Door::Cluster => "cluster",
    };
    Ok(Reply::Map(vec![
        (Reply::bulk("server"), Reply::bulk("redis")),
        (Reply::bulk("version"), Reply::bulk(REDIS_VERSION)),
        (Reply::bulk("proto"), Reply::Integer(i64::from(protocol))),
        (Reply::bulk("id"), Reply::Integer(session.id as i64)),
        (Reply::bulk("mode"), Reply::bulk(mode)),
        (Reply::bulk("role"), Reply::bulk("master")),
        (Reply::bulk("modules"), Reply::Array(Vec::new())),
    ]))
}

#[cfg(test)]
mod tests {
    use crate::testing::{World, check};

    #[test]
    fn hello() {
        let shown = |protocol| {
            format!(
                "{{'server': 'redis', 'version': '7.2.4', 'proto': (integer) {protocol}, 'id': (integer) 7, 'mode': 'standalone', 'role': 'master', 'modules': []}}"
            )
        };
        check(&[
            ("", "hello", &shown(2)),
            ("", "hello 3", &shown(3)),
            ("hello 3", "hello", &shown(3)),
            ("hello 3", "hello 2", &shown(2)),
            ("", "hello 4", "(error) NOPROTO unsupported protocol version"),
            ("", "hello x", "(error) ERR Protocol version is not an integer or out of range"),
            ("", "hello 3 nonsense", "(error) ERR Syntax error in HELLO option 'nonsense'"),
            ("", "hello 3 setname", "(error) ERR Syntax error in HELLO option 'setname'"),
            ("hello 3 setname me", "client getname", "'me'"),
            ("hello 3 nonsense", "hello", &shown(2)),
        ]);
    }

    #[test]
    fn hello_authenticates_first() {
        let mut world = World::with_password("secret");
        assert!(world.run("hello 3").starts_with("(error) NOAUTH HELLO must be called"));
        assert_eq!(world.session.protocol, 2);
        assert!(world.run("hello 3 auth default x").starts_with("(error) WRONGPASS"));
        assert!(world.run("hello 3 setname me auth default secret").starts_with("{'server'"));
        assert!(world.session.authenticated);
        assert_eq!((world.session.protocol, &world.session.name[..]), (3, &b"me"[..]));
    }
}
