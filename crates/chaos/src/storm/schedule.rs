//! What is done to the cluster, and when: a seed determines it, down to every length and every choice, before anything runs.
//!
//! Each kind of fault comes once, in an order by chance, before any comes again, so that a long run has about as many of each. Who is hit
//! depends on who does what at that moment (the coordinator, who is alive), so of that the schedule has only a number to draw with.

use clap::ValueEnum;
use history::random::Random;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// What can be done to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// SIGKILL of a node, which is started again after a while.
    Kill,
    /// The same of the coordinator's node.
    KillCoordinator,
    /// The same of every node at once.
    KillAll,
    /// SIGSTOP, and SIGCONT after a while.
    Stop,
    /// A node hears nothing of the others, or is not heard by them.
    CutOneWay,
    /// Between a node and the others nothing passes.
    Cut,
    /// Between two nodes nothing passes, or only one way. Both reach all others.
    CutPair,
    /// A node reaches nobody, no client either.
    Isolate,
    /// What a node sends to others goes through a proxy that delays, holds back and breaks off.
    Proxy,
    /// Something else fills a node's disk.
    FullDisk,
    /// A node's syncs fail: it stops, as it should, and is started again.
    FailedSync,
    /// A node's wall clock jumps.
    Clock,
    /// A node joins, or comes again with an empty directory.
    Join,
    /// A node is drained.
    Drain,
    /// Each node is stopped in order and started again.
    RollingRestart,
    /// Two of the others, at once or soon after one another.
    Pair,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.to_possible_value().map(|value| value.get_name().to_owned());
        f.pad(&name.unwrap_or_default())
    }
}

impl Kind {
    /// Whether one process was hurt, and nothing else.
    pub(super) fn is_single_process(self) -> bool {
        matches!(self, Kind::Kill | Kind::KillCoordinator | Kind::Stop)
    }

    /// Whether it begins and ends without waiting for the cluster, so that another may come on top.
    fn combines(self) -> bool {
        !matches!(self, Kind::Join | Kind::Drain | Kind::RollingRestart | Kind::Pair)
    }
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub kind: Kind,
    /// When, after the step's beginning.
    pub after: Duration,
    /// How long.
    pub hold: Duration,
    /// What is chosen when it begins, such as the victim, is drawn from this.
    pub seed: u64,
}

/// A fault, or two of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub kind: Kind,
    /// Time without a fault before it.
    pub calm: Duration,
    pub parts: Vec<Part>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts.as_slice() {
            [first, second] => write!(f, "{} and {}", first.kind, second.kind),
            _ => self.kind.fmt(f),
        }
    }
}

/// The steps of a seed, without end.
pub(super) struct Schedule {
    random: Random,
    kinds: Vec<Kind>,
    /// Those that are still to come before all begin again.
    bag: Vec<Kind>,
    /// The longest that a fault lasts.
    hold_max: Duration,
}

impl Schedule {
    /// Of these kinds only, of which there is at least one.
    pub(super) fn new(seed: u64, kinds: &BTreeSet<Kind>, hold_max: Duration) -> Schedule {
        let kinds: Vec<Kind> = kinds.iter().copied().collect();
        Schedule { random: Random::new(seed), kinds, bag: Vec::new(), hold_max }
    }

    /// The next step.
    pub(super) fn draw(&mut self) -> Step {
        if self.bag.is_empty() {
            self.bag.clone_from(&self.kinds);
        }
        let at = self.random.below(self.bag.len() as u64) as usize;
        let kind = self.bag.swap_remove(at);
        let calm = Duration::from_millis(self.random.between(700, 1500));
        let parts = match kind {
            Kind::Pair => self.pair(),
            kind => vec![self.part(kind)],
        };
        Step { kind, calm, parts }
    }

    fn part(&mut self, kind: Kind) -> Part {
        let mut random = self.random.fork();
        let (least_ms, most_ms) = match kind {
            Kind::Kill | Kind::KillCoordinator | Kind::KillAll | Kind::FailedSync => (100, 4_000),
            Kind::Stop => (200, 20_000),
            Kind::CutOneWay | Kind::Cut | Kind::CutPair | Kind::Isolate => (300, 12_000),
            Kind::Proxy => (2_000, 10_000),
            Kind::FullDisk => (2_000, 10_000),
            Kind::Clock => (500, 5_000),
            Kind::Join | Kind::Drain | Kind::RollingRestart | Kind::Pair => (0, 0),
        };
        let most_ms = most_ms.min(self.hold_max.as_millis() as u64).max(least_ms);
        // Short ones are as frequent as long ones: what goes wrong often does so within a lease or two.
        let doublings = (most_ms as f64 / least_ms.max(1) as f64).log2();
        let scale = (doublings * random.below(1 << 20) as f64 / f64::from(1 << 20)).exp2();
        let hold = Duration::from_millis((least_ms as f64 * scale) as u64);
        Part { kind, after: Duration::ZERO, hold, seed: random.draw() }
    }

    fn pair(&mut self) -> Vec<Part> {
        let mut kinds: Vec<Kind> = self.kinds.iter().copied().filter(|kind| kind.combines()).collect();
        if kinds.is_empty() {
            kinds.push(Kind::Kill);
        }
        let mut parts: Vec<Part> = (0..2)
            .map(|_| {
                let kind = self.random.pick(&kinds);
                self.part(kind)
            })
            .collect();
        // While the first lasts, or while the cluster deals with it.
        let latest_ms = (parts[0].hold.as_millis() as u64).clamp(500, 3_000);
        parts[1].after = Duration::from_millis(self.random.below(latest_ms));
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> BTreeSet<Kind> {
        Kind::value_variants().iter().copied().collect()
    }

    fn steps(seed: u64, kinds: &BTreeSet<Kind>, count: usize) -> Vec<Step> {
        let mut schedule = Schedule::new(seed, kinds, Duration::from_secs(20));
        (0..count).map(|_| schedule.draw()).collect()
    }

    #[test]
    fn a_seed_determines_every_step() {
        assert_eq!(steps(7, &all(), 100), steps(7, &all(), 100));
        assert_ne!(steps(7, &all(), 100), steps(8, &all(), 100));
    }

    #[test]
    fn every_kind_comes_before_any_comes_again() {
        let count = all().len();
        for round in steps(3, &all(), 5 * count).chunks(count) {
            assert_eq!(round.iter().map(|step| step.kind).collect::<BTreeSet<_>>(), all());
        }
    }

    #[test]
    fn lengths_are_as_said_and_pairs_overlap() {
        let mut stops = Vec::new();
        for step in steps(5, &all(), 1500) {
            for part in &step.parts {
                assert!(part.hold <= Duration::from_secs(20), "{part:?}");
                if part.kind == Kind::Stop {
                    stops.push(part.hold.as_millis());
                }
            }
            assert_eq!(step.parts.len(), if step.kind == Kind::Pair { 2 } else { 1 });
            assert!(step.parts.iter().all(|part| part.after < Duration::from_secs(3)));
        }
        assert!(stops.iter().all(|ms| (200..=20_000).contains(ms)), "{stops:?}");
        assert!(stops.iter().any(|ms| *ms < 1000) && stops.iter().any(|ms| *ms > 10_000), "{stops:?}");
        let only = BTreeSet::from([Kind::Kill, Kind::Pair]);
        for step in steps(1, &only, 50) {
            assert!(step.parts.iter().all(|part| part.kind == Kind::Kill), "{step:?}");
        }
    }
}
