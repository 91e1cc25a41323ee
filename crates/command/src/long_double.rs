//! Floating-point numbers of the width in which Redis reckons `INCRBYFLOAT`: 64 bits of fraction, 15 of exponent.
//!
//! That is C's `long double` on x86-64. With the 53 bits of `f64`, 10.5 and 0.1 would show as 10.59999999999999964. A
//! number is read as the nearest there is, added with one rounding, and written with 17 places; all rounding is to
//! nearest, ties to even, as the processor and C's library do it. Left out: infinity, which no caller may keep.

use std::cmp::Ordering;

/// The longest text that is read, in bytes (Redis: `MAX_LONG_DOUBLE_CHARS`, its end included).
const TEXT_BYTES_MAX: usize = 5 * 1024 - 1;
/// Of the numbers nearest to zero, 1 is this power of two.
const EXPONENT_MIN: i64 = -16445;
/// Of the largest numbers, the last bit is this power of two.
const EXPONENT_MAX: i64 = 16320;
/// The places behind the point that are written.
const PLACES: usize = 17;

/// A finite number: fraction times two to the exponent. The fraction's highest bit is set, or the exponent is the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LongDouble {
    negative: bool,
    fraction: u64,
    exponent: i64,
}

/// What a text says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    Finite(LongDouble),
    /// Of either sign, and spelled out: a number that is too large is none.
    Infinite,
}

impl LongDouble {
    pub(crate) const ZERO: LongDouble = LongDouble { negative: false, fraction: 0, exponent: EXPONENT_MIN };

    /// The nearest to `value` (and a bit more, if `more`) times two to the exponent; `None` if that is too large.
    fn nearest(negative: bool, value: u128, more: bool, exponent: i64) -> Option<LongDouble> {
        let bits = i64::from(u128::BITS - value.leading_zeros());
        if bits == 0 {
            return Some(LongDouble { negative, ..LongDouble::ZERO });
        }
        let mut target = (exponent + bits - 64).max(EXPONENT_MIN);
        let mut fraction = match target - exponent {
            // Exact: there are fewer than 64 bits, and the exponent falls.
            shift @ ..=0 => value << shift.unsigned_abs().min(127),
            shift => shift_right(value, more, shift.unsigned_abs()),
        };
        if fraction >> 64 != 0 {
            fraction >>= 1;
            target += 1;
        }
        (target <= EXPONENT_MAX).then_some(LongDouble {
            negative,
            fraction: fraction as u64,
            exponent: target,
        })
    }

    /// The sum; `None` if it is too large.
    pub(crate) fn add(self, other: LongDouble) -> Option<LongDouble> {
        let (large, small) = if (self.exponent, self.fraction) >= (other.exponent, other.fraction) {
            (self, other)
        } else {
            (other, self)
        };
        // 63 bits below the larger one's last. Where bits of the smaller fall off those, the smaller is so much
        // smaller that its last bit can stand for them.
        let gap = large.exponent.abs_diff(small.exponent);
        let wide = u128::from(small.fraction) << 63;
        let shifted = if gap < 128 { wide >> gap } else { 0 };
        let lost = if gap < 128 { shifted << gap != wide } else { wide != 0 };
        let (a, b) = (u128::from(large.fraction) << 63, shifted | u128::from(lost));
        let sum = if large.negative == small.negative { a + b } else { a - b };
        LongDouble::nearest(large.negative, sum, false, large.exponent - 63)
    }
}

/// `value` without its last bits, rounded to nearest, ties to even; `more`: there is something behind its last bit.
fn shift_right(value: u128, more: bool, bits: u64) -> u128 {
    if bits > 128 {
        return 0;
    }
    let kept = if bits == 128 { 0 } else { value >> bits };
    let lost = if bits == 128 { value } else { value & ((1 << bits) - 1) };
    let up = match lost.cmp(&(1 << (bits - 1))) {
        Ordering::Less => false,
        Ordering::Equal => more || kept & 1 == 1,
        Ordering::Greater => true,
    };
    kept + u128::from(up)
}

