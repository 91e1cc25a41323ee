//! The Rust client.
//!
//! So far one blocking connection at a time, for the shell and the tools: [`Connection`] takes several addresses, uses
//! the first that answers, and after a failure goes on with the next. It speaks RESP3 where the server does.
//!
//! A request is sent once. What broke before it was sent is told apart from what broke afterwards
//! ([`ClientError::is_unsent`]): only the first may be sent again, and the caller decides. Routing by the cluster map,
//! pools and retries are to come. [`Connection::into_pipeline`] splits it for bulk loads: many requests before their replies.

pub mod connection;
pub mod pipeline;

pub use command::Reply;
pub use connection::{ClientError, Connection, Options};
pub use pipeline::{Replies, Requests};
