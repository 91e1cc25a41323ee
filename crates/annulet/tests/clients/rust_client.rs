//! Our own client (`crates/client`) at clusters of real processes: by any seed, straight to primaries, through a node's death and a
//! node that stands still.

use crate::local_cluster::{LocalCluster, NODES, Shared, connect, until};
use client::{Client, Error, ReadLevel, Reply, SetOptions, TimeToLive, WriteLevel};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

/// Longer than any wait that a test which passes has.
const DEADLINE: Duration = Duration::from_secs(50);

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(test)
}

async fn client_of(cluster: &LocalCluster) -> Client {
    let seeds = cluster.cluster_ports().map(|port| format!("127.0.0.1:{port}"));
    Client::builder().seeds(seeds).deadline(DEADLINE).connect().await.expect("it connects")
}

fn key(number: usize) -> String {
    format!("key:{number}")
}

/// The number in a line of a section of a node's INFO; 0 where there is no such line.
fn figure(port: u16, section: &str, line: &str) -> u64 {
    let text: String = redis::cmd("INFO").arg(section).query(&mut connect(port, 2)).unwrap();
    let found = text.lines().find_map(|other| other.strip_prefix(line));
    found.map_or(0, |rest| rest.split(',').next().and_then(|number| number.parse().ok()).expect("a number"))
}

/// The state of the cluster as a node tells it.
fn status(port: u16) -> serde_json::Value {
    let text: String = redis::cmd("ANNULET").arg("STATUS").query(&mut connect(port, 2)).unwrap();
    serde_json::from_str(&text).expect("JSON")
}

async fn typed_calls(client: &Client) -> Result<(), Error> {
    assert_eq!(client.get("a").await?, None);
    client.set("a", b"\0\xff\r\n").await?;
    assert_eq!(client.get("a").await?.as_deref(), Some(&b"\0\xff\r\n"[..]));
    assert!(!client.set_with("a", "2", &SetOptions::new().if_absent()).await?);
    assert!(client.set_with("a", "2", &SetOptions::new().if_present().expire_after(DEADLINE)).await?);
    assert!(matches!(client.ttl("a").await?, TimeToLive::Left(left) if left <= DEADLINE));
    assert!(client.persist("a").await?);
    assert_eq!(client.ttl("a").await?, TimeToLive::Forever);
    assert!(!client.compare_and_set("a", "1", "3").await?);
    assert!(client.compare_and_set("a", "2", "3").await?);
    assert_eq!(client.incr_by("a", -5).await?, -2);
    assert!(client.expire("a", DEADLINE).await?);
    assert!(client.set_with("a", "3", &SetOptions::new().keep_ttl()).await?);
    assert!(matches!(client.ttl("a").await?, TimeToLive::Left(_)));
    assert!(client.set_with("a", "4", &SetOptions::new().expire_at(SystemTime::UNIX_EPOCH)).await?);
    assert_eq!(client.ttl("a").await?, TimeToLive::Absent);
    // Over every slot.
    let keys: Vec<String> = (0..100).map(key).collect();
    let pairs: Vec<(&String, String)> = keys.iter().map(|key| (key, format!("of {key}"))).collect();
    client.mset(&pairs).await?;
    let values = client.mget(&keys).await?;
    for ((_, expected), value) in pairs.iter().zip(values) {
        assert_eq!(value.as_deref(), Some(expected.as_bytes()));
    }
    assert_eq!(client.exists(&["key:0", "key:99", "key:100"]).await?, 2);
    assert_eq!(client.command(&["STRLEN", "key:7"]).await?, Reply::Integer(8));
    // The whole cluster, though most seeds are doors that speak for one node.
    assert_eq!(client.command(&["DBSIZE"]).await?, Reply::Integer(100));
    let found: BTreeSet<Vec<u8>> = client.scan().page_keys(7).all().await?.into_iter().collect();
    assert_eq!(found, keys.iter().map(|key| key.clone().into_bytes()).collect());
    assert_eq!(client.scan().matching("key:1?").all().await?.len(), 10);
    assert!(matches!(client.incr_by("key:1", 1).await, Err(Error::Server(_))));
    assert_eq!(client.del(&keys).await?, 100);
    Ok(())
}

