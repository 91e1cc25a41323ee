//! The messages between shards, as bytes. Written by hand: this is the path of every replicated write.
//!
//! Records are most of what nodes send each other. The bodies of large ones are compressed, each by itself, in a message
//! of its own kind, so that small ones cost nothing. Chunks are compressed already; requests that are passed on and their
//! replies stay as they are. What a frame decompresses to counts for its length at both ends, so that it never comes to
//! more than one that is not compressed.

use super::codec::{Reader, put_bytes, put_number, put_position, put_request_id, reserve_for};
use super::{FRAME_BYTES_GOAL, FrameError, HEAD_BYTES, KIND_SHARD, LENGTH_BYTES, begin, set_length};
use replication::Committed;
use replication::message::{
    Append, AppendOutcome, Appended, Chunk, ChunkStored, CommittedAt, Forward, ForwardOutcome, Forwarded,
    Message, SnapshotEnd,
};
use storage::compression::{LARGE_VALUE_BYTES, compressed, decompress};
use storage::lent::is_huge;
use storage::record::{Record, encode_parts};
use storage::{Rope, Sink};
use types::limits::PEER_FRAME_BYTES_MAX;
use types::settings::{ReadLevel, WriteLevel};
use types::{Epoch, Lsn, PartitionId, Version};

const APPEND: u8 = 1;
const APPENDED: u8 = 2;
const CHUNK: u8 = 3;
const CHUNK_STORED: u8 = 4;
const FORWARD: u8 = 5;
const FORWARDED: u8 = 6;
const APPEND_COMPRESSED: u8 = 7;
const COMMITTED: u8 = 8;

/// Appends messages as one frame, or as several where one would grow beyond some megabytes. They are the same in all formats that this
/// build has.
///
/// Returns how many messages were left out because no frame can hold them.
pub fn encode_shard(format: u8, messages: &[Message], out: &mut Rope) -> usize {
    let mut too_large = 0;
    let mut start = None;
    // Bytes that compressing has saved in this frame.
    let mut saved = 0;
    for message in messages {
        let mut frame = *start.get_or_insert_with(|| Begun::shard(format, out));
        let mut before = out.len();
        let mut saved_here = encode(message, out);
        if frame.is_over(out, saved + saved_here) && before > frame.at + LENGTH_BYTES + HEAD_BYTES {
            // It may need a frame to itself.
            out.truncate(before);
            frame.finish(out);
            frame = Begun::shard(format, out);
            (start, saved) = (Some(frame), 0);
            before = out.len();
            saved_here = encode(message, out);
        }
        if frame.is_over(out, saved + saved_here) {
            out.truncate(before);
            too_large += 1;
        } else {
            saved += saved_here;
        }
        if out.len() - frame.at + saved > FRAME_BYTES_GOAL {
            frame.finish(out);
            (start, saved) = (None, 0);
        }
    }
    if let Some(frame) = start {
        frame.finish(out);
    }
    too_large
}

/// A frame that is being written.
#[derive(Clone, Copy)]
struct Begun {
    /// Where it begins, all bytes counted.
    at: usize,
    /// Where its length stands among the rope's own bytes.
    own_at: usize,
}

impl Begun {
    fn shard(format: u8, out: &mut Rope) -> Begun {
        Begun { at: out.len(), own_at: begin(out.bytes(), format, KIND_SHARD) }
    }

    /// Whether it is longer than a frame may be, with what compressing has saved in it.
    fn is_over(self, out: &Rope, saved: usize) -> bool {
        out.len() - self.at - LENGTH_BYTES + saved > PEER_FRAME_BYTES_MAX
    }

    fn finish(self, out: &mut Rope) {
        let bytes = out.len() - self.at;
        set_length(out.bytes(), self.own_at, bytes);
    }
}

pub(super) fn decode_all(reader: &mut Reader) -> Result<Vec<Message>, FrameError> {
    let mut messages = Vec::new();
    // Bytes that may still be decompressed.
    let mut room = PEER_FRAME_BYTES_MAX;
    while !reader.is_empty() {
        messages.push(decode(reader, &mut room)?);
    }
    Ok(messages)
}

