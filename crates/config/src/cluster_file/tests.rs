//! Cluster files that are good, in both formats, and a table of bad ones.

use super::*;
use std::sync::atomic::{AtomicU32, Ordering};

/// A file in a directory of its own, which goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("annulet-cluster-file-{}-{count}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join(name), text).unwrap();
        Scratch(dir.join(name))
    }

    fn read(&self) -> Result<ClusterFile, ClusterFileError> {
        ClusterFile::read(&self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(self.0.parent().unwrap()).unwrap();
    }
}

const TOML: &str = r#"
copies = 3
partitions = 256
virtual_nodes = 160
requirepass = "secret"
maxmemory = "2gb"
[[nodes]]
id = 1
host = "10.0.0.1"
[[nodes]]
id = 2
host = "10.0.0.2"
port = 6000
http_port = 0
weight = 2
dir = "/data/two"
[[nodes]]
id = 7
host = "::1"
"#;

const JSON: &str = r#"{ "copies": 3, "partitions": 256, "virtual_nodes": 160, "requirepass": "secret", "maxmemory": "2gb",
  "nodes": [
    { "id": 1, "host": "10.0.0.1" },
    { "id": 2, "host": "10.0.0.2", "port": 6000, "http_port": 0, "weight": 2, "dir": "/data/two" },
    { "id": 7, "host": "::1" } ] }"#;

#[test]
fn both_formats_say_the_same() {
    let all = |name: &str, text: &str| {
        let file = Scratch::new(name, text);
        let file = file.read().unwrap();
        [1, 2, 7].map(|id| file.node_settings(id).unwrap())
    };
    let toml = all("cluster.toml", TOML);
    assert_eq!(toml, all("cluster.json", JSON));
    // Without an ending that tells, the content does.
    assert_eq!(toml, all("cluster", JSON));
    assert_eq!(toml, all("cluster.conf", TOML));
}

#[test]
fn each_node_gets_its_settings() {
    let file = Scratch::new("cluster.toml", TOML);
    let file = file.read().unwrap();
    let of = |id| {
        let given = file.node_settings(id).unwrap();
        crate::settings_file::settings_over(Path::new("x"), given, &Given::new()).unwrap()
    };
    let (one, two) = (of(1), of(2));
    assert_eq!((one.copies, one.partitions, one.maxmemory.0, one.weight), (3, 256, 2 << 30, 1));
    assert_eq!(one.nodes.as_str(), "1=10.0.0.1:7201,2=10.0.0.2:6200,7=[::1]:7201");
    assert_eq!(two.nodes, one.nodes);
    assert_eq!((one.port, one.cluster_port, one.peer_port, one.http_port), (7001, 7101, 7201, 7301));
    assert_eq!((two.port, two.cluster_port, two.peer_port, two.http_port), (6000, 6100, 6200, 0));
    assert_eq!((two.node_id, two.bind.as_str(), two.announced_host()), (2, "10.0.0.2", "10.0.0.2"));
    assert_eq!((one.dir.as_str(), two.dir.as_str()), ("annulet-data/node-1", "/data/two"));
    assert_eq!(two.weight, 2);
}

/// A file of two nodes with lines before, within the first and within the second.
fn with(above: &str, first: &str, second: &str) -> String {
    format!("{above}\n[[nodes]]\n{first}\n[[nodes]]\n{second}\n")
}

