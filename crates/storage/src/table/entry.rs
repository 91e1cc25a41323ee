//! A key with its value, as others see it: where it lies, or as a copy of its own.

use super::piece::{piece_bytes, shared_piece_bytes};
use bytes::Bytes;
use types::Version;

/// A key's value, where it lies. Strings are the only type yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Bytes.
    String(&'a [u8]),
}

impl Value<'_> {
    /// A copy of its own.
    pub fn to_owned(self) -> OwnedValue {
        match self {
            Value::String(bytes) => OwnedValue::String(bytes.into()),
        }
    }
}

/// A value of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedValue {
    /// Bytes.
    String(Box<[u8]>),
}

impl OwnedValue {
    /// The value, where it lies.
    pub fn as_value(&self) -> Value<'_> {
        match self {
            OwnedValue::String(bytes) => Value::String(bytes),
        }
    }
}

/// A key with all that is known of it, where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its value.
    pub value: Value<'a>,
    /// When it expires, in Unix milliseconds of the partition's time; `None`: never.
    pub expire_at_ms: Option<u64>,
    /// Its version.
    pub version: Version,
    /// What its value is a part of, where that is shared instead of copied.
    pub shared: Option<&'a Bytes>,
}

impl Entry<'_> {
    /// A copy of its own, without the key.
    pub fn to_owned(self) -> OwnedEntry {
        let Entry { value, expire_at_ms, version, .. } = self;
        OwnedEntry { value: value.to_owned(), expire_at_ms, version }
    }

    /// The heap bytes that it takes in a table, as the allocator rounds them, with its word of the index.
    pub fn table_bytes(&self) -> usize {
        let has_expiry = self.expire_at_ms.is_some();
        let piece = match self.shared {
            None => piece_bytes(self.key.len(), self.value, has_expiry),
            Some(shared) => shared_piece_bytes(self.key.len(), shared, has_expiry),
        };
        piece + size_of::<u64>()
    }
}

/// What is known of a key, of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedEntry {
    /// The value.
    pub value: OwnedValue,
    /// When it expires, in Unix milliseconds of the partition's time; `None`: never.
    pub expire_at_ms: Option<u64>,
    /// The version.
    pub version: Version,
}
