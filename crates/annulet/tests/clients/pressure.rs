//! Clients that ask for more than a cluster can do at once (docs/operating.md, "Backpressure"): they are slowed, others are
//! served, and what nodes keep for them stays bounded.

use crate::limits::{resident, while_another_counts};
use crate::local_cluster::{LocalCluster, SetOnDrop, connect, until};
use crate::observed::{http_get, sample};
use rustix::process::{Pid, Signal, kill_process};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const MIB: usize = 1024 * 1024;
/// However slow the machine is, nobody is to be taken for dead here, and no request to be given up.
const PATIENT: [&str; 8] =
    ["--lease-ms", "5000", "--grace-ms", "6000", "--evict-ms", "60000", "--request-timeout-ms", "60000"];

/// The most resident memory of each node while `harm` goes on, beyond what it was before.
fn grown_during(cluster: &LocalCluster, harm: impl FnOnce()) -> usize {
    let nodes = [1, 2, 3];
    let before = nodes.map(|node| resident(cluster, node));
    let (done, grown) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for (node, before) in nodes.into_iter().zip(before) {
                    grown.fetch_max(resident(cluster, node).saturating_sub(before), Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let _stop = SetOnDrop(&done);
        harm();
    });
    grown.into_inner()
}

fn sum(cluster: &LocalCluster, name: &str) -> f64 {
    let of = |port| sample(&http_get(port, "/metrics", "").1, name).unwrap_or(f64::NAN);
    cluster.http_ports().into_iter().map(of).sum()
}

/// Values of 100 MB, at each node, so that some are passed on: they are written, no node is taken for dead, and somebody else's
/// requests go on meanwhile. Each is there a few times on its way: in the request, the table, the record, the log, the frame.
#[test]
fn a_value_of_100_mb_is_written_while_others_are_served() {
    let cluster = LocalCluster::start(&PATIENT);
    let value: Vec<u8> = (0..100_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let version = sum(&cluster, "annulet_map_version");
    let grown = grown_during(&cluster, || {
        while_another_counts(&cluster, connect(cluster.port, 2), || {
            for port in cluster.ports() {
                let mut client = connect(port, 2);
                let _: () = redis::cmd("SET").arg("large").arg(&value).query(&mut client).unwrap();
            }
            let back: Vec<u8> = redis::cmd("GET").arg("large").query(&mut connect(cluster.port, 2)).unwrap();
            assert!(back == value);
        });
    });
    assert!(grown < 1500 * MIB, "a node took {grown} bytes more");
    assert_eq!(sum(&cluster, "annulet_map_version"), version, "nobody was taken for dead");
}

/// A node stops again and again, for less than the grace, while others are written to at full speed: what is ordered ahead
/// of it is bounded, and all that was acknowledged is there.
#[test]
fn writes_wait_for_a_slow_copy_and_others_are_served() {
    let ahead = ["--uncommitted-bytes-max", "1mb", "--replication-ahead-bytes", "1mb"];
    let settings: Vec<&str> = ahead.into_iter().chain(PATIENT).collect();
    let cluster = LocalCluster::start(&settings);
    let slow = Pid::from_raw(cluster.node_pid(3)).unwrap();
    let value = vec![b'v'; 64 * 1024];
    let grown = grown_during(&cluster, || {
        while_another_counts(&cluster, connect(cluster.port, 2), || {
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                for writer in 0..8 {
                    let (stop, value, cluster) = (&stop, &value, &cluster);
                    scope.spawn(move || {
                        let mut client = connect(cluster.ports()[writer % 2], 2);
                        while !stop.load(Ordering::Relaxed) {
                            let mut pipe = redis::pipe();
                            for at in 0..64 {
                                pipe.cmd("SET").arg(format!("slow:{writer}:{at}")).arg(value).ignore();
                            }
                            let _: () = pipe.query(&mut client).unwrap();
                        }
                    });
                }
                let _stop = SetOnDrop(&stop);
                let mut stops = 0;
                until("the bound is run into, again and again", || {
                    kill_process(slow, Signal::STOP).unwrap();
                    std::thread::sleep(Duration::from_millis(500));
                    kill_process(slow, Signal::CONT).unwrap();
                    std::thread::sleep(Duration::from_millis(50));
                    stops += 1;
                    stops >= 6 && sum(&cluster, "annulet_requests_crowded_total") > 0.0
                });
            });
        });
    });
    // 32 MiB of values in two copies, and what is on its way.
    assert!(grown < 400 * MIB, "a node took {grown} bytes more");
    assert_eq!(sum(&cluster, "annulet_link_drops_total"), 0.0);
    for key in (0..8).flat_map(|writer| (0..64).map(move |at| format!("slow:{writer}:{at}"))) {
        let back: Vec<u8> = redis::cmd("GET").arg(&key).query(&mut connect(cluster.port, 2)).unwrap();
        assert!(back == value, "{key}");
    }
}
