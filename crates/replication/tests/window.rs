//! What a primary sends ahead of what its copies have confirmed is bounded in bytes, and small records are not held back for large
//! ones of other partitions. What is ordered ahead is counted for the shard.

use placement::{ClusterMap, Member, MemberState, PartitionState};
use replication::message::{AppendOutcome, Appended};
use replication::{Context, Durability, Message, Outbox, Partition, Sender};
use std::sync::Arc;
use std::time::Duration;
use storage::lent::HUGE_BYTES;
use storage::{Changes, Footprint, Hasher, Value};
use types::{Epoch, Incarnation, Instant, Level, Lsn, NodeId, PartitionId, ShardId};

const MIB: usize = 1 << 20;
const AHEAD: usize = 8 * MIB;

struct Primary {
    context: Context,
    partitions: Vec<Partition<u32>>,
    outbox: Outbox<u32>,
}

impl Primary {
    /// Node 1, primary of so many partitions with a copy each on node 2.
    fn new(partitions: u16) -> Primary {
        let member = |id| Member {
            incarnation: Incarnation(1),
            directory: 1,
            state: MemberState::Active,
            level: Level::HIGHEST,
            ..Member::unheard_of(NodeId(id))
        };
        let both = [NodeId(1), NodeId(2)].into_iter().collect();
        let state = PartitionState {
            epoch: Epoch(1),
            primary_since: Epoch(1),
            primary: Some(NodeId(1)),
            in_sync: both,
            copies: both,
            ..PartitionState::default()
        };
        let map = ClusterMap {
            version: 1,
            copies: 2,
            min_in_sync: 1,
            members: vec![member(1), member(2)],
            partitions: vec![state; usize::from(partitions)],
            ..ClusterMap::default()
        };
        let context = Context {
            now: Instant(1_000_000_000),
            lease_until: Instant(u64::MAX),
            clock_ms: Some(1),
            map: Arc::new(map),
            snapshots_free: 8,
            chunk_bytes: replication::CHUNK_BYTES,
            evict: Duration::from_secs(2),
            ahead_bytes_max: AHEAD,
        };
        let hasher = Hasher::new(7);
        let made = |id| Partition::new(PartitionId(id), NodeId(1), hasher, Durability::Memory);
        let mut primary =
            Primary { context, partitions: (0..partitions).map(made).collect(), outbox: Outbox::default() };
        for partition in &mut primary.partitions {
            partition.on_map(&primary.context, &state, &mut primary.outbox);
        }
        for at in 0..partitions {
            primary.tick();
            primary.confirm(at, Lsn(1));
        }
        primary.sent();
        primary
    }

    /// A write of so many bytes; the end of a turn follows.
    fn put(&mut self, at: u16, key: &str, bytes: usize) {
        self.order(at, key, bytes);
        self.partitions[usize::from(at)].flush(&self.context, &mut self.outbox);
    }

    fn order(&mut self, at: u16, key: &str, bytes: usize) {
        let (footprint, mut changes) = (Footprint::default(), Changes::default());
        let partition = &mut self.partitions[usize::from(at)];
        let mut keyspace = partition.begin(&self.context, &mut changes, &footprint);
        keyspace.put(key.as_bytes(), Value::String(&vec![0; bytes]), None);
        partition.finish(&self.context, &mut changes, &footprint, None, &mut self.outbox.log);
    }

    fn confirm(&mut self, at: u16, lsn: Lsn) {
        let from = Sender { node: NodeId(2), incarnation: Incarnation(1), shard: ShardId(0) };
        let outcome = AppendOutcome::Held(lsn);
        let message = Message::Appended(Appended { partition: PartitionId(at), epoch: Epoch(1), outcome });
        let partition = &mut self.partitions[usize::from(at)];
        partition.on_message(&self.context, from, message, &mut self.outbox);
        partition.flush(&self.context, &mut self.outbox);
    }

    fn tick(&mut self) {
        self.context.now = self.context.now + Duration::from_millis(5);
        for partition in &mut self.partitions {
            partition.tick(&self.context, &mut self.outbox);
        }
    }

    /// Bytes of records that left since the last call, by partition.
    fn sent(&mut self) -> Vec<usize> {
        let mut sent = vec![0; self.partitions.len()];
        for (_, _, message) in self.outbox.messages.drain(..) {
            if let Message::Append(append) = message {
                sent[usize::from(append.partition.0)] +=
                    append.records.iter().map(|record| record.body.len()).sum::<usize>();
            }
        }
        sent
    }

    fn last(&self, at: u16) -> Lsn {
        self.partitions[usize::from(at)].tail().lsn
    }
}

