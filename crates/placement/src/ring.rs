//! The consistent-hash ring: in which order a partition would like the nodes.
//!
//! Each node stands on a ring of 2^64 points at [`VIRTUAL_NODES`] places for each unit of its weight. A partition
//! has a point of its own and walks clockwise; the order in which it meets nodes for the first time is its
//! preference. A node that comes or goes changes only where it stands itself, so preferences stay put.
//!
//! The ring only prefers. Its shares are uneven (by about 8% with 160 places a node), so [`crate::plan`] bounds the
//! load of each node and takes the ring for what is left to choose.
//!
//! (Karger et al., "Consistent hashing and random trees", 1997; bounded loads: Mirrokni et al., 2016.)

use types::{NodeId, PartitionId};

/// Places on the ring for each unit of a node's weight.
pub const VIRTUAL_NODES: u32 = 160;

/// The weight beyond which a node gets no more places, so that odd weights cannot exhaust memory.
const WEIGHT_MAX: u32 = 64;

/// The ring of some nodes.
#[derive(Clone, Debug)]
pub struct Ring {
    /// Point and node, by point. Two nodes on one point are ordered by number.
    places: Vec<(u64, NodeId)>,
    nodes: usize,
}

impl Ring {
    /// The ring of these nodes and their weights. Each node is to be named once.
    pub fn new(nodes: impl IntoIterator<Item = (NodeId, u32)>) -> Ring {
        let mut places = Vec::new();
        let mut count = 0;
        for (node, weight) in nodes {
            count += 1;
            let own = VIRTUAL_NODES * weight.clamp(1, WEIGHT_MAX);
            places.extend((0..own).map(|i| (point(NODE, u64::from(node.0) << 32 | u64::from(i)), node)));
        }
        places.sort_unstable();
        Ring { places, nodes: count }
    }

    /// Every node once, in the order in which `partition` meets them clockwise from its own point.
    pub fn walk(&self, partition: PartitionId) -> Vec<NodeId> {
        let start = point(PARTITION, u64::from(partition.0));
        let first = self.places.partition_point(|&(place, _)| place < start);
        let mut met = Vec::with_capacity(self.nodes);
        for &(_, node) in self.places[first..].iter().chain(&self.places[..first]) {
            if met.len() == self.nodes {
                break;
            }
            if !met.contains(&node) {
                met.push(node);
            }
        }
        met
    }
}

/// What a point belongs to, so that a node's points and a partition's are unrelated.
const NODE: u64 = 0x616e_6e75_6c65_7401;
const PARTITION: u64 = 0x616e_6e75_6c65_7402;

/// The point of a thing on the ring.
///
/// Written out here, with a fixed seed, because it must never change: coordinators of different versions may follow
/// each other in one cluster, and another hash would prefer other nodes and so move data for nothing. Libraries for
/// hash maps (foldhash, the standard library's) promise no stable value. It is the finalizer of splitmix64 (Steele,
/// Lea and Flood, 2014, with Stafford's constants), applied twice. Node ids are not a stranger's to choose, so it
/// need not withstand attacks.
fn point(kind: u64, number: u64) -> u64 {
    mix(mix(kind) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equal(nodes: u16) -> Ring {
        Ring::new((1..=nodes).map(|id| (NodeId(id), 1)))
    }

    /// These values are in running clusters. A change that breaks this test moves everyone's data.
    #[test]
    fn points_never_change() {
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf, "splitmix64's first output from seed 0");
        assert_eq!(point(NODE, 1 << 32), POINT_OF_NODE_1);
        assert_eq!(point(PARTITION, 0), POINT_OF_PARTITION_0);
        let ids = |partition| equal(5).walk(PartitionId(partition)).iter().map(|n| n.0).collect::<Vec<_>>();
        assert_eq!([ids(0), ids(1), ids(1023)], WALKS);
    }

    const POINT_OF_NODE_1: u64 = 0xe2c1_3d0d_cf3c_c8b1;
    const POINT_OF_PARTITION_0: u64 = 0xd5cb_078b_a03d_7621;
    const WALKS: [[u16; 5]; 3] = [[4, 5, 2, 3, 1], [1, 3, 5, 2, 4], [3, 1, 5, 4, 2]];

    #[test]
    fn a_walk_meets_every_node_once() {
        let ring = equal(50);
        for partition in (0..1024).map(PartitionId) {
            let mut walk = ring.walk(partition);
            walk.sort_unstable();
            assert!(walk.iter().copied().eq((1..=50).map(NodeId)));
        }
        assert!(Ring::new([]).walk(PartitionId(0)).is_empty());
    }

    #[test]
    fn a_new_node_changes_nobody_elses_order() {
        let (five, six) = (equal(5), equal(6));
        for partition in (0..1024).map(PartitionId) {
            let mut walk = six.walk(partition);
            walk.retain(|node| node.0 != 6);
            assert_eq!(walk, five.walk(partition));
        }
    }

    #[test]
    fn weight_attracts() {
        let ring = Ring::new([(NodeId(1), 1), (NodeId(2), 3)]);
        let first = (0..16384).map(PartitionId).filter(|&p| ring.walk(p)[0] == NodeId(2)).count();
        let share = first as f64 / 16384.0;
        assert!((0.65..0.85).contains(&share), "{share}");
    }
}
