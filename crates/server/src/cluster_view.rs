//! The cluster as the doors for people show it: nodes by their line addresses, their states, and who holds a key.
//!
//! All of it comes from the newest map that the control thread has told of ([`crate::address_book`]) and from what the node's threads
//! publish, so that any node answers without asking another.

use crate::address_book::AddressBook;
use node::{Published, node_name};
use placement::{ClusterMap, Member, MemberState, PartitionState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use types::settings::Settings;
use types::{Level, NodeId, partition_of_key};
use wire::line::json;

/// This node's view.
#[derive(Clone)]
pub struct ClusterView {
    node: NodeId,
    book: Arc<AddressBook>,
    published: Arc<Published>,
    /// The settings that the node started with: its ports.
    settings: Arc<Settings>,
}

/// Who holds a key.
#[derive(Debug, PartialEq, Eq)]
pub struct Holders {
    /// The primary's line address.
    pub primary: String,
    /// Those of the backups that are in sync.
    pub backups: Vec<String>,
}

impl ClusterView {
    /// The view of this node.
    pub fn new(
        node: NodeId,
        book: Arc<AddressBook>,
        published: Arc<Published>,
        settings: Arc<Settings>,
    ) -> ClusterView {
        ClusterView { node, book, published, settings }
    }

    /// The newest map.
    pub fn map(&self) -> Arc<ClusterMap> {
        self.book.map()
    }

    /// The line port of a member; 0: none. While an older build is in the cluster the map does not tell: another node's is taken to lie
    /// as far from its port for Redis clients as this node's does.
    pub fn line_port_of(&self, member: &Member) -> u16 {
        if member.id == self.node {
            return self.settings.line_port;
        }
        if member.level >= Level::BUILDS {
            return member.line_port;
        }
        let port =
            i32::from(member.port) + i32::from(self.settings.line_port) - i32::from(self.settings.port);
        u16::try_from(port).unwrap_or(0)
    }

    /// The line address of a member.
    pub fn line_address_of(&self, member: &Member) -> String {
        host_port(&member.host, self.line_port_of(member))
    }

    /// This node's line address.
    pub fn own_line_address(&self) -> String {
        host_port(self.settings.announced_host(), self.settings.line_port)
    }

    /// The nodes that are to stay, by number.
    pub fn line_addresses(&self) -> Vec<String> {
        let map = self.map();
        // One that is being drained was unregistered: it serves, and is on its way out.
        let staying = map.members.iter().filter(|member| !member.host.is_empty() && !member.draining);
        let listening = staying.filter(|member| self.line_port_of(member) != 0);
        listening.map(|member| self.line_address_of(member)).collect()
    }

    /// The member whose line address this is.
    pub fn member_at<'m>(&self, map: &'m ClusterMap, host: &str, port: u16) -> Option<&'m Member> {
        map.members.iter().find(|member| {
            port != 0
                && !member.host.is_empty()
                && self.line_port_of(member) == port
                && is_same_host(&member.host, host)
        })
    }

    /// Who holds a key; else why nobody can be named.
    pub fn holders(&self, key: &[u8]) -> Result<Holders, String> {
        let map = self.map();
        if map.partitions.is_empty() {
            return Err("CLUSTERDOWN the cluster is still forming".into());
        }
        let id = partition_of_key(key, map.partitions.len() as u16);
        let state = map.partition(id).copied().unwrap_or_default();
        let member = |node: NodeId| map.member(node).map(|member| self.line_address_of(member));
        let Some(primary) = state.primary.and_then(member) else {
            return Err(format!("CLUSTERDOWN nobody serves partition {id}, to which the key belongs"));
        };
        let backups = state.in_sync.iter().filter(|node| Some(*node) != state.primary);
        Ok(Holders { primary, backups: backups.filter_map(member).collect() })
    }

    /// The cluster's state.
    pub fn status(&self) -> json::Status {
        let map = self.map();
        let view = self.published.view();
        let nodes = map.members.iter().map(|member| {
            let count =
                |holds: &dyn Fn(&PartitionState) -> bool| map.partitions.iter().filter(|p| holds(p)).count();
            json::Node {
                node_id: node_name(&map.cluster_id, member.id),
                server_id: member.id.0,
                host: member.host.clone(),
                port: self.line_port_of(member),
                state: state_of(member),
                primaries: count(&|state| state.primary == Some(member.id)),
                copies: count(&|state| state.copies.contains(member.id)),
                keys: view.keys.iter().find(|(node, _)| *node == member.id).map(|(_, keys)| *keys),
            }
        });
        let figures = &self.published.cluster;
        json::Status {
            coordinator: view.coordinator.map(|node| node_name(&map.cluster_id, node)),
            nodes: nodes.collect(),
            partitions: map.partitions.len(),
            at_risk: figures.at_risk.load(Ordering::Relaxed) as usize,
            unavailable: figures.unavailable.load(Ordering::Relaxed) as usize,
        }
    }

    /// Other nodes that are alive.
    pub fn peers(&self) -> usize {
        self.map().members.iter().filter(|member| member.id != self.node && member.is_alive()).count()
    }

    /// This node's 40 hex digits; none before the cluster's id is known.
    pub fn own_name(&self) -> Option<String> {
        let map = self.map();
        (!map.cluster_id.is_empty()).then(|| node_name(&map.cluster_id, self.node))
    }
}

