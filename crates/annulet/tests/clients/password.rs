//! A cluster with a password: nothing is told, and nothing done, before it is said, at no door.

use crate::hostile::exchange;
use crate::local_cluster::{LocalCluster, annulet, output, printed};
use crate::observed::http_get;
use crate::redis_tools::{TOOLS, redis_cli};
use crate::script::{play, say, shown};
use redis::ProtocolVersion;
use redis::cluster::ClusterClient;

const PASSWORD: &str = "open sesame";

#[test]
fn every_door_is_shut_until_the_password_is_said() {
    let cluster = LocalCluster::start(&["--requirepass", PASSWORD]);
    let stranger = |port: u16| {
        redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap().get_connection().unwrap()
    };
    for port in cluster.ports().into_iter().chain(cluster.cluster_ports()) {
        let script = "
            PING                 -> !NOAUTH Authentication required.
            ECHO a               -> !NOAUTH Authentication required.
            GET a                -> !NOAUTH Authentication required.
            SET a 1              -> !NOAUTH Authentication required.
            SET a                -> !NOAUTH Authentication required.
            NOPE                 -> !NOAUTH Authentication required.
            FLUSHALL             -> !NOAUTH Authentication required.
            KEYS *               -> !NOAUTH Authentication required.
            SCAN 0               -> !NOAUTH Authentication required.
            INFO                 -> !NOAUTH Authentication required.
            CONFIG GET *         -> !NOAUTH Authentication required.
            COMMAND COUNT        -> !NOAUTH Authentication required.
            CLIENT ID            -> !NOAUTH Authentication required.
            CLUSTER SLOTS        -> !NOAUTH Authentication required.
            CLUSTER NODES        -> !NOAUTH Authentication required.
            READONLY             -> !NOAUTH Authentication required.
            CONSISTENCY          -> !NOAUTH Authentication required.
            WAIT 0 0             -> !NOAUTH Authentication required.
            ANNULET STATUS       -> !NOAUTH Authentication required.
            ANNULET ACCEPT-LOSS ALL -> !NOAUTH Authentication required.
            HELLO                -> !NOAUTH HELLO must be called with the client already authenticated...
            HELLO 3              -> !NOAUTH HELLO must be called with the client already authenticated...
            AUTH wrong           -> !WRONGPASS invalid username-password pair or user is disabled.
            AUTH default wrong   -> !WRONGPASS invalid username-password pair or user is disabled.
            HELLO 3 AUTH default wrong -> !WRONGPASS invalid username-password pair or user is disabled.
            PING                 -> !NOAUTH Authentication required.
        ";
        let mut connection = stranger(port);
        play(&mut connection, script, &format!("port {port}"));
        let right = redis::cmd("AUTH").arg(PASSWORD).query::<String>(&mut connection);
        assert_eq!(right.unwrap(), "OK");
        assert_eq!(shown(&say(&mut connection, "PING")), "PONG");
        // A wrong one later takes nothing away, as in Redis.
        let later = shown(&say(&mut connection, "AUTH wrong"));
        assert_eq!(later, "!WRONGPASS invalid username-password pair or user is disabled.");
        assert_eq!(shown(&say(&mut connection, "PING")), "PONG");
        assert_eq!(shown(&say(&mut connection, "CONFIG GET requirepass")), "[\"requirepass\" \"(hidden)\"]");
        // Strangers may send little.
        let (answer, hung_up) = exchange(port, &[b"*2\r\n$4\r\nECHO\r\n$100000\r\n"]);
        let told = "-ERR Protocol error: unauthenticated bulk length\r\n";
        assert!(hung_up && answer == told, "{answer}");
        let (answer, hung_up) = exchange(port, &[b"*11\r\n"]);
        let told = "-ERR Protocol error: unauthenticated multibulk length\r\n";
        assert!(hung_up && answer == told, "{answer}");
    }

    // Clients that say it: the `redis` crate, plain and cluster-aware, in both protocols.
    let escaped = PASSWORD.replace(' ', "%20");
    for protocol in [2, 3] {
        let url = format!("redis://:{escaped}@127.0.0.1:{}/?protocol=resp{protocol}", cluster.port);
        let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
        assert_eq!(shown(&say(&mut connection, "SET a 1")), "OK");
    }
    let url = format!("redis://127.0.0.1:{}/", cluster.cluster_ports()[2]);
    for (protocol, password, enters) in [
        (ProtocolVersion::RESP2, PASSWORD, true),
        (ProtocolVersion::RESP3, PASSWORD, true),
        (ProtocolVersion::RESP3, "wrong", false),
    ] {
        let builder = ClusterClient::builder([url.clone()]).use_protocol(protocol).password(password);
        let connection = builder.build().unwrap().get_connection();
        assert_eq!(connection.is_ok(), enters);
        if let Ok(mut connection) = connection {
            assert_eq!(redis::cmd("GET").arg("a").query::<u8>(&mut connection).unwrap(), 1);
        }
    }

    // HTTP: figures ask for it, probes do not.
    for port in cluster.http_ports() {
        let (status, told) = http_get(port, "/metrics", "");
        assert!(status == 401 && !told.contains("annulet_"), "{status} {told}");
        assert_eq!(http_get(port, "/metrics", "Authorization: Bearer wrong\r\n").0, 401);
        let (status, told) = http_get(port, "/metrics", &format!("Authorization: Bearer {PASSWORD}\r\n"));
        assert!(status == 200 && told.contains("annulet_keys "), "{status} {told}");
        assert_eq!(http_get(port, "/healthz", "").0, 200);
    }

    // redis-cli, and the binary's own shell and status.
    let said =
        printed(redis_cli(cluster.port).args(["-a", PASSWORD, "--no-auth-warning", "get", "a"]), TOOLS);
    assert_eq!(said, "1\n");
    let aware = redis_cli(cluster.cluster_ports()[1]);
    let said = printed({ aware }.args(["-c", "-a", PASSWORD, "--no-auth-warning", "get", "a"]), TOOLS);
    assert_eq!(said, "1\n");
    let said = printed(cluster.annulet(1, "cli").args(["--password", PASSWORD, "get", "a"]), "");
    assert_eq!(said, "\"1\"\n");
    let said = printed(cluster.annulet(1, "status").env("ANNULET_PASSWORD", PASSWORD), "");
    assert!(said.contains(": ok\n"), "{said}");
    for (subcommand, password) in [("status", ""), ("status", "wrong"), ("cli", "wrong")] {
        let mut command = annulet();
        command.args([subcommand, "--port", &cluster.port.to_string(), "--password", password]);
        if subcommand == "cli" {
            command.args(["get", "a"]);
        }
        let failed = output(&mut command, "");
        assert_eq!(failed.status.code(), Some(2), "{subcommand} with {password:?}");
        assert!(!failed.stderr.is_empty());
    }
}

