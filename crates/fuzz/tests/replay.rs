//! Every target over its corpus, and over mutations of it: what each `cargo test` tries without libFuzzer.
//!
//! Mutations are drawn from a fixed seed, so a run is the same everywhere. A failure names its input, which is left in the
//! test's directory for `fuzz/corpus`.

mod mutants;

use fuzz::{TARGETS, Target};
use mutants::Mutants;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

#[global_allocator]
static ALLOCATOR: fuzz::meter::Metered = fuzz::meter::Metered;

/// How many mutations of the corpus a target gets.
const MUTATIONS: u64 = 20_000;

fn try_input(target: &Target, input: &[u8], whence: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-failure", target.name));
        std::fs::write(&path, input).expect("the input is kept");
        panic!("target {} breaks a promise at {whence}; the input is in {}", target.name, path.display());
    }
}

fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    let mut mutants = Mutants::of(target);
    for (path, input) in &mutants.corpus {
        try_input(target, input, &path.display().to_string());
    }
    for number in 0..MUTATIONS {
        let input = mutants.draw();
        try_input(target, &input, &format!("mutation {number}"));
    }
}

#[test]
fn commands() {
    replay("commands");
}

#[test]
fn config() {
    replay("config");
}

#[test]
fn connection() {
    replay("connection");
}

#[test]
fn frames() {
    replay("frames");
}

#[test]
fn journal() {
    replay("journal");
}

#[test]
fn lines() {
    replay("lines");
}

#[test]
fn log() {
    replay("log");
}

#[test]
fn records() {
    replay("records");
}

#[test]
fn replies() {
    replay("replies");
}

#[test]
fn requests() {
    replay("requests");
}

#[test]
fn snapshots() {
    replay("snapshots");
}

/// Every target has its program, its corpus and its test here.
#[test]
fn nothing_is_forgotten() {
    let list = |path: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz").join(path);
        let names = std::fs::read_dir(path).expect("a directory").map(|entry| {
            let name = entry.expect("an entry").file_name();
            name.to_str().expect("a plain name").trim_end_matches(".rs").to_owned()
        });
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    };
    let targets: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(list("fuzz_targets"), targets);
    assert_eq!(list("corpus"), targets);
    for target in targets {
        assert!(include_str!("replay.rs").contains(&format!("fn {target}() {{\n    replay(")), "{target}");
    }
}

/// The drivers see what they are for: a panic, and memory that nobody sent.
#[test]
fn a_broken_promise_is_noticed() {
    let greedy = |input: &[u8]| {
        let declared = input.iter().map(|&byte| usize::from(byte)).sum::<usize>() << 10;
        fuzz::meter::within(1024 + 16 * input.len(), || drop(Vec::<u8>::with_capacity(declared)));
    };
    assert!(catch_unwind(|| greedy(&[0, 0])).is_ok());
    assert!(catch_unwind(|| greedy(&[255, 255])).is_err());
    let mut mutants = Mutants::new(vec![(PathBuf::new(), b"an input".to_vec())], vec![b"word".to_vec()]);
    let mutations: Vec<Vec<u8>> = (0..100).map(|_| mutants.draw()).collect();
    assert!(mutations.iter().any(|mutation| mutation.windows(4).any(|four| four == b"word")));
    assert!(mutations.windows(2).filter(|two| two[0] != two[1]).count() > 50);
}
