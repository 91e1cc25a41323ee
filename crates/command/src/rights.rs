//! Who may do what: the password of every door, and a second one for administration.
//!
//! Where `adminpass` is set, what changes the cluster, a node's settings, other clients, or everything at once needs it
//! ([`is_administration`]). Whoever shows it in place of the first password, at whatever door, may enter and has that right; so tools
//! that know of one password need no other way to say it. To look at the state of things takes no right of its own.

use crate::{Command, CommandError, Session};
use types::settings::Settings;

/// What a password that was shown is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Nothing.
    Wrong,
    /// It lets in.
    Enters,
    /// It lets in, and administrate.
    Administrates,
}

/// What a password is good for. Where no first password is set any lets in, as in Redis.
pub fn shown(settings: &Settings, password: &[u8]) -> Shown {
    let (first, second) = (settings.requirepass.as_str(), settings.adminpass.as_str());
    // Both are compared, whatever comes of the first: how long it takes tells nothing.
    let enters = first.is_empty() | equal_in_constant_time(first.as_bytes(), password);
    let administrates = equal_in_constant_time(second.as_bytes(), password) & !second.is_empty();
    match (enters, administrates) {
        (_, true) => Shown::Administrates,
        (true, _) => Shown::Enters,
        _ => Shown::Wrong,
    }
}

/// Compares without telling by its time how much was right: it depends on the length of what the stranger sent only.
fn equal_in_constant_time(wanted: &[u8], given: &[u8]) -> bool {
    let mut different = u8::from(wanted.len() != given.len());
    for (at, byte) in given.iter().enumerate() {
        different |= byte ^ wanted.get(at % wanted.len().max(1)).copied().unwrap_or_default();
    }
    std::hint::black_box(different) == 0
}

/// Commands that are administration, by parent and name.
const ADMINISTRATION: &[(&str, &str)] = &[
    ("annulet", "accept-loss"),
    ("annulet", "drain"),
    ("annulet", "remove"),
    ("client", "kill"),
    ("client", "pause"),
    ("client", "unpause"),
    ("config", "resetstat"),
    ("config", "rewrite"),
    ("config", "set"),
    ("slowlog", "reset"),
    ("", "bgsave"),
    ("", "flushall"),
    ("", "flushdb"),
];

/// Whether a command is administration.
pub fn is_administration(command: &Command) -> bool {
    ADMINISTRATION.contains(&(command.parent, command.name))
}

/// Whether a session may run a command, as far as administration goes.
#[inline]
pub fn check_rights(session: &Session, command: &Command, settings: &Settings) -> Result<(), CommandError> {
    if session.administrates || settings.adminpass.as_str().is_empty() || !is_administration(command) {
        return Ok(());
    }
    Err(CommandError::NoPermission { command: command.full_name() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Categories, Flags, places};

    fn settings(first: &str, second: &str) -> Settings {
        let mut settings = Settings::default();
        settings.set("requirepass", first).unwrap();
        settings.set("adminpass", second).unwrap();
        settings
    }

    #[test]
    fn what_a_password_is_good_for() {
        let of = |first, second, password: &str| shown(&settings(first, second), password.as_bytes());
        for (password, good_for) in [
            ("user", Shown::Enters),
            ("admin", Shown::Administrates),
            ("", Shown::Wrong),
            ("use", Shown::Wrong),
            ("useruser", Shown::Wrong),
            ("adminadmin", Shown::Wrong),
        ] {
            assert_eq!(of("user", "admin", password), good_for, "{password}");
        }
        assert_eq!(of("user", "", "user"), Shown::Enters);
        assert_eq!(of("user", "", ""), Shown::Wrong);
        assert_eq!(of("", "", "any"), Shown::Enters);
        assert_eq!(of("", "admin", "any"), Shown::Enters);
        assert_eq!(of("", "admin", "admin"), Shown::Administrates);
        assert_eq!(of("same", "same", "same"), Shown::Administrates);
    }

    #[test]
    fn the_list_names_commands_that_are_there_and_forgets_no_operators_command() {
        let is_there =
            |parent: &str, name: &str| places().any(|row| row.parent == parent && row.name == name);
        for (parent, name) in ADMINISTRATION {
            assert!(is_there(parent, name), "{parent} {name}");
        }
        // Those that only show something.
        const LOOKS: &[&str] = &[
            "status",
            "holders",
            "help",
            "get",
            "len",
            "histogram",
            "latest",
            "history",
            "lastsave",
            "doctor",
            "reset",
        ];
        let of_operators =
            places().filter(|row| row.flags.contains(Flags::ADMIN) && row.subcommands.is_empty());
        let undecided = of_operators.filter(|row| !is_administration(row) && !LOOKS.contains(&row.name));
        let undecided: Vec<_> = undecided.map(|row| row.full_name()).collect();
        assert!(undecided.is_empty(), "administration, or does it only look? {undecided:?}");
        let shown = |row: &&Command| {
            row.categories.contains(Categories::ADMIN) || row.categories.contains(Categories::DANGEROUS)
        };
        let hidden: Vec<_> =
            places().filter(|row| is_administration(row) && !shown(row)).map(Command::full_name).collect();
        assert!(hidden.is_empty(), "administration that COMMAND INFO does not tell of: {hidden:?}");
    }
}
