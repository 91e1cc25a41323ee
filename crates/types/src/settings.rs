//! The settings: one table that feeds flags, the config file, `CONFIG GET`, and the documentation.
//!
//! Each setting has one name everywhere (`lease_ms` is `--lease-ms` on the command line, as flags are written).
//! Adding one is one line of the table below.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use thiserror::Error;

/// Why a setting was refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SettingError {
    /// No setting has this name.
    #[error("unknown setting '{name}'")]
    Unknown {
        /// The name given.
        name: String,
    },
    /// The value does not parse or lies outside its range.
    #[error("invalid value '{value}' for '{name}': {expected}")]
    Invalid {
        /// The setting.
        name: &'static str,
        /// The value given.
        value: String,
        /// What would have been accepted.
        expected: String,
    },
}

/// When a write is acknowledged (docs/consistency.md).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum WriteLevel {
    /// By the primary's own log. May be lost in a failover.
    One,
    /// By a majority of the required set. May be lost in a failover.
    Quorum,
    /// By every member of the required set. Never lost while one in-sync copy's log survives.
    #[default]
    All,
}

/// What a read may show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadLevel {
    /// Committed state of the leased primary: never goes back in time.
    #[default]
    Linearizable,
    /// Committed state of any copy, maybe behind.
    Stale,
}

/// Where records are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogMode {
    /// In memory only: a restarted node comes back empty and is filled from its peers.
    Off,
    /// On disk.
    #[default]
    On,
}

/// When a record in the log counts as durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fsync {
    /// Once it was synced.
    #[default]
    Always,
    /// Once it was handed to the system, which syncs it within a second.
    Everysec,
    /// Once it was handed to the system, which syncs it when it likes.
    Never,
}

/// How clients' sockets are read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoDriver {
    /// io_uring where the system has it, otherwise epoll.
    #[default]
    Auto,
    /// epoll.
    Epoll,
    /// The same, with a warning where the system has it not.
    IoUring,
}

macro_rules! words {
    ($type:ty { $($word:literal => $value:path),+ }) => {
        impl FromStr for $type {
            type Err = ();
            fn from_str(text: &str) -> Result<Self, ()> {
                $(if text.eq_ignore_ascii_case($word) { return Ok($value); })+
                Err(())
            }
        }
        impl Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $($value => $word),+ })
            }
        }
        impl Value for $type {
            fn check(&self, _: Range) -> Result<(), String> { Ok(()) }
            fn expected(_: Range) -> String { [$($word),+].join(" or ") }
        }
    };
}

words!(WriteLevel { "one" => WriteLevel::One, "quorum" => WriteLevel::Quorum, "all" => WriteLevel::All });
words!(ReadLevel { "linearizable" => ReadLevel::Linearizable, "stale" => ReadLevel::Stale });
words!(LogMode { "on" => LogMode::On, "off" => LogMode::Off });
words!(Fsync { "always" => Fsync::Always, "everysec" => Fsync::Everysec, "never" => Fsync::Never });
words!(IoDriver { "auto" => IoDriver::Auto, "epoll" => IoDriver::Epoll, "io_uring" => IoDriver::IoUring });

/// Yes or no, as Redis writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum YesNo {
    /// Off.
    No,
    /// On.
    #[default]
    Yes,
}

words!(YesNo { "no" => YesNo::No, "yes" => YesNo::Yes });

/// The least and the greatest number that a setting takes.
type Range = (i128, i128);

trait Value: FromStr + Display {
    fn check(&self, range: Range) -> Result<(), String>;
    fn expected(range: Range) -> String;
}

macro_rules! number_value {
    ($($type:ty),+) => {$(
        impl Value for $type {
            fn check(&self, (least, most): Range) -> Result<(), String> {
                if (least..=most).contains(&i128::from(*self)) { Ok(()) } else { Err(Self::expected((least, most))) }
            }
            fn expected((least, most): Range) -> String {
                if most == i128::from(i64::MAX) { format!("a whole number from {least}") } else { format!("a whole number from {least} to {most}") }
            }
        }
    )+};
}
number_value!(u16, u32, u64, i64);

