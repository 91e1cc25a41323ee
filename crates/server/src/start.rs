//! Starting a node: what can fail does so here, with words on what to do, before a thread runs. Stopping it is [`crate::stop`].

use crate::address_book::AddressBook;
use crate::agreement;
use crate::budget::Budget;
use crate::buffers::ClientBuffers;
use crate::client_ports::{ClientCount, ClientPorts, ClientPortsStop, listen};
use crate::cluster_view::ClusterView;
use crate::control_loop::ControlLoop;
use crate::data::{self, DataFile};
use crate::desk::Desk;
use crate::directory::Directory;
use crate::disk::RealDisk;
use crate::doors::Doors;
use crate::heart_loop::HeartLoop;
use crate::http::{self, HttpState};
use crate::join_progress::JoinProgress;
use crate::line::{self, LineState};
use crate::link::Links;
use crate::log_thread::{self, LogFeed, LogParts};
use crate::machine::{ControlMachine, HeartMachine, ShardMachine};
use crate::mailbox::{Mailbox, mailbox};
use crate::membership::{self, MembershipFile};
use crate::peers::{self, Dialer, Membership};
use crate::proof::Secret;
use crate::sampler::Sampler;
use crate::shard_loop::{ShardLoop, ShardParts, WAKER};
use crate::snapshot_thread::{self, SnapshotPlace};
use crate::stats::ShardStats;
use crate::threads::{Mail, Threads};
use crate::work;
use command::Door;
use control::message::Identity;
use mio::{Poll, Waker};
use node::recover::{LogBegin, shard_directory};
use node::{Published, ServerFigures};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use storage::ShardLog;
use thiserror::Error;
use tracing::{info, warn};
use types::settings::{LogMode, SettingError, Settings};
use types::shared_settings::{SettingsReader, SharedSettings};
use types::{Endpoint, ShardId};

/// Files that a node needs besides its clients' connections: links, ports, the directory, the runtime.
const FILES_RESERVED: u64 = 1024;

/// Why a node did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A setting, or two that do not fit together.
    #[error("{0}")]
    Setting(#[from] SettingError),
    /// The data directory cannot be used.
    #[error("cannot use {path}: {source}. Set `dir` to a directory that this user may write")]
    Directory {
        /// The directory, or the file in it.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process uses the data directory.
    #[error("another process uses the data directory {path}: stop it, or give this node its own `dir`")]
    DirectoryInUse {
        /// The directory.
        path: PathBuf,
    },
    /// Several nodes are listed, and this one has no join secret.
    #[error(
        "{path} is missing: copy `join.secret` from another node's data directory, so that the nodes know each \
         other, or let `annulet up` make a local cluster"
    )]
    SecretMissing {
        /// Where it is looked for.
        path: PathBuf,
    },
    /// The join secret's file holds something else.
    #[error("{path} does not hold 64 hex digits: copy `join.secret` from another node's data directory")]
    SecretMalformed {
        /// The file.
        path: PathBuf,
    },
    /// A port cannot be opened.
    #[error("cannot listen on {host}:{port}: {source}. Stop what uses it, or change `{setting}` (or `bind`)")]
    Port {
        /// The setting that names it.
        setting: &'static str,
        /// The address.
        host: String,
        /// The port.
        port: u16,
        /// What the system says.
        source: io::Error,
    },
    /// The node to join by does not let this one in, or cannot.
    #[error(
        "cannot join by {address}: {why}. (`join` takes the peer address of a running node of the cluster)"
    )]
    Join {
        /// The address.
        address: String,
        /// What went wrong.
        why: String,
    },
    /// Another node has another value of what is the whole cluster's.
    #[error("{0}")]
    Disagreement(String),
    /// The data directory's own file cannot be used.
    #[error("{path}: {why}", path = path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A shard's log cannot be opened.
    #[error("cannot open the log of shard {shard}: {why}")]
    Log {
        /// The shard.
        shard: ShardId,
        /// What is wrong with it, and where.
        why: String,
    },
    /// The logs were written with another number of shards.
    #[error("the logs in {path} were written with {found} shards, and `shards` is {wanted}: set `shards = {found}`, or 0", path = path.display())]
    Shards {
        /// The data directory.
        path: PathBuf,
        /// How many it has.
        found: u16,
        /// How many are asked for.
        wanted: u16,
    },
    /// There is a log on disk, and the settings say that there is none.
    #[error("{path} holds logs on disk, and `log = off` would forget them: start with `log = on`, or give this node another `dir`", path = path.display())]
    LogThere {
        /// The data directory.
        path: PathBuf,
    },
    /// The control plane's file cannot be read.
    #[error("cannot read this node's control file: {why}")]
    Control {
        /// What is wrong with it, and where.
        why: String,
    },
    /// The system refuses something that every node needs.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::System { what, source }
}

