//! A cluster that is started node by node from one file, as TOML and as JSON; and what is said of a file with a mistake.

use crate::local_cluster::{annulet, connect, free_base, output, until};
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// How often a cluster is started on other ports after somebody else was quicker to take them.
const TRIES: usize = 20;

/// Nodes that run, and their directory. Both go with it, also when a test fails.
struct FromFile {
    dir: PathBuf,
    port: u16,
    nodes: Vec<Child>,
}

impl Drop for FromFile {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.kill();
            let _ = node.wait();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl FromFile {
    fn new() -> FromFile {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("annulet-clients-{}-file-{count}", std::process::id()));
        std::fs::create_dir(&dir).expect("a directory of this test's own");
        FromFile { dir, port: free_base(), nodes: Vec::new() }
    }

    /// The same cluster in both formats.
    fn write(&self) -> (PathBuf, PathBuf) {
        let (toml, json) = (self.dir.join("cluster.toml"), self.dir.join("cluster.json"));
        let (secret, data) = ("00c0ffee".repeat(8), self.dir.join("data").display().to_string());
        let mut text = format!(
            "copies = 2\npartitions = 64\nvirtual_nodes = 160\njoin_secret = \"{secret}\"\ndir = \"{data}\"\nshards = 1\n"
        );
        let mut nodes = Vec::new();
        for id in 1..=3 {
            let port = self.port + id - 1;
            text += &format!("[[nodes]]\nid = {id}\nhost = \"127.0.0.1\"\nport = {port}\n");
            nodes.push(serde_json::json!({ "id": id, "host": "127.0.0.1", "port": port }));
        }
        std::fs::write(&toml, text).expect("a file in it");
        let json_text = serde_json::json!({
            "copies": 2, "partitions": 64, "virtual_nodes": 160, "join_secret": secret, "dir": data, "shards": 1, "nodes": nodes,
        });
        std::fs::write(&json, json_text.to_string()).expect("a file in it");
        (toml, json)
    }

    fn start(&mut self, file: &Path, id: u16) {
        let log = std::fs::File::create(self.dir.join(format!("log-{id}"))).expect("a file in it");
        let mut command = annulet();
        command.args(["serve", "--cluster"]).arg(file).args(["--node", &id.to_string()]);
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.nodes.push(command.spawn().expect("the binary starts"));
    }

    fn log(&self, id: u16) -> String {
        std::fs::read_to_string(self.dir.join(format!("log-{id}"))).unwrap_or_default()
    }

    /// Whether all serve; an error where one could not start.
    fn serves(&mut self) -> Result<bool, String> {
        for (at, node) in self.nodes.iter_mut().enumerate() {
            if node.try_wait().expect("it is a child").is_some() {
                return Err(self.log(at as u16 + 1));
            }
        }
        let all = (0..3).all(|at| {
            let mut command = annulet();
            command.args(["status", "--json", "--port", &(self.port + at).to_string()]).stdin(Stdio::null());
            let said = output(&mut command, "").stdout;
            serde_json::from_slice(&said).is_ok_and(|status: serde_json::Value| status["ok"] == true)
        });
        Ok(all)
    }
}

#[test]
fn a_fixed_cluster_starts_from_one_file_in_either_format() {
    let mut failure = String::new();
    for _ in 0..TRIES {
        let mut cluster = FromFile::new();
        let (toml, json) = cluster.write();
        cluster.start(&toml, 1);
        cluster.start(&toml, 2);
        cluster.start(&json, 3);
        let mut refused = None;
        until("all nodes serve", || match cluster.serves() {
            Ok(all) => all,
            Err(why) => {
                refused = Some(why);
                true
            }
        });
        match refused {
            None => return check_cluster(&mut cluster),
            Some(why) if why.contains("cannot listen") => failure = why,
            Some(why) => panic!("{why}"),
        }
    }
    panic!("no free ports after {TRIES} tries: {failure}");
}

fn check_cluster(cluster: &mut FromFile) {
    let mut client = connect(cluster.port, 2);
    redis::cmd("SET").arg("a").arg("1").exec(&mut client).expect("it serves");
    let value: String =
        redis::cmd("GET").arg("a").query(&mut connect(cluster.port + 2, 2)).expect("so does node 3");
    assert_eq!(value, "1");
    let partitions: Vec<String> =
        redis::cmd("CONFIG").arg("GET").arg("partitions").query(&mut client).expect("it tells its settings");
    assert_eq!(partitions, ["partitions", "64"]);
    for id in 1..=3 {
        assert!(
            cluster.dir.join(format!("data/node-{id}/join.secret")).exists(),
            "each has a directory of its own"
        );
    }
    for node in &mut cluster.nodes {
        let id = Pid::from_raw(node.id() as i32).expect("a process id");
        kill_process(id, Signal::INT).expect("it is this test's to signal");
    }
    for node in &mut cluster.nodes {
        assert!(node.wait().expect("it ends").success());
    }
}

#[test]
fn a_file_with_a_mistake_starts_nothing_and_says_where() {
    let cluster = FromFile::new();
    let path = cluster.dir.join("cluster.toml");
    let node = "[[nodes]]\nid = 1\nhost = \"127.0.0.1\"\n";
    for (text, id, expected) in [
        (
            format!("partition = 64\n{node}"),
            1,
            "line 1 (partition): unknown key 'partition' (did you mean 'partitions'?)",
        ),
        (
            format!("partitions = 60\n{node}"),
            1,
            "line 1 (partitions): invalid value '60' for 'partitions': a power of two",
        ),
        (format!("{node}{node}"), 1, "line 5 (nodes[2].id): id 1 is taken by nodes[1]"),
        (
            format!("virtual_nodes = 64\n{node}"),
            1,
            "line 1 (virtual_nodes): every cluster has 160 virtual nodes",
        ),
        (node.to_owned(), 4, "names no node 4; it names 1 (127.0.0.1)"),
    ] {
        std::fs::write(&path, &text).expect("a file of this test's own");
        let mut command = annulet();
        command
            .args(["serve", "--cluster"])
            .arg(&path)
            .args(["--node", &id.to_string()])
            .stdin(Stdio::null());
        let said = output(&mut command, "");
        let errors = String::from_utf8_lossy(&said.stderr).into_owned();
        assert_eq!(said.status.code(), Some(2), "{text}: {errors}");
        assert!(
            errors.contains(path.to_str().expect("text")) && errors.contains(expected),
            "{text}: {errors}"
        );
    }
    // The node's number and its place in the file go together.
    let said = output(annulet().args(["serve", "--cluster"]).arg(&path).stdin(Stdio::null()), "");
    assert!(String::from_utf8_lossy(&said.stderr).contains("--node"), "{said:?}");
}
