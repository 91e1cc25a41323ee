//! A shard whose partitions are all copied by one other node, of which the test plays the part: what waits, and what is too large.

use crate::published::Published;
use crate::request::Request;
use crate::shard::{Answer, Shard, ShardConfig, Ticket};
use bytes::Bytes;
use command::{Door, Reply, Session};
use control::Identity;
use placement::{ClusterMap, Member, MemberState, PartitionState};
use replication::message::{Append, AppendOutcome, Appended, Forward, ForwardOutcome, Forwarded};
use replication::{Message, Sender};
use std::sync::Arc;
use std::time::Duration;
use storage::lent::HUGE_BYTES;
use storage::{Effect, Lent, Record, Rope, Value};
use types::limits::VALUE_BYTES_MAX;
use types::settings::{LogMode, Settings};
use types::shared_settings::SharedSettings;
use types::{
    Epoch, Incarnation, Instant, Level, Lsn, NodeId, PartitionId, Position, RequestId, ShardId, Version,
};

const KB: usize = 1000;
const PARTITIONS: u16 = 4;

struct Test {
    shard: Shard,
    sessions: Vec<Session>,
    now: Instant,
    sequence: u64,
}

impl Test {
    /// All partitions have the same primary, and both nodes as copies in sync.
    fn new(primary: u16) -> Test {
        Test::with(primary, LogMode::Off)
    }

    fn with(primary: u16, log: LogMode) -> Test {
        let mut settings = Settings { log, partitions: PARTITIONS, ..Settings::default() };
        for (name, value) in [("uncommitted_bytes_max", "4mb"), ("forward_ahead_bytes", "1mb")] {
            settings.set(name, value).unwrap();
        }
        let settings = Arc::new(settings);
        let published = Arc::new(Published::new(1));
        published.set_lease_until(Instant(u64::MAX));
        published.set_clock_offset_ms(1_700_000_000_000);
        let identity = Identity { node: NodeId(1), incarnation: Incarnation(1), directory: 1 };
        let mut shard = Shard::new(ShardConfig {
            chunk_bytes: replication::CHUNK_BYTES,
            settings: SharedSettings::new(settings.clone()).reader(),
            identity,
            shard: ShardId(0),
            shards: 1,
            hash_seed: 7,
            published,
        });
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
            primary: Some(NodeId(primary)),
            in_sync: both,
            copies: both,
            ..PartitionState::default()
        };
        let map = ClusterMap {
            version: 1,
            copies: 2,
            min_in_sync: 1,
            members: vec![member(1), member(2)],
            partitions: vec![state; usize::from(PARTITIONS)],
            ..ClusterMap::default()
        };
        let now = Instant(1_000_000_000);
        shard.map(now, Arc::new(map));
        let sessions = (0..10).map(|id| Session::new(id, Door::Plain, &settings)).collect();
        let mut test = Test { shard, sessions, now, sequence: 0 };
        test.tick(5);
        test.write_log();
        test.confirm_all();
        test
    }

    /// Its log on disk has all that was ordered.
    fn write_log(&mut self) {
        let mut last = None;
        self.shard.take_log(&mut Rope::default(), |turn, bytes| {
            bytes.clear();
            last = Some(turn);
        });
        if let Some(turn) = last {
            self.shard.logged(self.now, turn, turn);
        }
        self.shard.flush(self.now);
    }

    fn tick(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
        self.shard.tick(self.now);
        self.shard.flush(self.now);
    }

    fn ask(&mut self, connection: u64, args: &[&[u8]]) -> Answer {
        self.sequence += 1;
        let ticket = Ticket { connection, sequence: self.sequence };
        let session = &mut self.sessions[connection as usize];
        let request = Request { args, preview: self.shard.preview(args), lent: None };
        let answer = self.shard.request(self.now, ticket, session, &request, &mut |_| {});
        self.shard.flush(self.now);
        answer
    }

    fn set(&mut self, connection: u64, key: &str, bytes: usize) -> Answer {
        self.ask(connection, &[b"SET", key.as_bytes(), &vec![b'v'; bytes]])
    }

    fn sender() -> Sender {
        Sender { node: NodeId(2), incarnation: Incarnation(1), shard: ShardId(0) }
    }

    /// The other node confirms all that it has been sent.
    fn confirm_all(&mut self) {
        let sent = std::mem::take(&mut self.shard.effects().messages);
        for (_, _, message) in sent {
            let Message::Append(append) = message else { continue };
            let held = append.records.last().map_or(append.prev.lsn, |record| record.position.lsn);
            let outcome = AppendOutcome::Held(held.max(Lsn(1)));
            let appended = Appended { partition: append.partition, epoch: append.epoch, outcome };
            self.shard.message(self.now, Test::sender(), Message::Appended(appended));
        }
        self.shard.flush(self.now);
    }

    /// The connections that have been answered since the last call, and whether with an error.
    fn answered(&mut self) -> Vec<(u64, bool)> {
        let replies = std::mem::take(&mut self.shard.effects().replies);
        replies
            .into_iter()
            .map(|(ticket, reply)| (ticket.connection, matches!(reply, Reply::Error(_))))
            .collect()
    }

    /// The other node answers a request that was passed on.
    fn reply(&mut self, id: RequestId) {
        let outcome = ForwardOutcome::Reply { reply: b"+OK".to_vec().into(), written: None };
        let forwarded = Forwarded { id, primary_since: Epoch(1), outcome };
        self.shard.message(self.now, Test::sender(), Message::Forwarded(forwarded));
    }

    fn forwards(&mut self) -> Vec<(RequestId, PartitionId)> {
        let sent = std::mem::take(&mut self.shard.effects().messages);
        let forward = |message| match message {
            Message::Forward(forward) => Some((forward.id, forward.partition)),
            _ => None,
        };
        sent.into_iter().filter_map(|(_, _, message)| forward(message)).collect()
    }
}

