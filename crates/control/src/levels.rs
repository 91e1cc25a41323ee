//! The cluster's feature level: it rises when the last member has more, and never goes down.
//!
//! Each node says with its registration what its build has, and says it again to the coordinator for as long as the cluster's level is
//! below that. The coordinator remembers it for each start of a node; what a new coordinator does not know it hears again. A
//! member that is away holds the level down until it is back or removed: it may come back with the old build.
//!
//! Where a node's build has less than the cluster's level, its registration is not taken. Its links are refused before that, with
//! a word on why (room `server`).

use crate::command::Command;
use crate::frames::{Frame, encode_frame};
use crate::machine::Control;
use crate::message::{Message, Registration};
use placement::{ClusterMap, MemberState};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use types::planted::{self, Bug};
use types::{Incarnation, Instant, Level, NodeId};

/// Between two words to the coordinator of what this node's build has, while the cluster's level is below it.
const LEVEL_REPEAT: Duration = Duration::from_secs(1);

/// What a start of a node has told of its build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// The node.
    pub node: NodeId,
    /// The start.
    pub incarnation: Incarnation,
    /// The highest level that its build has.
    pub level: Level,
    /// Its build's version.
    pub build: String,
    /// Whether it is a witness, which an older level does not know.
    pub witness: bool,
    /// Its port for HTTP and gRPC, likewise. 0: none.
    pub http_port: u16,
    /// Its port for JSON and text, likewise.
    pub line_port: u16,
}

/// What the coordinator has heard of builds.
#[derive(Debug, Default)]
pub(crate) struct Builds(BTreeMap<NodeId, Build>);

impl Builds {
    /// A registration has come, maybe over a link that has no levels.
    pub fn hear(&mut self, registration: &Registration) {
        let &Registration { node, incarnation, level, witness, http_port, line_port, .. } = registration;
        let known = self.0.get(&node).map(|known| (known.incarnation, known.level));
        if known < Some((incarnation, level)) {
            let build = registration.build.clone();
            let told = Build { node, incarnation, level, build, witness, http_port, line_port };
            self.0.insert(node, told);
        }
    }

    /// The command that raises the level, where all members have more.
    pub fn raise(&mut self, map: &ClusterMap) -> Option<Command> {
        self.0.retain(|&node, _| map.member(node).is_some());
        let of = |member: &placement::Member| {
            let build = self.0.get(&member.id).filter(|build| build.incarnation == member.incarnation);
            build.filter(|_| member.state == MemberState::Active).cloned()
        };
        let builds: Vec<Build> = map.members.iter().filter_map(of).collect();
        let level = match planted::is(Bug::RaisesEarly) {
            true => builds.iter().map(|build| build.level).max()?,
            false => builds.iter().map(|build| build.level).min()?,
        };
        let command = Command::Raise { level, builds };
        is_due(map, &command).then_some(command)
    }
}

/// Whether raising the level to this would be applied: every member, in the start that the map knows, has that much.
fn is_due(map: &ClusterMap, command: &Command) -> bool {
    let Command::Raise { level, builds } = command else { return false };
    let has = |member: &placement::Member| {
        let is_it = |build: &&Build| build.node == member.id && build.incarnation == member.incarnation;
        builds.iter().find(is_it).is_some_and(|build| build.level >= *level)
    };
    *level > map.level && (map.members.iter().all(has) || planted::is(Bug::RaisesEarly))
}

/// Raises the level. A compare-and-set: a member that has started again meanwhile, or joined, makes it void.
pub(crate) fn apply(map: &mut ClusterMap, command: &Command) {
    let Command::Raise { level, builds } = command else { return };
    if !is_due(map, command) {
        return;
    }
    map.level = *level;
    for build in builds {
        if let Some(member) = map.member_mut(build.node) {
            member.level = build.level;
            member.build.clone_from(&build.build);
            member.witness = build.witness;
            (member.http_port, member.line_port) = (build.http_port, build.line_port);
        }
    }
}

/// Whether a node with this build may be a member.
pub(crate) fn is_enough(map: &ClusterMap, registration: &Registration) -> bool {
    registration.level >= map.level
}

impl Control {
    /// The cluster's feature level, as far as this node has ever known: also before it knows a map.
    pub fn level(&self) -> Level {
        self.level.max(self.map.level)
    }

    /// The highest feature level that this node's build has.
    pub fn highest_level(&self) -> Level {
        self.config.me.level
    }

    /// Whether the cluster uses what this node's build does not have: it must not go on.
    pub fn is_outgrown(&self) -> bool {
        self.outgrown || self.level() > self.config.me.level
    }

    /// Tells the coordinator what this node's build has, for as long as the cluster does not use it: its registration may have gone
    /// to another one, or over a link that has no levels.
    pub(crate) fn tell_level(&mut self, now: Instant) {
        if now < self.next_level || self.map.level >= self.config.me.level || self.is_removed() {
            return;
        }
        self.next_level = now + LEVEL_REPEAT;
        let registration = self.config.me.clone();
        self.tell_the_coordinator(now, Message::Register(registration));
    }

