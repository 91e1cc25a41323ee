//! Who holds what: the cluster map, and the plans that decide its placement.
//!
//! The map ([`map`]) is one versioned value, agreed by the control plane. Plans are computed by the coordinator
//! alone and their outcome is stored in the map, so no two parties ever compute a different answer.

pub mod map;

pub use map::{ClusterMap, Member, MemberState, PartitionState};
