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

fn tag_of_key(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&b| b == b'{') else { return key };
    let rest = &key[open + 1..];
    match rest.iter().position(|&b| b == b'}') {
        Some(close) if close > 0 => &rest[..close],
        _ => key,
    }
}

/// The partition that a slot belongs to. `partitions` is a power of two up to 16384.
pub fn partition_of_slot(slot: Slot, partitions: u16) -> PartitionId {
    PartitionId(slot.0 / (SLOTS / partitions))
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

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| (crc << 8) ^ CRC16[((crc >> 8) ^ u16::from(byte)) as usize])
}

static CRC16: [u16; 256] = crc16_table();

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
