//! How a connection ends when its node stops: so that no request is lost on the way, if that can be.
//!
//! A client that gets a reply and the end of the connection (FIN) in one segment has nothing under way, provided that it sends one
//! request at a time: whatever it does next, it does with the end before it. So such a connection ends with its next reply. One
//! that is quiet ends when it has been for [`QUIET`]. One that sends requests without waiting for replies always may have some on
//! the way; it is served until it is quiet: at the cluster door it is told to go elsewhere (`MOVED`), and at the plain door the
//! node's patience ends it (`Connection::finish`).
//!
//! What remains: a client that sends in the very moment in which a quiet connection ends, or when patience does, gets no reply,
//! though the request was not run.

use super::Connection;
use rustix::io::ioctl_fionread;
use rustix::net::sockopt::set_tcp_cork;
use std::time::Duration;
use types::Instant;

/// After so long without a byte nothing more is expected.
const QUIET: Duration = Duration::from_millis(100);
/// Who has sent requests without waiting for replies may do so again, for this long.
const PIPELINES: Duration = Duration::from_secs(1);

impl Connection {
    /// The node stops: it is to end when nothing of it is under way.
    pub fn part(&mut self) {
        self.parts = true;
    }

    /// Ends it with the reply that is about to be written, if it has nothing else to do.
    pub fn part_with_reply(&mut self, now: Instant) {
        if !self.parts || self.output.unsent() == 0 {
            return;
        }
        let pipelines = self.pipelined_at.is_some_and(|at| now.since(at) < PIPELINES);
        if !pipelines && self.is_at_rest() {
            // The reply's last segment waits for the end of the connection, to carry it along.
            let _ = set_tcp_cork(&self.stream, true);
            self.finish();
        }
    }

    /// Ends it if it is quiet.
    pub fn part_if_quiet(&mut self, now: Instant) {
        let is_quiet = now.since(self.gauge.heard_at) >= QUIET;
        if self.parts && is_quiet && self.output.unsent() == 0 && !self.flight.sending && self.is_at_rest() {
            self.finish();
        }
    }

    /// Whether all that has come is answered.
    fn is_at_rest(&self) -> bool {
        let is_done =
            self.pending.is_empty() && self.input.is_empty() && !self.backlog && self.held.is_none();
        is_done && !self.closing && ioctl_fionread(&self.stream).is_ok_and(|unread| unread == 0)
    }
}
