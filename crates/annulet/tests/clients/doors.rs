//! One command layer under all doors: the same requests through RESP, JSON, text, HTTP and gRPC, crossed: written by one, read by
//! another, with the same results and the same errors.

use crate::grpc::GrpcDoor;
use crate::http::http;
use crate::lines::Line;
use crate::local_cluster::{LocalCluster, Shared, connect};
use serde_json::json;

const SCRIPT: &str = include_str!("../golden/doors.txt");
const DOORS: [&str; 5] = ["resp", "json", "text", "http", "grpc"];

/// What a script asks for, its bytes decoded.
enum Ask<'a> {
    Get(&'a [u8]),
    Put(&'a [u8], &'a [u8], Option<&'a str>),
    Delete(&'a [u8]),
    Expire(&'a [u8], &'a str),
    Ttl(&'a [u8]),
}

/// A client at one door of one node.
enum Door<'a> {
    Resp(redis::Connection),
    Json(Line),
    Text(Line),
    Http(u16),
    Grpc(&'a GrpcDoor, usize),
}

/// The doors of a cluster.
struct Doors<'a> {
    cluster: &'a LocalCluster,
    grpc: GrpcDoor,
}

impl<'a> Doors<'a> {
    fn of(cluster: &'a LocalCluster) -> Doors<'a> {
        Doors { cluster, grpc: GrpcDoor::start(&cluster.ports()) }
    }

    fn open(&self, name: &str, node: usize) -> Door<'_> {
        let cluster = self.cluster;
        match name {
            "resp" => Door::Resp(connect(cluster.ports()[node], 3)),
            "json" => Door::Json(Line::to(cluster.line_ports()[node])),
            "text" => Door::Text(Line::to(cluster.line_ports()[node])),
            "http" => Door::Http(cluster.http_ports()[node]),
            _ => Door::Grpc(&self.grpc, node),
        }
    }
}

fn shown(value: &[u8]) -> String {
    format!("\"{}\"", value.escape_ascii())
}

fn latin(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("keys of these scripts are text")
}

impl Door<'_> {
    /// The reply, as scripts show it: an error by its first word.
    fn ask(&mut self, ask: &Ask<'_>) -> String {
        match self {
            Door::Resp(connection) => {
                let mut command = redis::Cmd::new();
                match ask {
                    Ask::Get(key) => command.arg("GET").arg(key),
                    Ask::Put(key, value, None) => command.arg("SET").arg(key).arg(value),
                    Ask::Put(key, value, Some(ttl)) => {
                        command.arg("SET").arg(key).arg(value).arg("EX").arg(ttl)
                    }
                    Ask::Delete(key) => command.arg("DEL").arg(key),
                    Ask::Expire(key, seconds) => command.arg("EXPIRE").arg(key).arg(seconds),
                    Ask::Ttl(key) => command.arg("TTL").arg(key),
                };
                match command.query::<redis::Value>(connection) {
                    Ok(redis::Value::BulkString(value)) => shown(&value),
                    Ok(redis::Value::Int(number)) => number.to_string(),
                    Ok(redis::Value::Okay) => "OK".into(),
                    Ok(redis::Value::Nil) => "nil".into(),
                    Ok(other) => format!("{other:?}"),
                    Err(error) => match error.code() {
                        Some(code) => format!("!{code}"),
                        None => "!ERR".into(),
                    },
                }
            }
            Door::Json(line) => json_said(line, ask),
            Door::Text(line) => text_said(line, ask),
            Door::Http(port) => http_said(*port, ask),
            Door::Grpc(door, node) => grpc_said(door, *node, ask),
        }
    }
}

fn json_said(line: &mut Line, ask: &Ask<'_>) -> String {
    use base64_of_tests::encode;
    let request = match ask {
        Ask::Get(key) | Ask::Ttl(key) => json!({"command": "GET", "key": latin(key)}),
        Ask::Put(key, value, ttl) => {
            let mut request = match std::str::from_utf8(value) {
                Ok(text) => json!({"command": "PUT", "key": latin(key), "value": text}),
                Err(_) => {
                    json!({"command": "PUT", "key": latin(key), "value": encode(value), "encoding": "base64"})
                }
            };
            if let Some(seconds) = ttl {
                request["seconds"] = seconds.parse::<i64>().unwrap().into();
            }
            request
        }
        Ask::Delete(key) => json!({"command": "DELETE", "key": latin(key)}),
        Ask::Expire(key, seconds) => {
            json!({"command": "EXPIRE", "key": latin(key), "seconds": seconds.parse::<i64>().unwrap()})
        }
    };
    let said = line.json(&request.to_string());
    let found = match said["status"].as_str() {
        Some("success") => true,
        Some("null") => false,
        _ => return format!("!{}", said["code"].as_str().unwrap_or("ERR")),
    };
    match ask {
        Ask::Get(_) if found => match (said["value"].as_str().unwrap(), said["encoding"].as_str()) {
            (value, None) => shown(value.as_bytes()),
            (value, Some(_)) => shown(&base64_of_tests::decode(value)),
        },
        Ask::Ttl(_) if found => said["ttl"].to_string(),
        Ask::Put(..) => "OK".into(),
        Ask::Delete(_) | Ask::Expire(..) => i32::from(found).to_string(),
        Ask::Get(_) | Ask::Ttl(_) => "nil".into(),
    }
}

fn text_said(line: &mut Line, ask: &Ask<'_>) -> String {
    let request = match ask {
        Ask::Get(key) => [b"GET ", *key].concat(),
        Ask::Put(key, value, None) => [b"PUT ", *key, b" ", *value].concat(),
        Ask::Delete(key) => [b"DELETE ", *key].concat(),
        Ask::Expire(key, seconds) => [b"EXPIRE ", *key, b" ", seconds.as_bytes()].concat(),
        Ask::Put(_, _, Some(_)) | Ask::Ttl(_) => panic!("text cannot say this"),
    };
    line.send([&request[..], b"\n"].concat());
    let said = line.bytes();
    if let Some(value) = said.strip_prefix(b"VALUE ") {
        return shown(value);
    }
    match (String::from_utf8(said).unwrap().as_str(), ask) {
        ("NOT_FOUND", Ask::Get(_)) => "nil".into(),
        ("NOT_FOUND", _) => "0".into(),
        ("OK", Ask::Expire(..)) => "1".into(),
        ("OK", _) => "OK".into(),
        (error, _) => {
            let word = error.strip_prefix("ERROR ").expect("an error").split(' ').next().unwrap();
            // What text alone says begins with no code.
            if word.bytes().all(|byte| byte.is_ascii_uppercase()) { format!("!{word}") } else { "!".into() }
        }
    }
}

fn http_said(port: u16, ask: &Ask<'_>) -> String {
    let path =
        |key: &[u8]| format!("/v1/kv/{}", key.iter().map(|byte| format!("%{byte:02X}")).collect::<String>());
    let (answer, ok) = match ask {
        Ask::Get(key) | Ask::Ttl(key) => (http(port, "GET", &path(key), "", b""), 200),
        Ask::Put(key, value, ttl) => {
            let query = ttl.map_or(String::new(), |seconds| format!("?ttl={seconds}"));
            (http(port, "PUT", &format!("{}{query}", path(key)), "", value), 204)
        }
        Ask::Delete(key) => (http(port, "DELETE", &path(key), "", b""), 204),
        Ask::Expire(..) => panic!("HTTP cannot say this"),
    };
    match (answer.status, ask) {
        (status, Ask::Get(_)) if status == ok => shown(&answer.body),
        (status, Ask::Ttl(_)) if status == ok => {
            answer.headers.get("annulet-ttl").cloned().unwrap_or_else(|| "-1".into())
        }
        (status, Ask::Delete(_)) if status == ok => "1".into(),
        (status, _) if status == ok => "OK".into(),
        (404, Ask::Delete(_)) => "0".into(),
        (404, _) => "nil".into(),
        _ => format!("!{}", answer.json()["code"].as_str().unwrap()),
    }
}

fn grpc_said(door: &GrpcDoor, node: usize, ask: &Ask<'_>) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let said = door.ask(&match ask {
        Ask::Get(key) => json!(["get", node, hex(key)]),
        Ask::Ttl(key) => json!(["ttl", node, hex(key)]),
        Ask::Put(key, value, ttl) => json!(["put", node, hex(key), hex(value), ttl]),
        Ask::Delete(key) => json!(["delete", node, hex(key)]),
        Ask::Expire(..) => panic!("gRPC cannot say this"),
    });
    match (&said, said["value"].as_str()) {
        (_, Some(hex)) => {
            let pairs = (0..hex.len()).step_by(2);
            shown(&pairs.map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect::<Vec<u8>>())
        }
        (serde_json::Value::Null, _) => "nil".into(),
        (text, _) => text.as_str().expect("a text").to_owned(),
    }
}

