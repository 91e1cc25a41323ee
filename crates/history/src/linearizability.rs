//! Whether a history could have come from registers, each operation taking effect at one instant between its invocation
//! and its return (Herlihy and Wing 1990).
//!
//! Keys are independent (the property is local) but for those that operations on several keys join: each such group is searched by
//! itself, depth first over the orders that real time allows, remembering which sets of operations led to which states (Wing and Gong 1993;
//! Lowe, "Testing for linearizability", 2017). Three things keep the search short:
//!
//! - An operation whose answer says that it changed nothing is taken as soon as that answer fits the state: putting it
//!   later could not help anybody.
//! - An operation of unknown outcome is tried last, and only where it would change something: left out, it is still
//!   there for later.
//! - Of several unknown operations that do the same, only the first invoked is tried.

use crate::search::{Search, Verdict};
use crate::{Operation, Outcome, State, Time};
use std::collections::BTreeMap;

/// Steps after which a group's search gives up.
const STEPS_MAX: usize = 20_000_000;

/// Steps of the second search, which is for people.
const STEPS_TO_SHOW: usize = 300_000;

/// How long before the operation that is stuck others have to have ended to be left out of what is shown.
const NEAR: Time = 3_000_000_000;

/// Why a history is not linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key, or the keys that operations have joined.
    pub keys: Vec<usize>,
    /// Set where the search was given up instead of finished.
    pub undecided: bool,
    /// The operation that no order explains: of those tried, the one that got furthest.
    pub stuck: Operation,
    /// The states of the keys that the furthest order led to before it.
    pub states: Vec<State>,
    /// All operations on the keys, by their invocation.
    pub operations: Vec<Operation>,
}

/// Checks every group of keys of a history, in any order of the operations. `undecided` violations are the caller's to judge.
pub fn check(operations: &[Operation]) -> Result<(), Box<Violation>> {
    groups(operations).iter().try_for_each(|group| {
        let search = |foresight| Search::new(&group.operations, &group.keys, foresight);
        let (undecided, mut furthest) = match search(true).run(STEPS_MAX) {
            Verdict::Explained => return Ok(()),
            Verdict::Stuck { undecided, furthest } => (undecided, furthest),
        };
        // With foresight the search ends long before the operation that nothing explains. People want to see that one.
        if let Verdict::Stuck { furthest: further, .. } = search(false).run(STEPS_TO_SHOW)
            && further.left <= furthest.left
        {
            furthest = further;
        }
        let mut all: Vec<Operation> = group.operations.iter().copied().cloned().collect();
        all.sort_by_key(|operation| operation.invoked);
        Err(Box::new(Violation {
            keys: group.keys.clone(),
            undecided,
            stuck: group.operations[furthest.stuck].clone(),
            states: furthest.states,
            operations: all,
        }))
    })
}

/// Keys that operations have joined, and all operations on them.
struct Group<'h> {
    keys: Vec<usize>,
    operations: Vec<&'h Operation>,
}

/// The groups of a history, by their least keys. A refused operation joins nothing.
fn groups(operations: &[Operation]) -> Vec<Group<'_>> {
    let mut number: BTreeMap<usize, usize> = BTreeMap::new();
    for part in operations.iter().flat_map(|operation| &operation.parts) {
        number.insert(part.key, 0);
    }
    let keys: Vec<usize> = number.keys().copied().collect();
    number.values_mut().enumerate().for_each(|(at, number)| *number = at);
    // The least key that each is joined with, as far as is known yet.
    let mut least: Vec<usize> = (0..keys.len()).collect();
    for operation in operations.iter().filter(|operation| operation.outcome != Outcome::Refused) {
        for pair in operation.parts.windows(2) {
            let one = root(&mut least, number[&pair[0].key]);
            let other = root(&mut least, number[&pair[1].key]);
            least[one.max(other)] = one.min(other);
        }
    }
    let mut groups: BTreeMap<usize, Group<'_>> = BTreeMap::new();
    for (at, &key) in keys.iter().enumerate() {
        let group = groups.entry(root(&mut least, at));
        group.or_insert(Group { keys: Vec::new(), operations: Vec::new() }).keys.push(key);
    }
    for operation in operations.iter().filter(|operation| operation.outcome != Outcome::Refused) {
        let Some(part) = operation.parts.first() else { continue };
        let group = groups.get_mut(&root(&mut least, number[&part.key]));
        group.expect("every key is in one").operations.push(operation);
    }
    groups.into_values().collect()
}

