//! What clients may cost, against real processes: time, memory, connections. Each bound is set low, run into, and told
//! or answered by a close, while somebody else's requests go on.

use crate::local_cluster::{LocalCluster, PATIENCE, SetOnDrop, connect, until};
use crate::script::{say, shown};
use redis::Connection;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const MIB: usize = 1024 * 1024;

fn socket(port: u16) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// What a node still says before it hangs up. It has to.
fn last_words(mut socket: TcpStream) -> String {
    let mut answer = Vec::new();
    match socket.read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("no end: {error}"),
        _ => String::from_utf8_lossy(&answer).into_owned(),
    }
}

/// Resident bytes of a node's process.
pub fn resident(cluster: &LocalCluster, node: u16) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", cluster.node_pid(node))).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Runs `harm` while another client counts at the same node: each of its requests has to be answered, and right.
pub fn while_another_counts(cluster: &LocalCluster, mut other: Connection, harm: impl FnOnce()) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let counting = scope.spawn(|| {
            let _: u64 = redis::cmd("DEL").arg("unharmed").query(&mut other).unwrap();
            let mut count = 0u64;
            while !done.load(Ordering::Relaxed) {
                count += 1;
                let now: u64 = redis::cmd("INCR").arg("unharmed").query(&mut other).unwrap();
                assert_eq!(now, count);
            }
            count
        });
        let stop = SetOnDrop(&done);
        harm();
        drop(stop);
        assert!(counting.join().unwrap() > 0);
    });
    assert!(cluster.is_whole());
}

/// The ids of a node's connections.
fn ids(operator: &mut Connection) -> Vec<u64> {
    let text: String = redis::cmd("CLIENT").arg("LIST").query(operator).unwrap();
    text.lines().map(|line| line[3..].split(' ').next().unwrap().parse().unwrap()).collect()
}

