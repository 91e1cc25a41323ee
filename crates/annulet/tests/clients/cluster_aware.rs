//! The `redis` crate's cluster client at the ports for cluster-aware clients, and what these ports say to any client.

use crate::local_cluster::{LocalCluster, Shared, connect, until};
use crate::plain::slot_ranges;
use crate::script::{say, shown};
use redis::ProtocolVersion;
use redis::cluster::{ClusterClient, ClusterConnection, cluster_pipe};
use redis::cluster_read_routing::RandomReplicaStrategy;

/// A cluster client that knows one node at first.
pub fn cluster_client(
    cluster: &LocalCluster,
    protocol: ProtocolVersion,
    read_backups: bool,
) -> ClusterConnection {
    let first = format!("redis://127.0.0.1:{}/", cluster.cluster_ports()[0]);
    let mut builder = ClusterClient::builder([first]).use_protocol(protocol);
    if read_backups {
        builder = builder.read_routing_strategy(RandomReplicaStrategy);
    }
    builder.build().unwrap().get_connection().unwrap()
}

#[test]
fn a_cluster_client_finds_every_key() {
    const KEYS: usize = 300;
    let cluster = Shared::turn();
    for protocol in [ProtocolVersion::RESP2, ProtocolVersion::RESP3] {
        let mut connection = cluster_client(&cluster, protocol, false);
        let names: Vec<String> = (0..KEYS).map(|number| format!("aware:{number}")).collect();
        for (number, name) in names.iter().enumerate() {
            let _: () = redis::cmd("SET").arg(name).arg(number).query(&mut connection).unwrap();
            let sum: usize = redis::cmd("INCRBY").arg(name).arg(1).query(&mut connection).unwrap();
            assert_eq!(sum, number + 1);
        }
        // It splits these by slot, and some commands by node.
        let values: Vec<usize> = redis::cmd("MGET").arg(&names).query(&mut connection).unwrap();
        assert!(values.iter().enumerate().all(|(number, value)| *value == number + 1));
        let size: usize = redis::cmd("DBSIZE").query(&mut connection).unwrap();
        assert_eq!(size, KEYS);
        let keys: Vec<String> = redis::cmd("KEYS").arg("aware:*").query(&mut connection).unwrap();
        assert_eq!(keys.len(), KEYS);
        let mut pipe = cluster_pipe();
        names.iter().for_each(|name| {
            pipe.cmd("GET").arg(name);
        });
        let values: Vec<usize> = pipe.query(&mut connection).unwrap();
        assert!(values.iter().enumerate().all(|(number, value)| *value == number + 1));
        let gone: usize = redis::cmd("DEL").arg(&names).query(&mut connection).unwrap();
        assert_eq!(gone, KEYS);
        let _: () = redis::cmd("FLUSHALL").query(&mut connection).unwrap();
    }
}

#[test]
fn backups_answer_readers_that_take_stale_replies() {
    const KEYS: usize = 100;
    let cluster = Shared::turn();
    let mut reader = cluster_client(&cluster, ProtocolVersion::RESP3, true);
    let mut writer = connect(cluster.port, 2);
    for number in 0..KEYS {
        let name = format!("stale:{number}");
        let _: () = redis::cmd("SET").arg(&name).arg(number).query(&mut writer).unwrap();
        until("a backup shows the write", || {
            let seen: Option<usize> = redis::cmd("GET").arg(&name).query(&mut reader).unwrap();
            seen == Some(number)
        });
    }
}

#[test]
fn another_nodes_key_is_answered_with_its_place() {
    let cluster = Shared::turn();
    let mut connections = cluster.cluster_ports().map(|port| connect(port, 2));
    let ranges = slot_ranges(&mut connections[0]);
    for number in 0..50 {
        let key = format!("moved:{number}");
        let slot: u16 = redis::cmd("CLUSTER").arg("KEYSLOT").arg(&key).query(&mut connections[0]).unwrap();
        let (_, _, copies) =
            ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&slot)).expect("a range");
        if copies.len() == 1 {
            // The slot by which a primary is introduced, without its backup.
            continue;
        }
        let moved = format!("!MOVED {slot} 127.0.0.1:{}", copies[0]);
        for (connection, port) in connections.iter_mut().zip(cluster.cluster_ports()) {
            let expected = |own: &str| if port == copies[0] { own.to_owned() } else { moved.clone() };
            assert_eq!(shown(&say(connection, &format!("GET {key}"))), expected("nil"));
            assert_eq!(shown(&say(connection, &format!("EXISTS {key}"))), expected("0"));
            // Backups answer reads after READONLY, and never writes.
            let _: () = redis::cmd("READONLY").query(connection).unwrap();
            let read = shown(&say(connection, &format!("GET {key}")));
            assert_eq!(read, if copies.contains(&port) { "nil" } else { &moved });
            assert_eq!(shown(&say(connection, &format!("DEL {key}"))), expected("0"));
            let _: () = redis::cmd("READWRITE").query(connection).unwrap();
            assert_eq!(shown(&say(connection, &format!("GET {key}"))), expected("nil"));
        }
    }
    for connection in &mut connections {
        let crossing = shown(&say(connection, "MSET a 1 b 2"));
        assert_eq!(crossing, "!CROSSSLOT Keys in request don't hash to the same slot");
        let info = shown(&say(connection, "INFO cluster"));
        assert!(info.contains("cluster_enabled:1"), "{info}");
        assert!(shown(&say(connection, "HELLO")).contains("\"mode\" \"cluster\""));
    }
}

#[test]
fn sizes_and_keys_are_of_this_nodes_primaries() {
    const KEYS: usize = 600;
    let cluster = Shared::turn();
    let mut pipe = redis::pipe();
    (0..KEYS).for_each(|number| {
        pipe.cmd("SET").arg(format!("own:{number}")).arg(1).ignore();
    });
    pipe.exec(&mut connect(cluster.port, 2)).unwrap();
    let mut all = Vec::new();
    for port in cluster.cluster_ports() {
        let mut connection = connect(port, 2);
        let size: usize = redis::cmd("DBSIZE").query(&mut connection).unwrap();
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
        assert!(size > 0 && size == keys.len());
        let mut scanned = Vec::new();
        let mut cursor = 0u64;
        loop {
            let (next, some): (u64, Vec<String>) =
                redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(50).query(&mut connection).unwrap();
            scanned.extend(some);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        scanned.sort_unstable();
        scanned.dedup();
        assert_eq!(scanned.len(), size);
        all.extend(keys);
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), KEYS);
}
