//! The binary's own `cli` and `status`, as scripts use them: by exit code and output.

use crate::local_cluster::{LocalCluster, Shared, annulet, output, printed, until};
use crate::redis_tools::write_to;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Stdio;

#[test]
fn exit_codes_tell_found_from_nothing_from_failed() {
    let cluster = Shared::turn();
    for (node, line, code, expected) in [
        (0, "get user:1", 1, "(nil)\n"),
        (1, "put user:1 Alice", 0, "OK\n"),
        (2, "get user:1", 0, "\"Alice\"\n"),
        (2, "--raw get user:1", 0, "Alice\n"),
        (0, "--json mget user:1 none", 0, "[\"Alice\",null]\n"),
        (0, "incrby visits -5", 0, "(integer) -5\n"),
        (1, "mget user:1 none", 0, "1) \"Alice\"\n2) (nil)\n"),
        (1, "incr user:1", 2, "(error) ERR value is not an integer or out of range\n"),
        (1, "nope", 2, "(error) ERR unknown command 'nope', with args beginning with: \n"),
        (0, "--json incr user:1", 2, "{\"error\":\"ERR value is not an integer or out of range\"}\n"),
        (0, "--json get none", 1, "null\n"),
        (2, "delete user:1 visits", 0, "(integer) 2\n"),
        (0, "quit", 0, ""),
    ] {
        let said = output(cluster.annulet(node, "cli").args(line.split(' ')).stdin(Stdio::null()), "");
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert_eq!((said.status.code(), text.as_str()), (Some(code), expected), "{line}");
    }
}

#[test]
fn a_file_of_commands_runs_line_by_line() {
    let cluster = Shared::turn();
    let lines = b"set a 1\n\nincr a\n  get \"a\"  \nset b \"two words\"\nget b\nexit\nset never 1\n";
    let text = write_to(&mut cluster.annulet(1, "cli"), lines);
    assert_eq!(text, "OK\n(integer) 2\n\"2\"\nOK\n\"two words\"\n");
    assert_eq!(printed(cluster.annulet(0, "cli").args(["exists", "never"]), ""), "(integer) 0\n");

    // An error ends nothing, but shows in the exit code.
    let mut command = cluster.annulet(2, "cli");
    let file = std::env::temp_dir().join(format!("annulet-clients-{}-lines", std::process::id()));
    std::fs::write(&file, "nope\nset after 1\n").unwrap();
    command.stdin(std::fs::File::open(&file).unwrap());
    let said = output(&mut command, "");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(said.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&said.stdout).ends_with("\nOK\n"));
}

/// What one of the shell's own words says as JSON, and its exit code.
fn own_word(cluster: &Shared, node: usize, line: &str) -> (serde_json::Value, Option<i32>) {
    let mut command = cluster.annulet(node, "cli");
    let said = output(command.arg("--json").args(line.split(' ')).stdin(Stdio::null()), "");
    let text = String::from_utf8_lossy(&said.stdout);
    (
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error}: {text}")),
        said.status.code(),
    )
}

#[test]
fn the_shells_own_words_tell_of_nodes_in_any_case() {
    let cluster = Shared::turn();
    let expected: Vec<String> = cluster.ports().iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let (nodes, code) = own_word(&cluster, 1, "list_nodes");
    let addresses: Vec<&str> =
        nodes.as_array().unwrap().iter().filter_map(|node| node["address"].as_str()).collect();
    assert_eq!((addresses, code), (expected.iter().map(String::as_str).collect(), Some(0)));
    let text = printed(cluster.annulet(2, "cli").arg("LIST_NODES").stdin(Stdio::null()), "");
    assert_eq!(text.lines().count(), 3);
    assert!(text.lines().zip(&expected).all(|(line, address)| line.contains(address)), "{text}");

    let (servers, _) = own_word(&cluster, 0, "Servers");
    let coordinator = servers["coordinator"].as_u64().expect("a cluster at rest has one");
    assert_eq!(servers["nodes"].as_array().unwrap().len(), 3);
    assert!(servers["nodes"][coordinator as usize - 1]["roles"].to_string().contains("coordinator"));

    let (status, code) = own_word(&cluster, 0, "STATUS");
    assert_eq!((&status["ok"], code), (&true.into(), Some(0)));
    let text = printed(cluster.annulet(0, "cli").arg("status").stdin(Stdio::null()), "");
    assert!(text.contains("partitions: 1024 of 1024 served"), "{text}");
}

