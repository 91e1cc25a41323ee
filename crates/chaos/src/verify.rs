//! What the writers were told, held against what every node says.

use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::load::{COUNTERS, Fate, Journal, counter_key, unique_key, unique_value};
use crate::probe;
use crate::report::Report;
use crate::status::connect;
use redis::{Connection, Value};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Keys read in one go.
const BATCH: usize = 500;
/// How long a read may fail before the check gives up, and how long one reply may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was written and what of it was found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Summary {
    /// Writes that the cluster said are done, unique keys and increments together.
    pub acknowledged: u64,
    /// Writes of which nobody said whether they are done.
    pub unknown: u64,
    /// Writes that the cluster said are not done.
    pub failed: u64,
    /// Acknowledged keys that some node does not show, or not with their value.
    pub lost: u64,
}

/// Reads everything back through the plain ports of the given nodes. What does not fit goes into the report.
pub(crate) fn check(
    cluster: &Cluster,
    nodes: &[u16],
    journals: &[Journal],
    report: &mut Report,
) -> Result<Summary, Failure> {
    let mut summary = Summary::default();
    for fate in journals.iter().flat_map(|journal| &journal.fates) {
        match fate {
            Fate::Acknowledged => summary.acknowledged += 1,
            Fate::Unknown => summary.unknown += 1,
            Fate::Refused => summary.failed += 1,
        }
    }
    for journal in journals {
        summary.acknowledged += journal.counted.len() as u64;
        summary.unknown += journal.perhaps_counted.values().sum::<u64>();
    }
    let readers = |node: u16| move || check_keys(node, cluster.plain_port(node), journals);
    let found: Vec<Result<Faults, Failure>> = std::thread::scope(|scope| {
        let handles: Vec<_> = nodes.iter().map(|node| scope.spawn(readers(*node))).collect();
        let died = || Err(Failure::from("a reader died"));
        handles.into_iter().map(|handle| handle.join().unwrap_or_else(|_| died())).collect()
    });
    for faults in found {
        let faults = faults.unwrap_or_else(|failure| Faults { lost: 0, texts: vec![failure.to_string()] });
        summary.lost = summary.lost.max(faults.lost);
        for text in faults.texts {
            report.violation(text);
        }
    }
    check_counters(cluster, nodes, journals, report)?;
    check_partitions(cluster, nodes, report)?;
    Ok(summary)
}

/// What one node says that does not fit.
#[derive(Default)]
struct Faults {
    lost: u64,
    texts: Vec<String>,
}

fn check_keys(node: u16, port: u16, journals: &[Journal]) -> Result<Faults, Failure> {
    let mut reader = Reader { port, connection: None };
    let mut faults = Faults::default();
    for journal in journals {
        for (batch, fates) in journal.fates.chunks(BATCH).enumerate() {
            let first = batch * BATCH;
            let keys: Vec<String> =
                (first..first + fates.len()).map(|number| unique_key(journal.writer, number)).collect();
            let values = reader.get(&keys, batch % 2 == 0)?;
            for ((number, fate), value) in (first..).zip(fates).zip(values) {
                let right = unique_value(journal.writer, number);
                let shown = |value: &Option<Vec<u8>>| match value {
                    Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                    None => "nothing".to_owned(),
                };
                let what = match (fate, &value) {
                    (Fate::Acknowledged, Some(value)) if *value == right.as_bytes() => continue,
                    (Fate::Unknown, Some(value)) if *value == right.as_bytes() => continue,
                    (Fate::Unknown | Fate::Refused, None) => continue,
                    (Fate::Acknowledged, _) => {
                        faults.lost += 1;
                        "acknowledged, but"
                    }
                    (Fate::Refused, _) => "refused, but",
                    (Fate::Unknown, _) => "never written so, but",
                };
                let key = unique_key(journal.writer, number);
                faults.texts.push(format!("{key}: {what} node {node} says {}", shown(&value)));
            }
        }
    }
    Ok(faults)
}

