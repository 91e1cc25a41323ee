//! What a shard's thread does beside its turns' requests, a moment each turn: long requests, expiry, freeing.
//!
//! The machine ([`ShardMachine::work`]) and the garbage ([`storage::garbage`]) do a little at each call; here is the clock that
//! says for how long. While something is left the loop does not sleep. What is large is freed by a thread of its own, since
//! giving hundreds of megabytes back to the system takes a hundred milliseconds in one call.

use crate::clock;
use crate::machine::ShardMachine;
use std::sync::mpsc;
use std::time::Duration;
use storage::garbage;
use types::Instant;

/// How long a turn works. A call may go over by some tens of microseconds.
const MOMENT: Duration = Duration::from_micros(300);
/// Pieces of dropped tables that are freed between two looks at the clock.
const PIECES: usize = 256;

/// Where to send what takes long to drop: large values, and the files of a log's front.
pub type Freer = mpsc::Sender<Box<dyn Send>>;

/// What the free thread does, until the last [`Freer`] is gone.
pub fn free_large(queue: &mpsc::Receiver<Box<dyn Send>>) {
    // Nobody waits for it, and where it shares a processor with a shard's thread the system would otherwise let it run for
    // milliseconds at a time. Linux gives each thread its own niceness. Where it is refused, freeing only disturbs more.
    let _ = rustix::process::nice(19);
    while let Ok(large) = queue.recv() {
        drop(large);
    }
}

/// From now on what this thread drops is freed by [`Work::run`].
pub fn keep_garbage() {
    garbage::keep();
}

/// Whether work is left.
#[derive(Debug, Default)]
pub struct Work {
    left: bool,
}

impl Work {
    /// Whether the thread should not sleep.
    pub fn is_left(&self) -> bool {
        self.left
    }

    /// Works for a moment. Both kinds go on at each turn, so that neither waits for the other to end.
    pub fn run<M: ShardMachine>(&mut self, mut now: Instant, machine: &mut M, freer: &Freer) {
        let end = now + MOMENT;
        loop {
            let more = machine.work(now);
            garbage::free(PIECES);
            self.left = more || garbage::is_waiting();
            if !self.left {
                break;
            }
            now = clock::now();
            if now >= end {
                break;
            }
        }
        let large = garbage::take_large();
        if !large.is_empty() {
            // The free thread ends after the last shard.
            let _ = freer.send(Box::new(large));
        }
    }
}
