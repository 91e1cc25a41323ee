//! Whether a history could have come from one register a key, each operation taking effect at one instant between its
//! invocation and its return (Herlihy and Wing 1990).
//!
//! Keys are independent (the property is local), so each is searched by itself: depth first over the orders that real
//! time allows, remembering which sets of operations led to which state (Wing and Gong 1993; Lowe, "Testing for
//! linearizability", 2017). Three things keep the search short:
//!
//! - An operation whose answer says that it changed nothing is taken as soon as that answer fits the state: putting it
//!   later could not help anybody.
//! - An operation of unknown outcome is tried last, and only where it would change something: left out, it is still
//!   there for later.
//! - Of several unknown operations that do the same, only the first invoked is tried.
//!
//! A set of operations is remembered as the exclusive or of random numbers (Zobrist hashing), 128 bits wide.

use crate::random::Random;
use crate::{Answer, Call, Operation, Outcome, State, Time};
use std::collections::{BTreeMap, HashSet};

/// Steps after which a key's search gives up.
const STEPS_MAX: usize = 20_000_000;

/// Why a history is not linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key.
    pub key: usize,
    /// Set where the search was given up instead of finished.
    pub undecided: bool,
    /// The operation that no order explains: of those tried, the one that got furthest.
    pub stuck: Operation,
    /// The states that the furthest order led to before it.
    pub state: State,
    /// All operations on the key.
    pub operations: Vec<Operation>,
}

/// Checks every key of a history. `undecided` violations are the caller's to judge.
pub fn check(operations: &[Operation]) -> Result<(), Box<Violation>> {
    let mut keys: BTreeMap<usize, Vec<Operation>> = BTreeMap::new();
    for operation in operations {
        keys.entry(operation.key).or_default().push(*operation);
    }
    keys.into_values().try_for_each(|operations| Search::new(operations).run())
}

/// An operation of the search.
#[derive(Clone, Copy)]
struct Item {
    call: Call,
    /// None: unknown.
    answer: Option<Answer>,
    invoked: Time,
    returned: Time,
    mark: u128,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    Known(usize),
    Unknown(usize),
}

struct Frame {
    /// The state before any choice here.
    state: State,
    choices: Vec<Choice>,
    next: usize,
    /// What is to be taken back when this frame is left.
    taken: Vec<Choice>,
}

struct Search {
    all: Vec<Operation>,
    known: Vec<Item>,
    unknown: Vec<Item>,
    known_done: Vec<bool>,
    unknown_done: Vec<bool>,
    /// All known operations before this one are done.
    low: usize,
    left: usize,
    mark: u128,
    seen: HashSet<(u128, State)>,
    furthest: (usize, usize, State),
}

impl Search {
    fn new(all: Vec<Operation>) -> Search {
        let mut random = Random::new(all.len() as u64);
        let mut known = Vec::new();
        let mut unknown = Vec::new();
        for operation in &all {
            let mark = u128::from(random.draw()) << 64 | u128::from(random.draw());
            let Operation { call, invoked, returned, .. } = *operation;
            match operation.outcome {
                Outcome::Answered(answer) => {
                    known.push(Item { call, answer: Some(answer), invoked, returned, mark });
                }
                Outcome::Unknown if call != Call::Get => {
                    unknown.push(Item { call, answer: None, invoked, returned: Time::MAX, mark });
                }
                Outcome::Unknown | Outcome::Refused => {}
            }
        }
        known.sort_by_key(|item| (item.invoked, item.returned));
        unknown.sort_by_key(|item| item.invoked);
        Search {
            all,
            known_done: vec![false; known.len()],
            unknown_done: vec![false; unknown.len()],
            left: known.len(),
            known,
            unknown,
            low: 0,
            mark: 0,
            seen: HashSet::new(),
            furthest: (usize::MAX, 0, State::default()),
        }
    }

