//! Feature levels: which records, messages and entries a build knows, and which of them a cluster uses.
//!
//! Nodes of two builds run together while a cluster is upgraded, so nobody may write what an older node cannot read. Each build
//! has a highest level ([`Level::HIGHEST`]); the cluster has one, in its map, that all members have. It rises by an entry in the
//! control plane's log once the last member's build has more, and never goes down. Code that makes something new asks for the
//! map's level first.
//!
//! A level is a promise about bytes: what is written at one never changes again. A change of format is a new level, and the old
//! format stays as a named module for as long as clusters of its level are to be upgraded.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A feature level, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Level(pub u16);

impl Level {
    /// What builds have that say nothing of levels.
    pub const FIRST: Level = Level(1);
    /// The map and the registrations tell of levels and builds; entries and control files of format 4 hold them.
    pub const BUILDS: Level = Level(2);
    /// The map shows who is about to stop.
    pub const STOPPING: Level = Level(2);
    /// A snapshot on its way to another copy goes on after a break, and shards' logs say which one chunks are of.
    pub const TRANSFERS_GO_ON: Level = Level(2);
    /// The voters change with the nodes: who has a seat in the consensus group stands in its log, in the map and in control files; a node may
    /// be a witness.
    pub const VOTERS_FOLLOW: Level = Level(2);
    /// Primaries tell the copies how far they have committed, so that stale reads have an age.
    pub const COMMITS_TOLD: Level = Level(2);
    /// Primaries show what was committed behind a place in their log (`CHANGES`).
    pub const CHANGES_SHOWN: Level = Level(2);
    /// The highest that this build has.
    pub const HIGHEST: Level = Level::BUILDS;
}

impl Default for Level {
    fn default() -> Level {
        Level::FIRST
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
