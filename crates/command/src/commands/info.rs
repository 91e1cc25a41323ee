//! INFO: the node in figures, in the sections and names of Redis, which tools parse.

use super::hello::REDIS_VERSION;
use super::is;
use crate::host::InfoData;
use crate::{
    Categories, Command, CommandError, CommandFigures, Door, ERROR_WORDS, Flags, Handler, Host, Reply,
    Session, places,
};
use std::fmt::{Display, Write};
use types::settings::Settings;

/// INFO [section [section ...]]
pub(crate) const COMMAND: Command = Command {
    name: "info",
    syntax: "[section [section ...]]",
    arity: -1,
    flags: Flags::LOADING.with(Flags::STALE),
    group: "server",
    summary: "The node in figures, by section.",
    categories: Categories::SLOW.with(Categories::DANGEROUS),
    handler: Handler::Session(run),
    ..Command::BASE
};

/// What a section is made from.
struct Source<'a> {
    data: InfoData,
    commands: Vec<CommandFigures>,
    settings: &'a Settings,
    door: Door,
}

/// A section's name, what it shows, and whether it is shown where none is asked for.
type Section = (&'static str, fn(&mut Lines, &Source<'_>), bool);

/// The sections, in the order in which Redis shows them; Annulet's own last.
const SECTIONS: &[Section] = &[
    ("Server", server, true),
    ("Clients", clients, true),
    ("Memory", memory, true),
    ("Persistence", persistence, true),
    ("Stats", stats, true),
    ("Replication", replication, true),
    ("CPU", cpu, true),
    ("Modules", |_, _| {}, true),
    ("Commandstats", commandstats, false),
    ("Errorstats", errorstats, true),
    ("Latencystats", latencystats, false),
    ("Cluster", cluster, true),
    ("Keyspace", keyspace, true),
    ("Annulet", annulet, true),
];

fn run(session: &mut Session, host: &mut dyn Host, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    let asks = |word: &str| args[1..].iter().any(|arg| is(arg, word));
    let by_default = args.len() == 1 || asks("default");
    let all = asks("all") || asks("everything");
    let data = host.info();
    let commands = host.command_figures();
    let source = Source { data, commands, settings: host.settings(), door: session.door };
    let mut lines = Lines(String::with_capacity(8192));
    let wanted = |(name, _, default): &&Section| all || (by_default && *default) || asks(name);
    for (name, section, _) in SECTIONS.iter().filter(wanted) {
        if !lines.0.is_empty() {
            lines.0 += "\r\n";
        }
        let _ = write!(lines.0, "# {name}\r\n");
        section(&mut lines, &source);
    }
    Ok(Reply::Verbatim(lines.0))
}

struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, value: impl Display) {
        let _ = write!(self.0, "{name}:{value}\r\n");
    }

    /// A size, and the same for people.
    fn add_bytes(&mut self, name: &str, bytes: u64) {
        self.add(name, bytes);
        self.add(&format!("{name}_human"), human(bytes));
    }
}

fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["K", "M", "G", "T", "P"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.2}{}", UNITS[unit])
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.2}%", part as f64 * 100.0 / whole.max(1) as f64)
}

fn ratio(part: u64, whole: u64) -> String {
    format!("{:.2}", part as f64 / whole.max(1) as f64)
}

fn server(lines: &mut Lines, source: &Source<'_>) {
    let Source { data, settings, door, .. } = source;
    lines.add("redis_version", REDIS_VERSION);
    lines.add("annulet_version", &data.version);
    lines.add("redis_git_sha1", "00000000");
    lines.add("redis_git_dirty", 0);
    lines.add("redis_build_id", &data.build_id);
    lines.add("redis_mode", if *door == Door::Cluster { "cluster" } else { "standalone" });
    lines.add("os", &data.os);
    lines.add("arch_bits", usize::BITS);
    lines.add("multiplexing_api", "epoll");
    lines.add("process_id", data.process_id);
    lines.add("process_supervised", "no");
    lines.add("run_id", &data.run_id);
    lines.add("tcp_port", if *door == Door::Cluster { settings.cluster_port } else { settings.port });
    lines.add("server_time_usec", data.now_us);
    lines.add("uptime_in_seconds", data.uptime_seconds);
    lines.add("uptime_in_days", data.uptime_seconds / 86_400);
    // How often each data thread looks after what is due.
    lines.add("hz", 200);
    lines.add("configured_hz", 200);
    lines.add("executable", &data.executable);
    // A node reads its file once, at the start.
    lines.add("config_file", "");
    lines.add("io_threads_active", u8::from(data.shards > 1));
}

