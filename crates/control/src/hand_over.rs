//! A partition's primary hands over (rule 10), as the map shows it: it gets an heir, and either releases the partition to it or
//! keeps it.
//!
//! An heir is always another copy than the primary, in sync and active: whatever changes that takes it away, under a newer
//! epoch, so that a release that came late is void.

use placement::{ClusterMap, PartitionState};
use types::{Epoch, NodeId, PartitionId};

/// Whether a partition's primary may be told to hand over to this copy.
pub fn may_inherit(map: &ClusterMap, state: &PartitionState, heir: NodeId) -> bool {
    state.primary.is_some_and(|primary| primary != heir && map.is_active(primary))
        && state.heir != Some(heir)
        && state.copies.contains(heir)
        && state.in_sync.contains(heir)
        && !state.leaving.contains(heir)
        && map.is_active(heir)
}

/// Names heirs. The primaries keep their reigns.
pub fn hand_over(map: &mut ClusterMap, orders: &[(PartitionId, Epoch, NodeId)]) {
    for &(partition, epoch, heir) in orders {
        let Some(&state) = map.partition(partition) else { continue };
        if state.epoch == epoch && may_inherit(map, &state, heir) {
            map.partitions[usize::from(partition.0)] =
                PartitionState { epoch: epoch.next(), heir: Some(heir), ..state };
        }
    }
}

/// Whether a primary's release hands over: the caller has compared epoch and primary.
pub fn is_valid_release(map: &ClusterMap, state: &PartitionState, heir: NodeId) -> bool {
    state.heir == Some(heir) && state.in_sync.contains(heir) && map.is_active(heir)
}

