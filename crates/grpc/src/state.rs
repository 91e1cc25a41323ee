//! The cluster's state: what `ANNULET STATUS` says as JSON, as messages.

use crate::errors::nonsense;
use crate::kvstore;
use crate::v1;
use command::Reply;
use serde::Deserialize;
use tonic::Status;

/// What a node says of its cluster.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct State {
    ok: bool,
    cluster_id: String,
    version: u64,
    coordinator: Option<u32>,
    copies: u32,
    min_in_sync: u32,
    moves: MovesState,
    partitions: PartitionsState,
    nodes: Vec<NodeState>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct MovesState {
    left: u64,
    filling: u64,
    leaving: u64,
    waiting: u64,
    handing_over: u64,
    blocked: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PartitionsState {
    total: u32,
    served: u32,
    at_risk: u32,
    filling: u32,
    short: u32,
    unavailable: u32,
    lost: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeState {
    id: u32,
    name: String,
    host: String,
    port: u32,
    cluster_port: u32,
    peer_port: u32,
    /// Not told before the cluster is at level 2.
    http_port: u16,
    line_port: u16,
    state: String,
    voter: bool,
    draining: bool,
    incarnation: u64,
    primaries: u32,
    copies: u32,
    in_sync: u32,
    keys: Option<u64>,
    weight: u32,
    zone: String,
}

/// What a node knows beyond the state.
#[derive(Clone, Copy, Debug)]
pub struct Here {
    /// Its number.
    pub node: u16,
    /// Its own port for HTTP.
    pub http_port: u16,
    /// Unix seconds by the cluster's clock, where it holds a lease: so that a majority of the voters has just told it that
    /// the state is the newest.
    pub leased_at_s: Option<i64>,
}

impl State {
    /// From the reply to `ANNULET STATUS`.
    pub fn read(reply: Reply<'static>) -> Result<State, Status> {
        match reply {
            Reply::Bulk(text) => serde_json::from_slice(&text).map_err(|_| nonsense("ANNULET STATUS")),
            Reply::Error(error) => Err(crate::errors::status(&error)),
            _ => Err(nonsense("ANNULET STATUS")),
        }
    }

    /// For Cluster.Status.
    pub fn into_response(self) -> v1::StatusResponse {
        let State { partitions, moves, .. } = self;
        v1::StatusResponse {
            ok: self.ok,
            cluster_id: self.cluster_id,
            map_version: self.version,
            coordinator: self.coordinator,
            copies: self.copies,
            min_in_sync: self.min_in_sync,
            partitions: Some(v1::PartitionCounts {
                total: partitions.total,
                served: partitions.served,
                at_risk: partitions.at_risk,
                filling: partitions.filling,
                short: partitions.short,
                unavailable: partitions.unavailable,
                lost: partitions.lost,
            }),
            moves: Some(v1::Moves {
                left: moves.left,
                filling: moves.filling,
                leaving: moves.leaving,
                waiting: moves.waiting,
                handing_over: moves.handing_over,
                blocked: moves.blocked,
            }),
            nodes: self.nodes.into_iter().map(node).collect(),
        }
    }

    /// For NodeService.GetMembership.
    pub fn into_membership(self, here: Here) -> kvstore::MembershipResponse {
        let info = |node: NodeState| {
            let status = status_of(&node);
            let port = if node.id == u32::from(here.node) { here.http_port } else { node.http_port };
            let is_alive = matches!(node.state.as_str(), "ACTIVE" | "STOPPING");
            kvstore::NodeInfo {
                node_id: node.name,
                host: node.host,
                port: port.into(),
                status: status.into(),
                last_heartbeat: here.leased_at_s.filter(|_| is_alive).unwrap_or(0),
            }
        };
        let nodes: Vec<_> = self.nodes.into_iter().map(info).collect();
        kvstore::MembershipResponse { cluster_size: nodes.len() as i32, nodes }
    }
}

fn status_of(node: &NodeState) -> kvstore::NodeStatus {
    match node.state.as_str() {
        "FAILED" => kvstore::NodeStatus::Failed,
        "JOINING" => kvstore::NodeStatus::Joining,
        "SUSPECTED" => kvstore::NodeStatus::Suspected,
        "STOPPING" | "LEAVING" => kvstore::NodeStatus::Leaving,
        _ if node.draining => kvstore::NodeStatus::Leaving,
        _ => kvstore::NodeStatus::Active,
    }
}

fn node(node: NodeState) -> v1::Node {
    let state = match node.state.as_str() {
        "JOINING" => v1::NodeState::Joining,
        "ACTIVE" => v1::NodeState::Active,
        "FAILED" => v1::NodeState::Failed,
        "STOPPING" => v1::NodeState::Stopping,
        _ => v1::NodeState::Unspecified,
    };
    v1::Node {
        id: node.id,
        name: node.name,
        host: node.host,
        port: node.port,
        cluster_port: node.cluster_port,
        peer_port: node.peer_port,
        http_port: node.http_port.into(),
        line_port: node.line_port.into(),
        state: state.into(),
        voter: node.voter,
        draining: node.draining,
        incarnation: node.incarnation,
        primaries: node.primaries,
        copies: node.copies,
        in_sync: node.in_sync,
        keys: node.keys,
        weight: node.weight,
        zone: node.zone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let text = r#"{"ok":true,"cluster_id":"c","version":9,"coordinator":2,"copies":2,"min_in_sync":1,
            "moves":{"left":1,"filling":1,"leaving":0,"waiting":0,"handing_over":0,"blocked":["why"]},
            "partitions":{"total":4,"served":4,"at_risk":1,"filling":1,"short":1,"unavailable":0,"lost":0},
            "something_new":[1],
            "nodes":[{"id":1,"name":"aa","host":"h","port":1,"state":"ACTIVE","keys":null,"draining":false},
                     {"id":2,"name":"bb","host":"h","port":2,"state":"ACTIVE","keys":7,"draining":true},
                     {"id":3,"name":"cc","host":"h","port":3,"state":"FAILED","keys":7,"draining":false},
                     {"id":4,"name":"dd","host":"h","port":4,"state":"STOPPING","http_port":44}]}"#;
        State::read(Reply::bulk(text)).unwrap()
    }

    #[test]
    fn the_state_is_told_whole() {
        let told = state().into_response();
        assert!(told.ok && told.coordinator == Some(2) && told.map_version == 9);
        assert_eq!(told.partitions.unwrap().at_risk, 1);
        assert_eq!(told.moves.unwrap().blocked, ["why"]);
        let keys: Vec<_> = told.nodes.iter().map(|node| node.keys).collect();
        assert_eq!(keys, [None, Some(7), Some(7), None]);
        assert!(told.nodes[1].draining && told.nodes[2].state() == v1::NodeState::Failed);
        assert!(State::read(Reply::bulk("no JSON")).is_err());
    }

    #[test]
    fn members_are_told_as_the_family_of_clients_knows_them() {
        use kvstore::NodeStatus::{Active, Failed, Leaving};
        let here = Here { node: 1, http_port: 11, leased_at_s: Some(1000) };
        let told = state().into_membership(here);
        assert_eq!(told.cluster_size, 4);
        let statuses: Vec<_> = told.nodes.iter().map(kvstore::NodeInfo::status).collect();
        assert_eq!(statuses, [Active, Leaving, Failed, Leaving]);
        assert_eq!(told.nodes.iter().map(|node| node.port).collect::<Vec<_>>(), [11, 0, 0, 44]);
        let heard: Vec<_> = told.nodes.iter().map(|node| node.last_heartbeat).collect();
        assert_eq!(heard, [1000, 1000, 0, 1000]);
        let unleased = state().into_membership(Here { leased_at_s: None, ..here });
        assert!(unleased.nodes.iter().all(|node| node.last_heartbeat == 0));
    }
}
