//! What a keyspace shows, notes and leaves behind: uncommitted values, expiry, what is shared.

use super::*;
use crate::effect::effects;
use crate::lent::{self, HUGE_BYTES};
use crate::rope::Tailed;
use crate::table::{Hasher, OwnedEntry, OwnedValue};
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

type Model = BTreeMap<Vec<u8>, OwnedEntry>;

#[derive(Clone, Debug)]
enum Do {
    Put { key: u8, value: Vec<u8>, expire_in_ms: Option<u64> },
    Remove { key: u8 },
    Expire { key: u8, expire_in_ms: Option<u64> },
    Get { key: u8 },
    Clear,
}

#[derive(Clone, Debug)]
enum Step {
    Record(Vec<Do>),
    Commit(u64),
    RollBack(u64),
    Look { random: u64, budget: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || 0u8..24;
    let expire = || proptest::option::weighted(0.3, 0u64..30);
    let put = (key(), proptest::collection::vec(any::<u8>(), 0..20), expire());
    let one = prop_oneof![
        8 => put.prop_map(|(key, value, expire_in_ms)| Do::Put { key, value, expire_in_ms }),
        5 => key().prop_map(|key| Do::Remove { key }),
        3 => (key(), expire()).prop_map(|(key, expire_in_ms)| Do::Expire { key, expire_in_ms }),
        3 => key().prop_map(|key| Do::Get { key }),
        1 => Just(Do::Clear),
    ];
    let step = prop_oneof![
        8 => proptest::collection::vec(one, 0..6).prop_map(Step::Record),
        3 => any::<u64>().prop_map(Step::Commit),
        1 => any::<u64>().prop_map(Step::RollBack),
        6 => (any::<u64>(), 1usize..40).prop_map(|(random, budget)| Step::Look { random, budget }),
    ];
    proptest::collection::vec(step, 0..60)
}

/// What the keyspace should do, in the plainest way: the whole state after each record.
struct Reference {
    /// By lsn; the first is the committed one.
    states: VecDeque<(u64, Model)>,
    changed: Vec<(u64, Vec<u8>)>,
    removals: Vec<u64>,
}

impl Reference {
    fn wait(&self, key: &[u8], is_present: bool) -> Lsn {
        let committed = self.states[0].0;
        let lsns: Vec<u64> = if is_present {
            self.changed.iter().filter(|(_, other)| other == key).map(|(lsn, _)| *lsn).collect()
        } else {
            self.removals.clone()
        };
        Lsn(lsns.into_iter().filter(|&lsn| lsn > committed).max().unwrap_or(0))
    }
}

fn entry_of(entry: Entry<'_>) -> (Vec<u8>, OwnedEntry) {
    (entry.key.to_vec(), entry.to_owned())
}

fn key_of(number: u8) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// The fresh view is the newest state, the committed view the committed one, a roll-back takes back
    /// exactly what it says, a backup that applies the bodies agrees, and a look at a key waits for what
    /// changed it: whether values are copied or shared.
    #[test]
    fn both_views_agree_with_the_plain_model(steps in steps(), seed in 0u64..4, shares: bool) {
        lent::huge_above(if shares { 9 } else { HUGE_BYTES });
        let hasher = Hasher::new(seed);
        let mut table = Table::new(hasher);
        let mut backup = Table::new(hasher);
        let mut bodies: VecDeque<(u64, Tailed)> = VecDeque::new();
        let mut changes = Changes::new(true, true);
        let mut uncommitted = Uncommitted::default();
        let mut version = Version::default();
        let mut reference = Reference {
            states: VecDeque::from([(0, Model::new())]),
            changed: Vec::new(),
            removals: Vec::new(),
        };
        let mut now_ms = 1000;
        for step in steps {
            now_ms += 3;
            let newest = reference.states.back().unwrap().0;
            match step {
                Step::Record(dos) => {
                    let lsn = newest + 1;
                    let mut state = reference.states.back().unwrap().1.clone();
                    let mut touched = Vec::new();
                    let mut removed = false;
                    for one in dos {
                        let footprint = Footprint::default();
                        let mut keyspace =
                            Keyspace::fresh(&mut table, &mut changes, &uncommitted, &mut version, now_ms, &footprint);
                        // A key whose time has come goes at the first look, but for a put, which replaces it.
                        let mut live = |state: &mut Model, key: &Vec<u8>| {
                            let expire_at_ms = state.get(key).and_then(|entry| entry.expire_at_ms);
                            let expired = expire_at_ms.is_some_and(|at_ms| at_ms <= now_ms);
                            if expired {
                                state.remove(key);
                                touched.push(key.clone());
                                removed = true;
                            }
                            (state.contains_key(key), expired)
                        };
                        match one {
                            Do::Put { key, value, expire_in_ms } => {
                                let (key, expire_at_ms) = (key_of(key), expire_in_ms.map(|ms| now_ms + ms));
                                let value = Bytes::from(value);
                                let lent = Lent::Buffer(&value);
                                keyspace.lend(Some(&lent));
                                keyspace.put(&key, Value::String(&value), expire_at_ms);
                                let value = OwnedValue::String(value[..].into());
                                state.insert(key.clone(), OwnedEntry { value, expire_at_ms, version });
                                touched.push(key);
                            }
                            Do::Remove { key } => {
                                let key = key_of(key);
                                let (live, _) = live(&mut state, &key);
                                prop_assert_eq!(keyspace.remove(&key), live);
                                if live {
                                    state.remove(&key);
                                    touched.push(key);
                                    removed = true;
                                }
                            }
                            Do::Expire { key, expire_in_ms } => {
                                let (key, expire_at_ms) = (key_of(key), expire_in_ms.map(|ms| now_ms + ms));
                                let (live, _) = live(&mut state, &key);
                                prop_assert_eq!(keyspace.set_expiry(&key, expire_at_ms), live);
                                if live {
                                    let entry = state.get_mut(&key).unwrap();
                                    (entry.expire_at_ms, entry.version) = (expire_at_ms, version);
                                    touched.push(key);
                                }
                            }
                            Do::Get { key } => {
                                let key = key_of(key);
                                let (live, expired) = live(&mut state, &key);
                                let found = keyspace.get(&key).map(|entry| entry.to_owned());
                                prop_assert_eq!(found.as_ref(), state.get(&key));
                                // What the command itself changed waits for its own record.
                                if !expired && !touched.contains(&key) {
                                    prop_assert_eq!(footprint.wait(), reference.wait(&key, live));
                                }
                            }
                            Do::Clear => {
                                prop_assert_eq!(keyspace.clear(), state.len());
                                removed |= !state.is_empty();
                                touched.extend(std::mem::take(&mut state).into_keys());
                            }
                        }
                    }
                    prop_assert_eq!(changes.is_empty(), touched.is_empty());
                    prop_assert_eq!(changes.removed_any, removed);
                    prop_assert_eq!(changes.undo.len(), changes.count);
                    if !changes.is_empty() {
                        uncommitted.push(Lsn(lsn), changes.body.len(), &mut changes.undo, changes.removed_any);
                        bodies.push_back((lsn, changes.body.finished(0)));
                        reference.states.push_back((lsn, state));
                        reference.changed.extend(touched.into_iter().map(|key| (lsn, key)));
                        reference.removals.extend(removed.then_some(lsn));
                    }
                    changes.clear();
                }
                Step::Commit(choice) => {
                    let oldest = reference.states[0].0;
                    let upto = oldest + choice % (newest - oldest + 1);
                    uncommitted.commit(Lsn(upto));
                    while reference.states[0].0 < upto {
                        reference.states.pop_front();
                        let (_, body) = bodies.pop_front().unwrap();
                        for effect in effects(&body) {
                            effect.unwrap().apply(&mut backup, Some(&Lent::Parts(body.parts())));
                        }
                    }
                }
                Step::RollBack(choice) => {
                    let oldest = reference.states[0].0;
                    let down_to = oldest + choice % (newest - oldest + 1);
                    uncommitted.roll_back(Lsn(down_to), &mut table);
                    reference.states.retain(|state| state.0 <= down_to);
                    reference.changed.retain(|(lsn, _)| *lsn <= down_to);
                    reference.removals.retain(|lsn| *lsn <= down_to);
                    bodies.retain(|body| body.0 <= down_to);
                }
                Step::Look { random, budget } => {
                    let committed = &reference.states[0].1;
                    let footprint = Footprint::default();
                    let mut keyspace =
                        Keyspace::committed(&mut table, &mut changes, &uncommitted, &mut version, now_ms, &footprint);
                    for key in (0..24).map(key_of) {
                        let found = keyspace.get(&key).map(|entry| entry.to_owned());
                        prop_assert_eq!(found.as_ref(), committed.get(&key));
                    }
                    prop_assert_eq!(keyspace.len(), committed.len());
                    let chosen = keyspace.random(random).map(entry_of);
                    prop_assert!(chosen.is_none_or(|(key, entry)| committed.get(&key) == Some(&entry)));
                    let (mut seen, mut visits, mut cursor) = (Model::new(), 0, Some(0));
                    while let Some(from) = cursor {
                        cursor = keyspace.scan(from, budget, &mut |entry| {
                            visits += 1;
                            seen.extend([entry_of(entry)]);
                        });
                    }
                    prop_assert_eq!(&seen, committed);
                    prop_assert_eq!(visits, seen.len());
                    prop_assert_eq!(footprint.wait(), Lsn(0));

                    let state = reference.states.back().unwrap().1.clone();
                    let footprint = Footprint::default();
                    let mut keyspace =
                        Keyspace::fresh(&mut table, &mut changes, &uncommitted, &mut version, now_ms, &footprint);
                    prop_assert_eq!(keyspace.len(), state.len());
                    prop_assert_eq!(footprint.wait(), uncommitted.last());
                    let mut seen = Model::new();
                    keyspace.scan(0, usize::MAX, &mut |entry| seen.extend([entry_of(entry)]));
                    let is_live = |entry: &OwnedEntry| entry.expire_at_ms.is_none_or(|at| at > now_ms);
                    let (live, expired): (Model, Model) =
                        state.into_iter().partition(|(_, entry)| is_live(entry));
                    prop_assert_eq!(&seen, &live);
                    prop_assert_eq!(keyspace.random(random).is_some(), !live.is_empty());
                    prop_assert_eq!(keyspace.len(), live.len());
                    // What a fresh scan does not show is removed by the record that it makes.
                    prop_assert_eq!(changes.count, expired.len());
                    if !expired.is_empty() {
                        let lsn = newest + 1;
                        uncommitted.push(Lsn(lsn), changes.body.len(), &mut changes.undo, changes.removed_any);
                        bodies.push_back((lsn, changes.body.finished(0)));
                        reference.states.push_back((lsn, live));
                        reference.changed.extend(expired.into_keys().map(|key| (lsn, key)));
                        reference.removals.push(lsn);
                    }
                    changes.clear();
                    let committed = &reference.states[0].1;

                    let mut applied = Model::new();
                    backup.scan(0, usize::MAX, &mut |entry| applied.extend([entry_of(entry)]));
                    prop_assert_eq!(&applied, committed);
                }
            }
            let committed = reference.states[0].0;
            let newest = reference.states.back().unwrap().0;
            prop_assert_eq!(uncommitted.last(), Lsn(if newest > committed { newest } else { 0 }));
            prop_assert_eq!(uncommitted.last_removal(), reference.wait(b"no such key", false));
        }
        let newest = uncommitted.last();
        uncommitted.commit(newest);
        prop_assert!(uncommitted.remembers_nothing());
    }
}

