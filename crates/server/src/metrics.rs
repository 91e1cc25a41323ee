//! /metrics: the node's figures as Prometheus reads them, from one table.
//!
//! A row of [`METRICS`] is a family: its name, kind, unit and meaning, and how it is read. The page docs/metrics.md is made
//! of the same rows. Counters run from the process's start and never go back, whatever `CONFIG RESETSTAT` does.

use crate::client_ports::ClientCount;
use command::{CommandFigures, ERROR_WORDS, places};
use node::{Published, ServerFigures, Totals};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use types::settings::Settings;
use types::{Instant, NodeId};

/// The text format's.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the figures are read from, at one moment.
pub struct Source<'a> {
    /// This node.
    pub node: NodeId,
    /// What its threads publish.
    pub published: &'a Published,
    /// The shards' sums.
    pub totals: Totals,
    /// Figures of the process.
    pub figures: ServerFigures,
    /// The node's clients.
    pub clients: &'a ClientCount,
    /// The node's settings.
    pub settings: Arc<Settings>,
    /// Now.
    pub now: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// How a family is read.
enum Read {
    /// One value.
    One(fn(&Source<'_>) -> f64),
    /// Any number, each with its labels.
    Each(fn(&Source<'_>, &mut Family<'_>)),
}

struct Metric {
    name: &'static str,
    kind: Kind,
    /// What it is counted in, for the page.
    unit: &'static str,
    help: &'static str,
    read: Read,
}

/// Where the samples of a family go.
struct Family<'a> {
    name: &'static str,
    out: &'a mut String,
}

impl Family<'_> {
    fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let _ = write!(self.out, "{}{suffix}", self.name);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.out.push(if at == 0 { '{' } else { ',' });
            let _ = write!(self.out, "{label}=\"{}\"", escaped(text));
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }

    /// A sample for every command that has anything to tell.
    fn by_command(&mut self, source: &Source<'_>, value: fn(&CommandFigures) -> u64) {
        for (command, figures) in places().zip(&source.totals.commands) {
            if figures.calls + figures.rejected > 0 {
                self.sample("", &[("command", &command.full_name())], value(figures) as f64);
            }
        }
    }
}

/// A label's value: the format's three escapes.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

