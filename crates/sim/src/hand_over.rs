//! Hand-overs that nobody needs: partitions are told to change their primaries again and again, whatever else goes on.
//!
//! Left to itself a cluster hands over only when it is calm. What may go wrong does so in the midst of other things. The draws are
//! of their own, so that a seed has the same faults with them and without.

use crate::network::MS;
use crate::occasions::Occasions;
use crate::world::{PARTITIONS, World};
use history::Time;
use history::random::Random;
use types::{NodeId, PartitionId};

/// When the first may come: the cluster has formed.
const FIRST: Time = 1500 * MS;

/// When hand-overs are ordered in a seed's run; in some never.
pub(crate) fn draw(seed: u64) -> Occasions {
    let mut random = Random::new(seed ^ 0x4a2d_0000_0000_0000);
    let gap = random.chance(700).then(|| random.pick(&[60, 200, 600, 2000]) * MS);
    Occasions::new(random.draw(), gap.map(|gap| (gap / 10, gap * 2)), FIRST)
}

impl World {
    /// A node asks for a hand-over of one partition, or of all of them, to any node: whether that may be is the coordinator's
    /// business.
    pub(crate) fn order_hand_over(&mut self, number: u64) -> Result<(), String> {
        let random = &mut self.hand_overs.stream(number);
        let founders = self.founders() as u64;
        let asks = random.below(founders) as usize;
        let heir = NodeId(random.below(founders) as u16 + 1);
        let first = random.below(u64::from(PARTITIONS)) as u16;
        let partitions = if random.chance(100) { 0..PARTITIONS } else { first..first + 1 };
        if self.nodes[asks].process.is_some() && self.nodes[asks].pauses == 0 {
            self.trace.event(self.now, &[25, asks as u64, u64::from(first)], || {
                format!(
                    "hand-over {number}: node {} asks: partitions {partitions:?} to node {heir}",
                    asks + 1
                )
            });
            for partition in partitions {
                self.at_node(asks, true, |process, own, _| {
                    process.hand_over(own, PartitionId(partition), heir)
                })?;
            }
        }
        Ok(())
    }
}
