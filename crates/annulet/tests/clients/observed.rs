//! What operators look at: the HTTP port, INFO as exporters parse it, SLOWLOG, LATENCY, and settings changed while nodes run.

use crate::local_cluster::{Shared, connect, until};
use crate::redis_tools::{TOOLS, redis_cli};
use crate::script::{say, shown};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

/// Asks by HTTP: status and body. The lines are further headers. 0 where the connection just ends.
pub fn http_get(port: u16, path: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the HTTP port is open");
    stream.set_read_timeout(Some(crate::local_cluster::PATIENCE)).expect("a timeout can be set");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    // A port that has had enough may hang up before it was told all.
    let _ = stream.write_all(request.as_bytes());
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, text.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
}

/// The value of a sample, as /metrics writes it.
pub fn sample(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn the_http_port_tells_how_a_node_fares() {
    let cluster = Shared::turn();
    for port in cluster.http_ports() {
        assert_eq!(http_get(port, "/healthz", ""), (200, "ok\n".into()));
        until("ready", || http_get(port, "/readyz", "").0 == 200);
        assert_eq!(http_get(port, "/nothing", "").0, 404);
        assert!(http_get(port, "/", "").1.contains("/metrics"));
        // Too long a head ends its connection, and nothing else.
        let long = format!("X-Long: {}\r\n", "x".repeat(100_000));
        assert_ne!(http_get(port, "/healthz", &long).0, 200);
    }
    let metrics = |node: usize| {
        let (status, text) = http_get(cluster.http_ports()[node], "/metrics", "");
        assert_eq!(status, 200);
        text
    };
    let sets = |text: &str| sample(text, "annulet_commands_total{command=\"set\"}").unwrap_or(0.0);
    let before = sets(&metrics(0));
    let mut connection = connect(cluster.port, 2);
    for number in 0..50 {
        assert_eq!(shown(&say(&mut connection, &format!("SET observed:{number} 1"))), "OK");
    }
    let text = metrics(0);
    assert_eq!(sets(&text) - before, 50.0);
    assert!(sample(&text, "annulet_command_duration_seconds_count{command=\"set\"}").unwrap() >= 50.0);
    assert!(sample(&text, "annulet_memory_allocated_bytes").unwrap() > 100_000.0);
    assert!(sample(&text, "annulet_lease_remaining_seconds").unwrap() > 0.0);
    let sum = |name: &str| (0..3).map(|node| sample(&metrics(node), name).unwrap()).sum::<f64>();
    assert_eq!(sum("annulet_partitions{role=\"primary\"}"), 1024.0);
    until("one coordinator", || sum("annulet_is_coordinator") == 1.0);
    until("every key counted", || sum("annulet_keys") == 50.0);
    until("the backups caught up", || sum("annulet_replication_lag_records") == 0.0);
}

/// What redis_exporter reads as numbers, of a Redis without replicas and files.
const NUMBERS: &[&str] = &[
    "uptime_in_seconds",
    "process_id",
    "io_threads_active",
    "connected_clients",
    "blocked_clients",
    "maxclients",
    "tracking_clients",
    "clients_in_timeout_table",
    "allocator_active",
    "allocator_allocated",
    "allocator_resident",
    "allocator_frag_ratio",
    "allocator_frag_bytes",
    "allocator_rss_ratio",
    "allocator_rss_bytes",
    "used_memory",
    "used_memory_rss",
    "used_memory_peak",
    "used_memory_lua",
    "used_memory_overhead",
    "used_memory_startup",
    "used_memory_dataset",
    "used_memory_scripts",
    "number_of_cached_scripts",
    "maxmemory",
    "mem_fragmentation_ratio",
    "mem_fragmentation_bytes",
    "active_defrag_running",
    "lazyfree_pending_objects",
    "loading",
    "async_loading",
    "rdb_changes_since_last_save",
    "rdb_bgsave_in_progress",
    "rdb_last_save_time",
    "rdb_last_bgsave_time_sec",
    "rdb_current_bgsave_time_sec",
    "rdb_last_cow_size",
    "aof_enabled",
    "aof_rewrite_in_progress",
    "aof_rewrite_scheduled",
    "aof_last_rewrite_time_sec",
    "aof_current_rewrite_time_sec",
    "aof_last_cow_size",
    "total_connections_received",
    "total_commands_processed",
    "instantaneous_ops_per_sec",
    "total_net_input_bytes",
    "total_net_output_bytes",
    "instantaneous_input_kbps",
    "instantaneous_output_kbps",
    "rejected_connections",
    "sync_full",
    "sync_partial_ok",
    "sync_partial_err",
    "expired_keys",
    "evicted_keys",
    "keyspace_hits",
    "keyspace_misses",
    "pubsub_channels",
    "pubsub_patterns",
    "latest_fork_usec",
    "migrate_cached_sockets",
    "slave_expires_tracked_keys",
    "active_defrag_hits",
    "active_defrag_misses",
    "total_error_replies",
    "connected_slaves",
    "master_repl_offset",
    "second_repl_offset",
    "repl_backlog_active",
    "repl_backlog_size",
    "repl_backlog_first_byte_offset",
    "repl_backlog_histlen",
    "used_cpu_sys",
    "used_cpu_user",
    "used_cpu_sys_children",
    "used_cpu_user_children",
    "cluster_enabled",
];

#[test]
fn info_is_what_exporters_parse() {
    let cluster = Shared::turn();
    let mut connection = connect(cluster.port, 2);
    assert_eq!(shown(&say(&mut connection, "CONFIG RESETSTAT")), "OK");
    for line in ["SET a 1 EX 1000", "GET a", "GET a", "INCR b", "GETDEL", "CONFIG GET port"] {
        let _ = say(&mut connection, line);
    }
    let said = redis_cli(cluster.port).args(["info", "everything"]).output().expect(TOOLS);
    let text = String::from_utf8(said.stdout).expect("INFO is text");
    let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
    for line in text.lines().map(|line| line.trim_end_matches('\r')).filter(|line| !line.is_empty()) {
        if !line.starts_with("# ") {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no field: {line}"));
            assert!(fields.insert(name, value).is_none(), "{name} twice");
        }
    }
    for name in NUMBERS {
        let value = fields.get(name).unwrap_or_else(|| panic!("{name} is missing"));
        assert!(value.parse::<f64>().is_ok(), "{name}:{value}");
    }
    for (name, value) in fields.iter().filter(|(name, _)| name.starts_with("cmdstat_")) {
        let parts: Vec<(&str, &str)> =
            value.split(',').map(|part| part.split_once('=').expect("a pair")).collect();
        let names: Vec<&str> = parts.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["calls", "usec", "usec_per_call", "rejected_calls", "failed_calls"], "{name}");
        assert!(parts.iter().all(|(_, value)| value.parse::<f64>().is_ok()), "{name}:{value}");
    }
    let starts = |name: &str, start: &str| {
        let value = fields.get(name).copied().unwrap_or_default();
        assert!(value.starts_with(start), "{name}:{value}");
    };
    starts("cmdstat_get", "calls=2,");
    starts("cmdstat_config|get", "calls=1,");
    starts("cmdstat_getdel", "calls=0,usec=0,usec_per_call=0.00,rejected_calls=1,failed_calls=0");
    starts("latency_percentiles_usec_get", "p50=");
    starts("errorstat_ERR", "count=1");
    starts("redis_mode", "standalone");
    assert!(fields["used_memory"].parse::<u64>().unwrap() > 100_000);
}

