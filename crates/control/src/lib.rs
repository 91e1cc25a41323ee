//! The control plane: who is alive, who is in sync, who is primary; over the consensus library.

pub mod message;
