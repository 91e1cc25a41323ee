//! redis-cli and redis-benchmark, as their packages bring them.

use crate::local_cluster::{Shared, connect, output, printed};
use std::io::{Read, Write};
use std::process::{Command, Stdio};

/// What to do where they are missing.
pub const TOOLS: &str = "this test needs redis-cli and redis-benchmark: apt install redis-tools";

/// `redis-cli -p PORT`.
pub fn redis_cli(port: u16) -> Command {
    let mut command = Command::new("redis-cli");
    command.args(["-p", &port.to_string()]).env_remove("REDISCLI_AUTH").stdin(Stdio::null());
    command
}

fn said(port: u16, line: &str) -> String {
    printed(redis_cli(port).args(line.split(' ')), TOOLS)
}

#[test]
fn redis_cli_runs_single_commands() {
    let cluster = Shared::turn();
    for (node, port) in cluster.ports().into_iter().enumerate() {
        assert_eq!(said(port, "ping"), "PONG\n");
        assert_eq!(said(port, &format!("set cli {node}")), "OK\n");
        assert_eq!(said(port, "-3 get cli"), format!("{node}\n"));
        assert_eq!(said(port, "-3 hello").lines().next(), Some("server redis"));
        assert_eq!(said(port, "--no-raw incr cli"), format!("(integer) {}\n", node + 1));
        assert_eq!(said(port, "--no-raw get none"), "(nil)\n");
        assert_eq!(said(port, "--no-raw mget cli none"), format!("1) \"{}\"\n2) (nil)\n", node + 1));
        assert_eq!(said(port, "--json -3 config get copies"), "{\"copies\":\"2\"}\n");
        let refused = output(redis_cli(port).args(["-e", "get"]), TOOLS);
        assert_eq!(refused.status.code(), Some(1));
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(text.contains("wrong number of arguments for 'get' command"), "{text}");
    }
}

#[test]
fn redis_cli_reads_commands_and_follows_redirections() {
    let cluster = Shared::turn();
    let lines: String = (0..100).map(|number| format!("set follow:{number} \"value {number}\"\n")).collect();
    let script = write_to(redis_cli(cluster.cluster_ports()[0]).arg("-c"), lines.as_bytes());
    // With -c it says where it was redirected to.
    assert_eq!(script.lines().filter(|line| *line == "OK").count(), 100, "{script}");
    for port in cluster.cluster_ports() {
        let got = printed(redis_cli(port).args(["-c", "get", "follow:7"]), TOOLS);
        assert_eq!(got, "value 7\n");
        let got = printed(redis_cli(port).args(["-c", "-3", "get", "follow:8"]), TOOLS);
        assert_eq!(got, "value 8\n");
    }
    // It has the map from any of them, and finds nothing wrong with it.
    let checked = said(
        cluster.cluster_ports()[1],
        &format!("--cluster check 127.0.0.1:{}", cluster.cluster_ports()[1]),
    );
    assert!(checked.contains("[OK] All nodes agree about slots configuration."), "{checked}");
    assert!(checked.contains("[OK] All 16384 slots covered."), "{checked}");
    assert!(checked.contains("[OK] 100 keys in 3 masters."), "{checked}");
}

#[test]
fn redis_cli_inserts_masses_and_looks_through_them() {
    const KEYS: usize = 20_000;
    let cluster = Shared::turn();
    let mut mass = Vec::new();
    for number in 0..KEYS {
        let (key, value) = (format!("mass:{number}"), "v".repeat(1 + number % 50));
        let (k, v) = (key.len(), value.len());
        write!(mass, "*3\r\n$3\r\nSET\r\n${k}\r\n{key}\r\n${v}\r\n{value}\r\n").unwrap();
    }
    let told = write_to(redis_cli(cluster.ports()[1]).arg("--pipe"), &mass);
    assert!(told.contains(&format!("errors: 0, replies: {KEYS}")), "{told}");
    assert_eq!(said(cluster.ports()[2], "dbsize"), format!("{KEYS}\n"));

    let scanned = said(cluster.ports()[2], "--scan --pattern mass:*");
    let mut keys: Vec<&str> = scanned.lines().collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), KEYS);
    let big = said(cluster.ports()[0], "--bigkeys");
    assert!(big.contains(&format!("Sampled {KEYS} keys in the keyspace!")), "{big}");
    assert!(big.contains("has 50 bytes"), "{big}");
}

#[test]
fn redis_cli_watches_the_figures() {
    let cluster = Shared::turn();
    // It goes on for ever, and its output comes in blocks.
    let mut watching = redis_cli(cluster.port)
        .args(["--stat", "-i", "0.01"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("redis-cli: {error}; {TOOLS}"));
    let mut text = [0; 1000];
    let read = watching.stdout.take().expect("its output is piped").read_exact(&mut text);
    watching.kill().unwrap();
    watching.wait().unwrap();
    read.unwrap();
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().find(|line| line.starts_with(char::is_numeric)).expect("a line of figures");
    // Keys, memory, clients, blocked, requests and how many more, connections.
    assert_eq!(line.split_whitespace().count(), 7, "{text}");
}

#[test]
fn redis_benchmark_runs_plain_and_cluster_aware() {
    let cluster = Shared::turn();
    let runs = [
        (cluster.ports()[1], &["-P", "16"][..]),
        (cluster.ports()[2], &["-d", "1000", "-c", "10"]),
        (cluster.cluster_ports()[0], &["--cluster", "-P", "16"]),
        (cluster.cluster_ports()[2], &["--cluster"]),
    ];
    for (port, flags) in runs {
        let mut command = Command::new("redis-benchmark");
        let port = port.to_string();
        command.args(["-p", &port, "-t", "set,get", "-n", "5000", "-r", "1000", "--csv"]).args(flags);
        let output = output(&mut command, TOOLS);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && complaints.is_empty(), "{text}\n{complaints}");
        assert!(text.contains("\"SET\",\"") && text.contains("\"GET\",\""), "{text}");
        assert!(!text.contains("rror"), "{text}");
    }
    let size: usize = redis::cmd("DBSIZE").query(&mut connect(cluster.port, 2)).unwrap();
    assert!(size > 500, "the keys are there: {size}");
}

/// Runs a program on this input, and returns what it printed; it has to succeed.
pub fn write_to(command: &mut Command, input: &[u8]) -> String {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}; {TOOLS}"));
    let mut stdin = child.stdin.take().expect("its input is piped");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().expect("its output")
    });
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}
