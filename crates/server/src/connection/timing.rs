//! How long requests take, without a look at the clock for each: a look costs as much as a tenth of a pipelined GET.
//!
//! Quick requests that came together share the time that they took together. What may be long (see [`is_lone`]) is timed by
//! itself, and so is every request where the settings ask for slow ones of less than [`FINE_NS`].

use crate::clock;
use crate::machine::{Preview, ShardMachine};
use command::{CommandError, Session};
use smallvec::SmallVec;
use types::Instant;

/// A request, or a reply, of this many bytes is not quick.
const LONG_BYTES: usize = 16 * 1024;
/// A slow request of so little time is no more than many quick ones take together.
const FINE_NS: u64 = 1_000_000;

/// The clock of one run of requests.
pub(super) struct Timing {
    /// Up to when requests were timed.
    mark: Instant,
    /// The commands of the quick requests since then, by their places in the table.
    quick: SmallVec<[usize; super::LOOK_AHEAD]>,
}

/// A request that was run.
pub(super) struct Ran {
    /// Its command, by its place in the table; `usize::MAX` where it was refused before it ran.
    pub command: usize,
    /// What it was answered, where that was an error.
    pub error: Option<CommandError>,
    /// Whether it was answered.
    pub is_answered: bool,
    /// Bytes of its reply.
    pub bytes: usize,
}

/// Whether a request has to be timed by itself.
pub(super) fn is_lone<M: ShardMachine>(machine: &M, preview: &Preview, bytes: usize) -> bool {
    !preview.is_quick() || bytes > LONG_BYTES || machine.slow_ns() < FINE_NS
}

impl Timing {
    pub fn new(now: Instant) -> Timing {
        Timing { mark: now, quick: SmallVec::new() }
    }

    /// Up to when requests were timed.
    pub fn mark(&self) -> Instant {
        self.mark
    }

    /// Times what has been run since the mark.
    pub fn settle<M: ShardMachine>(&mut self, machine: &mut M) {
        if !self.quick.is_empty() {
            let now = clock::now();
            let share = now.since(self.mark).as_nanos() as u64 / self.quick.len() as u64;
            self.count(machine, share);
            self.mark = now;
        }
    }

    fn count<M: ShardMachine>(&mut self, machine: &mut M, share_ns: u64) {
        for run in self.quick.chunk_by(|a, b| a == b) {
            machine.answered(run[0], run.len() as u64, share_ns, None);
        }
        self.quick.clear();
    }

    /// A request was run.
    pub fn ran<M: ShardMachine>(
        &mut self,
        machine: &mut M,
        session: &Session,
        args: &[&[u8]],
        lone: bool,
        ran: &Ran,
    ) {
        if ran.command == usize::MAX {
            if let Some(error) = &ran.error {
                machine.refused(error);
            }
            return;
        }
        if !lone && ran.error.is_none() && ran.bytes <= LONG_BYTES {
            if ran.is_answered {
                self.quick.push(ran.command);
            }
            return;
        }
        let now = clock::now();
        let took = now.since(self.mark).as_nanos() as u64;
        let share = took / (self.quick.len() as u64 + 1);
        let was_alone = self.quick.is_empty();
        self.count(machine, share);
        self.mark = now;
        if ran.is_answered {
            machine.answered(ran.command, 1, share, ran.error.as_ref());
        }
        if was_alone && took >= machine.slow_ns() {
            machine.slow(session, args, took);
        }
    }
}
