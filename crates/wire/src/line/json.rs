//! JSON requests and their answers: an object each.
//!
//! JSON holds text, and values are bytes: a value that is not UTF-8 is shown base64-encoded, with `"encoding":"base64"` beside it, and
//! the same field in a `PUT` has its value decoded. A key that is not UTF-8, which only another door can have stored, is shown in a
//! list as an object that says the same of itself.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// A JSON request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `AUTH`
    Auth {
        /// What is shown.
        password: Bytes,
    },
    /// `PUT`, `SET`
    Put {
        /// Where.
        key: Bytes,
        /// What, decoded.
        value: Bytes,
        /// Whether it came base64-encoded, and is so to be shown.
        is_base64: bool,
        /// How long it is to live.
        seconds: Option<i64>,
    },
    /// `GET`
    Get {
        /// Which.
        key: Bytes,
    },
    /// `DELETE`, `DEL`
    Delete {
        /// Which.
        key: Bytes,
    },
    /// `EXPIRE`
    Expire {
        /// Which.
        key: Bytes,
        /// From now on.
        seconds: i64,
    },
    /// `KEYS`
    Keys,
    /// `STATS`, `GET_STATS`
    Stats,
    /// `STATUS`, `SERVERS`
    Status,
    /// `JOIN`, `HEARTBEAT`, `REPLICATE`: for nodes.
    NodesOnly,
}

#[derive(Deserialize)]
struct Fields {
    command: Option<Field>,
    key: Option<Field>,
    value: Option<Field>,
    seconds: Option<Field>,
    password: Option<Field>,
    encoding: Option<Field>,
}

