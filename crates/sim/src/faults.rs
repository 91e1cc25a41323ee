//! What goes wrong, and when: a schedule that the seed draws. Some seeds are quiet, some have one kind of fault, most
//! a mixture.

use crate::history::Time;
use crate::network::MS;
use crate::random::Random;

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
}

/// Every kind.
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
    pub fn draw(mut random: Random) -> Plan {
        let kinds = match random.below(16) {
            0 => Vec::new(),
            1..=5 => vec![random.pick(&KINDS)],
            6..=8 => {
                let mut kinds = vec![random.pick(&KINDS), random.pick(&KINDS)];
                kinds.sort();
                kinds.dedup();
                kinds
            }
            9 | 10 => vec![Kind::Pause, Kind::Crash, Kind::Isolate, Kind::OneWay],
            _ => KINDS.iter().copied().filter(|_| random.chance(600)).collect(),
        };
        let reckless = kinds.contains(&Kind::Crash) && random.chance(60);
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
