//! Snapshot files under crashes, errors, full disks and rot: there is always the old snapshot or the new one, whole.

use bytes::Bytes;
use sim::disk::{SimDisk, SimFile};
use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use storage::snapshot::{load_chunk, write_chunk};
use storage::snapshot_file::{
    Loaded, SnapshotHeader, list_snapshots, read_snapshot, remove_snapshot, snapshot_path,
};
use storage::{Disk, Hasher, SnapshotEnd, SnapshotError, SnapshotWriter, Table, TailedBuffer, Value};
use types::{Epoch, Incarnation, Lsn, NodeId, PartitionId, Position, RequestId, ShardId, Version};

const DIRECTORY: &str = "data/shard-0";
const IDENTITY: [u8; 32] = *b"a cluster, a node and its shard.";
const PARTITION: PartitionId = PartitionId(7);
const LOG_OFFSET: u64 = 0x0102_0304_0506;

/// A disk that counts what it is asked for, and fails one of these operations, or that one and all that follow.
#[derive(Clone)]
struct Failing {
    disk: SimDisk,
    done: Rc<Cell<usize>>,
    fault: Option<Fault>,
    /// The operations, in order.
    names: Rc<RefCell<Vec<&'static str>>>,
    longest_read: Rc<Cell<usize>>,
}

#[derive(Clone, Copy)]
struct Fault {
    at: usize,
    kind: ErrorKind,
    /// The power fails: nothing works from then on.
    is_crash: bool,
    /// The operation is done all the same.
    is_done: bool,
}

impl Failing {
    fn new(disk: &SimDisk, fault: Option<Fault>) -> Failing {
        let (done, names, longest_read) = Default::default();
        Failing { disk: disk.clone(), done, fault, names, longest_read }
    }

    fn run<T>(&self, name: &'static str, operation: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let number = self.done.get();
        self.done.set(number + 1);
        self.names.borrow_mut().push(name);
        match self.fault {
            Some(fault) if number == fault.at || (fault.is_crash && number > fault.at) => {
                if fault.is_done && number == fault.at {
                    operation()?;
                }
                Err(fault.kind.into())
            }
            _ => operation(),
        }
    }
}

impl Disk for Failing {
    type File = SimFile;

    fn create_dir_all(&self, directory: &Path) -> io::Result<()> {
        self.run("create_dir_all", || self.disk.create_dir_all(directory))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.run("list", || self.disk.list(directory))
    }

    fn open(&self, path: &Path) -> io::Result<SimFile> {
        self.run("open", || self.disk.open(path))
    }

    fn len(&self, file: &SimFile) -> io::Result<u64> {
        self.run("len", || self.disk.len(file))
    }

    fn read(&self, file: &SimFile, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.longest_read.set(self.longest_read.get().max(buffer.len()));
        self.run("read", || self.disk.read(file, offset, buffer))
    }

    fn write_at(&self, file: &SimFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.run("write", || self.disk.write_at(file, offset, bytes))
    }

    fn sync(&self, file: &SimFile) -> io::Result<()> {
        self.run("sync", || self.disk.sync(file))
    }

    fn truncate(&self, file: &SimFile, bytes: u64) -> io::Result<()> {
        self.run("truncate", || self.disk.truncate(file, bytes))
    }

    fn allocate(&self, file: &SimFile, bytes: u64) -> io::Result<()> {
        self.run("truncate", || self.disk.allocate(file, bytes))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run("rename", || self.disk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.run("remove", || self.disk.remove(path))
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.run("sync_dir", || self.disk.sync_dir(directory))
    }
}

fn path() -> PathBuf {
    snapshot_path(Path::new(DIRECTORY), PARTITION)
}

fn new_path() -> PathBuf {
    Path::new(DIRECTORY).join("p00007.snap.new")
}

fn empty_disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new(DIRECTORY)).unwrap();
    disk
}

