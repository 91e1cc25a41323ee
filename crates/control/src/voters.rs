//! Who votes: 1, 3 or 5 of the nodes, by how many there are, spread over zones. The coordinator's decisions, from the map and from
//! who has been alive and away for how long.
//!
//! [`wanted`] says who should vote, [`step`] what is next on the way there: nodes that are to vote get seats and learn the log;
//! once they all have caught up, the voters change in two entries, between which old and new voters count together (rule 6); then those that
//! vote no more give up their seats. One step at a time, each when the one before is applied. When the voters are the wanted ones, nothing is left
//! to do: whoever votes is preferred, so what is wanted stays what is.
//!
//! A voter that is dead is replaced after a while, where somebody else can vote. Deaths alone never make one voter of three:
//! what the cluster knows of itself would be on one disk then. An operator who removes the dead node can.

use crate::machine::Control;
use crate::seats::{self, Step};
use placement::{ClusterMap, Member, MemberState, Seat};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use types::{Incarnation, Instant, Level, NodeId};

/// So long a node has to have been alive before it becomes a voter: who has just started may stop again.
const STEADY: Duration = Duration::from_secs(1);
/// Between two attempts to make another voter the coordinator.
const TRANSFER: Duration = Duration::from_secs(2);
/// Between two looks at the map.
const LOOK: Duration = Duration::from_millis(50);
/// So long a learner may take. Beyond that another is tried, where there is one; and this one again after a while.
const LEARNING: Duration = Duration::from_secs(10);
const SLOW: Duration = Duration::from_secs(60);

/// What the coordinator remembers of its voters within its term.
#[derive(Default)]
pub(crate) struct Voters {
    /// Since when each member has been what it is: in which start, and alive or not.
    since: BTreeMap<NodeId, (Incarnation, MemberState, Instant)>,
    /// When each node that has a seat and does not vote last had all of the log, or got the seat.
    learning: BTreeMap<NodeId, Instant>,
    looked_at: Option<Instant>,
    transferred_at: Option<Instant>,
}

/// Makes the next step. True where one was made: then nothing else is decided now.
pub(crate) fn tick(control: &mut Control, now: Instant) -> bool {
    let voters = &mut control.coordinator.voters;
    if voters.looked_at.is_some_and(|at| now.since(at) < LOOK) {
        return false;
    }
    voters.looked_at = Some(now);
    let map = control.map.clone();
    if map.level < Level::VOTERS_FOLLOW {
        return false;
    }
    let nodes = map.seats.iter().map(|seat| seat.node);
    let caught_up: BTreeSet<NodeId> = nodes.filter(|node| control.has_caught_up(*node)).collect();
    let voters = &mut control.coordinator.voters;
    voters.note(now, &map, &caught_up);
    let roster = voters.roster(now, &map, control.config.voters_max, control.config.replace_voter_after);
    let wanted = wanted(&map, &roster);
    let step = step(&map, &wanted, control.config.me.node, &caught_up);
    let Some(step) = step else { return false };
    if matches!(step, Step::Transfer(_)) {
        // Meanwhile nothing is decided: where the other does not take over, this one has its time first.
        let transferred_at = &mut control.coordinator.voters.transferred_at;
        if transferred_at.is_some_and(|at| now.since(at) < TRANSFER) {
            return false;
        }
        *transferred_at = Some(now);
    }
    control.take_step(&step)
}

impl Control {
    /// Takes a step towards other voters. False where it cannot be taken now.
    fn take_step(&mut self, step: &Step) -> bool {
        if let Step::Transfer(node) = step {
            if let Some(seat) = self.map.seat(*node).map(Seat::id) {
                self.transfer_lead(seat);
            }
            return true;
        }
        // The log holds nothing that is not applied.
        let entry = seats::entry(&self.map, step, self.applied_index + 1);
        let Some(raft) = &mut self.raft else { return false };
        entry.is_some_and(|entry| raft.propose_conf_change(Vec::new(), entry).is_ok())
    }
}

/// Who may vote, and how many are to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// Nodes that may be given a vote now.
    pub fit: BTreeSet<NodeId>,
    /// Voters that are dead, but not for long: nobody takes their place yet.
    pub missed: BTreeSet<NodeId>,
    /// How many voters there should be: 1, 3 or 5.
    pub number: usize,
}

impl Voters {
    /// Notes how the members are.
    fn note(&mut self, now: Instant, map: &ClusterMap, caught_up: &BTreeSet<NodeId>) {
        for member in &map.members {
            let is = (member.incarnation, member.state);
            let noted = self.since.entry(member.id).or_insert((is.0, is.1, now));
            if (noted.0, noted.1) != is {
                *noted = (is.0, is.1, now);
            }
        }
        self.since.retain(|node, _| map.member(*node).is_some());
        let learners = map.seats.iter().map(|seat| seat.node).filter(|node| !map.is_voter(*node));
        let learners: BTreeSet<NodeId> = learners.collect();
        // Who was too slow is remembered as such for a while, unless it has started again since.
        self.learning.retain(|node, at| {
            let lives_on = self.since.get(node).is_some_and(|noted| noted.2 <= *at);
            let is_slow = (LEARNING..SLOW).contains(&now.since(*at));
            lives_on && (is_slow || learners.contains(node) && now.since(*at) < SLOW)
        });
        for node in learners {
            let at = self.learning.entry(node).or_insert(now);
            if caught_up.contains(&node) {
                *at = now;
            }
        }
    }

