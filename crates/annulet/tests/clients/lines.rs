//! The line port over raw sockets: JSON and text, with newlines and without, in one piece and in several, many requests and one, too long,
//! wrong, and cut off.

use crate::local_cluster::{LocalCluster, PATIENCE, Shared, connect, until};
use crate::script::{say, shown};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// A client that writes what it is told and reads lines.
pub struct Line {
    reader: BufReader<TcpStream>,
}

impl Line {
    pub fn to(port: u16) -> Line {
        let socket = TcpStream::connect(("127.0.0.1", port)).expect("the line port is open");
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Line { reader: BufReader::new(socket) }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader.get_mut().write_all(bytes.as_ref()).expect("the node takes it");
    }

    /// The next line, without its newline.
    pub fn bytes(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).expect("an answer");
        assert_eq!(line.pop(), Some(b'\n'), "cut off: {}", line.escape_ascii());
        line
    }

    pub fn line(&mut self) -> String {
        String::from_utf8(self.bytes()).expect("text")
    }

    /// Sends a request with a newline, and reads one line.
    pub fn ask(&mut self, request: &str) -> String {
        self.send(format!("{request}\n"));
        self.line()
    }

    pub fn json(&mut self, request: &str) -> Value {
        serde_json::from_str(&self.ask(request)).expect("JSON")
    }

    fn shut_down(&mut self) {
        self.reader.get_mut().shutdown(Shutdown::Write).unwrap();
    }

    /// Everything up to the end of the connection.
    fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.reader.read_to_string(&mut rest).expect("an end");
        rest
    }
}

/// So long that no piece of a request comes later, however busy the machine is.
const GENEROUS: &str = "30000";

fn idle(cluster: &LocalCluster, ms: &str) {
    for port in cluster.ports() {
        let set = shown(&say(&mut connect(port, 2), &format!("CONFIG SET line_idle_ms {ms}")));
        assert_eq!(set, "OK");
    }
}

#[test]
fn text_requests_are_lines() {
    let cluster = Shared::turn();
    let mut at: Vec<Line> = cluster.line_ports().map(Line::to).into();
    assert_eq!(at[0].ask("PUT user:1 Alice Liddell"), "OK");
    assert_eq!(at[1].ask("GET user:1"), "VALUE Alice Liddell");
    assert_eq!(at[2].ask("get user:1\r"), "VALUE Alice Liddell");
    assert_eq!(at[0].ask("GET nobody"), "NOT_FOUND");
    assert_eq!(at[1].ask("PUT user:1   two  spaces "), "OK");
    assert_eq!(at[0].ask("GET user:1"), "VALUE   two  spaces ", "one space separates, the rest is the value");
    assert_eq!(at[2].ask("EXPIRE user:1 100"), "OK");
    assert_eq!(at[2].ask("EXPIRE nobody 100"), "NOT_FOUND");
    assert_eq!(at[0].ask("DELETE user:1"), "OK");
    assert_eq!(at[0].ask("DELETE user:1"), "OK");
    assert_eq!(at[1].ask("GET user:1"), "NOT_FOUND");
    assert!(at[0].ask("HELLO").starts_with("ERROR expected PUT key value, GET key"));
    assert!(at[0].ask("EXPIRE user:1 soon").starts_with("ERROR expected EXPIRE key seconds"));
    assert!(at[0].ask("REPLICATE a 1").starts_with("ERROR this is for nodes"));
    // Bytes that are not UTF-8, and a value that no line shows.
    at[0].send(b"PUT bytes \xff\x00\xfe\nGET bytes\n");
    assert_eq!(at[0].line(), "OK");
    assert_eq!(at[0].bytes(), b"VALUE \xff\x00\xfe");
    let _: () = redis::cmd("SET").arg("lines").arg("a\nOK").query(&mut connect(cluster.port, 2)).unwrap();
    assert!(at[1].ask("GET lines").starts_with("ERROR the value holds a newline"));
}

