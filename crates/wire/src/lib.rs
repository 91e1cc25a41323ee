//! Room `wire`: bytes to requests and messages, and back. No sockets, no clocks, no state but what a stream needs.

pub mod line;
pub mod peer;
pub mod resp;