/// Returns how many bytes compressing has saved.
fn encode(message: &Message, sink: &mut impl Sink) -> usize {
    let out = sink.bytes();
    match message {
        Message::Append(append) => return encode_append(append, sink),
        Message::Appended(appended) => {
            out.push(APPENDED);
            put_partition(out, appended.partition, appended.epoch);
            match appended.outcome {
                AppendOutcome::Held(lsn) => {
                    out.push(0);
                    put_number(out, lsn.0);
                }
                AppendOutcome::Behind(end) => {
                    out.push(1);
                    put_position(out, end);
                }
                AppendOutcome::Empty => out.push(2),
                AppendOutcome::Fenced => out.push(3),
            }
        }
        Message::Chunk(chunk) => encode_chunk(chunk, sink),
        Message::ChunkStored(stored) => {
            out.push(CHUNK_STORED);
            put_partition(out, stored.partition, stored.epoch);
            put_number(out, stored.session);
            put_number(out, u64::from(stored.next));
        }
        Message::Forward(forward) => {
            out.push(FORWARD);
            put_request_id(out, forward.id);
            put_partition(out, forward.partition, forward.primary_since);
            out.push(match forward.write_level {
                WriteLevel::One => 0,
                WriteLevel::Quorum => 1,
                WriteLevel::All => 2,
            });
            out.push(match forward.read_level {
                ReadLevel::Linearizable => 0,
                ReadLevel::Stale => 1,
            });
            put_number(out, forward.args.len() as u64);
            for arg in &forward.args {
                put_bytes(sink, arg);
            }
        }
        Message::Committed(CommittedAt { time_ms, partitions }) => {
            out.push(COMMITTED);
            put_number(out, *time_ms);
            put_number(out, partitions.len() as u64);
            for committed in partitions {
                put_partition(out, committed.partition, committed.primary_since);
                put_number(out, committed.lsn.0);
            }
        }
        Message::Forwarded(forwarded) => {
            out.push(FORWARDED);
            put_request_id(out, forwarded.id);
            put_number(out, forwarded.primary_since.0);
            match &forwarded.outcome {
                ForwardOutcome::Reply { reply, written } => {
                    out.push(0);
                    put_bytes(sink, reply);
                    let out = sink.bytes();
                    out.push(u8::from(written.is_some()));
                    if let Some(written) = written {
                        put_position(out, *written);
                    }
                }
                ForwardOutcome::NotOrdered => out.push(1),
                ForwardOutcome::Unknown => out.push(2),
            }
        }
    }
    0
}

fn encode_append(append: &Append, sink: &mut impl Sink) -> usize {
    let block_of = |record: &Record| {
        let whole = record.body.whole().filter(|body| body.len() > LARGE_VALUE_BYTES);
        whole.and_then(|body| compressed(body))
    };
    let blocks: Vec<Option<Vec<u8>>> = if append.records.iter().any(|r| r.body.len() > LARGE_VALUE_BYTES) {
        append.records.iter().map(block_of).collect()
    } else {
        Vec::new()
    };
    let any = blocks.iter().any(Option::is_some);
    let out = sink.bytes();
    out.push(if any { APPEND_COMPRESSED } else { APPEND });
    put_partition(out, append.partition, append.epoch);
    put_number(out, append.primary_since.0);
    put_position(out, append.prev);
    put_number(out, append.commit.0);
    put_number(out, append.records.len() as u64);
    if !any {
        if !blocks.is_empty() {
            let copied =
                append.records.iter().map(|record| record.body.len()).filter(|&bytes| !is_huge(bytes));
            reserve_for(out, copied.sum());
        }
        append.records.iter().for_each(|record| record.encode(sink));
        return 0;
    }
    let mut saved = 0;
    for (record, block) in append.records.iter().zip(blocks) {
        match block {
            None => {
                put_number(sink.bytes(), 0);
                record.encode(sink);
            }
            Some(block) => {
                put_number(sink.bytes(), record.body.len() as u64);
                saved += record.body.len() - block.len();
                let request = record.request.as_ref().map(|(id, reply)| (id, &reply[..]));
                encode_parts(sink, record.position, record.prev_epoch, record.time_ms, request, &block);
            }
        }
    }
    saved
}

fn encode_chunk(chunk: &Chunk, sink: &mut impl Sink) {
    let out = sink.bytes();
    out.push(CHUNK);
    put_partition(out, chunk.partition, chunk.epoch);
    put_number(out, chunk.primary_since.0);
    put_number(out, chunk.session);
    put_number(out, u64::from(chunk.index));
    put_bytes(sink, &chunk.payload);
    let out = sink.bytes();
    out.push(u8::from(chunk.end.is_some()));
    let Some(end) = &chunk.end else { return };
    put_position(out, end.base);
    put_number(out, end.complete_at.0);
    put_number(out, end.time_ms);
    put_number(out, end.version.0);
    put_number(out, end.requests.len() as u64);
    for (id, lsn, reply) in &end.requests {
        put_request_id(out, *id);
        put_number(out, lsn.0);
        put_bytes(out, reply);
    }
    put_number(out, end.forgotten.len() as u64);
    for id in &end.forgotten {
        put_request_id(out, *id);
    }
}

fn put_partition(out: &mut Vec<u8>, partition: PartitionId, epoch: Epoch) {
    put_number(out, u64::from(partition.0));
    put_number(out, epoch.0);
}

/// Of `room` bytes may still be decompressed.
fn decode(reader: &mut Reader, room: &mut usize) -> Result<Message, FrameError> {
    match reader.byte()? {
        APPEND => decode_append(reader, Reader::record).map(Message::Append),
        APPEND_COMPRESSED => {
            decode_append(reader, |reader| compressed_record(reader, room)).map(Message::Append)
        }
        kind => decode_other(kind, reader),
    }
}

fn decode_append(
    reader: &mut Reader,
    record: impl FnMut(&mut Reader) -> Result<Record, FrameError>,
) -> Result<Append, FrameError> {
    Ok(Append {
        partition: PartitionId(reader.number_to()?),
        epoch: Epoch(reader.number()?),
        primary_since: Epoch(reader.number()?),
        prev: reader.position()?,
        commit: Lsn(reader.number()?),
        records: reader.list(record)?,
    })
}

