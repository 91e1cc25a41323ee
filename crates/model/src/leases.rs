//! Leases, reports and deaths: every heart the shipping one, every map made by the shipping commands.
//!
//! Node 1 holds a lease and is primary, node 9 is its only heir, and voters grant. Nobody else beats. The heir is taken to hold a lease
//! all the time, so it serves from the moment at which node 1's death is decided; what has to hold is that node 1 does not.
//!
//! **Time** goes on in steps, for all nodes at once, up to a bound. The voters' clocks run faster than the holder's by as much as
//! the grace allows for ([`RATE`], [`VOTERS_RATE`], [`LEASE`], [`GRACE`]), which is the worst case. In one step a node ticks once, or not
//! at all, as a process that stands still. A heartbeat may reach a voter at any moment; those before it that have not are lost then. Its
//! answer arrives at once: later, or never, it would only make less of a lease.
//!
//! **In place of the consensus group** there is one agreed list of entries, which voters apply one after another, each at any
//! moment. **In place of `Control`** is what it does about reports, written down once more from `Control::heart`, `settle_reports`,
//! `coordinator::message` and `reported_dead`: a report is durable before it is told, it counts for its own term and as long as no entry
//! has answered it, and a majority of the voters makes a death. Words of a voter may reach the coordinator late, and out of order.

use crate::copy::{Map, plant};
use crate::digest::Digest;
use crate::members::registration;
use control::command::{Answered, Command, apply};
use control::{
    Beat, Heart, HeartConfig, HeartEffects, HeartInput, HeartNotice, Identity, Kept, Pulse, Registration,
};
use placement::{ClusterMap, Seat};
use stateright::{Model, Property};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use types::planted::Bug;
use types::{Incarnation, Instant, Level, NodeId};

/// How far the holder's clock goes in a step.
const RATE: u64 = 10;
/// And those of the voters: a tenth faster.
const VOTERS_RATE: u64 = 11;
/// How long a lease runs on the holder's clock: through one step after the one in which its heartbeat was sent.
const LEASE: Duration = Duration::from_nanos(19);
/// A tenth more: a voter that granted in one step reports in the second after it, not before.
const GRACE: Duration = Duration::from_nanos(21);
/// A heartbeat in each step.
const HEARTBEAT: Duration = Duration::from_nanos(RATE);
/// The steps before the model begins. Clocks do not begin at 0, which stands for "never".
const WARM_UP: u64 = 10;
const HOLDER: NodeId = NodeId(1);
const HEIR: NodeId = NodeId(9);

/// What may happen, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How many voters there are.
    pub voters: u16,
    /// Whether the holder is one of them.
    pub holder_votes: bool,
    /// Steps of time.
    pub steps: u8,
    /// Whether voters, too, may stand still for a step.
    pub voters_sleep: bool,
    /// Voters that start again.
    pub restarts: u8,
    /// Times that the holder is admitted again after its death was declared.
    pub ups: u8,
    /// New terms of the coordinator.
    pub terms: u8,
    /// Entries that are decided: deaths, answers, admissions and new terms together.
    pub entries: u8,
    /// Plants of the model's own.
    pub plant: Plant,
}

/// What the model itself can be made to do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Nothing.
    Nothing,
    /// A voter's reports do not outlive its process.
    ReportsForgotten,
    /// A voter's file may forget the entry that answered a report, and not that it was answered.
    AnswersForgotten,
    /// The coordinator counts reports that were answered.
    AnsweredCount,
}

/// A model of leases.
pub struct Leases {
    /// What may happen.
    pub bounds: Bounds,
    bug: Option<Bug>,
}

/// A heart, with its digest.
#[derive(Clone, Debug)]
struct Beating {
    heart: Heart,
    digest: Digest,
}

impl PartialEq for Beating {
    fn eq(&self, other: &Beating) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Beating {}

impl Hash for Beating {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.digest.hash(hasher);
    }
}

/// A voter's report of the holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Report {
    term: u64,
    applied: u64,
    mark: u64,
}