#[test]
fn settings_change_while_nodes_run() {
    let cluster = Shared::turn();
    let mut connections = cluster.ports().map(|port| connect(port, 2));
    let all = |connections: &mut [redis::Connection; 3], line: &str| {
        for connection in connections {
            assert_eq!(shown(&say(connection, line)), "OK", "{line}");
        }
    };
    // Memory: what needs more is refused, what does not goes on.
    all(&mut connections, "SET kept 1");
    all(&mut connections, "CONFIG SET maxmemory 1kb");
    until("OOM", || shown(&say(&mut connections[0], "SET more 1")).starts_with("!OOM"));
    assert_eq!(shown(&say(&mut connections[1], "GET kept")), "\"1\"");
    assert_eq!(shown(&say(&mut connections[1], "DEL kept")), "1");
    all(&mut connections, "CONFIG SET maxmemory 0");
    until("room again", || shown(&say(&mut connections[0], "SET more 1")) == "OK");
    // Clients: one more than there are is refused.
    let connection = &mut connections[0];
    assert_eq!(shown(&say(connection, "CONFIG SET maxclients 1")), "OK");
    let mut refused = String::new();
    TcpStream::connect(("127.0.0.1", cluster.port)).unwrap().read_to_string(&mut refused).unwrap();
    assert!(refused.starts_with("-ERR max number of clients reached"), "{refused}");
    assert_eq!(shown(&say(connection, "CONFIG SET maxclients 10000")), "OK");
    // All or nothing.
    let failed = shown(&say(connection, "CONFIG SET maxclients 77 lease-ms 400"));
    assert!(
        failed.contains("(possibly related to argument 'lease-ms') - can't set immutable config"),
        "{failed}"
    );
    assert_eq!(shown(&say(connection, "CONFIG GET maxclients")), "[\"maxclients\" \"10000\"]");
}

#[test]
fn slow_requests_and_latencies_are_shown() {
    let cluster = Shared::turn();
    let mut connection = connect(cluster.port, 2);
    for line in ["CONFIG RESETSTAT", "CONFIG SET slowlog-log-slower-than 0", "SLOWLOG RESET"] {
        assert_eq!(shown(&say(&mut connection, line)), "OK", "{line}");
    }
    let _ = say(&mut connection, "CLIENT SETNAME watcher");
    let _ = say(&mut connection, "GET slow:key");
    let _ = say(&mut connection, "AUTH hush-hush");
    let _ = say(&mut connection, "CONFIG SET requirepass hush-hush requirepass again");
    let slow = shown(&say(&mut connection, "SLOWLOG GET -1"));
    for part in ["\"GET\" \"slow:key\"", "\"watcher\"", "\"AUTH\" \"(redacted)\"", "127.0.0.1:"] {
        assert!(slow.contains(part), "{part} in {slow}");
    }
    assert!(!slow.contains("hush-hush"), "{slow}");
    assert_eq!(shown(&say(&mut connection, "CONFIG SET slowlog-log-slower-than 10000")), "OK");
    assert_eq!(shown(&say(&mut connection, "SLOWLOG RESET")), "OK");
    assert_eq!(shown(&say(&mut connection, "SLOWLOG LEN")), "0");
    let histogram = shown(&say(&mut connection, "LATENCY HISTOGRAM get set"));
    assert!(histogram.starts_with("[\"get\" [\"calls\" 1 \"histogram_usec\" ["), "{histogram}");
}
