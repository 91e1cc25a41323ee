//! Bytes that are put together in order to leave: small things are written one behind the other, huge ones stay where they are
//! and are shared.
//!
//! A huge value passes through a turn many times: into the table, the record, the log, the frame to each backup. Were it
//! copied each time, the turn would take as long as that takes, and everybody else of the shard with it. So whoever encodes
//! writes to a [`Sink`]: a `Vec<u8>` copies everything; a [`Rope`] shares what is huge, wherever it stands; a [`Tailed`], which a record's
//! body is, shares one value, at its end.
//!
//! Left out: when a value that lies in a request or a frame may be shared at all, which [`crate::lent`] says.

use crate::lent::is_huge;
use bytes::Bytes;
use std::fmt;

/// Where bytes are appended.
pub trait Sink {
    /// Where small things are appended.
    fn bytes(&mut self) -> &mut Vec<u8>;

    /// Appends bytes, which may be shared instead of copied.
    fn put(&mut self, bytes: &Bytes);
}

impl Sink for Vec<u8> {
    #[inline]
    fn bytes(&mut self) -> &mut Vec<u8> {
        self
    }

    fn put(&mut self, bytes: &Bytes) {
        self.extend_from_slice(bytes);
    }
}

// ----------------------------------------------------------------------------------------------------------------- rope

/// Bytes of which huge stretches are shared.
#[derive(Clone, Debug, Default)]
pub struct Rope {
    /// All that is not shared.
    bytes: Vec<u8>,
    shared: Vec<Shared>,
    shared_bytes: usize,
}

/// A stretch that is shared.
#[derive(Clone, Debug)]
struct Shared {
    /// So many of the rope's own bytes stand before it.
    at: usize,
    bytes: Bytes,
}

impl Sink for Rope {
    #[inline]
    fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    fn put(&mut self, bytes: &Bytes) {
        if is_huge(bytes.len()) {
            self.shared_bytes += bytes.len();
            self.shared.push(Shared { at: self.bytes.len(), bytes: bytes.clone() });
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }
}

impl Rope {
    /// How many bytes there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() + self.shared_bytes
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The memory that it takes for what is not shared.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Forgets everything, and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.shared.clear();
        self.shared_bytes = 0;
    }

    /// Forgets what stands behind the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        while let Some(last) = self.shared.last_mut() {
            let start = last.at + self.shared_bytes - last.bytes.len();
            if start + last.bytes.len() <= len {
                break;
            }
            let kept = len.saturating_sub(start);
            self.shared_bytes -= last.bytes.len() - kept;
            let at = last.at;
            if kept > 0 {
                last.bytes.truncate(kept);
                self.bytes.truncate(at);
                return;
            }
            self.shared.pop();
        }
        self.bytes.truncate(len - self.shared_bytes.min(len));
    }

    /// Moves what another has to the end of this one.
    pub fn append(&mut self, other: &mut Rope) {
        let before = self.bytes.len();
        self.bytes.append(&mut other.bytes);
        self.shared_bytes += std::mem::take(&mut other.shared_bytes);
        let moved = other.shared.drain(..);
        self.shared.extend(moved.map(|Shared { at, bytes }| Shared { at: before + at, bytes }));
    }

    /// Its stretches, in order. None is empty.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let ends = self.shared.iter().map(|shared| shared.at).chain([self.bytes.len()]);
        let starts = [0].into_iter().chain(self.shared.iter().map(|shared| shared.at));
        let own = starts.zip(ends).map(|(start, end)| &self.bytes[start..end]);
        let shared = self.shared.iter().map(|shared| &shared.bytes[..]).chain([&[][..]]);
        own.zip(shared).flat_map(|(own, shared)| [own, shared]).filter(|part| !part.is_empty())
    }

    /// What stands from this place on, as far as it lies in one piece. Empty only at the end.
    #[inline]
    pub fn from(&self, place: usize) -> &[u8] {
        if self.shared.is_empty() {
            return self.bytes.get(place..).unwrap_or(&[]);
        }
        let mut left = place;
        for part in self.parts() {
            match part.get(left..) {
                Some(rest) if !rest.is_empty() => return rest,
                _ => left -= part.len(),
            }
        }
        &[]
    }

    /// Appends so many bytes of it, from a place on, to another: what is shared here is shared there, however few they are.
    pub fn share_range(&self, place: usize, bytes: usize, out: &mut Rope) {
        let (mut at, end) = (0, place + bytes);
        let mut own_at = 0;
        for shared in self.shared.iter().map(Some).chain([None]) {
            let own_end = shared.map_or(self.bytes.len(), |shared| shared.at);
            let own = &self.bytes[own_at..own_end];
            let (from, to) = (place.clamp(at, at + own.len()) - at, end.clamp(at, at + own.len()) - at);
            out.bytes.extend_from_slice(&own[from..to]);
            (at, own_at) = (at + own.len(), own_end);
            let Some(Shared { bytes, .. }) = shared else { return };
            let (from, to) = (place.clamp(at, at + bytes.len()) - at, end.clamp(at, at + bytes.len()) - at);
            if from < to {
                out.shared.push(Shared { at: out.bytes.len(), bytes: bytes.slice(from..to) });
                out.shared_bytes += to - from;
            }
            at += bytes.len();
        }
    }

    /// All of it, copied into one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        self.parts().collect::<Vec<_>>().concat()
    }
}

