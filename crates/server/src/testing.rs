//! What tests share: a directory that goes away, and nodes whose machines are stand-ins.

use crate::directory::Directory;
use crate::machine::{
    Answer, ControlMachine, DriverEffects, Effects, HeartEffects, HeartInput, HeartMachine, HeartNotice,
    Preview, Request, ShardMachine, Ticket,
};
use crate::proof::Secret;
use crate::start::{Machines, Prepared, Running, start};
use crate::stats::ShardStats;
use command::{Blob, CommandError, Door, Pause, Reply, Session};
use control::message::{Beat, Change, Identity};
use placement::ClusterMap;
use replication::message::{ForwardOutcome, Forwarded, Message, Sender};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use types::settings::Settings;
use types::shared_settings::SharedSettings;
use types::{Incarnation, Instant, NodeId, PartitionId, Position, RequestId, ShardId};

/// A directory that goes when it is dropped.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        let name: [u8; 8] = crate::proof::random().unwrap();
        let path = std::env::temp_dir().join(format!("annulet-{:x}", u64::from_le_bytes(name)));
        std::fs::create_dir(&path).unwrap();
        TempDir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a stand-in machine was told.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Shard(Sender, Message),
    Lost(NodeId),
    Beat(Identity, Beat),
    Control(Identity, control::message::Message),
    Closed,
}

/// A shard that answers some words, at once or later.
pub struct FakeShard {
    pub told: mpsc::Sender<Told>,
    pub ran: Arc<AtomicUsize>,
    /// What `HOLD` waits for.
    pub release: mpsc::Sender<()>,
    released: mpsc::Receiver<()>,
    effects: Effects,
    later: Vec<(usize, Ticket, Reply<'static>)>,
    turn: usize,
}

impl FakeShard {
    pub fn new(told: mpsc::Sender<Told>) -> FakeShard {
        let (release, released) = mpsc::channel();
        FakeShard {
            told,
            ran: Arc::default(),
            release,
            released,
            effects: Effects::default(),
            later: Vec::new(),
            turn: 0,
        }
    }
}

pub fn forwarded(sequence: u64, bytes: usize) -> Message {
    Message::Forwarded(Forwarded {
        id: RequestId { node: NodeId(1), incarnation: Incarnation(1), shard: ShardId(0), sequence },
        primary_since: types::Epoch(1),
        outcome: ForwardOutcome::Reply { reply: vec![b'r'; bytes].into(), written: None },
    })
}

impl ShardMachine for FakeShard {
    fn request(
        &mut self,
        _: Instant,
        ticket: Ticket,
        session: &mut Session,
        request: &Request<'_>,
        sink: &mut dyn FnMut(&Reply<'_>),
    ) -> Answer {
        self.ran.fetch_add(1, Ordering::SeqCst);
        let args = request.args;
        let number =
            |at: usize| args.get(at).and_then(|arg| std::str::from_utf8(arg).ok()?.parse::<usize>().ok());
        match args[0] {
            b"ECHO" => sink(&Reply::Bulk(match request.lent.and_then(|lent| lent.share(args[1])) {
                Some(shared) => Blob::Shared(shared),
                None => args[1].into(),
            })),
            // Whether its argument need not be copied to be kept.
            b"LENT" => sink(&Reply::flag(request.lent.and_then(|lent| lent.share(args[1])).is_some())),
            b"BIG" => sink(&Reply::bulk(vec![b'x'; number(1).unwrap()])),
            b"LATER" => {
                self.later.push((self.turn + number(1).unwrap(), ticket, Reply::bulk(args[2])));
                return Answer::Later;
            }
            // LIST turns items: a reply of so many items, after so many turns.
            b"LIST" => {
                let mut list = command::List::default();
                (0..number(2).unwrap()).for_each(|item| list.push(item.to_string().as_bytes()));
                self.later.push((self.turn + number(1).unwrap(), ticket, Reply::List(list)));
                return Answer::Alone;
            }
            b"NEVER" => return Answer::Later,
            // The shard stands still until the test lets it go on, or has failed.
            b"HOLD" => {
                let _ = self.released.recv_timeout(std::time::Duration::from_secs(30));
                sink(&Reply::ok());
            }
            b"HELLO" => {
                session.protocol = 3;
                sink(&Reply::Map(Vec::new()));
            }
            b"QUIT" => {
                session.close_after_reply = true;
                sink(&Reply::ok());
            }
            // TELL node shard sequence bytes
            b"TELL" => {
                let to = (NodeId(number(1).unwrap() as u16), ShardId(number(2).unwrap() as u16));
                self.effects.messages.push((
                    to.0,
                    to.1,
                    forwarded(number(3).unwrap() as u64, number(4).unwrap()),
                ));
                sink(&Reply::ok());
            }
            _ => sink(&Reply::Null),
        }
        Answer::Now
    }

    fn preview(&self, _: &[&[u8]]) -> Preview {
        Preview::default()
    }
    fn retire(&mut self, _: Instant) {}
    fn part(&mut self) {}
    fn take_log(&mut self, _: &mut storage::Rope, _: impl FnMut(u64, &mut storage::Rope)) {}
    fn logged(&mut self, _: Instant, _: u64, _: u64) {}
    fn snapshot_piece_written(&mut self) {}
    fn snapshot_done(&mut self, _: types::PartitionId, _: bool) {}
    fn prefetch<'r>(&self, _: impl Iterator<Item = &'r Preview> + Clone) {}

