//! A partition's table in chunks: what a joining copy is sent, and what a snapshot on disk is made of.
//!
//! A chunk holds the entries of a stretch of hash space as put effects. Between chunks the table may change: the
//! log that goes with the snapshot, from the position before its first chunk, says how. Effects are absolute, so
//! replaying it over the chunks ends in the right state.
//!
//! | bytes | what |
//! | --- | --- |
//! | 2 | `AC` |
//! | 2 | format version, little-endian: 2 |
//! | 4 | CRC-32C of all the rest, also of what stands before it, little-endian |
//! | 4 | number of entries, little-endian |
//! | 1 | bit 0: the entries are compressed, as a block of LZ4 |
//! | 4 | bytes of the entries before compression, little-endian |
//! | ... | the entries: [put effects](crate::effect) |
//!
//! Version 1 ended its head with the number of entries, had a checksum of what followed that checksum alone, and was
//! never compressed. It is still read.
//!
//! A chunk is compressed where one of its values is large, since small ones gain little and are what makes loading
//! slow already; and only where that saves an eighth. One that is itself huge is not, lest it hold its shard up.
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
use crate::compression::{LARGE_VALUE_BYTES, compressed, decompress};
use crate::effect::{Effect, effects};
use crate::lent::Lent;
use crate::rope::{Parts, Sink, TailedBuffer};
use crate::table::{Table, Value};
use bytes::{Buf, Bytes};
use std::borrow::Cow;
use types::planted::{self, Bug};
use types::{Epoch, Incarnation, Lsn, NodeId, Position, RequestId, ShardId, Version};

const MAGIC: [u8; 2] = *b"AC";
const VERSION: u16 = 2;
/// What every version's head has: the last four are the number of entries.
const HEAD_BYTES: usize = 12;
/// Of versions from 2 on.
const HEADER_BYTES: usize = HEAD_BYTES + 5;
const COMPRESSED: u8 = 1;
/// The least bytes of a put effect: its head, the version, and the lengths of key and value.
const PUT_BYTES_MIN: usize = 11;
/// From so many entries on, where they lie tells how many there are in all.
const ENTRIES_TO_GO_BY: usize = 16;
/// The most entries that room is made for by such a guess: half a gigabyte of index.
const ENTRIES_EXPECTED_MAX: u128 = 1 << 26;

const WRONG_COUNT: Corrupt = Corrupt { what: "a snapshot chunk with a wrong count" };

/// Appends one chunk with the entries from `cursor` on, and returns the cursor of the next; `None`: this was the
/// last. The first chunk's cursor is 0.
///
/// A chunk ends with the first entry that brings it to `bytes_max` bytes, so that one huge entry may exceed it,
/// and after a walk over so much of the index that a sparse table stalls nobody.
pub fn write_chunk(table: &Table, cursor: u64, bytes_max: usize, out: &mut TailedBuffer) -> Option<u64> {
    let start = out.len();
    let head = out.bytes();
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&[0; HEADER_BYTES - 4]);
    let mut count = 0u32;
    let mut has_large = false;
    let budget = (bytes_max / 32).clamp(16, 1 << 20);
    let next = table.scan_while(cursor, budget, &mut |entry| {
        let before = out.len();
        let (value, expire_at_ms, version) = (entry.value, entry.expire_at_ms, entry.version);
        Effect::Put { key: entry.key, value, expire_at_ms, version }.encode_sharing(entry.shared, out);
        if planted::is(Bug::ChunkDropsLast) && out.len() - start >= bytes_max {
            out.bytes().truncate(before);
            return false;
        }
        let Value::String(bytes) = value;
        has_large |= bytes.len() > LARGE_VALUE_BYTES;
        count += 1;
        out.len() - start < bytes_max
    });
    let body = start + HEADER_BYTES;
    let length = u32::try_from(out.len() - body).expect("a chunk has far less than 4 GiB");
    let (out, tail) = out.own();
    out[start + 13..body].copy_from_slice(&length.to_le_bytes());
    if has_large
        && tail.is_empty()
        && let Some(block) = compressed(&out[body..])
    {
        out.truncate(body);
        out.extend_from_slice(&block);
        out[start + 12] = COMPRESSED;
    }
    out[start + 8..start + 12].copy_from_slice(&count.to_le_bytes());
    let checksum = checksum(VERSION, &out[start..], tail);
    out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
    next
}