/// A node that has what it needs from the system, and runs nothing yet.
pub struct Prepared {
    /// The settings, checked; `shards` and `maxclients` are what they came to.
    pub settings: Arc<Settings>,
    /// The data directory, held.
    pub directory: Directory,
    /// What it says of itself, where logs are on disk.
    pub data: Option<DataFile>,
    /// What proves membership.
    pub secret: Secret,
    /// How many shards.
    pub shards: u16,
    /// How many clients there are, of how many that may be.
    pub client_count: Arc<ClientCount>,
    pub(crate) clients: Vec<(TcpListener, Door)>,
    pub(crate) peers: TcpListener,
    pub(crate) http: Option<TcpListener>,
    pub(crate) line: Option<TcpListener>,
    /// What a node that joined has been told.
    pub(crate) membership: Option<MembershipFile>,
    /// The settings as they stand while the node runs.
    pub shared: Arc<SharedSettings>,
}

/// Checks the settings, takes the data directory, and opens the ports.
pub fn prepare(mut settings: Settings) -> Result<Prepared, StartError> {
    settings.check()?;
    let directory = Directory::open(&settings.directory())?;
    let joins = !settings.join.as_str().is_empty() || membership::has_joined(directory.path());
    let alone = settings.listed_nodes()?.len() == 1 && !joins;
    let secret = directory.join_secret(alone)?;
    let membership = membership::complete(&mut settings, directory.path(), &secret)?;
    let data = match settings.log {
        LogMode::On => Some(DataFile::open(directory.path())?),
        LogMode::Off if data::has_logs(directory.path()) => {
            return Err(StartError::LogThere { path: directory.path().to_owned() });
        }
        LogMode::Off => None,
    };
    let shards = match (settings.shards, data.as_ref().and_then(DataFile::shards)) {
        (0, found) => found.unwrap_or_else(processors),
        (wanted, Some(found)) if wanted != found => {
            return Err(StartError::Shards { path: directory.path().to_owned(), found, wanted });
        }
        (wanted, _) => wanted,
    };
    settings.shards = shards;
    let mut clients = Vec::new();
    let doors =
        [("port", settings.port, Door::Plain), ("cluster_port", settings.cluster_port, Door::Cluster)];
    for (setting, port, door) in doors.into_iter().filter(|&(_, port, _)| port != 0) {
        clients.push((listen(settings.bind.as_str(), port, setting)?, door));
    }
    let peers = listen(settings.bind.as_str(), settings.peer_port, "peer_port")?;
    let opened = |port: u16, setting| match port {
        0 => Ok(None),
        port => listen(settings.bind.as_str(), port, setting).map(Some),
    };
    let http = opened(settings.http_port, "http_port")?;
    let line = opened(settings.line_port, "line_port")?;
    let clients_max = clients_that_fit(settings.maxclients);
    settings.maxclients = settings.maxclients.min(clients_max);
    let settings = Arc::new(settings);
    let shared = SharedSettings::with_clients_max(settings.clone(), clients_max);
    let client_count = Arc::new(ClientCount::default());
    Ok(Prepared {
        settings,
        directory,
        data,
        secret,
        shards,
        client_count,
        clients,
        peers,
        http,
        line,
        membership,
        shared,
    })
}

/// Processors that this process may use.
fn processors() -> u16 {
    let count = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count());
    count.clamp(1, 256) as u16
}