/// A size in bytes. It may be written with a unit, as in Redis: `k` is 1000 and `kb` 1024, likewise `m`, `mb`, `g`, `gb`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        const UNITS: [(&str, u64); 8] = [
            ("kb", 1 << 10),
            ("mb", 1 << 20),
            ("gb", 1 << 30),
            ("k", 1000),
            ("m", 1_000_000),
            ("g", 1_000_000_000),
            ("b", 1),
            ("", 1),
        ];
        let text = text.to_ascii_lowercase();
        let parsed = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, bytes)));
        let (number, unit) = parsed.ok_or(())?;
        number.parse::<u64>().ok().and_then(|number| number.checked_mul(*unit)).map(ByteSize).ok_or(())
    }
}

impl Display for ByteSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Value for ByteSize {
    fn check(&self, (least, most): Range) -> Result<(), String> {
        if (least..=most).contains(&i128::from(self.0)) { Ok(()) } else { Err(Self::expected((least, most))) }
    }
    fn expected(_: Range) -> String {
        "a number of bytes, or one with kb, mb or gb".into()
    }
}

impl Value for Text {
    fn check(&self, _: Range) -> Result<(), String> {
        Ok(())
    }
    fn expected(_: Range) -> String {
        "text".into()
    }
}

/// A string setting. A type of its own so that it can never fail to parse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(pub String);

impl FromStr for Text {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(Text(text.to_owned()))
    }
}

impl Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Text {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What the table knows of one setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name, in the file and in `CONFIG GET`; the flag has dashes for the underscores.
    pub name: &'static str,
    /// Its value where nothing was said.
    pub default: &'static str,
    /// One sentence: what it does, with its unit.
    pub help: &'static str,
    /// Whether every node of a cluster has to have the same value.
    pub cluster_wide: bool,
    /// Whether its value is a secret, never shown.
    pub secret: bool,
    /// Whether `CONFIG SET` may change it while the node runs.
    pub live: bool,
    /// Whether it is a size, which may be written with a unit.
    pub size: bool,
}

impl Setting {
    /// Whether this is its name, with underscores or with dashes, in either case.
    pub fn is_called(&self, name: &str) -> bool {
        let plain = |byte: u8| if byte == b'-' { b'_' } else { byte.to_ascii_lowercase() };
        self.name.bytes().eq(name.bytes().map(plain))
    }
}