    fn pause(&self, _: Instant) -> Pause {
        Pause::Off
    }

    fn closed(&mut self, _: u64) {
        let _ = self.told.send(Told::Closed);
    }

    fn message(&mut self, _: Instant, from: Sender, message: Message) {
        let _ = self.told.send(Told::Shard(from, message));
    }

    fn map(&mut self, _: Instant, _: Arc<ClusterMap>) {}

    fn link_lost(&mut self, _: Instant, node: NodeId) {
        let _ = self.told.send(Told::Lost(node));
    }

    fn tails(&mut self, _: &[PartitionId]) -> Vec<(PartitionId, Position)> {
        Vec::new()
    }

    fn tick(&mut self, _: Instant) {}

    fn work(&mut self, _: Instant) -> bool {
        false
    }

    fn flush(&mut self, _: Instant) {
        self.turn += 1;
        let turn = self.turn;
        for (_, ticket, reply) in self.later.extract_if(.., |(due, ..)| *due <= turn) {
            self.effects.replies.push((ticket, reply));
        }
    }

    fn effects(&mut self) -> &mut Effects {
        &mut self.effects
    }

    fn refresh_settings(&mut self) {}

    fn command_at_hand(&mut self) -> usize {
        0
    }
    fn answered(&mut self, _: usize, _: u64, _: u64, _: Option<&CommandError>) {}
    fn refused(&mut self, _: &CommandError) {}
    fn slow_ns(&self) -> u64 {
        u64::MAX
    }
    fn slow(&mut self, _: &Session, _: &[&[u8]], _: u64) {}
}

/// A heart that asks node 1 for a lease at its first tick, and tells of what it hears.
pub struct FakeHeart {
    told: mpsc::Sender<Told>,
    effects: HeartEffects,
    beats: u64,
    to: Option<NodeId>,
}

impl HeartMachine for FakeHeart {
    fn tick(&mut self, _: Instant, _: u64) {
        if let Some(to) = self.to {
            self.beats += 1;
            let beat = Beat::Heartbeat { sent_at: self.beats, stalled: false, keys: 0 };
            self.effects.beats.push((to, beat));
        }
    }

    fn beat(&mut self, _: Instant, _: u64, from: Identity, beat: Beat) {
        let _ = self.told.send(Told::Beat(from, beat));
    }

    fn input(&mut self, _: Instant, _: HeartInput) {}

    fn effects(&mut self) -> &mut HeartEffects {
        &mut self.effects
    }
}

/// A control plane that greets a node once.
pub struct FakeControl {
    told: mpsc::Sender<Told>,
    effects: DriverEffects,
}

impl ControlMachine for FakeControl {
    fn step_down(&mut self, _: Instant) {}
    fn leave(&mut self, _: Instant) {}

    fn tick(&mut self, _: Instant) {}

    fn message(&mut self, _: Instant, from: Identity, message: control::message::Message) {
        let _ = self.told.send(Told::Control(from, message));
    }

    fn notice(&mut self, _: Instant, _: HeartNotice) {}

    fn changes(&mut self, _: Instant, _: Vec<Change>) {}

    fn accept_loss(&mut self, _: Instant) {}

    fn order(&mut self, _: Instant, _: control::Order) {}

