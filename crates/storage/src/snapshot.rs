//! A partition's table in chunks: what a joining copy is sent, and what a snapshot on disk is made of.
//!
//! A chunk holds the entries of a stretch of hash space as put effects. Between chunks the table may change: the
//! log that goes with the snapshot, from the position before its first chunk, says how. Effects are absolute, so
//! replaying it over the chunks ends in the right state.
//!
//! | bytes | what |
//! | --- | --- |
//! | 2 | `AC` |
//! | 2 | format version, little-endian: 1 |
//! | 4 | CRC-32C of all that follows, little-endian |
//! | 4 | number of entries, little-endian |
//! | ... | the entries: [put effects](crate::effect) |
//!
//! Left out: which position a snapshot stands for, and in which order chunks come. Who sends them says so.

use crate::codec::Corrupt;
use crate::effect::{Effect, effects};
use crate::table::Table;

const MAGIC: [u8; 2] = *b"AC";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 12;

/// Appends one chunk with the entries from `cursor` on, and returns the cursor of the next; `None`: this was the
/// last. The first chunk's cursor is 0.
///
/// A chunk ends with the first entry that brings it to `bytes_max` bytes, so that one huge entry may exceed it,
/// and after a walk over so much of the index that a sparse table stalls nobody.
pub fn write_chunk(table: &Table, cursor: u64, bytes_max: usize, out: &mut Vec<u8>) -> Option<u64> {
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; HEADER_BYTES - 4]);
    let mut count = 0u32;
    let budget = (bytes_max / 32).clamp(16, 1 << 20);
    let next = table.scan_while(cursor, budget, &mut |entry| {
        let (value, expire_at_ms, version) = (entry.value, entry.expire_at_ms, entry.version);
        Effect::Put { key: entry.key, value, expire_at_ms, version }.encode(out);
        count += 1;
        out.len() - start < bytes_max
    });
    out[start + 8..start + 12].copy_from_slice(&count.to_le_bytes());
    let checksum = crc32c::crc32c(&out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
    next
}

/// Puts a chunk's entries into a table and returns how many there were. Changes nothing where the chunk is
/// corrupt.
pub fn load_chunk(bytes: &[u8], table: &mut Table) -> Result<usize, Corrupt> {
    let (header, body) =
        bytes.split_first_chunk::<HEADER_BYTES>().ok_or(Corrupt { what: "a short chunk" })?;
    let &[a, b, v0, v1, c0, c1, c2, c3, n0, n1, n2, n3] = header;
    if [a, b] != MAGIC {
        return Err(Corrupt { what: "no snapshot chunk" });
    }
    if u16::from_le_bytes([v0, v1]) != VERSION {
        return Err(Corrupt { what: "a snapshot chunk of an unknown format version" });
    }
    if crc32c::crc32c(&bytes[8..]) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(Corrupt { what: "a snapshot chunk with a wrong checksum" });
    }
    let mut count = 0;
    for effect in effects(body) {
        let Effect::Put { .. } = effect? else {
            return Err(Corrupt { what: "a snapshot chunk with more than entries" });
        };
        count += 1;
    }
    if count != u32::from_le_bytes([n0, n1, n2, n3]) as usize {
        return Err(Corrupt { what: "a snapshot chunk with a wrong count" });
    }
    effects(body).flatten().for_each(|effect| effect.apply(table));
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Hasher, Value};
    use types::Version;

    fn filled(keys: u64, value_bytes: usize) -> Table {
        let mut table = Table::new(Hasher::new(1));
        for key in 0..keys {
            let expire_at_ms = (key % 3 == 0).then_some(key);
            let name = key.to_le_bytes();
            let value = vec![key as u8; value_bytes];
            table.put(table.hasher().hash(&name), &name, Value::String(&value), expire_at_ms, Version(key));
        }
        table
    }

    fn contents(table: &Table) -> Vec<(Vec<u8>, crate::OwnedEntry)> {
        let mut entries = Vec::new();
        table.scan(0, usize::MAX, &mut |entry| entries.push((entry.key.to_vec(), entry.to_owned())));
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        entries
    }

    #[test]
    fn chunks_make_the_table_again_elsewhere() {
        let table = filled(5000, 50);
        // Another node has another seed.
        let mut copy = Table::new(Hasher::new(2));
        let (mut cursor, mut loaded, mut chunks) = (Some(0), 0, 0);
        while let Some(from) = cursor {
            let mut chunk = b"before".to_vec();
            cursor = write_chunk(&table, from, 4096, &mut chunk);
            assert!(chunk.len() < 6 + 4096 + 100);
            loaded += load_chunk(&chunk[6..], &mut copy).unwrap();
            chunks += 1;
        }
        assert_eq!(loaded, 5000);
        assert!((70..200).contains(&chunks), "{chunks}");
        assert_eq!(contents(&copy), contents(&table));
    }

    #[test]
    fn a_huge_entry_has_a_chunk_to_itself() {
        let table = filled(3, 10_000);
        let mut chunk = Vec::new();
        assert!(write_chunk(&table, 0, 100, &mut chunk).is_some());
        assert_eq!(load_chunk(&chunk, &mut Table::new(Hasher::new(1))), Ok(1));
        let mut empty = Vec::new();
        assert_eq!(write_chunk(&filled(0, 0), 0, 100, &mut empty), None);
        assert_eq!(load_chunk(&empty, &mut Table::new(Hasher::new(1))), Ok(0));
    }

    #[test]
    fn every_damaged_bit_and_every_cut_is_noticed() {
        let mut chunk = Vec::new();
        write_chunk(&filled(5, 5), 0, 10_000, &mut chunk);
        let mut table = Table::new(Hasher::new(1));
        for at in 0..chunk.len() {
            assert!(load_chunk(&chunk[..at], &mut table).is_err());
            for bit in 0..8 {
                let mut damaged = chunk.clone();
                damaged[at] ^= 1 << bit;
                assert!(load_chunk(&damaged, &mut table).is_err(), "byte {at}, bit {bit}");
            }
        }
        assert!(table.is_empty(), "a corrupt chunk changes nothing");
        let mut with_removal = chunk[..HEADER_BYTES].to_vec();
        Effect::Remove { key: b"x", version: Version(1) }.encode(&mut with_removal);
        let checksum = crc32c::crc32c(&with_removal[8..]);
        with_removal[4..8].copy_from_slice(&checksum.to_le_bytes());
        assert!(load_chunk(&with_removal, &mut table).is_err());
    }
}
