//! Frames read back, however the stream is cut; no bytes make a reader panic.

use super::*;
use bytes::Bytes;
use control::message::{Beat, Identity};
use handshake::Step;
use proptest::prelude::*;
use replication::Committed;
use replication::message::*;
use storage::{Record, Rope};
use types::limits::{KEY_BYTES_MAX, RECORD_BYTES_MAX};
use types::settings::{ReadLevel, WriteLevel};
use types::{Endpoint, Epoch, Incarnation, Lsn, NodeId, PartitionId, Position, RequestId, ShardId, Version};

fn bytes() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

/// Effects of a record, a few of them large.
fn body() -> impl Strategy<Value = Bytes> {
    let large = (any::<u8>(), 4000usize..9000).prop_map(|(byte, bytes)| Bytes::from(vec![byte; bytes]));
    prop_oneof![8 => bytes(), 1 => large]
}

fn position() -> impl Strategy<Value = Position> {
    any::<(u64, u64)>().prop_map(|(epoch, lsn)| Position { epoch: Epoch(epoch), lsn: Lsn(lsn) })
}

fn request_id() -> impl Strategy<Value = RequestId> {
    any::<(u16, u64, u16, u64)>().prop_map(|(node, incarnation, shard, sequence)| RequestId {
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
        shard: ShardId(shard),
        sequence,
    })
}

fn record() -> impl Strategy<Value = Record> {
    let numbers = (any::<u64>(), 1u64.., any::<u64>(), any::<u64>());
    (numbers, proptest::option::of((request_id(), bytes())), body()).prop_map(
        |((epoch, lsn, before, time_ms), request, body)| Record {
            position: Position { epoch: Epoch(epoch), lsn: Lsn(lsn) },
            prev_epoch: Epoch(epoch.saturating_sub(before)),
            time_ms,
            request,
            body: body.into(),
        },
    )
}

fn list<T: std::fmt::Debug>(item: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    proptest::collection::vec(item, 0..4)
}

fn message() -> impl Strategy<Value = Message> {
    let head = || any::<(u16, u64, u64)>().prop_map(|(p, e, s)| (PartitionId(p), Epoch(e), Epoch(s)));
    let outcome = prop_oneof![
        any::<u64>().prop_map(|lsn| AppendOutcome::Held(Lsn(lsn))),
        position().prop_map(AppendOutcome::Behind),
        Just(AppendOutcome::Empty),
        Just(AppendOutcome::Fenced),
    ];
    let end =
        (position(), any::<[u64; 3]>(), list((request_id(), any::<u64>(), bytes())), list(request_id()))
            .prop_map(|(base, [complete_at, time_ms, version], requests, forgotten)| SnapshotEnd {
                base,
                complete_at: Lsn(complete_at),
                time_ms,
                version: Version(version),
                requests: requests.into_iter().map(|(id, lsn, reply)| (id, Lsn(lsn), reply)).collect(),
                forgotten,
            });
    let levels = (
        prop_oneof![Just(WriteLevel::One), Just(WriteLevel::Quorum), Just(WriteLevel::All)],
        prop_oneof![Just(ReadLevel::Linearizable), Just(ReadLevel::Stale)],
    );
    let forwarded = prop_oneof![
        (bytes(), proptest::option::of(position()))
            .prop_map(|(reply, written)| ForwardOutcome::Reply { reply: reply.into(), written }),
        Just(ForwardOutcome::NotOrdered),
        Just(ForwardOutcome::Unknown),
    ];
    prop_oneof![
        (head(), position(), any::<u64>(), list(record())).prop_map(
            |((partition, epoch, primary_since), prev, commit, records)| Message::Append(Append {
                partition,
                epoch,
                primary_since,
                prev,
                commit: Lsn(commit),
                records
            })
        ),
        (head(), outcome).prop_map(|((partition, epoch, _), outcome)| Message::Appended(Appended {
            partition,
            epoch,
            outcome
        })),
        (head(), any::<(u64, u32)>(), bytes(), proptest::option::of(end)).prop_map(
            |((partition, epoch, primary_since), (session, index), payload, end)| Message::Chunk(Chunk {
                partition,
                epoch,
                primary_since,
                session,
                index,
                payload: payload.into(),
                end
            })
        ),
        (head(), any::<(u64, u32)>()).prop_map(|((partition, epoch, _), (session, next))| {
            Message::ChunkStored(ChunkStored { partition, epoch, session, next })
        }),
        (request_id(), head(), levels, list(bytes())).prop_map(
            |(id, (partition, primary_since, _), (write_level, read_level), args)| Message::Forward(
                Forward { id, partition, primary_since, write_level, read_level, args }
            )
        ),
        (any::<u64>(), list((head(), any::<u64>()))).prop_map(|(time_ms, partitions)| {
            let committed =
                |((partition, primary_since, _), lsn)| Committed { partition, primary_since, lsn: Lsn(lsn) };
            let partitions = partitions.into_iter().map(committed).collect();
            Message::Committed(CommittedAt { time_ms, partitions })
        }),
        (request_id(), head(), forwarded).prop_map(
            |(id, (_, primary_since, _), outcome)| Message::Forwarded(Forwarded {
                id,
                primary_since,
                outcome
            })
        ),
    ]
}