/// The most clients that `maxclients` may ever ask for.
const CLIENTS_MAX: u32 = 1_000_000;

/// Raises the limit of open files as far as the system lets it, since `maxclients` may grow while the node runs. Returns how
/// many clients fit: at least `wanted`, or a word on why not.
fn clients_that_fit(wanted: u32) -> u32 {
    let (needed, most) = (u64::from(wanted) + FILES_RESERVED, u64::from(CLIENTS_MAX) + FILES_RESERVED);
    let limit = getrlimit(Resource::Nofile);
    let Some(current) = limit.current.filter(|&current| current < most) else { return CLIENTS_MAX };
    let raised = limit.maximum.map_or(most, |maximum| maximum.min(most)).max(current);
    let granted = match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum })
    {
        Ok(()) => raised,
        Err(_) => current,
    };
    if granted >= needed {
        info!(maxclients = wanted, "the limit of open files was {current}, and is {granted} now");
        return (granted - FILES_RESERVED) as u32;
    }
    let fitting = granted.saturating_sub(FILES_RESERVED).max(granted / 2).max(1) as u32;
    warn!(
        maxclients = fitting,
        "the limit of open files is {granted}: fewer clients than the {wanted} that maxclients asks for; raise it with ulimit -n"
    );
    fitting
}

/// The machines of a node.
pub struct Machines<S, H, C> {
    /// One for each shard.
    pub shards: Vec<(S, ShardStats)>,
    /// The heart's.
    pub heart: H,
    /// The control plane's.
    pub control: C,
    /// The shards' logs, where they are on disk.
    pub logs: Vec<(ShardLog<RealDisk>, LogBegin<RealDisk>)>,
    /// What they tell each other.
    pub published: Arc<Published>,
    /// Figures of the process.
    pub figures: Arc<dyn Fn() -> ServerFigures + Send + Sync>,
}

/// A node that runs.
pub struct Running {
    pub(crate) ports: ClientPortsStop,
    pub(crate) threads: Threads,
    pub(crate) acceptor: JoinHandle<()>,
    pub(crate) shards: Vec<JoinHandle<()>>,
    pub(crate) free: JoinHandle<()>,
    pub(crate) logs: Vec<(LogFeed, JoinHandle<u64>, JoinHandle<()>)>,
    pub(crate) snapshots: Option<JoinHandle<()>>,
    pub(crate) data: Option<DataFile>,
    pub(crate) published: Arc<Published>,
    pub(crate) clients: Arc<ClientCount>,
    pub(crate) settings: SettingsReader,
    pub(crate) heart: JoinHandle<()>,
    pub(crate) control: JoinHandle<()>,
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) doors: Doors,
    /// Held, and so locked, until the last thread is gone.
    _directory: Directory,
}

struct Loop {
    poll: Poll,
    mailbox: Mailbox<Mail>,
    links: Links,
}

