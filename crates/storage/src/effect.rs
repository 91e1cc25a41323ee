//! What a record holds: effects, not commands.
//!
//! An effect says what became of a key, in absolute terms: the new value, the instant of expiry. Replaying it
//! needs no clock, no luck and no earlier state, and doing so twice changes nothing more. A record's body is a
//! run of effects, without a count; an empty body changes nothing.
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | bits 0-3: 1 put, 2 remove, 3 expire, 4 clear. Bit 4: an expiry follows. Bits 5-7: kind of value (0 string) |
//! | 8 | version, little-endian |
//! | varint | put and expire, where bit 4 is set: expiry, Unix milliseconds |
//! | varint, bytes | all but clear: the key's length, the key |
//! | varint, bytes | put: the value's length, the value |
//!
//! Left out: checksums, which frames, journals and snapshots carry around whole batches.

use crate::codec::{Corrupt, Reader, put_number, put_string};
use crate::lent::Lent;
use crate::rope::{Parts, Sink};
use crate::table::{Table, Value};
use bytes::Bytes;
use types::Version;

const PUT: u8 = 1;
const REMOVE: u8 = 2;
const EXPIRE: u8 = 3;
const CLEAR: u8 = 4;
const HAS_EXPIRY: u8 = 1 << 4;
const KIND_SHIFT: u32 = 5;
const KIND_STRING: u8 = 0;

/// One change of a partition's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect<'a> {
    /// The key has this value and this expiry, whatever it had before.
    Put {
        /// The key.
        key: &'a [u8],
        /// Its new value.
        value: Value<'a>,
        /// When it expires, in Unix milliseconds of the partition's time.
        expire_at_ms: Option<u64>,
        /// Its new version.
        version: Version,
    },
    /// The key is absent.
    Remove {
        /// The key.
        key: &'a [u8],
        /// The version of the change. Nothing keeps it but the log.
        version: Version,
    },
    /// The key, if present, keeps its value and has this expiry.
    Expire {
        /// The key.
        key: &'a [u8],
        /// When it expires, in Unix milliseconds of the partition's time; `None`: never.
        expire_at_ms: Option<u64>,
        /// Its new version.
        version: Version,
    },
    /// Every key of the partition is absent.
    Clear {
        /// The version of the change. Nothing keeps it but the log.
        version: Version,
    },
}

impl Effect<'_> {
    /// Appends the effect's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_sharing(None, out);
    }

    /// The same. `shared`: the value of a put, which the sink may share.
    pub fn encode_sharing(&self, shared: Option<&Bytes>, sink: &mut impl Sink) {
        let out = sink.bytes();
        let mut head = |operation: u8, expire_at_ms: Option<u64>, version: Version| {
            out.push(operation | if expire_at_ms.is_some() { HAS_EXPIRY } else { 0 });
            out.extend_from_slice(&version.0.to_le_bytes());
            if let Some(at_ms) = expire_at_ms {
                put_number(out, at_ms);
            }
        };
        match *self {
            Effect::Put { key, value: Value::String(value), expire_at_ms, version } => {
                head(PUT | KIND_STRING << KIND_SHIFT, expire_at_ms, version);
                put_string(out, key);
                match shared {
                    None => put_string(out, value),
                    Some(shared) => {
                        put_number(out, shared.len() as u64);
                        sink.put(shared);
                    }
                }
            }
            Effect::Remove { key, version } => {
                head(REMOVE, None, version);
                put_string(out, key);
            }
            Effect::Expire { key, expire_at_ms, version } => {
                head(EXPIRE, expire_at_ms, version);
                put_string(out, key);
            }
            Effect::Clear { version } => head(CLEAR, None, version),
        }
    }

    /// Makes the change in a table. `lent`: where its value may lie, to be shared.
    pub fn apply(&self, table: &mut Table, lent: Option<&Lent<'_>>) {
        match *self {
            Effect::Put { key, value, expire_at_ms, version } => {
                let hash = table.hasher().hash(key);
                let Value::String(bytes) = value;
                match lent.and_then(|lent| lent.share(bytes)) {
                    None => table.put(hash, key, value, expire_at_ms, version),
                    Some(shared) => table.share(hash, key, shared, expire_at_ms, version),
                }
            }
            Effect::Remove { key, .. } => {
                table.remove(table.hasher().hash(key), key);
            }
            Effect::Expire { key, expire_at_ms, version } => {
                table.set_expiry(table.hasher().hash(key), key, expire_at_ms, version);
            }
            Effect::Clear { .. } => table.clear(),
        }
    }

    /// The key that is changed; `None`: all of them.
    pub fn key(&self) -> Option<&[u8]> {
        match *self {
            Effect::Put { key, .. } | Effect::Remove { key, .. } | Effect::Expire { key, .. } => Some(key),
            Effect::Clear { .. } => None,
        }
    }

    /// The version that the change has.
    pub fn version(&self) -> Version {
        match *self {
            Effect::Put { version, .. }
            | Effect::Remove { version, .. }
            | Effect::Expire { version, .. }
            | Effect::Clear { version } => version,
        }
    }
}

