//! Golden scripts of the replication protocol: commands in, the exact messages and states out.
//!
//! Each script under `tests/golden/` is a list of commands, each followed by what it led to. After a change that is
//! meant, `UPDATE_GOLDEN=1 cargo test -p annulet-replication` writes them anew, to be read as a diff.
//!
//! | command | what it does |
//! | --- | --- |
//! | `map primary=1 in_sync=1,2 copies=1,2 reign` | the next epoch, at every node that is up; `reign`: its primary is new |
//! | `map primary=1 in_sync=1 forced` | the same, and a loss was accepted, or could not be helped |
//! | `map heir=2` | the primary is to hand over to node 2 (0: to nobody) |
//! | `put NODE KEY VALUE [all quorum one]` | a write at a primary, waiting at the level |
//! | `remove NODE KEY NUMBER` | a removal that node 2 passed on under this number, unless it has been done already |
//! | `read NODE KEY` | what a linearizable read would say, and what it waits for |
//! | `follow NODE now`, `EPOCH/LSN`, `version MILLISECONDS` | what was committed behind that place |
//! | `deliver [from-to ...]` | messages on the way arrive, and those that they lead to; only on these links |
//! | `drop from-to` | messages on the way there are lost |
//! | `fill NODE FROM..END BYTES` | so many keys get values of so many bytes, all acknowledged at once |
//! | `away NODE`, `back NODE` | the map shows the node dead, or alive, under a new epoch |
//! | `tick MS` | time passes at every node |
//! | `restart NODE` | a new start, another incarnation: empty, or with what its log has kept |
//! | `level NUMBER` | the cluster's feature level from the next map on |
//! | `logs NODE` | it begins anew, with a log on disk |
//! | `down NODE`, `up NODE` | frozen: takes no maps, messages or ticks |
//! | `blind NODE`, `sees NODE` | takes no maps, until it takes the newest |

use bytes::Bytes;
use placement::{ChangeKind, ClusterMap, Member, MemberState, PartitionState};
use replication::recovery::Recovery;
use replication::{
    Context, Durability, LogTurn, Message, Outbox, Partition, Release, Seen, Sender, Standing,
};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use storage::effect::effects;
use storage::log_entry::entries;
use storage::{Changes, Footprint, Hasher, Value};
use types::settings::WriteLevel;
use types::{
    Epoch, Incarnation, Instant, Level, Lsn, NodeId, NodeSet, PartitionId, Position, RequestId, ShardId,
    Version,
};

struct Node {
    partition: Partition<String>,
    incarnation: Incarnation,
    frozen: bool,
    blind: bool,
    /// Its log on disk, where it has one: all of it is synced at once.
    disk: Option<Vec<u8>>,
}

struct World {
    now: Instant,
    map: Arc<ClusterMap>,
    nodes: BTreeMap<u16, Node>,
    links: BTreeMap<(u16, u16), VecDeque<(Incarnation, Message)>>,
    out: String,
}

fn set(text: &str) -> NodeSet {
    text.split(',').filter(|id| !id.is_empty()).map(|id| NodeId(id.parse().expect("a node"))).collect()
}

fn partition(id: u16) -> Partition<String> {
    Partition::new(PartitionId(0), NodeId(id), Hasher::new(7), Durability::Memory)
}

/// What a node's disk has kept.
fn recovered(id: u16, disk: &mut Vec<u8>) -> Partition<String> {
    let mut partition = Partition::new(PartitionId(0), NodeId(id), Hasher::new(7), Durability::Disk);
    let mut recovery = Recovery::default();
    for entry in entries(Bytes::copy_from_slice(disk)) {
        partition.recover_entry(&mut recovery, entry.expect("an entry"), true).expect("it fits");
    }
    let mut first = LogTurn::default();
    partition.recovered(&recovery, &mut first).expect("it is whole");
    disk.extend_from_slice(&first.bytes.to_vec());
    partition
}

