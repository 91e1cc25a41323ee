//! Histories that registers could have made, for trying and measuring the checker: each operation takes effect at an instant between its
//! invocation and its return, and is answered by the state that it finds there.

use crate::random::Random;
use crate::{Answer, Call, Operation, Outcome, Part, State, Time, apply};

/// What a history is like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Clients at once, each with one operation at a time.
    pub clients: u32,
    /// Operations of them all together.
    pub operations: usize,
    /// Keys: more than none.
    pub keys: usize,
    /// How many of a thousand keys are in groups of three, on which operations are asked together.
    pub grouped_permille: u64,
    /// How many of a thousand operations have an unknown outcome; half of those were done.
    pub unknown_permille: u64,
}

/// The distance between two plain values that are written.
const STEP: i64 = 10_000;

/// Makes a history.
pub fn history(shape: Shape, random: &mut Random) -> Vec<Operation> {
    let grouped = (shape.keys as u64 * shape.grouped_permille / 1000) as usize / 3 * 3;
    let mut clocks: Vec<Time> = (0..shape.clients).map(|_| random.below(1000)).collect();
    let mut made: Vec<(Time, Operation)> = Vec::with_capacity(shape.operations);
    for number in 0..shape.operations {
        let client = number % clocks.len().max(1);
        let key = random.below(shape.keys as u64) as usize;
        let mut unique = number as i64 * 4 * STEP;
        let calls = if key < grouped && random.chance(400) {
            let group = key / 3 * 3;
            let kind = random.below(8);
            let several = (group..group + 3).filter(|_| random.chance(800));
            several.map(|key| (key, joint_call(kind, &mut unique))).collect()
        } else {
            vec![(key, call(random, unique + STEP))]
        };
        let invoked = clocks[client] + 1 + random.below(800);
        let happens = invoked + random.below(500);
        let returned = happens + random.below(500);
        clocks[client] = returned;
        let unknown = random.chance(shape.unknown_permille);
        let outcome = if unknown { Outcome::Unknown } else { Outcome::Answered };
        let parts = calls.into_iter().map(|(key, call)| Part { key, call, answer: None }).collect();
        made.push((happens, Operation { client: client as u32, parts, invoked, returned, outcome }));
    }
    made.retain(|(_, operation)| !operation.parts.is_empty());
    made.sort_by_key(|(happens, _)| *happens);
    answer(&mut made, shape.keys, random);
    made.into_iter().map(|(_, operation)| operation).collect()
}

fn call(random: &mut Random, unique: i64) -> Call {
    match random.below(10) {
        0..=4 => Call::Get,
        5 => Call::Set(unique),
        6 => Call::SetIfAbsent(unique),
        7 => Call::Increment,
        // What it expects is filled in where it happens.
        8 => Call::CompareAndSet { expected: 0, new: unique },
        _ => Call::Delete,
    }
}

fn joint_call(kind: u64, unique: &mut i64) -> Call {
    *unique += STEP;
    match kind {
        0..=3 => Call::Get,
        4..=5 => Call::Set(*unique),
        6 => Call::SetIfAllAbsent(*unique),
        _ => Call::Delete,
    }
}

/// Lets the operations happen, in order.
fn answer(made: &mut [(Time, Operation)], keys: usize, random: &mut Random) {
    let mut states = vec![State::default(); keys];
    let mut undo = Vec::new();
    for (_, operation) in made {
        for part in &mut operation.parts {
            if let Call::CompareAndSet { expected, .. } = &mut part.call
                && random.chance(700)
            {
                *expected = states[part.key].value.unwrap_or(0);
            }
        }
        let is_unknown = operation.outcome == Outcome::Unknown;
        if is_unknown {
            operation.returned = Time::MAX;
            if random.chance(500) {
                continue;
            }
        }
        let before: Vec<State> = operation.parts.iter().map(|part| states[part.key]).collect();
        undo.clear();
        apply(&operation.parts, &mut states, &mut undo);
        if is_unknown {
            continue;
        }
        let none_was_there = before.iter().all(|state| state.value.is_none());
        let there = before.iter().filter(|state| state.value.is_some()).count();
        let several = operation.parts.len() > 1;
        for (part, before) in operation.parts.iter_mut().zip(before) {
            part.answer = Some(match part.call {
                Call::SetIfAllAbsent(_) => Answer::Changed(none_was_there),
                Call::Delete if several => Answer::Removed(there as u32),
                call => call.apply(before).1,
            });
        }
    }
}
