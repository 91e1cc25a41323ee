//! `annulet check` and `annulet dump` at the data directory of a node that ran and was killed: whole, torn, and damaged.

use crate::local_cluster::{LocalCluster, annulet, connect, until};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Output;

/// A data directory of a dead node, and copies of it to be hurt.
struct Dead {
    directory: PathBuf,
}

impl Drop for Dead {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

const SHARDS: usize = 2;
/// Written before the snapshots, and changed after them.
const KEYS: usize = 300;

impl Dead {
    /// A node of two shards, one of two nodes: keys, snapshots, some further writes, and a death without a word.
    fn make() -> Dead {
        let directory = std::env::temp_dir().join(format!("annulet-look-{}", std::process::id()));
        // The other keeps the launcher busy. Each has all copies.
        let cluster = LocalCluster::start_nodes(
            2,
            &["--shards", "2", "--partitions", "32", "--copies", "2", "--fsync", "always"],
        );
        let node = cluster.data_directory(1);
        let running = check(&node, &[]);
        assert_eq!(running.status.code(), Some(2));
        assert!(text(&running.stderr).contains("a node runs on"), "{}", text(&running.stderr));
        let mut connection = connect(cluster.port, 2);
        for key in 0..KEYS {
            set(&mut connection, &format!("key:{key}"), "before");
        }
        let asked: String = redis::cmd("BGSAVE").query(&mut connection).expect("it saves");
        assert!(asked.contains("started") || asked.contains("scheduled"), "{asked}");
        let snapshots = |shard: usize| {
            let names = std::fs::read_dir(node.join(format!("shard-{shard}"))).expect("its directory");
            names.flatten().filter(|entry| entry.path().extension().is_some_and(|end| end == "snap")).count()
        };
        until("snapshots", || (0..SHARDS).map(snapshots).sum::<usize>() == 32);
        for key in 0..KEYS / 2 {
            set(&mut connection, &format!("key:{key}"), "after");
        }
        let _: i64 = redis::cmd("DEL").arg("key:0").query(&mut connection).expect("it is removed");
        let _: i64 =
            redis::cmd("EXPIRE").arg("key:1").arg(10_000).query(&mut connection).expect("it is there");
        cluster.kill_node(1);
        until("its end", || check(&node, &[]).status.code() != Some(2));
        copy(&node, &directory.join("whole"));
        Dead { directory }
    }

    fn whole(&self) -> PathBuf {
        self.directory.join("whole")
    }

    /// A copy of it under a name, to be hurt.
    fn copy(&self, name: &str) -> PathBuf {
        let path = self.directory.join(name);
        copy(&self.whole(), &path);
        path
    }
}

fn set(connection: &mut redis::Connection, key: &str, value: &str) {
    let answer: String = redis::cmd("SET").arg(key).arg(value).query(connection).expect("it is written");
    assert_eq!(answer, "OK");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory").flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a kind").is_dir() {
            true => copy(&entry.path(), &target),
            false => std::fs::copy(entry.path(), target).map(|_| ()).expect("a copy"),
        }
    }
}

fn check(directory: &Path, flags: &[&str]) -> Output {
    annulet().arg("check").arg(directory).args(flags).output().expect("the binary runs")
}

fn dump(directory: &Path, flags: &[&str]) -> Output {
    annulet().arg("dump").arg(directory).args(flags).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What every file under a directory holds.
fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        match entry.file_type().expect("a kind").is_dir() {
            true => files.extend(contents(&entry.path())),
            false => files.push((entry.path(), std::fs::read(entry.path()).expect("a file"))),
        }
    }
    files.sort();
    files
}

/// The first file of a shard whose name begins and ends like this.
fn file(directory: &Path, shard: usize, begins: &str, ends: &str) -> PathBuf {
    let mut names: Vec<PathBuf> = std::fs::read_dir(directory.join(format!("shard-{shard}")))
        .expect("the shard's directory")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).expect("a plain name");
            name.starts_with(begins) && name.ends_with(ends)
        })
        .collect();
    names.sort();
    names.first().cloned().expect("there is one")
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("a file");
    bytes[at] ^= 1;
    std::fs::write(path, bytes).expect("it is written");
}

/// One node serves all of it, since starting it is what takes long.
#[test]
fn what_a_killed_node_left_is_looked_into() {
    let dead = Dead::make();
    all_is_well(&dead);
    the_log_is_printed(&dead);
    snapshots_are_printed(&dead);
    a_torn_tail_is_harmless(&dead);
    a_damaged_log_is_told_and_printed_up_to_there(&dead);
    a_damaged_snapshot_is_told(&dead);
    missing_files_are_told(&dead);
    what_cannot_be_read_is_said(&dead);
}

