//! What waits to leave on a link: whole frames, in pieces.
//!
//! Small turns share a piece, so that they leave in one write. A large frame ends its piece: nothing that comes behind it moves it, and
//! its memory is given back as soon as it is out.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};

/// A piece with so many bytes gets no more, and one that has had room for more is given back once it is empty.
const PIECE_BYTES: usize = 1024 * 1024;

/// Bytes in the order in which they leave.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pieces: VecDeque<Vec<u8>>,
    /// How many bytes of the first piece have left.
    sent: usize,
    /// How many bytes have been taken, and how many of them have left, since the outbox was new.
    taken: u64,
    left: u64,
    /// Up to where what one turn had to say goes that was by itself more than may wait. What comes behind it has room of its own.
    large_until: u64,
}

impl Outbox {
    /// Bytes that wait.
    pub fn waiting(&self) -> usize {
        (self.taken - self.left) as usize
    }

    pub fn is_empty(&self) -> bool {
        self.taken == self.left
    }

    /// Appends what one turn has to say. False where it was left out, since more than `most` bytes wait.
    ///
    /// It is never refused where little waits, however much it is: a large value must get through. Nor is what is little because of a
    /// large value before it: it would be sent again half a second later, and then again.
    pub fn push(&mut self, most: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let most = most as u64;
        let has_room = self.taken - self.left <= most;
        if self.taken - self.large_until.max(self.left) > most {
            return false;
        }
        if self.pieces.back().is_none_or(|piece| piece.len() >= PIECE_BYTES) {
            self.pieces.push_back(Vec::new());
        }
        let Some(piece) = self.pieces.back_mut() else { return false };
        let before = piece.len();
        write(piece);
        let bytes = (piece.len() - before) as u64;
        let is_large = bytes > most;
        if has_room && is_large {
            self.large_until = self.taken + bytes;
        } else if !has_room && (is_large || self.taken + bytes - self.large_until > most) {
            // One large value waits already, and enough behind it.
            piece.truncate(before);
            return false;
        }
        self.taken += bytes;
        true
    }

    /// Writes until all has left or the socket is full; whether it is.
    pub fn write_to(&mut self, stream: &mut impl Write) -> io::Result<bool> {
        loop {
            let is_last = self.pieces.len() <= 1;
            let Some(piece) = self.pieces.front_mut() else { return Ok(false) };
            if self.sent == piece.len() {
                self.sent = 0;
                if is_last && piece.capacity() <= PIECE_BYTES {
                    piece.clear();
                    return Ok(false);
                }
                self.pieces.pop_front();
                continue;
            }
            match stream.write(&piece[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    self.sent += bytes;
                    self.left += bytes as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes in all, so many at once.
    struct Socket {
        takes: usize,
        at_once: usize,
        got: Vec<u8>,
    }

    impl Write for Socket {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.takes == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            let bytes = &bytes[..bytes.len().min(self.at_once).min(self.takes)];
            self.takes -= bytes.len();
            self.got.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_taken_leaves_in_order_whatever_the_socket_takes_at_once() {
        let mut outbox = Outbox::default();
        let mut socket = Socket { takes: 0, at_once: 700_001, got: Vec::new() };
        let mut wanted = Vec::new();
        let sizes = [1, 10, PIECE_BYTES, 5, 3 * PIECE_BYTES, 0, 7, PIECE_BYTES / 2, PIECE_BYTES / 2, 1];
        for (number, bytes) in sizes.into_iter().enumerate() {
            assert!(outbox.push(usize::MAX, |out| out.resize(out.len() + bytes, number as u8)));
            wanted.resize(wanted.len() + bytes, number as u8);
            socket.takes = bytes / 3;
            assert!(outbox.write_to(&mut socket).unwrap(), "it is full");
            assert_eq!(outbox.waiting() + socket.got.len(), wanted.len());
        }
        socket.takes = usize::MAX;
        assert!(!outbox.write_to(&mut socket).unwrap());
        assert!(outbox.is_empty() && socket.got == wanted);
        let kept: usize = outbox.pieces.iter().map(Vec::capacity).sum();
        assert!(kept <= PIECE_BYTES, "{kept} bytes are kept for nothing");
    }

    #[test]
    fn a_large_piece_stays_where_it_is() {
        let mut outbox = Outbox::default();
        outbox.push(usize::MAX, |out| out.resize(2 * PIECE_BYTES, 1));
        let at = outbox.pieces[0].as_ptr();
        for _ in 0..3 {
            outbox.push(usize::MAX, |out| out.resize(out.len() + PIECE_BYTES, 2));
        }
        assert_eq!((outbox.pieces[0].as_ptr(), outbox.pieces.len()), (at, 4));
    }
}
