//! What a simulated disk keeps and loses.

use super::*;
use storage::{Journal, JournalError, journal};

const PATH: &str = "data/journal";

fn open(disk: &SimDisk) -> Result<(Journal<SimDisk>, Vec<Vec<u8>>), JournalError> {
    open_with_room(disk, 0)
}

fn open_with_room(disk: &SimDisk, room_bytes: u64) -> Result<(Journal<SimDisk>, Vec<Vec<u8>>), JournalError> {
    disk.create_dir_all(Path::new("data")).unwrap();
    Journal::open_with_room(disk.clone(), Path::new(PATH), room_bytes)
}

/// Whatever the disk loses in a crash, the journal comes back with all that was synced and a prefix of the
/// rest.
#[test]
fn a_journal_loses_nothing_that_was_synced() {
    let (mut torn, mut lost) = (0, 0);
    for seed in 0..2000 {
        let disk = SimDisk::new();
        let mut random = Random::new(seed);
        // With and without room in reserve, which may be too little for a rewrite.
        let room_bytes = random.below(3) * 100;
        let (mut journal, _) = open_with_room(&disk, room_bytes).unwrap();
        let (mut synced, mut written): (Vec<Vec<u8>>, Vec<Vec<u8>>) = (Vec::new(), Vec::new());
        for step in 0..random.below(40) {
            match random.below(8) {
                0..5 => {
                    let frame = vec![step as u8; random.below(40) as usize];
                    journal.append(&frame).unwrap();
                    written.push(frame);
                }
                5 | 6 => {
                    journal.sync().unwrap();
                    synced = written.clone();
                }
                _ => {
                    written.drain(..written.len() / 2);
                    journal.rewrite(&written).unwrap();
                    synced = written.clone();
                }
            }
            if random.below(10) == 0 {
                let crash = if seed % 4 == 3 { SimDisk::crash_scattered } else { SimDisk::crash };
                crash(&disk, random.draw());
                let (reopened, frames) = open_with_room(&disk, room_bytes).unwrap();
                assert!(frames.starts_with(&synced), "seed {seed}");
                assert!(written.starts_with(&frames), "seed {seed}");
                torn += usize::from(frames.len() > synced.len() && frames.len() < written.len());
                lost += usize::from(frames.len() < written.len());
                (journal, synced, written) = (reopened, frames.clone(), frames);
            }
        }
    }
    assert!(torn > 50 && lost > 200, "the disk has to lose something: {torn}, {lost}");
}

/// A crash in the middle of a rewrite leaves the old frames or the new ones.
#[test]
fn a_rewrite_is_one_step() {
    for seed in 0..200 {
        for room in [60, 80, 200] {
            let disk = SimDisk::new();
            let (mut journal, _) = open(&disk).unwrap();
            journal.append(b"old").unwrap();
            journal.sync().unwrap();
            disk.set_room(Some(room));
            let rewritten = journal.rewrite(&[b"new", b"two"]).is_ok();
            disk.set_room(None);
            disk.crash(seed);
            let (_, frames) = open(&disk).unwrap();
            let expected: Vec<Vec<u8>> =
                if rewritten { vec![b"new".into(), b"two".into()] } else { vec![b"old".into()] };
            assert_eq!(frames, expected);
            assert_eq!(rewritten, room == 200);
        }
    }
}

#[test]
fn a_failed_sync_is_final() {
    let disk = SimDisk::new();
    let (mut journal, _) = open(&disk).unwrap();
    journal.append(b"one").unwrap();
    disk.fail_sync(true);
    assert!(matches!(journal.sync(), Err(JournalError::Io { .. })));
    disk.fail_sync(false);
    assert!(matches!(journal.sync(), Err(JournalError::Failed { .. })));
    assert!(matches!(journal.append(b"two"), Err(JournalError::Failed { .. })));
    assert!(matches!(journal.rewrite(&[b"three"]), Err(JournalError::Failed { .. })));
    disk.crash(1);
    assert!(open(&disk).unwrap().1.is_empty(), "and what it should have kept is lost");
}