    fn run(mut self) -> Result<(), Box<Violation>> {
        let mut taken = Vec::new();
        let state = self.take_neutral(State::default(), &mut taken);
        if self.left == 0 {
            return Ok(());
        }
        let choices = self.choices(state);
        let mut stack = vec![Frame { state, choices, next: 0, taken }];
        let mut steps = 0;
        while let Some(frame) = stack.last_mut() {
            let Some(&choice) = frame.choices.get(frame.next) else {
                let taken = std::mem::take(&mut frame.taken);
                stack.pop();
                self.take_back(&taken);
                continue;
            };
            frame.next += 1;
            steps += 1;
            if steps > STEPS_MAX {
                return Err(self.violation(true));
            }
            let (after, answer) = self.item(choice).call.apply(frame.state);
            if self.item(choice).answer.is_some_and(|told| told != answer) {
                continue;
            }
            let mut taken = vec![choice];
            self.take(choice);
            let state = self.take_neutral(after, &mut taken);
            if self.left == 0 {
                return Ok(());
            }
            if self.left < self.furthest.0 {
                self.furthest = (self.left, self.low, state);
            }
            if !self.seen.insert((self.mark, state)) {
                self.take_back(&taken);
                continue;
            }
            let choices = self.choices(state);
            stack.push(Frame { state, choices, next: 0, taken });
        }
        Err(self.violation(false))
    }

    fn item(&self, choice: Choice) -> &Item {
        match choice {
            Choice::Known(at) => &self.known[at],
            Choice::Unknown(at) => &self.unknown[at],
        }
    }

    fn take(&mut self, choice: Choice) {
        self.mark ^= self.item(choice).mark;
        match choice {
            Choice::Known(at) => {
                self.known_done[at] = true;
                self.left -= 1;
                while self.known_done.get(self.low).is_some_and(|done| *done) {
                    self.low += 1;
                }
            }
            Choice::Unknown(at) => self.unknown_done[at] = true,
        }
    }

    fn take_back(&mut self, taken: &[Choice]) {
        for &choice in taken {
            self.mark ^= self.item(choice).mark;
            match choice {
                Choice::Known(at) => {
                    self.known_done[at] = false;
                    self.left += 1;
                    self.low = self.low.min(at);
                }
                Choice::Unknown(at) => self.unknown_done[at] = false,
            }
        }
    }

    /// The earliest return among the operations not done: none of those invoked later may come first.
    fn horizon(&self) -> Time {
        let mut horizon = Time::MAX;
        for at in self.low..self.known.len() {
            if self.known[at].invoked > horizon {
                break;
            }
            if !self.known_done[at] {
                horizon = horizon.min(self.known[at].returned);
            }
        }
        horizon
    }

