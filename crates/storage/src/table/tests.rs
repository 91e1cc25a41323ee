//! Tests of the whole table: against an ordered map, and of how its indexes grow, split and shrink.

use super::piece::size_class;
use super::segment::WORDS_MAX;
use super::word::{ADDRESS, FAR, displacement};
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

impl Table {
    /// What has to hold between any two operations.
    fn check(&self) {
        self.check_all(false);
    }

    fn check_all(&self, reserved: bool) {
        let (mut len, mut volatile_len, mut piece_bytes, mut words) = (0, 0, 0, 0);
        for segment in self.segments() {
            let sums = segment.check(reserved);
            (len, volatile_len, piece_bytes) = (len + sums.0, volatile_len + sums.1, piece_bytes + sums.2);
            words += segment.capacity();
        }
        let sums = (self.len, self.volatile_len, self.piece_bytes, self.words);
        assert_eq!((len, volatile_len, piece_bytes, words), sums);
        if let Some(directory) = &self.split {
            directory.check();
            assert_eq!(self.root.len(), 0);
        }
    }

    fn segments(&self) -> Vec<&Segment> {
        let mut segments = vec![self.segment(self.segment_of(0))];
        while let Some(next) = segments[segments.len() - 1].next_start() {
            segments.push(self.segment(self.segment_of(next)));
        }
        segments
    }

    fn words(&self) -> impl Iterator<Item = u64> {
        self.segments().into_iter().flat_map(|segment| segment.words().iter().copied())
    }

    fn entries(&self) -> BTreeMap<Vec<u8>, OwnedEntry> {
        let mut entries = BTreeMap::new();
        let end = self.scan(0, usize::MAX, &mut |entry| {
            assert!(entries.insert(entry.key.to_vec(), entry.to_owned()).is_none());
        });
        assert_eq!(end, None);
        entries
    }
}

const MASKS: [u64; 5] = [u64::MAX, 0, 0xff << 56, 0xffff_0000_0000_00ff, 0x3f << 50];

fn masked(mask: u64) -> Hasher {
    Hasher::new(7).masked(mask)
}

#[derive(Clone, Debug)]
enum Step {
    Put { key: u16, keys: u16, value_len: usize, expire_at_ms: Option<u64> },
    Remove { key: u16, keys: u16 },
    Expire { key: u16, keys: u16, expire_at_ms: Option<u64> },
    Scan { budget: usize },
    Random { random: u64 },
    Reserve { entries: usize },
    Fill,
    EndFill,
    Clear,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let keys = || (0u16..700, prop_oneof![8 => 1u16..4, 1 => 1u16..400]);
    let value_len = prop_oneof![6 => 0usize..100, 2 => 100usize..400, 1 => Just(70_000)];
    let expire = || any::<Option<u64>>();
    let put = (keys(), value_len, expire()).prop_map(|((key, keys), value_len, expire_at_ms)| {
        let keys = if value_len > 1000 { keys.min(3) } else { keys };
        Step::Put { key, keys, value_len, expire_at_ms }
    });
    let remove = keys().prop_map(|(key, keys)| Step::Remove { key, keys });
    let set =
        (keys(), expire()).prop_map(|((key, keys), expire_at_ms)| Step::Expire { key, keys, expire_at_ms });
    let scan = prop_oneof![0usize..4, 0usize..100].prop_map(|budget| Step::Scan { budget });
    let random = any::<u64>().prop_map(|random| Step::Random { random });
    let reserve = (0usize..2000).prop_map(|entries| Step::Reserve { entries });
    let step = prop_oneof![
        8 => put, 6 => remove, 3 => set, 8 => scan, 1 => random, 1 => reserve, 1 => Just(Step::Clear),
        1 => Just(Step::Fill), 1 => Just(Step::EndFill)
    ];
    proptest::collection::vec(step, 0..60)
}

