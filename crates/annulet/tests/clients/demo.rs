//! `annulet demo`, as it runs where there is no terminal: to its end, by itself, and nothing of it is left.

use crate::local_cluster::{annulet, output};
use std::path::PathBuf;
use std::process::Stdio;

#[test]
fn the_demo_holds_every_check_and_leaves_nothing() {
    // A directory for temporary files of its own, so that what is left can be seen.
    let dir: PathBuf = std::env::temp_dir().join(format!("annulet-clients-{}-demo", std::process::id()));
    std::fs::create_dir(&dir).expect("a directory of this test's own");
    let said = output(annulet().arg("demo").env("TMPDIR", &dir).stdin(Stdio::null()), "");
    let left: Vec<_> =
        std::fs::read_dir(&dir).expect("it is still there").flatten().map(|entry| entry.path()).collect();
    std::fs::remove_dir_all(&dir).expect("it is this test's own");
    let (text, errors) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert_eq!(said.status.code(), Some(0), "{text}\n{errors}");
    for step in
        ["distribution", "replication", "forwarding", "a node dies", "reading and writing on", "recovery"]
    {
        assert!(text.contains(&format!("of 7: {step}\n")), "{step} in\n{text}");
    }
    let checks = text.lines().filter(|line| line.starts_with("  ok ")).count();
    assert!(text.contains(&format!("All {checks} checks held")) && checks >= 15, "{text}");
    assert_eq!(left, Vec::<PathBuf>::new());
}