#[test]
fn who_takes_too_long_is_closed() {
    let cluster = LocalCluster::start(&[
        "--request-incomplete-timeout-ms",
        "300",
        "--reply-unread-timeout-ms",
        "500",
        "--client-output-buffer-limit",
        "4mb",
        "--timeout",
        "2",
    ]);
    let port = cluster.port;
    while_another_counts(&cluster, connect(port, 2), || {
        // A request that never comes whole.
        for sent in
            [&b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$536870912\r\nabc"[..], b"*1048576\r\n$4\r\nMGET\r\n", b"SET a"]
        {
            let mut slow = socket(port);
            slow.write_all(sent).unwrap();
            let told = "-ERR Protocol error: the request did not come whole in time\r\n";
            assert_eq!(last_words(slow), told, "{}", sent.escape_ascii());
        }
        // A client that says nothing is closed as in Redis, without a word.
        assert_eq!(last_words(socket(port)), "");
        // A reply that is larger than the limit by itself is no offence.
        let mut reader = connect(port, 2);
        let large = vec![b'v'; 12 * MIB];
        let _: () = redis::cmd("SET").arg("large").arg(&large).query(&mut reader).unwrap();
        let back: Vec<u8> = redis::cmd("GET").arg("large").query(&mut reader).unwrap();
        assert!(back == large);
        // One who asks for more and more and reads nothing.
        let mut deaf = socket(port);
        deaf.set_nonblocking(true).unwrap();
        let before: usize = (1..=3).map(|node| resident(&cluster, node)).sum();
        let mut most = 0;
        let sent = b"GET large\r\n".repeat(1000);
        let _ = deaf.write(&sent).unwrap();
        let mut operator = connect(port, 2);
        let address = deaf.local_addr().unwrap().to_string();
        let mut is_there = || {
            let text: String = redis::cmd("CLIENT").arg("LIST").query(&mut operator).unwrap();
            text.contains(&format!("addr={address} "))
        };
        until("the client that reads nothing is closed", || {
            most = most.max((1..=3).map(|node| resident(&cluster, node)).sum());
            !is_there()
        });
        // 12 GB were asked for. A few replies are under way between nodes until their size is known.
        let grown = most.saturating_sub(before);
        assert!(grown < 1000 * MIB, "{grown} bytes more for a client that reads nothing");
    });
}

#[test]
fn what_all_clients_keep_is_bounded_and_the_largest_go_first() {
    let cluster = LocalCluster::start(&["--maxmemory-clients", "64mb"]);
    let port = cluster.port;
    while_another_counts(&cluster, connect(port, 2), || {
        let before = resident(&cluster, 1);
        let mut small = socket(port);
        small.write_all(b"*2\r\n$4\r\nECHO\r\n$536870912\r\nhalf").unwrap();
        // Half a gigabyte each is promised, and 4 MiB of it comes: 400 MiB in all.
        let part = vec![0u8; 4 * MIB];
        let mut most = 0;
        let senders: Vec<TcpStream> = (0..100)
            .map(|_| {
                let mut sender = socket(port);
                // It may be closed while it sends.
                let _ = sender
                    .write_all(b"*2\r\n$4\r\nECHO\r\n$536870912\r\n")
                    .and_then(|()| sender.write_all(&part));
                most = most.max(resident(&cluster, 1));
                sender
            })
            .collect();
        let mut operator = connect(port, 2);
        until("most of them are closed", || {
            most = most.max(resident(&cluster, 1));
            ids(&mut operator).len() < 30
        });
        let grown = most.saturating_sub(before);
        assert!(grown < 300 * MIB, "{grown} bytes more for 64 MiB that clients may have kept");
        // The small one was spared, and so was some of the large.
        small.set_nonblocking(true).unwrap();
        assert_eq!(small.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
        let told = senders.into_iter().filter(|sender| {
            let mut sender = sender;
            sender.set_nonblocking(true).unwrap();
            let mut answer = [0; 200];
            // A reset may overtake the answer where the node had not read all.
            sender
                .read(&mut answer)
                .is_ok_and(|bytes| answer[..bytes].starts_with(b"-ERR the clients of this node"))
        });
        println!("{} were told", told.count());
    });
}

#[test]
fn a_full_node_refuses_what_needs_memory_and_nothing_else() {
    let cluster = LocalCluster::start(&["--maxmemory", "96mb"]);
    let mut connection = connect(cluster.port, 2);
    let oom = "!OOM command not allowed when used memory > 'maxmemory'.";
    assert_eq!(shown(&say(&mut connection, "CONFIG GET maxmemory")), "[\"maxmemory\" \"100663296\"]");
    assert_eq!(shown(&say(&mut connection, "SET small 1")), "OK");
    let value = vec![b'v'; MIB];
    let mut full = Vec::new();
    // Of one partition, so that one node decides.
    let mut stored = 0;
    // For a while: one look at memory may find the request itself, and the next one room again.
    let mut refused_since = None::<Instant>;
    while refused_since.is_none_or(|since| since.elapsed() < Duration::from_millis(200)) {
        assert!(stored < 1000, "a thousand MiB fit into 96");
        let reply = redis::cmd("SET")
            .arg(format!("{{small}}{stored}"))
            .arg(&value)
            .query::<redis::Value>(&mut connection);
        match reply {
            Ok(_) => {
                stored += 1;
                refused_since = None;
            }
            Err(error) => {
                full.push(error.to_string());
                refused_since.get_or_insert_with(Instant::now);
            }
        }
    }
    assert!(stored > 10, "{stored}");
    assert!(full[0].contains("OOM"), "{full:?}");
    // At whatever node it is asked for: its primary decides.
    for port in cluster.ports() {
        let mut elsewhere = connect(port, 2);
        for refused in
            ["SET small 2", "INCR {small}n", "APPEND small x", "MSET small 2", "SETRANGE small 9 x"]
        {
            assert_eq!(shown(&say(&mut elsewhere, refused)), oom, "{refused}");
        }
        assert_eq!(shown(&say(&mut elsewhere, "GET small")), "\"1\"");
        assert_eq!(shown(&say(&mut elsewhere, "EXPIRE small 1000")), "1");
        assert_eq!(shown(&say(&mut elsewhere, "PERSIST small")), "1");
    }
    for key in 0..stored {
        assert_eq!(shown(&say(&mut connection, &format!("DEL {{small}}{key}"))), "1");
    }
    until("there is room again", || shown(&say(&mut connection, "SET small 2")) == "OK");
}

#[test]
fn strangers_who_say_no_password_are_closed() {
    const STRANGERS: usize = 2000;
    let cluster =
        LocalCluster::start(&["--requirepass", "open sesame", "--authentication-timeout-ms", "1500"]);
    let port = cluster.port;
    raise_files(STRANGERS as u64 + 500);
    let known = || {
        let client = redis::Client::open(format!("redis://:open%20sesame@127.0.0.1:{port}/")).unwrap();
        client.get_connection().unwrap()
    };
    while_another_counts(&cluster, known(), || {
        let before = resident(&cluster, 1);
        let strangers: Vec<TcpStream> = (0..STRANGERS)
            .map(|number| {
                let mut stranger = socket(port);
                let sent: &[u8] = match number % 4 {
                    0 => b"",
                    1 => b"*2\r\n$4\r\nAUTH\r\n$16000\r\nopen",
                    2 => b"*10\r\n$4\r\nAUTH\r\n",
                    _ => b"AUTH open",
                };
                stranger.write_all(sent).unwrap();
                stranger
            })
            .collect();
        let grown = resident(&cluster, 1).saturating_sub(before);
        assert!(grown < 100 * MIB, "{grown} bytes more for {STRANGERS} strangers");
        for stranger in strangers {
            let told = "-NOAUTH Authentication required: it was not said in time.\r\n";
            assert_eq!(last_words(stranger), told);
        }
    });
}

/// Lets this process open so many files, if it may.
fn raise_files(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    let current = limit.current.unwrap_or(u64::MAX).max(wanted.min(most));
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[test]
fn as_many_clients_as_may_connect_and_the_next_is_told() {
    // Fewer where the system lets this process, or a node, open fewer files.
    let files = raise_files(12_000);
    let clients = 10_000.min(files.saturating_sub(1500) as usize);
    let cluster = LocalCluster::start(&["--maxclients", &clients.to_string()]);
    let port = cluster.port;
    let before = resident(&cluster, 1);
    while_another_counts(&cluster, connect(port, 2), || {
        let mut crowd = Vec::new();
        let refusal = b"-ERR max number of clients reached\r\n";
        loop {
            let mut client = socket(port);
            client.write_all(b"PING\r\n").unwrap();
            let mut answer = [0; 7];
            match client.read_exact(&mut answer) {
                Ok(()) if answer == *b"+PONG\r\n" => crowd.push(client),
                Ok(()) => {
                    assert_eq!(answer, refusal[..7]);
                    break;
                }
                // A reset overtook the refusal, since the node did not read the request.
                Err(error) => {
                    assert!(
                        matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof),
                        "{error}"
                    );
                    break;
                }
            }
            assert!(crowd.len() <= clients, "more than {clients} clients");
        }
        // The launcher may have a connection, too.
        assert!(crowd.len() + 10 > clients, "{} of {clients} clients came in", crowd.len());
        let grown = resident(&cluster, 1).saturating_sub(before);
        println!("{} clients: {} KiB more", crowd.len(), grown / 1024);
        assert!(grown < clients * 16 * 1024, "{grown} bytes more for idle clients");
        // Each of them is served.
        for client in crowd.iter_mut().step_by(97) {
            client.write_all(b"ECHO here\r\n").unwrap();
            let mut answer = [0; 10];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"$4\r\nhere\r\n");
        }
    });
    // Their places are free again.
    until("somebody new is served", || {
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
        client.get_connection().is_ok()
    });
}
