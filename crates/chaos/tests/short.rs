//! Short runs of `chaos` against real processes: what must hold on every commit. Nothing here judges how long anything takes.
//!
//! The runs follow one another, since each fills the machine. They need the `annulet` binary, which this package does not
//! build: that of the same target directory, or the one that the environment variable ANNULET names.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One run at a time.
static TURN: Mutex<()> = Mutex::new(());

/// A run that hangs fails its test.
const LIMIT: Duration = Duration::from_secs(300);

fn annulet() -> PathBuf {
    if let Some(named) = std::env::var_os("ANNULET") {
        return named.into();
    }
    // TARGET/PROFILE/deps/this-test
    let own = std::env::current_exe().expect("this test is a file");
    let path = own.ancestors().nth(2).expect("it lies in TARGET/PROFILE/deps").join("annulet");
    assert!(
        path.is_file(),
        "there is no {}: run `cargo build -p annulet` (with the same profile) first, or set ANNULET",
        path.display()
    );
    path
}

/// Ends the run, and with it, by the kernel, its nodes.
struct Run(Child);

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a run prints with `--json`, and its exit code.
fn chaos(arguments: &[&str]) -> (serde_json::Value, Option<i32>) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut child = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(arguments)
        .args(["--json", "--clients", "3", "--partitions", "128"])
        // Requests outlast what a busy machine does to the nodes.
        .args(["--set", "request-timeout-ms=12000"])
        .arg("--annulet")
        .arg(annulet())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("chaos starts");
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut run = Run(child);
    // One line, less than a pipe holds: it can be read at the end.
    let started = Instant::now();
    let status = loop {
        if let Some(status) = run.0.try_wait().expect("a child") {
            break status;
        }
        assert!(started.elapsed() < LIMIT, "chaos {} still runs", arguments.join(" "));
        std::thread::sleep(Duration::from_millis(50));
    };
    let mut text = String::new();
    stdout.read_to_string(&mut text).expect("text");
    (serde_json::from_str(&text).unwrap_or(serde_json::Value::Null), status.code())
}

/// A run that keeps all promises and has done something.
fn clean(arguments: &[&str]) -> serde_json::Value {
    let (found, code) = chaos(arguments);
    assert_eq!(code, Some(0), "chaos {}: {found}", arguments.join(" "));
    assert_eq!(found["ok"], true);
    assert_eq!(found["result"]["writes"]["lost"], 0);
    assert!(found["result"]["writes"]["acknowledged"].as_u64() > Some(100), "{found}");
    found["result"].clone()
}

#[test]
fn killed_nodes_lose_nothing() {
    let result = clean(&["kill", "--rounds", "2", "--calm-ms", "600"]);
    assert_eq!(result["rounds"].as_array().map(Vec::len), Some(2));
    assert_eq!(result["rounds"][0]["was_coordinator"], true);
}

#[test]
fn a_node_that_slept_says_nothing_stale() {
    let result = clean(&["pause", "--seconds", "3"]);
    assert!(result["reads_at_victim"].as_u64() > Some(0));
}

#[test]
fn a_node_is_refilled_unnoticed() {
    let result = clean(&["refill", "--keys", "20000"]);
    assert_eq!(result["errors_in_refill"], serde_json::json!({}));
}

/// The check can fail: `read-level stale` lets a node that slept show what it knew before.
#[test]
fn stale_reads_are_seen_where_they_are_allowed() {
    // Named, since logs stay after a violation.
    let dir = std::env::temp_dir().join(format!("annulet-chaos-stale-{}", std::process::id()));
    let kept = dir.to_str().expect("a path in UTF-8");
    let (found, code) = chaos(&["pause", "--seconds", "3", "--set", "read-level=stale", "--dir", kept]);
    let _ = std::fs::remove_dir_all(&dir);
    assert_eq!(code, Some(1), "{found}");
    assert!(found["result"]["stale"].as_u64() > Some(0), "{found}");
}
