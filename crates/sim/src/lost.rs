//! Partitions of which no copy is in sync any more.
//!
//! Where nothing is on disk that may well be: one copy is killed while another is paused or cut off, or while its removal is on its
//! way, and what the second had is gone with its seat. To the cluster both were away at once. But as long as one that was in sync
//! runs, awake and within reach for longer than it takes to declare a node dead, nobody may take the last seat away (rules 3 and 7).

use crate::network::MS;
use crate::world::World;
use history::Time;
use placement::ClusterMap;
use types::NodeId;

/// So long after a pause or a cut nothing follows from it any more: the grace, and the entry that declares a node dead.
const SETTLED: Time = 1_500 * MS;

impl World {
    /// The newest map is another than this one.
    pub(crate) fn check_lost(&self, before: &ClusterMap) -> Result<(), String> {
        for (id, state) in self.checks.maps.newest().each_partition() {
            let Some(was) = before.partition(id).filter(|_| state.in_sync.is_empty()) else { continue };
            if let Some(node) = was.in_sync.iter().find(|&node| self.is_hale(before, node)) {
                return Err(format!(
                    "partition {id} is lost, though node {node} was in sync and within reach: {was:?}, then {state:?}"
                ));
            }
        }
        Ok(())
    }

    fn is_hale(&self, map: &ClusterMap, id: NodeId) -> bool {
        let node = &self.nodes[usize::from(id.0) - 1];
        let runs = node.process.as_ref().is_some_and(|process| {
            map.member(id).is_some_and(|member| member.incarnation == process.identity().incarnation)
        });
        runs && node.pauses == 0
            && !node.is_slow()
            && self.network.is_good()
            && self.now >= node.awake_since.max(self.links_mended_at) + SETTLED
    }
}
