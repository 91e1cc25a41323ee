//! What a shard's thread does beside its turns' requests, a moment each turn: long requests, expiry, freeing.
//!
//! The machine ([`ShardMachine::work`]) and the garbage ([`storage::garbage`]) do a little at each call; here is the clock that
//! says for how long. While something is left the loop does not sleep. What is large is freed by a thread of its own, since
//! giving hundreds of megabytes back to the system takes a hundred milliseconds in one call.

use crate::clock;
use crate::machine::ShardMachine;
use crate::scheduling;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc;
use std::time::Duration;
use storage::garbage;
use types::Instant;

/// How long a turn works. A call may go over by some tens of microseconds.
const MOMENT: Duration = Duration::from_micros(300);
/// The free thread's place behind others.
const NICE: i32 = 19;
/// So much of a file is given back at a time, in bytes, and then others have the processor for so long.
const FILE_PIECE: u64 = 2 << 20;
const FILE_PAUSE: Duration = Duration::from_micros(500);
/// Pieces of dropped tables that are freed between two looks at the clock.
const PIECES: usize = 256;

/// What takes long to give back to the system.
pub enum Large {
    /// Values.
    Memory(Vec<garbage::Large>),
    /// A removed file, of the front of a log.
    File(File),
}

/// Where to send it.
pub type Freer = mpsc::Sender<Large>;

/// What the free thread does, until the last [`Freer`] is gone.
pub fn free_large(queue: &mpsc::Receiver<Large>) {
    // Where it shares a processor with a shard's thread the system would otherwise let it run for milliseconds at a time.
    scheduling::stand_behind(NICE);
    while let Ok(large) = queue.recv() {
        match large {
            Large::Memory(values) => drop(values),
            Large::File(file) => cut_away(&file),
        }
    }
}

/// Gives a removed file's room back bit by bit: in one call it takes 5 ms of a processor and more.
fn cut_away(file: &File) {
    // Somebody may have another name for it.
    let mut left = file.metadata().map_or(0, |about| if about.nlink() == 0 { about.len() } else { 0 });
    while left > 0 {
        left = left.saturating_sub(FILE_PIECE);
        if file.set_len(left).is_err() {
            // Then all at once, when it is closed.
            return;
        }
        std::thread::sleep(FILE_PAUSE);
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
            let _ = freer.send(Large::Memory(large));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A copy that somebody made by another name is his.
    #[test]
    fn only_a_file_without_a_name_is_cut_away() {
        let path = std::env::temp_dir().join(format!("annulet-cut-{}", std::process::id()));
        let other = path.with_extension("other");
        let bytes = FILE_PIECE * 2 + 1;
        let file = File::create(&path).expect("a new file");
        file.set_len(bytes).expect("room");
        fs::hard_link(&path, &other).expect("a second name");
        fs::remove_file(&path).expect("it is there");
        let len = || file.metadata().expect("it is open").len();
        cut_away(&file);
        assert_eq!(len(), bytes);
        fs::remove_file(&other).expect("it is there");
        cut_away(&file);
        assert_eq!(len(), 0);
    }
}
