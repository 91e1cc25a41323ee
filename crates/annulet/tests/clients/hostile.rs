//! What no client should send, over sockets of this test's own: the node answers or hangs up, and others are not harmed.

use crate::local_cluster::{PATIENCE, SetOnDrop, Shared, connect};
use crate::script::{play, say, shown};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

/// What a node answers to these bytes, and whether it hangs up by itself.
pub fn exchange(port: u16, pieces: &[&[u8]]) -> (String, bool) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
    for piece in pieces {
        // A node that has seen enough may have hung up already.
        if socket.write_all(piece).is_err() {
            break;
        }
    }
    // Answered last of all by a node that still listens; the error tells where the answers end.
    const MARK: &[u8] = b"\r\n*2\r\n$4\r\nECHO\r\n$8\r\nthe mark\r\n";
    const ANSWER: &[u8] = b"$8\r\nthe mark\r\n";
    let _ = socket.write_all(MARK);
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return (String::from_utf8_lossy(&answer).into_owned(), true),
            Ok(bytes) => answer.extend_from_slice(&buffer[..bytes]),
            // It hung up before it had read all.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return (String::from_utf8_lossy(&answer).into_owned(), true);
            }
            Err(error) => panic!("neither an answer nor an end: {error}, after {answer:?}"),
        }
        if let Some(before) = answer.strip_suffix(ANSWER) {
            return (String::from_utf8_lossy(before).into_owned(), false);
        }
    }
}

#[test]
fn words_on_a_line_are_commands_too() {
    let cluster = Shared::turn();
    for (sent, expected) in [
        (&b"PING\r\n"[..], "+PONG\r\n"),
        (b"PING\nPING\n", "+PONG\r\n+PONG\r\n"),
        (b"\r\n\r\n  PING  \r\n", "+PONG\r\n"),
        (b"SET k \"a b\"\r\nGET k\r\n", "+OK\r\n$3\r\na b\r\n"),
        (b"SET k \"\\x41\\n\"\r\nGET k\r\n", "+OK\r\n$2\r\nA\n\r\n"),
        (b"SET k 'it\\'s'\r\nGET k\r\nDEL k\r\n", "+OK\r\n$4\r\nit's\r\n:1\r\n"),
        (b"NOPE a\r\n", "-ERR unknown command 'NOPE', with args beginning with: 'a' \r\n"),
        (b"*0\r\n*-1\r\nPING\r\n", "+PONG\r\n"),
    ] {
        for port in cluster.ports().into_iter().chain(cluster.cluster_ports()).step_by(2) {
            // DEL and SET of `k` belong to one node: the others' cluster ports redirect.
            let (answer, hung_up) = exchange(port, &[sent]);
            assert!(!hung_up);
            if !answer.contains("-MOVED") {
                assert_eq!(answer, expected, "{}", sent.escape_ascii());
            }
        }
    }
    // In pieces, as slow networks bring it.
    let slow: Vec<&[u8]> = b"*2\r\n$4\r\nECHO\r\n$3\r\nabc\r\nPING\r\n".chunks(1).collect();
    assert_eq!(exchange(cluster.port, &slow), ("$3\r\nabc\r\n+PONG\r\n".into(), false));
}