impl World {
    fn new() -> World {
        let member = |id| Member {
            incarnation: Incarnation(1),
            directory: 1,
            state: MemberState::Active,
            level: Level::HIGHEST,
            ..Member::unheard_of(NodeId(id))
        };
        let map = ClusterMap {
            version: 1,
            level: Level::HIGHEST,
            copies: 2,
            min_in_sync: 1,
            members: (1..=3).map(member).collect(),
            partitions: vec![PartitionState::default()],
            ..ClusterMap::default()
        };
        let node = |id| {
            (
                id,
                Node {
                    partition: partition(id),
                    incarnation: Incarnation(1),
                    frozen: false,
                    blind: false,
                    disk: None,
                },
            )
        };
        World {
            now: Instant(1_000_000_000),
            map: Arc::new(map),
            nodes: (1..=3).map(node).collect(),
            links: BTreeMap::new(),
            out: String::new(),
        }
    }

    fn context(&self) -> Context {
        Context {
            now: self.now,
            lease_until: self.now + Duration::from_secs(1),
            clock_ms: Some(self.now.as_millis()),
            map: self.map.clone(),
            snapshots_free: 8,
            // A chunk an entry.
            chunk_bytes: 1,
            evict: Duration::from_secs(2),
            ahead_bytes_max: 16 << 20,
        }
    }

    fn collect(&mut self, id: u16, mut outbox: Outbox<String>) {
        let incarnation = self.nodes[&id].incarnation;
        for (to, _, message) in outbox.messages.drain(..) {
            let _ = writeln!(self.out, "    {id}-{to} {}", describe(&message));
            self.links.entry((id, to.0)).or_default().push_back((incarnation, message));
        }
        let node = self.nodes.get_mut(&id).expect("a node");
        if let Some(disk) = &mut node.disk {
            disk.extend_from_slice(&outbox.log.bytes.to_vec());
            let mut synced = Outbox::default();
            for tail in outbox.log.tails.drain(..) {
                node.partition.on_durable(tail.life, tail.lsn, &mut synced);
            }
            if !synced.messages.is_empty() {
                self.collect(id, synced);
            }
        }
        for change in outbox.changes.drain(..) {
            let what = match change.kind {
                ChangeKind::Join => "joins",
                ChangeKind::Leave => "leaves",
                ChangeKind::Release => "takes over",
                ChangeKind::Keep => "does not take over",
            };
            let _ = writeln!(self.out, "    {id} proposes at epoch {}: {} {what}", change.epoch, change.node);
        }
        for (waiter, release) in outbox.released.drain(..) {
            let what = match release {
                Release::Committed => "acknowledged",
                Release::Deposed => "unknown: deposed",
                Release::Overdue => "unknown: overdue",
            };
            let _ = writeln!(self.out, "    {waiter} {what}");
        }
    }

    /// Every node that is up does something.
    fn each(&mut self, mut run: impl FnMut(u16, &mut Partition<String>, &Context, &mut Outbox<String>)) {
        let context = self.context();
        for id in [1, 2, 3] {
            let node = self.nodes.get_mut(&id).expect("three nodes");
            if node.frozen {
                continue;
            }
            let mut outbox = Outbox::default();
            run(id, &mut node.partition, &context, &mut outbox);
            self.collect(id, outbox);
        }
    }

    fn run(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let id = || words[1].parse::<u16>().expect("a node");
        match words[0] {
            "map" => self.change_map(&words[1..]),
            "put" => self.put(id(), words[2], words[3], words.get(4).copied().unwrap_or("all")),
            "fill" => self.fill(id(), words[2], words[3]),
            "away" | "back" => {
                let mut map = ClusterMap::clone(&self.map);
                let member = map.member_mut(NodeId(id())).expect("a member");
                member.state = if words[0] == "away" { MemberState::Failed } else { MemberState::Active };
                self.map = Arc::new(map);
                self.change_map(&[]);
            }
            "remove" => self.remove(id(), words[2], words[3].parse().expect("a number")),
            "read" => self.read(id(), words[2]),
            "follow" => self.follow(id(), &words[2..]),
            "deliver" => self.deliver(&words[1..]),
            "drop" => {
                for link in &words[1..] {
                    self.links.remove(&parse_link(link));
                }
            }
            "tick" => {
                self.now = self.now + Duration::from_millis(words[1].parse().expect("milliseconds"));
                self.each(|_, partition, context, outbox| partition.tick(context, outbox));
            }
            "restart" => {
                let node = self.nodes.get_mut(&id()).expect("a node");
                node.incarnation.0 += 1;
                node.partition = match &mut node.disk {
                    Some(disk) => recovered(id(), disk),
                    None => partition(id()),
                };
                let incarnation = node.incarnation;
                let mut map = ClusterMap::clone(&self.map);
                map.member_mut(NodeId(id())).expect("a member").incarnation = incarnation;
                self.map = Arc::new(map);
                self.links.retain(|link, _| link.0 != id() && link.1 != id());
            }
            "logs" => {
                let node = self.nodes.get_mut(&id()).expect("a node");
                node.partition = recovered(id(), node.disk.insert(Vec::new()));
            }
            "level" => {
                let level = Level(words[1].parse().expect("a level"));
                self.map = Arc::new(ClusterMap { level, ..ClusterMap::clone(&self.map) });
            }
            "blind" => self.nodes.get_mut(&id()).expect("a node").blind = true,
            "sees" => {
                self.nodes.get_mut(&id()).expect("a node").blind = false;
                self.show_map();
            }
            "down" | "up" => self.nodes.get_mut(&id()).expect("a node").frozen = words[0] == "down",
            other => panic!("no such command: {other}"),
        }
        self.show();
    }

