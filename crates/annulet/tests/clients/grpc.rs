//! grpcio, run by scripts in tests/grpc: stubs made of the product's descriptions, and for package `kvstore` of one that the script
//! writes itself.

use crate::local_cluster::{LocalCluster, output, printed};
use crate::served_nodes::ServedNodes;
use serde_json::Value;
use std::cell::RefCell;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

const ADVICE: &str = "this test needs Python 3 with redis-py and gRPC: pip install redis==5.2.1 grpcio==1.85.1 grpcio-tools==1.85.1 \
                      grpcio-health-checking==1.85.1 grpcio-reflection==1.85.1 (or name an interpreter that has them in \
                      ANNULET_TEST_PYTHON)";
const PASSWORD: &str = "open sesame";

/// An interpreter that has what the scripts need.
fn python() -> Command {
    let named = std::env::var_os("ANNULET_TEST_PYTHON").filter(|path| !path.is_empty());
    let interpreter = named.unwrap_or_else(|| "python3".into());
    let imports = "import redis, grpc, grpc_tools.protoc, grpc_health.v1.health, grpc_reflection.v1alpha.reflection_pb2";
    let found = output(Command::new(&interpreter).args(["-c", imports]), ADVICE);
    assert!(found.status.success(), "{}\n{ADVICE}", String::from_utf8_lossy(&found.stderr));
    Command::new(interpreter)
}

/// The directory of a script's own.
fn made_for(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("annulet-stubs-{}-{name}", std::process::id()))
}

/// A script, ready to run, and the directory that it makes stubs in.
fn script(script: &str, name: &str, ports: &[u16]) -> (Command, PathBuf) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let proto: PathBuf = [here, Path::new("../../proto")].iter().collect();
    let made = made_for(name);
    std::fs::create_dir(&made).expect("a directory of this test's own");
    let mut command = python();
    // Without bytecode files among the sources.
    command.arg("-B").arg(here.join("tests/grpc").join(script)).arg(&made).arg(proto);
    command.args(ports.iter().map(u16::to_string)).env("PASSWORD", PASSWORD);
    (command, made)
}

fn run(name: &str, ports: &[u16]) {
    let (mut command, made) = script(name, name, ports);
    let said = printed(&mut command, ADVICE);
    let _ = std::fs::remove_dir_all(&made);
    assert!(said.ends_with("done\n"), "{said}");
}

/// A client of `annulet.v1` that runs as long as it has requests, for whoever compares the doors.
pub struct GrpcDoor {
    script: RefCell<Child>,
    made: PathBuf,
    answers: RefCell<Lines<BufReader<ChildStdout>>>,
}

impl GrpcDoor {
    pub fn start(ports: &[u16]) -> GrpcDoor {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let (mut command, made) = script("door.py", &format!("door-{number}"), ports);
        let mut script =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the interpreter starts");
        let answers = BufReader::new(script.stdout.take().expect("it is piped")).lines();
        GrpcDoor { script: RefCell::new(script), made, answers: RefCell::new(answers) }
    }

    /// A request as the script describes it, and what it says.
    pub fn ask(&self, request: &Value) -> Value {
        let mut script = self.script.borrow_mut();
        writeln!(script.stdin.as_mut().expect("it is piped"), "{request}").expect("the script reads");
        let line = self.answers.borrow_mut().next().expect("the script answers").expect("text");
        serde_json::from_str(&line).expect("an answer")
    }
}

impl Drop for GrpcDoor {
    fn drop(&mut self) {
        let script = self.script.get_mut();
        // It ends with its input.
        drop(script.stdin.take());
        let _ = script.wait();
        let _ = std::fs::remove_dir_all(&self.made);
    }
}

#[test]
fn grpc_of_the_family_of_small_clients() {
    let nodes = ServedNodes::start(3, &[]);
    run("kvstore.py", &nodes.ports());
}

#[test]
fn grpc_of_annulet() {
    let mut nodes = ServedNodes::start(3, &[]);
    run("annulet_v1.py", &nodes.ports());
    nodes.kill([2, 3]);
    run("alone.py", &nodes.ports());
}

/// Runs a script, and does something to the nodes once it says that it is ready.
fn run_until_ready(name: &str, nodes: &mut ServedNodes, then: impl FnOnce(&mut ServedNodes)) {
    let (ports, ready) = (nodes.ports(), made_for(name).join("ready"));
    std::thread::scope(|scope| {
        let script = scope.spawn(|| run(name, &ports));
        while !script.is_finished() && !ready.exists() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        if !script.is_finished() {
            then(nodes);
        }
        // What a script fails with is what the test fails with.
        if let Err(panic) = script.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn a_watch_shows_every_change_also_where_a_node_dies() {
    let mut nodes = ServedNodes::start(3, &[]);
    run_until_ready("watch.py", &mut nodes, |nodes| nodes.kill([3]));
}

#[test]
fn a_node_that_stops_lets_its_watches_and_idle_connections_go() {
    let mut nodes = ServedNodes::start(1, &["--copies", "1"]);
    run_until_ready("parting.py", &mut nodes, |nodes| nodes.stop([1]));
}

#[test]
fn grpc_asks_for_the_password() {
    let cluster = LocalCluster::start(&["--requirepass", PASSWORD]);
    run("password.py", &cluster.ports());
}