/// What a chunk's bytes 4 to 8 have to be.
fn checksum(version: u16, chunk: &[u8], tail: &[u8]) -> u32 {
    let before = if version == 1 { 0 } else { crc32c::crc32c(&chunk[..4]) };
    crc32c::crc32c_append(crc32c::crc32c_append(before, &chunk[8..]), tail)
}

/// Puts a chunk's entries into a table and returns how many there were. Changes nothing where the chunk is
/// corrupt.
pub fn load_chunk<'b>(bytes: impl Into<Parts<'b>>, table: &mut Table) -> Result<usize, Corrupt> {
    let bytes = bytes.into();
    let lent = Lent::Parts(bytes);
    let (count, body) = unpacked(bytes)?;
    let body = bytes.with_head(&body);
    // Decoded as a whole first, so that a corrupt chunk changes nothing.
    let hasher = table.hasher();
    let mut entries = Vec::with_capacity(count);
    each_put(count, body, &mut |key, put| entries.push((hasher.hash(key), put)))?;
    make_room(&entries, table);
    for &(hash, put) in &entries {
        if let Effect::Put { key, value, expire_at_ms, version } = put {
            let Value::String(bytes) = value;
            match lent.share(bytes) {
                None => table.put(hash, key, value, expire_at_ms, version),
                Some(shared) => table.share(hash, key, shared, expire_at_ms, version),
            }
        }
    }
    Ok(count)
}

/// Shows a chunk's entries, each as the effect that puts it, and returns how many there were. On an error those before
/// it have been shown.
pub fn show_chunk(bytes: &[u8], on_put: &mut dyn FnMut(Effect<'_>)) -> Result<usize, Corrupt> {
    let (count, body) = unpacked(bytes.into())?;
    each_put(count, Parts::from(&body[..]), &mut |_, put| on_put(put))?;
    Ok(count)
}

/// How many entries a chunk has, and their bytes, without its tail. There are enough of these for so many.
fn unpacked(bytes: Parts<'_>) -> Result<(usize, Cow<'_, [u8]>), Corrupt> {
    let (version, count, rest) = checked(bytes)?;
    let body = match version {
        1 => Cow::Borrowed(rest),
        _ => body_of(rest, bytes.tail.len())?,
    };
    let fits = count <= (body.len() + bytes.tail.len()) / PUT_BYTES_MIN;
    if fits { Ok((count, body)) } else { Err(WRONG_COUNT) }
}

/// Hands out the entries of a chunk with their keys.
fn each_put<'b>(
    count: usize,
    body: Parts<'b>,
    on_put: &mut impl FnMut(&'b [u8], Effect<'b>),
) -> Result<(), Corrupt> {
    let mut seen = 0;
    for effect in effects(body) {
        let put @ Effect::Put { key, .. } = effect? else {
            return Err(Corrupt { what: "a snapshot chunk with more than entries" });
        };
        if seen == count {
            return Err(WRONG_COUNT);
        }
        seen += 1;
        on_put(key, put);
    }
    if seen < count { Err(WRONG_COUNT) } else { Ok(()) }
}

/// How many entries a chunk holds, by its head alone. `None`: it is no chunk.
pub fn chunk_entries(bytes: &[u8]) -> Option<u32> {
    let &[a, b, .., n0, n1, n2, n3] = bytes.first_chunk::<HEAD_BYTES>()?;
    ([a, b] == MAGIC).then_some(u32::from_le_bytes([n0, n1, n2, n3]))
}

