//! Bounds that have been chosen: each looks at one thing.

use crate::copy::Disk;
use crate::data::Bounds;

/// What the others differ from: two copies, in memory, and nothing happens.
pub const QUIET: Bounds = Bounds {
    nodes: 2,
    copies: 2,
    disk: Disk::None,
    puts: 1,
    reads: 1,
    ticks: 0,
    lapses: 0,
    crashes: 0,
    losses: 0,
    hand_overs: 0,
    moves: false,
    reorder: false,
    buries_the_living: false,
};
