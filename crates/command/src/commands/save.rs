//! BGSAVE, LASTSAVE: snapshots of all data of a node on its disk.

use crate::{Categories, Command, CommandError, Flags, Handler, Reply};

/// BGSAVE [SCHEDULE]
pub(crate) const BGSAVE: Command = Command {
    name: "bgsave",
    arity: -1,
    syntax: "[SCHEDULE]",
    flags: Flags::ADMIN,
    categories: Categories::ADMIN.with(Categories::SLOW).with(Categories::DANGEROUS),
    group: "server",
    since: "1.0.0",
    summary: "Begins a snapshot on disk of every partition of this node that has changed since its last.",
    handler: Handler::Session(|_, host, args| {
        match args[1..] {
            [] => {}
            [option] if option.eq_ignore_ascii_case(b"schedule") => {}
            _ => return Err(CommandError::Syntax),
        }
        let persistence = host.persistence();
        if !persistence.logs {
            return Err(CommandError::Other("ERR nothing is kept on disk (log = off)".into()));
        }
        if persistence.saving {
            return Err(CommandError::Other("ERR Background save already in progress".into()));
        }
        host.save();
        Ok(Reply::simple("Background saving started"))
    }),
    ..Command::BASE
};

/// LASTSAVE
pub(crate) const LASTSAVE: Command = Command {
    name: "lastsave",
    flags: Flags::LOADING.with(Flags::STALE).with(Flags::FAST),
    group: "server",
    since: "1.0.0",
    categories: Categories::ADMIN.with(Categories::FAST).with(Categories::DANGEROUS),
    summary: "When every partition of this node that had changed last got its snapshot, in Unix seconds. The log holds what was written since.",
    handler: Handler::Session(|_, host, _| Ok(Reply::Integer(host.persistence().last_save_s as i64))),
    ..Command::BASE
};

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn snapshots_are_begun_and_told_of() {
        check(&[
            ("", "lastsave", "(integer) 1700000000"),
            ("", "bgsave", "Background saving started"),
            ("bgsave", "bgsave schedule", "(error) ERR Background save already in progress"),
            ("", "bgsave now", "(error) ERR syntax error"),
        ]);
    }
}