macro_rules! settings {
    ($($(#[$($attr:ident),+])? $name:ident: $type:ty = $default:literal, $least:literal..=$most:expr, $help:literal;)+) => {
        /// Every setting of a node, checked.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Settings {
            $(#[doc = $help] pub $name: $type,)+
        }

        /// The table: every setting, in the order in which help shows them.
        pub const SETTINGS: &[Setting] = &[$(
            Setting {
                name: stringify!($name),
                default: $default,
                help: $help,
                cluster_wide: settings!(@has cluster $($($attr)+)?),
                secret: settings!(@has secret $($($attr)+)?),
                live: settings!(@has live $($($attr)+)?),
                size: settings!(@has size $($($attr)+)?),
            },
        )+];

        impl Default for Settings {
            fn default() -> Settings {
                Settings { $($name: match $default.parse() { Ok(value) => value, Err(_) => unreachable!() },)+ }
            }
        }

        impl Settings {
            /// Sets one by its name. Dashes and underscores are the same.
            pub fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
                let name = name.replace('-', "_").to_ascii_lowercase();
                match name.as_str() {
                    $(stringify!($name) => {
                        let invalid = |expected| SettingError::Invalid { name: stringify!($name), value: value.to_owned(), expected };
                        let range = ($least, $most);
                        let parsed: $type = value.trim().parse().map_err(|_| invalid(<$type as Value>::expected(range)))?;
                        parsed.check(range).map_err(invalid)?;
                        self.$name = parsed;
                        Ok(())
                    })+
                    _ => Err(SettingError::Unknown { name }),
                }
            }

            /// The value of a setting as text.
            pub fn get(&self, name: &str) -> Option<String> {
                match name {
                    $(stringify!($name) => Some(self.$name.to_string()),)+
                    _ => None,
                }
            }
        }
    };
    (@has cluster cluster $($rest:ident)*) => { true };
    (@has secret secret $($rest:ident)*) => { true };
    (@has live live $($rest:ident)*) => { true };
    (@has size size $($rest:ident)*) => { true };
    (@has $wanted:ident) => { false };
    (@has $wanted:ident $other:ident $($rest:ident)*) => { settings!(@has $wanted $($rest)*) };
}

settings! {
    node_id: u16 = "1", 0..=9999, "This node's lasting number, one of those in `nodes`. 0, or not given: a node that joins gets a free one, and keeps it in its data directory; any other is 1.";
    nodes: Text = "", 0..=0, "Every node of the cluster and its peer address: 1=host:port,2=host:port. Empty: this node alone.";
    join: Text = "", 0..=0, "Peer address of a running node: join its cluster, as a new node or as one whose data directory is new. It needs the cluster's join.secret in its data directory, and takes over the settings that are cluster-wide.";
    dir: Text = "annulet-data", 0..=0, "Data directory.";
    bind: Text = "127.0.0.1", 0..=0, "Address that every port listens on. Elsewhere than on loopback a password is required.";
    announce: Text = "", 0..=0, "Host that clients and peers are told for this node. Empty: the same as `bind`.";
    port: u16 = "7001", 0..=65535, "Port for every Redis client: any node answers any key. 0 turns it off.";
    cluster_port: u16 = "7101", 0..=65535, "Port for cluster-aware Redis clients: another node's key is answered with MOVED. 0 turns it off.";
    peer_port: u16 = "7201", 1..=65535, "Port for the other nodes.";
    http_port: u16 = "7301", 0..=65535, "Port for HTTP (keys, the cluster, /metrics, /healthz and /readyz) and for gRPC. 0 turns it off.";
    line_port: u16 = "7401", 0..=65535, "Port for JSON and text, a request a line. 0 turns it off.";
    shards: u16 = "0", 0..=256, "Data threads. 0: one for each processor that this process may use.";
    #[cluster] partitions: u16 = "1024", 1..=16384, "Partitions of the cluster, a power of two, fixed when it is made.";
    #[cluster] copies: u16 = "2", 1..=7, "Copies of each partition, the primary's among them.";
    weight: u16 = "1", 0..=100, "How much of the data this node should hold, beside a node of weight 1. 0: none.";
    zone: Text = "", 0..=0, "Where this node stands. Copies of a partition are kept in different zones, where there are enough of them. Empty: a zone of its own.";
    #[cluster] replace_after: u64 = "300", 0..=31536000, "Seconds after which the copies of a dead node are made anew on others. 0: never by itself.";
    #[cluster] replace_voter_after: u64 = "60", 0..=31536000, "Seconds after which another node votes in place of a dead voter, where there is one. 0: never by itself.";
    witness: YesNo = "no", 0..=0, "Whether this node is there to vote and holds no data: so that two nodes with data, and it, survive the loss of any one.";
    #[cluster] min_in_sync: u16 = "1", 1..=7, "Writes to a partition with fewer in-sync copies are refused.";
    #[cluster] voters: u16 = "0", 0..=5, "The most nodes that vote in the control plane: 1, 3 or 5. How many do follows the number of nodes: one of 1 or 2, three of 3 or 4, five of more. 0: no other bound.";
    #[cluster] log: LogMode = "on", 0..=0, "Where partitions' logs are kept: on (on disk) or off (in memory only: a cache, which a restart empties).";
    #[cluster] fsync: Fsync = "always", 0..=0, "When a record in the log on disk counts as durable, and a write so acknowledged: always (synced), everysec (handed to the system, synced each second, and waited for after two) or never (handed to the system).";
    #[live, size] snapshot_log_bytes: ByteSize = "1073741824", 1048576..=i64::MAX as i128, "Bytes of log on disk that a start may have to read. Beyond that, and beyond what the data takes in memory, partitions get snapshots, and the log before them goes.";
    #[live] snapshot_interval: u64 = "3600", 0..=31536000, "Seconds after which every partition that has changed gets a snapshot. 0: only by the log's size, and on BGSAVE.";
    #[live] write_level: WriteLevel = "all", 0..=0, "When a write is acknowledged, unless the connection says otherwise: all, quorum or one.";
    #[live] read_level: ReadLevel = "linearizable", 0..=0, "What a read may show, unless the connection says otherwise: linearizable or stale.";
    #[secret, live] requirepass: Text = "", 0..=0, "Password of every door. Empty: none is asked for.";
    #[secret, live] adminpass: Text = "", 0..=0, "Password of administration: where it is set, operators' commands need it. It lets in as `requirepass` does. Empty: whoever may enter may administrate.";
    io_driver: IoDriver = "auto", 0..=0, "How clients' sockets are read and written: auto (io_uring where the system has it, otherwise epoll), epoll or io_uring.";
    #[live] maxclients: u32 = "10000", 1..=1000000, "Client connections that this node takes at once.";
    #[live] timeout: u64 = "0", 0..=31536000, "Seconds that a client may send nothing before its connection is closed. 0: for ever.";
    #[live] request_incomplete_timeout_ms: u64 = "60000", 100..=3600000, "Milliseconds for a request to come whole, from its first byte; another second for each MiB of it that has come. Then its connection is closed.";
    #[live] authentication_timeout_ms: u64 = "10000", 100..=3600000, "Milliseconds that a connection which has not authenticated may go without a whole request. Then it is closed.";
    #[live] reply_unread_timeout_ms: u64 = "60000", 100..=3600000, "Milliseconds that a client may take nothing of the replies that wait for it. Then its connection is closed.";
    #[live, size] client_output_buffer_limit: ByteSize = "1073741824", 1048576..=i64::MAX as i128, "Bytes of replies, beside the largest of them, that may wait for a client. One that owes more reading is closed.";
    #[size] maxmemory_clients: ByteSize = "2147483648", 16777216..=i64::MAX as i128, "Bytes that all clients of this node together may have it keep: unfinished requests, requests under way, unread replies. Beyond it the largest connections are closed.";
    #[live, size] maxmemory: ByteSize = "0", 0..=i64::MAX as i128, "Bytes of memory, as the allocator counts, beyond which commands that may need more are refused. 0: no bound.";
    #[live, size] uncommitted_bytes_max: ByteSize = "67108864", 1048576..=i64::MAX as i128, "Bytes of records that a data thread orders ahead of what the copies have confirmed. Beyond it writes to the partitions that are behind wait, and connections that sent them are not read from. A partition may have a quarter of it.";
    #[live, size] replication_ahead_bytes: ByteSize = "16777216", 1048576..=i64::MAX as i128, "Bytes of records that a data thread sends to another node ahead of what that has confirmed. What is beyond waits in memory as part of the partitions' logs.";
    #[live, size] forward_ahead_bytes: ByteSize = "33554432", 1048576..=i64::MAX as i128, "Bytes of requests that a data thread passes on to another node ahead of their answers, unless it is one request. What is beyond waits.";
    #[size] link_bytes_max: ByteSize = "67108864", 1048576..=i64::MAX as i128, "Bytes that may wait for a connection to one thread of another node before more is dropped, which the nodes then send each other again. One message may be larger; as much again may wait behind it.";
    #[live] request_timeout_ms: u64 = "5000", 100..=600000, "Milliseconds that a request waits for a partition to be served before it is answered with an error.";
    #[live] stop_grace_ms: u64 = "1000", 0..=600000, "Milliseconds that a node which is told to stop (SIGTERM) goes on serving clients that always have something under way, once it has handed over. All others it lets go sooner: with a reply, or when they are quiet.";
    #[cluster] heartbeat_ms: u64 = "50", 5..=10000, "Milliseconds between a node's heartbeats to the voters.";
    #[cluster] lease_ms: u64 = "350", 20..=60000, "Milliseconds that a granted lease lasts, from when its heartbeat was sent.";
    #[cluster] grace_ms: u64 = "420", 25..=120000, "Milliseconds without a grant after which a voter reports a node. More than `lease_ms` by the clocks' drift.";
    #[cluster] election_ms: u64 = "300", 50..=60000, "Least milliseconds without word of the coordinator before a voter stands for election.";
    #[live] evict_ms: u64 = "2000", 100..=600000, "Milliseconds that a backup may hold up its partition's writes before its primary asks to have it removed from the in-sync set.";
    #[live] proto_max_bulk_len: u64 = "536870912", 1048576..=536870912, "Largest value, in bytes.";
    #[live, size] max_request_bytes: ByteSize = "16777216", 65536..=536870912, "Bytes of one request over the line port, HTTP or gRPC, and of the one message that a snapshot over gRPC is.";
    #[live] line_idle_ms: u64 = "20", 0..=60000, "Milliseconds after which text of at most 1400 bytes that stands without a newline on the line port is a whole request. 0: only a newline, or the end of what the client sends, ends one.";
    #[live] slowlog_log_slower_than: i64 = "10000", -1..=i64::MAX as i128, "Microseconds of a data thread after which a request is kept for `SLOWLOG`. 0 keeps every request, -1 none.";
    #[live] slowlog_max_len: u32 = "128", 0..=10000, "Requests that `SLOWLOG` keeps.";
    #[live] latency_tracking: YesNo = "yes", 0..=0, "Whether latencies are counted by command, for `LATENCY HISTOGRAM`, `INFO latencystats` and /metrics.";
    #[live] chaos_wall_offset_ms: i64 = "0", -315360000000..=315360000000, "FOR CHAOS TESTS ONLY, never set it: milliseconds by which this node takes its wall clock to be ahead of what it shows. Keys expire early or late, and may be lost so.";
    log_level: Text = "info", 0..=0, "What is logged on standard error: error, warn, info, debug, trace, or a filter by module.";
}

/// More voters than this make every decision slower, and hardly anything safer.
const VOTERS_MAX: usize = 5;

/// A node named in the `nodes` setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedNode {
    /// Its number.
    pub id: u16,
    /// Host of its peer address.
    pub host: String,
    /// Port of its peer address.
    pub peer_port: u16,
}

