//! Every target over its corpus, and over mutations of it: what each `cargo test` tries without libFuzzer.
//!
//! Mutations are drawn from a fixed seed, so a run is the same everywhere. A failure names its input, which is left in the
//! test's directory for `fuzz/corpus`.

use fuzz::{TARGETS, Target};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

#[global_allocator]
static ALLOCATOR: fuzz::meter::Metered = fuzz::meter::Metered;

/// How many mutations of the corpus a target gets.
const MUTATIONS: u64 = 20_000;
/// The longest input.
const BYTES_MAX: usize = 4096;

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target.name);
    let mut inputs: Vec<(PathBuf, Vec<u8>)> = std::fs::read_dir(&path)
        .unwrap_or_else(|error| panic!("no corpus at {}: {error}", path.display()))
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.clone(), std::fs::read(&path).expect("a file")))
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} is empty", path.display());
    inputs
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % bound.max(1) as u64) as usize
    }
}

/// Changes an input in some of the ways that find bugs: bits, bytes, numbers, pieces of itself and of others, words.
fn mutate(input: &mut Vec<u8>, others: &[(PathBuf, Vec<u8>)], words: &[Vec<u8>], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        let piece = |random: &mut Random, from: &[u8]| {
            let start = random.below(from.len() + 1);
            from[start..start + random.below(from.len() - start + 1)].to_vec()
        };
        let put = match random.below(8) {
            0 | 1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
                continue;
            }
            2 => {
                input.drain(at..at + random.below((input.len() - at).min(64) + 1));
                continue;
            }
            3 => vec![random.below(256) as u8],
            4 => {
                let edges = [0, 1, 0x7f, 0x80, 0xff, 0x1_0000, u32::MAX.into(), i64::MAX as u64, u64::MAX];
                let edge = edges[random.below(edges.len())];
                if random.below(2) == 0 { edge.to_string().into_bytes() } else { edge.to_le_bytes().to_vec() }
            }
            5 => piece(random, &input.clone()),
            6 => {
                let other = random.below(others.len());
                piece(random, &others[other].1)
            }
            _ => words.get(random.below(words.len())).cloned().unwrap_or_default(),
        };
        input.splice(at..at, put);
        input.truncate(BYTES_MAX);
    }
}

fn try_input(target: &Target, input: &[u8], whence: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-failure", target.name));
        std::fs::write(&path, input).expect("the input is kept");
        panic!("target {} breaks a promise at {whence}; the input is in {}", target.name, path.display());
    }
}

fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    let (corpus, words) = (corpus(target), (target.words)());
    for (path, input) in &corpus {
        try_input(target, input, &path.display().to_string());
    }
    let mut random = Random(1);
    for number in 0..MUTATIONS {
        let mut input = corpus[random.below(corpus.len())].1.clone();
        mutate(&mut input, &corpus, &words, &mut random);
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
    let mut input = b"an input".to_vec();
    let others = [(PathBuf::new(), b"another".to_vec())];
    let mut random = Random(7);
    let mutations: Vec<Vec<u8>> = (0..100)
        .map(|_| {
            mutate(&mut input, &others, &[b"word".to_vec()], &mut random);
            input.clone()
        })
        .collect();
    assert!(mutations.iter().any(|mutation| mutation.windows(4).any(|four| four == b"word")));
    assert!(mutations.windows(2).filter(|two| two[0] != two[1]).count() > 50);
}
