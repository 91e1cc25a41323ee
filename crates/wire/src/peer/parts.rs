//! A huge frame in parts, so that others on its link need not wait until it is through: small frames go between them.
//!
//! | bytes | what |
//! | --- | --- |
//! | 4 | how long the whole frame is, without its length field, little-endian |
//! | ... | what comes next of it |
//!
//! The parts of one frame follow each other, and a link has one such frame under way at a time. From format 4 on.

use super::{FORMAT_PARTS, FrameError, HEAD_BYTES, KIND_PART, LENGTH_BYTES};
use bytes::{Bytes, BytesMut};
use storage::{Rope, Sink};
use types::limits::ROOM_AHEAD;

/// The most bytes of a frame that one part has.
pub const PART_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a part before those of the frame that it is of.
const TOTAL_BYTES: usize = 4;

/// A whole frame, of which part after part is cut.
#[derive(Debug)]
pub struct Cut {
    frame: Rope,
    /// Up to here it is cut.
    at: usize,
}

impl Cut {
    /// Of one frame with its length, as it would be sent whole.
    pub fn new(frame: Rope) -> Cut {
        Cut { frame, at: LENGTH_BYTES }
    }

    /// What is left of the frame, in bytes.
    pub fn left(&self) -> usize {
        self.frame.len().saturating_sub(self.at)
    }

    /// Appends the frame of the next part, what is shared of it still shared. Returns how many bytes it took of the whole.
    pub fn next(&mut self, format: u8, out: &mut Rope) -> usize {
        let bytes = self.left().min(PART_BYTES_MAX);
        let head = out.bytes();
        head.extend_from_slice(&((HEAD_BYTES + TOTAL_BYTES + bytes) as u32).to_le_bytes());
        head.extend_from_slice(&[format, KIND_PART]);
        head.extend_from_slice(&((self.frame.len() - LENGTH_BYTES) as u32).to_le_bytes());
        self.frame.share_range(self.at, bytes, out);
        self.at += bytes;
        bytes
    }
}

/// What has come of a frame in parts.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    bytes: BytesMut,
    total: usize,
}

impl Assembly {
    /// Bytes that it holds.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes what stands in a part's frame, after its length: the whole frame, after its length, where it was the last.
    pub fn take(&mut self, part: &[u8], bytes_max: usize) -> Result<Option<Bytes>, FrameError> {
        const WRONG: FrameError = FrameError::Corrupt { what: "a part that does not fit the one before it" };
        let (total, bytes) = part[HEAD_BYTES..]
            .split_first_chunk::<TOTAL_BYTES>()
            .ok_or(FrameError::Corrupt { what: "a short part" })?;
        let total = super::body_bytes(*total, bytes_max)?;
        if self.bytes.is_empty() {
            self.total = total;
        }
        let has = self.bytes.len() + bytes.len();
        if total != self.total || bytes.is_empty() || has > total {
            return Err(WRONG);
        }
        if self.bytes.capacity() < total && total <= has * ROOM_AHEAD {
            let mut whole = BytesMut::with_capacity(total);
            whole.extend_from_slice(&self.bytes);
            self.bytes = whole;
        }
        self.bytes.extend_from_slice(bytes);
        Ok((has == total).then(|| std::mem::take(&mut self.bytes).freeze()))
    }
}

