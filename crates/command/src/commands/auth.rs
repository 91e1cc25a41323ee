//! AUTH: shows the password of every door, or that of administration.

use crate::rights::{self, Shown};
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
    summary: "Authenticates the connection. The one user is called default; admin shows the password of administration.",
    categories: Categories::FAST.with(Categories::CONNECTION),
    handler: Handler::Session(run),
    ..Command::BASE
};

fn run(session: &mut Session, host: &mut dyn Host, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    let is_set =
        |host: &dyn Host| !host.password().is_empty() || !host.settings().adminpass.as_str().is_empty();
    match args {
        [_, _] if !is_set(host) => Err(CommandError::NoPassword),
        // Whoever names no user shows a password that is set.
        [_, password] if host.password().is_empty() => {
            authenticate(session, host, ADMIN, password).map(|()| Reply::ok())
        }
        [_, password] => authenticate(session, host, DEFAULT, password).map(|()| Reply::ok()),
        [_, user, password] => authenticate(session, host, user, password).map(|()| Reply::ok()),
        _ => Err(CommandError::Syntax),
    }
}

const DEFAULT: &[u8] = b"default";
/// Who shows the password of administration, and may not be let in with the other.
const ADMIN: &[u8] = b"admin";

/// Marks the session authenticated, if user and password are right, and one that administrates where the password is that of
/// administration. Without a password any will do, as in Redis.
pub(crate) fn authenticate(
    session: &mut Session,
    host: &dyn Host,
    user: &[u8],
    password: &[u8],
) -> Result<(), CommandError> {
    match (user, rights::shown(host.settings(), password)) {
        (DEFAULT | ADMIN, Shown::Administrates) => {
            (session.authenticated, session.administrates) = (true, true)
        }
        (DEFAULT, Shown::Enters) => session.authenticated = true,
        _ => return Err(CommandError::WrongPass),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
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
    }

    #[test]
    fn auth_as_administrator() {
        let mut world = World::with_password("secret");
        world.run("auth secret");
        assert_eq!(world.run("config set adminpass master"), "OK");
        let wrong = "(error) WRONGPASS invalid username-password pair or user is disabled.";
        let refused = "(error) NOPERM this user has no permissions to run the 'config|set' command";
        assert_eq!(world.run("config set maxclients 5"), refused);
        assert_eq!(world.run("auth admin secret"), wrong);
        assert_eq!(world.run("config get maxclients"), "{'maxclients': '10000'}");
        assert_eq!(world.run("annulet status"), "'{}'");
        assert_eq!(
            world.run("flushall"),
            "(error) NOPERM this user has no permissions to run the 'flushall' command"
        );
        assert_eq!(world.run("auth admin master"), "OK");
        assert_eq!(world.run("config set maxclients 5"), "OK");
        // In place of the first password it does as well; RESET takes the right away.
        world.run("reset");
        assert_eq!(world.run("auth master"), "OK");
        assert_eq!(world.run("config set maxclients 6"), "OK");
        world.run("reset");
        world.run("auth secret");
        assert_eq!(world.run("config set maxclients 5"), refused);
        assert_eq!(world.run("config get adminpass"), "{'adminpass': '(hidden)'}");
    }

    #[test]
    fn administration_alone_may_have_a_password() {
        let mut world = World::new();
        assert_eq!(world.run("config set adminpass master"), "OK");
        assert_eq!(world.run("set a 1"), "OK");
        assert!(world.run("flushall").starts_with("(error) NOPERM"));
        assert!(world.run("auth x").starts_with("(error) WRONGPASS"));
        assert_eq!(world.run("auth default x"), "OK", "as in Redis, where no password is set");
        assert!(world.run("flushall").starts_with("(error) NOPERM"));
        assert_eq!(world.run("auth master"), "OK");
        assert_eq!(world.run("flushall"), "OK");
    }
}
