//! A disk that lives in memory, loses what a real one may lose, and fails when it is told to.
//!
//! Each file has what a reader sees and what is durable, and between them the writes that were not synced, in
//! order. A crash ([`SimDisk::crash`]) keeps a prefix of these, drawn from a seed, and of the write that the cut
//! falls into a prefix of its bytes: a torn tail. Changes of names wait for their directory's sync the same way:
//! a crash keeps a prefix of a directory's changes. Directories themselves are durable at once.
//! [`SimDisk::crash_scattered`] is as bad as POSIX allows: any part of what was not synced is kept, in any order.
//!
//! Every call of the disk is an operation with a number: the power can go off after any of them
//! ([`SimDisk::power_off_after`]), and any can fail ([`SimDisk::fail_operation`]).
//!
//! A handle is cheap to clone, and all clones are one disk. Files opened before a crash are gone with the process
//! that held them: using one fails.
//!
//! Left out: rot, which a test makes by itself ([`SimDisk::damage`]).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use storage::Disk;

/// A simulated disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Rc<RefCell<State>>);

/// An open file of a simulated disk.
#[derive(Debug)]
pub struct SimFile {
    file: u64,
    crashes: u64,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, FileState>,
    /// The names as a running process sees them.
    names: BTreeMap<PathBuf, u64>,
    /// The names that are durable.
    durable_names: BTreeMap<PathBuf, u64>,
    /// The changes of names that are not, oldest first.
    changes: Vec<Change>,
    directories: BTreeSet<PathBuf>,
    files_made: u64,
    crashes: u64,
    fail_sync: bool,
    fail_write: bool,
    room_bytes: Option<u64>,
    /// How many there have been since the disk was new.
    operations: u64,
    power_off_after: Option<u64>,
    fail_operation: Option<(u64, ErrorKind)>,
}

#[derive(Debug, Default)]
struct FileState {
    seen: Vec<u8>,
    durable: Vec<u8>,
    writes: Vec<Write>,
    /// For how many bytes room is reserved, where that is more than it has.
    allocated: u64,
}

impl FileState {
    /// What it takes of the disk's room.
    fn room_bytes(&self) -> u64 {
        self.allocated.max(self.seen.len() as u64)
    }

    /// As on Linux: what could not be written counts as written from then on, so that the next sync says nothing
    /// of it. Lengths are the file system's own, and do not get lost this way.
    fn lose_writes(&mut self) {
        self.writes.retain(|write| matches!(write, Write::Truncate(_)));
    }
}

#[derive(Clone, Debug)]
enum Write {
    At(u64, Vec<u8>),
    Truncate(u64),
}

