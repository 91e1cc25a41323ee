//! Replication under changes of the map: every copy a shipping machine, every map made by the shipping commands.
//!
//! The model has the nodes' copies of one partition ([`crate::copy`]), the newest map and those before it that somebody may still
//! take, what is on its way between the nodes, and the changes that primaries have proposed. What can happen is an [`Action`]; how
//! often, says [`Bounds`]. Nothing has to happen: what is never delivered is lost, and who never takes a map is cut off.
//!
//! **In place of the control plane** there is one agreed sequence of commands, each applied by `control::command::apply`. Proposed
//! changes wait in a heap, and any that `is_valid_change` lets pass may be decided at any moment. A node is declared dead (`Down`)
//! once it has no lease; of its heirs the one that `coordinator::longest` picks of those that answer takes over.
//!
//! **In place of hearts** a node has a lease or has not. It loses it at any moment ([`Action::Lapse`]), and after its death was declared
//! it gets none before it acts on a map that shows it alive again. That this is so the model in [`crate::leases`] shows.

use crate::copy::{
    Copies, Copy, Disk, Event, Input, Map, PARTITION, TICKS_MAX, Waiter, Wire, Writes, sender,
};
use crate::members::registration;
use control::command::{Command, apply, is_valid_change};
use control::coordinator::longest;
use control::shape::{Move, droppable};
use control::{Change, Kept, Registration};
use placement::ClusterMap;
use stateright::{Model, Property};
use std::collections::BTreeMap;
use std::sync::Arc;
use types::planted::Bug;
use types::{Incarnation, Level, Lsn, NodeId, Position};

/// What may happen, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How many nodes there are.
    pub nodes: u16,
    /// How many of them hold copies in the beginning: the first ones.
    pub copies: u16,
    /// Where the copies keep their logs.
    pub disk: Disk,
    /// Writes.
    pub puts: u8,
    /// Reads of all keys.
    pub reads: u8,
    /// Times that a primary's clock goes on.
    pub ticks: u8,
    /// Times that a lease lapses while its node lives.
    pub lapses: u8,
    /// Processes that end.
    pub crashes: u8,
    /// Times that a node is declared dead.
    pub deaths: u8,
    /// Times that what is on its way from one node to another is lost, so that what is sent later can arrive.
    pub losses: u8,
    /// Primaries that are told to hand over.
    pub hand_overs: u8,
    /// The last node gets a copy, and that of node 2 is to go.
    pub moves: bool,
    /// Whether messages overtake each other.
    pub reorder: bool,
    /// A plant of the model's own: nodes are declared dead while their leases run.
    pub buries_the_living: bool,
}

/// A model of replication.
pub struct Cluster {
    /// What may happen.
    pub bounds: Bounds,
    bug: Option<Bug>,
    copies: Copies,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    copy: Arc<Copy>,
    incarnation: Incarnation,
    /// Its process runs.
    up: bool,
    /// It holds a lease.
    leased: bool,
    /// Before it acts on a map of this version it gets no other.
    leased_from: u64,
    /// The map that it acts on.
    map: Map,
}

impl Node {
    /// Whether a client's request is run here now.
    fn serves(&self) -> bool {
        self.up && self.copy.view.serves[usize::from(!self.leased)]
    }
}

/// What is wrong, where something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A machine's own assertion failed.
    Assertion,
    /// A copy's epoch went back, or the map's.
    Epoch,
    /// Two copies call different records of one place committed.
    Committed,
    /// A copy went before those that stay were in sync.
    Dropped,
    /// A read missed what had been acknowledged, or shown, before it began.
    Read,
}

/// A direction between two nodes, by the sender's start.
type Link = (NodeId, Incarnation, NodeId);

/// A state of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    nodes: Vec<Node>,
    /// The newest map, after those that somebody may still take.
    maps: Vec<Map>,
    links: BTreeMap<Link, Vec<Wire>>,
    proposals: Vec<Change>,
    /// What was acknowledged, or shown by a read that is over.
    promised: Writes,
    /// The first of each place that a copy called committed.
    committed: Vec<Position>,
    /// Who was out of the in-sync set since the beginning.
    was_out: Vec<NodeId>,
    /// Whether a primary has taken over by another's release.
    handed_over: bool,
    fault: Option<Fault>,
    left: Left,
}