/// The process ends after a failed sync, and the kernel still shows what it could not write. What the next process
/// reads has to be on the disk.
#[test]
fn what_a_failed_sync_left_is_written_again() {
    for rewritten in [false, true] {
        let disk = SimDisk::new();
        let (mut journal, _) = open(&disk).unwrap();
        journal.append(b"one").unwrap();
        journal.sync().unwrap();
        if rewritten {
            journal.rewrite(&[b"one"]).unwrap();
        }
        journal.append(b"two").unwrap();
        disk.fail_sync(true);
        journal.sync().unwrap_err();
        disk.fail_sync(false);
        disk.end_process();
        let (mut journal, frames) = open(&disk).unwrap();
        assert_eq!(frames, [b"one".to_vec(), b"two".to_vec()]);
        journal.append(b"three").unwrap();
        disk.crash(0);
        let (_, frames) = open(&disk).unwrap();
        assert!(frames.starts_with(&[b"one".to_vec(), b"two".to_vec()]), "{frames:?}");
    }
}

/// The journal is looked at, and stays as it is: a torn tail is told of and not cut off.
#[test]
fn looking_changes_nothing() {
    let (disk, path) = (SimDisk::new(), Path::new(PATH));
    disk.create_dir_all(Path::new("data")).unwrap();
    assert_eq!(journal::look(&disk, path).unwrap(), None);
    let (mut journal, _) = open(&disk).unwrap();
    journal.append(b"one").unwrap();
    journal.sync().unwrap();
    let end = journal.bytes();
    let file = disk.open(path).unwrap();
    disk.write_at(&file, end, b"torn").unwrap();
    let before = disk.content(path);
    let looked = journal::look(&disk, path).unwrap().unwrap();
    assert_eq!(looked, journal::Looked { frames: vec![b"one".to_vec()], end, torn_bytes: 4 });
    assert_eq!(disk.content(path), before);
    disk.sync(&file).unwrap();
    assert!(disk.damage(path, 3, 1));
    assert!(matches!(journal::look(&disk, path), Err(JournalError::Rot { offset: 0, .. })));
}

#[test]
fn a_full_disk_takes_nothing_back() {
    let disk = SimDisk::new();
    let (mut journal, _) = open(&disk).unwrap();
    journal.append(b"one").unwrap();
    disk.set_room(Some(journal.bytes() + 5));
    assert!(matches!(journal.append(b"two"), Err(JournalError::Io { .. })));
    disk.set_room(None);
    journal.append(b"three").unwrap();
    journal.sync().unwrap();
    disk.crash(1);
    assert_eq!(open(&disk).unwrap().1, [b"one".to_vec(), b"three".to_vec()]);
}

/// Whoever fills the disk: a journal that holds room goes on, as long as it is written anew now and then.
#[test]
fn a_journal_that_holds_room_goes_on_on_a_full_disk() {
    let disk = SimDisk::new();
    let (mut journal, _) = open_with_room(&disk, 4096).unwrap();
    assert!(journal.holds_room());
    disk.set_room(Some(disk.used_bytes()));
    let mut frames = Vec::new();
    for round in 0..50u8 {
        for number in 0..19 {
            let frame = vec![round ^ number; 84];
            journal.append(&frame).unwrap();
            frames.push(frame);
        }
        journal.sync().unwrap();
        frames.drain(..frames.len() - 10);
        journal.rewrite(&frames).unwrap();
        assert!(journal.holds_room(), "what the old file took is free");
    }
    // The next process takes the room over.
    disk.end_process();
    let (mut journal, read) = open_with_room(&disk, 4096).unwrap();
    assert_eq!(read, frames);
    assert!(journal.holds_room());
    // Without a rewrite it comes to its end, and says so first.
    let mut told_at = 0;
    while let Ok(()) = journal.append(&[1; 84]) {
        told_at = if journal.holds_room() { journal.bytes() } else { told_at };
    }
    assert!(told_at > 0 && told_at + 2000 <= journal.bytes(), "{told_at} of {}", journal.bytes());
    assert!(!journal.hold_room());
    disk.set_room(None);
    assert!(journal.hold_room());
    journal.sync().unwrap();
    // One that holds none ends at once.
    let (mut other, _) = Journal::open(disk.clone(), Path::new("data/other")).unwrap();
    disk.set_room(Some(disk.used_bytes()));
    assert!(other.append(b"x").is_err_and(|error| error.is_full()));
    assert!(other.rewrite(&[b"x"]).is_err_and(|error| error.is_full()));
}

