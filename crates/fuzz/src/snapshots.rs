//! Snapshot files over a disk that holds anything, or that crashes, or whose bytes rot.
//!
//! An input's first byte says which. After a crash there is the old snapshot or the new one, whole; a flipped bit anywhere is
//! noticed. What reads as a snapshot is what its frames say.

use crate::input::Input;
use crate::meter;
use crate::records::{Contents, contents};
use bytes::Bytes;
use sim::disk::SimDisk;
use std::path::{Path, PathBuf};
use storage::snapshot::{load_chunk, show_chunk, write_chunk};
use storage::snapshot_file::{Loaded, SnapshotError, SnapshotWriter, list_snapshots, read_snapshot};
use storage::{Corrupt, Disk, Hasher, SnapshotEnd, Table, TailedBuffer, Value};
use types::{Epoch, Lsn, PartitionId, Position, Version};

const IDENTITY: [u8; 32] = *b"a cluster, a node and its shard.";
const PARTITION: PartitionId = PartitionId(1);
const HEADER_BYTES: u64 = 58;

/// See the [module](self).
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    let room = (256 << 10) + 64 * data.len();
    match choice % 4 {
        0 => meter::within(room, || any_file(input.rest)),
        1 => meter::within(room, || any_frames(input)),
        2 => meter::within(room, || any_end(input.rest)),
        _ => meter::within(4 << 20, || operations(input)),
    }
}

fn directory() -> &'static Path {
    Path::new("/d/shard-0")
}

fn path() -> PathBuf {
    directory().join("p00001.snap")
}

fn new_disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(directory()).expect("room for a directory");
    disk
}

fn put(disk: &SimDisk, bytes: &[u8]) {
    let file = disk.open(&path()).expect("a new file");
    disk.write_at(&file, 0, bytes).expect("room");
    disk.sync(&file).expect("a disk that works");
    disk.sync_dir(directory()).expect("a disk that works");
}

fn read(
    disk: &SimDisk,
    on_chunk: &mut dyn FnMut(Bytes) -> Result<(), Corrupt>,
) -> Result<Loaded, SnapshotError> {
    read_snapshot(disk, &path(), &IDENTITY, &mut |_| {}, on_chunk)
}

fn any_file(bytes: &[u8]) {
    let disk = new_disk();
    put(&disk, bytes);
    let mut chunk_bytes = 0;
    let read = read(&disk, &mut |chunk| {
        chunk_bytes += chunk.len();
        Ok(())
    });
    assert!(chunk_bytes <= bytes.len());
    if let Ok(loaded) = read {
        assert_eq!(loaded.bytes, bytes.len() as u64);
    }
    assert_eq!(disk.content(&path()).as_deref(), Some(bytes), "reading changes nothing");
}

