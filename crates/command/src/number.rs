//! Numbers as Redis reads and writes them.
//!
//! An integer is accepted in its one canonical form only: no leading zero, no plus, no blank. So a number that was
//! read and written again is the same text.

/// Reads a signed 64-bit integer; `None` where the text is anything else (Redis: `string2ll`).
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut value = 0u64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        // At most 19 digits: no overflow of 64 bits without a sign.
        value = value * 10 + u64::from(digit - b'0');
    }
    if negative { 0i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
}

/// The decimal digits of an integer, without an allocation.
#[derive(Clone, Copy, Debug)]
pub struct Digits {
    bytes: [u8; 20],
    start: usize,
}

impl Digits {
    /// The digits of `value`.
    pub fn new(value: i64) -> Digits {
        let mut digits = Digits { bytes: [0; 20], start: 20 };
        let mut rest = value.unsigned_abs();
        loop {
            digits.start -= 1;
            digits.bytes[digits.start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            digits.start -= 1;
            digits.bytes[digits.start] = b'-';
        }
        digits
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// Appends the digits of `value`.
pub fn write_i64(value: i64, out: &mut Vec<u8>) {
    if (0..10).contains(&value) {
        out.push(b'0' + value as u8);
    } else {
        out.extend_from_slice(Digits::new(value).as_bytes());
    }
}

/// A floating-point number as RESP writes it: the shortest text that reads back the same.
pub fn format_f64(value: f64) -> String {
    if value.is_nan() {
        "nan".into()
    } else if value.is_infinite() {
        if value > 0.0 { "inf".into() } else { "-inf".into() }
    } else if value != 0.0 && !(1e-5..1e17).contains(&value.abs()) {
        format!("{value:e}")
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_canonical_form_is_an_integer() {
        assert_eq!(parse_i64(b"0"), Some(0));
        assert_eq!(parse_i64(b"-1"), Some(-1));
        assert_eq!(parse_i64(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(parse_i64(b"-9223372036854775808"), Some(i64::MIN));
        for bad in [
            "",
            "-",
            "-0",
            "00",
            "01",
            "+1",
            " 1",
            "1 ",
            "1.0",
            "1e3",
            "0x1",
            "a",
            "9223372036854775808",
            "-9223372036854775809",
            "18446744073709551616",
            "99999999999999999999999999",
        ] {
            assert_eq!(parse_i64(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn doubles_are_short() {
        for (value, text) in
            [(1.0, "1"), (0.1, "0.1"), (-0.5, "-0.5"), (1e300, "1e300"), (f64::INFINITY, "inf"), (0.0, "0")]
        {
            assert_eq!(format_f64(value), text);
        }
    }

    proptest! {
        #[test]
        fn integers_read_back(value: i64) {
            let digits = Digits::new(value);
            let text = value.to_string();
            prop_assert_eq!(digits.as_bytes(), text.as_bytes());
            prop_assert_eq!(parse_i64(digits.as_bytes()), Some(value));
        }

        #[test]
        fn doubles_read_back(value: f64) {
            prop_assert_eq!(format_f64(value).parse::<f64>().map(f64::to_bits).ok(), Some(value.to_bits()));
        }
    }
}
