//! Bytes a key: resident memory after filling less resident memory before, divided by the keys. One server after another.

use super::Flags;
use super::client::{Client, Fill};
use super::servers::{Contender, Hosts, Server};
use crate::failure::Failure;
use serde::Serialize;
use std::time::Duration;

const FILL_PIPELINE: u64 = 500;
/// From one look at a filled server to the next.
const SETTLE: Duration = Duration::from_secs(1);
/// Looks, until its memory stays the same.
const LOOKS: usize = 15;

/// What came out.
#[derive(Serialize)]
pub(super) struct Memory {
    keys: u64,
    value_bytes: usize,
    lines: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    server: String,
    empty_bytes: u64,
    full_bytes: u64,
    peak_bytes: u64,
    bytes_a_key: f64,
    peak_bytes_a_key: f64,
    fill_s: f64,
}

pub(super) fn measure(flags: &Flags, contenders: &[Contender], hosts: &Hosts) -> Result<Memory, Failure> {
    let keys = flags.keys_or(5_000_000);
    let mut lines = Vec::new();
    for contender in contenders {
        let server = hosts.start(contender)?;
        let (empty_bytes, _) = server.resident()?;
        let fill = Fill { value_bytes: flags.value_bytes, pipeline: FILL_PIPELINE, options: &[] };
        let fill_s = fill.run(server.port, 0..keys)?.as_secs_f64();
        let full_bytes = settled(&server)?;
        let (_, peak_bytes) = server.resident()?;
        let held = Client::connect(server.port)?.keys_held()?;
        if held != keys as i64 {
            return Err(format!("{} holds {held} keys of {keys}", server.name).into());
        }
        let a_key = |bytes: u64| bytes.saturating_sub(empty_bytes) as f64 / keys as f64;
        let line = Line {
            server: server.name.clone(),
            empty_bytes,
            full_bytes,
            peak_bytes,
            bytes_a_key: a_key(full_bytes),
            peak_bytes_a_key: a_key(peak_bytes),
            fill_s,
        };
        eprintln!("{}: {:.1} bytes a key", line.server, line.bytes_a_key);
        lines.push(line);
    }
    Ok(Memory { keys, value_bytes: flags.value_bytes, lines })
}

/// Resident memory once it stays the same: what an allocator gives back takes a while.
fn settled(server: &Server<'_>) -> Result<u64, Failure> {
    let mut last = server.resident()?.0;
    for _ in 0..LOOKS {
        std::thread::sleep(SETTLE);
        let now = server.resident()?.0;
        if now.abs_diff(last) <= last / 1000 {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}

pub(super) fn text(memory: &Memory) -> String {
    let mut text = format!(
        "{} keys of 16 bytes with values of {} bytes. Resident memory of the whole process, by the kernel; a key's is the \
         difference to the empty server.\n\n\
         | server | empty, MiB | full, MiB | greatest, MiB | bytes a key | bytes a key at the greatest | filled in, s |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        memory.keys, memory.value_bytes
    );
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    for line in &memory.lines {
        text += &format!(
            "| {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} |\n",
            line.server,
            mib(line.empty_bytes),
            mib(line.full_bytes),
            mib(line.peak_bytes),
            line.bytes_a_key,
            line.peak_bytes_a_key,
            line.fill_s
        );
    }
    text
}