/// What a field holds. Lists and objects are read over: nothing is kept of them.
enum Field {
    Text(String),
    Whole(i64),
    Other,
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Field, D::Error> {
        struct Reads;
        impl<'de> Visitor<'de> for Reads {
            type Value = Field;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_str<E>(self, text: &str) -> Result<Field, E> {
                Ok(Field::Text(text.to_owned()))
            }
            fn visit_string<E>(self, text: String) -> Result<Field, E> {
                Ok(Field::Text(text))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Field, E> {
                Ok(Field::Whole(number))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Field, E> {
                Ok(i64::try_from(number).map_or(Field::Other, Field::Whole))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Field, E> {
                Ok(Field::Other)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Field, E> {
                Ok(Field::Other)
            }
            fn visit_unit<E>(self) -> Result<Field, E> {
                Ok(Field::Other)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Field, A::Error> {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Field::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Field, A::Error> {
                while items.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Field::Other)
            }
        }
        deserializer.deserialize_any(Reads)
    }
}

/// Reads a request. What is wrong with it is said in words.
pub fn parse(object: &[u8]) -> Result<Request, String> {
    let fields: Fields = serde_json::from_slice(object).map_err(|error| format!("Invalid JSON: {error}"))?;
    let text = |field: Option<Field>, name: &str| match field {
        Some(Field::Text(text)) => Ok(text),
        Some(_) => Err(format!("{name} must be a string")),
        None => Err(format!("{name} is required")),
    };
    let seconds = |field: Option<Field>| match field {
        Some(Field::Whole(seconds)) => Ok(seconds),
        // Small clients pass on what was typed.
        Some(Field::Text(text)) => text.parse().map_err(|_| "Seconds must be a whole number".to_owned()),
        Some(Field::Other) => Err("Seconds must be a whole number".into()),
        None => Err("Seconds is required".into()),
    };
    let command = text(fields.command, "Command")?;
    let key = || text(fields.key, "Key").map(Bytes::from);
    match command.to_ascii_uppercase().as_str() {
        "AUTH" => Ok(Request::Auth { password: text(fields.password, "Password")?.into() }),
        "PUT" | "SET" => {
            let (key, value) = (key()?, text(fields.value, "Value")?);
            let is_base64 = match fields.encoding {
                None => false,
                Some(Field::Text(encoding)) if encoding.eq_ignore_ascii_case("base64") => true,
                Some(_) => return Err("Encoding must be base64, or left out".into()),
            };
            let value = match is_base64 {
                true => {
                    BASE64_STANDARD.decode(value).map_err(|error| format!("Value is not base64: {error}"))?
                }
                false => value.into_bytes(),
            };
            let seconds = fields.seconds.map(|field| seconds(Some(field))).transpose()?;
            Ok(Request::Put { key, value: value.into(), is_base64, seconds })
        }
        "GET" => Ok(Request::Get { key: key()? }),
        "DELETE" | "DEL" => Ok(Request::Delete { key: key()? }),
        "EXPIRE" => Ok(Request::Expire { key: key()?, seconds: seconds(fields.seconds)? }),
        "KEYS" => Ok(Request::Keys),
        "STATS" | "GET_STATS" => Ok(Request::Stats),
        "STATUS" | "SERVERS" => Ok(Request::Status),
        "JOIN" | "HEARTBEAT" | "REPLICATE" => Ok(Request::NodesOnly),
        _ => Err("Unknown command: expected PUT, GET, DELETE, EXPIRE, KEYS, STATS, STATUS or AUTH".into()),
    }
}

/// Who answers: part of every answer.
#[derive(Clone, Debug, Serialize)]
pub struct Here {
    /// The node's number.
    pub server_id: u16,
    /// Its line port.
    pub server_port: u16,
    /// Its 40 hex digits.
    pub node_id: String,
}

/// A node of the cluster.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    /// Its 40 hex digits.
    pub node_id: String,
    /// Its number.
    pub server_id: u16,
    /// Where it is.
    pub host: String,
    /// Its line port.
    pub port: u16,
    /// ACTIVE, SUSPECTED, FAILED, JOINING or LEAVING.
    pub state: &'static str,
    /// Partitions of which it is primary.
    pub primaries: usize,
    /// Partitions of which it has a copy.
    pub copies: usize,
    /// Keys of its primaries, as last heard.
    pub keys: Option<u64>,
}

/// The cluster, as a node knows it.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The coordinator's 40 hex digits; none where none is known.
    pub coordinator: Option<String>,
    /// Every node.
    pub nodes: Vec<Node>,
    /// How many partitions there are.
    pub partitions: usize,
    /// Those down to their last copy.
    pub at_risk: usize,
    /// Those that nobody serves.
    pub unavailable: usize,
}

/// A node's figures.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stats {
    /// Commands that were run.
    pub total_requests: u64,
    /// Reads of values.
    pub get_requests: u64,
    /// Writes of values.
    pub set_requests: u64,
    /// Removals.
    pub delete_requests: u64,
    /// Changes of a key's time.
    pub expire_requests: u64,
    /// Keys of its primaries.
    pub total_keys: u64,
    /// Those with a time to live.
    pub keys_with_ttl: u64,
    /// Since the process started.
    pub uptime_seconds: u64,
    /// Other nodes of the cluster that are alive.
    pub peers: usize,
}

/// What a request came to.
#[derive(Clone, Debug)]
pub enum Answer<'a> {
    /// The password is right.
    Authenticated,
    /// A value was stored.
    Stored {
        /// Where.
        key: &'a [u8],
        /// What.
        value: &'a [u8],
        /// Whether to show it base64-encoded, be it UTF-8 or not.
        is_base64: bool,
        /// How long it lives.
        seconds: Option<i64>,
    },
    /// A key's value.
    Found {
        /// Which.
        key: &'a [u8],
        /// What it holds.
        value: &'a [u8],
        /// Whole seconds that it will live; -1: for ever.
        ttl: i64,
        /// Its version.
        version: u64,
    },
    /// There is no such key.
    NotFound {
        /// Which.
        key: &'a [u8],
    },
    /// A key was removed.
    Deleted {
        /// Which.
        key: &'a [u8],
    },
    /// A key's time was set.
    Expires {
        /// Which.
        key: &'a [u8],
        /// From now on.
        seconds: i64,
    },
    /// The node's figures.
    Stats(Stats),
    /// The cluster.
    Status(Status),
    /// Nothing came of it, and why.
    Error {
        /// In words.
        message: &'a str,
        /// The first word of the error as RESP tells it; none where the request itself is wrong.
        code: Option<&'a str>,
    },
}

#[derive(Default, Serialize)]
struct Written<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stats: Option<Stats>,
    #[serde(flatten)]
    cluster: Option<Status>,
    #[serde(flatten)]
    here: Option<&'a Here>,
}

