//! `CLIENT PAUSE`: a request that came at the wrong time is kept, and all behind it stays unread, so that they run in
//! their order once clients go on.

use super::Connection;
use super::timing::Timing;
use crate::machine::{Request, ShardMachine};
use types::Instant;

/// A request that waits for the end of a pause.
#[derive(Debug)]
pub(super) struct Held {
    args: Vec<Vec<u8>>,
    /// As it came.
    pub bytes: usize,
}

impl Connection {
    /// Keeps a request, and with it all that follow.
    pub(super) fn hold(&mut self, args: &[&[u8]], bytes: usize) {
        self.held = Some(Held { args: args.iter().map(|arg| arg.to_vec()).collect(), bytes });
        // What follows is parsed once this has run.
        self.backlog = true;
    }

    /// Whether a request waits for the end of a pause.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// The pause may be over: runs what was held.
    pub fn resume<M: ShardMachine>(&mut self, now: Instant, machine: &mut M) {
        let Some(held) = self.held.take() else { return };
        let args: Vec<&[u8]> = held.args.iter().map(|arg| &arg[..]).collect();
        if machine.pause(now).holds(&args) {
            self.held = Some(held);
            return;
        }
        let request = Request { args: &args, preview: machine.preview(&args), lent: None };
        let mut timing = Timing::new(now);
        self.run_timed(&mut timing, machine, &request, now, held.bytes);
        timing.settle(machine);
    }
}
