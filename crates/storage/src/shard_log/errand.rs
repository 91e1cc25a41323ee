//! What is done for a log beside its writer, which appends meanwhile.
//!
//! Who syncs seldom does not want the writes to stand behind a sync, nor behind the making of the next segment. So an [`Errand`]
//! is handed out, run on another thread, and what came of it handed back ([`ShardLog::errand`](super::ShardLog::errand)): one at a
//! time.
//!
//! - *Prepare*: a file with room for a segment, called `log.next`. When the current segment is full, the writer goes over to it at once:
//!   it puts a header into it, and batches behind that, while all of the segment before is not yet durable.
//! - *Settle*: the segment before is synced, then the current one; only then is `log.next` renamed to what a segment is called, since that
//!   name says that all before it is durable.
//! - *Sync*: what has been appended to the current segment is made durable.
//! - *Write back*: the system is asked to begin with what was appended, where that is much, so that a sync has the less to wait for.

use super::format::{NEXT_NAME, SegmentHeader, VERSION};
use super::{PAGE, ShardLog, ShardLogError};
use crate::disk::Disk;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use types::planted::{self, Bug};

/// From so many times its size on a segment is overgrown.
const GROWN_SEGMENTS: u64 = 2;
/// It is written back in so many parts of a segment.
const WRITE_BACKS: u64 = 64;

/// What is to be done for a log.
pub struct Errand<D: Disk> {
    pub(super) disk: D,
    pub(super) directory: PathBuf,
    pub(super) work: Work<D::File>,
}

pub(super) enum Work<F> {
    Sync { file: Arc<F>, path: PathBuf, upto: u64 },
    Settle { before: (Arc<F>, PathBuf), current: Arc<F>, name: PathBuf, upto: u64 },
    Prepare { room: u64 },
    WriteBack { file: Arc<F>, from: u64, bytes: u64 },
}

/// The removal of a log's oldest segments.
pub struct Removal<D: Disk> {
    pub(super) disk: D,
    pub(super) directory: PathBuf,
    /// Oldest first.
    pub(super) paths: Vec<PathBuf>,
}

impl<D: Disk> Removal<D> {
    /// How many segments it removes.
    pub fn count(&self) -> usize {
        self.paths.len()
    }

    /// Does it. An error is final for the log.
    ///
    /// The files come back open: the file system takes back what they held when they are dropped, which takes tens of milliseconds where
    /// that is much, so it should be where nobody waits. One that cannot be opened is taken back at once.
    pub fn run(self) -> Result<Vec<D::File>, ShardLogError> {
        let Removal { disk, directory, paths } = self;
        let mut files = Vec::new();
        for path in &paths {
            files.extend(disk.open(path).ok());
            disk.remove(path).map_err(|error| super::io_error(error, "cannot remove", path))?;
        }
        disk.sync_dir(&directory).map_err(|error| super::io_error(error, "cannot sync", &directory))?;
        Ok(files)
    }
}

/// What came of an errand.
pub struct Done<F>(pub(super) Outcome<F>);

pub(super) enum Outcome<F> {
    /// All before this logical offset is durable.
    Synced(u64),
    /// So it is, and the current segment has its name.
    Settled(u64),
    Prepared(Spare<F>),
    /// The disk has no room for one more segment.
    NoRoom,
    WrittenBack,
}

/// What a log knows of what is done beside its writer.
pub(super) struct Beside<F> {
    /// The segment before the last, where it is not yet known to be durable. The last has no name of its own then.
    pub before: Option<(Arc<F>, PathBuf)>,
    pub spare: Option<Spare<F>>,
    /// Whether there was no room for a spare, since the current segment was begun.
    pub no_room: bool,
    /// Whether an errand is out.
    pub is_out: bool,
}

impl<F> Default for Beside<F> {
    fn default() -> Beside<F> {
        Beside { before: None, spare: None, no_room: false, is_out: false }
    }
}

/// A file that is to be a segment.
pub(super) struct Spare<F> {
    pub file: F,
    /// For how many bytes it has room.
    pub room: u64,
}

impl<D: Disk> Errand<D> {
    /// Whether something is durable afterwards that was not.
    pub fn is_sync(&self) -> bool {
        matches!(self.work, Work::Sync { .. } | Work::Settle { .. })
    }

    /// Does it. An error is final for the log.
    pub fn run(self) -> Result<Done<D::File>, ShardLogError> {
        let Errand { disk, directory, work } = self;
        let sync = |file: &D::File, path: &Path| {
            disk.sync(file).map_err(|error| super::io_error(error, "cannot sync", path))
        };
        let next = directory.join(NEXT_NAME);
        let outcome = match work {
            Work::Sync { file, path, upto } => {
                sync(&file, &path)?;
                Outcome::Synced(upto)
            }
            Work::Settle { before: (before, before_path), current, name, upto } => {
                if !planted::is(Bug::NamesBeforeSync) {
                    sync(&before, &before_path)?;
                }
                sync(&current, &next)?;
                disk.rename(&next, &name).map_err(|error| super::io_error(error, "cannot rename", &next))?;
                disk.sync_dir(&directory)
                    .map_err(|error| super::io_error(error, "cannot sync", &directory))?;
                Outcome::Settled(upto)
            }
            Work::Prepare { room } => match prepare(&disk, &next, room) {
                Ok(file) => Outcome::Prepared(Spare { file, room }),
                Err(ShardLogError::Full { .. }) => Outcome::NoRoom,
                Err(error) => return Err(error),
            },
            Work::WriteBack { file, from, bytes } => {
                disk.write_back(&file, from, bytes);
                Outcome::WrittenBack
            }
        };
        Ok(Done(outcome))
    }
}

