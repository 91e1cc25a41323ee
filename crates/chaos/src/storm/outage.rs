//! How long partitions stood still, by kind of fault. A fault's outage is that of the partition that stood still for longest: from the last
//! success before to the first after.

use super::schedule::Kind;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// What there is to say of many times, in milliseconds. A percentile is the least of the times that so many are not above (nearest rank).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Spread {
    pub median_ms: u64,
    pub p99_ms: u64,
    pub longest_ms: u64,
}

impl Spread {
    pub(super) fn of(times: &[Duration]) -> Spread {
        let mut sorted: Vec<u64> = times.iter().map(|time| time.as_millis() as u64).collect();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(rank - 1).copied().unwrap_or(0)
        };
        Spread { median_ms: at(50), p99_ms: at(99), longest_ms: at(100) }
    }
}

/// What was measured of one step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub kind: Kind,
    /// The longest outage of any partition before the fault: what the machine itself does.
    pub calm: Duration,
    /// The same from its beginning on.
    pub outage: Duration,
    /// From the moment when it was taken back until the cluster was whole.
    pub whole: Duration,
}

/// A line of the table.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    pub name: String,
    pub count: usize,
    pub outage: Spread,
    pub whole: Spread,
}

/// A line a kind, then one of what a single process suffered, and one of the times before faults.
pub(super) fn lines(measured: &[Measured]) -> Vec<Line> {
    let mut kinds: BTreeMap<Kind, Vec<Measured>> = BTreeMap::new();
    for one in measured {
        kinds.entry(one.kind).or_default().push(*one);
    }
    let mut lines: Vec<Line> = kinds.iter().map(|(kind, of)| line(kind.to_string(), of)).collect();
    let single: Vec<Measured> = measured.iter().copied().filter(|one| one.kind.is_single_process()).collect();
    lines.push(line(SINGLE.to_owned(), &single));
    let calm: Vec<Duration> = measured.iter().map(|one| one.calm).collect();
    lines.push(Line {
        name: CALM.to_owned(),
        count: calm.len(),
        outage: Spread::of(&calm),
        whole: Spread::default(),
    });
    lines
}

/// The line over what is a single process's fault.
pub(super) const SINGLE: &str = "all of a single process";
/// The line of the times before faults.
pub(super) const CALM: &str = "before faults";

fn line(name: String, of: &[Measured]) -> Line {
    let all = |of_one: fn(&Measured) -> Duration| Spread::of(&of.iter().map(of_one).collect::<Vec<_>>());
    Line { name, count: of.len(), outage: all(|one| one.outage), whole: all(|one| one.whole) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let times: Vec<Duration> = (1..=200).rev().map(ms).collect();
        assert_eq!(Spread::of(&times), Spread { median_ms: 100, p99_ms: 198, longest_ms: 200 });
        assert_eq!(Spread::of(&[ms(7)]), Spread { median_ms: 7, p99_ms: 7, longest_ms: 7 });
        assert_eq!(Spread::of(&[]), Spread::default());
    }

    #[test]
    fn only_what_one_process_suffered_counts_as_a_single_process() {
        let one = |kind, outage| Measured { kind, calm: ms(20), outage: ms(outage), whole: ms(1) };
        let measured = [
            one(Kind::Kill, 400),
            one(Kind::KillCoordinator, 600),
            one(Kind::Stop, 500),
            one(Kind::KillAll, 9000),
            one(Kind::Pair, 8000),
            one(Kind::Kill, 300),
        ];
        let lines = lines(&measured);
        let names: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
        assert_eq!(names, ["kill", "kill-coordinator", "kill-all", "stop", "pair", SINGLE, CALM]);
        assert_eq!((lines[0].count, lines[0].outage.longest_ms), (2, 400));
        assert_eq!((lines[5].count, lines[5].outage.longest_ms), (4, 600));
        assert_eq!((lines[6].count, lines[6].outage.median_ms), (6, 20));
    }
}