fn control_message() -> impl Strategy<Value = control::message::Message> {
    use control::message::Message;
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Message::Raft),
        any::<u64>().prop_map(|have| Message::AskMap { have }),
        (any::<u64>(), list(any::<u16>())).prop_map(|(question, partitions)| Message::AskTails {
            question,
            partitions: partitions.into_iter().map(PartitionId).collect()
        }),
        Just(Message::AcceptLoss),
        any::<(u16, u16)>().prop_map(|(partition, heir)| Message::HandOver {
            partition: PartitionId(partition),
            heir: NodeId(heir)
        }),
    ]
}

fn beat() -> impl Strategy<Value = Beat> {
    prop_oneof![
        any::<(u64, bool, u64)>().prop_map(|(sent_at, stalled, keys)| Beat::Heartbeat {
            sent_at,
            stalled,
            keys
        }),
        (any::<[u64; 3]>(), any::<Option<u16>>(), list(any::<(u16, u64)>())).prop_map(
            |([sent_at, map_version, wall_ms], coordinator, keys)| Beat::Grant {
                sent_at,
                map_version,
                wall_ms,
                coordinator: coordinator.map(NodeId),
                keys: keys.into_iter().map(|(node, keys)| (NodeId(node), keys)).collect(),
            }
        ),
    ]
}

fn hello() -> impl Strategy<Value = Hello> {
    let endpoint = || {
        prop_oneof![
            Just(Endpoint::Control),
            Just(Endpoint::Heart),
            any::<u16>().prop_map(|shard| Endpoint::Shard(ShardId(shard))),
        ]
    };
    let identity = any::<(u16, u64, u64)>().prop_map(|(node, incarnation, directory)| Identity {
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
        directory,
    });
    let about =
        ((1u8..9, 1u8..9, any::<u16>()), "[!-~]{0,64}").prop_map(|((oldest, newest, level), build)| About {
            oldest,
            newest,
            level: types::Level(level),
            build,
        });
    let threads = (endpoint(), any::<u16>(), endpoint());
    let bytes = (any::<[u8; 32]>(), any::<[u8; 32]>());
    (any::<[u8; 20]>(), identity, threads, bytes, proptest::option::of(about)).prop_map(
        |(cluster_id, identity, (from, to_node, to), (nonce, proof), about)| Hello {
            cluster_id,
            identity,
            from,
            to_node: NodeId(to_node),
            to,
            nonce,
            about,
            proof,
        },
    )
}

/// Frames as they are written one after another, and what should be read.
fn stream() -> impl Strategy<Value = (Vec<u8>, Vec<Frame>)> {
    let frame = prop_oneof![
        proptest::collection::vec(message(), 1..4).prop_map(Frame::Shard),
        list(control_message()).prop_map(Frame::Control),
        list(beat()).prop_map(Frame::Beat),
        any::<[u8; 32]>().prop_map(|nonce| Frame::Challenge(Challenge { nonce })),
        hello().prop_map(Frame::Hello),
        hello().prop_map(|hello| Frame::Welcome(Welcome {
            identity: hello.identity,
            about: hello.about,
            proof: hello.proof
        })),
        "[a-z ]{0,40}".prop_map(Frame::Refused),
        "[0-9a-z=:,]{0,60}".prop_map(Frame::Nodes),
    ];
    (proptest::collection::vec(frame, 1..5), FORMAT_OLDEST..=FORMAT_NEWEST).prop_map(|(frames, format)| {
        let mut out = Vec::new();
        for frame in &frames {
            encode(format, frame, &mut out);
        }
        (out, frames)
    })
}

