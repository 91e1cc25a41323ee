//! A plain client of the `redis` crate, at the port of every node: any node answers any key.

use crate::local_cluster::{Shared, connect};
use crate::script::{play, say, shown};
use redis::{ConnectionLike, Value};
use std::collections::BTreeMap;

/// What a connection says of itself and asks of the server; no keys.
const CONNECTION: &str = "
    PING                        -> PONG
    PING hello                  -> \"hello\"
    PING a b                    -> !ERR wrong number of arguments for 'ping' command
    ECHO hello                  -> \"hello\"
    ECHO                        -> !ERR wrong number of arguments for 'echo' command
    SELECT 0                    -> OK
    SELECT 1                    -> !ERR DB index is out of range
    SELECT x                    -> !ERR value is not an integer or out of range
    AUTH x                      -> !ERR AUTH <password> called without any password configured...
    AUTH default x              -> OK
    AUTH other x                -> !WRONGPASS invalid username-password pair or user is disabled.
    HELLO 4                     -> !NOPROTO unsupported protocol version
    HELLO x                     -> !ERR Protocol version is not an integer or out of range
    CLIENT GETNAME              -> nil
    CLIENT SETNAME joe          -> OK
    CLIENT GETNAME              -> \"joe\"
    CLIENT SETINFO LIB-NAME x   -> OK
    CLIENT SETINFO LIB-VER 1    -> OK
    CLIENT SETINFO NOPE 1       -> !ERR Unrecognized option 'NOPE'
    CLIENT NOPE                 -> !ERR unknown subcommand 'NOPE'. Try CLIENT HELP.
    CLIENT                      -> !ERR wrong number of arguments for 'client' command
    CONFIG GET maxmemory        -> [\"maxmemory\" \"0\"]
    CONFIG GET nope             -> []
    CONFIG GET requirepass      -> [\"requirepass\" \"\"]
    CONFIG GET copies           -> [\"copies\" \"2\"]
    COMMAND INFO get            -> [[\"get\" 2 [readonly fast] 1 1 1 [@read @string @fast]...
    COMMAND INFO nope           -> [nil]
    COMMAND GETKEYS MSET a 1 b 2 -> [\"a\" \"b\"]
    READONLY                    -> OK
    READWRITE                   -> OK
    ASKING                      -> OK
    CONSISTENCY                 -> [\"read\" \"linearizable\" \"write\" \"all\"]
    CONSISTENCY READ stale WRITE one -> OK
    CONSISTENCY                 -> [\"read\" \"stale\" \"write\" \"one\"]
    CONSISTENCY WRITE quorum    -> OK
    CONSISTENCY READ nope       -> !ERR unknown read level 'nope': linearizable or stale
    CONSISTENCY READ linearizable WRITE all -> OK
    CLUSTER KEYSLOT foo         -> 12182
    CLUSTER KEYSLOT {foo}bar    -> 12182
    CLUSTER COUNTKEYSINSLOT 16384 -> !ERR Invalid slot
    CLUSTER COUNTKEYSINSLOT x   -> !ERR Invalid slot
    CLUSTER NOPE                -> !ERR unknown subcommand 'NOPE'. Try CLUSTER HELP.
    WAIT x 0                    -> !ERR value is not an integer or out of range
    WAIT 0 -1                   -> !ERR timeout is negative
    WAIT 0 0                    -> 1
    MULTI                       -> !ERR MULTI is not supported yet; nothing up to EXEC or DISCARD is run. Send the commands without it
    PING                        -> !ERR not run: MULTI is not supported yet, so nothing up to EXEC or DISCARD is
    DISCARD                     -> OK
    FOO bar baz                 -> !ERR unknown command 'FOO', with args beginning with: 'bar' 'baz'
";

/// Strings and their keys. Slots lie all over the cluster, whichever node is asked.
const KEYS: &str = "
    DBSIZE                      -> 0
    KEYS *                      -> []
    GET a                       -> nil
    SET a 1                     -> OK
    GET a                       -> \"1\"
    GET                         -> !ERR wrong number of arguments for 'get' command
    GET a b                     -> !ERR wrong number of arguments for 'get' command
    SET a                       -> !ERR wrong number of arguments for 'set' command
    SET a ''                    -> OK
    GET a                       -> \"\"
    STRLEN a                    -> 0
    SET '' empty                -> OK
    GET ''                      -> \"empty\"
    DEL ''                      -> 1
    SET a 2 NX                  -> nil
    SET a 2 XX                  -> OK
    SET b 1 XX                  -> nil
    SET b 1 NX                  -> OK
    SET b 2 GET                 -> \"1\"
    SET c 2 GET                 -> nil
    SET c 3 NX GET              -> \"2\"
    SET c 4 XX GET              -> \"2\"
    GET c                       -> \"4\"
    SET a 1 NX XX               -> !ERR syntax error
    SET a 1 FOO                 -> !ERR syntax error
    SET a 1 EX                  -> !ERR syntax error
    SET a 1 EX 0                -> !ERR invalid expire time in 'set' command
    SET a 1 EX x                -> !ERR value is not an integer or out of range
    SET a 1 EX 10 PX 10         -> !ERR syntax error
    SET a 1 EX 10 KEEPTTL       -> !ERR syntax error
    SET a 1 EX 1000             -> OK
    SET a 2 KEEPTTL             -> OK
    EXPIRE a 2000 LT            -> 0
    EXPIRE a 2000 GT            -> 1
    EXPIRE a 10 NX              -> 0
    EXPIRE a 3000 XX            -> 1
    EXPIRE a 10 FOO             -> !ERR Unsupported option FOO
    PERSIST a                   -> 1
    PERSIST a                   -> 0
    TTL a                       -> -1
    PTTL a                      -> -1
    TTL none                    -> -2
    PTTL none                   -> -2
    SET a 2 PX 1000000          -> OK
    SET a 2                     -> OK
    TTL a                       -> -1
    SET a 2 EXAT 99999999999    -> OK
    PERSIST a                   -> 1
    SET a 2 PXAT 99999999999999 -> OK
    PERSIST a                   -> 1
    SET a 2 EXAT 1              -> OK
    EXISTS a                    -> 0
    EXPIRE none 10              -> 0
    PEXPIRE b 1000000           -> 1
    PEXPIRE b -1                -> 1
    GET b                       -> nil
    INCR n                      -> 1
    INCRBY n 9                  -> 10
    DECR n                      -> 9
    DECRBY n 4                  -> 5
    INCRBY n x                  -> !ERR value is not an integer or out of range
    INCRBY n 9223372036854775807 -> !ERR increment or decrement would overflow
    DECRBY n -9223372036854775808 -> !ERR decrement would overflow
    SET n text                  -> OK
    INCR n                      -> !ERR value is not an integer or out of range
    APPEND n ual                -> 7
    APPEND new x                -> 1
    GET n                       -> \"textual\"
    STRLEN n                    -> 7
    STRLEN none                 -> 0
    TYPE n                      -> string
    TYPE none                   -> none
    MSET k1 1 k2 2 k3 3 k4 4 k5 5 -> OK
    MGET k1 none k2 k5 k4 k3 k1 -> [\"1\" nil \"2\" \"5\" \"4\" \"3\" \"1\"]
    MSET k1 1 k2                -> !ERR wrong number of arguments for 'mset' command
    EXISTS k1 k2 none k1        -> 3
    DEL k1 k2 none k1           -> 2
    PUT p 1                     -> OK
    PUT p 2 NX                  -> nil
    DELETE p k3 none            -> 2
    GET p                       -> nil
    FLUSHALL NOPE               -> !ERR syntax error
    FLUSHALL                    -> OK
    DBSIZE                      -> 0
    MSET {t}1 a {t}2 b          -> OK
    CLUSTER KEYSLOT {t}1        -> 15891
    CLUSTER COUNTKEYSINSLOT 15891 -> 2
    CLUSTER COUNTKEYSINSLOT 0   -> 0
    DBSIZE                      -> 2
    KEYS {t}?                   -> [\"{t}...
    KEYS nope*                  -> []
    SCAN x                      -> !ERR invalid cursor
    SCAN 0 COUNT 0              -> !ERR syntax error
    WAIT 1 0                    -> 1
    SET {t}1 c                  -> OK
    WAIT 1 0                    -> 1
    FLUSHALL ASYNC              -> OK
";

#[test]
fn every_command_at_every_node_in_both_protocols() {
    let cluster = Shared::turn();
    for protocol in [2, 3] {
        for port in cluster.ports() {
            let mut connection = connect(port, protocol);
            let whereabouts = format!("port {port}, RESP{protocol}");
            play(&mut connection, CONNECTION, &whereabouts);
            play(&mut connection, KEYS, &whereabouts);
        }
    }
}

#[test]
fn what_a_node_says_of_itself_and_of_the_cluster() {
    let cluster = Shared::turn();
    let mut names = Vec::new();
    for (node, port) in cluster.ports().into_iter().enumerate() {
        let mut connection = connect(port, 2);
        let hello = shown(&say(&mut connection, "HELLO"));
        assert!(
            hello.starts_with("[\"server\" \"redis\" \"version\" \"7.2.4\" \"proto\" 2 \"id\" "),
            "{hello}"
        );
        assert!(hello.contains("\"mode\" \"standalone\""), "{hello}");
        // The reply to HELLO 3 is a map already, and what follows speaks RESP3.
        assert!(matches!(say(&mut connection, "HELLO 3"), Ok(Value::Map(_))));
        assert!(matches!(say(&mut connection, "CONFIG GET port"), Ok(Value::Map(_))));
        assert!(matches!(say(&mut connection, "INFO server"), Ok(Value::VerbatimString { .. })));
        assert!(matches!(say(&mut connection, "HELLO 2"), Ok(Value::Array(_))));
        let info: redis::InfoDict = redis::cmd("INFO").query(&mut connection).unwrap();
        assert_eq!(info.get::<String>("redis_mode").as_deref(), Some("standalone"));
        assert_eq!(info.get::<u8>("cluster_enabled"), Some(0));
        assert_eq!(info.get::<u16>("tcp_port"), Some(port));
        assert_eq!(info.get::<usize>("node_id"), Some(node + 1));
        let ids: Vec<i64> =
            (0..2).map(|_| redis::cmd("CLIENT").arg("ID").query(&mut connect(port, 2)).unwrap()).collect();
        assert!(ids[0] > 0 && ids[0] != ids[1], "{ids:?}");

        let count: usize = redis::cmd("COMMAND").arg("COUNT").query(&mut connection).unwrap();
        let all: Vec<Value> = redis::cmd("COMMAND").query(&mut connection).unwrap();
        assert_eq!(all.len(), count);

        let state: String = redis::cmd("CLUSTER").arg("INFO").query(&mut connection).unwrap();
        assert!(state.starts_with("cluster_state:ok\r\ncluster_slots_assigned:16384\r\n"), "{state}");
        let name: String = redis::cmd("CLUSTER").arg("MYID").query(&mut connection).unwrap();
        assert!(name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
        names.push(name);
    }
    // Every node tells the same of the cluster, with the addresses for cluster-aware clients.
    for port in cluster.ports().into_iter().chain(cluster.cluster_ports()) {
        let mut connection = connect(port, 2);
        let nodes: String = redis::cmd("CLUSTER").arg("NODES").query(&mut connection).unwrap();
        let mut slots = slot_ranges(&mut connection);
        // Each node is shown as a primary before any is shown as a backup.
        let count = cluster.ports().len();
        assert!(slots[..count].iter().all(|(first, last, copies)| first == last && copies.len() == 1));
        assert!(slots[count..].iter().all(|(_, _, copies)| copies.len() == 2));
        slots.sort_unstable();
        let mut next = 0;
        for (first, last, copies) in &slots {
            assert_eq!(*first, next, "a gap in CLUSTER SLOTS");
            assert!(
                copies.get(1) != copies.first()
                    && copies.iter().all(|at| cluster.cluster_ports().contains(at))
            );
            next = last + 1;
        }
        assert_eq!(next, 16384);
        let shards: Vec<Value> = redis::cmd("CLUSTER").arg("SHARDS").query(&mut connection).unwrap();
        assert_eq!(shards.len(), names.len());
        for (name, cluster_port) in names.iter().zip(cluster.cluster_ports()) {
            let line = nodes.lines().find(|line| line.starts_with(name)).expect("the node's line");
            assert!(
                line.contains(&format!("127.0.0.1:{cluster_port}@")) && line.contains("master"),
                "{line}"
            );
            let shards = format!("{shards:?}");
            assert!(shards.contains(&format!("{cluster_port}")), "{shards}");
        }
    }
}

/// `CLUSTER SLOTS`: first and last slot, and the ports of the copies, the primary's first.
pub fn slot_ranges(connection: &mut redis::Connection) -> Vec<(u16, u16, Vec<u16>)> {
    let ranges: Vec<Vec<Value>> = redis::cmd("CLUSTER").arg("SLOTS").query(connection).unwrap();
    let number = |value: &Value| match value {
        Value::Int(number) => *number as u16,
        other => panic!("no number: {other:?}"),
    };
    let port = |value: &Value| match value {
        Value::Array(endpoint) => number(&endpoint[1]),
        other => panic!("no endpoint: {other:?}"),
    };
    ranges
        .iter()
        .map(|range| (number(&range[0]), number(&range[1]), range[2..].iter().map(port).collect()))
        .collect()
}

#[test]
fn quit_closes_after_its_reply() {
    let cluster = Shared::turn();
    let mut connection = connect(cluster.port, 2);
    // What comes after QUIT is not run.
    let mut pipe = redis::pipe();
    pipe.cmd("SET").arg("before").arg(1).cmd("QUIT").cmd("SET").arg("after").arg(1);
    connection.send_packed_command(&pipe.get_packed_pipeline()).unwrap();
    assert_eq!(connection.recv_response().unwrap(), Value::Okay);
    assert_eq!(connection.recv_response().unwrap(), Value::Okay);
    assert!(connection.recv_response().is_err());
    let kept: (u8, u8) = redis::cmd("EXISTS")
        .arg("before")
        .query(&mut connect(cluster.port, 2))
        .and_then(|before| {
            let after = redis::cmd("EXISTS").arg("after").query(&mut connect(cluster.port, 2))?;
            Ok((before, after))
        })
        .unwrap();
    assert_eq!(kept, (1, 0));
}

#[test]
fn a_key_expires_at_every_node() {
    let cluster = Shared::turn();
    let mut connections = cluster.ports().map(|port| connect(port, 2));
    for number in 0..20 {
        let key = format!("short:{number}");
        let _: () = redis::cmd("SET").arg(&key).arg(1).arg("PX").arg(50).query(&mut connections[0]).unwrap();
    }
    for connection in &mut connections {
        crate::local_cluster::until("all keys have expired", || {
            let size: usize = redis::cmd("DBSIZE").query(connection).unwrap();
            let left: Vec<String> = redis::cmd("KEYS").arg("*").query(connection).unwrap();
            assert!(left.len() <= 20);
            size == 0 && left.is_empty()
        });
    }
}

#[test]
fn scan_shows_every_key_once_it_is_through() {
    const KEYS: usize = 3000;
    let cluster = Shared::turn();
    let mut pipe = redis::pipe();
    for number in 0..KEYS {
        pipe.cmd("SET").arg(format!("scan:{number}")).arg(number).ignore();
    }
    pipe.exec(&mut connect(cluster.port, 2)).unwrap();
    for (port, count) in cluster.ports().into_iter().zip([10, 100, 5000]) {
        let mut connection = connect(port, 3);
        let (mut cursor, mut keys) = (0u64, Vec::new());
        loop {
            let mut command = redis::cmd("SCAN");
            command.arg(cursor).arg("COUNT").arg(count).arg("MATCH").arg("scan:*").arg("TYPE").arg("string");
            let (next, some): (u64, Vec<String>) = command.query(&mut connection).unwrap();
            keys.extend(some);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), KEYS);
        let size: usize = redis::cmd("DBSIZE").query(&mut connection).unwrap();
        assert_eq!(size, KEYS);
    }
}

/// However many partitions there are, most of them of other nodes.
#[test]
fn a_small_database_is_scanned_in_one_call() {
    let cluster = Shared::turn();
    for port in cluster.ports() {
        let mut connection = connect(port, 3);
        let mut scan = |pattern: &str| {
            let (next, mut keys): (u64, Vec<String>) =
                redis::cmd("SCAN").arg(0).arg("MATCH").arg(pattern).query(&mut connection).unwrap();
            keys.sort_unstable();
            (next, keys)
        };
        assert_eq!(scan("*"), (0, Vec::new()));
        for key in ["a", "b", "c"] {
            let _: () = redis::cmd("SET").arg(key).arg("v").query(&mut connect(port, 3)).unwrap();
        }
        assert_eq!(scan("*"), (0, vec!["a".into(), "b".into(), "c".into()]));
        assert_eq!(scan("b"), (0, vec!["b".into()]));
        let _: () = redis::cmd("DEL").arg("a").arg("b").arg("c").query(&mut connect(port, 3)).unwrap();
    }
}

#[test]
fn a_random_key_is_any_as_likely_as_another() {
    const DRAWS: usize = 2000;
    let cluster = Shared::turn();
    let mut pipe = redis::pipe();
    for number in 0..90 {
        pipe.cmd("SET").arg(format!("{{one partition}}{number}")).arg(number).ignore();
    }
    for number in 0..10 {
        pipe.cmd("SET").arg(format!("alone:{number}")).arg(number).ignore();
    }
    pipe.exec(&mut connect(cluster.port, 2)).unwrap();
    for port in cluster.ports() {
        // All at once: they share what the partitions say.
        let mut pipe = redis::pipe();
        (0..DRAWS).for_each(|_| {
            pipe.cmd("RANDOMKEY");
        });
        let keys: Vec<String> = pipe.query(&mut connect(port, 2)).unwrap();
        let alone = keys.iter().filter(|key| key.starts_with("alone:")).count();
        // A tenth is expected, and if partitions were chosen without regard to their sizes, ten elevenths. The bounds
        // are five standard deviations from 200.
        assert!((133..=267).contains(&alone), "{alone} of {DRAWS}");
        let mut distinct = keys.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert!(distinct.len() > 40, "{distinct:?}");
    }
    // What was removed is never shown, and what is there is found, however old the counts are.
    let mut connection = connect(cluster.port, 2);
    for round in 0..20 {
        let _: () = redis::cmd("FLUSHALL").query(&mut connection).unwrap();
        let none: Option<String> = redis::cmd("RANDOMKEY").query(&mut connection).unwrap();
        assert_eq!(none, None);
        let _: () = redis::cmd("SET").arg(format!("only:{round}")).arg(round).query(&mut connection).unwrap();
        let key: Option<String> = redis::cmd("RANDOMKEY").query(&mut connection).unwrap();
        assert_eq!(key, Some(format!("only:{round}")));
    }
    // At the cluster doors it is a key of this very node.
    let mut pipe = redis::pipe();
    for number in 0..30 {
        pipe.cmd("SET").arg(format!("alone:{number}")).arg(number).ignore();
    }
    pipe.exec(&mut connection).unwrap();
    for port in cluster.cluster_ports() {
        let mut connection = connect(port, 2);
        for _ in 0..10 {
            let key: Option<String> = redis::cmd("RANDOMKEY").query(&mut connection).unwrap();
            if let Some(key) = key {
                let _: String = redis::cmd("GET").arg(&key).query(&mut connection).expect("no MOVED");
            }
        }
    }
}

#[test]
fn binary_keys_and_values_come_back_as_they_were() {
    let cluster = Shared::turn();
    let mut connections = cluster.ports().map(|port| connect(port, 2));
    let every_byte: Vec<u8> = (0..=255).collect();
    let odd: [&[u8]; 7] = [b"", b"\r\n", b"\0", b"$-1\r\n", b"{}\xff", b"\xc3\x28 not utf-8", &every_byte];
    for (at, key) in odd.iter().enumerate() {
        for (to, value) in odd.iter().enumerate() {
            let _: () = redis::cmd("SET").arg(*key).arg(*value).query(&mut connections[at % 3]).unwrap();
            let got: Vec<u8> = redis::cmd("GET").arg(*key).query(&mut connections[to % 3]).unwrap();
            assert_eq!(&got, value);
        }
    }
    let mut keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(&mut connections[0]).unwrap();
    keys.sort_unstable();
    let mut expected: Vec<Vec<u8>> = odd.iter().map(|key| key.to_vec()).collect();
    expected.sort_unstable();
    assert_eq!(keys, expected);
}

#[test]
fn big_values_go_through_a_node_that_has_not_got_them() {
    const BYTES: usize = 10 * 1024 * 1024;
    let cluster = Shared::turn();
    let mut connections = cluster.ports().map(|port| connect(port, 3));
    let value: Vec<u8> = (0..BYTES).map(|at| (at * 31 + at / 251) as u8).collect();
    // Each of these lies at one node, and two of the three nodes pass it on.
    let keys = ["big:1", "big:2", "big:3"];
    for (key, connection) in keys.iter().zip(&mut connections) {
        let _: () = redis::cmd("SET").arg(key).arg(&value).query(connection).unwrap();
    }
    for connection in &mut connections {
        for key in keys {
            let got: Vec<u8> = redis::cmd("GET").arg(key).query(connection).unwrap();
            assert!(got == value, "{key} came back changed, {} bytes long", got.len());
        }
        let lengths: usize = redis::cmd("APPEND").arg(keys[0]).arg("").query(connection).unwrap();
        assert_eq!(lengths, BYTES);
    }
    let all: Vec<Vec<u8>> = redis::cmd("MGET").arg(&keys).query(&mut connections[1]).unwrap();
    assert!(all.iter().all(|got| *got == value));
}

/// Numbers that look random, the same at every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        // Knuth's MMIX generator; its high bits are the good ones.
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % end
    }
}

/// What one command does to a map of strings, and the reply that it must have.
fn model(keys: &mut BTreeMap<String, String>, numbers: &mut Numbers, number: usize) -> (redis::Cmd, String) {
    let key = |numbers: &mut Numbers| format!("key:{}", numbers.below(150));
    let quoted = |value: Option<&String>| value.map_or("nil".to_owned(), |value| format!("\"{value}\""));
    let name = key(numbers);
    match numbers.below(10) {
        0 | 1 => {
            keys.insert(name.clone(), number.to_string());
            (redis::cmd("SET").arg(name).arg(number).to_owned(), "OK".into())
        }
        2 | 3 => (redis::cmd("GET").arg(&name).to_owned(), quoted(keys.get(&name))),
        4 => {
            let value = keys.entry(name.clone()).or_insert_with(|| "0".into());
            let sum = value.parse::<i64>().ok().and_then(|old| old.checked_add(1));
            let reply = sum.map_or("!ERR value is not an integer or out of range".into(), |sum| {
                *value = sum.to_string();
                sum.to_string()
            });
            (redis::cmd("INCR").arg(name).to_owned(), reply)
        }
        5 => {
            let value = keys.entry(name.clone()).or_default();
            *value += "1";
            (redis::cmd("APPEND").arg(name).arg(1).to_owned(), value.len().to_string())
        }
        6 => {
            let names: Vec<String> = (0..5).map(|_| key(numbers)).collect();
            let gone = names.iter().filter(|name| keys.remove(*name).is_some()).count();
            (redis::cmd("DEL").arg(names).to_owned(), gone.to_string())
        }
        7 => {
            let names: Vec<String> = (0..5).map(|_| key(numbers)).collect();
            let values: Vec<String> = names.iter().map(|name| quoted(keys.get(name))).collect();
            (redis::cmd("MGET").arg(names).to_owned(), format!("[{}]", values.join(" ")))
        }
        8 => {
            let mut command = redis::cmd("MSET");
            for at in 0..4 {
                let name = key(numbers);
                keys.insert(name.clone(), format!("{number}{at}"));
                command.arg(name).arg(format!("{number}{at}"));
            }
            (command, "OK".into())
        }
        // Answered at once by whichever node is asked, and yet in its turn.
        _ => (redis::cmd("ECHO").arg(number).to_owned(), format!("\"{number}\"")),
    }
}

#[test]
fn long_pipelines_keep_their_order_and_read_their_own_writes() {
    const COMMANDS: usize = 5000;
    let cluster = Shared::turn();
    let mut keys = BTreeMap::new();
    let mut numbers = Numbers(2026);
    for protocol in [2, 3] {
        for port in cluster.ports() {
            let mut connection = connect(port, protocol);
            let (mut packed, mut expected) = (Vec::new(), Vec::new());
            for number in 0..COMMANDS {
                let (command, reply) = model(&mut keys, &mut numbers, number);
                packed.extend(command.get_packed_command());
                expected.push((command, reply));
            }
            // All of it at once; the replies are read by this thread meanwhile.
            let replies = connection.req_packed_commands(&packed, 0, COMMANDS).unwrap();
            for (number, (reply, (command, expected))) in replies.into_iter().zip(&expected).enumerate() {
                let text = shown(&Ok(reply));
                let sent = String::from_utf8_lossy(&command.get_packed_command()).replace("\r\n", " ");
                assert_eq!(&text, expected, "command {number} of port {port}: {sent}");
            }
        }
    }
}

#[test]
fn several_keys_lie_in_several_partitions_and_any_node_has_them_all() {
    const KEYS: usize = 500;
    let cluster = Shared::turn();
    let names: Vec<String> = (0..KEYS).map(|number| format!("many:{number}")).collect();
    for (at, port) in cluster.ports().into_iter().enumerate() {
        let mut connection = connect(port, 3);
        let mut command = redis::cmd("MSET");
        names.iter().for_each(|name| {
            command.arg(name).arg(format!("{name} {at}"));
        });
        let _: () = command.query(&mut connection).unwrap();
        for other in cluster.ports() {
            let mut other = connect(other, 2);
            let values: Vec<String> = redis::cmd("MGET").arg(&names).query(&mut other).unwrap();
            assert!(names.iter().zip(&values).all(|(name, value)| *value == format!("{name} {at}")));
            let count: usize = redis::cmd("EXISTS").arg(&names).arg(&names).query(&mut other).unwrap();
            assert_eq!(count, 2 * KEYS);
        }
        let count: usize = redis::cmd("DEL").arg(&names).arg("none").query(&mut connection).unwrap();
        assert_eq!(count, KEYS);
        let count: usize = redis::cmd("EXISTS").arg(&names).query(&mut connection).unwrap();
        assert_eq!(count, 0);
    }
}

#[test]
fn clients_at_every_node_count_together() {
    const CLIENTS: usize = 6;
    const TURNS: usize = 300;
    let cluster = Shared::turn();
    let ports = cluster.ports();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                let mut connection = connect(ports[client % ports.len()], 2);
                let mut last = 0;
                for _ in 0..TURNS {
                    let now: usize = redis::cmd("INCR").arg("together").query(&mut connection).unwrap();
                    assert!(now > last, "{now} after {last}");
                    last = now;
                }
            });
        }
    });
    for port in ports {
        let sum: usize = redis::cmd("GET").arg("together").query(&mut connect(port, 2)).unwrap();
        assert_eq!(sum, CLIENTS * TURNS);
    }
}