fn all_is_well(dead: &Dead) {
    let before = contents(&dead.whole());
    let checked = check(&dead.whole(), &["--json"]);
    assert_eq!(checked.status.code(), Some(0), "{}{}", text(&checked.stdout), text(&checked.stderr));
    let report: Value = serde_json::from_slice(&checked.stdout).expect("JSON");
    assert_eq!(report["ok"], true);
    let node = &report["nodes"][0];
    assert_eq!((&node["node"], &node["clean"]), (&Value::from(1), &Value::from(false)));
    assert!(node["control"]["frames"].as_u64() > Some(1), "{node}");
    let sum = |name: &str| {
        let shards = node["shards"].as_array().expect("shards");
        assert_eq!(shards.len(), SHARDS);
        shards.iter().map(|shard| shard[name].as_u64().expect("a number")).sum::<u64>()
    };
    assert_eq!((sum("snapshots"), sum("copies")), (32, 32));
    // The last writes are not known to be committed.
    assert!((1..=100).contains(&sum("tail")), "{}", sum("tail"));
    assert!((KEYS as u64 - 4..=KEYS as u64).contains(&sum("keys")), "{}", sum("keys"));
    assert!(sum("batches") > 0 && sum("entries") >= sum("batches"));
    let said = text(&check(&dead.whole(), &[]).stdout);
    assert!(said.starts_with("node 1 in ") && said.ends_with("\nok\n"), "{said}");
    // The directory above is like one of `annulet up` once its name is that of a node.
    let above = dead.directory.join("up");
    copy(&dead.whole(), &above.join("node-1"));
    assert_eq!(check(&above, &[]).status.code(), Some(0));
    dump(&dead.whole(), &["--values"]);
    assert!(contents(&dead.whole()) == before, "looking changes nothing");
}

fn the_log_is_printed(dead: &Dead) {
    let dumped = dump(&dead.whole(), &[]);
    assert_eq!(dumped.status.code(), Some(0), "{}", text(&dumped.stderr));
    let lines = text(&dumped.stdout);
    for part in [": PUT \"key:149\" 5 bytes version ", ": DEL \"key:0\" version ", ": EXPIRE \"key:1\" at 20"]
    {
        assert!(lines.contains(part), "{part} in\n{lines}");
    }
    assert!(!lines.contains("after\""), "values are not asked for");
    let with_values = text(&dump(&dead.whole(), &["--values"]).stdout);
    assert!(with_values.contains(": PUT \"key:149\" \"after\" version "));

    let of_shard = text(&dump(&dead.whole(), &["--shard", "1"]).stdout);
    assert!(of_shard.lines().count() > 10 && of_shard.lines().all(|line| line.contains(" shard 1 ")));
    let offsets: Vec<u64> =
        of_shard.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    assert!(offsets.is_sorted_by(|a, b| a < b), "each entry has its own");
    let middle = offsets[offsets.len() / 2];
    let rest = text(&dump(&dead.whole(), &["--shard", "1", "--from", &middle.to_string()]).stdout);
    assert_eq!(rest.lines().count(), offsets.len() - offsets.len() / 2);
    let line = of_shard.lines().next().expect("a line");
    let partition =
        line.split("partition ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a number");
    let of_partition = text(&dump(&dead.whole(), &["--partition", partition]).stdout);
    assert!(of_partition.contains(line));
    assert!(of_partition.lines().all(|line| line.contains(&format!(" partition {partition} "))));

    // A reader that has seen enough.
    let mut child = annulet()
        .arg("dump")
        .arg(dead.whole())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("it ends");
    assert_eq!((ended.status.code(), text(&ended.stderr)), (Some(0), String::new()));
}

fn snapshots_are_printed(dead: &Dead) {
    let dumped = dump(&dead.whole(), &["--snapshots", "--values"]);
    assert_eq!(dumped.status.code(), Some(0), "{}", text(&dumped.stderr));
    let lines = text(&dumped.stdout);
    let count = |part: &str| lines.lines().filter(|line| line.contains(part)).count();
    assert_eq!((count(" begins: "), count(" ends: "), count(" PUT \"key:")), (32, 32, KEYS), "{lines}");
    // What came after them may be in them already, where a partition had its turn late.
    assert!(lines.contains(" PUT \"key:299\" \"before\" version "), "{lines}");
    let one = text(&dump(&dead.whole(), &["--snapshots", "--partition", "3"]).stdout);
    assert_eq!(one.lines().filter(|line| line.contains(" begins: ")).count(), 1);
}

