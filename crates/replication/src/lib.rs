//! One partition's copies: the primary's and the backup's machine, and what they say to each other.

pub mod message;