fn shard_frames(format: u8, messages: &[Message]) -> Vec<u8> {
    let mut out = Rope::default();
    assert_eq!(encode_shard(format, messages, &mut out), 0);
    out.to_vec()
}

/// The lengths of the frames of a rope, after their length fields.
fn lengths(out: &Rope) -> Vec<usize> {
    let mut lengths = Vec::new();
    let mut at = 0;
    while at < out.len() {
        let length = out.from(at).first_chunk().expect("a length lies in one piece");
        lengths.push(u32::from_le_bytes(*length) as usize);
        at += LENGTH_BYTES + lengths[lengths.len() - 1];
    }
    assert_eq!(at, out.len());
    lengths
}

fn huge_append(body: Bytes) -> Message {
    let at = |lsn| Position { epoch: Epoch(u64::MAX), lsn: Lsn(lsn) };
    let id = RequestId {
        node: NodeId(u16::MAX),
        incarnation: Incarnation(u64::MAX),
        shard: ShardId(u16::MAX),
        sequence: u64::MAX,
    };
    let record = Record {
        position: at(u64::MAX),
        prev_epoch: Epoch(u64::MAX),
        time_ms: u64::MAX,
        request: Some((id, Bytes::from(vec![b'r'; 256]))),
        body: body.into(),
    };
    Message::Append(Append {
        partition: PartitionId(u16::MAX),
        epoch: Epoch(u64::MAX),
        primary_since: Epoch(u64::MAX),
        prev: at(u64::MAX - 1),
        commit: Lsn(u64::MAX),
        records: vec![record],
    })
}

/// What nodes may write and pass on goes out, whatever goes out with it. All lie in one buffer, of which nothing is ever written.
#[test]
fn the_largest_messages_have_a_frame() {
    let whole = Bytes::from(vec![0; PEER_FRAME_BYTES_MAX + 1]);
    let largest = whole.slice(..RECORD_BYTES_MAX);
    let id =
        RequestId { node: NodeId(1), incarnation: Incarnation(1), shard: ShardId(0), sequence: u64::MAX };
    let few = |mib: usize| {
        let outcome = ForwardOutcome::Reply { reply: whole.slice(..mib << 20).into(), written: None };
        Message::Forwarded(Forwarded { id, primary_since: Epoch(1), outcome })
    };
    let forward = Message::Forward(Forward {
        id,
        partition: PartitionId(u16::MAX),
        primary_since: Epoch(u64::MAX),
        write_level: WriteLevel::All,
        read_level: ReadLevel::Linearizable,
        args: vec![
            Bytes::from_static(b"SET"),
            largest.slice(..KEY_BYTES_MAX),
            largest.slice(KEY_BYTES_MAX..),
        ],
    });
    // A frame under way may hold a little or much already.
    for (before, frames) in [(1, 4), (3, 4)] {
        let messages = [few(before), huge_append(largest.clone()), few(1), forward.clone()];
        let mut out = Rope::default();
        assert_eq!(encode_shard(FORMAT_NEWEST, &messages, &mut out), 0);
        assert!(out.capacity() < 16 << 20, "huge values are shared");
        let lengths = lengths(&out);
        assert_eq!(lengths.len(), frames, "{lengths:?}");
        assert!(lengths.iter().all(|&length| length <= PEER_FRAME_BYTES_MAX), "{lengths:?}");
    }
    // It reads back: one copy of it.
    let message = huge_append(largest);
    let frame = shard_frames(FORMAT_NEWEST, std::slice::from_ref(&message));
    let Ok(Frame::Shard(read)) = decode(Bytes::from(frame).slice(LENGTH_BYTES..)) else {
        panic!("it is refused")
    };
    assert!(read == [message], "it reads back as another");
}