#[test]
fn a_crowded_partition_holds_up_whoever_writes_to_it_and_nobody_else() {
    let mut test = Test::new(1);
    assert_eq!(test.set(1, "{a}1", 1100 * KB), Answer::Later);
    // A quarter of the bound is under way: its connection runs nothing more, and is not read from.
    assert_eq!(test.set(1, "{a}2", 10), Answer::Alone);
    assert_eq!(test.set(2, "{a}3", 10), Answer::Alone);
    // Reads go on, and so does another partition.
    assert_eq!(test.ask(3, &[b"GET", b"{a}0"]), Answer::Now);
    assert_eq!(test.set(4, "{b}1", 10), Answer::Later);
    assert_eq!(test.shard.crowd.count, 2);
    assert_eq!(test.answered(), []);
    test.confirm_all();
    assert_eq!(test.answered(), [(1, false), (4, false)]);
    assert_eq!(test.shard.crowd.count, 0);
    // They were ordered, and wait for the copy like every write.
    test.confirm_all();
    assert_eq!(test.answered(), [(1, false), (2, false)]);
}

#[test]
fn what_waits_too_long_is_refused_and_what_nobody_waits_for_is_dropped() {
    let mut test = Test::new(1);
    test.set(1, "{a}1", 1100 * KB);
    assert_eq!(test.set(2, "{a}2", 10), Answer::Alone);
    assert_eq!(test.set(3, "{a}3", 10), Answer::Alone);
    test.shard.closed(3);
    assert_eq!(test.shard.crowd.count, 1);
    test.tick(5001);
    assert!(test.answered().contains(&(2, true)));
    assert_eq!(test.shard.crowd.count, 0);
    test.shard.effects().messages.clear();
    test.tick(400);
    test.confirm_all();
    for key in ["{a}2", "{a}3"] {
        assert_eq!(test.ask(4, &[b"EXISTS", key.as_bytes()]), Answer::Now);
        let id = types::partition_of_key(key.as_bytes(), PARTITIONS);
        let partition = test.shard.partitions.get(id).unwrap();
        assert_eq!(partition.table().len(), 1, "only the first was ever written");
    }
}

