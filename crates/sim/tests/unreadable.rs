//! A disk that cannot read what it holds (`EIO`): it counts as rot, at its place, wherever it is in a shard's files; and no other error
//! does.

use bytes::Bytes;
use node::look::{self, Severity};
use node::recover::{RecoverConfig, RecoverError, begin_anew, open_shard, shard_directory};
use replication::Durability;
use sim::disk::SimDisk;
use std::path::{Path, PathBuf};
use storage::snapshot_file::{SnapshotError, read_snapshot, snapshot_path};
use storage::{ShardLogError, ShardLogOptions, SnapshotEnd, SnapshotWriter, log_entry};
use types::{Lsn, NodeId, PartitionId, Position, ShardId, Version};

const IDENTITY: [u8; 32] = *b"cluster 5, node 1, shard 0......";
const SNAPSHOT: PartitionId = PartitionId(3);
/// So long is what is written at once, which no place that is told of may be far from.
const BATCH: usize = 10_000;

fn config() -> RecoverConfig {
    RecoverConfig {
        node: NodeId(1),
        shard: ShardId(0),
        identity: IDENTITY,
        hash_seed: 7,
        durability: Durability::Disk,
        log: ShardLogOptions { segment_bytes: 3 * BATCH as u64 },
        ended_at: 0,
    }
}

fn data() -> &'static Path {
    Path::new("data")
}

fn directory() -> PathBuf {
    shard_directory(data(), ShardId(0))
}

fn end() -> SnapshotEnd {
    SnapshotEnd {
        base: Position::default(),
        complete_at: Lsn(0),
        time_ms: 1000,
        version: Version(1),
        requests: Vec::new(),
        forgotten: Vec::new(),
    }
}

/// A log of several files, of partitions that hold nothing, and a snapshot. Returns the log's files.
fn written() -> (SimDisk, Vec<PathBuf>) {
    let disk = SimDisk::new();
    let mut log = open_shard(&disk, data(), &config(), &mut |_| {}).unwrap().log;
    let mut entries = Vec::new();
    while entries.len() < BATCH {
        log_entry::put_wipe(&mut entries, PartitionId(5));
    }
    for _ in 0..6 {
        log.append(&entries).unwrap();
    }
    log.sync().unwrap();
    SnapshotWriter::begin(disk.clone(), &directory(), &IDENTITY, SNAPSHOT, log.end())
        .unwrap()
        .finish(&end())
        .unwrap();
    let files = log.segments().iter().map(|segment| directory().join(format!("log-{:016x}", segment.first)));
    (disk, files.collect())
}

/// The start of the 4 KiB that this byte is in.
fn place(offset: u64) -> u64 {
    offset / 4096 * 4096
}

#[test]
fn in_a_log_it_is_rot_at_its_place() {
    let (_, files) = written();
    assert!(files.len() > 2);
    for file in files {
        for offset in [0, 63, 64, 4095, 4096, 9_000, 13_000] {
            let (disk, _) = written();
            disk.spoil(&file, offset);
            let Err(error) = open_shard(&disk, data(), &config(), &mut |_| {}) else {
                panic!("it was not noticed")
            };
            assert!(error.is_rot(), "{error}");
            let RecoverError::Log(ShardLogError::Rot { path, offset: at }) = &error else {
                panic!("{error}")
            };
            assert_eq!((path, *at), (&file, place(offset)));
            assert!(error.to_string().contains("The disk may be failing"), "{error}");
            let looked = look::look_at_shard(&disk, data(), &config(), &mut |_| {});
            let found: Vec<_> =
                looked.findings.iter().filter(|finding| finding.severity > Severity::Harmless).collect();
            assert!(!found.is_empty(), "who looks is told, too");
            assert!(found.iter().all(|finding| finding.severity == Severity::Damaged), "{found:?}");
            assert_eq!((&found[0].path, found[0].offset), (&Some(file.clone()), Some(place(offset))));
            // And the shard begins anew beside what is left.
            let (opened, aside) = begin_anew(&disk, data(), &config()).unwrap();
            assert_eq!((opened.log.end(), aside), (0, Some(data().join("shard-0.aside-1"))));
        }
    }
}

#[test]
fn in_a_snapshot_it_costs_the_one_copy() {
    let (disk, _) = written();
    let path = snapshot_path(&directory(), SNAPSHOT);
    disk.spoil(&path, 30);
    let opened = open_shard(&disk, data(), &config(), &mut |_| {}).unwrap();
    assert_eq!(opened.lost.iter().map(|(partition, _)| *partition).collect::<Vec<_>>(), [SNAPSHOT]);
    assert!(opened.lost[0].1.contains(&format!("{} is damaged at byte 0", path.display())));
    assert_eq!(opened.rotten, [path]);
}

#[test]
fn in_a_long_snapshot_the_place_is_found() {
    let disk = SimDisk::new();
    drop(open_shard(&disk, data(), &config(), &mut |_| {}).unwrap());
    let mut writer = SnapshotWriter::begin(disk.clone(), &directory(), &IDENTITY, SNAPSHOT, 0).unwrap();
    for _ in 0..30 {
        writer.chunk(&[7; 100_000][..]).unwrap();
    }
    writer.finish(&end()).unwrap();
    let path = snapshot_path(&directory(), SNAPSHOT);
    let read = |disk: &SimDisk| read_snapshot(disk, &path, &IDENTITY, &mut |_| {}, &mut |_: Bytes| Ok(()));
    assert!(read(&disk).is_ok());
    disk.spoil(&path, 2_500_000);
    let Err(SnapshotError::Rot { offset, .. }) = read(&disk) else { panic!("it was not noticed") };
    assert!(offset <= 2_500_000 && 2_500_000 < offset + 4096, "{offset}");
}

/// The file that says where the log begins is the shard's, too.
#[test]
fn in_the_small_file_it_is_rot() {
    let (disk, _) = written();
    disk.spoil(&directory().join("log.begin"), 3);
    let Err(error) = open_shard(&disk, data(), &config(), &mut |_| {}) else { panic!("it was not noticed") };
    assert!(error.is_rot() && error.to_string().contains("is damaged at byte 0"), "{error}");
}

/// A disk that answers nothing at all says nothing of its bytes.
#[test]
fn another_error_is_none() {
    let (disk, _) = written();
    disk.fail_read(true);
    let Err(error) = open_shard(&disk, data(), &config(), &mut |_| {}) else { panic!("it was not noticed") };
    assert!(!error.is_rot() && error.to_string().contains("cannot read"), "{error}");
}
