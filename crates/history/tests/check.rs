//! The program `check` judges files: what it says, and what it ends with.

use std::path::PathBuf;
use std::process::Command;

const RIGHT: &str = "\
# of a run that failed
annulet-history 1
1 10 20 answered 0 set 5 -> done, 1 set 6 -> done
2 15 30 answered 0 get -> value 5, 1 get -> value 6
3 31 - unknown 0 compare-and-set 5 7
";

/// Writes a file of this test, and lets the program judge it.
fn judged(name: &str, text: &str) -> (Option<i32>, String) {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_check")).arg(&path).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn a_history_is_judged_again() {
    let (code, said) = judged("right.txt", RIGHT);
    assert!(code == Some(0) && said.contains("3 operations are linearizable"), "{code:?}: {said}");
    let torn = RIGHT.replace("1 get -> value 6", "1 get -> none");
    let (code, said) = judged("torn.txt", &torn);
    assert_eq!(code, Some(1));
    assert!(said.contains("the history of key 0, key 1 is not linearizable"), "{said}");
    assert!(said.contains("nothing explains 0.000000 s to 0.000000 s: client 2 key 0 Get"), "{said}");
    let (code, said) = judged("cut.txt", RIGHT.trim_end_matches(" 7\n"));
    assert!(code == Some(2) && said.contains("line 5: a number is missing"), "{code:?}: {said}");
    let (code, said) = judged("other.txt", "{}\n");
    assert!(code == Some(2) && said.contains("line 1: a history begins with"), "{code:?}: {said}");
}
