//! What connection commands ask of the node that runs them, as plain data. The node room implements it; commands
//! turn it into replies.

use crate::Flags;
use crate::slow_request::SlowRequest;
use std::sync::Arc;
use std::time::Duration;
use types::latency::Histogram;
use types::settings::Settings;
use types::shared_settings::ChangeError;

/// The node, as connection commands see it.
pub trait Host {
    /// The password of every door; empty where none is set.
    fn password(&self) -> &str;
    /// This node's settings.
    fn settings(&self) -> &Settings;
    /// The cluster's time in Unix microseconds.
    fn now_us(&mut self) -> u64;
    /// The figures for `INFO`.
    fn info(&mut self) -> InfoData;
    /// The cluster as this node knows it.
    fn cluster(&mut self) -> ClusterView;
    /// The state of the cluster as JSON, for `ANNULET STATUS`.
    fn status_json(&mut self) -> String;
    /// Makes requests of this node's clients wait for so long, or longer where they wait longer already.
    fn pause_clients(&mut self, lasting: Duration, pause: Pause);
    /// Lets them go on.
    fn unpause_clients(&mut self);
    /// An operator accepts the loss of what no living copy holds; how many partitions that concerns.
    fn accept_loss(&mut self) -> usize;
    /// Why the cluster, as this node knows it, would refuse an order, in words for the operator.
    fn refusal(&self, order: ClusterOrder) -> Option<String>;
    /// Passes an operator's order on to the coordinator. That it is obeyed shows in the cluster's state.
    fn order(&mut self, order: ClusterOrder);
    /// What the whole cluster has for a setting that can change while it runs; none where each node has its own value.
    fn cluster_value(&self, name: &str) -> Option<String>;
    /// Changes settings by name, for every thread of this node: all of them, or none.
    fn change_settings(&mut self, pairs: &[(&str, &str)]) -> Result<(), ChangeError>;
    /// What each command did since the last [`Host::reset_figures`], by its place in the table.
    fn command_figures(&mut self) -> Vec<CommandFigures>;
    /// Counts anew from here on: `CONFIG RESETSTAT`.
    fn reset_figures(&mut self);
    /// The slow requests of this node, the newest first; `most` of them.
    fn slow_requests(&mut self, most: usize) -> Vec<Arc<SlowRequest>>;
    /// Forgets them.
    fn forget_slow_requests(&mut self);
    /// What this node keeps on disk.
    fn persistence(&mut self) -> Persistence;
    /// Begins a snapshot of everything that has changed.
    fn save(&mut self);
}

/// What an operator asks of the cluster as a whole. Each can be asked again: it says how things should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterOrder {
    /// Moves all copies off a node and then removes it; or lets it stay after all.
    Drain {
        /// The node.
        node: u16,
        /// Whether it is to go.
        on: bool,
    },
    /// Makes the copies of a dead node anew elsewhere at once, and removes it.
    Remove(u16),
    /// How many copies each partition should have.
    Copies(u16),
    /// Fewest in-sync copies that take writes.
    MinInSync(u16),
}

/// What a node keeps on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Persistence {
    /// Whether anything.
    pub logs: bool,
    /// Whether snapshots of everything are being made.
    pub saving: bool,
    /// How often that was done since the start.
    pub saves: u64,
    /// When it was last done, in Unix seconds; before the first time, when the node started.
    pub last_save_s: u64,
    /// Whether the disk has no room.
    pub disk_full: bool,
    /// Bytes that the files of the log have.
    pub log_bytes: u64,
    /// Bytes that were written to it since the start.
    pub written_bytes: u64,
    /// How often it was synced since the start.
    pub syncs: u64,
    /// Nanoseconds that this took.
    pub sync_ns: u64,
}

/// What one command did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommandFigures {
    /// Requests that were run.
    pub calls: u64,
    /// Those of them that were answered with an error.
    pub failed: u64,
    /// Requests that were refused before they ran.
    pub rejected: u64,
    /// Nanoseconds from a request's start to its reply, of all that were run.
    pub took_ns: u64,
    /// How many took how long.
    pub latencies: Histogram,
}

