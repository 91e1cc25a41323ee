//! What other nodes have told of their builds in handshakes with this one: for whoever looks at the cluster while it is upgraded, when
//! the map does not tell of builds yet.
//!
//! A handful of handshakes a second at most, and `STATUS`, take its lock.

use placement::{ClusterMap, Member};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use types::{Incarnation, Level, NodeId};

/// The builds of the nodes that this one has spoken with, each in its newest start.
#[derive(Debug, Default)]
pub struct PeerBuilds(Mutex<BTreeMap<NodeId, Told>>);

#[derive(Clone, Debug)]
struct Told {
    incarnation: Incarnation,
    level: Level,
    build: String,
}

impl PeerBuilds {
    fn told(&self) -> MutexGuard<'_, BTreeMap<NodeId, Told>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node has proved who it is, and has told of its build. `build` is empty where it is one that tells nothing.
    pub fn saw(&self, node: NodeId, incarnation: Incarnation, level: Level, build: &str) {
        let mut told = self.told();
        if told.get(&node).is_none_or(|known| known.incarnation <= incarnation) {
            told.insert(node, Told { incarnation, level, build: build.to_owned() });
        }
    }

    /// The level and the build of a member's newest start; none where this node does not know. An empty build told nothing of itself.
    pub fn of(&self, map: &ClusterMap, member: &Member) -> Option<(Level, String)> {
        if map.level >= Level::BUILDS && member.incarnation > Incarnation(0) {
            return Some((member.level, member.build.clone()));
        }
        let told = self.told().get(&member.id).cloned()?;
        (told.incarnation == member.incarnation).then_some((told.level, told.build))
    }
}