    fn change_map(&mut self, words: &[&str]) {
        let mut map = ClusterMap::clone(&self.map);
        let state = &mut map.partitions[0];
        state.epoch = state.epoch.next();
        for word in words {
            match word.split_once('=') {
                Some(("primary", id)) => state.primary = Some(NodeId(id.parse().expect("a node"))),
                Some(("in_sync", ids)) => state.in_sync = set(ids),
                Some(("copies", ids)) => state.copies = set(ids),
                Some(("heir", id)) => {
                    state.heir = Some(NodeId(id.parse().expect("a node"))).filter(|h| h.0 > 0)
                }
                _ => {
                    state.primary_since = state.epoch;
                    if *word == "forced" {
                        state.forced_since = state.epoch;
                    }
                }
            }
        }
        map.version += 1;
        self.map = Arc::new(map);
        self.show_map();
    }

    /// Every node that is up and not blind takes the newest map, as a shard does.
    fn show_map(&mut self) {
        let state = self.map.partitions[0];
        let blind: Vec<u16> = self.nodes.iter().filter(|(_, node)| node.blind).map(|(id, _)| *id).collect();
        self.each(|id, partition, context, outbox| {
            if !blind.contains(&id) && partition.is_news(&state) {
                partition.on_map(context, &state, outbox);
                partition.flush(context, outbox);
            }
        });
    }

    fn put(&mut self, id: u16, key: &str, value: &str, level: &str) {
        let context = self.context();
        let node = self.nodes.get_mut(&id).expect("a node");
        let standing = node.partition.standing(&context);
        if standing != Standing::Serving {
            let _ = writeln!(self.out, "    refused: {standing:?}");
            return;
        }
        let (footprint, mut changes) = (Footprint::default(), Changes::default());
        let mut keyspace = node.partition.begin(&context, &mut changes, &footprint);
        keyspace.put(key.as_bytes(), Value::String(value.as_bytes()), None);
        let ran = node.partition.finish(&context, &mut changes, &footprint, None, &mut LogTurn::default());
        let level: WriteLevel = level.parse().expect("a level");
        let name = format!("{key}={value}");
        if level == WriteLevel::One || ran.wait.0 == 0 {
            let _ = writeln!(self.out, "    {name} acknowledged");
        } else {
            node.partition.wait(ran.wait, level, name);
        }
        let mut outbox = Outbox::default();
        node.partition.flush(&context, &mut outbox);
        self.collect(id, outbox);
    }

    fn remove(&mut self, id: u16, key: &str, number: u64) {
        let context = self.context();
        let node = self.nodes.get_mut(&id).expect("a node");
        let incarnation = Incarnation(1);
        let request = RequestId { node: NodeId(2), incarnation, shard: ShardId(0), sequence: number };
        let seen = node.partition.seen(request);
        if seen != Seen::Never {
            let _ = writeln!(self.out, "    not run: {seen:?}");
            return;
        }
        let (footprint, mut changes) = (Footprint::default(), Changes::default());
        let removed = node.partition.begin(&context, &mut changes, &footprint).remove(key.as_bytes());
        let reply = Bytes::from(removed.to_string());
        let log = &mut LogTurn::default();
        let ran = node.partition.finish(&context, &mut changes, &footprint, Some((request, reply)), log);
        let _ = writeln!(self.out, "    removed: {removed}, told once {} is committed", ran.wait);
        let mut outbox = Outbox::default();
        node.partition.flush(&context, &mut outbox);
        self.collect(id, outbox);
    }

