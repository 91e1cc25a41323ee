//! The line port: JSON and text requests on one listener, for people, scripts and small clients.
//!
//! [`framing`] finds where a request ends; [`json`] and [`text`] read one and write its answer. What a request comes to, which
//! nodes there are and who may ask is for others to say: here are bytes and what they mean, nothing else.
//!
//! ```text
//!   bytes, and when they came ──> framing ──> one request ──> json or text ──> Request
//!                                                  Answer ──> json or text ──> one line, or a few
//! ```

pub mod framing;
pub mod json;
pub mod text;

pub use framing::{Bounds, Found, Framing, Kind};