fn end(lsn: u64) -> SnapshotEnd {
    let id = |sequence| RequestId {
        node: NodeId(3),
        incarnation: Incarnation(1 << 40),
        shard: ShardId(1),
        sequence,
    };
    SnapshotEnd {
        base: Position { epoch: Epoch(4), lsn: Lsn(lsn) },
        complete_at: Lsn(lsn + 9),
        time_ms: 1_700_000_000_000,
        version: Version(1 << 60),
        requests: vec![
            (id(8), Lsn(lsn + 1), Bytes::from_static(b"+OK\r\n")),
            (id(9), Lsn(lsn + 2), Bytes::new()),
        ],
        forgotten: vec![id(7)],
    }
}

/// A table whose values tell its generation.
fn table(keys: u64, generation: u64) -> Table {
    let mut table = Table::new(Hasher::new(1));
    for key in 0..keys {
        let (name, value) = (format!("key-{key}"), generation.to_string().repeat(20));
        let hash = table.hasher().hash(name.as_bytes());
        table.put(
            hash,
            name.as_bytes(),
            Value::String(value.as_bytes()),
            (key == 1).then_some(5),
            Version(key),
        );
    }
    table
}

fn contents(table: &Table) -> Vec<(Vec<u8>, storage::OwnedEntry)> {
    let mut entries = Vec::new();
    table.scan(0, usize::MAX, &mut |entry| entries.push((entry.key.to_vec(), entry.to_owned())));
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    entries
}

/// Writes a table as a snapshot, chunk by chunk.
fn write<D: Disk>(disk: D, table: &Table, end: &SnapshotEnd) -> Result<u64, SnapshotError> {
    let mut writer = SnapshotWriter::begin(disk, Path::new(DIRECTORY), &IDENTITY, PARTITION, LOG_OFFSET)?;
    let mut cursor = Some(0);
    while let Some(from) = cursor {
        let mut chunk = TailedBuffer::default();
        cursor = write_chunk(table, from, 100, &mut chunk);
        if let Err(error) = writer.chunk(&chunk) {
            // What failed once does not go on.
            assert!(matches!(writer.chunk(&chunk), Err(SnapshotError::Failed { .. })));
            writer.abandon();
            return Err(error);
        }
    }
    writer.finish(end)
}

fn read<D: Disk>(disk: &D, path: &Path) -> Result<(Loaded, Table), SnapshotError> {
    let mut table = Table::new(Hasher::new(2));
    let mut header = None;
    let loaded = read_snapshot(disk, path, &IDENTITY, &mut |read| header = Some(read), &mut |chunk| {
        load_chunk(&chunk, &mut table).map(|_| ())
    })?;
    let Loaded { partition, log_offset, bytes, .. } = loaded;
    assert_eq!(header, Some(SnapshotHeader { partition, log_offset, bytes }));
    assert_eq!(loaded.entries, table.len() as u64);
    Ok((loaded, table))
}

/// Which generation a disk has, which has to be whole: of the only snapshot there is.
fn generation(disk: &SimDisk) -> u64 {
    let found = list_snapshots(disk, Path::new(DIRECTORY)).unwrap();
    assert_eq!(found, [(PARTITION, path())]);
    assert_eq!(disk.list(Path::new(DIRECTORY)).unwrap(), ["p00007.snap"], "no leftover");
    let (loaded, table) = read(disk, &path()).unwrap();
    let generation = loaded.end.base.lsn.0;
    assert_eq!(loaded.end, end(generation));
    assert_eq!((loaded.partition, loaded.log_offset), (PARTITION, LOG_OFFSET));
    assert_eq!(loaded.bytes, disk.content(&path()).unwrap().len() as u64);
    assert_eq!(contents(&table), contents(&self::table(8, generation)));
    generation
}

/// A disk with the snapshot of generation 1, durable.
fn with_old() -> SimDisk {
    let disk = empty_disk();
    let bytes = write(disk.clone(), &table(8, 1), &end(1)).unwrap();
    assert_eq!(bytes, disk.content(&path()).unwrap().len() as u64);
    disk.crash(0);
    assert_eq!(generation(&disk), 1);
    disk
}

