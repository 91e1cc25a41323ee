//! What compressing large records between nodes saves and costs. Prints figures and asserts none of them:
//!
//! ```text
//! cargo test --release -p annulet-wire --test load -- --ignored --nocapture
//! ```

#[path = "../../storage/tests/values/mod.rs"]
mod values;

use replication::message::{Append, Message};
use std::time::Instant;
use storage::{Effect, Record, Rope, Value};
use types::{Epoch, Lsn, PartitionId, Position, Version};
use values::{noise, orders};
use wire::peer::{FORMAT_NEWEST, FrameReader, encode_shard};

/// Bytes of values that a case writes.
const BYTES: usize = 160 << 20;

/// Makes a value of so many bytes.
type Making = fn(&mut u64, usize) -> Vec<u8>;

fn append(value: &[u8]) -> Message {
    let mut body = Vec::new();
    let put = Effect::Put {
        key: b"key:000000000001",
        value: Value::String(value),
        expire_at_ms: None,
        version: Version(1 << 60),
    };
    put.encode(&mut body);
    let record = Record {
        position: Position { epoch: Epoch(3), lsn: Lsn(1_000_000) },
        prev_epoch: Epoch(3),
        time_ms: 1_700_000_000_000,
        request: None,
        body: body.into(),
    };
    Message::Append(Append {
        partition: PartitionId(500),
        epoch: Epoch(3),
        primary_since: Epoch(3),
        prev: Position { epoch: Epoch(3), lsn: Lsn(999_999) },
        commit: Lsn(999_990),
        records: vec![record],
    })
}

#[test]
#[ignore = "a measurement, which asserts no time: see CONTRIBUTING.md for the command"]
fn sending_large_records() {
    let cases: [(&str, Making, usize); 5] = [
        ("JSON of 4000 bytes, which is not tried", orders, 4000),
        ("JSON of 8 KiB", orders, 8 << 10),
        ("JSON of 64 KiB", orders, 64 << 10),
        ("noise of 8 KiB", noise, 8 << 10),
        ("noise of 64 KiB", noise, 64 << 10),
    ];
    for (what, value, bytes) in cases {
        let mut random = 1;
        let messages: Vec<Message> = (0..64).map(|_| append(&value(&mut random, bytes))).collect();
        let records = BYTES / bytes;
        let (mut sent, mut wrote, mut read) = (0, 0, 0);
        let mut out = Rope::default();
        for message in messages.iter().cycle().take(records) {
            out.clear();
            let began = Instant::now();
            encode_shard(FORMAT_NEWEST, std::slice::from_ref(message), &mut out);
            wrote += began.elapsed().as_nanos();
            sent += out.len();
            let mut reader = FrameReader::open();
            reader.push(&out.to_vec());
            let began = Instant::now();
            assert!(reader.next_frame().unwrap().is_some());
            read += began.elapsed().as_nanos();
        }
        println!(
            "{what}: {} bytes a record on the wire ({:.0}%), {:.1} us to write it, {:.1} us to read it",
            sent / records,
            100.0 * sent as f64 / (records * bytes) as f64,
            wrote as f64 / 1e3 / records as f64,
            read as f64 / 1e3 / records as f64
        );
    }
}
