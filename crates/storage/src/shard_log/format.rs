//! The bytes of a shard's log: names and headers of segments, headers of batches.
//!
//! | bytes | header of a segment | | bytes | header of a batch |
//! | --- | --- | --- | --- | --- |
//! | 8 | `ANNSLOG` and a zero | | 4 | CRC-32C of the identity and the 24 that follow |
//! | 4 | format version: 1 | | 4 | CRC-32C of the payload |
//! | 32 | identity | | 4 | length of the payload |
//! | 8 | logical offset of its first batch | | 8 | logical offset of the batch |
//! | 8 | zero | | 8 | logical offset up to which all was durable |
//! | 4 | CRC-32C of the 60 before | | ... | payload |
//!
//! A batch's header has a checksum of its own, so that it speaks for what was durable before it also where its
//! payload is torn, and so that looking for headers among bad bytes takes one comparison a byte. The identity
//! goes into that checksum, so that nobody who does not know it can put a header into a value.
//!
//! The first 12 bytes of a segment's header and the last four keep their place in every version.

/// Bytes before a payload: whoever makes a batch in place leaves room for them.
pub const BATCH_HEADER_BYTES: usize = 28;

pub(super) const VERSION: u32 = 1;
pub(super) const SEGMENT_HEADER_BYTES: usize = 64;
/// Far beyond what any disk has written, and so that sums with a file's length do not overflow.
const OFFSET_MAX: u64 = 1 << 62;
const MAGIC: [u8; 8] = *b"ANNSLOG\0";

/// The file that becomes the next segment: see [`errand`](super::errand). Its header says where.
pub(super) const NEXT_NAME: &str = "log.next";

/// The name of the segment whose first batch has this logical offset.
pub(super) fn segment_name(first: u64) -> String {
    format!("log-{first:016x}")
}

/// The logical offset in a segment's name. `None`: not the name of a segment.
pub(super) fn offset_of_name(name: &str) -> Option<u64> {
    let first = u64::from_str_radix(name.strip_prefix("log-")?, 16).ok()?;
    (first <= OFFSET_MAX && segment_name(first) == name).then_some(first)
}

/// What the header of a segment says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub version: u32,
    pub identity: [u8; 32],
    pub first: u64,
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[12..44].copy_from_slice(&self.identity);
        bytes[44..52].copy_from_slice(&self.first.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The header at the front of these bytes. `None`: none is there, or not whole.
    pub fn decode(bytes: &[u8]) -> Option<SegmentHeader> {
        let mut rest = bytes.first_chunk::<SEGMENT_HEADER_BYTES>()?.as_slice();
        let checksum = crc32c::crc32c(&rest[..60]);
        let magic = take::<8>(&mut rest)?;
        let version = u32::from_le_bytes(take(&mut rest)?);
        let identity = take(&mut rest)?;
        let first = u64::from_le_bytes(take(&mut rest)?);
        take::<8>(&mut rest)?;
        let holds = magic == MAGIC && checksum == u32::from_le_bytes(take(&mut rest)?);
        holds.then_some(SegmentHeader { version, identity, first })
    }
}

/// What the header of a batch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHeader {
    pub payload_checksum: u32,
    pub payload_bytes: u32,
    pub offset: u64,
    pub durable: u64,
}

impl BatchHeader {
    /// `seed` is the checksum of the identity.
    pub fn encode(&self, seed: u32) -> [u8; BATCH_HEADER_BYTES] {
        let mut bytes = [0; BATCH_HEADER_BYTES];
        bytes[4..8].copy_from_slice(&self.payload_checksum.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.offset.to_le_bytes());
        bytes[20..].copy_from_slice(&self.durable.to_le_bytes());
        let checksum = crc32c::crc32c_append(seed, &bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The header at the front of these bytes, which have to be those at `offset` of the log. `None`: none is
    /// there.
    pub fn decode(bytes: &[u8], seed: u32, offset: u64) -> Option<BatchHeader> {
        let mut rest = bytes.first_chunk::<BATCH_HEADER_BYTES>()?.as_slice();
        let checked = &rest[4..];
        // First, since it is cheap and sorts out all but one of many bytes.
        if checked[8..16] != offset.to_le_bytes() {
            return None;
        }
        let checksum = u32::from_le_bytes(take(&mut rest)?);
        let payload_checksum = u32::from_le_bytes(take(&mut rest)?);
        let payload_bytes = u32::from_le_bytes(take(&mut rest)?);
        let offset = u64::from_le_bytes(take(&mut rest)?);
        let durable = u64::from_le_bytes(take(&mut rest)?);
        // Nothing was durable before it was written.
        let holds = durable <= offset && checksum == crc32c::crc32c_append(seed, checked);
        holds.then_some(BatchHeader { payload_checksum, payload_bytes, offset, durable })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_others_are_none() {
        for first in [0, 1, 0xabc_def0, OFFSET_MAX] {
            assert_eq!(offset_of_name(&segment_name(first)), Some(first));
        }
        assert_eq!(segment_name(0xbeef), "log-000000000000beef");
        for name in [
            "log-",
            "log-beef",
            "log-000000000000BEEF",
            "log-+00000000000beef",
            "log-000000000000beef.new",
            "log-ffffffffffffffff",
            "journal",
        ] {
            assert_eq!(offset_of_name(name), None, "{name}");
        }
    }

    #[test]
    fn every_damaged_bit_of_a_header_is_noticed() {
        let segment = SegmentHeader { version: VERSION, identity: [7; 32], first: 0x0102_0304_0506 };
        let bytes = segment.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Some(segment));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&damaged), None, "bit {bit}");
        }
        let batch = BatchHeader { payload_checksum: 1, payload_bytes: 2, offset: 300, durable: 299 };
        let bytes = batch.encode(9);
        assert_eq!(BatchHeader::decode(&bytes, 9, 300), Some(batch));
        assert_eq!(BatchHeader::decode(&bytes, 9, 301), None, "elsewhere");
        assert_eq!(BatchHeader::decode(&bytes, 8, 300), None, "of another identity");
        assert_eq!(BatchHeader::decode(&bytes[..27], 9, 300), None);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(BatchHeader::decode(&damaged, 9, 300), None, "bit {bit}");
        }
        let ahead = BatchHeader { durable: 301, ..batch }.encode(9);
        assert_eq!(BatchHeader::decode(&ahead, 9, 300), None, "durable before it was written");
    }
}
