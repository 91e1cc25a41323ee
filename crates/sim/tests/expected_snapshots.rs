//! A snapshot that is gone is missed where the log before it is gone too, and nowhere else: whatever a crash leaves, no copy is
//! given up that can be made again.
//!
//! `types::planted::Bug::MissesNoSnapshot` is found by it:
//! `cargo test --profile campaign -p annulet-sim --features planted --test expected_snapshots`

use node::look::{self, Severity};
use node::recover::{Opened, RecoverConfig, bytes_to_read, open_shard, shard_directory};
use replication::Durability;
use sim::disk::SimDisk;
use sim::log_thread::remove_before;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use storage::snapshot_file::{remove_snapshot, snapshot_path};
use storage::{Journal, ShardLog, ShardLogOptions, SnapshotEnd, SnapshotWriter, log_entry};
use types::{Epoch, Lsn, NodeId, PartitionId, Position, ShardId, Version};

const IDENTITY: [u8; 32] = *b"cluster 4, node 1, shard 0......";
const GONE: PartitionId = PartitionId(3);
const OTHER: PartitionId = PartitionId(5);

fn config() -> RecoverConfig {
    RecoverConfig {
        node: NodeId(1),
        shard: ShardId(0),
        identity: IDENTITY,
        hash_seed: 7,
        durability: Durability::Disk,
        log: ShardLogOptions { segment_bytes: 200 },
        ended_at: 0,
    }
}

fn data() -> &'static Path {
    Path::new("data")
}

fn directory() -> PathBuf {
    shard_directory(data(), ShardId(0))
}

fn open(disk: &SimDisk) -> Opened<SimDisk> {
    open_shard(disk, data(), &config(), &mut |_| {}).unwrap()
}

/// The partitions that cannot be made again, and why.
fn lost(disk: &SimDisk) -> Vec<(PartitionId, String)> {
    open(disk).lost
}

fn append(log: &mut ShardLog<SimDisk>, partition: PartitionId, lsn: u64) {
    let mut entry = Vec::new();
    let before = Epoch(u64::from(lsn > 1));
    let position = Position { epoch: Epoch(1), lsn: Lsn(lsn) };
    log_entry::put_record(&mut entry, partition, Lsn(lsn - 1), position, before, 1000 + lsn, None, b"");
    log.append(&entry).unwrap();
}

fn snapshot(disk: &SimDisk, partition: PartitionId, log_offset: u64) -> Result<u64, storage::SnapshotError> {
    let last = Lsn(if partition == GONE { 4 } else { 8 });
    let end = SnapshotEnd {
        base: Position { epoch: Epoch(1), lsn: last },
        complete_at: last,
        time_ms: 1004,
        version: Version(1),
        requests: Vec::new(),
        forgotten: Vec::new(),
    };
    SnapshotWriter::begin(disk.clone(), &directory(), &IDENTITY, partition, log_offset)?.finish(&end)
}

/// Both partitions have records in the log, on several files; the last has none of the one that is to be gone.
fn written() -> (SimDisk, Opened<SimDisk>) {
    let disk = SimDisk::new();
    let mut opened = open(&disk);
    for lsn in 1..=4 {
        append(&mut opened.log, GONE, lsn);
        append(&mut opened.log, OTHER, lsn);
    }
    for lsn in 5..=8 {
        append(&mut opened.log, OTHER, lsn);
    }
    opened.log.sync().unwrap();
    (disk, opened)
}

/// Snapshots of both, and the log before them removed.
fn released() -> (SimDisk, Opened<SimDisk>) {
    let (disk, mut opened) = written();
    for partition in [GONE, OTHER] {
        snapshot(&disk, partition, opened.log.end()).unwrap();
    }
    let end = opened.log.segments().last().unwrap().first;
    opened.begin.advance(end, &BTreeSet::from([GONE, OTHER])).unwrap();
    assert!(remove_before(&mut opened.log, end).unwrap().len() > 1);
    (disk, opened)
}

fn remove(disk: &SimDisk) {
    remove_snapshot(disk, &directory(), GONE).unwrap();
}

fn is_missed() {
    let (disk, _) = released();
    assert_eq!(lost(&disk), []);
    remove(&disk);
    let found = lost(&disk);
    let path = snapshot_path(&directory(), GONE);
    assert_eq!(found.iter().map(|(partition, _)| *partition).collect::<Vec<_>>(), [GONE]);
    assert!(found[0].1.contains(&format!("{} is gone", path.display())), "{found:?}");
    let looked = look::look_at_shard(&disk, data(), &config(), &mut |_| {});
    let [finding] = &looked.findings[..] else { panic!("{:?}", looked.findings) };
    assert_eq!((finding.severity, finding.partition), (Severity::Damaged, Some(GONE)));
    assert_eq!(finding.path.as_ref(), Some(&path));
    assert_eq!(looked.copies, 1, "the other one");
}

