//! A shard's log on a disk that loses, tears, refuses and rots.
//!
//! A small workload of appends, syncs, rotations and removals, done by the writer or beside it, is stopped at every operation of the disk, in several
//! ways, and the log opened again. Whatever happens: what a sync returned is there, in order; nothing is there that
//! was never appended, or was taken back; what an opening told of stays, and what it cut off never comes back.
//!
//! The bugs of `types::planted::LOG_BUGS` are found by it:
//! `cargo test --profile campaign -p annulet-sim --features planted --test shard_log`

use bytes::Bytes;
use sim::disk::{SimDisk, SimFile};
use sim::log_thread::remove_before;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use storage::log_entry::{LogEntry, entries, put_chunk, put_filled, put_session, put_wipe};
use storage::shard_log::{
    BATCH_HEADER_BYTES, Done, Errand, LogLook, Opened, Segment, ShardLog, Torn, has_segments,
};
use storage::{Disk, Record, Rope, ShardLogError, ShardLogOptions, Sink, SnapshotEnd, lent};
use types::{Epoch, Incarnation, Lsn, NodeId, PartitionId, Position, RequestId, ShardId, Version};

const IDENTITY: [u8; 32] = *b"cluster 1, node 2, shard 3......";
const SEGMENT_HEADER_BYTES: u64 = 64;
/// Room for three batches of 20 bytes.
const OPTIONS: ShardLogOptions = ShardLogOptions { segment_bytes: 64 + 3 * (28 + 20) };

fn directory() -> &'static Path {
    Path::new("data/shard-3")
}

type Batch = (u64, Vec<u8>);

fn open_from(disk: &SimDisk, from: u64) -> Result<(Opened<SimDisk>, Vec<Batch>), ShardLogError> {
    let mut batches = Vec::new();
    let mut keep = |offset, payload: Bytes| batches.push((offset, payload.to_vec()));
    let opened = ShardLog::open(disk.clone(), directory(), IDENTITY, OPTIONS, from, &mut keep)?;
    Ok((opened, batches))
}

/// Opens a log that ended at this offset when its writer stopped in order.
fn open_ended(disk: &SimDisk, end: u64) -> Result<(Opened<SimDisk>, Vec<Batch>), ShardLogError> {
    let mut batches = Vec::new();
    let mut keep = |offset, payload: Bytes| batches.push((offset, payload.to_vec()));
    let opened = ShardLog::open_ended(disk.clone(), directory(), IDENTITY, OPTIONS, 0, end, &mut keep)?;
    Ok((opened, batches))
}

/// What a look at the same finds wrong first.
fn look_ended(disk: &SimDisk, end: u64) -> Option<ShardLogError> {
    let log = LogLook::open(disk, directory(), &IDENTITY, Some(0)).unwrap().ended(end);
    assert_eq!(log.leftover(), None);
    let read = (0..log.segments().len()).find_map(|at| log.read(at, &mut |_, _| {}).err());
    read.or_else(|| log.missing())
}

/// What a look at the log shows, which changes nothing.
fn look_from(disk: &SimDisk, from: u64) -> Vec<Batch> {
    let mut batches = Vec::new();
    let Ok(log) = LogLook::open(disk, directory(), &IDENTITY, Some(from)) else { return batches };
    let mut keep = |offset, payload: Bytes| batches.push((offset, payload.to_vec()));
    for at in 0..log.segments().len() {
        let _ = log.read(at, &mut keep);
    }
    batches.retain(|batch| end_of(batch) > from);
    batches
}

fn end_of((offset, payload): &Batch) -> u64 {
    offset + (BATCH_HEADER_BYTES + payload.len()) as u64
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % bound
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Append(usize),
    Sync,
    /// What is durable is in snapshots: remove what need not be read any more.
    Remove,
    /// What is to be done beside the writer is handed out, with a sync if it is wanted.
    HandOut(bool),
    /// It is done.
    Run,
    /// The writer hears of it.
    ComeBack,
}

/// A workload. Most batches have one size, so that an old one fits where a new one was.
fn script(seed: u64) -> Vec<Step> {
    let mut random = Random(seed);
    let step = |_| match random.below(16) {
        0..8 => Step::Append(20),
        8 => Step::Append(random.below(60) as usize),
        9 => Step::Append(300),
        10..15 => Step::Sync,
        _ => Step::Remove,
    };
    (0..24).map(step).collect()
}

/// A workload of who has the syncs, and the making of segments, done beside the writer.
fn script_beside(seed: u64) -> Vec<Step> {
    let mut random = Random(seed ^ 1 << 40);
    let step = |_| match random.below(32) {
        0..12 => Step::Append(20),
        12 => Step::Append(random.below(60) as usize),
        13 => Step::Append(300),
        14..19 => Step::HandOut(true),
        19..21 => Step::HandOut(false),
        21..26 => Step::Run,
        26..30 => Step::ComeBack,
        30 => Step::Sync,
        _ => Step::Remove,
    };
    (0..40).map(step).collect()
}

/// Of every number both kinds.
fn scripts(count: u64) -> impl Iterator<Item = Vec<Step>> {
    (0..count).flat_map(|number| [script(number), script_beside(number)])
}

/// A long payload is written in three writes: its middle is shared.
fn rope(payload: &[u8]) -> Rope {
    lent::huge_above(100);
    let mut rope = Rope::default();
    let (head, rest) = payload.split_at(payload.len() / 8);
    let (middle, tail) = rest.split_at(rest.len() / 4 * 3);
    rope.bytes().extend_from_slice(head);
    rope.put(&Bytes::copy_from_slice(middle));
    rope.bytes().extend_from_slice(tail);
    rope
}

/// What the log has to hold.
#[derive(Default)]
struct Model {
    /// All that was appended, but for what was taken back.
    batches: Vec<Batch>,
    /// The logical offset up to which it was promised.
    promised: u64,
    /// From where on it is needed.
    from: u64,
    made: u32,
    /// What was handed out, and what came of it.
    errand: Option<Errand<SimDisk>>,
    done: Option<Result<Done<SimFile>, ShardLogError>>,
    /// Oldest segments that are removed, of which the writer does not know yet.
    removed: Option<Result<usize, ShardLogError>>,
}

impl Model {
    /// Runs a step. The log's error ends what was under way.
    fn step(&mut self, log: &mut ShardLog<SimDisk>, step: Step) -> Result<(), ShardLogError> {
        match step {
            Step::Append(bytes) => {
                self.made += 1;
                let payload: Vec<u8> = self.made.to_le_bytes().into_iter().cycle().take(bytes).collect();
                // Where the power goes off meanwhile, it may be there.
                self.batches.push((log.end(), payload.clone()));
                match log.append_rope(&rope(&payload)) {
                    Ok(end) => assert_eq!(Some(end), self.batches.last().map(end_of)),
                    Err(error) => {
                        if !error.is_final() {
                            self.batches.pop();
                        }
                        return Err(error);
                    }
                }
            }
            Step::Sync => {
                self.come_back(log)?;
                self.promised = log.sync()?;
                assert_eq!(self.promised, log.end());
            }
            Step::HandOut(sync) => {
                if let Some(errand) = log.errand(sync)? {
                    assert!(self.errand.is_none() && self.done.is_none(), "one at a time");
                    self.errand = Some(errand);
                }
            }
            Step::Run => self.run_errand(),
            Step::ComeBack => self.come_back(log)?,
            Step::Remove => {
                self.from = log.durable();
                self.forget(log)?;
                if let Some(removal) = log.removal(self.from) {
                    let count = removal.count();
                    self.removed = Some(removal.run().map(|_| count));
                }
                // The writer hears of it sooner or later, and of a failure at once.
                if self.from.is_multiple_of(2) || self.removed.as_ref().is_some_and(Result::is_err) {
                    self.forget(log)?;
                }
            }
        }
        Ok(())
    }

