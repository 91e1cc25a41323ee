//! When the load's processor stood still: a shared machine stops now and then for milliseconds, whatever runs on it, and nobody in it
//! can tell that from a server that does not answer. So a thread that goes before all others on the load's processor does nothing but look
//! at the clock, and when it is late, that processor was somebody else's, or in the kernel: what is measured from there waited that long
//! whatever the server did. What the server itself stood still in the same moment is taken off with it, so the least that is left is a
//! lower bound, and stands beside the whole.
//!
//! It can only do so where it may go before others (a real-time priority), and where the server has another processor. Elsewhere no
//! stops are known, and nothing is taken off.

use super::machine::Processors;
use super::spans::Spans;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// From one look at the clock to the next.
const PERIOD: Duration = Duration::from_micros(250);
/// What it is late by at least where that counts.
const LATE_MIN: Duration = Duration::from_micros(250);
/// Its priority.
const WATCH_PRIORITY: i32 = 3;

/// Watches until told to end.
pub(super) fn watch(processors: Processors, ends: &AtomicBool) -> Option<Spans> {
    if processors.load == processors.server || !goes_first(WATCH_PRIORITY) {
        return None;
    }
    let mut stops = Vec::new();
    let mut due = Instant::now() + PERIOD;
    while !ends.load(Ordering::Relaxed) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let now = Instant::now();
        if now.saturating_duration_since(due) >= LATE_MIN {
            stops.push((due, now));
        }
        due = now + PERIOD;
    }
    Some(Spans::of(stops))
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