#[test]
fn requests_that_their_connection_does_not_wait_for_keep_their_order() {
    let mut test = Test::new(1);
    test.set(1, "{a}1", 1100 * KB);
    // Over two partitions: the part of the crowded one is loose, so the connection waits for the whole.
    assert_eq!(test.ask(2, &[b"MSET", b"{a}1", b"new", b"{b}1", b"new"]), Answer::Alone);
    // Of a passed-on write nobody knows which connection's it was: a read behind it waits, too.
    let forward = |test: &mut Test, sequence, args: &[&[u8]]| {
        let id = RequestId { node: NodeId(2), incarnation: Incarnation(1), shard: ShardId(0), sequence };
        let forward = replication::message::Forward {
            id,
            partition: types::partition_of_key(args[1], PARTITIONS),
            primary_since: Epoch(1),
            write_level: Default::default(),
            read_level: Default::default(),
            args: args.iter().map(|arg| bytes::Bytes::copy_from_slice(arg)).collect(),
        };
        test.shard.message(test.now, Test::sender(), Message::Forward(forward));
    };
    forward(&mut test, 1, &[b"SET", b"{a}2", b"passed on"]);
    forward(&mut test, 2, &[b"GET", b"{a}2"]);
    // Sent again, it still is one.
    forward(&mut test, 1, &[b"SET", b"{a}2", b"passed on"]);
    assert_eq!(test.shard.crowd.count, 3);
    let told = |test: &mut Test| -> Vec<u64> {
        let mut told = Vec::new();
        for (_, _, message) in &test.shard.effects().messages {
            if let Message::Forwarded(Forwarded { id, outcome: ForwardOutcome::Reply { .. }, .. }) = message {
                told.push(id.sequence);
            }
        }
        told
    };
    assert_eq!(told(&mut test), []);
    test.confirm_all();
    test.confirm_all();
    assert_eq!(told(&mut test), [1, 2]);
    assert!(test.answered().contains(&(2, false)));
}

#[test]
fn requests_that_are_passed_on_are_bounded_by_their_bytes() {
    let mut test = Test::new(2);
    for at in 0..6 {
        assert_eq!(test.set(at, &format!("{{a}}{at}"), 300 * KB), Answer::Later);
    }
    let sent = test.forwards();
    assert_eq!(sent.len(), 3, "a fourth would be more than a MiB");
    // A small one of another partition still has room.
    test.set(7, "{b}1", 10);
    assert_eq!(test.forwards().len(), 1);
    test.reply(sent[0].0);
    test.reply(sent[1].0);
    test.tick(11);
    let more = test.forwards();
    assert_eq!(more.len(), 2, "room for two more, in order");
    assert!(sent[2].0.sequence < more[0].0.sequence && more[0].0.sequence < more[1].0.sequence);
    for (id, _) in [sent[2], more[0], more[1]] {
        test.reply(id);
    }
    test.tick(11);
    let last = test.forwards();
    assert_eq!(last.len(), 1);
    test.reply(last[0].0);
    let small = test.shard.forwards_ahead.values().sum::<usize>();
    assert!(small < KB, "only the small one is not answered: {small}");
}

#[test]
fn nothing_overtakes_a_huge_request_that_is_passed_on() {
    let mut test = Test::new(2);
    test.set(0, "{a}1", HUGE_BYTES + 1);
    let huge = test.forwards();
    assert_eq!(huge.len(), 1);
    test.set(1, "{a}2", 10);
    test.set(2, "{b}1", 10);
    let sent = test.forwards();
    assert!(sent.len() == 1 && sent[0].1 != huge[0].1, "what goes to another partition has room beside it");
    test.tick(11);
    assert_eq!(test.forwards(), []);
    test.reply(huge[0].0);
    let behind = test.forwards();
    assert!(behind.len() == 1 && behind[0].1 == huge[0].1);
}

impl Test {
    /// A request whose values are shared, not copied, and what is answered at once.
    fn ask_sharing(&mut self, connection: u64, args: &[Bytes]) -> (Answer, String) {
        self.sequence += 1;
        let ticket = Ticket { connection, sequence: self.sequence };
        let session = &mut self.sessions[connection as usize];
        let words: Vec<&[u8]> = args.iter().map(|arg| &arg[..]).collect();
        let lent = Lent::Args(args);
        let request = Request { args: &words, preview: self.shard.preview(&words), lent: Some(&lent) };
        let mut said = String::new();
        let mut sink = |reply: &Reply<'_>| {
            said = match reply {
                Reply::Error(error) => error.to_string(),
                Reply::Integer(number) => number.to_string(),
                _ => "something".into(),
            }
        };
        let answer = self.shard.request(self.now, ticket, session, &request, &mut sink);
        self.shard.flush(self.now);
        (answer, said)
    }
}

