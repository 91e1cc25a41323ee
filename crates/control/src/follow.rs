//! The map on its way to the nodes that do not take part in the consensus: the coordinator sends them what changed, and who lacks
//! something asks for the whole. A member of the group that has lost touch with it follows as well: it may have lost its seat.

use crate::format::encode_map;
use crate::frames::{Frame, encode_frame};
use crate::heart::HeartInput;
use crate::machine::Control;
use crate::message::{MapChanges, Message};
use placement::ClusterMap;
use std::sync::Arc;
use std::time::Duration;
use types::{Instant, Level, NodeId};

/// So long a member of the group waits for the group to tell it of a newer map, before it asks.
const PATIENCE: Duration = Duration::from_millis(300);

impl Control {
    /// Another node acts on a newer map. A member of the group need not ask, as long as its log goes on.
    pub(crate) fn newer_map(&mut self, now: Instant, from: NodeId, version: u64) {
        if version <= self.map.version || from == self.config.me.node {
            return;
        }
        if self.raft.is_some() {
            let since = if self.moved_at.1 == self.map.version { self.moved_at.0 } else { now };
            self.moved_at = (since, self.map.version);
            if now.since(since) < PATIENCE {
                return;
            }
            self.moved_at.0 = now;
        }
        let have = self.map.version;
        self.send(from, Message::AskMap { have });
    }

    /// The coordinator sends what changed to the nodes that do not vote.
    pub(crate) fn push_changes(&mut self, before: &ClusterMap) {
        if !self.is_coordinator() {
            return;
        }
        // Who was removed is told so, too.
        let gone = before.members.iter().filter(|member| self.map.member(member.id).is_none());
        let followers: Vec<NodeId> = self
            .map
            .members
            .iter()
            .chain(gone)
            .filter(|member| member.is_alive() && member.id != self.config.me.node)
            .filter(|member| {
                !self.map.is_voter(member.id) || !self.map.holds_vote(member.id, member.directory)
            })
            .map(|member| member.id)
            .collect();
        if followers.is_empty() {
            return;
        }
        let changes = difference(before, &self.map);
        for node in followers {
            self.send(node, Message::MapChanges(changes.clone()));
        }
    }

    /// A map, whole.
    pub(crate) fn follow(&mut self, map: ClusterMap) {
        if map.version > self.map.version {
            self.map_moved(map);
        }
    }

    /// What changed in the map.
    pub(crate) fn follow_changes(&mut self, from: NodeId, changes: MapChanges) {
        if changes.to <= self.map.version {
            return;
        }
        // Changes say nothing of what never changes: a node without a map needs it whole.
        if changes.from != self.map.version || self.map.version == 0 {
            let have = self.map.version;
            self.send(from, Message::AskMap { have });
            return;
        }
        let mut map = ClusterMap::clone(&self.map);
        map.level = changes.level;
        (map.copies, map.min_in_sync) = (changes.copies, changes.min_in_sync);
        map.members.retain(|member| !changes.gone.contains(&member.id));
        for member in changes.members {
            match map.members.binary_search_by_key(&member.id, |kept| kept.id) {
                Ok(at) => map.members[at] = member,
                Err(at) => map.members.insert(at, member),
            }
        }
        map.removed = changes.removed;
        for (partition, state) in changes.partitions {
            if let Some(kept) = map.partitions.get_mut(usize::from(partition.0)) {
                *kept = state;
            }
        }
        map.version = changes.to;
        // Below that level the voters stay what they are, and changes do not name them.
        if changes.level >= Level::VOTERS_FOLLOW {
            (map.voters, map.old_voters) = (changes.voters, changes.old_voters);
            (map.voters_since, map.seats) = (changes.voters_since, changes.seats);
        } else {
            for told in changes.seats {
                if let Some(seat) = map.seats.iter_mut().find(|seat| seat.node == told.node) {
                    seat.directory = told.directory;
                }
            }
        }
        self.map_moved(map);
    }

    fn map_moved(&mut self, map: ClusterMap) {
        self.map = Arc::new(map);
        self.note_level();
        self.effects.map = Some(self.map.clone());
        self.effects.to_heart.push(HeartInput::Applied { map: self.map.clone(), cleared: Vec::new() });
        let level = self.level();
        if level >= Level::VOTERS_FOLLOW
            && self.raft.is_none()
            && self.map.voters_since != self.kept_voters_since
        {
            self.keep_map();
        }
    }

    /// A node without a seat keeps the map, so that it finds the voters when it starts again, though they all may be others than
    /// those of its settings.
    pub(crate) fn keep_map(&mut self) {
        self.kept_voters_since = self.map.voters_since;
        let level = self.level();
        let map = Frame::Map(encode_map(&self.map));
        let frames = [self.start_frame(), Frame::Seat { id: 0, group: Vec::new() }, map, Frame::Level(level)];
        self.effects.frames.clear();
        self.effects.rewrite = Some(frames.iter().map(|frame| encode_frame(level, frame)).collect());
        self.effects.sync = true;
        self.begin_to_count_frames();
    }
}

fn difference(before: &ClusterMap, after: &ClusterMap) -> MapChanges {
    let members =
        after.members.iter().filter(|member| before.member(member.id) != Some(member)).cloned().collect();
    let partitions = after
        .each_partition()
        .filter(|(id, state)| before.partition(*id) != Some(state))
        .map(|(id, state)| (id, *state))
        .collect();
    let gone =
        before.members.iter().map(|member| member.id).filter(|id| after.member(*id).is_none()).collect();
    MapChanges {
        from: before.version,
        to: after.version,
        level: after.level,
        copies: after.copies,
        min_in_sync: after.min_in_sync,
        members,
        gone,
        removed: after.removed.clone(),
        voters: after.voters.clone(),
        old_voters: after.old_voters.clone(),
        voters_since: after.voters_since,
        seats: after.seats.clone(),
        partitions,
    }
}