/// Starts every thread of a node.
pub fn start<S, H, C>(
    prepared: Prepared,
    identity: Identity,
    machines: Machines<S, H, C>,
) -> Result<Running, StartError>
where
    S: ShardMachine + Send + 'static,
    H: HeartMachine + Send + 'static,
    C: ControlMachine + Send + 'static,
{
    let Prepared {
        settings,
        directory,
        data,
        secret,
        shards,
        client_count: count,
        clients,
        peers,
        http,
        line,
        membership,
        shared,
    } = prepared;
    assert_eq!(machines.shards.len(), usize::from(shards), "a machine for each shard");
    let progress = JoinProgress::new(identity, membership.is_some());
    let book = Arc::new(AddressBook::new(settings.clone(), membership)?);
    let (dialer, requests) = Dialer::new();
    let make = |endpoint| -> io::Result<_> {
        let poll = Poll::new()?;
        let (post, mailbox) = mailbox(Waker::new(poll.registry(), WAKER)?);
        let bytes_max = usize::try_from(settings.link_bytes_max.0).unwrap_or(usize::MAX);
        let published = machines.published.clone();
        let links = Links::new(endpoint, poll.registry().try_clone()?, dialer.clone(), bytes_max, published);
        Ok((post, Loop { poll, mailbox, links }))
    };
    let watch = "cannot watch sockets (epoll)";
    let mut loops = Vec::new();
    let mut posts = Vec::new();
    for shard in (0..shards).map(ShardId) {
        let (post, parts) = make(Endpoint::Shard(shard)).map_err(system(watch))?;
        posts.push(post);
        loops.push(parts);
    }
    let (heart_post, heart) = make(Endpoint::Heart).map_err(system(watch))?;
    let (control_post, control) = make(Endpoint::Control).map_err(system(watch))?;
    let threads = Threads { shards: posts, control: control_post, heart: heart_post };

    let buffers = Arc::new(ClientBuffers::new(shards, settings.maxmemory_clients.0));
    let client_ids = Arc::new(AtomicU64::new(1));
    let (client_ports, ports) =
        ClientPorts::new(clients, threads.clone(), count.clone(), shared.reader()).map_err(system(watch))?;
    let published = machines.published.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("peers")
        .enable_io()
        .enable_time()
        .build()
        .map_err(system("cannot start the threads for handshakes"))?;
    let watched = |listener: TcpListener| {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener).map_err(system(watch))
    };
    let peers = watched(peers)?;
    runtime.spawn(Sampler::new(machines.published.clone(), shared.reader()).run());
    let doors = Doors::start().map_err(system("cannot start the threads for HTTP and the line port"))?;
    let state = HttpState {
        node: identity.node,
        cluster: ClusterView::new(identity.node, book.clone(), published.clone(), settings.clone()),
        published: published.clone(),
        settings: shared.clone(),
        figures: machines.figures,
        clients: count.clone(),
        desk: Desk::new(threads.clone()),
        budget: Budget::new(settings.maxmemory_clients.0),
        guests: doors.guests(),
        parting: doors.parting(),
    };
    if let Some(line) = line {
        let state = LineState::new(state.clone());
        doors.open(line, |listener, parting| line::serve(listener, state, parting)).map_err(system(watch))?;
    }
    if let Some(http) = http {
        doors.open(http, |listener, parting| http::serve(listener, state, parting)).map_err(system(watch))?;
    }
    let identities: Vec<_> =
        (0..shards).map(|shard| secret.file_identity(identity.node, ShardId(shard))).collect();
    let membership =
        Arc::new(Membership { identity, secret, book: book.clone(), published: published.clone() });
    runtime.spawn(peers::run(membership, threads.clone(), peers, requests));

    let Loop { poll, mailbox, links } = control;
    let control = ControlLoop {
        poll,
        mailbox,
        links,
        machine: machines.control,
        tick: settings.tick(),
        identity,
        threads: threads.clone(),
        book,
        progress,
        removed: false,
        gathering: BTreeMap::new(),
    };
    let control = spawn("control", move || control.run())?;
    let Loop { poll, mailbox, links } = heart;
    let heart = HeartLoop {
        poll,
        mailbox,
        links,
        machine: machines.heart,
        tick: settings.tick(),
        identity,
        threads: threads.clone(),
    };
    let heart = spawn("heart", move || heart.run())?;
    let (freer, to_free) = mpsc::channel();
    let free = spawn("free", move || work::free_large(&to_free))?;
    let mut shard_threads = Vec::new();
    let mut logs = Vec::new();
    let (snapshots, orders) = mpsc::channel();
    let places: Vec<SnapshotPlace> = (0..machines.logs.len() as u16)
        .map(ShardId)
        .map(|shard| SnapshotPlace {
            directory: shard_directory(directory.path(), shard),
            identity: identities[usize::from(shard.0)],
            post: threads.shards[usize::from(shard.0)].clone(),
        })
        .collect();
    let told = published.clone();
    let snapshot_thread = match places.is_empty() {
        true => None,
        false => Some(spawn("snapshots", move || snapshot_thread::run(&places, &orders, &told))?),
    };
    for (at, (log, begin)) in machines.logs.into_iter().enumerate() {
        let shard = ShardId(at as u16);
        let feed = LogFeed::default();
        let (thread, beside) = log_thread::new(LogParts {
            log,
            begin,
            feed: feed.clone(),
            shard,
            post: threads.shards[at].clone(),
            fsync: settings.fsync,
            published: published.clone(),
            snapshots: snapshots.clone(),
            freer: freer.clone(),
        });
        let log = spawn(&format!("log-{shard}"), move || thread.run())?;
        let beside = spawn(&format!("sync-{shard}"), move || beside.run())?;
        logs.push((feed, log, beside));
    }
    for (at, (parts, (machine, stats))) in loops.into_iter().zip(machines.shards).enumerate() {
        let Loop { poll, mailbox, links } = parts;
        let shard = ShardId(at as u16);
        let parts = ShardParts {
            poll,
            mailbox,
            links,
            machine,
            identity,
            shard,
            threads: threads.clone(),
            settings: shared.reader(),
            clients: count.clone(),
            buffers: buffers.clone(),
            client_ids: client_ids.clone(),
            stats,
            freer: freer.clone(),
            log: logs.get(at).map(|(feed, ..)| feed.clone()),
        };
        let shard_loop = ShardLoop::new(parts);
        shard_threads.push(spawn(&format!("shard-{shard}"), move || shard_loop.run())?);
    }
    let acceptor = spawn("accept", move || client_ports.run())?;
    info!(
        node = identity.node.0,
        incarnation = identity.incarnation.0,
        host = settings.announced_host(),
        port = settings.port,
        cluster_port = settings.cluster_port,
        peer_port = settings.peer_port,
        http = http_url(&settings),
        line_port = settings.line_port,
        shards,
        "the ports are open"
    );
    Ok(Running {
        ports,
        threads,
        acceptor,
        shards: shard_threads,
        free,
        logs,
        snapshots: snapshot_thread,
        published,
        data,
        clients: count,
        settings: shared.reader(),
        heart,
        control,
        runtime,
        doors,
        _directory: directory,
    })
}

