//! A coordinator that does not hear a node which others hear has one of those lead.
//!
//! A link may be cut between two nodes that both reach all others. Where one of them is the coordinator, the other one's proposals
//! are lost, though a majority of the voters grants it leases: it could neither go on without a copy behind the cut nor hand
//! anything over, for as long as the cut lasts. So the coordinator looks at whom it reports itself. (Whom a majority reports is declared
//! dead at once.) Where that lasts for a while, a voter that it hears and that reports fewer is made the coordinator.
//!
//! Fewer than it has missed for that long, not others: with every lead that is given like that the coordinator lacks less, so no
//! pattern of cuts sends it round. And each voter is asked once: while the lead is on its way nothing is decided, and one that
//! does not take it will not the next time either.

use crate::machine::Control;
use crate::step_down::Standing;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use types::{Instant, NodeId};

/// So long the coordinator must have reported somebody: what is no more than a moment ends by itself.
const PATIENCE: Duration = Duration::from_secs(1);
/// And so many times as long as a lead that nobody takes is on its way.
const ELECTIONS: u32 = 3;

/// What the coordinator remembers of that within its term.
#[derive(Default)]
pub(crate) struct Hearing {
    /// Whom it reports, and since when.
    since: BTreeMap<NodeId, Instant>,
    /// Whom it has asked to lead.
    asked: BTreeSet<NodeId>,
    asked_at: Option<Instant>,
}

impl Hearing {
    /// Notes whom the coordinator reports. How many of them it has reported for so long.
    fn missed(&mut self, now: Instant, unheard: &BTreeSet<NodeId>, patience: Duration) -> usize {
        self.since.retain(|node, _| unheard.contains(node));
        for &node in unheard {
            self.since.entry(node).or_insert(now);
        }
        if unheard.is_empty() {
            self.asked.clear();
        }
        self.since.values().filter(|&&at| now.since(at) >= patience).count()
    }
}

/// Has another voter lead, where one hears more. True where one was asked: then nothing else is decided now.
pub(crate) fn tick(control: &mut Control, now: Instant) -> bool {
    let me = control.config.me.node;
    let unheard = control.reported_by(me);
    let patience = PATIENCE.max(control.config.election * ELECTIONS);
    let hearing = &mut control.coordinator.hearing;
    let missed = hearing.missed(now, &unheard, patience);
    if missed == 0 || hearing.asked_at.is_some_and(|at| now.since(at) < patience) {
        return false;
    }
    let next = control
        .next_leaders()
        .filter(|standing| may_lead(control, standing.node, &unheard))
        .map(|standing| (control.reported_by(standing.node), standing))
        .filter(|(reported, _)| reported.len() < missed && !reported.contains(&me))
        .min_by_key(|(reported, standing)| (reported.len(), Reverse(standing.fitness)));
    let Some((_, Standing { seat, node, .. })) = next else { return false };
    let hearing = &mut control.coordinator.hearing;
    hearing.asked.insert(node);
    hearing.asked_at = Some(now);
    control.transfer_lead(seat);
    true
}

/// Whether a voter is heard, is to stay, can take the lead over at once, and was not asked before.
fn may_lead(control: &Control, node: NodeId, unheard: &BTreeSet<NodeId>) -> bool {
    let coordinator = &control.coordinator;
    let is_asked = coordinator.hearing.asked.contains(&node);
    !unheard.contains(&node)
        && !is_asked
        && !coordinator.leaving.contains_key(&node)
        && control.has_caught_up(node)
}