/// A node with a heart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    id: NodeId,
    heart: Arc<Beating>,
    /// The entries that its control machine has applied: on the holder, where it does not vote, the map that it follows.
    applied: u64,
    /// So many of them its file tells of at least.
    durable: u64,
    /// The version of the map that its shards act on.
    acted: u64,
    /// The coordinator's term, as far as it knows.
    term: u64,
    report: Option<Report>,
    /// It has heard the holder since it reported it.
    heard: bool,
    ticked: bool,
}

/// An entry of the agreed list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Entry {
    term: u64,
    /// The map after it.
    map: Map,
    /// The voters whose reports of the holder it answers.
    answers: BTreeSet<NodeId>,
}

/// What a voter tells the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Word {
    voter: NodeId,
    term: u64,
    applied: u64,
    /// Whether it hears the holder again.
    heard: bool,
}

/// A state of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    time: u64,
    /// The holder first.
    nodes: Vec<Node>,
    /// On the way to a voter.
    links: BTreeMap<NodeId, Vec<Sent>>,
    entries: Vec<Entry>,
    term: u64,
    words: BTreeSet<Word>,
    /// By voter, what it had applied when it reported the holder: as the coordinator has heard.
    reports: BTreeMap<NodeId, u64>,
    dismissals: BTreeSet<NodeId>,
    /// The newest entry that declares the holder dead.
    died_at: u64,
    restarted: bool,
    restarts: u8,
    ups: u8,
}

/// A heartbeat on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Sent {
    sent_at: u64,
    stalled: bool,
}

/// What a heart is told.
enum Event {
    Tick(Pulse),
    Input(HeartInput),
    Beat(NodeId, Beat),
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Time goes on.
    Pass,
    /// A node's heart ticks.
    Tick(NodeId),
    /// A heartbeat reaches a voter, and those before it are lost.
    Deliver(NodeId, usize),
    /// A voter applies the next entry.
    Apply(NodeId),
    /// A voter hears of the newest term, before it applies an entry of it.
    Follow(NodeId),
    /// The holder's shards act on a newer map.
    Act(u64),
    /// A voter's word reaches the coordinator.
    Hear(Word),
    /// A voter says again what it has to say.
    Tell(NodeId),
    /// The coordinator declares the holder dead.
    Bury,
    /// It answers a voter that hears the holder again.
    Dismiss(NodeId),
    /// The holder is admitted again.
    Up,
    /// Another term begins.
    Term,
    /// A voter starts again, and has applied what its file tells of at least, or all that it had.
    Restart(NodeId, bool),
}

fn identity(node: NodeId) -> Identity {
    Identity { node, incarnation: Incarnation(1), directory: 1 }
}

impl Leases {
    /// A model within these bounds, with a bug planted or none.
    pub fn new(bounds: Bounds, bug: Option<Bug>) -> Leases {
        Leases { bounds, bug }
    }

    fn voters(&self) -> Vec<NodeId> {
        let first = if self.bounds.holder_votes { 1 } else { 2 };
        (first..first + self.bounds.voters).map(NodeId).collect()
    }

    fn clock(&self, node: NodeId, time: u64) -> Instant {
        let rate = if node == HOLDER { RATE } else { VOTERS_RATE };
        Instant((time + WARM_UP) * rate)
    }

    fn config(&self, me: NodeId, reported: bool) -> HeartConfig {
        let voters = self.voters();
        HeartConfig {
            me: identity(me),
            listed: voters.clone(),
            votes: voters.contains(&me),
            voters,
            heartbeat: HEARTBEAT,
            lease: LEASE,
            grace: GRACE,
            reported: if reported { vec![(HOLDER, Incarnation(1))] } else { Vec::new() },
        }
    }

