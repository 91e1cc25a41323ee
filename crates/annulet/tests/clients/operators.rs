//! What operators do with a node's connections, over all of its shards: see them, close them, have them wait.

use crate::hostile::exchange;
use crate::local_cluster::{PATIENCE, Shared, connect, until};
use crate::script::{say, shown};
use std::io::{Read, Write};
use std::net::TcpStream;

/// A socket that fails instead of waiting for ever.
fn socket(port: u16) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

fn read(socket: &mut TcpStream, bytes: usize) -> String {
    let mut answer = vec![0; bytes];
    socket.read_exact(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

fn id_of(socket: &mut TcpStream) -> u64 {
    socket.write_all(b"CLIENT ID\r\n").unwrap();
    let mut line = String::new();
    while !line.ends_with("\r\n") {
        line += &read(socket, 1);
    }
    line.trim_start_matches(':').trim().parse().unwrap()
}

fn list(connection: &mut redis::Connection, filter: &str) -> Vec<String> {
    let mut command = redis::cmd("CLIENT");
    command.arg("LIST");
    for word in filter.split_whitespace() {
        command.arg(word);
    }
    let text: String = command.query(connection).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn field<'l>(line: &'l str, name: &str) -> &'l str {
    line.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('=')).unwrap()
}

#[test]
fn every_connection_of_a_node_is_listed_and_can_be_closed() {
    let cluster = Shared::turn();
    let mut operator = connect(cluster.port, 2);
    // Connections are dealt to the shards in turn: with seven every shard of a usual machine has some.
    let mut others: Vec<(TcpStream, u64)> = (0..7)
        .map(|number| {
            let door = if number % 2 == 0 { cluster.port } else { cluster.cluster_ports()[0] };
            let mut other = socket(door);
            other.write_all(format!("CLIENT SETNAME other-{number}\r\n").as_bytes()).unwrap();
            assert_eq!(read(&mut other, 5), "+OK\r\n");
            let id = id_of(&mut other);
            (other, id)
        })
        .collect();
    let lines = list(&mut operator, "");
    let ids: Vec<u64> = lines.iter().map(|line| field(line, "id").parse().unwrap()).collect();
    assert!(ids.is_sorted(), "{ids:?}");
    for (number, (other, id)) in others.iter().enumerate() {
        let line = &lines[ids.iter().position(|listed| listed == id).unwrap()];
        assert_eq!(field(line, "name"), format!("other-{number}"));
        assert_eq!(field(line, "addr"), other.local_addr().unwrap().to_string());
        assert_eq!(field(line, "laddr"), other.peer_addr().unwrap().to_string());
        assert_eq!((field(line, "cmd"), field(line, "flags"), field(line, "resp")), ("client|id", "N", "2"));
    }
    assert!(lines.iter().any(|line| field(line, "cmd") == "client|list"));
    let two = list(&mut operator, &format!("ID {} {} 999999999", others[2].1, others[1].1));
    assert_eq!(two.len(), 2);
    assert!(list(&mut operator, "TYPE pubsub").is_empty());

    let (mut first, id) = others.remove(0);
    assert_eq!(shown(&say(&mut operator, &format!("CLIENT KILL ID {id}"))), "1");
    assert_eq!(first.read(&mut [0; 1]).unwrap(), 0);
    let (mut second, _) = others.remove(0);
    let address = second.local_addr().unwrap();
    assert_eq!(shown(&say(&mut operator, &format!("CLIENT KILL {address}"))), "OK");
    assert_eq!(second.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(shown(&say(&mut operator, &format!("CLIENT KILL {address}"))), "!ERR No such client");
    // By the door that they came in by.
    let door = format!("127.0.0.1:{}", cluster.cluster_ports()[0]);
    assert_eq!(shown(&say(&mut operator, &format!("CLIENT KILL LADDR {door}"))), "2");
    assert_eq!(shown(&say(&mut operator, "PING")), "PONG");
    // Whoever closes himself is told first.
    let mut own = socket(cluster.port);
    let own_id = id_of(&mut own);
    own.write_all(format!("CLIENT KILL ID {own_id} SKIPME no\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    own.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, ":1\r\n");
    // On the other nodes nobody was closed.
    for (number, (other, _)) in others.iter_mut().enumerate() {
        other.write_all(b"PING\r\n").unwrap();
        let mut answer = [0; 7];
        let alive = other.read_exact(&mut answer).is_ok();
        assert_eq!(alive, number % 2 == 0, "{number}");
    }
    assert!(cluster.is_whole());
}

#[test]
fn paused_requests_wait_and_go_on_in_their_order() {
    let cluster = Shared::turn();
    let mut operator = connect(cluster.port, 2);
    let mut paused = socket(cluster.port);
    let id = id_of(&mut paused);
    let is_held = |operator: &mut redis::Connection| {
        list(operator, &format!("ID {id}")).first().is_some_and(|line| field(line, "flags") == "b")
    };
    for (mode, sent) in [
        ("WRITE", &b"GET p\r\nSET p \"a b\"\r\nGET p\r\nDEL p\r\nPING\r\n"[..]),
        ("ALL", b"GET p\r\nSET p 'a b'\r\nGET p\r\nDEL p\r\nPING\r\n"),
    ] {
        assert_eq!(shown(&say(&mut operator, &format!("CLIENT PAUSE 600000 {mode}"))), "OK");
        paused.write_all(sent).unwrap();
        until("its request is held", || is_held(&mut operator));
        if mode == "WRITE" {
            assert_eq!(read(&mut paused, 5), "$-1\r\n");
            // Reads go on, also elsewhere.
            assert_eq!(shown(&say(&mut operator, "GET p")), "nil");
        }
        paused.set_nonblocking(true).unwrap();
        assert!(paused.read(&mut [0; 1]).is_err(), "{mode}: a paused request was answered");
        paused.set_nonblocking(false).unwrap();
        assert_eq!(shown(&say(&mut operator, "CLIENT UNPAUSE")), "OK");
        if mode == "ALL" {
            assert_eq!(read(&mut paused, 5), "$-1\r\n");
        }
        assert_eq!(read(&mut paused, 25), "+OK\r\n$3\r\na b\r\n:1\r\n+PONG\r\n");
    }
    // It ends by itself.
    assert_eq!(shown(&say(&mut operator, "CLIENT PAUSE 20")), "OK");
    assert_eq!(shown(&say(&mut operator, "SET p 1")), "OK");
    // Who hangs up meanwhile is forgotten.
    assert_eq!(shown(&say(&mut operator, "CLIENT PAUSE 600000 WRITE")), "OK");
    paused.write_all(b"SET p 2\r\n").unwrap();
    until("its request is held", || is_held(&mut operator));
    assert_eq!(shown(&say(&mut operator, &format!("CLIENT KILL ID {id}"))), "1");
    assert_eq!(shown(&say(&mut operator, "CLIENT UNPAUSE")), "OK");
    assert_eq!(shown(&say(&mut operator, "GET p")), "\"1\"");
    assert_eq!(shown(&say(&mut operator, "DEL p")), "1");
}

#[test]
fn unwanted_replies_are_left_out_also_those_that_come_later() {
    let cluster = Shared::turn();
    // Over many keys, so that other shards and nodes answer most of them.
    let writes: String = (0..50).map(|key| format!("SET quiet-{key} 1\r\nGET quiet-{key}\r\n")).collect();
    let sent = format!(
        "PING\r\nCLIENT REPLY OFF\r\n{writes}NOPE\r\nCLIENT REPLY ON\r\nECHO on\r\nCLIENT REPLY SKIP\r\n\
         SET quiet-1 2\r\nGET quiet-1\r\nCLIENT REPLY SKIP\r\nCLIENT REPLY ON\r\n"
    );
    let (answer, hung_up) = exchange(cluster.port, &[sent.as_bytes()]);
    assert!(!hung_up);
    assert_eq!(answer, "+PONG\r\n+OK\r\n$2\r\non\r\n$1\r\n2\r\n+OK\r\n");
    let size: u64 = redis::cmd("DBSIZE").query(&mut connect(cluster.port, 2)).unwrap();
    assert_eq!(size, 50);
}