    fn roster(&self, now: Instant, map: &ClusterMap, most: usize, replace_after: Duration) -> Roster {
        let has_been = |member: &Member, time: Duration| {
            self.since.get(&member.id).is_some_and(|noted| now.since(noted.2) >= time)
        };
        let mut roster = Roster::default();
        for member in map.members.iter().filter(|member| !member.draining) {
            let votes = map.voters.contains(&member.id) && is_seated(map, member);
            if member.state == MemberState::Active {
                let is_slow = self.learning.get(&member.id).is_some_and(|at| now.since(*at) >= LEARNING);
                if votes || has_been(member, STEADY) && !is_slow {
                    roster.fit.insert(member.id);
                }
            } else if votes && (replace_after == Duration::ZERO || !has_been(member, replace_after)) {
                roster.missed.insert(member.id);
            }
        }
        let stays = map.members.iter().filter(|member| !member.draining).count();
        let there = roster.fit.len() + roster.missed.len();
        roster.number = number(there).max(number(stays).min(3)).min(most.max(1));
        roster
    }
}

/// How many of so many nodes vote.
pub fn number(nodes: usize) -> usize {
    match nodes {
        0..=2 => 1,
        3 | 4 => 3,
        _ => 5,
    }
}

/// Whether a member's seat is that of the data directory that it is on.
fn is_seated(map: &ClusterMap, member: &Member) -> bool {
    let is_its = |directory| directory == 0 || directory == member.directory;
    map.seat(member.id).is_some_and(|seat| is_its(seat.directory))
}

/// Who should vote. Sorted; empty where nobody can.
///
/// Chosen one after another: the living before the dead, then from the zones that have the fewest, then witnesses, who are there for
/// it, then those that vote already, then those that have been there for longest.
pub fn wanted(map: &ClusterMap, roster: &Roster) -> Vec<NodeId> {
    let votes = |member: &Member| map.voters.contains(&member.id) && is_seated(map, member);
    let mut left: Vec<&Member> = map
        .members
        .iter()
        .filter(|member| {
            // A dead voter is better than none where there are too few others.
            roster.fit.contains(&member.id) || votes(member) && !member.draining
        })
        .collect();
    let mut zones: BTreeMap<String, usize> = BTreeMap::new();
    let zone = |member: &Member| match member.zone.as_str() {
        "" => format!("\0{}", member.id),
        zone => zone.to_owned(),
    };
    let mut wanted = Vec::new();
    while wanted.len() < roster.number {
        let order = |member: &&&Member| {
            let is_there = roster.fit.contains(&member.id) || roster.missed.contains(&member.id);
            let crowd = zones.get(&zone(member)).copied().unwrap_or(0);
            (!is_there, crowd, !member.witness, !votes(member), member.incarnation, member.id)
        };
        let Some(next) = left.iter().min_by_key(order).copied() else { break };
        left.retain(|member| member.id != next.id);
        *zones.entry(zone(next)).or_default() += 1;
        wanted.push(next.id);
    }
    // An even number would need as many of them as one more does.
    if wanted.len().is_multiple_of(2) {
        wanted.pop();
    }
    wanted.sort_unstable();
    wanted
}

/// The next step towards the wanted voters; none where they are the voters, or where somebody has to catch up first.
pub fn step(map: &ClusterMap, wanted: &[NodeId], me: NodeId, caught_up: &BTreeSet<NodeId>) -> Option<Step> {
    let is_ready = |node: NodeId| map.is_active(node) && caught_up.contains(&node);
    if !map.old_voters.is_empty() {
        // Only one that goes on voting may end it: it stays the coordinator.
        let heir = || map.voters.iter().copied().find(|&node| is_ready(node));
        return if map.voters.contains(&me) { Some(Step::End) } else { heir().map(Step::Transfer) };
    }
    if wanted.is_empty() {
        return None;
    }
    let is_valid = |node: &NodeId| map.member(*node).is_none_or(|member| is_seated(map, member));
    // A seat whose directory is lost never speaks again: without it a majority needs no more voices than before.
    let whole: Vec<NodeId> = map.voters.iter().copied().filter(is_valid).collect();
    if whole.len() < map.voters.len() && !whole.is_empty() && whole.iter().all(|&node| map.is_active(node)) {
        return Some(Step::Begin(whole));
    }
    let is_wanted = |node: &NodeId| map.voters.contains(node) || wanted.contains(node) && is_valid(node);
    if let Some(node) = map.seats.iter().map(|seat| seat.node).find(|node| !is_wanted(node)) {
        return Some(Step::Unseat(node));
    }
    if let Some(member) = wanted.iter().filter(|node| map.seat(**node).is_none()).find_map(|&n| map.member(n))
    {
        return Some(Step::Seat { node: member.id, directory: member.directory });
    }
    let mut others = wanted.iter().filter(|node| !map.voters.contains(node));
    let changes = wanted != map.voters;
    // Whoever is to vote from then on has to be able to: the change ends only with a majority of them.
    let able = wanted.iter().filter(|node| is_ready(**node)).count() > wanted.len() / 2;
    (changes && able && others.all(|&node| is_ready(node))).then(|| Step::Begin(wanted.to_vec()))
}

impl Control {
    /// Whether a member of the group holds all of this leader's log.
    pub(crate) fn has_caught_up(&self, node: NodeId) -> bool {
        let seat = self.map.seat(node);
        seat.zip(self.raft.as_ref()).is_some_and(|(seat, raft)| seats::has_caught_up(raft, seat.id()))
    }
}

#[cfg(test)]
#[path = "voters_tests.rs"]
mod tests;
