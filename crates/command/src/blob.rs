//! Bytes that a reply shows: where they lie in a table, of their own, or shared with the table, where a copy would take too long.

use bytes::Bytes;
use std::fmt;
use std::ops::Deref;
use storage::lent::is_huge;
use storage::{Entry, Value};

/// Bytes of a reply.
#[derive(Clone)]
pub enum Blob<'a> {
    /// Where they lie.
    Borrowed(&'a [u8]),
    /// Of their own.
    Owned(Vec<u8>),
    /// Shared with whoever else holds them.
    Shared(Bytes),
}

impl<'a> Blob<'a> {
    /// A part of an entry's value.
    #[inline]
    pub fn part_of(entry: &Entry<'a>, part: &'a [u8]) -> Blob<'a> {
        match entry.shared {
            Some(shared) if is_huge(part.len()) => Blob::Shared(shared.slice_ref(part)),
            _ => Blob::Borrowed(part),
        }
    }

    /// The string that an entry has.
    #[inline]
    pub fn string_of(entry: &Entry<'a>) -> Blob<'a> {
        let Value::String(bytes) = entry.value;
        Blob::part_of(entry, bytes)
    }

    /// The same bytes without a borrow.
    pub fn without_borrow(self) -> Blob<'static> {
        match self {
            Blob::Borrowed(bytes) => Blob::Owned(bytes.to_vec()),
            Blob::Owned(bytes) => Blob::Owned(bytes),
            Blob::Shared(bytes) => Blob::Shared(bytes),
        }
    }

    /// The bytes, as a vector of its own.
    pub fn into_owned(self) -> Vec<u8> {
        match self {
            Blob::Borrowed(bytes) => bytes.to_vec(),
            Blob::Owned(bytes) => bytes,
            Blob::Shared(bytes) => bytes.to_vec(),
        }
    }

    /// The bytes, to be shared.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Blob::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Blob::Owned(bytes) => bytes.into(),
            Blob::Shared(bytes) => bytes,
        }
    }
}

impl Deref for Blob<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Blob::Borrowed(bytes) => bytes,
            Blob::Owned(bytes) => bytes,
            Blob::Shared(bytes) => bytes,
        }
    }
}

impl PartialEq for Blob<'_> {
    fn eq(&self, other: &Blob<'_>) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Blob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<'a> From<&'a [u8]> for Blob<'a> {
    fn from(bytes: &'a [u8]) -> Blob<'a> {
        Blob::Borrowed(bytes)
    }
}

impl From<Vec<u8>> for Blob<'static> {
    fn from(bytes: Vec<u8>) -> Blob<'static> {
        Blob::Owned(bytes)
    }
}