/// Whether a frame, after its length, is a part of another.
pub(super) fn is_part(frame: &[u8]) -> bool {
    matches!(frame, [format, KIND_PART, ..] if *format >= FORMAT_PARTS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{FORMAT_NEWEST, Frame, FrameReader, encode_shard};
    use replication::Message;
    use replication::message::{ForwardOutcome, Forwarded};
    use types::{Epoch, Incarnation, NodeId, RequestId, ShardId};

    fn message(bytes: usize) -> Message {
        let reply = (0..bytes).map(|at| (at / 1000) as u8).collect::<Vec<u8>>().into();
        Message::Forwarded(Forwarded {
            id: RequestId { node: NodeId(1), incarnation: Incarnation(1), shard: ShardId(0), sequence: 9 },
            primary_since: Epoch(1),
            outcome: ForwardOutcome::Reply { reply, written: None },
        })
    }

    fn frame(bytes: usize) -> Rope {
        let mut frame = Rope::default();
        assert_eq!(encode_shard(FORMAT_NEWEST, &[message(bytes)], &mut frame), 0);
        frame
    }

    fn parts(bytes: usize) -> Vec<Vec<u8>> {
        let mut cut = Cut::new(frame(bytes));
        std::iter::from_fn(|| {
            let mut part = Rope::default();
            (cut.next(FORMAT_NEWEST, &mut part) > 0).then(|| part.to_vec())
        })
        .collect()
    }

    #[test]
    fn a_frame_comes_whole_out_of_its_parts_with_others_between_them() {
        for bytes in [1, PART_BYTES_MAX, 3 * PART_BYTES_MAX + 1, 9 << 20] {
            let parts = parts(bytes);
            assert!(parts.len() > bytes / PART_BYTES_MAX && parts.len() <= bytes / PART_BYTES_MAX + 2);
            let mut reader = FrameReader::open();
            for (number, part) in parts.iter().enumerate() {
                assert_eq!(reader.next_frame(), Ok(None));
                reader.push(&frame(number + 1).to_vec());
                assert_eq!(reader.next_frame(), Ok(Some(Frame::Shard(vec![message(number + 1)]))));
                reader.push(part);
            }
            assert_eq!(reader.next_frame(), Ok(Some(Frame::Shard(vec![message(bytes)]))));
            assert_eq!((reader.next_frame(), reader.waiting_bytes()), (Ok(None), 0));
        }
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let read = |parts: &[&[u8]], mut reader: FrameReader| {
            parts.iter().for_each(|part| reader.push(part));
            reader.next_frame()
        };
        let whole = parts(2 * PART_BYTES_MAX);
        let other = parts(3 * PART_BYTES_MAX);
        assert!(matches!(
            read(&[&whole[0], &other[1]], FrameReader::open()),
            Err(FrameError::Corrupt { what: "a part that does not fit the one before it" })
        ));
        assert!(read(&[&whole[0], &whole[0], &whole[0]], FrameReader::open()).is_err(), "beyond its end");
        assert!(read(&[&whole[0]], FrameReader::handshake()).is_err());
        let part = |format: u8, total: u32, bytes: &[u8]| {
            let mut part = ((HEAD_BYTES + TOTAL_BYTES + bytes.len()) as u32).to_le_bytes().to_vec();
            part.extend_from_slice(&[format, KIND_PART]);
            part.extend_from_slice(&total.to_le_bytes());
            part.extend_from_slice(bytes);
            part
        };
        assert!(read(&[&part(FORMAT_NEWEST, 10, b"")], FrameReader::open()).is_err(), "it says nothing");
        assert!(read(&[&part(FORMAT_NEWEST, u32::MAX, b"abc")], FrameReader::open()).is_err(), "too long");
        assert!(read(&[&part(3, 10, b"abc")], FrameReader::open()).is_err(), "before there were any");
        assert_eq!(read(&[&part(FORMAT_NEWEST, 10, b"abc")], FrameReader::open()), Ok(None));
        let nested = part(FORMAT_NEWEST, 8, &[FORMAT_NEWEST, KIND_PART, 9, 0, 0, 0, 1, 2]);
        assert!(read(&[&nested], FrameReader::open()).is_err(), "a part of a part");
    }

    #[test]
    fn memory_follows_what_has_come() {
        let mut reader = FrameReader::open();
        let parts = parts(64 << 20);
        for (number, part) in parts.iter().enumerate().take(parts.len() - 1) {
            reader.push(part);
            assert_eq!(reader.next_frame(), Ok(None));
            let (has, room) = (reader.assembly.len(), reader.assembly.bytes.capacity());
            assert_eq!(has, (number + 1) * PART_BYTES_MAX);
            assert!(room <= has * ROOM_AHEAD, "room for {room} where {has} have come");
        }
    }
}