// --------------------------------------------------------------------------------------------------------------- tailed

/// Bytes of which the end, a huge value, may be shared.
#[derive(Clone, Default)]
pub struct Tailed {
    head: Bytes,
    tail: Bytes,
}

impl Tailed {
    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of it in one piece: copied, where it lies in two.
    pub fn to_bytes(&self) -> Bytes {
        if self.tail.is_empty() {
            self.head.clone()
        } else {
            [&self.head[..], &self.tail[..]].concat().into()
        }
    }

    /// The same, of one that is not needed any more.
    pub fn into_bytes(self) -> Bytes {
        if self.tail.is_empty() { self.head } else { self.to_bytes() }
    }

    /// All of it, where it lies in one piece.
    pub fn whole(&self) -> Option<&Bytes> {
        self.tail.is_empty().then_some(&self.head)
    }

    /// Where its parts lie.
    #[inline]
    pub fn parts(&self) -> Parts<'_> {
        Parts { head: &self.head, shared_head: Some(&self.head), tail: &self.tail }
    }
}

impl PartialEq for Tailed {
    fn eq(&self, other: &Tailed) -> bool {
        if self.head.len() == other.head.len() {
            return self.head == other.head && self.tail == other.tail;
        }
        self.len() == other.len() && self.to_bytes() == other.to_bytes()
    }
}

impl Eq for Tailed {}

impl fmt::Debug for Tailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_bytes().fmt(f)
    }
}

impl From<Bytes> for Tailed {
    fn from(whole: Bytes) -> Tailed {
        Tailed { head: whole, tail: Bytes::new() }
    }
}

impl From<Vec<u8>> for Tailed {
    fn from(whole: Vec<u8>) -> Tailed {
        Tailed::from(Bytes::from(whole))
    }
}

/// What becomes a [`Tailed`]: used again and again.
#[derive(Clone, Debug, Default)]
pub struct TailedBuffer {
    bytes: Vec<u8>,
    tail: Option<Bytes>,
}

impl Sink for TailedBuffer {
    #[inline]
    fn bytes(&mut self) -> &mut Vec<u8> {
        if self.tail.is_some() {
            self.copy_tail();
        }
        &mut self.bytes
    }

    fn put(&mut self, bytes: &Bytes) {
        let own = self.bytes();
        if is_huge(bytes.len()) {
            self.tail = Some(bytes.clone());
        } else {
            own.extend_from_slice(bytes);
        }
    }
}

impl TailedBuffer {
    /// It is not the end any more.
    #[cold]
    fn copy_tail(&mut self) {
        self.bytes.extend_from_slice(&self.tail.take().unwrap_or_default());
    }

    /// How many bytes there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() + self.tail.as_ref().map_or(0, Bytes::len)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Nothing yet, and room for so much.
    pub fn with_capacity(bytes: usize) -> TailedBuffer {
        TailedBuffer { bytes: Vec::with_capacity(bytes), tail: None }
    }

    /// Forgets everything, and keeps its memory.
    #[inline]
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.tail = None;
    }

    /// What there is, and forgets it. Where that is much, its memory goes with it; otherwise it is copied, and the memory kept.
    pub fn finished(&mut self, much: usize) -> Tailed {
        let tail = self.tail.take().unwrap_or_default();
        let head = if self.bytes.len() >= much {
            Bytes::from(std::mem::take(&mut self.bytes))
        } else {
            let copy = Bytes::copy_from_slice(&self.bytes);
            self.bytes.clear();
            copy
        };
        Tailed { head, tail }
    }

    /// What is not shared, to be changed, and the tail.
    pub fn own(&mut self) -> (&mut Vec<u8>, &[u8]) {
        (&mut self.bytes, self.tail.as_deref().unwrap_or(&[]))
    }

    /// Where its parts lie.
    #[inline]
    pub fn parts(&self) -> Parts<'_> {
        Parts { head: &self.bytes, shared_head: None, tail: self.tail.as_ref().unwrap_or(&NO_TAIL) }
    }
}

// ---------------------------------------------------------------------------------------------------------------- parts

static NO_TAIL: Bytes = Bytes::new();

/// Where bytes lie that may be in two parts.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The first.
    pub head: &'a [u8],
    /// The same, where it can be shared.
    shared_head: Option<&'a Bytes>,
    /// What stands behind it.
    pub tail: &'a Bytes,
}

