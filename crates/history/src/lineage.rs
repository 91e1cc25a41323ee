//! Foresight for the search: a value that somebody has yet to see may not be overwritten where nobody can write it again.
//!
//! What a key holds is a plain value that was written, counted up some times. Plain values that lie further apart than the key is ever
//! counted up are of different *lineages*; as long as the written values are far apart, each is one of its own. For every lineage
//! it is counted how many operations are left that need its value, by their answers, and how many are left that may write it. Once
//! a lineage is needed, not there, and nobody can bring it back, no order that begins so explains the rest.

use crate::{Answer, Call, Part, State};
use std::collections::BTreeMap;

/// What a part of an operation has to do with lineages, by their numbers.
#[derive(Clone, Copy, Default)]
pub(crate) struct Concern {
    needs: Option<usize>,
    writes: Option<usize>,
}

/// The lineages of some keys, and who is left of each.
pub(crate) struct Lineages {
    /// By key: where each lineage begins, ascending, and its number.
    begins: Vec<BTreeMap<i64, usize>>,
    /// Operations left that need it, and those that may write it.
    left: Vec<(u32, u32)>,
}

/// The value that a part needs to find, by its answer.
fn needed(part: &Part) -> Option<i64> {
    match (part.call, part.answer?) {
        (_, Answer::Value(value)) => value,
        // Counting begins at nothing, too.
        (_, Answer::Counted(value)) => value.checked_sub(1).filter(|&before| before != 0),
        (Call::CompareAndSet { expected, .. } | Call::CompareAndDelete(expected), Answer::Changed(true)) => {
            Some(expected)
        }
        _ => None,
    }
}

/// The value that a part may write: more than one that its answer lets it.
fn written(part: &Part) -> Option<i64> {
    let (Call::Set(value)
    | Call::SetIfAbsent(value)
    | Call::SetIfAllAbsent(value)
    | Call::SetExpiring(value, _)
    | Call::CompareAndSet { new: value, .. }) = part.call
    else {
        return None;
    };
    let refused = matches!(part.answer, Some(Answer::Changed(false) | Answer::Mismatch | Answer::Absent));
    (!refused).then_some(value)
}

impl Lineages {
    /// The lineages of so many keys with these parts of operations, all of which are left; and what each part has to do with them.
    pub(crate) fn new(keys: usize, parts: &[Part]) -> (Lineages, Vec<Concern>) {
        let mut counts = vec![0; keys];
        // Nothing, from which counting begins, is always there.
        let mut values = vec![vec![0]; keys];
        for part in parts {
            counts[part.key] += i64::from(part.call == Call::Increment);
            values[part.key].extend(needed(part).into_iter().chain(written(part)));
        }
        let mut lineages = Lineages { begins: Vec::with_capacity(keys), left: Vec::new() };
        for (values, count) in values.iter_mut().zip(counts) {
            values.sort_unstable();
            let mut begins = BTreeMap::new();
            let mut last = None;
            for &value in values.iter() {
                if last.is_none_or(|last: i64| value.saturating_sub(last) > count) {
                    begins.insert(value, lineages.left.len());
                    lineages.left.push((0, 0));
                }
                last = Some(value);
            }
            lineages.begins.push(begins);
        }
        for key in 0..keys {
            if let Some(lineage) = lineages.of(key, 0) {
                lineages.left[lineage].1 += 1;
            }
        }
        let concern = |part: &Part| Concern {
            needs: needed(part).and_then(|value| lineages.of(part.key, value)),
            writes: written(part).and_then(|value| lineages.of(part.key, value)),
        };
        let concerns: Vec<Concern> = parts.iter().map(concern).collect();
        concerns.iter().for_each(|concern| lineages.take_back(concern));
        (lineages, concerns)
    }

    /// The lineage of a key's value.
    fn of(&self, key: usize, value: i64) -> Option<usize> {
        self.begins[key].range(..=value).next_back().map(|(_, lineage)| *lineage)
    }

    /// A part is done.
    pub(crate) fn take(&mut self, concern: &Concern) {
        if let Some(lineage) = concern.needs {
            self.left[lineage].0 -= 1;
        }
        if let Some(lineage) = concern.writes {
            self.left[lineage].1 -= 1;
        }
    }

    /// A part is left again.
    pub(crate) fn take_back(&mut self, concern: &Concern) {
        if let Some(lineage) = concern.needs {
            self.left[lineage].0 += 1;
        }
        if let Some(lineage) = concern.writes {
            self.left[lineage].1 += 1;
        }
    }

    /// Whether a key that has left this state for another has left behind what is needed yet.
    pub(crate) fn misses_state(&self, key: usize, before: State, now: State) -> bool {
        let lineage = |state: State| state.value.and_then(|value| self.of(key, value));
        lineage(before).is_some_and(|before| self.is_gone(before, lineage(now)))
    }

    /// Whether what a part that is done may have written is needed yet, and gone.
    pub(crate) fn misses_written(&self, concern: &Concern, key: usize, now: State) -> bool {
        let lineage = |state: State| state.value.and_then(|value| self.of(key, value));
        concern.writes.is_some_and(|written| self.is_gone(written, lineage(now)))
    }

    fn is_gone(&self, lineage: usize, there: Option<usize>) -> bool {
        let (needing, writing) = self.left[lineage];
        needing > 0 && writing == 0 && there != Some(lineage)
    }
}
