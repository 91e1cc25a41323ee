//! A write that a client was told of is committed by then (rules 1 and 5).

use crate::oracle::Oracle;
use history::{Answer, Call, Operation, Outcome};

/// Checks an answered operation on a key of a partition.
pub fn check(oracle: &Oracle, partition: usize, key: &[u8], operation: &Operation) -> Result<(), String> {
    let Outcome::Answered(answer) = operation.outcome else { return Ok(()) };
    let value = match (operation.call, answer) {
        (Call::Set(value) | Call::SetExpiring(value, _), _) => value,
        (Call::SetIfAbsent(value), Answer::Changed(true)) => value,
        (Call::Increment, Answer::Counted(value)) | (Call::Get, Answer::Value(Some(value))) => value,
        _ => return Ok(()),
    };
    if oracle.has_put(partition, key, value.to_string().as_bytes()) {
        return Ok(());
    }
    Err(format!("{operation:?} on {} was answered before it was committed", String::from_utf8_lossy(key)))
}