/// Up to the last byte of a frame.
#[test]
fn what_no_frame_can_hold_is_left_out_and_nothing_else() {
    let whole = Bytes::from(vec![0; PEER_FRAME_BYTES_MAX + 1]);
    let mut out = Rope::default();
    let body = |bytes: usize| huge_append(whole.slice(..bytes));
    encode_shard(FORMAT_NEWEST, &[body(RECORD_BYTES_MAX)], &mut out);
    let most = PEER_FRAME_BYTES_MAX - (lengths(&out)[0] - RECORD_BYTES_MAX);
    for (bytes, expected) in [(most, 0), (most + 1, 1), (most - 1, 0)] {
        out.clear();
        let messages = [huge_append(Bytes::from_static(b"small")), body(bytes), huge_append(Bytes::new())];
        assert_eq!(encode_shard(FORMAT_NEWEST, &messages, &mut out), expected);
        let lengths = lengths(&out);
        assert_eq!(lengths.iter().filter(|&&length| length > RECORD_BYTES_MAX).count(), 1 - expected);
        assert!(lengths.iter().all(|&length| length <= PEER_FRAME_BYTES_MAX), "{lengths:?}");
    }
}

fn encode(format: u8, frame: &Frame, out: &mut Vec<u8>) {
    match frame {
        Frame::Challenge(challenge) => encode_handshake(&Step::Challenge(challenge), out),
        Frame::Hello(hello) => encode_handshake(&Step::Hello(hello), out),
        Frame::Welcome(welcome) => encode_handshake(&Step::Welcome(welcome), out),
        Frame::Refused(why) => encode_handshake(&Step::Refused(why), out),
        Frame::Nodes(nodes) => encode_handshake(&Step::Nodes(nodes), out),
        Frame::Shard(messages) => out.extend_from_slice(&shard_frames(format, messages)),
        Frame::Control(messages) => encode_control(format, messages, out),
        Frame::Beat(beats) => encode_beats(format, beats, out),
    }
}

fn read_all(reader: &mut FrameReader) -> Vec<Frame> {
    std::iter::from_fn(|| reader.next_frame().expect("well-formed frames")).collect()
}

proptest! {
    #[test]
    fn frames_read_back_however_the_stream_is_cut(
        (stream, frames) in stream(),
        pieces in proptest::collection::vec(1usize..50, 1..8),
    ) {
        let mut reader = FrameReader::open();
        let mut read = Vec::new();
        let (mut rest, mut pieces) = (&stream[..], pieces.into_iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(pieces.next().unwrap().min(rest.len()));
            reader.push(piece);
            read.extend(read_all(&mut reader));
            rest = after;
        }
        prop_assert_eq!(read, frames);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
        let mut reader = FrameReader::open();
        reader.push(&bytes);
        while let Ok(Some(_)) = reader.next_frame() {}
    }

    #[test]
    fn any_payload_of_any_kind_decodes_without_a_panic(
        format in FORMAT_OLDEST..=FORMAT_NEWEST,
        kind in 0u8..21,
        payload: Vec<u8>,
    ) {
        let mut body = vec![format, kind];
        body.extend_from_slice(&payload);
        let _ = decode(Bytes::from(body));
    }

    #[test]
    fn a_damaged_frame_is_an_error_or_another_frame((stream, _) in stream(), at: usize, bit in 0u8..8) {
        let mut stream = stream;
        let at = at % stream.len();
        stream[at] ^= 1 << bit;
        let mut reader = FrameReader::open();
        reader.push(&stream);
        while let Ok(Some(_)) = reader.next_frame() {}
    }
}

#[test]
fn a_declared_length_is_refused_before_its_bytes_come() {
    let mut reader = FrameReader::handshake();
    reader.push(&1025u32.to_le_bytes());
    assert_eq!(reader.next_frame(), Err(FrameError::TooLong { bytes: 1025, most: 1024 }));
    let mut reader = FrameReader::open();
    reader.push(&u32::MAX.to_le_bytes());
    assert!(matches!(reader.next_frame(), Err(FrameError::TooLong { .. })));
}

#[test]
fn a_long_turn_becomes_several_frames() {
    let forward = |bytes: usize| {
        Message::Forwarded(Forwarded {
            id: RequestId { node: NodeId(1), incarnation: Incarnation(1), shard: ShardId(0), sequence: 9 },
            primary_since: Epoch(1),
            outcome: ForwardOutcome::Reply { reply: vec![7; bytes].into(), written: None },
        })
    };
    let messages = vec![forward(3 << 20), forward(3 << 20), forward(10)];
    let mut reader = FrameReader::open();
    reader.push(&shard_frames(FORMAT_NEWEST, &messages));
    let frames = read_all(&mut reader);
    assert_eq!(frames, [Frame::Shard(messages[..2].to_vec()), Frame::Shard(messages[2..].to_vec())]);
}

