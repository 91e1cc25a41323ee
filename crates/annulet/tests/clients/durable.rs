//! Nodes end in every way while clients write, and start again on what they left: what was acknowledged is there.

use crate::local_cluster::{LocalCluster, connect, has_strace, until};
use crate::script::{say, shown};
use crate::served_nodes::{REFUSED, ServedNodes};
use crate::written::{Journal, check_all, until_more, while_writing};
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Writers of a test.
const WRITERS: u64 = 3;
/// Acknowledged writes before each blow.
const BEFORE: u64 = 1500;

fn journals() -> Vec<Journal> {
    (0..WRITERS).map(Journal::new).collect()
}

/// Kills so many of the nodes at once, in turn, under load, each time until all is well again without an operator.
fn kill_in_rounds(nodes: &mut ServedNodes, journals: &mut [Journal], rounds: &[&[u16]]) {
    let ports = nodes.ports();
    for victims in rounds {
        while_writing(journals, &ports, |total| {
            until_more(total, BEFORE);
            nodes.kill(victims.iter().copied());
            nodes.start_all();
            until_more(total, BEFORE);
        });
        nodes.wait_whole();
        check_all(journals, &ports);
    }
}

#[test]
fn a_lone_node_that_is_killed_has_all_that_it_acknowledged() {
    let mut nodes = ServedNodes::start(1, &[]);
    kill_in_rounds(&mut nodes, &mut journals(), &[&[1], &[1], &[1]]);
}

#[test]
fn three_nodes_that_are_killed_have_all_that_they_acknowledged() {
    let mut nodes = ServedNodes::start(3, &["--copies", "2"]);
    let rounds: &[&[u16]] = &[&[1], &[1, 2, 3], &[2], &[3], &[1, 2, 3], &[2, 3], &[1, 2, 3]];
    kill_in_rounds(&mut nodes, &mut journals(), rounds);
}

/// The process may go at any time where only the system has to stay: then nothing is lost without a sync either.
#[test]
fn without_syncs_a_killed_process_loses_nothing() {
    for fsync in ["everysec", "never"] {
        let mut nodes = ServedNodes::start(1, &["--fsync", fsync]);
        kill_in_rounds(&mut nodes, &mut journals(), &[&[1], &[1]]);
    }
}

#[test]
fn a_stop_in_order_leaves_nothing_torn_and_says_so() {
    for fsync in ["always", "everysec", "never"] {
        let mut nodes = ServedNodes::start(1, &["--fsync", fsync]);
        let ports = nodes.ports();
        let mut journals = journals();
        for _ in 0..2 {
            while_writing(&mut journals, &ports, |total| {
                until_more(total, BEFORE);
                nodes.stop([1]);
                let said = nodes.said(1);
                nodes.start_all();
                until_more(total, BEFORE);
                let said = nodes.said_since(1, &said);
                assert!(said.contains("the last start ended in order, and nothing is torn"), "{said}");
                assert!(!said.contains("cut off"), "{said}");
            });
            check_all(&journals, &ports);
        }
    }
}