    /// The holder and its heir are alive and in sync, and the voters are members that are neither alive nor dead: of them nobody says
    /// anything.
    fn first_map(&self) -> Map {
        let mut map = ClusterMap { level: Level::HIGHEST, ..ClusterMap::default() };
        let voters = self.voters();
        let members: BTreeSet<NodeId> = voters.iter().copied().chain([HOLDER, HEIR]).collect();
        let create = Command::Create {
            cluster_id: String::new(),
            copies: 2,
            min_in_sync: 1,
            members: members.into_iter().collect(),
            voters,
            placement: vec![vec![HOLDER, HEIR]],
        };
        let ups = [HOLDER, HEIR].map(|node| Command::Up(first_start(node)));
        for command in [create].into_iter().chain(ups).chain([Command::Activate]) {
            apply(&mut map, &command, &mut Vec::new());
        }
        for seat in &mut map.seats {
            *seat = Seat { directory: 1, ..*seat };
        }
        map.version = 1;
        Map::new(map)
    }

    /// Runs a node's heart, and passes on what it wants done.
    fn run(&self, state: &mut State, at: usize, event: Event) {
        let id = state.nodes[at].id;
        let now = self.clock(id, state.time);
        let mut heart = state.nodes[at].heart.heart.clone();
        plant(self.bug);
        match event {
            Event::Tick(pulse) => heart.tick(now, pulse),
            Event::Input(input) => heart.input(now, input),
            Event::Beat(from, beat) => heart.beat(now, 0, identity(from), beat, 0),
        }
        plant(None);
        let HeartEffects { beats, notices } = std::mem::take(heart.effects());
        let digest = Digest::of(&heart);
        state.nodes[at].heart = Arc::new(Beating { heart, digest });
        let is_there = |state: &State, to| state.nodes.iter().any(|node| node.id == to);
        for (to, beat) in beats {
            match beat {
                // Only the holder's heartbeats are looked at.
                Beat::Heartbeat { sent_at, stalled, .. } if id == HOLDER && is_there(state, to) => {
                    state.links.entry(to).or_default().push(Sent { sent_at, stalled });
                }
                Beat::Grant { .. } | Beat::Refusal { .. } if to == HOLDER => {
                    self.run(state, 0, Event::Beat(id, beat));
                }
                _ => {}
            }
        }
        for notice in notices {
            self.notice(state, at, notice);
        }
    }

    /// As `Control::heart`.
    fn notice(&self, state: &mut State, at: usize, notice: HeartNotice) {
        match notice {
            HeartNotice::Silent { node: HOLDER, incarnation, mark, .. } => {
                let node = &mut state.nodes[at];
                let map = &state.entries[node.applied as usize - 1].map.map;
                let is_alive =
                    map.member(HOLDER).is_some_and(|m| m.incarnation == incarnation && m.is_alive());
                if is_alive {
                    node.report = Some(Report { term: node.term, applied: node.applied, mark });
                    node.heard = false;
                    // A report is synced, and with it all that stands in the file before.
                    node.durable = node.applied;
                    self.tell(state, at);
                } else {
                    let map = map.clone();
                    let cleared = vec![(HOLDER, mark)];
                    self.run(state, at, Event::Input(HeartInput::Applied { map, cleared }));
                }
            }
            HeartNotice::Heard { node: HOLDER, .. } => {
                let was_heard = std::mem::replace(&mut state.nodes[at].heard, true);
                if !was_heard {
                    self.tell(state, at);
                }
            }
            _ => {}
        }
    }

    /// As `Control::send_reports`.
    fn tell(&self, state: &mut State, at: usize) {
        let node = &state.nodes[at];
        let term = node.term;
        if let Some(report) = node.report
            && (report.term == term || node.heard)
        {
            let word = Word { voter: node.id, term, applied: node.applied, heard: node.heard };
            state.words.insert(word);
        }
    }