/// A record whose body may be a compressed block.
fn compressed_record(reader: &mut Reader, room: &mut usize) -> Result<Record, FrameError> {
    let length: usize = reader.number_to()?;
    let mut record = reader.record()?;
    if length > 0 {
        *room = room
            .checked_sub(length)
            .ok_or(FrameError::Corrupt { what: "more comes out of it than a frame may hold" })?;
        let body = decompress(&record.body.to_bytes(), length)
            .map_err(|corrupt| FrameError::Corrupt { what: corrupt.what })?;
        record.body = body.into();
    }
    Ok(record)
}

fn decode_other(kind: u8, reader: &mut Reader) -> Result<Message, FrameError> {
    match kind {
        APPENDED => Ok(Message::Appended(Appended {
            partition: PartitionId(reader.number_to()?),
            epoch: Epoch(reader.number()?),
            outcome: match reader.byte()? {
                0 => AppendOutcome::Held(Lsn(reader.number()?)),
                1 => AppendOutcome::Behind(reader.position()?),
                2 => AppendOutcome::Empty,
                3 => AppendOutcome::Fenced,
                _ => return Err(FrameError::Corrupt { what: "an unknown outcome of an append" }),
            },
        })),
        CHUNK => decode_chunk(reader).map(Message::Chunk),
        CHUNK_STORED => Ok(Message::ChunkStored(ChunkStored {
            partition: PartitionId(reader.number_to()?),
            epoch: Epoch(reader.number()?),
            session: reader.number()?,
            next: reader.number_to()?,
        })),
        FORWARD => Ok(Message::Forward(Forward {
            id: reader.request_id()?,
            partition: PartitionId(reader.number_to()?),
            primary_since: Epoch(reader.number()?),
            write_level: match reader.byte()? {
                0 => WriteLevel::One,
                1 => WriteLevel::Quorum,
                2 => WriteLevel::All,
                _ => return Err(FrameError::Corrupt { what: "an unknown write level" }),
            },
            read_level: match reader.byte()? {
                0 => ReadLevel::Linearizable,
                1 => ReadLevel::Stale,
                _ => return Err(FrameError::Corrupt { what: "an unknown read level" }),
            },
            args: reader.list(Reader::bytes)?,
        })),
        FORWARDED => Ok(Message::Forwarded(Forwarded {
            id: reader.request_id()?,
            primary_since: Epoch(reader.number()?),
            outcome: match reader.byte()? {
                0 => ForwardOutcome::Reply {
                    reply: reader.bytes()?.into(),
                    written: if reader.flag()? { Some(reader.position()?) } else { None },
                },
                1 => ForwardOutcome::NotOrdered,
                2 => ForwardOutcome::Unknown,
                _ => return Err(FrameError::Corrupt { what: "an unknown outcome of a forward" }),
            },
        })),
        COMMITTED => Ok(Message::Committed(CommittedAt {
            time_ms: reader.number()?,
            partitions: reader.list(|reader| {
                let (partition, primary_since) = (PartitionId(reader.number_to()?), Epoch(reader.number()?));
                Ok(Committed { partition, primary_since, lsn: Lsn(reader.number()?) })
            })?,
        })),
        _ => Err(FrameError::Corrupt { what: "an unknown message between shards" }),
    }
}

fn decode_chunk(reader: &mut Reader) -> Result<Chunk, FrameError> {
    let (partition, epoch) = (PartitionId(reader.number_to()?), Epoch(reader.number()?));
    let (primary_since, session) = (Epoch(reader.number()?), reader.number()?);
    let (index, payload) = (reader.number_to()?, reader.bytes()?.into());
    let end = if reader.flag()? {
        Some(SnapshotEnd {
            base: reader.position()?,
            complete_at: Lsn(reader.number()?),
            time_ms: reader.number()?,
            version: Version(reader.number()?),
            requests: reader
                .list(|reader| Ok((reader.request_id()?, Lsn(reader.number()?), reader.bytes()?)))?,
            forgotten: reader.list(Reader::request_id)?,
        })
    } else {
        None
    };
    Ok(Chunk { partition, epoch, primary_since, session, index, payload, end })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn no_more_is_decompressed_than_there_is_room_for() {
        let record = Record {
            position: types::Position { epoch: Epoch(1), lsn: Lsn(1) },
            prev_epoch: Epoch(1),
            time_ms: 1,
            request: None,
            body: compressed(&[7; 10_000]).unwrap().into(),
        };
        let mut bytes = Vec::new();
        put_number(&mut bytes, 10_000);
        record.encode(&mut bytes);
        let read =
            |room: &mut usize| compressed_record(&mut Reader::new(Bytes::copy_from_slice(&bytes)), room);
        let mut room = 19_999;
        assert_eq!(read(&mut room).unwrap().body.to_bytes(), &[7; 10_000][..]);
        assert_eq!(room, 9_999);
        assert!(matches!(read(&mut room), Err(FrameError::Corrupt { .. })));
    }
}