fn words<const N: usize>(words: [&str; N]) -> Vec<Bytes> {
    words.into_iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}

#[test]
fn the_largest_value_is_ordered_and_what_no_frame_holds_is_not() {
    // Never written to, so that it takes no memory.
    let zeros = Bytes::from(vec![0; VALUE_BYTES_MAX]);
    let mut test = Test::new(1);
    let large = [words(["SET", "{a}1"]), vec![zeros.clone()]].concat();
    assert_eq!(test.ask_sharing(1, &large).0, Answer::Later);
    let sent = std::mem::take(&mut test.shard.effects().messages);
    let is_largest = |message: &Message| matches!(message, Message::Append(append) if append.records[0].body.len() > VALUE_BYTES_MAX);
    assert!(sent.iter().any(|(_, _, message)| is_largest(message)), "the copy is sent it");
    // What two values of one partition come to is known once they are put.
    let half = zeros.slice(..257 << 20);
    let pair =
        [words(["MSET", "{b}old"]), vec![half.clone()], words(["{b}new"]), vec![half.clone()]].concat();
    assert_eq!(test.ask_sharing(2, &words(["SET", "{b}old", "before"])).0, Answer::Later);
    test.confirm_all();
    let (answer, said) = test.ask_sharing(2, &pair);
    assert_eq!(answer, Answer::Now);
    assert!(said.starts_with("ERR a request changes "), "{said}");
    assert_eq!(test.shard.effects().messages.len(), 0, "nothing was ordered");
    // It left no trace.
    assert_eq!(test.ask_sharing(3, &words(["EXISTS", "{b}new"])), (Answer::Now, "0".into()));
    assert_eq!(test.ask_sharing(3, &words(["STRLEN", "{b}old"])), (Answer::Now, "6".into()));
    assert_eq!(test.ask_sharing(3, &words(["SET", "{b}new", "after"])).0, Answer::Later);
    test.confirm_all();
    assert_eq!(test.ask_sharing(3, &words(["STRLEN", "{b}new"])), (Answer::Now, "5".into()));
}

#[test]
fn what_no_frame_holds_is_not_passed_on() {
    let half = Bytes::from(vec![0; 257 << 20]);
    let mut test = Test::new(2);
    let pair = [words(["MSET", "{b}1"]), vec![half.clone()], words(["{b}2"]), vec![half.clone()]].concat();
    assert_eq!(test.ask_sharing(2, &pair).0, Answer::Later);
    assert_eq!(test.forwards(), []);
    assert_eq!(test.answered(), [(2, true)]);
    assert!(test.shard.lanes.is_empty() && test.shard.forwards.is_empty());
    let one = [words(["SET", "{b}1"]), vec![half]].concat();
    assert_eq!(test.ask_sharing(2, &one).0, Answer::Later);
    assert_eq!(test.forwards().len(), 1);
}

#[test]
fn a_reply_that_no_frame_holds_is_an_error() {
    let half = Bytes::from(vec![0; 257 << 20]);
    let mut test = Test::new(1);
    for key in ["{a}1", "{a}2"] {
        let set = [words(["SET", key]), vec![half.clone()]].concat();
        test.ask_sharing(1, &set);
        test.confirm_all();
    }
    let id = RequestId { node: NodeId(2), incarnation: Incarnation(1), shard: ShardId(0), sequence: 1 };
    let forward = Forward {
        id,
        partition: types::partition_of_key(b"{a}1", PARTITIONS),
        primary_since: Epoch(1),
        write_level: Default::default(),
        read_level: Default::default(),
        args: words(["MGET", "{a}1", "{a}2"]),
    };
    test.shard.message(test.now, Test::sender(), Message::Forward(forward));
    let sent = std::mem::take(&mut test.shard.effects().messages);
    let [(_, _, Message::Forwarded(Forwarded { outcome: ForwardOutcome::Reply { reply, .. }, .. }))] =
        &sent[..]
    else {
        panic!("no reply")
    };
    assert!(
        matches!(Reply::decode_neutral(reply), Ok(Reply::Error(error)) if error.to_string().contains("a reply of more than"))
    );
}

