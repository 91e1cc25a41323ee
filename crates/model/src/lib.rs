//! The rules of replication, checked in every order of events within small bounds.
//!
//! Placeholder.

pub mod copy;
pub mod data;
mod digest;
pub mod scenes;