impl Settings {
    /// The nodes that the `nodes` setting lists, by number; this node alone where it is empty.
    pub fn listed_nodes(&self) -> Result<Vec<ListedNode>, SettingError> {
        if self.nodes.0.trim().is_empty() {
            let own = ListedNode {
                id: self.node_id,
                host: self.announced_host().to_owned(),
                peer_port: self.peer_port,
            };
            return Ok(vec![own]);
        }
        let invalid = |expected: &str| SettingError::Invalid {
            name: "nodes",
            value: self.nodes.0.clone(),
            expected: expected.to_owned(),
        };
        let mut listed: Vec<ListedNode> = Vec::new();
        for part in self.nodes.0.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let node =
                parse_listed(part).ok_or_else(|| invalid("nodes as id=host:port, separated by commas"))?;
            if listed.iter().any(|other| other.id == node.id) {
                return Err(invalid("each node once"));
            }
            listed.push(node);
        }
        listed.sort_by_key(|node| node.id);
        // Who joins is told of those that vote, and is none of them.
        if self.join.0.is_empty() && !listed.iter().any(|node| node.id == self.node_id.max(1)) {
            return Err(invalid(&format!("a list that names this node (node_id {})", self.node_id)));
        }
        Ok(listed)
    }

    /// How often a node's threads look at the time: often enough for heartbeats to go out when they are due.
    pub fn tick(&self) -> Duration {
        Duration::from_millis((self.heartbeat_ms / 5).clamp(1, 10))
    }

    /// What cannot be said of one setting alone.
    pub fn check(&self) -> Result<(), SettingError> {
        let invalid = |name, value: String, expected: &str| SettingError::Invalid {
            name,
            value,
            expected: expected.into(),
        };
        if !self.partitions.is_power_of_two() {
            return Err(invalid("partitions", self.partitions.to_string(), "a power of two"));
        }
        if self.grace_ms <= self.lease_ms {
            return Err(invalid(
                "grace_ms",
                self.grace_ms.to_string(),
                "more than lease_ms, by the drift of the clocks",
            ));
        }
        if self.heartbeat_ms * 2 > self.lease_ms {
            return Err(invalid("heartbeat_ms", self.heartbeat_ms.to_string(), "at most half of lease_ms"));
        }
        if self.min_in_sync > self.copies {
            return Err(invalid("min_in_sync", self.min_in_sync.to_string(), "no more than copies"));
        }
        if !matches!(self.voters, 0 | 1 | 3 | 5) {
            return Err(invalid("voters", self.voters.to_string(), "1, 3 or 5, or 0 for as many as fit"));
        }
        let loopback = self.bind.0 == "localhost"
            || self.bind.0.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if !loopback && self.requirepass.0.is_empty() {
            return Err(invalid(
                "bind",
                self.bind.0.clone(),
                "a loopback address, or set requirepass to listen elsewhere",
            ));
        }
        self.listed_nodes().map(|_| ())
    }

    /// The host that others are told for this node.
    pub fn announced_host(&self) -> &str {
        if self.announce.0.is_empty() { &self.bind.0 } else { &self.announce.0 }
    }

    /// The data directory.
    pub fn directory(&self) -> PathBuf {
        PathBuf::from(&self.dir.0)
    }

    /// How long a request waits for a partition to be served.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// How long a node that stops goes on serving clients that always have something under way.
    pub fn stop_grace(&self) -> Duration {
        Duration::from_millis(self.stop_grace_ms)
    }

    /// The most voters that there may ever be.
    pub fn voters_max(&self) -> usize {
        if self.voters == 0 { VOTERS_MAX } else { usize::from(self.voters) }
    }

    /// Which of the listed nodes vote when they make the cluster: the first 1, 3 or 5 of them.
    pub fn voter_ids(&self) -> Result<Vec<u16>, SettingError> {
        let listed = self.listed_nodes()?;
        let fitting = match listed.len() {
            0..=2 => 1,
            3 | 4 => 3,
            _ => 5,
        };
        let wanted = self.voters_max().min(fitting);
        Ok(listed.iter().take(wanted).map(|node| node.id).collect())
    }
}

