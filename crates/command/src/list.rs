//! Many byte strings, packed: what KEYS gathers. Ten million keys as a [`crate::Reply::Array`] would take a heap piece each,
//! and a stall to make, to write and to free. Here they lie in chunks, which can be taken off one by one.

use std::collections::VecDeque;

/// A chunk takes no more than begins before it holds as much.
const CHUNK_BYTES: usize = 64 * 1024;
const LENGTH_BYTES: usize = 4;

/// Byte strings in the order in which they were pushed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct List {
    chunks: VecDeque<Chunk>,
    len: usize,
    bytes: usize,
}

/// Some of a list's items: each a length of 4 bytes, little-endian, and so many bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chunk(Vec<u8>);

impl Chunk {
    /// Its items.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (length, behind) = rest.split_first_chunk::<LENGTH_BYTES>()?;
            let (item, behind) = behind.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = behind;
            Some(item)
        })
    }
}

impl List {
    /// Adds an item, of up to 512 MiB as all keys and values.
    pub fn push(&mut self, item: &[u8]) {
        if self.chunks.back().is_none_or(|chunk| chunk.0.len() >= CHUNK_BYTES) {
            self.chunks.push_back(Chunk(Vec::new()));
        }
        let Some(chunk) = self.chunks.back_mut() else { return };
        chunk.0.extend_from_slice(&(item.len() as u32).to_le_bytes());
        chunk.0.extend_from_slice(item);
        self.len += 1;
        self.bytes += LENGTH_BYTES + item.len();
    }

    /// How many items it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes that it takes, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its items.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.chunks.iter().flat_map(Chunk::iter)
    }

    /// Takes the first items off.
    pub fn take_chunk(&mut self) -> Option<Chunk> {
        let chunk = self.chunks.pop_front()?;
        self.len -= chunk.iter().count();
        self.bytes -= chunk.0.len();
        Some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_taken_apart_in_order() {
        let mut list = List::default();
        let items: Vec<Vec<u8>> = (0..5000u32).map(|at| vec![at as u8; at as usize % 90]).collect();
        items.iter().for_each(|item| list.push(item));
        assert_eq!((list.len(), list.iter().count()), (5000, 5000));
        assert!(list.iter().eq(items.iter()));
        let mut chunks = Vec::new();
        while let Some(chunk) = list.take_chunk() {
            chunks.push(chunk);
        }
        assert!((3..6).contains(&chunks.len()), "{} chunks", chunks.len());
        assert!(chunks.iter().flat_map(Chunk::iter).eq(items.iter()));
        assert_eq!(list, List::default());
    }
}
