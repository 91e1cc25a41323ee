//! Files of a stopped node that are torn, rotten, missing, or not its own: each is told with its name and place, and nothing that
//! was acknowledged is lost where a copy has it.

use crate::local_cluster::{annulet, until};
use crate::script::{say, shown};
use crate::served_nodes::{Contents, REFUSED, ServedNodes};
use crate::written::{Journal, check_all, until_more, while_writing};
use std::path::{Path, PathBuf};
use types::slot::partition_of_key;

/// Partitions and shards of the nodes here, as they are told.
const PARTITIONS: u16 = 32;
const SHARDS: u16 = 2;
/// Bytes of a segment's header, of a batch's, and where in it the offset and what was durable stand (docs/storage.md).
const SEGMENT_HEADER: usize = 64;
const BATCH_HEADER: usize = 28;

/// Nodes that have written something and were then stopped.
fn stopped(nodes: u16, settings: &[&str]) -> (ServedNodes, Vec<Journal>) {
    let mut served = ServedNodes::start(nodes, settings);
    let mut journals: Vec<Journal> = (0..3).map(Journal::new).collect();
    let ports = served.ports();
    while_writing(&mut journals, &ports, |total| until_more(total, 1500));
    served.stop(served.ids());
    (served, journals)
}

fn last(segments: Vec<PathBuf>) -> PathBuf {
    segments.into_iter().next_back().expect("a log has a file")
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

fn truncate(path: &Path, bytes: usize) {
    std::fs::File::options().write(true).open(path).unwrap().set_len(bytes as u64).unwrap();
}

fn append(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    std::fs::File::options().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

/// CRC-32C, a bit at a time, going on from a checksum.
fn crc32c(checksum: u32, bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!checksum, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0x82f6_3b78 * (sum & 1)))
    })
}

/// Where the batches of a segment begin, in bytes from its start.
fn batches(bytes: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut at = SEGMENT_HEADER;
    while let Some(header) = bytes.get(at..at + BATCH_HEADER) {
        found.push(at);
        at += BATCH_HEADER + u32::from_le_bytes(header[8..12].try_into().unwrap()) as usize;
    }
    assert_eq!(at, bytes.len(), "whole batches");
    found
}

/// A batch as the node itself would write it at the end of a segment, and which a crash would have torn: its payload is cut short.
fn torn_batch(segment: &[u8]) -> Vec<u8> {
    let first = u64::from_le_bytes(segment[44..52].try_into().unwrap());
    let end = first + (segment.len() - SEGMENT_HEADER) as u64;
    let mut header = vec![0; 8];
    header.extend(5000u32.to_le_bytes());
    header.extend(end.to_le_bytes());
    header.extend(end.to_le_bytes());
    let checksum = crc32c(crc32c(0, &segment[12..44]), &header[4..]);
    header[..4].copy_from_slice(&checksum.to_le_bytes());
    header.extend([7; 1234]);
    header
}

#[test]
fn a_torn_tail_is_cut_off_and_nothing_acknowledged_is_lost() {
    let (mut nodes, mut journals) = stopped(1, &[]);
    let ports = nodes.ports();
    for round in 0..3 {
        let path = last(nodes.segments(1, round % SHARDS));
        let whole = std::fs::read(&path).unwrap();
        let torn = match round {
            0 => b"garbage, as long as anything that a disk may leave at the end of a file".to_vec(),
            1 => torn_batch(&whole),
            _ => vec![0; 100_000],
        };
        append(&path, &torn);
        let said = nodes.said(1);
        nodes.start_all();
        nodes.wait_whole();
        let said = nodes.said_since(1, &said);
        let line = said.lines().find(|line| line.contains("cut off")).expect("it says so");
        for part in
            [path.display().to_string(), format!("offset={}", whole.len()), format!("bytes={}", torn.len())]
        {
            assert!(line.contains(&part), "{part} in {line}");
        }
        check_all(&journals, &ports);
        while_writing(&mut journals, &ports, |total| until_more(total, 500));
        nodes.stop([1]);
    }
    nodes.start_all();
    nodes.wait_whole();
    check_all(&journals, &ports);
}