/// A chunk's format version, its number of entries, and what follows that.
fn checked(bytes: Parts<'_>) -> Result<(u16, usize, &[u8]), Corrupt> {
    let (head, rest) =
        bytes.head.split_first_chunk::<HEAD_BYTES>().ok_or(Corrupt { what: "a short chunk" })?;
    let &[a, b, v0, v1, c0, c1, c2, c3, n0, n1, n2, n3] = head;
    if [a, b] != MAGIC {
        return Err(Corrupt { what: "no snapshot chunk" });
    }
    let version = u16::from_le_bytes([v0, v1]);
    if !(1..=VERSION).contains(&version) {
        return Err(Corrupt { what: "a snapshot chunk of an unknown format version" });
    }
    if checksum(version, bytes.head, bytes.tail) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(Corrupt { what: "a snapshot chunk with a wrong checksum" });
    }
    Ok((version, u32::from_le_bytes([n0, n1, n2, n3]) as usize, rest))
}

/// The entries of a chunk of version 2, from behind their number on.
fn body_of(rest: &[u8], tail: usize) -> Result<Cow<'_, [u8]>, Corrupt> {
    let (&[flags, l0, l1, l2, l3], body) =
        rest.split_first_chunk::<5>().ok_or(Corrupt { what: "a short chunk" })?;
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    match flags {
        0 if body.len() + tail == length => Ok(Cow::Borrowed(body)),
        COMPRESSED if tail == 0 => decompress(body, length).map(Cow::Owned),
        0 => Err(Corrupt { what: "a snapshot chunk with a wrong length" }),
        _ => Err(Corrupt { what: "a snapshot chunk with an unknown flag" }),
    }
}

