//! Room `history`: what clients did and saw, and whether it makes sense. The simulator and the chaos commands record histories here,
//! and neither this room nor its checker knows anything of the product.
//!
//! A history is a list of operations on keys with the times of invocation and return. [`linearizability`] says whether one could have come
//! from registers that nothing ever went wrong with. [`random`] is the only source of chance of whatever checks.
//!
//! A command on several keys is one operation a key, because that is what is promised of it (rule 18). A value is a
//! number, so that it can be counted up; every write of a plain value has one of its own.
//!
//! An expiry is an operation that nobody returned from: it may happen at any time from when it is due, once, and only
//! to the value it was set for.

pub mod linearizability;
pub mod random;

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

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `GET`.
    Get,
    /// `SET key value`.
    Set(i64),
    /// `SET key value NX`.
    SetIfAbsent(i64),
    /// `SET key value PX`: with it goes a [`Call::Expire`] of the same number.
    SetExpiring(i64, u32),
    /// `INCR`.
    Increment,
    /// `DEL`.
    Delete,
    /// The time of a [`Call::SetExpiring`] has come. Nobody asks this.
    Expire(u32),
}

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `OK`.
    Done,
    /// The value, or none.
    Value(Option<i64>),
    /// `INCR`: the new value.
    Counted(i64),
    /// Whether `SET NX` wrote, or how many keys `DEL` removed.
    Changed(bool),
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done, and this was the answer.
    Answered(Answer),
    /// It was surely not done.
    Refused,
    /// It may or may not have been done, then or at any later time.
    Unknown,
}

/// One operation on one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asked.
    pub client: u32,
    /// Which key, by number.
    pub key: usize,
    /// What was asked.
    pub call: Call,
    /// When.
    pub invoked: Time,
    /// When the answer came. [`Time::MAX`]: not yet, or nobody knows.
    pub returned: Time,
    /// What it was.
    pub outcome: Outcome,
}

impl Call {
    /// The state after the call and what it answers.
    pub fn apply(self, state: State) -> (State, Answer) {
        let plain = |value| State { value: Some(value), expiry: 0 };
        match self {
            Call::Get => (state, Answer::Value(state.value)),
            Call::Set(value) => (plain(value), Answer::Done),
            Call::SetExpiring(value, expiry) => (State { value: Some(value), expiry }, Answer::Done),
            Call::SetIfAbsent(value) if state.value.is_none() => (plain(value), Answer::Changed(true)),
            Call::SetIfAbsent(_) => (state, Answer::Changed(false)),
            Call::Increment => {
                let value = state.value.unwrap_or(0) + 1;
                (State { value: Some(value), ..state }, Answer::Counted(value))
            }
            Call::Delete => (State::default(), Answer::Changed(state.value.is_some())),
            Call::Expire(expiry) if state.value.is_some() && state.expiry == expiry => {
                (State::default(), Answer::Done)
            }
            Call::Expire(_) => (state, Answer::Done),
        }
    }
}

/// All operations of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    operations: Vec<Operation>,
}

impl History {
    /// An operation begins. Until it ends its outcome is unknown.
    pub fn invoke(&mut self, client: u32, key: usize, call: Call, now: Time) -> usize {
        let outcome = Outcome::Unknown;
        self.operations.push(Operation { client, key, call, invoked: now, returned: Time::MAX, outcome });
        self.operations.len() - 1
    }

    /// An operation ends. One whose outcome is unknown never returns: it may still happen.
    pub fn end(&mut self, operation: usize, now: Time, outcome: Outcome) {
        let operation = &mut self.operations[operation];
        operation.outcome = outcome;
        if outcome != Outcome::Unknown {
            operation.returned = now;
        }
    }

    /// All operations, in the order of their invocation.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }
}