/// The operations that writing the new one takes.
fn operations() -> Vec<&'static str> {
    let disk = Failing::new(&with_old(), None);
    write(disk.clone(), &table(8, 2), &end(2)).unwrap();
    let names = disk.names.borrow().clone();
    assert!(names.len() > 8, "{names:?}");
    assert_eq!(names[..3], ["open", "truncate", "write"]);
    assert_eq!(names[names.len() - 4..], ["write", "sync", "rename", "sync_dir"]);
    names
}

#[test]
fn a_crash_at_any_operation_leaves_the_old_one_or_the_new_one() {
    let operations = operations();
    let mut seen = [0; 3];
    for at in 0..=operations.len() {
        for seed in 0..40 {
            let disk = with_old();
            let fault = Fault { at, kind: ErrorKind::Other, is_crash: true, is_done: seed % 2 == 0 };
            let written = write(Failing::new(&disk, Some(fault)), &table(8, 2), &end(2));
            assert_eq!(written.is_ok(), at == operations.len());
            disk.crash(seed);
            let generation = generation(&disk);
            if written.is_ok() {
                assert_eq!(generation, 2, "what was finished stays");
            }
            seen[generation as usize] += usize::from(at < operations.len());
            // And the next one is written as if nothing had been.
            write(disk.clone(), &table(8, 2), &end(2)).unwrap();
            disk.crash(seed);
            assert_eq!(self::generation(&disk), 2);
        }
    }
    assert!(seen[1] > 100 && seen[2] > 10, "both have to be seen: {seen:?}");
}

#[test]
fn a_first_snapshot_is_there_whole_or_not_at_all() {
    for at in 0..operations().len() {
        for seed in 0..20 {
            let disk = empty_disk();
            let fault = Fault { at, kind: ErrorKind::Other, is_crash: true, is_done: seed % 2 == 0 };
            write(Failing::new(&disk, Some(fault)), &table(8, 1), &end(1)).unwrap_err();
            disk.crash(seed);
            if !list_snapshots(&disk, Path::new(DIRECTORY)).unwrap().is_empty() {
                assert_eq!(generation(&disk), 1);
            }
            assert!(disk.content(&new_path()).is_none());
        }
    }
}

#[test]
fn an_error_leaves_the_old_one_and_says_what_failed() {
    for (at, operation) in operations().into_iter().enumerate() {
        for kind in [ErrorKind::Other, ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            for is_done in [false, true] {
                let disk = with_old();
                let failing = Failing::new(&disk, Some(Fault { at, kind, is_crash: false, is_done }));
                let error = write(failing, &table(8, 2), &end(2)).unwrap_err();
                let text = error.to_string();
                let (is_final, action) = match operation {
                    "open" => (false, "cannot open data/shard-0/p00007.snap.new: "),
                    "truncate" => (false, "cannot empty data/shard-0/p00007.snap.new: "),
                    "write" => (false, "cannot write data/shard-0/p00007.snap.new: "),
                    "sync" => (true, "cannot sync data/shard-0/p00007.snap.new: "),
                    "rename" => (true, "cannot rename data/shard-0/p00007.snap.new: "),
                    "sync_dir" => (true, "cannot sync the directory data/shard-0: "),
                    _ => panic!("{operation}"),
                };
                assert!(text.starts_with(action), "{text}");
                assert_eq!(error.is_final(), is_final, "{text}");
                let is_full = kind != ErrorKind::Other && !is_final;
                assert_eq!(matches!(error, SnapshotError::Full { .. }), is_full, "{text}");
                if !is_final {
                    // Before any crash. Opening may have made the file, and nobody else removes it then.
                    let leftover = disk.content(&new_path());
                    assert!(leftover.is_none() || operation == "open", "{operation}");
                    assert_eq!(generation(&disk), 1);
                }
                disk.crash(at as u64);
                let generation = generation(&disk);
                assert!(generation == 1 || ["rename", "sync_dir"].contains(&operation), "{operation}");
            }
        }
    }
}