    fn run_errand(&mut self) {
        if let Some(errand) = self.errand.take() {
            self.done = Some(errand.run());
        }
    }

    fn forget(&mut self, log: &mut ShardLog<SimDisk>) -> Result<(), ShardLogError> {
        self.removed.take().map_or(Ok(()), |removed| log.forget(removed))
    }

    fn come_back(&mut self, log: &mut ShardLog<SimDisk>) -> Result<(), ShardLogError> {
        self.run_errand();
        if let Some(done) = self.done.take() {
            self.promised = log.come_back(done)?;
            assert!(self.promised <= log.end());
        }
        Ok(())
    }

    fn run(&mut self, log: &mut ShardLog<SimDisk>, steps: &[Step]) -> Result<(), ShardLogError> {
        steps.iter().try_for_each(|step| self.step(log, *step))
    }

    /// Opens the log, and checks what it holds. That is promised from now on, and nothing else may come back.
    fn open(&mut self, disk: &SimDisk) -> Result<ShardLog<SimDisk>, ShardLogError> {
        (self.errand, self.done, self.removed) = (None, None, None);
        let seen = look_from(disk, self.from);
        let (opened, read) = open_from(disk, self.from)?;
        assert_eq!(seen, read, "who looks sees what is there");
        let wanted: Vec<&Batch> = self.batches.iter().filter(|batch| end_of(batch) > self.from).collect();
        assert!(read.len() <= wanted.len(), "more is there than was appended");
        assert!(read.iter().zip(wanted).all(|(read, wanted)| read == wanted), "something else is there");
        let end = read.last().map_or(self.from, end_of);
        assert_eq!(opened.log.end(), end);
        assert_eq!(opened.log.durable(), end);
        assert!(end >= self.promised, "{} was promised, and {end} is there", self.promised);
        self.batches.retain(|batch| end_of(batch) <= end);
        self.promised = end;
        Ok(opened.log)
    }

    fn open_well(&mut self, disk: &SimDisk) -> ShardLog<SimDisk> {
        self.open(disk).unwrap_or_else(|error| panic!("the disk is whole: {error}"))
    }
}

fn crash(disk: &SimDisk, seed: u64) {
    if seed.is_multiple_of(2) {
        disk.crash(seed)
    } else {
        disk.crash_scattered(seed)
    };
}

/// How many operations a workload needs where nothing goes wrong.
fn operations_of(steps: &[Step]) -> u64 {
    let disk = SimDisk::new();
    let mut model = Model::default();
    let mut log = model.open_well(&disk);
    model.run(&mut log, steps).unwrap();
    disk.operations()
}

/// Opens the log again and again, with crashes between, and goes on writing.
fn go_on(disk: &SimDisk, mut model: Model, seed: u64) {
    let mut random = Random(seed);
    // A crash while what the last one left is mended.
    disk.power_off_after(disk.operations() + random.below(12));
    let _ = model.open(disk);
    crash(disk, random.below(1 << 32));
    let log = model.open_well(disk);
    drop(log);
    crash(disk, random.below(1 << 32));
    for synced in [false, true, false, true] {
        let mut log = model.open_well(disk);
        model.run(&mut log, &[Step::Append(20)]).unwrap();
        if synced {
            model.run(&mut log, &[Step::Append(20), Step::Sync, Step::Append(20)]).unwrap();
        }
        crash(disk, random.below(1 << 32));
    }
    model.open_well(disk);
}

/// The power goes off after each operation of some workloads.
fn crash_everywhere(count: u64, crashes: u64) {
    for steps in scripts(count) {
        for last in 0..=operations_of(&steps) {
            for seed in 0..crashes {
                let disk = SimDisk::new();
                let mut model = Model::default();
                disk.power_off_after(last);
                let done = model.open(&disk).and_then(|mut log| model.run(&mut log, &steps));
                assert!(done.is_ok() || disk.operations() > last);
                crash(&disk, seed);
                go_on(&disk, model, seed << 32 | last);
            }
        }
    }
}

/// Each operation of some workloads fails once.
fn fail_everywhere(count: u64, crashes: u64, kind: ErrorKind) -> [usize; 3] {
    let (mut at_opening, mut final_ones, mut taken_back) = (0, 0, 0);
    for steps in scripts(count) {
        for failing in 1..=operations_of(&steps) {
            for seed in 0..crashes {
                let disk = SimDisk::new();
                let mut model = Model::default();
                disk.fail_operation(failing, kind);
                let Ok(mut log) = model.open(&disk) else {
                    at_opening += 1;
                    disk.end_process();
                    go_on(&disk, model, seed);
                    continue;
                };
                let mut after = None;
                for (at, step) in steps.iter().enumerate() {
                    match model.step(&mut log, *step) {
                        Ok(()) => {}
                        Err(error) if error.is_final() => {
                            final_ones += 1;
                            after = Some(log.sync().map(|promised| model.promised = promised));
                            assert!(
                                log.append(b"more").is_err() || after.as_ref().is_some_and(Result::is_ok)
                            );
                            break;
                        }
                        Err(error) => {
                            assert!(matches!(error, ShardLogError::Full { .. }), "{error}");
                            taken_back += 1;
                            // What was taken back does not come back, whether nothing is written after it, the
                            // same again, or a smaller one, which may have room where it had none.
                            let next =
                                [&[][..], &steps[at..], &[Step::Append(1)], &[Step::Append(0), Step::Sync]];
                            model.run(&mut log, next[seed as usize / 2 % 4]).unwrap();
                            break;
                        }
                    }
                }
                if seed % 3 == 0 && !matches!(after, Some(Ok(()))) {
                    // Another process reads what the kernel still has in memory.
                    disk.end_process();
                    let mut log = model.open_well(&disk);
                    if seed % 2 == 0 {
                        model.run(&mut log, &[Step::Append(20), Step::Sync]).unwrap();
                    }
                }
                crash(&disk, seed);
                go_on(&disk, model, seed << 32 | failing);
                assert!(!matches!(after, Some(Ok(()))), "a sync after a failed one said that all is well");
            }
        }
    }
    [at_opening, final_ones, taken_back]
}

#[test]
fn a_crash_after_any_operation_loses_nothing_that_was_synced() {
    crash_everywhere(6, 16);
}

#[test]
fn an_error_of_any_operation_is_final_and_loses_nothing_that_was_synced() {
    let [at_opening, final_ones, taken_back] = fail_everywhere(6, 12, ErrorKind::Other);
    assert!(at_opening > 100 && final_ones > 1000, "{at_opening}, {final_ones}");
    assert_eq!(taken_back, 0);
}

