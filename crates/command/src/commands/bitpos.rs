//! BITPOS: where the first bit of a string lies that is set, or that is not.

use super::bitcount::{bits_between, is_of_bits};
use super::{integer, string_of};
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Over, Reply};
use std::ops::Range;
use storage::Keyspace;

/// BITPOS key bit [start [end [BYTE | BIT]]]
pub(crate) const COMMAND: Command = Command {
    name: "bitpos",
    syntax: "key bit [start [end [BYTE | BIT]]]",
    arity: -3,
    flags: Flags::READONLY,
    keys: KeySpec::ONE,
    group: "bitmap",
    since: "2.8.7",
    complexity: "O(N), N the bytes of the range",
    summary: "Where the first bit that is 1, or 0, lies in a string or in a range of its bytes or bits; -1 where there is none. Without an end zeros follow the string.",
    categories: Categories::READ.with(Categories::BITMAP).with(Categories::SLOW),
    handler: Handler::Keys { run, over: Over::One },
    ..Command::BASE
};

fn run<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    let wanted = match integer(args[2])? {
        0 => false,
        1 => true,
        _ => return Err(CommandError::Other("ERR The bit argument must be 1 or 0.".into())),
    };
    // An absent key is zeros without end, whatever the range says, as in Redis 7.0.
    let Some(entry) = keyspace.get(args[1]) else {
        return Ok(Reply::Integer(if wanted { -1 } else { 0 }));
    };
    let value = string_of(entry.value)?;
    let range = &args[3..];
    if range.len() > 3 {
        return Err(CommandError::Syntax);
    }
    // In the order in which Redis finds fault with them.
    let start = range.first().map_or(Ok(0), |start| integer(start))?;
    let of_bits = range.get(2).map_or(Ok(false), |unit| is_of_bits(unit))?;
    let end = range.get(1).map_or(Ok(-1), |end| integer(end))?;
    let bits = bits_between(start, end, of_bits, value.len());
    Ok(Reply::Integer(match find(value, bits.clone(), wanted) {
        Some(at) => at as i64,
        // The zeros behind the string count where no end was given.
        None if !wanted && range.len() < 2 && !bits.is_empty() => bits.end as i64,
        None => -1,
    }))
}

/// The first of these bits that is `wanted`.
fn find(value: &[u8], bits: Range<u64>, wanted: bool) -> Option<u64> {
    if bits.is_empty() {
        return None;
    }
    let (first, last) = ((bits.start / 8) as usize, ((bits.end - 1) / 8) as usize);
    // A byte with what is wanted as ones, and nothing of what lies before the range.
    let ones = |at: usize| {
        let byte = if wanted { value[at] } else { !value[at] };
        if at == first { byte & (0xff >> (bits.start % 8)) } else { byte }
    };
    let barren = if wanted { 0 } else { 0xff };
    let at = match ones(first) {
        0 => first + 1 + value[first + 1..=last].iter().position(|&byte| byte != barren)?,
        _ => first,
    };
    let found = at as u64 * 8 + u64::from(ones(at).leading_zeros());
    (found < bits.end).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::check;
    use proptest::prelude::*;

    #[test]
    fn bitpos() {
        check(&[
            ("", "bitpos a 0", "(integer) 0"),
            ("", "bitpos a 1", "(integer) -1"),
            ("", "bitpos a 1 x", "(integer) -1"),
            ("set a A", "bitpos a 1", "(integer) 1"),
            ("set a A", "bitpos a 0 0 -1 bit", "(integer) 0"),
            ("set a A", "bitpos a 1 2 7 BIT", "(integer) 7"),
            ("set a A", "bitpos a 1 2 6 bit", "(integer) -1"),
            ("set a A", "bitpos a 1 1", "(integer) -1"),
            ("set a A", "bitpos a 1 7 2 bit", "(integer) -1"),
            ("set a AAA", "bitpos a 1 1 2", "(integer) 9"),
            ("set a  px 50", "bitpos a 0", "(integer) -1"),
        ]);
    }

    #[test]
    fn bitpos_refuses() {
        let syntax = "(error) ERR syntax error";
        let not_integer = "(error) ERR value is not an integer or out of range";
        check(&[
            ("", "bitpos a 2", "(error) ERR The bit argument must be 1 or 0."),
            ("", "bitpos a x", not_integer),
            ("set a 1", "bitpos a 1 x 1 nonsense", not_integer),
            ("set a 1", "bitpos a 1 0 x nonsense", syntax),
            ("set a 1", "bitpos a 1 0 x bit", not_integer),
            ("set a 1", "bitpos a 1 0 1 bit x", syntax),
        ]);
    }

    proptest! {
        #[test]
        fn the_first_bit_is_found_as_bit_by_bit(
            // Mostly bytes of one kind, so that the search goes far.
            value in proptest::collection::vec(prop_oneof![4 => Just(0u8), 4 => Just(0xff), 1 => any::<u8>()], 0..20),
            start in -200i64..200, end in -200i64..200, of_bits: bool, wanted: bool,
        ) {
            let bits = bits_between(start, end, of_bits, value.len());
            let mut plain = bits.clone();
            let plain = plain.find(|at| (value[(at / 8) as usize] & (0x80 >> (at % 8)) != 0) == wanted);
            prop_assert_eq!(find(&value, bits, wanted), plain);
        }
    }
}
