//! How a line becomes arguments, and bytes become a line: the quoting rules of redis-cli.
//!
//! Words are separated by blanks. In double quotes `\n`, `\r`, `\t`, `\b`, `\a`, `\xHH` and a backslash before any other
//! character mean what they do in C; in single quotes only `\'` does. After a closing quote comes a blank or the end.

use thiserror::Error;

/// A line whose quotes do not match.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("Invalid argument(s): quotes do not match")]
pub(crate) struct Unbalanced;

/// The arguments of a line.
pub(crate) fn split(line: impl AsRef<[u8]>) -> Result<Vec<Vec<u8>>, Unbalanced> {
    let mut rest = line.as_ref();
    let mut words = Vec::new();
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Ok(words);
        }
        let (word, after) = word(rest)?;
        words.push(word);
        rest = after;
    }
}

fn word(mut rest: &[u8]) -> Result<(Vec<u8>, &[u8]), Unbalanced> {
    let mut word = Vec::new();
    while let Some((&byte, after)) = rest.split_first() {
        match byte {
            byte if byte.is_ascii_whitespace() => break,
            b'"' | b'\'' => {
                let after = if byte == b'"' { double(after, &mut word)? } else { single(after, &mut word)? };
                if after.first().is_some_and(|next| !next.is_ascii_whitespace()) {
                    return Err(Unbalanced);
                }
                return Ok((word, after));
            }
            _ => {
                word.push(byte);
                rest = after;
            }
        }
    }
    Ok((word, rest))
}

fn double<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|value| value as u8);
    loop {
        match rest {
            [b'"', after @ ..] => return Ok(after),
            [b'\\', b'x', high, low, after @ ..] if digit(*high).is_some() && digit(*low).is_some() => {
                word.push(digit(*high).unwrap_or(0) << 4 | digit(*low).unwrap_or(0));
                rest = after;
            }
            [b'\\', byte, after @ ..] => {
                word.push(match byte {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    &other => other,
                });
                rest = after;
            }
            [byte, after @ ..] => {
                word.push(*byte);
                rest = after;
            }
            [] => return Err(Unbalanced),
        }
    }
}

fn single<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        match rest {
            [b'\'', after @ ..] => return Ok(after),
            [b'\\', b'\'', after @ ..] => {
                word.push(b'\'');
                rest = after;
            }
            [byte, after @ ..] => {
                word.push(*byte);
                rest = after;
            }
            [] => return Err(Unbalanced),
        }
    }
}

/// Bytes in double quotes, on one line, so that [`split`] reads them back. Bytes beyond ASCII are escaped.
pub(crate) fn quote(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => text.extend(['\\', byte as char]),
            b'\n' => text += "\\n",
            b'\r' => text += "\\r",
            b'\t' => text += "\\t",
            8 => text += "\\b",
            7 => text += "\\a",
            b' '..=b'~' => text.push(byte as char),
            _ => text += &format!("\\x{byte:02x}"),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        split(line).unwrap().iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }

    #[test]
    fn lines_split_as_in_redis_cli() {
        assert_eq!(words("  set  a\tb "), ["set", "a", "b"]);
        assert_eq!(words(r#"set k "a b\n\x41\"" 'it\'s \n'"#), ["set", "k", "a b\nA\"", r"it's \n"]);
        assert_eq!(words(r#""" ''"#), ["", ""]);
        assert_eq!(words(r#"foo"bar""#), ["foobar"]);
        assert!(words("   ").is_empty());
        for bad in [r#""a"#, "'a", r#""a"b"#, r#"'a'b"#, "\"\\"] {
            assert_eq!(split(bad), Err(Unbalanced), "{bad}");
        }
    }

    #[test]
    fn what_is_quoted_reads_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(split(quote(&all)).unwrap(), [all]);
        assert_eq!(quote(b"a\"b\x00"), r#""a\"b\x00""#);
    }
}
