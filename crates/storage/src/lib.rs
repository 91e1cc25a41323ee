//! Room `storage`: what a partition's data is, in memory and as bytes.
//!
//! A partition's keys live in a [`table::Table`]. A command runs on it through a [`keyspace::Keyspace`], which
//! records what it changed as [`effect::Effect`]s and keeps what was replaced, for undo and for stale reads, in
//! [`keyspace::Uncommitted`]. The effects of one command are the body of one [`record::Record`] of the partition's
//! [`log::Log`]. [`snapshot`] moves a table in chunks, and [`snapshot_file`] keeps them on disk. [`disk::Disk`] is
//! how files are seen, and [`journal::Journal`] is a small file over it. Large values are [`compression`]'s before they are
//! sent or kept; very large ones are neither compressed nor copied, but shared from where they came in ([`lent`], [`rope`]). What is
//! dropped may be [`garbage`] that is freed later.
//!
//! Nothing here reads a clock, draws a random number, opens a socket or a file, or waits. Bytes that come from
//! elsewhere are decoded without a panic and without an allocation by a declared length: bad ones are
//! [`Corrupt`]. `unsafe` lives in `table/` and `prefetch` alone.

mod codec;
pub mod compression;
pub mod disk;
pub mod effect;
pub mod garbage;
pub mod journal;
pub mod keyspace;
pub mod lent;
pub mod log;
pub mod log_entry;
pub mod prefetch;
pub mod record;
pub mod rope;
pub mod shard_log;
pub mod snapshot;
pub mod snapshot_file;
pub mod table;
pub mod uncommitted;

pub use codec::Corrupt;
pub use disk::Disk;
pub use effect::Effect;
pub use journal::{Journal, JournalError};
pub use keyspace::{Changes, Footprint, Keyspace};
pub use lent::Lent;
pub use log::Log;
pub use log_entry::LogEntry;
pub use record::Record;
pub use rope::{Parts, Rope, Sink, Tailed, TailedBuffer};
pub use shard_log::{ShardLog, ShardLogError, ShardLogOptions};
pub use snapshot::SnapshotEnd;
pub use snapshot_file::{SnapshotError, SnapshotWriter};
pub use table::{Entry, Hasher, OwnedEntry, OwnedValue, Table, Value};
pub use uncommitted::{Uncommitted, Undos};
