//! INFO: the node in figures, in the sections and names of Redis, which tools parse.

use super::hello::REDIS_VERSION;
use crate::host::InfoData;
use crate::{Categories, Command, CommandError, Door, Flags, Handler, Host, Reply, Session};
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

type Section = fn(&mut Lines, &InfoData, &Settings, Door);

/// The sections, in the order in which Redis shows them; Annulet's own last.
const SECTIONS: &[(&str, Section)] = &[
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Persistence", persistence),
    ("Stats", stats),
    ("Replication", replication),
    ("CPU", cpu),
    ("Cluster", cluster),
    ("Keyspace", keyspace),
    ("Annulet", annulet),
];

fn run(session: &mut Session, host: &mut dyn Host, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    let data = host.info();
    let asked = |name: &str| {
        args.len() == 1
            || args[1..].iter().any(|arg| {
                [name, "all", "default", "everything"]
                    .iter()
                    .any(|word| arg.eq_ignore_ascii_case(word.as_bytes()))
            })
    };
    let mut lines = Lines(String::with_capacity(4096));
    for (name, section) in SECTIONS.iter().filter(|(name, _)| asked(name)) {
        if !lines.0.is_empty() {
            lines.0 += "\r\n";
        }
        let _ = write!(lines.0, "# {name}\r\n");
        section(&mut lines, &data, host.settings(), session.door);
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

fn server(lines: &mut Lines, data: &InfoData, settings: &Settings, door: Door) {
    lines.add("redis_version", REDIS_VERSION);
    lines.add("annulet_version", &data.version);
    lines.add("redis_git_sha1", "00000000");
    lines.add("redis_git_dirty", 0);
    lines.add("redis_build_id", &data.build_id);
    lines.add("redis_mode", if door == Door::Cluster { "cluster" } else { "standalone" });
    lines.add("os", &data.os);
    lines.add("arch_bits", usize::BITS);
    lines.add("process_id", data.process_id);
    lines.add("run_id", &data.run_id);
    lines.add("tcp_port", if door == Door::Cluster { settings.cluster_port } else { settings.port });
    lines.add("server_time_usec", data.now_us);
    lines.add("uptime_in_seconds", data.uptime_seconds);
    lines.add("uptime_in_days", data.uptime_seconds / 86_400);
    lines.add("io_threads_active", u8::from(data.shards > 1));
}

fn clients(lines: &mut Lines, data: &InfoData, settings: &Settings, _: Door) {
    lines.add("connected_clients", data.connected_clients);
    lines.add("maxclients", settings.maxclients);
    lines.add("blocked_clients", data.waiting_clients);
}

fn memory(lines: &mut Lines, data: &InfoData, _: &Settings, _: Door) {
    lines.add_bytes("used_memory", data.used_memory);
    lines.add_bytes("used_memory_rss", data.used_memory_rss);
    lines.add_bytes("used_memory_peak", data.used_memory_peak);
    lines.add("used_memory_dataset", data.used_memory_dataset);
    lines.add_bytes("total_system_memory", data.total_system_memory);
    lines.add_bytes("maxmemory", 0);
    lines.add("maxmemory_policy", "noeviction");
    let ratio = data.used_memory_rss as f64 / data.used_memory.max(1) as f64;
    lines.add("mem_fragmentation_ratio", format_args!("{ratio:.2}"));
    lines.add("mem_allocator", "jemalloc");
}

fn persistence(lines: &mut Lines, data: &InfoData, settings: &Settings, _: Door) {
    lines.add("loading", u8::from(data.loading));
    lines.add("rdb_changes_since_last_save", 0);
    lines.add("rdb_bgsave_in_progress", 0);
    lines.add("rdb_last_bgsave_status", "ok");
    lines.add("aof_enabled", 0);
    lines.add("aof_rewrite_in_progress", 0);
    lines.add("log", settings.log);
}

fn stats(lines: &mut Lines, data: &InfoData, _: &Settings, _: Door) {
    lines.add("total_connections_received", data.total_connections_received);
    lines.add("total_commands_processed", data.total_commands_processed);
    lines.add("instantaneous_ops_per_sec", data.instantaneous_ops_per_sec);
    lines.add("total_net_input_bytes", data.total_net_input_bytes);
    lines.add("total_net_output_bytes", data.total_net_output_bytes);
    lines.add("rejected_connections", data.rejected_connections);
    lines.add("expired_keys", data.expired_keys);
    lines.add("evicted_keys", 0);
    lines.add("keyspace_hits", data.keyspace_hits);
    lines.add("keyspace_misses", data.keyspace_misses);
    lines.add("pubsub_channels", 0);
    lines.add("pubsub_patterns", 0);
    lines.add("total_error_replies", data.total_error_replies);
    lines.add("forwarded_requests", data.forwarded_requests);
    lines.add("unknown_outcomes", data.unknown_outcomes);
}

fn replication(lines: &mut Lines, data: &InfoData, _: &Settings, _: Door) {
    // Each node is primary of some partitions: to a client it is a master.
    lines.add("role", "master");
    lines.add("connected_slaves", data.connected_backups);
    lines.add("master_failover_state", "no-failover");
    lines.add("master_replid", &data.replication_id);
    lines.add("master_repl_offset", data.replication_offset);
}

fn cpu(lines: &mut Lines, data: &InfoData, _: &Settings, _: Door) {
    lines.add("used_cpu_sys", format_args!("{:.6}", data.used_cpu_sys));
    lines.add("used_cpu_user", format_args!("{:.6}", data.used_cpu_user));
}

fn cluster(lines: &mut Lines, _: &InfoData, _: &Settings, door: Door) {
    lines.add("cluster_enabled", u8::from(door == Door::Cluster));
}

fn keyspace(lines: &mut Lines, data: &InfoData, _: &Settings, _: Door) {
    if data.keys > 0 {
        lines.add("db0", format_args!("keys={},expires={},avg_ttl=0", data.keys, data.expires));
    }
}

fn annulet(lines: &mut Lines, data: &InfoData, settings: &Settings, _: Door) {
    lines.add("node_id", data.node_id);
    lines.add("coordinator", data.coordinator);
    lines.add("shards", data.shards);
    lines.add("copies", settings.copies);
    lines.add("primaries", data.primaries);
    lines.add("backups", data.backups);
    lines.add("partitions_short_of_copies", data.partitions_short_of_copies);
    lines.add("partitions_unavailable", data.partitions_unavailable);
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
        assert_eq!(world.run("INFO everything"), all);
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