    fn fill(&mut self, id: u16, keys: &str, bytes: &str) {
        let (from, end) = keys.split_once("..").expect("from..end");
        let numbers = from.parse::<u32>().expect("a number")..end.parse().expect("a number");
        let value = vec![b'x'; bytes.parse().expect("bytes")];
        let context = self.context();
        let node = self.nodes.get_mut(&id).expect("a node");
        for number in numbers {
            let (footprint, mut changes) = (Footprint::default(), Changes::default());
            let mut keyspace = node.partition.begin(&context, &mut changes, &footprint);
            keyspace.put(format!("key:{number}").as_bytes(), Value::String(&value), None);
            node.partition.finish(&context, &mut changes, &footprint, None, &mut LogTurn::default());
        }
        let mut outbox = Outbox::default();
        node.partition.flush(&context, &mut outbox);
        self.collect(id, outbox);
    }

    fn read(&mut self, id: u16, key: &str) {
        let context = self.context();
        let node = self.nodes.get_mut(&id).expect("a node");
        let text = |entry: Option<storage::Entry<'_>>| {
            entry.map_or("nothing".to_owned(), |entry| {
                let Value::String(value) = entry.value;
                String::from_utf8_lossy(value).into_owned()
            })
        };
        let (footprint, mut changes) = (Footprint::default(), Changes::default());
        let stale = text(node.partition.committed(&context, &mut changes, &footprint).get(key.as_bytes()));
        let line = if node.partition.standing(&context) == Standing::Serving {
            let fresh = text(node.partition.begin(&context, &mut changes, &footprint).get(key.as_bytes()));
            let ran =
                node.partition.finish(&context, &mut changes, &footprint, None, &mut LogTurn::default());
            format!("{fresh} once {} is committed; stale: {stale}", ran.wait)
        } else {
            format!("only stale: {stale}")
        };
        let _ = writeln!(self.out, "    {line}");
    }

    fn follow(&mut self, id: u16, since: &[&str]) {
        let now = self.now;
        let partition = &mut self.nodes.get_mut(&id).expect("a node").partition;
        partition.keep_history(now);
        let place = match since {
            ["now"] => Some(partition.newest_place()),
            ["version", ms] => {
                partition.place_behind(Version(ms.parse::<u64>().expect("milliseconds") << 16), false)
            }
            [place] => {
                let (epoch, lsn) = place.split_once('/').expect("epoch/lsn");
                let (epoch, lsn) = (epoch.parse().expect("an epoch"), lsn.parse().expect("an lsn"));
                let place = Position { epoch: Epoch(epoch), lsn: Lsn(lsn) };
                partition.leads_on_from(place).then_some(place)
            }
            _ => panic!("from where?"),
        };
        let Some(place) = place else {
            let _ = writeln!(self.out, "    the log does not lead on from there");
            return;
        };
        let _ = writeln!(self.out, "    behind {}/{}:", place.epoch, place.lsn);
        for record in partition.committed_behind(place) {
            let keys = effects(&record.body).flatten().map(|effect| match effect.key() {
                Some(key) => String::from_utf8_lossy(key).into_owned(),
                None => "all".into(),
            });
            let keys = keys.collect::<Vec<_>>().join(" ");
            let _ = writeln!(self.out, "      {}/{} {keys}", record.position.epoch, record.position.lsn);
        }
    }

    fn deliver(&mut self, links: &[&str]) {
        let only: Vec<(u16, u16)> = links.iter().map(|link| parse_link(link)).collect();
        loop {
            let fits = |link: &(u16, u16)| only.is_empty() || only.contains(link);
            let next = self
                .links
                .iter()
                .find(|(link, queue)| !queue.is_empty() && fits(link) && !self.nodes[&link.1].frozen);
            let Some((&(from, to), _)) = next else { return };
            let Some((incarnation, message)) = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front)
            else {
                return;
            };
            let context = self.context();
            let sender = Sender { node: NodeId(from), incarnation, shard: ShardId(0) };
            let mut outbox = Outbox::default();
            let partition = &mut self.nodes.get_mut(&to).expect("a node").partition;
            partition.on_message(&context, sender, message, &mut outbox);
            partition.flush(&context, &mut outbox);
            self.collect(to, outbox);
        }
    }

    fn show(&mut self) {
        let context = self.context();
        for (id, node) in &self.nodes {
            let partition = &node.partition;
            if !partition.is_here() {
                continue;
            }
            let tail = partition.tail();
            let frozen = if node.frozen { " (down)" } else { "" };
            let _ = writeln!(
                self.out,
                "  node {id}: {:?} epoch {} log to {}/{} committed {} keys {}{frozen}",
                partition.standing(&context),
                partition.epoch(),
                tail.epoch,
                tail.lsn,
                partition.commit(),
                partition.table().len(),
            );
        }
    }
}