#[test]
fn mistakes_are_told_with_file_line_field_and_what_to_do() {
    let (one, two) = ("id = 1\nhost = \"10.0.0.1\"", "id = 2\nhost = \"10.0.0.2\"");
    let same_host = "id = 2\nhost = \"10.0.0.1\"";
    for (text, expected) in [
        (
            with("copy = 2", one, two),
            "FILE line 1 (copy): unknown key 'copy' (did you mean 'copies'?); there are nodes",
        ),
        (
            with("", one, &format!("{two}\ncolour = 1")),
            "FILE line 8 (nodes[2].colour): unknown key 'colour'; there are",
        ),
        (with("", one, "id = 1\nhost = \"h\""), "FILE line 6 (nodes[2].id): id 1 is taken by nodes[1]"),
        (
            with("", one, same_host),
            "FILE line 6 (nodes[2].port): port 7001 of 10.0.0.1 is already the port of nodes[1]",
        ),
        (
            with("", one, &format!("{same_host}\nport = 7101")),
            "FILE line 8 (nodes[2].port): port 7101 of 10.0.0.1 is already the cluster_port of nodes[1]",
        ),
        (
            with("", &format!("{one}\nport = 8000\npeer_port = 8000"), two),
            "(nodes[1].peer_port): port 8000 of 10.0.0.1 is already the port of nodes[1]",
        ),
        (
            with("", &format!("{one}\nport = 65500"), two),
            "FILE line 5 (nodes[1].cluster_port): counted from port 65500",
        ),
        (
            with("", &format!("{one}\nport = 70000"), two),
            "FILE line 5 (nodes[1].port): invalid value '70000' for 'port'",
        ),
        (
            with("", &format!("{one}\nport = \"7\""), two),
            "(nodes[1].port): a number, without quotes, is expected, not \"7\"",
        ),
        (with("", &format!("{one}\ndir = 7"), two), "(nodes[1].dir): text, in quotes, is expected, not 7"),
        (
            with("", &format!("{one}\ncopies = 2"), two),
            "(nodes[1].copies): `copies` is the same on every node: put it above",
        ),
        (
            with("", &format!("{one}\nnode_id = 2"), two),
            "the cluster file itself decides `node_id`; leave it out",
        ),
        (
            with("partitions = 1000", one, two),
            "FILE line 1 (partitions): invalid value '1000' for 'partitions': a power of two",
        ),
        (
            with("copies = 0", one, two),
            "FILE line 1 (copies): invalid value '0' for 'copies': a whole number from 1 to 7",
        ),
        (with("copies = 1\nmin_in_sync = 2", one, two), "FILE line 2 (min_in_sync): "),
        (
            with("virtual_nodes = 100", one, two),
            "FILE line 1 (virtual_nodes): every cluster has 160 virtual nodes",
        ),
        (with("join_secret = \"abc\"", one, two), "FILE line 1 (join_secret): 64 hex digits"),
        (with("", "host = \"h\"", two), "FILE line 3 (nodes[1]): `id` is missing"),
        (with("", "id = 1", two), "FILE line 3 (nodes[1]): `host` is missing"),
        (
            with("", "id = 0\nhost = \"h\"", two),
            "FILE line 3 (nodes[1].id): a number from 1 to 9999 is expected, not 0",
        ),
        (
            with("", "id = 1\nhost = \"h:7001\"", two),
            "FILE line 4 (nodes[1].host): a host name or an address is expected, without a port",
        ),
        (
            with("", "id = 1.5", two),
            "(nodes[1].id): a number from 1 to 9999 is expected, not a number with a fraction",
        ),
        ("copies = 2\n".to_owned(), "FILE (nodes): it names no nodes; each is a section [[nodes]]"),
        ("nodes = []\n".to_owned(), "FILE line 1 (nodes): it is empty"),
        (
            "nodes = 3\n".to_owned(),
            "FILE line 1 (nodes): a list of nodes is expected, each [[nodes]], not a number",
        ),
        (
            "nodes = [3]\n".to_owned(),
            "FILE line 1 (nodes[1]): a node is a section with id and host, not a number",
        ),
        ("copies = \n".to_owned(), "FILE is not TOML: "),
        (
            "{\"nodes\": [{\"id\": 1, \"id\": 2, \"host\": \"h\"}]}".to_owned(),
            "FILE (nodes[1].id): it stands there twice",
        ),
        (
            "{\"nodes\": [{\"id\": true}]}".to_owned(),
            "FILE (nodes[1].id): a number from 1 to 9999 is expected, not true or false",
        ),
        // A key that a place would not show.
        (
            "{\"\": [{\"id\": 13, \"host\": \"h\"}]}".to_owned(),
            "FILE (\"\"): unknown key ''; there are nodes",
        ),
        (
            with("", &format!("{one}\n\"a b\" = 1"), two),
            "FILE line 5 (nodes[1].\"a b\"): unknown key 'a b'; there",
        ),
        ("{\"\": 1, \"\": 2}".to_owned(), "FILE (\"\"): it stands there twice"),
        ("{\"nodes\": ".to_owned(), "FILE is not JSON: "),
    ] {
        let file = Scratch::new("cluster", &text);
        let said = file.read().unwrap_err().to_string().replace(file.0.to_str().unwrap(), "FILE");
        assert!(said.contains(expected), "{text}\nsaid     {said}\nexpected {expected}");
    }
    let missing = ClusterFile::read(Path::new("/nowhere/cluster.toml")).unwrap_err().to_string();
    assert!(missing.starts_with("cannot read the cluster file /nowhere/cluster.toml: "), "{missing}");
}

#[test]
fn a_node_that_is_not_named_is_told_who_is() {
    let file = Scratch::new("cluster.toml", TOML);
    let said = file.read().unwrap().node_settings(3).unwrap_err().to_string();
    assert!(said.ends_with("names no node 3; it names 1 (10.0.0.1), 2 (10.0.0.2), 7 (::1)"), "{said}");
}

#[test]
fn a_secret_is_left_once_and_another_one_refused() {
    let secret = "0123456789abcdef".repeat(4);
    let text = format!("join_secret = \"{secret}\"\n[[nodes]]\nid = 1\nhost = \"127.0.0.1\"\n");
    let file = Scratch::new("cluster.toml", &text);
    let directory = file.0.with_extension("data");
    let cluster = file.read().unwrap();
    for _ in 0..2 {
        cluster.leave_secret(&directory).unwrap();
        let left = std::fs::read_to_string(directory.join("join.secret")).unwrap();
        assert_eq!(left.trim(), secret);
    }
    std::fs::write(directory.join("join.secret"), "f".repeat(64)).unwrap();
    let said = cluster.leave_secret(&directory).unwrap_err().to_string();
    assert!(said.contains("holds another secret than join_secret in the cluster file"), "{said}");
}

#[test]
fn letters_are_counted() {
    assert_eq!((distance("copies", "copies"), distance("copy", "copies"), distance("", "abc")), (0, 3, 3));
    assert_eq!(nearest("partition"), Some("partitions"));
    assert_eq!(nearest("virtualnodes"), Some("virtual_nodes"));
    assert_eq!(nearest("colour"), None);
}
