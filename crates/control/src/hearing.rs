//! A coordinator that does not hear a node which others hear has one of those lead.
//!
//! A link may be cut between two nodes that both reach all others. Where one of them is the coordinator, the other one's proposals
//! are lost, though a majority of the voters grants it leases: it could neither go on without a copy behind the cut nor hand
//! anything over, for as long as the cut lasts. So the coordinator looks at whom it reports itself, and a majority does not. Where
//! that lasts for [`PATIENCE`], a voter that it hears and that reports fewer is made the coordinator.
//!
//! Fewer, not others: with every lead that is given like that the coordinator lacks less, so no pattern of cuts sends it round.

use crate::machine::Control;
use crate::step_down::Standing;
use std::cmp::Reverse;
use std::time::Duration;
use types::Instant;

/// So long somebody must have been reported by the coordinator and not by a majority: what is no more than a moment ends by itself.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the coordinator remembers of that within its term.
#[derive(Default)]
pub(crate) struct Hearing {
    /// Since when it has not heard somebody; or since it last asked another to lead.
    deaf_since: Option<Instant>,
}

/// Has another voter lead, where one hears more. True where one was asked: then nothing else is decided now.
pub(crate) fn tick(control: &mut Control, now: Instant) -> bool {
    let me = control.config.me.node;
    let unheard = control.reported_by(me);
    let deaf_since = &mut control.coordinator.hearing.deaf_since;
    if unheard.is_empty() {
        *deaf_since = None;
        return false;
    }
    if now.since(*deaf_since.get_or_insert(now)) < PATIENCE {
        return false;
    }
    let hears_more = |standing: &Standing| control.reported_by(standing.node).len() < unheard.len();
    let heard = |standing: &Standing| !unheard.contains(&standing.node);
    let next = control
        .next_leaders()
        .filter(|standing| heard(standing) && hears_more(standing))
        .min_by_key(|standing| (control.reported_by(standing.node).len(), Reverse(standing.fitness)));
    let Some(seat) = next.map(|standing| standing.seat) else { return false };
    control.coordinator.hearing.deaf_since = Some(now);
    control.transfer_lead(seat);
    true
}