/// A rewrite that others have left no room for changes nothing, and what it would have written goes behind.
#[test]
fn a_rewrite_without_room_changes_nothing() {
    let disk = SimDisk::new();
    let (mut journal, _) = open_with_room(&disk, 400).unwrap();
    journal.append(b"old").unwrap();
    disk.set_room(Some(disk.used_bytes()));
    let error = journal.rewrite(&[[7; 500]]).unwrap_err();
    assert!(error.is_full() && !journal.holds_room());
    journal.append(b"new").unwrap();
    journal.sync().unwrap();
    disk.set_room(None);
    assert!(journal.hold_room());
    disk.crash(3);
    assert_eq!(open(&disk).unwrap().1, [b"old".to_vec(), b"new".to_vec()]);
}

/// Every damaged byte is noticed. Rot that a later frame vouches against is told from a torn tail.
#[test]
fn rot_is_told_from_a_torn_tail() {
    let disk = SimDisk::new();
    let (mut journal, _) = open(&disk).unwrap();
    let mut ends = Vec::new();
    for frame in [b"one".as_slice(), b"", b"three", b"four"] {
        journal.append(frame).unwrap();
        journal.sync().unwrap();
        ends.push(journal.bytes());
    }
    let path = Path::new(PATH);
    let last_frame = ends[2];
    for offset in 0..journal.bytes() {
        for mask in [1, 0x80, 0xff] {
            let copy = SimDisk::new();
            copy.create_dir_all(Path::new("data")).unwrap();
            let file = copy.open(path).unwrap();
            copy.write_at(&file, 0, &disk.content(path).unwrap()).unwrap();
            copy.sync(&file).unwrap();
            assert!(copy.damage(path, offset, mask));
            let start = ends.iter().rev().copied().find(|&end| end <= offset).unwrap_or(16);
            match open(&copy) {
                Err(JournalError::Rot { offset: found, .. }) => {
                    assert!(offset < last_frame);
                    assert_eq!(found, if offset < 16 { 0 } else { start });
                }
                Ok((_, frames)) => {
                    assert!(offset >= last_frame, "damage at {offset} was not noticed");
                    assert_eq!(frames.len(), 3);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_name_is_lost_until_its_directory_is_synced() {
    let mut kept = 0;
    for seed in 0..100 {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new("d")).unwrap();
        let file = disk.open(Path::new("d/f")).unwrap();
        disk.write_at(&file, 0, b"x").unwrap();
        disk.sync(&file).unwrap();
        disk.crash(seed);
        kept += disk.list(Path::new("d")).unwrap().len();
        assert!(disk.len(&file).is_err(), "an old handle is of no use");
    }
    assert!((20..80).contains(&kept), "{kept}");
}

/// Two writes of which a crash keeps the later one alone, and parts of one.
#[test]
fn a_scattered_crash_keeps_any_part() {
    let path = Path::new("d/f");
    let mut contents = BTreeSet::new();
    for seed in 0..500 {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new("d")).unwrap();
        let file = disk.open(path).unwrap();
        disk.sync_dir(Path::new("d")).unwrap();
        disk.write_at(&file, 0, b"aa").unwrap();
        disk.write_at(&file, 2, b"bb").unwrap();
        disk.crash_scattered(seed);
        contents.insert(disk.content(path).unwrap());
    }
    for kept in [b"".as_slice(), b"aa", b"aabb", b"\0\0bb", b"a\0bb", b"\0a\0\0", b"\0\0\0\0"] {
        assert!(contents.contains(kept), "{kept:?}");
    }
}

#[test]
fn the_power_goes_off_and_operations_fail_where_they_are_told_to() {
    let (directory, path) = (Path::new("d"), Path::new("d/f"));
    let write = |disk: &SimDisk| {
        disk.create_dir_all(directory)?;
        let file = disk.open(path)?;
        disk.write_at(&file, 0, b"x")?;
        disk.sync(&file)?;
        disk.sync_dir(directory)
    };
    let whole = SimDisk::new();
    write(&whole).unwrap();
    assert_eq!(whole.operations(), 5);
    for number in 0..5 {
        let disk = SimDisk::new();
        disk.power_off_after(number);
        write(&disk).unwrap_err();
        assert!(disk.list(directory).is_err(), "until a crash");
        disk.crash(0);
        write(&disk).unwrap();
        let disk = SimDisk::new();
        disk.fail_operation(number + 1, ErrorKind::StorageFull);
        assert_eq!(write(&disk).unwrap_err().kind(), ErrorKind::StorageFull);
        write(&disk).unwrap();
    }
}

/// As on Linux: a sync after a failed one says that all is well, and what a reader sees is not on the disk.
#[test]
fn what_a_failed_sync_has_lost_is_seen_until_the_crash() {
    let (disk, path) = (SimDisk::new(), Path::new("f"));
    let file = disk.open(path).unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    disk.write_at(&file, 0, b"ab").unwrap();
    disk.fail_sync(true);
    disk.sync(&file).unwrap_err();
    disk.fail_sync(false);
    disk.end_process();
    assert!(disk.len(&file).is_err(), "an old handle is of no use");
    let file = disk.open(path).unwrap();
    disk.write_at(&file, 1, b"b").unwrap();
    disk.sync(&file).unwrap();
    assert_eq!(disk.content(path).unwrap(), b"ab");
    disk.crash(1);
    assert_eq!(disk.content(path).unwrap(), b"\0b");
}

#[test]
fn reserved_room_is_taken_and_given_back() {
    let disk = SimDisk::new();
    disk.set_room(Some(10));
    let (one, two) = (disk.open(Path::new("1")).unwrap(), disk.open(Path::new("2")).unwrap());
    disk.allocate(&one, 8).unwrap();
    assert_eq!(disk.len(&one).unwrap(), 0);
    let full = |result: io::Result<()>| result.unwrap_err().kind() == ErrorKind::StorageFull;
    assert!(full(disk.allocate(&two, 3)));
    assert!(full(disk.write_at(&two, 0, b"abc")));
    disk.truncate(&two, 0).unwrap();
    disk.write_at(&one, 0, b"12345678").unwrap();
    assert!(full(disk.write_at(&one, 8, b"9ab")));
    disk.truncate(&one, 0).unwrap();
    disk.allocate(&two, 10).unwrap();
}

#[test]
fn a_directory_takes_what_is_in_it_along() {
    let (disk, old, new) = (SimDisk::new(), Path::new("data/a"), Path::new("data/b"));
    disk.create_dir_all(old).unwrap();
    let file = disk.open(&old.join("synced")).unwrap();
    disk.write_at(&file, 0, b"bytes").unwrap();
    disk.sync(&file).unwrap();
    disk.sync_dir(old).unwrap();
    disk.open(&old.join("not synced")).unwrap();
    disk.rename(old, new).unwrap();
    assert_eq!(disk.list(old).unwrap(), [""; 0]);
    assert_eq!(disk.list(new).unwrap(), ["not synced", "synced"]);
    disk.sync_dir(Path::new("data")).unwrap();
    disk.crash(3);
    assert_eq!(disk.list(old).unwrap(), [""; 0]);
    assert_eq!(disk.content(&new.join("synced")).unwrap(), b"bytes");
}

#[test]
fn reads_fail_where_they_are_told_to() {
    let disk = SimDisk::new();
    let file = disk.open(Path::new("file")).unwrap();
    disk.write_at(&file, 0, b"bytes").unwrap();
    let mut buffer = [0; 5];
    disk.fail_read(true);
    assert!(disk.read(&file, 0, &mut buffer).is_err());
    disk.fail_read(false);
    disk.read(&file, 0, &mut buffer).unwrap();
    assert_eq!(&buffer, b"bytes");
}
