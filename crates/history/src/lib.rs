//! Room `history`: what clients did and saw, and whether it makes sense. The simulator and the chaos commands record histories here,
//! and neither this room nor its checker knows anything of the product.
//!
//! A history is a list of operations with the times of invocation and return. [`linearizability`] says whether one could have come from
//! registers that nothing ever went wrong with. [`file`] keeps one, so that it can be judged again; the program `check` does that. [`made`]
//! makes histories that are right, to try the checker on. [`random`] is the only source of chance of whatever checks.
//!
//! **Several keys.** An [`Operation`] has one [`Part`] a key, and all its parts take effect at one instant. A command on several keys of one
//! partition is one operation; over several partitions it is one operation a partition, because that is what is promised of it (rule
//! 18). Keys that operations have joined are searched together, so what is asked of several keys should be asked of few: groups of three
//! are quick, one group of fifty keys is not.
//!
//! **Values.** A value is a number, so that it can be counted up; every write of a plain value has one of its own.
//!
//! **Versions.** Because of that, where a value does not come from `INCR` on an absent key, it was there once only: a version means what
//! the value means that was shown with it, and a write over a version (`SETV key value IFVERSION version`) is recorded as a
//! [`Call::CompareAndSet`] from that value.
//!
//! **Expiry.** It is an operation that nobody returned from: it may happen at any time from when it is due, once, and only to the value
//! it was set for. With [`Call::SetExpiring`] a recorder invokes a [`Call::Expire`] of the same number, at the earliest time of its
//! clock at which the value may go: when it asked, plus the time to live, less what the clocks of nodes and recorder may
//! drift or jump meanwhile (when it asked, where it cannot say). It never ends it, if an expired value may be shown for any time; or it ends it as
//! answered at the time from which the value must not be seen any more.
//!
//! ```
//! use history::{Answer, Call, History, linearizability};
//!
//! let mut history = History::default();
//! let set = history.invoke(1, &[(0, Call::Set(10)), (1, Call::Set(20))], 0);
//! history.answered(set, 5, &[Answer::Done, Answer::Done]);
//! let read = history.invoke(2, &[(0, Call::Get), (1, Call::Get)], 3);
//! // Half of it: the two take effect at one instant.
//! history.answered(read, 8, &[Answer::Value(Some(10)), Answer::Value(None)]);
//! let violation = linearizability::check(history.operations()).unwrap_err();
//! assert_eq!(violation.keys, [0, 1]);
//! ```

pub mod file;
mod lineage;
pub mod linearizability;
pub mod made;
pub mod random;
mod search;

/// Nanoseconds from the start of what is recorded, on one clock.
pub type Time = u64;

/// A key's state: its value and the expiry that it carries (0: none).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct State {
    /// The value; none where the key is absent.
    pub value: Option<i64>,
    /// Which [`Call::SetExpiring`] the expiry is of.
    pub expiry: u32,
}

/// What was asked of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// `GET`; of several keys `MGET`.
    Get,
    /// `SET key value`; of several keys `MSET`.
    Set(i64),
    /// `SET key value NX`.
    SetIfAbsent(i64),
    /// `MSETNX`: where none of the operation's keys of this call is there.
    SetIfAllAbsent(i64),
    /// `SET key value PX`: with it goes a [`Call::Expire`] of the same number.
    SetExpiring(i64, u32),
    /// `INCR`.
    Increment,
    /// `DEL`.
    Delete,
    /// `SET key new IFEQ expected`, or `SETV key new IFVERSION` of the version that `expected` was shown with.
    CompareAndSet {
        /// The value that has to be there.
        expected: i64,
        /// The value that is there then.
        new: i64,
    },
    /// `DELV key IFVERSION` of the version that this value was shown with.
    CompareAndDelete(i64),
    /// The time of a [`Call::SetExpiring`] has come. Nobody asks this.
    Expire(u32),
}

/// What was answered for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// `OK`.
    Done,
    /// What was there before the call, or none: of `GET`, and of whatever shows the old value (`SET key value GET`).
    Value(Option<i64>),
    /// `INCR`: the new value.
    Counted(i64),
    /// Whether a write under a condition wrote, or whether `DEL` removed the key. False leaves open why not.
    Changed(bool),
    /// A write over an expected value did not write: another value was there.
    Mismatch,
    /// A write over an expected value did not write: none was there.
    Absent,
    /// `DEL` of several keys: how many of them it removed, all together. Every part has the same.
    Removed(u32),
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was done, and its parts say what was answered.
    Answered,
    /// It was surely not done.
    Refused,
    /// It may or may not have been done, then or at any later time; but all its parts or none.
    Unknown,
}