const SUCCESS: &str = "success";
const NULL: &str = "null";
const NO_KEY: Option<&str> = Some("Key not found");

impl<'a> Written<'a> {
    fn of(key: &'a [u8], status: &'static str) -> Written<'a> {
        // A request's key is text.
        Written { status, key: Some(String::from_utf8_lossy(key)), ..Written::default() }
    }

    fn with_value(self, value: &'a [u8], is_base64: bool) -> Written<'a> {
        let (value, encoding) = shown(value, is_base64);
        Written { value: Some(value), encoding, ..self }
    }
}

/// Bytes as JSON shows them, and how that is called where they are not shown as they are.
pub fn shown(bytes: &[u8], is_base64: bool) -> (Cow<'_, str>, Option<&'static str>) {
    match std::str::from_utf8(bytes) {
        Ok(text) if !is_base64 => (Cow::Borrowed(text), None),
        _ => (Cow::Owned(BASE64_STANDARD.encode(bytes)), Some("base64")),
    }
}

impl Answer<'_> {
    /// Appends it, its newline included.
    pub fn write(&self, here: &Here, out: &mut Vec<u8>) {
        let written = match self {
            Answer::Authenticated => {
                Written { message: Some("Authenticated"), status: SUCCESS, ..Written::default() }
            }
            Answer::Stored { key, value, is_base64, seconds } => {
                let written = Written::of(key, SUCCESS).with_value(value, *is_base64);
                Written { message: Some("Key stored"), ttl: *seconds, ..written }
            }
            Answer::Found { key, value, ttl, version } => {
                let written = Written::of(key, SUCCESS).with_value(value, false);
                Written { ttl: Some(*ttl), version: Some(*version), ..written }
            }
            Answer::NotFound { key } => Written { message: NO_KEY, ..Written::of(key, NULL) },
            Answer::Deleted { key } => Written { message: Some("Key deleted"), ..Written::of(key, SUCCESS) },
            Answer::Expires { key, seconds } => Written { ttl: Some(*seconds), ..Written::of(key, SUCCESS) },
            Answer::Stats(stats) => {
                Written { status: SUCCESS, stats: Some(stats.clone()), ..Written::default() }
            }
            Answer::Status(status) => {
                Written { status: SUCCESS, cluster: Some(status.clone()), ..Written::default() }
            }
            Answer::Error { message, code } => {
                Written { status: "error", message: Some(message), code: *code, ..Written::default() }
            }
        };
        append(&Written { here: Some(here), ..written }, out);
        out.push(b'\n');
    }
}

/// The beginning of the answer to `KEYS`: [`key`]s follow, and [`keys_end`]. They may be millions, so they are written in pieces.
pub fn keys_begin(out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"status\":\"success\",\"keys\":[");
}

/// One key of the answer to `KEYS`.
pub fn key(key: &[u8], is_first: bool, out: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Encoded<'a> {
        key: &'a str,
        encoding: &'static str,
    }
    if !is_first {
        out.push(b',');
    }
    match shown(key, false) {
        (key, None) => append(&key, out),
        (key, Some(encoding)) => append(&Encoded { key: &key, encoding }, out),
    }
}

/// The end of the answer to `KEYS`.
pub fn keys_end(count: usize, here: &Here, out: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct End<'a> {
        count: usize,
        #[serde(flatten)]
        here: &'a Here,
    }
    out.extend_from_slice(b"],");
    let start = out.len();
    append(&End { count, here }, out);
    // The rest of the object that was begun.
    out.remove(start);
    out.push(b'\n');
}

