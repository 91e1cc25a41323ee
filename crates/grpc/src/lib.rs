//! Room `grpc`: what goes over gRPC. Messages and services, made from the descriptions in `proto/` when this room is built, and
//! their translation into commands and back. No sockets, no clocks: room `server` serves them.
//!
//! ```text
//!   message ──> ask: a command with its levels ──> (server::desk) ──> Reply ──> answer: message, or errors: Status
//! ```
//!
//! A room of its own, beside `wire`, since only `server` has a use for it: the simulator and the fuzzers are built without it.

pub mod answer;
pub mod ask;
pub mod errors;
pub mod state;

/// Package `kvstore`: the service of an existing family of small clients.
#[allow(missing_docs)]
pub mod kvstore {
    tonic::include_proto!("kvstore");
}

/// Package `annulet.v1`: Annulet's own service.
#[allow(missing_docs)]
pub mod v1 {
    tonic::include_proto!("annulet.v1");
}

/// The descriptors of both, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub use ask::Ask;
