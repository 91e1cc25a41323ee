//! Inputs drawn from a seed.

use history::random::Random;

/// The longest input: some fifty requests.
const BYTES_MAX: u64 = 300;

/// The input of a seed.
pub fn input(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..random.between(1, BYTES_MAX)).map(|_| random.draw() as u8).collect()
}