fn prepare<D: Disk>(disk: &D, path: &Path, room: u64) -> Result<D::File, ShardLogError> {
    let file = disk.open(path).map_err(|error| ShardLogError::of(error, "cannot make", path))?;
    let refused = match disk.allocate(&file, room) {
        Ok(()) => return Ok(file),
        Err(error) => ShardLogError::of(error, "cannot reserve room for", path),
    };
    if !refused.is_final() {
        // It may have taken a part of what is left.
        disk.remove(path).map_err(|error| super::io_error(error, "cannot remove", path))?;
    }
    Err(refused)
}

impl<D: Disk + Clone> ShardLog<D> {
    /// What is to be done beside the appending, if anything is and no errand is out; with `sync` also a sync, where something is not
    /// durable. [`ShardLog::come_back`] has to be told what came of it.
    pub fn errand(&mut self, sync: bool) -> Result<Option<Errand<D>>, ShardLogError> {
        self.check()?;
        if self.beside.is_out {
            return Ok(None);
        }
        let upto = self.end();
        let file = self.file.clone();
        let work = if let Some(before) = self.beside.before.clone() {
            Work::Settle { before, current: file, name: self.named_path(self.current().first), upto }
        } else if sync && self.durable < upto {
            Work::Sync { file, path: self.current_path(), upto }
        } else if self.beside.spare.is_none()
            && !self.beside.no_room
            && self.current().bytes > self.options.segment_bytes / 2
        {
            Work::Prepare { room: self.options.segment_bytes }
        } else if let Some((from, bytes)) = self.to_write_back() {
            Work::WriteBack { file, from, bytes }
        } else {
            return Ok(None);
        };
        let errand = Errand { disk: self.disk.clone(), directory: self.directory.clone(), work };
        if !matches!(errand.work, Work::Prepare { .. }) {
            self.written_back = self.current().bytes / PAGE * PAGE;
        }
        if planted::is(Bug::CountsBeforeSync) && errand.is_sync() {
            self.durable = upto;
        }
        self.beside.is_out = true;
        Ok(Some(errand))
    }

    /// An errand has come back. Returns the logical offset up to which all is durable.
    pub fn come_back(&mut self, done: Result<Done<D::File>, ShardLogError>) -> Result<u64, ShardLogError> {
        self.beside.is_out = false;
        let Done(outcome) = done.inspect_err(|_| self.failed = true)?;
        self.take_outcome(outcome);
        Ok(self.durable)
    }

    /// Whether the current segment has grown far beyond its size, and what an errand does would end it. Whoever may wait should.
    pub fn is_overgrown(&self) -> bool {
        self.current().bytes > GROWN_SEGMENTS * self.options.segment_bytes
            && !self.has_spare()
            && !self.beside.no_room
    }

    /// Gives back what is held ready for the next segment: nothing more is appended. No errand may be out.
    pub fn give_back(&mut self) -> Result<(), ShardLogError> {
        self.check()?;
        if self.beside.spare.take().is_some() {
            let next = self.directory.join(NEXT_NAME);
            self.disk.remove(&next).map_err(|error| {
                self.failed = true;
                super::io_error(error, "cannot remove", &next)
            })?;
        }
        Ok(())
    }

    /// Gives the current segment its name, where it has none yet.
    pub(super) fn settle(&mut self) -> Result<(), ShardLogError> {
        if self.beside.before.is_some()
            && let Some(errand) = self.errand(false)?
        {
            self.come_back(errand.run())?;
        }
        Ok(())
    }

    fn take_outcome(&mut self, outcome: Outcome<D::File>) {
        match outcome {
            Outcome::Synced(upto) => self.durable = self.durable.max(upto),
            Outcome::Settled(upto) => {
                self.durable = self.durable.max(upto);
                self.beside.before = None;
            }
            Outcome::Prepared(spare) => self.beside.spare = Some(spare),
            Outcome::NoRoom => self.beside.no_room = true,
            Outcome::WrittenBack => {}
        }
    }

    /// What of the current segment is to be written back, where that is enough: whole pages, so that none is written to while it is on
    /// its way.
    fn to_write_back(&self) -> Option<(u64, u64)> {
        let bytes = (self.current().bytes / PAGE * PAGE).saturating_sub(self.written_back);
        let enough = (self.options.segment_bytes / WRITE_BACKS).max(PAGE);
        (bytes >= enough).then_some((self.written_back, bytes))
    }

    /// Whether the next segment is ready.
    pub(super) fn has_spare(&self) -> bool {
        self.beside.before.is_none() && self.beside.spare.is_some()
    }

    /// Ends the current segment and goes over to the file that is ready to be the next. All of the current one is durable later, and only
    /// then has the next its name.
    pub(super) fn go_over(&mut self) -> Result<(), ShardLogError> {
        let Some(spare) = self.beside.spare.take() else { return Ok(()) };
        let first = self.end();
        let header = SegmentHeader { version: VERSION, identity: self.identity, first }.encode();
        if let Err(error) = self.disk.write_at(&spare.file, 0, &header) {
            let error = ShardLogError::of(error, "cannot write", &self.directory.join(NEXT_NAME));
            self.beside.spare = Some(spare);
            return Err(self.fail_if_final(error));
        }
        let path = self.current_path();
        self.beside.before = Some((std::mem::replace(&mut self.file, Arc::new(spare.file)), path));
        self.begin_segment(first, spare.room);
        Ok(())
    }
}
