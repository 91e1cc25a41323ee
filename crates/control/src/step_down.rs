//! The coordinator hands the lead of the consensus group over before its node stops.
//!
//! Were it just to end, the others would notice after the election timeout, and whatever needs the coordinator meanwhile would
//! wait: a death to be declared, a copy to join, a node that stops in its turn. Instead the voter whose log reaches furthest is
//! told to stand at once (the library's leader transfer, raft thesis 3.10), which takes two rounds of messages. It is asked again
//! until somebody else leads. Where nobody can take over, or whoever is asked does not, the node stops all the same, and there is
//! an election as after a death: how long to wait is the caller's to say.
//!
//! While the lead is on its way nothing is put into the log, since the library would refuse it; should the hand-over fail, the
//! coordinator goes on with what it remembers. What nodes told the old coordinator and it had not written yet they tell the new one.

use crate::machine::Control;
use placement::Seat;
use raft::StateRole;
use std::cmp::Reverse;
use types::{Instant, NodeId};

impl Control {
    /// This node is about to stop: it leads no more, and does not stand for election again.
    pub fn step_down(&mut self, now: Instant) {
        self.stepping_down = true;
        self.give_lead();
        self.advance(now);
    }

    /// Whether another node leads, as far as this one knows, or nobody else can.
    pub fn has_stepped_down(&self) -> bool {
        self.stepping_down
            && if self.leads() { self.next_leader().is_none() } else { self.coordinator().is_some() }
    }

    /// Whether the lead is being handed over.
    pub(crate) fn gives_lead(&self) -> bool {
        self.raft.as_ref().is_some_and(|raft| raft.raft.lead_transferee.is_some())
    }

    /// Whether it stands for election no more, though it votes.
    pub(crate) fn stands_for_none(&self) -> bool {
        self.stepping_down && !self.leads()
    }

    /// Tells the next leader to stand.
    pub(crate) fn give_lead(&mut self) {
        if !self.stepping_down {
            return;
        }
        if let Some(next) = self.next_leader() {
            self.transfer_lead(next);
        }
    }

    /// Tells the holder of a seat to stand.
    pub(crate) fn transfer_lead(&mut self, seat: u64) {
        if let Some(raft) = &mut self.raft {
            raft.transfer_leader(seat);
        }
    }

    fn leads(&self) -> bool {
        self.raft.as_ref().is_some_and(|raft| raft.raft.state == StateRole::Leader)
    }

    /// The seat of the voter that is heard, is to stay, and whose log reaches furthest.
    fn next_leader(&self) -> Option<u64> {
        self.next_leaders().max_by_key(|standing| standing.fitness).map(|standing| standing.seat)
    }

    /// The other voters that are to stay, where this node leads. While the voters are being changed, those that go on to vote: only
    /// such a one ends the change.
    pub(crate) fn next_leaders(&self) -> impl Iterator<Item = Standing> + '_ {
        let raft = self.raft.as_ref().filter(|raft| raft.raft.state == StateRole::Leader);
        raft.into_iter()
            .flat_map(|raft| raft.raft.prs().iter().map(|(&id, progress)| (raft.raft.id, id, progress)))
            .filter_map(|(mine, id, progress)| {
                let node = Seat::node_of(id);
                let may = id != mine && self.map.voters.contains(&node) && self.map.is_active(node);
                let fitness = (progress.recent_active, progress.matched, Reverse(id));
                may.then_some(Standing { seat: id, node, fitness })
            })
    }
}

/// A voter that could lead.
pub(crate) struct Standing {
    pub seat: u64,
    pub node: NodeId,
    /// The fittest is heard, and its log reaches furthest.
    pub fitness: (bool, u64, Reverse<u64>),
}
