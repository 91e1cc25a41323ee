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
    chaos_of(128, arguments)
}

/// The same with so many partitions.
fn chaos_of(partitions: u16, arguments: &[&str]) -> (serde_json::Value, Option<i32>) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut child = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(arguments)
        .args(["--json", "--clients", "3", "--partitions", &partitions.to_string()])
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
    // Meanwhile, since violations may be longer than what a pipe holds.
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).expect("text");
        text
    });
    let started = Instant::now();
    let status = loop {
        if let Some(status) = run.0.try_wait().expect("a child") {
            break status;
        }
        assert!(started.elapsed() < LIMIT, "chaos {} still runs", arguments.join(" "));
        std::thread::sleep(Duration::from_millis(50));
    };
    let text = reading.join().expect("the reader");
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
fn nodes_killed_one_by_one_and_all_at_once_lose_nothing() {
    let result = clean(&["kill-loop", "--rounds", "4", "--calm-ms", "300"]);
    let nodes = |at: usize| result["loops"][at]["nodes"].as_u64();
    assert_eq!((nodes(0), nodes(1)), (Some(1), Some(3)));
    for part in result["loops"].as_array().expect("clusters") {
        assert_eq!((&part["rounds_of_one"], &part["rounds_of_all"]), (&2.into(), &2.into()));
        assert!(part["writes"]["acknowledged"].as_u64() > Some(100), "{part}");
    }
}

#[test]
fn a_node_that_slept_says_nothing_stale() {
    let result = clean(&["pause", "--seconds", "3"]);
    assert!(result["reads_at_victim"].as_u64() > Some(0));
}

#[test]
fn a_node_is_refilled_unnoticed() {
    let result = clean(&["refill", "--keys", "20000", "--set", "log=off"]);
    assert_eq!(result["errors_in_refill"], serde_json::json!({}));
}

/// A storm of one kind of fault; none where this machine lacks what it takes.
fn storm(arguments: &[&str]) -> Option<(serde_json::Value, Option<i32>)> {
    let (found, code) = chaos_of(16, &[&["storm"], arguments].concat());
    if code == Some(77) {
        eprintln!("not tested: it takes root, iproute2, nftables and a kernel with network namespaces");
        return None;
    }
    Some((found, code))
}

#[test]
fn a_storm_passes_and_is_told() {
    let page = Page::new("storm");
    let arguments = ["--for", "12s", "--only", "kill,cut,pair", "--hold-max", "2", "--report", page.path()];
    let Some((found, code)) = storm(&arguments) else { return };
    assert_eq!(code, Some(0), "{found}");
    let result = &found["result"];
    assert_eq!((&result["lost"], &result["stale"]), (&0.into(), &0.into()), "{found}");
    assert!(result["acknowledged"].as_u64() > Some(100), "{found}");
    let steps: u64 = result["lines"]
        .as_array()
        .expect("lines")
        .iter()
        .filter(|line| ["kill", "cut", "pair"].iter().any(|name| line["name"] == *name))
        .filter_map(|line| line["count"].as_u64())
        .sum();
    assert_eq!(Some(steps), result["steps"].as_u64(), "{found}");
    assert!(steps > 0 && page.rows().iter().any(|row| row[0] == "**all of a single process**"), "{found}");
}

/// The check can fail: with `write-level one` a primary that is cut off acknowledges what its successor never hears of. That shows in the
/// last reads, or, where another write hides it from them, in the reads before that write: then it counts as stale.
#[test]
fn a_storm_finds_what_was_lost() {
    // Named, since logs and histories stay after a violation.
    let dir = std::env::temp_dir().join(format!("annulet-chaos-storm-{}", std::process::id()));
    let kept = dir.to_str().expect("a path in UTF-8");
    let arguments =
        ["--for", "120s", "--only", "cut,isolate", "--hold-max", "2", "--rate", "1000", "--dir", kept];
    let found = storm(&[&arguments[..], &["--set", "write-level=one"]].concat());
    let histories = std::fs::read_dir(&dir).map_or(0, |entries| {
        entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("history-")).count()
    });
    let _ = std::fs::remove_dir_all(&dir);
    let Some((found, code)) = found else { return };
    assert_eq!(code, Some(1), "{found}");
    let wrong = |name: &str| found["result"][name].as_u64().expect("a count");
    assert!(wrong("lost") + wrong("stale") > 0 && histories > 0, "{histories}: {found}");
}

