//! redis-py, run by scripts in tests/python: what most of the world's programs see.

use crate::local_cluster::{NODES, Shared, output, printed};
use std::path::PathBuf;
use std::process::Command;

const ADVICE: &str = "this test needs Python 3 with redis-py: pip install redis==5.2.1 (or name an interpreter that has \
                      it in ANNULET_TEST_PYTHON)";

/// An interpreter that has redis-py.
fn python() -> Command {
    let named = std::env::var_os("ANNULET_TEST_PYTHON").filter(|path| !path.is_empty());
    let interpreter = named.unwrap_or_else(|| "python3".into());
    let found = output(Command::new(&interpreter).args(["-c", "import redis, redis.cluster"]), ADVICE);
    assert!(found.status.success(), "{}\n{ADVICE}", String::from_utf8_lossy(&found.stderr));
    Command::new(interpreter)
}

fn run(script: &str, ports: [u16; NODES as usize]) {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "python", script].iter().collect();
    for protocol in ["2", "3"] {
        let mut command = python();
        // Without bytecode files among the sources.
        command.arg("-B").arg(&path).arg(protocol).args(ports.map(|port| port.to_string()));
        let said = printed(&mut command, ADVICE);
        assert!(said.ends_with("done\n"), "{said}");
    }
}

#[test]
fn redis_py_plain() {
    let cluster = Shared::turn();
    run("plain.py", cluster.ports());
}

#[test]
fn redis_py_asyncio() {
    let cluster = Shared::turn();
    run("asynchronous.py", cluster.ports());
}

#[test]
fn redis_py_cluster() {
    let cluster = Shared::turn();
    run("cluster.py", cluster.cluster_ports());
}