#[test]
fn a_full_disk_at_any_operation_takes_nothing_and_promises_nothing() {
    for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
        let [_, final_ones, taken_back] = fail_everywhere(6, 12, kind);
        // Syncs are final whatever the disk says.
        assert!(taken_back > 1000 && final_ones > 300, "{taken_back}, {final_ones}");
    }
}

/// Every bug that is planted in the log is found by one of the tests above.
#[cfg(feature = "planted")]
#[test]
fn every_planted_bug_of_the_log_is_found() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use types::planted::{LOG_BUGS, plant};

    std::panic::set_hook(Box::new(|_| {}));
    let missed: Vec<_> = LOG_BUGS
        .into_iter()
        .filter(|bug| {
            plant(Some(*bug));
            let run = AssertUnwindSafe(|| {
                crash_everywhere(6, 16);
                fail_everywhere(6, 12, ErrorKind::Other);
            });
            let found = catch_unwind(run);
            plant(None);
            if let Err(what) = &found {
                let what = what.downcast_ref::<String>().map(String::as_str);
                println!("{bug:?}: found: {}", what.unwrap_or("an assertion"));
            }
            found.is_ok()
        })
        .collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged() {
    let disk = SimDisk::new();
    let (Opened { mut log, .. }, _) = open_from(&disk, 0).unwrap();
    log.append(b"one").unwrap();
    disk.fail_sync(true);
    let error = log.sync().unwrap_err();
    assert!(matches!(error, ShardLogError::Io { .. }) && error.is_final());
    disk.fail_sync(false);
    for error in [
        log.sync().unwrap_err(),
        log.append(b"two").unwrap_err(),
        log.reserve(1).unwrap_err(),
        log.errand(true).map(|_| ()).unwrap_err(),
    ] {
        assert!(matches!(error, ShardLogError::Failed { .. }), "{error}");
    }
    assert_eq!(log.durable(), 0);
    // The kernel still shows what it could not write: who opens the log writes it again.
    disk.end_process();
    let (_, batches) = open_from(&disk, 0).unwrap();
    assert_eq!(batches, [(0, b"one".to_vec())]);
    disk.crash(0);
    assert_eq!(open_from(&disk, 0).unwrap().1, batches);
}

#[test]
fn a_full_disk_shows_before_anything_is_written_and_goes_by_itself() {
    let disk = SimDisk::new();
    let room = 3 * OPTIONS.segment_bytes;
    disk.set_room(Some(room));
    let (Opened { mut log, .. }, _) = open_from(&disk, 0).unwrap();
    for _ in 0..9 {
        log.reserve(20).unwrap();
        log.append(&[1; 20]).unwrap();
    }
    let (end, segments) = (log.end(), log.segments().to_vec());
    assert_eq!((segments.len(), log.bytes_on_disk()), (3, room));
    for _ in 0..3 {
        let error = log.reserve(20).unwrap_err();
        assert!(matches!(&error, ShardLogError::Full { path, .. } if path.ends_with("log-00000000000001b0")));
        assert!(matches!(log.append(&[2; 20]), Err(ShardLogError::Full { .. })));
    }
    assert_eq!((log.end(), log.segments()), (end, &segments[..]));
    assert_eq!(log.sync().unwrap(), end);
    assert_eq!(remove_before(&mut log, segments[1].first).unwrap().len(), 1);
    log.append(&[3; 20]).unwrap();
    log.sync().unwrap();
    disk.crash(1);
    let (_, batches) = open_from(&disk, segments[1].first).unwrap();
    assert_eq!(batches.len(), 7);
    assert_eq!(batches[6], (end, vec![3; 20]));
}

#[test]
fn a_failed_write_gives_back_what_was_reserved_and_says_so() {
    let disk = SimDisk::new();
    let (Opened { mut log, .. }, _) = open_from(&disk, 0).unwrap();
    log.append(&[1; 20]).unwrap();
    disk.fail_operation(disk.operations() + 1, ErrorKind::StorageFull);
    assert!(matches!(log.append(&[2; 20]), Err(ShardLogError::Full { .. })));
    assert_eq!(log.durable(), log.end(), "it was synced, so that the cut lasts");
    disk.set_room(Some(0));
    assert!(matches!(log.reserve(20), Err(ShardLogError::Full { .. })));
    disk.set_room(None);
    log.append(&[3; 20]).unwrap();
    assert_eq!(log.end(), 96);
}

/// A log of which the first segment is full, and the next one ready.
fn log_with_a_spare(disk: &SimDisk) -> (ShardLog<SimDisk>, Vec<Batch>) {
    let (Opened { mut log, .. }, _) = open_from(disk, 0).unwrap();
    let mut batches = Vec::new();
    for number in 0..3 {
        batches.push((log.end(), vec![number; 20]));
        log.append(&[number; 20]).unwrap();
    }
    assert!(log.errand(false).unwrap().is_some_and(|errand| {
        assert!(!errand.is_sync());
        log.come_back(errand.run()).is_ok()
    }));
    (log, batches)
}

fn next_path() -> PathBuf {
    directory().join("log.next")
}

/// The writer goes over to the next segment while nothing of the one before is durable: two writes, and nothing to wait for.
#[test]
fn a_segment_that_is_ready_is_begun_without_a_sync() {
    let disk = SimDisk::new();
    let (mut log, mut batches) = log_with_a_spare(&disk);
    let before = disk.operations();
    batches.push((log.end(), vec![3; 20]));
    log.append(&[3; 20]).unwrap();
    assert_eq!((disk.operations(), log.durable()), (before + 2, 0));
    assert_eq!(log.segments().len(), 2);
    // The process ends: the kernel still has everything.
    disk.end_process();
    assert_eq!(look_from(&disk, 0), batches);
    let (Opened { mut log, torn }, read) = open_from(&disk, 0).unwrap();
    assert_eq!((&read, torn, log.durable()), (&batches, None, log.end()));
    let names = disk.list(directory()).unwrap();
    assert_eq!(names, ["log-0000000000000000", "log-0000000000000090"], "it has its name");
    disk.crash(NAMES_LOST);
    assert_eq!(open_from(&disk, 0).unwrap().1, batches, "and all is durable");
    log = open_from(&disk, 0).unwrap().0.log;
    log.append(&[4; 20]).unwrap();
}

/// Once an errand has settled it, the segment is one like the others.
#[test]
fn a_segment_has_its_name_when_all_before_is_durable() {
    let disk = SimDisk::new();
    let (mut log, mut batches) = log_with_a_spare(&disk);
    batches.push((log.end(), vec![3; 20]));
    let end = log.append(&[3; 20]).unwrap();
    let errand = log.errand(false).unwrap().unwrap();
    assert!(errand.is_sync() && log.errand(true).unwrap().is_none(), "one at a time");
    // What is appended meanwhile is not promised.
    log.append(&[4; 20]).unwrap();
    assert_eq!(disk.content(&next_path()).unwrap().len(), 64 + 2 * 48);
    assert_eq!(log.come_back(errand.run()).unwrap(), end);
    assert_eq!((log.durable(), disk.content(&next_path())), (end, None));
    disk.crash(NAMES_LOST);
    assert!(open_from(&disk, 0).unwrap().1.starts_with(&batches));
}