fn clients(lines: &mut Lines, source: &Source<'_>) {
    let Source { data, settings, .. } = source;
    lines.add("connected_clients", data.connected_clients);
    lines.add("maxclients", settings.maxclients);
    lines.add("blocked_clients", data.waiting_clients);
    lines.add("tracking_clients", 0);
    lines.add("clients_in_timeout_table", 0);
}

fn memory(lines: &mut Lines, source: &Source<'_>) {
    let Source { data, settings, .. } = source;
    lines.add_bytes("used_memory", data.used_memory);
    lines.add_bytes("used_memory_rss", data.used_memory_rss);
    lines.add_bytes("used_memory_peak", data.used_memory_peak);
    lines.add("used_memory_peak_perc", percent(data.used_memory, data.used_memory_peak));
    lines.add("used_memory_overhead", data.used_memory.saturating_sub(data.used_memory_dataset));
    lines.add("used_memory_startup", data.used_memory_startup);
    lines.add("used_memory_dataset", data.used_memory_dataset);
    let beyond_startup = data.used_memory.saturating_sub(data.used_memory_startup);
    lines.add(
        "used_memory_dataset_perc",
        percent(data.used_memory_dataset.min(beyond_startup), beyond_startup),
    );
    lines.add("allocator_allocated", data.used_memory);
    lines.add("allocator_active", data.allocator_active);
    lines.add("allocator_resident", data.allocator_resident);
    lines.add_bytes("total_system_memory", data.total_system_memory);
    lines.add("used_memory_lua", 0);
    lines.add("used_memory_scripts", 0);
    lines.add("number_of_cached_scripts", 0);
    lines.add_bytes("maxmemory", settings.maxmemory.0);
    lines.add("maxmemory_policy", "noeviction");
    lines.add("allocator_frag_ratio", ratio(data.allocator_active, data.used_memory));
    lines.add("allocator_frag_bytes", data.allocator_active.saturating_sub(data.used_memory));
    lines.add("allocator_rss_ratio", ratio(data.allocator_resident, data.allocator_active));
    lines.add("allocator_rss_bytes", data.allocator_resident.saturating_sub(data.allocator_active));
    lines.add("rss_overhead_ratio", ratio(data.used_memory_rss, data.allocator_resident));
    lines.add("rss_overhead_bytes", data.used_memory_rss as i64 - data.allocator_resident as i64);
    lines.add("mem_fragmentation_ratio", ratio(data.used_memory_rss, data.used_memory));
    lines.add("mem_fragmentation_bytes", data.used_memory_rss as i64 - data.used_memory as i64);
    lines.add("mem_allocator", "jemalloc");
    lines.add("active_defrag_running", 0);
    lines.add("lazyfree_pending_objects", 0);
}

/// The log stands for Redis' append-only file, the partitions' snapshots for its RDB file.
fn persistence(lines: &mut Lines, source: &Source<'_>) {
    let Source { data, settings, .. } = source;
    let disk = &data.disk;
    lines.add("loading", u8::from(data.loading));
    lines.add("async_loading", 0);
    lines.add("rdb_changes_since_last_save", 0);
    lines.add("rdb_bgsave_in_progress", u8::from(disk.saving));
    lines.add("rdb_last_save_time", disk.last_save_s);
    lines.add("rdb_last_bgsave_status", "ok");
    lines.add("rdb_last_bgsave_time_sec", -1);
    lines.add("rdb_current_bgsave_time_sec", -1);
    lines.add("rdb_saves", disk.saves);
    lines.add("rdb_last_cow_size", 0);
    lines.add("aof_enabled", u8::from(disk.logs));
    lines.add("aof_rewrite_in_progress", 0);
    lines.add("aof_rewrite_scheduled", 0);
    lines.add("aof_last_rewrite_time_sec", -1);
    lines.add("aof_current_rewrite_time_sec", -1);
    lines.add("aof_last_bgrewrite_status", "ok");
    lines.add("aof_last_write_status", if disk.disk_full { "err" } else { "ok" });
    lines.add("aof_last_cow_size", 0);
    if disk.logs {
        lines.add("aof_current_size", disk.log_bytes);
    }
    lines.add("log", settings.log);
    lines.add("fsync", settings.fsync);
    lines.add("log_bytes_written", disk.written_bytes);
    lines.add("log_syncs", disk.syncs);
    lines.add("log_sync_usec", disk.sync_ns / 1000);
}

