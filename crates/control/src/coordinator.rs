//! The coordinator's decisions: what the leader of the consensus group makes of what it hears.
//!
//! It makes the cluster, admits nodes that start, gives fresh partitions their first in-sync sets, declares dead
//! whom a majority of voters report (rule 6), and puts primaries' changes into the log (rule 3). All that a turn
//! gathers goes into one entry, and the next entry waits until that one is applied, so a death that concerns a
//! thousand partitions costs one round (rule 15).
//!
//! Nothing here outlives the term: a new coordinator hears again whatever still matters, because everyone repeats.

use crate::balance::{self, Balance};
use crate::command::{Command, is_doubtful as is_doubtful_partition, is_lost, is_news, is_valid_change};
use crate::hearing::{self, Hearing};
use crate::leave;
use crate::levels::Builds;
use crate::machine::Control;
use crate::message::{Change, Message, Order, Registration};
use crate::moves::{self, Moves};
use crate::voters::{self, Voters};
use placement::{ClusterMap, MemberState, PlanNode};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use types::{Epoch, Incarnation, Instant, NodeId, PartitionId, Position};

/// How long a new cluster waits for its listed nodes before it serves with those that are there.
const FORMING: Duration = Duration::from_secs(2);
/// How long possible primaries have to tell how far their logs reach.
const TAILS: Duration = Duration::from_millis(100);
/// How long a node that is reported and yet speaks has to be heard again by those who report it: a few heartbeats.
const DOUBT: Duration = Duration::from_millis(150);
/// How long a registration counts. Repeated three times as often.
const REGISTRATION: Duration = Duration::from_millis(300);

/// Orders of operators that wait for their turn. They are asked again.
const ORDERS_MAX: usize = 64;

/// What the coordinator remembers within its term.
#[derive(Default)]
pub struct Coordinator {
    term: u64,
    since: Option<Instant>,
    /// Who says that it has started, and when it last said so.
    registrations: BTreeMap<NodeId, (Registration, Instant)>,
    /// What starts of nodes have told of their builds. That holds in any term.
    builds: Builds,
    changes: BTreeMap<PartitionId, Change>,
    /// By node: the voters that report it, in which incarnation, and what they had applied when they said so.
    reports: BTreeMap<NodeId, BTreeMap<NodeId, (Incarnation, u64)>>,
    dismissals: BTreeSet<(NodeId, NodeId, Incarnation)>,
    accept_loss: bool,
    /// What operators have asked for.
    pub(crate) orders: Vec<Order>,
    /// Where copies should be.
    pub(crate) moves: Moves,
    /// Who should vote.
    pub(crate) voters: Voters,
    /// Whether it hears everybody.
    pub(crate) hearing: Hearing,
    /// Who says that it is about to stop; the map shows it from the next entry on.
    pub(crate) leaving: BTreeMap<NodeId, Incarnation>,
    /// Which primaries are to hand over.
    pub(crate) balance: Balance,
    /// Since when somebody is reported who reports others, or is this very node.
    doubt_since: Option<Instant>,
    asked: Option<Question>,
    asked_lost: Option<Question>,
    asked_doubtful: Option<Question>,
    pub(crate) asked_heirs: Option<Question>,
    last_question: u64,
}

/// An open question for the possible primaries of partitions that lose theirs.
pub(crate) struct Question {
    id: u64,
    /// Who is dead, or leaves.
    pub(crate) dead: BTreeMap<NodeId, Incarnation>,
    /// Those that have not answered.
    pub(crate) candidates: BTreeSet<NodeId>,
    /// Those that have.
    pub(crate) answered: BTreeSet<NodeId>,
    pub(crate) deadline: Instant,
    tails: BTreeMap<PartitionId, BTreeMap<NodeId, Position>>,
}

impl Coordinator {
    /// A node says that it has started. Kept also while this node does not lead: it may soon.
    pub fn register(&mut self, now: Instant, registration: Registration) {
        self.builds.hear(&registration);
        self.registrations.insert(registration.node, (registration, now));
    }

    fn begin_term(&mut self, term: u64) {
        let registrations = std::mem::take(&mut self.registrations);
        let (builds, last_question) = (std::mem::take(&mut self.builds), self.last_question);
        *self = Coordinator { term, registrations, builds, last_question, ..Coordinator::default() };
    }
}

