//! The search for an order of one group's operations: depth first over the orders that real time allows, remembering which sets of
//! operations led to which states. [`crate::linearizability`] says why that decides it, and what keeps it short.
//!
//! Everything is taken and taken back in place: the operations that are left are linked lists (as in Knuth's dancing links), the states
//! of the keys are one list, and what a step changed stands on stacks. A set of operations is the exclusive or of random
//! numbers (Zobrist hashing) and so are the states, 128 bits wide, together: what is remembered is one number.

use crate::lineage::{Concern, Lineages};
use crate::random::Random;
use crate::{Answer, Call, Operation, Outcome, Part, State, Time, apply};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// What a search came to.
pub(crate) enum Verdict {
    /// There is such an order.
    Explained,
    /// There is none, or the search was given up.
    Stuck {
        /// Given up.
        undecided: bool,
        /// The furthest order.
        furthest: Furthest,
    },
}

/// The order that got furthest.
pub(crate) struct Furthest {
    /// How many known operations it leaves.
    pub(crate) left: usize,
    /// The first of them, of the operations that the search was begun with.
    pub(crate) stuck: usize,
    /// The states of the keys where it ends.
    pub(crate) states: Vec<State>,
}

/// An operation of the search: first the known ones, then the unknown ones, each by their invocation.
#[derive(Clone, Copy)]
struct Item {
    /// Which of the operations that the search was begun with.
    operation: usize,
    /// Its parts: where the first of them is, and how many.
    parts: (usize, usize),
    invoked: Time,
    returned: Time,
    mark: u128,
    /// Its answer says that it changed nothing.
    neutral: bool,
    /// The unknown operation before it that does the same.
    twin: Option<usize>,
}

/// A doubly linked list over numbers below a bound, from which numbers are taken and to which they return in the opposite order.
struct Left {
    next: Vec<usize>,
    before: Vec<usize>,
}

impl Left {
    fn new(count: usize) -> Left {
        // The last place is where the list begins and ends.
        Left { next: (1..=count).chain([0]).collect(), before: [count].into_iter().chain(0..count).collect() }
    }

    fn end(&self) -> usize {
        self.next.len() - 1
    }

    fn first(&self) -> usize {
        self.next[self.end()]
    }

    fn take(&mut self, at: usize) {
        let (before, next) = (self.before[at], self.next[at]);
        self.next[before] = next;
        self.before[next] = before;
    }

    fn take_back(&mut self, at: usize) {
        let (before, next) = (self.before[at], self.next[at]);
        self.next[before] = at;
        self.before[next] = at;
    }
}

struct Frame {
    /// How long the stacks were before the step that led here.
    taken: usize,
    undo: usize,
    /// Its choices begin here, and how far they are tried.
    choices: usize,
    next: usize,
    /// Whether the unknown ones are among them yet.
    unknown: bool,
    /// How many of what was taken last are unknown ones that no known one has followed yet, and how long the stack was before them.
    run: usize,
    before_run: usize,
}

/// The marks are random already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_u128(&mut self, number: u128) {
        self.0 ^= number as u64;
    }
}

pub(crate) struct Search {
    parts: Vec<Part>,
    items: Vec<Item>,
    /// How many of the items are known.
    known: usize,
    known_left: Left,
    unknown_left: Left,
    /// How many known ones are not done.
    left: usize,
    done: Vec<bool>,
    states: Vec<State>,
    lineages: Lineages,
    /// A part's each.
    concerns: Vec<Concern>,
    /// Whether orders are given up that are seen to lead nowhere.
    foresight: bool,
    /// Of what is done, and of the states.
    mark: u128,
    undo: Vec<(usize, State)>,
    taken: Vec<usize>,
    choices: Vec<usize>,
    seen: HashSet<u128, BuildHasherDefault<AsItIs>>,
    furthest: Furthest,
}

