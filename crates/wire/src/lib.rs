//! Room `wire`.

pub mod resp;