#[derive(Clone, Debug)]
enum Change {
    Create(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl Change {
    fn touches(&self, directory: &Path) -> bool {
        match self {
            Change::Create(path, _) | Change::Remove(path) => path.parent() == Some(directory),
            Change::Rename(from, to) => from.parent() == Some(directory) || to.parent() == Some(directory),
        }
    }

    fn make(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Change::Create(path, file) => {
                names.insert(path.clone(), *file);
            }
            Change::Remove(path) => {
                names.remove(path);
            }
            Change::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }
}

impl Write {
    /// Makes the write, or the first `bytes` of it.
    fn make(&self, content: &mut Vec<u8>, bytes: usize) {
        match self {
            Write::At(offset, written) => {
                let start = *offset as usize;
                let written = &written[..bytes.min(written.len())];
                if written.is_empty() {
                    return;
                }
                content.resize(content.len().max(start + written.len()), 0);
                content[start..start + written.len()].copy_from_slice(written);
            }
            Write::Truncate(length) => content.resize(*length as usize, 0),
        }
    }

    /// Makes the write, or nothing of it, or any pieces of it.
    fn make_scattered(&self, content: &mut Vec<u8>, random: &mut Random) {
        let choice = random.below(4);
        match self {
            _ if choice == 0 => {}
            Write::At(offset, written) if choice == 1 => {
                // Its length may be there before its bytes.
                content.resize(content.len().max(*offset as usize + written.len()), 0);
                let piece = 1 << random.below(7);
                for (number, bytes) in written.chunks(piece).enumerate() {
                    if random.below(2) == 0 {
                        let start = *offset as usize + number * piece;
                        content[start..start + bytes.len()].copy_from_slice(bytes);
                    }
                }
            }
            _ => self.make(content, self.bytes()),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Write::At(_, written) => written.len(),
            Write::Truncate(_) => 1,
        }
    }
}

impl SimDisk {
    /// An empty disk with room for everything.
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    /// The power fails: what was not synced is lost, but for a part that the seed chooses.
    pub fn crash(&self, seed: u64) {
        let state = &mut *self.0.borrow_mut();
        let mut random = Random(seed);
        for file in state.files.values_mut() {
            let mut left =
                random.below(file.writes.iter().map(|write| write.bytes() as u64).sum::<u64>() + 1) as usize;
            for write in std::mem::take(&mut file.writes) {
                if left == 0 {
                    break;
                }
                write.make(&mut file.durable, left);
                left = left.saturating_sub(write.bytes());
            }
        }
        // Directories keep the order of their changes; kept here over all of them, which is stricter on nobody.
        let changes = std::mem::take(&mut state.changes);
        let kept = random.below(changes.len() as u64 + 1) as usize;
        changes[..kept].iter().for_each(|change| change.make(&mut state.durable_names));
        state.start_again();
    }

    /// The power fails: what was not synced is lost, but for any part that the seed chooses, in any order.
    pub fn crash_scattered(&self, seed: u64) {
        let state = &mut *self.0.borrow_mut();
        let mut random = Random(seed);
        for file in state.files.values_mut() {
            for write in std::mem::take(&mut file.writes) {
                write.make_scattered(&mut file.durable, &mut random);
            }
        }
        for change in std::mem::take(&mut state.changes) {
            if random.below(2) == 0 {
                change.make(&mut state.durable_names);
            }
        }
        state.start_again();
    }

    /// The process ends and the machine goes on: nothing is lost that the process had written, but what a failed
    /// sync has lost may not be durable though it is seen.
    pub fn end_process(&self) {
        self.0.borrow_mut().crashes += 1;
    }

    /// How many operations there have been.
    pub fn operations(&self) -> u64 {
        self.0.borrow().operations
    }

    /// Every operation fails that comes after so many, as [`SimDisk::operations`] counts them, and does nothing,
    /// until the next crash.
    pub fn power_off_after(&self, operations: u64) {
        self.0.borrow_mut().power_off_after = Some(operations);
    }

    /// The operation with this number, from 1, fails: a write after none, half or all of its bytes, as the number
    /// has it; a sync with all that it should have made durable lost. Until the next crash.
    pub fn fail_operation(&self, number: u64, error: ErrorKind) {
        self.0.borrow_mut().fail_operation = Some((number, error));
    }

    /// From now on every sync of a file fails, or none any more. What a failed sync should have made durable is
    /// lost at the next crash, though a later sync succeeds.
    pub fn fail_sync(&self, fail: bool) {
        self.0.borrow_mut().fail_sync = fail;
    }

    /// From now on every write fails after half of its bytes, or none any more.
    pub fn fail_write(&self, fail: bool) {
        self.0.borrow_mut().fail_write = fail;
    }

    /// How many bytes all files together may have; `None`: no bound. Writes beyond fail, after what fits.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.0.borrow_mut().room_bytes = bytes;
    }

    /// How many bytes all files together have, with what is reserved for them.
    pub fn used_bytes(&self) -> u64 {
        self.0.borrow().used_bytes()
    }

    /// Flips the bits of one durable byte that `mask` has. False where there is none.
    pub fn damage(&self, path: &Path, offset: u64, mask: u8) -> bool {
        let state = &mut *self.0.borrow_mut();
        let Some(file) = state.names.get(path).and_then(|file| state.files.get_mut(file)) else {
            return false;
        };
        let at = offset as usize;
        let (Some(durable), Some(seen)) = (file.durable.get_mut(at), file.seen.get_mut(at)) else {
            return false;
        };
        *durable ^= mask;
        *seen ^= mask;
        true
    }

    /// What a reader sees of a file.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.0.borrow();
        state.names.get(path).map(|file| state.files[file].seen.clone())
    }