/// As long as it has no name it grows, and so does one whose next is not yet ready: the writer does not wait.
#[test]
fn a_segment_grows_where_the_next_is_not_ready() {
    let disk = SimDisk::new();
    let (mut log, _) = log_with_a_spare(&disk);
    log.append(&[3; 20]).unwrap();
    let errand = log.errand(false).unwrap().unwrap();
    for number in 4..20 {
        log.append(&[number; 20]).unwrap();
    }
    assert_eq!(log.segments().len(), 2);
    assert!(log.is_overgrown(), "whoever may wait should");
    log.come_back(errand.run()).unwrap();
    log.append(&[20; 20]).unwrap();
    assert!(!log.is_overgrown());
    assert_eq!(log.segments().len(), 3, "nobody is at it");
    log.sync().unwrap();
    disk.crash(NAMES_LOST);
    assert_eq!(open_from(&disk, 0).unwrap().1.len(), 21);
}

/// A crash has kept what stands in the next file, and not all of what stands before.
#[test]
fn what_follows_a_torn_tail_is_cut_off_with_it() {
    let disk = SimDisk::new();
    let (mut log, mut batches) = log_with_a_spare(&disk);
    log.append(&[3; 20]).unwrap();
    let whole = disk.content(&directory().join("log-0000000000000000")).unwrap();
    let next = disk.content(&next_path()).unwrap();
    let damaged = |cut: usize| {
        let copy = SimDisk::new();
        copy.create_dir_all(directory()).unwrap();
        for (path, bytes) in [(directory().join("log-0000000000000000"), &whole[..cut]), (next_path(), &next)]
        {
            let file = copy.open(&path).unwrap();
            copy.write_at(&file, 0, bytes).unwrap();
        }
        copy
    };
    batches.truncate(2);
    for (cut, torn_bytes) in [(64 + 2 * 48, 112), (64 + 2 * 48 + 7, 119)] {
        let copy = damaged(cut);
        let look = LogLook::open(&copy, directory(), &IDENTITY, Some(0)).unwrap();
        assert_eq!(look.torn_next().map(|torn| torn.bytes), Some(112));
        assert_eq!(look_from(&copy, 0), batches);
        let (Opened { mut log, torn }, read) = open_from(&copy, 0).unwrap();
        assert_eq!((&read, torn.map(|torn| torn.bytes)), (&batches, Some(torn_bytes)));
        assert_eq!(copy.content(&next_path()), None);
        log.append(&[9; 20]).unwrap();
        log.sync().unwrap();
        copy.crash(NAMES_LOST);
        assert_eq!(open_from(&copy, 0).unwrap().1.len(), 3, "it does not come back");
    }
    // Where a batch of it says that what is missing was durable, it is not torn.
    let disk = SimDisk::new();
    let (mut log, _) = log_with_a_spare(&disk);
    let errand = log.errand(true).unwrap().unwrap();
    log.come_back(errand.run()).unwrap();
    log.append(&[3; 20]).unwrap();
    let next = disk.content(&next_path()).unwrap();
    let copy = damaged(64 + 2 * 48);
    copy.write_at(&copy.open(&next_path()).unwrap(), 0, &next).unwrap();
    assert!(matches!(open_from(&copy, 0), Err(ShardLogError::Missing { from: 96, to: 144, .. })));
    let copy = damaged(64 + 2 * 48 + 7);
    copy.write_at(&copy.open(&next_path()).unwrap(), 0, &next).unwrap();
    assert!(matches!(open_from(&copy, 0), Err(ShardLogError::Rot { offset: 160, .. })));
}

/// What was before it is gone: that is no empty log, and nothing is removed.
#[test]
fn the_next_segment_alone_is_no_log() {
    let disk = SimDisk::new();
    let (mut log, _) = log_with_a_spare(&disk);
    log.append(&[3; 20]).unwrap();
    let copy = SimDisk::new();
    copy.create_dir_all(directory()).unwrap();
    let next = disk.content(&next_path()).unwrap();
    copy.write_at(&copy.open(&next_path()).unwrap(), 0, &next).unwrap();
    assert!(!has_segments(&copy, directory()).unwrap());
    assert!(matches!(open_from(&copy, 0), Err(ShardLogError::Missing { from: 0, to: 144, .. })));
    let look = LogLook::open(&copy, directory(), &IDENTITY, None).unwrap();
    assert!(matches!(look.missing(), Some(ShardLogError::Missing { from: 0, to: 144, .. })));
    assert_eq!(copy.content(&next_path()), Some(next));
}

/// Who ends in order leaves no room reserved that nothing is in.
#[test]
fn a_spare_is_given_back() {
    let disk = SimDisk::new();
    let (mut log, batches) = log_with_a_spare(&disk);
    log.sync().unwrap();
    let used = disk.used_bytes();
    log.give_back().unwrap();
    assert_eq!((disk.content(&next_path()), disk.used_bytes()), (None, used - OPTIONS.segment_bytes));
    assert_eq!(open_from(&disk, 0).unwrap().1, batches);
}

/// A disk without room for one more segment than is needed is no reason to refuse anything.
#[test]
fn no_room_for_a_spare_changes_nothing() {
    let disk = SimDisk::new();
    disk.set_room(Some(2 * OPTIONS.segment_bytes - 1));
    let (Opened { mut log, .. }, _) = open_from(&disk, 0).unwrap();
    for number in 0..3 {
        log.append(&[number; 20]).unwrap();
        if let Some(errand) = log.errand(false).unwrap() {
            log.come_back(errand.run()).unwrap();
        }
    }
    assert_eq!(disk.content(&next_path()), None, "what it had taken is given back");
    assert!(log.errand(false).unwrap().is_none(), "once a segment");
    assert!(matches!(log.reserve(20), Err(ShardLogError::Full { .. })));
    disk.set_room(None);
    log.append(&[3; 20]).unwrap();
    assert_eq!((log.segments().len(), log.durable()), (2, 144));
}

/// With what is reserved, a disk that others fill is no trouble to a segment.
#[test]
fn reserved_room_is_the_logs_own() {
    let disk = SimDisk::new();
    let (Opened { mut log, .. }, _) = open_from(&disk, 0).unwrap();
    log.append(&[1; 20]).unwrap();
    disk.set_room(Some(0));
    log.append(&[2; 20]).unwrap();
    log.append(&[3; 20]).unwrap();
    assert!(matches!(log.append(&[4; 20]), Err(ShardLogError::Full { .. })), "another segment");
    log.sync().unwrap();
    disk.crash(0);
    let (Opened { mut log, .. }, batches) = open_from(&disk, 0).unwrap();
    assert_eq!(batches.len(), 3);
    assert!(matches!(log.append(&[4; 20]), Err(ShardLogError::Full { .. })));
    disk.set_room(None);
    log.append(&[4; 20]).unwrap();
}

/// A crash with this seed keeps no change of names that was not synced.
const NAMES_LOST: u64 = 0;

