//! Text requests and their answers: one command a line, words separated by spaces, the value the rest of the line.
//!
//! Between a key and its value stands one space; whatever follows it, spaces too, is the value, byte by byte. So what is written
//! reads back the same. A value with a newline in it, which another door may have stored, cannot be shown on a line: the answer is
//! an error that says so, since a reader of lines would take the rest for the next answer.

use bytes::Bytes;
use command::number::parse_i64;

/// A text request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `AUTH password`
    Auth {
        /// The rest of the line.
        password: Bytes,
    },
    /// `PUT key value`, maybe with addresses of replicas behind: see [`without_replicas`].
    Put {
        /// Where.
        key: Bytes,
        /// The rest of the line.
        value: Bytes,
    },
    /// `GET key`
    Get {
        /// Which.
        key: Bytes,
    },
    /// `DELETE key`
    Delete {
        /// Which.
        key: Bytes,
    },
    /// `EXPIRE key seconds`
    Expire {
        /// Which.
        key: Bytes,
        /// From now on.
        seconds: i64,
    },
    /// `INFO`
    Info,
    /// `GET_NODES_FOR_KEY key`
    NodesForKey {
        /// Which.
        key: Bytes,
    },
    /// `LIST_NODES`
    ListNodes,
    /// `REGISTER_NODE host port`
    RegisterNode {
        /// Where it is.
        host: String,
        /// Its line port.
        port: u16,
    },
    /// `UNREGISTER_NODE host port`
    UnregisterNode {
        /// Where it is.
        host: String,
        /// Its line port.
        port: u16,
    },
    /// `REPLICATE ...`, which is for nodes.
    Replicate,
}

const EXPECTED: &str = "expected PUT key value, GET key, DELETE key, EXPIRE key seconds, INFO, GET_NODES_FOR_KEY key, LIST_NODES, \
                        REGISTER_NODE host port, UNREGISTER_NODE host port, or AUTH password";

/// Reads a request: a line without its newline. What is wrong with it is said in words.
pub fn parse(line: &Bytes) -> Result<Request, String> {
    let line = line.strip_suffix(b"\r").map_or_else(|| line.clone(), |rest| line.slice_ref(rest));
    let (word, rest) = next_word(&line);
    let one_key = |usage: &str| match words(&rest, 1).as_deref() {
        Some([key]) => Ok(key.clone()),
        _ => Err(format!("expected {usage}: a key is one word")),
    };
    let node = |usage: &str| {
        let words = words(&rest, 2);
        let node = words.as_deref().and_then(|words| {
            let [host, port] = words else { return None };
            let host = std::str::from_utf8(host).ok()?.to_owned();
            Some((host, std::str::from_utf8(port).ok()?.parse::<u16>().ok()?))
        });
        node.ok_or_else(|| format!("expected {usage}: the port is a number from 0 to 65535"))
    };
    match word.to_ascii_uppercase().as_slice() {
        b"AUTH" if !rest.is_empty() => Ok(Request::Auth { password: rest }),
        b"AUTH" => Err("expected AUTH password".into()),
        b"PUT" => {
            let (key, value) = next_word(&rest);
            // The space behind the key tells an empty value from none.
            let has_value = !key.is_empty() && trim_spaces(&rest).len() > key.len();
            if has_value { Ok(Request::Put { key, value }) } else { Err("expected PUT key value".into()) }
        }
        b"GET" => one_key("GET key").map(|key| Request::Get { key }),
        b"DELETE" => one_key("DELETE key").map(|key| Request::Delete { key }),
        b"EXPIRE" => match words(&rest, 2).as_deref() {
            Some([key, seconds]) => match parse_i64(seconds) {
                Some(seconds) => Ok(Request::Expire { key: key.clone(), seconds }),
                None => Err("expected EXPIRE key seconds: seconds is a whole number".into()),
            },
            _ => Err("expected EXPIRE key seconds".into()),
        },
        b"INFO" if rest.trim_ascii().is_empty() => Ok(Request::Info),
        b"GET_NODES_FOR_KEY" => one_key("GET_NODES_FOR_KEY key").map(|key| Request::NodesForKey { key }),
        b"LIST_NODES" if rest.trim_ascii().is_empty() => Ok(Request::ListNodes),
        b"REGISTER_NODE" => {
            node("REGISTER_NODE host port").map(|(host, port)| Request::RegisterNode { host, port })
        }
        b"UNREGISTER_NODE" => {
            node("UNREGISTER_NODE host port").map(|(host, port)| Request::UnregisterNode { host, port })
        }
        b"REPLICATE" => Ok(Request::Replicate),
        _ => Err(EXPECTED.into()),
    }
}

