//! Bytes that earlier programs wrote, which are read for ever.
//!
//! The files in `data/` are never written again: a new format adds a file. `WRITE_FORMATS=1` writes those that are not
//! there.

use std::path::{Path, PathBuf};
use storage::snapshot::{load_chunk, write_chunk};
use storage::{Hasher, OwnedEntry, Table, TailedBuffer, Value};
use types::Version;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// What the files hold: ten keys, some with an expiry, and where it says so one with a value of some kilobytes.
fn table(has_large: bool) -> Table {
    let mut table = Table::new(Hasher::new(1));
    let mut put = |key: u64, value: &[u8]| {
        let name = format!("key-{key}");
        let hash = table.hasher().hash(name.as_bytes());
        table.put(
            hash,
            name.as_bytes(),
            Value::String(value),
            key.is_multiple_of(3).then_some(1000 + key),
            Version(key << 40),
        );
    };
    for key in 0..10 {
        put(key, &b"0123456789abcdef".repeat(10)[..key as usize * 16]);
    }
    if has_large {
        put(10, &b"{\"name\":\"value\",\"number\":1},".repeat(200));
    }
    table
}

fn contents(table: &Table) -> Vec<(Vec<u8>, OwnedEntry)> {
    let mut entries = Vec::new();
    table.scan(0, usize::MAX, &mut |entry| entries.push((entry.key.to_vec(), entry.to_owned())));
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    entries
}

/// The bytes of a file, which is made of what this program writes where it is not there and may be.
fn stored(name: &str, written: &[u8]) -> Vec<u8> {
    if !path(name).exists() && std::env::var_os("WRITE_FORMATS").is_some() {
        std::fs::write(path(name), written).unwrap();
    }
    std::fs::read(path(name)).unwrap_or_else(|error| panic!("{}: {error}", path(name).display()))
}

#[test]
fn chunks_of_every_version_are_read() {
    for (name, has_large) in
        [("chunk-1.bin", false), ("chunk-2.bin", false), ("chunk-2-compressed.bin", true)]
    {
        let mut chunk = TailedBuffer::default();
        assert_eq!(write_chunk(&table(has_large), 0, 1 << 20, &mut chunk), None);
        let chunk = stored(name, &chunk.finished(0).to_bytes());
        let mut loaded = Table::new(Hasher::new(2));
        assert_eq!(load_chunk(&chunk, &mut loaded), Ok(if has_large { 11 } else { 10 }), "{name}");
        assert_eq!(contents(&loaded), contents(&table(has_large)), "{name}");
    }
}
