//! A huge request is run from a buffer of its own, in which its huge arguments stay: the table, the log and the links share it,
//! so that nobody else waits while many megabytes are copied.

use super::timing::Timing;
use super::{Batch, BatchEnd, Connection};
use crate::machine::{Request, ShardMachine};
use bytes::Bytes;
use command::Pause;
use smallvec::SmallVec;
use storage::Lent;
use storage::lent::is_huge;
use types::Instant;
use wire::resp;

impl Connection {
    /// Looks whether what stands in the input is the beginning of a huge request.
    #[inline]
    pub(super) fn look_at_size(&mut self) {
        self.is_huge = !self.backlog && !self.input.is_empty() && is_huge(self.input.len() + self.needs);
    }

    /// Runs the huge request at the front of the input, once it is whole. False: nothing else can be run now.
    #[cold]
    pub(super) fn run_huge<M: ShardMachine>(
        &mut self,
        now: Instant,
        machine: &mut M,
        requests: &mut usize,
    ) -> bool {
        let is_free = self.session.authenticated && machine.pause(now) == Pause::Off;
        if !is_free || *requests == 0 || self.is_full() {
            // As every other.
            self.is_huge = false;
            return true;
        }
        let mut batch = Batch::default();
        match batch.parse(&mut self.decoder, &self.limits, &mut self.input, 1) {
            BatchEnd::Full => {}
            BatchEnd::Incomplete { need } => {
                self.needs = need;
                self.gauge.heard(now, false, false);
                return false;
            }
            BatchEnd::Malformed(error) => {
                self.reply_now(&error.into());
                self.finish();
                return false;
            }
        }
        self.is_huge = false;
        self.needs = 0;
        *requests -= batch.requests.len();
        let rest = self.input.split_off(batch.end);
        let buffer = Bytes::from(std::mem::replace(&mut self.input, rest));
        let args: SmallVec<[&[u8]; 4]> = resp::slices(&buffer, &batch.spans).collect();
        let preview = machine.preview(&args);
        let lent = Lent::Buffer(&buffer);
        let request = Request { args: &args, preview, lent: Some(&lent) };
        let mut timing = Timing::new(now);
        self.run_timed(&mut timing, machine, &request, now, batch.end);
        timing.settle(machine);
        self.ran_at = timing.mark();
        self.gauge.heard(now, true, false);
        !self.closing && !self.input.is_empty()
    }
}
