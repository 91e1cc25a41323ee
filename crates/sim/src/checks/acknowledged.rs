//! A write that a client was told of is committed by then (rules 1 and 5); and so is what a stale read shows (rule 13).

use crate::client::{key_name, value_written};
use crate::oracle::Oracle;
use crate::world::PARTITIONS;
use history::{Answer, Operation, Outcome};
use types::partition_of_key;

/// Checks an operation that has ended.
pub fn check(oracle: &Oracle, operation: &Operation) -> Result<(), String> {
    if operation.outcome != Outcome::Answered {
        return Ok(());
    }
    for part in &operation.parts {
        let shown = match part.answer {
            Some(Answer::Counted(value) | Answer::Value(Some(value))) => Some(value),
            _ => None,
        };
        let key = key_name(part.key);
        let partition = usize::from(partition_of_key(&key, PARTITIONS).0);
        for value in value_written(part).into_iter().chain(shown) {
            if !oracle.has_put(partition, &key, value.to_string().as_bytes()) {
                let key = String::from_utf8_lossy(&key);
                return Err(format!("{operation:?} on {key} was answered before {value} was committed"));
            }
        }
    }
    Ok(())
}

/// Checks what a stale read shows, at the moment when its reply arrives.
pub fn check_stale(oracle: &Oracle, key: usize, value: i64) -> Result<(), String> {
    let key = key_name(key);
    let partition = usize::from(partition_of_key(&key, PARTITIONS).0);
    // Where a history has been given up since, the value may have been committed in that.
    if oracle.has_given_up(partition) || oracle.has_put(partition, &key, value.to_string().as_bytes()) {
        return Ok(());
    }
    let key = String::from_utf8_lossy(&key);
    Err(format!("a stale read of {key} showed {value} before that was committed"))
}
