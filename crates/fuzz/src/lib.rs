//! Room `fuzz`: any bytes at every door where bytes come in, and what must hold whatever they are.
//!
//! A [`Target`] takes bytes and panics where a promise is broken: a decoder's findings depend on how the bytes arrived, what
//! it read does not write back the same, a copy differs from its primary, memory follows a length that was only declared.
//! The targets are plain functions, so that two drivers share them:
//!
//! - `fuzz/` beside the workspace links them with libFuzzer, which looks for inputs that reach new code
//!   (`fuzz/run`; it is laid out as cargo-fuzz wants it);
//! - `tests/replay.rs` runs them over the committed inputs, `fuzz/corpus/`, and over mutations of these drawn from a fixed
//!   seed, with every `cargo test`.
//!
//! What a fuzzer found stays in the corpus, and so is replayed for ever.
//!
//! Where it is known what has to come out, it is compared with it: [`model`] says what Redis does with strings, keys and lifetimes, and
//! is itself held against redis-server (`tests/model.rs`).
//!
//! Left out: sockets, threads and time. Hostile clients of whole processes are in crates/annulet/tests/clients/hostile.rs.

pub mod commands;
pub mod config;
pub mod connection;
pub mod frames;
pub mod input;
pub mod journal;
pub mod lines;
pub mod log;
pub mod meter;
pub mod model;
pub mod partition;
pub mod records;
pub mod replies;
pub mod requests;
pub mod sequence;
pub mod snapshots;

/// Something that takes any bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: of its corpus' directory and of its binary in `fuzz/`.
    pub name: &'static str,
    /// Panics where a promise is broken.
    pub run: fn(&[u8]),
    /// Words that are worth trying.
    pub words: fn() -> Vec<Vec<u8>>,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "commands", run: commands::run, words: Vec::new },
    Target { name: "config", run: config::run, words: config::words },
    Target { name: "connection", run: connection::run, words: connection::words },
    Target { name: "frames", run: frames::run, words: Vec::new },
    Target { name: "journal", run: journal::run, words: journal::words },
    Target { name: "lines", run: lines::run, words: lines::words },
    Target { name: "log", run: log::run, words: log::words },
    Target { name: "records", run: records::run, words: Vec::new },
    Target { name: "replies", run: replies::run, words: replies::words },
    Target { name: "requests", run: requests::run, words: requests::words },
    Target { name: "snapshots", run: snapshots::run, words: snapshots::words },
];