/// Reads a number as C's `strtold` does, with nothing before or after it; `None` for anything else, for what is too
/// large, and for what is not zero but too small to be told from it.
pub(crate) fn parse(text: &[u8]) -> Option<Parsed> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity") {
        return Some(Parsed::Infinite);
    }
    let (number, zero) = match text {
        [b'0', b'x' | b'X', rest @ ..] => {
            let Scanned { digits, exponent, places } = scan(rest, 16, b'p')?;
            let zero = digits.is_zero();
            (nearest_ratio(negative, digits, Big::from(1), exponent - 4 * places), zero)
        }
        _ => {
            let Scanned { mut digits, exponent, places } = scan(text, 10, b'e')?;
            let zero = digits.is_zero();
            let exponent = exponent - places;
            // What lies outside is too large or too small whatever its digits, of which there are 5119 at most.
            let power = exponent.clamp(-11_000, 6_000);
            let mut divisor = Big::from(1);
            if power < 0 { &mut divisor } else { &mut digits }.times_power_of_ten(power.unsigned_abs());
            (nearest_ratio(negative, digits, divisor, 0), zero)
        }
    };
    number.filter(|number| zero || number.fraction != 0).map(Parsed::Finite)
}

struct Scanned {
    /// All digits, those behind the point included.
    digits: Big,
    /// What the exponent's letter was followed by.
    exponent: i64,
    /// How many digits there are behind the point.
    places: i64,
}

fn scan(text: &[u8], radix: u32, letter: u8) -> Option<Scanned> {
    let mark = text.iter().position(|byte| byte.to_ascii_lowercase() == letter);
    let (text, exponent) = match mark {
        Some(at) => (&text[..at], parse_exponent(&text[at + 1..])?),
        None => (text, 0),
    };
    let mut digits = Big::from(0);
    let (mut count, mut places) = (0, None);
    for &byte in text {
        if byte == b'.' && places.is_none() {
            places = Some(0);
            continue;
        }
        digits.times_plus(radix, char::from(byte).to_digit(radix)?);
        count += 1;
        places = places.map(|places| places + 1);
    }
    (count > 0).then_some(Scanned { digits, exponent, places: places.unwrap_or(0) })
}

/// Exponents beyond all numbers are cut to some that are, too.
fn parse_exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value =
        digits.iter().fold(0i64, |value, digit| (value * 10 + i64::from(digit - b'0')).min(1_000_000));
    Some(if negative { -value } else { value })
}

/// The number nearest to a quotient times two to the exponent; `None` if that is too large.
fn nearest_ratio(negative: bool, mut top: Big, mut bottom: Big, exponent: i64) -> Option<LongDouble> {
    if top.is_zero() {
        return Some(LongDouble { negative, ..LongDouble::ZERO });
    }
    // So that the quotient has 100 bits or 101, of which 64 count.
    let shift = 100 - (top.bits() as i64 - bottom.bits() as i64);
    if shift > 0 { &mut top } else { &mut bottom }.shift_left(shift.unsigned_abs() as usize);
    let (quotient, rest) = top.divide(bottom, 101);
    LongDouble::nearest(negative, quotient, rest, exponent - shift)
}