/// Which requests of clients wait: `CLIENT PAUSE`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pause {
    /// None.
    #[default]
    Off,
    /// Those that may write.
    Writes,
    /// All but what operators need to see what is going on and to end it.
    All,
}

impl Pause {
    /// Whether a request waits.
    pub fn holds(self, args: &[&[u8]]) -> bool {
        let flags =
            args.first().and_then(|name| crate::lookup(name)).map(|command| (command.name, command.flags));
        match self {
            Pause::Off => false,
            Pause::Writes => flags.is_some_and(|(_, flags)| flags.contains(Flags::WRITE)),
            Pause::All => {
                !flags.is_some_and(|(name, flags)| name == "client" || flags.contains(Flags::ADMIN))
            }
        }
    }
}

/// The figures that `INFO` shows. Sizes are in bytes; counters run from the process's start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InfoData {
    /// What the node keeps on disk.
    pub disk: Persistence,
    /// Annulet's version.
    pub version: String,
    /// What the binary was built from; empty where unknown.
    pub build_id: String,
    /// Operating system and machine, as in `Linux 6.18 x86_64`.
    pub os: String,
    /// Process id.
    pub process_id: u64,
    /// 40 hex digits, new at every start.
    pub run_id: String,
    /// Seconds since the process started.
    pub uptime_seconds: u64,
    /// Wall time in Unix microseconds.
    pub now_us: u64,
    /// Data threads.
    pub shards: u64,

    /// Connections now.
    pub connected_clients: u64,
    /// Connections whose reply waits: for a commit, a forward, or WAIT.
    pub waiting_clients: u64,

    /// Bytes that the allocator has handed out.
    pub used_memory: u64,
    /// The most it ever was.
    pub used_memory_peak: u64,
    /// Resident bytes.
    pub used_memory_rss: u64,
    /// Bytes of tables and the values in them.
    pub used_memory_dataset: u64,
    /// The machine's memory.
    pub total_system_memory: u64,

    /// Whether the node still loads or fetches its data.
    pub loading: bool,

    /// Connections ever taken.
    pub total_connections_received: u64,
    /// Connections refused for `maxclients`.
    pub rejected_connections: u64,
    /// Commands ever run.
    pub total_commands_processed: u64,
    /// Commands a second, lately.
    pub instantaneous_ops_per_sec: u64,
    /// Bytes ever received from clients.
    pub total_net_input_bytes: u64,
    /// Bytes ever sent to clients.
    pub total_net_output_bytes: u64,
    /// Keys removed because their time had come.
    pub expired_keys: u64,
    /// Reads that found their key.
    pub keyspace_hits: u64,
    /// Reads that did not.
    pub keyspace_misses: u64,
    /// Error replies ever sent.
    pub total_error_replies: u64,
    /// Requests passed on to another node.
    pub forwarded_requests: u64,
    /// Requests answered "outcome unknown".
    pub unknown_outcomes: u64,

    /// Other nodes that hold backups of this node's primaries, and are in sync.
    pub connected_backups: u64,
    /// Log records that this node's primaries have ordered.
    pub replication_offset: u64,
    /// 40 hex digits that name the data's history: the cluster's id.
    pub replication_id: String,
    /// Partitions of which this node is the primary.
    pub primaries: u64,
    /// Partitions of which this node holds a backup.
    pub backups: u64,
    /// Partitions of this node's primaries with fewer in-sync copies than `copies`.
    pub partitions_short_of_copies: u64,
    /// Partitions of the whole cluster that nobody serves.
    pub partitions_unavailable: u64,
    /// Copies that each partition of the cluster should have.
    pub copies: u16,
    /// Fewest in-sync copies that take writes.
    pub min_in_sync: u16,
    /// Copies of the whole cluster that are not yet where they should be.
    pub moves_left: u64,
    /// How much of the data this node should hold, beside one of weight 1.
    pub weight: u16,
    /// Where this node stands; empty: a zone of its own.
    pub zone: String,
    /// Whether this node is being emptied.
    pub draining: bool,
    /// Nodes of the cluster that are being emptied.
    pub nodes_draining: u64,
    /// The coordinator's node id; 0 where none is known.
    pub coordinator: u16,
    /// This node's id.
    pub node_id: u16,

    /// Seconds of processor time in the kernel.
    pub used_cpu_sys: f64,
    /// Seconds of processor time outside of it.
    pub used_cpu_user: f64,

    /// Keys.
    pub keys: u64,
    /// Keys with a time to live.
    pub expires: u64,

    /// Where the binary lies.
    pub executable: String,
    /// Bytes in pages that the allocator uses.
    pub allocator_active: u64,
    /// Bytes that the allocator holds of the system.
    pub allocator_resident: u64,
    /// Bytes that the node needed before it had data.
    pub used_memory_startup: u64,
    /// Kibibytes from clients a second, lately.
    pub instantaneous_input_kbps: f64,
    /// Kibibytes to clients a second, lately.
    pub instantaneous_output_kbps: f64,
    /// Seconds of processor time of child processes, in the kernel.
    pub used_cpu_sys_children: f64,
    /// Seconds of processor time of child processes, outside of it.
    pub used_cpu_user_children: f64,
    /// Records ordered by this node's primaries and not yet held by a backup of theirs: the most of any backup.
    pub replication_lag_max: u64,
    /// Error replies, by their place in [`crate::ERROR_WORDS`].
    pub errors: Vec<u64>,
}