/// What was cut in the middle of a batch while its node was down comes back from the other, which went on.
#[test]
fn a_log_that_was_cut_is_completed_by_the_other_node() {
    let mut nodes = ServedNodes::start(2, &[]);
    let ports = nodes.ports();
    let mut journals: Vec<Journal> = (0..3).map(Journal::new).collect();
    while_writing(&mut journals, &ports, |total| until_more(total, 1500));
    // The second does not vote: the first goes on without it.
    nodes.kill([2]);
    while_writing(&mut journals, &ports[..1], |total| until_more(total, 500));
    for shard in 0..SHARDS {
        let path = last(nodes.segments(2, shard));
        let bytes = std::fs::read(&path).unwrap();
        let start = *batches(&bytes).last().unwrap();
        truncate(&path, start + (bytes.len() - start) / 2);
    }
    nodes.start_all();
    nodes.wait_whole();
    assert_eq!(nodes.said(2).matches("cut off").count(), usize::from(SHARDS));
    check_all(&journals, &ports);
}

/// After a stop in order all was synced: what is missing is no torn tail, and the node does not count for what it has not.
#[test]
fn a_log_that_was_cut_after_a_stop_in_order_is_damaged() {
    let (mut nodes, journals) = stopped(2, &[]);
    let ports = nodes.ports();
    assert_eq!(checked(&nodes, 1).0, Some(0));
    // The node that votes, so that it can then serve alone. One log ends in a batch, the other between two.
    let paths = [0, 1].map(|shard| last(nodes.segments(1, shard)));
    let lasts = paths.each_ref().map(|path| *batches(&std::fs::read(path).unwrap()).last().unwrap());
    truncate(&paths[0], lasts[0] + BATCH_HEADER + 1);
    truncate(&paths[1], lasts[1]);
    let damaged = format!("{} is damaged at byte {}", paths[0].display(), lasts[0]);
    let lacks = format!(
        "{} lacks the log's bytes from {} to",
        nodes.shard(1, 1).display(),
        lasts[1] - SEGMENT_HEADER
    );
    let (code, text) = checked(&nodes, 1);
    assert_eq!(code, Some(1), "{text}");
    for told in [&damaged, &lacks] {
        assert!(text.contains(told), "{told} in {text}");
    }
    // Somebody may have it, so nothing is given up.
    let said = nodes.refused(1);
    assert!(said.contains(&lacks) && said.contains("move that directory aside"), "{said}");
    std::fs::rename(nodes.shard(1, 1), nodes.data(1).join("moved")).unwrap();
    nodes.start_all();
    nodes.wait_whole();
    let said = nodes.said(1);
    assert!(said.contains(&damaged) && said.contains("shard-0.aside-1"), "{said}");
    assert!(!said.contains("cut off"), "{said}");
    check_all(&journals, &ports);
    // All of it came over.
    nodes.stop([2]);
    check_all(&journals, &ports[..1]);
}

/// A sync may have failed, so that the system has dropped what it had taken.
#[test]
fn without_syncs_a_torn_end_may_have_been_acknowledged() {
    let mut nodes = ServedNodes::start(1, &["--fsync", "everysec"]);
    let ports = nodes.ports();
    let mut journals: Vec<Journal> = (0..3).map(Journal::new).collect();
    while_writing(&mut journals, &ports, |total| until_more(total, 500));
    nodes.kill([1]);
    append(&last(nodes.segments(1, 0)), b"torn");
    nodes.start_all();
    nodes.wait_whole();
    let said = nodes.said(1);
    assert!(
        said.contains("with fsync = everysec it may have been acknowledged if a sync had failed"),
        "{said}"
    );
    assert!(said.contains("gives up its seats") && !said.contains("never acknowledged"), "{said}");
    check_all(&journals, &ports);
}

#[test]
fn rot_on_one_of_two_nodes_is_told_and_healed_from_the_other() {
    let (mut nodes, journals) = stopped(2, &[]);
    let ports = nodes.ports();
    // The node that votes, so that it can then serve alone.
    let path = last(nodes.segments(1, 0));
    let bytes = std::fs::read(&path).unwrap();
    let starts = batches(&bytes);
    let rotten = starts[starts.len() / 2];
    flip(&path, rotten + BATCH_HEADER + 3);
    nodes.start_all();
    nodes.wait_whole();
    let said = nodes.said(1);
    assert!(said.contains(&format!("{} is damaged at byte {rotten}", path.display())), "{said}");
    assert!(said.contains("fetched anew from another node"), "{said}");
    let aside = nodes.data(1).join("shard-0.aside-1");
    assert!(said.contains(&format!("set aside as {}", aside.display())), "{said}");
    let kept = aside.join(path.file_name().unwrap());
    assert_eq!(std::fs::read(kept).unwrap().len(), bytes.len(), "set aside, not deleted");
    check_all(&journals, &ports);
    // All of it came over.
    nodes.stop([2]);
    check_all(&journals, &ports[..1]);
    // And stays, without another word of it.
    let said = nodes.said(1);
    nodes.kill([1]);
    nodes.start_all();
    nodes.wait_whole();
    assert!(!nodes.said_since(1, &said).contains("damaged"));
    check_all(&journals, &ports);
}