#[test]
fn keys_are_listed_for_all_for_a_node_and_by_pattern_and_their_nodes_are_named() {
    let cluster = Shared::turn();
    let words: Vec<String> = (0..60).flat_map(|n| [format!("k:{n}"), n.to_string()]).collect();
    printed(cluster.annulet(0, "cli").arg("mset").args(words), "");
    let keys = |line: &str| {
        let (keys, code) = own_word(&cluster, 1, line);
        assert_eq!(code, Some(0), "{line}");
        let mut keys: Vec<String> =
            keys.as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()).collect();
        keys.sort();
        keys
    };
    let all = keys("keys");
    assert_eq!(all.len(), 60);
    assert_eq!(keys("KEYS *"), all);
    assert_eq!(keys("KEYS k:1?").len(), 10);
    // There is no such node, so it is a pattern, which no key fits.
    assert_eq!(keys("keys 99"), Vec::<String>::new());
    let of_nodes: Vec<Vec<String>> = (1..=3).map(|id| keys(&format!("keys {id}"))).collect();
    let mut together = of_nodes.concat();
    together.sort();
    assert_eq!(together, all, "each key has its primary on one node");

    for (id, own) in (1..=3).zip(&of_nodes) {
        // Figures are published a few times a second.
        until(&format!("{} keys on node {id}", own.len()), || {
            let (stats, _) = own_word(&cluster, 0, &format!("stats {id}"));
            stats["stats"]["total_keys"].as_u64() == Some(own.len() as u64)
        });
        let Some(key) = own.first() else { continue };
        let (holders, code) = own_word(&cluster, 2, &format!("Get_nodes_for_key {key}"));
        assert_eq!((&holders["primary"]["id"], code), (&id.into(), Some(0)), "{holders}");
        let backups = holders["backups"].as_array().unwrap();
        assert_eq!(backups.len(), 1, "{holders}");
        assert_ne!(backups[0]["id"], holders["primary"]["id"]);
    }
    let (stats, _) = own_word(&cluster, 0, "stats");
    assert_eq!(stats.as_array().unwrap().len(), 3);
    let (error, code) = own_word(&cluster, 0, "stats 9");
    assert_eq!(code, Some(2));
    assert!(error["error"].as_str().unwrap().contains("the cluster has the nodes 1, 2, 3"), "{error}");
}

#[test]
fn help_needs_no_node() {
    let said = output(annulet().args(["cli", "help", "get_nodes_for_key"]).stdin(Stdio::null()), "");
    assert_eq!(said.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&said.stdout).starts_with("GET_NODES_FOR_KEY key\n"));
    let said = output(annulet().args(["cli", "help", "gett"]).stdin(Stdio::null()), "");
    assert_eq!(said.status.code(), Some(2));
}

#[test]
fn the_next_node_goes_on_where_one_dies() {
    let mut cluster = LocalCluster::start(&[]);
    let nodes = cluster.ports().map(|port| format!("127.0.0.1:{port}")).join(",");
    let mut shell = annulet();
    shell
        .args(["cli", "--nodes", &nodes])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut shell = shell.spawn().expect("the binary starts");
    let mut input = shell.stdin.take().expect("its input is piped");
    let mut lines = BufReader::new(shell.stdout.take().expect("its output is piped")).lines();
    let mut say = |line: &str| {
        writeln!(input, "{line}").expect("the shell reads");
        lines.next().expect("the shell answers").expect("text")
    };
    assert_eq!(say("set a 1"), "OK");
    // It is connected to the first node. Whether the read still goes there or not, it is answered by the next.
    cluster.kill_node(1);
    assert_eq!(say("get a"), "\"1\"");
    assert_eq!(say("incr a"), "(integer) 2");
    drop(input);
    let said = shell.wait_with_output().expect("it ends with its input");
    assert!(said.status.success(), "{said:?}");
    // A new shell passes the dead one over, too.
    let text = printed(annulet().args(["cli", "--nodes", &nodes, "get", "a"]).stdin(Stdio::null()), "");
    assert_eq!(text, "\"2\"\n");
    cluster.restart_node(1);
    // Before it has come as far as to wait for it, it does not know what a signal asks for.
    until("the node is back", || TcpStream::connect(("127.0.0.1", cluster.ports()[0])).is_ok());
}

#[test]
fn status_shows_the_cluster_to_people_and_to_programs() {
    let cluster = Shared::turn();
    printed(cluster.annulet(0, "cli").args(["mset", "a", "1", "b", "2", "c", "3"]), "");
    for node in 0..3 {
        let text = printed(&mut cluster.annulet(node, "status"), "");
        assert!(text.contains(": ok\n") && text.contains("partitions: 1024 of 1024 served"), "{text}");
        let json = printed(cluster.annulet(node, "status").arg("--json"), "");
        let status: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(status["ok"], true);
        assert_eq!(status["partitions"]["served"], 1024);
        let nodes = status["nodes"].as_array().expect("nodes");
        for ((at, node), port) in nodes.iter().enumerate().zip(cluster.ports()) {
            assert_eq!((&node["id"], &node["port"]), (&(at + 1).into(), &port.into()));
            assert_eq!(node["state"], "ACTIVE");
            assert!(text.contains(&port.to_string()), "{text}");
        }
        assert_eq!(nodes.iter().filter_map(|node| node["primaries"].as_u64()).sum::<u64>(), 1024);
        assert_eq!(nodes.iter().filter_map(|node| node["in_sync"].as_u64()).sum::<u64>(), 2048);
    }
}

#[test]
fn nobody_there_is_a_failure_with_advice() {
    let cluster = Shared::turn();
    // A port that the cluster keeps free of clients: its peers' own answers to no Redis client.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for port in [free, cluster.peer_ports()[0]] {
        for line in [&["status"][..], &["cli", "ping"]] {
            let said =
                output(annulet().args(&line[..1]).args(["--port", &port.to_string()]).args(&line[1..]), "");
            assert_eq!(said.status.code(), Some(2), "{line:?} at port {port}");
            assert!(String::from_utf8_lossy(&said.stderr).starts_with("annulet: "), "{line:?}");
        }
    }
}