fn root(least: &mut [usize], mut at: usize) -> usize {
    while least[at] != at {
        least[at] = least[least[at]];
        at = least[at];
    }
    at
}

impl Violation {
    /// The violation for people, with the operations near the one that is stuck. `name` names keys.
    pub fn explain(&self, name: impl Fn(usize) -> String) -> String {
        let list = |words: Vec<String>| words.join(", ");
        let mut text = format!(
            "the history of {} is not linearizable{}:\n  nothing explains {}\n  where the state is {}\n",
            list(self.keys.iter().map(|&key| name(key)).collect()),
            if self.undecided { ", or the search was too long" } else { "" },
            shown(&self.stuck, &name),
            list(
                self.keys
                    .iter()
                    .zip(&self.states)
                    .map(|(&key, state)| {
                        let value = state.value.map_or("absent".into(), |value| value.to_string());
                        let expiry = if state.expiry == 0 {
                            String::new()
                        } else {
                            format!(" (expiry {})", state.expiry)
                        };
                        format!("{} = {value}{expiry}", name(key))
                    })
                    .collect()
            ),
        );
        let near = |operation: &&Operation| {
            operation.invoked <= self.stuck.returned
                && operation.returned >= self.stuck.invoked.saturating_sub(NEAR)
        };
        text += "operations near it:\n";
        for operation in self.operations.iter().filter(near) {
            let mark = if *operation == self.stuck { "> " } else { "  " };
            text += &format!("{mark}{}\n", shown(operation, &name));
        }
        text
    }
}

