//! What goes wrong, and when: a schedule that the seed draws. Some seeds are quiet, some have one kind of fault, most
//! a mixture.

use crate::network::MS;
use history::Time;
use history::random::Random;
use types::settings::{Fsync, LogMode};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Messages on some links are late, some very.
    Late,
    /// Some messages on some links are lost.
    Loss,
    /// Some messages on some links come twice.
    Twice,
    /// One direction between two nodes is cut.
    OneWay,
    /// A node is cut off from the others.
    Isolate,
    /// A node stands still; its clock goes on.
    Pause,
    /// A node's process dies and is started again.
    Crash,
    /// A connection between two nodes breaks.
    Reset,
    /// A wall clock jumps.
    Jump,
    /// All nodes die at once, and are started again.
    Blackout,
    /// A disk takes its time to write and to sync.
    SlowDisk,
    /// A disk fails to sync.
    FailedSync,
    /// A disk has no room left.
    FullDisk,
}

/// Every kind that is a fault also where nothing is on disk.
pub const KINDS: [Kind; 9] = [
    Kind::Late,
    Kind::Loss,
    Kind::Twice,
    Kind::OneWay,
    Kind::Isolate,
    Kind::Pause,
    Kind::Crash,
    Kind::Reset,
    Kind::Jump,
];

/// Those that are more with a log on disk.
pub const LOG_KINDS: [Kind; 4] = [Kind::Blackout, Kind::SlowDisk, Kind::FailedSync, Kind::FullDisk];

/// What becomes of a process that dies, and of what it had written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// Its machine loses power: of what was not synced any part is lost.
    Power,
    /// The process is killed, and what it had handed to the system is there.
    Killed,
    /// The process is told to stop, and writes what it has.
    Stopped,
}

/// What there is on disk, and what may be lost of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// Whether there is a log on disk.
    pub log: LogMode,
    /// When it is synced.
    pub fsync: Fsync,
    /// Whether all machines may lose power at once though the ends of their logs are not synced.
    pub lossy: bool,
    /// How much of the log a start may have to read before partitions get snapshots, in bytes.
    pub log_bytes: u64,
}

impl Keeping {
    /// Nothing on disk.
    pub const OFF: Keeping = Keeping { log: LogMode::Off, fsync: Fsync::Always, lossy: false, log_bytes: 0 };

    /// A mode drawn from a seed: most have a log that is always synced, many none, some one that is synced later.
    pub fn draw(random: &mut Random) -> Keeping {
        let mut keeping = Keeping { log: LogMode::On, ..Keeping::OFF };
        match random.below(20) {
            0..=7 => keeping.log = LogMode::Off,
            8..=15 => {}
            16 | 17 => keeping.fsync = Fsync::Everysec,
            _ => keeping.fsync = Fsync::Never,
        }
        keeping.log_bytes = random.pick(&[4, 64, 1024]) << 10;
        keeping.lossy = keeping.log == LogMode::On && keeping.fsync != Fsync::Always && random.chance(500);
        keeping
    }

    /// Whether there is a log on disk.
    pub fn logs(self) -> bool {
        self.log == LogMode::On
    }

    /// Whether what counts as durable may be lost with a machine's power.
    pub fn is_late(self) -> bool {
        self.logs() && self.fsync != Fsync::Always
    }
}

/// When the first fault may come: the cluster has formed.
const FIRST: Time = 1500 * MS;

/// What a seed's run has in store.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The kinds that occur. None: a quiet run.
    pub kinds: Vec<Kind>,
    /// Whether processes are killed though they hold the last copy of something.
    pub reckless: bool,
    /// The mean time between two faults.
    gap: Time,
    random: Random,
}

impl Plan {
    /// A plan drawn from a seed.
    pub fn draw(mut random: Random, keeping: Keeping) -> Plan {
        let mut all = KINDS.to_vec();
        if keeping.logs() {
            all.extend(LOG_KINDS);
        }
        let mut kinds = match random.below(16) {
            0 => Vec::new(),
            1..=5 => vec![random.pick(&all)],
            6..=8 => vec![random.pick(&all), random.pick(&all)],
            9 | 10 => vec![Kind::Pause, Kind::Crash, Kind::Isolate, Kind::OneWay],
            11 if keeping.logs() => vec![Kind::Crash, Kind::Blackout, Kind::SlowDisk],
            _ => all.iter().copied().filter(|_| random.chance(600)).collect(),
        };
        if keeping.lossy {
            kinds.push(Kind::Blackout);
        }
        kinds.sort();
        kinds.dedup();
        // With a log on disk no kill is.
        let reckless = !keeping.logs() && kinds.contains(&Kind::Crash) && random.chance(60);
        let gap = random.pick(&[300, 700, 1500, 3000]) * MS;
        Plan { kinds, reckless, gap, random }
    }

    /// When the next fault comes, after one at `now` (0: the first).
    pub fn next_at(&mut self, now: Time) -> Option<Time> {
        let from = now.max(FIRST);
        (!self.kinds.is_empty()).then(|| from + self.random.between(self.gap / 10, self.gap * 2))
    }

    /// The next fault.
    pub fn next_kind(&mut self) -> Kind {
        self.random.pick(&self.kinds)
    }

    /// How long it lasts: short ones are as common as long ones, on every scale from 10 ms on.
    pub fn lasting(&mut self, most: Time) -> Time {
        let doublings = (most / (10 * MS)).ilog2() as u64;
        let base = (10 * MS) << self.random.below(doublings + 1);
        self.random.between(base, base * 2).min(most)
    }

    /// Where and how.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }
}
