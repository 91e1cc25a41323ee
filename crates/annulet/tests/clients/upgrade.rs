//! An upgrade as operators do it: a cluster of the last build of the format before, under load, is restarted node by node as this build.
//! Nothing that was acknowledged is lost, no read goes back, and nobody sees an error but those that docs/failures.md has for a node
//! that stops. The cluster's feature level rises with the last node, not before; until then a node can go back; after it the older
//! build is refused, with a word on why.
//!
//! `tests/old_build/build` makes the older build from the commit in `tests/old_build/COMMIT`; ANNULET_TEST_OLD_BINARY says where it is.

use crate::local_cluster::{PATIENCE, SetOnDrop, left_out, printed, until};
use crate::script::{say, shown};
use crate::served_nodes::{REFUSED, ServedNodes};
use crate::written::{Journal, check_all, until_more, while_writing};
use redis::{ConnectionLike, Value};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use types::Level;

/// Keys that each counting client counts in.
const KEYS: usize = 40;
/// Acknowledged writes before and after each step.
const WRITES: u64 = 2000;

/// The older build; none where nobody has made it, which is said where no test harness keeps it to itself.
fn older_build() -> Option<PathBuf> {
    let named = std::env::var_os("ANNULET_TEST_OLD_BINARY").filter(|path| !path.is_empty());
    let Some(named) = named else {
        left_out(
            "the upgrade from an older build. \
             ANNULET_TEST_OLD_BINARY=\"$(crates/annulet/tests/old_build/build)\" tests it.",
        );
        return None;
    };
    let path = PathBuf::from(named);
    assert!(path.is_file(), "ANNULET_TEST_OLD_BINARY names {}, which is no file", path.display());
    Some(path)
}

/// What one client counted in each of its keys: surely, and at most.
struct Counted {
    client: usize,
    keys: Vec<(u64, u64)>,
}

/// Counts in its own keys and reads them until told to stop, by whatever node takes its connection.
fn count(client: usize, ports: &[u16], stop: &AtomicBool, rounds: &AtomicUsize) -> Counted {
    let mut counted = Counted { client, keys: vec![(0, 0); KEYS] };
    let mut at = client;
    while !stop.load(Ordering::Relaxed) {
        at += 1;
        let url = format!("redis://127.0.0.1:{}/", ports[at % ports.len()]);
        let connected = redis::Client::open(url).and_then(|client| client.get_connection());
        let Ok(mut connection) = connected else {
            std::thread::sleep(std::time::Duration::from_millis(5));
            continue;
        };
        connection.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        while !stop.load(Ordering::Relaxed) && go_round(&mut counted, &mut connection) {
            rounds.fetch_add(1, Ordering::Relaxed);
        }
    }
    counted
}

/// Once over all keys. False: the node has closed the connection.
fn go_round(counted: &mut Counted, connection: &mut redis::Connection) -> bool {
    let client = counted.client;
    for (key, (least, most)) in counted.keys.iter_mut().enumerate() {
        let name = format!("counter:{client}:{key}");
        *most += 1;
        match say(connection, &format!("INCR {name}")) {
            Ok(Value::Int(now)) => {
                assert!(
                    (*least + 1..=*most).contains(&(now as u64)),
                    "{name} is {now}, not {}..={most}",
                    *least + 1
                );
                (*least, *most) = (now as u64, now as u64);
            }
            other => {
                let other = shown(&other);
                if !connection.is_open() {
                    return false;
                }
                match other {
                    _ if other.starts_with("!TRYAGAIN") || other.starts_with("!CLUSTERDOWN") => *most -= 1,
                    _ => assert!(other.starts_with("!UNKNOWN"), "INCR {name}: {other}"),
                }
            }
        }
        match say(connection, &format!("GET {name}")) {
            Ok(Value::BulkString(text)) => {
                let now: u64 = String::from_utf8_lossy(&text).parse().expect("a number");
                assert!((*least..=*most).contains(&now), "{name} reads {now}, not {least}..={most}");
                *least = now;
            }
            Ok(Value::Nil) if *least == 0 => {}
            _ if !connection.is_open() => return false,
            other => {
                let other = shown(&other);
                assert!(
                    other.starts_with("!TRYAGAIN") || other.starts_with("!CLUSTERDOWN"),
                    "GET {name}: {other}"
                );
            }
        }
    }
    true
}

/// The level of the cluster as a node tells it, and of each node.
fn levels(nodes: &ServedNodes, asked: u16) -> (Option<u64>, Vec<Option<u64>>) {
    let status = nodes.status(asked).expect("it answers");
    let each = status["nodes"].as_array().expect("a list").iter().map(|node| node["level"].as_u64());
    (status["level"].as_u64(), each.collect())
}

