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
//! Left out: rot, and bytes that cannot be read any more, which a test makes by itself ([`SimDisk::damage`], [`SimDisk::spoil`]).

mod content;
mod names;
#[cfg(test)]
mod tests;

use content::{FileState, Write};
use history::random::Random;
use names::Change;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use storage::Disk;

/// What the system says where a disk cannot read what it holds.
const EIO: i32 = 5;

/// A simulated disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Rc<RefCell<State>>);

/// What of a crash's losses is told from a clean cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Writes of which a part was kept.
    pub torn: u64,
    /// Changes of names.
    pub names: u64,
}

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
    fail_read: bool,
    room_bytes: Option<u64>,
    /// How many there have been since the disk was new.
    operations: u64,
    power_off_after: Option<u64>,
    fail_operation: Option<(u64, ErrorKind)>,
}

impl SimDisk {
    /// An empty disk with room for everything.
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    /// The power fails: what was not synced is lost, but for a part that the seed chooses.
    pub fn crash(&self, seed: u64) -> Lost {
        let mut lost = Lost::default();
        let state = &mut *self.0.borrow_mut();
        let mut random = Random::new(seed);
        for file in state.files.values_mut() {
            let mut left =
                random.below(file.writes.iter().map(|write| write.bytes() as u64).sum::<u64>() + 1) as usize;
            for write in std::mem::take(&mut file.writes) {
                if left == 0 {
                    break;
                }
                lost.torn += u64::from(left < write.bytes());
                write.make(&mut file.durable, left);
                left = left.saturating_sub(write.bytes());
            }
        }
        // Directories keep the order of their changes; kept here over all of them, which is stricter on nobody.
        let changes = std::mem::take(&mut state.changes);
        let kept = random.below(changes.len() as u64 + 1) as usize;
        changes[..kept].iter().for_each(|change| change.make(&mut state.durable_names));
        lost.names += (changes.len() - kept) as u64;
        state.start_again();
        lost
    }

    /// The power fails: what was not synced is lost, but for any part that the seed chooses, in any order.
    pub fn crash_scattered(&self, seed: u64) -> Lost {
        let mut lost = Lost::default();
        let state = &mut *self.0.borrow_mut();
        let mut random = Random::new(seed);
        for file in state.files.values_mut() {
            for write in std::mem::take(&mut file.writes) {
                lost.torn += u64::from(write.make_scattered(&mut file.durable, &mut random));
            }
        }
        for change in std::mem::take(&mut state.changes) {
            if random.below(2) == 0 {
                change.make(&mut state.durable_names);
            } else {
                lost.names += 1;
            }
        }
        state.start_again();
        lost
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

    /// From now on every read of a file fails, or none any more.
    pub fn fail_read(&self, fail: bool) {
        self.0.borrow_mut().fail_read = fail;
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

    /// From now on the disk cannot read this byte of a file, under whatever name (`EIO`), whoever asks for it and what is beside it.
    pub fn spoil(&self, path: &Path, offset: u64) {
        let state = &mut *self.0.borrow_mut();
        let file = state.names.get(path).expect("there is such a file");
        state.files.get_mut(file).expect("a file for each name").spoiled.push(offset as usize);
    }

    /// What a reader sees of a file.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.0.borrow();
        state.names.get(path).map(|file| state.files[file].seen.clone())
    }

    /// The stretches of a file that were asked to be written back: where each begins, and its bytes.
    pub fn written_back(&self, path: &Path) -> Vec<(u64, u64)> {
        let state = self.0.borrow();
        state.names.get(path).map(|file| state.files[file].written_back.clone()).unwrap_or_default()
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
        if self.0.borrow().fail_read {
            return Err(Error::other("a simulated read error"));
        }
        self.with(file, |file| {
            let range = offset as usize..(offset as usize).saturating_add(buffer.len());
            if file.spoiled.iter().any(|at| range.contains(at)) {
                return Err(Error::from_raw_os_error(EIO));
            }
            buffer.copy_from_slice(file.seen.get(range).ok_or(ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn write_at(&self, file: &SimFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
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

    fn sync(&self, file: &SimFile) -> io::Result<()> {
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

    /// What reaches the disk before a sync is left to chance as it is.
    fn write_back(&self, file: &SimFile, from: u64, bytes: u64) {
        let begun = self.with(file, |file| {
            assert!(
                from + bytes <= file.seen.len() as u64,
                "bytes {from} to {} were not written",
                from + bytes
            );
            file.written_back.push((from, bytes));
            Ok(())
        });
        // It says nothing of errors.
        drop(begun);
    }

    fn truncate(&self, file: &SimFile, bytes: u64) -> io::Result<()> {
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
    fn allocate(&self, file: &SimFile, bytes: u64) -> io::Result<()> {
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
        if state.directories.contains(from) {
            // The old one stays, empty, since it may be back after a crash. What waits for a sync in it waits under its new name.
            state.directories.insert(to.to_owned());
            let waiting = std::mem::take(&mut state.changes).into_iter();
            state.changes = waiting.map(|change| change.moved(from, to)).collect();
        } else if !state.names.contains_key(from) {
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