/// A message that only the coordinator has a use for.
pub fn message(control: &mut Control, now: Instant, from: NodeId, message: Message) {
    if let Message::Register(registration) = message {
        if registration.node == from {
            control.coordinator.register(now, registration);
        }
        return;
    }
    if !control.is_coordinator() {
        return;
    }
    let term = control.term();
    let map = control.map.clone();
    let coordinator = &mut control.coordinator;
    if coordinator.term != term {
        coordinator.begin_term(term);
        coordinator.since = Some(now);
    }
    match message {
        Message::Propose(changes) => {
            for change in changes.into_iter().filter(|change| change.primary == from) {
                coordinator.changes.insert(change.partition, change);
            }
        }
        Message::Report { term: reported_in, applied, silent, heard }
            if reported_in == term && map.is_voter(from) =>
        {
            for (node, incarnation) in heard {
                if let Some(voters) = coordinator.reports.get_mut(&node) {
                    voters.remove(&from);
                }
                coordinator.dismissals.insert((from, node, incarnation));
            }
            for (node, incarnation) in silent {
                coordinator.reports.entry(node).or_default().insert(from, (incarnation, applied));
            }
        }
        Message::Tails { question, tails } => {
            let open = coordinator
                .asked
                .iter_mut()
                .chain(&mut coordinator.asked_lost)
                .chain(&mut coordinator.asked_doubtful)
                .chain(&mut coordinator.asked_heirs);
            for asked in open.filter(|asked| asked.id == question) {
                asked.candidates.remove(&from);
                asked.answered.insert(from);
                for &(partition, tail) in &tails {
                    asked.tails.entry(partition).or_default().insert(from, tail);
                }
            }
        }
        Message::AcceptLoss => coordinator.accept_loss = true,
        Message::Order(order) if coordinator.orders.len() < ORDERS_MAX => coordinator.orders.push(order),
        Message::HandOver { partition, heir } => coordinator.balance.ask(partition, heir),
        Message::Leave(incarnation) => {
            coordinator.leaving.insert(from, incarnation);
        }
        _ => {}
    }
}

/// Decides what is due, and puts it into the log.
pub fn tick(control: &mut Control, now: Instant) {
    if !control.is_coordinator() {
        return;
    }
    let term = control.term();
    if control.coordinator.term != term {
        control.coordinator.begin_term(term);
        control.coordinator.since = Some(now);
    }
    // While another voter is being made the coordinator, the log takes nothing in.
    if !control.is_settled() || control.gives_lead() {
        return;
    }
    if !control.map.members.is_empty() && (hearing::tick(control, now) || voters::tick(control, now)) {
        return;
    }
    let mut commands = Vec::new();
    if control.map.members.is_empty() {
        commands.push(creation(control));
    } else {
        admit(control, now, &mut commands);
        activate(control, now, &mut commands);
        dismiss(control, &mut commands);
        bury(control, now, &mut commands);
        change(control, &mut commands);
        leave::tick(control, now, &mut commands);
        accept_loss(control, now, &mut commands);
        recover(control, now, &mut commands);
        balance::tick(control, now, &mut commands);
        // Last: whatever else changes a partition in this entry makes its move void.
        moves::tick(control, now, &mut commands);
    }
    let level = control.map.level;
    commands.retain(|command| command.needs() <= level);
    if commands.is_empty() {
        // Alone in its entry, which an older build would not read: whatever else stood there would be lost to it.
        let map = control.map.clone();
        commands.extend(control.coordinator.builds.raise(&map));
    }
    if !commands.is_empty() && !control.propose(&commands) {
        control.coordinator.begin_term(term);
    }
}

fn creation(control: &Control) -> Command {
    let config = &control.config;
    let told = |id| control.coordinator.registrations.get(&id).map(|(registration, _)| registration);
    let nodes: Vec<PlanNode> = config.listed.iter().map(|&id| moves::listed(id, told(id))).collect();
    let placement = placement::plan_new(config.partitions, config.copies, &nodes);
    Command::Create {
        cluster_id: config.cluster_id.clone(),
        copies: config.copies,
        min_in_sync: config.min_in_sync,
        members: config.listed.clone(),
        voters: config.voters.clone(),
        placement: placement.iter().map(|copies| copies.iter().collect()).collect(),
    }
}

fn admit(control: &mut Control, now: Instant, commands: &mut Vec<Command>) {
    let map = control.map.clone();
    let registrations = std::mem::take(&mut control.coordinator.registrations);
    // Who lives says so again and again: an old word may be a dead node's.
    let fresh = registrations.into_values().filter(|(_, at)| now.since(*at) < REGISTRATION);
    commands
        .extend(fresh.map(|(registration, _)| registration).filter(|r| is_news(&map, r)).map(Command::Up));
}

fn activate(control: &mut Control, now: Instant, commands: &mut Vec<Command>) {
    let map = &control.map;
    let fresh = |state: &placement::PartitionState| {
        state.epoch == Epoch(0) && state.copies.iter().any(|node| map.is_active(node))
    };
    if !map.partitions.iter().any(fresh) {
        return;
    }
    let all_here = map.members.iter().all(|member| member.state != MemberState::Joining);
    let waited = control.coordinator.since.is_some_and(|since| now.since(since) > FORMING);
    if all_here || waited {
        commands.extend(moves::first_placement(map));
        commands.push(Command::Activate);
    }
}