impl Search {
    /// A search for an order of these operations, which are on these keys.
    pub(crate) fn new(operations: &[&Operation], keys: &[usize], foresight: bool) -> Search {
        let slots: BTreeMap<usize, usize> = keys.iter().enumerate().map(|(slot, &key)| (key, slot)).collect();
        let mut random = Random::new(operations.len() as u64);
        let (mut parts, mut known, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        for (number, operation) in operations.iter().enumerate() {
            let is_known = operation.outcome == Outcome::Answered;
            let reads = || operation.parts.iter().all(|part| part.call == Call::Get);
            if operation.outcome == Outcome::Refused || !is_known && reads() {
                continue;
            }
            let first = parts.len();
            parts.extend(operation.parts.iter().map(|part| {
                let answer = part.answer.filter(|_| is_known);
                Part { key: slots[&part.key], answer, ..*part }
            }));
            let item = Item {
                operation: number,
                parts: (first, parts.len() - first),
                invoked: operation.invoked,
                returned: if is_known { operation.returned } else { Time::MAX },
                mark: u128::from(random.draw()) << 64 | u128::from(random.draw()),
                neutral: is_known && operation.parts.iter().all(is_neutral),
                twin: None,
            };
            if is_known {
                known.push(item)
            } else {
                unknown.push(item)
            };
        }
        known.sort_by_key(|item| (item.invoked, item.returned));
        unknown.sort_by_key(|item| item.invoked);
        let noticed = Noticed::new(&parts);
        let mut last: HashMap<Vec<(usize, Call)>, usize> = HashMap::new();
        for (at, item) in unknown.iter_mut().enumerate() {
            let parts = &parts[item.parts.0..item.parts.0 + item.parts.1];
            let does = parts.iter().map(|part| (part.key, noticed.as_far_as(part.call))).collect();
            item.twin = last.insert(does, known.len() + at);
        }
        let (lineages, concerns) = Lineages::new(keys.len(), &parts);
        let (count, count_unknown) = (known.len(), unknown.len());
        known.append(&mut unknown);
        Search {
            parts,
            done: vec![false; known.len()],
            items: known,
            known: count,
            known_left: Left::new(count),
            unknown_left: Left::new(count_unknown),
            left: count,
            states: vec![State::default(); keys.len()],
            lineages,
            concerns,
            foresight,
            mark: 0,
            undo: Vec::new(),
            taken: Vec::new(),
            choices: Vec::new(),
            seen: HashSet::default(),
            furthest: Furthest { left: usize::MAX, stuck: 0, states: Vec::new() },
        }
    }

    /// Searches, for so many steps at most.
    pub(crate) fn run(mut self, steps_max: usize) -> Verdict {
        self.take_neutral();
        self.note_furthest();
        if self.left == 0 {
            return Verdict::Explained;
        }
        let first = Frame { taken: 0, undo: 0, choices: 0, next: 0, unknown: false, run: 0, before_run: 0 };
        let mut stack = vec![first];
        self.add_known(false);
        let mut steps = 0;
        while let Some(frame) = stack.last_mut() {
            let at = frame.choices + frame.next;
            let Some(&choice) = self.choices.get(at) else {
                if !std::mem::replace(&mut frame.unknown, true) {
                    self.add_unknown();
                    continue;
                }
                let frame = stack.pop().expect("it was there");
                self.choices.truncate(frame.choices);
                self.take_back(frame.taken, frame.undo);
                continue;
            };
            frame.next += 1;
            let (run, before_run) = (frame.run, frame.before_run);
            steps += 1;
            if steps > steps_max {
                return self.stuck(true);
            }
            let (taken, undo) = (self.taken.len(), self.undo.len());
            if !self.try_to(choice) || run > 0 && self.is_idle(run, before_run, choice) {
                self.put_back(undo);
                continue;
            }
            self.take(choice);
            let is_known = choice < self.known;
            if is_known {
                self.take_neutral();
                if self.left == 0 {
                    return Verdict::Explained;
                }
                if self.left < self.furthest.left {
                    self.note_furthest();
                }
            }
            if self.foresight && self.leads_nowhere(choice, undo) || !self.seen.insert(self.mark) {
                self.take_back(taken, undo);
                continue;
            }
            let (run, before_run) = match (is_known, run) {
                (true, _) => (0, 0),
                (false, 0) => (1, undo),
                (false, run) => (run + 1, before_run),
            };
            let choices = self.choices.len();
            stack.push(Frame { taken, undo, choices, next: 0, unknown: false, run, before_run });
            self.add_known(!is_known);
        }
        self.stuck(false)
    }

    /// Whether an operation that is done has left behind what is needed yet: see [`crate::lineage`].
    fn leads_nowhere(&self, at: usize, undo: usize) -> bool {
        let left =
            |&(key, before): &(usize, State)| self.lineages.misses_state(key, before, self.states[key]);
        let (first, count) = self.items[at].parts;
        let written = |part: usize| {
            let key = self.parts[part].key;
            self.lineages.misses_written(&self.concerns[part], key, self.states[key])
        };
        self.undo[undo..].iter().any(left) || (first..first + count).any(written)
    }

    /// Whether one of the last `run` operations, unknown ones, made no difference to what has just been applied to the states: without it
    /// that would have come out the same, or it could as well come after it. Then this order need not be searched.
    fn is_idle(&mut self, run: usize, before_run: usize, last: usize) -> bool {
        let mark = self.mark;
        let from = self.taken.len() - run;
        let mut idle = false;
        self.put_back(before_run);
        for left_out in from..from + run {
            let mut fits = true;
            for at in (from..from + run).filter(|&at| at != left_out) {
                fits &= self.try_to(self.taken[at]);
            }
            fits &= self.try_to(last);
            idle = fits
                && (self.mark == mark
                    || last < self.known && {
                        self.try_to(self.taken[left_out]);
                        self.mark == mark
                    });
            self.put_back(before_run);
            if idle {
                break;
            }
        }
        for at in from..from + run {
            self.try_to(self.taken[at]);
        }
        self.try_to(last);
        idle
    }

    fn note_furthest(&mut self) {
        self.furthest.left = self.left;
        self.furthest.stuck = self.items.get(self.known_left.first()).map_or(0, |item| item.operation);
        self.furthest.states.clone_from(&self.states);
    }

    fn stuck(self, undecided: bool) -> Verdict {
        Verdict::Stuck { undecided, furthest: self.furthest }
    }

    /// Applies an operation to the states. Returns whether its answers fit; what it changed stands on the stack either way.
    fn try_to(&mut self, at: usize) -> bool {
        let from = self.undo.len();
        let (first, count) = self.items[at].parts;
        let fits = apply(&self.parts[first..first + count], &mut self.states, &mut self.undo);
        // A key that was written twice stands there twice: only the first is what was before.
        for undone in from..self.undo.len() {
            let (key, before) = self.undo[undone];
            let written_after = self.undo[undone + 1..].iter().find(|(other, _)| *other == key);
            let after = written_after.map_or(self.states[key], |(_, state)| *state);
            self.mark ^= mark_of(key, before) ^ mark_of(key, after);
        }
        fits
    }

    /// Puts the states back to what they were when the stack was so long.
    fn put_back(&mut self, undo: usize) {
        while self.undo.len() > undo {
            let Some((key, before)) = self.undo.pop() else { break };
            self.mark ^= mark_of(key, before) ^ mark_of(key, self.states[key]);
            self.states[key] = before;
        }
    }

    fn take(&mut self, at: usize) {
        let Item { mark, parts: (first, count), .. } = self.items[at];
        self.mark ^= mark;
        self.concerns[first..first + count].iter().for_each(|concern| self.lineages.take(concern));
        self.done[at] = true;
        self.taken.push(at);
        if at < self.known {
            self.known_left.take(at);
            self.left -= 1;
        } else {
            self.unknown_left.take(at - self.known);
        }
    }

    fn take_back(&mut self, taken: usize, undo: usize) {
        while self.taken.len() > taken {
            let Some(at) = self.taken.pop() else { break };
            let Item { mark, parts: (first, count), .. } = self.items[at];
            self.mark ^= mark;
            self.concerns[first..first + count].iter().for_each(|concern| self.lineages.take_back(concern));
            self.done[at] = false;
            if at < self.known {
                self.known_left.take_back(at);
                self.left += 1;
            } else {
                self.unknown_left.take_back(at - self.known);
            }
        }
        self.put_back(undo);
    }

    /// The earliest return among the operations not done: none of those invoked later may come first.
    fn horizon(&self) -> Time {
        let mut horizon = Time::MAX;
        let mut at = self.known_left.first();
        while at != self.known_left.end() && self.items[at].invoked <= horizon {
            horizon = horizon.min(self.items[at].returned);
            at = self.known_left.next[at];
        }
        horizon
    }

    /// Takes whatever fits the states and, by its answer, changes them nowhere.
    fn take_neutral(&mut self) {
        loop {
            let horizon = self.horizon();
            let mut found = false;
            let mut at = self.known_left.first();
            while at != self.known_left.end() && self.items[at].invoked <= horizon {
                let next = self.known_left.next[at];
                if self.items[at].neutral {
                    let undo = self.undo.len();
                    if self.try_to(at) {
                        self.take(at);
                        found = true;
                    }
                    self.put_back(undo);
                }
                at = next;
            }
            if !found {
                return;
            }
        }
    }

    /// Puts the known ones that may come next onto the stack of choices. Neutral ones that are left do not fit, but for
    /// after an unknown one.
    fn add_known(&mut self, neutral: bool) {
        let horizon = self.horizon();
        let from = self.choices.len();
        let mut at = self.known_left.first();
        while at != self.known_left.end() && self.items[at].invoked <= horizon {
            if neutral || !self.items[at].neutral {
                self.choices.push(at);
            }
            at = self.known_left.next[at];
        }
        // Whoever returned first most likely happened first.
        self.choices[from..].sort_by_key(|&choice| self.items[choice].returned);
    }

    /// Puts the unknown ones that would change something onto the stack of choices.
    fn add_unknown(&mut self) {
        let horizon = self.horizon();
        let mut at = self.unknown_left.first();
        while at != self.unknown_left.end() && self.items[self.known + at].invoked <= horizon {
            let item = self.known + at;
            at = self.unknown_left.next[at];
            if self.items[item].twin.is_some_and(|twin| !self.done[twin]) {
                continue;
            }
            let mark = self.mark;
            let undo = self.undo.len();
            self.try_to(item);
            if self.mark != mark {
                self.choices.push(item);
            }
            self.put_back(undo);
        }
    }
}

/// The values that make a difference to somebody: shown, counted or expected.
struct Noticed {
    values: BTreeSet<i64>,
    /// How often at most a value is counted up.
    counts: i64,
}

impl Noticed {
    fn new(parts: &[Part]) -> Noticed {
        let mut values = BTreeSet::new();
        let mut counts = 0;
        for part in parts {
            counts += i64::from(part.call == Call::Increment);
            if let Some(Answer::Value(Some(value)) | Answer::Counted(value)) = part.answer {
                values.insert(value);
            }
            if let Call::CompareAndSet { expected, .. } | Call::CompareAndDelete(expected) = part.call {
                values.insert(expected);
            }
        }
        Noticed { values, counts }
    }