#[test]
fn segments_are_made_and_removed() {
    let disk = SimDisk::new();
    let (Opened { mut log, torn }, batches) = open_from(&disk, 0).unwrap();
    assert!(batches.is_empty() && torn.is_none());
    assert_eq!(log.segments(), [Segment { first: 0, bytes: SEGMENT_HEADER_BYTES }]);
    assert_eq!((log.end(), log.durable()), (0, 0));
    // A large one goes to a segment of its own, also as the first and after another.
    let mut ends = Vec::new();
    for bytes in [500, 20, 500, 0, 20, 20] {
        ends.push(log.append(&vec![bytes as u8; bytes]).unwrap());
    }
    ends.push(log.append(&[7; 20]).unwrap());
    let firsts: Vec<u64> = log.segments().iter().map(|segment| segment.first).collect();
    assert_eq!(firsts, [0, ends[0], ends[1], ends[2], ends[5]]);
    assert_eq!(log.durable(), ends[5], "a segment is synced before the next is made");
    assert_eq!(log.sync().unwrap(), ends[6]);
    assert_eq!(log.bytes_on_disk(), ends[6] + 5 * SEGMENT_HEADER_BYTES);

    assert_eq!(remove_before(&mut log, ends[1] - 1).unwrap().len(), 1, "the second ends above");
    assert_eq!(remove_before(&mut log, ends[1]).unwrap().len(), 1);
    assert_eq!(remove_before(&mut log, ends[1]).unwrap().len(), 0);
    let (opened, batches) = open_from(&disk, ends[3]).unwrap();
    assert_eq!(batches.iter().map(|batch| batch.0).collect::<Vec<_>>(), [ends[3], ends[4], ends[5]]);
    assert_eq!(opened.log.segments(), log.segments());
    log = opened.log;
    assert_eq!(remove_before(&mut log, u64::MAX).unwrap().len(), 2, "never the last one");
    assert_eq!(log.segments(), [Segment { first: ends[5], bytes: SEGMENT_HEADER_BYTES + 48 }]);
    drop(log);
    disk.crash(NAMES_LOST);
    assert_eq!(disk.list(directory()).unwrap().len(), 1, "for good");
    let (opened, batches) = open_from(&disk, ends[6]).unwrap();
    assert!(batches.is_empty());
    assert_eq!(opened.log.end(), ends[6]);
}

#[test]
fn what_was_appended_is_written_back_once_and_in_whole_pages() {
    const PAGE: u64 = 4096;
    let disk = SimDisk::new();
    let options = ShardLogOptions { segment_bytes: 64 * 2 * PAGE };
    let open = || {
        ShardLog::open(disk.clone(), directory(), IDENTITY, options, 0, &mut |_, _| {}).expect("it opens").log
    };
    let append = |log: &mut ShardLog<SimDisk>, batches: usize| {
        for _ in 0..batches {
            log.append(&[7; 1000]).unwrap();
            if let Some(errand) = log.errand(false).unwrap() {
                log.come_back(errand.run()).unwrap();
            }
        }
    };
    let mut log = open();
    append(&mut log, 400);
    drop(log);
    let mut log = open();
    append(&mut log, 800);
    let segments = log.segments().to_vec();
    assert!(segments.len() > 2 && log.durable() < log.end());
    log.sync().unwrap();
    let mut stretches = 0;
    for (at, segment) in segments.iter().enumerate() {
        let mut end = 0;
        for (from, bytes) in disk.written_back(&path_of(segment)) {
            // What was there when the log was opened is synced.
            assert!(from == end || (at == 0 && from > end), "{from} follows {end}");
            assert!(from.is_multiple_of(PAGE) && bytes.is_multiple_of(PAGE) && bytes >= 2 * PAGE, "{bytes}");
            end = from + bytes;
            stretches += 1;
        }
        assert!(end <= segment.bytes && segment.bytes < end + 3 * PAGE, "{end} of {}", segment.bytes);
    }
    assert!(stretches > 100, "{stretches}");
}

/// A log of three segments, each of three synced batches but the last, which has two. What is where.
fn small_log() -> (SimDisk, Vec<Segment>) {
    let disk = SimDisk::new();
    let (Opened { mut log, .. }, _) = open_from(&disk, 0).unwrap();
    for number in 0..8 {
        log.append(&[number; 20]).unwrap();
        log.sync().unwrap();
    }
    (disk, log.segments().to_vec())
}

fn path_of(segment: &Segment) -> PathBuf {
    directory().join(format!("log-{:016x}", segment.first))
}

/// The same files, durable, on another disk, but for what is put in the place of one: `None` for a missing file.
fn copy_but(disk: &SimDisk, segments: &[Segment], changed: &Segment, content: Option<&[u8]>) -> SimDisk {
    let copy = SimDisk::new();
    copy.create_dir_all(directory()).unwrap();
    for segment in segments {
        let path = path_of(segment);
        let whole = disk.content(&path).unwrap();
        let content = if segment == changed { content } else { Some(&whole[..]) };
        if let Some(content) = content {
            let file = copy.open(&path).unwrap();
            copy.write_at(&file, 0, content).unwrap();
            copy.sync(&file).unwrap();
        }
    }
    copy.sync_dir(directory()).unwrap();
    copy
}

#[test]
fn rot_is_told_from_a_torn_tail_at_every_byte() {
    let (disk, segments) = small_log();
    let last = segments[2];
    let unvouched = SEGMENT_HEADER_BYTES + 48;
    assert_eq!(last.bytes, unvouched + 48);
    for segment in &segments {
        let whole = disk.content(&path_of(segment)).unwrap();
        for (at, mask) in (0..segment.bytes).flat_map(|at| [1, 0x80, 0xff].map(|mask| (at, mask))) {
            let mut content = whole.clone();
            content[at as usize] ^= mask;
            let damaged = copy_but(&disk, &segments, segment, Some(&content));
            let start = match at.checked_sub(SEGMENT_HEADER_BYTES) {
                Some(inside) => SEGMENT_HEADER_BYTES + inside / 48 * 48,
                None => 0,
            };
            match open_from(&damaged, 0) {
                Err(ShardLogError::Rot { path, offset }) => {
                    assert_eq!((path, offset), (path_of(segment), start));
                    assert!(*segment != last || at < unvouched);
                    assert_eq!(damaged.content(&path_of(segment)).unwrap(), content, "left as it was");
                }
                Ok((opened, batches)) => {
                    assert!(*segment == last && at >= unvouched, "{at} of {segment:?} was not noticed");
                    assert_eq!(batches.len(), 7);
                    let torn = Torn { path: path_of(segment), offset: unvouched, bytes: 48 };
                    assert_eq!(opened.torn, Some(torn));
                    // Who knows that all was durable, hears that it has rotted.
                    let damaged = copy_but(&disk, &segments, segment, Some(&content));
                    assert!(matches!(open_from(&damaged, last.end()), Err(ShardLogError::Rot { .. })));
                }
                Err(error) => panic!("{error}"),
            }
            // Not needed, not read, but for the last one.
            let damaged = copy_but(&disk, &segments, segment, Some(&content));
            if *segment != last {
                assert_eq!(open_from(&damaged, last.first).unwrap().1.len(), 2);
            }
        }
    }
}

