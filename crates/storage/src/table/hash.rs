//! The seeded hash that a node's tables share.

use foldhash::SharedSeed;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hasher as _;
use std::sync::{Mutex, PoisonError};

/// The seeded hash of a node's tables. Equal seeds give equal hashes, on every machine of a kind.
///
/// The seed should be drawn for each cluster or node and never be shown: keys come from strangers.
#[derive(Clone, Copy)]
pub struct Hasher {
    seed: u64,
    shared: &'static SharedSeed,
    /// Tests make keys collide by it.
    #[cfg(test)]
    mask: u64,
}

impl Hasher {
    /// The hash with this seed.
    pub fn new(seed: u64) -> Hasher {
        // Foldhash wants its wide seed to live for ever, and its fixed one is known to everybody. So one is made
        // for each distinct seed of the process, of which there are few.
        static WIDE_SEEDS: Mutex<BTreeMap<u64, &'static SharedSeed>> = Mutex::new(BTreeMap::new());
        let mut seeds = WIDE_SEEDS.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = *seeds.entry(seed).or_insert_with(|| Box::leak(Box::new(SharedSeed::from_u64(seed))));
        Hasher {
            seed: seed.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15,
            shared,
            #[cfg(test)]
            mask: u64::MAX,
        }
    }

    /// The same, but of each hash only these bits.
    #[cfg(test)]
    pub(super) fn masked(self, mask: u64) -> Hasher {
        Hasher { mask, ..self }
    }

    /// A key's hash. All 64 bits are good.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = foldhash::quality::FoldHasher::with_seed(self.seed, self.shared);
        hasher.write(key);
        #[cfg(test)]
        return hasher.finish() & self.mask;
        #[cfg(not(test))]
        hasher.finish()
    }
}

impl fmt::Debug for Hasher {
    /// Without the seed, which is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}
