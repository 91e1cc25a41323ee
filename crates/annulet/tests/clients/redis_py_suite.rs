//! redis-py's own tests, as its source package has them, at our clusters.
//!
//! `redis_py_suite.txt` beside this file names every test of the files that it is about, one a line: whether it is `run`, is to be
//! run `later` once a command is there, or is out of the question (`no`), and why. The package is unpacked where
//! ANNULET_TEST_REDIS_PY names it, and ANNULET_TEST_PYTHON has pytest.

use crate::local_cluster::{LocalCluster, Shared, output};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

const ADVICE: &str = "this test needs redis-py 5.2.1's source package, unpacked where ANNULET_TEST_REDIS_PY says, and an \
                      interpreter with it, pytest and pytest-timeout in ANNULET_TEST_PYTHON";
const SELECTION: &str = include_str!("redis_py_suite.txt");

/// A door's tests, by name, and what becomes of each.
type Selection = BTreeMap<&'static str, &'static str>;

/// The tests of a part of the selection.
fn selection(text: &'static str, door: &str) -> Selection {
    let mut tests = Selection::new();
    let mut part = "";
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            part = name;
            continue;
        }
        let (test, reason) = line.split_once(" # ").map_or((line, ""), |(test, reason)| (test, reason));
        let (what, test) = test.split_once(' ').expect("`what test # why`");
        assert!(["run", "later", "no"].contains(&what), "{line}");
        assert_eq!(what == "run", reason.is_empty(), "only what is not run has a reason: {line}");
        if part == door {
            assert!(tests.insert(test.trim(), what).is_none(), "twice: {line}");
        }
    }
    tests
}

fn pytest(url: &str) -> Command {
    let package = std::env::var_os("ANNULET_TEST_REDIS_PY").filter(|path| !path.is_empty()).expect(ADVICE);
    let package = PathBuf::from(package).canonicalize().expect(ADVICE);
    let interpreter = std::env::var_os("ANNULET_TEST_PYTHON").filter(|path| !path.is_empty());
    let mut command = Command::new(interpreter.unwrap_or_else(|| "python3".into()));
    // Nothing is written beside the sources, and no settings of whoever runs this are read.
    command.current_dir(package).args(["-B", "-m", "pytest", "-c", "/dev/null", "--rootdir", "."]);
    command.args(["-p", "no:cacheprovider", "-q", "--tb=short", "-W", "ignore", "--timeout", "120"]);
    command.args(["--redis-url", url, "--redis-cluster-nodes", "3"]);
    command
}

/// Every test of these files is in the selection, and nothing else.
fn check_whole(selection: &Selection, url: &str, files: &[&str], marks: &str) {
    let listed = output(
        pytest(url)
            .args(["--collect-only", "-m", marks])
            .args(files.iter().map(|file| format!("tests/{file}"))),
        ADVICE,
    );
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let found: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("tests/")).collect();
    assert!(found.len() > 100, "{text}{}", String::from_utf8_lossy(&listed.stderr));
    let known: BTreeSet<&str> = selection.keys().copied().collect();
    let missing: Vec<_> = found.difference(&known).chain(known.difference(&found)).collect();
    assert!(missing.is_empty(), "redis_py_suite.txt or the package lacks {missing:?}");
}

/// The selected tests pass: all of them, each by its name.
fn check_passes(selection: &Selection, url: &str) {
    let selected: BTreeSet<&str> =
        selection.iter().filter(|(_, what)| **what == "run").map(|(test, _)| *test).collect();
    assert!(selected.len() > 50);
    let ran =
        output(pytest(url).arg("-rA").args(selected.iter().map(|test| format!("tests/{test}"))), ADVICE);
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    let passed: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("PASSED tests/")).collect();
    let failed: Vec<_> = selected.difference(&passed).collect();
    assert!(failed.is_empty() && ran.status.success(), "{text}\nnot passed: {failed:?}");
}

const PLAIN: &[&str] = &[
    "test_commands.py",
    "test_pipeline.py",
    "test_encoding.py",
    "test_connection_pool.py",
    "test_connection.py",
    "test_retry.py",
];
const CLUSTER: &[&str] = &["test_cluster.py"];

fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}/0")
}

#[test]
fn plain_of_three() {
    let cluster = Shared::turn();
    let tests = selection(SELECTION, "plain");
    let url = url(cluster.ports()[1]);
    check_whole(&tests, &url, PLAIN, "not onlycluster and not redismod and not ssl");
    check_passes(&tests, &url);
}

#[test]
fn plain_of_one() {
    let cluster = LocalCluster::start_nodes(1, &[]);
    check_passes(&selection(SELECTION, "plain"), &url(cluster.ports()[0]));
}

#[test]
fn cluster_of_three() {
    let cluster = Shared::turn();
    let tests = selection(SELECTION, "cluster");
    let url = url(cluster.cluster_ports()[0]);
    check_whole(&tests, &url, CLUSTER, "not onlynoncluster and not redismod and not ssl");
    check_passes(&tests, &url);
}

/// The selection is read as it says.
#[test]
fn a_selection_is_read() {
    let text = "# about\n[plain]\nrun a.py::t\nno a.py::u # lists\n[cluster]\nlater b.py::v # TIME\n";
    assert_eq!(selection(text, "plain"), Selection::from([("a.py::t", "run"), ("a.py::u", "no")]));
    assert_eq!(selection(text, "cluster"), Selection::from([("b.py::v", "later")]));
    assert!(std::panic::catch_unwind(|| selection("[plain]\nno a.py::u\n", "plain")).is_err());
    assert!(std::panic::catch_unwind(|| selection("[plain]\nrun a\nrun a\n", "plain")).is_err());
}