fn restart(nodes: &mut ServedNodes, id: u16, program: Option<&PathBuf>) {
    nodes.stop([id]);
    nodes.run_build(program);
    nodes.start_node(id);
    nodes.wait_whole();
}

#[test]
fn upgrade_from_the_build_of_the_format_before() {
    let Some(old) = older_build() else { return };
    let newest = u64::from(Level::HIGHEST.0);
    let before = newest - 1;
    let mut nodes = ServedNodes::start_build(Some(&old), 3, &[]);
    let ports = nodes.ports();
    let mut journals: Vec<Journal> = (0..2).map(Journal::new).collect();
    let (stop, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let counted = std::thread::scope(|scope| {
        let ended = SetOnDrop(&stop);
        let clients: Vec<_> = (0..3)
            .map(|client| {
                let (ports, stop, rounds) = (&ports, &stop, &rounds);
                scope.spawn(move || count(client, ports, stop, rounds))
            })
            .collect();
        while_writing(&mut journals, &ports, |written| {
            let go_on = || {
                until_more(written, WRITES);
                let reached = rounds.load(Ordering::Relaxed) + 6;
                until("rounds of the clients", || rounds.load(Ordering::Relaxed) >= reached);
            };
            go_on();
            restart(&mut nodes, 1, None);
            go_on();
            assert_eq!(levels(&nodes, 1), (Some(before), vec![Some(newest), Some(before), Some(before)]));
            // It can go back, for as long as not all have gone on.
            restart(&mut nodes, 1, Some(&old));
            go_on();
            restart(&mut nodes, 1, None);
            go_on();
            restart(&mut nodes, 2, None);
            go_on();
            assert_eq!(levels(&nodes, 2), (Some(before), vec![Some(newest), Some(newest), Some(before)]));
            let shown = printed(&mut nodes.annulet(2, &["status"]), "");
            assert!(shown.contains(&format!("until node 3 runs a build that has {newest}")), "{shown}");
            restart(&mut nodes, 3, None);
            until("the feature level to rise", || {
                nodes.ids().all(|id| levels(&nodes, id) == (Some(newest), vec![Some(newest); 3]))
            });
            go_on();
        });
        drop(ended);
        clients.into_iter().map(|client| client.join().expect("a client that is content")).collect::<Vec<_>>()
    });
    check_counted(&nodes, &counted);
    check_all(&journals, &ports);

    // The older build on a directory of the newer one, and as a node that joins.
    nodes.stop([2]);
    nodes.run_build(Some(&old));
    let said = nodes.refused(2);
    // It reads the shards' logs first, and may find there already what it does not know.
    let why =
        ["the control file has format 4; this version knows 3", "holds what this program does not know"];
    assert!(why.iter().any(|why| said.contains(why)), "{said}");
    let joiner = nodes.start_joining();
    let status = nodes.wait_end(joiner);
    let said = nodes.said(joiner);
    assert_eq!(status.code(), Some(REFUSED), "{said}");
    assert!(said.contains(&format!("feature level {newest}")) && said.contains("start a build"), "{said}");

    // Without the directory that says so it comes as far as the other nodes' doors.
    let kept = nodes.data(2).with_extension("kept");
    std::fs::rename(nodes.data(2), &kept).expect("a directory of this test's own");
    std::fs::create_dir(nodes.data(2)).expect("another");
    std::fs::copy(kept.join("join.secret"), nodes.data(2).join("join.secret")).expect("its secret");
    let said = nodes.said(2);
    nodes.start_node(2);
    until("the older build to be told why", || {
        nodes.said_since(2, &said).contains("refused: the cluster has come to feature level")
    });
    nodes.kill([2]);
    std::fs::remove_dir_all(nodes.data(2)).expect("it is this test's own");
    std::fs::rename(&kept, nodes.data(2)).expect("it is this test's own");

    nodes.run_build(None);
    nodes.start_node(2);
    nodes.forget(joiner);
    nodes.wait_whole();
    check_counted(&nodes, &counted);
    check_all(&journals, &ports);
}

fn check_counted(nodes: &ServedNodes, counted: &[Counted]) {
    for id in 1..=3 {
        let mut reader = nodes.client(id);
        for Counted { client, keys } in counted {
            for (key, (least, most)) in keys.iter().enumerate() {
                let name = format!("counter:{client}:{key}");
                let now: Option<u64> = redis::cmd("GET").arg(&name).query(&mut reader).expect("a number");
                let now = now.unwrap_or(0);
                assert!(
                    (*least..=*most).contains(&now),
                    "{name} ends as {now}, not {least}..={most}, at node {id}"
                );
            }
        }
    }
}