#[test]
fn a_proof_covers_every_claim() {
    let challenge = Challenge { nonce: [1; 32] };
    let hello = Hello {
        cluster_id: [2; 20],
        identity: Identity { node: NodeId(1), incarnation: Incarnation(2), directory: 3 },
        from: Endpoint::Heart,
        to_node: NodeId(4),
        to: Endpoint::Shard(ShardId(1)),
        nonce: [5; 32],
        about: Some(About::own(types::Level(2), "0.1.0")),
        proof: [0; 32],
    };
    let proved = hello.proved(&challenge);
    let changes: [fn(&mut Hello); 8] = [
        |hello| hello.cluster_id[19] = 9,
        |hello| hello.identity.incarnation = Incarnation(9),
        |hello| hello.from = Endpoint::Control,
        |hello| hello.to_node = NodeId(9),
        |hello| hello.to = Endpoint::Shard(ShardId(2)),
        |hello| hello.nonce[0] = 9,
        |hello| hello.about = None,
        |hello| hello.about.as_mut().unwrap().newest = 2,
    ];
    for change in changes {
        let mut other = hello.clone();
        change(&mut other);
        assert_ne!(other.proved(&challenge), proved);
    }
    assert_ne!(hello.proved(&Challenge { nonce: [9; 32] }), proved);
}

fn record_of(lsn: u64, body: Vec<u8>, request: Option<(RequestId, Bytes)>) -> Record {
    let position = Position { epoch: Epoch(3), lsn: Lsn(lsn) };
    Record { position, prev_epoch: Epoch(2), time_ms: 1_700_000_000_000, request, body: body.into() }
}

fn append_of(records: Vec<Record>) -> Message {
    Message::Append(Append {
        partition: PartitionId(5),
        epoch: Epoch(3),
        primary_since: Epoch(2),
        prev: Position { epoch: Epoch(2), lsn: Lsn(8) },
        commit: Lsn(7),
        records,
    })
}

