//! The journal of the control plane, stopped at every operation of its disk, and with each operation failing once: it comes back with
//! all that was synced, and a beginning of what came after.

use sim::disk::SimDisk;
use std::io::ErrorKind;
use std::path::Path;
use storage::{Disk, Journal, JournalError};

const PATH: &str = "data/journal";
const CRASHES: u64 = 6;

#[derive(Clone, Copy, Debug)]
enum Step {
    Append(usize),
    Sync,
    /// The later half of the frames replaces all.
    Rewrite,
}

use Step::{Append, Rewrite, Sync};

/// Each with room in reserve, which may be too little, and without.
const SCRIPTS: [&[Step]; 4] = [
    &[Append(20), Sync, Append(0), Append(37), Sync, Append(5)],
    &[Append(10), Append(10), Rewrite, Append(3), Sync, Append(40), Rewrite, Append(1), Sync],
    &[Append(120), Sync, Append(90), Rewrite, Append(80), Append(70), Sync, Rewrite, Rewrite, Append(9)],
    &[Rewrite, Append(16), Append(16), Append(16), Append(16), Rewrite, Sync, Append(16), Sync],
];
const ROOMS: [u64; 3] = [0, 100, 400];

/// What has to be there, and what may be.
#[derive(Default)]
struct Model {
    synced: Vec<Vec<u8>>,
    /// Those, and what was written after.
    written: Vec<Vec<u8>>,
    /// What is about to replace all.
    replacing: Option<Vec<Vec<u8>>>,
    count: u8,
}

impl Model {
    fn step(&mut self, journal: &mut Journal<SimDisk>, step: Step) -> Result<(), JournalError> {
        match step {
            Append(bytes) => {
                self.count += 1;
                let frame = vec![self.count; bytes];
                self.written.push(frame.clone());
                journal.append(&frame)
            }
            Sync => {
                journal.sync()?;
                self.synced = self.written.clone();
                Ok(())
            }
            Rewrite => {
                let kept = self.written[self.written.len() / 2..].to_vec();
                self.replacing = Some(kept.clone());
                journal.rewrite(&kept)?;
                (self.synced, self.written, self.replacing) = (kept.clone(), kept, None);
                Ok(())
            }
        }
    }

    fn run(&mut self, journal: &mut Journal<SimDisk>, steps: &[Step]) -> Result<(), JournalError> {
        steps.iter().try_for_each(|step| self.step(journal, *step))
    }

    /// Opens it, and looks at what it has. Nothing else may come back later.
    fn open(&mut self, disk: &SimDisk, room: u64) -> Result<Journal<SimDisk>, JournalError> {
        disk.create_dir_all(Path::new("data")).map_err(|source| JournalError::Io {
            action: "cannot make",
            path: PATH.into(),
            source,
        })?;
        let (journal, frames) = Journal::open_with_room(disk.clone(), Path::new(PATH), room)?;
        let is_old = frames.starts_with(&self.synced) && self.written.starts_with(&frames);
        assert!(
            is_old || self.replacing.as_ref() == Some(&frames),
            "{frames:?} is neither {:?} and some of {:?}, nor {:?}",
            self.synced,
            self.written,
            self.replacing
        );
        (self.synced, self.written, self.replacing) = (frames.clone(), frames, None);
        Ok(journal)
    }

    fn open_well(&mut self, disk: &SimDisk, room: u64) -> Journal<SimDisk> {
        self.open(disk, room).unwrap_or_else(|error| panic!("the disk is whole: {error}"))
    }
}

fn crash(disk: &SimDisk, seed: u64) {
    if seed.is_multiple_of(2) {
        disk.crash(seed)
    } else {
        disk.crash_scattered(seed)
    };
}

/// With a crash while what the last one left is mended, at each operation of that; and what is written then is kept.
fn go_on(disk: &SimDisk, mut model: Model, room: u64, seed: u64) {
    disk.power_off_after(disk.operations() + seed % 8);
    let _ = model.open(disk, room);
    crash(disk, seed + 1);
    for round in 0..2 {
        let mut journal = model.open_well(disk, room);
        model.run(&mut journal, &[Append(30), Sync, Append(11)]).unwrap();
        crash(disk, seed + 2 + round);
    }
    model.open_well(disk, room);
}

fn everywhere(mut try_at: impl FnMut(&[Step], u64, u64)) {
    for steps in SCRIPTS {
        for room in ROOMS {
            let disk = SimDisk::new();
            let mut model = Model::default();
            let mut journal = model.open_well(&disk, room);
            model.run(&mut journal, steps).unwrap();
            for at in 0..=disk.operations() {
                try_at(steps, room, at);
            }
        }
    }
}

#[test]
fn a_crash_at_any_operation_loses_nothing_that_was_synced() {
    let mut tried = 0;
    everywhere(|steps, room, last| {
        for seed in 0..CRASHES {
            let disk = SimDisk::new();
            let mut model = Model::default();
            disk.power_off_after(last);
            let _ = model.open(&disk, room).and_then(|mut journal| model.run(&mut journal, steps));
            crash(&disk, seed);
            go_on(&disk, model, room, seed << 32 | last);
            tried += 1;
        }
    });
    assert!(tried > 500, "{tried}");
}

#[test]
fn an_operation_that_fails_loses_nothing_that_was_synced() {
    let mut failed = 0;
    everywhere(|steps, room, at| {
        for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
            for seed in 0..CRASHES {
                let disk = SimDisk::new();
                let mut model = Model::default();
                disk.fail_operation(at + 1, kind);
                let done = model.open(&disk, room).and_then(|mut journal| {
                    steps.iter().try_for_each(|step| {
                        let done = model.step(&mut journal, *step);
                        // Nobody knows what is on the disk: it must not say later that all is well.
                        if done.is_err() && matches!(step, Sync) {
                            assert!(journal.append(b"more").is_err() && journal.sync().is_err());
                        }
                        done
                    })
                });
                failed += usize::from(done.is_err());
                if seed < CRASHES / 2 {
                    disk.end_process();
                } else {
                    crash(&disk, seed);
                }
                go_on(&disk, model, room, seed << 32 | at);
            }
        }
    });
    assert!(failed > 500, "{failed}");
}
