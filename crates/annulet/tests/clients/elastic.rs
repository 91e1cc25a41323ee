//! The cluster changes its shape while clients write and read: nodes join, one is emptied, one dies and is given up, and the number
//! of copies goes up and down. Planned changes show no error to anybody, and nothing that was acknowledged is ever lost.

use crate::local_cluster::{LocalCluster, PATIENCE, SetOnDrop, annulet, connect, printed, until};
use crate::script::{say, shown};
use crate::served_nodes::ServedNodes;
use redis::Value;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How many keys each client counts in; enough that every partition has some.
const KEYS: usize = 100;
/// Further keys, so that there is something to move.
const CARGO: usize = 4000;

/// What clients are told of the test, and tell it.
#[derive(Default)]
struct Run {
    stop: AtomicBool,
    /// A node is killed now: outcomes may be unknown.
    unplanned: AtomicBool,
    rounds: AtomicUsize,
}

/// What one client did: for each key how often it counted, and how often it does not know.
struct Tally {
    client: String,
    done: Vec<u64>,
    unknown: Vec<u64>,
}

impl Tally {
    fn allowed(&self, key: usize) -> std::ops::RangeInclusive<u64> {
        self.done[key]..=self.done[key] + self.unknown[key]
    }
}

/// Counts in its own keys, and reads them, until told to stop. What it reads never goes back, and skips nothing.
fn count(port: u16, client: &str, run: &Run) -> Tally {
    let mut connection = connect(port, 2);
    let mut tally = Tally { client: client.to_owned(), done: vec![0; KEYS], unknown: vec![0; KEYS] };
    while !run.stop.load(Ordering::Relaxed) {
        for key in 0..KEYS {
            let name = format!("{client}:{key}");
            // Seen before the request goes out: one that was sent in quiet times must be answered.
            let unplanned = run.unplanned.load(Ordering::Relaxed);
            match say(&mut connection, &format!("INCR {name}")) {
                Ok(Value::Int(now)) => {
                    tally.done[key] += 1;
                    assert!(
                        tally.allowed(key).contains(&(now as u64)),
                        "{name} is {now}, not {:?}",
                        tally.allowed(key)
                    );
                }
                other => {
                    let other = shown(&other);
                    let excused = unplanned || run.unplanned.load(Ordering::Relaxed);
                    assert!(excused, "INCR {name} in a planned change: {other}");
                    assert!(
                        other.starts_with("!UNKNOWN") || other.starts_with("!TRYAGAIN"),
                        "INCR {name}: {other}"
                    );
                    tally.unknown[key] += 1;
                }
            }
            match say(&mut connection, &format!("GET {name}")) {
                Ok(Value::BulkString(text)) => {
                    let now: u64 = String::from_utf8_lossy(&text).parse().expect("a number");
                    assert!(
                        tally.allowed(key).contains(&now),
                        "{name} reads {now}, not {:?}",
                        tally.allowed(key)
                    );
                }
                other => {
                    let excused = run.unplanned.load(Ordering::Relaxed) || unplanned || tally.done[key] == 0;
                    assert!(excused, "GET {name} in a planned change: {}", shown(&other));
                }
            }
        }
        run.rounds.fetch_add(1, Ordering::Relaxed);
    }
    tally
}

/// Runs a command of the operator's to its end.
fn finish(command: &mut Command) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let began = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if began.elapsed() > 2 * PATIENCE {
            let _ = child.kill();
            let output = child.wait_with_output().expect("what it said");
            panic!("{command:?} does not end: {}", String::from_utf8_lossy(&output.stderr));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().expect("what it said")
}