    fn eligible(&self, horizon: Time) -> impl Iterator<Item = usize> + '_ {
        (self.low..self.known.len())
            .take_while(move |&at| self.known[at].invoked <= horizon)
            .filter(|&at| !self.known_done[at])
    }

    /// Takes whatever fits the state and, by its answer, changes it nowhere.
    fn take_neutral(&mut self, state: State, taken: &mut Vec<Choice>) -> State {
        loop {
            let horizon = self.horizon();
            let fits = |at: &usize| {
                let item = &self.known[*at];
                matches!(item.answer, Some(Answer::Value(_) | Answer::Changed(false)))
                    && item.answer == Some(item.call.apply(state).1)
            };
            let found: Vec<usize> = self.eligible(horizon).filter(fits).collect();
            if found.is_empty() {
                return state;
            }
            for at in found {
                self.take(Choice::Known(at));
                taken.push(Choice::Known(at));
            }
        }
    }

    fn choices(&self, state: State) -> Vec<Choice> {
        let horizon = self.horizon();
        let mut choices: Vec<Choice> = self.eligible(horizon).map(Choice::Known).collect();
        // Whoever returned first most likely happened first.
        choices.sort_by_key(|&choice| self.item(choice).returned);
        for (at, item) in self.unknown.iter().enumerate() {
            if item.invoked > horizon {
                break;
            }
            if self.unknown_done[at] || item.call.apply(state).0 == state {
                continue;
            }
            let twin = choices.iter().any(
                |&other| matches!(other, Choice::Unknown(other) if self.unknown[other].call == item.call),
            );
            if !twin {
                choices.push(Choice::Unknown(at));
            }
        }
        choices
    }

    fn violation(&self, undecided: bool) -> Box<Violation> {
        let (_, low, state) = self.furthest;
        let item = self.known[low.min(self.known.len() - 1)];
        let is_stuck = |operation: &&Operation| {
            operation.call == item.call
                && operation.invoked == item.invoked
                && operation.returned == item.returned
        };
        let stuck = *self.all.iter().find(is_stuck).expect("it is one of them");
        let mut operations = self.all.clone();
        operations.sort_by_key(|operation| operation.invoked);
        Box::new(Violation { key: stuck.key, undecided, stuck, state, operations })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, tried out: some order of the answered operations and some of the unknown ones, that keeps real
    /// time and gives every answer.
    fn by_definition(operations: &[Operation]) -> bool {
        fn go(left: &[Operation], state: State) -> bool {
            let answered = |operation: &Operation| matches!(operation.outcome, Outcome::Answered(_));
            if !left.iter().any(answered) {
                return true;
            }
            (0..left.len()).any(|at| {
                let operation = left[at];
                let before = |other: &Operation| answered(other) && other.returned < operation.invoked;
                if operation.outcome == Outcome::Refused || left.iter().any(before) {
                    return false;
                }
                let (after, answer) = operation.call.apply(state);
                if matches!(operation.outcome, Outcome::Answered(told) if told != answer) {
                    return false;
                }
                let mut rest = left.to_vec();
                rest.remove(at);
                go(&rest, after)
            })
        }
        go(operations, State::default())
    }

    fn random_history(random: &mut Random, most: u64) -> Vec<Operation> {
        let mut operations = Vec::new();
        for client in 0..1 + random.below(most) as u32 {
            let invoked = random.below(12);
            let value = 1 + random.below(3) as i64;
            let call = match random.below(7) {
                0 | 1 => Call::Get,
                2 => Call::Set(value),
                3 => Call::SetIfAbsent(value),
                4 => Call::Increment,
                5 => Call::Delete,
                _ if random.chance(500) => Call::SetExpiring(value, client + 1),
                _ => Call::Expire(1 + random.below(5) as u32),
            };
            let answer = match call {
                Call::Get => Answer::Value((!random.chance(300)).then_some(value)),
                Call::Set(_) | Call::SetExpiring(..) | Call::Expire(_) => Answer::Done,
                Call::SetIfAbsent(_) | Call::Delete => Answer::Changed(random.chance(500)),
                Call::Increment => Answer::Counted(value),
            };
            let outcome = match random.below(10) {
                _ if matches!(call, Call::Expire(_)) => Outcome::Unknown,
                0 | 1 => Outcome::Unknown,
                2 => Outcome::Refused,
                _ => Outcome::Answered(answer),
            };
            let returned =
                if outcome == Outcome::Unknown { Time::MAX } else { invoked + 1 + random.below(6) };
            operations.push(Operation { client, key: 0, call, invoked, returned, outcome });
        }
        operations
    }

    #[test]
    fn the_checker_agrees_with_the_definition() {
        let mut random = Random::new(1);
        let mut verdicts = [0; 2];
        for round in 0..60_000 {
            let operations = random_history(&mut random, 6);
            let expected = by_definition(&operations);
            verdicts[usize::from(expected)] += 1;
            assert_eq!(check(&operations).is_ok(), expected, "round {round}: {operations:#?}");
        }
        assert!(verdicts.iter().all(|&count| count > 3_000), "both verdicts are tried: {verdicts:?}");
    }

    /// A history that a register could have made: each operation takes effect at an instant between its times.
    fn true_history(random: &mut Random, clients: u32, each: usize, keys: usize) -> Vec<Operation> {
        let mut states = vec![State::default(); keys];
        let mut clocks: Vec<Time> = (0..clients).map(|_| random.below(1000)).collect();
        let mut made: Vec<(Time, Operation)> = Vec::new();
        for turn in 0..each {
            for client in 0..clients {
                let key = random.below(keys as u64) as usize;
                let unique = (turn as i64 * i64::from(clients) + i64::from(client)) * 1000;
                let call = match random.below(8) {
                    0..=3 => Call::Get,
                    4 => Call::Set(unique),
                    5 => Call::SetIfAbsent(unique),
                    6 => Call::Increment,
                    _ => Call::Delete,
                };
                let invoked = clocks[client as usize] + 1 + random.below(800);
                let happens = invoked + random.below(500);
                let returned = happens + random.below(500);
                clocks[client as usize] = returned;
                let outcome = if random.chance(20) { Outcome::Unknown } else { Outcome::Refused };
                made.push((happens, Operation { client, key, call, invoked, returned, outcome }));
            }
        }
        made.sort_by_key(|(happens, _)| *happens);
        for (_, operation) in &mut made {
            let (after, answer) = operation.call.apply(states[operation.key]);
            if operation.outcome == Outcome::Unknown {
                operation.returned = Time::MAX;
                if random.chance(500) {
                    continue;
                }
            } else {
                operation.outcome = Outcome::Answered(answer);
            }
            states[operation.key] = after;
        }
        made.into_iter().map(|(_, operation)| operation).collect()
    }

    #[test]
    fn true_histories_pass_and_planted_lies_are_found() {
        let mut random = Random::new(2);
        let (mut planted, mut found) = (0, 0);
        for _ in 0..300 {
            let history = true_history(&mut random, 6, 60, 4);
            assert_eq!(check(&history), Ok(()));
            // A stale read: one that shows a value overwritten long before it was asked for.
            let mut lie = history.clone();
            let mut sets = lie
                .clone()
                .into_iter()
                .filter(|o| matches!(o.call, Call::Set(_)) && matches!(o.outcome, Outcome::Answered(_)));
            let (Some(old), Some(new)) = (sets.next(), sets.next_back()) else { continue };
            let Call::Set(stale) = old.call else { continue };
            let reads =
                |o: &&mut Operation| o.key == old.key && o.call == Call::Get && o.invoked > new.returned;
            let overwritten = history.iter().any(|o| {
                o.key == old.key
                    && matches!(o.call, Call::Set(_))
                    && o.invoked > old.returned
                    && o.returned < new.returned
            });
            if let Some(read) = lie.iter_mut().rfind(reads)
                && overwritten
            {
                read.outcome = Outcome::Answered(Answer::Value(Some(stale)));
                planted += 1;
                found += usize::from(check(&lie).is_err());
            }
        }
        assert!(planted > 30 && found == planted, "stale reads: {found} of {planted}");
    }

    fn operation(call: Call, invoked: Time, answer: Answer) -> Operation {
        let outcome = Outcome::Answered(answer);
        Operation { client: 0, key: 0, call, invoked, returned: invoked + 1, outcome }
    }

    #[test]
    fn a_lost_update_and_a_resurrected_delete_are_found() {
        let set = operation(Call::Set(5), 0, Answer::Done);
        let read = |at, value| operation(Call::Get, at, Answer::Value(value));
        let count = |at, value| operation(Call::Increment, at, Answer::Counted(value));
        let delete = operation(Call::Delete, 4, Answer::Changed(true));
        assert!(check(&[set, count(2, 6), count(4, 7), read(6, Some(7))]).is_ok());
        assert!(check(&[set, count(2, 6), count(4, 6), read(6, Some(6))]).is_err(), "a lost update");
        assert!(check(&[set, delete, read(6, None)]).is_ok());
        assert!(check(&[set, delete, read(6, Some(5))]).is_err(), "a resurrected delete");
        assert!(check(&[set, read(4, None)]).is_err(), "a lost write");
        let unknown = Operation { outcome: Outcome::Unknown, returned: Time::MAX, ..delete };
        assert!(check(&[set, unknown, read(6, Some(5)), read(8, None)]).is_ok(), "it happened late");
        assert!(check(&[set, unknown, read(6, None), read(8, Some(5))]).is_err(), "and does not unhappen");
    }

    #[test]
    fn large_histories_are_quick() {
        let mut random = Random::new(3);
        let history = true_history(&mut random, 20, 5000, 50);
        let began = std::time::Instant::now();
        assert_eq!(check(&history), Ok(()));
        println!("{} operations over 50 keys: {:?}", history.len(), began.elapsed());
    }
}