    /// The cluster's level has risen: the file says so, before this node does anything by it, and is no older build's any more.
    pub(crate) fn note_level(&mut self) {
        if self.map.level > self.level && !self.is_outgrown() {
            self.level = self.map.level;
            self.effects.frames.push(encode_frame(self.level, &Frame::Level(self.level)));
            self.effects.sync = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Kept;

    fn member(id: u16, incarnation: u64) -> placement::Member {
        let incarnation = Incarnation(incarnation);
        placement::Member {
            incarnation,
            state: MemberState::Active,
            ..placement::Member::unheard_of(NodeId(id))
        }
    }

    fn map() -> ClusterMap {
        let members = vec![member(1, 10), member(2, 20), member(3, 30)];
        ClusterMap { version: 5, members, ..ClusterMap::default() }
    }

    fn registration(node: u16, incarnation: u64, level: u16) -> Registration {
        Registration {
            node: NodeId(node),
            incarnation: Incarnation(incarnation),
            directory: 0,
            votes: false,
            shards: 1,
            kept: Kept::nothing(Incarnation(incarnation)),
            host: "h".into(),
            port: 1,
            cluster_port: 2,
            peer_port: 3,
            http_port: 4,
            line_port: 5,
            weight: 1,
            zone: String::new(),
            level: Level(level),
            build: format!("0.{level}"),
            witness: false,
        }
    }

    fn heard(told: &[(u16, u64, u16)]) -> Builds {
        let mut builds = Builds::default();
        for &(node, incarnation, level) in told {
            builds.hear(&registration(node, incarnation, level));
        }
        builds
    }

    fn raised(map: &ClusterMap, told: &[(u16, u64, u16)]) -> Option<ClusterMap> {
        let command = heard(told).raise(map)?;
        let mut after = map.clone();
        crate::command::apply(&mut after, &command, &mut Vec::new());
        Some(after)
    }

    #[test]
    fn the_level_rises_to_what_every_member_has() {
        let after = raised(&map(), &[(1, 10, 2), (2, 20, 3), (3, 30, 2)]).unwrap();
        assert_eq!(after.level, Level(2));
        let told = |member: &placement::Member| (member.level.0, member.build.clone());
        let told: Vec<_> = after.members.iter().map(told).collect();
        assert_eq!(told, [(2, "0.2".into()), (3, "0.3".into()), (2, "0.2".into())]);
        assert_eq!(raised(&after, &[(1, 10, 2), (2, 20, 2), (3, 30, 1)]), None, "it never goes down");
    }

    #[test]
    fn one_member_holds_it_down() {
        let all = [(1, 10, 2), (2, 20, 2), (3, 30, 2)];
        assert!(raised(&map(), &all).is_some());
        assert_eq!(raised(&map(), &[(1, 10, 2), (2, 20, 2), (3, 30, 1)]), None, "an older build");
        assert_eq!(raised(&map(), &all[..2]), None, "one that was not heard");
        assert_eq!(raised(&map(), &[(1, 10, 2), (2, 20, 2), (3, 29, 2)]), None, "what an earlier start had");
        let mut away = map();
        away.members[2].state = MemberState::Failed;
        assert_eq!(raised(&away, &all), None, "one that is away");
    }

    #[test]
    fn who_starts_again_or_joins_meanwhile_makes_it_void() {
        let command = heard(&[(1, 10, 2), (2, 20, 2), (3, 30, 2)]).raise(&map()).unwrap();
        let mut restarted = map();
        restarted.members[1].incarnation = Incarnation(21);
        let mut joined = map();
        joined.members.push(member(4, 40));
        for before in [restarted, joined] {
            let mut after = before.clone();
            crate::command::apply(&mut after, &command, &mut Vec::new());
            assert_eq!(after, before);
        }
    }

    #[test]
    fn what_came_over_a_link_without_levels_does_not_count() {
        let mut builds = heard(&[(1, 10, 2), (2, 20, 2), (3, 30, 2)]);
        builds.hear(&registration(3, 30, 1));
        assert!(builds.raise(&map()).is_some());
        builds.hear(&registration(3, 31, 1));
        assert!(builds.raise(&map()).is_none());
    }

    #[test]
    fn a_node_that_has_less_than_the_cluster_is_not_taken() {
        let map = ClusterMap { level: Level(2), ..map() };
        assert!(!crate::command::is_news(&map, &registration(2, 21, 1)));
        assert!(crate::command::is_news(&map, &registration(2, 21, 2)));
        assert!(!crate::command::is_news(&map, &registration(9, 1, 1)));
        assert!(crate::command::is_news(&map, &registration(9, 1, 2)));
        let mut after = map.clone();
        crate::command::apply(&mut after, &Command::Up(registration(2, 21, 1)), &mut Vec::new());
        assert_eq!(after, map);
    }
}
