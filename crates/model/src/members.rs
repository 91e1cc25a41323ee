//! Nodes as they say who they are, of which the models ask little.

use control::{Kept, Registration};
use types::{Incarnation, Level, NodeId};

/// A node that has its one data directory for as long as it lives.
pub(crate) fn registration(node: NodeId, incarnation: Incarnation, kept: Kept) -> Registration {
    Registration {
        node,
        incarnation,
        directory: 1,
        votes: true,
        shards: 1,
        kept,
        host: String::new(),
        port: 0,
        cluster_port: 0,
        peer_port: 0,
        http_port: 0,
        line_port: 0,
        weight: 1,
        zone: String::new(),
        level: Level::HIGHEST,
        build: String::new(),
        witness: false,
    }
}
