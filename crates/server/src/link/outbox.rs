//! What waits to leave on a link: whole frames, in pieces.
//!
//! Small turns share a piece, so that they leave in one write. A large frame ends its piece: nothing that comes behind it moves it, and
//! its memory is given back as soon as it is out. A huge value in it is shared, not copied.
//!
//! A *huge* frame waits by itself, and goes part by part when nothing else waits ([`wire::peer::parts`]), so that it holds nobody up
//! for longer than a part takes.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use storage::Rope;
use wire::peer::parts::Cut;

/// A piece with so many bytes gets no more, and one that has had room for more is given back once it is empty.
const PIECE_BYTES: usize = 1024 * 1024;

/// Bytes in the order in which they leave.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pieces: VecDeque<Rope>,
    /// How many bytes of the first piece have left.
    sent: usize,
    /// How many bytes have been taken, and how many of them have left, since the outbox was new.
    taken: u64,
    left: u64,
    /// Up to where what one turn had to say goes that was by itself more than may wait, or the part of a huge frame. What comes behind it
    /// has room of its own.
    large_until: u64,
    /// Huge frames, and the format of the link.
    huge: VecDeque<(u8, Cut)>,
}

impl Outbox {
    /// Bytes that wait.
    pub fn waiting(&self) -> usize {
        (self.taken - self.left) as usize + self.huge_bytes()
    }

    pub fn is_empty(&self) -> bool {
        self.taken == self.left && self.huge.is_empty()
    }

    fn huge_bytes(&self) -> usize {
        self.huge.iter().map(|(_, cut)| cut.left()).sum()
    }

    /// Appends what one turn has to say. False where it was left out, since more than `most` bytes wait.
    ///
    /// It is never refused where little waits, however much it is: a large value must get through. Nor is what is little because of a
    /// large value before it: it would be sent again half a second later, and then again.
    pub fn push(&mut self, most: usize, write: impl FnOnce(&mut Rope)) -> bool {
        let most = most as u64;
        let has_room = self.taken - self.left <= most;
        if self.taken - self.large_until.max(self.left) > most {
            return false;
        }
        if self.pieces.back().is_none_or(|piece| piece.len() >= PIECE_BYTES) {
            self.pieces.push_back(Rope::default());
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

    /// Takes a huge frame, to be sent in parts. False where it was left out, since more than `most` bytes of others wait.
    pub fn push_huge(&mut self, most: usize, format: u8, frame: Rope) -> bool {
        let has_room = self.huge_bytes() <= most;
        if has_room {
            self.huge.push_back((format, Cut::new(frame)));
        }
        has_room
    }

    /// Has the next part of a huge frame leave. False: there is none.
    fn cut_part(&mut self) -> bool {
        let Some((format, cut)) = self.huge.front_mut() else { return false };
        let mut part = Rope::default();
        cut.next(*format, &mut part);
        if cut.left() == 0 {
            self.huge.pop_front();
        }
        self.taken += part.len() as u64;
        self.large_until = self.taken;
        self.pieces.push_back(part);
        true
    }

    /// Writes until all has left or the socket is full; whether it is.
    pub fn write_to(&mut self, stream: &mut impl Write) -> io::Result<bool> {
        loop {
            let is_last = self.pieces.len() <= 1;
            let rest = self.pieces.front().map_or(&[][..], |piece| piece.from(self.sent));
            if rest.is_empty() {
                self.sent = 0;
                match self.pieces.front_mut() {
                    Some(piece) if is_last && piece.capacity() <= PIECE_BYTES => piece.clear(),
                    Some(_) => drop(self.pieces.pop_front()),
                    None => {}
                }
                if is_last && !self.cut_part() {
                    return Ok(false);
                }
                continue;
            }
            match stream.write(rest) {
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
    use replication::Message;
    use storage::Sink;
    use wire::peer::{FORMAT_PARTS, Frame, FrameReader, encode_shard};

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

    fn fill(out: &mut Rope, bytes: usize, with: u8) {
        let out = out.bytes();
        out.resize(out.len() + bytes, with);
    }

    #[test]
    fn what_is_taken_leaves_in_order_whatever_the_socket_takes_at_once() {
        let mut outbox = Outbox::default();
        let mut socket = Socket { takes: 0, at_once: 700_001, got: Vec::new() };
        let mut wanted = Vec::new();
        let sizes = [1, 10, PIECE_BYTES, 5, 3 * PIECE_BYTES, 0, 7, PIECE_BYTES / 2, PIECE_BYTES / 2, 1];
        for (number, bytes) in sizes.into_iter().enumerate() {
            assert!(outbox.push(usize::MAX, |out| fill(out, bytes, number as u8)));
            wanted.resize(wanted.len() + bytes, number as u8);
            socket.takes = bytes / 3;
            assert!(outbox.write_to(&mut socket).unwrap(), "it is full");
            assert_eq!(outbox.waiting() + socket.got.len(), wanted.len());
        }
        socket.takes = usize::MAX;
        assert!(!outbox.write_to(&mut socket).unwrap());
        assert!(outbox.is_empty() && socket.got == wanted);
        let kept: usize = outbox.pieces.iter().map(Rope::capacity).sum();
        assert!(kept <= PIECE_BYTES, "{kept} bytes are kept for nothing");
    }

    #[test]
    fn a_large_piece_stays_where_it_is() {
        let mut outbox = Outbox::default();
        outbox.push(usize::MAX, |out| fill(out, 2 * PIECE_BYTES, 1));
        let at = outbox.pieces[0].from(0).as_ptr();
        for _ in 0..3 {
            outbox.push(usize::MAX, |out| fill(out, PIECE_BYTES, 2));
        }
        assert_eq!((outbox.pieces[0].from(0).as_ptr(), outbox.pieces.len()), (at, 4));
    }

    /// A message with a value of so many bytes.
    fn message(bytes: usize) -> Message {
        crate::testing::forwarded(bytes as u64, bytes)
    }

    #[test]
    fn small_frames_go_between_the_parts_of_a_huge_one() {
        let frame = |bytes: usize| {
            let mut frame = Rope::default();
            encode_shard(FORMAT_PARTS, &[message(bytes)], &mut frame);
            frame
        };
        const HUGE: usize = 9 << 20;
        let mut outbox = Outbox::default();
        assert!(outbox.push_huge(1, FORMAT_PARTS, frame(HUGE)));
        assert!(!outbox.push_huge(1, FORMAT_PARTS, frame(HUGE)), "one waits");
        let mut socket = Socket { takes: 0, at_once: usize::MAX, got: Vec::new() };
        let (mut reader, mut came) = (FrameReader::open(), Vec::new());
        for bytes in 1..20 {
            assert!(outbox.push(1000, |out| out.append(&mut frame(bytes))));
            socket.takes = HUGE / 16;
            outbox.write_to(&mut socket).unwrap();
            reader.push(&std::mem::take(&mut socket.got));
            while let Some(frame) = reader.next_frame().unwrap() {
                came.push(frame);
            }
        }
        assert!(outbox.is_empty());
        let small = |bytes: usize| Frame::Shard(vec![message(bytes)]);
        let huge = came.iter().position(|frame| *frame == small(HUGE)).expect("it came");
        assert!((15..=18).contains(&huge), "others went before it: {huge}");
        came.remove(huge);
        assert_eq!(came, (1..20).map(small).collect::<Vec<_>>());
    }
}