#[test]
fn a_large_write_that_the_disk_has_no_room_for_is_refused_and_others_go_on() {
    const MIB: usize = 1 << 20;
    let mut test = Test::with(1, LogMode::On);
    let published = test.shard.config.published.clone();
    let room =
        |reserved: usize, disk: usize| published.set_log_room(ShardId(0), reserved as u64, disk as u64);
    let zeros = Bytes::from(vec![0; 20 * MIB]);
    let set = |test: &mut Test, key: &str, mib: usize| {
        test.ask_sharing(1, &[words(["SET", key]), vec![zeros.slice(..mib * MIB)]].concat())
    };
    let later = (Answer::Later, String::new());
    room(3 * MIB, 10 * MIB);
    assert_eq!(test.ask_sharing(1, &words(["SET", "{a}0", "small"])), later);
    let (answer, said) = set(&mut test, "{a}1", 20);
    assert!(answer == Answer::Now && said.starts_with("MISCONF "), "{said}");
    // It was not ordered, and what needs no room or little of it goes on.
    assert_eq!(test.ask_sharing(2, &words(["DEL", "{a}0"])), later);
    assert_eq!(set(&mut test, "{b}1", 6), later);
    // What is on its way counts.
    let (answer, said) = set(&mut test, "{c}1", 6);
    assert!(answer == Answer::Now && said.starts_with("MISCONF "), "{said}");
    assert_eq!(test.ask_sharing(3, &words(["SET", "{c}2", "small"])), later);
    test.write_log();
    test.confirm_all();
    assert_eq!(test.answered(), [(1, false), (2, false), (1, false), (3, false)]);
    // It is written, and the disk has been looked at since. The current file holds a little more than the disk.
    room(3 * MIB, MIB);
    assert!(set(&mut test, "{c}1", 6).1.starts_with("MISCONF "));
    assert_eq!(set(&mut test, "{c}1", 2), later);
    assert!(set(&mut test, "{d}1", 2).1.starts_with("MISCONF "));
    // Nobody knows: then nothing is refused.
    published.set_log_room(ShardId(0), 0, u64::MAX);
    assert_eq!(set(&mut test, "{d}1", 20), later);
    test.write_log();
    test.confirm_all();
    for (key, length) in [("{a}0", "0"), ("{a}1", "0"), ("{b}1", "6291456"), ("{d}1", "20971520")] {
        assert_eq!(test.ask_sharing(4, &words(["STRLEN", key])), (Answer::Now, length.into()), "{key}");
    }
}

/// As if it were lost: the copy leaves the in-sync set, and the others of the shard go on.
#[test]
fn a_backup_takes_no_large_record_that_its_disk_has_no_room_for() {
    let mut test = Test::with(2, LogMode::On);
    let published = test.shard.config.published.clone();
    let send = |test: &mut Test, key: &str, bytes: usize| {
        let mut body = Vec::new();
        let (key_bytes, value) = (key.as_bytes(), vec![7; bytes]);
        let put = Effect::Put {
            key: key_bytes,
            value: Value::String(&value),
            expire_at_ms: None,
            version: Version(1),
        };
        put.encode(&mut body);
        let position = Position { epoch: Epoch(1), lsn: Lsn(1) };
        let record = Record { position, prev_epoch: Epoch(0), time_ms: 1, request: None, body: body.into() };
        let partition = types::partition_of_key(key.as_bytes(), PARTITIONS);
        let append = Append {
            partition,
            epoch: Epoch(1),
            primary_since: Epoch(1),
            prev: Position::default(),
            commit: Lsn(0),
            records: vec![record],
        };
        test.shard.message(test.now, Test::sender(), Message::Append(append));
        test.shard.partitions.get(partition).map(|partition| partition.tail().lsn)
    };
    published.set_log_room(ShardId(0), 0, 1 << 20);
    assert_eq!(send(&mut test, "{a}1", 2 << 20), Some(Lsn(0)));
    assert_eq!(send(&mut test, "{b}1", 1000), Some(Lsn(1)));
    published.set_log_room(ShardId(0), 0, 4 << 20);
    assert_eq!(send(&mut test, "{a}1", 2 << 20), Some(Lsn(1)));
}