/// Makes room for what comes, since entries come in the order of their hashes where the table hashes as the one that
/// they were cut from, and a table bears that badly without ([`Table::reserve`]). How many come in all is told by how many
/// have come for the part of hash space behind which all others lie. Not by this chunk's alone: a few large entries
/// that happen to lie close together would pass for thousands.
fn make_room(entries: &[(u64, Effect<'_>)], table: &mut Table) {
    let come = table.len() + entries.len();
    if come < ENTRIES_TO_GO_BY || table.has_split() {
        return;
    }
    let last = entries.iter().map(|(hash, _)| *hash).chain(table.last_hash()).fold(0, u64::max);
    let all = (((come as u128) << 64) / (u128::from(last) + 1)).min(ENTRIES_EXPECTED_MAX) as usize;
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
    use crate::compression::COMPRESSED_BYTES_MAX;
    use crate::table::Hasher;
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
            let mut chunk = TailedBuffer::default();
            chunk.bytes().extend_from_slice(b"before");
            cursor = write_chunk(&table, from, 4096, &mut chunk);
            assert!(chunk.len() < 6 + 4096 + 100);
            loaded += load_chunk(&chunk.finished(0).to_bytes()[6..], &mut copy).unwrap();
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
                let mut chunk = TailedBuffer::default();
                cursor = write_chunk(&table, from, 16 << 10, &mut chunk);
                load_chunk(&chunk, &mut copy).unwrap();
                after_first = if from == 0 { copy.room() } else { after_first };
            }
            assert!(after_first >= keys as usize, "{after_first} for {keys}");
            assert!(copy.bytes() < table.bytes() / 2 * 3, "{} for {}", copy.bytes(), table.bytes());
            assert_eq!(contents(&copy), contents(&table));
        }
    }

    /// Large entries come two or three a chunk, of which some lie close together: that is no reason to make room for thousands.
    #[test]
    fn a_few_large_entries_are_not_taken_for_many() {
        for seed in 0..30 {
            for keys in [4, 40, 100] {
                let mut table = Table::new(Hasher::new(seed));
                for key in 0..keys {
                    let name = [key];
                    table.put(
                        table.hasher().hash(&name),
                        &name,
                        Value::String(&[0; 20_000]),
                        None,
                        Version(1),
                    );
                }
                let (mut copy, mut cursor) = (Table::new(Hasher::new(seed)), Some(0));
                while let Some(from) = cursor {
                    let mut chunk = TailedBuffer::default();
                    cursor = write_chunk(&table, from, 32 << 10, &mut chunk);
                    load_chunk(&chunk, &mut copy).unwrap();
                }
                // Their pieces are alike: what is more is of the index.
                let more = copy.bytes().saturating_sub(table.bytes());
                assert!(more < 8 << 10, "{more} bytes more of index, seed {seed}, {keys} keys");
            }
        }
    }

    #[test]
    fn a_huge_entry_has_a_chunk_to_itself() {
        let table = filled(3, 10_000);
        let mut chunk = TailedBuffer::default();
        assert!(write_chunk(&table, 0, 100, &mut chunk).is_some());
        assert_eq!(load_chunk(&chunk, &mut Table::new(Hasher::new(1))), Ok(1));
        let mut empty = TailedBuffer::default();
        assert_eq!(write_chunk(&filled(0, 0), 0, 100, &mut empty), None);
        assert_eq!(load_chunk(&empty, &mut Table::new(Hasher::new(1))), Ok(0));
    }

    /// A value as JSON would have it: the same names again and again, and other things between them.
    fn json(seed: u64, bytes: usize) -> Vec<u8> {
        let mut value = Vec::new();
        let mut number = seed;
        while value.len() < bytes {
            number = number.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let line =
                format!("{{\"id\":{},\"name\":\"user{:x}\",\"active\":true}},", number >> 40, number >> 20);
            value.extend_from_slice(line.as_bytes());
        }
        value.truncate(bytes);
        value
    }

    fn chunk_of(values: &[Vec<u8>]) -> Vec<u8> {
        let mut table = Table::new(Hasher::new(1));
        for (key, value) in values.iter().enumerate() {
            let key = [key as u8];
            table.put(table.hasher().hash(&key), &key, Value::String(value), None, Version(1));
        }
        let mut chunk = TailedBuffer::default();
        assert_eq!(write_chunk(&table, 0, usize::MAX, &mut chunk), None);
        let mut copy = Table::new(Hasher::new(1));
        assert_eq!(load_chunk(&chunk, &mut copy), Ok(values.len()));
        assert_eq!(contents(&copy), contents(&table));
        chunk.finished(0).to_bytes().to_vec()
    }

    #[test]
    fn large_values_are_compressed_where_it_helps() {
        let flag = |values: &[Vec<u8>]| chunk_of(values)[12];
        assert_eq!(flag(&[json(1, 4097)]), COMPRESSED);
        assert_eq!(flag(&vec![json(1, 4096); 20]), 0, "no value is large");
        assert_eq!(flag(&[json(1, 5000), vec![], vec![1; 10]]), COMPRESSED, "one of them is large");
        assert_eq!(flag(&[json(1, COMPRESSED_BYTES_MAX)]), 0, "it would hold its shard up");
        let noise: Vec<u8> = (0..2500u64).flat_map(|at| random(at).to_le_bytes()).collect();
        assert_eq!(chunk_of(std::slice::from_ref(&noise))[12], 0, "it saves nothing");
        // Six parts of noise and one of nothing are just short of an eighth saved.
        let mixed = |nothing: usize| [noise[..16_000].to_vec(), vec![0; nothing]].concat();
        assert_eq!((flag(&[mixed(2000)]), flag(&[mixed(3000)])), (0, COMPRESSED));
        // One byte stands for 255 here.
        let chunk = chunk_of(&[vec![0; 1 << 20]]);
        assert!(chunk.len() < 5000, "{}", chunk.len());
    }

    fn random(number: u64) -> u64 {
        Hasher::new(9).hash(&number.to_le_bytes())
    }

    /// A chunk with these bytes behind the number of entries, and a right checksum.
    fn sealed(version: u16, entries: u32, rest: &[u8]) -> Vec<u8> {
        let mut chunk = MAGIC.to_vec();
        chunk.extend_from_slice(&version.to_le_bytes());
        chunk.extend_from_slice(&[0; 4]);
        chunk.extend_from_slice(&entries.to_le_bytes());
        chunk.extend_from_slice(rest);
        let checksum = checksum(version, &chunk, &[]);
        chunk[4..8].copy_from_slice(&checksum.to_le_bytes());
        chunk
    }

    #[test]
    fn a_wrong_length_is_noticed_under_a_right_checksum() {
        let chunk = chunk_of(&[json(1, 6000), json(2, 6000)]);
        let length = u32::from_le_bytes(chunk[13..17].try_into().unwrap());
        let mut table = Table::new(Hasher::new(1));
        let mut load = |length: u32, block: &[u8]| {
            let rest = [&[COMPRESSED], &length.to_le_bytes()[..], block].concat();
            load_chunk(&sealed(2, 2, &rest), &mut table)
        };
        let block = &chunk[HEADER_BYTES..];
        for wrong in [0, 1, length - 1, length + 1, length * 2, u32::MAX] {
            assert!(load(wrong, block).is_err(), "{wrong}");
        }
        for cut in 0..block.len() {
            assert!(load(length, &block[..cut]).is_err(), "{cut}");
        }
        assert_eq!(load(length, block), Ok(2));
        let mut unknown = chunk[12..].to_vec();
        unknown[0] = 3;
        assert!(load_chunk(&sealed(2, 2, &unknown), &mut table).is_err());
        assert!(load_chunk(&sealed(3, 2, &chunk[12..]), &mut table).is_err());
        assert!(load_chunk(&sealed(2, 2, &[0; 4]), &mut table).is_err());
    }

    proptest! {
        /// Whatever a block decompresses to, or not.
        #[test]
        fn any_block_decodes_without_a_panic(
            version in 0u16..4,
            entries in 0u32..5,
            flags in 0u8..3,
            length in prop_oneof![0u32..100, any::<u32>()],
            block: Vec<u8>,
            changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4),
        ) {
            let mut table = Table::new(Hasher::new(1));
            let rest = [&[flags], &length.to_le_bytes()[..], &block].concat();
            let _ = load_chunk(&sealed(version, entries, &rest), &mut table);
            let good = chunk_of(&[json(1, 5000)]);
            let mut block = good[HEADER_BYTES..].to_vec();
            for (at, byte) in changes {
                let at = at % block.len();
                block[at] = byte;
            }
            let rest = [&good[12..HEADER_BYTES], &block].concat();
            let _ = load_chunk(&sealed(2, 1, &rest), &mut table);
        }
    }

    #[test]
    fn every_damaged_byte_and_every_cut_is_noticed() {
        let mut chunk = TailedBuffer::default();
        write_chunk(&filled(5, 5), 0, 10_000, &mut chunk);
        damage(&chunk.finished(0).to_bytes());
        damage(&chunk_of(&[json(1, 4200)]));
        let mut removal = Vec::new();
        Effect::Remove { key: b"x", version: Version(1) }.encode(&mut removal);
        assert!(load_chunk(&sealed(1, 1, &removal), &mut Table::new(Hasher::new(1))).is_err());
        let mut put = Vec::new();
        Effect::Put { key: b"", value: Value::String(b""), expire_at_ms: None, version: Version(1) }
            .encode(&mut put);
        assert_eq!(put.len(), PUT_BYTES_MIN);
        for (entries, is_right) in [(0, false), (1, true), (2, false), (u32::MAX, false)] {
            let loaded = load_chunk(&sealed(1, entries, &put), &mut Table::new(Hasher::new(1)));
            assert_eq!(loaded.is_ok(), is_right);
        }
    }

    fn damage(chunk: &[u8]) {
        let mut table = Table::new(Hasher::new(1));
        for at in 0..chunk.len() {
            assert!(load_chunk(&chunk[..at], &mut table).is_err());
            for bits in [1, 2, 3, 4, 8, 16, 32, 64, 128, 255] {
                let mut damaged = chunk.to_vec();
                damaged[at] ^= bits;
                assert!(load_chunk(&damaged, &mut table).is_err(), "byte {at}, bits {bits}");
            }
        }
        assert!(table.is_empty(), "a corrupt chunk changes nothing");
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