/// Keys of 0 to 300 bytes, so that their lengths take one byte and two.
fn key_of(number: u16) -> Vec<u8> {
    let mut key = number.to_le_bytes().to_vec();
    key.resize(2 + if number.is_multiple_of(50) { 298 } else { number as usize % 20 }, number as u8);
    key
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// The table does what an ordered map does, at every moment of a scan too: each step visits exactly the
    /// entries in its stretch of hash space.
    #[test]
    fn a_table_is_a_map(steps in steps(), mask in proptest::sample::select(&MASKS[..])) {
        let mut table = Table::new(masked(mask));
        let mut model: BTreeMap<Vec<u8>, OwnedEntry> = BTreeMap::new();
        let mut version = Version(0);
        let mut cursor = 0;
        let mut seen: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        let mut throughout: Vec<Vec<u8>> = Vec::new();
        let mut reserved = false;
        for step in steps {
            version = Version(version.0 + 1);
            match step {
                Step::Put { key, keys, value_len, expire_at_ms } => {
                    for key in (key..key + keys).map(key_of) {
                        let value = vec![version.0 as u8; value_len];
                        let hash = table.hasher().hash(&key);
                        if value_len % 4 == 1 {
                            table.share(hash, &key, value.clone().into(), expire_at_ms, version);
                        } else {
                            table.put(hash, &key, Value::String(&value), expire_at_ms, version);
                        }
                        let value = OwnedValue::String(value.into());
                        model.insert(key, OwnedEntry { value, expire_at_ms, version });
                    }
                }
                Step::Remove { key, keys } => {
                    for key in (key..key + keys).map(key_of) {
                        let removed = table.remove(table.hasher().hash(&key), &key);
                        prop_assert_eq!(removed, model.remove(&key).is_some());
                        throughout.retain(|other| *other != key);
                    }
                }
                Step::Expire { key, keys, expire_at_ms } => {
                    for key in (key..key + keys).map(key_of) {
                        let set = table.set_expiry(table.hasher().hash(&key), &key, expire_at_ms, version);
                        prop_assert_eq!(set, model.contains_key(&key));
                        if let Some(entry) = model.get_mut(&key) {
                            (entry.expire_at_ms, entry.version) = (expire_at_ms, version);
                        }
                    }
                }
                Step::Scan { budget } => {
                    if cursor == 0 {
                        seen.clear();
                        throughout = model.keys().cloned().collect();
                    }
                    let mut visited = BTreeMap::new();
                    let next = table.scan(cursor, budget, &mut |entry| {
                        *seen.entry(entry.key.to_vec()).or_default() += 1;
                        visited.insert(entry.key.to_vec(), entry.to_owned());
                    });
                    prop_assert!(next.is_none_or(|next| next > cursor));
                    if mask == u64::MAX {
                        // Two of 700 keys stand under one order now and then.
                        prop_assert!(visited.len() <= budget.max(1) + 2);
                    }
                    let mut expected = model.clone();
                    expected.retain(|key, _| {
                        let hash = table.hasher().hash(key);
                        hash >= cursor && next.is_none_or(|next| hash < next)
                    });
                    prop_assert_eq!(visited, expected);
                    if next.is_none() {
                        for key in &throughout {
                            prop_assert_eq!(seen.get(key), Some(&1));
                        }
                    }
                    cursor = next.unwrap_or(0);
                }
                Step::Random { random } => {
                    let entry = table.random(random);
                    prop_assert_eq!(entry.is_some(), !model.is_empty());
                    if let Some(entry) = entry {
                        prop_assert_eq!(model.get(entry.key), Some(&entry.to_owned()));
                    }
                }
                Step::Reserve { entries } => {
                    table.reserve(entries);
                    reserved = true;
                }
                Step::Fill => {
                    table.begin_filling();
                    reserved = true;
                }
                Step::EndFill => {
                    let filling = table.filling;
                    table.end_filling();
                    if filling {
                        // Room that was asked for goes with what filling has left over.
                        reserved = false;
                    }
                }
                Step::Clear => {
                    reserved = table.filling;
                    table.clear();
                    model.clear();
                    throughout.clear();
                    prop_assert_eq!(table.bytes(), 0);
                }
            }
            table.check_all(reserved);
        }
        for (key, entry) in &model {
            let hash = table.hasher().hash(key);
            table.prefetch_index(hash);
            table.prefetch(hash);
            let found = table.get(hash, key).map(Entry::to_owned);
            prop_assert_eq!(found.as_ref(), Some(entry));
        }
        prop_assert_eq!(table.entries(), model);
    }
}

#[test]
fn a_step_over_emptiness_is_short() {
    let hasher = Hasher::new(1);
    let mut table = Table::new(hasher);
    for key in 0..100_000u32 {
        let key = key.to_le_bytes();
        table.put(hasher.hash(&key), &key, Value::String(b""), None, Version(1));
    }
    // Empty all but a quarter of hash space, which is not empty enough to shrink.
    for key in 0..100_000u32 {
        let key = key.to_le_bytes();
        let hash = hasher.hash(&key);
        if hash >> 62 != 3 || hash >> 54 == 0x3ff {
            table.remove(hash, &key);
        }
    }
    table.check();
    let (mut cursor, mut steps, mut seen) = (0, 0, 0);
    while let Some(next) = table.scan(cursor, 10, &mut |_| seen += 1) {
        (cursor, steps) = (next, steps + 1);
    }
    assert_eq!(seen, table.len());
    let words = table.words;
    assert!(
        steps >= words / 90 && steps <= words / 80 + table.len() / 10 + 1,
        "{steps} steps, {words} words"
    );
}

#[test]
fn an_index_follows_the_number_of_keys() {
    let hasher = Hasher::new(3);
    let mut table = Table::new(hasher);
    let mut load_least = 1.0f64;
    for key in 0..50_000u32 {
        let key = key.to_le_bytes();
        table.put(hasher.hash(&key), &key, Value::String(b"x"), None, Version(1));
        if key[1] > 1 {
            load_least = load_least.min(table.len() as f64 / table.words as f64);
        }
    }
    assert!(load_least > 0.7, "{load_least}");
    let most = table.words().map(displacement).max();
    assert!(most < Some(FAR), "{most:?}");
    for key in 0..50_000u32 {
        let key = key.to_le_bytes();
        assert!(table.remove(hasher.hash(&key), &key));
    }
    assert_eq!(table.bytes(), 0);
}