fn parse_listed(part: &str) -> Option<ListedNode> {
    let (id, address) = part.split_once('=')?;
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let id = id.trim().parse().ok().filter(|&id| id > 0)?;
    (!host.is_empty()).then_some(())?;
    Some(ListedNode { id, host: host.to_owned(), peer_port: port.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_in_range_and_read_back() {
        let mut settings = Settings::default();
        for setting in SETTINGS {
            let shown = settings.get(setting.name).expect("every setting can be read");
            assert_eq!(shown, setting.default, "{}", setting.name);
            settings.set(setting.name, &shown).expect("a default is acceptable");
        }
        assert_eq!(settings, Settings::default());
        settings.check().expect("the defaults fit together");
    }

    #[test]
    fn bad_values_say_what_would_do() {
        let mut settings = Settings::default();
        let text = |result: Result<(), SettingError>| result.unwrap_err().to_string();
        assert_eq!(
            text(settings.set("copies", "0")),
            "invalid value '0' for 'copies': a whole number from 1 to 7"
        );
        assert_eq!(
            text(settings.set("write-level", "most")),
            "invalid value 'most' for 'write_level': one or quorum or all"
        );
        assert_eq!(text(settings.set("colour", "red")), "unknown setting 'colour'");
        settings.set("bind", "0.0.0.0").unwrap();
        assert!(text(settings.check()).contains("requirepass"));
    }

    #[test]
    fn sizes_have_units() {
        let mut settings = Settings::default();
        for (text, bytes) in
            [("0", 0), ("7b", 7), ("2k", 2000), ("2KB", 2048), ("3mb", 3 << 20), ("1GB", 1 << 30)]
        {
            settings.set("maxmemory", text).unwrap();
            assert_eq!(settings.maxmemory, ByteSize(bytes), "{text}");
        }
        for bad in ["", "kb", "-1", "1.5gb", "1tb", "99999999999999gb"] {
            let refused = settings.set("maxmemory", bad).unwrap_err().to_string();
            assert!(refused.contains("a number of bytes"), "{bad}: {refused}");
        }
        settings.set("SLOWLOG-LOG-SLOWER-THAN", "-1").unwrap();
        settings.set("slowlog-log-slower-than", "-2").unwrap_err();
        assert_eq!(settings.get("slowlog_log_slower_than").unwrap(), "-1");
    }

    #[test]
    fn listed_nodes_are_parsed_sorted_and_checked() {
        let mut settings = Settings::default();
        settings.set("nodes", "2=b:7202, 1=[::1]:7201,3=c:7203").unwrap();
        let listed = settings.listed_nodes().unwrap();
        assert_eq!(listed[0], ListedNode { id: 1, host: "::1".into(), peer_port: 7201 });
        assert_eq!(settings.voter_ids().unwrap(), vec![1, 2, 3]);
        for bad in ["1=a", "a:1", "1=a:1,1=b:2", "0=a:1", "2=a:1"] {
            settings.set("nodes", bad).unwrap();
            assert!(settings.listed_nodes().is_err(), "{bad}");
        }
    }
}