/// A full disk as it is: no write fails by number, but by the room that is left.
#[test]
fn a_full_disk_leaves_the_old_one() {
    let disk = with_old();
    let bytes = disk.content(&path()).unwrap().len() as u64;
    for room in 0..bytes {
        disk.set_room(Some(bytes + room));
        let error = write(disk.clone(), &table(8, 2), &end(2)).unwrap_err();
        assert!(matches!(error, SnapshotError::Full { .. }), "{error}");
        assert!(error.to_string().contains("no room is left on the disk"), "{error}");
        assert_eq!(generation(&disk), 1);
    }
    disk.set_room(Some(2 * bytes));
    write(disk.clone(), &table(8, 2), &end(2)).unwrap();
    assert_eq!(generation(&disk), 2);
}

/// A disk that has these bytes as the snapshot.
fn with(bytes: &[u8]) -> SimDisk {
    let disk = empty_disk();
    let file = disk.open(&path()).unwrap();
    disk.write_at(&file, 0, bytes).unwrap();
    disk.sync(&file).unwrap();
    disk.sync_dir(Path::new(DIRECTORY)).unwrap();
    disk
}

fn rot_at(bytes: &[u8]) -> u64 {
    match read(&with(bytes), &path()) {
        Err(SnapshotError::Rot { path, offset }) => {
            assert_eq!(path, self::path());
            offset
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("rot was not noticed"),
    }
}

/// Where each frame begins, and the end of the last.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let mut offsets = vec![58];
    while let Some(&last) = offsets.last()
        && last < bytes.len()
    {
        offsets.push(last + 9 + u32::from_le_bytes(bytes[last..last + 4].try_into().unwrap()) as usize);
    }
    offsets
}

#[test]
fn every_damaged_byte_and_every_cut_is_noticed() {
    let bytes = with_old().content(&path()).unwrap();
    let frames = frames(&bytes);
    assert!(frames.len() > 4);
    let frame_of =
        |at: usize| frames.iter().rev().find(|&&start| start <= at).map_or(0, |&start| start as u64);
    for at in 0..bytes.len() {
        for mask in [1, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= mask;
            assert_eq!(rot_at(&damaged), frame_of(at), "byte {at}");
        }
        assert_eq!(rot_at(&bytes[..at]), frame_of(at), "cut at {at}");
    }
    rot_at(&[&bytes[..], &[0]].concat());
    // Frames that are whole, but not in their places.
    let frame = |number: usize| &bytes[frames[number]..frames[number + 1]];
    rot_at(&[&bytes[..58], &bytes[frames[1]..]].concat());
    rot_at(&[&bytes[..58], frame(1), frame(0), &bytes[frames[2]..]].concat());
    rot_at(&[&bytes[..frames[1]], &bytes[58..]].concat());
    let end = frame(frames.len() - 2);
    rot_at(&[&bytes[..], end].concat());
    rot_at(&[&bytes[..58], end].concat());
    // A chunk of another snapshot of this partition.
    let newer = with_old();
    write(newer.clone(), &table(8, 2), &self::end(2)).unwrap();
    let newer = newer.content(&path()).unwrap();
    assert_eq!(frames, self::frames(&newer));
    rot_at(&[&bytes[..frames[1]], &newer[frames[1]..frames[2]], &bytes[frames[2]..]].concat());
}