fn stats(lines: &mut Lines, source: &Source<'_>) {
    let data = &source.data;
    lines.add("total_connections_received", data.total_connections_received);
    lines.add("total_commands_processed", data.total_commands_processed);
    lines.add("instantaneous_ops_per_sec", data.instantaneous_ops_per_sec);
    lines.add("total_net_input_bytes", data.total_net_input_bytes);
    lines.add("total_net_output_bytes", data.total_net_output_bytes);
    lines.add("instantaneous_input_kbps", format_args!("{:.2}", data.instantaneous_input_kbps));
    lines.add("instantaneous_output_kbps", format_args!("{:.2}", data.instantaneous_output_kbps));
    lines.add("rejected_connections", data.rejected_connections);
    lines.add("sync_full", 0);
    lines.add("sync_partial_ok", 0);
    lines.add("sync_partial_err", 0);
    lines.add("expired_keys", data.expired_keys);
    lines.add("evicted_keys", 0);
    lines.add("evicted_clients", 0);
    lines.add("keyspace_hits", data.keyspace_hits);
    lines.add("keyspace_misses", data.keyspace_misses);
    lines.add("pubsub_channels", 0);
    lines.add("pubsub_patterns", 0);
    lines.add("latest_fork_usec", 0);
    lines.add("total_forks", 0);
    lines.add("migrate_cached_sockets", 0);
    lines.add("slave_expires_tracked_keys", 0);
    lines.add("active_defrag_hits", 0);
    lines.add("active_defrag_misses", 0);
    lines.add("total_error_replies", data.total_error_replies);
    lines.add("forwarded_requests", data.forwarded_requests);
    lines.add("unknown_outcomes", data.unknown_outcomes);
}

fn replication(lines: &mut Lines, source: &Source<'_>) {
    let data = &source.data;
    // Each node is primary of some partitions: to a client it is a master.
    lines.add("role", "master");
    lines.add("connected_slaves", data.connected_backups);
    lines.add("master_failover_state", "no-failover");
    lines.add("master_replid", &data.replication_id);
    lines.add("master_replid2", "0".repeat(40));
    lines.add("master_repl_offset", data.replication_offset);
    lines.add("second_repl_offset", -1);
    lines.add("repl_backlog_active", 0);
    lines.add("repl_backlog_size", 0);
    lines.add("repl_backlog_first_byte_offset", 0);
    lines.add("repl_backlog_histlen", 0);
}

fn cpu(lines: &mut Lines, source: &Source<'_>) {
    let data = &source.data;
    lines.add("used_cpu_sys", format_args!("{:.6}", data.used_cpu_sys));
    lines.add("used_cpu_user", format_args!("{:.6}", data.used_cpu_user));
    lines.add("used_cpu_sys_children", format_args!("{:.6}", data.used_cpu_sys_children));
    lines.add("used_cpu_user_children", format_args!("{:.6}", data.used_cpu_user_children));
}

fn commandstats(lines: &mut Lines, source: &Source<'_>) {
    for (command, figures) in places().zip(&source.commands) {
        let CommandFigures { calls, failed, rejected, took_ns, .. } = figures;
        if calls + rejected == 0 {
            continue;
        }
        let usec = took_ns / 1000;
        let each = *took_ns as f64 / 1000.0 / (*calls).max(1) as f64;
        lines.add(
            &format!("cmdstat_{}", command.full_name()),
            format_args!(
                "calls={calls},usec={usec},usec_per_call={each:.2},rejected_calls={rejected},failed_calls={failed}"
            ),
        );
    }
}