const fn one(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    help: &'static str,
    read: fn(&Source<'_>) -> f64,
) -> Metric {
    Metric { name, kind, unit, help, read: Read::One(read) }
}

const fn each(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    help: &'static str,
    read: fn(&Source<'_>, &mut Family<'_>),
) -> Metric {
    Metric { name, kind, unit, help, read: Read::Each(read) }
}

fn load(figure: &AtomicU64) -> f64 {
    figure.load(Ordering::Relaxed) as f64
}

macro_rules! sum {
    ($figure:ident) => {
        |source| load(&source.totals.counters.$figure)
    };
}

macro_rules! published {
    ($group:ident.$figure:ident) => {
        |source| load(&source.published.$group.$figure)
    };
}

/// The sum of a figure over the logs on disk.
macro_rules! of_logs {
    ($figure:ident) => {
        |source| source.published.logs().iter().map(|log| load(&log.$figure)).sum()
    };
}

use Kind::{Counter, Gauge, Histogram};

const METRICS: &[Metric] = &[
    each(
        "annulet_info",
        Gauge,
        "1",
        "Always 1; the labels name the node and its version.",
        |source, family| {
            let labels = [("node", &*source.node.to_string()), ("version", env!("CARGO_PKG_VERSION"))];
            family.sample("", &labels, 1.0);
        },
    ),
    one("annulet_uptime_seconds", Gauge, "seconds", "Time since the process started.", |source| {
        source.figures.uptime_seconds as f64
    }),
    each(
        "annulet_cpu_seconds_total",
        Counter,
        "seconds",
        "Processor time, by mode: user or system.",
        |source, family| {
            family.sample("", &[("mode", "system")], source.figures.used_cpu_sys);
            family.sample("", &[("mode", "user")], source.figures.used_cpu_user);
        },
    ),
    each(
        "annulet_commands_total",
        Counter,
        "requests",
        "Requests of clients that were run, by command.",
        |source, family| {
            family.by_command(source, |figures| figures.calls);
        },
    ),
    each(
        "annulet_command_failures_total",
        Counter,
        "requests",
        "Requests that were run and answered with an error, by command.",
        |source, family| {
            family.by_command(source, |figures| figures.failed);
        },
    ),
    each(
        "annulet_command_rejections_total",
        Counter,
        "requests",
        "Requests that were refused before they ran, by command.",
        |source, family| {
            family.by_command(source, |figures| figures.rejected);
        },
    ),
    each(
        "annulet_command_duration_seconds",
        Histogram,
        "seconds",
        "Time from a request's start to its reply, waiting for copies and other nodes included, by command.",
        durations,
    ),
    each("annulet_errors_total", Counter, "replies", "Error replies, by first word.", |source, family| {
        for (word, count) in ERROR_WORDS.iter().zip(&source.totals.errors).filter(|(_, count)| **count > 0) {
            family.sample("", &[("error", word)], *count as f64);
        }
    }),
    one(
        "annulet_slow_requests_total",
        Counter,
        "requests",
        "Requests that kept a data thread busy for longer than slowlog_log_slower_than.",
        |source| source.published.slow.count() as f64,
    ),
    one(
        "annulet_requests_waiting",
        Gauge,
        "requests",
        "Requests that wait for a partition, another node or other parts of themselves.",
        sum!(waiting),
    ),
    one(
        "annulet_requests_forwarded_total",
        Counter,
        "requests",
        "Requests passed on to another shard or node.",
        sum!(forwarded),
    ),
    one("annulet_outcomes_unknown_total", Counter, "replies", "Replies of \"outcome unknown\".", |source| {
        source.totals.unknown_outcomes() as f64
    }),
    one("annulet_connections", Gauge, "connections", "Connections of Redis clients.", sum!(connections)),
    one(
        "annulet_connections_total",
        Counter,
        "connections",
        "Connections of Redis clients ever taken.",
        sum!(connections_total),
    ),
    one(
        "annulet_connections_rejected_total",
        Counter,
        "connections",
        "Connections refused for maxclients.",
        |source| source.clients.refused() as f64,
    ),
    one(
        "annulet_received_bytes_total",
        Counter,
        "bytes",
        "Bytes received from Redis clients.",
        sum!(bytes_in),
    ),
    one("annulet_sent_bytes_total", Counter, "bytes", "Bytes sent to Redis clients.", sum!(bytes_out)),
    one("annulet_keys", Gauge, "keys", "Keys of the partitions of which this node is primary.", sum!(keys)),
    one("annulet_keys_with_expiry", Gauge, "keys", "Those of them with a time to live.", sum!(expires)),
    one(
        "annulet_keys_expired_total",
        Counter,
        "keys",
        "Keys removed because their time had come.",
        sum!(expired),
    ),
    one("annulet_lookups_hit_total", Counter, "lookups", "Reads that found their key.", |source| {
        source.totals.hits as f64
    }),
    one("annulet_lookups_missed_total", Counter, "lookups", "Reads that did not find their key.", |source| {
        source.totals.misses as f64
    }),
    one(
        "annulet_memory_allocated_bytes",
        Gauge,
        "bytes",
        "Memory that the allocator has handed out.",
        published!(process.allocated),
    ),
    one("annulet_memory_resident_bytes", Gauge, "bytes", "Resident memory of the process.", |source| {
        source.figures.used_memory_rss as f64
    }),
    one(
        "annulet_memory_tables_bytes",
        Gauge,
        "bytes",
        "Memory of the tables of all copies on this node.",
        sum!(table_bytes),
    ),
    one("annulet_memory_limit_bytes", Gauge, "bytes", "The maxmemory setting; 0 is no limit.", |source| {
        source.settings.maxmemory.0 as f64
    }),
    each(
        "annulet_partitions",
        Gauge,
        "partitions",
        "Partitions of which this node has a copy, by role: primary or backup.",
        |source, family| {
            family.sample("", &[("role", "backup")], load(&source.totals.counters.backups));
            family.sample("", &[("role", "primary")], load(&source.totals.counters.primaries));
        },
    ),
    one(
        "annulet_partitions_serving",
        Gauge,
        "partitions",
        "Partitions that this node is primary of and serves now.",
        sum!(serving),
    ),
    one(
        "annulet_copies_short",
        Gauge,
        "copies",
        "In-sync copies that the partitions of this node's primaries lack.",
        sum!(copies_short),
    ),
    one(
        "annulet_cluster_partitions",
        Gauge,
        "partitions",
        "Partitions of the cluster, as this node's map shows it.",
        published!(cluster.partitions),
    ),
    one(
        "annulet_cluster_partitions_unavailable",
        Gauge,
        "partitions",
        "Partitions of the cluster that nobody serves.",
        published!(cluster.unavailable),
    ),
    one(
        "annulet_cluster_partitions_short",
        Gauge,
        "partitions",
        "Partitions of the cluster with fewer copies in sync than belong to them.",
        published!(cluster.short),
    ),
    one(
        "annulet_cluster_moves_left",
        Gauge,
        "copies",
        "Copies of the cluster that are not yet where they should be.",
        published!(cluster.moves_left),
    ),
    one(
        "annulet_cluster_nodes_draining",
        Gauge,
        "nodes",
        "Nodes of the cluster that are being emptied, to be removed.",
        published!(cluster.draining),
    ),
    one(
        "annulet_cluster_partitions_at_risk",
        Gauge,
        "partitions",
        "Partitions of the cluster down to their last copy, where more are wanted.",
        published!(cluster.at_risk),
    ),
    one(
        "annulet_cluster_partitions_lost",
        Gauge,
        "partitions",
        "Partitions of the cluster whose every in-sync copy is gone.",
        published!(cluster.lost),
    ),
    one(
        "annulet_replication_lag_max_records",
        Gauge,
        "records",
        "Records of a primary here that one backup of it does not hold yet: the most of any.",
        |source| {
            let lags = source.published.shards().iter().map(|shard| shard.lag_max.load(Ordering::Relaxed));
            lags.max().unwrap_or(0) as f64
        },
    ),
    one(
        "annulet_replication_lag_records",
        Gauge,
        "records",
        "The same, summed over all primaries here and their backups.",
        sum!(lag_sum),
    ),
    one(
        "annulet_uncommitted_records",
        Gauge,
        "records",
        "Records of this node's primaries that are not committed yet.",
        sum!(uncommitted),
    ),
    one("annulet_uncommitted_bytes", Gauge, "bytes", "Bytes of these records.", sum!(uncommitted_bytes)),
    one(
        "annulet_replication_ahead_bytes",
        Gauge,
        "bytes",
        "Bytes of records that other nodes were sent and have not confirmed.",
        sum!(ahead_bytes),
    ),
    one(
        "annulet_forward_ahead_bytes",
        Gauge,
        "bytes",
        "Bytes of requests that were passed on and not answered.",
        sum!(forward_bytes),
    ),
    one(
        "annulet_requests_crowded",
        Gauge,
        "requests",
        "Requests that wait until more of their partition is committed (backpressure).",
        sum!(crowded),
    ),
    one("annulet_requests_crowded_total", Counter, "requests", "The same, ever.", sum!(crowded_total)),
    one("annulet_link_bytes", Gauge, "bytes", "Bytes that wait for links to other nodes.", sum!(link_bytes)),
    one(
        "annulet_link_drops_total",
        Counter,
        "turns",
        "Times that what a turn had to say to another node was dropped, since too much waited for that.",
        sum!(link_drops),
    ),
    one(
        "annulet_ordered_records",
        Gauge,
        "records",
        "Records that the partitions of this node's primaries have ordered since they began, under any primary.",
        sum!(last_lsn),
    ),
    one(
        "annulet_log_records",
        Gauge,
        "records",
        "Records that the logs of this node's copies keep in memory.",
        sum!(log_records),
    ),
    one("annulet_log_bytes", Gauge, "bytes", "Bytes of them.", sum!(log_bytes)),
    one(
        "annulet_snapshots_sending",
        Gauge,
        "snapshots",
        "Snapshots that this node sends now.",
        sum!(snapshots),
    ),
    one(
        "annulet_snapshots_begun_total",
        Counter,
        "snapshots",
        "Snapshots that this node began to send.",
        sum!(snapshots_begun),
    ),
    one(
        "annulet_snapshots_gone_on_total",
        Counter,
        "snapshots",
        "How often one that had broken off on its way went on where it had stopped.",
        sum!(snapshots_gone_on),
    ),
    one(
        "annulet_snapshots_done_total",
        Counter,
        "snapshots",
        "Snapshots that this node sent to their end.",
        sum!(snapshots_done),
    ),
    one(
        "annulet_hand_overs_begun_total",
        Counter,
        "hand-overs",
        "Partitions that this node, their primary, was told to hand over to another in-sync copy.",
        sum!(hand_overs_begun),
    ),
    one(
        "annulet_hand_overs_done_total",
        Counter,
        "hand-overs",
        "Those that it handed over.",
        sum!(hand_overs_done),
    ),
    one(
        "annulet_hand_overs_given_up_total",
        Counter,
        "hand-overs",
        "Those that it kept, since a copy did not answer or a write was not committed within a second.",
        sum!(hand_overs_given_up),
    ),
    one(
        "annulet_log_written_bytes_total",
        Counter,
        "bytes",
        "Bytes written to the shards' logs on disk.",
        of_logs!(bytes_written),
    ),
    one(
        "annulet_log_batches_total",
        Counter,
        "batches",
        "Writes to them; what shards have to log gathers while the last one runs.",
        of_logs!(batches),
    ),
    one("annulet_log_syncs_total", Counter, "syncs", "Syncs of them.", of_logs!(syncs)),
    one("annulet_log_sync_seconds_total", Counter, "seconds", "Time that these took.", |source| {
        source.published.logs().iter().map(|log| load(&log.sync_ns) / 1e9).sum()
    }),
    one(
        "annulet_log_busy_seconds",
        Gauge,
        "seconds",
        "How long the disk has now been at work for a shard's log without a break: the longest of any; 0 while it rests.",
        |source| source.published.log_busy(source.now).as_secs_f64(),
    ),
    one("annulet_log_disk_bytes", Gauge, "bytes", "Bytes that the logs have on disk.", of_logs!(disk_bytes)),
    one(
        "annulet_disk_full",
        Gauge,
        "0 or 1",
        "Whether the disk has no room for a shard's log, so that writes that need some are refused.",
        |source| f64::from(u8::from(source.published.is_disk_full())),
    ),
    one(
        "annulet_disk_used_up",
        Gauge,
        "0 or 1",
        "Whether of what a shard's log holds in reserve only the last part is left, so that it takes only what it has to.",
        |source| f64::from(u8::from(source.published.logs().iter().any(|log| load(&log.used_up) > 0.0))),
    ),
    one(
        "annulet_control_lacks_room",
        Gauge,
        "0 or 1",
        "Whether the control plane's file could not get all of the room that it holds in reserve for a full disk.",
        published!(control.lacks_room),
    ),
    one(
        "annulet_snapshots_written_total",
        Counter,
        "snapshots",
        "Snapshots of partitions written to disk.",
        of_logs!(snapshots),
    ),
    one(
        "annulet_snapshots_written_bytes_total",
        Counter,
        "bytes",
        "Bytes of them.",
        of_logs!(snapshot_bytes),
    ),
    one(
        "annulet_snapshots_failed_total",
        Counter,
        "snapshots",
        "Snapshots that could not be written to disk; the log stays instead.",
        of_logs!(snapshots_failed),
    ),
    one("annulet_saves_asked_total", Counter, "saves", "How often BGSAVE was asked for.", |source| {
        source.published.saves_asked() as f64
    }),
    one(
        "annulet_saves_done_total",
        Counter,
        "saves",
        "How many of these are done: all partitions that had changed have their snapshots.",
        |source| source.published.saves_done() as f64,
    ),
    one(
        "annulet_last_save_timestamp_seconds",
        Gauge,
        "Unix seconds",
        "When every partition that had changed last had its snapshot; 0 where nothing is kept on disk.",
        |source| source.published.last_save_s() as f64,
    ),
    one(
        "annulet_lease_remaining_seconds",
        Gauge,
        "seconds",
        "How long this node's lease still runs; 0 without one.",
        |source| source.published.lease_until().since(source.now).as_secs_f64(),
    ),
    one(
        "annulet_is_coordinator",
        Gauge,
        "0 or 1",
        "Whether this node is the coordinator.",
        published!(control.is_coordinator),
    ),
    one(
        "annulet_control_term",
        Gauge,
        "terms",
        "The consensus' term; 0 on a node that does not vote.",
        published!(control.term),
    ),
    one(
        "annulet_elections_total",
        Counter,
        "elections",
        "How often the term has grown since this node started.",
        published!(control.elections),
    ),
    one(
        "annulet_coordinator_changes_total",
        Counter,
        "changes",
        "How often this node has seen another coordinator than before.",
        published!(control.coordinator_changes),
    ),
    one(
        "annulet_map_version",
        Gauge,
        "versions",
        "The version of the newest cluster map that this node knows.",
        published!(control.map_version),
    ),
    one(
        "annulet_feature_level",
        Gauge,
        "levels",
        "The cluster's feature level, as this node knows it: what all members' builds have.",
        published!(control.level),
    ),
];

/// How long requests took: buckets at the powers of two, from 1 µs to 67 s.
fn durations(source: &Source<'_>, family: &mut Family<'_>) {
    for (command, figures) in places().zip(&source.totals.commands) {
        let total = figures.latencies.total();
        if total == 0 {
            continue;
        }
        let name = command.full_name();
        for (bound_ns, count) in figures.latencies.by_powers_of_two() {
            let bound = (bound_ns as f64 / 1e9).to_string();
            family.sample("_bucket", &[("command", &name), ("le", &bound)], count as f64);
        }
        family.sample("_bucket", &[("command", &name), ("le", "+Inf")], total as f64);
        family.sample("_sum", &[("command", &name)], figures.took_ns as f64 / 1e9);
        family.sample("_count", &[("command", &name)], total as f64);
    }
}

/// All families, in the text format.
pub fn render(source: &Source<'_>) -> String {
    let mut out = String::with_capacity(64 * 1024);
    for metric in METRICS {
        let _ = writeln!(
            out,
            "# HELP {} {}",
            metric.name,
            metric.help.replace('\\', "\\\\").replace('\n', "\\n")
        );
        let _ = writeln!(out, "# TYPE {} {}", metric.name, metric.kind.word());
        let mut family = Family { name: metric.name, out: &mut out };
        match metric.read {
            Read::One(read) => family.sample("", &[], read(source)),
            Read::Each(read) => read(source, &mut family),
        }
    }
    out
}

/// docs/metrics.md.
pub fn reference_markdown() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         Made from the table in `crates/server/src/metrics.rs`; `UPDATE_DOCS=1 cargo test -p annulet --test docs` writes it anew.\n\n\
         Each node tells its own at `/metrics` on its HTTP port (`http_port`, 7301), as text for Prometheus. With `requirepass` set, ask\n\
         with `Authorization: Bearer PASSWORD`, or with basic authentication and any user. Counters run from the process's start.\n\n\
         Beside it, without a password: `/healthz` answers 200 while every thread of the node moves, `/readyz` while it also holds a\n\
         lease and serves every partition that it is primary of; otherwise 503 and the reason as text.\n\n\
         | metric | kind | in | what it tells |\n| --- | --- | --- | --- |\n",
    );
    for metric in METRICS {
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} |",
            metric.name,
            metric.kind.word(),
            metric.unit,
            metric.help
        );
    }
    page += "\nHistograms have buckets at the powers of two from 1 µs to 67 s. A sample with the label `command` is there once the command was\n\
             asked for; a subcommand is `config|get`.\n";
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use command::{lookup, place_of};
    use node::ShardCounters;
    use std::collections::{BTreeMap, BTreeSet};
    use types::ShardId;

    fn rendered(published: &Published) -> String {
        render(&Source {
            node: NodeId(7),
            published,
            totals: published.totals(),
            figures: ServerFigures::default(),
            clients: &ClientCount::default(),
            settings: Arc::new(Settings::default()),
            now: Instant(2_000_000_000),
        })
    }

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let published = Published::new(2);
        let get = place_of(lookup(b"get").unwrap());
        published.commands(ShardId(0)).done(get, 1, 900, false, true);
        published.commands(ShardId(1)).done(get, 1, 3_000, true, true);
        published.commands(ShardId(1)).rejected(get);
        published.commands(ShardId(1)).error(1);
        for shard in [0, 1] {
            let log = published.log(ShardId(shard));
            ShardCounters::add(&log.bytes_written, 1000);
            ShardCounters::add(&log.batches, 4);
            ShardCounters::add(&log.syncs, 3);
            ShardCounters::add(&log.sync_ns, 250_000_000);
            ShardCounters::set(&log.disk_bytes, 4096);
            ShardCounters::add(&log.snapshots, 2);
            ShardCounters::add(&log.snapshot_bytes, 700);
            published.saved(ShardId(shard), 1 + u64::from(shard), 1_700_000_000 + u64::from(shard));
        }
        ShardCounters::add(&published.log(ShardId(1)).snapshots_failed, 1);
        assert_eq!((0..3).map(|_| published.ask_save()).last(), Some(3));
        published.set_disk_full(ShardId(1), true);
        published.set_log_busy(ShardId(1), Some(Instant(1_500_000_000)));
        let text = rendered(&published);
        let mut types: BTreeMap<&str, &str> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(types.insert(name, kind).is_none(), "{name} twice");
                continue;
            }
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(!types.contains_key(name) && help.ends_with('.'), "{line}");
                continue;
            }
            let (sample, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(seen.insert(sample), "{sample} twice");
            let name = sample.split('{').next().unwrap();
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let family = family.filter(|family| types.get(family) == Some(&"histogram")).unwrap_or(name);
            assert!(types.contains_key(family), "{line}");
            assert_eq!(types[family] == "counter", family.ends_with("_total"), "{family}");
            let labels = sample.strip_prefix(name).unwrap();
            assert!(labels.is_empty() || labels.starts_with('{') && labels.ends_with("\"}"), "{line}");
        }
        for line in [
            "annulet_info{node=\"7\",version=\"0.1.0\"} 1",
            "annulet_commands_total{command=\"get\"} 2",
            "annulet_command_failures_total{command=\"get\"} 1",
            "annulet_command_rejections_total{command=\"get\"} 1",
            "annulet_command_duration_seconds_bucket{command=\"get\",le=\"0.000001\"} 1",
            "annulet_command_duration_seconds_bucket{command=\"get\",le=\"0.000004\"} 2",
            "annulet_command_duration_seconds_bucket{command=\"get\",le=\"+Inf\"} 2",
            "annulet_command_duration_seconds_sum{command=\"get\"} 0.0000039",
            "annulet_command_duration_seconds_count{command=\"get\"} 2",
            "annulet_errors_total{error=\"WRONGTYPE\"} 1",
            "annulet_lease_remaining_seconds 0",
            "annulet_log_written_bytes_total 2000",
            "annulet_log_batches_total 8",
            "annulet_log_syncs_total 6",
            "annulet_log_sync_seconds_total 0.5",
            "annulet_log_busy_seconds 0.5",
            "annulet_log_disk_bytes 8192",
            "annulet_disk_full 1",
            "annulet_snapshots_written_total 4",
            "annulet_snapshots_written_bytes_total 1400",
            "annulet_snapshots_failed_total 1",
            "annulet_saves_asked_total 3",
            "annulet_saves_done_total 1",
            "annulet_last_save_timestamp_seconds 1700000000",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        assert_eq!(types.len(), METRICS.len());
    }

    #[test]
    fn labels_are_escaped() {
        let mut out = String::new();
        Family { name: "a", out: &mut out }.sample("", &[("b", "\\ \" \n"), ("c", "")], 0.5);
        assert_eq!(out, "a{b=\"\\\\ \\\" \\n\",c=\"\"} 0.5\n");
    }

    #[test]
    fn the_page_has_every_family() {
        let page = reference_markdown();
        for line in rendered(&Published::new(1)).lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            assert!(page.contains(&format!("| `{name}` | {kind} |")), "{name}");
        }
    }
}
