//! The numbers and strings that records, effects and snapshots are made of.
//!
//! Small numbers are LEB128 varints in their shortest form, so that equal values have equal bytes. Versions are
//! eight bytes, little-endian: a hybrid clock fills them anyway. A reader hands out slices of what it was given
//! and never allocates.

use thiserror::Error;

/// Bytes that do not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("corrupt bytes: {what}")]
pub struct Corrupt {
    /// What was wrong with them.
    pub what: &'static str,
}

/// Appends a number as a varint: seven bits a byte, the lowest first, the top bit set on all but the last.
pub(crate) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// How many bytes [`put_number`] appends.
pub(crate) fn number_bytes(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends a string: its length, then its bytes.
pub(crate) fn put_string(out: &mut Vec<u8>, string: &[u8]) {
    put_number(out, string.len() as u64);
    out.extend_from_slice(string);
}

/// Takes values off the front of a slice.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    /// What is still unread.
    pub rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn byte(&mut self) -> Result<u8, Corrupt> {
        let (&first, rest) = self.rest.split_first().ok_or(Corrupt { what: "ends early" })?;
        self.rest = rest;
        Ok(first)
    }

    pub fn number(&mut self) -> Result<u64, Corrupt> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Corrupt { what: "a number above 64 bits" });
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(Corrupt { what: "a number not in its shortest form" });
                }
                return Ok(number);
            }
        }
        Err(Corrupt { what: "a number above 64 bits" })
    }

    /// A number that its type bounds.
    pub fn number_to<T: TryFrom<u64>>(&mut self) -> Result<T, Corrupt> {
        T::try_from(self.number()?).map_err(|_| Corrupt { what: "a number above its range" })
    }

    pub fn fixed(&mut self) -> Result<u64, Corrupt> {
        let (first, rest) = self.rest.split_first_chunk::<8>().ok_or(Corrupt { what: "ends early" })?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*first))
    }

    pub fn string(&mut self) -> Result<&'a [u8], Corrupt> {
        let length: usize = self.number_to()?;
        let (string, rest) =
            self.rest.split_at_checked(length).ok_or(Corrupt { what: "a length beyond the end" })?;
        self.rest = rest;
        Ok(string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_read_back_at_their_stated_length(number: u64, shift in 0u32..64) {
            let number = number >> shift;
            let mut out = Vec::new();
            put_number(&mut out, number);
            prop_assert_eq!(out.len(), number_bytes(number));
            let mut reader = Reader { rest: &out };
            prop_assert_eq!(reader.number(), Ok(number));
            prop_assert!(reader.rest.is_empty());
            out.pop();
            let mut cut = Reader { rest: &out };
            prop_assert!(cut.number().is_err());
        }
    }

    #[test]
    fn long_forms_and_overflows_are_refused() {
        let read = |rest: &[u8]| Reader { rest }.number();
        assert_eq!(read(&[0]), Ok(0));
        assert!(read(&[0x80, 0]).is_err(), "0 in two bytes");
        assert!(read(&[0xff; 10]).is_err());
        assert_eq!(read(&[255, 255, 255, 255, 255, 255, 255, 255, 255, 1]), Ok(u64::MAX));
        assert!(read(&[255, 255, 255, 255, 255, 255, 255, 255, 255, 2]).is_err());
        assert!(Reader { rest: &[0xff, 0xff, 0xff, 0xff, 0x0f, 1] }.string().is_err());
    }
}
