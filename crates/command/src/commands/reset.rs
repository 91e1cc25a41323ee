//! RESET: the connection as it was when it came.

use crate::{Categories, Command, Flags, Handler, Reply};

/// RESET
pub(crate) const COMMAND: Command = Command {
    name: "reset",
    flags: Flags::NOSCRIPT.with(Flags::LOADING).with(Flags::STALE).with(Flags::FAST).with(Flags::NO_AUTH),
    group: "connection",
    since: "6.2.0",
    summary: "Makes the connection as it was when it came: RESP2, without a name, at the settings' levels, and not authenticated where there is a password. The library that named itself stays.",
    categories: Categories::FAST.with(Categories::CONNECTION),
    handler: Handler::Session(|session, host, _| {
        session.reset(host.settings());
        Ok(Reply::simple("RESET"))
    }),
    ..Command::BASE
};

#[cfg(test)]
mod tests {
    use crate::Session;
    use crate::testing::{World, check};

    #[test]
    fn reset() {
        check(&[
            ("hello 3; client setname me", "reset", "RESET"),
            ("client setname me; reset", "client getname", "(nil)"),
            ("multi; reset; set a 1", "get a", "'1'"),
            (
                "consistency read stale write one; reset",
                "consistency",
                "{'read': 'linearizable', 'write': 'all'}",
            ),
            ("", "reset x", "(error) ERR wrong number of arguments for 'reset' command"),
        ]);
    }

    #[test]
    fn a_session_is_as_new_after_it() {
        let mut world = World::new();
        let told = |session: &Session| {
            let Session { name, protocol, readonly, asking, read_level, refuses_transaction, .. } =
                session.clone();
            (name, protocol, readonly, asking, read_level, refuses_transaction)
        };
        let new = told(&world.session);
        for line in ["hello 3 setname me", "readonly", "asking", "consistency read stale", "multi"] {
            world.run(line);
        }
        assert_ne!(told(&world.session), new);
        world.run("reset");
        assert_eq!(told(&world.session), new);
        world.run("client setinfo lib-name me");
        world.run("reset");
        assert_eq!(world.session.lib_name, b"me");
    }

    #[test]
    fn the_password_is_needed_again() {
        let mut world = World::with_password("secret");
        assert_eq!(world.run("reset"), "RESET");
        world.run("auth secret");
        assert_eq!(world.run("get a"), "(nil)");
        assert_eq!(world.run("reset"), "RESET");
        assert_eq!(world.run("get a"), "(error) NOAUTH Authentication required.");
    }
}