/// Base64, so that what the doors say is not checked with the same code that says it.
mod base64_of_tests {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    pub fn encode(bytes: &[u8]) -> String {
        let mut text = String::new();
        for three in bytes.chunks(3) {
            let number = (0..3).fold(0, |sum, at| sum << 8 | usize::from(*three.get(at).unwrap_or(&0)));
            for at in 0..4 {
                let digit = char::from(DIGITS[number >> (18 - 6 * at) & 63]);
                text.push(if at <= three.len() { digit } else { '=' });
            }
        }
        text
    }

    pub fn decode(text: &str) -> Vec<u8> {
        let (mut bytes, mut number, mut bits) = (Vec::new(), 0usize, 0);
        for digit in text.bytes().filter(|byte| *byte != b'=') {
            number = number << 6 | DIGITS.iter().position(|known| *known == digit).expect("a digit");
            bits += 6;
            if bits >= 8 {
                bits -= 8;
                bytes.push((number >> bits) as u8);
            }
        }
        bytes
    }

    #[test]
    fn base64_goes_both_ways() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"\xff", "/w=="),
            (b"\xff\0", "/wA="),
            (b"\xff\0\xfe", "/wD+"),
            (b"abcd", "YWJjZA=="),
        ] {
            assert_eq!(encode(bytes), text);
            assert_eq!(decode(text), bytes);
        }
    }
}

