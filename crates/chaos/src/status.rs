//! What a node says of its cluster: `ANNULET STATUS`, and which nodes hold which partition by `CLUSTER SLOTS`.

use crate::failure::Failure;
use redis::{Connection, Value};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use types::slot::{Slot, partition_of_slot};

/// The answer to `ANNULET STATUS`, as far as it is used here.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Status {
    pub ok: bool,
    pub coordinator: Option<u16>,
    pub partitions: Partitions,
    pub nodes: Vec<Node>,
    #[serde(default)]
    pub moves: Moves,
}

/// What is on its way to where it should be.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Moves {
    /// Copies.
    pub left: u64,
    /// Partitions.
    pub handing_over: u64,
}

/// Counts of partitions by state.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Partitions {
    pub total: u64,
    pub served: u64,
    pub at_risk: u64,
    pub short: u64,
}

/// One node.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Node {
    pub id: u16,
    pub state: String,
    pub incarnation: u64,
    pub in_sync: u64,
    #[serde(default)]
    pub primaries: u64,
}

/// Who holds a partition: node ids, the primary first.
pub(crate) type Holders = Vec<u16>;

/// A connection to a port of this machine.
pub(crate) fn connect(port: u16, patience: Duration) -> Result<Connection, redis::RedisError> {
    connect_to((Ipv4Addr::LOCALHOST, port).into(), None, patience)
}

/// How a client names a door.
pub(crate) fn url(door: SocketAddr, password: Option<&str>) -> String {
    match password {
        None => format!("redis://{door}"),
        Some(password) => format!("redis://:{password}@{door}"),
    }
}

/// A connection to a door, wherever it is.
pub(crate) fn connect_to(
    door: SocketAddr,
    password: Option<&str>,
    patience: Duration,
) -> Result<Connection, redis::RedisError> {
    let client = redis::Client::open(url(door, password))?;
    let connection = client.get_connection_with_timeout(patience.min(Duration::from_secs(2)))?;
    connection.set_read_timeout(Some(patience))?;
    connection.set_write_timeout(Some(patience))?;
    Ok(connection)
}

impl Status {
    pub(crate) fn ask(connection: &mut Connection) -> Result<Status, Failure> {
        let text: String = redis::cmd("ANNULET").arg("STATUS").query(connection)?;
        serde_json::from_str(&text)
            .map_err(|error| format!("ANNULET STATUS makes no sense: {error}: {text}").into())
    }

    /// Whether every partition is served by all its copies, and every node holds some.
    pub(crate) fn is_healthy(&self) -> bool {
        let partitions = &self.partitions;
        self.ok
            && partitions.served == partitions.total
            && partitions.at_risk == 0
            && partitions.short == 0
            && self.coordinator.is_some()
            && self.nodes.iter().all(|node| node.state == "ACTIVE" && node.in_sync > 0)
    }

    pub(crate) fn node(&self, id: u16) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }
}

/// Who holds each partition. `id_of` tells a node from its port for cluster-aware clients.
pub(crate) fn holders(
    connection: &mut Connection,
    partitions: u16,
    id_of: &BTreeMap<u16, u16>,
) -> Result<Vec<Holders>, Failure> {
    let Value::Array(ranges) = redis::cmd("CLUSTER").arg("SLOTS").query(connection)? else {
        return Err("CLUSTER SLOTS gives no list".into());
    };
    let mut holders = vec![Holders::new(); usize::from(partitions)];
    for range in ranges {
        let Value::Array(fields) = range else { continue };
        let [Value::Int(first), Value::Int(last), nodes @ ..] = fields.as_slice() else { continue };
        let ids: Holders = nodes
            .iter()
            .filter_map(|node| match node {
                Value::Array(fields) => match fields.get(1) {
                    Some(Value::Int(port)) => id_of.get(&u16::try_from(*port).ok()?).copied(),
                    _ => None,
                },
                _ => None,
            })
            .collect();
        for slot in *first..=*last {
            let slot = u16::try_from(slot).map_err(|_| "CLUSTER SLOTS names no such slot")?;
            let partition = partition_of_slot(Slot(slot), partitions).0;
            holders[usize::from(partition)] = ids.clone();
        }
    }
    match holders.iter().position(Vec::is_empty) {
        Some(partition) => Err(format!("CLUSTER SLOTS names no node for partition {partition}").into()),
        None => Ok(holders),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_everything_together() {
        let text = r#"{"ok":true,"cluster_id":"c0ffee","version":42,"coordinator":2,"copies":2,
            "partitions":{"total":8,"served":8,"at_risk":0,"short":0,"unavailable":0,"lost":0},
            "nodes":[{"id":1,"state":"ACTIVE","incarnation":1,"in_sync":8}]}"#;
        let healthy: Status = serde_json::from_str(text).unwrap();
        assert!(healthy.is_healthy());
        let faults: [fn(&mut Status); 6] = [
            |status| status.ok = false,
            |status| status.partitions.at_risk = 1,
            |status| status.partitions.short = 1,
            |status| status.partitions.served = 7,
            |status| status.nodes[0].in_sync = 0,
            |status| status.nodes[0].state = "FAILED".into(),
        ];
        for fault in faults {
            let mut status = healthy.clone();
            fault(&mut status);
            assert!(!status.is_healthy(), "{status:?}");
        }
    }
}