    /// As `Control::settle_reports`, for one entry.
    fn apply_next(&self, state: &mut State, at: usize) {
        let node = &mut state.nodes[at];
        node.applied += 1;
        let version = node.applied;
        let entry = &state.entries[version as usize - 1];
        let map = entry.map.map.clone();
        node.term = node.term.max(entry.term);
        let is_answered = |report: &Report| {
            report.term < entry.term || entry.answers.contains(&node.id) && version > report.applied
        };
        let mut cleared = Vec::new();
        if let Some(report) = node.report.filter(is_answered) {
            node.report = None;
            node.heard = false;
            if self.bounds.plant != Plant::AnswersForgotten {
                // That it was answered is synced, and with it all that stands in the file before.
                node.durable = version;
            }
            cleared.push((HOLDER, report.mark));
        }
        self.run(state, at, Event::Input(HeartInput::Applied { map, cleared }));
    }

    /// As `coordinator::reported_dead`.
    fn is_reported(&self, state: &State) -> bool {
        let map = &state.newest().map.map;
        let stands = |voter: NodeId| {
            let answered_at = state.entries.iter().rposition(|entry| entry.answers.contains(&voter));
            let answered_at = answered_at.map_or(0, |at| at as u64 + 1);
            let counts = self.bounds.plant == Plant::AnsweredCount;
            state.reports.get(&voter).is_some_and(|&applied| counts || applied >= answered_at)
        };
        map.is_alive(HOLDER) && map.is_majority(stands)
    }

    /// A command is decided. False where it changes nothing.
    fn decide(&self, state: &mut State, command: &Command) -> bool {
        let mut map = ClusterMap::clone(&state.newest().map.map);
        let mut answered: Vec<Answered> = Vec::new();
        apply(&mut map, command, &mut answered);
        map.version += 1;
        let of_holder = answered.iter().filter(|answer| answer.node == HOLDER);
        let answers: BTreeSet<NodeId> = of_holder
            .flat_map(|answer| match answer.voter {
                Some(voter) => vec![voter],
                None => self.voters(),
            })
            .collect();
        if answers.is_empty() {
            return false;
        }
        state.entries.push(Entry { term: state.term, map: Map::new(map), answers });
        true
    }
}

impl State {
    fn newest(&self) -> &Entry {
        &self.entries[self.entries.len() - 1]
    }

    fn at(&self, id: NodeId) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id)
    }

    fn holder_is_leased(&self, model: &Leases) -> bool {
        self.nodes[0].heart.heart.lease_until() > model.clock(HOLDER, self.time)
    }

    /// Whether the holder is primary of the map that it acts on.
    fn holder_leads(&self) -> bool {
        self.entries[self.nodes[0].acted as usize - 1].map.state().primary == Some(HOLDER)
    }
}

