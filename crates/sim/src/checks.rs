//! What must hold at every moment, one invariant a file. All look at the nodes from outside, in true time, and none
//! decides by the product's code.
//!
//! | what must hold | where it is looked at |
//! | --- | --- |
//! | at most one leased primary | [`one_primary`], [`leases`] |
//! | what is committed is never lost, and logs agree up to the commit | [`committed`] |
//! | in-sync copies hold every write acknowledged at `all` | [`in_sync`], [`acknowledged`] |
//! | epochs and partition time only grow | [`growth`], [`maps`] |
//! | backups' tables are prefixes of the primary's history | [`tables`] |
//! | linearizable | [`history::linearizability`], at the end; `crate::losses` where something may be lost |
//! | nobody waits for ever | [`waits`]; at the end `crate::ending` |
//! | followers are shown what was committed, all of it and in order | `crate::follower` |

pub mod acknowledged;
pub mod committed;
pub mod growth;
pub mod in_sync;
pub mod leases;
pub mod levels;
pub mod maps;
pub mod moves;
pub mod one_primary;
pub mod stopping;
pub mod tables;
pub mod voters;
pub mod waits;

use crate::process::Process;
use history::Time;
use types::Instant;

/// A running node, as the checks see it.
#[derive(Clone, Copy)]
pub struct Seat<'a> {
    /// Its index.
    pub node: usize,
    /// Its process.
    pub process: &'a Process,
    /// What its own clock shows now.
    pub now: Instant,
}

/// All invariants and what they remember.
pub struct Checks {
    /// Maps.
    pub maps: maps::Maps,
    /// One primary.
    pub one_primary: one_primary::OnePrimary,
    /// What is committed.
    pub committed: committed::CommittedLogs,
    /// What only grows.
    pub growth: growth::Growth,
    /// Copies that go.
    pub moves: moves::Moves,
    /// Who votes.
    pub voters: voters::Voters,
}

impl Checks {
    /// Nothing has happened yet.
    pub fn new(nodes: usize, partitions: usize) -> Checks {
        Checks {
            maps: maps::Maps::default(),
            one_primary: one_primary::OnePrimary::new(nodes),
            committed: committed::CommittedLogs::new(nodes, partitions),
            growth: growth::Growth::new(nodes, partitions),
            moves: moves::Moves::default(),
            voters: voters::Voters::default(),
        }
    }

    /// A node's process is gone.
    pub fn gone(&mut self, node: usize) {
        self.one_primary.gone(node);
        self.committed.gone(node);
        self.growth.gone(node);
    }

    /// Something happened at a node. `shards`: to its data, too.
    pub fn after(&mut self, node: usize, shards: bool, seats: &[Option<Seat<'_>>]) -> Result<(), String> {
        let Some(seat) = seats[node] else { return Ok(()) };
        let newer = self.maps.look(&seat)?;
        if let Some((before, after)) = &newer {
            leases::check(before, after, seats)?;
            levels::check(before, after, seats)?;
            self.moves.look(before, after)?;
            self.voters.look(before, after)?;
            stopping::check(before, after)?;
        }
        if shards {
            self.one_primary.look(&seat);
            self.one_primary.check(node, seats)?;
            self.growth.look(&seat)?;
            self.committed.look(&seat)?;
        }
        in_sync::check(&mut self.committed, newer.is_some(), self.maps.newest(), seats)
    }
}

/// A true time for people.
pub fn shown(now: Time) -> String {
    format!("{}.{:06} s", now / 1_000_000_000, now / 1000 % 1_000_000)
}
