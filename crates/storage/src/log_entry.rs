//! What a shard's log on disk is made of: entries, each of one partition.
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | kind: 1 record, 2 truncate, 3 wipe, 4 chunk, 5 filled, 6 session |
//! | varint | the partition |
//! | record: varint, ... | the partition's commit lsn when it was written; the [record](crate::record) |
//! | truncate: varint | the lsn after which all records are discarded |
//! | wipe: none | the copy holds nothing any more |
//! | chunk: varint, bytes | a piece of a snapshot that another node sent, as [`crate::snapshot`] writes it |
//! | session: varint x 3 | the reign and the session of the chunks that follow, and the number of the first of them |
//! | filled: ... | the end of that snapshot, as [`SnapshotEnd`] writes it |
//!
//! Nothing of the log is ever changed or cut, since a shard's partitions share it: what a partition discards, it discards by an
//! entry (rule 9).

use crate::codec::{Corrupt, Reader, put_number};
use crate::record::{self, Record};
use crate::rope::{Parts, Sink};
use crate::snapshot::SnapshotEnd;
use bytes::{Buf, Bytes};
use types::{Epoch, Lsn, PartitionId, Position, RequestId};

const RECORD: u8 = 1;
const TRUNCATE: u8 = 2;
const WIPE: u8 = 3;
const CHUNK: u8 = 4;
const FILLED: u8 = 5;
const SESSION: u8 = 6;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEntry {
    /// A record was ordered, or taken from the primary.
    Record {
        /// Whose.
        partition: PartitionId,
        /// What was committed then, as far as this copy knew.
        commit: Lsn,
        /// The record.
        record: Record,
    },
    /// All records behind this one are discarded.
    Truncate {
        /// Whose.
        partition: PartitionId,
        /// The last that is kept.
        after: Lsn,
    },
    /// The copy holds nothing any more.
    Wipe {
        /// Whose.
        partition: PartitionId,
    },
    /// A piece of a snapshot from another node.
    Chunk {
        /// Whose.
        partition: PartitionId,
        /// The piece.
        payload: Bytes,
    },
    /// The chunks that follow are of this transfer: so it can go on where it stopped.
    Session {
        /// Whose.
        partition: PartitionId,
        /// The reign of the primary that sends.
        reign: Epoch,
        /// What it calls the transfer, since it began or went on.
        session: u64,
        /// The number of the next chunk.
        next: u32,
    },
    /// That snapshot's end: the log goes on from its base.
    Filled {
        /// Whose.
        partition: PartitionId,
        /// The end.
        end: SnapshotEnd,
    },
}

impl LogEntry {
    /// The partition that it belongs to.
    pub fn partition(&self) -> PartitionId {
        match self {
            LogEntry::Record { partition, .. }
            | LogEntry::Truncate { partition, .. }
            | LogEntry::Wipe { partition }
            | LogEntry::Chunk { partition, .. }
            | LogEntry::Session { partition, .. }
            | LogEntry::Filled { partition, .. } => *partition,
        }
    }

    /// Takes one entry off the front of `bytes`.
    pub fn decode(bytes: &mut Bytes) -> Result<LogEntry, Corrupt> {
        let mut reader = Reader { rest: bytes };
        let kind = reader.byte()?;
        let partition = PartitionId(reader.number_to()?);
        match kind {
            RECORD => {
                let commit = Lsn(reader.number()?);
                let used = bytes.len() - reader.rest.len();
                bytes.advance(used);
                let record = Record::decode(bytes)?;
                Ok(LogEntry::Record { partition, commit, record })
            }
            TRUNCATE => {
                let after = Lsn(reader.number()?);
                let used = bytes.len() - reader.rest.len();
                bytes.advance(used);
                Ok(LogEntry::Truncate { partition, after })
            }
            WIPE => {
                let used = bytes.len() - reader.rest.len();
                bytes.advance(used);
                Ok(LogEntry::Wipe { partition })
            }
            CHUNK => {
                let payload = bytes.slice_ref(reader.string()?);
                let used = bytes.len() - reader.rest.len();
                bytes.advance(used);
                Ok(LogEntry::Chunk { partition, payload })
            }
            FILLED => {
                let used = bytes.len() - reader.rest.len();
                bytes.advance(used);
                Ok(LogEntry::Filled { partition, end: SnapshotEnd::decode(bytes)? })
            }
            SESSION => {
                let (reign, session) = (Epoch(reader.number()?), reader.number()?);
                let next = reader.number_to()?;
                let used = bytes.len() - reader.rest.len();
                bytes.advance(used);
                Ok(LogEntry::Session { partition, reign, session, next })
            }
            _ => Err(Corrupt { what: "a log entry of an unknown kind" }),
        }
    }
}

