//! Stopping a node in order.
//!
//! 1. Another node becomes the coordinator, where this one is (`Mail::StepDown`): whatever follows needs one.
//! 2. The shards order no more of what others can take over; once all that was ordered is committed and told, the coordinator makes
//!    others primary (`Mail::Retire`, `Mail::Leave`). Requests wait meanwhile, and go on there (rule 10).
//! 3. The ports are closed; who has connected by then is a client like any other.
//! 4. The clients are let go (`Mail::Part`, [`crate::parting`]), each when nothing of it is under way. All threads run on until the
//!    last is gone: a request of one shard's client may need another shard.
//! 5. Logs are written out, threads end.
//!
//! Each wait is bounded. SIGINT leaves the first two out, and lets the clients go at once with what they are owed.

use crate::clock;
use crate::start::Running;
use crate::threads::Mail;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use tracing::{info, warn};

/// How long another node may take to be the coordinator: beyond that there is an election once this one has ended.
const STEP_DOWN: Duration = Duration::from_secs(1);
/// How long each step of a hand-over may take: beyond that the others find out by themselves.
const HAND_OVER: Duration = Duration::from_secs(2);
/// How long replies that are owed may take once nothing more is taken in.
const OWED: Duration = Duration::from_secs(1);
/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(1);

impl Running {
    /// Stops the node; where so told it first hands over what other nodes can take over.
    pub fn stop(mut self, hand_over: bool) {
        if !hand_over {
            return self.end(Duration::ZERO);
        }
        self.hand_over();
        self.settings.refresh();
        let patience = self.settings.stop_grace();
        self.end(patience);
    }

    /// Lets the clients go, those that always have something under way after `patience`; writes all logs out, and ends every thread.
    pub(crate) fn end(self, patience: Duration) {
        self.ports.stop();
        self.doors.part();
        let _ = self.acceptor.join();
        let until = clock::now() + patience;
        for shard in &self.threads.shards {
            shard.send(Mail::Part(until));
        }
        let guests = self.doors.guests();
        let connected = || self.clients.connected() + guests.count();
        if !wait_until(patience + OWED, || connected() == 0) {
            let clients = connected();
            warn!(clients, "the node ends though it owes replies to clients");
        }
        for shard in &self.threads.shards {
            shard.send(Mail::Stop);
        }
        for shard in self.shards {
            let _ = shard.join();
        }
        let mut ends = Vec::new();
        for (feed, log, beside) in self.logs {
            feed.stop();
            // One that fails ends the process.
            ends.extend(log.join());
            let _ = beside.join();
        }
        if let Some(thread) = self.snapshots {
            let _ = thread.join();
        }
        if let Some(data) = self.data {
            data.ended(ends);
        }
        let _ = self.free.join();
        self.threads.heart.send(Mail::Stop);
        let _ = self.heart.join();
        self.threads.control.send(Mail::Stop);
        let _ = self.control.join();
        self.doors.end();
        self.runtime.shutdown_timeout(Duration::from_millis(100));
    }

    fn hand_over(&self) {
        let published = &self.published;
        self.threads.control.send(Mail::StepDown);
        let has_stepped_down = || published.control.stepped_down.load(Ordering::Relaxed) > 0;
        if !wait_until(STEP_DOWN, has_stepped_down) {
            warn!("no other node has become the coordinator: there will be an election");
        }
        // Everything was served up to here; from here on requests wait.
        let began = clock::now();
        for shard in &self.threads.shards {
            shard.send(Mail::Retire);
        }
        let is_retired = || published.shards().iter().all(|shard| shard.retired.load(Ordering::Relaxed) > 0);
        if !wait_until(HAND_OVER, is_retired) {
            warn!(
                "not all writes that were under way could be committed: other nodes take over without being told"
            );
            return;
        }
        self.threads.control.send(Mail::Leave);
        let left_at = &published.control.left_at;
        let has_left = || {
            let version = left_at.load(Ordering::Acquire);
            version > 0 && published.acted_version() >= version
        };
        if !wait_until(HAND_OVER, has_left) {
            warn!("the coordinator did not answer: other nodes take over without being told");
            return;
        }
        let took_ms = clock::now().since(began).as_millis() as u64;
        info!(took_ms, "handed over what other nodes can take over");
    }
}

fn wait_until(most: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let end = clock::now() + most;
    while !is_so() {
        if clock::now() >= end {
            return false;
        }
        thread::sleep(LOOK);
    }
    true
}
