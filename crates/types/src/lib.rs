//! Words that every room shares: ids, positions in a log, time, versions, limits and settings.
//!
//! Nothing here does I/O, reads a clock or knows another room. The meanings are those of docs/glossary.md.

pub mod ids;
pub mod latency;
pub mod level;
pub mod limits;
pub mod planted;
pub mod settings;
pub mod shared_settings;
pub mod slot;
pub mod time;

pub use ids::{
    Endpoint, Epoch, Incarnation, Lsn, NodeId, NodeSet, PartitionId, Position, RequestId, ShardId,
};
pub use level::Level;
pub use slot::{SLOTS, Slot, partition_of_key, partition_of_slot, slot_of_key, slots_of_partition};
pub use time::{Instant, Version};
