//! Frames between nodes.
//!
//! A frame is a length, a format version, a kind and a payload (docs/peer-protocol.md draws the bytes). Two nodes agree in the
//! handshake on the newest format that both have ([`handshake::About`]), and write that. A frame has no
//! checksum of its own: TCP has one, and records carry their own positions. One frame carries all that a loop
//! turn has to say to one endpoint of a peer, so that a turn costs one write and is answered with one frame. Records
//! with large values are compressed in it, where that helps ([`shard`]). A huge frame may come in [`parts`], between others.
//!
//! A link goes one way. Its first four frames, of at most 1 KiB each, prove to either side that the other knows
//! the cluster's join secret ([`handshake`]); only then are frames of the other kinds read.
//!
//! Left out: sockets and time (room `server`), computing the proofs (there too, next to the secret), and what
//! the messages mean.

mod codec;
pub mod handshake;
pub mod parts;
pub mod shard;

pub use handshake::{About, Challenge, Hello, Welcome};
pub use shard::encode_shard;

use bytes::{Bytes, BytesMut};
use codec::Reader;
use parts::Assembly;
use serde::Serialize;
use storage::compression::{LARGE_VALUE_BYTES, compressed, decompress};
use storage::lent::is_huge;
use thiserror::Error;
use types::Level;
use types::limits::{PEER_FRAME_BYTES_MAX, ROOM_AHEAD};
use types::planted::{self, Bug};

/// The newest format that this build reads and writes.
pub const FORMAT_NEWEST: u8 = 4;
/// The oldest: what builds have that know one format only.
pub const FORMAT_OLDEST: u8 = 2;
/// From this format on a huge frame may come in parts.
pub const FORMAT_PARTS: u8 = 4;
/// What builds have that tell of their level.
const FORMAT_OF_BUILDS: u8 = 3;
/// The largest frame before both sides have proved that they belong, in bytes after the length.
pub const HANDSHAKE_FRAME_BYTES_MAX: usize = 1024;
/// The largest list of a cluster's nodes, in bytes.
pub const NODES_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a frame's length field.
pub const LENGTH_BYTES: usize = 4;
/// Version and kind.
const HEAD_BYTES: usize = 2;
/// A frame that has grown beyond this is closed and the next begun, so that a receiver can start on it.
const FRAME_BYTES_GOAL: usize = 4 * 1024 * 1024;

const KIND_CHALLENGE: u8 = 1;
const KIND_HELLO: u8 = 2;
const KIND_WELCOME: u8 = 3;
const KIND_REFUSED: u8 = 4;
const KIND_NODES: u8 = 5;
const KIND_SHARD: u8 = 16;
const KIND_CONTROL: u8 = 17;
const KIND_BEAT: u8 = 18;
/// From format 3 on.
const KIND_CONTROL_COMPRESSED: u8 = 19;
/// From format 4 on.
const KIND_PART: u8 = 20;

/// The format in which every member of a cluster of this level can read frames.
pub fn format_at(level: Level) -> u8 {
    if level < Level::BUILDS { FORMAT_OLDEST } else { FORMAT_OF_BUILDS }
}

/// Bytes that are no frame. The link that they came on is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Longer than the reader takes.
    #[error("a peer's frame of {bytes} bytes; the most is {most}")]
    TooLong {
        /// The length that it declared.
        bytes: usize,
        /// The most that would have been taken.
        most: usize,
    },
    /// Written by a build that this one does not understand.
    #[error("a peer's frame of format {found}; this build reads formats {FORMAT_OLDEST} to {FORMAT_NEWEST}")]
    Version {
        /// Its version.
        found: u8,
    },
    /// A payload that does not decode.
    #[error("a peer's frame does not decode: {what}")]
    Corrupt {
        /// What was wrong with it.
        what: &'static str,
    },
}

/// A decoded frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// Acceptor to dialer, at once.
    Challenge(Challenge),
    /// The dialer's answer.
    Hello(Hello),
    /// The acceptor's proof: the link is open.
    Welcome(Welcome),
    /// The acceptor will have none of it.
    Refused(String),
    /// The cluster's nodes, as the `nodes` setting lists them: for one that comes back knowing nothing else.
    Nodes(String),
    /// From shard to shard.
    Shard(Vec<replication::message::Message>),
    /// From control plane to control plane.
    Control(Vec<control::message::Message>),
    /// From heart to heart.
    Beat(Vec<control::message::Beat>),
}