    /// Counts an operation, and says whether it fails.
    fn begin(&self) -> Result<(), Trouble> {
        let state = &mut *self.0.borrow_mut();
        state.operations += 1;
        if state.power_off_after.is_some_and(|last| state.operations > last) {
            return Err(Trouble::PowerOff);
        }
        match state.fail_operation {
            Some((number, kind)) if number == state.operations => Err(Trouble::Fails(kind)),
            _ => Ok(()),
        }
    }

    fn with<T>(&self, file: &SimFile, run: impl FnOnce(&mut FileState) -> io::Result<T>) -> io::Result<T> {
        let state = &mut *self.0.borrow_mut();
        if file.crashes != state.crashes {
            return Err(Error::other("opened before the crash"));
        }
        run(state.files.get_mut(&file.file).ok_or(ErrorKind::NotFound)?)
    }
}

/// Why an operation does not do what it should.
enum Trouble {
    PowerOff,
    Fails(ErrorKind),
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Error {
        match trouble {
            Trouble::PowerOff => Error::other("the power is off"),
            Trouble::Fails(kind) => Error::new(kind, "a simulated error"),
        }
    }
}

impl State {
    /// After a crash: what is durable is all that there is.
    fn start_again(&mut self) {
        self.names = self.durable_names.clone();
        let used: BTreeSet<u64> = self.names.values().copied().collect();
        self.files.retain(|file, _| used.contains(file));
        for file in self.files.values_mut() {
            file.seen = file.durable.clone();
            file.allocated = 0;
        }
        self.crashes += 1;
        self.power_off_after = None;
        self.fail_operation = None;
    }

    fn used_bytes(&self) -> u64 {
        let used: BTreeSet<&u64> = self.names.values().collect();
        used.iter().map(|file| self.files[file].room_bytes()).sum()
    }

    fn has_directory_of(&self, path: &Path) -> io::Result<()> {
        let parent = path.parent().unwrap_or(Path::new(""));
        let there = parent.as_os_str().is_empty() || self.directories.contains(parent);
        if there { Ok(()) } else { Err(ErrorKind::NotFound.into()) }
    }