/// Once the rotten log is set aside nothing in the directory's logs tells of it: it is known all the same, also where the start
/// that found it was never heard.
#[test]
fn a_start_that_found_rot_and_was_never_heard_is_not_forgotten() {
    let (mut nodes, journals) = stopped(2, &[]);
    let ports = nodes.ports();
    let path = last(nodes.segments(2, 0));
    let rotten = batches(&std::fs::read(&path).unwrap())[3];
    flip(&path, rotten + BATCH_HEADER);
    // The other one alone has a vote, and is down.
    let before = nodes.said(2);
    nodes.start_node(2);
    until("it is set aside", || {
        let said = nodes.said_since(2, &before);
        said.contains("shard-0.aside-1") && said.contains("the ports are open")
    });
    nodes.kill([2]);
    let said = nodes.said(2);
    nodes.start_all();
    nodes.wait_whole();
    assert!(!nodes.said_since(2, &said).contains("damaged"));
    check_all(&journals, &ports);
    // A shard that is gone as a whole is the same.
    nodes.stop(nodes.ids());
    std::fs::remove_dir_all(nodes.shard(2, 1)).unwrap();
    let said = nodes.said(2);
    nodes.start_node(2);
    until("it is noticed", || {
        let said = nodes.said_since(2, &said);
        said.contains("shard-1 is gone, or empty") && said.contains("the ports are open")
    });
    nodes.kill([2]);
    nodes.start_all();
    nodes.wait_whole();
    check_all(&journals, &ports);
}

#[test]
fn rot_on_the_only_node_leaves_the_other_shards_serving() {
    let mut nodes = ServedNodes::start(1, &["--request-timeout-ms", "300"]);
    let keys: Vec<String> = (0..40).map(|number| format!("key:{number}")).collect();
    let mut client = nodes.client(1);
    for key in &keys {
        assert_eq!(shown(&say(&mut client, &format!("SET {key} kept"))), "OK");
    }
    nodes.stop([1]);
    let path = last(nodes.segments(1, 1));
    let bytes = std::fs::read(&path).unwrap();
    let rotten = batches(&bytes)[3];
    flip(&path, rotten + BATCH_HEADER);
    // At the second start, too: what is left of the log says nothing of it any more.
    for start in 0..3 {
        nodes.start_node(1);
        nodes.wait_answer(1);
        until("the lost partitions are named", || {
            nodes.status(1).is_some_and(|status| {
                status["partitions"]["lost"] == PARTITIONS / SHARDS
                    && status["partitions"]["served"] == PARTITIONS / SHARDS
            })
        });
        let said = nodes.said(1);
        assert!(said.contains(&format!("{} is damaged at byte {rotten}", path.display())), "{said}");
        assert!(said.contains("only a backup of this node's whole data directory brings it back"), "{said}");
        assert!(!said.contains("fetched anew"), "{said}");
        let mut client = nodes.client(1);
        for key in &keys {
            let lost = partition_of_key(key.as_bytes(), PARTITIONS).0 % SHARDS == 1;
            let reply = shown(&say(&mut client, &format!("GET {key}")));
            match lost {
                true => assert!(reply.starts_with("!CLUSTERDOWN "), "start {start}: {key}: {reply}"),
                false => assert_eq!(reply, "\"kept\"", "start {start}: {key}"),
            }
        }
        nodes.kill([1]);
    }
    // And a snapshot of the other shard, with the log before it, costs its partition.
    nodes.start_node(1);
    nodes.wait_answer(1);
    until("it serves", || {
        nodes.status(1).is_some_and(|status| status["partitions"]["served"] == PARTITIONS / SHARDS)
    });
    save(&nodes, 1);
    nodes.stop([1]);
    let gone = snapshots(&nodes, 1, 0).remove(2);
    std::fs::remove_file(&gone).unwrap();
    nodes.start_node(1);
    nodes.wait_answer(1);
    until("its partition is lost, too", || {
        nodes.status(1).is_some_and(|status| {
            status["partitions"]["lost"] == PARTITIONS / SHARDS + 1
                && status["partitions"]["served"] == PARTITIONS / SHARDS - 1
        })
    });
    assert!(nodes.said(1).contains(&format!("{} is gone", gone.display())), "{}", nodes.said(1));
}