/// Where the last segment has no name yet, only a part of the one before is known to be durable. Damage to that is rot; of the
/// rest, which nothing was promised of, the log ends where it is damaged, in whichever file.
#[test]
fn rot_beside_a_segment_without_a_name_is_told_from_a_torn_tail_at_every_byte() {
    let disk = SimDisk::new();
    let (Opened { mut log, .. }, _) = open_from(&disk, 0).unwrap();
    let mut batches = Vec::new();
    let mut append = |log: &mut ShardLog<SimDisk>| {
        batches.push((log.end(), vec![batches.len() as u8; 20]));
        log.append(&batches.last().unwrap().1).unwrap();
    };
    append(&mut log);
    for sync in [false, true] {
        let errand = log.errand(sync).unwrap().unwrap();
        log.come_back(errand.run()).unwrap();
    }
    (0..4).for_each(|_| append(&mut log));
    assert_eq!((log.durable(), log.segments().len()), (48, 2));
    let files = [path_of(&log.segments()[0]), next_path()].map(|path| {
        let content = disk.content(&path).unwrap();
        (path, content)
    });
    assert_eq!([files[0].1.len(), files[1].1.len()], [64 + 3 * 48, 64 + 2 * 48]);
    for changed in 0..2 {
        for (at, mask) in (0..files[changed].1.len()).flat_map(|at| [1, 0x80, 0xff].map(|mask| (at, mask))) {
            let damaged = SimDisk::new();
            damaged.create_dir_all(directory()).unwrap();
            for (number, (path, content)) in files.iter().enumerate() {
                let mut content = content.clone();
                if number == changed {
                    content[at] ^= mask;
                }
                let file = damaged.open(path).unwrap();
                damaged.write_at(&file, 0, &content).unwrap();
                damaged.sync(&file).unwrap();
            }
            damaged.sync_dir(directory()).unwrap();
            let seen = look_from(&damaged, 0);
            let inside = at.checked_sub(SEGMENT_HEADER_BYTES as usize).map(|inside| inside / 48);
            // Who knows that all was durable hears of it, but for the header of what he does not need; and nothing is changed.
            if (changed, inside) != (0, None) {
                assert!(open_from(&damaged, log.end()).is_err(), "{at} of {changed}");
            }
            let whole = match (changed, inside) {
                (0, None | Some(0)) => {
                    let start = if inside.is_none() { 0 } else { 64 };
                    match open_from(&damaged, 0) {
                        Err(ShardLogError::Rot { path, offset }) => {
                            assert_eq!((path, offset), (files[0].0.clone(), start));
                        }
                        Err(error) => panic!("{error}"),
                        Ok(_) => panic!("{at} of what was durable was not noticed"),
                    }
                    continue;
                }
                (0, Some(inside)) => inside,
                (_, inside) => 3 + inside.unwrap_or(0),
            };
            let (Opened { mut log, .. }, read) = open_from(&damaged, 0).unwrap();
            assert_eq!(read, batches[..whole], "{at} of {changed}");
            assert_eq!(seen, read, "who looks sees what is there");
            // What was cut off does not come back.
            log.append(&[9; 20]).unwrap();
            log.sync().unwrap();
            damaged.crash(NAMES_LOST);
            assert_eq!(open_from(&damaged, 0).unwrap().1.len(), whole + 1);
        }
    }
}

/// Also a batch whose payload is torn says that those before it were durable.
#[test]
fn a_torn_batch_vouches_for_those_before_it() {
    let (disk, segments) = small_log();
    let mut content = disk.content(&path_of(&segments[2])).unwrap();
    content.truncate(segments[2].bytes as usize - 1);
    content[SEGMENT_HEADER_BYTES as usize + BATCH_HEADER_BYTES] ^= 1;
    let damaged = copy_but(&disk, &segments, &segments[2], Some(&content));
    assert!(matches!(open_from(&damaged, 0), Err(ShardLogError::Rot { offset: 64, .. })));
}

#[test]
fn every_cut_is_noticed_where_more_was_durable() {
    let (disk, segments) = small_log();
    for (number, segment) in segments.iter().enumerate() {
        let whole = disk.content(&path_of(segment)).unwrap();
        for length in 0..segment.bytes {
            let cut = copy_but(&disk, &segments, segment, Some(&whole[..length as usize]));
            let batches = length.saturating_sub(SEGMENT_HEADER_BYTES) / 48;
            let clean = length >= SEGMENT_HEADER_BYTES && (length - SEGMENT_HEADER_BYTES).is_multiple_of(48);
            match open_from(&cut, 0) {
                Ok((opened, read)) if number == 2 => {
                    assert_eq!(read.len() as u64, 6 + batches);
                    assert_eq!(opened.torn.is_none(), clean || length < SEGMENT_HEADER_BYTES);
                    assert_eq!(
                        opened.log.segments().len(),
                        if length < SEGMENT_HEADER_BYTES { 2 } else { 3 }
                    );
                    cut.crash(0);
                    assert_eq!(open_from(&cut, 0).unwrap().1, read);
                    let cut = copy_but(&disk, &segments, segment, Some(&whole[..length as usize]));
                    assert!(open_from(&cut, segment.end()).is_err());
                }
                Err(ShardLogError::Missing { from, to, .. }) if clean && number < 2 => {
                    assert_eq!((from, to), (segment.first + 48 * batches, segments[number + 1].first));
                }
                Err(ShardLogError::Rot { path, offset }) if !clean && number < 2 => {
                    let start =
                        if length < SEGMENT_HEADER_BYTES { 0 } else { SEGMENT_HEADER_BYTES + 48 * batches };
                    assert_eq!((path, offset), (path_of(segment), start));
                }
                Ok(_) => panic!("a cut of {segment:?} at {length} was not noticed"),
                Err(error) => panic!("{error}"),
            }
        }
        // Longer than it was.
        let mut longer = whole.clone();
        longer.push(0);
        let opened = open_from(&copy_but(&disk, &segments, segment, Some(&longer)), 0);
        match opened {
            Ok((opened, read)) => {
                assert!(number == 2 && read.len() == 8 && opened.torn.is_some_and(|torn| torn.bytes == 1));
            }
            Err(ShardLogError::Rot { offset, .. }) => assert!(number < 2 && offset == segment.bytes),
            Err(error) => panic!("{error}"),
        }
    }
}

/// After a stop in order nothing is a torn tail, however little is missing; what is there beyond the end is one as ever.
#[test]
fn a_log_that_is_shorter_than_when_it_ended_in_order_is_damaged() {
    let (disk, segments) = small_log();
    let last = segments[2];
    let whole = disk.content(&path_of(&last)).unwrap();
    let cut_at = |length: u64| copy_but(&disk, &segments, &last, Some(&whole[..length as usize]));
    assert_eq!(open_ended(&cut_at(last.bytes), last.end()).unwrap().1.len(), 8);
    for length in 0..last.bytes {
        let cut = cut_at(length);
        let batches = length.saturating_sub(SEGMENT_HEADER_BYTES) / 48;
        let looked = look_ended(&cut, last.end()).expect("who looks is told");
        let error = match open_ended(&cut, last.end()) {
            Ok(_) => panic!("a cut at {length} was not noticed"),
            Err(error) => error,
        };
        assert_eq!(error.to_string(), looked.to_string());
        match error {
            ShardLogError::Missing { from, to, .. } => {
                assert_eq!((from, to), (last.first + 48 * batches, last.end()));
            }
            ShardLogError::Rot { path, offset } => {
                assert_eq!((path, offset), (path_of(&last), SEGMENT_HEADER_BYTES + 48 * batches));
            }
            error => panic!("{error}"),
        }
        assert_eq!(cut.content(&path_of(&last)).unwrap(), whole[..length as usize], "left as it was");
        // A crash leaves such logs.
        assert!(open_ended(&cut_at(length), 0).is_ok());
    }
    // Without the last file, and without any.
    let without = copy_but(&disk, &segments, &last, None);
    for error in [look_ended(&without, last.end()), open_ended(&without, last.end()).err()] {
        assert!(matches!(error, Some(ShardLogError::Missing { from, to, .. })
            if (from, to) == (last.first, last.end())));
    }
    let empty = SimDisk::new();
    empty.create_dir_all(directory()).unwrap();
    for error in [look_ended(&empty, 48), open_ended(&empty, 48).err()] {
        assert!(matches!(error, Some(ShardLogError::Missing { from: 0, to: 48, .. })));
    }
    // What was written after that end was never vouched for.
    let longer = copy_but(&disk, &segments, &last, Some(&[&whole[..], b"torn"].concat()));
    assert_eq!(look_ended(&longer, last.end()).map(|error| error.to_string()), None);
    let (opened, batches) = open_ended(&longer, last.end()).unwrap();
    assert_eq!((batches.len(), opened.torn.map(|torn| torn.bytes)), (8, Some(4)));
}