/// The state of a member in the words of the plain protocols. Nobody is SUSPECTED: that a voter has not heard a node for a moment is
/// between the voters, and the map says when they agree.
pub fn state_of(member: &Member) -> &'static str {
    match member.state {
        MemberState::Joining => "JOINING",
        MemberState::Failed => "FAILED",
        MemberState::Stopping => "LEAVING",
        MemberState::Active if member.draining => "LEAVING",
        MemberState::Active => "ACTIVE",
    }
}

/// An address as it is written.
pub fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Whether two names mean one host: the same text, or two names of loopback. Nothing is looked up for a stranger.
fn is_same_host(one: &str, other: &str) -> bool {
    let is_loopback = |host: &str| {
        host.eq_ignore_ascii_case("localhost")
            || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    one.eq_ignore_ascii_case(other) || is_loopback(one) && is_loopback(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{Epoch, Incarnation};

    fn member(id: u16, draining: bool) -> Member {
        Member {
            incarnation: Incarnation(1),
            directory: 1,
            state: MemberState::Active,
            host: "127.0.0.1".into(),
            port: 7000 + id,
            cluster_port: 7100 + id,
            peer_port: 7200 + id,
            draining,
            ..Member::unheard_of(NodeId(id))
        }
    }

    fn view(members: Vec<Member>, partitions: Vec<PartitionState>) -> ClusterView {
        let mut settings = Settings::default();
        settings.set("line_port", "7401").unwrap();
        let settings = Arc::new(settings);
        let book = AddressBook::new(settings.clone(), None).unwrap();
        book.learn(&Arc::new(ClusterMap { version: 1, members, partitions, ..ClusterMap::default() }));
        ClusterView::new(NodeId(1), Arc::new(book), Arc::new(Published::new(1)), settings)
    }

    #[test]
    fn nodes_are_known_by_their_line_addresses() {
        let view = view(vec![member(1, false), member(2, true), member(3, false)], Vec::new());
        assert_eq!(view.line_addresses(), ["127.0.0.1:7401", "127.0.0.1:7403"], "node 2 is on its way out");
        let map = view.map();
        let at = |host: &str, port: u16| view.member_at(&map, host, port).map(|member| member.id.0);
        assert_eq!(at("127.0.0.1", 7402), Some(2));
        assert_eq!(at("LOCALHOST", 7401), Some(1));
        assert_eq!((at("127.0.0.1", 7001), at("10.0.0.1", 7401), at("", 7401)), (None, None, None));
        assert_eq!(state_of(&map.members[1]), "LEAVING");
        assert_eq!(view.peers(), 2);
        let told = |line_port| Member { level: Level::BUILDS, line_port, ..member(2, false) };
        assert_eq!((view.line_port_of(&told(9)), view.line_port_of(&told(0))), (9, 0), "the map tells");
    }

    #[test]
    fn a_keys_holders_are_the_primary_and_the_backups_in_sync() {
        let state = |primary: Option<u16>| PartitionState {
            epoch: Epoch(1),
            primary: primary.map(NodeId),
            in_sync: [NodeId(1), NodeId(3)].into_iter().collect(),
            copies: [NodeId(1), NodeId(2), NodeId(3)].into_iter().collect(),
            ..PartitionState::default()
        };
        let members = || vec![member(1, false), member(2, false), member(3, false)];
        let holders = view(members(), vec![state(Some(3))]).holders(b"a");
        assert_eq!(
            holders,
            Ok(Holders { primary: "127.0.0.1:7403".into(), backups: vec!["127.0.0.1:7401".into()] })
        );
        let nobody = view(members(), vec![state(None)]).holders(b"a");
        assert_eq!(nobody, Err("CLUSTERDOWN nobody serves partition 0, to which the key belongs".into()));
        assert!(view(Vec::new(), Vec::new()).holders(b"a").is_err());
    }
}