/// The first word, and what is behind the one space that follows it.
fn next_word(line: &Bytes) -> (Bytes, Bytes) {
    let rest = line.slice_ref(trim_spaces(line));
    match rest.iter().position(|byte| *byte == b' ') {
        Some(end) => (rest.slice(..end), rest.slice(end + 1..)),
        None => (rest.clone(), Bytes::new()),
    }
}

fn trim_spaces(bytes: &[u8]) -> &[u8] {
    let spaces = bytes.iter().take_while(|byte| **byte == b' ').count();
    bytes.get(spaces..).unwrap_or_default()
}

/// All words, where there are so many. It keeps no more than that.
fn words(line: &Bytes, count: usize) -> Option<Vec<Bytes>> {
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let found: Vec<Bytes> = words.by_ref().take(count).map(|word| line.slice_ref(word)).collect();
    (found.len() == count && words.next().is_none()).then_some(found)
}

/// The value of a `PUT` without a last word that names replicas, where it has one: a comma-separated list of addresses, each of which
/// `is_node` knows for the line address of a node, behind a value.
pub fn without_replicas(value: &Bytes, is_node: impl Fn(&str, u16) -> bool) -> Bytes {
    let named = || {
        let space = value.iter().rposition(|byte| *byte == b' ')?;
        let list = std::str::from_utf8(value.get(space + 1..)?).ok()?;
        let all = list
            .split(',')
            .all(|address| split_address(address).is_some_and(|(host, port)| is_node(host, port)));
        // A value of nothing but spaces is one, too; nothing at all is none.
        (all && space > 0).then(|| value.slice(..space))
    };
    named().unwrap_or_else(|| value.clone())
}

