//! Changes that keep what they replace, for the keyspace, which may have to take them back.
//!
//! What was there is copied where the new value is written over it, since that costs no allocation; it is handed out as the
//! [`Piece`] that it was where it is large or the new value needs another size.

use super::{PLACE_BITS, Piece, Table, Value};
use bytes::Bytes;
use types::Version;

/// What is written over is copied up to this size; to copy more costs more than another piece.
const COPIED_MAX: usize = 1024;

/// How [`Table::put_keeping`] has put a value.
pub(crate) enum Put {
    /// The key was absent.
    New,
    /// Over what was there, which was copied.
    Over,
    /// Instead of this.
    Instead(Piece),
}

impl Table {
    /// As [`Table::put`]. What was there is appended to `old` where it is written over, and handed out where it is replaced.
    pub(crate) fn put_keeping(
        &mut self,
        hash: u64,
        key: &[u8],
        value: Value<'_>,
        expire_at_ms: Option<u64>,
        version: Version,
        old: &mut Vec<u8>,
    ) -> Put {
        let number = self.segment_of(hash);
        let segment = self.segment_mut(number);
        let place = match segment.find(hash, key) {
            Ok(place) => place,
            Err(place) => {
                self.insert_at(number, place, hash, Piece::new(key, value, expire_at_ms, version));
                return Put::New;
            }
        };
        let start = old.len();
        let view = segment.piece(place);
        let had_expiry = view.has_expiry();
        if view.bytes() <= COPIED_MAX && !view.is_shared() {
            old.extend_from_slice(view.written());
            if segment.piece_mut(place).rewrite(value, expire_at_ms, version) {
                self.volatile_len += usize::from(expire_at_ms.is_some());
                self.volatile_len -= usize::from(had_expiry);
                return Put::Over;
            }
            old.truncate(start);
        }
        Put::Instead(self.swap(number << PLACE_BITS | place, Piece::new(key, value, expire_at_ms, version)))
    }

    /// As [`Table::put_keeping`], of a value that is shared.
    pub(crate) fn share_keeping(
        &mut self,
        hash: u64,
        key: &[u8],
        value: Bytes,
        expire_at_ms: Option<u64>,
        version: Version,
    ) -> Put {
        match self.insert_or_swap(hash, Piece::sharing(key, value, expire_at_ms, version)) {
            None => Put::New,
            Some(piece) => Put::Instead(piece),
        }
    }

    /// Puts a piece, in the place of the one of its key where there is one, which is returned.
    pub(crate) fn insert_or_swap(&mut self, hash: u64, piece: Piece) -> Option<Piece> {
        match self.find(hash, piece.key()) {
            Ok(position) => Some(self.swap(position, piece)),
            Err(_) => {
                self.insert(hash, piece);
                None
            }
        }
    }
}
