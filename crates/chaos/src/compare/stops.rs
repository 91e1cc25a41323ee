//! When the machine itself stood still: a shared one stops now and then for milliseconds, whatever runs on it, and nobody in it can tell
//! that from a server that does not answer. So a thread that goes before all others on the load's processor does nothing but look at the
//! clock, and when it is late, that processor was somebody else's, or in the kernel: what is measured from there waited that long whatever the
//! server did. What the server itself stood still in the same moment is taken off with it, so the least that is left is a lower bound,
//! and stands beside the whole.
//!
//! It can only do so where it may go before others (a real-time priority), and where the server has another processor. Elsewhere no
//! stops are known, and nothing is taken off.

use super::machine::Processors;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// From one look at the clock to the next.
const PERIOD: Duration = Duration::from_micros(250);
/// What it is late by at least where that counts.
const LATE_MIN: Duration = Duration::from_micros(250);
/// Its priority.
const WATCH_PRIORITY: i32 = 3;

/// From when to when something lasted.
pub(super) type Span = (Instant, Instant);

/// The stops that were seen, in order.
#[derive(Default)]
pub(super) struct Stops {
    are_known: bool,
    stops: Vec<Span>,
}

/// How many there were, and the longest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Summary {
    pub are_known: bool,
    pub count: usize,
    pub longest_ms: f64,
}

/// Watches until told to end.
pub(super) fn watch(processors: Processors, ends: &AtomicBool) -> Stops {
    let mut stops = Stops {
        are_known: processors.load != processors.server && goes_first(WATCH_PRIORITY),
        stops: Vec::new(),
    };
    if !stops.are_known {
        return stops;
    }
    let mut due = Instant::now() + PERIOD;
    while !ends.load(Ordering::Relaxed) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let now = Instant::now();
        if now.saturating_duration_since(due) >= LATE_MIN {
            stops.stops.push((due, now));
        }
        due = now + PERIOD;
    }
    stops
}

/// Who has something to do on the load's processor beside it.
#[derive(Clone, Copy)]
pub(super) enum Role {
    /// Who causes the load goes before whatever else runs on the machine.
    Load = 1,
    /// Who measures goes before the load.
    Probe = 2,
}

/// Gives this thread its place. Where that is not allowed it goes as it is.
pub(super) fn take_place(role: Role) {
    goes_first(role as i32);
}

fn goes_first(priority: i32) -> bool {
    let asked = libc::sched_param { sched_priority: priority };
    // SAFETY: 0 is this thread, and the system only reads the number.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const asked) == 0 }
}

impl Stops {
    /// The longest of these spans, less what the machine stood still in it.
    pub(super) fn longest_less(&self, spans: &[Span]) -> Duration {
        spans
            .iter()
            .map(|span| (span.1 - span.0).saturating_sub(self.within(*span)))
            .max()
            .unwrap_or_default()
    }

    fn within(&self, (from, to): Span) -> Duration {
        let first = self.stops.partition_point(|(_, end)| *end <= from);
        let inside = self.stops[first..].iter().take_while(|(start, _)| *start < to);
        inside.map(|(start, end)| (*end).min(to) - (*start).max(from)).sum()
    }

    /// Those of a span.
    pub(super) fn summary(&self, span: Span) -> Summary {
        let inside = || self.stops.iter().filter(|(start, end)| *end > span.0 && *start < span.1);
        let longest = inside().map(|(start, end)| *end - *start).max().unwrap_or_default();
        Summary {
            are_known: self.are_known,
            count: inside().count(),
            longest_ms: longest.as_secs_f64() * 1e3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_stood_still_is_taken_off() {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        let stops =
            Stops { are_known: true, stops: vec![(at(10), at(14)), (at(20), at(21)), (at(30), at(40))] };
        let less = |from, to| stops.longest_less(&[(at(from), at(to))]).as_millis();
        assert_eq!([less(0, 10), less(0, 12), less(11, 13), less(12, 22), less(14, 20)], [10, 10, 0, 7, 6]);
        assert_eq!([less(0, 50), less(35, 36), less(40, 50)], [35, 0, 10]);
        assert_eq!(stops.longest_less(&[(at(0), at(3)), (at(30), at(41))]), Duration::from_millis(3));
        assert_eq!(stops.longest_less(&[]), Duration::ZERO);
        assert_eq!(stops.summary((at(12), at(30))), Summary { are_known: true, count: 2, longest_ms: 4.0 });
        assert_eq!(Stops::default().summary((at(0), at(50))).count, 0);
    }
}
