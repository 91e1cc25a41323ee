//! RESP, the Redis protocol: requests in, replies out, in versions 2 and 3.
//!
//! - [`Decoder`] finds requests in a connection's buffer, where they lie. It keeps its place, so a request that trickles in
//!   is read once, however long it is.
//! - [`write`] appends a reply.
//! - [`encode_request`] and [`ReplyDecoder`] are the other end, for our own client.
//!
//! Nothing here trusts a length that was only declared: memory follows the bytes that came. The texts of
//! [`ProtocolError`] are those of Redis.

mod reply;
mod request;
mod write;

pub use reply::{ReplyDecoder, decode_reply};
pub use request::{Decoder, Limits, Parsed, Span, slices};
pub use write::{encode_request, write, write_list_head, write_list_items};

use command::{CommandError, Reply};
use thiserror::Error;

/// What breaks the protocol. The connection is answered with it and closed, since nobody knows where the next request
/// starts.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// The number of arguments is no number, or too large.
    #[error("ERR Protocol error: invalid multibulk length")]
    InvalidMultibulkLength,
    /// The length of an argument is no number, or too large.
    #[error("ERR Protocol error: invalid bulk length")]
    InvalidBulkLength,
    /// Something stands where an argument should.
    #[error("ERR Protocol error: expected '$', got '{}'", .got.escape_ascii())]
    ExpectedDollar {
        /// The byte that stands there.
        got: u8,
    },
    /// An argument does not end where it said.
    #[error("ERR Protocol error: expected CRLF after a bulk string")]
    ExpectedLineEnd,
    /// The number of arguments has too many digits.
    #[error("ERR Protocol error: too big mbulk count string")]
    MultibulkCountTooBig,
    /// The length of an argument has too many digits.
    #[error("ERR Protocol error: too big bulk count string")]
    BulkCountTooBig,
    /// An inline request without an end.
    #[error("ERR Protocol error: too big inline request")]
    InlineTooBig,
    /// An inline request with a quote that does not close, or closes within a word.
    #[error("ERR Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// An HTTP request.
    #[error("ERR Protocol error: this is no HTTP server")]
    Http,
    /// More arguments than a stranger may send.
    #[error("ERR Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulk,
    /// More bytes than a stranger may send.
    #[error("ERR Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulk,
    /// All arguments together are too large.
    #[error("ERR Protocol error: too big request")]
    RequestTooBig,
    /// A server's reply that is none.
    #[error("ERR Protocol error: invalid reply")]
    InvalidReply,
}

impl From<ProtocolError> for CommandError {
    fn from(error: ProtocolError) -> CommandError {
        CommandError::Other(error.to_string())
    }
}

impl From<ProtocolError> for Reply<'static> {
    fn from(error: ProtocolError) -> Reply<'static> {
        Reply::Error(error.into())
    }
}