/// Appends messages between control planes, as one frame. What is too large for a frame is left out, and what the format has no
/// form for. From format 3 on large ones are compressed where that helps: a map is mostly repetition.
pub fn encode_control(format: u8, messages: &[control::message::Message], out: &mut Vec<u8>) {
    if format == FORMAT_OLDEST {
        let start = begin(out, format, KIND_CONTROL);
        for message in messages {
            let before = out.len();
            if !control::format_1::encode_message(message, out) || out.len() - start > PEER_FRAME_BYTES_MAX {
                out.truncate(before);
            }
        }
        return finish(out, start);
    }
    let start = out.len();
    encode_postcard(format, KIND_CONTROL, messages, out);
    let payload = out.get(start + LENGTH_BYTES + HEAD_BYTES..).unwrap_or(&[]);
    if payload.len() <= LARGE_VALUE_BYTES {
        return;
    }
    let bytes = payload.len();
    if let Some(block) = compressed(payload) {
        out.truncate(start);
        let start = begin(out, format, KIND_CONTROL_COMPRESSED);
        codec::put_number(out, bytes as u64);
        out.extend_from_slice(&block);
        finish(out, start);
    }
}

/// Appends heartbeats and their answers, as one frame.
pub fn encode_beats(format: u8, beats: &[control::message::Beat], out: &mut Vec<u8>) {
    encode_postcard(format, KIND_BEAT, beats, out);
}

/// Appends a frame of the handshake.
pub fn encode_handshake(frame: &handshake::Step<'_>, out: &mut Vec<u8>) {
    let start = begin(out, frame.format(), frame.kind());
    frame.encode(out);
    finish(out, start);
}

fn encode_postcard<M: Serialize>(format: u8, kind: u8, messages: &[M], out: &mut Vec<u8>) {
    let start = begin(out, format, kind);
    for message in messages {
        let before = out.len();
        let taken = std::mem::take(out);
        match postcard::to_extend(message, taken) {
            Ok(extended) => *out = extended,
            // A vector takes everything, and the messages serialize without conditions; were it otherwise, the
            // frame would be lost with the vector, which is what a broken link does too.
            Err(_) => return,
        }
        if out.len() - start > PEER_FRAME_BYTES_MAX {
            out.truncate(before);
        }
    }
    finish(out, start);
}

/// Starts a frame; [`finish`] fills in its length. Returns where it starts.
fn begin(out: &mut Vec<u8>, format: u8, kind: u8) -> usize {
    debug_assert!((FORMAT_OLDEST..=FORMAT_NEWEST).contains(&format));
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    out.push(format);
    out.push(kind);
    start
}

fn finish(out: &mut [u8], start: usize) {
    let bytes = out.len() - start;
    set_length(out, start, bytes);
}

/// Fills in the length of a frame of so many bytes, which stands at `start`.
fn set_length(out: &mut [u8], start: usize, bytes: usize) {
    let body = bytes - LENGTH_BYTES;
    debug_assert!((HEAD_BYTES..=PEER_FRAME_BYTES_MAX).contains(&body));
    out[start..start + LENGTH_BYTES].copy_from_slice(&(body as u32).to_le_bytes());
}

/// Decodes what stands after a frame's length: version, kind, payload.
pub fn decode(body: Bytes) -> Result<Frame, FrameError> {
    let mut reader = Reader::new(body);
    let format = reader.byte()?;
    if !(FORMAT_OLDEST..=FORMAT_NEWEST).contains(&format) {
        return Err(FrameError::Version { found: format });
    }
    let kind = reader.byte()?;
    let frame = match kind {
        KIND_CHALLENGE => Frame::Challenge(Challenge::decode(&mut reader)?),
        KIND_HELLO => Frame::Hello(Hello::decode(format, &mut reader)?),
        KIND_WELCOME => Frame::Welcome(Welcome::decode(format, &mut reader)?),
        KIND_REFUSED => Frame::Refused(handshake::decode_refusal(&mut reader)?),
        KIND_NODES => Frame::Nodes(handshake::decode_nodes(&mut reader)?),
        KIND_SHARD => Frame::Shard(shard::decode_all(&mut reader)?),
        KIND_CONTROL if format == FORMAT_OLDEST => Frame::Control(decode_format_1(&mut reader)?),
        KIND_CONTROL => Frame::Control(decode_postcard(&reader.take_rest())?),
        KIND_CONTROL_COMPRESSED if format > FORMAT_OLDEST => Frame::Control(decode_compressed(&mut reader)?),
        KIND_BEAT => Frame::Beat(decode_postcard(&reader.take_rest())?),
        _ => return Err(FrameError::Corrupt { what: "unknown kind of frame" }),
    };
    reader.end()?;
    Ok(frame)
}