/// Writes a number with 17 places behind the point, and leaves out zeros at its end (Redis: `ld2string`, for people).
pub(crate) fn format(number: LongDouble) -> String {
    let LongDouble { negative, fraction, exponent } = number;
    let mut text = if exponent >= 0 {
        let mut whole = Big::from(fraction);
        whole.shift_left(exponent as usize);
        whole.decimal()
    } else {
        let scaled = u128::from(fraction) * 10u128.pow(PLACES as u32);
        let digits =
            format!("{:0>width$}", shift_right(scaled, false, exponent.unsigned_abs()), width = PLACES + 1);
        let (whole, places) = digits.split_at(digits.len() - PLACES);
        format!("{whole}.{places}").trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    if negative && text != "0" {
        text.insert(0, '-');
    }
    text
}

/// A natural number of any size: groups of 32 bits, the lowest first, and no zeros at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Big(Vec<u32>);

impl Big {
    fn from(value: u64) -> Big {
        let mut big = Big(vec![value as u32, (value >> 32) as u32]);
        big.trim();
        big
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn bits(&self) -> usize {
        self.0.last().map_or(0, |last| self.0.len() * 32 - last.leading_zeros() as usize)
    }

    fn times_plus(&mut self, factor: u32, summand: u32) {
        let mut carry = u64::from(summand);
        for group in &mut self.0 {
            carry += u64::from(*group) * u64::from(factor);
            *group = carry as u32;
            carry >>= 32;
        }
        if carry != 0 {
            self.0.push(carry as u32);
        }
    }

    fn times_power_of_ten(&mut self, power: u64) {
        for _ in 0..power / 9 {
            self.times_plus(1_000_000_000, 0);
        }
        self.times_plus(10u32.pow((power % 9) as u32), 0);
    }

    fn shift_left(&mut self, bits: usize) {
        if self.is_zero() {
            return;
        }
        self.times_plus(1 << (bits % 32), 0);
        self.0.splice(0..0, std::iter::repeat_n(0, bits / 32));
    }

    fn halve(&mut self) {
        let mut carry = 0;
        for group in self.0.iter_mut().rev() {
            let low = *group & 1;
            *group = *group >> 1 | carry << 31;
            carry = low;
        }
        self.trim();
    }

    fn compare(&self, other: &Big) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }

    /// Takes away a number that is not larger.
    fn subtract(&mut self, other: &Big) {
        let mut borrow = false;
        for (at, group) in self.0.iter_mut().enumerate() {
            let (part, first) = group.overflowing_sub(other.0.get(at).copied().unwrap_or(0));
            let (part, second) = part.overflowing_sub(u32::from(borrow));
            *group = part;
            borrow = first || second;
        }
        self.trim();
    }

    /// The quotient, of `bits` bits at most, and whether something is left.
    fn divide(mut self, mut by: Big, bits: usize) -> (u128, bool) {
        by.shift_left(bits);
        let mut quotient = 0;
        for _ in 0..bits {
            by.halve();
            quotient <<= 1;
            if self.compare(&by) != Ordering::Less {
                self.subtract(&by);
                quotient |= 1;
            }
        }
        (quotient, !self.is_zero())
    }

    fn decimal(mut self) -> String {
        let mut groups = Vec::new();
        while !self.is_zero() {
            let mut rest = 0;
            for group in self.0.iter_mut().rev() {
                let value = rest << 32 | u64::from(*group);
                *group = (value / 1_000_000_000) as u32;
                rest = value % 1_000_000_000;
            }
            self.trim();
            groups.push(rest);
        }
        let mut text = groups.pop().unwrap_or(0).to_string();
        groups.iter().rev().for_each(|group| text += &format!("{group:09}"));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(text: &str) -> LongDouble {
        match parse(text.as_bytes()) {
            Some(Parsed::Finite(number)) => number,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn numbers_are_read_and_written() {
        for (text, written) in [
            ("0", "0"),
            ("-0", "0"),
            ("+1", "1"),
            (".5", "0.5"),
            ("5.", "5"),
            ("-1.50", "-1.5"),
            ("3e3", "3000"),
            ("3E-3", "0.003"),
            ("0x1P3", "8"),
            ("-0x.8", "-0.5"),
            ("0e9999999999999999999999", "0"),
            ("1e22", "10000000000000000000000"),
            ("3.14159265358979323846", "3.14159265358979324"),
            ("5e-18", "0"),
            ("1.5e-17", "0.00000000000000002"),
            ("1e-4950", "0"),
            ("0x1.8p-16446", "0"),
            ("18446744073709551615", "18446744073709551615"),
            ("18446744073709551617", "18446744073709551616"),
            ("18446744073709551619", "18446744073709551620"),
        ] {
            assert_eq!(format(number(text)), written, "{text}");
        }
        let large = format(number("1e4932"));
        assert_eq!(large.len(), 4933);
        assert!(large.starts_with("10000000000000000000060189493879638913238377742545331147737"));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for bad in [
            "",
            "-",
            "+",
            ".",
            "e1",
            "1e",
            "1e+",
            "1e1.5",
            "1.2.3",
            "--1",
            " 1",
            "1 ",
            "1x",
            "0x",
            "0x.",
            "0x1p",
            "0x1g",
            "nan",
            "-nan",
            "nan(1)",
            "infinit",
            "1e5000",
            "1e-5000",
            "1e-4951",
            "0x1p-16446",
            "0x1p16384",
            "1\0",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        for text in ["inf", "-INF", "+Infinity"] {
            assert_eq!(parse(text.as_bytes()), Some(Parsed::Infinite), "{text}");
        }
        assert!(parse(&[b'1'; TEXT_BYTES_MAX]).is_none(), "too large");
        assert!(parse(&[b'0'; TEXT_BYTES_MAX]).is_some());
        assert!(parse(&[b'0'; TEXT_BYTES_MAX + 1]).is_none());
    }

    #[test]
    fn sums_are_rounded_once() {
        for (a, b, sum) in [
            ("10.5", "0.1", "10.6"),
            ("0.1", "0.2", "0.3"),
            ("3", "1.000000000000000005", "4.00000000000000001"),
            ("1e20", "0.3", "100000000000000000000"),
            ("18446744073709551615", "0.5", "18446744073709551616"),
            ("18446744073709551615", "0.25", "18446744073709551615"),
            ("9223372036854775808", "-0.25", "9223372036854775808"),
            ("9223372036854775808", "-0.75", "9223372036854775807"),
            ("5", "-5", "0"),
            ("-5", "3.5", "-1.5"),
            ("1", "-1e-4950", "1"),
            ("0", "-1e-30", "0"),
        ] {
            assert_eq!(number(a).add(number(b)).map(format).as_deref(), Some(sum), "{a} + {b}");
            assert_eq!(number(b).add(number(a)).map(format).as_deref(), Some(sum), "{b} + {a}");
        }
        assert_eq!(number("1e4932").add(number("1e4932")), None);
    }

    proptest! {
        #[test]
        fn integers_are_exact(a: i64, b: i64) {
            let sum = i128::from(a) + i128::from(b);
            let got = number(&a.to_string()).add(number(&b.to_string())).map(format);
            prop_assert_eq!(got, Some(sum.to_string()));
        }

        #[test]
        fn any_bytes_are_read_or_refused(text in "[-+]?(0x)?[0-9a-f.]{0,30}([ep][-+]?[0-9]{0,6})?") {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn doubles_are_exact(value in any::<f64>().prop_filter("finite", |value| value.is_finite())) {
            let read = number(&format!("{value:e}"));
            // Right between two doubles by its own rounding: which of them was meant it cannot tell any more.
            prop_assume!(read.fraction & 0x7ff != 0x400);
            // As many bits as a double has, and the double is what was read.
            let nearest = LongDouble::nearest(read.negative, shift_right(u128::from(read.fraction), false, 11), false, read.exponent + 11);
            let bits = value.abs().to_bits();
            let (fraction, exponent) = match (bits >> 52) as i64 {
                0 => (bits, -1074),
                exponent => (bits & ((1 << 52) - 1) | 1 << 52, exponent - 1075),
            };
            let exact = LongDouble::nearest(value.is_sign_negative(), fraction.into(), false, exponent);
            if bits >> 52 != 0 {
                prop_assert_eq!(nearest, exact);
            }
        }
    }
}
