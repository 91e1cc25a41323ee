//! READONLY, READWRITE, ASKING: what cluster-aware clients say about the next reads.

use crate::{Categories, Command, Flags, Handler, Reply, SessionFn};

const fn row(name: &'static str, summary: &'static str, run: SessionFn) -> Command {
    Command {
        name,
        flags: Flags::FAST.with(Flags::LOADING).with(Flags::STALE),
        group: "cluster",
        since: "3.0.0",
        summary,
        categories: Categories::FAST.with(Categories::CONNECTION),
        handler: Handler::Session(run),
        ..Command::BASE
    }
}

/// READONLY
pub(crate) const READONLY: Command = row(
    "readonly",
    "Reads of this connection may be stale, and are answered by backups too.",
    |session, _, _| {
        session.readonly = true;
        Ok(Reply::ok())
    },
);

/// READWRITE
pub(crate) const READWRITE: Command =
    row("readwrite", "Reads of this connection are again as its level says.", |session, _, _| {
        session.readonly = false;
        Ok(Reply::ok())
    });

/// ASKING
pub(crate) const ASKING: Command =
    row("asking", "Says that the next command follows an ASK.", |session, _, _| {
        session.asking = true;
        Ok(Reply::ok())
    });

#[cfg(test)]
mod tests {
    use crate::testing::World;
    use types::settings::ReadLevel;

    #[test]
    fn readonly_means_stale_reads() {
        let mut world = World::new();
        assert_eq!(world.session.effective_read_level(), ReadLevel::Linearizable);
        assert_eq!(world.run("readonly"), "OK");
        assert_eq!(world.session.effective_read_level(), ReadLevel::Stale);
        assert_eq!(world.run("readwrite"), "OK");
        assert_eq!(world.session.effective_read_level(), ReadLevel::Linearizable);
        assert_eq!(world.run("asking"), "OK");
        assert!(world.session.asking);
    }
}
