//! Bytes with large values in them, compressed as one block of LZ4: in snapshot chunks, and in what nodes send each other.
//!
//! A block does not say how long it was, so its format says so beside it. A reader refuses a length that the block cannot come
//! to, and takes memory for what comes out of it, not for what was declared.
//!
//! Left out: when to compress. Who has the values knows whether one of them is large.

use crate::codec::Corrupt;
use crate::lent::HUGE_BYTES;
use lz4_flex::block::{DecompressError, compress, decompress_into};

/// Values of no more bytes are left as they are: they gain little, and would be what makes reading slow.
pub const LARGE_VALUE_BYTES: usize = 4 << 10;
/// What has more bytes is not compressed, since that would take a hundredth of a second.
pub const COMPRESSED_BYTES_MAX: usize = HUGE_BYTES;
/// The most bytes that a byte of a block of LZ4 can stand for.
const LZ4_GAIN_MAX: usize = 255;

/// The block that these bytes become. `None`: it would save less than an eighth, or take too long.
pub fn compressed(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() > COMPRESSED_BYTES_MAX {
        return None;
    }
    let block = compress(bytes);
    (block.len() <= bytes.len() / 8 * 7).then_some(block)
}

/// Decompresses a block that comes to so many bytes, which are no more than are ever compressed.
pub fn decompress(block: &[u8], length: usize) -> Result<Vec<u8>, Corrupt> {
    const WRONG: Corrupt = Corrupt { what: "a compressed block that does not come to its length" };
    if length > COMPRESSED_BYTES_MAX.min(block.len().saturating_mul(LZ4_GAIN_MAX)) {
        return Err(WRONG);
    }
    let mut room = length.min(block.len().saturating_mul(4));
    loop {
        let mut out = vec![0; room];
        match decompress_into(block, &mut out) {
            Ok(written) if written == length => return Ok(out),
            Err(DecompressError::OutputTooSmall { .. }) if room < length => {
                room = length.min(room.saturating_mul(2))
            }
            _ => return Err(WRONG),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_block_comes_to_its_length_and_no_other() {
        let bytes: Vec<u8> = (0..20_000u32).flat_map(|number| (number / 100).to_le_bytes()).collect();
        let block = compressed(&bytes).unwrap();
        assert!(block.len() < bytes.len() / 8);
        assert_eq!(decompress(&block, bytes.len()).as_ref(), Ok(&bytes));
        for wrong in [0, 1, bytes.len() - 1, bytes.len() + 1, 2 * bytes.len(), usize::MAX] {
            assert!(decompress(&block, wrong).is_err(), "{wrong}");
        }
        for cut in 0..block.len() {
            assert!(decompress(&block[..cut], bytes.len()).is_err(), "{cut}");
        }
    }

    #[test]
    fn what_saves_too_little_or_is_huge_stays_as_it_is() {
        assert_eq!(compressed(b"short"), None);
        assert!(compressed(&vec![0; COMPRESSED_BYTES_MAX]).is_some());
        assert_eq!(compressed(&vec![0; COMPRESSED_BYTES_MAX + 1]), None);
    }

    proptest! {
        #[test]
        fn any_block_decompresses_or_not_without_a_panic(block: Vec<u8>, length in 0usize..100_000) {
            if let Ok(bytes) = decompress(&block, length) {
                prop_assert_eq!(bytes.len(), length);
            }
        }
    }
}
