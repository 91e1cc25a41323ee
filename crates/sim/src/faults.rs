//! What goes wrong, and when: a schedule that the seed draws. Some seeds are quiet, some have one kind of fault, most
//! a mixture.

use crate::network::MS;
use crate::occasions::Occasions;
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
    /// Some messages on some links are overtaken by later ones, also where links keep their order otherwise.
    Reorder,
    /// Some links take one message after the other, and a while for each.
    SlowLink,
    /// One direction between two nodes is cut.
    OneWay,
    /// A node is cut off from the others.
    Isolate,
    /// Some pairs of nodes are cut off from each other: one, any, or those on two sides.
    Partial,
    /// A node stands still; its clock goes on.
    Pause,
    /// The same, for up to a minute.
    LongPause,
    /// A node takes its time for everything that it does.
    SlowNode,
    /// A node's process dies and is started again.
    Crash,
    /// A connection between two nodes breaks.
    Reset,
    /// A wall clock jumps.
    Jump,
    /// A wall clock leaps by minutes.
    Leap,
    /// A wall clock runs fast or slow for a while, by a lot; and the other clock changes its pace, as much as it may.
    Drift,
    /// A wall clock stands still for a while.
    ClockStops,
    /// All nodes die at once, and are started again.
    Blackout,
    /// A disk takes its time to write and to sync.
    SlowDisk,
    /// A disk fails to sync.
    FailedSync,
    /// A disk fails to write, after half of the bytes.
    FailedWrite,
    /// A disk fails to read: also what a process would start on.
    FailedRead,
    /// A disk has no room left.
    FullDisk,
    /// A node's process dies, and of what its disk had synced some bits are others when it starts again.
    Rot,
}

/// Every kind that is a fault also where nothing is on disk. A long pause comes by itself ([`Plan::draw`]).
pub const KINDS: [Kind; 16] = [
    Kind::Late,
    Kind::Loss,
    Kind::Twice,
    Kind::Reorder,
    Kind::SlowLink,
    Kind::OneWay,
    Kind::Isolate,
    Kind::Partial,
    Kind::Pause,
    Kind::SlowNode,
    Kind::Crash,
    Kind::Reset,
    Kind::Jump,
    Kind::Leap,
    Kind::Drift,
    Kind::ClockStops,
];

/// Those that are more with a log on disk.
pub const LOG_KINDS: [Kind; 6] =
    [Kind::Blackout, Kind::SlowDisk, Kind::FailedSync, Kind::FailedWrite, Kind::FailedRead, Kind::FullDisk];

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
/// When the faults end.
const END: Time = 30_000 * MS;
/// When they end in a run that has long pauses.
const LONG_END: Time = 90_000 * MS;

/// What a seed's run has in store.
pub(crate) struct Plan {
    /// The kinds that occur. None: a quiet run.
    pub kinds: Vec<Kind>,
    /// Whether processes are killed though they hold the last copy of something.
    pub reckless: bool,
    /// When all is healed.
    pub end: Time,
    pub occasions: Occasions,
}

impl Plan {
    /// A plan drawn from a seed.
    pub fn draw(mut random: Random, keeping: Keeping) -> Plan {
        let mut all = KINDS.to_vec();
        if keeping.logs() {
            all.extend(LOG_KINDS);
        }
        if keeping.logs() && !keeping.lossy {
            all.push(Kind::Rot);
        }
        let mut kinds = match random.below(16) {
            0 => Vec::new(),
            1..=5 => vec![random.pick(&all)],
            6..=8 => vec![random.pick(&all), random.pick(&all)],
            9 | 10 => vec![Kind::Pause, Kind::Crash, Kind::Isolate, Kind::OneWay],
            11 if all.contains(&Kind::Rot) => vec![Kind::Crash, Kind::Rot, Kind::Blackout, Kind::SlowDisk],
            11 if keeping.logs() => vec![Kind::Crash, Kind::Blackout, Kind::SlowDisk],
            _ => all.iter().copied().filter(|_| random.chance(500)).collect(),
        };
        if keeping.lossy {
            kinds.push(Kind::Blackout);
        }
        // Rare, since such runs are long.
        let is_long = !kinds.is_empty() && random.chance(20);
        if is_long {
            kinds.push(Kind::LongPause);
        }
        kinds.sort();
        kinds.dedup();
        // With a log on disk no kill is.
        let reckless = !keeping.logs() && kinds.contains(&Kind::Crash) && random.chance(60);
        let gap = random.pick(&[300, 700, 1500, 3000]) * MS;
        let gap = (!kinds.is_empty()).then_some((gap / 10, gap * 2));
        let occasions = Occasions::new(random.draw(), gap, FIRST);
        Plan { kinds, reckless, end: if is_long { LONG_END } else { END }, occasions }
    }
}

/// How long a fault lasts: short ones are as common as long ones, on every scale from 10 ms on.
pub(crate) fn lasting(random: &mut Random, most: Time) -> Time {
    let doublings = (most / (10 * MS)).ilog2() as u64;
    let base = (10 * MS) << random.below(doublings + 1);
    random.between(base, base * 2).min(most)
}
