//! A record of a partition's log: what one command changed, and where it stands.
//!
//! A record names its predecessor by (epoch, lsn), so that a backup can refuse a gap (rule 4). It carries the
//! partition's time (rule 14), and, where the command was forwarded, the forwarder's number for it with the
//! reply, so that a promoted backup answers a repeat instead of doing it twice (rule 17).
//!
//! | bytes | what |
//! | --- | --- |
//! | varint x 4 | epoch, lsn, epoch of the predecessor, time (Unix milliseconds) |
//! | 1 | 1: a request id and its reply follow; 0: none |
//! | varint x 4 | node, incarnation, shard, sequence of the request id |
//! | varint, bytes | the reply's length, the reply |
//! | varint, bytes | the body's length, the body: a run of effects |
//!
//! Decoding cuts the body and the reply out of the buffer that they came in, which lives as long as they do.

use crate::codec::{Corrupt, Reader, number_bytes, put_number, put_string};
use crate::lent::is_huge;
use crate::rope::{Parts, Sink, Tailed};
use bytes::{Buf, Bytes};
use types::{Epoch, Incarnation, Lsn, NodeId, Position, RequestId, ShardId};

/// One record of a partition's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its epoch and its place in the log. The lsn is 1 or more.
    pub position: Position,
    /// The epoch of the record before it.
    pub prev_epoch: Epoch,
    /// The partition's time when it was ordered, in Unix milliseconds. Never falls along the log.
    pub time_ms: u64,
    /// The forwarded request that made it, with the encoded reply to it.
    pub request: Option<(RequestId, Bytes)>,
    /// What it changes: a run of [effects](crate::effect). Empty for the record that opens an epoch.
    pub body: Tailed,
}

impl Record {
    /// The position of the record before it.
    pub fn prev(&self) -> Position {
        Position { epoch: self.prev_epoch, lsn: Lsn(self.position.lsn.0 - 1) }
    }

    /// Appends the record's bytes.
    pub fn encode(&self, out: &mut impl Sink) {
        if !is_huge(self.body.len()) {
            out.bytes().reserve(self.encoded_len());
        }
        let request = self.request.as_ref().map(|(id, reply)| (id, &reply[..]));
        encode_parts(out, self.position, self.prev_epoch, self.time_ms, request, &self.body);
    }

    /// How many bytes [`Record::encode`] appends.
    pub fn encoded_len(&self) -> usize {
        let string = |len: usize| number_bytes(len as u64) + len;
        let head = [self.position.epoch.0, self.position.lsn.0, self.prev_epoch.0, self.time_ms];
        let request = self.request.as_ref().map_or(0, |(id, reply)| {
            id_numbers(id).map(number_bytes).iter().sum::<usize>() + string(reply.len())
        });
        head.map(number_bytes).iter().sum::<usize>() + 1 + request + string(self.body.len())
    }

    /// Takes one record off the front of `bytes`, which is left as it was where they are no record.
    pub fn decode(bytes: &mut Bytes) -> Result<Record, Corrupt> {
        let mut reader = Reader { rest: bytes };
        let epoch = Epoch(reader.number()?);
        let lsn = Lsn(reader.number()?);
        let prev_epoch = Epoch(reader.number()?);
        let time_ms = reader.number()?;
        if lsn == Lsn(0) {
            return Err(Corrupt { what: "a record with lsn 0" });
        }
        if prev_epoch > epoch {
            return Err(Corrupt { what: "a record older than the one before it" });
        }
        let request = match reader.byte()? {
            0 => None,
            1 => {
                let node = NodeId(reader.number_to()?);
                let incarnation = Incarnation(reader.number()?);
                let shard = ShardId(reader.number_to()?);
                let sequence = reader.number()?;
                let reply = reader.string()?;
                Some((RequestId { node, incarnation, shard, sequence }, bytes.slice_ref(reply)))
            }
            _ => return Err(Corrupt { what: "a record with an unknown flag" }),
        };
        let body = bytes.slice_ref(reader.string()?).into();
        let used = bytes.len() - reader.rest.len();
        bytes.advance(used);
        Ok(Record { position: Position { epoch, lsn }, prev_epoch, time_ms, request, body })
    }

    /// The memory that it takes in a log, in bytes: an estimate.
    pub fn bytes(&self) -> usize {
        size_of::<Record>() + self.body.len() + self.request.as_ref().map_or(0, |(_, reply)| reply.len())
    }
}

/// Appends the bytes of a record that nobody has put together yet.
pub fn encode_parts<'b>(
    sink: &mut impl Sink,
    position: Position,
    prev_epoch: Epoch,
    time_ms: u64,
    request: Option<(&RequestId, &[u8])>,
    body: impl Into<Parts<'b>>,
) {
    let out = sink.bytes();
    for number in [position.epoch.0, position.lsn.0, prev_epoch.0, time_ms] {
        put_number(out, number);
    }
    match request {
        None => out.push(0),
        Some((id, reply)) => {
            out.push(1);
            for number in id_numbers(id) {
                put_number(out, number);
            }
            put_string(out, reply);
        }
    }
    let body = body.into();
    put_number(out, body.len() as u64);
    body.put(sink);
}

fn id_numbers(id: &RequestId) -> [u64; 4] {
    [u64::from(id.node.0), id.incarnation.0, u64::from(id.shard.0), id.sequence]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_read_back(
            (epoch, back, lsn, time_ms) in (any::<u64>(), any::<u64>(), 1u64.., any::<u64>()),
            request in any::<Option<(u16, u64, u16, u64, Vec<u8>)>>(),
            body: Vec<u8>,
            after: Vec<u8>,
        ) {
            let request = request.map(|(node, incarnation, shard, sequence, reply)| {
                let (node, incarnation) = (NodeId(node), Incarnation(incarnation));
                (RequestId { node, incarnation, shard: ShardId(shard), sequence }, Bytes::from(reply))
            });
            let position = Position { epoch: Epoch(epoch), lsn: Lsn(lsn) };
            let prev_epoch = Epoch(epoch.saturating_sub(back));
            let record = Record { position, prev_epoch, time_ms, request, body: Tailed::from(body) };
            let mut out = Vec::new();
            record.encode(&mut out);
            prop_assert_eq!(out.len(), record.encoded_len());
            for cut in 0..out.len() {
                let mut bytes = Bytes::copy_from_slice(&out[..cut]);
                prop_assert!(Record::decode(&mut bytes).is_err());
                prop_assert_eq!(bytes.len(), cut);
            }
            out.extend_from_slice(&after);
            let mut bytes = Bytes::from(out);
            prop_assert_eq!(Record::decode(&mut bytes), Ok(record));
            prop_assert_eq!(&bytes[..], &after[..]);
        }

        #[test]
        fn any_bytes_decode_without_a_panic(bytes: Vec<u8>) {
            let _ = Record::decode(&mut Bytes::from(bytes));
        }
    }
}