/// Takes away an heir that cannot be any more. The caller gives the partition a newer epoch, or has done so.
pub fn drop_void_heir(state: &mut PartitionState) {
    let (primary, in_sync) = (state.primary, state.in_sync);
    state.heir = state.heir.filter(|&heir| primary.is_some_and(|p| p != heir) && in_sync.contains(heir));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, apply, has_left};
    use crate::message::{Change, Kept, Registration};
    use crate::small_map::{cluster, set};
    use placement::{ChangeKind, MemberState};
    use types::{Incarnation, Level};

    fn run(map: &mut ClusterMap, command: Command) -> PartitionState {
        apply(map, &command, &mut Vec::new());
        map.partitions[0]
    }

    fn order(epoch: u64, heir: u16) -> Command {
        Command::HandOver { orders: vec![(PartitionId(0), Epoch(epoch), NodeId(heir))] }
    }

    fn change(epoch: u64, node: u16, kind: ChangeKind) -> Command {
        Command::Change(Change {
            partition: PartitionId(0),
            epoch: Epoch(epoch),
            primary: NodeId(1),
            node: NodeId(node),
            incarnation: Incarnation(1),
            kind,
        })
    }

    #[test]
    fn a_release_makes_the_heir_primary_and_the_old_primary_keeps_its_seat() {
        let mut map = cluster(3);
        let state = run(&mut map, order(5, 2));
        assert_eq!((state.epoch, state.heir, state.primary_since), (Epoch(6), Some(NodeId(2)), Epoch(3)));
        let state = run(&mut map, change(6, 2, ChangeKind::Release));
        assert_eq!((state.primary, state.heir, state.in_sync), (Some(NodeId(2)), None, set(&[1, 2, 3])));
        assert_eq!((state.epoch, state.primary_since), (Epoch(7), Epoch(7)));
    }

    #[test]
    fn a_primary_may_keep_its_partition_and_then_no_release_counts() {
        let mut map = cluster(3);
        run(&mut map, order(5, 2));
        let kept = run(&mut map, change(6, 2, ChangeKind::Keep));
        assert_eq!((kept.primary, kept.heir), (Some(NodeId(1)), None));
        assert_eq!((kept.epoch, kept.primary_since), (Epoch(7), Epoch(3)));
        for late in [change(6, 2, ChangeKind::Release), change(7, 2, ChangeKind::Release)] {
            assert_eq!(run(&mut map, late), kept, "nobody is heir under this epoch");
        }
        assert_eq!(run(&mut map, change(7, 2, ChangeKind::Keep)), kept);
    }

    #[test]
    fn only_another_in_sync_copy_that_lives_and_stays_becomes_heir() {
        let refused = |map: &mut ClusterMap, command: Command, why: &str| {
            let before = map.partitions[0];
            assert_eq!(run(map, command), before, "{why}");
        };
        let mut map = cluster(3);
        refused(&mut map, order(4, 2), "another epoch");
        refused(&mut map, order(5, 1), "the primary itself");
        refused(&mut map, order(5, 9), "nobody");
        map.members[1].state = MemberState::Failed;
        refused(&mut map, order(5, 2), "dead");
        map.partitions[0].leaving = set(&[3]);
        refused(&mut map, order(5, 3), "about to go");
        let mut map = cluster(3);
        map.partitions[0].in_sync = set(&[1, 3]);
        refused(&mut map, order(5, 2), "not in sync");
        map.partitions[0].primary = None;
        refused(&mut map, order(5, 3), "nobody who could hand over");
        run(&mut map, Command::HandOver { orders: vec![(PartitionId(7), Epoch(5), NodeId(2))] });
    }

    #[test]
    fn whatever_takes_the_heir_or_the_primary_away_ends_the_hand_over() {
        let down = |node: u16| Command::Down { nodes: vec![(NodeId(node), Incarnation(1))], promote: vec![] };
        let restart = |node: u16, whole: bool| {
            let since = Incarnation(if whole { 1 } else { 2 });
            Command::Up(Registration {
                node: NodeId(node),
                incarnation: Incarnation(2),
                directory: 1,
                votes: true,
                shards: 1,
                kept: Kept { since, log: true, lost: vec![] },
                host: String::new(),
                port: 0,
                cluster_port: 0,
                peer_port: 0,
                http_port: 0,
                line_port: 0,
                weight: 1,
                zone: String::new(),
                level: types::Level::HIGHEST,
                build: String::new(),
                witness: false,
            })
        };
        let leave = |node: u16| Command::Leave { node: NodeId(node), incarnation: Incarnation(1) };
        let heir_gone = [down(2), restart(2, false), leave(2), change(6, 2, ChangeKind::Leave)];
        let primary_gone = [down(1), restart(1, true), restart(1, false), leave(1)];
        for command in heir_gone.into_iter().chain(primary_gone) {
            let mut map = cluster(3);
            run(&mut map, order(5, 2));
            let state = run(&mut map, command.clone());
            assert!(state.epoch > Epoch(6) && state.heir.is_none(), "{command:?}: {state:?}");
            let after = run(&mut map, change(6, 2, ChangeKind::Release));
            assert_eq!(after, state, "a late release after {command:?}");
        }
        // A third copy's fate is none of the heir's business, but the epoch is newer.
        let mut map = cluster(3);
        run(&mut map, order(5, 2));
        let state = run(&mut map, down(3));
        assert_eq!((state.heir, state.epoch), (Some(NodeId(2)), Epoch(7)));
    }

    #[test]
    fn a_node_that_stops_goes_on_to_hand_over_to_the_heir() {
        let mut map = cluster(3);
        run(&mut map, order(5, 3));
        let state = run(&mut map, Command::Leave { node: NodeId(1), incarnation: Incarnation(1) });
        assert_eq!((state.primary, state.in_sync), (Some(NodeId(3)), set(&[2, 3])));
    }

    /// As a build of feature level 1 applies it, to the bit: its map must not be another.
    #[test]
    fn beside_older_builds_the_map_does_not_show_who_stops() {
        let stop = Command::Leave { node: NodeId(3), incarnation: Incarnation(1) };
        for (level, state) in [(Level::FIRST, MemberState::Active), (Level::STOPPING, MemberState::Stopping)]
        {
            let mut map = ClusterMap { level, ..cluster(3) };
            let after = run(&mut map, stop.clone());
            assert_eq!((after.epoch, after.in_sync), (Epoch(6), set(&[1, 2])));
            assert_eq!(map.members[2].state, state, "{level}");
            assert!(has_left(&map, NodeId(3)), "{level}");
            // A joining that may be under way is made void where all know that it is.
            let again = run(&mut map, stop.clone());
            assert_eq!(again.epoch == after.epoch, level == Level::FIRST, "{level}");
        }
    }
}
