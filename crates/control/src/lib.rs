//! The control plane: who is alive, who is in sync, who is primary.
//!
//! Two machines without I/O, one of each on every node:
//!
//! - [`Heart`] sends heartbeats to the voters and counts their grants into a lease; on a voter it also grants, and
//!   notices who has fallen silent (rule 6).
//! - [`Control`] keeps the cluster map. On a voter it is a member of the consensus group (the `raft` crate); the
//!   group's leader is the coordinator and decides ([`coordinator`]): it admits nodes that start, declares dead
//!   whom a majority of voters report, arbitrates changes of in-sync sets, and has primaries hand over (`balance`). What it decides is a [`Command`]
//!   in the group's log; applying one ([`command::apply`]) is a pure function of the map.
//!
//! The cluster's shape (who is a member, where copies belong) changes by [`shape`]; what is due of it the coordinator
//! plans in `moves`. Who votes changes by [`voters`], one step after another, each an entry of the group's own log ([`seats`]).
//!
//! Two builds run together while a cluster is upgraded: [`levels`] says what the cluster uses, [`format`] and [`format_1`] write it.
//!
//! What this room leaves out: files (it yields frames to be made durable, and takes them back at start), sockets,
//! clocks, and everything about keys.

mod balance;
pub mod command;
pub mod coordinator;
mod follow;
mod format;
pub mod format_1;
mod frames;
mod hand_over;
mod hearing;
mod heart;
mod leave;
mod levels;
mod machine;
pub mod message;
mod moves;
pub mod seats;
pub mod shape;
#[cfg(test)]
mod small_map;
mod step_down;
mod store;
pub mod voters;

pub use command::Command;
pub use frames::{RestoreError, Restored, Started, restore, start_frame};
pub use heart::{Heart, HeartConfig, HeartEffects, HeartInput, HeartNotice, Pulse};
pub use levels::Build;
pub use machine::{Control, ControlConfig, ControlEffects};
pub use message::{Beat, Change, Identity, Kept, MapChanges, Message, Order, Registration};