/// An operation for people.
fn shown(operation: &Operation, name: impl Fn(usize) -> String) -> String {
    let seconds = |time: Time| format!("{}.{:06} s", time / 1_000_000_000, time / 1000 % 1_000_000);
    let until = if operation.returned == Time::MAX { "?".into() } else { seconds(operation.returned) };
    let parts = operation.parts.iter().map(|part| {
        let answer = match part.answer {
            Some(answer) if operation.outcome == Outcome::Answered => format!(" -> {answer:?}"),
            _ => String::new(),
        };
        format!("{} {:?}{answer}", name(part.key), part.call)
    });
    let end = if operation.outcome == Outcome::Answered {
        String::new()
    } else {
        format!(" {:?}", operation.outcome)
    };
    let parts: Vec<String> = parts.collect();
    format!(
        "{} to {until}: client {} {}{end}",
        seconds(operation.invoked),
        operation.client,
        parts.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made::{self, Shape};
    use crate::random::Random;
    use crate::{Answer, Call, Part, apply};

    /// The definition, tried out: some order of the answered operations and some of the unknown ones, that keeps real
    /// time and gives every answer.
    fn by_definition(operations: &[Operation]) -> bool {
        fn go(left: &[Operation], states: &[State]) -> bool {
            let answered = |operation: &Operation| operation.outcome == Outcome::Answered;
            if !left.iter().any(answered) {
                return true;
            }
            (0..left.len()).any(|at| {
                let operation = &left[at];
                let before = |other: &Operation| answered(other) && other.returned < operation.invoked;
                if operation.outcome == Outcome::Refused || left.iter().any(before) {
                    return false;
                }
                let (mut after, mut undo) = (states.to_vec(), Vec::new());
                if !apply(&operation.parts, &mut after, &mut undo) {
                    return false;
                }
                let mut rest = left.to_vec();
                rest.remove(at);
                go(&rest, &after)
            })
        }
        go(operations, &[State::default(); 3])
    }

    fn random_call(random: &mut Random, client: u32, several: bool) -> Call {
        let value = 1 + random.below(3) as i64;
        match random.below(if several { 6 } else { 11 }) {
            0 | 1 => Call::Get,
            2 => Call::Set(value),
            3 => Call::Delete,
            4 => Call::SetIfAllAbsent(value),
            5 | 6 => Call::Increment,
            7 => Call::SetIfAbsent(value),
            8 => Call::CompareAndSet { expected: value, new: 1 + random.below(3) as i64 },
            9 => Call::CompareAndDelete(value),
            _ if random.chance(500) => Call::SetExpiring(value, client + 1),
            _ => Call::Expire(1 + random.below(5) as u32),
        }
    }

    fn random_answer(random: &mut Random, call: Call, several: bool) -> Answer {
        let value = 1 + random.below(3) as i64;
        let shows = Answer::Value((!random.chance(300)).then_some(value));
        match call {
            Call::Get => shows,
            _ if random.chance(50) => shows,
            Call::Set(_) | Call::SetExpiring(..) | Call::Expire(_) => Answer::Done,
            Call::Delete if several => Answer::Removed(random.below(3) as u32),
            Call::SetIfAbsent(_) | Call::SetIfAllAbsent(_) | Call::Delete => {
                Answer::Changed(random.chance(500))
            }
            Call::CompareAndSet { .. } | Call::CompareAndDelete(_) => random.pick(&[
                Answer::Changed(true),
                Answer::Changed(false),
                Answer::Mismatch,
                Answer::Absent,
            ]),
            Call::Increment => Answer::Counted(value),
        }
    }

    /// A history that may well be wrong.
    fn random_history(random: &mut Random, most: u64, keys: u64) -> Vec<Operation> {
        let mut operations = Vec::new();
        for client in 0..1 + random.below(most) as u32 {
            let invoked = random.below(12);
            let several = keys > 1 && random.chance(400);
            let kind = random_call(random, client, several);
            let count = if several { 2 + random.below(keys - 1) } else { 1 };
            let first = random.below(keys);
            let mut parts = Vec::new();
            for at in 0..count {
                // Now and then a key comes twice, and now and then the parts ask different things.
                let key = if random.chance(100) { first } else { (first + at) % keys } as usize;
                let call = if random.chance(100) { random_call(random, client, several) } else { kind };
                let answer = Some(random_answer(random, call, several)).filter(|_| !random.chance(30));
                parts.push(Part { key, call, answer });
            }
            let expires = parts.iter().any(|part| matches!(part.call, Call::Expire(_)));
            let outcome = match random.below(10) {
                _ if expires && random.chance(900) => Outcome::Unknown,
                0 | 1 => Outcome::Unknown,
                2 => Outcome::Refused,
                _ => Outcome::Answered,
            };
            let returned =
                if outcome == Outcome::Unknown { Time::MAX } else { invoked + 1 + random.below(6) };
            operations.push(Operation { client, parts, invoked, returned, outcome });
        }
        // What was not answered says nothing.
        for operation in operations.iter_mut().filter(|operation| operation.outcome != Outcome::Answered) {
            operation.parts.iter_mut().for_each(|part| part.answer = None);
        }
        operations
    }

    /// The answers of a history that is right, but for one: it has to be right too, or the history is wrong by it.
    fn nearly_right_history(random: &mut Random, keys: usize) -> Vec<Operation> {
        let shape = Shape { clients: 3, operations: 6, keys, grouped_permille: 1000, unknown_permille: 200 };
        let mut operations = made::history(shape, random);
        for _ in 0..random.below(3) {
            let at = random.below(operations.len() as u64) as usize;
            let values: Vec<Answer> =
                operations.iter().flat_map(|o| &o.parts).filter_map(|part| part.answer).collect();
            if let (Some(part), false) = (operations[at].parts.last_mut(), values.is_empty())
                && part.answer.is_some()
            {
                part.answer = Some(random.pick(&values));
            }
        }
        operations
    }

    fn compare(rounds: usize, mut make: impl FnMut() -> Vec<Operation>) {
        let mut verdicts = [0; 2];
        for round in 0..rounds {
            let operations = make();
            let expected = by_definition(&operations);
            verdicts[usize::from(expected)] += 1;
            assert_eq!(check(&operations).is_ok(), expected, "round {round}: {operations:#?}");
        }
        assert!(verdicts.iter().all(|&count| count > rounds / 20), "both verdicts are tried: {verdicts:?}");
    }

    #[test]
    fn the_checker_agrees_with_the_definition() {
        let mut random = Random::new(1);
        compare(40_000, || random_history(&mut random, 6, 1));
        compare(40_000, || random_history(&mut random, 5, 2));
        compare(40_000, || random_history(&mut random, 5, 3));
        compare(20_000, || nearly_right_history(&mut random, 3));
    }

    #[test]
    fn true_histories_pass_and_stale_reads_are_found() {
        let mut random = Random::new(2);
        let (mut planted, mut found) = (0, 0);
        for round in 0..300 {
            let grouped_permille = if round % 2 == 0 { 0 } else { 800 };
            let shape =
                Shape { clients: 6, operations: 400, keys: 4, grouped_permille, unknown_permille: 20 };
            let history = made::history(shape, &mut random);
            check(&history).unwrap_or_else(|why| panic!("{}", why.explain(|key| format!("key {key}"))));
            // A stale read: one that shows a value overwritten long before it was asked for.
            let sets = |o: &&Operation| {
                matches!(o.parts[..], [Part { call: Call::Set(_), .. }]) && o.outcome == Outcome::Answered
            };
            let (Some(old), Some(new)) = (history.iter().find(sets), history.iter().rfind(sets)) else {
                continue;
            };
            let [Part { key, call: Call::Set(stale), .. }] = old.parts[..] else { continue };
            let overwritten = history
                .iter()
                .filter(sets)
                .any(|o| o.parts[0].key == key && o.invoked > old.returned && o.returned < new.returned);
            let mut lie = history.clone();
            let reads = lie.iter_mut().filter(|o| o.invoked > new.returned).flat_map(|o| &mut o.parts);
            let read =
                reads.filter(|part| part.key == key && part.call == Call::Get && part.answer.is_some());
            if let Some(read) = read.last()
                && overwritten
            {
                read.answer = Some(Answer::Value(Some(stale)));
                planted += 1;
                found += usize::from(check(&lie).is_err());
            }
        }
        assert!(planted > 30 && found == planted, "stale reads: {found} of {planted}");
    }

    fn operation(invoked: Time, parts: &[(usize, Call, Answer)]) -> Operation {
        let part = |&(key, call, answer): &_| Part { key, call, answer: Some(answer) };
        let parts = parts.iter().map(part).collect();
        Operation { client: 0, parts, invoked, returned: invoked + 1, outcome: Outcome::Answered }
    }

    fn unknown(of: &Operation) -> Operation {
        let mut operation = Operation { outcome: Outcome::Unknown, returned: Time::MAX, ..of.clone() };
        operation.parts.iter_mut().for_each(|part| part.answer = None);
        operation
    }

    fn holds(operations: &[&Operation]) -> bool {
        let operations: Vec<Operation> = operations.iter().copied().cloned().collect();
        check(&operations).is_ok()
    }

    #[test]
    fn a_lost_update_and_a_resurrected_delete_are_found() {
        let set = &operation(0, &[(0, Call::Set(5), Answer::Done)]);
        let read = |at, value| operation(at, &[(0, Call::Get, Answer::Value(value))]);
        let count = |at, value| operation(at, &[(0, Call::Increment, Answer::Counted(value))]);
        let delete = &operation(4, &[(0, Call::Delete, Answer::Changed(true))]);
        assert!(holds(&[set, &count(2, 6), &count(4, 7), &read(6, Some(7))]));
        assert!(!holds(&[set, &count(2, 6), &count(4, 6), &read(6, Some(6))]), "a lost update");
        assert!(holds(&[set, delete, &read(6, None)]));
        assert!(!holds(&[set, delete, &read(6, Some(5))]), "a resurrected delete");
        assert!(!holds(&[set, &read(4, None)]), "a lost write");
        let unknown = &unknown(delete);
        assert!(holds(&[set, unknown, &read(6, Some(5)), &read(8, None)]), "it happened late");
        assert!(!holds(&[set, unknown, &read(6, None), &read(8, Some(5))]), "and does not unhappen");
    }

    #[test]
    fn half_of_an_operation_on_several_keys_is_found() {
        let set = &operation(0, &[(0, Call::Set(1), Answer::Done), (1, Call::Set(2), Answer::Done)]);
        let read = |at, one, other| {
            operation(at, &[(0, Call::Get, Answer::Value(one)), (1, Call::Get, Answer::Value(other))])
        };
        let again = &operation(4, &[(0, Call::Set(3), Answer::Done), (1, Call::Set(4), Answer::Done)]);
        let while_again = |one, other| Operation { returned: 9, ..read(4, one, other) };
        assert!(holds(&[set, again, &while_again(Some(1), Some(2))]));
        assert!(holds(&[set, again, &while_again(Some(3), Some(4))]));
        assert!(!holds(&[set, again, &while_again(Some(3), Some(2))]), "torn");
        assert!(!holds(&[set, again, &while_again(Some(1), Some(4))]), "torn");
        let unknown = &unknown(again);
        assert!(!holds(&[set, unknown, &read(10, Some(3), Some(2))]), "half of it was done");
        let one = |at, key, value| operation(at, &[(key, Call::Get, Answer::Value(value))]);
        assert!(
            !holds(&[set, unknown, &one(10, 0, Some(3)), &one(12, 1, Some(2))]),
            "the other half is missing"
        );
        assert!(holds(&[set, unknown, &one(10, 1, Some(2)), &one(12, 0, Some(3))]), "it was done in between");
        let delete = |count| operation(10, &[0, 1].map(|key| (key, Call::Delete, Answer::Removed(count))));
        assert!(holds(&[set, &delete(2), &read(12, None, None)]));
        assert!(!holds(&[set, &delete(1)]), "both were there");
        assert!(!holds(&[set, &delete(2), &read(12, None, Some(2))]), "half of it came back");
        let all_absent = |written| {
            operation(10, &[0, 1].map(|key| (key, Call::SetIfAllAbsent(7), Answer::Changed(written))))
        };
        let first = &operation(0, &[(0, Call::Set(1), Answer::Done)]);
        assert!(holds(&[first, &all_absent(false), &read(12, Some(1), None)]));
        assert!(!holds(&[first, &all_absent(true)]));
        assert!(!holds(&[first, &all_absent(false), &read(12, Some(1), Some(7))]), "half of it was done");
    }

    #[test]
    fn a_compare_and_set_over_a_wrong_value_is_found() {
        let set = |at, value| operation(at, &[(0, Call::Set(value), Answer::Done)]);
        let read = |at, value| operation(at, &[(0, Call::Get, Answer::Value(Some(value)))]);
        let swap = |at, expected, new, written| {
            operation(at, &[(0, Call::CompareAndSet { expected, new }, Answer::Changed(written))])
        };
        assert!(holds(&[&set(0, 1), &swap(2, 1, 2, true), &read(4, 2)]));
        assert!(
            !holds(&[&set(0, 1), &set(2, 3), &swap(4, 1, 2, true), &read(6, 2)]),
            "another value was there"
        );
        assert!(!holds(&[&set(0, 1), &set(2, 3), &swap(4, 1, 2, false), &read(6, 2)]), "and yet it wrote");
        assert!(!holds(&[&set(0, 1), &swap(2, 1, 2, true), &swap(4, 1, 3, true)]), "two over one value");
        let unknown = &unknown(&swap(4, 1, 2, true));
        assert!(!holds(&[&set(0, 1), &set(2, 3), unknown, &read(6, 2)]), "not even where nobody knows");
    }

    #[test]
    fn a_violation_names_keys_states_and_what_is_near() {
        let set =
            operation(1_000_000_000, &[(7, Call::Set(1), Answer::Done), (8, Call::Set(2), Answer::Done)]);
        let elsewhere = operation(1_000_000_000, &[(3, Call::Get, Answer::Value(None))]);
        let old = operation(1_000_000, &[(8, Call::Get, Answer::Value(None))]);
        let read = operation(6_000_000_000, &[(8, Call::Get, Answer::Value(None))]);
        let pending = unknown(&operation(2_000_000_000, &[(8, Call::Increment, Answer::Counted(0))]));
        let violation = check(&[elsewhere, set, read.clone(), old, pending]).unwrap_err();
        assert_eq!((&violation.keys[..], &violation.stuck), (&[7, 8][..], &read));
        let expected = "\
the history of key 7, key 8 is not linearizable:
  nothing explains 6.000000 s to 6.000000 s: client 0 key 8 Get -> Value(None)
  where the state is key 7 = 1, key 8 = 2
operations near it:
  2.000000 s to ?: client 0 key 8 Increment Unknown
> 6.000000 s to 6.000000 s: client 0 key 8 Get -> Value(None)
";
        assert_eq!(violation.explain(|key| format!("key {key}")), expected);
    }
}