/// With room made, keys that come in the order of their hashes stand near their homes, and no index grows.
#[test]
fn room_is_made_in_one_step() {
    for keys in [1, 50, 96, 97, 3000, 20_000u32] {
        let hasher = Hasher::new(4);
        let mut table = Table::new(hasher);
        table.reserve(keys as usize);
        table.check_all(true);
        let (words, segments) = (table.words, table.segments().len());
        assert!(words >= keys as usize && words <= keys as usize * 3 + 64, "{words} for {keys}");
        let mut names: Vec<[u8; 4]> = (0..keys).map(u32::to_le_bytes).collect();
        names.sort_by_key(|name| hasher.hash(name));
        for name in &names {
            table.put(hasher.hash(name), name, Value::String(b"x"), None, Version(1));
        }
        table.check_all(true);
        // The last homes of one of hundreds overflow.
        assert!(table.words - words <= words / 100, "{} of {words} for {keys}", table.words);
        assert_eq!(table.segments().len(), segments, "{keys}");
        let most = table.words().map(displacement).max();
        assert!(most < Some(60), "{most:?} of {keys}");
        for name in &names {
            assert!(table.remove(hasher.hash(name), name));
        }
        assert_eq!(table.bytes(), 0, "what is not used is given back in the end");
    }
}

/// Segments come and go with the keys, none is longer than it may be, and keys that one hash ties together do not
/// make the directory grow without end.
#[test]
fn a_large_table_has_many_small_indexes() {
    for (mask, longest) in [(u64::MAX, WORDS_MAX), (0, usize::MAX), (0x3f << 50, usize::MAX)] {
        let hasher = Hasher::new(5).masked(mask);
        let mut table = Table::new(hasher);
        let mut most = 0;
        // One hash makes each find a walk over all.
        let keys = if mask == u64::MAX { 20_000u32 } else { 1500 };
        for key in 0..keys {
            let key = key.to_le_bytes();
            table.put(hasher.hash(&key), &key, Value::String(b"x"), None, Version(1));
            most = most.max(table.segments().len());
        }
        table.check();
        let lengths: Vec<usize> = table.segments().iter().map(|segment| segment.words().len()).collect();
        assert!(lengths.iter().all(|&words| words <= longest), "{lengths:?}");
        if mask == u64::MAX {
            assert!(most > 150, "{most} segments");
        } else {
            assert!((2..60).contains(&most), "{most} segments");
        }
        for key in 0..keys {
            let key = key.to_le_bytes();
            assert!(table.get(hasher.hash(&key), &key).is_some());
        }
        for key in 0..keys - 10 {
            let key = key.to_le_bytes();
            assert!(table.remove(hasher.hash(&key), &key));
            if key[0] == 0 {
                table.check();
            }
        }
        assert!(table.split.is_none(), "ten keys need one index");
    }
}

#[test]
fn a_new_value_takes_the_old_ones_place() {
    let hasher = Hasher::new(3);
    let mut table = Table::new(hasher);
    let hash = hasher.hash(b"counter");
    let address = |table: &Table| table.root.words()[table.find(hash, b"counter").unwrap()] & ADDRESS;
    table.put(hash, b"counter", Value::String(b"9"), None, Version(1));
    let first = address(&table);
    table.put(hash, b"counter", Value::String(b"10"), None, Version(2));
    assert!(table.set_expiry(hash, b"counter", Some(5), Version(3)));
    assert_eq!((address(&table), table.volatile_len()), (first, 1));
    let entry = table.get(hash, b"counter").unwrap();
    assert_eq!((entry.value, entry.expire_at_ms, entry.version), (Value::String(b"10"), Some(5), Version(3)));
}

#[test]
fn tables_change_threads() {
    fn sent<T: Send>(_: &T) {}
    sent(&Table::new(Hasher::new(1)));
}

#[test]
fn seeds_make_different_hashes() {
    let hashes = |seed| [b"a".as_slice(), b"", b"aa"].map(|key| Hasher::new(seed).hash(key));
    assert_eq!(hashes(1), hashes(1));
    assert_ne!(hashes(1), hashes(2));
    assert_ne!(Hasher::new(1).hash(b"a\0"), Hasher::new(1).hash(b"a"));
}

#[test]
fn classes_are_those_of_jemalloc() {
    let classes = [(1, 16), (17, 32), (91, 96), (97, 112), (128, 128), (129, 160), (257, 320), (1025, 1280)];
    for (bytes, class) in classes {
        assert_eq!(size_class(bytes), class);
        assert_eq!(size_class(class), class);
    }
    assert_eq!(Piece::new(&[0; 16], Value::String(&[0; 64]), None, Version(1)).view().bytes(), 96);
}