/// The bytes of a word of the script.
fn unescaped(word: &str, key: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = word.replace("KEY", key).into_bytes().into_iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'\\' => match rest.next() {
                Some(b'n') => bytes.push(b'\n'),
                Some(b'x') => {
                    let digits = [rest.next(), rest.next()].map(|digit| char::from(digit.unwrap()));
                    bytes.push(u8::from_str_radix(&digits.iter().collect::<String>(), 16).unwrap());
                }
                Some(other) => bytes.push(other),
                None => panic!("a backslash at the end of {word}"),
            },
            other => bytes.push(other),
        }
    }
    bytes
}

/// Whether a reply is the one that the script expects: the same, or a number within its bounds.
fn fits(said: &str, expected: &str) -> bool {
    let within = || {
        let (least, most) = expected.split_once("..")?;
        let said: i64 = said.parse().ok()?;
        Some(said >= least.parse().ok()? && said <= most.parse().ok()?)
    };
    said == expected || within() == Some(true)
}

/// Runs the script with these two doors. How many lines were run.
fn cross(doors: &Doors<'_>, writer: &str, reader: &str, key: &str) -> usize {
    let (mut writes, mut reads) = (doors.open(writer, 0), doors.open(reader, 2));
    let mut ran = 0;
    for line in SCRIPT.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (asked, expected) = line.split_once(" -> ").expect("`request -> reply`");
        let words: Vec<&str> = asked.split_whitespace().collect();
        let is_write = words[0] == "write";
        let door = if is_write { writer } else { reader };
        // What a door cannot say, and what it could not have written.
        let (expected, left_out) =
            expected.split_once("without").map_or((expected, ""), |(of, rest)| (of, rest));
        let left_out = format!("without{left_out}");
        let named = |word: &str, door: &str| {
            let mut words = left_out.split_whitespace();
            while let Some(next) = words.next() {
                if next == word && words.clone().next() == Some(door) {
                    return true;
                }
            }
            false
        };
        if named("without", door) || !is_write && named("without-after", writer) {
            continue;
        }
        let expected = expected.trim();
        let (usual, other) = match expected.rsplit_once(' ') {
            Some((usual, other)) if DOORS.iter().any(|door| other.starts_with(&format!("{door}="))) => {
                (usual, other)
            }
            _ => (expected, ""),
        };
        let expected = other.strip_prefix(&format!("{door}=")).unwrap_or(usual).trim();
        let bytes: Vec<Vec<u8>> = words[2..].iter().map(|word| unescaped(word, key)).collect();
        let ask = match (words[1], &bytes[..]) {
            ("GET", [key]) => Ask::Get(key),
            ("TTL", [key]) => Ask::Ttl(key),
            ("PUT", [key]) => Ask::Put(key, b"", None),
            ("PUT", [key, value]) => Ask::Put(key, value, None),
            ("PUTEX", [key, _, value]) => Ask::Put(key, value, Some(words[3])),
            ("DELETE", [key]) => Ask::Delete(key),
            ("EXPIRE", [key, _]) => Ask::Expire(key, words[3]),
            _ => panic!("unknown: {line}"),
        };
        let said = if is_write { writes.ask(&ask) } else { reads.ask(&ask) };
        assert!(
            fits(&said, expected),
            "{writer} writes, {reader} reads: {line}\n  said {said}, not {expected}"
        );
        ran += 1;
    }
    ran
}