/// Asks for snapshots of everything, and waits until they are on disk and the log before them is released.
fn save(nodes: &ServedNodes, id: u16) {
    let mut client = nodes.client(id);
    say(&mut client, "BGSAVE").expect("it saves");
    until("it is saved", || {
        let info: String = redis::cmd("INFO").arg("persistence").query(&mut client).expect("it answers");
        info.contains("rdb_bgsave_in_progress:0")
    });
}

/// The snapshots of a shard of a node.
fn snapshots(nodes: &ServedNodes, id: u16, shard: u16) -> Vec<PathBuf> {
    let names = std::fs::read_dir(nodes.shard(id, shard)).unwrap().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> =
        names.filter(|path| path.extension().is_some_and(|end| end == "snap")).collect();
    found.sort();
    found
}

/// `annulet check` of a node that is down: its exit code and what it says.
fn checked(nodes: &ServedNodes, id: u16) -> (Option<i32>, String) {
    let output = annulet().arg("check").arg(nodes.data(id)).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A snapshot that somebody deleted, and rot in the small files: each is told, costs what it has to and no more, and comes back
/// from the other node.
#[test]
fn what_one_of_two_nodes_lacks_is_missed_and_healed_from_the_other() {
    let mut nodes = ServedNodes::start(2, &[]);
    let ports = nodes.ports();
    let mut journals: Vec<Journal> = (0..3).map(Journal::new).collect();
    while_writing(&mut journals, &ports, |total| until_more(total, 1000));
    save(&nodes, 1);
    nodes.stop(nodes.ids());
    // The node that votes, so that it can then serve alone.
    let found = snapshots(&nodes, 1, 0);
    let gone = &found[found.len() / 2];
    assert_eq!(checked(&nodes, 1).0, Some(0));
    std::fs::remove_file(gone).unwrap();
    let begin = nodes.shard(1, 1).join("log.begin");
    flip(&begin, 9);
    let told = [format!("{} is gone", gone.display()), format!("{} is damaged at byte 0", begin.display())];
    let (code, text) = checked(&nodes, 1);
    assert_eq!(code, Some(1), "{text}");
    // The only file that it cannot do without: that one has to be set aside, and nothing else.
    let control = nodes.data(2).join("control.journal");
    flip(&control, 9);
    let said = nodes.refused(2);
    for part in [&format!("{} is damaged at byte 0", control.display()), "move this one file aside", "--join"]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
    std::fs::rename(&control, control.with_extension("aside")).unwrap();
    nodes.start_all();
    nodes.wait_whole();
    for told in &told {
        assert!(text.contains(told), "{told} in {text}");
        assert!(nodes.said(1).contains(told), "{told} in {}", nodes.said(1));
    }
    check_all(&journals, &ports);
    // All of it came over, and stays.
    nodes.stop([2]);
    check_all(&journals, &ports[..1]);
    let said = nodes.said(1);
    nodes.kill([1]);
    nodes.start_all();
    nodes.wait_whole();
    assert!(!nodes.said_since(1, &said).contains("is gone"));
    check_all(&journals, &ports);
}

#[test]
fn what_is_missing_or_of_another_version_is_refused_and_left_alone() {
    let (mut nodes, journals) = stopped(1, &[]);
    let ports = nodes.ports();
    let segment = last(nodes.segments(1, 0));
    let whole = std::fs::read(&segment).unwrap();
    let shard = nodes.shard(1, 0);
    let refuses = |nodes: &mut ServedNodes, parts: &[&str]| {
        let said = nodes.refused(1);
        let line = said.lines().last().unwrap_or_default();
        for part in parts {
            assert!(line.contains(part), "{part} in {said}");
        }
    };
    // A newer format.
    let mut newer = whole.clone();
    newer[8..12].copy_from_slice(&7u32.to_le_bytes());
    let checksum = crc32c(0, &newer[..60]);
    newer[60..64].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(&segment, &newer).unwrap();
    let name = segment.display().to_string();
    refuses(&mut nodes, &[&name, "has format version 7", "start the program that wrote it"]);
    std::fs::write(&segment, &whole).unwrap();
    // The only file of a log.
    std::fs::remove_file(&segment).unwrap();
    refuses(&mut nodes, &[&shard.display().to_string(), "log-", "Put them back if they were moved"]);
    // One from the front.
    let later = segment.with_file_name("log-0000000000100000");
    let mut moved = whole.clone();
    moved[44..52].copy_from_slice(&0x10_0000u64.to_le_bytes());
    let checksum = crc32c(0, &moved[..60]);
    moved[60..64].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(&later, &moved[..SEGMENT_HEADER]).unwrap();
    refuses(&mut nodes, &[&shard.display().to_string(), "from 0 to 1048576", "Put it back"]);
    std::fs::remove_file(&later).unwrap();
    std::fs::write(&segment, &whole).unwrap();
    // The other small files.
    for name in ["data.journal", "control.journal", "shard-0/log.begin"] {
        let path = nodes.data(1).join(name);
        let bytes = std::fs::read(&path).unwrap();
        let mut newer = bytes.clone();
        newer[8..12].copy_from_slice(&9u32.to_le_bytes());
        let checksum = crc32c(0, &newer[..12]);
        newer[12..16].copy_from_slice(&checksum.to_le_bytes());
        std::fs::write(&path, &newer).unwrap();
        refuses(&mut nodes, &[&path.display().to_string(), "format version 9"]);
        std::fs::write(&path, &bytes).unwrap();
    }
    nodes.start_all();
    nodes.wait_whole();
    check_all(&journals, &ports);
}

#[test]
fn files_of_others_are_refused_and_left_alone() {
    let (mut nodes, journals) = stopped(2, &[]);
    let (others, _) = stopped(1, &[]);
    let ports = nodes.ports();
    let own = last(nodes.segments(1, 0));
    let refuses = |nodes: &mut ServedNodes, from: PathBuf| {
        let aside = own.with_extension("aside");
        std::fs::rename(&own, &aside).unwrap();
        std::fs::copy(from, &own).unwrap();
        let said = nodes.refused(1);
        std::fs::rename(&aside, &own).unwrap();
        let line = said.lines().last().unwrap_or_default();
        let told = format!("{} belongs to another cluster, another node or another shard", own.display());
        assert!(
            line.contains(&told) && line.contains("Start with the data directory of this node"),
            "{said}"
        );
    };
    let strange = [others.segments(1, 0), nodes.segments(1, 1), nodes.segments(2, 0)];
    strange.map(last).into_iter().for_each(|from| refuses(&mut nodes, from));
    // Whole directories that were swapped.
    let (one, two) = (nodes.data(1), nodes.data(2));
    let between = one.with_extension("between");
    let swap = || {
        std::fs::rename(&one, &between).unwrap();
        std::fs::rename(&two, &one).unwrap();
        std::fs::rename(&between, &two).unwrap();
    };
    swap();
    for id in nodes.ids() {
        let said = nodes.refused(id);
        assert!(said.contains(&nodes.data(id).display().to_string()), "{said}");
        assert!(said.contains("belongs to another cluster, another node or another shard"), "{said}");
    }
    swap();
    nodes.start_all();
    nodes.wait_whole();
    check_all(&journals, &ports);
}

#[test]
fn settings_that_do_not_fit_the_directory_are_refused() {
    let (mut nodes, journals) = stopped(1, &[]);
    let ports = nodes.ports();
    let data = nodes.data(1).display().to_string();
    nodes.set(&["--shards", "3"]);
    let said = nodes.refused(1);
    for part in [&data, "were written with 2 shards", "set `shards = 2`, or 0"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    nodes.set(&["--log", "off"]);
    let said = nodes.refused(1);
    for part in [&data, "`log = off` would forget them", "start with `log = on`"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    nodes.set(&["--shards", "0"]);
    nodes.start_all();
    nodes.wait_whole();
    check_all(&journals, &ports);
    // A second process on the directory of the first.
    let before = Contents::of(&nodes.data(1));
    let second = nodes.run_beside(1);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(REFUSED), "{said}");
    assert!(said.contains(&format!("another process uses the data directory {data}")), "{said}");
    assert_eq!(Contents::of(&nodes.data(1)), before);
    check_all(&journals, &ports);
}
