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