/// Where the HTTP port is; empty where it is off.
fn http_url(settings: &Settings) -> String {
    match (settings.http_port, settings.announced_host()) {
        (0, _) => String::new(),
        (port, host) if host.contains(':') => format!("http://[{host}]:{port}/"),
        (port, host) => format!("http://{host}:{port}/"),
    }
}

/// Starts a thread without which the process is worth nothing: should it panic, the process ends.
fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, StartError> {
    struct Fatal;
    impl Drop for Fatal {
        fn drop(&mut self) {
            if thread::panicking() {
                std::process::abort();
            }
        }
    }
    let body = move || {
        let _fatal = Fatal;
        body()
    };
    thread::Builder::new().name(name.to_owned()).spawn(body).map_err(system("cannot start a thread"))
}

/// Runs a node until SIGTERM, on which it hands over what other nodes can take over, or SIGINT, on which it just stops: as
/// when all nodes do. `build` makes its machines once it holds its directory and its ports.
pub fn run_with<S, H, C>(
    settings: Settings,
    build: impl FnOnce(&mut Prepared) -> Result<(Identity, Machines<S, H, C>), StartError>,
) -> Result<(), StartError>
where
    S: ShardMachine + Send + 'static,
    H: HeartMachine + Send + 'static,
    C: ControlMachine + Send + 'static,
{
    // Before any thread starts, so that a signal during the start ends it in order too.
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(system("cannot watch for signals"))?;
    let mut prepared = prepare(settings)?;
    let (identity, machines) = build(&mut prepared)?;
    let (settings, secret) = (prepared.settings.clone(), prepared.secret.clone());
    let running = start(prepared, identity, machines)?;
    let disagreement = agreement::ask_others(&settings, &secret).map_err(system("cannot start a thread"))?;
    let signal = signals.forever().next().unwrap_or(SIGTERM);
    info!(signal, "stopping");
    running.stop(signal == SIGTERM);
    info!("stopped");
    match disagreement.why() {
        Some(why) => Err(StartError::Disagreement(why)),
        None => Ok(()),
    }
}