#[test]
fn a_snapshot_that_is_gone_with_its_log_is_missed() {
    is_missed();
}

#[cfg(feature = "planted")]
#[test]
fn a_start_that_misses_none_is_found() {
    use types::planted::{Bug, plant};
    plant(Some(Bug::MissesNoSnapshot));
    let found = std::panic::catch_unwind(is_missed);
    plant(None);
    assert!(found.is_err(), "not found");
}

/// What is told while a shard is read adds up to what was said before: snapshots count, and of the log what is needed.
#[test]
fn what_was_read_adds_up_to_what_there_is_to_read() {
    let told = |disk: &SimDisk| {
        let mut told = Vec::new();
        open_shard(disk, data(), &config(), &mut |more| told.push(more)).unwrap();
        told
    };
    assert_eq!(bytes_to_read(&SimDisk::new(), data(), ShardId(0)), 0);
    // A log alone, of which there are more files than one.
    let (disk, opened) = written();
    assert_eq!(bytes_to_read(&disk, data(), ShardId(0)), opened.log.end());
    assert_eq!(told(&disk).iter().sum::<u64>(), opened.log.end());
    // Snapshots, and the last of the log.
    let (disk, opened) = released();
    let length = |partition| disk.content(&snapshot_path(&directory(), partition)).unwrap().len() as u64;
    let (gone, other) = (length(GONE), length(OTHER));
    let rest = opened.log.end() - opened.log.segments()[0].first;
    assert!(gone > 0 && rest > 0 && rest < opened.log.end());
    assert_eq!(bytes_to_read(&disk, data(), ShardId(0)), gone + other + rest);
    let heard = told(&disk);
    assert_eq!(heard.iter().sum::<u64>(), gone + other + rest);
    assert_eq!(heard[..2], [gone, other], "as soon as each was read");
    // One that has rotted was read as well.
    assert!(disk.damage(&snapshot_path(&directory(), GONE), 60, 1));
    assert_eq!(told(&disk).iter().sum::<u64>(), gone + other + rest);
}

/// While all of the log is there, what a snapshot held comes from it.
#[test]
fn one_that_the_log_has_still_is_not_needed() {
    let (disk, opened) = written();
    snapshot(&disk, GONE, opened.log.end()).unwrap();
    remove(&disk);
    assert_eq!(lost(&disk), []);
    let copies = look::look_at_shard(&disk, data(), &config(), &mut |_| {}).copies;
    assert_eq!(copies, 2);
}

/// A partition that holds nothing any more needs none.
#[test]
fn one_of_a_partition_that_was_emptied_is_not_missed() {
    let (disk, mut opened) = released();
    let mut entry = Vec::new();
    log_entry::put_wipe(&mut entry, GONE);
    opened.log.append(&entry).unwrap();
    opened.log.sync().unwrap();
    remove(&disk);
    assert_eq!(lost(&disk), []);
}

/// The file of a version that listed no snapshots: nothing is missed, and nothing is in the way.
#[test]
fn the_first_format_names_none() {
    let (disk, opened) = released();
    let first = opened.log.segments()[0].first;
    let (mut journal, _) = Journal::open(disk.clone(), &directory().join("log.begin")).unwrap();
    journal.rewrite(&[first.to_le_bytes()]).unwrap();
    assert_eq!(lost(&disk), []);
    remove(&disk);
    assert_eq!(lost(&disk), []);
}

/// The power goes off at every operation of writing the snapshots and removing the log before them.
#[test]
fn no_crash_makes_one_missed() {
    let work = |disk: &SimDisk, opened: &mut Opened<SimDisk>| -> Result<(), Box<dyn std::error::Error>> {
        for partition in [GONE, OTHER] {
            snapshot(disk, partition, opened.log.end())?;
        }
        let end = opened.log.segments().last().map_or(0, |segment| segment.first);
        opened.begin.advance(end, &BTreeSet::from([GONE, OTHER]))?;
        remove_before(&mut opened.log, end)?;
        Ok(())
    };
    let (disk, mut opened) = written();
    let before = disk.operations();
    work(&disk, &mut opened).unwrap();
    let operations = disk.operations() - before;
    assert!(operations > 20, "{operations}");
    for number in 0..=operations {
        for seed in 0..20 {
            let (disk, mut opened) = written();
            disk.power_off_after(disk.operations() + number);
            let _ = work(&disk, &mut opened);
            let is_scattered = seed % 2 == 1;
            if is_scattered {
                disk.crash_scattered(seed)
            } else {
                disk.crash(seed)
            };
            assert_eq!(lost(&disk), [], "after {number} operations, seed {seed}");
            if !is_scattered {
                // Otherwise a file may lie before a gap that nobody needs.
                let looked = look::look_at_shard(&disk, data(), &config(), &mut |_| {});
                assert_eq!(looked.copies, 2, "{:?}", looked.findings);
            }
        }
    }
}
