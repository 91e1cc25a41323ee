//! SETBIT, GETBIT: one bit of a string. Bit 0 is the highest of the first byte.

use super::{put_string, string_of};
use crate::number::parse_i64;
use crate::{Categories, Command, CommandError, Flags, Handler, KeySpec, Over, Reply};
use storage::Keyspace;
use types::limits::VALUE_BYTES_MAX;

/// SETBIT key offset value
pub(crate) const SETBIT: Command = Command {
    name: "setbit",
    syntax: "key offset value",
    arity: 4,
    flags: Flags::WRITE.with(Flags::DENYOOM),
    keys: KeySpec::ONE,
    group: "bitmap",
    since: "2.2.0",
    complexity: "O(N), N the new length",
    summary: "Sets a bit of a string, with zero bytes up to there where it was shorter; the reply is what the bit was.",
    categories: Categories::WRITE.with(Categories::BITMAP).with(Categories::SLOW),
    handler: Handler::Keys { run: set_bit, over: Over::One },
    ..Command::BASE
};

/// GETBIT key offset
pub(crate) const GETBIT: Command = Command {
    name: "getbit",
    syntax: "key offset",
    arity: 3,
    flags: Flags::READONLY.with(Flags::FAST),
    complexity: "O(1)",
    summary: "A bit of a string; 0 beyond its end.",
    categories: Categories::READ.with(Categories::BITMAP).with(Categories::FAST),
    handler: Handler::Keys { run: get_bit, over: Over::One },
    ..SETBIT
};

/// The byte that an offset in bits lies in, and the bit's mask in it. No string may be longer than the limit, so no
/// offset lies beyond it.
fn place(arg: &[u8]) -> Result<(usize, u8), CommandError> {
    parse_i64(arg)
        .and_then(|offset| u64::try_from(offset).ok())
        .filter(|offset| offset >> 3 < VALUE_BYTES_MAX as u64)
        .map(|offset| ((offset >> 3) as usize, 0x80 >> (offset & 7)))
        .ok_or_else(|| CommandError::Other("ERR bit offset is not an integer or out of range".into()))
}

fn set_bit<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    let key = args[1];
    let (at, mask) = place(args[2])?;
    let on = match args[3] {
        b"0" => false,
        b"1" => true,
        _ => return Err(CommandError::Other("ERR bit is not an integer or out of range".into())),
    };
    let (old, expire_at_ms) = match keyspace.get(key) {
        Some(entry) => (string_of(entry.value)?, entry.expire_at_ms),
        None => (&[][..], None),
    };
    let was = old.get(at).is_some_and(|byte| byte & mask != 0);
    // A bit that stays as it is makes no record, unless the string grows.
    if was == on && at < old.len() {
        return Ok(Reply::flag(was));
    }
    let mut value = Vec::with_capacity(old.len().max(at + 1));
    value.extend_from_slice(old);
    value.resize(old.len().max(at + 1), 0);
    value[at] = if on { value[at] | mask } else { value[at] & !mask };
    put_string(keyspace, key, &value, expire_at_ms)?;
    Ok(Reply::flag(was))
}

fn get_bit<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    let (at, mask) = place(args[2])?;
    let value = match keyspace.get(args[1]) {
        Some(entry) => string_of(entry.value)?,
        None => &[],
    };
    Ok(Reply::flag(value.get(at).is_some_and(|byte| byte & mask != 0)))
}

#[cfg(test)]
mod tests {
    use crate::testing::{World, check};

    const OFFSET: &str = "(error) ERR bit offset is not an integer or out of range";
    const BIT: &str = "(error) ERR bit is not an integer or out of range";

    #[test]
    fn bits_are_counted_from_the_highest_of_the_first_byte() {
        check(&[
            ("", "setbit a 1 1", "(integer) 0"),
            ("setbit a 1 1", "get a", "'@'"),
            ("setbit a 1 1; setbit a 7 1", "get a", "'A'"),
            ("setbit a 1 1", "setbit a 1 0", "(integer) 1"),
            ("setbit a 1 1; setbit a 1 0", "get a", "'\0'"),
            ("set a A", "getbit a 1", "(integer) 1"),
            ("set a A", "getbit a 2", "(integer) 0"),
            ("set a A", "getbit a 4294967295", "(integer) 0"),
            ("", "getbit a 0", "(integer) 0"),
            ("set a A px 50; setbit a 6 1", "pttl a", "(integer) 50"),
        ]);
    }

    #[test]
    fn a_string_grows_to_the_bit() {
        check(&[
            ("setbit a 16 1", "strlen a", "(integer) 3"),
            ("setbit a 7 0", "get a", "'\0'"),
            ("set a x; setbit a 15 0", "strlen a", "(integer) 2"),
        ]);
    }

    #[test]
    fn a_bit_that_stays_changes_nothing() {
        let mut world = World::new();
        world.run("set a A");
        let version = |world: &mut World| world.keyspace(|keyspace| keyspace.get(b"a").unwrap().version);
        let before = version(&mut world);
        assert_eq!(world.run("setbit a 1 1"), "(integer) 1");
        assert_eq!(version(&mut world), before);
        world.run("setbit a 1 0");
        assert!(version(&mut world) > before);
    }

    #[test]
    fn bits_refuse() {
        check(&[
            ("", "setbit a -1 1", OFFSET),
            ("", "setbit a 4294967296 1", OFFSET),
            ("", "setbit a x x", OFFSET),
            ("", "setbit a 0 2", BIT),
            ("", "setbit a 0 x", BIT),
            ("", "getbit a -1", OFFSET),
            ("", "getbit a 4294967296", OFFSET),
        ]);
    }
}
