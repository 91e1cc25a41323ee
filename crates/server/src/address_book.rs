//! Where the other nodes are, and what a node that wants to join is told.
//!
//! The map is the source: a node that joined later, or that came back at another host or port, is found there. The `nodes`
//! setting is only the seed, for as long as no map is known, and a second guess after that: who answers at an address proves
//! which node it is, so that trying one that is out of date costs a moment and no more.
//!
//! The control thread tells the book of every map; the handshakes look things up in it.

use crate::membership::{Answer, MembershipFile};
use placement::ClusterMap;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::warn;
use types::settings::{SETTINGS, SettingError, Settings};
use types::{Incarnation, NodeId};

/// A number that was given to a joiner is not given again for so long, though the map does not show it.
const GIVEN_FOR: Duration = Duration::from_secs(600);

/// A peer address: host and port.
pub type Address = (String, u16);

/// The addresses of the cluster's nodes, as far as this node knows them.
pub struct AddressBook {
    settings: Arc<Settings>,
    seeds: BTreeMap<NodeId, Address>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    map: Arc<ClusterMap>,
    /// Numbers given to joiners that the map does not show yet.
    given: BTreeMap<NodeId, Instant>,
    /// Where a node that joined keeps what it was told.
    file: Option<MembershipFile>,
}

