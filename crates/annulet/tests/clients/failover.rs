//! A node is killed under load, and comes back: clients of the other nodes see a pause, and no error but that a write's
//! outcome is unknown.

use crate::cluster_aware::cluster_client;
use crate::local_cluster::{LocalCluster, SetOnDrop, connect, until};
use crate::script::{say, shown};
use redis::{ProtocolVersion, Value};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How many keys each client counts in; enough that every node is primary of some.
const KEYS: usize = 60;

/// What one client did: for each key how often it counted, and how often it does not know.
#[derive(Default)]
struct Tally {
    done: Vec<u64>,
    unknown: Vec<u64>,
}

/// Counts in its own keys until told to stop. Replies of one connection never go back.
fn count(port: u16, client: &str, rounds: &AtomicUsize, stop: &AtomicBool) -> Tally {
    let mut connection = connect(port, 2);
    let mut tally = Tally { done: vec![0; KEYS], unknown: vec![0; KEYS] };
    while !stop.load(Ordering::Relaxed) {
        for key in 0..KEYS {
            match say(&mut connection, &format!("INCR {client}:{key}")) {
                Ok(Value::Int(now)) => {
                    tally.done[key] += 1;
                    let least = tally.done[key];
                    let most = least + tally.unknown[key];
                    let now = now as u64;
                    assert!((least..=most).contains(&now), "{client}:{key} is {now}, not {least} to {most}");
                }
                other if shown(&other).starts_with("!UNKNOWN outcome unknown: ") => tally.unknown[key] += 1,
                other => panic!("{client}:{key}: {}", shown(&other)),
            }
        }
        rounds.fetch_add(1, Ordering::Relaxed);
    }
    tally
}

/// Writes and reads in pipelines until told to stop: each reads its own writes, in their order.
fn pipeline(port: u16, rounds: &AtomicUsize, stop: &AtomicBool) {
    let mut connection = connect(port, 3);
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let mut pipe = redis::pipe();
        for key in 0..KEYS {
            pipe.cmd("SET").arg(format!("pipe:{key}")).arg(round);
            pipe.cmd("GET").arg(format!("pipe:{key}"));
        }
        let replies: Vec<redis::RedisResult<Value>> =
            pipe.ignore_errors().query(&mut connection).expect("replies");
        for (key, pair) in replies.chunks(2).enumerate() {
            let (set, get) = (shown(&pair[0]), shown(&pair[1]));
            if set == "OK" {
                assert_eq!(get, format!("\"{round}\""), "pipe:{key} after its SET in the same pipeline");
            } else {
                assert!(set.starts_with("!UNKNOWN outcome unknown: "), "pipe:{key}: {set}");
                assert!(get.starts_with('"') || get == "nil", "pipe:{key}: {get}");
            }
        }
        rounds.fetch_add(1, Ordering::Relaxed);
    }
}