impl<'a> Parts<'a> {
    /// How many bytes there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends them.
    #[inline]
    pub fn put(&self, out: &mut impl Sink) {
        match self.shared_head {
            Some(head) if is_huge(head.len()) => out.put(head),
            _ => out.bytes().extend_from_slice(self.head),
        }
        if !self.tail.is_empty() {
            out.put(self.tail);
        }
    }

    /// The same tail behind another head.
    pub(crate) fn with_head<'h>(&self, head: &'h [u8]) -> Parts<'h>
    where
        'a: 'h,
    {
        Parts { head, shared_head: None, tail: self.tail }
    }

    /// What of them can be shared.
    pub(crate) fn shareable(&self) -> impl Iterator<Item = &'a Bytes> {
        self.shared_head.into_iter().chain([self.tail])
    }
}

impl<'a> From<&'a [u8]> for Parts<'a> {
    fn from(bytes: &'a [u8]) -> Parts<'a> {
        Parts { head: bytes, shared_head: None, tail: &NO_TAIL }
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Parts<'a> {
    fn from(bytes: &'a [u8; N]) -> Parts<'a> {
        Parts::from(&bytes[..])
    }
}

impl<'a> From<&'a Vec<u8>> for Parts<'a> {
    fn from(bytes: &'a Vec<u8>) -> Parts<'a> {
        Parts::from(&bytes[..])
    }
}

impl<'a> From<&'a Bytes> for Parts<'a> {
    fn from(bytes: &'a Bytes) -> Parts<'a> {
        Parts { head: bytes, shared_head: Some(bytes), tail: &NO_TAIL }
    }
}

impl<'a> From<&'a Tailed> for Parts<'a> {
    fn from(bytes: &'a Tailed) -> Parts<'a> {
        bytes.parts()
    }
}

impl<'a> From<&'a TailedBuffer> for Parts<'a> {
    fn from(bytes: &'a TailedBuffer) -> Parts<'a> {
        bytes.parts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lent::HUGE_BYTES;
    use proptest::prelude::*;

    /// Some bytes, large or not, that differ.
    fn some(number: usize, large: bool) -> Bytes {
        let len = if large { HUGE_BYTES + number } else { number % 7 };
        (0..len).map(|at| (at + number) as u8).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_rope_is_what_was_put(
            steps in prop::collection::vec((0..5u8, any::<prop::sample::Index>()), 1..12),
        ) {
            let (mut rope, mut wanted) = (Rope::default(), Vec::new());
            for (number, (step, at)) in steps.into_iter().enumerate() {
                match step {
                    0 => {
                        rope.bytes().extend_from_slice(&some(number, false));
                        wanted.extend_from_slice(&some(number, false));
                    }
                    1 | 2 => {
                        let bytes = some(number, step == 1);
                        rope.put(&bytes);
                        wanted.extend_from_slice(&bytes);
                    }
                    3 => {
                        let len = at.index(wanted.len() + 1);
                        rope.truncate(len);
                        wanted.truncate(len);
                    }
                    _ => {
                        let mut other = Rope::default();
                        other.bytes().push(1);
                        other.put(&some(number, true));
                        other.bytes().push(2);
                        wanted.extend_from_slice(&other.to_vec());
                        rope.append(&mut other);
                        prop_assert!(other.is_empty());
                    }
                }
                prop_assert_eq!(rope.len(), wanted.len());
                prop_assert!(rope.to_vec() == wanted);
                let place = at.index(wanted.len() + 1);
                let rest = rope.from(place);
                prop_assert!(wanted[place..].starts_with(rest));
                let bytes = (wanted.len() - place) / 2;
                let mut some = Rope::default();
                rope.share_range(place, bytes, &mut some);
                prop_assert!(some.len() == bytes && some.to_vec() == wanted[place..place + bytes]);
                prop_assert_eq!(rest.is_empty(), place == wanted.len());
            }
        }
    }

    #[test]
    fn what_is_huge_is_shared_and_not_copied() {
        let large = some(1, true);
        let mut rope = Rope::default();
        rope.bytes().push(1);
        rope.put(&large);
        assert_eq!(rope.from(1).as_ptr(), large.as_ptr());
        let mut buffer = TailedBuffer::default();
        buffer.bytes().push(1);
        buffer.put(&large);
        let body = buffer.finished(usize::MAX);
        assert_eq!((body.len(), body.tail.as_ptr()), (1 + large.len(), large.as_ptr()));
        assert!(buffer.is_empty() && body.whole().is_none());
        assert_eq!(body, Tailed::from(body.to_bytes()));
    }

    #[test]
    fn what_comes_behind_a_tail_ends_it() {
        let large = some(1, true);
        let mut buffer = TailedBuffer::default();
        buffer.put(&large);
        buffer.put(&large);
        buffer.bytes().push(7);
        assert_eq!(buffer.len(), 2 * large.len() + 1);
        let body = buffer.finished(0);
        assert_eq!(body.to_bytes(), [&large[..], &large[..], &[7]].concat());
        assert!(body.whole().is_some());
    }
}