    /// A call, but for which value it writes where nobody would notice another.
    fn as_far_as(&self, call: Call) -> Call {
        let seen = |value: i64| {
            let hidden = self.values.range(value..=value.saturating_add(self.counts)).next().is_none();
            if hidden { i64::MIN } else { value }
        };
        match call {
            Call::Set(value) => Call::Set(seen(value)),
            Call::SetIfAbsent(value) => Call::SetIfAbsent(seen(value)),
            Call::SetIfAllAbsent(value) => Call::SetIfAllAbsent(seen(value)),
            Call::CompareAndSet { expected, new } => Call::CompareAndSet { expected, new: seen(new) },
            other => other,
        }
    }
}

/// Whether a part's answer says that it changed nothing.
fn is_neutral(part: &Part) -> bool {
    match (part.call, part.answer) {
        (Call::Get, _) => true,
        (
            Call::SetIfAbsent(_)
            | Call::SetIfAllAbsent(_)
            | Call::CompareAndSet { .. }
            | Call::CompareAndDelete(_),
            Some(Answer::Changed(false) | Answer::Mismatch | Answer::Absent),
        ) => true,
        (Call::SetIfAbsent(_), Some(Answer::Value(found))) => found.is_some(),
        (
            Call::CompareAndSet { expected, .. } | Call::CompareAndDelete(expected),
            Some(Answer::Value(found)),
        ) => found != Some(expected),
        (Call::Delete, Some(Answer::Changed(false) | Answer::Removed(0) | Answer::Value(None))) => true,
        _ => false,
    }
}

/// The number of a key's state.
fn mark_of(key: usize, state: State) -> u128 {
    if state == State::default() {
        return 0;
    }
    let value = state.value.unwrap_or(0) as u64;
    let seed =
        Random::new(value ^ (key as u64).rotate_left(40) ^ u64::from(state.expiry).rotate_left(20)).draw();
    let mut random = Random::new(seed ^ value.rotate_left(32) ^ key as u64 ^ u64::from(state.expiry) << 32);
    u128::from(random.draw()) << 64 | u128::from(random.draw())
}
