//! Room `sim`: whole clusters in one thread, from a seed.

pub mod disk;
pub mod history;
pub mod linearizability;
pub mod random;
