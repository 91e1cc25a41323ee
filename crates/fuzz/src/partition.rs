//! One partition as its primary has it, without a node around it: commands run on its table, what they change becomes records,
//! and these are committed or taken back.
//!
//! Whatever was run, the table is what the log makes of an empty one, as at a backup, and the committed view is what the
//! committed part of the log makes: [`Partition::check`].

use crate::records::{Contents, contents};
use storage::effect::apply_all;
use storage::{Changes, Footprint, Hasher, Keyspace, Table, Uncommitted};
use types::{Lsn, Version};

/// See the [module](self).
#[derive(Debug)]
pub struct Partition {
    /// The newest state.
    pub table: Table,
    /// Unix milliseconds. Whoever owns the partition lets them pass.
    pub now_ms: u64,
    changes: Changes,
    uncommitted: Uncommitted,
    last_version: Version,
    /// The bodies of the records, from lsn 1 on.
    log: Vec<Vec<u8>>,
    commit: usize,
}

impl Default for Partition {
    fn default() -> Partition {
        Partition {
            table: Table::new(Hasher::new(1)),
            now_ms: 1_700_000_000_000,
            changes: Changes::new(true, true),
            uncommitted: Uncommitted::default(),
            last_version: Version::default(),
            log: Vec::new(),
            commit: 0,
        }
    }
}

impl Partition {
    /// The bodies of the records, from lsn 1 on.
    pub fn log(&self) -> &[Vec<u8>] {
        &self.log
    }

    /// How many records are not committed.
    pub fn uncommitted(&self) -> usize {
        self.log.len() - self.commit
    }

    /// Runs something on the newest state, and logs what it changes, as `replication::Partition::run` and `order` do.
    pub fn run<T>(&mut self, run: impl FnOnce(&mut Keyspace<'_>) -> T) -> T {
        let Partition { table, changes, uncommitted, last_version, now_ms, .. } = self;
        changes.clear();
        let footprint = Footprint::default();
        let result =
            run(&mut Keyspace::fresh(table, changes, uncommitted, last_version, *now_ms, &footprint));
        if !self.changes.is_empty() {
            self.log.push(self.changes.body.clone().finished(0).to_bytes().to_vec());
            let lsn = Lsn(self.log.len() as u64);
            self.uncommitted.push(
                lsn,
                self.changes.body.len(),
                &mut self.changes.undo,
                self.changes.removed_any,
            );
        }
        result
    }

    /// Runs something on the committed state, which it may not change.
    pub fn run_stale<T>(&mut self, run: impl FnOnce(&mut Keyspace<'_>) -> T) -> T {
        let Partition { table, changes, uncommitted, last_version, now_ms, .. } = self;
        changes.clear();
        let footprint = Footprint::default();
        let result =
            run(&mut Keyspace::committed(table, changes, uncommitted, last_version, *now_ms, &footprint));
        assert!(self.changes.is_empty(), "a stale read changed something");
        result
    }

    /// Commits the next records, of which there may be fewer.
    pub fn commit(&mut self, count: usize) {
        self.commit += count.min(self.uncommitted());
        self.uncommitted.commit(Lsn(self.commit as u64));
    }

    /// Takes the last records back, as far as they are not committed.
    pub fn roll_back(&mut self, count: usize) {
        let keep = self.log.len() - count.min(self.uncommitted());
        self.log.truncate(keep);
        self.uncommitted.roll_back(Lsn(keep as u64), &mut self.table);
    }

    /// Panics where table, log and committed view do not fit together.
    pub fn check(&mut self) {
        assert_eq!(contents(&self.table), replayed(&self.log), "the table, and what its records make");
        let seen = self.run_stale(|keyspace| {
            let (mut seen, mut cursor) = (Contents::new(), Some(0));
            while let Some(from) = cursor {
                cursor = keyspace.scan(from, 16, &mut |entry| {
                    seen.insert(entry.key.to_vec(), entry.to_owned());
                });
            }
            seen
        });
        assert_eq!(seen, replayed(&self.log[..self.commit]), "the committed view");
    }
}

fn replayed(log: &[Vec<u8>]) -> Contents {
    // Another node has another seed.
    let mut copy = Table::new(Hasher::new(2));
    for body in log {
        apply_all(body, &mut copy).expect("what a command logged");
    }
    contents(&copy)
}