/// Bytes that do not compress.
fn noise(bytes: usize) -> Vec<u8> {
    let mut number = 1u64;
    let mut next = || {
        number = number.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (number >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// The bytes of messages, and of those the kind of the first.
fn written(messages: &[Message]) -> (Vec<u8>, u8) {
    let out = shard_frames(FORMAT_OLDEST, messages);
    let kind = out[LENGTH_BYTES + HEAD_BYTES];
    (out, kind)
}

#[test]
fn large_records_are_compressed_where_it_helps() {
    let id = RequestId { node: NodeId(1), incarnation: Incarnation(2), shard: ShardId(3), sequence: 4 };
    let reply = Some((id, Bytes::from_static(b"OK")));
    let cases = [
        (vec![record_of(9, vec![7; 4096], None)], 1),
        (vec![record_of(9, vec![7; 4097], None)], 7),
        (vec![record_of(9, noise(8192), None)], 1),
        (vec![record_of(9, vec![7; 4 << 20], None)], 7),
        (vec![record_of(9, vec![7; (4 << 20) + 1], None)], 1),
        (
            vec![
                record_of(9, b"small".to_vec(), reply.clone()),
                record_of(10, vec![7; 8192], reply),
                record_of(11, noise(8192), None),
                record_of(12, Vec::new(), None),
            ],
            7,
        ),
    ];
    for (records, expected) in cases {
        let bytes: usize = records.iter().map(|record| record.body.len()).sum();
        let compressible: usize = records
            .iter()
            .map(|record| record.body.to_bytes().iter().filter(|&&byte| byte == 7).count())
            .sum();
        let messages = vec![append_of(records), append_of(vec![record_of(20, b"after".to_vec(), None)])];
        let (out, kind) = written(&messages);
        assert_eq!(kind, expected, "{bytes} bytes");
        if expected == 7 {
            assert!(out.len() < bytes - compressible / 8 * 7, "{} of {bytes}", out.len());
        }
        let mut reader = FrameReader::open();
        reader.push(&out);
        let (first, rest) = messages.split_at(if bytes >= 4 << 20 { 1 } else { 2 });
        let expected = [first, rest].into_iter().filter(|part| !part.is_empty());
        // Too much to be printed.
        assert!(
            read_all(&mut reader) == expected.map(|part| Frame::Shard(part.to_vec())).collect::<Vec<_>>()
        );
    }
}

/// What comes out of a frame counts, not what it has shrunk to: a reader holds no more than without compression.
#[test]
fn a_frame_of_compressed_records_is_closed_as_early_as_one_of_others() {
    let messages: Vec<Message> =
        (0..6).map(|at| append_of(vec![record_of(at + 9, vec![7; 2 << 20], None)])).collect();
    let (out, _) = written(&messages);
    let mut reader = FrameReader::open();
    reader.push(&out);
    let frames = read_all(&mut reader);
    assert!(out.len() < 1 << 20);
    let expected: Vec<Frame> = messages.chunks(2).map(|part| Frame::Shard(part.to_vec())).collect();
    // Too much to be printed.
    assert!(frames == expected);
}

#[test]
fn a_compressed_record_that_lies_is_refused() {
    let (out, kind) = written(&[append_of(vec![record_of(9, vec![7; 5000], None)])]);
    let body = &out[LENGTH_BYTES..];
    assert_eq!(kind, 7);
    // Partition, epoch, reign, position before, commit lsn and count are a byte each; then the length: 5000.
    let at = HEAD_BYTES + 8;
    assert_eq!(body[at..at + 2], [0x88, 0x27]);
    for wrong in [[0x87, 0x27], [0x89, 0x27], [0xff, 0x7f], [0x81, 0x00]] {
        let mut other = body.to_vec();
        other[at..at + 2].copy_from_slice(&wrong);
        assert!(matches!(decode(other.into()), Err(FrameError::Corrupt { .. })), "{wrong:x?}");
    }
    for cut in 0..body.len() {
        assert!(decode(Bytes::copy_from_slice(&body[..cut])).is_err() || cut == HEAD_BYTES, "{cut}");
    }
    for bit in 0..body.len() * 8 {
        let mut other = body.to_vec();
        other[bit / 8] ^= 1 << (bit % 8);
        let _ = decode(other.into());
    }
}

/// Frames as builds wrote them that had one format only.
#[test]
fn frames_of_format_2_are_read_and_written() {
    let frame = [
        24, 0, 0, 0, 2, 16, // length, version, kind
        1, 5, 3, 2, 2, 8, 7,
        1, // Append: partition, epoch, reign, position before, commit lsn, one record
        3, 9, 2, 0xe8, 0x07, 0, 3, b'a', b'b', b'c', // the record
        2, 5, 3, 2, // Appended: partition, epoch, Empty
    ];
    let mut reader = FrameReader::open();
    reader.push(&frame);
    let record = Record { time_ms: 1000, ..record_of(9, b"abc".to_vec(), None) };
    let appended = Appended { partition: PartitionId(5), epoch: Epoch(3), outcome: AppendOutcome::Empty };
    let messages = vec![append_of(vec![record]), Message::Appended(appended)];
    let (out, _) = written(&messages);
    assert_eq!(out, frame);
    assert_eq!(read_all(&mut reader), [Frame::Shard(messages)]);
    for (format, is_known) in [(1, false), (2, true), (3, true), (4, true), (5, false)] {
        let mut body = out[LENGTH_BYTES..].to_vec();
        body[0] = format;
        match decode(body.into()) {
            Ok(_) => assert!(is_known, "{format}"),
            Err(error) => assert!(!is_known && error == FrameError::Version { found: format }, "{format}"),
        }
    }
}

/// What the other side knows not to be there it does not miss: the frame is read by the build that knows no abouts.
#[test]
fn a_handshake_without_abouts_is_as_it_was() {
    let identity = Identity { node: NodeId(1), incarnation: Incarnation(2), directory: 3 };
    let welcome = Welcome { identity, about: None, proof: [9; 32] };
    let mut out = Vec::new();
    encode_handshake(&Step::Welcome(&welcome), &mut out);
    let mut frame = vec![37, 0, 0, 0, 2, 3, 1, 2, 3];
    frame.extend_from_slice(&[9; 32]);
    assert_eq!(out, frame);
    out.clear();
    encode_handshake(&Step::Challenge(&Challenge::marked([7; 32])), &mut out);
    assert_eq!(out[..30], [&[34, 0, 0, 0, 2, 1][..], &[7; 24]].concat());
    assert_eq!(out[30..], *b"ANNFMT\x02\x04");
}

#[test]
fn the_link_has_the_newest_format_that_both_have() {
    let own = About::own(types::Level(2), "0.1.0");
    let of = |oldest, newest| About { oldest, newest, ..own.clone() };
    assert_eq!(own.format_with(&own), Some(FORMAT_NEWEST));
    assert_eq!(own.format_with(&About::unsaid()), Some(FORMAT_OLDEST));
    assert_eq!(own.format_with(&of(3, 9)), Some(4));
    assert_eq!(own.format_with(&of(2, 3)), Some(3));
    assert_eq!(own.format_with(&of(5, 9)), None);
    assert_eq!(own.format_with(&of(1, 1)), None);
    assert_eq!(Challenge::marked([7; 32]).formats(), Some((FORMAT_OLDEST, FORMAT_NEWEST)));
    assert_eq!(Challenge { nonce: [7; 32] }.formats(), None);
}

#[test]
fn what_a_later_build_adds_to_an_about_is_left_out() {
    let about = About::own(types::Level(2), "0.1.0");
    let identity = Identity { node: NodeId(1), incarnation: Incarnation(2), directory: 3 };
    let welcome = Welcome { identity, about: Some(about), proof: [9; 32] };
    let mut out = Vec::new();
    encode_handshake(&Step::Welcome(&welcome), &mut out);
    // Length, version, kind, identity; then the about: its length, formats, level, version.
    assert_eq!(out[4..19], [&[3, 3, 1, 2, 3, 9, 2, 4, 2, 5][..], b"0.1.0"].concat());
    drop(out.splice(19..19, *b"more"));
    out[9] += 4;
    assert_eq!(decode(Bytes::copy_from_slice(&out[4..])), Ok(Frame::Welcome(welcome)));
}

fn large_map(level: types::Level) -> placement::ClusterMap {
    let copies: types::NodeSet = [NodeId(1), NodeId(2)].into_iter().collect();
    let state = placement::PartitionState { epoch: Epoch(3), copies, in_sync: copies, ..Default::default() };
    placement::ClusterMap { version: 9, level, partitions: vec![state; 1024], ..Default::default() }
}

#[test]
fn a_whole_map_is_compressed_where_the_other_side_knows_it() {
    use control::message::Message;
    let messages = vec![Message::AskMap { have: 1 }, Message::Map(Box::new(large_map(types::Level::FIRST)))];
    let [old, new] = [FORMAT_OLDEST, FORMAT_NEWEST].map(|format| {
        let mut out = Vec::new();
        encode_control(format, &messages, &mut out);
        assert_eq!(decode(Bytes::copy_from_slice(&out[4..])), Ok(Frame::Control(messages.clone())));
        out
    });
    assert_eq!((old[5], new[5]), (KIND_CONTROL, KIND_CONTROL_COMPRESSED));
    assert!(new.len() * 10 < old.len(), "{} of {}", new.len(), old.len());
    let mut lies = new.clone();
    lies[6] ^= 1;
    assert!(matches!(decode(Bytes::copy_from_slice(&lies[4..])), Err(FrameError::Corrupt { .. })));
    let mut older = new;
    older[4] = FORMAT_OLDEST;
    assert!(matches!(decode(Bytes::copy_from_slice(&older[4..])), Err(FrameError::Corrupt { .. })));
}

#[test]
fn what_a_format_has_no_form_for_is_left_out() {
    use control::message::Message;
    let asks = Message::AskMap { have: 1 };
    let messages = [asks.clone(), Message::Map(Box::new(large_map(types::Level(2)))), asks.clone()];
    let mut out = Vec::new();
    encode_control(FORMAT_OLDEST, &messages, &mut out);
    assert_eq!(decode(Bytes::copy_from_slice(&out[4..])), Ok(Frame::Control(vec![asks.clone(), asks])));
}

#[test]
fn a_large_frame_has_room_once_a_sixteenth_of_it_has_come_and_not_before() {
    let (body, piece) = (8 << 20, vec![0; 64 * 1024]);
    let whole = LENGTH_BYTES + body;
    let mut reader = FrameReader::open();
    reader.push(&(body as u32).to_le_bytes());
    while reader.waiting_bytes() + piece.len() < whole {
        let had = reader.waiting_bytes();
        reader.push(&piece);
        let room = reader.buffer.capacity();
        if had < whole / ROOM_AHEAD {
            assert!(room <= 2 * (had + piece.len()), "room for {room} bytes where {had} have come");
        } else {
            assert!(room >= whole, "room for {room} bytes where {had} have come of {whole}");
        }
    }
}