fn dismiss(control: &mut Control, commands: &mut Vec<Command>) {
    let dismissals = std::mem::take(&mut control.coordinator.dismissals);
    commands.extend(dismissals.into_iter().map(|(voter, node, incarnation)| Command::Dismiss {
        voter,
        node,
        incarnation,
    }));
}

impl Control {
    /// Whether this voter's report of a node stands: of the start that the map shows alive, and not answered.
    fn is_reported_by(&self, voter: NodeId, node: NodeId, by: &BTreeMap<NodeId, (Incarnation, u64)>) -> bool {
        let alive = self.map.member(node).filter(|member| member.is_alive());
        by.get(&voter).is_some_and(|&(incarnation, applied)| {
            alive.is_some_and(|member| member.incarnation == incarnation)
                && applied >= self.answered_at(voter, node)
        })
    }

    /// Those whom this voter reports.
    pub(crate) fn reported_by(&self, voter: NodeId) -> BTreeSet<NodeId> {
        let reports = self.coordinator.reports.iter();
        reports.filter(|&(&node, by)| self.is_reported_by(voter, node, by)).map(|(&node, _)| node).collect()
    }
}

/// Those whom a majority of voters report, of the old ones too while they are being changed, in the incarnation that the map shows.
fn reported_dead(control: &Control) -> BTreeMap<NodeId, Incarnation> {
    let mut dead = BTreeMap::new();
    for (&node, by) in &control.coordinator.reports {
        if let Some(member) = control.map.member(node)
            && control.map.is_majority(|voter| control.is_reported_by(voter, node, by))
        {
            dead.insert(node, member.incarnation);
        }
    }
    dead
}

/// Declares dead whom a majority reports; where several copies could take over, after asking them how far they are.
fn bury(control: &mut Control, now: Instant, commands: &mut Vec<Command>) {
    let dead = reported_dead(control);
    if dead.is_empty() {
        control.coordinator.asked = None;
        control.coordinator.doubt_since = None;
        return;
    }
    if is_doubtful(control, now, &dead) {
        return;
    }
    let answered = match &control.coordinator.asked {
        Some(asked) if asked.dead == dead => asked.candidates.is_empty() || now >= asked.deadline,
        _ => ask(control, now, dead.clone()),
    };
    if !answered {
        return;
    }
    let promote = control.coordinator.asked.take().map(|asked| longest(&asked.tails)).unwrap_or_default();
    control.coordinator.reports.retain(|node, _| !dead.contains_key(node));
    commands.push(Command::Down { nodes: dead.into_iter().collect(), promote });
}

/// Whether somebody among the dead speaks: this node itself, or one that reports others. Right after a cut is mended
/// all voters report all others, and themselves. Were some of them buried a moment before the rest, only the rest would
/// keep their seats, and those may be the ones that are really dead. So the living get a moment to be heard again.
fn is_doubtful(control: &mut Control, now: Instant, dead: &BTreeMap<NodeId, Incarnation>) -> bool {
    let me = control.config.me.node;
    let coordinator = &mut control.coordinator;
    let speaks = |node: &NodeId| *node == me || coordinator.reports.values().any(|by| by.contains_key(node));
    if !dead.keys().any(speaks) {
        coordinator.doubt_since = None;
        return false;
    }
    now.since(*coordinator.doubt_since.get_or_insert(now)) < DOUBT
}

/// Asks the possible primaries how far their logs reach. True where no partition has more than one.
fn ask(control: &mut Control, now: Instant, dead: BTreeMap<NodeId, Incarnation>) -> bool {
    let mut by_node: BTreeMap<NodeId, Vec<PartitionId>> = BTreeMap::new();
    for (partition, state) in control.map.each_partition() {
        if !state.primary.is_some_and(|primary| dead.contains_key(&primary)) {
            continue;
        }
        let heirs = heirs(&control.map, state, &dead);
        if heirs.len() > 1 {
            for node in heirs {
                by_node.entry(node).or_default().push(partition);
            }
        }
    }
    if by_node.is_empty() {
        control.coordinator.asked = None;
        return true;
    }
    control.coordinator.asked = Some(put_question(control, now, dead, by_node));
    false
}

