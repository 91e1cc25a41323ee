//! What of a seed's run is left: whatever happens to the cluster has a number, and any of it can be left out, so that a failing
//! seed can be made small ([`crate::shrink`]) and run again as it is then, from one line.

use crate::network::MS;
use history::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Formatter};
use std::str::FromStr;

/// What can be left out of a run, one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Faults ([`crate::faults`]).
    Faults,
    /// Joins, and orders of operators.
    Shapes,
    /// Hand-overs that nobody needs.
    HandOvers,
    /// Nodes that are upgraded.
    Upgrades,
    /// Transfers that break off.
    Breaks,
    /// Clients.
    Clients,
}

/// All of them.
pub const PARTS: [Part; 6] =
    [Part::Faults, Part::Shapes, Part::HandOvers, Part::Upgrades, Part::Breaks, Part::Clients];

impl Part {
    /// The flag that says which of them are left.
    pub fn flag(self) -> &'static str {
        match self {
            Part::Faults => "--keep-faults",
            Part::Shapes => "--keep-shapes",
            Part::HandOvers => "--keep-hand-overs",
            Part::Upgrades => "--keep-upgrades",
            Part::Breaks => "--keep-breaks",
            Part::Clients => "--keep-clients",
        }
    }
}

/// Numbers, written as `3,9-12`; `none` where there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers(pub BTreeSet<u64>);

/// The longest run of numbers that is read.
const RUN_MAX: u64 = 1_000_000;

impl Display for Numbers {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for &number in &self.0 {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => runs.push((number, number)),
            }
        }
        let text = |(first, last): &(u64, u64)| match last - first {
            0 => first.to_string(),
            1 => format!("{first},{last}"),
            _ => format!("{first}-{last}"),
        };
        f.write_str(&runs.iter().map(text).collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Numbers {
    type Err = ();

    fn from_str(text: &str) -> Result<Numbers, ()> {
        let mut numbers = BTreeSet::new();
        if text == "none" {
            return Ok(Numbers(numbers));
        }
        for run in text.split(',') {
            let (first, last) = run.split_once('-').unwrap_or((run, run));
            let number = |text: &str| text.parse::<u64>().map_err(|_| ());
            let (first, last) = (number(first)?, number(last)?);
            if first > last || last - first > RUN_MAX {
                return Err(());
            }
            numbers.extend(first..=last);
        }
        Ok(Numbers(numbers))
    }
}

/// What is left of a run. Of a part that is not named, everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// What is left of the parts that are named.
    pub parts: BTreeMap<Part, Numbers>,
    /// When all is healed, in simulated milliseconds, where that is earlier than usual.
    pub end_ms: Option<u64>,
}

impl Keep {
    /// Everything.
    pub const ALL: Keep = Keep { parts: BTreeMap::new(), end_ms: None };

    /// Whether one of a part is left.
    pub fn has(&self, part: Part, number: u64) -> bool {
        self.parts.get(&part).is_none_or(|numbers| numbers.0.contains(&number))
    }

    /// When all is healed, given when it would be.
    pub fn end(&self, usual: Time) -> Time {
        self.end_ms.map_or(usual, |end| usual.min(end * MS))
    }
}

/// The flags, each with a space before it.
impl Display for Keep {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        for (part, numbers) in &self.parts {
            write!(f, " {} {numbers}", part.flag())?;
        }
        self.end_ms.map_or(Ok(()), |end| write!(f, " --end-ms {end}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_written() {
        for text in ["none", "3", "3,9-12", "1,2,5,7-9"] {
            assert_eq!(text.parse::<Numbers>().unwrap().to_string(), text);
        }
        for text in ["", "a", "3-1", "1,,2", "-4", "0-18446744073709551615"] {
            assert!(text.parse::<Numbers>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_not_named_is_all_left() {
        let mut keep = Keep::default();
        assert!(keep.has(Part::Faults, 3) && keep.to_string().is_empty());
        keep.parts.insert(Part::Faults, "3,9-12".parse().unwrap());
        assert!(keep.has(Part::Faults, 10) && !keep.has(Part::Faults, 4) && keep.has(Part::Shapes, 4));
        keep.end_ms = Some(20);
        assert_eq!(keep.to_string(), " --keep-faults 3,9-12 --end-ms 20");
        assert_eq!((keep.end(50 * MS), keep.end(10 * MS)), (20 * MS, 10 * MS));
    }
}