/// What may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Left {
    puts: u8,
    reads: u8,
    ticks: u8,
    lapses: u8,
    crashes: u8,
    deaths: u8,
    losses: u8,
    hand_overs: u8,
    moves: bool,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A client writes at a primary that serves.
    Put(NodeId),
    /// A client reads there.
    Read(NodeId),
    /// A message arrives: the first on its link, or a later one where they overtake each other.
    Deliver(NodeId, Incarnation, NodeId, usize),
    /// What is on its way there is lost.
    Lose(NodeId, Incarnation, NodeId),
    /// Time passes for a primary.
    Tick(NodeId),
    /// What a node has written is synced.
    Sync(NodeId),
    /// A node takes a newer map, of this version.
    Take(NodeId, u64),
    /// A node's lease lapses.
    Lapse(NodeId),
    /// It gets another one.
    Renew(NodeId),
    /// A node is declared dead; its heirs were asked how far their logs reach, or did not answer.
    Down(NodeId, bool),
    /// A node is admitted: another start, or one that was thought dead.
    Up(NodeId),
    /// A process ends.
    Crash(NodeId),
    /// It starts again.
    Start(NodeId),
    /// A proposed change is decided.
    Decide(usize),
    /// The last node gets a copy, and node 2's is to go.
    Move,
    /// Copies that are to go do.
    Settle,
    /// The primary is told to hand over.
    HandOver(NodeId),
}

fn node(number: u16) -> NodeId {
    NodeId(number)
}

impl Cluster {
    /// A model within these bounds, with a bug planted or none.
    pub fn new(bounds: Bounds, bug: Option<Bug>) -> Cluster {
        assert!(bounds.ticks <= TICKS_MAX, "a digest does not tell broken transfers apart that are older");
        Cluster { bounds, bug, copies: Copies::default() }
    }

    /// How many different steps of copies were taken.
    pub fn steps(&self) -> usize {
        self.copies.len()
    }

    fn registration(&self, id: NodeId, incarnation: Incarnation) -> Registration {
        let kept = match self.bounds.disk {
            Disk::None => Kept::nothing(incarnation),
            // What counts is synced before it is acknowledged, so a log has always kept all that was.
            Disk::Quick | Disk::Slow => Kept { since: Incarnation(1), log: true, lost: Vec::new() },
        };
        registration(id, incarnation, kept)
    }

    fn first_map(&self) -> Map {
        let mut map = ClusterMap { level: Level::HIGHEST, ..ClusterMap::default() };
        let all: Vec<NodeId> = (1..=self.bounds.nodes).map(node).collect();
        let copies: Vec<NodeId> = (1..=self.bounds.copies).map(node).collect();
        let create = Command::Create {
            cluster_id: String::new(),
            copies: self.bounds.copies,
            min_in_sync: 1,
            members: all.clone(),
            voters: all.clone(),
            placement: vec![copies],
        };
        let ups = all.iter().map(|&id| Command::Up(self.registration(id, Incarnation(1))));
        for command in [create].into_iter().chain(ups).chain([Command::Activate]) {
            apply(&mut map, &command, &mut Vec::new());
        }
        map.version = 1;
        Map::new(map)
    }

