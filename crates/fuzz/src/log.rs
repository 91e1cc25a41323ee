//! A shard's log over a disk that holds anything, or that crashes, refuses, or whose bytes rot; and the entries that it is made of.
//!
//! An input's first byte says which. What was synced is there after a crash, and some of what follows, in order; a flipped bit is
//! reported or cuts the end off, and never becomes a batch that nobody wrote. Whatever is there, who looks at a log reads what
//! whoever opens it does, and changes nothing.

use crate::input::Input;
use crate::meter;
use bytes::Bytes;
use sim::disk::SimDisk;
use sim::log_thread::remove_before;
use std::path::{Path, PathBuf};
use storage::log_entry::{self, entries};
use storage::shard_log::{BATCH_HEADER_BYTES, Errand, LogLook};
use storage::{Disk, LogEntry, ShardLog, ShardLogError, ShardLogOptions};

const IDENTITY: [u8; 32] = *b"a cluster, a node and its shard.";
const SEGMENT_HEADER_BYTES: u64 = 64;
const OPTIONS: ShardLogOptions = ShardLogOptions { segment_bytes: 256 };

/// The logical offset of a batch, and its payload.
type Batch = (u64, Vec<u8>);

/// See the [module](self).
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    match choice % 3 {
        0 => meter::within((256 << 10) + 64 * data.len(), || any_files(input)),
        1 => meter::within((64 << 10) + 64 * data.len(), || any_entries(input.rest)),
        // The simulated disk keeps what was written until it is synced.
        _ => meter::within(4 << 20, || operations(input)),
    }
}

fn directory() -> &'static Path {
    Path::new("/d/shard-0")
}

fn path_of(first: u64) -> PathBuf {
    directory().join(format!("log-{first:016x}"))
}

fn new_disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(directory()).expect("room for a directory");
    disk
}

fn open(disk: &SimDisk, from: u64) -> Result<(ShardLog<SimDisk>, Vec<Batch>), ShardLogError> {
    let looked = look(disk, from);
    let mut batches = Vec::new();
    let mut keep = |offset, payload: Bytes| batches.push((offset, payload.to_vec()));
    let opened = ShardLog::open(disk.clone(), directory(), IDENTITY, OPTIONS, from, &mut keep);
    match (&opened, looked) {
        (Ok(_), Ok(seen)) => assert_eq!(batches, seen, "who looks sees what is there"),
        (Err(_), Err(_)) => {}
        (opened, looked) => panic!("opening says {:?}, and looking {looked:?}", opened.as_ref().err()),
    }
    opened.map(|opened| (opened.log, batches))
}

/// What a look at the log shows of what is needed from `from` on.
fn look(disk: &SimDisk, from: u64) -> Result<Vec<Batch>, ShardLogError> {
    let mut batches = Vec::new();
    let log = LogLook::open(disk, directory(), &IDENTITY, Some(from))?;
    if let Some(error) = log.missing() {
        return Err(error);
    }
    let mut keep = |offset, payload: Bytes| batches.push((offset, payload.to_vec()));
    for (at, segment) in log.segments().iter().enumerate() {
        let before = disk.content(&log.path_of(segment));
        let read = log.read(at, &mut keep);
        assert_eq!(disk.content(&log.path_of(segment)), before, "looking changes nothing");
        read?;
    }
    batches.retain(|(offset, payload)| offset + (BATCH_HEADER_BYTES + payload.len()) as u64 > from);
    Ok(batches)
}

