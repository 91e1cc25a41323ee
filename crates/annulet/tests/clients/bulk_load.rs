//! `annulet cli --pipe`: files of commands, as lines and as RESP, good and with mistakes.

use crate::local_cluster::{Shared, annulet, output, printed};
use crate::redis_tools::write_to;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A file that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(bytes: &[u8]) -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("annulet-clients-{}-pipe-{count}", std::process::id()));
        std::fs::write(&path, bytes).expect("a file of this test's own");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn load(cluster: &Shared, file: &Scratch, flags: &[&str]) -> Output {
    output(cluster.annulet(1, "cli").args(flags).arg("--pipe").arg(&file.0).stdin(Stdio::null()), "")
}

fn resp(words: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend(format!("${}\r\n", word.len()).bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn count(cluster: &Shared) -> String {
    printed(cluster.annulet(0, "cli").arg("dbsize").stdin(Stdio::null()), "")
}

#[test]
fn lines_are_loaded_from_a_file_and_from_standard_input() {
    let cluster = Shared::turn();
    let lines: String = (0..5000).map(|n| format!("SET line:{n} \"value {n}\"\n")).collect();
    let said = load(&cluster, &Scratch::new(lines.as_bytes()), &[]);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(text.starts_with("5000 commands sent, 5000 replies, 0 errors"), "{text}");
    assert_eq!(count(&cluster), "(integer) 5000\n");
    assert_eq!(printed(cluster.annulet(2, "cli").args(["get", "line:4999"]), ""), "\"value 4999\"\n");

    let text = write_to(cluster.annulet(0, "cli").args(["--pipe", "-"]), b"set x 1\nincr x\nincr x");
    assert!(text.starts_with("3 commands sent, 3 replies, 0 errors"), "{text}");
    assert_eq!(printed(cluster.annulet(2, "cli").args(["get", "x"]), ""), "\"3\"\n");
}

/// More bytes than may be under way at once, with values that hold line ends, zeros and what is no UTF-8.
#[test]
fn resp_is_loaded_whatever_its_bytes() {
    let cluster = Shared::turn();
    let value = |n: u32| [&[0, 255, b'\r', b'\n', b'*'][..], &vec![b'x'; 4096], &n.to_be_bytes()].concat();
    let mut file = Vec::new();
    for n in 0..2500u32 {
        file.extend(resp(&[b"SET", format!("resp:{n}").as_bytes(), &value(n)]));
    }
    let said = load(&cluster, &Scratch::new(&file), &["--json"]);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    let report: serde_json::Value = serde_json::from_slice(&said.stdout).expect("JSON");
    assert_eq!(
        (&report["replies"], &report["errors"], &report["unknown"]),
        (&2500.into(), &0.into(), &0.into())
    );
    for n in [0, 1249, 2499] {
        let got = output(cluster.annulet(0, "cli").args(["--raw", "get", &format!("resp:{n}")]), "");
        assert_eq!(got.stdout[..got.stdout.len() - 1], value(n), "resp:{n}");
    }
}

#[test]
fn what_fails_is_counted_and_shown_with_its_line() {
    let cluster = Shared::turn();
    let lines = "set a text\n\nincr a\nset b \"open\nnope\nclient reply off\nset c 1\n";
    let said = load(&cluster, &Scratch::new(lines.as_bytes()), &[]);
    assert_eq!(said.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&said.stderr);
    for expected in [
        "annulet: line 3: ERR value is not an integer or out of range",
        "annulet: line 4: Invalid argument(s): quotes do not match",
        "annulet: line 5: ERR unknown command 'nope'",
        "annulet: line 6: CLIENT REPLY has no place here",
    ] {
        assert!(errors.contains(expected), "{expected} in\n{errors}");
    }
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(text.starts_with("4 commands sent, 4 replies, 4 errors"), "{text}");
    assert_eq!(count(&cluster), "(integer) 2\n", "what was right is done");

    // A file of many mistakes shows the first of them, and counts all.
    let said = load(&cluster, &Scratch::new("incr a\n".repeat(500).as_bytes()), &["--json"]);
    let report: serde_json::Value = serde_json::from_slice(&said.stdout).expect("JSON");
    assert_eq!((said.status.code(), &report["errors"]), (Some(2), &500.into()));
    assert_eq!(report["first_errors"].as_array().unwrap().len(), 10);
    assert_eq!(report["first_errors"][9]["line"], 10);
}

#[test]
fn resp_that_breaks_off_fails_and_says_where() {
    let cluster = Shared::turn();
    let mut file = resp(&[b"SET", b"a", b"1"]);
    file.extend(resp(&[b"SET", b"b", b"2"]));
    file.extend_from_slice(b"*2\r\n$3\r\nGET\r\n$5\r\nab");
    let said = load(&cluster, &Scratch::new(&file), &[]);
    assert_eq!(said.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&said.stderr);
    assert!(errors.contains("command 3: the file ends in the middle of it"), "{errors}");
    assert_eq!(count(&cluster), "(integer) 2\n");
    let said = output(
        annulet().args(["cli", "--pipe", "/nowhere/file"]).arg("--port").arg(cluster.port.to_string()),
        "",
    );
    assert_eq!(said.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&said.stderr).contains("cannot read /nowhere/file"));
}

/// A server that takes requests, answers some, and goes away.
#[test]
fn a_connection_that_breaks_says_from_where_on_nobody_knows() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the shell connects");
        let mut read = vec![0; 64 * 1024];
        let count = stream.read(&mut read).expect("a greeting");
        assert!(count > 0);
        stream.write_all(b"%0\r\n").expect("it is heard");
        let count = stream.read(&mut read).expect("requests");
        assert!(count > 0);
        stream.write_all(b"+OK\r\n+OK\r\n").expect("it is heard");
    });
    let file = Scratch::new(b"set a 1\nset b 1\n\nset c 1\nset d 1\n");
    let mut command = annulet();
    command.args(["cli", "--port", &port.to_string(), "--pipe"]).arg(&file.0).stdin(Stdio::null());
    let said = output(&mut command, "");
    server.join().expect("the server's side went as it should");
    assert_eq!(said.status.code(), Some(2), "{said:?}");
    assert!(
        String::from_utf8_lossy(&said.stdout).starts_with("4 commands sent, 2 replies, 0 errors"),
        "{said:?}"
    );
    let errors = String::from_utf8_lossy(&said.stderr);
    assert!(errors.contains("of 2 commands nobody knows whether they were done, from line 4 on"), "{errors}");
}
