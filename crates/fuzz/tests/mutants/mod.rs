//! Inputs for a target: its corpus, and mutations of it that are drawn from a fixed seed, so that they are the same everywhere.

use fuzz::Target;
use std::path::{Path, PathBuf};

/// The longest input.
const BYTES_MAX: usize = 4096;

pub struct Mutants {
    /// What is committed for the target, by the names of the files.
    pub corpus: Vec<(PathBuf, Vec<u8>)>,
    words: Vec<Vec<u8>>,
    random: Random,
}

impl Mutants {
    pub fn of(target: &Target) -> Mutants {
        Mutants::new(corpus(target), (target.words)())
    }

    pub fn new(corpus: Vec<(PathBuf, Vec<u8>)>, words: Vec<Vec<u8>>) -> Mutants {
        Mutants { corpus, words, random: Random(1) }
    }

    /// The next mutation.
    pub fn draw(&mut self) -> Vec<u8> {
        let mut input = self.corpus[self.random.below(self.corpus.len())].1.clone();
        mutate(&mut input, &self.corpus, &self.words, &mut self.random);
        input
    }
}

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