/// The entries of a batch's payload, in order. Ends after the first error.
pub fn entries(mut payload: Bytes) -> impl Iterator<Item = Result<LogEntry, Corrupt>> {
    std::iter::from_fn(move || {
        if payload.is_empty() {
            return None;
        }
        let entry = LogEntry::decode(&mut payload);
        if entry.is_err() {
            payload.clear();
        }
        Some(entry)
    })
}

fn put_head(out: &mut Vec<u8>, kind: u8, partition: PartitionId) {
    out.push(kind);
    put_number(out, u64::from(partition.0));
}

/// Appends a record that nobody has put together yet.
#[allow(clippy::too_many_arguments, reason = "a record's fields, each once, from where they lie")]
pub fn put_record<'b>(
    sink: &mut impl Sink,
    partition: PartitionId,
    commit: Lsn,
    position: Position,
    prev_epoch: Epoch,
    time_ms: u64,
    request: Option<(&RequestId, &[u8])>,
    body: impl Into<Parts<'b>>,
) {
    let out = sink.bytes();
    put_head(out, RECORD, partition);
    put_number(out, commit.0);
    record::encode_parts(sink, position, prev_epoch, time_ms, request, body);
}

/// Appends the discarding of all records after one.
pub fn put_truncate(out: &mut Vec<u8>, partition: PartitionId, after: Lsn) {
    put_head(out, TRUNCATE, partition);
    put_number(out, after.0);
}

/// Appends the end of all that a copy held.
pub fn put_wipe(out: &mut Vec<u8>, partition: PartitionId) {
    put_head(out, WIPE, partition);
}

/// Appends a piece of another node's snapshot.
pub fn put_chunk<'b>(sink: &mut impl Sink, partition: PartitionId, payload: impl Into<Parts<'b>>) {
    let payload = payload.into();
    let out = sink.bytes();
    put_head(out, CHUNK, partition);
    put_number(out, payload.len() as u64);
    payload.put(sink);
}

/// Appends which transfer the chunks that follow are of.
pub fn put_session(out: &mut Vec<u8>, partition: PartitionId, reign: Epoch, session: u64, next: u32) {
    put_head(out, SESSION, partition);
    for number in [reign.0, session, u64::from(next)] {
        put_number(out, number);
    }
}

/// Appends the end of another node's snapshot.
pub fn put_filled(out: &mut Vec<u8>, partition: PartitionId, end: &SnapshotEnd) {
    put_head(out, FILLED, partition);
    end.encode(out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use types::{Incarnation, NodeId, ShardId, Version};

    #[test]
    fn entries_read_back_one_after_the_other() {
        let partition = PartitionId(700);
        let position = Position { epoch: Epoch(3), lsn: Lsn(9) };
        let id = RequestId { node: NodeId(1), incarnation: Incarnation(2), shard: ShardId(3), sequence: 4 };
        let end = SnapshotEnd {
            base: position,
            complete_at: Lsn(12),
            time_ms: 5,
            version: Version(6),
            requests: vec![(id, Lsn(9), Bytes::from_static(b"reply"))],
            forgotten: vec![id],
        };
        let mut out = Vec::new();
        put_record(&mut out, partition, Lsn(8), position, Epoch(2), 77, Some((&id, b"OK")), b"body");
        put_truncate(&mut out, partition, Lsn(4));
        put_wipe(&mut out, PartitionId(1));
        put_session(&mut out, partition, Epoch(3), 2, 7);
        put_chunk(&mut out, partition, b"piece");
        put_filled(&mut out, partition, &end);
        let record = Record {
            position,
            prev_epoch: Epoch(2),
            time_ms: 77,
            request: Some((id, Bytes::from_static(b"OK"))),
            body: Bytes::from_static(b"body").into(),
        };
        let expected = [
            LogEntry::Record { partition, commit: Lsn(8), record },
            LogEntry::Truncate { partition, after: Lsn(4) },
            LogEntry::Wipe { partition: PartitionId(1) },
            LogEntry::Session { partition, reign: Epoch(3), session: 2, next: 7 },
            LogEntry::Chunk { partition, payload: Bytes::from_static(b"piece") },
            LogEntry::Filled { partition, end },
        ];
        let mut bytes = Bytes::from(out);
        for entry in expected {
            assert_eq!(LogEntry::decode(&mut bytes), Ok(entry));
        }
        assert!(bytes.is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_a_panic(bytes: Vec<u8>) {
            let _ = LogEntry::decode(&mut Bytes::from(bytes));
        }
    }
}