    /// What a node's machine does, and what follows from it.
    fn step(&self, state: &mut State, id: NodeId, event: Event) {
        let at = usize::from(id.0 - 1);
        let before = &state.nodes[at];
        let input = Input { leased: before.leased, map: before.map.clone(), event };
        let Some(outcome) = self.copies.step(&before.copy, input, self.bug) else {
            state.fault = Some(Fault::Assertion);
            return;
        };
        if outcome.copy.view.epoch < before.copy.view.epoch {
            state.fault = Some(Fault::Epoch);
        }
        let incarnation = before.incarnation;
        state.nodes[at].copy = outcome.copy.clone();
        for (to, wire) in &outcome.sends {
            let is_there = state.nodes.get(usize::from(to.0 - 1)).is_some_and(|node| node.up);
            let link = state.links.entry((id, incarnation, *to)).or_default();
            // The same once more, right behind itself, tells nothing new.
            if is_there && link.last() != Some(wire) {
                link.push(wire.clone());
            }
        }
        state.links.retain(|_, wires| !wires.is_empty());
        for change in &outcome.changes {
            let change = Change {
                partition: change.partition,
                epoch: change.epoch,
                primary: id,
                node: change.node,
                incarnation: change.incarnation,
                kind: change.kind,
            };
            if !state.proposals.contains(&change) {
                state.proposals.push(change);
                state.proposals.sort_unstable();
            }
        }
        self.drop_void_proposals(state);
        for answer in &outcome.answers {
            match *answer {
                Waiter::Write(write) => state.promised |= 1 << write,
                Waiter::Read { promised, seen } => {
                    if promised & !seen != 0 {
                        state.fault = Some(Fault::Read);
                    }
                    state.promised |= seen;
                }
            }
        }
        note_committed(state, at);
    }

    /// A proposal that is void stays so, since epochs only grow.
    fn drop_void_proposals(&self, state: &mut State) {
        crate::copy::plant(self.bug);
        let map = &state.maps[state.maps.len() - 1].map;
        state.proposals.retain(|change| is_valid_change(map, change));
        crate::copy::plant(None);
    }

    /// A command is decided. False where it changes nothing.
    fn decide(&self, state: &mut State, command: &Command) -> bool {
        let before = state.newest().clone();
        let mut map = ClusterMap::clone(&before.map);
        crate::copy::plant(self.bug);
        apply(&mut map, command, &mut Vec::new());
        crate::copy::plant(None);
        if map == *before.map {
            return false;
        }
        map.version += 1;
        if map.partitions[0].epoch < before.state().epoch {
            state.fault = Some(Fault::Epoch);
        }
        let in_sync = map.partitions[0].in_sync;
        for id in before.state().in_sync.iter().filter(|id| !in_sync.contains(*id)) {
            if !state.was_out.contains(&id) {
                state.was_out.push(id);
                state.was_out.sort_unstable();
            }
        }
        state.maps.push(Map::new(map));
        self.drop_void_proposals(state);
        true
    }

    /// Of the primary's heirs those that answer say how far their logs reach.
    fn promote(&self, state: &State, dead: NodeId) -> Vec<(types::PartitionId, NodeId)> {
        let newest = state.newest();
        let tails: BTreeMap<NodeId, Position> = newest
            .state()
            .in_sync
            .iter()
            .filter(|&id| id != dead && newest.map.is_active(id))
            .filter_map(|id| {
                let node = &state.nodes[usize::from(id.0 - 1)];
                let answers = node.up && newest.map.member(id)?.incarnation == node.incarnation;
                answers.then(|| (id, node.copy.view.log.last().copied().unwrap_or(node.copy.view.base)))
            })
            .collect();
        longest(&BTreeMap::from([(PARTITION, tails)]))
    }
}

/// What a copy calls committed is the same everywhere, for ever.
fn note_committed(state: &mut State, at: usize) {
    let view = &state.nodes[at].copy.view;
    if view.incomplete {
        // Its commit begins at a snapshot's base, which need not be.
        return;
    }
    let kept = [view.base].into_iter().chain(view.log.iter().copied());
    for position in kept.filter(|position| position.lsn > Lsn(0) && position.lsn <= view.commit) {
        let place = position.lsn.0 as usize - 1;
        match state.committed.get(place) {
            Some(known) if *known != position => state.fault = Some(Fault::Committed),
            Some(_) => {}
            None if state.committed.len() == place => state.committed.push(position),
            // Nobody said so of what comes before.
            None => state.fault = Some(Fault::Committed),
        }
    }
}

impl State {
    fn newest(&self) -> &Map {
        &self.maps[self.maps.len() - 1]
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[usize::from(id.0 - 1)]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[usize::from(id.0 - 1)]
    }