fn operate(nodes: &ServedNodes, args: &[&str]) -> String {
    let output = finish(&mut nodes.annulet(1, args));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{args:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// What an order that makes no sense is answered with.
fn refused(nodes: &ServedNodes, args: &[&str]) -> String {
    let output = finish(&mut nodes.annulet(1, args));
    assert_eq!(output.status.code(), Some(2), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits until so many nodes share all copies, of which each partition has as many as it should.
fn wait_at_rest(nodes: &ServedNodes, members: usize, copies: u64) {
    until("a cluster at rest", || {
        nodes.status(1).is_some_and(|status| {
            let held: Vec<u64> = members_of(&status).map(|node| node["in_sync"].as_u64().unwrap()).collect();
            let total = status["partitions"]["total"].as_u64().unwrap();
            status["ok"] == true
                && status["moves"]["left"] == 0
                && status["partitions"]["short"] == 0
                && held.len() == members
                && held.iter().all(|&held| held > 0)
                && held.iter().sum::<u64>() == total * copies
        })
    });
}

fn members_of(status: &serde_json::Value) -> impl Iterator<Item = &serde_json::Value> {
    status["nodes"].as_array().expect("a list").iter()
}

/// Lets every client go round some times, so that it meets what is going on.
fn go_on(run: &Run) {
    let reached = run.rounds.load(Ordering::Relaxed) + 8;
    until("rounds of the clients", || {
        std::thread::sleep(Duration::from_millis(5));
        run.rounds.load(Ordering::Relaxed) >= reached
    });
}

#[test]
fn the_cluster_changes_its_shape_under_load() {
    let mut nodes = ServedNodes::start(3, &[]);
    let mut filler = nodes.client(1);
    for chunk in (0..CARGO).collect::<Vec<_>>().chunks(500) {
        let mut pipe = redis::pipe();
        for key in chunk {
            pipe.cmd("SET").arg(format!("cargo:{key}")).arg(vec![b'x'; 200]).ignore();
        }
        pipe.query::<()>(&mut filler).expect("all are taken");
    }
    let run = Run::default();
    let ports = [nodes.port(1), nodes.port(2), nodes.port(3)];
    let tallies = std::thread::scope(|scope| {
        let ended = SetOnDrop(&run.stop);
        let clients: Vec<_> = ports
            .iter()
            .enumerate()
            .map(|(at, &port)| {
                let run = &run;
                scope.spawn(move || {
                    // Should this client fail, the others end, too.
                    let client = std::panic::AssertUnwindSafe(|| count(port, &format!("client-{at}"), run));
                    std::panic::catch_unwind(client).inspect_err(|_| run.stop.store(true, Ordering::Relaxed))
                })
            })
            .collect();
        go_on(&run);

        // A fourth and a fifth node, which get their numbers from the cluster.
        for members in [4, 5] {
            let id = nodes.start_joining();
            assert_eq!(usize::from(id), members);
            wait_at_rest(&nodes, members, 2);
            go_on(&run);
        }

        assert!(refused(&nodes, &["node", "drain", "9"]).contains("no node 9"));
        assert!(refused(&nodes, &["node", "remove", "4"]).contains("alive"));
        assert!(refused(&nodes, &["set", "min_in_sync", "3"]).contains("copies"));

        // A drained node ends by itself, in order.
        operate(&nodes, &["node", "drain", "4", "--wait"]);
        assert!(nodes.wait_end(4).success(), "{}", nodes.said(4));
        wait_at_rest(&nodes, 4, 2);
        go_on(&run);

        // A node dies for good.
        run.unplanned.store(true, Ordering::Relaxed);
        nodes.kill([5]);
        until("a node that is found dead", || {
            let status = nodes.status(1);
            status.is_some_and(|status| members_of(&status).any(|node| node["state"] == "FAILED"))
        });
        operate(&nodes, &["node", "remove", "5", "--wait"]);
        wait_at_rest(&nodes, 3, 2);
        go_on(&run);
        run.unplanned.store(false, Ordering::Relaxed);
        go_on(&run);

        operate(&nodes, &["set", "copies", "3", "--wait"]);
        wait_at_rest(&nodes, 3, 3);
        go_on(&run);
        operate(&nodes, &["set", "copies", "2", "--wait"]);
        wait_at_rest(&nodes, 3, 2);
        go_on(&run);
        drop(ended);
        clients
            .into_iter()
            .map(|client| client.join().expect("it is caught").expect("a client that is content"))
            .collect::<Vec<_>>()
    });
    // Everything that was acknowledged is there, whoever is asked.
    for (tally, id) in tallies.iter().zip([2, 3, 1]) {
        let mut reader = nodes.client(id);
        for key in 0..KEYS {
            let name = format!("{}:{key}", tally.client);
            let now: u64 = redis::cmd("GET").arg(&name).query(&mut reader).expect("a number");
            assert!(tally.allowed(key).contains(&now), "{name} ends as {now}, not {:?}", tally.allowed(key));
        }
    }
    for key in 0..CARGO {
        let length: usize =
            redis::cmd("STRLEN").arg(format!("cargo:{key}")).query(&mut filler).expect("a length");
        assert_eq!(length, 200, "cargo:{key}");
    }
}

#[test]
fn a_node_that_joined_needs_nothing_said_again_and_takes_nobodys_number() {
    let mut nodes = ServedNodes::start(3, &[]);
    nodes.set(&["--copies", "3"]);
    let id = nodes.start_joining();
    wait_at_rest(&nodes, 4, 2);
    let said = nodes.said(id);
    assert!(said.contains("copies = 2 as in the whole cluster, not 3"), "{said}");
    let mut newest = nodes.client(id);
    let told: Vec<String> = redis::cmd("CONFIG").arg("GET").arg("copies").query(&mut newest).unwrap();
    assert_eq!(told, ["copies", "2"]);
    redis::cmd("SET").arg("a").arg(1).query::<()>(&mut newest).unwrap();
    nodes.stop([id]);
    nodes.start_node(id);
    wait_at_rest(&nodes, 4, 2);

    // All at once, without a word of who it is or whom it joined.
    nodes.kill(nodes.ids());
    nodes.start_all();
    wait_at_rest(&nodes, 4, 2);
    let kept: u64 = redis::cmd("GET").arg("a").query(&mut nodes.client(id)).unwrap();
    assert_eq!(kept, 1);

    // A new directory under the number of a node that lives is not let in, and leaves nothing behind.
    let dir = nodes.data(9);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::copy(nodes.data(1).join("join.secret"), dir.join("join.secret")).unwrap();
    let output = finish(
        annulet()
            .args([
                "serve",
                "--node-id",
                "2",
                "--join",
                &format!("127.0.0.1:{}", nodes.port(1) + 200),
                "--dir",
            ])
            .arg(&dir)
            .args([
                "--port",
                "0",
                "--cluster-port",
                "0",
                "--http-port",
                "0",
                "--line-port",
                "0",
                "--peer-port",
                "1",
            ]),
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("node 2 is alive"), "{said}");
    assert!(!dir.join("control.journal").exists() && !dir.join("membership.journal").exists());
}

#[test]
fn a_local_cluster_restarts_node_by_node() {
    let cluster = LocalCluster::start(&["--partitions", "32", "--shards", "2"]);
    let port = cluster.port;
    let mut client = connect(port + 1, 2);
    redis::cmd("SET").arg("a").arg(1).query::<()>(&mut client).unwrap();
    let before: Vec<i32> = (1..=3).map(|id| cluster.node_pid(id)).collect();
    let dir = cluster.data_directory(1);
    let dir = dir.parent().expect("the cluster's");
    let said = printed(annulet().args(["rolling-restart", "--dir"]).arg(dir), "");
    assert!(said.contains("node 3 (3 of 3)") && said.ends_with("every copy is in sync.\n"), "{said}");
    for (id, before) in (1..=3).zip(before) {
        assert_ne!(cluster.node_pid(id), before, "node {id} is another process");
    }
    let kept: u64 = redis::cmd("GET").arg("a").query(&mut connect(port, 2)).unwrap();
    assert_eq!(kept, 1);
}

/// Who votes, as a node's map shows it, once nothing of it changes.
fn voters(nodes: &ServedNodes, asked: u16) -> Vec<u64> {
    let Some(status) = nodes.status(asked) else { return Vec::new() };
    members_of(&status).filter(|node| node["voter"] == true).filter_map(|node| node["id"].as_u64()).collect()
}

/// Counts in every key, at each of these nodes in turn; what is not answered yet is asked again.
fn count_on(nodes: &ServedNodes, asked: &[u16], counts: &mut [u64]) {
    for (key, count) in counts.iter_mut().enumerate() {
        let name = format!("count:{key}");
        let port = nodes.port(asked[key % asked.len()]);
        until("a write that is taken", || {
            let answer = say(&mut connect(port, 2), &format!("SET {name} {}", *count + 1));
            matches!(answer, Ok(Value::Okay))
        });
        *count += 1;
        let now: u64 = redis::cmd("GET").arg(&name).query(&mut connect(port, 2)).expect("a number");
        assert_eq!(now, *count, "{name}");
    }
}

#[test]
fn a_cluster_that_grew_from_one_node_outlives_its_first_voter() {
    let mut nodes = ServedNodes::start(1, &[]);
    assert_eq!(voters(&nodes, 1), [1]);
    let mut counts = vec![0; 16];
    count_on(&nodes, &[1], &mut counts);
    for members in [2, 3] {
        nodes.start_joining();
        wait_at_rest(&nodes, members, 2);
    }
    until("three voters", || voters(&nodes, 3) == [1, 2, 3]);
    count_on(&nodes, &[1, 2, 3], &mut counts);
    nodes.kill([1]);
    count_on(&nodes, &[2, 3], &mut counts);
    until("node 1 is found dead", || {
        let status = nodes.status(2);
        status.is_some_and(|status| members_of(&status).any(|node| node["state"] == "FAILED"))
    });
    // Given up, it votes no more: of two nodes one does. That one alone is needed then.
    let output = finish(&mut nodes.annulet(2, &["node", "remove", "1", "--wait"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    until("one voter of two nodes", || voters(&nodes, 2).len() == 1);
    count_on(&nodes, &[2, 3], &mut counts);
    // All start again, without the node that was there at first.
    nodes.kill([2, 3]);
    nodes.start_node(2);
    nodes.start_node(3);
    until("both answer again", || nodes.status(2).is_some() && nodes.status(3).is_some());
    count_on(&nodes, &[2, 3], &mut counts);
}

#[test]
fn two_nodes_with_data_and_a_witness_survive_the_loss_of_any_one() {
    let mut nodes = ServedNodes::start(2, &[]);
    nodes.set(&["--witness"]);
    let witness = nodes.start_joining();
    until("three voters", || voters(&nodes, witness) == [1, 2, 3]);
    let status = nodes.status(1).expect("it serves");
    let third = members_of(&status).nth(2).expect("the witness");
    assert_eq!((third["witness"] == true, third["copies"].as_u64()), (true, Some(0)));
    let mut counts = vec![0; 16];
    count_on(&nodes, &[1, 2, witness], &mut counts);
    for dead in [1, 2, witness] {
        nodes.kill([dead]);
        let alive: Vec<u16> = nodes.ids().filter(|&id| id != dead).collect();
        count_on(&nodes, &alive, &mut counts);
        nodes.set(if dead == witness { &["--witness"] } else { &[] });
        nodes.start_node(dead);
        // It may have been gone for so short a time that nobody missed it.
        until("it answers again", || nodes.status(dead).is_some());
        until("both copies in sync", || {
            nodes.status(alive[0]).is_some_and(|status| {
                let states = members_of(&status).all(|node| node["state"] == "ACTIVE");
                status["ok"] == true && status["partitions"]["short"] == 0 && states
            })
        });
        count_on(&nodes, &[1, 2, witness], &mut counts);
        assert_eq!(voters(&nodes, dead), [1, 2, 3], "nobody is replaced so soon");
    }
    let status = nodes.status(1).expect("it serves");
    assert_eq!(members_of(&status).nth(2).expect("the witness")["copies"], 0);
}