/// A report file with one marked section, removed at the end.
struct Page(PathBuf);

impl Page {
    fn new(name: &str) -> Page {
        let path = std::env::temp_dir().join(format!("annulet-{name}-{}.md", std::process::id()));
        std::fs::write(&path, format!("above\n<!-- {name}:begin -->\nold\n<!-- {name}:end -->\nbelow\n"))
            .expect("a temporary file");
        Page(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }

    /// The rows of the section's tables, each with its cells. What stands around the section has to be as it was.
    fn rows(&self) -> Vec<Vec<String>> {
        let text = std::fs::read_to_string(&self.0).expect("the page");
        assert!(text.starts_with("above\n<!-- "), "{text}");
        assert!(text.ends_with(":end -->\nbelow\n"), "{text}");
        assert!(!text.contains("\nold\n"), "{text}");
        text.lines()
            .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
            .map(|line| line.split(" | ").map(str::to_owned).collect())
            .collect()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn compared(arguments: &[&str], page: &Page) -> serde_json::Value {
    let arguments = [&["compare", "--report", page.path()], arguments].concat();
    let (found, code) = chaos(&arguments);
    assert_eq!(code, Some(0), "chaos {}: {found}", arguments.join(" "));
    assert!(found["result"]["machine"]["kernel"].as_str().is_some_and(|text| !text.is_empty()), "{found}");
    found["result"]["measured"].clone()
}

#[test]
fn rates_are_compared_and_reported() {
    let page = Page::new("compare");
    let measured = compared(
        &["--rounds", "2", "--seconds", "0.1", "--keys", "2000", "--pipelines", "1,8", "--connections", "5"],
        &page,
    );
    let lines = measured["lines"].as_array().expect("lines");
    // SET and GET, two pipelines, two servers.
    assert_eq!(lines.len(), 8, "{measured}");
    for line in lines {
        assert_eq!(line["runs"].as_array().map(Vec::len), Some(2), "{line}");
        let figure = |name: &str| line[name].as_f64().unwrap_or(-1.0);
        assert!(figure("per_s") > 0.0 && figure("p50_ms") >= 0.0 && figure("processor_us") >= 0.0, "{line}");
        assert!(
            figure("per_s_least") <= figure("per_s") && figure("per_s") <= figure("per_s_most"),
            "{line}"
        );
    }
    let rows = page.rows();
    assert_eq!(rows.len(), 1 + 1 + 8, "a head, a rule, the lines: {rows:?}");
    for row in &rows[2..] {
        assert!(["annulet", "redis"].contains(&row[2].as_str()), "{row:?}");
        assert!(row[3].parse::<f64>().is_ok_and(|figure| figure > 0.0), "{row:?}");
    }
}

#[test]
fn memory_is_compared_and_reported() {
    let page = Page::new("compare-memory");
    let measured = compared(&["--memory", "--keys", "50000"], &page);
    let lines = measured["lines"].as_array().expect("lines");
    assert_eq!(lines.len(), 2, "{measured}");
    for line in lines {
        // The bytes of the keys and values themselves have to be somewhere.
        assert!(line["bytes_a_key"].as_f64() > Some(80.0), "{line}");
    }
    assert_eq!(page.rows().len(), 1 + 1 + 2);
}

#[test]
fn pauses_are_compared_and_reported() {
    let page = Page::new("compare-pauses");
    let peer = "redis=redis-server";
    let measured = compared(
        &["--pauses", "--peer", peer, "--keys", "20000", "--big-mib", "2", "--seconds", "0.1"],
        &page,
    );
    let servers = measured["servers"].as_array().expect("servers");
    assert_eq!(servers.len(), 2, "{measured}");
    for server in servers {
        let causes = server["causes"].as_array().expect("causes");
        assert!(causes.len() > 10, "{server}");
        for line in causes {
            // Not every server has every command.
            let is_known = line["error"].as_str().is_none_or(|error| error.contains("unknown command"));
            assert!(is_known, "{line}");
            assert!(line["waits"]["probes"].as_u64() > line["waits"]["refused"].as_u64(), "{line}");
            assert!(line["waits"]["p999_us"].as_u64() <= line["waits"]["longest_us"].as_u64(), "{line}");
        }
    }
    assert_eq!(page.rows().len(), 2 + servers[0]["causes"].as_array().map_or(0, Vec::len));
}

#[test]
fn durable_writes_are_compared_and_reported() {
    let page = Page::new("compare-durable");
    let measured = compared(
        &[
            "--durable",
            "--rounds",
            "1",
            "--seconds",
            "0.1",
            "--keys",
            "2000",
            "--pipelines",
            "1,8",
            "--connections",
            "5",
        ],
        &page,
    );
    assert!(measured["file_system"]["kind"].as_str().is_some_and(|kind| !kind.is_empty()), "{measured}");
    let lines = measured["lines"].as_array().expect("lines");
    // Two pipelines; Annulet without a log, and both servers synced in both ways.
    assert_eq!(lines.len(), 2 * 5, "{measured}");
    for line in lines {
        let figure = |name: &str| line[name].as_f64().unwrap_or(-1.0);
        assert!(figure("per_s") > 0.0 && figure("processor_us") >= 0.0, "{line}");
        assert!(figure("p50_ms") <= figure("p99_ms") && figure("p99_ms") <= figure("max_ms"), "{line}");
        assert!(figure("p999_ms") <= figure("max_ms"), "{line}");
    }
    let rows = page.rows();
    assert_eq!(rows.len(), 2 + 10, "{rows:?}");
    let of = |row: &[String]| format!("{} {} {}", row[0], row[1], row[2]);
    assert_eq!(of(&rows[2]), "1 off annulet");
    assert_eq!(of(&rows[11]), "8 always redis");
}

#[test]
fn restarts_are_compared_and_reported() {
    let page = Page::new("compare-restart");
    let measured = compared(&["--restart", "--rounds", "2", "--keys", "20000"], &page);
    let lines = measured["lines"].as_array().expect("lines");
    let kinds: Vec<_> = lines.iter().map(|line| (line["server"].as_str(), line["from"].as_str())).collect();
    let kind = |server, from| (Some(server), Some(from));
    assert_eq!(
        kinds,
        [
            kind("annulet", "log"),
            kind("annulet", "snapshots"),
            kind("redis", "AOF"),
            kind("redis", "AOF, preamble"),
            kind("redis", "RDB")
        ]
    );
    for line in lines {
        assert_eq!(line["runs"].as_array().map(Vec::len), Some(2), "{line}");
        // The bytes of the keys and values themselves have to be somewhere, unless they are compressed.
        assert!(line["disk_bytes"].as_u64() > Some(20_000 * 20), "{line}");
        assert!(line["first_s"].as_f64() <= line["whole_s"].as_f64(), "{line}");
    }
    assert_eq!(page.rows().len(), 2 + 5);
}

#[test]
fn snapshots_are_compared_and_reported() {
    let page = Page::new("compare-snapshots");
    let measured = compared(
        &["--snapshots", "--rounds", "1", "--seconds", "0.3", "--keys", "20000", "--connections", "5"],
        &page,
    );
    let lines = measured["lines"].as_array().expect("lines");
    assert_eq!(lines.len(), 2, "{measured}");
    for line in lines {
        for phase in [&line["before"], &line["during"]] {
            for part in [&phase["writes"], &phase["reads"]] {
                assert!(part["per_s"].as_f64() > Some(0.0), "{line}");
                assert!(part["p999_ms"].as_f64() <= part["longest_ms"].as_f64(), "{line}");
                assert!(part["less_stops_ms"].as_f64() <= part["longest_ms"].as_f64(), "{line}");
            }
        }
        assert!(line["lasted_s"].as_f64() > Some(0.0), "{line}");
    }
    assert_eq!(page.rows().len(), 2 + 2 * 2);
}

/// Before an hour of measuring rather than after it.
#[test]
fn a_report_without_its_section_is_refused_at_once() {
    let page = Page::new("compare");
    let (found, code) = chaos(&["compare", "--memory", "--keys", "1", "--report", page.path()]);
    assert_eq!(code, Some(2), "{found}");
    assert!(std::fs::read_to_string(&page.0).expect("the page").contains("\nold\n"));
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