#[test]
fn the_coordinators_commands_work_at_any_node() {
    let cluster = Shared::turn();
    let addresses = cluster.line_ports().map(|port| format!("127.0.0.1:{port}"));
    for (node, port) in cluster.line_ports().into_iter().enumerate() {
        let mut line = Line::to(port);
        assert_eq!(line.ask("LIST_NODES"), "OK Nodes:");
        for address in &addresses {
            assert_eq!(line.line(), format!("  {address}"));
        }
        let info = line.ask("INFO");
        assert!(info.starts_with(&format!("OK Node {} keys=", addresses[node])), "{info}");
        let primary = line.ask("GET_NODES_FOR_KEY user:1");
        let replica = line.line();
        let of = |text: &str, word: &str| {
            text.strip_prefix(word).map(str::to_owned).unwrap_or_else(|| panic!("{text}"))
        };
        let (primary, replica) = (of(&primary, "PRIMARY "), of(&replica, "REPLICA "));
        assert!(primary != replica && addresses.contains(&primary) && addresses.contains(&replica));
        // The primary is who lists the key as its own.
        assert_eq!(line.ask("PUT user:1 x"), "OK");
        let place = addresses.iter().position(|address| *address == primary).unwrap();
        let listed =
            |node: usize| Line::to(cluster.line_ports()[node]).json(r#"{"command":"KEYS"}"#)["keys"].clone();
        for node in 0..3 {
            let own = listed(node).as_array().unwrap().contains(&Value::from("user:1"));
            assert_eq!(own, node == place, "node {}", node + 1);
        }
        let (host, there) = addresses[2].split_once(':').unwrap();
        assert_eq!(
            line.ask(&format!("REGISTER_NODE {host} {there}")),
            format!("OK Node {} registered", addresses[2])
        );
        assert!(line.ask("REGISTER_NODE 10.9.9.9 7401").contains("a node joins with `annulet serve --join"));
        assert!(
            line.ask("UNREGISTER_NODE 10.9.9.9 7401")
                .starts_with("ERROR 10.9.9.9:7401 is the line address of no node")
        );
        // A last word that names nodes is no part of the value; others are.
        assert_eq!(line.ask(&format!("PUT a 1 2 {},{}", addresses[0], addresses[1])), "OK");
        assert_eq!(line.ask("GET a"), "VALUE 1 2");
        assert_eq!(line.ask(&format!("PUT a 1 {},10.9.9.9:7401", addresses[0])), "OK");
        assert_eq!(line.ask("GET a"), format!("VALUE 1 {},10.9.9.9:7401", addresses[0]));
        assert_eq!(line.ask(&format!("PUT a {}", addresses[0])), "OK");
        assert_eq!(line.ask("GET a"), format!("VALUE {}", addresses[0]));
    }
}

#[test]
fn json_requests_are_objects() {
    let cluster = Shared::turn();
    let mut line = Line::to(cluster.line_ports()[1]);
    let stored = line.json(r#"{"command":"PUT","key":"k","value":"v","seconds":60,"more":[1]}"#);
    assert_eq!(
        (&stored["status"], &stored["key"], &stored["value"]),
        (&"success".into(), &"k".into(), &"v".into())
    );
    assert!(stored["message"].is_string());
    assert_eq!((&stored["server_id"], &stored["server_port"]), (&2.into(), &cluster.line_ports()[1].into()));
    let myid = shown(&say(&mut connect(cluster.ports()[1], 2), "CLUSTER MYID"));
    assert_eq!(format!("\"{}\"", stored["node_id"].as_str().unwrap()), myid);
    let got = line.json(r#"{"command":"get","key":"k"}"#);
    assert_eq!((&got["status"], &got["value"]), (&"success".into(), &"v".into()));
    let ttl = got["ttl"].as_i64().unwrap();
    assert!((1..=60).contains(&ttl), "{ttl}");
    assert_eq!(line.json(r#"{"command":"SET","key":"k","value":"w"}"#)["status"], "success");
    assert_eq!(line.json(r#"{"command":"GET","key":"k"}"#)["ttl"], -1);
    let none = line.json(r#"{"command":"GET","key":"none"}"#);
    assert_eq!((&none["status"], &none["message"]), (&"null".into(), &"Key not found".into()));
    let expires = line.json(r#"{"command":"EXPIRE","key":"k","seconds":50}"#);
    assert_eq!(
        (&expires["status"], &expires["key"], &expires["ttl"]),
        (&"success".into(), &"k".into(), &50.into())
    );
    assert_eq!(line.json(r#"{"command":"EXPIRE","key":"none","seconds":50}"#)["status"], "null");
    assert_eq!(line.json(r#"{"command":"DEL","key":"k"}"#)["status"], "success");
    assert_eq!(line.json(r#"{"command":"DELETE","key":"k"}"#)["status"], "null");
    for (request, message) in [
        ("{\"command\":}", "Invalid JSON: expected value at line 1 column 12"),
        ("{\"command\":\"GET\"", "Invalid JSON: EOF while parsing an object at line 1 column 16"),
        (r#"{"command":"GET"}"#, "Key is required"),
        (r#"{"command":"PUT","key":"k"}"#, "Value is required"),
        (r#"{"command":"EXPIRE","key":"k"}"#, "Seconds is required"),
    ] {
        let wrong = line.json(request);
        assert_eq!((&wrong["status"], &wrong["message"]), (&"error".into(), &message.into()), "{request}");
        assert_eq!(wrong["server_id"], 2);
    }
    for command in ["JOIN", "HEARTBEAT", "REPLICATE"] {
        let refused = line.json(&format!(r#"{{"command":"{command}"}}"#));
        assert_eq!(refused["status"], "error");
        assert!(refused["message"].as_str().unwrap().contains("serve --join"), "{refused}");
    }
    // A command's own error keeps its text.
    let refused = line.json(r#"{"command":"PUT","key":"k","value":"v","seconds":0}"#);
    assert_eq!(refused["message"], "ERR invalid expire time in 'set' command");
    assert_eq!(refused["code"], "ERR");
    // Bytes.
    let stored = line.json(r#"{"command":"PUT","key":"b","value":"/wA=","encoding":"base64"}"#);
    assert_eq!((&stored["value"], &stored["encoding"]), (&"/wA=".into(), &"base64".into()));
    let bytes: Vec<u8> = redis::cmd("GET").arg("b").query(&mut connect(cluster.port, 2)).unwrap();
    assert_eq!(bytes, b"\xff\0");
    let got = line.json(r#"{"command":"GET","key":"b"}"#);
    assert_eq!((&got["value"], &got["encoding"]), (&"/wA=".into(), &"base64".into()));
}

#[test]
fn figures_and_the_clusters_state_in_json() {
    let cluster = Shared::turn();
    let mut line = Line::to(cluster.line_ports()[0]);
    let stats = |line: &mut Line| line.json(r#"{"command":"GET_STATS"}"#)["stats"].clone();
    let before = stats(&mut line);
    for number in 0..30 {
        assert_eq!(line.ask(&format!("PUT stats:{number} x")), "OK");
        assert_eq!(line.json(&format!(r#"{{"command":"GET","key":"stats:{number}"}}"#))["value"], "x");
    }
    assert_eq!(line.ask("EXPIRE stats:1 1000"), "OK");
    assert_eq!(line.ask("DELETE stats:2"), "OK");
    let after = stats(&mut line);
    let grew = |name: &str| after[name].as_u64().unwrap() - before[name].as_u64().unwrap();
    assert!(grew("total_requests") >= 62);
    assert_eq!((grew("get_requests"), grew("set_requests")), (30, 30));
    assert_eq!((grew("delete_requests"), grew("expire_requests")), (1, 1));
    assert_eq!(after["peers"], 2);
    for name in ["total_keys", "keys_with_ttl", "uptime_seconds"] {
        assert!(after[name].is_u64(), "{name}");
    }
    // Whole, and its keys are told soon.
    until("29 keys", || {
        let status = line.json(r#"{"command":"SERVERS"}"#);
        let nodes = status["nodes"].as_array().unwrap();
        assert_eq!((nodes.len(), &status["partitions"], &status["at_risk"]), (3, &1024.into(), &0.into()));
        assert!(nodes.iter().all(|node| node["state"] == "ACTIVE" && node["host"] == "127.0.0.1"));
        let ports: Vec<u64> = nodes.iter().map(|node| node["port"].as_u64().unwrap()).collect();
        assert_eq!(ports, cluster.line_ports().map(u64::from));
        let sum = |name: &str| nodes.iter().map(|node| node[name].as_u64().unwrap_or(0)).sum::<u64>();
        assert_eq!((sum("primaries"), sum("copies")), (1024, 2048));
        assert!(nodes.iter().any(|node| node["node_id"] == status["coordinator"]));
        sum("keys") == 29
    });
    // Keys that are no text are shown so that they can be told.
    let _: () = redis::cmd("SET").arg(&b"\xff"[..]).arg(1).query(&mut connect(cluster.port, 2)).unwrap();
    let (mut count, mut encoded) = (0, 0);
    for port in cluster.line_ports() {
        let listed = Line::to(port).json(r#"{"command":"KEYS"}"#);
        let keys = listed["keys"].as_array().unwrap();
        assert_eq!(listed["count"], keys.len());
        count += keys.len();
        encoded += keys.iter().filter(|key| key["key"] == "/w==" && key["encoding"] == "base64").count();
    }
    assert_eq!((count, encoded), (30, 1));
}

#[test]
fn requests_end_where_they_should() {
    let cluster = LocalCluster::start(&[]);
    idle(&cluster, GENEROUS);
    let port = cluster.line_ports()[0];
    // JSON needs no newline: not in one piece, not in several, not many in one piece.
    let mut line = Line::to(port);
    line.send(r#"{"command":"PUT","key":"a","value":"}{\""}"#);
    assert!(line.line().contains("success"));
    for piece in [r#"{"comm"#, r#"and":"G"#, r#"ET","key":"a"#, "\"}"] {
        line.send(piece);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(line.line().contains(r#""value":"}{\"""#));
    line.send(r#"{"command":"GET","key":"a"}{"command":"KEYS"} {"command":"GET","key":"none"}GET a"#);
    assert!(line.line().contains(r#""value""#));
    assert!(line.line().contains(r#""count""#));
    assert!(line.line().contains("null"));
    // Text goes on after JSON, and ends with the newline that comes at last.
    line.send("\n");
    assert_eq!(line.line(), "VALUE }{\"");
    // Over several lines, as pretty-printers write.
    line.send("{\n  \"command\": \"GET\",\n  \"key\": \"a\"\n}\n");
    assert!(line.line().contains(r#""value""#));
    // Many text requests in one piece, and one in many pieces.
    line.send("PUT a 1\nGET a\r\n\n\nGET none\n");
    assert_eq!([line.line(), line.line(), line.line()], ["OK", "VALUE 1", "NOT_FOUND"]);
    for byte in b"PUT a x\n" {
        line.send([*byte]);
    }
    assert_eq!(line.line(), "OK");
    // Text in several pieces within the idle time, whose sender then shuts down: one request, whole.
    let mut line = Line::to(port);
    for piece in ["PU", "T half ", "closed va", "lue"] {
        line.send(piece);
        std::thread::sleep(Duration::from_millis(30));
    }
    line.shut_down();
    assert_eq!(line.rest(), "OK\n");
    let mut line = Line::to(port);
    line.send("GET half\nGET half");
    line.shut_down();
    assert_eq!(line.rest(), "VALUE closed value\nVALUE closed value\n");
    // JSON whose sender shuts down in the middle is told what is missing.
    let mut line = Line::to(port);
    line.send(r#"{"command":"#);
    line.shut_down();
    assert!(line.rest().contains("Invalid JSON"));
    // Nothing at all.
    let mut line = Line::to(port);
    line.shut_down();
    assert_eq!(line.rest(), "");

    // Text that stands without a newline is a request after a while.
    idle(&cluster, "20");
    let mut line = Line::to(port);
    line.send("PUT idle one two");
    assert_eq!(line.line(), "OK");
    line.send("GET idle");
    assert_eq!(line.line(), "VALUE one two");
    // Longer text is not: it waits for its newline, or its sender's end.
    let long = "x".repeat(1400);
    line.send(format!("PUT idle {long}"));
    std::thread::sleep(Duration::from_millis(200));
    line.send("\nGET none");
    assert_eq!([line.line(), line.line()], ["OK", "NOT_FOUND"]);
    line.send(format!("PUT idle cut{long}"));
    line.shut_down();
    assert!(line.rest().starts_with("ERROR text of more than 1400 bytes"));
    let mut line = Line::to(port);
    assert_eq!(line.ask("GET idle"), format!("VALUE {long}"), "nothing was done");
    // Turned off, only the newline ends a request.
    idle(&cluster, "0");
    let mut line = Line::to(port);
    line.send("PUT off 1");
    std::thread::sleep(Duration::from_millis(200));
    line.send("2\nGET off\n");
    assert_eq!([line.line(), line.line()], ["OK", "VALUE 12"]);

    // What a browser can be made to send here is not heard.
    let mut line = Line::to(port);
    line.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n\r\nPUT off web\n");
    let told = line.rest();
    assert!(told.starts_with("ERROR ") && told.contains("http_port") && told.lines().count() == 1, "{told}");
    assert_eq!(Line::to(port).ask("GET off"), "VALUE 12");

    // Too long, with and without an end: an error, and the end.
    let set = shown(&say(&mut connect(cluster.port, 2), "CONFIG SET max_request_bytes 65536"));
    assert_eq!(set, "OK");
    let most = "a request may have 65536 bytes (max_request_bytes)";
    let mut line = Line::to(port);
    line.send(format!("GET none\nPUT off {}", "y".repeat(70_000)));
    assert_eq!(line.rest(), format!("NOT_FOUND\nERROR {most}\n"));
    let mut line = Line::to(port);
    line.send(format!("{{\"command\":\"PUT\",\"key\":\"off\",\"value\":\"{}\"}}", "y".repeat(70_000)));
    let told = line.rest();
    assert!(told.contains(r#""status":"error""#) && told.contains(most), "{told}");
    assert_eq!(Line::to(port).ask("GET off"), "VALUE 12");
    // One that does not come whole.
    let set = shown(&say(&mut connect(cluster.port, 2), "CONFIG SET request_incomplete_timeout_ms 100"));
    assert_eq!(set, "OK");
    let mut line = Line::to(port);
    line.send("PUT off 1");
    assert_eq!(line.rest(), "ERROR the request did not come whole in time\n");
}

#[test]
fn a_password_shuts_the_line_port() {
    let cluster = LocalCluster::start(&["--requirepass", "open sesame"]);
    for port in cluster.line_ports() {
        let mut line = Line::to(port);
        for request in [
            "GET a",
            "PUT a 1",
            "INFO",
            "LIST_NODES",
            "GET_NODES_FOR_KEY a",
            "nonsense",
            "UNREGISTER_NODE 127.0.0.1 1",
        ] {
            assert_eq!(
                line.ask(request),
                "ERROR NOAUTH Authentication required. Begin with: AUTH password",
                "{request}"
            );
        }
        for request in [r#"{"command":"STATUS"}"#, r#"{"command":"GET","key":"a"}"#, "{}", "{nonsense}"] {
            let refused = line.json(request);
            assert_eq!(
                (&refused["status"], &refused["code"]),
                (&"error".into(), &"NOAUTH".into()),
                "{request}"
            );
        }
        assert!(line.ask("AUTH open").starts_with("ERROR WRONGPASS"));
        assert_eq!(line.json(r#"{"command":"AUTH","password":"x"}"#)["code"], "WRONGPASS");
        assert_eq!(line.ask("AUTH open sesame"), "OK");
        assert_eq!(line.ask("PUT a 1"), "OK");
        let mut line = Line::to(port);
        assert_eq!(line.json(r#"{"command":"AUTH","password":"open sesame"}"#)["status"], "success");
        assert_eq!(line.json(r#"{"command":"GET","key":"a"}"#)["value"], "1");
        // Strangers may send little.
        let mut line = Line::to(port);
        line.send(format!("PUT a {}", "y".repeat(20_000)));
        assert!(line.rest().starts_with("ERROR NOAUTH"), "a stranger's long request is not taken in");
    }
    let mut strict = connect_with_password(cluster.port);
    assert_eq!(shown(&say(&mut strict, "CONFIG SET authentication_timeout_ms 100")), "OK");
    assert!(Line::to(cluster.line_ports()[0]).rest().starts_with("ERROR NOAUTH"));
}

fn connect_with_password(port: u16) -> redis::Connection {
    let url = format!("redis://:open%20sesame@127.0.0.1:{port}/");
    redis::Client::open(url).unwrap().get_connection().unwrap()
}

#[test]
fn a_node_is_unregistered_once_it_is_drained() {
    let cluster = LocalCluster::start(&[]);
    let mut line = Line::to(cluster.line_ports()[0]);
    for number in 0..200 {
        assert_eq!(line.ask(&format!("PUT drain:{number} {number}")), "OK");
    }
    let there = cluster.line_ports()[2];
    let address = format!("127.0.0.1:{there}");
    assert_eq!(
        line.ask(&format!("UNREGISTER_NODE localhost {there}")),
        format!("OK Node localhost:{there} unregistered")
    );
    let node = |line: &mut Line| line.json(r#"{"command":"STATUS"}"#)["nodes"][2].clone();
    let drained = node(&mut line);
    assert_eq!((&drained["copies"], &drained["state"]), (&0.into(), &"LEAVING".into()));
    line.ask("LIST_NODES");
    assert_eq!(
        [line.line(), line.line()],
        cluster.line_ports()[..2].iter().map(|port| format!("  127.0.0.1:{port}")).collect::<Vec<_>>()[..]
    );
    for number in 0..200 {
        assert_eq!(line.ask(&format!("GET drain:{number}")), format!("VALUE {number}"), "nothing is lost");
    }
    // Now it goes for good, and comes back as nodes come.
    // To register it while it is on its way out would take it back.
    until("it is a member no more", || node(&mut line).is_null());
    let refused = line.ask(&format!("REGISTER_NODE 127.0.0.1 {there}"));
    assert!(refused.contains(&address) && refused.contains("--join"), "{refused}");
}

#[test]
fn a_node_that_is_being_drained_is_registered_and_stays() {
    let cluster = LocalCluster::start(&[]);
    let mut line = Line::to(cluster.line_ports()[0]);
    let there = cluster.line_ports()[2];
    let member = format!("REGISTER_NODE 127.0.0.1 {there}");
    assert_eq!(line.ask(&member), format!("OK Node 127.0.0.1:{there} registered"), "it is one already");
    let node = |line: &mut Line| line.json(r#"{"command":"STATUS"}"#)["nodes"][2].clone();
    let drained = redis::cmd("ANNULET").arg("DRAIN").arg(3).query::<String>(&mut connect(cluster.port, 2));
    assert_eq!(drained.unwrap(), "OK");
    until("it is on its way out", || node(&mut line)["state"] == "LEAVING");
    assert_eq!(line.ask(&member), format!("OK Node 127.0.0.1:{there} registered"));
    until("it stays, with copies", || {
        let node = node(&mut line);
        node["state"] == "ACTIVE" && node["copies"].as_u64().unwrap() > 0
    });
}
