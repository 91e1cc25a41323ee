//! BITCOUNT: how many bits of a string are set. And how a range of bytes or bits is asked for, for BITPOS too.

use super::{integer, is, string_of};
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Over, Reply};
use std::ops::Range;
use storage::Keyspace;

/// BITCOUNT key [start end [BYTE | BIT]]
pub(crate) const COMMAND: Command = Command {
    name: "bitcount",
    syntax: "key [start end [BYTE | BIT]]",
    arity: -2,
    flags: Flags::READONLY,
    keys: KeySpec::ONE,
    group: "bitmap",
    since: "2.6.0",
    complexity: "O(N), N the bytes of the range",
    summary: "How many bits of a string, or of a range of its bytes or bits, are set. A negative place counts from the end.",
    categories: Categories::READ.with(Categories::BITMAP).with(Categories::SLOW),
    handler: Handler::Keys { run, over: Over::One },
    ..Command::BASE
};

/// Whether a range is of bits: the word behind its end.
pub(super) fn is_of_bits(unit: &[u8]) -> Result<bool, CommandError> {
    match () {
        () if is(unit, "bit") => Ok(true),
        () if is(unit, "byte") => Ok(false),
        () => Err(CommandError::Syntax),
    }
}

/// The bits from `start` to `end`, both included, of a string of `bytes`. Places count bytes or bits, from the end
/// where they are negative. Empty where nothing lies between.
pub(super) fn bits_between(start: i64, end: i64, of_bits: bool, bytes: usize) -> Range<u64> {
    let unit = if of_bits { 1 } else { 8 };
    // A string's bits fit 33 bits.
    let total = (bytes * 8 / unit) as i64;
    let from_end = |place: i64| if place < 0 { place.saturating_add(total).max(0) } else { place };
    let (start, end) = (from_end(start), from_end(end).min(total - 1));
    if start > end { 0..0 } else { (start as u64 * unit as u64)..((end + 1) as u64 * unit as u64) }
}

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    // An absent key is the reply before anything is read, as in Redis 7.0.
    let Some(entry) = keyspace.get(args[1]) else { return Ok(Reply::Integer(0)) };
    let value = string_of(entry.value)?;
    let bits = match args[2..] {
        [] => 0..value.len() as u64 * 8,
        [start, end, ref unit @ ..] if unit.len() < 2 => {
            let (start, end) = (integer(start)?, integer(end)?);
            // Both from the end and the wrong way round: nothing, also where they would be cut to the same place. And before the
            // unit is looked at, as in Redis 7.0.
            if start < 0 && end < 0 && start > end {
                return Ok(Reply::Integer(0));
            }
            let of_bits = unit.first().map_or(Ok(false), |unit| is_of_bits(unit))?;
            bits_between(start, end, of_bits, value.len())
        }
        _ => return Err(CommandError::Syntax),
    };
    Ok(Reply::Integer(count(value, bits)))
}

/// How many of these bits are set.
fn count(value: &[u8], bits: Range<u64>) -> i64 {
    if bits.is_empty() {
        return 0;
    }
    let (first, last) = ((bits.start / 8) as usize, ((bits.end - 1) / 8) as usize);
    let ones = |bytes: &[u8]| {
        let (words, rest) = bytes.as_chunks::<8>();
        let words: u64 = words.iter().map(|&word| u64::from(u64::from_ne_bytes(word).count_ones())).sum();
        words + rest.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>()
    };
    // What the first and the last byte have outside.
    let before = value[first] & !(0xff >> (bits.start % 8));
    let after = value[last] & !(0xff << (7 - (bits.end - 1) % 8));
    (ones(&value[first..=last]) - u64::from(before.count_ones()) - u64::from(after.count_ones())) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::check;
    use proptest::prelude::*;

    #[test]
    fn bitcount() {
        check(&[
            ("", "bitcount a", "(integer) 0"),
            ("", "bitcount a x", "(integer) 0"),
            ("set a foobar", "bitcount a", "(integer) 26"),
            ("set a foobar", "bitcount a 0 0", "(integer) 4"),
            ("set a foobar", "bitcount a 1 1 BYTE", "(integer) 6"),
            ("set a foobar", "bitcount a 5 30 bit", "(integer) 17"),
            ("set a foobar", "bitcount a 5 3 bit", "(integer) 0"),
            ("set a foobar", "bitcount a -2 -1", "(integer) 7"),
            ("set a foobar", "bitcount a -100 -50", "(integer) 4"),
            ("set a foobar", "bitcount a -50 -100", "(integer) 0"),
            ("set a foobar", "bitcount a -1 -2 nonsense", "(integer) 0"),
            ("set a foobar", "bitcount a -9223372036854775808 9223372036854775807", "(integer) 26"),
            ("set a  px 50", "bitcount a 0 -1", "(integer) 0"),
        ]);
    }

    #[test]
    fn bitcount_refuses() {
        let syntax = "(error) ERR syntax error";
        let not_integer = "(error) ERR value is not an integer or out of range";
        check(&[
            ("set a 1", "bitcount a 1", syntax),
            ("set a 1", "bitcount a 0 1 nonsense", syntax),
            ("set a 1", "bitcount a 0 1 bit x", syntax),
            ("set a 1", "bitcount a x 1 nonsense", not_integer),
            ("set a 1", "bitcount a 0 x", not_integer),
        ]);
    }

    proptest! {
        #[test]
        fn ranges_are_counted_as_bit_by_bit(value: Vec<u8>, start in -300i64..300, end in -300i64..300, of_bits: bool) {
            let bits = bits_between(start, end, of_bits, value.len());
            let plain = bits.clone().filter(|at| value[(at / 8) as usize] & (0x80 >> (at % 8)) != 0).count();
            prop_assert_eq!(count(&value, bits), plain as i64);
        }
    }
}
