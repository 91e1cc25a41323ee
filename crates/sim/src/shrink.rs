//! A failing seed is made small: as much as possible is left out of its run that it fails without.
//!
//! First whole parts are left out, then ever smaller pieces of what remains, down to single things, by delta debugging (ddmin; Zeller
//! and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002, of which this takes the complements alone). At last all
//! is healed as early as it can be. A smaller run counts only if it fails in the same way ([`same_way`]). It is a search and no proof:
//! what is left out also changes how long messages take, so something smaller may exist that was not met.

use crate::keep::{Keep, Numbers, PARTS, Part};
use crate::network::MS;
use crate::run::{Failure, Options, run};

/// A thing that happened in a run.
pub type Item = (Part, u64);

/// Attempts at an earlier end.
const ENDS: usize = 5;

/// What is left of a failing run.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What is left, by part.
    pub keep: Keep,
    /// How it fails now.
    pub failure: Failure,
    /// Runs that it took.
    pub runs: usize,
}

/// How far the search is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Runs so far.
    pub runs: usize,
    /// How many things are left.
    pub left: usize,
}

struct Search<'a> {
    options: &'a Options,
    goes_on: &'a mut dyn FnMut(Progress) -> bool,
    items: Vec<Item>,
    end_ms: Option<u64>,
    failure: Failure,
    runs: usize,
    is_over: bool,
}

/// Makes a failing run small. `goes_on` hears of progress before each run, and ends the search where it says no.
pub fn shrink(failure: Failure, options: &Options, goes_on: &mut dyn FnMut(Progress) -> bool) -> Shrunk {
    let items = failure.happened.clone();
    let end_ms = options.keep.end_ms;
    let mut search = Search { options, goes_on, items, end_ms, failure, runs: 0, is_over: false };
    for part in PARTS {
        let rest: Vec<Item> = search.items.iter().copied().filter(|item| item.0 != part).collect();
        if rest.len() < search.items.len() {
            search.fails_with(&rest, search.end_ms);
        }
    }
    ddmin(search.items.clone(), &mut |rest| {
        search.fails_with(rest, search.end_ms).then(|| search.items.clone())
    });
    search.end_early();
    Shrunk { keep: keep_of(&search.items, search.end_ms), failure: search.failure, runs: search.runs }
}

impl Search<'_> {
    /// Whether the run fails in the same way with no more than this. Then that is what is left.
    fn fails_with(&mut self, items: &[Item], end_ms: Option<u64>) -> bool {
        self.is_over |= !(self.goes_on)(Progress { runs: self.runs, left: self.items.len() });
        if self.is_over {
            return false;
        }
        self.runs += 1;
        let options = Options {
            keep_trace: false,
            print_trace: false,
            keep: keep_of(items, end_ms),
            ..self.options.clone()
        };
        let Err(failure) = run(self.failure.seed, options) else { return false };
        if !same_way(&self.failure.what, &failure.what) {
            return false;
        }
        // What would have come after the failure did not happen.
        self.items = items.iter().copied().filter(|item| failure.happened.contains(item)).collect();
        (self.failure, self.end_ms) = (failure, end_ms);
        true
    }

    /// Looks for an earlier end, where the run fails after it.
    fn end_early(&mut self) {
        let (mut least, mut most) = (0, self.failure.heals_at / MS);
        for _ in 0..ENDS {
            let end = (least + most) / 2;
            if self.failure.now <= self.failure.heals_at || end == least {
                return;
            }
            match self.fails_with(&self.items.clone(), Some(end)) {
                true => most = end,
                false => least = end,
            }
        }
    }
}

/// Only these, of all parts.
fn keep_of(items: &[Item], end_ms: Option<u64>) -> Keep {
    let numbers = |part| Numbers(items.iter().filter(|item| item.0 == part).map(|item| item.1).collect());
    Keep { parts: PARTS.into_iter().map(|part| (part, numbers(part))).collect(), end_ms }
}

/// Whether two runs fail by the same check: they say the same, but for numbers, names and what is shown of values.
pub fn same_way(one: &str, other: &str) -> bool {
    way(one).eq(way(other))
}

/// How many words tell a check from the others.
const WORDS: usize = 8;

/// The first words of what a check says.
fn way(what: &str) -> impl Iterator<Item = &str> {
    let is_plain =
        |word: &&str| word.chars().all(|c| c.is_ascii_alphabetic() || matches!(c, '\'' | ',' | ':'));
    what.split_whitespace().filter(is_plain).map(|word| word.trim_end_matches([',', ':'])).take(WORDS)
}

/// Leaves out of `items` what it fails without. `fails`: what is left of these, if it fails with them. No single one of what is
/// returned can be left out, unless `fails` stopped looking.
fn ddmin<T: Clone>(mut items: Vec<T>, fails: &mut dyn FnMut(&[T]) -> Option<Vec<T>>) -> Vec<T> {
    let mut size = items.len().div_ceil(2);
    while size > 0 {
        let (mut at, before) = (0, items.len());
        while at < items.len() {
            let end = items.len().min(at + size);
            match fails(&[&items[..at], &items[end..]].concat()) {
                Some(left) => items = left,
                None => at = end,
            }
        }
        size = match size {
            1 if items.len() < before => 1,
            size => size / 2,
        };
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_needed_is_left_out() {
        let mut runs = 0;
        let mut needs = |needed: &'static [u32]| {
            let fails = &mut |items: &[u32]| {
                runs += 1;
                needed.iter().all(|number| items.contains(number)).then(|| items.to_vec())
            };
            ddmin((0..100).collect(), fails)
        };
        assert!(needs(&[]).is_empty());
        assert_eq!(needs(&[17]), [17]);
        assert_eq!(needs(&[3, 4, 50, 99]), [3, 4, 50, 99]);
        assert!(runs < 200, "{runs} runs");
    }

    #[test]
    fn what_would_have_come_later_is_gone_at_once() {
        let fails = &mut |items: &[u32]| {
            items.contains(&5).then(|| items.iter().copied().filter(|number| *number <= 5).collect())
        };
        assert_eq!(ddmin((0..10).collect(), fails), [5]);
    }

    #[test]
    fn checks_are_told_apart() {
        let one = "the commit lsn of partition 3 on node 1 fell from 7 to 5";
        assert!(same_way(one, "the commit lsn of partition 5 on node 3 fell from 17 to 15"));
        assert!(!same_way(one, "the epoch of partition 3 on node 1 fell from 7 to 5"));
        assert!(same_way("partition 1 is lost: State { a: 1 }", "partition 7 is lost: State { a: 2 }"));
    }
}