#[test]
fn a_missing_segment_is_noticed_where_it_is_needed() {
    let (disk, segments) = small_log();
    let without = |number: usize| copy_but(&disk, &segments, &segments[number], None);
    let missing = |result: Result<(Opened<SimDisk>, Vec<Batch>), ShardLogError>| match result {
        Err(ShardLogError::Missing { from, to, .. }) => (from, to),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("a missing segment was not noticed"),
    };
    assert_eq!(missing(open_from(&without(0), 0)), (0, segments[1].first));
    assert_eq!(missing(open_from(&without(0), 48)), (48, segments[1].first));
    assert_eq!(open_from(&without(0), segments[1].first).unwrap().1.len(), 5);
    assert_eq!(missing(open_from(&without(1), 0)), (segments[1].first, segments[2].first));
    assert_eq!(missing(open_from(&without(1), segments[1].first)), (segments[1].first, segments[2].first));
    // A crash may leave an older one that was removed.
    assert_eq!(open_from(&without(1), segments[2].first).unwrap().1.len(), 2);
    // Nothing tells of the last one but who knows that it was there.
    assert_eq!(open_from(&without(2), 0).unwrap().1.len(), 6);
    assert_eq!(missing(open_from(&without(2), segments[2].end())), (segments[2].first, segments[2].end()));
    assert_eq!(missing(open_from(&SimDisk::new(), 100)), (0, 100));
}

#[test]
fn what_is_left_of_a_new_segment_is_removed() {
    let (disk, segments) = small_log();
    let last = segments[2];
    for left in [vec![], vec![0; 10], vec![0; 64], disk.content(&path_of(&last)).unwrap()[..63].to_vec()] {
        let new = Segment { first: last.end(), bytes: 0 };
        let copy = copy_but(&disk, &segments, &new, None);
        let file = copy.open(&path_of(&new)).unwrap();
        copy.write_at(&file, 0, &left).unwrap();
        copy.sync(&file).unwrap();
        copy.sync_dir(directory()).unwrap();
        let (opened, batches) = open_from(&copy, 0).unwrap();
        assert_eq!(batches.len(), 8);
        assert_eq!(opened.log.segments(), segments);
        copy.crash(0);
        assert_eq!(copy.content(&path_of(&new)), None, "for good");
        // Its name says that all before it was durable.
        let whole = disk.content(&path_of(&last)).unwrap();
        let cut = copy_but(&disk, &segments, &last, Some(&whole[..whole.len() - 1]));
        let file = cut.open(&path_of(&new)).unwrap();
        cut.write_at(&file, 0, &left).unwrap();
        assert!(matches!(open_from(&cut, 0), Err(ShardLogError::Rot { offset: 112, .. })));
    }
}

#[test]
fn other_logs_and_other_versions_are_refused_by_name() {
    let (disk, segments) = small_log();
    let mut nothing = |_, _: Bytes| panic!("another's");
    let other = ShardLog::open(disk.clone(), directory(), [1; 32], OPTIONS, 0, &mut nothing);
    let error = other.err().unwrap();
    assert!(matches!(&error, ShardLogError::OtherIdentity { path } if *path == path_of(&segments[0])));

    let mut newer = disk.content(&path_of(&segments[1])).unwrap();
    newer[8] = 2;
    let checksum = crc32c(0, &newer[..60]);
    newer[60..64].copy_from_slice(&checksum.to_le_bytes());
    let error = open_from(&copy_but(&disk, &segments, &segments[1], Some(&newer)), 0).err().unwrap();
    let text = error.to_string();
    assert!(matches!(error, ShardLogError::FormatVersion { found: 2, .. }));
    assert!(
        text.contains("log-0000000000000090") && text.contains('2') && text.contains("reads 1"),
        "{text}"
    );

    // A file that was given another's name.
    let first = disk.content(&path_of(&segments[0])).unwrap();
    let renamed = copy_but(&disk, &segments, &segments[1], Some(&first));
    assert!(matches!(open_from(&renamed, 0), Err(ShardLogError::Rot { offset: 0, .. })));

    // Files of others are not looked at.
    for name in ["log-", "log-0000000000000090.old", "LOCK"] {
        disk.open(&directory().join(name)).unwrap();
    }
    assert_eq!(open_from(&disk, 0).unwrap().1.len(), 8);
}

