//! Room `server`: sockets, files, threads and clocks around the machines of room `node`.
//!
//! ```text
//!  client ports ──> client_ports ──────────┐ connections, dealt in turn
//!                                          v
//!                  ┌── shard_loop 0 <──> shard_loop 1 ... ──┐   one thread each: clients, links, a machine
//!                  │        ^ maps            │ changes     │
//!                  │        │                 v             │
//!                  │   heart_loop <────> control_loop ──> disk
//!                  └── links (frames, one way each) ────────┘
//!                           ^ sockets that have proved themselves
//!  peer port ──────> peers (tokio: dial, accept, handshake)
//!  HTTP port ──────> http ─┐ doors (tokio): requests, gRPC's too, go to a shard by desk
//!  line port ──────> line ─┘
//! ```
//!
//! Threads share nothing but letter boxes ([`mailbox`]) and what `node::Published` holds in atomics. The shards and
//! the heart never wait for a disk; the control plane's thread does, so that they need not.
//!
//! Start at [`run()`], then [`start::run_with`].

pub mod address_book;
mod agreement;
pub mod budget;
pub mod buffers;
pub mod client_ports;
pub mod clients;
pub mod clock;
pub mod cluster_view;
pub mod connection;
pub mod control_loop;
pub mod data;
pub mod desk;
pub mod directory;
pub mod disk;
pub mod doors;
mod grpc;
pub mod heart_loop;
pub mod http;
pub mod join_progress;
pub mod line;
pub mod link;
pub mod log_thread;
pub mod look;
pub mod machine;
pub mod mailbox;
pub mod membership;
pub mod metrics;
pub mod parting;
pub mod peers;
pub mod proof;
pub mod read_only;
pub mod ring;
pub mod run;
pub mod sampler;
mod scheduling;
pub mod shard_loop;
pub mod snapshot_thread;
pub mod start;
pub mod stats;
pub mod stop;
#[cfg(test)]
mod testing;
pub mod threads;
pub mod work;

pub use run::run;
pub use start::{StartError, run_with};
