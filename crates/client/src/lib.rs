//! The Rust client.
//!
//! [`Client`] is for programs that keep data in a cluster: asynchronous, on tokio, shared by all tasks. It connects to any node,
//! learns which node serves which key, and goes there directly.
//!
//! ```no_run
//! # async fn example() -> Result<(), client::Error> {
//! use client::{Client, SetOptions};
//! use std::time::Duration;
//!
//! let client = Client::builder().seeds(["127.0.0.1:7101", "127.0.0.1:7102"]).connect().await?;
//! client.set("user:1", "Alice").await?;
//! assert_eq!(client.get("user:1").await?, Some(b"Alice".to_vec()));
//!
//! // Under a condition, and for a time.
//! let once = SetOptions::new().if_absent().expire_after(Duration::from_secs(30));
//! let locked = client.set_with("lock", "me", &once).await?;
//!
//! // Many at once: a result each, in their order.
//! let mut pipeline = client.pipeline();
//! pipeline.incr_by("visits", 1).get("user:1").command(&["STRLEN", "user:1"]);
//! for result in pipeline.run().await {
//!     println!("{:?}", result?);
//! }
//!
//! // Every key of the cluster, page by page.
//! let mut scan = client.scan().matching("user:*");
//! while let Some(keys) = scan.next_page().await? {
//!     println!("{} keys", keys.len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! **What an error means.** Every [`Error`] says whether the request may have been carried out
//! ([`Error::may_have_happened`]). What surely was not done is tried again until the deadline, with growing, jittered waits. A write
//! that may have been done is never sent again: [`Error::OutcomeUnknown`] leaves that to the caller, who knows whether twice does harm.
//!
//! ```no_run
//! # async fn example(client: client::Client) -> Result<(), client::Error> {
//! match client.incr_by("orders", 1).await {
//!     Ok(number) => println!("order {number}"),
//!     Err(error) if error.is_outcome_unknown() => println!("counted or not: look before you count again"),
//!     Err(error) => println!("surely not counted: {error}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! **Levels.** [`Builder::read_level`] and [`Builder::write_level`], or [`Client::with_read_level`] for some calls, choose
//! what reads may show and when writes are acknowledged. Stale reads go to the nearest copy.
//!
//! [`blocking::Client`] is the same for programs without a runtime. [`Connection`] is one plain blocking connection to whichever of
//! several addresses answers, for tools that talk to a node rather than to a cluster; [`Connection::into_halves`] splits it for bulk loads.
//!
//! # How it works
//!
//! ```text
//!  calls, pipeline, scan ──> request: arity, keys, slots ──> client: attempt, judge, wait, again
//!                            (the command table)                │                 ▲
//!                                      topology: slot to node   │                 │ what became of it
//!                                                               ▼                 │
//!                                      pool: lanes of a node ──> pipe: one connection, requests in order
//! ```
//!
//! - `request` makes bytes of a call, with its route and its *risk*: what sending it twice would mean.
//! - `topology` holds the slot map (`map`), learns it from `CLUSTER SLOTS` of whoever answers, and chooses copies (`nearness`).
//! - `pipe` owns one connection: it takes requests from a bounded queue, many a write, and matches replies by order. It
//!   knows of each request whether its bytes left the process.
//! - `retry` decides, without I/O, what may be sent again. `batch` does so for many requests, and keeps the order of a slot.
//!
//! What it leaves out: numbers for clients' own repeats (the server has none yet), TLS, and commands that change their connection.

mod batch;
pub mod blocking;
mod builder;
mod calls;
mod client;
pub mod connection;
mod error;
pub mod halves;
mod levels;
mod map;
mod nearness;
mod pipe;
mod pool;
mod request;
mod retry;
mod scan;
mod set_options;
mod signals;
mod topology;

pub use batch::Pipeline;
pub use builder::Builder;
pub use calls::TimeToLive;
pub use client::Client;
pub use command::{CommandError, Reply};
pub use connection::{ClientError, Connection, Options};
pub use error::Error;
pub use halves::{Replies, Requests};
pub use scan::Scan;
pub use set_options::SetOptions;
pub use types::settings::{ReadLevel, WriteLevel};