/// The header of a segment, as docs/storage.md draws it.
fn header(first: u64) -> Vec<u8> {
    let mut bytes = b"ANNSLOG\0\x01\0\0\0".to_vec();
    bytes.extend_from_slice(&IDENTITY);
    bytes.extend_from_slice(&first.to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

fn any_files(mut input: Input<'_>) {
    let disk = new_disk();
    let (shape, second) = (input.byte(), u64::from(input.byte()));
    let cut = usize::from(input.byte());
    let put = |first: u64, is_headed: bool, rest: &[u8]| {
        let mut bytes = if is_headed { header(first) } else { Vec::new() };
        bytes.extend_from_slice(rest);
        let file = disk.open(&path_of(first)).expect("a new file");
        disk.write_at(&file, 0, &bytes).expect("room");
        disk.sync(&file).expect("a disk that works");
        (path_of(first), bytes)
    };
    let mut files = vec![];
    if shape & 8 != 0 {
        let mut bytes = header(u64::from(input.byte()));
        bytes.extend_from_slice(input.bytes(cut));
        let path = directory().join("log.next");
        let file = disk.open(&path).expect("a new file");
        disk.write_at(&file, 0, &bytes).expect("room");
        disk.sync(&file).expect("a disk that works");
        files.push((path, bytes));
    }
    if shape & 4 != 0 {
        files.push(put(second + 1, shape & 2 != 0, input.bytes(cut)));
    }
    files.push(put(0, shape & 1 != 0, input.rest));
    disk.sync_dir(directory()).expect("a disk that works");
    let Ok((mut log, mut batches)) = open(&disk, 0) else {
        for (path, bytes) in &files {
            assert_eq!(disk.content(path).as_ref(), Some(bytes), "what is refused is left as it was");
        }
        return;
    };
    batches.push((log.end(), b"more".to_vec()));
    log.append(b"more").expect("room");
    log.sync().expect("a disk that works");
    drop(log);
    disk.crash(1);
    assert_eq!(open(&disk, 0).expect("it was opened before").1, batches);
}

/// What decodes is written in one way only.
fn any_entries(bytes: &[u8]) {
    let mut again = Vec::new();
    let mut whole = true;
    for entry in entries(Bytes::copy_from_slice(bytes)) {
        assert!(whole, "it ends with the first error");
        match entry {
            Ok(entry) => encode(&entry, &mut again),
            Err(_) => whole = false,
        }
    }
    assert_eq!(again, bytes[..again.len()]);
    assert_eq!(whole, again.len() == bytes.len());
}

fn encode(entry: &LogEntry, out: &mut Vec<u8>) {
    match entry {
        LogEntry::Record { partition, commit, record } => log_entry::put_record(
            out,
            *partition,
            *commit,
            record.position,
            record.prev_epoch,
            record.time_ms,
            record.request.as_ref().map(|(id, reply)| (id, &reply[..])),
            &record.body,
        ),
        LogEntry::Truncate { partition, after } => log_entry::put_truncate(out, *partition, *after),
        LogEntry::Wipe { partition } => log_entry::put_wipe(out, *partition),
        LogEntry::Chunk { partition, payload } => log_entry::put_chunk(out, *partition, payload),
        LogEntry::Session { partition, reign, session, next } => {
            log_entry::put_session(out, *partition, *reign, *session, *next);
        }
        LogEntry::Filled { partition, end } => log_entry::put_filled(out, *partition, end),
    }
}

/// What a log has to hold.
#[derive(Default)]
struct Model {
    given: Vec<Batch>,
    /// How many of these were synced, or told of by an opening.
    synced: usize,
    /// What lies before this offset may be removed.
    from: u64,
}

impl Model {
    /// After a crash: what was synced, and some of what follows.
    fn open(&mut self, disk: &SimDisk) -> ShardLog<SimDisk> {
        let (log, batches) = open(disk, self.from).expect("a crash is no rot");
        assert!(batches.len() >= self.synced, "{} were synced, {} are there", self.synced, batches.len());
        assert_eq!(batches, self.given[..batches.len()]);
        self.given.truncate(batches.len());
        self.synced = batches.len();
        log
    }
}

impl Model {
    fn come_back(&mut self, log: &mut ShardLog<SimDisk>, errand: Option<Errand<SimDisk>>) {
        let Some(errand) = errand else { return };
        let durable = log.come_back(errand.run()).expect("a disk that works");
        let end_of = |(offset, payload): &Batch| offset + (BATCH_HEADER_BYTES + payload.len()) as u64;
        self.synced = self.synced.max(self.given.iter().filter(|batch| end_of(batch) <= durable).count());
    }
}

fn operations(mut input: Input<'_>) {
    let (disk, mut model) = (new_disk(), Model::default());
    let mut log = model.open(&disk);
    let mut errand = None;
    while !input.rest.is_empty() {
        match input.byte() % 12 {
            0..4 => {
                let count = usize::from(input.byte());
                let payload = input.bytes(count);
                model.given.push((log.end(), payload.to_vec()));
                log.append(payload).expect("room");
            }
            4 => {
                model.come_back(&mut log, errand.take());
                assert_eq!(log.sync().expect("a disk that works"), log.end());
                model.synced = model.given.len();
            }
            // What is done beside the writer is handed out, and is done when it comes back.
            5 => match errand.take() {
                None => errand = log.errand(true).expect("nothing has failed"),
                handed_out => model.come_back(&mut log, handed_out),
            },
            6 => {
                let durable = log.durable();
                remove_before(&mut log, durable).expect("a disk that works");
                model.from = log.segments()[0].first;
                let gone = model.given.partition_point(|(offset, _)| *offset < model.from);
                model.given.drain(..gone);
                // A new segment is made once the one before is synced.
                model.synced = model.synced.saturating_sub(gone);
            }
            7 => {
                drop(log);
                errand = None;
                disk.crash(u64::from(input.byte()));
                log = model.open(&disk);
            }
            8 => {
                drop(log);
                errand = None;
                disk.crash_scattered(u64::from(input.byte()));
                log = model.open(&disk);
            }
            9 => {
                // What a failed sync left stands in the kernel's memory alone, until an opening has told of it.
                model.come_back(&mut log, errand.take());
                disk.fail_sync(true);
                let failed = log.durable() < log.end() && log.sync().is_err();
                disk.fail_sync(false);
                assert_eq!(failed, matches!(log.sync(), Err(ShardLogError::Failed { .. })));
                drop(log);
                disk.end_process();
                log = model.open(&disk);
                assert_eq!(model.synced, model.given.len(), "all of it is seen");
            }
            10 => {
                // Bytes that a crash has left behind the last batch. A fuzzer may come to forge a batch.
                let last = *log.segments().last().expect("one to write to");
                drop(log);
                let count = usize::from(input.byte());
                let named = path_of(last.first);
                let path = if disk.content(&named).is_some() { named } else { directory().join("log.next") };
                let file = disk.open(&path).expect("it is there");
                disk.write_at(&file, last.bytes, input.bytes(count)).expect("room");
                disk.end_process();
                let (_, batches) = open(&disk, model.from).expect("nothing vouches for them");
                assert!(batches.starts_with(&model.given));
                return;
            }
            _ => {
                model.come_back(&mut log, errand.take());
                log.sync().expect("a disk that works");
                return rot(&disk, &log, &model, input);
            }
        }
    }
}

/// The last of all: what follows would build on damage.
fn rot(disk: &SimDisk, log: &ShardLog<SimDisk>, model: &Model, mut input: Input<'_>) {
    let segments = log.segments();
    let segment = segments[usize::from(input.byte()) % segments.len()];
    let at = u64::from(input.byte()) << 8 | u64::from(input.byte());
    let damaged = disk.damage(&path_of(segment.first), at % segment.bytes, 1 << (input.byte() % 8));
    assert!(damaged, "a byte within the file");
    disk.end_process();
    let was_empty = segment.bytes == SEGMENT_HEADER_BYTES;
    if let Ok((_, batches)) = open(disk, model.from) {
        assert!(batches.len() < model.given.len() || was_empty, "a flipped bit went unnoticed");
        assert_eq!(batches, model.given[..batches.len()]);
    }
}

/// The head of a segment.
pub fn words() -> Vec<Vec<u8>> {
    vec![header(0)]
}
