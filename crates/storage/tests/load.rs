//! How long it takes to write and to load chunks, and what compressing them saves. Prints figures and asserts none of them:
//!
//! ```text
//! cargo test --release -p annulet-storage --test load -- --ignored --nocapture
//! ```

mod values;

use std::time::Instant;
use storage::snapshot::{load_chunk, write_chunk};
use storage::{Hasher, Table, TailedBuffer, Value};
use types::Version;
use values::{noise, orders};

const TABLES: u64 = 1024;
const CHUNK_BYTES: usize = 128 << 10;

/// The chunks of each table.
fn chunks(keys: u64, hasher: Hasher) -> Vec<Vec<Vec<u8>>> {
    let of_one = |number: u64| {
        let mut table = Table::new(hasher);
        for key in (number..keys).step_by(TABLES as usize) {
            let name = format!("key:{key:012}");
            table.put(
                hasher.hash(name.as_bytes()),
                name.as_bytes(),
                Value::String(&[7; 64]),
                None,
                Version(key),
            );
        }
        let (mut chunks, mut cursor) = (Vec::new(), Some(0));
        while let Some(from) = cursor {
            let mut chunk = TailedBuffer::default();
            cursor = write_chunk(&table, from, CHUNK_BYTES, &mut chunk);
            chunks.push(chunk.finished(0).to_bytes().to_vec());
        }
        chunks
    };
    (0..TABLES).map(of_one).collect()
}

fn measure(what: &str, keys: u64, written: Hasher, read: Hasher) {
    let chunks = chunks(keys, written);
    let bytes: usize = chunks.iter().flatten().map(Vec::len).sum();
    let began = Instant::now();
    let mut tables = Vec::new();
    for chunks in &chunks {
        let mut table = Table::new(read);
        for chunk in chunks {
            load_chunk(chunk, &mut table).unwrap();
        }
        tables.push(table);
    }
    let took = began.elapsed();
    assert_eq!(tables.iter().map(|table| table.len() as u64).sum::<u64>(), keys);
    println!(
        "{what}: {keys} keys, {} MiB of chunks, {:.2} s: {:.0} ns a key",
        bytes >> 20,
        took.as_secs_f64(),
        took.as_nanos() as f64 / keys as f64
    );
}

#[test]
#[ignore = "a measurement, which asserts no time: see CONTRIBUTING.md for the command"]
fn loading_up_to_five_million_keys() {
    for keys in [100_000, 1_000_000, 5_000_000] {
        measure("the hash that they were written by", keys, Hasher::new(1), Hasher::new(1));
        measure("another hash", keys, Hasher::new(1), Hasher::new(2));
    }
}

/// Makes a value of so many bytes.
type Making = fn(&mut u64, usize) -> Vec<u8>;

#[test]
#[ignore = "a measurement, which asserts no time: see CONTRIBUTING.md for the command"]
fn compressing_chunks() {
    let cases: [(&str, Making, usize); 4] = [
        ("JSON of 4 KiB, not compressed", orders, 4 << 10),
        ("JSON of 8 KiB", orders, 8 << 10),
        ("noise of 8 KiB", noise, 8 << 10),
        ("noise of 32 KiB", noise, 32 << 10),
    ];
    for (what, value, value_bytes) in cases {
        let (mut table, mut random) = (Table::new(Hasher::new(1)), 1);
        for key in 0..16_384u64 {
            let name = format!("key:{key:012}");
            let value = value(&mut random, value_bytes);
            table.put(
                table.hasher().hash(name.as_bytes()),
                name.as_bytes(),
                Value::String(&value),
                None,
                Version(key),
            );
        }
        let (mut chunks, mut cursor) = (Vec::new(), Some(0));
        let began = Instant::now();
        while let Some(from) = cursor {
            let mut chunk = TailedBuffer::default();
            cursor = write_chunk(&table, from, CHUNK_BYTES, &mut chunk);
            chunks.push(chunk.finished(0).to_bytes().to_vec());
        }
        let wrote = began.elapsed();
        let mut copy = Table::new(Hasher::new(1));
        let began = Instant::now();
        for chunk in &chunks {
            load_chunk(chunk, &mut copy).unwrap();
        }
        let loaded = began.elapsed();
        let bytes: usize = chunks.iter().map(Vec::len).sum();
        println!(
            "{what}: {} chunks with {} MiB of values are {} MiB; {:.0} us to write one, {:.0} us to load it",
            chunks.len(),
            (16_384 * value_bytes) >> 20,
            bytes >> 20,
            wrote.as_micros() as f64 / chunks.len() as f64,
            loaded.as_micros() as f64 / chunks.len() as f64
        );
    }
}
