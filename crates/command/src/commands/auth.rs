//! AUTH: shows the password of every door.

use crate::{Categories, Command, CommandError, Flags, Handler, Host, Reply, Session};

/// AUTH [username] password
pub(crate) const COMMAND: Command = Command {
    name: "auth",
    syntax: "[username] password",
    arity: -2,
    flags: Flags::NOSCRIPT
        .with(Flags::LOADING)
        .with(Flags::STALE)
        .with(Flags::FAST)
        .with(Flags::NO_AUTH)
        .with(Flags::SENSITIVE),
    group: "connection",
    summary: "Authenticates the connection. The one user is called default.",
    categories: Categories::FAST.with(Categories::CONNECTION),
    handler: Handler::Session(run),
    ..Command::BASE
};

fn run(session: &mut Session, host: &mut dyn Host, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    match args {
        [_, _] if host.password().is_empty() => Err(CommandError::NoPassword),
        [_, password] => authenticate(session, host, b"default", password).map(|()| Reply::ok()),
        [_, user, password] => authenticate(session, host, user, password).map(|()| Reply::ok()),
        _ => Err(CommandError::Syntax),
    }
}

/// Marks the session authenticated, if user and password are right. Without a password any will do, as in Redis.
pub(crate) fn authenticate(
    session: &mut Session,
    host: &dyn Host,
    user: &[u8],
    password: &[u8],
) -> Result<(), CommandError> {
    if user != b"default" || !is_password(host.password(), password) {
        return Err(CommandError::WrongPass);
    }
    session.authenticated = true;
    Ok(())
}

/// Whether this is the password that is wanted; any is where none is.
pub fn is_password(wanted: &str, given: &[u8]) -> bool {
    wanted.is_empty() || equal_in_constant_time(wanted.as_bytes(), given)
}

/// Compares without telling by its time how much was right: it depends on the length of what the stranger sent only.
fn equal_in_constant_time(wanted: &[u8], given: &[u8]) -> bool {
    let mut different = u8::from(wanted.len() != given.len());
    for (at, byte) in given.iter().enumerate() {
        different |= byte ^ wanted[at % wanted.len()];
    }
    std::hint::black_box(different) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, check};

    #[test]
    fn auth_without_a_password_set() {
        check(&[
            (
                "",
                "auth x",
                "(error) ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
            ),
            ("", "auth default x", "OK"),
            ("", "auth other x", "(error) WRONGPASS invalid username-password pair or user is disabled."),
            ("", "auth a b c", "(error) ERR syntax error"),
        ]);
    }

    #[test]
    fn auth_with_a_password_set() {
        let mut world = World::with_password("secret");
        assert_eq!(world.run("get a"), "(error) NOAUTH Authentication required.");
        let wrong = "(error) WRONGPASS invalid username-password pair or user is disabled.";
        for line in ["auth x", "auth secretsecret", "auth secre", "auth other secret", "auth default x"] {
            assert_eq!(world.run(line), wrong, "{line}");
        }
        assert!(!world.session.authenticated);
        assert_eq!(world.run("auth secret"), "OK");
        assert_eq!(world.run("get a"), "(nil)");
        assert!(equal_in_constant_time(b"a", b"a") && !equal_in_constant_time(b"a", b""));
    }
}
