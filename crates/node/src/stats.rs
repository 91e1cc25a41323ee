//! What each command did, counted by the shard whose connection asked: one writer a counter, any reader, no lock.
//!
//! The writer adds with a plain load and store; a reader on another thread sees each counter at some recent value, and
//! sums over the shards. Counters never go back: `CONFIG RESETSTAT` remembers what they were ([`Totals::since`]), so that
//! /metrics, which scrapers take differences of, goes on.

use crate::published::ShardCounters;
use command::{CommandFigures, ERROR_WORDS, places};
use std::sync::atomic::{AtomicU64, Ordering};
use types::latency::{BUCKETS, bucket_of};

/// One shard's figures by command.
#[derive(Debug)]
pub struct CommandStats {
    /// By place in the command table ([`command::place_of`]).
    commands: Box<[OneCommand]>,
    errors: [AtomicU64; ERROR_WORDS.len()],
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Debug)]
struct OneCommand {
    calls: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
    took_ns: AtomicU64,
    latencies: [AtomicU64; BUCKETS],
}

impl Default for CommandStats {
    fn default() -> CommandStats {
        let zero = |_| OneCommand {
            calls: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            took_ns: AtomicU64::new(0),
            latencies: [const { AtomicU64::new(0) }; BUCKETS],
        };
        CommandStats {
            commands: places().map(zero).collect(),
            errors: [const { AtomicU64::new(0) }; ERROR_WORDS.len()],
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }
}

impl CommandStats {
    /// So many requests were run and answered, each so long after it had begun. A place that the table does not have is
    /// ignored.
    #[inline]
    pub fn done(&self, place: usize, count: u64, took_ns: u64, failed: bool, latency_tracking: bool) {
        let Some(command) = self.commands.get(place) else { return };
        ShardCounters::add(&command.calls, count);
        ShardCounters::add(&command.took_ns, count * took_ns);
        if latency_tracking {
            ShardCounters::add(&command.latencies[bucket_of(took_ns)], count);
        }
        if failed {
            ShardCounters::add(&command.failed, count);
        }
    }

    /// A request was refused before it ran.
    #[inline]
    pub fn rejected(&self, place: usize) {
        if let Some(command) = self.commands.get(place) {
            ShardCounters::add(&command.rejected, 1);
        }
    }

    /// An error was sent to a client: its [`command::CommandError::word_place`].
    #[inline]
    pub fn error(&self, word: usize) {
        if let Some(counter) = self.errors.get(word) {
            ShardCounters::add(counter, 1);
        }
    }

    /// Reads of keys: how many found theirs, and how many did not.
    #[inline]
    pub fn looked_up(&self, (hits, misses): (u64, u64)) {
        ShardCounters::add(&self.hits, hits);
        ShardCounters::add(&self.misses, misses);
    }
}

/// The sums over a node's shards.
#[derive(Debug)]
pub struct Totals {
    /// By place in the command table.
    pub commands: Vec<CommandFigures>,
    /// Error replies, by place in [`ERROR_WORDS`].
    pub errors: Vec<u64>,
    /// Reads that found their key.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// The shards' other figures.
    pub counters: ShardCounters,
}

impl Totals {
    /// Nothing counted yet.
    pub(crate) fn zero() -> Totals {
        Totals {
            commands: vec![CommandFigures::default(); places().count()],
            errors: vec![0; ERROR_WORDS.len()],
            hits: 0,
            misses: 0,
            counters: ShardCounters::default(),
        }
    }

    /// Adds a shard's.
    pub(crate) fn add(&mut self, stats: &CommandStats) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (sum, one) in self.commands.iter_mut().zip(&stats.commands) {
            sum.calls += load(&one.calls);
            sum.failed += load(&one.failed);
            sum.rejected += load(&one.rejected);
            sum.took_ns += load(&one.took_ns);
            for (count, bucket) in sum.latencies.counts.iter_mut().zip(&one.latencies) {
                *count += load(bucket);
            }
        }
        for (sum, error) in self.errors.iter_mut().zip(&stats.errors) {
            *sum += load(error);
        }
        self.hits += load(&stats.hits);
        self.misses += load(&stats.misses);
    }

    /// What was counted by command, error and lookup since these earlier sums. The other figures are left as they are.
    pub fn since(mut self, earlier: &Totals) -> Totals {
        for (now, then) in self.commands.iter_mut().zip(&earlier.commands) {
            now.calls = now.calls.saturating_sub(then.calls);
            now.failed = now.failed.saturating_sub(then.failed);
            now.rejected = now.rejected.saturating_sub(then.rejected);
            now.took_ns = now.took_ns.saturating_sub(then.took_ns);
            subtract(&mut now.latencies.counts, &then.latencies.counts);
        }
        subtract(&mut self.errors, &earlier.errors);
        self.hits = self.hits.saturating_sub(earlier.hits);
        self.misses = self.misses.saturating_sub(earlier.misses);
        self
    }

    /// Replies of "outcome unknown".
    pub fn unknown_outcomes(&self) -> u64 {
        let place = ERROR_WORDS.iter().position(|word| *word == "UNKNOWN");
        place.and_then(|place| self.errors.get(place)).copied().unwrap_or(0)
    }
}

fn subtract(now: &mut [u64], then: &[u64]) {
    for (now, then) in now.iter_mut().zip(then) {
        *now = now.saturating_sub(*then);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use command::{lookup, place_of};

    #[test]
    fn figures_are_summed_and_counted_anew() {
        let (one, two) = (CommandStats::default(), CommandStats::default());
        let get = place_of(lookup(b"get").unwrap());
        one.done(get, 1, 1_500, false, true);
        two.done(get, 1, 3_000, true, true);
        two.done(get, 1, 1_000, false, false);
        two.rejected(get);
        one.error(2);
        one.looked_up((2, 1));
        for nowhere in [usize::MAX, places().count()] {
            one.done(nowhere, 1, 1, true, true);
            one.rejected(nowhere);
            one.error(nowhere);
        }
        let sum = || {
            let mut sum = Totals::zero();
            sum.add(&one);
            sum.add(&two);
            sum
        };
        let first = sum();
        let figures = &first.commands[get];
        assert_eq!((figures.calls, figures.failed, figures.rejected, figures.took_ns), (3, 1, 1, 5_500));
        assert_eq!(figures.latencies.total(), 2);
        assert_eq!((first.errors[2], first.hits, first.misses), (1, 2, 1));
        one.done(get, 1, 700, false, true);
        let later = sum().since(&first);
        assert_eq!((later.commands[get].calls, later.commands[get].took_ns, later.hits), (1, 700, 0));
        assert_eq!(later.commands[get].latencies.counts[0], 1);
    }
}
