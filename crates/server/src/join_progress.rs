//! What a node tells its operator of its own place in the cluster, from map to map: that it is let in, how far it is filled, whether it
//! votes, and when it has no place any more.

use control::message::Identity;
use placement::ClusterMap;
use std::time::Duration;
use tracing::info;
use types::Instant;

/// Between two words on how far it is.
const BETWEEN: Duration = Duration::from_secs(2);

/// Whether this node still has a place in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It has, or may get one.
    Has,
    /// It was emptied and removed: nothing is left for it to do.
    Removed,
}

/// What was seen of this node in the maps so far.
#[derive(Debug)]
pub struct JoinProgress {
    me: Identity,
    /// Whether it is to be told of: a node that joins, until it holds all that is meant for it.
    tells: bool,
    let_in: bool,
    /// Whether it votes, as last seen; none before the first map.
    votes: Option<bool>,
    /// Copies here, and how many of them are in sync, when it was last said.
    said: (usize, usize),
    said_at: Option<Instant>,
}

impl JoinProgress {
    /// Nothing seen yet. `joins`: whether to tell how far it is.
    pub fn new(me: Identity, joins: bool) -> JoinProgress {
        JoinProgress { me, tells: joins, let_in: false, votes: None, said: (0, 0), said_at: None }
    }

    /// A newer map. An error: why this node must not go on.
    pub fn map(&mut self, now: Instant, map: &ClusterMap) -> Result<Place, String> {
        let me = self.me;
        if map.removed.iter().any(|&(node, incarnation)| node == me.node && incarnation >= me.incarnation) {
            return Ok(Place::Removed);
        }
        let votes = map.is_voter_yet(me.node) && map.holds_vote(me.node, me.directory);
        match self.votes.replace(votes) {
            Some(false) if votes => {
                info!(voters = map.voters.len(), "this node votes in the control plane now")
            }
            Some(true) if !votes => info!("this node votes in the control plane no more"),
            _ => {}
        }
        let Some(member) = map.member(me.node) else { return Ok(Place::Has) };
        if member.directory != me.directory && member.incarnation > me.incarnation {
            // Both would push each other out for as long as they run.
            return Err(format!(
                "another node, at {}:{}, goes by the number {} since this one has started. Stop one of them; one that is new can empty \
                 its data directory but for join.secret, and join again without node_id",
                member.host, member.peer_port, me.node
            ));
        }
        if !self.tells || member.incarnation != me.incarnation {
            return Ok(Place::Has);
        }
        if !std::mem::replace(&mut self.let_in, true) {
            info!(node = me.node.0, map = map.version, "joined: the cluster knows this node");
        }
        let copies = map.partitions.iter().filter(|state| state.copies.contains(me.node)).count();
        let in_sync = map.partitions.iter().filter(|state| state.in_sync.contains(me.node)).count();
        let is_done = copies > 0 && copies == in_sync && placement::progress(map).is_done();
        let is_due = self.said_at.is_none_or(|at| now.since(at) >= BETWEEN);
        if (copies, in_sync) != self.said && (is_due || is_done) {
            self.said = (copies, in_sync);
            self.said_at = Some(now);
            match is_done {
                true => info!(copies, "this node has its share of the data, and all of it is in sync"),
                false => info!(copies, in_sync, "this node gets its share of the data"),
            }
            // What comes later is not about its joining.
            self.tells &= !is_done;
        }
        Ok(Place::Has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use placement::{Member, MemberState};
    use types::{Incarnation, NodeId};

    #[test]
    fn who_finds_its_number_taken_by_a_newer_node_does_not_go_on() {
        let me = Identity { node: NodeId(4), incarnation: Incarnation(10), directory: 1 };
        let mut progress = JoinProgress::new(me, true);
        let member = |incarnation, directory| Member {
            incarnation: Incarnation(incarnation),
            directory,
            state: MemberState::Active,
            host: "elsewhere".into(),
            port: 1,
            cluster_port: 2,
            peer_port: 3,
            ..Member::unheard_of(NodeId(4))
        };
        let map = |member| ClusterMap { version: 1, members: vec![member], ..ClusterMap::default() };
        progress.map(Instant(0), &ClusterMap::default()).unwrap();
        progress.map(Instant(0), &map(member(10, 1))).unwrap();
        // What an earlier start on this directory, or an emptied one, left behind.
        progress.map(Instant(0), &map(member(9, 1))).unwrap();
        progress.map(Instant(0), &map(member(9, 2))).unwrap();
        let error = progress.map(Instant(0), &map(member(11, 2))).unwrap_err();
        let removed = vec![(NodeId(4), Incarnation(10))];
        let without = ClusterMap { version: 2, removed, ..ClusterMap::default() };
        assert_eq!(progress.map(Instant(0), &without), Ok(Place::Removed));
        assert!(error.contains("elsewhere:3") && error.contains("number 4"), "{error}");
    }
}
