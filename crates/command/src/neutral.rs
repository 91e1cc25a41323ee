//! The bytes in which a reply crosses from the node that made it to the node that asked.
//!
//! Private to a cluster of one version, and independent of what protocol the client speaks: a tag, then lengths and
//! numbers as LEB128. Bytes from outside are never trusted: each length is checked against what is there, and nesting has a
//! bound.

use crate::blob::Blob;
use crate::error::CommandError;
use crate::reply::Reply;
use std::borrow::Cow;
use storage::{Lent, Sink, Tailed};
use thiserror::Error;

/// How deep aggregates may nest.
pub(crate) const DEPTH_MAX: usize = 32;

/// Bytes that no reply encodes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("corrupt reply from another node")]
pub struct Corrupt;

const OK: u8 = 0;
const SIMPLE: u8 = 1;
const ERROR: u8 = 2;
const INTEGER: u8 = 3;
const BULK: u8 = 4;
const NULL: u8 = 5;
const NULL_ARRAY: u8 = 6;
const ARRAY: u8 = 7;
const MAP: u8 = 8;
const SET: u8 = 9;
const DOUBLE: u8 = 10;
const FALSE: u8 = 11;
const TRUE: u8 = 12;
const VERBATIM: u8 = 13;

pub(crate) fn encode(reply: &Reply<'_>, sink: &mut impl Sink) {
    let out = sink.bytes();
    match reply {
        Reply::Simple(text) if text == "OK" => out.push(OK),
        Reply::Simple(text) => write_bytes(SIMPLE, text.as_bytes(), out),
        Reply::Error(error) => {
            out.push(ERROR);
            error.encode(out);
        }
        Reply::Integer(value) => {
            out.push(INTEGER);
            // Zigzag, so that small negative numbers are short.
            write_number(((value << 1) ^ (value >> 63)) as u64, out);
        }
        Reply::Bulk(Blob::Shared(bytes)) => {
            out.push(BULK);
            write_number(bytes.len() as u64, out);
            sink.put(bytes);
        }
        Reply::Bulk(bytes) => write_bytes(BULK, bytes, out),
        Reply::Null => out.push(NULL),
        Reply::NullArray => out.push(NULL_ARRAY),
        Reply::Array(items) => {
            out.push(ARRAY);
            write_number(items.len() as u64, out);
            items.iter().for_each(|item| encode(item, sink));
        }
        // Read back as an array.
        Reply::List(list) => {
            out.push(ARRAY);
            write_number(list.len() as u64, out);
            list.iter().for_each(|item| write_bytes(BULK, item, out));
        }
        Reply::Map(pairs) => {
            out.push(MAP);
            write_number(pairs.len() as u64, out);
            for (key, value) in pairs {
                encode(key, sink);
                encode(value, sink);
            }
        }
        Reply::Set(items) => {
            out.push(SET);
            write_number(items.len() as u64, out);
            items.iter().for_each(|item| encode(item, sink));
        }
        Reply::Double(value) => {
            out.push(DOUBLE);
            out.extend_from_slice(&value.to_bits().to_le_bytes());
        }
        Reply::Boolean(value) => out.push(if *value { TRUE } else { FALSE }),
        Reply::Verbatim(text) => write_bytes(VERBATIM, text.as_bytes(), out),
    }
}

pub(crate) fn decode(bytes: &Tailed) -> Result<Reply<'static>, Corrupt> {
    let parts = bytes.parts();
    let mut reader = Reader { rest: parts.head, tail: parts.tail, lent: Lent::Parts(parts) };
    let reply = decode_one(&mut reader, 0)?;
    if reader.rest.is_empty() && reader.tail.is_empty() { Ok(reply) } else { Err(Corrupt) }
}

fn decode_one(reader: &mut Reader<'_>, depth: usize) -> Result<Reply<'static>, Corrupt> {
    if depth > DEPTH_MAX {
        return Err(Corrupt);
    }
    Ok(match reader.byte()? {
        OK => Reply::ok(),
        SIMPLE => Reply::Simple(Cow::Owned(reader.text()?)),
        ERROR => Reply::Error(CommandError::decode(reader)?),
        INTEGER => {
            let zigzag = reader.number()?;
            Reply::Integer((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
        }
        BULK => {
            let bytes = reader.bytes()?;
            Reply::Bulk(reader.lent.share(bytes).map_or_else(|| Blob::Owned(bytes.to_vec()), Blob::Shared))
        }
        NULL => Reply::Null,
        NULL_ARRAY => Reply::NullArray,
        ARRAY => Reply::Array(decode_items(reader, depth)?),
        SET => Reply::Set(decode_items(reader, depth)?),
        MAP => {
            let count = reader.count(2)?;
            let mut pairs = Vec::new();
            for _ in 0..count {
                pairs.push((decode_one(reader, depth + 1)?, decode_one(reader, depth + 1)?));
            }
            Reply::Map(pairs)
        }
        DOUBLE => {
            let bits = reader.take(8)?.try_into().map_err(|_| Corrupt)?;
            Reply::Double(f64::from_bits(u64::from_le_bytes(bits)))
        }
        FALSE => Reply::Boolean(false),
        TRUE => Reply::Boolean(true),
        VERBATIM => Reply::Verbatim(reader.text()?),
        _ => return Err(Corrupt),
    })
}

fn decode_items(reader: &mut Reader<'_>, depth: usize) -> Result<Vec<Reply<'static>>, Corrupt> {
    let count = reader.count(1)?;
    // Grows with what is decoded, not with what was declared.
    let mut items = Vec::with_capacity(count.min(64));
    for _ in 0..count {
        items.push(decode_one(reader, depth + 1)?);
    }
    Ok(items)
}

fn write_bytes(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() + 6);
    out.push(tag);
    write_number(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

pub(crate) fn write_number(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes bytes from the front, and never more than are there.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    /// What the last string may be, instead of the rest.
    tail: &'a [u8],
    lent: Lent<'a>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Corrupt> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Corrupt)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Corrupt> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn number(&mut self) -> Result<u64, Corrupt> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(Corrupt);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Corrupt)
    }

    /// A number of things that take at least `least` bytes each.
    fn count(&mut self, least: usize) -> Result<usize, Corrupt> {
        let count = usize::try_from(self.number()?).map_err(|_| Corrupt)?;
        if count <= self.rest.len() / least { Ok(count) } else { Err(Corrupt) }
    }

    fn bytes(&mut self) -> Result<&'a [u8], Corrupt> {
        let count = usize::try_from(self.number()?).map_err(|_| Corrupt)?;
        if self.rest.is_empty() && count > 0 && count == self.tail.len() {
            return Ok(std::mem::take(&mut self.tail));
        }
        self.take(count)
    }

    pub(crate) fn text(&mut self) -> Result<String, Corrupt> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| Corrupt)
    }
}

/// A field of an error.
pub(crate) trait Field: Sized {
    fn encode(&self, out: &mut Vec<u8>);
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt>;
}

impl Field for Cow<'static, str> {
    fn encode(&self, out: &mut Vec<u8>) {
        write_number(self.len() as u64, out);
        out.extend_from_slice(self.as_bytes());
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        reader.text().map(Cow::Owned)
    }
}

impl Field for String {
    fn encode(&self, out: &mut Vec<u8>) {
        write_number(self.len() as u64, out);
        out.extend_from_slice(self.as_bytes());
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        reader.text()
    }
}

impl Field for u16 {
    fn encode(&self, out: &mut Vec<u8>) {
        write_number(u64::from(*self), out);
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        u16::try_from(reader.number()?).map_err(|_| Corrupt)
    }
}