fn append(value: &impl Serialize, out: &mut Vec<u8>) {
    let start = out.len();
    // Writing numbers and text to memory does not fail.
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn here() -> Here {
        Here { server_id: 2, server_port: 7402, node_id: "ab".into() }
    }

    fn written(answer: Answer<'_>) -> String {
        let mut out = Vec::new();
        answer.write(&here(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn requests() {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        let parsed = |text: &str| parse(text.as_bytes());
        let put = |value: &'static [u8], is_base64, seconds| {
            Ok(Request::Put { key: bytes("a"), value: Bytes::from_static(value), is_base64, seconds })
        };
        assert_eq!(parsed(r#"{"command":"PUT","key":"a","value":"1"}"#), put(b"1", false, None));
        let more = r#"{"x":[1,{"y":null}],"COMMAND":1,"command":"set","key":"a","value":"","seconds":60}"#;
        assert_eq!(parsed(more), put(b"", false, Some(60)));
        let coded = r#"{"command":"PUT","key":"a","value":"/wA=","encoding":"base64","seconds":"7"}"#;
        assert_eq!(parsed(coded), put(b"\xff\0", true, Some(7)));
        assert_eq!(parsed(r#"{"key":"\u00fc","command":"get"}"#), Ok(Request::Get { key: bytes("\u{fc}") }));
        assert_eq!(parsed(r#"{"command":"del","key":"a"}"#), Ok(Request::Delete { key: bytes("a") }));
        let expire = Request::Expire { key: bytes("a"), seconds: 5 };
        assert_eq!(parsed(r#"{"command":"EXPIRE","key":"a","seconds":5}"#), Ok(expire));
        for (command, request) in [
            ("KEYS", Request::Keys),
            ("stats", Request::Stats),
            ("GET_STATS", Request::Stats),
            ("STATUS", Request::Status),
            ("SERVERS", Request::Status),
            ("JOIN", Request::NodesOnly),
            ("HEARTBEAT", Request::NodesOnly),
            ("REPLICATE", Request::NodesOnly),
        ] {
            assert_eq!(parsed(&format!(r#"{{"command":"{command}"}}"#)), Ok(request));
        }
        let auth = Request::Auth { password: bytes("p") };
        assert_eq!(parsed(r#"{"command":"AUTH","password":"p"}"#), Ok(auth));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, told) in [
            ("{", "Invalid JSON: EOF while parsing an object at line 1 column 1"),
            (r#"{"command":}"#, "Invalid JSON: expected value at line 1 column 12"),
            (r#"{"command":"GET"}"#, "Key is required"),
            (r#"{"command":"GET","key":1}"#, "Key must be a string"),
            (r#"{"command":"PUT","key":"a"}"#, "Value is required"),
            (r#"{"command":"PUT","value":"a"}"#, "Key is required"),
            (r#"{"command":"PUT","key":"a","value":["b"]}"#, "Value must be a string"),
            (r#"{"command":"EXPIRE","key":"a"}"#, "Seconds is required"),
            (r#"{"command":"EXPIRE","key":"a","seconds":1.5}"#, "Seconds must be a whole number"),
            (r#"{"command":"PUT","key":"a","value":"b","seconds":"x"}"#, "Seconds must be a whole number"),
            (
                r#"{"command":"PUT","key":"a","value":"b","encoding":"hex"}"#,
                "Encoding must be base64, or left out",
            ),
            (r#"{"command":"AUTH"}"#, "Password is required"),
            (r#"{"key":"a"}"#, "Command is required"),
            (r#"{}"#, "Command is required"),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err(), told, "{text}");
        }
        assert!(
            parse(br#"{"command":"PUT","key":"a","value":"%","encoding":"base64"}"#)
                .unwrap_err()
                .starts_with("Value is not base64")
        );
        assert!(parse(br#"{"command":"NOPE"}"#).unwrap_err().starts_with("Unknown command: expected PUT"));
        assert!(parse(b"{\"command\":\"GET\",\"key\":\"\xff\"}").unwrap_err().starts_with("Invalid JSON: "));
        // Nesting is bounded.
        let deep = format!("{{\"a\":{}", "[".repeat(100_000));
        assert!(parse(deep.as_bytes()).unwrap_err().starts_with("Invalid JSON: "));
    }

    #[test]
    fn answers() {
        const HERE: &str = r#""server_id":2,"server_port":7402,"node_id":"ab"}"#;
        let is = |answer: Answer<'_>, text: &str| assert_eq!(written(answer), format!("{text},{HERE}\n"));
        is(
            Answer::Stored { key: b"a", value: b"\"", is_base64: false, seconds: Some(9) },
            r#"{"status":"success","message":"Key stored","key":"a","value":"\"","ttl":9"#,
        );
        is(
            Answer::Stored { key: b"a", value: b"1", is_base64: true, seconds: None },
            r#"{"status":"success","message":"Key stored","key":"a","value":"MQ==","encoding":"base64""#,
        );
        is(
            Answer::Found { key: b"a", value: b"\xff", ttl: -1, version: 7 },
            r#"{"status":"success","key":"a","value":"/w==","encoding":"base64","ttl":-1,"version":7"#,
        );
        is(Answer::NotFound { key: b"a" }, r#"{"status":"null","message":"Key not found","key":"a""#);
        is(Answer::Deleted { key: b"a" }, r#"{"status":"success","message":"Key deleted","key":"a""#);
        is(Answer::Expires { key: b"a", seconds: 3 }, r#"{"status":"success","key":"a","ttl":3"#);
        is(
            Answer::Error { message: "TRYAGAIN x", code: Some("TRYAGAIN") },
            r#"{"status":"error","message":"TRYAGAIN x","code":"TRYAGAIN""#,
        );
        let stats = Stats { total_requests: 9, peers: 2, ..Stats::default() };
        is(
            Answer::Stats(stats),
            r#"{"status":"success","stats":{"total_requests":9,"get_requests":0,"set_requests":0,"delete_requests":0,"expire_requests":0,"total_keys":0,"keys_with_ttl":0,"uptime_seconds":0,"peers":2}"#,
        );
        let node = Node {
            node_id: "ab".into(),
            server_id: 2,
            host: "h".into(),
            port: 7402,
            state: "ACTIVE",
            primaries: 1,
            copies: 2,
            keys: None,
        };
        let status =
            Status { coordinator: None, nodes: vec![node], partitions: 4, at_risk: 1, unavailable: 0 };
        is(
            Answer::Status(status),
            r#"{"status":"success","coordinator":null,"nodes":[{"node_id":"ab","server_id":2,"host":"h","port":7402,"state":"ACTIVE","primaries":1,"copies":2,"keys":null}],"partitions":4,"at_risk":1,"unavailable":0"#,
        );
        let mut out = Vec::new();
        keys_begin(&mut out);
        key(b"a", true, &mut out);
        key(b"\xff", false, &mut out);
        keys_end(2, &here(), &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!(
                "{{\"status\":\"success\",\"keys\":[\"a\",{{\"key\":\"/w==\",\"encoding\":\"base64\"}}],\"count\":2,{HERE}\n"
            )
        );
    }

    proptest! {
        #[test]
        fn random_bytes_do_no_harm(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }

        #[test]
        fn every_value_reads_back(value: Vec<u8>) {
            let mut out = Vec::new();
            Answer::Found { key: b"a", value: &value, ttl: -1, version: 1 }.write(&here(), &mut out);
            prop_assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1, "one line, whatever it holds");
            // What a GET shows, a PUT takes.
            let mut shown: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&out).unwrap();
            shown.insert("command".into(), "PUT".into());
            let request = serde_json::to_vec(&shown).unwrap();
            let Ok(Request::Put { value: read, .. }) = parse(&request) else { panic!("a PUT") };
            prop_assert_eq!(&read[..], &value[..]);
        }
    }
}