#[test]
fn administration_has_a_password_of_its_own() {
    let cluster = LocalCluster::start(&["--requirepass", "user", "--adminpass", "master"]);
    let with = |password: &str| {
        let url = format!("redis://:{password}@127.0.0.1:{}/", cluster.port);
        redis::Client::open(url).unwrap().get_connection().unwrap()
    };
    let script = "
        SET a 1                  -> OK
        CONFIG GET maxclients    -> [\"maxclients\" \"10000\"]
        CONFIG GET adminpass     -> [\"adminpass\" \"(hidden)\"]
        CONFIG SET timeout 0     -> !NOPERM this user has no permissions to run the 'config|set' command
        ANNULET DRAIN 3          -> !NOPERM this user has no permissions to run the 'annulet|drain' command
        CLIENT PAUSE 1           -> !NOPERM this user has no permissions to run the 'client|pause' command
        FLUSHALL                 -> !NOPERM this user has no permissions to run the 'flushall' command
        AUTH admin user          -> !WRONGPASS invalid username-password pair or user is disabled.
        AUTH admin master        -> OK
        CONFIG SET timeout 0     -> OK
        FLUSHALL                 -> OK
    ";
    play(&mut with("user"), script, "the first password");
    play(&mut with("master"), "CONFIG SET timeout 0 -> OK", "the second in place of the first");
    let [port, _, there] = cluster.line_ports();
    let order = format!("UNREGISTER_NODE 127.0.0.1 {there}");
    let mut line = crate::lines::Line::to(port);
    assert_eq!(line.ask("AUTH user"), "OK");
    assert_eq!(line.ask("PUT a 1"), "OK");
    assert!(line.ask(&order).starts_with("ERROR NOPERM"));
    assert_eq!(line.ask("AUTH master"), "OK");
    assert!(line.ask(&order).ends_with("unregistered"));
    for password in ["user", "master"] {
        let shown = format!("Authorization: Bearer {password}\r\n");
        assert_eq!(http_get(cluster.http_ports()[0], "/v1/kv/a", &shown), (200, "1".into()));
    }
    // The shell's orders need no other flag.
    let order = |password: &str| {
        let mut command = cluster.annulet(0, "set");
        output(command.args(["copies", "2", "--password", password]), "").status.code()
    };
    assert_ne!(order("user"), Some(0));
    assert_eq!(order("master"), Some(0));
}