pub(crate) fn put_question(
    control: &mut Control,
    now: Instant,
    dead: BTreeMap<NodeId, Incarnation>,
    by_node: BTreeMap<NodeId, Vec<PartitionId>>,
) -> Question {
    control.coordinator.last_question += 1;
    let id = control.coordinator.last_question;
    let question = Question {
        id,
        dead,
        candidates: by_node.keys().copied().collect(),
        answered: BTreeSet::new(),
        deadline: now + TAILS,
        tails: BTreeMap::new(),
    };
    for (node, partitions) in by_node {
        if node == control.config.me.node {
            control.effects().ask_tails.push((node, id, partitions));
        } else {
            control.send(node, Message::AskTails { question: id, partitions });
        }
    }
    question
}

/// An operator has accepted a loss: the furthest of the copies that are left, in sync or not, is where it goes on.
fn accept_loss(control: &mut Control, now: Instant, commands: &mut Vec<Command>) {
    if let Some(asked) = &control.coordinator.asked_lost {
        if asked.candidates.is_empty() || now >= asked.deadline {
            let promote = longest(&asked.tails);
            control.coordinator.asked_lost = None;
            commands.push(Command::AcceptLoss { promote });
        }
        return;
    }
    if !std::mem::take(&mut control.coordinator.accept_loss) {
        return;
    }
    let map = control.map.clone();
    let mut by_node: BTreeMap<NodeId, Vec<PartitionId>> = BTreeMap::new();
    for (partition, _) in map.each_partition().filter(|(_, state)| is_lost(state)) {
        let copies = map.partition(partition).map(|state| state.copies).unwrap_or_default();
        for node in copies.iter().filter(|&node| map.is_active(node)) {
            by_node.entry(node).or_default().push(partition);
        }
    }
    if !by_node.is_empty() {
        control.coordinator.asked_lost = Some(put_question(control, now, BTreeMap::new(), by_node));
    }
}

/// All copies of a partition went down at once and none may have kept all: once they are all back, it goes on from the longest
/// log (rule 20). All of them have to say how far theirs reaches, however often they must be asked: a copy whose log goes further
/// may know that to be committed.
fn recover(control: &mut Control, now: Instant, commands: &mut Vec<Command>) {
    let map = control.map.clone();
    if let Some(asked) = &control.coordinator.asked_doubtful {
        if asked.candidates.is_empty() || now >= asked.deadline {
            let promote = longest_of_all(&map, asked);
            control.coordinator.asked_doubtful = None;
            if !promote.is_empty() {
                commands.push(Command::Recover { promote });
            }
        }
        return;
    }
    let mut by_node: BTreeMap<NodeId, Vec<PartitionId>> = BTreeMap::new();
    for (partition, state) in map.each_partition().filter(|(_, state)| is_doubtful_partition(&map, state)) {
        for node in state.doubtful.iter() {
            by_node.entry(node).or_default().push(partition);
        }
    }
    if !by_node.is_empty() {
        control.coordinator.asked_doubtful = Some(put_question(control, now, BTreeMap::new(), by_node));
    }
}

/// The longest log of each doubtful partition of which all who may have it have told. Who does not know of it holds nothing.
fn longest_of_all(map: &ClusterMap, asked: &Question) -> Vec<(PartitionId, NodeId)> {
    let mut tails: BTreeMap<PartitionId, BTreeMap<NodeId, Position>> = BTreeMap::new();
    for (partition, state) in map.each_partition().filter(|(_, state)| is_doubtful_partition(map, state)) {
        if !state.doubtful.iter().all(|node| asked.answered.contains(&node)) {
            continue;
        }
        let told = asked.tails.get(&partition);
        let tail = |node| told.and_then(|by_node| by_node.get(&node)).copied().unwrap_or_default();
        tails.insert(partition, state.doubtful.iter().map(|node| (node, tail(node))).collect());
    }
    longest(&tails)
}

fn heirs(
    map: &ClusterMap,
    state: &placement::PartitionState,
    dead: &BTreeMap<NodeId, Incarnation>,
) -> Vec<NodeId> {
    state.in_sync.iter().filter(|node| map.is_active(*node) && !dead.contains_key(node)).collect()
}

/// Of each partition's possible primaries the one whose log ends last, by (epoch, lsn).
pub fn longest(tails: &BTreeMap<PartitionId, BTreeMap<NodeId, Position>>) -> Vec<(PartitionId, NodeId)> {
    tails
        .iter()
        .filter_map(|(&partition, by_node)| {
            let best =
                by_node.iter().max_by_key(|(node, position)| (**position, std::cmp::Reverse(**node)))?;
            Some((partition, *best.0))
        })
        .collect()
}

fn change(control: &mut Control, commands: &mut Vec<Command>) {
    let map = leave::shown(control);
    let changes = std::mem::take(&mut control.coordinator.changes);
    commands.extend(changes.into_values().filter(|c| is_valid_change(&map, c)).map(Command::Change));
}