/// Else what is acknowledged would be on fewer disks than all believe.
#[test]
fn a_node_that_syncs_otherwise_than_the_others_does_not_stay() {
    let mut nodes = ServedNodes::start(3, &["--copies", "2"]);
    nodes.stop([3]);
    let said = nodes.said(3);
    nodes.set(&["--copies", "2", "--fsync", "never"]);
    nodes.start_node(3);
    let status = nodes.wait_end(3);
    let said = nodes.said_since(3, &said);
    assert_eq!(status.code(), Some(REFUSED), "{said}");
    for part in ["fsync is never here and always at node ", "Start this node with that one"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    nodes.set(&["--copies", "2"]);
    nodes.start_node(3);
    nodes.wait_whole();
}

/// All at once: told so, or each to hand over to others, which end as well.
#[test]
fn three_nodes_stopped_at_once_go_on_where_they_were() {
    let mut nodes = ServedNodes::start(3, &["--copies", "2"]);
    let ports = nodes.ports();
    let mut journals = journals();
    for signal in [Signal::INT, Signal::TERM] {
        while_writing(&mut journals, &ports, |total| {
            until_more(total, BEFORE);
            nodes.stop_by(&[1, 2, 3], signal);
            nodes.start_all();
            until_more(total, BEFORE);
        });
        nodes.wait_whole();
        check_all(&journals, &ports);
    }
}

/// What `annulet up` started goes on where it was; what it kept in memory alone starts empty, without an operator.
#[test]
fn a_local_cluster_started_again_has_its_data() {
    let mut cluster = LocalCluster::start(&[]);
    let mut journals = journals();
    for _ in 0..2 {
        while_writing(&mut journals, &cluster.ports(), |total| until_more(total, BEFORE));
        cluster.up_again(&[]);
        check_all(&journals, &cluster.ports());
    }
    let mut cluster = LocalCluster::start(&["--log", "off"]);
    for settings in [&["--log", "off"][..], &[]] {
        assert_eq!(shown(&say(&mut connect(cluster.port, 2), "SET gone 1")), "OK");
        cluster.up_again(settings);
        assert_eq!(shown(&say(&mut connect(cluster.port, 2), "EXISTS gone")), "0");
    }
}

/// Nobody asks for them: by time they are of everything, which LASTSAVE tells, by the log's size of what holds it up.
#[test]
fn snapshots_come_by_themselves() {
    for (settings, all) in [
        (["--snapshot-interval", "1", "--shards", "1"], true),
        (["--snapshot-log-bytes", "1048576", "--shards", "1"], false),
    ] {
        let nodes = ServedNodes::start(1, &settings);
        let mut client = nodes.client(1);
        let saved = |client: &mut redis::Connection| redis::cmd("LASTSAVE").query::<u64>(client).unwrap();
        until("a start counts as one", || saved(&mut client) > 0);
        let before = saved(&mut client);
        // It is told in seconds.
        std::thread::sleep(Duration::from_millis(1100));
        let value = vec![b'v'; 64 << 10];
        for _ in 0..64 {
            redis::cmd("SET").arg("key").arg(&value).query::<()>(&mut client).unwrap();
        }
        until("there is a snapshot", || {
            let names = std::fs::read_dir(nodes.shard(1, 0)).unwrap().flatten();
            names.into_iter().any(|entry| entry.path().extension().is_some_and(|end| end == "snap"))
        });
        match all {
            true => until("all is saved", || saved(&mut client) > before),
            false => assert_eq!(saved(&mut client), before),
        }
    }
}

/// A process is killed while it writes to a segment that has no name yet, since the sync of the one before takes long.
#[test]
fn a_process_killed_between_two_segments_loses_nothing() {
    if !has_strace() {
        return;
    }
    let mut nodes = ServedNodes::start(1, &["--fsync", "never", "--shards", "1"]);
    let next = nodes.shard(1, 0).join("log.next");
    let next_bytes = || std::fs::metadata(&next).map_or(0, |metadata| metadata.len());
    let mut connection = connect(nodes.port(1), 2);
    let value = |number: u64| number.to_string().repeat(20_000);
    let mut written = 0;
    let mut write = |connection: &mut redis::Connection| {
        let mut pipe = redis::pipe();
        for number in written..written + 16 {
            pipe.cmd("SET").arg(format!("big:{number}")).arg(value(number)).ignore();
        }
        pipe.query::<()>(connection).expect("acknowledged");
        written += 16;
        written
    };
    while !next.exists() {
        write(&mut connection);
    }
    assert_eq!(next_bytes(), 0, "it is ready, and nothing is in it");
    let mut tracer = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync"])
        .args(["-e", "inject=fdatasync:delay_enter=60000000", "-p", &nodes.pid(1).to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .expect("strace starts");
    until("strace has hold of every thread", || {
        let threads = std::fs::read_dir(format!("/proc/{}/task", nodes.pid(1))).expect("it runs");
        let status = |thread: PathBuf| std::fs::read_to_string(thread.join("status")).unwrap_or_default();
        threads.flatten().all(|thread| !status(thread.path()).contains("TracerPid:\t0"))
    });
    let mut count = 0;
    while next_bytes() < 1 << 20 {
        count = write(&mut connection);
    }
    let node = Pid::from_raw(nodes.pid(1)).expect("a process id");
    kill_process(node, Signal::KILL).expect("it runs");
    // Its thread that waits is not over before strace, which would wait as well.
    tracer.kill().expect("it runs");
    tracer.wait().expect("it has ended");
    nodes.kill([1]);
    assert!(next_bytes() >= 1 << 20, "the segment has no name yet");
    nodes.start_all();
    nodes.wait_whole();
    assert!(!next.exists(), "it has one now");
    let mut connection = connect(nodes.port(1), 2);
    for number in 0..count {
        let found: Option<String> =
            redis::cmd("GET").arg(format!("big:{number}")).query(&mut connection).unwrap();
        assert!(found == Some(value(number)), "big:{number} of {count}");
    }
}