/// What an operation asks of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which key, by number.
    pub key: usize,
    /// What was asked.
    pub call: Call,
    /// What was answered. None: nothing, or nobody knows what; then whatever it was is right.
    pub answer: Option<Answer>,
}

/// One operation: something that a client asked, of one key or of several of one partition, to be done at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asked.
    pub client: u32,
    /// What, at least one. Where a key comes twice, the second finds what the first left.
    pub parts: Vec<Part>,
    /// When.
    pub invoked: Time,
    /// When the answer came. [`Time::MAX`]: not yet, or nobody knows.
    pub returned: Time,
    /// What became of it.
    pub outcome: Outcome,
}

impl Operation {
    /// Its parts on a key.
    pub fn on(&self, key: usize) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(move |part| part.key == key)
    }

    /// Whether nobody asked it: it stands for the time of an expiry.
    pub fn is_expiry(&self) -> bool {
        self.parts.iter().all(|part| matches!(part.call, Call::Expire(_)))
    }
}

impl Call {
    /// The state after the call alone, and what it answers at its most exact.
    pub fn apply(self, state: State) -> (State, Answer) {
        let plain = |value| State { value: Some(value), expiry: 0 };
        match self {
            Call::Get => (state, Answer::Value(state.value)),
            Call::Set(value) => (plain(value), Answer::Done),
            Call::SetExpiring(value, expiry) => (State { value: Some(value), expiry }, Answer::Done),
            Call::SetIfAbsent(value) | Call::SetIfAllAbsent(value) if state.value.is_none() => {
                (plain(value), Answer::Changed(true))
            }
            Call::SetIfAbsent(_) | Call::SetIfAllAbsent(_) => (state, Answer::Changed(false)),
            Call::Increment => {
                let value = state.value.unwrap_or(0).saturating_add(1);
                (State { value: Some(value), ..state }, Answer::Counted(value))
            }
            Call::Delete => (State::default(), Answer::Changed(state.value.is_some())),
            Call::CompareAndSet { expected, new } if state.value == Some(expected) => {
                (plain(new), Answer::Changed(true))
            }
            Call::CompareAndDelete(expected) if state.value == Some(expected) => {
                (State::default(), Answer::Changed(true))
            }
            Call::CompareAndSet { .. } | Call::CompareAndDelete(_) if state.value.is_none() => {
                (state, Answer::Absent)
            }
            Call::CompareAndSet { .. } | Call::CompareAndDelete(_) => (state, Answer::Mismatch),
            Call::Expire(expiry) if state.value.is_some() && state.expiry == expiry => {
                (State::default(), Answer::Done)
            }
            Call::Expire(_) => (state, Answer::Done),
        }
    }
}

/// Applies an operation's parts at one instant to the states that their keys number. Returns whether their answers fit. What was there
/// before is added to `undo`, in order, also where they do not.
pub fn apply(parts: &[Part], states: &mut [State], undo: &mut Vec<(usize, State)>) -> bool {
    let absent =
        |part: &Part| !matches!(part.call, Call::SetIfAllAbsent(_)) || states[part.key].value.is_none();
    let all_absent = parts.iter().all(absent);
    let (mut fits, mut removed) = (true, 0);
    for part in parts {
        let before = states[part.key];
        let (after, answer) = match part.call {
            Call::SetIfAllAbsent(_) if !all_absent => (before, Answer::Changed(false)),
            // That it was absent was found out before the first part wrote.
            Call::SetIfAllAbsent(value) => (State { value: Some(value), expiry: 0 }, Answer::Changed(true)),
            call => call.apply(before),
        };
        removed += u32::from(part.call == Call::Delete && answer == Answer::Changed(true));
        fits &= match part.answer {
            None | Some(Answer::Removed(_)) => true,
            Some(Answer::Value(value)) => value == before.value,
            Some(Answer::Changed(false)) => {
                matches!(answer, Answer::Changed(false) | Answer::Mismatch | Answer::Absent)
            }
            Some(told) => told == answer,
        };
        if after != before {
            undo.push((part.key, before));
            states[part.key] = after;
        }
    }
    let counted = |part: &Part| !matches!(part.answer, Some(Answer::Removed(told)) if told != removed);
    fits && parts.iter().all(counted)
}