#[test]
fn any_node_at_either_door_will_do_as_a_seed() {
    let cluster = Shared::turn();
    run(async {
        for port in cluster.ports().into_iter().chain(cluster.cluster_ports()) {
            let client = Client::builder().seeds([format!("127.0.0.1:{port}")]).deadline(DEADLINE);
            let client = client.connect().await.unwrap();
            typed_calls(&client).await.unwrap_or_else(|error| panic!("by {port}: {error}"));
            let quorum = client.with_write_level(WriteLevel::Quorum);
            typed_calls(&quorum).await.unwrap_or_else(|error| panic!("by {port} at quorum: {error}"));
        }
    });
}

#[test]
fn requests_go_straight_to_the_primary() {
    let cluster = Shared::turn();
    let redirected = || {
        cluster.ports().map(|port| figure(port, "errorstats", "errorstat_MOVED:count=")).iter().sum::<u64>()
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let client = runtime.block_on(client_of(&cluster));
    let round = async || {
        for number in 0..500 {
            client.set(key(number), number.to_string()).await.unwrap();
        }
        let mut pipeline = client.pipeline();
        (0..500).for_each(|number| {
            pipeline.get(key(number));
        });
        for (number, result) in pipeline.run().await.into_iter().enumerate() {
            assert_eq!(result.unwrap(), Reply::bulk(number.to_string()));
        }
    };
    // A young cluster may still hand partitions over. Then the client learns it, and the next round is straight.
    until("a round without redirections", || {
        let before = redirected();
        runtime.block_on(round());
        redirected() == before
    });
}

#[test]
fn stale_reads_are_answered_by_backups_too() {
    let cluster = Shared::turn();
    run(async {
        let client = client_of(&cluster).await;
        client.set("near", "1").await.unwrap();
        let stale = client.with_read_level(ReadLevel::Stale);
        let gets = || cluster.ports().map(|port| figure(port, "commandstats", "cmdstat_get:calls="));
        let before = gets();
        let mut asked = 0;
        // A copy that was not measured is nearest, so both are tried soon; then one of 64 reads goes to any.
        until("both copies have answered", || {
            let value = tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(stale.get("near")).unwrap()
            });
            // A backup may be a little behind.
            assert!(value.is_none() || value.as_deref() == Some(b"1"), "{value:?}");
            asked += 1;
            gets().iter().zip(before).filter(|(now, before)| **now > *before).count() == 2
        });
        stale.set("near", "2").await.unwrap();
        assert_eq!(
            client.get("near").await.unwrap().as_deref(),
            Some(&b"2"[..]),
            "after {asked} stale reads"
        );
    });
}

/// Counts in keys of its own until told to stop. Every error has to be an unknown outcome.
async fn count(
    client: Client,
    name: String,
    rounds: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
) -> Vec<(u64, u64)> {
    const KEYS: usize = 60;
    let mut tallies = vec![(0, 0); KEYS];
    while !stop.load(Ordering::Relaxed) {
        for (at, (done, unknown)) in tallies.iter_mut().enumerate() {
            match client.incr_by(format!("{name}:{at}"), 1).await {
                Ok(now) => {
                    *done += 1;
                    let now = now as u64;
                    assert!(
                        (*done..=*done + *unknown).contains(&now),
                        "{name}:{at} is {now}: {done}, {unknown}"
                    );
                }
                Err(error) if error.is_outcome_unknown() => *unknown += 1,
                Err(error) => panic!("{name}:{at}: {error}"),
            }
        }
        rounds.fetch_add(1, Ordering::Relaxed);
    }
    tallies
}