/// The state of the cluster as a node tells it.
fn status(port: u16) -> serde_json::Value {
    let text: String = redis::cmd("ANNULET").arg("STATUS").query(&mut connect(port, 2)).unwrap();
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn a_killed_node_is_a_pause_and_comes_back() {
    const VICTIM: u16 = 2;
    let mut cluster = LocalCluster::start(&[]);
    let [first, second, third] = cluster.ports();
    let mut aware = cluster_client(&cluster, ProtocolVersion::RESP3, false);
    for number in 0..100 {
        let _: () = redis::cmd("SET").arg(format!("kept:{number}")).arg(number).query(&mut aware).unwrap();
    }
    let (rounds, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    // Every client gets through its keys again.
    let two_rounds = |what: &str| {
        let before = rounds.load(Ordering::Relaxed);
        until(what, || rounds.load(Ordering::Relaxed) > before + 6);
    };
    let (one, three) = std::thread::scope(|scope| {
        let one = scope.spawn(|| count(first, "one", &rounds, &stop));
        let three = scope.spawn(|| count(third, "three", &rounds, &stop));
        let pipes = scope.spawn(|| pipeline(first, &rounds, &stop));
        let running = SetOnDrop(&stop);
        two_rounds("clients get through before");
        cluster.kill_node(VICTIM);
        until("the death is known, and every partition served", || {
            let status = status(first);
            status["nodes"][usize::from(VICTIM) - 1]["state"] == "FAILED"
                && status["partitions"]["served"] == status["partitions"]["total"]
        });
        two_rounds("clients get through with two nodes");
        // Cluster-aware clients learn where everything went. (This one asks for the map anew only when it is redirected,
        // not when it finds a node gone: as with Redis, its user connects again.)
        let mut aware = cluster_client(&cluster, ProtocolVersion::RESP3, false);
        for number in 0..100 {
            let name = format!("kept:{number}");
            let value: usize = redis::cmd("GET").arg(&name).query(&mut aware).unwrap();
            assert_eq!(value, number);
            let _: () = redis::cmd("SET").arg(&name).arg(number + 1).query(&mut aware).unwrap();
        }
        cluster.restart_node(VICTIM);
        until("every copy is in sync again", || {
            let status = status(third);
            let in_sync = status["nodes"].as_array().expect("nodes").iter();
            let in_sync: u64 = in_sync.filter_map(|node| node["in_sync"].as_u64()).sum();
            status["ok"] == true
                && status["nodes"][usize::from(VICTIM) - 1]["state"] == "ACTIVE"
                && in_sync == 2 * status["partitions"]["total"].as_u64().unwrap_or(0)
        });
        two_rounds("clients get through with three nodes");
        drop(running);
        pipes.join().unwrap();
        (one.join().unwrap(), three.join().unwrap())
    });
    // What was acknowledged is there, once, at every node and at the one that came back.
    for port in [first, second, third] {
        let mut connection = connect(port, 2);
        for (client, tally) in [("one", &one), ("three", &three)] {
            for key in 0..KEYS {
                let value: u64 =
                    redis::cmd("GET").arg(format!("{client}:{key}")).query(&mut connection).unwrap();
                let least = tally.done[key];
                assert!(
                    (least..=least + tally.unknown[key]).contains(&value),
                    "{client}:{key} is {value}: {least} times done, {} times unknown",
                    tally.unknown[key]
                );
            }
        }
        for number in 0..100 {
            let value: usize =
                redis::cmd("GET").arg(format!("kept:{number}")).query(&mut connection).unwrap();
            assert_eq!(value, number + 1);
        }
    }
    let mut aware = cluster_client(&cluster, ProtocolVersion::RESP2, false);
    let _: () = redis::cmd("SET").arg("after").arg(1).query(&mut aware).unwrap();
}

#[test]
fn wait_counts_the_backups_that_are_left() {
    let cluster = LocalCluster::start(&["--copies", "3"]);
    let mut connection = connect(cluster.port, 2);
    assert_eq!(shown(&say(&mut connection, "SET before 1")), "OK");
    assert_eq!(shown(&say(&mut connection, "WAIT 2 0")), "2");
    cluster.kill_node(3);
    until("the death is known, and every partition served", || {
        let status = status(cluster.port);
        status["nodes"][2]["state"] == "FAILED"
            && status["partitions"]["served"] == status["partitions"]["total"]
    });
    let mut idle = connect(cluster.port, 2);
    assert_eq!(shown(&say(&mut idle, "WAIT 0 0")), "1", "of a connection that wrote nothing");
    // Each connection's first write: in one partition, in several, and in the same breath as the question.
    for (write, reply) in [("SET a 1", "OK"), ("MSET a 1 b 2 c 3", "OK"), ("DEL a b c d", "3")] {
        let mut connection = connect(cluster.port, 2);
        assert_eq!(shown(&say(&mut connection, write)), reply);
        assert_eq!(shown(&say(&mut connection, "WAIT 2 100")), "1", "after {write}");
    }
    let mut connection = connect(cluster.port, 2);
    let mut pipe = redis::pipe();
    for number in 0..100 {
        pipe.cmd("SET").arg(format!("pipe:{number}")).arg(1).ignore();
    }
    pipe.cmd("WAIT").arg(2).arg(100);
    let holders: Vec<usize> = pipe.query(&mut connection).unwrap();
    assert_eq!(holders, [1]);
}

#[test]
fn writes_below_min_in_sync_are_refused_and_reads_go_on() {
    let mut cluster = LocalCluster::start(&["--copies", "3", "--min-in-sync", "3"]);
    let mut connection = connect(cluster.port, 2);
    assert_eq!(shown(&say(&mut connection, "SET key before")), "OK");
    cluster.kill_node(3);
    until("the death is known, and every partition served", || {
        let status = status(cluster.port);
        status["nodes"][2]["state"] == "FAILED"
            && status["partitions"]["served"] == status["partitions"]["total"]
    });
    for key in ["key", "other", "third"] {
        let refused = shown(&say(&mut connection, &format!("SET {key} after")));
        assert_eq!(refused, "!NOREPLICAS Not enough good replicas to write.");
    }
    assert_eq!(shown(&say(&mut connection, "GET key")), "\"before\"");
    cluster.restart_node(3);
    until("writes are taken again", || shown(&say(&mut connection, "SET key after")) == "OK");
    assert_eq!(shown(&say(&mut connection, "GET key")), "\"after\"");
}
