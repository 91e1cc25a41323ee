//! Hash slots and partitions: which partition a key lies in.
//!
//! A slot is CRC16 (XMODEM) of the key, or of its `{tag}`, modulo 16384, as the Redis Cluster specification
//! defines it. A partition is a run of `16384 / partitions` slots.

use crate::PartitionId;

/// How many hash slots there are.
pub const SLOTS: u16 = 16384;

/// One of the 16384 hash slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

/// The slot of a key, or of its hash tag: what stands between the first `{` and the next `}`, if anything does.
pub fn slot_of_key(key: &[u8]) -> Slot {
    Slot(crc16(tag_of_key(key)) % SLOTS)
}

#[inline]
fn tag_of_key(key: &[u8]) -> &[u8] {
    if !has_brace(key) {
        return key;
    }
    let Some(open) = key.iter().position(|&b| b == b'{') else { return key };
    let rest = &key[open + 1..];
    match rest.iter().position(|&b| b == b'}') {
        Some(close) if close > 0 => &rest[..close],
        _ => key,
    }
}

/// The partition that a slot belongs to. `partitions` is a power of two up to 16384, so nothing is divided: it is asked for every
/// key.
#[inline]
pub fn partition_of_slot(slot: Slot, partitions: u16) -> PartitionId {
    debug_assert!(partitions.is_power_of_two() && partitions <= SLOTS);
    let shift = SLOTS.trailing_zeros().wrapping_sub(partitions.trailing_zeros()) % u16::BITS;
    PartitionId(slot.0 >> shift)
}

/// The partition that a key belongs to.
pub fn partition_of_key(key: &[u8], partitions: u16) -> PartitionId {
    partition_of_slot(slot_of_key(key), partitions)
}

/// The first and the last slot of a partition.
pub fn slots_of_partition(partition: PartitionId, partitions: u16) -> (Slot, Slot) {
    let run = SLOTS / partitions;
    (Slot(partition.0 * run), Slot(partition.0 * run + (run - 1)))
}

/// Whether a key may have a hash tag. Most have none, and it is asked of every key: eight bytes are looked at in one.
#[inline]
fn has_brace(key: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let (words, rest) = key.as_chunks::<8>();
    // A byte of `other` is 0 where the key has a brace; the borrow of the subtraction tells of it.
    let in_word = |word: &[u8; 8]| {
        let other = u64::from_ne_bytes(*word) ^ (ONES * b'{' as u64);
        other.wrapping_sub(ONES) & !other & (ONES << 7) != 0
    };
    words.iter().any(in_word) || rest.contains(&b'{')
}

/// Eight bytes at a time ("slicing by eight", Kounavis and Berry 2005), since it runs for every key.
#[inline]
fn crc16(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<8>();
    let by_words = words.iter().fold(0, |crc: u16, word| {
        let [high, low] = crc.to_be_bytes();
        let [a, b, rest @ ..] = *word;
        let first = CRC16[7][usize::from(a ^ high)] ^ CRC16[6][usize::from(b ^ low)];
        rest.iter()
            .zip((0..6).rev())
            .fold(first, |crc, (&byte, behind)| crc ^ CRC16[behind][usize::from(byte)])
    });
    rest.iter().fold(by_words, |crc, &byte| (crc << 8) ^ CRC16[0][usize::from((crc >> 8) as u8 ^ byte)])
}

/// What a byte adds to the checksum when so many bytes follow it.
static CRC16: [[u16; 256]; 8] = crc16_tables();

const fn crc16_tables() -> [[u16; 256]; 8] {
    let mut tables = [crc16_table(); 8];
    let mut behind = 1;
    while behind < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[behind - 1][byte];
            tables[behind][byte] = (before << 8) ^ tables[0][(before >> 8) as usize];
            byte += 1;
        }
        behind += 1;
    }
    tables
}

const fn crc16_table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = (i as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value and examples of the Redis Cluster specification.
    #[test]
    fn slots_are_those_of_redis_cluster() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of_key(b"foo"), Slot(12182));
        assert_eq!(slot_of_key(b""), Slot(0));
        assert_eq!(slot_of_key(b"{user1000}.following"), slot_of_key(b"{user1000}.followers"));
        assert_eq!(slot_of_key(b"foo{}{bar}"), Slot(crc16(b"foo{}{bar}") % SLOTS));
        assert_eq!(slot_of_key(b"foo{{bar}}zap"), slot_of_key(b"{bar"));
        assert_eq!(slot_of_key(b"foo{bar}{zap}"), slot_of_key(b"bar"));
    }

    #[test]
    fn eight_bytes_at_a_time_are_as_good_as_one() {
        let bytes: Vec<u8> = (0..200u32).map(|i| (i * 151 + i / 7) as u8).collect();
        for start in 0..9 {
            for end in start..bytes.len() {
                let part = &bytes[start..end];
                let one = |crc: u16, &byte: &u8| (crc << 8) ^ CRC16[0][usize::from((crc >> 8) as u8 ^ byte)];
                assert_eq!(crc16(part), part.iter().fold(0, one));
                assert_eq!(has_brace(part), part.contains(&b'{'));
            }
        }
    }

    #[test]
    fn partitions_cover_the_slots_once() {
        for partitions in [1, 2, 8, 1024, 16384] {
            let mut next = 0u32;
            for partition in (0..partitions).map(PartitionId) {
                let (first, last) = slots_of_partition(partition, partitions);
                assert_eq!(u32::from(first.0), next);
                assert_eq!(partition_of_slot(first, partitions), partition);
                assert_eq!(partition_of_slot(last, partitions), partition);
                next = u32::from(last.0) + 1;
            }
            assert_eq!(next, u32::from(SLOTS));
        }
    }
}