#[test]
fn keys_of_one_hash_are_told_apart() {
    let mut uncommitted = Uncommitted::default();
    let piece = Piece::new(b"b", Value::String(b"old"), None, Version(1));
    let mut push = |lsn, was, removed_any| {
        let mut undos = Undos::default();
        undos.keep(was);
        uncommitted.push(Lsn(lsn), 1, &mut undos, removed_any);
    };
    push(1, Was::Absent { hash: 5, key: b"a"[..].into() }, false);
    push(2, Was::Present { hash: 5, piece: piece.into() }, true);
    assert_eq!(uncommitted.committed(5, b"a"), Some(None));
    assert_eq!(uncommitted.committed(5, b"b").flatten().unwrap().value, Value::String(b"old"));
    assert_eq!(uncommitted.committed(5, b"c"), None);
    assert_eq!(uncommitted.lsn_of(5), Some(Lsn(2)));
    uncommitted.commit(Lsn(1));
    assert_eq!(uncommitted.committed(5, b"a"), None);
    assert_eq!(uncommitted.last_removal(), Lsn(2));
}

#[test]
fn nothing_is_kept_that_nobody_wants() {
    let mut table = Table::new(Hasher::new(1));
    let (mut changes, uncommitted, mut version) =
        (Changes::new(false, false), Uncommitted::default(), Version(0));
    let footprint = Footprint::default();
    let mut keyspace = Keyspace::fresh(&mut table, &mut changes, &uncommitted, &mut version, 5, &footprint);
    keyspace.put(b"a", Value::String(b"1"), Some(9));
    keyspace.put(b"b", Value::String(b"2"), None);
    assert!(keyspace.set_expiry(b"a", None) && keyspace.remove(b"b") && keyspace.clear() == 1);
    assert_eq!((changes.count, changes.body.len(), changes.undo.len()), (5, 0, 0));
    assert!(table.is_empty() && changes.removed_any);
}