impl AddressBook {
    /// A book with the seeds alone. `file` is kept up to date with the map.
    pub fn new(settings: Arc<Settings>, file: Option<MembershipFile>) -> Result<AddressBook, SettingError> {
        let seeds = settings.listed_nodes()?.into_iter();
        let seeds = seeds.map(|node| (NodeId(node.id), (node.host, node.peer_port))).collect();
        Ok(AddressBook { settings, seeds, known: Mutex::new(Known { file, ..Known::default() }) })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A newer map. Called from the control thread, which may wait for the disk.
    pub fn learn(&self, map: &Arc<ClusterMap>) {
        let file = {
            let mut known = self.known();
            known.map = map.clone();
            known.given.retain(|node, at| map.member(*node).is_none() && at.elapsed() < GIVEN_FOR);
            known.file.take()
        };
        // Others look things up while the disk is waited for.
        let Some(mut file) = file else { return };
        let nodes = voters(map);
        if !nodes.is_empty()
            && let Err(error) = file.set_nodes(&nodes)
        {
            warn!("cannot keep the addresses of the cluster's nodes for the next start: {error}");
        }
        self.known().file = Some(file);
    }

    /// The newest map.
    pub fn map(&self) -> Arc<ClusterMap> {
        self.known().map.clone()
    }

    /// Where a node may be, likeliest first.
    pub fn addresses(&self, node: NodeId) -> Vec<Address> {
        let known = self.known();
        let mapped = known
            .map
            .member(node)
            .and_then(|member| (!member.host.is_empty()).then(|| (member.host.clone(), member.peer_port)));
        let mut found: Vec<Address> = mapped.into_iter().chain(self.seeds.get(&node).cloned()).collect();
        found.dedup();
        found
    }

    /// What a node that wants to join is told. `asked`: the number that it wants; 0: any that is free.
    pub fn answer(&self, asked: NodeId) -> String {
        let mut known = self.known();
        let map = known.map.clone();
        let removed = map.removed.iter().map(|(node, _)| *node);
        let members = || map.members.iter().map(|member| member.id).chain(removed.clone());
        let node = if asked == NodeId(0) {
            let taken = members().chain(self.seeds.keys().copied()).chain(known.given.keys().copied());
            let free = NodeId(taken.map(|node| node.0).max().unwrap_or(0).saturating_add(1));
            known.given.insert(free, Instant::now());
            free
        } else {
            asked
        };
        let nodes = match voters(&map) {
            nodes if nodes.is_empty() => {
                listed(self.seeds.iter().map(|(node, (host, port))| (*node, host.as_str(), *port)))
            }
            nodes => nodes,
        };
        let mut settings = vec![("nodes".to_owned(), nodes)];
        for setting in SETTINGS.iter().filter(|setting| setting.cluster_wide) {
            let value = match setting.name {
                "copies" if map.version > 0 => map.copies.to_string(),
                "min_in_sync" if map.version > 0 => map.min_in_sync.to_string(),
                name => self.settings.get(name).unwrap_or_default(),
            };
            settings.push((setting.name.to_owned(), value));
        }
        let alive = map.members.iter().filter(|member| member.is_alive()).map(|member| member.id).collect();
        let known_before = map.member(node).is_some_and(|member| member.incarnation > Incarnation(0))
            || self.seeds.contains_key(&node);
        Answer { node, settings, alive, known_before }.encode()
    }
}

/// The voters, as a `nodes` setting: whoever knows them learns the rest from their map.
fn voters(map: &ClusterMap) -> String {
    let voters = map.members.iter().filter(|member| map.voters.contains(&member.id));
    let voters: Vec<_> = voters.filter(|member| !member.host.is_empty()).collect();
    // With some that never registered the list would be short, and a shorter list means fewer voters.
    if voters.len() < map.voters.len() {
        return String::new();
    }
    listed(voters.into_iter().map(|member| (member.id, member.host.as_str(), member.peer_port)))
}

fn listed<'a>(nodes: impl Iterator<Item = (NodeId, &'a str, u16)>) -> String {
    let nodes = nodes.map(|(node, host, port)| match host.contains(':') {
        true => format!("{node}=[{host}]:{port}"),
        false => format!("{node}={host}:{port}"),
    });
    nodes.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use placement::{Member, MemberState};

    fn member(id: u16, port: u16, state: MemberState) -> Member {
        Member {
            incarnation: Incarnation(5),
            directory: 1,
            state,
            host: format!("host-{id}"),
            peer_port: port,
            ..Member::unheard_of(NodeId(id))
        }
    }

    fn book() -> AddressBook {
        let mut settings = Settings::default();
        settings.set("nodes", "1=a:11,2=b:12,3=c:13").unwrap();
        settings.set("lease_ms", "340").unwrap();
        AddressBook::new(Arc::new(settings), None).unwrap()
    }

    fn map() -> Arc<ClusterMap> {
        use MemberState::{Active, Failed};
        Arc::new(ClusterMap {
            version: 9,
            copies: 3,
            min_in_sync: 2,
            members: vec![
                member(1, 21, Active),
                member(2, 22, Failed),
                member(3, 23, Active),
                member(7, 27, Active),
            ],
            voters: vec![NodeId(1), NodeId(2), NodeId(3)],
            ..ClusterMap::default()
        })
    }

    #[test]
    fn the_map_wins_over_the_seeds() {
        let book = book();
        assert_eq!(book.addresses(NodeId(1)), [("a".to_owned(), 11)]);
        assert_eq!(book.addresses(NodeId(7)), []);
        book.learn(&map());
        assert_eq!(book.addresses(NodeId(1)), [("host-1".to_owned(), 21), ("a".to_owned(), 11)]);
        assert_eq!(book.addresses(NodeId(7)), [("host-7".to_owned(), 27)]);
    }

    #[test]
    fn a_joiner_gets_a_number_that_nobody_has_and_what_all_must_agree_on() {
        let book = book();
        book.learn(&map());
        let answer = Answer::decode(&book.answer(NodeId(0))).unwrap();
        assert_eq!(answer.node, NodeId(8));
        assert_eq!(Answer::decode(&book.answer(NodeId(0))).unwrap().node, NodeId(9), "each another");
        assert!(!answer.known_before);
        assert_eq!(answer.alive, [NodeId(1), NodeId(3), NodeId(7)]);
        let told = |name: &str| answer.settings.iter().find(|(told, _)| told == name).unwrap().1.as_str();
        assert_eq!((told("copies"), told("min_in_sync"), told("lease_ms")), ("3", "2", "340"));
        assert_eq!(told("nodes"), "1=host-1:21,2=host-2:22,3=host-3:23");
        assert!(answer.settings.iter().all(|(name, _)| name != "port"), "what is a node's own stays so");
        assert!(Answer::decode(&book.answer(NodeId(2))).unwrap().known_before);
    }
}
