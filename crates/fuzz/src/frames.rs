//! Frames of peers: [`wire::peer::FrameReader`] cuts the same frames out of a stream however it arrives, before and after
//! the handshake, and a frame that was read and is written again reads the same.
//!
//! An input is a byte that chooses, one that cuts the stream, and the stream. The choice may put a frame's head before the
//! bytes, in either format, so that an input need not guess its length.

use crate::input::{Cuts, Input};
use crate::meter;
use bytes::Bytes;
use storage::Rope;
use wire::peer::handshake::Step;
use wire::peer::{
    FORMAT_NEWEST, FORMAT_OLDEST, Frame, FrameError, FrameReader, HANDSHAKE_FRAME_BYTES_MAX, decode,
    encode_beats, encode_control, encode_handshake, encode_shard,
};

/// Of messages between control planes, compressed.
const KIND_COMPRESSED: u8 = 19;

/// See the [module](self).
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (choice, seed) = (input.byte(), input.byte());
    let mut stream = Vec::new();
    if choice & 1 != 0 {
        let kind = input.byte();
        stream.extend_from_slice(&(input.rest.len() as u32 + 2).to_le_bytes());
        let format = if choice & 2 != 0 { FORMAT_OLDEST } else { FORMAT_NEWEST };
        stream.extend_from_slice(&[format, kind]);
    }
    stream.extend_from_slice(input.rest);
    // A message between control planes may be one byte long and some hundred in memory; the serializer makes room for up
    // to a mebibyte of a list that was only declared, in each list that lies within another.
    // What is compressed may become 255 times as long before that.
    let expands = if stream.contains(&KIND_COMPRESSED) { 255 } else { 1 };
    let room = (8 << 20) + 1024 * stream.len() * expands;
    for reader in [FrameReader::open, FrameReader::handshake] {
        let (whole, cut) = meter::within(room, || {
            (read(&stream, reader(), Cuts::new(0)), read(&stream, reader(), Cuts::new(seed)))
        });
        assert_eq!(whole, cut, "what is found depends on how the bytes arrived");
        whole.0.iter().for_each(reads_back);
    }
}

fn read(stream: &[u8], mut reader: FrameReader, mut cuts: Cuts) -> (Vec<Frame>, Result<(), FrameError>) {
    let (mut frames, mut came) = (Vec::new(), 0);
    loop {
        match reader.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => {
                let next = cuts.next(stream.len() - came);
                if next == 0 {
                    return (frames, Ok(()));
                }
                reader.push(&stream[came..came + next]);
                came += next;
            }
            Err(error) => return (frames, Err(error)),
        }
    }
}

fn reads_back(frame: &Frame) {
    let mut out = Vec::new();
    match frame {
        Frame::Challenge(challenge) => encode_handshake(&Step::Challenge(challenge), &mut out),
        Frame::Hello(hello) => encode_handshake(&Step::Hello(hello), &mut out),
        Frame::Welcome(welcome) => encode_handshake(&Step::Welcome(welcome), &mut out),
        Frame::Refused(why) => encode_handshake(&Step::Refused(why), &mut out),
        Frame::Nodes(nodes) => encode_handshake(&Step::Nodes(nodes), &mut out),
        Frame::Shard(messages) => {
            let mut frames = Rope::default();
            assert_eq!(encode_shard(FORMAT_NEWEST, messages, &mut frames), 0);
            out = frames.to_vec();
        }
        Frame::Control(messages) => {
            encode_control(FORMAT_OLDEST, messages, &mut out);
            assert!(matches!(decode(Bytes::from(out.split_off(4))), Ok(Frame::Control(_))));
            out.clear();
            encode_control(FORMAT_NEWEST, messages, &mut out);
        }
        Frame::Beat(beats) => encode_beats(FORMAT_NEWEST, beats, &mut out),
    }
    match frame {
        // A turn without messages makes no frame.
        Frame::Shard(messages) if messages.is_empty() => assert!(out.is_empty()),
        // Bytes that are no text become longer ones that are, and the end is cut off.
        Frame::Refused(why) if why.len() > HANDSHAKE_FRAME_BYTES_MAX / 2 => {
            let Ok(Frame::Refused(cut)) = decode(Bytes::from(out.split_off(4))) else {
                panic!("a refusal reads back as one")
            };
            assert!(why.starts_with(&cut));
        }
        _ => assert_eq!(decode(Bytes::from(out.split_off(4))).as_ref(), Ok(frame)),
    }
}
