//! A small file of checksummed frames, for what must never be lost: the control plane's log, votes and epochs.
//!
//! Frames are appended, then synced; opening reads them all back. Each frame says how much of the file was durable
//! when it was written. So bad bytes that no later frame vouches for are a torn tail, which was never promised to
//! anybody, and is cut off; bad bytes that a later frame says were durable are rot, and an error.
//!
//! docs/storage.md draws the bytes:
//!
//! | bytes | header of the file | | bytes | frame |
//! | --- | --- | --- | --- | --- |
//! | 8 | `ANNJRNL` and a zero | | 4 | CRC-32C of all that follows in the frame |
//! | 4 | format version: 1 | | 4 | length of the payload |
//! | 4 | CRC-32C of the 12 before | | 8 | bytes of the file that were durable |
//! | | | | ... | payload |
//!
//! A failed sync is final: nobody knows what is on the disk then, so every later call fails
//! ([`JournalError::Failed`]) and the process has to stop. A failed append is taken back, and only where that
//! fails too is it final. The next process reads what the kernel has in memory, which after a failed sync another
//! sync takes for written; so it writes what no frame vouches for again before it syncs.
//!
//! **Room in reserve.** A journal that must go on though the disk is full holds room ahead ([`Journal::open_with_room`]): behind
//! its end, and in the file that the next rewrite will become. Both are reserved before anybody needs them, so nothing that
//! fills the disk can take them.
//!
//! [`look`] reads a journal that is nobody's to change.
//!
//! Left out: rot in what was synced last, with nothing written since, looks like a torn tail. One journal has one
//! process; nothing here locks.

use crate::disk::{Disk, Unread, read_or_find_bad};
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

const MAGIC: [u8; 8] = *b"ANNJRNL\0";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 16;
const FRAME_HEADER_BYTES: usize = 16;

/// The largest frame, in bytes.
pub const FRAME_BYTES_MAX: usize = 1 << 30;

/// Why a journal could not be read or written.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The disk refused. Where it was a sync, the journal is of no more use.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// Bytes that were durable have changed, or the disk cannot read them any more.
    #[error(
        "{path} is damaged at byte {offset}: it was written and synced, and no longer reads back. The disk may be \
         failing. Do not edit the file",
        path = path.display()
    )]
    Rot {
        /// The file.
        path: PathBuf,
        /// Where the damage begins, in bytes from its start.
        offset: u64,
    },
    /// The file is of a format version that this program does not know.
    #[error("{path} has format version {found}, and this program reads {VERSION}: start the program that wrote it", path = path.display())]
    FormatVersion {
        /// The file.
        path: PathBuf,
        /// The version that it has.
        found: u32,
    },
    /// A frame larger than [`FRAME_BYTES_MAX`].
    #[error("a frame of {bytes} bytes is too large for {path}", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The frame's size, in bytes.
        bytes: usize,
    },
    /// An earlier failure was final.
    #[error("{path} failed before, and nobody knows what of it is on disk: the process has to stop", path = path.display())]
    Failed {
        /// The file.
        path: PathBuf,
    },
}

