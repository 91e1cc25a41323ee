//! ioredis, run by scripts in tests/node: what programs on Node.js see.
//!
//! The package is there where `npm ci` put it: in the directory that ANNULET_TEST_NODE_MODULES names, or else beside the
//! scripts.

use crate::local_cluster::{LocalCluster, Shared, output, printed};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

const ADVICE: &str = "this test needs Node.js 18 or newer with ioredis: npm ci in crates/annulet/tests/node (or name a \
                      node_modules that has it in ANNULET_TEST_NODE_MODULES)";

fn node(script: &str) -> Command {
    let scripts: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "node"].iter().collect();
    let mut command = Command::new("node");
    if let Some(modules) = std::env::var_os("ANNULET_TEST_NODE_MODULES").filter(|path| !path.is_empty()) {
        command.env("NODE_PATH", modules);
    }
    command.current_dir(&scripts);
    let found = output(command.args(["-e", "require('ioredis')"]), ADVICE);
    assert!(found.status.success(), "{}\n{ADVICE}", String::from_utf8_lossy(&found.stderr));
    let mut again = Command::new("node");
    again.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    again.current_dir(&scripts).arg(scripts.join(script));
    again
}

fn run(script: &str, ports: &[u16]) {
    let said = printed(node(script).args(ports.iter().map(u16::to_string)), ADVICE);
    assert!(said.ends_with("done\n"), "{said}");
}

#[test]
fn ioredis_plain() {
    let cluster = Shared::turn();
    run("plain.cjs", &cluster.ports());
}

#[test]
fn ioredis_cluster() {
    let cluster = Shared::turn();
    run("cluster.cjs", &cluster.cluster_ports());
}

#[test]
fn ioredis_goes_on_when_a_node_dies() {
    const VICTIM: u16 = 3;
    let cluster = LocalCluster::start(&[]);
    let mut ports = vec![cluster.ports()[0]];
    ports.extend(cluster.cluster_ports());
    let mut script = node("failover.cjs")
        .args(ports.iter().map(u16::to_string))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it was found before");
    let mut said = BufReader::new(script.stdout.take().expect("it is piped"));
    let mut line = String::new();
    said.read_line(&mut line).expect("text");
    assert_eq!(line, "going\n");
    cluster.kill_node(VICTIM);
    script.stdin.take().expect("it is piped").write_all(b"killed\n").expect("it listens");
    line.clear();
    said.read_line(&mut line).expect("text");
    let status = script.wait().expect("it was started");
    assert!(status.success() && line == "done\n", "{status}: {line}");
}