#[test]
fn a_partition_is_ahead_of_its_copy_by_a_quarter_of_the_bound_and_goes_on_when_that_has_confirmed() {
    let mut primary = Primary::new(1);
    for at in 0..64 {
        primary.put(0, &at.to_string(), MIB);
    }
    let sent = primary.sent()[0];
    assert!((AHEAD / 4..AHEAD / 4 + 2 * MIB).contains(&sent), "{sent}");
    (0..10).for_each(|_| primary.tick());
    assert_eq!(primary.sent(), [0], "time alone sends no more before it is due again");
    primary.confirm(0, Lsn(2));
    let more = primary.sent()[0];
    assert!((MIB..3 * MIB).contains(&more), "{more}");
    // In the end it has everything.
    let mut all = sent + more;
    for _ in 0..200 {
        let lsn = Lsn(2 + (all / MIB) as u64 - 1);
        primary.confirm(0, lsn.min(primary.last(0)));
        primary.tick();
        all += primary.sent()[0];
    }
    assert!((64 * MIB..66 * MIB).contains(&all), "{all}");
    assert_eq!(primary.partitions[0].commit(), primary.last(0));
    assert_eq!(primary.outbox.ahead.values().sum::<usize>(), 0);
}

#[test]
fn all_partitions_together_are_ahead_by_the_bound_and_small_records_go_all_the_same() {
    let mut primary = Primary::new(20);
    for at in 0..16 {
        (0..8).for_each(|key| primary.put(at, &key.to_string(), MIB));
    }
    let sent: usize = primary.sent().iter().sum();
    // Beyond the bound each may have one record.
    assert!((AHEAD..AHEAD + 18 * MIB).contains(&sent), "{sent}");
    primary.put(19, "small", 100);
    assert!((100..1000).contains(&primary.sent()[19]));
}

#[test]
fn what_is_ordered_and_not_committed_is_counted_and_crowds_its_partition() {
    let mut primary = Primary::new(3);
    let most = 16 * MIB;
    let crowded = |primary: &Primary, at: usize| primary.partitions[at].is_crowded(&primary.outbox.log, most);
    assert_eq!(primary.outbox.log.uncommitted_bytes, 0);
    (0..3).for_each(|key| primary.put(0, &key.to_string(), MIB));
    assert!(!crowded(&primary, 0));
    primary.put(0, "one more", 2 * MIB);
    assert!(crowded(&primary, 0) && !crowded(&primary, 1));
    // A value that is larger than all of the bound is ordered, too; then others may have a little.
    primary.put(1, "large", 20 * MIB);
    primary.put(2, "small", 1000);
    assert!(!crowded(&primary, 2));
    primary.put(2, "not so small", 100_000);
    assert!(crowded(&primary, 2));
    let counted = primary.outbox.log.uncommitted_bytes;
    assert!((25 * MIB..26 * MIB).contains(&counted), "{counted}");
    for at in 0..3 {
        let last = primary.last(at);
        primary.confirm(at, last);
        assert!(!crowded(&primary, usize::from(at)));
    }
    assert_eq!(primary.outbox.log.uncommitted_bytes, 0);
    // What is taken back is not counted either.
    primary.put(0, "in vain", MIB);
    let mut state = primary.context.map.partitions[0];
    (state.epoch, state.primary_since, state.primary) = (Epoch(2), Epoch(2), Some(NodeId(2)));
    let context = primary.context.clone();
    primary.partitions[0].on_map(&context, &state, &mut primary.outbox);
    assert_eq!(primary.outbox.log.uncommitted_bytes, 0);
}

#[test]
fn nothing_overtakes_a_huge_record_on_its_way_to_a_copy() {
    let mut primary = Primary::new(2);
    primary.put(0, "before", 100);
    assert!(primary.sent()[0] > 100);
    primary.put(0, "huge", HUGE_BYTES);
    assert!(primary.sent()[0] > HUGE_BYTES);
    primary.confirm(0, Lsn(2));
    primary.put(0, "behind", 100);
    primary.put(1, "elsewhere", 100);
    assert_eq!(primary.sent()[0], 0);
    (0..10).for_each(|_| primary.tick());
    let about = |message: &Message| matches!(message, Message::Append(append) if append.partition.0 == 0);
    assert!(
        !primary.outbox.messages.iter().any(|(_, _, message)| about(message)),
        "no word of a commit, either"
    );
    primary.confirm(0, Lsn(3));
    let sent = primary.sent()[0];
    assert!((100..1000).contains(&sent), "{sent}");
    primary.confirm(0, Lsn(4));
    assert_eq!(primary.partitions[0].commit(), primary.last(0));
}

/// It may need a frame to itself.
#[test]
fn a_huge_record_shares_its_message_with_no_other() {
    let mut primary = Primary::new(1);
    for (key, bytes) in [("1", 10), ("2", 10), ("huge", HUGE_BYTES + 1), ("3", 10), ("4", 10)] {
        primary.order(0, key, bytes);
    }
    let mut counts = Vec::new();
    for _ in 0..20 {
        let partition = &mut primary.partitions[0];
        partition.flush(&primary.context, &mut primary.outbox);
        for (_, _, message) in std::mem::take(&mut primary.outbox.messages) {
            let Message::Append(append) = message else { continue };
            let is_huge = append.records.iter().any(|record| record.body.len() > HUGE_BYTES);
            if let Some(last) = append.records.last() {
                counts.push((append.records.len(), is_huge));
                primary.confirm(0, last.position.lsn);
            }
        }
        primary.tick();
    }
    assert_eq!(counts, [(2, false), (1, true), (2, false)]);
    assert_eq!(primary.partitions[0].commit(), primary.last(0));
}
