//! What a connection may cost: the time that a client may take, and the memory that it may have the node keep.
//!
//! Memory follows the bytes that came, never a length that was only declared: of a request there is room for [`ROOM_AHEAD`] times what has come. [`Connection::weight`] is what it keeps now;
//! `shard_loop` adds that up for the node ([`crate::buffers`]).

use super::{Connection, Dead, Slot};
use command::{CommandError, Reply};
use std::time::Duration;
use storage::Rope;
use types::Instant;
use types::limits::ROOM_AHEAD;

/// A slow line may take this long for each MiB of a request that has come.
const TIME_A_MIB: Duration = Duration::from_secs(1);

/// The times and sizes that the limits look at.
#[derive(Debug)]
pub(super) struct Gauge {
    /// When the connection was made.
    pub made_at: Instant,
    /// When bytes last came.
    pub heard_at: Instant,
    /// When a whole request last came.
    pub whole_at: Instant,
    /// When the first byte of the unfinished request came.
    pub first_byte_at: Instant,
    /// When the socket last took something.
    pub progress_at: Instant,
    /// Since when the client has taken nothing of what waits for it, as the sweeps saw it.
    unread_since: Instant,
    /// Bytes of replies behind others that have not come.
    pub behind_bytes: usize,
    /// The largest reply in the buffer: by itself it breaks no limit.
    largest_bytes: usize,
}

impl Gauge {
    pub fn new(now: Instant) -> Gauge {
        Gauge {
            made_at: now,
            heard_at: now,
            whole_at: now,
            first_byte_at: now,
            progress_at: now,
            unread_since: now,
            behind_bytes: 0,
            largest_bytes: 0,
        }
    }

    /// A reply of this size was put into the buffer.
    pub fn replied(&mut self, bytes: usize) {
        self.largest_bytes = self.largest_bytes.max(bytes);
    }

    /// Bytes have come. `whole`: the last of a request were among them. `rest`: those of an unfinished one, too.
    pub fn heard(&mut self, now: Instant, whole: bool, begun: bool) {
        self.heard_at = now;
        if whole {
            self.whole_at = now;
        }
        if whole || begun {
            self.first_byte_at = now;
        }
    }
}

impl Connection {
    /// Makes room for bytes that are about to be kept. Soon that is all that the request needs: what has come of a large one is not moved again and again.
    pub(super) fn make_room(&mut self, bytes: usize) {
        let room = self.input.capacity() - self.input.len();
        if room < bytes && bytes < self.needs && self.needs / (ROOM_AHEAD - 1) <= self.input.len() {
            // With room for what is read along with its last bytes.
            self.input.reserve_exact(self.needs + bytes);
        }
    }

    /// Bytes of replies that the client has not taken.
    pub(super) fn unread(&self) -> usize {
        self.output.unsent() + self.gauge.behind_bytes
    }

    /// Bytes that the node keeps for this client.
    pub fn weight(&self) -> usize {
        let held = self.held.as_ref().map_or(0, |held| held.bytes);
        let names = self.session.name.len() + self.session.lib_name.len() + self.session.lib_version.len();
        self.input.len() + self.decoder.kept_bytes() + self.pending_bytes + held + names + self.unread()
    }

    /// Whether most of that is replies which the client does not take.
    pub fn is_unread_mostly(&self) -> bool {
        self.unread() > self.weight() / 2
    }

    /// Whether the client asked to be closed after all others: `CLIENT NO-EVICT`.
    pub fn is_spared(&self) -> bool {
        self.session.no_evict
    }

    /// Whether it takes no more requests.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Says why, takes no more requests, and closes once every reply is out.
    pub fn refuse(&mut self, why: &'static str) {
        self.reply_now(&Reply::Error(CommandError::Other(why.into())));
        self.finish();
    }

    /// Whether so many replies wait that the connection has to go. One reply, however large, does not do it.
    pub(super) fn check_unread(&mut self) -> Result<(), Dead> {
        let unread = self.unread();
        if unread == 0 {
            self.gauge.largest_bytes = 0;
        }
        let most = self.settings.client_output_buffer_limit.0;
        if unread.saturating_sub(self.gauge.largest_bytes) as u64 > most { Err(Dead) } else { Ok(()) }
    }

    /// Many replies may come in one turn: once they are too many, they are dropped, and the next write closes.
    pub(super) fn give_up_if_unread(&mut self) {
        if self.check_unread().is_err() {
            self.broken = true;
            self.output.abandon(self.flight.sending);
            for slot in &mut self.pending {
                if let Slot::Done(done) = slot {
                    *done = Rope::default();
                }
            }
            self.gauge.behind_bytes = 0;
        }
    }

    /// Once a second: whether the client has taken too long for something.
    pub(super) fn check_times(&mut self, now: Instant) -> Result<(), Dead> {
        if self.unread() == 0 || self.gauge.progress_at > self.gauge.unread_since {
            self.gauge.unread_since = now;
        }
        // What waits for others is not the client's to take.
        let takes_nothing = self.output.unsent() > 0
            && now.since(self.gauge.unread_since) > milliseconds(self.settings.reply_unread_timeout_ms);
        if takes_nothing {
            return Err(Dead);
        }
        if self.closing {
            return Ok(());
        }
        if self.is_full() || self.held.is_some() || self.readable {
            // It is this node that does not read: the request's time stands still.
            self.gauge.first_byte_at = now;
            self.gauge.whole_at = now;
        } else if !self.session.authenticated {
            if now.since(self.gauge.whole_at) > milliseconds(self.settings.authentication_timeout_ms) {
                self.refuse("NOAUTH Authentication required: it was not said in time.");
            }
        } else if !self.input.is_empty() && !self.backlog {
            let mebibytes = (self.input.len() >> 20) as u32;
            let allowed = milliseconds(self.settings.request_incomplete_timeout_ms) + TIME_A_MIB * mebibytes;
            if now.since(self.gauge.first_byte_at) > allowed {
                self.refuse("ERR Protocol error: the request did not come whole in time");
            }
        } else if self.settings.timeout > 0 && self.pending.is_empty() {
            let moved_at = self.gauge.heard_at.max(self.gauge.progress_at);
            if now.since(moved_at) > Duration::from_secs(self.settings.timeout) {
                return Err(Dead);
            }
        }
        Ok(())
    }

    /// A reply that has to wait for others.
    pub(super) fn put_behind(&mut self, at: Option<usize>, done: Rope) {
        self.gauge.behind_bytes += done.len();
        match at.and_then(|at| self.pending.get_mut(at)) {
            Some(slot) => *slot = Slot::Done(done),
            None => self.pending.push_back(Slot::Done(done)),
        }
    }
}

fn milliseconds(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
