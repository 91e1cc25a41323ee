//! Finding a command by its name, which is done for every request.
//!
//! Most names have eight bytes or fewer. Such a name is taken as one word, and compared in one step with that of the table,
//! in whatever case it was written. Both indexes are open-addressing tables, made when this is compiled.

use super::{Command, TABLE};

const SHORT_SIZE: usize = 512;
const LONG_SIZE: usize = 64;
const LONG_BYTES_MAX: usize = 24;
/// What tells a lower-case letter from its capital.
const CASE: u8 = 0x20;
const ALL_CASE: u64 = 0x2020_2020_2020_2020;

static INDEX: Index = build();

struct Index {
    /// Names of up to eight bytes.
    short: [Short; SHORT_SIZE],
    /// Longer names: place in the table plus one, or 0.
    long: [u8; LONG_SIZE],
}

/// A name of up to eight bytes.
#[derive(Clone, Copy)]
struct Short {
    /// In lower case, as [`word`] makes it. 0: nothing is here.
    word: u64,
    /// [`CASE`] in each byte that is a letter.
    letters: u64,
    len: u8,
    /// Its command's place in the table.
    row: u8,
}

/// The command with this name or alias, in either case.
#[inline]
pub fn lookup(name: &[u8]) -> Option<&'static Command> {
    let Some(word) = word(name) else { return lookup_long(name) };
    let mut at = place(word);
    loop {
        let found = &INDEX.short[at];
        if found.word == 0 {
            return None;
        }
        if word | found.letters == found.word && usize::from(found.len) == name.len() {
            return Some(&TABLE[usize::from(found.row)]);
        }
        at = (at + 1) % SHORT_SIZE;
    }
}

fn lookup_long(name: &[u8]) -> Option<&'static Command> {
    if name.len() > LONG_BYTES_MAX {
        return None;
    }
    let mut at = hash(name) % LONG_SIZE;
    loop {
        let row = usize::from(INDEX.long[at]).checked_sub(1)?;
        let command = &TABLE[row];
        if command.name.as_bytes().eq_ignore_ascii_case(name)
            || command.aliases.iter().any(|alias| alias.as_bytes().eq_ignore_ascii_case(name))
        {
            return Some(command);
        }
        at = (at + 1) % LONG_SIZE;
    }
}

/// A name of one to eight bytes as a word; `None` for others.
#[inline]
const fn word(name: &[u8]) -> Option<u64> {
    match *name {
        [a] => Some(a as u64),
        [a, b] => Some(a as u64 | (b as u64) << 8),
        [a, b, c] => Some(a as u64 | (b as u64) << 8 | (c as u64) << 16),
        // Its first four bytes and its last four, which may have some in common.
        [a, b, c, d, ..] if name.len() <= 8 => {
            let Some(last) = name.last_chunk::<4>() else { return None };
            let first = u32::from_le_bytes([a, b, c, d]) as u64;
            Some(first | (u32::from_le_bytes(*last) as u64) << (8 * (name.len() - 4)))
        }
        _ => None,
    }
}

/// Where to look for a word first.
#[inline]
const fn place(word: u64) -> usize {
    ((word | ALL_CASE).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SHORT_SIZE.trailing_zeros())) as usize
}

/// FNV-1a over the name, letters of either case being the same.
const fn hash(name: &[u8]) -> usize {
    let mut hash = 0x811c_9dc5u32;
    let mut at = 0;
    while at < name.len() {
        hash = (hash ^ (name[at] | CASE) as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    (hash ^ (hash >> 15)) as usize
}

const fn build() -> Index {
    let nothing = Short { word: 0, letters: 0, len: 0, row: 0 };
    let mut index = Index { short: [nothing; SHORT_SIZE], long: [0; LONG_SIZE] };
    let mut row = 0;
    while row < TABLE.len() {
        insert(&mut index, TABLE[row].name, row);
        let mut alias = 0;
        while alias < TABLE[row].aliases.len() {
            insert(&mut index, TABLE[row].aliases[alias], row);
            alias += 1;
        }
        row += 1;
    }
    index
}

const fn insert(index: &mut Index, name: &str, row: usize) {
    let name = name.as_bytes();
    assert!(name.len() <= LONG_BYTES_MAX && row < 255);
    let Some(word) = word(name) else {
        let mut at = hash(name) % LONG_SIZE;
        while index.long[at] != 0 {
            at = (at + 1) % LONG_SIZE;
        }
        index.long[at] = row as u8 + 1;
        return;
    };
    let mut letters = 0;
    let mut byte = 0;
    while byte < name.len() {
        assert!(!name[byte].is_ascii_uppercase());
        if name[byte].is_ascii_lowercase() {
            letters |= (CASE as u64) << (8 * byte);
        }
        byte += 1;
    }
    let mut at = place(word);
    while index.short[at].word != 0 {
        at = (at + 1) % SHORT_SIZE;
    }
    index.short[at] = Short { word, letters, len: name.len() as u8, row: row as u8 };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_either_case_and_nothing_near_it() {
        for command in TABLE {
            for name in std::iter::once(&command.name).chain(command.aliases) {
                let mixed: Vec<u8> =
                    (0..).zip(name.bytes()).map(|(at, b)| capital_if(at % 2 == 0, b)).collect();
                let upper = name.to_ascii_uppercase();
                for written in [name.as_bytes(), upper.as_bytes(), &mixed] {
                    assert_eq!(lookup(written).map(|found| found.name), Some(command.name));
                    for at in 0..8 * written.len() {
                        let mut near = written.to_vec();
                        near[at / 8] ^= 1 << (at % 8);
                        let meant = std::str::from_utf8(&near).unwrap_or_default().to_ascii_lowercase();
                        let is = |command: &&Command| {
                            command.name == meant || command.aliases.contains(&meant.as_str())
                        };
                        let expected = TABLE.iter().find(is).map(|command| command.name);
                        assert_eq!(lookup(&near).map(|found| found.name), expected, "{near:?}");
                    }
                    let longer = [written, b"\0"].concat();
                    assert!(lookup(&longer).is_none());
                }
            }
        }
    }

    fn capital_if(capital: bool, byte: u8) -> u8 {
        if capital { byte.to_ascii_uppercase() } else { byte }
    }

    #[test]
    fn no_name_is_a_command() {
        for name in [&b""[..], b"\0", b"\0\0\0\0\0\0\0\0", b"        ", &[0xff; 8], &[b'a'; 4096]] {
            assert!(lookup(name).is_none());
        }
    }
}