    fn change(&mut self, change: Change) {
        change.make(&mut self.names);
        self.changes.push(change);
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn create_dir_all(&self, directory: &Path) -> io::Result<()> {
        self.begin()?;
        let above = directory.ancestors().filter(|path| !path.as_os_str().is_empty()).map(Path::to_owned);
        self.0.borrow_mut().directories.extend(above);
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.begin()?;
        let state = self.0.borrow();
        state.has_directory_of(&directory.join("name"))?;
        let paths = state.names.keys().chain(&state.directories);
        let inside = paths.filter(|path| path.parent() == Some(directory));
        let mut names: Vec<String> =
            inside.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }

    fn open(&self, path: &Path) -> io::Result<SimFile> {
        self.begin()?;
        let state = &mut *self.0.borrow_mut();
        state.has_directory_of(path)?;
        let file = match state.names.get(path) {
            Some(&file) => file,
            None => {
                state.files_made += 1;
                let file = state.files_made;
                state.files.insert(file, FileState::default());
                state.change(Change::Create(path.to_owned(), file));
                file
            }
        };
        Ok(SimFile { file, crashes: state.crashes })
    }

    fn len(&self, file: &SimFile) -> io::Result<u64> {
        self.begin()?;
        self.with(file, |file| Ok(file.seen.len() as u64))
    }

    fn read(&self, file: &SimFile, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.begin()?;
        self.with(file, |file| {
            let range = offset as usize..(offset as usize).saturating_add(buffer.len());
            buffer.copy_from_slice(file.seen.get(range).ok_or(ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn write_at(&self, file: &mut SimFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let trouble = self.begin();
        if let Err(Trouble::PowerOff) = trouble {
            return Err(Trouble::PowerOff.into());
        }
        let (fail_write, room, used, number) = {
            let state = self.0.borrow();
            (state.fail_write, state.room_bytes, state.used_bytes(), state.operations)
        };
        self.with(file, |file| {
            let (mut written, mut result) = (bytes.len(), Ok(()));
            if let Err(trouble) = trouble {
                (written, result) = (bytes.len() * (number % 3) as usize / 2, Err(trouble.into()));
            } else if fail_write {
                (written, result) = (bytes.len() / 2, Err(Error::other("a simulated write error")));
            } else if let Some(room) = room {
                let fits = file.room_bytes() + room.saturating_sub(used);
                let fits = fits.saturating_sub(offset).min(bytes.len() as u64) as usize;
                if fits < bytes.len() {
                    (written, result) = (fits, Err(ErrorKind::StorageFull.into()));
                }
            }
            let write = Write::At(offset, bytes[..written].to_vec());
            write.make(&mut file.seen, written);
            file.writes.push(write);
            result
        })
    }

    fn sync(&self, file: &mut SimFile) -> io::Result<()> {
        let trouble = self.begin();
        if let Err(Trouble::PowerOff) = trouble {
            return Err(Trouble::PowerOff.into());
        }
        let fail = self.0.borrow().fail_sync;
        self.with(file, |file| {
            if fail || trouble.is_err() {
                file.lose_writes();
            }
            trouble?;
            if fail {
                return Err(Error::other("a simulated sync error"));
            }
            for write in std::mem::take(&mut file.writes) {
                write.make(&mut file.durable, write.bytes());
            }
            Ok(())
        })
    }

    fn truncate(&self, file: &mut SimFile, bytes: u64) -> io::Result<()> {
        self.begin()?;
        self.with(file, |file| {
            let write = Write::Truncate(bytes);
            write.make(&mut file.seen, write.bytes());
            file.writes.push(write);
            file.allocated = 0;
            Ok(())
        })
    }

    /// A crash gives back what was reserved beyond the end.
    fn allocate(&self, file: &mut SimFile, bytes: u64) -> io::Result<()> {
        self.begin()?;
        let (room, used) = {
            let state = self.0.borrow();
            (state.room_bytes, state.used_bytes())
        };
        self.with(file, |file| {
            let more = bytes.saturating_sub(file.room_bytes());
            if room.is_some_and(|room| more > room.saturating_sub(used)) {
                return Err(ErrorKind::StorageFull.into());
            }
            file.allocated = file.allocated.max(bytes);
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.begin()?;
        let state = &mut *self.0.borrow_mut();
        state.has_directory_of(to)?;
        if !state.names.contains_key(from) {
            return Err(ErrorKind::NotFound.into());
        }
        state.change(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.begin()?;
        let state = &mut *self.0.borrow_mut();
        if !state.names.contains_key(path) {
            return Err(ErrorKind::NotFound.into());
        }
        state.change(Change::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.begin()?;
        let state = &mut *self.0.borrow_mut();
        if state.fail_sync {
            return Err(Error::other("a simulated sync error"));
        }
        state.has_directory_of(&directory.join("name"))?;
        let (synced, kept) = std::mem::take(&mut state.changes)
            .into_iter()
            .partition::<Vec<_>, _>(|change| change.touches(directory));
        synced.iter().for_each(|change| change.make(&mut state.durable_names));
        state.changes = kept;
        Ok(())
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::{Journal, JournalError, journal};

    const PATH: &str = "data/journal";

    fn open(disk: &SimDisk) -> Result<(Journal<SimDisk>, Vec<Vec<u8>>), JournalError> {
        open_with_room(disk, 0)
    }

    fn open_with_room(
        disk: &SimDisk,
        room_bytes: u64,
    ) -> Result<(Journal<SimDisk>, Vec<Vec<u8>>), JournalError> {
        disk.create_dir_all(Path::new("data")).unwrap();
        Journal::open_with_room(disk.clone(), Path::new(PATH), room_bytes)
    }

    /// Whatever the disk loses in a crash, the journal comes back with all that was synced and a prefix of the
    /// rest.
    #[test]
    fn a_journal_loses_nothing_that_was_synced() {
        let (mut torn, mut lost) = (0, 0);
        for seed in 0..2000 {
            let disk = SimDisk::new();
            let mut random = Random(seed);
            // With and without room in reserve, which may be too little for a rewrite.
            let room_bytes = random.below(3) * 100;
            let (mut journal, _) = open_with_room(&disk, room_bytes).unwrap();
            let (mut synced, mut written): (Vec<Vec<u8>>, Vec<Vec<u8>>) = (Vec::new(), Vec::new());
            for step in 0..random.below(40) {
                match random.below(8) {
                    0..5 => {
                        let frame = vec![step as u8; random.below(40) as usize];
                        journal.append(&frame).unwrap();
                        written.push(frame);
                    }
                    5 | 6 => {
                        journal.sync().unwrap();
                        synced = written.clone();
                    }
                    _ => {
                        written.drain(..written.len() / 2);
                        journal.rewrite(&written).unwrap();
                        synced = written.clone();
                    }
                }
                if random.below(10) == 0 {
                    let crash = if seed % 4 == 3 { SimDisk::crash_scattered } else { SimDisk::crash };
                    crash(&disk, random.next());
                    let (reopened, frames) = open_with_room(&disk, room_bytes).unwrap();
                    assert!(frames.starts_with(&synced), "seed {seed}");
                    assert!(written.starts_with(&frames), "seed {seed}");
                    torn += usize::from(frames.len() > synced.len() && frames.len() < written.len());
                    lost += usize::from(frames.len() < written.len());
                    (journal, synced, written) = (reopened, frames.clone(), frames);
                }
            }
        }
        assert!(torn > 50 && lost > 200, "the disk has to lose something: {torn}, {lost}");
    }

    /// A crash in the middle of a rewrite leaves the old frames or the new ones.
    #[test]
    fn a_rewrite_is_one_step() {
        for seed in 0..200 {
            for room in [60, 80, 200] {
                let disk = SimDisk::new();
                let (mut journal, _) = open(&disk).unwrap();
                journal.append(b"old").unwrap();
                journal.sync().unwrap();
                disk.set_room(Some(room));
                let rewritten = journal.rewrite(&[b"new", b"two"]).is_ok();
                disk.set_room(None);
                disk.crash(seed);
                let (_, frames) = open(&disk).unwrap();
                let expected: Vec<Vec<u8>> =
                    if rewritten { vec![b"new".into(), b"two".into()] } else { vec![b"old".into()] };
                assert_eq!(frames, expected);
                assert_eq!(rewritten, room == 200);
            }
        }
    }

    #[test]
    fn a_failed_sync_is_final() {
        let disk = SimDisk::new();
        let (mut journal, _) = open(&disk).unwrap();
        journal.append(b"one").unwrap();
        disk.fail_sync(true);
        assert!(matches!(journal.sync(), Err(JournalError::Io { .. })));
        disk.fail_sync(false);
        assert!(matches!(journal.sync(), Err(JournalError::Failed { .. })));
        assert!(matches!(journal.append(b"two"), Err(JournalError::Failed { .. })));
        assert!(matches!(journal.rewrite(&[b"three"]), Err(JournalError::Failed { .. })));
        disk.crash(1);
        assert!(open(&disk).unwrap().1.is_empty(), "and what it should have kept is lost");
    }

    /// The process ends after a failed sync, and the kernel still shows what it could not write. What the next process
    /// reads has to be on the disk.
    #[test]
    fn what_a_failed_sync_left_is_written_again() {
        for rewritten in [false, true] {
            let disk = SimDisk::new();
            let (mut journal, _) = open(&disk).unwrap();
            journal.append(b"one").unwrap();
            journal.sync().unwrap();
            if rewritten {
                journal.rewrite(&[b"one"]).unwrap();
            }
            journal.append(b"two").unwrap();
            disk.fail_sync(true);
            journal.sync().unwrap_err();
            disk.fail_sync(false);
            disk.end_process();
            let (mut journal, frames) = open(&disk).unwrap();
            assert_eq!(frames, [b"one".to_vec(), b"two".to_vec()]);
            journal.append(b"three").unwrap();
            disk.crash(0);
            let (_, frames) = open(&disk).unwrap();
            assert!(frames.starts_with(&[b"one".to_vec(), b"two".to_vec()]), "{frames:?}");
        }
    }

    /// The journal is looked at, and stays as it is: a torn tail is told of and not cut off.
    #[test]
    fn looking_changes_nothing() {
        let (disk, path) = (SimDisk::new(), Path::new(PATH));
        disk.create_dir_all(Path::new("data")).unwrap();
        assert_eq!(journal::look(&disk, path).unwrap(), None);
        let (mut journal, _) = open(&disk).unwrap();
        journal.append(b"one").unwrap();
        journal.sync().unwrap();
        let end = journal.bytes();
        let mut file = disk.open(path).unwrap();
        disk.write_at(&mut file, end, b"torn").unwrap();
        let before = disk.content(path);
        let looked = journal::look(&disk, path).unwrap().unwrap();
        assert_eq!(looked, journal::Looked { frames: vec![b"one".to_vec()], end, torn_bytes: 4 });
        assert_eq!(disk.content(path), before);
        disk.sync(&mut file).unwrap();
        assert!(disk.damage(path, 3, 1));
        assert!(matches!(journal::look(&disk, path), Err(JournalError::Rot { offset: 0, .. })));
    }

    #[test]
    fn a_full_disk_takes_nothing_back() {
        let disk = SimDisk::new();
        let (mut journal, _) = open(&disk).unwrap();
        journal.append(b"one").unwrap();
        disk.set_room(Some(journal.bytes() + 5));
        assert!(matches!(journal.append(b"two"), Err(JournalError::Io { .. })));
        disk.set_room(None);
        journal.append(b"three").unwrap();
        journal.sync().unwrap();
        disk.crash(1);
        assert_eq!(open(&disk).unwrap().1, [b"one".to_vec(), b"three".to_vec()]);
    }

    /// Whoever fills the disk: a journal that holds room goes on, as long as it is written anew now and then.
    #[test]
    fn a_journal_that_holds_room_goes_on_on_a_full_disk() {
        let disk = SimDisk::new();
        let (mut journal, _) = open_with_room(&disk, 4096).unwrap();
        assert!(journal.holds_room());
        disk.set_room(Some(disk.used_bytes()));
        let mut frames = Vec::new();
        for round in 0..50u8 {
            for number in 0..19 {
                let frame = vec![round ^ number; 84];
                journal.append(&frame).unwrap();
                frames.push(frame);
            }
            journal.sync().unwrap();
            frames.drain(..frames.len() - 10);
            journal.rewrite(&frames).unwrap();
            assert!(journal.holds_room(), "what the old file took is free");
        }
        // The next process takes the room over.
        disk.end_process();
        let (mut journal, read) = open_with_room(&disk, 4096).unwrap();
        assert_eq!(read, frames);
        assert!(journal.holds_room());
        // Without a rewrite it comes to its end, and says so first.
        let mut told_at = 0;
        while let Ok(()) = journal.append(&[1; 84]) {
            told_at = if journal.holds_room() { journal.bytes() } else { told_at };
        }
        assert!(told_at > 0 && told_at + 2000 <= journal.bytes(), "{told_at} of {}", journal.bytes());
        assert!(!journal.hold_room());
        disk.set_room(None);
        assert!(journal.hold_room());
        journal.sync().unwrap();
        // One that holds none ends at once.
        let (mut other, _) = Journal::open(disk.clone(), Path::new("data/other")).unwrap();
        disk.set_room(Some(disk.used_bytes()));
        assert!(other.append(b"x").is_err_and(|error| error.is_full()));
        assert!(other.rewrite(&[b"x"]).is_err_and(|error| error.is_full()));
    }

    /// A rewrite that others have left no room for changes nothing, and what it would have written goes behind.
    #[test]
    fn a_rewrite_without_room_changes_nothing() {
        let disk = SimDisk::new();
        let (mut journal, _) = open_with_room(&disk, 400).unwrap();
        journal.append(b"old").unwrap();
        disk.set_room(Some(disk.used_bytes()));
        let error = journal.rewrite(&[[7; 500]]).unwrap_err();
        assert!(error.is_full() && !journal.holds_room());
        journal.append(b"new").unwrap();
        journal.sync().unwrap();
        disk.set_room(None);
        assert!(journal.hold_room());
        disk.crash(3);
        assert_eq!(open(&disk).unwrap().1, [b"old".to_vec(), b"new".to_vec()]);
    }

    /// Every damaged byte is noticed. Rot that a later frame vouches against is told from a torn tail.
    #[test]
    fn rot_is_told_from_a_torn_tail() {
        let disk = SimDisk::new();
        let (mut journal, _) = open(&disk).unwrap();
        let mut ends = Vec::new();
        for frame in [b"one".as_slice(), b"", b"three", b"four"] {
            journal.append(frame).unwrap();
            journal.sync().unwrap();
            ends.push(journal.bytes());
        }
        let path = Path::new(PATH);
        let last_frame = ends[2];
        for offset in 0..journal.bytes() {
            for mask in [1, 0x80, 0xff] {
                let copy = SimDisk::new();
                copy.create_dir_all(Path::new("data")).unwrap();
                let mut file = copy.open(path).unwrap();
                copy.write_at(&mut file, 0, &disk.content(path).unwrap()).unwrap();
                copy.sync(&mut file).unwrap();
                assert!(copy.damage(path, offset, mask));
                let start = ends.iter().rev().copied().find(|&end| end <= offset).unwrap_or(16);
                match open(&copy) {
                    Err(JournalError::Rot { offset: found, .. }) => {
                        assert!(offset < last_frame);
                        assert_eq!(found, if offset < 16 { 0 } else { start });
                    }
                    Ok((_, frames)) => {
                        assert!(offset >= last_frame, "damage at {offset} was not noticed");
                        assert_eq!(frames.len(), 3);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    #[test]
    fn a_name_is_lost_until_its_directory_is_synced() {
        let mut kept = 0;
        for seed in 0..100 {
            let disk = SimDisk::new();
            disk.create_dir_all(Path::new("d")).unwrap();
            let mut file = disk.open(Path::new("d/f")).unwrap();
            disk.write_at(&mut file, 0, b"x").unwrap();
            disk.sync(&mut file).unwrap();
            disk.crash(seed);
            kept += disk.list(Path::new("d")).unwrap().len();
            assert!(disk.len(&file).is_err(), "an old handle is of no use");
        }
        assert!((20..80).contains(&kept), "{kept}");
    }

    /// Two writes of which a crash keeps the later one alone, and parts of one.
    #[test]
    fn a_scattered_crash_keeps_any_part() {
        let path = Path::new("d/f");
        let mut contents = BTreeSet::new();
        for seed in 0..500 {
            let disk = SimDisk::new();
            disk.create_dir_all(Path::new("d")).unwrap();
            let mut file = disk.open(path).unwrap();
            disk.sync_dir(Path::new("d")).unwrap();
            disk.write_at(&mut file, 0, b"aa").unwrap();
            disk.write_at(&mut file, 2, b"bb").unwrap();
            disk.crash_scattered(seed);
            contents.insert(disk.content(path).unwrap());
        }
        for kept in [b"".as_slice(), b"aa", b"aabb", b"\0\0bb", b"a\0bb", b"\0a\0\0", b"\0\0\0\0"] {
            assert!(contents.contains(kept), "{kept:?}");
        }
    }

    #[test]
    fn the_power_goes_off_and_operations_fail_where_they_are_told_to() {
        let (directory, path) = (Path::new("d"), Path::new("d/f"));
        let write = |disk: &SimDisk| {
            disk.create_dir_all(directory)?;
            let mut file = disk.open(path)?;
            disk.write_at(&mut file, 0, b"x")?;
            disk.sync(&mut file)?;
            disk.sync_dir(directory)
        };
        let whole = SimDisk::new();
        write(&whole).unwrap();
        assert_eq!(whole.operations(), 5);
        for number in 0..5 {
            let disk = SimDisk::new();
            disk.power_off_after(number);
            write(&disk).unwrap_err();
            assert!(disk.list(directory).is_err(), "until a crash");
            disk.crash(0);
            write(&disk).unwrap();
            let disk = SimDisk::new();
            disk.fail_operation(number + 1, ErrorKind::StorageFull);
            assert_eq!(write(&disk).unwrap_err().kind(), ErrorKind::StorageFull);
            write(&disk).unwrap();
        }
    }

    /// As on Linux: a sync after a failed one says that all is well, and what a reader sees is not on the disk.
    #[test]
    fn what_a_failed_sync_has_lost_is_seen_until_the_crash() {
        let (disk, path) = (SimDisk::new(), Path::new("f"));
        let mut file = disk.open(path).unwrap();
        disk.sync_dir(Path::new("")).unwrap();
        disk.write_at(&mut file, 0, b"ab").unwrap();
        disk.fail_sync(true);
        disk.sync(&mut file).unwrap_err();
        disk.fail_sync(false);
        disk.end_process();
        assert!(disk.len(&file).is_err(), "an old handle is of no use");
        let mut file = disk.open(path).unwrap();
        disk.write_at(&mut file, 1, b"b").unwrap();
        disk.sync(&mut file).unwrap();
        assert_eq!(disk.content(path).unwrap(), b"ab");
        disk.crash(1);
        assert_eq!(disk.content(path).unwrap(), b"\0b");
    }

    #[test]
    fn reserved_room_is_taken_and_given_back() {
        let disk = SimDisk::new();
        disk.set_room(Some(10));
        let (mut one, mut two) = (disk.open(Path::new("1")).unwrap(), disk.open(Path::new("2")).unwrap());
        disk.allocate(&mut one, 8).unwrap();
        assert_eq!(disk.len(&one).unwrap(), 0);
        let full = |result: io::Result<()>| result.unwrap_err().kind() == ErrorKind::StorageFull;
        assert!(full(disk.allocate(&mut two, 3)));
        assert!(full(disk.write_at(&mut two, 0, b"abc")));
        disk.truncate(&mut two, 0).unwrap();
        disk.write_at(&mut one, 0, b"12345678").unwrap();
        assert!(full(disk.write_at(&mut one, 8, b"9ab")));
        disk.truncate(&mut one, 0).unwrap();
        disk.allocate(&mut two, 10).unwrap();
    }
}
