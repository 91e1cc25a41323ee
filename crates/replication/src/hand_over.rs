//! A primary hands its partition over (rule 10).
//!
//! The map names the heir, an in-sync copy, under a new epoch. The primary
//!
//! 1. **asks** the heir and the other in-sync copies to answer under that epoch, and serves on: one that has just died costs
//!    nobody anything, and would hold up the heir's reign;
//! 2. **finishes**: orders no more and answers no more questions, so that requests wait, commits what it has ordered and answers
//!    whatever waits for that;
//! 3. **releases**: proposes that the heir be primary. From here on it serves nothing under this epoch, whatever happens; only a
//!    newer one tells who is primary. The proposal is repeated until the map shows one.
//!
//! Until it has released it may **give up**, where one of the first two takes too long: it serves again at once, and proposes to
//! keep the partition. It never does both under one epoch, and both are compare-and-sets on it: so while it serves on after it gave
//! up, nobody can be made primary by its word.
//!
//! The old primary keeps its seat in the in-sync set. It holds the whole log, all committed, so as a backup it goes on where it
//! is: the heir's first record is the next one for it.

use crate::partition::{Partition, Role};
use crate::peer::Peer;
use crate::primary::{Primary, Proposal};
use crate::{Context, Outbox};
use placement::ChangeKind;
use std::time::Duration;
use types::planted::{self, Bug};
use types::{Incarnation, Instant, NodeId};

/// How long requests wait at most for a primary to finish.
const FINISH: Duration = Duration::from_secs(1);
/// How long the in-sync copies have to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// Between two questions to one that has not answered.
const ASK: Duration = Duration::from_millis(100);

/// What became of hand-overs: how many since this was last looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandOvers {
    /// Maps that named an heir.
    pub begun: u64,
    /// Heirs that became primary by the old one's word.
    pub done: u64,
    /// Those that the primary gave up.
    pub given_up: u64,
}

/// One hand-over, under one epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandOver {
    heir: NodeId,
    stage: Stage,
    /// When the stage began.
    since: Instant,
    asked_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Asking,
    Finishing,
    Released,
    GivenUp,
}

impl HandOver {
    pub fn new(heir: NodeId, now: Instant) -> HandOver {
        HandOver { heir, stage: Stage::Asking, since: now, asked_at: None }
    }

    fn enter(&mut self, stage: Stage, now: Instant) {
        (self.stage, self.since) = (stage, now);
    }

    fn is_overdue(&self, now: Instant) -> bool {
        match self.stage {
            Stage::Asking => now.since(self.since) > ANSWER,
            Stage::Finishing => now.since(self.since) > FINISH,
            Stage::Released | Stage::GivenUp => false,
        }
    }
}

impl<W> Primary<W> {
    /// Whether the map names an heir.
    pub fn is_handing_over(&self) -> bool {
        self.hand_over.is_some()
    }

    /// Whether it orders no more and shows nothing any more, since it is about to hand over or has.
    pub fn has_stopped(&self) -> bool {
        self.hand_over.is_some_and(|hand_over| match hand_over.stage {
            Stage::Asking | Stage::GivenUp => false,
            Stage::Finishing => true,
            Stage::Released => !planted::is(Bug::ServesAfterRelease),
        })
    }
}

impl<W> Partition<W> {
    /// Whether this primary has released its partition to whoever the map shows as primary now.
    pub(crate) fn has_released_to(&self, primary: Option<NodeId>) -> bool {
        let Role::Primary(was) = &self.role else { return false };
        was.hand_over.is_some_and(|over| over.stage == Stage::Released && primary == Some(over.heir))
    }

    /// Takes the steps that are due: at every turn's end, so that requests wait as short as can be.
    pub(crate) fn go_on_handing_over(&mut self, context: &Context, out: &mut Outbox<W>) {
        let (epoch, commit, last) = (self.epoch, self.commit, self.log.last().lsn);
        let Role::Primary(primary) = &mut self.role else { return };
        let Some(mut hand_over) = primary.hand_over else { return };
        // One proposal under one epoch: where another is under way it settles this one too.
        if !primary.serving || primary.proposal.is_some() {
            return;
        }
        let Some(heir) = primary.peers.get(&hand_over.heir).filter(|heir| heir.in_sync) else { return };
        let mut others = primary.peers.values().filter(|peer| peer.in_sync);
        if hand_over.stage == Stage::Asking && others.all(|peer| peer.has_answered(epoch)) {
            hand_over.enter(Stage::Finishing, context.now);
        }
        let releases = hand_over.stage == Stage::Finishing && commit == last && !primary.waits();
        if releases {
            hand_over.enter(Stage::Released, context.now);
            let (node, incarnation) = (hand_over.heir, heir.incarnation);
            primary.proposal = Some(Proposal { node, incarnation, kind: ChangeKind::Release, sent_at: None });
        }
        primary.hand_over = Some(hand_over);
        if releases {
            self.propose(context, out);
        }
    }

    /// Time passes: the copies are asked, and what takes too long is given up.
    pub(crate) fn tick_hand_over(&mut self, context: &Context, out: &mut Outbox<W>) {
        let now = context.now;
        let Role::Primary(primary) = &mut self.role else { return };
        let Some(hand_over) = &mut primary.hand_over else { return };
        if hand_over.stage == Stage::Asking && hand_over.asked_at.is_none_or(|at| now.since(at) >= ASK) {
            hand_over.asked_at = Some(now);
            let epoch = self.epoch;
            let silent = |peer: &&mut Peer| peer.in_sync && !peer.has_answered(epoch);
            primary.peers.values_mut().filter(silent).for_each(Peer::ask);
        }
        if hand_over.is_overdue(now) {
            hand_over.enter(Stage::GivenUp, now);
            out.hand_overs.given_up += 1;
        }
        if hand_over.stage == Stage::GivenUp && primary.proposal.is_none() {
            let (node, incarnation) = (hand_over.heir, Incarnation(0));
            primary.proposal = Some(Proposal { node, incarnation, kind: ChangeKind::Keep, sent_at: None });
        }
    }
}