fn errorstats(lines: &mut Lines, source: &Source<'_>) {
    for (word, count) in ERROR_WORDS.iter().zip(&source.data.errors).filter(|(_, count)| **count > 0) {
        lines.add(&format!("errorstat_{word}"), format_args!("count={count}"));
    }
}

fn latencystats(lines: &mut Lines, source: &Source<'_>) {
    for (command, figures) in places().zip(&source.commands) {
        if figures.latencies.total() > 0 {
            let us = |part| figures.latencies.quantile_ns(part) as f64 / 1000.0;
            let (half, most, nearly_all) = (us(0.5), us(0.99), us(0.999));
            lines.add(
                &format!("latency_percentiles_usec_{}", command.full_name()),
                format_args!("p50={half:.3},p99={most:.3},p99.9={nearly_all:.3}"),
            );
        }
    }
}

fn cluster(lines: &mut Lines, source: &Source<'_>) {
    lines.add("cluster_enabled", u8::from(source.door == Door::Cluster));
}

fn keyspace(lines: &mut Lines, source: &Source<'_>) {
    let data = &source.data;
    if data.keys > 0 {
        lines.add("db0", format_args!("keys={},expires={},avg_ttl=0", data.keys, data.expires));
    }
}

fn annulet(lines: &mut Lines, source: &Source<'_>) {
    let Source { data, .. } = source;
    lines.add("node_id", data.node_id);
    lines.add("coordinator", data.coordinator);
    lines.add("shards", data.shards);
    lines.add("copies", data.copies);
    lines.add("min_in_sync", data.min_in_sync);
    lines.add("primaries", data.primaries);
    lines.add("backups", data.backups);
    lines.add("replication_lag_records_max", data.replication_lag_max);
    lines.add("partitions_short_of_copies", data.partitions_short_of_copies);
    lines.add("partitions_unavailable", data.partitions_unavailable);
    lines.add("moves_left", data.moves_left);
    lines.add("weight", data.weight);
    lines.add("zone", &data.zone);
    lines.add("draining", u8::from(data.draining));
    lines.add("nodes_draining", data.nodes_draining);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[test]
    fn sections_are_chosen_by_name() {
        let mut world = World::new();
        let all = world.run("info");
        for line in [
            "# Server",
            "redis_version:7.2.4",
            "annulet_version:0.0.0",
            "role:master",
            "db0:keys=3,expires=1",
        ] {
            assert!(all.contains(line), "{line}");
        }
        assert_eq!(world.run("INFO default"), all);
        let everything = world.run("INFO everything");
        assert_eq!(world.run("INFO all"), everything);
        for line in [
            "cmdstat_get:calls=3,usec=103,usec_per_call=34.50,rejected_calls=2,failed_calls=0\r\n",
            "cmdstat_client|setname:calls=1,",
            "latency_percentiles_usec_get:p50=2.000,p99=112.000,p99.9=112.000\r\n",
        ] {
            assert!(everything.contains(line) && !all.contains(line), "{line}");
        }
        assert_eq!(world.run("info errorstats"), "# Errorstats\r\nerrorstat_WRONGTYPE:count=2\r\n");
        assert_eq!(world.run("info CLUSTER"), "# Cluster\r\ncluster_enabled:0\r\n");
        assert_eq!(
            world.run("info keyspace cluster"),
            "# Cluster\r\ncluster_enabled:0\r\n\r\n# Keyspace\r\ndb0:keys=3,expires=1,avg_ttl=0\r\n"
        );
        assert_eq!(world.run("info nonsense"), "");
    }

    #[test]
    fn each_door_says_what_it_is() {
        let mut world = World::new();
        assert!(world.run("info server").contains("redis_mode:standalone\r\n"));
        world.session.door = Door::Cluster;
        assert!(world.run("info server").contains("redis_mode:cluster\r\n"));
        assert!(world.run("info cluster").contains("cluster_enabled:1\r\n"));
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!(human(1023), "1023B");
        assert_eq!(human(1536), "1.50K");
        assert_eq!(human(u64::MAX), "16384.00P");
    }
}
