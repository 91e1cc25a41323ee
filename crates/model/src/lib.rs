//! The rules of replication, checked in every order of events within small bounds.
//!
//! Placeholder.

pub mod copy;
pub mod data;
pub mod leases;
mod digest;
pub mod scenes;