/// All operations of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    operations: Vec<Operation>,
}

impl History {
    /// An operation begins. Until it ends its outcome is unknown: it may still happen at any time. Returns its number.
    pub fn invoke(&mut self, client: u32, calls: &[(usize, Call)], now: Time) -> usize {
        let parts = calls.iter().map(|&(key, call)| Part { key, call, answer: None }).collect();
        let outcome = Outcome::Unknown;
        self.operations.push(Operation { client, parts, invoked: now, returned: Time::MAX, outcome });
        self.operations.len() - 1
    }

    /// An operation is answered, each of its parts.
    pub fn answered(&mut self, operation: usize, now: Time, answers: &[Answer]) {
        let operation = &mut self.operations[operation];
        assert_eq!(operation.parts.len(), answers.len(), "one answer a part");
        (operation.returned, operation.outcome) = (now, Outcome::Answered);
        for (part, answer) in operation.parts.iter_mut().zip(answers) {
            part.answer = Some(*answer);
        }
    }

    /// An operation was surely not done, and never will be.
    pub fn refused(&mut self, operation: usize, now: Time) {
        let operation = &mut self.operations[operation];
        (operation.returned, operation.outcome) = (now, Outcome::Refused);
    }

    /// All operations, in the order in which they were recorded.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(key: usize, call: Call, answer: Answer) -> Part {
        Part { key, call, answer: Some(answer) }
    }

    /// Whether the answers fit, and the values after.
    fn after<const N: usize>(values: [Option<i64>; N], parts: &[Part]) -> (bool, [Option<i64>; N]) {
        let before = values.map(|value| State { value, expiry: 0 });
        let (mut states, mut undo) = (before, Vec::new());
        let fits = apply(parts, &mut states, &mut undo);
        let result = states.map(|state| state.value);
        for (key, state) in undo.into_iter().rev() {
            states[key] = state;
        }
        assert_eq!(states, before, "what was there is told");
        (fits, result)
    }

    #[test]
    fn a_compare_and_set_writes_over_what_it_expects() {
        let set = |answer| [part(0, Call::CompareAndSet { expected: 1, new: 2 }, answer)];
        let delete = |answer| [part(0, Call::CompareAndDelete(1), answer)];
        for (there, answer, wrong) in [
            (Some(1), Answer::Changed(true), Answer::Mismatch),
            (Some(7), Answer::Mismatch, Answer::Changed(true)),
            (None, Answer::Absent, Answer::Mismatch),
        ] {
            let left = if there == Some(1) { Some(2) } else { there };
            assert_eq!(after([there], &set(answer)), (true, [left]));
            assert!(!after([there], &set(wrong)).0);
            assert_eq!(after([there], &set(Answer::Value(there))), (true, [left]));
            assert_eq!(after([there], &set(Answer::Changed(false))).0, there != Some(1));
            let left = if there == Some(1) { None } else { there };
            assert_eq!(after([there], &delete(answer)), (true, [left]));
            assert!(!after([there], &delete(wrong)).0);
        }
    }

    #[test]
    fn parts_take_effect_together() {
        let all =
            |answer| [part(0, Call::SetIfAllAbsent(5), answer), part(1, Call::SetIfAllAbsent(6), answer)];
        assert_eq!(after([None, None], &all(Answer::Changed(true))), (true, [Some(5), Some(6)]));
        assert_eq!(after([None, Some(1)], &all(Answer::Changed(false))), (true, [None, Some(1)]));
        assert!(!after([None, Some(1)], &all(Answer::Changed(true))).0);
        let alone = |answer| [part(0, Call::SetIfAllAbsent(5), answer)];
        assert_eq!(after([Some(1)], &alone(Answer::Changed(false))), (true, [Some(1)]));
        assert_eq!(after([None], &alone(Answer::Changed(true))), (true, [Some(5)]));
        let twice = [
            part(0, Call::SetIfAllAbsent(5), Answer::Changed(true)),
            part(0, Call::SetIfAllAbsent(6), Answer::Changed(true)),
        ];
        assert_eq!(after([None], &twice), (true, [Some(6)]));
        let delete = |count| [0, 1, 0].map(|key| part(key, Call::Delete, Answer::Removed(count)));
        assert_eq!(after([Some(1), Some(2)], &delete(2)), (true, [None, None]));
        assert_eq!(after([Some(1), None], &delete(1)), (true, [None, None]));
        assert!(!after([Some(1), None], &delete(2)).0);
    }
}
