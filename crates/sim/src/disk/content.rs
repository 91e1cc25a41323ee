//! The bytes of one file: what a reader sees, what is durable, and between them the writes that were not synced, in order.

use history::random::Random;

#[derive(Debug, Default)]
pub(super) struct FileState {
    pub(super) seen: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) writes: Vec<Write>,
    /// For how many bytes room is reserved, where that is more than it has.
    pub(super) allocated: u64,
    /// The stretches that were asked to be written back.
    pub(super) written_back: Vec<(u64, u64)>,
    /// The bytes that the disk cannot read any more.
    pub(super) spoiled: Vec<usize>,
}

impl FileState {
    /// What it takes of the disk's room.
    pub(super) fn room_bytes(&self) -> u64 {
        self.allocated.max(self.seen.len() as u64)
    }

    /// As on Linux: what could not be written counts as written from then on, so that the next sync says nothing
    /// of it. Lengths are the file system's own, and do not get lost this way.
    pub(super) fn lose_writes(&mut self) {
        self.writes.retain(|write| matches!(write, Write::Truncate(_)));
    }
}

#[derive(Clone, Debug)]
pub(super) enum Write {
    At(u64, Vec<u8>),
    Truncate(u64),
}

impl Write {
    /// Makes the write, or the first `bytes` of it.
    pub(super) fn make(&self, content: &mut Vec<u8>, bytes: usize) {
        match self {
            Write::At(offset, written) => {
                let start = *offset as usize;
                let written = &written[..bytes.min(written.len())];
                if written.is_empty() {
                    return;
                }
                content.resize(content.len().max(start + written.len()), 0);
                content[start..start + written.len()].copy_from_slice(written);
            }
            Write::Truncate(length) => content.resize(*length as usize, 0),
        }
    }

    /// Makes the write, or nothing of it, or any pieces of it. True: the last.
    pub(super) fn make_scattered(&self, content: &mut Vec<u8>, random: &mut Random) -> bool {
        let choice = random.below(4);
        match self {
            _ if choice == 0 => {}
            Write::At(offset, written) if choice == 1 => {
                // Its length may be there before its bytes.
                content.resize(content.len().max(*offset as usize + written.len()), 0);
                let piece = 1 << random.below(7);
                for (number, bytes) in written.chunks(piece).enumerate() {
                    if random.below(2) == 0 {
                        let start = *offset as usize + number * piece;
                        content[start..start + bytes.len()].copy_from_slice(bytes);
                    }
                }
            }
            _ => self.make(content, self.bytes()),
        }
        choice == 1 && matches!(self, Write::At(..))
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Write::At(_, written) => written.len(),
            Write::Truncate(_) => 1,
        }
    }
}