    fn tails(&mut self, _: Instant, _: NodeId, _: u64, _: Vec<(PartitionId, Position)>) {}

    fn effects(&mut self) -> &mut DriverEffects {
        &mut self.effects
    }
}

/// A node of stand-ins.
pub struct FakeNode {
    pub running: Option<Running>,
    pub port: SocketAddr,
    pub told: Mutex<mpsc::Receiver<Told>>,
    pub ran: Arc<AtomicUsize>,
    pub release: mpsc::Sender<()>,
    _dir: TempDir,
}

/// How to make a [`FakeNode`].
pub struct FakeConfig {
    pub id: u16,
    pub incarnation: u64,
    pub secret: Secret,
    pub peers: TcpListener,
    /// The `nodes` setting.
    pub nodes: String,
    pub heart_to: Option<u16>,
    pub maxclients: u32,
    pub io_driver: String,
}

/// A port of this machine.
pub fn port() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

/// The `nodes` setting for these ports.
pub fn nodes(peers: &[&TcpListener]) -> String {
    let parts =
        peers.iter().enumerate().map(|(at, peer)| format!("{}={}", at + 1, peer.local_addr().unwrap()));
    parts.collect::<Vec<_>>().join(",")
}

impl FakeNode {
    /// One node without others, with this `io_driver`.
    pub fn alone_with(driver: &str) -> FakeNode {
        let peers = port();
        let nodes = nodes(&[&peers]);
        let secret = Secret::draw().unwrap();
        FakeNode::start(FakeConfig {
            id: 1,
            incarnation: 1,
            secret,
            peers,
            nodes,
            heart_to: None,
            maxclients: 3,
            io_driver: driver.into(),
        })
    }

    pub fn start(config: FakeConfig) -> FakeNode {
        let mut settings = Settings::default();
        settings.set("node_id", &config.id.to_string()).unwrap();
        settings.set("nodes", &config.nodes).unwrap();
        settings.set("maxclients", &config.maxclients.to_string()).unwrap();
        settings.set("io_driver", &config.io_driver).unwrap();
        let dir = TempDir::new();
        let clients = port();
        let port = clients.local_addr().unwrap();
        let settings = Arc::new(settings);
        let published = Arc::new(node::Published::new(1));
        let prepared = Prepared {
            data: None,
            shared: SharedSettings::new(settings.clone()),
            settings,
            directory: Directory::open(dir.path()).unwrap(),
            secret: config.secret,
            shards: 1,
            clients: vec![(clients, Door::Plain)],
            peers: config.peers,
            client_count: Arc::default(),
            http: None,
            line: None,
            membership: None,
        };
        let identity = Identity {
            node: NodeId(config.id),
            incarnation: Incarnation(config.incarnation),
            directory: u64::from(config.id) * 100,
        };
        let (tell, told) = mpsc::channel();
        let shard = FakeShard::new(tell.clone());
        let (ran, release) = (shard.ran.clone(), shard.release.clone());
        let to = config.heart_to.map(NodeId);
        let machines = Machines {
            logs: Vec::new(),
            shards: vec![(shard, ShardStats::new(published.clone(), ShardId(0)))],
            heart: FakeHeart { told: tell.clone(), effects: HeartEffects::default(), beats: 0, to },
            control: FakeControl { told: tell, effects: DriverEffects::default() },
            published,
            figures: Arc::new(node::ServerFigures::default),
        };
        let running = start(prepared, identity, machines).unwrap();
        FakeNode { running: Some(running), port, told: Mutex::new(told), ran, release, _dir: dir }
    }

    /// The next that `wanted` takes; others are passed over. Fails after ten seconds.
    pub fn wait_for<T>(&self, mut wanted: impl FnMut(Told) -> Option<T>) -> T {
        let told = self.told.lock().unwrap();
        loop {
            let next =
                told.recv_timeout(std::time::Duration::from_secs(10)).expect("told within ten seconds");
            if let Some(found) = wanted(next) {
                return found;
            }
        }
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop(false);
        }
    }
}

/// Each of these is a test with either driver. Where the system has no io_uring, epoll serves both times.
macro_rules! with_both_drivers {
    ($($test:ident,)*) => {
        mod epoll {
            $(#[test] fn $test() { super::$test("epoll"); })*
        }
        mod io_uring {
            $(#[test] fn $test() { super::$test("io_uring"); })*
        }
    };
}
pub(crate) use with_both_drivers;