    /// Maps that nobody will take any more are forgotten.
    fn forget_maps(&mut self) {
        let oldest = self.nodes.iter().filter(|node| node.up).map(|node| node.map.map.version).min();
        let newest = self.newest().map.version;
        self.maps
            .retain(|map| oldest.is_some_and(|oldest| map.map.version > oldest) || map.map.version == newest);
    }

    /// What every living copy that the map shows in sync holds.
    fn held_in_sync(&self) -> impl Iterator<Item = Writes> {
        let newest = self.newest();
        newest.state().in_sync.iter().filter_map(move |id| {
            let node = self.node(id);
            let is_it = newest.map.member(id)?.incarnation == node.incarnation;
            (node.up && is_it).then_some(node.copy.view.holds)
        })
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let bounds = &self.bounds;
        let first = self.first_map();
        let nobody = Map::new(ClusterMap::default());
        let nodes = (1..=bounds.nodes).map(|number| Node {
            copy: Copy::new(node(number), bounds.disk),
            incarnation: Incarnation(1),
            up: true,
            leased: true,
            leased_from: 1,
            map: nobody.clone(),
        });
        let mut state = State {
            nodes: nodes.collect(),
            maps: vec![first.clone()],
            links: BTreeMap::new(),
            proposals: Vec::new(),
            promised: 0,
            committed: Vec::new(),
            was_out: Vec::new(),
            handed_over: false,
            fault: None,
            left: Left {
                puts: bounds.puts,
                reads: bounds.reads,
                ticks: bounds.ticks,
                lapses: bounds.lapses,
                crashes: bounds.crashes,
                deaths: bounds.deaths,
                losses: bounds.losses,
                hand_overs: bounds.hand_overs,
                moves: bounds.moves,
            },
        };
        // The beginning is always the same: all take the first map, the first reign opens, and nothing is on its way.
        for number in 1..=bounds.nodes {
            state.node_mut(node(number)).map = first.clone();
            self.step(&mut state, node(number), Event::Map);
        }
        self.settle(&mut state);
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.fault.is_some() {
            return;
        }
        let newest = state.newest();
        let left = state.left;
        for number in 1..=self.bounds.nodes {
            let id = node(number);
            let node = state.node(id);
            let member = newest.map.member(id);
            let is_known = member.is_some_and(|member| member.incarnation == node.incarnation);
            let is_alive = newest.map.is_alive(id);
            if node.serves() {
                if left.puts > 0 {
                    actions.push(Action::Put(id));
                }
                if left.reads > 0 && state.promised != 0 {
                    actions.push(Action::Read(id));
                }
            }
            if node.up {
                for map in state.maps.iter().filter(|map| map.map.version > node.map.map.version) {
                    actions.push(Action::Take(id, map.map.version));
                }
                if left.ticks > 0 && node.copy.view.primary {
                    actions.push(Action::Tick(id));
                }
                if self.bounds.disk == Disk::Slow && node.copy.view.unsynced {
                    actions.push(Action::Sync(id));
                }
                if node.leased && left.lapses > 0 {
                    actions.push(Action::Lapse(id));
                }
                let acts_on = node.map.map.version;
                if !node.leased && is_known && is_alive && acts_on >= node.leased_from {
                    actions.push(Action::Renew(id));
                }
                if !is_known || !is_alive {
                    actions.push(Action::Up(id));
                }
                if left.crashes > 0 {
                    actions.push(Action::Crash(id));
                }
            } else {
                actions.push(Action::Start(id));
            }
            let is_silent = !node.up || !node.leased || self.bounds.buries_the_living && left.lapses > 0;
            if is_alive && is_silent && left.deaths > 0 {
                actions.push(Action::Down(id, true));
                let heirs = newest.state().in_sync.len();
                if heirs > 2 && newest.state().primary == Some(id) {
                    actions.push(Action::Down(id, false));
                }
            }
            let is_primary = newest.state().primary == Some(id);
            if left.hand_overs > 0 && !is_primary && newest.state().in_sync.contains(id) {
                actions.push(Action::HandOver(id));
            }
        }
        for (&(from, incarnation, to), wires) in &state.links {
            let reach = if self.bounds.reorder { wires.len() } else { 1 };
            actions.extend((0..reach).map(|at| Action::Deliver(from, incarnation, to, at)));
            if left.losses > 0 {
                actions.push(Action::Lose(from, incarnation, to));
            }
        }
        actions.extend((0..state.proposals.len()).map(Action::Decide));
        if left.moves {
            actions.push(Action::Move);
        }
        if self.bounds.moves && !self.with_bug(|| droppable(&newest.map, newest.state())).is_empty() {
            actions.push(Action::Settle);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Put(id) => {
                let write = self.bounds.puts - state.left.puts;
                state.left.puts -= 1;
                self.step(&mut state, id, Event::Put(write));
            }
            Action::Read(id) => {
                state.left.reads -= 1;
                let promised = state.promised;
                self.step(&mut state, id, Event::Read(promised));
            }
            Action::Deliver(from, incarnation, to, at) => {
                let wires = state.links.get_mut(&(from, incarnation, to))?;
                let wire = wires.remove(at);
                if wires.is_empty() {
                    state.links.remove(&(from, incarnation, to));
                }
                self.step(&mut state, to, Event::Message(sender(from, incarnation), wire));
            }
            Action::Lose(from, incarnation, to) => {
                state.left.losses -= 1;
                state.links.remove(&(from, incarnation, to));
            }
            Action::Tick(id) => {
                state.left.ticks -= 1;
                self.step(&mut state, id, Event::Tick);
            }
            Action::Sync(id) => self.step(&mut state, id, Event::Sync),
            Action::Take(id, version) => {
                let map = state.maps.iter().find(|map| map.map.version == version)?.clone();
                let node = state.node_mut(id);
                let member = map.map.member(id).map(|member| member.incarnation);
                // As `node::Shard::map`: what a map says of another start is not meant for this one.
                let is_meant = member == Some(node.incarnation);
                node.map = map;
                if is_meant {
                    self.step(&mut state, id, Event::Map);
                }
            }
            Action::Lapse(id) => {
                state.left.lapses -= 1;
                state.node_mut(id).leased = false;
            }
            Action::Renew(id) => state.node_mut(id).leased = true,
            Action::Down(id, asks) => {
                state.left.deaths -= 1;
                if state.node(id).up && state.node(id).leased {
                    state.left.lapses = state.left.lapses.checked_sub(1)?;
                }
                let promote = if asks { self.promote(&state, id) } else { Vec::new() };
                let incarnation = state.newest().map.member(id)?.incarnation;
                let command = Command::Down { nodes: vec![(id, incarnation)], promote };
                if !self.decide(&mut state, &command) {
                    return None;
                }
                let version = state.newest().map.version;
                state.node_mut(id).leased_from = version;
            }
            Action::Up(id) => {
                let registration = self.registration(id, state.node(id).incarnation);
                if !self.decide(&mut state, &Command::Up(registration)) {
                    return None;
                }
                let version = state.newest().map.version;
                state.node_mut(id).leased_from = version;
            }
            Action::Crash(id) => {
                state.left.crashes -= 1;
                let node = state.node_mut(id);
                (node.up, node.leased) = (false, false);
                // What was sent to it goes with its connections; what it has sent may be on its way.
                state.links.retain(|(_, _, to), _| *to != id);
            }
            Action::Start(id) => {
                let node = state.node_mut(id);
                node.copy = node.copy.restarted(id);
                node.incarnation.0 += 1;
                (node.up, node.map) = (true, Map::new(ClusterMap::default()));
                node.leased_from = u64::MAX;
            }
            Action::Decide(at) => {
                let change = state.proposals.remove(at);
                let reign = state.newest().state().primary_since;
                if !self.decide(&mut state, &Command::Change(change)) {
                    return None;
                }
                state.handed_over |= state.newest().state().primary_since != reign;
            }
            Action::Move => {
                state.left.moves = false;
                let epoch = state.newest().state().epoch;
                let (add, leave) = (vec![node(self.bounds.nodes)], vec![node(2)]);
                let command = Command::Move(vec![Move { partition: PARTITION, epoch, add, leave }]);
                if !self.decide(&mut state, &command) {
                    return None;
                }
            }
            Action::Settle => {
                let epoch = state.newest().state().epoch;
                let before = *state.newest().state();
                if !self.decide(&mut state, &Command::Settle(vec![(PARTITION, epoch)])) {
                    return None;
                }
                let gone = before.copies.without(state.newest().state().copies);
                if gone.iter().any(|id| before.in_sync.contains(id))
                    && !before.staying().is_within(before.in_sync)
                {
                    state.fault = Some(Fault::Dropped);
                }
            }
            Action::HandOver(heir) => {
                state.left.hand_overs -= 1;
                let epoch = state.newest().state().epoch;
                let orders = vec![(PARTITION, epoch, heir)];
                if !self.decide(&mut state, &Command::HandOver { orders }) {
                    return None;
                }
            }
        }
        state.forget_maps();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Cluster>> {
        let mut properties = vec![
            Property::<Cluster>::always("one primary serves", |_, state| {
                state.nodes.iter().filter(|node| node.serves()).count() <= 1
            }),
            Property::<Cluster>::always("what is acknowledged is held by all in sync", |_, state| {
                state.held_in_sync().all(|holds| state.promised & !holds == 0)
            }),
            Property::<Cluster>::always("a read misses nothing", |_, state| state.fault != Some(Fault::Read)),
            Property::<Cluster>::always("what is committed is so everywhere and for ever", |_, state| {
                state.fault != Some(Fault::Committed)
            }),
            Property::<Cluster>::always("epochs only grow", |_, state| state.fault != Some(Fault::Epoch)),
            Property::<Cluster>::always("no assertion of a machine fails", |_, state| {
                state.fault != Some(Fault::Assertion)
            }),
            Property::<Cluster>::sometimes("a write is acknowledged", |_, state| state.promised != 0),
        ];
        let bounds = &self.bounds;
        if bounds.deaths > 0 {
            properties.push(Property::<Cluster>::sometimes(
                "another primary serves with what was acknowledged",
                |_, state| {
                    state.promised != 0
                        && state.nodes.iter().skip(1).any(|node| node.serves() && node.copy.view.holds != 0)
                },
            ));
        }
        if bounds.deaths > 0 && bounds.ticks > 0 {
            // Who joins is proposed as time passes.
            properties
                .push(Property::<Cluster>::sometimes("a copy that was out is in sync again", |_, state| {
                    state.was_out.iter().any(|id| state.newest().state().in_sync.contains(*id))
                }));
        }
        if bounds.moves {
            properties.push(Property::<Cluster>::always(
                "a copy goes once those that stay are in sync",
                |_, state| state.fault != Some(Fault::Dropped),
            ));
            properties.push(Property::<Cluster>::sometimes("a new copy is in sync", |model, state| {
                state.newest().state().in_sync.contains(node(model.bounds.nodes))
            }));
            properties.push(Property::<Cluster>::sometimes("a copy is removed", |_, state| {
                !state.newest().state().copies.contains(node(2))
            }));
        }
        if bounds.hand_overs > 0 {
            properties.push(Property::<Cluster>::sometimes("an heir serves", |_, state| {
                state.handed_over && state.nodes.iter().skip(1).any(Node::serves)
            }));
        }
        properties
    }
}

impl Cluster {
    fn with_bug<T>(&self, run: impl FnOnce() -> T) -> T {
        crate::copy::plant(self.bug);
        let result = run();
        crate::copy::plant(None);
        result
    }

    /// Delivers all that is on its way, and has the first reign settle.
    fn settle(&self, state: &mut State) {
        // A reign opens in a few turns; were it never to come to rest, the first state would be wrong, not this loop endless.
        for _ in 0..100 {
            let Some((from, incarnation, to)) = state.links.keys().next().copied() else { return };
            let Some(next) = self.next_state(state, Action::Deliver(from, incarnation, to, 0)) else {
                return;
            };
            *state = next;
        }
    }
}