/// The cluster map as clients are shown it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// This node.
    pub my_id: u16,
    /// All nodes, by id.
    pub nodes: Vec<NodeView>,
    /// Runs of slots, in order; several neighbours may have the same copies.
    pub ranges: Vec<RangeView>,
    /// The version of the map.
    pub current_epoch: u64,
    /// Whether every slot is served.
    pub ok: bool,
}

/// One node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Its number.
    pub id: u16,
    /// Its 40 hex digits.
    pub name: String,
    /// The host that clients are told.
    pub host: String,
    /// Its port for every client.
    pub port: u16,
    /// Its port for cluster-aware clients.
    pub cluster_port: u16,
    /// Its port for other nodes.
    pub peer_port: u16,
    /// Whether the cluster holds it for dead.
    pub failed: bool,
    /// The version of its seat in the map.
    pub epoch: u64,
}

/// A run of slots with the same copies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeView {
    /// First slot.
    pub first: u16,
    /// Last slot.
    pub last: u16,
    /// The node that serves it, if one does.
    pub primary: Option<u16>,
    /// The nodes that hold backups.
    pub backups: Vec<u16>,
}

impl ClusterView {
    /// The node with this id.
    pub fn node(&self, id: u16) -> Option<&NodeView> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The runs of slots that a node serves, as long as they can be.
    pub fn served_by(&self, id: u16) -> Vec<(u16, u16)> {
        let mut runs: Vec<(u16, u16)> = Vec::new();
        for range in self.ranges.iter().filter(|range| range.primary == Some(id)) {
            match runs.last_mut() {
                Some(run) if u32::from(run.1) + 1 == u32::from(range.first) => run.1 = range.last,
                _ => runs.push((range.first, range.last)),
            }
        }
        runs
    }

    /// The ranges, neighbours with the same copies joined.
    pub fn joined_ranges(&self) -> Vec<RangeView> {
        let mut joined: Vec<RangeView> = Vec::new();
        for range in &self.ranges {
            match joined.last_mut() {
                Some(run)
                    if u32::from(run.last) + 1 == u32::from(range.first)
                        && run.primary == range.primary
                        && run.backups == range.backups =>
                {
                    run.last = range.last;
                }
                _ => joined.push(range.clone()),
            }
        }
        joined
    }
}
