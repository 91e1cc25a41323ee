//! The `redis` crate's typed interface, as programs in Rust use it: one run of commands on strings and keys, by a plain client at
//! every node and by a cluster client.

use crate::cluster_aware::cluster_client;
use crate::local_cluster::{Shared, connect};
use redis::{Commands, CopyOptions, ExistenceCheck, Expiry, ProtocolVersion, SetExpiry, SetOptions};
use std::collections::BTreeMap;

/// Keys with one tag, so that commands on two of them work everywhere.
fn strings_and_keys(r: &mut impl Commands) {
    let () = r.set("{t}a", "one").unwrap();
    assert_eq!(r.get::<_, String>("{t}a").unwrap(), "one");
    assert_eq!(r.get_ex::<_, String>("{t}a", Expiry::EX(1000)).unwrap(), "one");
    assert!((990..=1000).contains(&r.ttl::<_, i64>("{t}a").unwrap()));
    assert!(r.expire_time::<_, i64>("{t}a").unwrap() > 1_600_000_000);
    assert!(r.pexpire_time::<_, i64>("{t}a").unwrap() > 1_600_000_000_000);
    assert!(r.persist::<_, bool>("{t}a").unwrap());
    assert!(!r.set_nx::<_, _, bool>("{t}a", "two").unwrap());
    let options = SetOptions::default()
        .conditional_set(ExistenceCheck::XX)
        .get(true)
        .with_expiration(SetExpiry::PX(500_000));
    assert_eq!(r.set_options::<_, _, String>("{t}a", "two", options).unwrap(), "one");
    assert_eq!(r.getset::<_, _, String>("{t}a", "three").unwrap(), "two");
    assert_eq!(r.ttl::<_, i64>("{t}a").unwrap(), -1, "GETSET takes the expiry off");
    assert!(r.mset_nx::<_, _, bool>(&[("{t}b", "1"), ("{t}c", "2")]).unwrap());
    assert!(!r.mset_nx::<_, _, bool>(&[("{t}c", "3"), ("{t}d", "4")]).unwrap());
    assert_eq!(r.mget::<_, Vec<Option<i64>>>(&["{t}b", "{t}c", "{t}d"]).unwrap(), [Some(1), Some(2), None]);
    assert_eq!(r.incr::<_, _, f64>("{t}b", 0.5).unwrap(), 1.5);
    assert_eq!(r.decr::<_, _, i64>("{t}c", 5).unwrap(), -3);
    assert!(r.copy::<_, _, _, bool>("{t}b", "{t}d", CopyOptions::default()).unwrap());
    assert!(!r.copy::<_, _, _, bool>("{t}c", "{t}d", CopyOptions::default()).unwrap());
    assert!(r.copy::<_, _, _, bool>("{t}c", "{t}d", CopyOptions::default().replace(true)).unwrap());
    let () = r.rename("{t}d", "{t}e").unwrap();
    assert!(!r.rename_nx::<_, _, bool>("{t}e", "{t}a").unwrap());
    assert_eq!(r.append::<_, _, usize>("{t}a", "+four").unwrap(), 10);
    assert_eq!(r.getrange::<_, String>("{t}a", -4, -1).unwrap(), "four");
    assert_eq!(r.setrange::<_, _, usize>("{t}a", 5, "-FOUR").unwrap(), 10);
    assert_eq!(r.strlen::<_, usize>("{t}a").unwrap(), 10);
    assert_eq!(r.get_del::<_, String>("{t}a").unwrap(), "three-FOUR");
    let () = r.pset_ex("{t}a", "short", 500_000).unwrap();
    assert!(r.pttl::<_, i64>("{t}a").unwrap() > 490_000);
    assert_eq!(r.key_type::<_, String>("{t}a").unwrap(), "string");
    assert_eq!(r.exists::<_, usize>(&["{t}a", "{t}b", "{t}d"]).unwrap(), 2);
    assert_eq!(r.unlink::<_, usize>(&["{t}a", "{t}b", "{t}c", "{t}d", "{t}e"]).unwrap(), 4);
    // Over every slot: the cluster client parts these and puts the replies together.
    let many: BTreeMap<String, usize> = (0..100).map(|number| (format!("many:{number}"), number)).collect();
    let pairs: Vec<(&String, &usize)> = many.iter().collect();
    let () = r.mset(&pairs).unwrap();
    let names: Vec<&String> = many.keys().collect();
    assert_eq!(r.mget::<_, Vec<usize>>(&names).unwrap(), many.values().copied().collect::<Vec<_>>());
    assert_eq!(r.del::<_, usize>(&names).unwrap(), 100);
}

#[test]
fn plain() {
    let cluster = Shared::turn();
    for port in cluster.ports() {
        [2, 3].iter().for_each(|&protocol| strings_and_keys(&mut connect(port, protocol)));
    }
}

#[test]
fn cluster_aware() {
    let cluster = Shared::turn();
    for protocol in [ProtocolVersion::RESP2, ProtocolVersion::RESP3] {
        strings_and_keys(&mut cluster_client(&cluster, protocol, false));
    }
}