/// The effects of a record's body, in order. Ends after the first error.
pub fn effects<'b>(body: impl Into<Parts<'b>>) -> impl Iterator<Item = Result<Effect<'b>, Corrupt>> {
    let body = body.into();
    let mut reader = Reader { rest: body.head };
    let mut tail = &body.tail[..];
    std::iter::from_fn(move || {
        if reader.rest.is_empty() && tail.is_empty() {
            return None;
        }
        let effect = decode(&mut reader, &mut tail);
        if effect.is_err() {
            (reader.rest, tail) = (&[], &[]);
        }
        Some(effect)
    })
}

/// The value of the last effect may be what stands in the tail.
fn decode<'a>(reader: &mut Reader<'a>, tail: &mut &'a [u8]) -> Result<Effect<'a>, Corrupt> {
    let head = reader.byte()?;
    let version = Version(reader.fixed()?);
    let has_expiry = head & HAS_EXPIRY != 0;
    let expire_at_ms = if has_expiry { Some(reader.number()?) } else { None };
    match (head & !HAS_EXPIRY, has_expiry) {
        (PUT, _) => {
            let key = reader.string()?;
            let value = Value::String(value(reader, tail)?);
            Ok(Effect::Put { key, value, expire_at_ms, version })
        }
        (REMOVE, false) => Ok(Effect::Remove { key: reader.string()?, version }),
        (EXPIRE, _) => Ok(Effect::Expire { key: reader.string()?, expire_at_ms, version }),
        (CLEAR, false) => Ok(Effect::Clear { version }),
        _ => Err(Corrupt { what: "an unknown effect" }),
    }
}

fn value<'a>(reader: &mut Reader<'a>, tail: &mut &'a [u8]) -> Result<&'a [u8], Corrupt> {
    if tail.is_empty() {
        return reader.string();
    }
    let before = *reader;
    let length: usize = reader.number_to()?;
    if reader.rest.is_empty() && length == tail.len() {
        return Ok(std::mem::take(tail));
    }
    *reader = before;
    reader.string()
}

/// Makes every change of a record's body in a table. On an error the effects before it have been made: check
/// the bytes with [`effects`] first where that matters.
pub fn apply_all<'b>(body: impl Into<Parts<'b>>, table: &mut Table) -> Result<(), Corrupt> {
    for effect in effects(body) {
        effect?.apply(table, None);
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::table::Hasher;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    struct Made(u8, Vec<u8>, Vec<u8>, Option<u64>, u64);

    impl Made {
        fn effect(&self) -> Effect<'_> {
            let Made(operation, key, value, expire_at_ms, version) = self;
            let (expire_at_ms, version) = (*expire_at_ms, Version(*version));
            match operation % 4 {
                0 => Effect::Put { key, value: Value::String(value), expire_at_ms, version },
                1 => Effect::Remove { key, version },
                2 => Effect::Expire { key, expire_at_ms, version },
                _ => Effect::Clear { version },
            }
        }
    }

    fn made() -> impl Strategy<Value = Vec<Made>> {
        let one = (any::<u8>(), any::<Vec<u8>>(), any::<Vec<u8>>(), any::<Option<u64>>(), any::<u64>());
        proptest::collection::vec(one.prop_map(|(a, b, c, d, e)| Made(a, b, c, d, e)), 0..8)
    }

    proptest! {
        #[test]
        fn effects_read_back_and_every_cut_is_noticed(made in made()) {
            let mut body = Vec::new();
            let mut ends = vec![0];
            for one in &made {
                one.effect().encode(&mut body);
                ends.push(body.len());
            }
            let read: Result<Vec<_>, _> = effects(&body).collect();
            prop_assert_eq!(read.unwrap(), made.iter().map(Made::effect).collect::<Vec<_>>());
            for cut in 0..body.len() {
                prop_assert_eq!(effects(&body[..cut]).all(|effect| effect.is_ok()), ends.contains(&cut));
            }
        }

        #[test]
        fn any_bytes_decode_without_a_panic(body: Vec<u8>) {
            let mut table = Table::new(Hasher::new(1));
            let _ = apply_all(&body, &mut table);
            prop_assert!(effects(&body).filter(|effect| effect.is_err()).count() <= 1);
        }
    }

    #[test]
    fn unknown_effects_are_refused() {
        for head in [0, 5, REMOVE | HAS_EXPIRY, CLEAR | HAS_EXPIRY, PUT | 1 << KIND_SHIFT] {
            let mut body = vec![head];
            body.extend_from_slice(&[0; 11]);
            assert!(effects(&body).next().unwrap().is_err(), "{head}");
        }
    }
}