fn parse_link(text: &str) -> (u16, u16) {
    let (from, to) = text.split_once('-').expect("from-to");
    (from.parse().expect("a node"), to.parse().expect("a node"))
}

fn describe(message: &Message) -> String {
    match message {
        Message::Append(a) => {
            let records: Vec<String> =
                a.records.iter().map(|r| format!("{}/{}", r.position.epoch, r.position.lsn)).collect();
            let (prev, records) = (a.prev, records.join(" "));
            format!(
                "append epoch {} after {}/{} [{records}] commit {}",
                a.epoch, prev.epoch, prev.lsn, a.commit
            )
        }
        Message::Appended(a) => format!("appended epoch {} {:?}", a.epoch, a.outcome),
        Message::Chunk(c) => format!(
            "chunk epoch {} session {} number {}{}{}",
            c.epoch,
            c.session,
            c.index,
            c.joint_after().map_or(String::new(), |after| format!(" goes on after session {after}")),
            c.end.as_ref().map_or(String::new(), |end| format!(
                " end: base {}/{} complete at {}",
                end.base.epoch, end.base.lsn, end.complete_at
            ))
        ),
        Message::ChunkStored(c) => format!("chunk stored session {} next {}", c.session, c.next),
        Message::Forward(_) | Message::Forwarded(_) => "a request".to_owned(),
        Message::Committed(_) => "how far it is committed".to_owned(),
    }
}

fn play(name: &str) {
    let path = format!("{}/tests/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let script = std::fs::read_to_string(&path).expect("the script is there");
    let mut world = World::new();
    for line in script.lines() {
        if line.starts_with(' ') {
            continue;
        }
        let _ = writeln!(world.out, "{line}");
        if !line.is_empty() && !line.starts_with('#') {
            world.run(line);
        }
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &world.out).expect("the script can be written");
    } else if world.out != script {
        let differs = world.out.lines().zip(script.lines()).position(|(is, was)| is != was).unwrap_or(0);
        let is = world.out.lines().nth(differs).unwrap_or_default();
        panic!(
            "{name}, line {}:\n was: {}\n is:  {is}",
            differs + 1,
            script.lines().nth(differs).unwrap_or_default()
        );
    }
    // Whatever a script does, copies never disagree on what both call committed.
    let logs: Vec<_> = world.nodes.values().map(|node| (&node.partition, node.partition.commit())).collect();
    for (a, a_commit) in &logs {
        for (b, b_commit) in &logs {
            let both = (*a_commit).min(*b_commit);
            if let (Some(a), Some(b)) = (a.log().position_at(both), b.log().position_at(both)) {
                assert_eq!(a, b, "{name}");
            }
        }
    }
}

macro_rules! scripts {
    ($($name:ident),+ $(,)?) => { $(#[test] fn $name() { play(stringify!($name)); })+ };
}

scripts!(
    a_write,
    a_failover_keeps_the_tail,
    a_deposed_primary_returns,
    a_copy_is_filled,
    a_transfer_goes_on,
    a_transfer_begins_anew_beside_older_builds,
    three_copies_align,
    a_loss_is_accepted,
    lost_messages,
    a_request_comes_again,
    a_message_outruns_the_map,
    a_hand_over,
    a_hand_over_is_given_up,
    changes_are_followed,
    changes_are_followed_where_there_is_one_copy,
);
