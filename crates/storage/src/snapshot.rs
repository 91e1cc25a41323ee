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
//! Which position a snapshot stands for comes with its last chunk, as a [`SnapshotEnd`]:
//!
//! | bytes | what |
//! | --- | --- |
//! | varint x 4 | epoch and lsn of the base, lsn of the newest change that may show, partition time |
//! | 8 | the newest version that may show, little-endian |
//! | varint | number of finished requests, and for each: |
//! | varint x 5 | node, incarnation, shard, sequence; lsn |
//! | varint, bytes | the reply's length, the reply |
//! | varint | number of forgotten requests, and for each: |
//! | varint x 4 | node, incarnation, shard, sequence |
//!
//! Left out: in which order chunks come. Who sends them says so.

use crate::codec::{Corrupt, Reader, put_number, put_string};
use crate::effect::{Effect, effects};
use crate::table::Table;
use bytes::{Buf, Bytes};
use types::{Epoch, Incarnation, Lsn, NodeId, Position, RequestId, ShardId, Version};

const MAGIC: [u8; 2] = *b"AC";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 12;
/// The least bytes of a put effect: its head, the version, and the lengths of key and value.
const PUT_BYTES_MIN: usize = 11;
/// From so many entries on, a chunk tells by how they lie how many there are in all.
const ENTRIES_TO_GO_BY: usize = 16;
/// The most entries that room is made for by such a guess: half a gigabyte of index.
const ENTRIES_EXPECTED_MAX: u128 = 1 << 26;

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
    let count = u32::from_le_bytes([n0, n1, n2, n3]) as usize;
    if count > body.len() / PUT_BYTES_MIN {
        return Err(Corrupt { what: "a snapshot chunk with a wrong count" });
    }
    // Decoded as a whole first, so that a corrupt chunk changes nothing.
    let hasher = table.hasher();
    let mut entries = Vec::with_capacity(count);
    for effect in effects(body) {
        let put @ Effect::Put { key, .. } = effect? else {
            return Err(Corrupt { what: "a snapshot chunk with more than entries" });
        };
        if entries.len() == count {
            return Err(Corrupt { what: "a snapshot chunk with a wrong count" });
        }
        entries.push((hasher.hash(key), put));
    }
    if entries.len() < count {
        return Err(Corrupt { what: "a snapshot chunk with a wrong count" });
    }
    make_room(&entries, table);
    for &(hash, put) in &entries {
        if let Effect::Put { key, value, expire_at_ms, version } = put {
            table.put(hash, key, value, expire_at_ms, version);
        }
    }
    Ok(count)
}

/// Makes room for what comes, since entries come in the order of their hashes where the table hashes as the one that
/// they were cut from, and a table bears that badly without ([`Table::reserve`]). How many come a chunk tells by how
/// densely its entries lie: those of one stretch of hash space are a part of the snapshot, the others come later.
fn make_room(entries: &[(u64, Effect<'_>)], table: &mut Table) {
    if entries.len() < ENTRIES_TO_GO_BY {
        return;
    }
    let hashes = entries.iter().map(|(hash, _)| *hash);
    let stretch = hashes.clone().fold(0, u64::max) - hashes.fold(u64::MAX, u64::min);
    let all = if stretch == 0 || stretch >= 1 << 63 {
        table.len() + entries.len()
    } else {
        (((entries.len() as u128) << 64) / u128::from(stretch)).min(ENTRIES_EXPECTED_MAX) as usize
    };
    if all > table.room() {
        table.reserve(all + all / 8);
    }
}

/// What the last piece of a snapshot adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotEnd {
    /// The log position at which the snapshot was begun: the log goes on from here.
    pub base: Position,
    /// The newest change that the pieces may show: the snapshot counts once this is committed.
    pub complete_at: Lsn,
    /// Partition time at `base`, in Unix milliseconds.
    pub time_ms: u64,
    /// The newest version that the pieces may show.
    pub version: Version,
    /// Lsn of the partition's newest finished requests, to answer their repeats (rule 17).
    pub requests: Vec<(RequestId, Lsn, Bytes)>,
    /// Per forwarder (node, incarnation, shard): the newest number forgotten.
    pub forgotten: Vec<RequestId>,
}

/// The least bytes of a request id: a varint each for its four numbers.
const REQUEST_ID_BYTES_MIN: usize = 4;
/// The least bytes of a finished request: its id, its lsn and the length of its reply.
const REQUEST_BYTES_MIN: usize = REQUEST_ID_BYTES_MIN + 2;

impl SnapshotEnd {
    /// Appends its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.base.epoch.0, self.base.lsn.0, self.complete_at.0, self.time_ms] {
            put_number(out, number);
        }
        out.extend_from_slice(&self.version.0.to_le_bytes());
        put_number(out, self.requests.len() as u64);
        for (id, lsn, reply) in &self.requests {
            put_request_id(out, id);
            put_number(out, lsn.0);
            put_string(out, reply);
        }
        put_number(out, self.forgotten.len() as u64);
        for id in &self.forgotten {
            put_request_id(out, id);
        }
    }

    /// Takes one off the front of `bytes`, which is left as it was where they are none. Replies are cut out of
    /// the buffer that they came in.
    pub fn decode(bytes: &mut Bytes) -> Result<SnapshotEnd, Corrupt> {
        let mut reader = Reader { rest: bytes };
        let base = Position { epoch: Epoch(reader.number()?), lsn: Lsn(reader.number()?) };
        let complete_at = Lsn(reader.number()?);
        let time_ms = reader.number()?;
        let version = Version(reader.fixed()?);
        let mut requests = Vec::new();
        for _ in 0..count(&mut reader, REQUEST_BYTES_MIN)? {
            let (id, lsn) = (request_id(&mut reader)?, Lsn(reader.number()?));
            requests.push((id, lsn, bytes.slice_ref(reader.string()?)));
        }
        let mut forgotten = Vec::new();
        for _ in 0..count(&mut reader, REQUEST_ID_BYTES_MIN)? {
            forgotten.push(request_id(&mut reader)?);
        }
        let used = bytes.len() - reader.rest.len();
        bytes.advance(used);
        Ok(SnapshotEnd { base, complete_at, time_ms, version, requests, forgotten })
    }
}