impl JournalError {
    /// Whether the disk has no room, or the user's quota is used up.
    pub fn is_full(&self) -> bool {
        let JournalError::Io { source, .. } = self else { return false };
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// An open journal.
pub struct Journal<D: Disk> {
    disk: D,
    path: PathBuf,
    file: D::File,
    /// How much room is held, in bytes: behind the end, and for a rewrite. 0: none.
    room_bytes: u64,
    /// For how many bytes the file has room, as far as is known.
    allocated: u64,
    /// The file that the next rewrite becomes: empty, and with room.
    spare: Option<D::File>,
    /// Where the next frame goes.
    end: u64,
    /// How much is known to be durable.
    durable: u64,
    failed: bool,
    buffer: Vec<u8>,
}

impl<D: Disk> Journal<D> {
    /// Opens the journal at `path`, or makes it, and returns its frames, oldest first. All that it returns is
    /// durable. Its directory has to exist.
    pub fn open(disk: D, path: &Path) -> Result<(Journal<D>, Vec<Vec<u8>>), JournalError> {
        Journal::open_with_room(disk, path, 0)
    }

    /// As [`Journal::open`], and holds room from now on: of so many bytes for a rewrite, and of at least half as many behind
    /// the end. Where the disk has none to give just now, it is asked for again with every change and by
    /// [`Journal::hold_room`]. Where the file system cannot reserve, none is held and nothing tells.
    pub fn open_with_room(
        disk: D,
        path: &Path,
        room_bytes: u64,
    ) -> Result<(Journal<D>, Vec<Vec<u8>>), JournalError> {
        let failed = |action, source| JournalError::Io { action, path: path.to_owned(), source };
        // A leftover of a rewrite that did not come to its rename.
        let leftover = new_path(path);
        let names =
            disk.list(directory(path)).map_err(|error| failed("cannot list the directory of", error))?;
        let has_leftover =
            leftover.file_name().is_some_and(|name| names.iter().any(|other| name == other.as_str()));
        // With room it is the spare of the last process, whose room on a full disk another would take.
        if has_leftover && room_bytes == 0 {
            disk.remove(&leftover).map_err(|error| failed("cannot remove the leftover of", error))?;
        }
        if !path.file_name().is_some_and(|name| names.iter().any(|other| name == other.as_str())) {
            let (file, end) = write_whole(&disk, path, &[], None).map_err(|(error, _)| error)?;
            let journal = Journal::new(disk, path, file, end, room_bytes);
            return Ok((journal, Vec::new()));
        }
        let (file, bytes) = read_whole(&disk, path)?;
        let Frames { frames, end, durable } = read_frames(&bytes, path)?;
        if end < bytes.len() {
            disk.truncate(&file, end as u64)
                .map_err(|error| failed("cannot cut the torn tail off", error))?;
        }
        // What was read may have been in the kernel's memory only, and where a sync had failed the kernel takes it
        // for written.
        if durable < end {
            disk.write_at(&file, durable as u64, &bytes[durable..end])
                .map_err(|error| failed("cannot write again what is in", error))?;
        }
        disk.sync(&file).map_err(|error| failed("cannot sync", error))?;
        disk.sync_dir(directory(path)).map_err(|error| failed("cannot sync the directory of", error))?;
        Ok((Journal::new(disk, path, file, end as u64, room_bytes), frames))
    }

    fn new(disk: D, path: &Path, file: D::File, end: u64, room_bytes: u64) -> Journal<D> {
        let (path, durable, failed, buffer) = (path.to_owned(), end, false, Vec::new());
        let (allocated, spare) = (0, None);
        let mut journal =
            Journal { disk, path, file, room_bytes, allocated, spare, end, durable, failed, buffer };
        journal.hold_room();
        journal
    }

    /// Whether it holds the room that it was opened with.
    pub fn holds_room(&self) -> bool {
        let ahead = self.allocated.saturating_sub(self.end);
        self.room_bytes == 0 || (self.spare.is_some() && ahead >= self.room_bytes / 2)
    }

    /// Asks the disk for what is missing of its room. Whether it holds it then.
    pub fn hold_room(&mut self) -> bool {
        if !self.holds_room() && !self.failed {
            // A disk that refuses this for another reason than its room says so at the next write.
            let _ = self.ask_for_room();
        }
        self.holds_room()
    }

    fn ask_for_room(&mut self) -> io::Result<()> {
        let (wanted, least) = (self.end + self.room_bytes, self.end + self.room_bytes / 2);
        if self.allocated < least {
            self.allocated = match self.disk.allocate(&self.file, wanted) {
                Ok(()) => wanted,
                Err(_) => {
                    // What the last process held is there, though the disk has no more.
                    self.disk.allocate(&self.file, least)?;
                    least
                }
            };
        }
        if self.spare.is_none() {
            let spare = self.disk.open(&new_path(&self.path))?;
            if self.disk.len(&spare)? > 0 {
                // A rewrite that did not come to its end. Cutting gives its room back.
                self.disk.truncate(&spare, 0)?;
            }
            self.disk.allocate(&spare, self.room_bytes)?;
            self.spare = Some(spare);
        }
        Ok(())
    }

    /// Writes a frame at the end. It counts only after the next [`Journal::sync`].
    pub fn append(&mut self, frame: &[u8]) -> Result<(), JournalError> {
        self.check()?;
        if frame.len() > FRAME_BYTES_MAX {
            return Err(JournalError::TooLarge { path: self.path.clone(), bytes: frame.len() });
        }
        self.buffer.clear();
        put_frame(&mut self.buffer, self.durable, frame);
        if let Err(error) = self.disk.write_at(&self.file, self.end, &self.buffer) {
            // Part of it may stand there. It must not be taken for a frame, nor get in the way of the next.
            self.failed = self.disk.truncate(&self.file, self.end).is_err();
            self.allocated = 0;
            return Err(self.io("cannot write", error));
        }
        self.end += self.buffer.len() as u64;
        self.hold_room();
        Ok(())
    }

    /// Makes every frame durable.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.check()?;
        if let Err(error) = self.disk.sync(&self.file) {
            self.failed = true;
            return Err(self.io("cannot sync", error));
        }
        self.durable = self.end;
        Ok(())
    }

    /// Puts these frames in the place of all that it holds, in one step: after a crash there are either the old
    /// or the new ones. They are durable on return.
    pub fn rewrite<F: AsRef<[u8]>>(&mut self, frames: &[F]) -> Result<(), JournalError> {
        self.check()?;
        let frames: Vec<&[u8]> = frames.iter().map(AsRef::as_ref).collect();
        if let Some(frame) = frames.iter().find(|frame| frame.len() > FRAME_BYTES_MAX) {
            return Err(JournalError::TooLarge { path: self.path.clone(), bytes: frame.len() });
        }
        let spare = self.spare.take();
        let allocated = if spare.is_some() { self.room_bytes } else { 0 };
        match write_whole(&self.disk, &self.path, &frames, spare) {
            Ok((file, end)) => {
                (self.file, self.end, self.durable) = (file, end, end);
                self.allocated = allocated;
                // What the old one took is free now.
                self.hold_room();
                Ok(())
            }
            Err((error, is_final)) => {
                self.failed = is_final;
                Err(error)
            }
        }
    }

    /// How long the file is, in bytes.
    pub fn bytes(&self) -> u64 {
        self.end
    }

    fn check(&self) -> Result<(), JournalError> {
        if self.failed { Err(JournalError::Failed { path: self.path.clone() }) } else { Ok(()) }
    }

    fn io(&self, action: &'static str, source: io::Error) -> JournalError {
        JournalError::Io { action, path: self.path.clone(), source }
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn new_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

/// Writes a whole journal beside `path`, into what is there already where that is given and empty, and renames it. An error
/// says whether it is final.
fn write_whole<D: Disk>(
    disk: &D,
    path: &Path,
    frames: &[&[u8]],
    spare: Option<D::File>,
) -> Result<(D::File, u64), (JournalError, bool)> {
    let new_path = new_path(path);
    let failed = |action, is_final| {
        let path = new_path.clone();
        move |source| (JournalError::Io { action, path, source }, is_final)
    };
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    for frame in frames {
        // Until the rename nothing here counts, and afterwards all does.
        put_frame(&mut bytes, HEADER_BYTES as u64, frame);
    }
    let file = match spare {
        Some(spare) => spare,
        None => {
            let file = disk.open(&new_path).map_err(failed("cannot open", false))?;
            disk.truncate(&file, 0).map_err(failed("cannot empty", false))?;
            file
        }
    };
    disk.write_at(&file, 0, &bytes).map_err(failed("cannot write", false))?;
    disk.sync(&file).map_err(failed("cannot sync", true))?;
    // From here on nobody knows which of the two a crash would leave.
    disk.rename(&new_path, path).map_err(failed("cannot rename", true))?;
    disk.sync_dir(directory(path)).map_err(failed("cannot sync the directory of", true))?;
    Ok((file, bytes.len() as u64))
}

fn put_frame(out: &mut Vec<u8>, durable: u64, payload: &[u8]) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&durable.to_le_bytes());
    out.extend_from_slice(payload);
    let checksum = crc32c::crc32c(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
}

/// The frame at an offset: how much was durable when it was written, and the payload.
fn frame_at(bytes: &[u8], offset: usize) -> Option<(u64, &[u8])> {
    let (header, rest) = bytes.get(offset..)?.split_first_chunk::<FRAME_HEADER_BYTES>()?;
    let &[c0, c1, c2, c3, l0, l1, l2, l3, d0, d1, d2, d3, d4, d5, d6, d7] = header;
    let durable = u64::from_le_bytes([d0, d1, d2, d3, d4, d5, d6, d7]);
    let payload = rest.get(..u32::from_le_bytes([l0, l1, l2, l3]) as usize)?;
    // Cheaper than the checksum, and no frame was durable before it was written.
    if durable < HEADER_BYTES as u64 || durable > offset as u64 {
        return None;
    }
    let checked = &bytes[offset + 4..offset + FRAME_HEADER_BYTES + payload.len()];
    (crc32c::crc32c(checked) == u32::from_le_bytes([c0, c1, c2, c3])).then_some((durable, payload))
}

/// A journal as it stands on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// Its frames, oldest first.
    pub frames: Vec<Vec<u8>>,
    /// Where they end, in bytes from the file's start.
    pub end: u64,
    /// How many bytes follow them: a torn tail, which was never promised to anybody.
    pub torn_bytes: u64,
}

/// Reads the journal at `path` and changes nothing. `None`: there is none.
pub fn look<D: Disk>(disk: &D, path: &Path) -> Result<Option<Looked>, JournalError> {
    let io =
        |source| JournalError::Io { action: "cannot list the directory of", path: path.to_owned(), source };
    let names = disk.list(directory(path)).map_err(io)?;
    if !path.file_name().is_some_and(|name| names.iter().any(|other| name == other.as_str())) {
        return Ok(None);
    }
    let (_, bytes) = read_whole(disk, path)?;
    let Frames { frames, end, .. } = read_frames(&bytes, path)?;
    Ok(Some(Looked { frames, end: end as u64, torn_bytes: (bytes.len() - end) as u64 }))
}

/// A whole file. Memory is asked for after the length that it really has, and may be refused.
fn read_whole<D: Disk>(disk: &D, path: &Path) -> Result<(D::File, Vec<u8>), JournalError> {
    let failed = |action, source| JournalError::Io { action, path: path.to_owned(), source };
    let file = disk.open(path).map_err(|error| failed("cannot open", error))?;
    let length = disk.len(&file).map_err(|error| failed("cannot read the length of", error))?;
    let mut bytes = Vec::new();
    let length_fits = usize::try_from(length).ok().filter(|&length| bytes.try_reserve_exact(length).is_ok());
    let length = length_fits.ok_or_else(|| failed("cannot read", io::ErrorKind::OutOfMemory.into()))?;
    bytes.resize(length, 0);
    read_or_find_bad(disk, &file, 0, &mut bytes).map_err(|unread| match unread {
        Unread::Bad(offset) => JournalError::Rot { path: path.to_owned(), offset },
        Unread::Io(error) => failed("cannot read", error),
    })?;
    Ok((file, bytes))
}

/// What a file holds.
struct Frames {
    frames: Vec<Vec<u8>>,
    /// Where they end, in bytes. What follows is a torn tail.
    end: usize,
    /// How many bytes one of them says were durable. The header was before the file had its name.
    durable: usize,
}

fn read_frames(bytes: &[u8], path: &Path) -> Result<Frames, JournalError> {
    let rot = |offset: usize| JournalError::Rot { path: path.to_owned(), offset: offset as u64 };
    // A journal gets its name when its header is durable.
    let header = bytes.first_chunk::<HEADER_BYTES>().ok_or(rot(0))?;
    let &[.., v0, v1, v2, v3, c0, c1, c2, c3] = header;
    if header[..8] != MAGIC || crc32c::crc32c(&header[..12]) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(rot(0));
    }
    let found = u32::from_le_bytes([v0, v1, v2, v3]);
    if found != VERSION {
        return Err(JournalError::FormatVersion { path: path.to_owned(), found });
    }
    let mut frames = Vec::new();
    let (mut offset, mut known) = (HEADER_BYTES, HEADER_BYTES);
    while let Some((durable, payload)) = frame_at(bytes, offset) {
        frames.push(payload.to_vec());
        // No frame says more than where it stands.
        known = known.max(durable as usize);
        offset += FRAME_HEADER_BYTES + payload.len();
    }
    // Does any frame further on say that these bytes were durable? Its place is not known, since lengths are
    // among what may be bad.
    let vouched = (offset..bytes.len())
        .any(|at| frame_at(bytes, at).is_some_and(|(durable, _)| durable > offset as u64));
    if vouched { Err(rot(offset)) } else { Ok(Frames { frames, end: offset, durable: known }) }
}
