//! What logs and snapshots are made of: records, their bodies, chunks of a table.
//!
//! An input's first byte says what the rest is taken for. What decodes is written in one way only, so writing it again gives
//! the same bytes; a body does to a table what it does to a plain map; a chunk that is refused changes nothing.

use crate::input::Input;
use crate::meter;
use bytes::Bytes;
use std::collections::BTreeMap;
use storage::effect::{apply_all, effects};
use storage::snapshot::{load_chunk, write_chunk};
use storage::{Effect, Hasher, OwnedEntry, Record, Table, TailedBuffer, Value};

/// The entries of a table, by key.
pub type Contents = BTreeMap<Vec<u8>, OwnedEntry>;

/// See the [module](self).
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    let bytes = input.rest;
    let room = (64 << 10) + 512 * bytes.len();
    meter::within(room, || match choice % 4 {
        0 => records(bytes),
        1 => body(bytes),
        2 => chunk(bytes),
        _ => {
            chunk(&sealed(bytes));
        }
    });
}

fn records(bytes: &[u8]) {
    let mut rest = Bytes::copy_from_slice(bytes);
    loop {
        let before = rest.clone();
        let Ok(record) = Record::decode(&mut rest) else {
            assert_eq!(rest, before, "what is no record is left as it was");
            return;
        };
        assert!(record.position.lsn.0 > 0 && record.prev() < record.position);
        let mut again = Vec::new();
        record.encode(&mut again);
        assert_eq!(again.len(), record.encoded_len());
        assert_eq!(again, before[..before.len() - rest.len()]);
        body(&record.body.to_bytes());
    }
}

fn body(bytes: &[u8]) {
    let (mut table, mut model) = (Table::new(Hasher::new(1)), Contents::new());
    let mut again = Vec::new();
    let mut whole = true;
    for effect in effects(bytes) {
        assert!(whole, "it ends with the first error");
        let Ok(effect) = effect else {
            whole = false;
            continue;
        };
        effect.encode(&mut again);
        apply(&effect, &mut model);
    }
    assert_eq!(again, bytes[..again.len()]);
    assert_eq!(whole, again.len() == bytes.len());
    assert_eq!(apply_all(bytes, &mut table).is_ok(), whole);
    assert_eq!(contents(&table), model);
    assert_eq!(table.len(), model.len());
    assert_eq!(table.volatile_len(), model.values().filter(|entry| entry.expire_at_ms.is_some()).count());
}

/// An effect as docs/storage.md describes it.
fn apply(effect: &Effect<'_>, model: &mut Contents) {
    match *effect {
        Effect::Put { key, value, expire_at_ms, version } => {
            model.insert(key.to_vec(), OwnedEntry { value: value.to_owned(), expire_at_ms, version });
        }
        Effect::Remove { key, .. } => {
            model.remove(key);
        }
        Effect::Expire { key, expire_at_ms, version } => {
            if let Some(entry) = model.get_mut(key) {
                (entry.expire_at_ms, entry.version) = (expire_at_ms, version);
            }
        }
        Effect::Clear { .. } => model.clear(),
    }
}

/// What a table holds.
pub fn contents(table: &Table) -> Contents {
    let mut contents = Contents::new();
    table.scan(0, usize::MAX, &mut |entry| {
        let twice = contents.insert(entry.key.to_vec(), entry.to_owned());
        assert!(twice.is_none(), "a scan shows {:?} twice", entry.key);
    });
    contents
}

/// A chunk with this body, a right head and a right checksum: fuzzers do not guess these.
fn sealed(body: &[u8]) -> Vec<u8> {
    let count = effects(body).count() as u32;
    let mut chunk = b"AC\x01\x00\0\0\0\0".to_vec();
    chunk.extend_from_slice(&count.to_le_bytes());
    chunk.extend_from_slice(body);
    let checksum = crc32c::crc32c(&chunk[8..]);
    chunk[4..8].copy_from_slice(&checksum.to_le_bytes());
    chunk
}

fn chunk(bytes: &[u8]) {
    let mut table = Table::new(Hasher::new(2));
    table.put(table.hasher().hash(b"there"), b"there", Value::String(b"before"), None, types::Version(1));
    let before = contents(&table);
    let Ok(count) = load_chunk(bytes, &mut table) else {
        assert_eq!(contents(&table), before, "a chunk that is refused changes nothing");
        return;
    };
    assert!(table.len() <= count + 1);
    // Whatever it was made of, it goes on as chunks of our own.
    let mut copy = Table::new(Hasher::new(3));
    let mut cursor = Some(0);
    while let Some(from) = cursor {
        let mut chunk = TailedBuffer::default();
        cursor = write_chunk(&table, from, 64, &mut chunk);
        load_chunk(&chunk, &mut copy).expect("our own chunk");
    }
    assert_eq!(contents(&copy), contents(&table));
}