/// The header, as docs/storage.md draws it.
fn header() -> Vec<u8> {
    let mut bytes = b"ANNSNAP\0\x01\0\0\0".to_vec();
    bytes.extend_from_slice(&IDENTITY);
    bytes.extend_from_slice(&PARTITION.0.to_le_bytes());
    bytes.extend_from_slice(&7u64.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Frames of any kind with any bodies, and right checksums: fuzzers do not guess these.
fn any_frames(mut input: Input<'_>) {
    let disk = new_disk();
    let mut file = header();
    let mut last = crc32c::crc32c(&file[..file.len() - 4]);
    let mut bodies = Vec::new();
    while !input.rest.is_empty() {
        let (kind, count) = (input.byte() % 4, usize::from(input.byte()));
        let body = input.bytes(count);
        let length = (body.len() as u32).to_le_bytes();
        last = [&length[..], &[kind], body].iter().fold(last, |sum, part| crc32c::crc32c_append(sum, part));
        file.extend_from_slice(&length);
        file.extend_from_slice(&last.to_le_bytes());
        file.push(kind);
        file.extend_from_slice(body);
        bodies.push((kind, body));
    }
    put(&disk, &file);
    let mut chunks = Vec::new();
    let read = read(&disk, &mut |chunk| {
        chunks.push(chunk);
        Ok(())
    });
    for (chunk, (kind, body)) in chunks.iter().zip(&bodies) {
        assert_eq!((1, &chunk[..]), (*kind, *body));
    }
    let Ok(loaded) = read else { return };
    assert_eq!(chunks.len() + 1, bodies.len(), "the end is the last");
    let mut end = Vec::new();
    loaded.end.encode(&mut end);
    assert!(bodies.last().is_some_and(|(kind, body)| *kind == 2 && body[16..] == end));
}

/// What decodes is written in one way only.
fn any_end(bytes: &[u8]) {
    let mut rest = Bytes::copy_from_slice(bytes);
    let Ok(end) = SnapshotEnd::decode(&mut rest) else {
        assert_eq!(rest, bytes, "what is none is left as it was");
        return;
    };
    let mut again = Vec::new();
    end.encode(&mut again);
    assert_eq!(again, bytes[..bytes.len() - rest.len()]);
}

/// How a crash meets a snapshot.
#[derive(PartialEq)]
enum Ending {
    /// It is finished.
    Finished,
    /// The process ends before.
    Begun,
    /// It is given up.
    Abandoned,
}

fn write(disk: &SimDisk, table: &Table, end: &SnapshotEnd, chunk_bytes: usize, ending: Ending) {
    let (log_offset, mut cursor) = (end.base.lsn.0, Some(0));
    let mut writer = SnapshotWriter::begin(disk.clone(), directory(), &IDENTITY, PARTITION, log_offset)
        .expect("a disk that works");
    while let Some(from) = cursor {
        let mut chunk = TailedBuffer::default();
        cursor = write_chunk(table, from, chunk_bytes, &mut chunk);
        writer.chunk(&chunk).expect("room");
    }
    match ending {
        Ending::Finished => {
            let bytes = writer.finish(end).expect("a disk that works");
            assert_eq!(disk.content(&path()).map(|content| content.len() as u64), Some(bytes));
        }
        Ending::Begun => drop(writer),
        Ending::Abandoned => writer.abandon(),
    }
}

/// The snapshot that is there.
fn load(disk: &SimDisk) -> Result<Option<(Contents, SnapshotEnd)>, SnapshotError> {
    let found = list_snapshots(disk, directory())?;
    let [(partition, found)] = &found[..] else {
        assert!(found.is_empty(), "there is one partition");
        return Ok(None);
    };
    assert_eq!((*partition, found), (PARTITION, &path()));
    let mut table = Table::new(Hasher::new(2));
    let mut shown = 0;
    let loaded = read(disk, &mut |chunk| {
        let count = show_chunk(&chunk, &mut |_| shown += 1)?;
        assert_eq!(load_chunk(&chunk, &mut table)?, count);
        Ok(())
    })?;
    assert_eq!((loaded.log_offset, loaded.entries), (loaded.end.base.lsn.0, shown));
    Ok(Some((contents(&table), loaded.end)))
}

fn operations(mut input: Input<'_>) {
    let (disk, mut table) = (new_disk(), Table::new(Hasher::new(1)));
    let mut expected: Option<(Contents, SnapshotEnd)> = None;
    let mut number = 0;
    while !input.rest.is_empty() {
        match input.byte() % 8 {
            0..4 => {
                let (key, count) = ([input.byte()], usize::from(input.byte()));
                let value = input.bytes(count);
                let (hash, version) = (table.hasher().hash(&key), Version(count as u64));
                let expire_at_ms = (count % 3 == 0).then_some(count as u64);
                table.put(hash, &key, Value::String(value), expire_at_ms, version);
            }
            kind @ (4 | 5) => {
                let ending = match (kind, input.byte() % 2) {
                    (4, _) => Ending::Finished,
                    (_, 0) => Ending::Begun,
                    _ => Ending::Abandoned,
                };
                number += 1;
                let end = SnapshotEnd {
                    base: Position { epoch: Epoch(1), lsn: Lsn(number) },
                    complete_at: Lsn(number),
                    time_ms: number,
                    version: Version(number),
                    requests: Vec::new(),
                    forgotten: Vec::new(),
                };
                let is_new = ending == Ending::Finished;
                write(&disk, &table, &end, 16 << (input.byte() % 8), ending);
                if is_new {
                    expected = Some((contents(&table), end));
                }
            }
            6 => {
                let (seed, scattered) = (u64::from(input.byte()), input.byte().is_multiple_of(2));
                if scattered {
                    disk.crash_scattered(seed);
                } else {
                    disk.crash(seed);
                }
                assert_eq!(load(&disk).expect("a crash is no rot"), expected);
            }
            _ => {
                // The last of all: what follows would build on damage.
                let Some(content) = disk.content(&path()) else { continue };
                let at = u64::from(input.byte()) << 8 | u64::from(input.byte());
                assert!(disk.damage(&path(), at % content.len() as u64, 1 << (input.byte() % 8)));
                let refused = load(&disk).expect_err("a flipped bit went unnoticed");
                assert!(!matches!(refused, SnapshotError::Io { .. }), "{refused}");
                return;
            }
        }
    }
    assert_eq!(load(&disk).expect("nothing is wrong"), expected);
}

/// The head of a snapshot.
pub fn words() -> Vec<Vec<u8>> {
    assert_eq!(header().len() as u64, HEADER_BYTES);
    vec![header()]
}