#[test]
fn what_one_door_writes_every_door_reads() {
    let cluster = Shared::turn();
    let doors = Doors::of(&cluster);
    for writer in DOORS {
        for reader in DOORS {
            let ran = cross(&doors, writer, reader, &format!("{writer}:{reader}"));
            assert!(ran >= 20, "{ran} lines for {writer} and {reader}");
        }
    }
}

#[test]
fn an_error_is_the_same_at_every_door() {
    let cluster = LocalCluster::start_nodes(1, &[]);
    let doors = Doors::of(&cluster);
    let set = |name: &str, value: &str| {
        let set = redis::cmd("CONFIG")
            .arg("SET")
            .arg(name)
            .arg(value)
            .query::<String>(&mut connect(cluster.port, 2));
        assert_eq!(set.unwrap(), "OK");
    };
    let said = |expected: &str| {
        for door in DOORS {
            let mut door_of = doors.open(door, 0);
            crate::local_cluster::until(&format!("{expected} at {door}"), || {
                door_of.ask(&Ask::Put(b"a", b"1", None)) == expected
            });
        }
    };
    said("OK");
    set("maxmemory", "1");
    said("!OOM");
    set("maxmemory", "0");
    said("OK");
    // One node, and so one copy.
    set("min_in_sync", "2");
    said("!NOREPLICAS");
    let written = http(cluster.http_ports()[0], "PUT", "/v1/kv/a", "", b"1");
    assert_eq!((written.status, written.headers.get("retry-after").map(String::as_str)), (503, Some("1")));
    for door in DOORS {
        assert_eq!(doors.open(door, 0).ask(&Ask::Get(b"a")), "\"1\"", "reads go on at {door}");
    }
    set("min_in_sync", "1");
    said("OK");
}