/// Each counter lies between what was acknowledged and what was attempted, no value was given out twice, and none exceeds the
/// end.
fn check_counters(
    cluster: &Cluster,
    nodes: &[u16],
    journals: &[Journal],
    report: &mut Report,
) -> Result<(), Failure> {
    let mut told: BTreeMap<u16, Vec<i64>> = BTreeMap::new();
    let mut perhaps: BTreeMap<u16, u64> = BTreeMap::new();
    for journal in journals {
        for (counter, value) in &journal.counted {
            told.entry(*counter).or_default().push(*value);
        }
        for (counter, count) in &journal.perhaps_counted {
            *perhaps.entry(*counter).or_default() += count;
        }
    }
    for values in told.values_mut() {
        values.sort_unstable();
    }
    let keys: Vec<String> = (0..COUNTERS).map(counter_key).collect();
    for node in nodes {
        let values = Reader { port: cluster.plain_port(*node), connection: None }.get(&keys, false)?;
        for (counter, value) in (0..).zip(values) {
            let value = value.map_or(Some(0), |value| String::from_utf8_lossy(&value).parse::<i64>().ok());
            let none = Vec::new();
            let told = told.get(&counter).unwrap_or(&none);
            let perhaps = perhaps.get(&counter).copied().unwrap_or_default();
            for fault in counter_faults(value, told, perhaps) {
                report.violation(format!("{} at node {node}: {fault}", counter_key(counter)));
            }
        }
    }
    Ok(())
}

/// What is wrong with a counter. `told` holds the acknowledged values in order.
fn counter_faults(value: Option<i64>, told: &[i64], perhaps: u64) -> Vec<String> {
    let Some(value) = value else { return vec!["not a number".to_owned()] };
    let mut faults = Vec::new();
    let (least, most) = (told.len() as i64, told.len() as i64 + perhaps as i64);
    if !(least..=most).contains(&value) {
        faults.push(format!("is {value}, acknowledged were {least}, attempted {most}"));
    }
    if let Some(pair) = told.windows(2).find(|pair| pair[0] == pair[1]) {
        faults.push(format!("two increments were answered {}", pair[0]));
    }
    if let Some(last) = told.last().filter(|last| **last > value) {
        faults.push(format!("is {value}, but an increment was answered {last}"));
    }
    faults
}

/// Every partition takes a write, through every node.
fn check_partitions(cluster: &Cluster, nodes: &[u16], report: &mut Report) -> Result<(), Failure> {
    let keys = probe::keys(cluster.shape.partitions);
    for node in nodes {
        let mut connection = connect(cluster.plain_port(*node), PATIENCE)?;
        let mut pipe = redis::pipe();
        pipe.ignore_errors();
        for key in &keys {
            pipe.cmd("SET").arg(key).arg("end");
        }
        let replies: Vec<Value> = pipe.query(&mut connection)?;
        for (partition, reply) in replies.iter().enumerate() {
            if *reply != Value::Okay {
                report.violation(format!("partition {partition} takes no write at node {node}: {reply:?}"));
            }
        }
    }
    Ok(())
}

/// Reads that go on where one fails, for a while.
struct Reader {
    port: u16,
    connection: Option<Connection>,
}

impl Reader {
    /// The values of keys, by one MGET or by pipelined GETs.
    fn get(&mut self, keys: &[String], at_once: bool) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        let started = Instant::now();
        loop {
            match self.try_get(keys, at_once) {
                Ok(values) => return Ok(values),
                Err(error) => {
                    self.connection = None;
                    if started.elapsed() > PATIENCE {
                        return Err(format!("port {} cannot be read from: {error}", self.port).into());
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    fn try_get(&mut self, keys: &[String], at_once: bool) -> redis::RedisResult<Vec<Option<Vec<u8>>>> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => self.connection.insert(connect(self.port, PATIENCE)?),
        };
        if at_once {
            return redis::cmd("MGET").arg(keys).query(connection);
        }
        let mut pipe = redis::pipe();
        for key in keys {
            pipe.cmd("GET").arg(key);
        }
        pipe.query(connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_fit_between_acknowledged_and_attempted() {
        assert!(counter_faults(Some(3), &[1, 2, 3], 0).is_empty());
        assert!(counter_faults(Some(4), &[1, 2, 4], 1).is_empty());
        assert_eq!(counter_faults(Some(2), &[1, 2, 3], 0).len(), 2, "one was lost");
        assert_eq!(counter_faults(Some(4), &[1, 2, 3], 0).len(), 1, "one was done twice");
        assert_eq!(counter_faults(Some(3), &[1, 2, 2], 0).len(), 1, "one undid another");
        assert_eq!(counter_faults(None, &[], 0).len(), 1);
    }
}
