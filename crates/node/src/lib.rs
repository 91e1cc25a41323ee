//! One node: routes requests to partitions, and composes the machines of the other rooms.
//!
//! - A [`Shard`] is one data thread's machine: its partitions, and the requests of its connections. A request runs here,
//!   is passed on to its partition's primary, is split over partitions and gathered, or waits for a partition that
//!   nobody serves just now.
//! - A [`HeartDriver`] is the node's heart with what its shards say of themselves, a [`ControlDriver`] its control
//!   machine with the file that it must not forget.
//! - [`Published`] is what the node's threads tell each other without waiting for one another.
//!
//! The way of a request: [`Shard::request`] (table, arity, rights) → `route` (slot, partition, its primary) → `run`
//! (on the partition, here) or `forward` (to the primary) or `collect` (over several partitions) → a reply, now or
//! among the [`Effects`].
//!
//! Nothing here blocks, reads a clock or does I/O, but for the control file through a [`storage::Disk`].

mod account;
mod collect;
mod control_driver;
mod crowd;
mod following;
mod forward;
mod freshness;
mod heart_driver;
mod host;
mod last_writes;
mod listing;
mod log_begin;
pub mod look;
mod needed_from;
mod operate;
mod partitions;
mod peer_builds;
mod published;
mod random_key;
pub mod recover;
mod request;
mod run;
mod scan;
mod shard;
mod slow_log;
mod snapshots;
pub mod stats;

pub use control_driver::FILE as CONTROL_FILE;
pub use control_driver::{
    BUILD, ControlDriver, ControlDriverConfig, ControlDriverError, DriverEffects, KeptLogs,
};
pub use heart_driver::HeartDriver;
pub use host::node_name;
pub use peer_builds::PeerBuilds;
pub use published::{
    ClusterFigures, ControlFigures, LogFigures, ProcessFigures, Published, ServerFigures, ShardCounters, View,
};
pub use request::{Preview, Request};
pub use shard::{Answer, Effects, Shard, ShardConfig, Ticket};
pub use slow_log::SlowLog;
pub use snapshots::SnapshotJob;
pub use stats::{CommandStats, Totals};