/// Sets and reads keys in pipelines until told to stop.
async fn pipeline(client: Client, rounds: Arc<AtomicUsize>, stop: Arc<AtomicBool>) {
    for round in 0usize.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let mut pipeline = client.pipeline();
        for at in 0..60 {
            pipeline.set(format!("pipe:{at}"), round.to_string()).get(format!("pipe:{at}"));
        }
        for (at, pair) in pipeline.run().await.chunks(2).enumerate() {
            match (&pair[0], &pair[1]) {
                (Ok(_), Ok(read)) => assert_eq!(*read, Reply::bulk(round.to_string()), "pipe:{at}"),
                (Err(error), Ok(_)) if error.is_outcome_unknown() => {}
                other => panic!("pipe:{at}: {other:?}"),
            }
        }
        rounds.fetch_add(1, Ordering::Relaxed);
    }
}

/// Has clients at work while `hurt` is done to the cluster, until every one of them got through its keys again; then looks
/// whether all that was acknowledged is there, once.
fn hurt_under_load(cluster: &LocalCluster, hurt: impl FnOnce()) {
    run(async {
        let client = client_of(cluster).await;
        let (rounds, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let counters: Vec<_> = (0..4)
            .map(|number| {
                tokio::spawn(count(client.clone(), format!("count{number}"), rounds.clone(), stop.clone()))
            })
            .collect();
        let pipes = tokio::spawn(pipeline(client.clone(), rounds.clone(), stop.clone()));
        let is_over = || counters.iter().any(|counter| counter.is_finished()) || pipes.is_finished();
        let get_through = |what: &str| {
            let before = rounds.load(Ordering::Relaxed);
            until(what, || is_over() || rounds.load(Ordering::Relaxed) > before + 15);
        };
        get_through("clients get through before");
        hurt();
        get_through("clients get through afterwards");
        stop.store(true, Ordering::Relaxed);
        pipes.await.unwrap();
        for (number, counter) in counters.into_iter().enumerate() {
            for (at, (done, unknown)) in counter.await.unwrap().into_iter().enumerate() {
                let value = client.get(format!("count{number}:{at}")).await.unwrap().unwrap_or_default();
                let value: u64 = String::from_utf8(value).unwrap().parse().unwrap_or(0);
                assert!(
                    (done..=done + unknown).contains(&value),
                    "count{number}:{at} is {value}: {done}, {unknown}"
                );
            }
        }
    });
}

#[test]
fn a_killed_node_loses_nothing_and_errors_are_unknown_outcomes() {
    const VICTIM: u16 = 2;
    let cluster = LocalCluster::start(&[]);
    run(async {
        let client = client_of(&cluster).await;
        let pairs: Vec<(String, &str)> = (0..2000).map(|number| (key(number), "kept")).collect();
        client.mset(&pairs).await.unwrap();
    });
    hurt_under_load(&cluster, || {
        cluster.kill_node(VICTIM);
        until("the death is known, and every partition served", || {
            let status = status(cluster.port);
            status["nodes"][usize::from(VICTIM) - 1]["state"] == "FAILED"
                && status["partitions"]["served"] == status["partitions"]["total"]
        });
    });
    run(async {
        // The dead node is a seed, too.
        let client = client_of(&cluster).await;
        let found: BTreeSet<Vec<u8>> =
            client.scan().matching("key:*").all().await.unwrap().into_iter().collect();
        assert_eq!(found.len(), 2000);
    });
}

#[test]
fn a_scan_goes_on_at_another_node() {
    let cluster = LocalCluster::start(&[]);
    run(async {
        let client = client_of(&cluster).await;
        let pairs: Vec<(String, &str)> = (0..2000).map(|number| (key(number), "x")).collect();
        client.mset(&pairs).await.unwrap();
        let mut scan = client.scan().page_keys(100);
        let mut found = BTreeSet::new();
        while found.len() < 500 {
            found.extend(scan.next_page().await.unwrap().expect("more pages"));
        }
        cluster.kill_node(1);
        while let Some(page) = scan.next_page().await.unwrap() {
            found.extend(page);
        }
        assert_eq!(found.len(), 2000);
    });
}

/// Lets a process go on, also when a test fails.
struct GoesOn(Pid);

impl Drop for GoesOn {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

#[test]
fn a_node_that_stands_still_is_left_for_others() {
    let cluster = LocalCluster::start(&[]);
    let pid = Pid::from_raw(cluster.node_pid(3)).expect("a process id");
    let _goes_on = GoesOn(pid);
    run(async {
        let client = client_of(&cluster).await;
        for number in 0..300 {
            client.set(key(number), number.to_string()).await.unwrap();
        }
        kill_process(pid, Signal::STOP).unwrap();
        // Its connections stay open and answer nothing. Reads find the new primaries; a write that it was sent is unknown.
        for number in 0..300 {
            assert_eq!(client.get(key(number)).await.unwrap(), Some(number.to_string().into_bytes()));
        }
        for number in 0..300 {
            client.set(key(number), "new").await.unwrap();
        }
    });
}

#[test]
fn what_cannot_be_done_in_time_is_told_apart() {
    let cluster = LocalCluster::start(&["--copies", "3", "--min-in-sync", "3"]);
    run(async {
        let client = client_of(&cluster).await;
        client.set("key", "before").await.unwrap();
        cluster.kill_node(NODES);
        until("the death is known, and every partition served", || {
            let status = status(cluster.port);
            status["nodes"][usize::from(NODES) - 1]["state"] == "FAILED"
                && status["partitions"]["served"] == status["partitions"]["total"]
        });
        let soon = client.with_deadline(Duration::from_millis(500));
        let error = soon.set("key", "after").await.unwrap_err();
        assert!(matches!(&error, Error::Unavailable { why } if why.starts_with("NOREPLICAS")), "{error}");
        let mut pipeline = soon.pipeline();
        pipeline.set("key", "after").get("key");
        let results = pipeline.run().await;
        assert!(matches!(&results[0], Err(Error::Unavailable { .. })), "{results:?}");
        assert_eq!(client.get("key").await.unwrap().as_deref(), Some(&b"before"[..]));
        // Without a majority nobody holds a lease, once those that were granted before are over.
        cluster.kill_node(NODES - 1);
        let mut refused = Ok(None);
        for _ in 0..500 {
            refused = soon.get("key").await;
            if refused.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let error = refused.unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    });
}

#[test]
fn programs_without_a_runtime_have_the_same_calls() {
    let cluster = Shared::turn();
    let client = Client::builder().seeds([format!("127.0.0.1:{}", cluster.port)]).deadline(DEADLINE);
    let client = client.connect_blocking().unwrap();
    std::thread::scope(|scope| {
        for number in 0..4 {
            let client = client.clone();
            scope.spawn(move || {
                let name = format!("blocking:{number}");
                client.set(&name, "1").unwrap();
                assert_eq!(client.incr_by(&name, 1).unwrap(), 2);
                assert_eq!(client.get(&name).unwrap().as_deref(), Some(&b"2"[..]));
            });
        }
    });
    let results = client.pipeline(|pipeline| {
        pipeline.get("blocking:0").del("blocking:0");
    });
    let replies: Vec<Reply> = results.unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(replies, [Reply::bulk("2"), Reply::Integer(1)]);
    let stale = client.with(|inner| inner.with_read_level(ReadLevel::Stale));
    assert_eq!(stale.mget(&["blocking:none"]).unwrap(), [None]);
    assert_eq!(client.scan("blocking:*").map(|page| page.unwrap().len()).sum::<usize>(), 3);
    run(async {
        assert!(matches!(client.get("blocking:1"), Err(Error::Setup { .. })));
    });
}
