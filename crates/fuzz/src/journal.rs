//! The journal over a disk that holds anything, or that crashes, or whose bytes rot.
//!
//! An input's first byte says which: the rest is a whole file, or a run of operations. After a crash there is all that was
//! synced and some of what follows, in order; a flipped bit is reported or cuts the end off, and never becomes a frame that
//! nobody wrote. A journal that opens can be written to, and holds what it held.

use crate::input::Input;
use crate::meter;
use sim::disk::SimDisk;
use std::path::Path;
use storage::{Disk, Journal};

/// See the [module](self).
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    match choice % 2 {
        0 => meter::within((256 << 10) + 64 * data.len(), || any_file(input.rest)),
        // The simulated disk keeps every file that a rewrite has replaced.
        _ => meter::within(4 << 20, || operations(input)),
    }
}

fn path() -> &'static Path {
    Path::new("/d/journal")
}

fn new_disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/d")).expect("room for a directory");
    disk
}

fn any_file(bytes: &[u8]) {
    let disk = new_disk();
    let file = disk.open(path()).expect("a new file");
    disk.write_at(&file, 0, bytes).expect("room");
    disk.sync(&file).expect("a disk that works");
    disk.sync_dir(Path::new("/d")).expect("a disk that works");
    let Ok((mut journal, mut frames)) = Journal::open(disk.clone(), path()) else {
        assert_eq!(disk.content(path()).as_deref(), Some(bytes), "what is refused is left as it was");
        return;
    };
    assert!(frames.iter().map(Vec::len).sum::<usize>() < bytes.len().max(1));
    journal.append(b"more").expect("room");
    journal.sync().expect("a disk that works");
    frames.push(b"more".to_vec());
    drop(journal);
    disk.crash(1);
    let (_, again) = Journal::open(disk, path()).expect("it was opened before");
    assert_eq!(again, frames);
}

fn operations(mut input: Input<'_>) {
    let disk = new_disk();
    let (mut journal, frames) = Journal::open(disk.clone(), path()).expect("a new journal");
    assert!(frames.is_empty());
    // What it was given, and how many of these were synced.
    let (mut given, mut synced): (Vec<Vec<u8>>, usize) = (Vec::new(), 0);
    while !input.rest.is_empty() {
        match input.byte() % 8 {
            0..3 => {
                let count = usize::from(input.byte());
                let frame = input.bytes(count);
                journal.append(frame).expect("room");
                given.push(frame.to_vec());
            }
            3 | 4 => {
                journal.sync().expect("a disk that works");
                synced = given.len();
            }
            5 => {
                let keep = usize::from(input.byte()) % (given.len() + 1);
                given.drain(..keep);
                journal.rewrite(&given).expect("room");
                synced = given.len();
            }
            6 => {
                drop(journal);
                disk.crash(u64::from(input.byte()));
                let (opened, frames) = Journal::open(disk.clone(), path()).expect("a crash is no rot");
                assert!(frames.len() >= synced, "{synced} frames were synced, {} are there", frames.len());
                assert_eq!(frames, given[..frames.len()]);
                given.truncate(frames.len());
                (journal, synced) = (opened, frames.len());
            }
            _ => {
                // The last of all: what follows would build on damage.
                journal.sync().expect("a disk that works");
                let at = u64::from(input.byte()) << 8 | u64::from(input.byte());
                let damaged = disk.damage(path(), at % journal.bytes(), 1 << (input.byte() % 8));
                assert!(damaged, "a byte within the file");
                drop(journal);
                if let Ok((_, frames)) = Journal::open(disk, path()) {
                    assert!(frames.len() < given.len(), "a flipped bit went unnoticed");
                    assert_eq!(frames, given[..frames.len()]);
                }
                return;
            }
        }
    }
}

/// The head of a journal.
pub fn words() -> Vec<Vec<u8>> {
    let mut head = b"ANNJRNL\0\x01\0\0\0".to_vec();
    head.extend_from_slice(&crc32c::crc32c(&head).to_le_bytes());
    vec![head]
}