/// Host and port of `host:port`, where an IPv6 address may stand in brackets.
pub fn split_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((host, port.parse().ok()?))
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// Done.
    Ok,
    /// A key's value.
    Value(&'a [u8]),
    /// There is no such key.
    NotFound,
    /// This node.
    Info {
        /// Its line address.
        address: &'a str,
        /// How many keys it is primary of.
        keys: u64,
    },
    /// Who holds a key.
    Holders {
        /// The primary's line address.
        primary: &'a str,
        /// The backups'.
        backups: &'a [String],
    },
    /// The nodes' line addresses.
    Nodes(&'a [String]),
    /// A node is a member.
    Registered(&'a str),
    /// A node was drained.
    Unregistered(&'a str),
    /// Nothing came of it, and why.
    Error(&'a str),
}

impl Answer<'_> {
    /// Appends it, its newline included.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Answer::Ok => out.extend_from_slice(b"OK"),
            Answer::Value(value) if value.contains(&b'\n') => {
                return Answer::Error(
                    "the value holds a newline, which a line cannot show: read it by JSON, HTTP or RESP",
                )
                .write(out);
            }
            Answer::Value(value) => {
                out.extend_from_slice(b"VALUE ");
                out.extend_from_slice(value);
            }
            Answer::NotFound => out.extend_from_slice(b"NOT_FOUND"),
            Answer::Info { address, keys } => {
                out.extend_from_slice(format!("OK Node {address} keys={keys}").as_bytes());
            }
            Answer::Holders { primary, backups } => {
                out.extend_from_slice(format!("PRIMARY {primary}").as_bytes());
                backups
                    .iter()
                    .for_each(|backup| out.extend_from_slice(format!("\nREPLICA {backup}").as_bytes()));
            }
            Answer::Nodes(nodes) => {
                out.extend_from_slice(b"OK Nodes:");
                nodes.iter().for_each(|node| out.extend_from_slice(format!("\n  {node}").as_bytes()));
            }
            Answer::Registered(address) => {
                out.extend_from_slice(format!("OK Node {address} registered").as_bytes());
            }
            Answer::Unregistered(address) => {
                out.extend_from_slice(format!("OK Node {address} unregistered").as_bytes());
            }
            Answer::Error(why) => {
                out.extend_from_slice(b"ERROR ");
                // One line, whatever is in it.
                out.extend(why.bytes().map(|byte| if byte == b'\n' || byte == b'\r' { b' ' } else { byte }));
            }
        }
        out.push(b'\n');
    }
}

/// Whether a line is of an HTTP request: a browser can be made to send one here whose body are commands, so nothing behind it is heard.
pub fn is_of_http(line: &[u8]) -> bool {
    let ends = |end: &[u8]| line.trim_ascii_end().ends_with(end);
    ends(b" HTTP/1.1")
        || ends(b" HTTP/1.0")
        || line.get(..5).is_some_and(|name| name.eq_ignore_ascii_case(b"host:"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn put(key: &str, value: &str) -> Result<Request, String> {
        Ok(Request::Put { key: bytes(key), value: bytes(value) })
    }

    #[test]
    fn http_is_recognized() {
        for line in ["POST / HTTP/1.1", "GET /a b HTTP/1.0 ", "Host: a", "host:a:1"] {
            assert!(is_of_http(line.as_bytes()), "{line}");
        }
        for line in ["PUT k HTTP/1.1 and more", "GET host:", "INFO", ""] {
            assert!(!is_of_http(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn requests() {
        let parsed = |line: &str| parse(&bytes(line));
        assert_eq!(parsed("PUT a 1"), put("a", "1"));
        assert_eq!(parsed("put a 1 and more\r"), put("a", "1 and more"));
        assert_eq!(parsed("  PUT   a  1 "), put("a", " 1 "), "one space separates, the rest is the value");
        assert_eq!(parsed("PUT a "), put("a", ""));
        assert_eq!(parsed("GET a"), Ok(Request::Get { key: bytes("a") }));
        assert_eq!(parsed("get  a "), Ok(Request::Get { key: bytes("a") }));
        assert_eq!(parsed("DELETE a"), Ok(Request::Delete { key: bytes("a") }));
        assert_eq!(parsed("EXPIRE a -1"), Ok(Request::Expire { key: bytes("a"), seconds: -1 }));
        assert_eq!(parsed("INFO"), Ok(Request::Info));
        assert_eq!(parsed("LIST_NODES "), Ok(Request::ListNodes));
        assert_eq!(parsed("GET_NODES_FOR_KEY a"), Ok(Request::NodesForKey { key: bytes("a") }));
        let node = Request::RegisterNode { host: "::1".into(), port: 7401 };
        assert_eq!(parsed("REGISTER_NODE ::1 7401"), Ok(node));
        let node = Request::UnregisterNode { host: "a".into(), port: 1 };
        assert_eq!(parsed("UNREGISTER_NODE a 1"), Ok(node));
        assert_eq!(parsed("REPLICATE a 1"), Ok(Request::Replicate));
        assert_eq!(parsed("AUTH open sesame"), Ok(Request::Auth { password: bytes("open sesame") }));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let refused = |line: &str| parse(&bytes(line)).unwrap_err();
        for line in ["", "PUTa 1", "SET a 1", "INFO all", "LIST_NODES x", "\u{fc}"] {
            assert!(refused(line).starts_with("expected PUT key value, GET key"), "{line}");
        }
        for (line, told) in [
            ("PUT", "expected PUT key value"),
            ("PUT a", "expected PUT key value"),
            ("PUT  ", "expected PUT key value"),
            ("GET", "expected GET key: a key is one word"),
            ("GET a b", "expected GET key: a key is one word"),
            ("DELETE", "expected DELETE key: a key is one word"),
            ("EXPIRE a", "expected EXPIRE key seconds"),
            ("EXPIRE a x", "expected EXPIRE key seconds: seconds is a whole number"),
            ("EXPIRE a 99999999999999999999", "expected EXPIRE key seconds: seconds is a whole number"),
            (
                "REGISTER_NODE a 65536",
                "expected REGISTER_NODE host port: the port is a number from 0 to 65535",
            ),
            ("UNREGISTER_NODE a", "expected UNREGISTER_NODE host port: the port is a number from 0 to 65535"),
            ("AUTH", "expected AUTH password"),
        ] {
            assert_eq!(refused(line), told, "{line}");
        }
    }

    #[test]
    fn a_last_word_that_names_nodes_is_no_part_of_the_value() {
        let is_node = |host: &str, port: u16| ["a", "b", "::1"].contains(&host) && port == 7401;
        let stored =
            |value: &str| String::from_utf8(without_replicas(&bytes(value), is_node).to_vec()).unwrap();
        assert_eq!(stored("1 a:7401"), "1");
        assert_eq!(stored("1 2 a:7401,b:7401"), "1 2");
        assert_eq!(stored("1  [::1]:7401"), "1 ");
        // The value itself, addresses of nobody, and what only looks alike.
        for value in [
            "a:7401",
            " a:7401",
            "1 a:7402",
            "1 c:7401",
            "1 a:7401,c:7401",
            "1 a:7401,",
            "1 a",
            "1 ,",
            "1 a:+7401",
            "",
            " ",
        ] {
            assert_eq!(stored(value), value);
        }
    }

    #[test]
    fn answers() {
        let shown = |answer: Answer<'_>| {
            let mut out = Vec::new();
            answer.write(&mut out);
            String::from_utf8(out).unwrap()
        };
        let nodes = ["a:1".to_owned(), "b:2".to_owned()];
        assert_eq!(shown(Answer::Ok), "OK\n");
        assert_eq!(shown(Answer::Value(b"a b ")), "VALUE a b \n");
        assert!(shown(Answer::Value(b"a\nOK")).starts_with("ERROR the value holds a newline"));
        assert_eq!(shown(Answer::NotFound), "NOT_FOUND\n");
        assert_eq!(shown(Answer::Info { address: "a:1", keys: 3 }), "OK Node a:1 keys=3\n");
        let holders = Answer::Holders { primary: "a:1", backups: &nodes };
        assert_eq!(shown(holders), "PRIMARY a:1\nREPLICA a:1\nREPLICA b:2\n");
        assert_eq!(shown(Answer::Nodes(&nodes)), "OK Nodes:\n  a:1\n  b:2\n");
        assert_eq!(shown(Answer::Registered("a:1")), "OK Node a:1 registered\n");
        assert_eq!(shown(Answer::Unregistered("a:1")), "OK Node a:1 unregistered\n");
        assert_eq!(shown(Answer::Error("a\r\nb")), "ERROR a  b\n");
    }

    proptest! {
        #[test]
        fn random_lines_do_no_harm(line: Vec<u8>) {
            let line = Bytes::from(line);
            let _ = parse(&line);
            let _ = without_replicas(&line, |_, _| true);
        }

        #[test]
        fn what_is_put_is_what_is_got(key in "[^ \r\n]{1,9}", value in "[^\r\n]{0,20}") {
            let parsed = parse(&bytes(&format!("PUT {key} {value}")));
            prop_assert_eq!(parsed, put(&key, &value));
        }
    }
}
