//! The command layer: what a request means.
//!
//! A request is a list of byte strings, its name first. The [table](mod@table) says how many arguments it takes, which of
//! them are keys, who may run it and where: on the partitions of its keys, on every partition, or on the connection's
//! session. A command runs on a [`storage::Keyspace`], which records what changes, and yields a [`Reply`]; a
//! connection command runs on a [`Session`] and asks the node through [`Host`].
//!
//! ```text
//!   args ──> resolve: arity, key lengths ──> Handler ──> Reply or CommandError
//!                     (one table)               │
//!                                   Keyspace, or Session and Host
//! ```
//!
//! Front ends share this room: a codec turns bytes into a request and a reply into bytes. Nothing here sees a
//! socket, reads a clock or knows which node serves what.

mod blob;
pub mod clients;
pub mod commands;
pub mod error;
pub mod glob;
pub mod host;
mod list;
mod long_double;
mod neutral;
pub mod number;
pub mod reply;
pub mod rights;
pub mod session;
pub mod slow_request;
pub mod table;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use blob::Blob;
pub use clients::{ClientAnswer, ClientFilter, ClientOrder, ClientState};
pub use commands::{changes, keys, randomkey, scan, wait};
pub use error::{CommandError, ERROR_WORDS, ErrorKind};
pub use host::{
    ClusterOrder, ClusterView, CommandFigures, Host, InfoData, NodeView, Pause, Persistence, RangeView,
};
pub use list::{Chunk, List};
pub use reply::{Corrupt, Reply};
pub use rights::{check_rights, is_administration};
pub use session::{Door, ReplyMode, Scope, Session};
pub use slow_request::SlowRequest;
pub use table::{
    Categories, ClientsFn, Command, Flags, Handler, KeySpec, KeysFn, Merge, Over, SessionFn, check_session,
    lookup, place_of, places, reference_markdown, resolve, resolve_from, table,
};