const NO_MESSAGE: FrameError = FrameError::Corrupt { what: "a message between control planes" };

fn decode_postcard<M: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<Vec<M>, FrameError> {
    decode_each(bytes, |rest| postcard::take_from_bytes(rest).ok())
}

fn decode_format_1(reader: &mut Reader) -> Result<Vec<control::message::Message>, FrameError> {
    decode_each(&reader.take_rest(), control::format_1::take_message)
}

fn decode_compressed(reader: &mut Reader) -> Result<Vec<control::message::Message>, FrameError> {
    let length: usize = reader.number_to()?;
    let bytes = decompress(&reader.take_rest(), length)
        .map_err(|corrupt| FrameError::Corrupt { what: corrupt.what })?;
    decode_postcard(&bytes)
}

fn decode_each<M>(
    mut rest: &[u8],
    take: impl for<'a> Fn(&'a [u8]) -> Option<(M, &'a [u8])>,
) -> Result<Vec<M>, FrameError> {
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let (message, after) = take(rest).ok_or(NO_MESSAGE)?;
        messages.push(message);
        rest = after;
    }
    Ok(messages)
}

/// Cuts a stream of bytes into frames.
///
/// It holds what has arrived of the next frame and no more: a declared length makes it allocate nothing.
#[derive(Debug)]
pub struct FrameReader {
    buffer: BytesMut,
    bytes_max: usize,
    /// What has come of a frame in parts.
    assembly: Assembly,
}

impl FrameReader {
    /// A reader that takes only the small frames of a handshake.
    pub fn handshake() -> FrameReader {
        FrameReader::with_max(HANDSHAKE_FRAME_BYTES_MAX)
    }

    /// A reader for a link whose other side has proved that it belongs.
    pub fn open() -> FrameReader {
        FrameReader::with_max(PEER_FRAME_BYTES_MAX)
    }

    fn with_max(bytes_max: usize) -> FrameReader {
        FrameReader { buffer: BytesMut::new(), bytes_max, assembly: Assembly::default() }
    }

    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        self.buffer.extend_from_slice(bytes);
    }

    /// Soon there is room for all of a frame: what has come of a large one is not moved again and again.
    fn make_room(&mut self, bytes: usize) {
        let has = self.buffer.len();
        if self.buffer.capacity() - has >= bytes {
            return;
        }
        // An error is told where the frame is read.
        let Some(Ok(body)) = self.buffer.first_chunk().map(|length| body_bytes(*length, self.bytes_max))
        else {
            return;
        };
        let whole = LENGTH_BYTES + body;
        if has + bytes < whole && whole / ROOM_AHEAD <= has {
            // With room for what is read along with its last bytes.
            let mut buffer = BytesMut::with_capacity(whole + bytes);
            buffer.extend_from_slice(&self.buffer);
            self.buffer = buffer;
        }
    }

    /// Bytes that have come of frames that are not whole.
    pub fn waiting_bytes(&self) -> usize {
        self.buffer.len() + self.assembly.len()
    }

    /// The next whole frame; `None` until more has come. After an error the stream has lost its order: close it.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        while let Some(body) = self.next_body()? {
            if !parts::is_part(&body) {
                return decode(body).map(Some);
            }
            if let Some(whole) = self.assembly.take(&body, self.bytes_max)? {
                return decode(whole).map(Some);
            }
        }
        Ok(None)
    }

    /// What stands after the next frame's length.
    fn next_body(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let bytes = body_bytes(*length, self.bytes_max)?;
        if self.buffer.len() - LENGTH_BYTES < bytes {
            if planted::is(Bug::ReservesDeclaredFrame) {
                self.buffer.reserve(bytes);
            }
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(LENGTH_BYTES + bytes).freeze();
        if is_huge(bytes) {
            // What is kept of the next frames must not keep this one.
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        Ok(Some(frame.split_off(LENGTH_BYTES)))
    }
}

/// Reads a frame's length field and checks it against `most`.
pub fn body_bytes(length: [u8; LENGTH_BYTES], most: usize) -> Result<usize, FrameError> {
    let bytes = u32::from_le_bytes(length) as usize;
    if bytes > most {
        return Err(FrameError::TooLong { bytes, most });
    }
    if bytes < HEAD_BYTES {
        return Err(FrameError::Corrupt { what: "a frame without version and kind" });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
