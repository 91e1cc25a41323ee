//! The binary's own `cli` and `status`, as scripts use them: by exit code and output.

use crate::local_cluster::{Shared, annulet, output, printed};
use crate::redis_tools::write_to;
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
        (2, "delete user:1 visits", 0, "(integer) 2\n"),
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
