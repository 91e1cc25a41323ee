//! The rules of replication (ARCHITECTURE.md, "The rules"), checked in every order of events within small bounds.
//!
//! The simulator looks at few orders of many events; this room looks at all orders of a few. It is a model for the checker `stateright`,
//! which walks through every state that can be reached and asks of each whether the properties hold.
//!
//! **What ships is what is checked**, as far as it has no sockets, threads and disks in it:
//!
//! | in the model | what it is |
//! | --- | --- |
//! | a copy of the partition, primary or backup, its log, table and recovery | the machine: `replication::Partition` over `storage` |
//! | messages between copies | the machine's own |
//! | maps, and what deaths, admissions, changes, moves and hand-overs make of them | `control::command::apply` on `placement::ClusterMap` |
//! | which proposed change is let through, which copy may go, whose log is the longest | `is_valid_change`, `droppable`, `longest` |
//! | heartbeats, grants, leases, silence, reports | the machine: `control::Heart` |
//! | what becomes of reports, from a voter to a death and its answer | written down once more in [`leases`], after `Control` and `coordinator` |
//! | consensus, and who hears of an entry when | abstract: one agreed list, which everybody takes up in their own time |
//! | which node holds a lease, in [`data`] | abstract: what [`leases`] shows of it |
//! | disks | abstract: what was synced is kept whole, the rest is lost |
//! | clients | abstract: writes of a key of their own, at `all`, and linearizable reads of all keys |
//! | the network | abstract: any message may be late or lost, and be overtaken where the scene says so |
//!
//! **Where to read.** [`data`] is the model of replication, over [`copy`], which makes states of machines that can be neither cloned nor
//! compared. [`leases`] is the model of leases. [`scenes`] has the bounds within which they are explored, and explores them.
//!
//! **What it leaves out**: changes of the voters, forwarded requests, expiry, other levels than `all`, doubtful and accepted losses (rule
//! 20 beyond logs that are whole), snapshots on disk. Those are the simulator's.

pub mod copy;
pub mod data;
mod digest;
pub mod leases;
mod members;
pub mod scenes;