/// CRC-32C as its definition has it, so that the format does not rest on a library alone.
fn crc32c(before: u32, bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!before, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| sum >> 1 ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

/// The bytes are those that docs/storage.md draws.
#[test]
fn the_format_is_the_one_of_the_page() {
    let (disk, segments) = small_log();
    let segment = segments[1];
    let mut drawn = b"ANNSLOG\0".to_vec();
    drawn.extend_from_slice(&1u32.to_le_bytes());
    drawn.extend_from_slice(&IDENTITY);
    drawn.extend_from_slice(&segment.first.to_le_bytes());
    drawn.extend_from_slice(&[0; 8]);
    drawn.extend_from_slice(&crc32c(0, &drawn).to_le_bytes());
    for number in 3u8..6 {
        let offset = 48 * u64::from(number);
        let mut header = crc32c(0, &[number; 20]).to_le_bytes().to_vec();
        header.extend_from_slice(&20u32.to_le_bytes());
        header.extend_from_slice(&offset.to_le_bytes());
        header.extend_from_slice(&offset.to_le_bytes());
        drawn.extend_from_slice(&crc32c(crc32c(0, &IDENTITY), &header).to_le_bytes());
        drawn.extend_from_slice(&header);
        drawn.extend_from_slice(&[number; 20]);
    }
    assert_eq!(disk.content(&path_of(&segment)).unwrap(), drawn);
}

/// Lengths and offsets that no writer made, with good checksums, and bytes that are anything.
#[test]
fn any_bytes_are_read_without_a_panic() {
    let (disk, segments) = small_log();
    let last = segments[2];
    let whole = disk.content(&path_of(&last)).unwrap();
    let at = SEGMENT_HEADER_BYTES as usize + 48;
    for length in [19u32, 21, 48, 1 << 20, u32::MAX] {
        let mut forged = whole.clone();
        forged[at + 8..at + 12].copy_from_slice(&length.to_le_bytes());
        let checksum = crc32c(crc32c(0, &IDENTITY), &forged[at + 4..at + BATCH_HEADER_BYTES]);
        forged[at..at + 4].copy_from_slice(&checksum.to_le_bytes());
        let (opened, batches) = open_from(&copy_but(&disk, &segments, &last, Some(&forged)), 0).unwrap();
        assert_eq!((batches.len(), opened.torn.map(|torn| torn.bytes)), (7, Some(48)), "{length}");
    }
    let mut random = Random(1);
    for _ in 0..3000 {
        let segment = segments[random.below(3) as usize];
        let mut content = disk.content(&path_of(&segment)).unwrap();
        content.truncate(random.below(segment.bytes + 1) as usize);
        content.extend((0..random.below(100)).map(|_| random.below(256) as u8));
        let copy = copy_but(&disk, &segments, &segment, Some(&content));
        match open_from(&copy, 0) {
            Ok((_, batches)) => assert!(batches.len() <= 8 && (segment == last || batches.len() == 8)),
            Err(_) => assert_eq!(copy.content(&path_of(&segment)).unwrap(), content, "left as it was"),
        }
    }
    // A name far out.
    let far = SimDisk::new();
    far.create_dir_all(directory()).unwrap();
    far.open(&directory().join("log-4000000000000000")).unwrap();
    assert!(matches!(open_from(&far, 0), Err(ShardLogError::Missing { .. })));
    let (Opened { mut log, .. }, _) = open_from(&far, 1 << 62).unwrap();
    log.append(b"more").unwrap();
}

/// A value that looks like a batch is none, and does not vouch for anything.
#[test]
fn a_value_cannot_pass_for_a_batch() {
    let disk = SimDisk::new();
    let (Opened { mut log, .. }, _) = open_from(&disk, 0).unwrap();
    // As a client would make it, who knows the format and the offset, but not the identity.
    let mut value = crc32c(0, b"").to_le_bytes().to_vec();
    value.extend_from_slice(&0u32.to_le_bytes());
    value.extend_from_slice(&(BATCH_HEADER_BYTES as u64 + 4).to_le_bytes());
    value.extend_from_slice(&1u64.to_le_bytes());
    let forged = [&[0; 4], &crc32c(0, &value).to_le_bytes()[..], &value[..]].concat();
    log.append(&forged).unwrap();
    log.sync().unwrap();
    let path = directory().join("log-0000000000000000");
    assert!(disk.damage(&path, SEGMENT_HEADER_BYTES, 1), "its own header is torn");
    let (opened, batches) = open_from(&disk, 0).unwrap();
    assert!(batches.is_empty() && opened.torn.is_some());
}

/// The end of a snapshot that the logs in crates/storage/tests/data/ hold.
fn old_end() -> SnapshotEnd {
    let (node, incarnation) = (NodeId(2), Incarnation(3));
    let id = RequestId { node, incarnation, shard: ShardId(4), sequence: 5 };
    SnapshotEnd {
        base: Position { epoch: Epoch(300), lsn: Lsn(1) },
        complete_at: Lsn(2),
        time_ms: 1_700_000_000_001,
        version: Version(77),
        requests: vec![(id, Lsn(1), Bytes::from_static(b"reply"))],
        forgotten: vec![RequestId { sequence: 1, ..id }],
    }
}

/// The entries that the oldest log there holds.
fn old_entries() -> Vec<LogEntry> {
    let partition = PartitionId(1023);
    let record = |lsn: u64, request, body: &'static [u8]| LogEntry::Record {
        partition,
        commit: Lsn(lsn - 1),
        record: Record {
            position: Position { epoch: Epoch(300), lsn: Lsn(lsn) },
            prev_epoch: Epoch(299),
            time_ms: 1_700_000_000_000,
            request,
            body: Bytes::from_static(body).into(),
        },
    };
    let end = old_end();
    let id = end.requests[0].0;
    vec![
        record(1, None, b""),
        record(2, Some((id, Bytes::from_static(b"reply"))), b"a body"),
        LogEntry::Truncate { partition: PartitionId(0), after: Lsn(1000) },
        LogEntry::Wipe { partition: PartitionId(7) },
        LogEntry::Chunk { partition: PartitionId(7), payload: Bytes::from_static(b"a chunk") },
        LogEntry::Filled { partition: PartitionId(7), end },
    ]
}

/// A log that was written when format 1 was new: two segments, two synced batches each, an entry or two a batch.
#[test]
fn a_log_of_format_1_reads_back() {
    let disk = SimDisk::new();
    disk.create_dir_all(directory()).unwrap();
    let old = [
        (
            "log-0000000000000000",
            &include_bytes!("../../storage/tests/data/shard-log-1/log-0000000000000000")[..],
        ),
        (
            "log-000000000000006e",
            &include_bytes!("../../storage/tests/data/shard-log-1/log-000000000000006e")[..],
        ),
    ];
    for (name, content) in old {
        let file = disk.open(&directory().join(name)).unwrap();
        disk.write_at(&file, 0, content).unwrap();
    }
    let (Opened { log, torn }, batches) = open_from(&disk, 0).unwrap();
    assert_eq!((torn, log.segments().len(), batches.len()), (None, 2, 4));
    let read: Result<Vec<LogEntry>, _> =
        batches.into_iter().flat_map(|(_, payload)| entries(Bytes::from(payload))).collect();
    assert_eq!(read.unwrap(), old_entries());
}

/// A log with a transfer that broke off and went on, as it is written from feature level 2 on. `WRITE_FORMATS=1` writes the file where
/// it is not there; it is never written again.
#[test]
fn a_log_with_a_transfer_of_level_2_reads_back() {
    let partition = PartitionId(7);
    let session = |session, next| LogEntry::Session { partition, reign: Epoch(300), session, next };
    let chunk = |payload: &'static [u8]| LogEntry::Chunk { partition, payload: Bytes::from_static(payload) };
    let expected = [
        LogEntry::Wipe { partition },
        session(1000, 0),
        chunk(b"a chunk"),
        session(1001, 2),
        chunk(b"another"),
        LogEntry::Filled { partition, end: old_end() },
    ];
    let name = "log-0000000000000000";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../storage/tests/data/shard-log-2").join(name);
    if !file.exists() && std::env::var_os("WRITE_FORMATS").is_some() {
        let mut payload = Vec::new();
        put_wipe(&mut payload, partition);
        put_session(&mut payload, partition, Epoch(300), 1000, 0);
        put_chunk(&mut payload, partition, b"a chunk");
        put_session(&mut payload, partition, Epoch(300), 1001, 2);
        put_chunk(&mut payload, partition, b"another");
        put_filled(&mut payload, partition, &old_end());
        let disk = SimDisk::new();
        let (Opened { mut log, .. }, _) = open_from(&disk, 0).unwrap();
        log.append(&payload).unwrap();
        log.sync().unwrap();
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, disk.content(&directory().join(name)).unwrap()).unwrap();
    }
    let disk = SimDisk::new();
    disk.create_dir_all(directory()).unwrap();
    let old = disk.open(&directory().join(name)).unwrap();
    disk.write_at(&old, 0, &std::fs::read(&file).unwrap()).unwrap();
    let (Opened { torn, .. }, batches) = open_from(&disk, 0).unwrap();
    assert_eq!((torn, batches.len()), (None, 1));
    let read: Result<Vec<LogEntry>, _> = entries(Bytes::from(batches[0].1.clone())).collect();
    assert_eq!(read.unwrap(), expected);
}
