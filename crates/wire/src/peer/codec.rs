//! Numbers, strings and lists of the peer protocol.
//!
//! Numbers are LEB128 varints. A list is its count and its items; a reader makes room for items as they come, not
//! for as many as were declared. Byte strings are slices of the frame that they came in.

use super::FrameError;
use bytes::{Buf, Bytes};
use storage::lent::is_huge;
use storage::{Parts, Sink};
use types::{Endpoint, Epoch, Lsn, Position, RequestId, ShardId};

pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Room behind a long run of bytes for what comes after it, so that it is not moved for that.
const ROOM_BEHIND: usize = 64 * 1024;

/// Makes room for a long run of bytes, and some behind it.
pub(super) fn reserve_for(out: &mut Vec<u8>, bytes: usize) {
    if bytes > ROOM_BEHIND {
        out.reserve(bytes + ROOM_BEHIND);
    }
}

pub(super) fn put_bytes<'b>(sink: &mut impl Sink, bytes: impl Into<Parts<'b>>) {
    let bytes = bytes.into();
    let out = sink.bytes();
    put_number(out, bytes.len() as u64);
    if !is_huge(bytes.len()) {
        reserve_for(out, bytes.len());
    }
    bytes.put(sink);
}

pub(super) fn put_position(out: &mut Vec<u8>, position: Position) {
    put_number(out, position.epoch.0);
    put_number(out, position.lsn.0);
}

pub(super) fn put_request_id(out: &mut Vec<u8>, id: RequestId) {
    put_number(out, u64::from(id.node.0));
    put_number(out, id.incarnation.0);
    put_number(out, u64::from(id.shard.0));
    put_number(out, id.sequence);
}

const ENDPOINT_CONTROL: u64 = 0;
const ENDPOINT_HEART: u64 = 1;
const ENDPOINT_SHARD: u64 = 2;

pub(super) fn put_endpoint(out: &mut Vec<u8>, endpoint: Endpoint) {
    put_number(
        out,
        match endpoint {
            Endpoint::Control => ENDPOINT_CONTROL,
            Endpoint::Heart => ENDPOINT_HEART,
            Endpoint::Shard(shard) => ENDPOINT_SHARD + u64::from(shard.0),
        },
    );
}

/// Takes values off the front of a frame.
#[derive(Debug)]
pub(super) struct Reader {
    rest: Bytes,
}

const ENDS_EARLY: FrameError = FrameError::Corrupt { what: "it ends early" };
const OUT_OF_RANGE: FrameError = FrameError::Corrupt { what: "a number out of range" };

impl Reader {
    pub fn new(rest: Bytes) -> Reader {
        Reader { rest }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// An error where something is left over.
    pub fn end(&self) -> Result<(), FrameError> {
        if self.is_empty() { Ok(()) } else { Err(FrameError::Corrupt { what: "bytes after the end" }) }
    }

    pub fn take_rest(&mut self) -> Bytes {
        std::mem::take(&mut self.rest)
    }

    pub fn byte(&mut self) -> Result<u8, FrameError> {
        let byte = *self.rest.first().ok_or(ENDS_EARLY)?;
        self.rest.advance(1);
        Ok(byte)
    }

    pub fn number(&mut self) -> Result<u64, FrameError> {
        let mut number = 0u64;
        for (at, &byte) in self.rest.iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if at == 9 && bits > 1 {
                return Err(OUT_OF_RANGE);
            }
            number |= bits << (at * 7);
            if byte & 0x80 == 0 {
                self.rest.advance(at + 1);
                return Ok(number);
            }
        }
        Err(if self.rest.len() < 10 { ENDS_EARLY } else { OUT_OF_RANGE })
    }

    pub fn number_to<T: TryFrom<u64>>(&mut self) -> Result<T, FrameError> {
        T::try_from(self.number()?).map_err(|_| OUT_OF_RANGE)
    }

    pub fn bytes(&mut self) -> Result<Bytes, FrameError> {
        let length: usize = self.number_to()?;
        if length > self.rest.len() {
            return Err(ENDS_EARLY);
        }
        Ok(self.rest.split_to(length))
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let array = *self.rest.first_chunk::<N>().ok_or(ENDS_EARLY)?;
        self.rest.advance(N);
        Ok(array)
    }

    pub fn flag(&mut self) -> Result<bool, FrameError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(OUT_OF_RANGE),
        }
    }

    /// A list whose items are read by `item`. Every item has a byte or more, so that a count of items that are
    /// not there ends at the end of the frame.
    pub fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Reader) -> Result<T, FrameError>,
    ) -> Result<Vec<T>, FrameError> {
        let count: usize = self.number_to()?;
        if count > self.rest.len() {
            return Err(ENDS_EARLY);
        }
        let mut items = Vec::with_capacity(count.min(64));
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    pub fn position(&mut self) -> Result<Position, FrameError> {
        Ok(Position { epoch: Epoch(self.number()?), lsn: Lsn(self.number()?) })
    }

    pub fn request_id(&mut self) -> Result<RequestId, FrameError> {
        Ok(RequestId {
            node: types::NodeId(self.number_to()?),
            incarnation: types::Incarnation(self.number()?),
            shard: ShardId(self.number_to()?),
            sequence: self.number()?,
        })
    }

    pub fn endpoint(&mut self) -> Result<Endpoint, FrameError> {
        match self.number()? {
            ENDPOINT_CONTROL => Ok(Endpoint::Control),
            ENDPOINT_HEART => Ok(Endpoint::Heart),
            shard => {
                let shard = u16::try_from(shard - ENDPOINT_SHARD).map_err(|_| OUT_OF_RANGE)?;
                Ok(Endpoint::Shard(ShardId(shard)))
            }
        }
    }

    pub fn record(&mut self) -> Result<storage::Record, FrameError> {
        storage::Record::decode(&mut self.rest).map_err(|corrupt| FrameError::Corrupt { what: corrupt.what })
    }
}