impl Model for Leases {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let first = self.first_map();
        let mut all = self.voters();
        all.retain(|voter| *voter != HOLDER);
        all.insert(0, HOLDER);
        let nodes = all.iter().map(|&id| {
            let mut heart = Heart::new(self.config(id, false), self.clock(id, 0));
            heart.input(
                self.clock(id, 0),
                HeartInput::Applied { map: first.map.clone(), cleared: Vec::new() },
            );
            let digest = Digest::of(&0);
            let heart = Arc::new(Beating { heart, digest });
            Node {
                id,
                heart,
                applied: 1,
                durable: 1,
                acted: 1,
                term: 1,
                report: None,
                heard: false,
                ticked: false,
            }
        });
        let mut state = State {
            time: 0,
            nodes: nodes.collect(),
            links: BTreeMap::new(),
            entries: vec![Entry { term: 1, map: first, answers: BTreeSet::new() }],
            term: 1,
            words: BTreeSet::new(),
            reports: BTreeMap::new(),
            dismissals: BTreeSet::new(),
            died_at: 0,
            restarted: false,
            restarts: self.bounds.restarts,
            ups: self.bounds.ups,
        };
        // The beginning: the holder's heartbeats are all granted, and all have ticked.
        state = self.next_state(&state, Action::Tick(HOLDER)).expect("a heart ticks");
        while let Some(to) = state.links.keys().next().copied() {
            state = self.next_state(&state, Action::Deliver(to, 0)).expect("a heartbeat arrives");
        }
        for id in all.into_iter().filter(|id| *id != HOLDER) {
            state = self.next_state(&state, Action::Tick(id)).expect("a heart ticks");
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.time < u64::from(self.bounds.steps) {
            actions.push(Action::Pass);
        }
        let newest = state.entries.len() as u64;
        let voters = self.voters();
        for node in &state.nodes {
            if !node.ticked {
                actions.push(Action::Tick(node.id));
            }
            let votes = voters.contains(&node.id);
            if votes && node.applied < newest {
                actions.push(Action::Apply(node.id));
            }
            if votes && node.term < state.term {
                actions.push(Action::Follow(node.id));
            }
            if node.id == HOLDER {
                let known = if votes { node.applied } else { newest };
                actions.extend((node.acted + 1..=known).map(Action::Act));
            } else if state.restarts > 0 {
                actions.push(Action::Restart(node.id, true));
                if node.durable < node.applied {
                    actions.push(Action::Restart(node.id, false));
                }
            }
        }
        for (&to, sent) in &state.links {
            actions.extend((0..sent.len()).map(|at| Action::Deliver(to, at)));
        }
        if newest > u64::from(self.bounds.entries) {
            return;
        }
        actions.extend(state.words.iter().map(|&word| Action::Hear(word)));
        for node in state.nodes.iter().filter(|node| voters.contains(&node.id) && node.report.is_some()) {
            actions.push(Action::Tell(node.id));
        }
        actions.extend(state.dismissals.iter().map(|&voter| Action::Dismiss(voter)));
        if self.is_reported(state) {
            actions.push(Action::Bury);
        }
        if state.ups > 0 && !state.newest().map.map.is_alive(HOLDER) {
            actions.push(Action::Up);
        }
        if state.term <= u64::from(self.bounds.terms) {
            actions.push(Action::Term);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Pass => {
                for voter in
                    self.voters().into_iter().filter(|voter| *voter != HOLDER && !self.bounds.voters_sleep)
                {
                    let at = state.at(voter)?;
                    if !state.nodes[at].ticked {
                        state = self.next_state(&state, Action::Tick(voter))?;
                    }
                }
                state.time += 1;
                state.nodes.iter_mut().for_each(|node| node.ticked = false);
            }
            Action::Tick(id) => {
                let at = state.at(id)?;
                state.nodes[at].ticked = true;
                let acted_version = state.nodes[at].acted;
                let pulse = Pulse { acted_version, ..Pulse::default() };
                self.run(&mut state, at, Event::Tick(pulse));
            }
            Action::Deliver(to, index) => {
                let sent = state.links.get_mut(&to)?;
                let Sent { sent_at, stalled } = sent.drain(..=index).next_back()?;
                if sent.is_empty() {
                    state.links.remove(&to);
                }
                let beat = Beat::Heartbeat { sent_at, stalled, keys: 0 };
                let at = state.at(to)?;
                self.run(&mut state, at, Event::Beat(HOLDER, beat));
            }
            Action::Apply(id) => {
                let at = state.at(id)?;
                self.apply_next(&mut state, at);
            }
            Action::Follow(id) => {
                let at = state.at(id)?;
                state.nodes[at].term = state.term;
            }
            Action::Act(version) => {
                state.nodes[0].acted = version;
                if !self.bounds.holder_votes {
                    state.nodes[0].applied = version;
                    let map = state.entries[version as usize - 1].map.map.clone();
                    let cleared = Vec::new();
                    self.run(&mut state, 0, Event::Input(HeartInput::Applied { map, cleared }));
                }
            }
            Action::Hear(word) => {
                state.words.remove(&word);
                if word.term != state.term {
                    return Some(state);
                }
                if word.heard {
                    state.reports.remove(&word.voter);
                    state.dismissals.insert(word.voter);
                } else {
                    state.reports.insert(word.voter, word.applied);
                }
            }
            Action::Tell(id) => {
                let at = state.at(id)?;
                self.tell(&mut state, at);
                if state.words == last.words {
                    return None;
                }
            }
            Action::Bury => {
                let nodes = vec![(HOLDER, Incarnation(1))];
                if !self.decide(&mut state, &Command::Down { nodes, promote: Vec::new() }) {
                    return None;
                }
                state.reports.clear();
                state.died_at = state.entries.len() as u64;
            }
            Action::Dismiss(voter) => {
                state.dismissals.remove(&voter);
                let command = Command::Dismiss { voter, node: HOLDER, incarnation: Incarnation(1) };
                if !self.decide(&mut state, &command) {
                    return None;
                }
            }
            Action::Up => {
                state.ups -= 1;
                if !self.decide(&mut state, &Command::Up(first_start(HOLDER))) {
                    return None;
                }
            }
            Action::Term => {
                state.term += 1;
                (state.reports, state.dismissals) = (BTreeMap::new(), BTreeSet::new());
                let mut map = ClusterMap::clone(&state.newest().map.map);
                map.version += 1;
                let answers = BTreeSet::new();
                state.entries.push(Entry { term: state.term, map: Map::new(map), answers });
            }
            Action::Restart(id, all) => {
                state.restarts -= 1;
                state.restarted = true;
                let at = state.at(id)?;
                let reported =
                    state.nodes[at].report.is_some() && self.bounds.plant != Plant::ReportsForgotten;
                let now = self.clock(id, state.time);
                let heart = Heart::new(self.config(id, reported), now);
                let node = &mut state.nodes[at];
                if !all {
                    node.applied = node.durable;
                }
                // Marks are the heart's own, which starts anew.
                node.report = node.report.filter(|_| reported).map(|report| Report { mark: 0, ..report });
                node.heard = false;
                node.heart = Arc::new(Beating { heart, digest: Digest::of(&0) });
                let map = state.entries[state.nodes[at].applied as usize - 1].map.map.clone();
                let cleared = Vec::new();
                state.links.remove(&id);
                self.run(&mut state, at, Event::Input(HeartInput::Applied { map, cleared }));
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Leases>> {
        let mut properties = vec![
            Property::<Leases>::always("a deposed primary holds no lease", |model, state| {
                let is_deposed = state.newest().map.state().primary != Some(HOLDER);
                !(is_deposed && state.holder_leads() && state.holder_is_leased(model))
            }),
            Property::<Leases>::always(
                "whoever was declared dead holds no lease before it knows",
                |model, state| state.nodes[0].acted >= state.died_at || !state.holder_is_leased(model),
            ),
            Property::<Leases>::sometimes("a death is decided", |_, state| state.died_at > 0),
            Property::<Leases>::sometimes("a lease is renewed", |model, state| {
                state.time >= 2 && state.holder_is_leased(model)
            }),
            Property::<Leases>::sometimes("a report is withdrawn", |_, state| {
                state.died_at == 0 && state.entries.iter().any(|entry| !entry.answers.is_empty())
            }),
        ];
        if self.bounds.ups > 0 {
            properties.push(Property::<Leases>::sometimes(
                "the dead is admitted and holds a lease",
                |model, state| {
                    state.ups < model.bounds.ups
                        && state.holder_is_leased(model)
                        && state.nodes[0].acted > state.died_at
                },
            ));
        }
        if self.bounds.restarts > 0 {
            properties.push(Property::<Leases>::sometimes(
                "a death is decided though a voter restarted",
                |_, state| state.restarted && state.died_at > 0,
            ));
        }
        if self.bounds.terms > 0 {
            properties.push(Property::<Leases>::sometimes(
                "a death is decided in a later term",
                |_, state| {
                    state.term > 1 && state.died_at > 0 && state.entries[state.died_at as usize - 1].term > 1
                },
            ));
        }
        properties
    }
}

/// A node as it registers when it has just been made.
fn first_start(node: NodeId) -> Registration {
    registration(node, Incarnation(1), Kept::nothing(Incarnation(1)))
}