/// A number of items that take so many bytes or more each, and for which there are enough.
fn count(reader: &mut Reader<'_>, item_bytes_min: usize) -> Result<usize, Corrupt> {
    let count: usize = reader.number_to()?;
    let fits = count <= reader.rest.len() / item_bytes_min;
    if fits { Ok(count) } else { Err(Corrupt { what: "a count beyond the end" }) }
}

fn put_request_id(out: &mut Vec<u8>, id: &RequestId) {
    for number in [u64::from(id.node.0), id.incarnation.0, u64::from(id.shard.0), id.sequence] {
        put_number(out, number);
    }
}

fn request_id(reader: &mut Reader<'_>) -> Result<RequestId, Corrupt> {
    let (node, incarnation) = (NodeId(reader.number_to()?), Incarnation(reader.number()?));
    let (shard, sequence) = (ShardId(reader.number_to()?), reader.number()?);
    Ok(RequestId { node, incarnation, shard, sequence })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Hasher, Value};
    use proptest::prelude::*;

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

    /// A chunk cut from a table of the same hash tells how large the whole is, so that what follows finds room.
    #[test]
    fn the_first_chunk_makes_room_for_all() {
        for keys in [500, 5000, 40_000] {
            let table = filled(keys, 50);
            let mut copy = Table::new(Hasher::new(1));
            let (mut cursor, mut after_first) = (Some(0), 0);
            while let Some(from) = cursor {
                let mut chunk = Vec::new();
                cursor = write_chunk(&table, from, 16 << 10, &mut chunk);
                load_chunk(&chunk, &mut copy).unwrap();
                after_first = if from == 0 { copy.room() } else { after_first };
            }
            assert!(after_first >= keys as usize, "{after_first} for {keys}");
            assert!(copy.bytes() < table.bytes() / 2 * 3, "{} for {}", copy.bytes(), table.bytes());
            assert_eq!(contents(&copy), contents(&table));
        }
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

    fn ids() -> impl Strategy<Value = RequestId> {
        any::<(u16, u64, u16, u64)>().prop_map(|(node, incarnation, shard, sequence)| RequestId {
            node: NodeId(node),
            incarnation: Incarnation(incarnation),
            shard: ShardId(shard),
            sequence,
        })
    }

    proptest! {
        #[test]
        fn ends_read_back_and_every_cut_is_noticed(
            (epoch, lsn, complete_at, time_ms, version) in any::<(u64, u64, u64, u64, u64)>(),
            requests in proptest::collection::vec((ids(), any::<u64>(), any::<Vec<u8>>()), 0..4),
            forgotten in proptest::collection::vec(ids(), 0..4),
            after: Vec<u8>,
        ) {
            let requests =
                requests.into_iter().map(|(id, lsn, reply)| (id, Lsn(lsn), Bytes::from(reply))).collect();
            let base = Position { epoch: Epoch(epoch), lsn: Lsn(lsn) };
            let (complete_at, version) = (Lsn(complete_at), Version(version));
            let end = SnapshotEnd { base, complete_at, time_ms, version, requests, forgotten };
            let mut out = Vec::new();
            end.encode(&mut out);
            for cut in 0..out.len() {
                let mut bytes = Bytes::copy_from_slice(&out[..cut]);
                prop_assert!(SnapshotEnd::decode(&mut bytes).is_err());
                prop_assert_eq!(bytes.len(), cut);
            }
            out.extend_from_slice(&after);
            let mut bytes = Bytes::from(out);
            prop_assert_eq!(SnapshotEnd::decode(&mut bytes), Ok(end));
            prop_assert_eq!(&bytes[..], &after[..]);
        }

        #[test]
        fn any_bytes_decode_without_a_panic(bytes: Vec<u8>) {
            let _ = SnapshotEnd::decode(&mut Bytes::from(bytes));
        }
    }

    #[test]
    fn a_count_beyond_the_end_is_refused_before_an_item_is_read() {
        let mut bytes = vec![0; 12];
        put_number(&mut bytes, 3);
        bytes.extend_from_slice(&[0; 3 * REQUEST_BYTES_MIN - 1]);
        let decode = |bytes: &[u8]| SnapshotEnd::decode(&mut Bytes::copy_from_slice(bytes));
        assert_eq!(decode(&bytes), Err(Corrupt { what: "a count beyond the end" }));
        // One byte for the last request, one that says that none is forgotten.
        bytes.extend_from_slice(&[0; 2]);
        assert_eq!(decode(&bytes).unwrap().requests.len(), 3);
    }
}