#[test]
fn what_is_no_request_is_told_and_ends_the_connection() {
    let cluster = Shared::turn();
    let long = [b'x'; 70_000];
    let digits = [&b"*"[..], &[b'1'; 70_000]].concat();
    let quotes: &[u8] = b"SET k \"a b\r\n";
    for (sent, expected) in [
        (quotes, "unbalanced quotes in request"),
        (&long, "too big inline request"),
        (&digits, "too big mbulk count string"),
        (b"*x\r\n", "invalid multibulk length"),
        (b"*1048577\r\n", "invalid multibulk length"),
        (b"*99999999999999999999\r\n", "invalid multibulk length"),
        (b"*1\r\n$x\r\n", "invalid bulk length"),
        (b"*1\r\n$-5\r\n", "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        (b"*1\r\n$999999999999\r\n", "invalid bulk length"),
        (b"*1\r\n:5\r\n", "expected '$', got ':'"),
        (b"*1\r\n$4\r\nPINGxx", "expected CRLF after a bulk string"),
        (b"*2\r\n$4\r\nECHO\r\n*1\r\n$1\r\na\r\n", "expected '$', got '*'"),
    ] {
        for port in [cluster.ports()[0], cluster.cluster_ports()[1]] {
            let (answer, hung_up) = exchange(port, &[b"PING\r\n", sent]);
            let shown = &sent[..sent.len().min(40)];
            assert!(hung_up, "{}", shown.escape_ascii());
            // A reset may overtake the answer where the node had not read all.
            if !(sent.len() > 60_000 && answer.is_empty()) {
                let expected = format!("+PONG\r\n-ERR Protocol error: {expected}\r\n");
                assert_eq!(answer, expected, "{}", shown.escape_ascii());
            }
        }
    }
    // A web page can make a browser send this to any port of its user's machine: the commands in its body must not run.
    for request in [
        &b"POST / HTTP/1.1\r\nContent-Length: 15\r\n\r\nSET forged 1\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nSET forged 1\r\n",
    ] {
        let (answer, hung_up) = exchange(cluster.port, &[request]);
        assert!(hung_up, "{answer}");
    }
    assert_eq!(shown(&say(&mut connect(cluster.port, 2), "EXISTS forged")), "0");
}

#[test]
fn wrong_arguments_change_nothing() {
    let cluster = Shared::turn();
    let huge = "9".repeat(400);
    let script = format!(
        "
        SET n 5                  -> OK
        INCRBY n {huge}          -> !ERR value is not an integer or out of range
        EXPIRE n {huge}          -> !ERR value is not an integer or out of range
        EXPIRE n 9223372036854775807 -> !ERR invalid expire time in 'expire' command
        SET n 1 PX 9223372036854775807 -> !ERR invalid expire time in 'set' command
        SCAN {huge}              -> !ERR invalid cursor
        SCAN 18446744073709551615 -> !ERR invalid cursor
        CLUSTER COUNTKEYSINSLOT -1 -> !ERR Invalid slot
        LPUSH n 1                -> !ERR unknown command 'LPUSH', with args beginning with: 'n' '1'
        GET n                    -> \"5\"
        TTL n                    -> -1
        "
    );
    for port in cluster.ports() {
        let mut connection = connect(port, 3);
        play(&mut connection, &script, &format!("port {port}"));
        let long_key = "k".repeat(64 * 1024 + 1);
        let reply = shown(&say(&mut connection, &format!("SET {long_key} 1")));
        assert_eq!(reply, "!ERR key is longer than 65536 bytes");
        let reply = shown(&say(&mut connection, &format!("SET {} 1", &long_key[1..])));
        assert_eq!(reply, "OK");
        assert_eq!(shown(&say(&mut connection, &format!("DEL {}", &long_key[1..]))), "1");
    }
}

#[test]
fn half_requests_and_vain_promises_cost_little_and_harm_nobody() {
    const STRANGERS: usize = 100;
    let cluster = Shared::turn();
    let done = AtomicBool::new(false);
    let resident = || {
        let info: redis::InfoDict =
            redis::cmd("INFO").arg("memory").query(&mut connect(cluster.port, 2)).unwrap();
        info.get::<u64>("used_memory_rss").expect("a figure")
    };
    std::thread::scope(|scope| {
        let counting = scope.spawn(|| {
            let mut connection = connect(cluster.port, 2);
            let mut count = 0u64;
            loop {
                count += 1;
                let now: u64 = redis::cmd("INCR").arg("unharmed").query(&mut connection).unwrap();
                assert_eq!(now, count);
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let stop = SetOnDrop(&done);
        let before = resident();
        let mut strangers = Vec::new();
        for number in 0..STRANGERS {
            let port = if number % 2 == 0 { cluster.port } else { cluster.cluster_ports()[0] };
            let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let sent: &[u8] = match number % 5 {
                // Half a gigabyte is promised.
                0 => b"*3\r\n$3\r\nSET\r\n$6\r\nforged\r\n$536870912\r\nabc",
                1 => b"*1048576\r\n$4\r\nMGET\r\n",
                2 => b"*3\r\n$3\r\nSET\r\n$6\r\nforged\r\n$1",
                3 => b"SET forged 1",
                _ => b"*2\r\n$4\r\nECHO\r\n$1048576\r\n\0\0\0\0",
            };
            socket.write_all(sent).unwrap();
            strangers.push(socket);
        }
        // The node has seen them once it answers somebody who came later.
        let size: u64 = redis::cmd("DBSIZE").query(&mut connect(cluster.port, 2)).unwrap();
        assert!(size <= 1);
        let grown = resident().saturating_sub(before);
        assert!(grown < 200 * 1024 * 1024, "{grown} bytes more for requests that never came");
        for (number, socket) in strangers.into_iter().enumerate() {
            if number % 2 == 0 {
                let _ = socket.shutdown(Shutdown::Write);
            }
        }
        // A request that has not wholly come is not run when its sender goes away.
        assert_eq!(shown(&say(&mut connect(cluster.port, 2), "EXISTS forged")), "0");
        drop(stop);
        counting.join().unwrap();
    });
    assert!(cluster.is_whole());
}

#[test]
fn noise_at_every_port_leaves_the_nodes_serving() {
    let cluster = Shared::turn();
    let every_byte: Vec<u8> = (0..=255).collect();
    let zeros = vec![0u8; 100_000];
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a greeting in TLS";
    let ports = cluster.ports().into_iter().chain(cluster.cluster_ports()).chain(cluster.peer_ports());
    for port in ports {
        for noise in [&every_byte[..], &zeros, tls, b"\xff\xff\xff\xff\xff\xff\xff\xff", b""] {
            let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let _ = socket.write_all(noise);
            let _ = socket.shutdown(Shutdown::Write);
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            // It ends, with or without an answer.
            let mut answer = Vec::new();
            if let Err(error) = socket.read_to_end(&mut answer) {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "port {port}");
            }
        }
    }
    assert!(cluster.is_whole());
    for port in cluster.ports() {
        assert_eq!(shown(&say(&mut connect(port, 2), "SET calm 1")), "OK");
    }
}

/// Bytes that look like requests at first: each connection is answered or closed, and the node goes on.
#[test]
fn garbage_that_begins_like_a_request_is_answered_or_closed() {
    let cluster = Shared::turn();
    // A fixed xorshift (Marsaglia 2003): a failure is the same one tomorrow.
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    const PIECES: [&[u8]; 14] = [
        b"*3\r\n",
        b"$3\r\nSET\r\n",
        b"$-1\r\n",
        b"*-7\r\n",
        b"*1048576\r\n",
        b"$536870912\r\n",
        b"$0\r\n\r\n",
        b"\"\\x",
        b"'",
        b"\r\n",
        b"PING\r\n",
        b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n",
        b"CLIENT REPLY OFF\r\n",
        b"\x00\xff:$*",
    ];
    for _ in 0..300 {
        let mut sent = Vec::new();
        for _ in 0..next() % 20 {
            match next() % 4 {
                0 => sent.extend(next().to_le_bytes()),
                _ => sent.extend_from_slice(PIECES[(next() % PIECES.len() as u64) as usize]),
            }
        }
        let port = if next() % 2 == 0 { cluster.port } else { cluster.cluster_ports()[1] };
        let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = socket.write_all(&sent);
        let _ = socket.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        if let Err(error) = socket.read_to_end(&mut answer) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{}", sent.escape_ascii());
        }
    }
    assert!(cluster.is_whole());
    assert_eq!(shown(&say(&mut connect(cluster.port, 2), "PING")), "PONG");
}