fn a_torn_tail_is_harmless(dead: &Dead) {
    let path = dead.copy("torn");
    let log = file(&path, 0, "log-", "");
    let length = std::fs::metadata(&log).expect("a file").len();
    let mut bytes = std::fs::read(&log).expect("a file");
    bytes.extend_from_slice(&[7; 33]);
    std::fs::write(&log, bytes).expect("it is written");
    std::fs::write(path.join("shard-1/p00001.snap.new"), "half").expect("it is written");
    let checked = check(&path, &[]);
    let said = text(&checked.stdout);
    assert_eq!(checked.status.code(), Some(0), "{said}");
    assert!(
        said.contains(&format!(
            "- shard 0: {} ends with 33 torn bytes, from byte {length} on",
            log.display()
        ))
    );
    assert!(
        said.contains("- shard 1: ") && said.contains("p00001.snap.new is a snapshot that was not finished")
    );
    assert!(said.ends_with("\nok\n"), "{said}");
    assert_eq!(dump(&path, &[]).stdout, dump(&dead.whole(), &[]).stdout);
}

fn a_damaged_log_is_told_and_printed_up_to_there(dead: &Dead) {
    let path = dead.copy("rotten");
    let log = file(&path, 0, "log-", "");
    let bytes = std::fs::metadata(&log).expect("a file").len() as usize;
    flip(&log, bytes / 2);
    let checked = check(&path, &["--json"]);
    assert_eq!(checked.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&checked.stdout).expect("JSON");
    let findings = report["nodes"][0]["findings"].as_array().expect("findings");
    assert_eq!(findings.len(), 1, "{findings:?}");
    let finding = &findings[0];
    assert_eq!((&finding["severity"], &finding["shard"]), (&"damaged".into(), &0.into()));
    assert_eq!(finding["path"], log.display().to_string());
    let offset = finding["offset"].as_u64().expect("a place") as usize;
    assert!(offset <= bytes / 2 && bytes / 2 - offset < 4096, "{offset} of {bytes}");
    // The other shard is read all the same.
    assert!(report["nodes"][0]["shards"][1]["keys"].as_u64() > Some(0));
    let said = text(&check(&path, &[]).stdout);
    assert!(said.lines().last().is_some_and(|line| line.starts_with("wrong: ")), "{said}");

    let (whole, dumped) = (dump(&dead.whole(), &["--shard", "0"]), dump(&path, &["--shard", "0"]));
    assert_eq!(dumped.status.code(), Some(1));
    assert!(whole.stdout.starts_with(&dumped.stdout) && dumped.stdout.len() < whole.stdout.len());
    assert!(!dumped.stdout.is_empty());
    assert!(
        text(&dumped.stderr).contains(&format!("is damaged at byte {offset}")),
        "{}",
        text(&dumped.stderr)
    );
}

fn a_damaged_snapshot_is_told(dead: &Dead) {
    let path = dead.copy("rotten-snapshot");
    let snapshot = file(&path, 1, "p", ".snap");
    flip(&snapshot, 80);
    let before = contents(&path);
    let checked = check(&path, &[]);
    let said = text(&checked.stdout);
    assert_eq!(checked.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("! shard 1: {} is damaged at byte 58", snapshot.display())), "{said}");
    assert!(said.contains("cannot be made again here: its snapshot is damaged"), "{said}");
    let dumped = dump(&path, &["--snapshots"]);
    assert_eq!(dumped.status.code(), Some(1));
    assert_eq!(text(&dumped.stdout).lines().filter(|line| line.contains(" ends: ")).count(), 31);
    assert!(contents(&path) == before, "nothing is set aside by who looks");
}

fn missing_files_are_told(dead: &Dead) {
    let path = dead.copy("no-shard");
    std::fs::remove_dir_all(path.join("shard-1")).expect("it goes");
    let checked = check(&path, &[]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(text(&checked.stdout).contains("shard-1 is missing"), "{}", text(&checked.stdout));

    let path = dead.copy("no-control");
    let control = path.join("control.journal");
    flip(&control, 5);
    let checked = check(&path, &[]);
    assert_eq!(checked.status.code(), Some(1));
    let wanted = format!("! {} is damaged at byte 0", control.display());
    assert!(text(&checked.stdout).contains(&wanted), "{}", text(&checked.stdout));
}

fn what_cannot_be_read_is_said(dead: &Dead) {
    let nothing = dead.directory.join("nothing");
    std::fs::create_dir(&nothing).expect("a directory");
    let path = dead.copy("no-secret");
    std::fs::remove_file(path.join("join.secret")).expect("it goes");
    for (path, why) in [
        (&nothing, "is no data directory of a node"),
        (&dead.directory.join("gone"), "cannot read"),
        (&path, "join.secret is missing"),
    ] {
        for output in [check(path, &[]), dump(path, &[])] {
            assert_eq!(output.status.code(), Some(2));
            assert!(text(&output.stderr).starts_with("annulet: "));
            assert!(text(&output.stderr).contains(why), "{}", text(&output.stderr));
        }
    }
    let output = dump(&dead.whole(), &["--shard", "9"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("has no shard 9"), "{}", text(&output.stderr));
}