/// CRC-32C, bit by bit, to make what only another program would.
fn crc32c(before: u32, bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!before, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

/// A file with these frames, and right checksums.
fn sealed(version: u32, frames: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = b"ANNSNAP\0".to_vec();
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&IDENTITY);
    bytes.extend_from_slice(&PARTITION.0.to_le_bytes());
    bytes.extend_from_slice(&LOG_OFFSET.to_le_bytes());
    let mut checksum = crc32c(0, &bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    for (kind, body) in frames {
        let length = (body.len() as u32).to_le_bytes();
        checksum = crc32c(crc32c(crc32c(checksum, &length), &[*kind]), body);
        bytes.extend_from_slice(&length);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.push(*kind);
        bytes.extend_from_slice(body);
    }
    bytes
}

#[test]
fn what_no_program_of_ours_writes_is_refused() {
    let mut chunk = TailedBuffer::default();
    assert_eq!(write_chunk(&table(8, 1), 0, 1 << 20, &mut chunk), None);
    let chunk = chunk.finished(0).to_bytes();
    let ending = |chunks: u64, entries: u64| {
        let mut body = [chunks.to_le_bytes(), entries.to_le_bytes()].concat();
        end(1).encode(&mut body);
        body
    };
    let whole = ending(1, 8);
    let good = sealed(1, &[(1, &chunk), (2, &whole)]);
    assert_eq!(read(&with(&good), &path()).unwrap().0.end, end(1));
    rot_at(&sealed(1, &[]));
    rot_at(&sealed(1, &[(1, &chunk)]));
    rot_at(&sealed(1, &[(3, &chunk), (2, &whole)]));
    rot_at(&sealed(1, &[(1, &chunk), (2, &whole), (2, &whole)]));
    rot_at(&sealed(1, &[(1, &chunk), (2, &ending(2, 8))]));
    rot_at(&sealed(1, &[(1, &chunk), (2, &ending(1, 9))]));
    for cut in 0..whole.len() {
        rot_at(&sealed(1, &[(1, &chunk), (2, &whole[..cut])]));
    }
    rot_at(&sealed(1, &[(1, &chunk), (2, &[&whole[..], &[0]].concat())]));

    let error = read(&with(&sealed(2, &[(1, &chunk), (2, &whole)])), &path()).unwrap_err();
    assert!(matches!(error, SnapshotError::FormatVersion { found: 2, .. }), "{error}");
    // What it says it is, but not a chunk that this program knows.
    let error = read(&with(&sealed(1, &[(1, &chunk), (1, b"AC\x09\0"), (2, &whole)])), &path()).unwrap_err();
    let SnapshotError::Chunk { offset, .. } = error else { panic!("{error}") };
    assert_eq!(offset, 58 + 9 + chunk.len() as u64);
}

#[test]
fn another_shards_or_partitions_file_is_refused() {
    let disk = with_old();
    let other = read_snapshot(&disk, &path(), &[9; 32], &mut |_| {}, &mut |_| Ok(()));
    let error = other.unwrap_err();
    assert!(matches!(error, SnapshotError::OtherIdentity { .. }), "{error}");
    assert!(error.to_string().starts_with("data/shard-0/p00007.snap belongs to another"), "{error}");
    let renamed = snapshot_path(Path::new(DIRECTORY), PartitionId(8));
    disk.rename(&path(), &renamed).unwrap();
    assert!(matches!(read(&disk, &renamed), Err(SnapshotError::OtherIdentity { .. })));
}

#[test]
fn an_error_while_reading_says_what_failed() {
    let disk = with_old();
    let counting = Failing::new(&disk, None);
    read(&counting, &path()).unwrap();
    for (at, name) in counting.names.borrow().iter().enumerate() {
        let fault = Fault { at, kind: ErrorKind::Other, is_crash: false, is_done: false };
        let error = read(&Failing::new(&disk, Some(fault)), &path()).unwrap_err();
        assert!(matches!(error, SnapshotError::Io { is_final: false, .. }), "{name}: {error}");
    }
}

#[test]
fn large_files_are_read_in_pieces() {
    let mut table = table(2000, 1);
    let hash = table.hasher().hash(b"large");
    // Noise, which no compression makes small.
    let noise = |at: u64| table.hasher().hash(&at.to_le_bytes()).to_le_bytes();
    let large: Vec<u8> = (0..400_000).flat_map(noise).collect();
    table.put(hash, b"large", Value::String(&large), None, Version(1));
    let disk = empty_disk();
    let bytes = write(disk.clone(), &table, &end(1)).unwrap();
    assert!(bytes > 3_000_000);
    let counting = Failing::new(&disk, None);
    let (loaded, read) = read(&counting, &path()).unwrap();
    assert_eq!((loaded.bytes, loaded.entries), (bytes, 2001));
    assert_eq!(contents(&read), contents(&table));
    assert_eq!(counting.longest_read.get(), 1 << 20);
    assert!(counting.done.get() < 10, "{} operations", counting.done.get());
}

#[test]
fn an_empty_partition_has_a_snapshot_too() {
    let disk = empty_disk();
    write(disk.clone(), &table(0, 1), &end(1)).unwrap();
    let (loaded, table) = read(&disk, &path()).unwrap();
    assert_eq!((loaded.entries, table.len()), (0, 0));
}

#[test]
fn a_list_has_snapshots_only_and_removes_leftovers() {
    let disk = empty_disk();
    let directory = Path::new(DIRECTORY);
    for number in [300, 7, 65_535] {
        let writer =
            SnapshotWriter::begin(disk.clone(), directory, &IDENTITY, PartitionId(number), 0).unwrap();
        writer.finish(&end(1)).unwrap();
    }
    for other in
        ["p00001.snap.new", "p0007.snap", "p65536.snap", "p+0007.snap", "p00001.new", "log-0", "x.new"]
    {
        disk.open(&directory.join(other)).unwrap();
    }
    let found: Vec<u16> =
        list_snapshots(&disk, directory).unwrap().iter().map(|(partition, _)| partition.0).collect();
    assert_eq!(found, [7, 300, 65_535]);
    let left = disk.list(directory).unwrap();
    assert!(!left.contains(&"p00001.snap.new".to_owned()));
    assert_eq!(left.len(), 3 + 6, "what is not ours stays: {left:?}");
}

#[test]
fn what_is_removed_stays_away() {
    for seed in 0..20 {
        let disk = with_old();
        remove_snapshot(&disk, Path::new(DIRECTORY), PARTITION).unwrap();
        disk.crash(seed);
        assert_eq!(list_snapshots(&disk, Path::new(DIRECTORY)).unwrap(), []);
        remove_snapshot(&disk, Path::new(DIRECTORY), PARTITION).unwrap();
    }
    let disk = with_old();
    disk.fail_sync(true);
    assert!(remove_snapshot(&disk, Path::new(DIRECTORY), PARTITION).unwrap_err().is_final());
}

#[test]
fn one_that_is_given_up_leaves_nothing() {
    let disk = with_old();
    let mut writer =
        SnapshotWriter::begin(disk.clone(), Path::new(DIRECTORY), &IDENTITY, PARTITION, 5).unwrap();
    writer.chunk(b"whatever").unwrap();
    assert!(disk.content(&new_path()).is_some());
    writer.abandon();
    assert!(disk.content(&new_path()).is_none());
    assert_eq!(generation(&disk), 1);
    // Nor does one that was forgotten, and that was longer than the next.
    let mut writer =
        SnapshotWriter::begin(disk.clone(), Path::new(DIRECTORY), &IDENTITY, PARTITION, 5).unwrap();
    writer.chunk(&[7; 5000]).unwrap();
    drop(writer);
    write(disk.clone(), &table(8, 2), &end(2)).unwrap();
    assert_eq!(generation(&disk), 2);
}

/// A file that an earlier program wrote is read for ever. It is never written again: a new format adds a file.
#[test]
fn a_file_of_format_1_is_read() {
    let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join("../storage/tests/data/p00007.snap");
    if !stored.exists() && std::env::var_os("WRITE_FORMATS").is_some() {
        std::fs::write(&stored, with_old().content(&path()).unwrap()).unwrap();
    }
    let bytes = std::fs::read(&stored).unwrap_or_else(|error| panic!("{}: {error}", stored.display()));
    assert_eq!(generation(&with(&bytes)), 1);
}
