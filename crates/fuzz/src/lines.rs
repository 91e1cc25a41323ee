//! Requests at the line port: [`wire::line::Framing`] finds the same ones however the bytes arrive, keeps its bound, and what reads
//! them holds no more memory than came.
//!
//! An input is a byte that chooses the bound, one that cuts the stream, and the stream. Nothing ends by standing still: that depends
//! on time, and is tried in room `wire`.

use crate::input::{Cuts, Input};
use crate::meter;
use bytes::Bytes;
use types::Instant;
use wire::line::{Bounds, Found, Framing, Kind, json, text};

/// What a stream holds, and whether it ends with a request that is too long.
type Read = (Vec<(Kind, Vec<u8>)>, bool);

/// See the [module](self).
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let most = [4096, 64, 8, 0][usize::from(input.byte() % 4)];
    let cuts = Cuts::new(input.byte());
    let stream = input.rest;
    // A request of one byte has a heap piece of its own, and its place in a list takes 32 bytes; lists double; it is read twice.
    let (whole, cut) = meter::within(4096 + 256 * stream.len(), || {
        (read(stream, most, Cuts::new(0)), read(stream, most, cuts))
    });
    assert_eq!(whole, cut, "what is found depends on how the bytes arrived");
    for (kind, request) in whole.0 {
        assert!(!request.is_empty() && request.len() <= most);
        // What is read is made of the request's own bytes; errors name them or not.
        meter::within(4096 + 16 * request.len(), || match kind {
            Kind::Json => drop(json::parse(&request)),
            Kind::Text => {
                let request = Bytes::from(request);
                if let Ok(text::Request::Put { value, .. }) = text::parse(&request) {
                    let left = text::without_replicas(&value, |_, port| port > 9);
                    assert!(value.starts_with(&left));
                }
            }
        });
    }
}

fn read(stream: &[u8], most: usize, mut cuts: Cuts) -> Read {
    let bounds = Bounds { request_bytes_max: most, idle: None };
    let mut framing = Framing::default();
    let (mut buffer, mut came, mut ended) = (Vec::new(), 0, false);
    let mut requests = Vec::new();
    loop {
        match framing.next(&buffer, Instant(0), ended, &bounds) {
            Found::Blank(bytes) => drop(buffer.drain(..bytes)),
            Found::Request { kind, bytes, taken } => {
                assert!(bytes <= taken && framing.is_at_start());
                requests.push((kind, buffer[..bytes].to_vec()));
                buffer.drain(..taken);
            }
            Found::Nothing { whole_at } => {
                assert!(whole_at.is_none());
                if ended {
                    return (requests, false);
                }
                let next = cuts.next(stream.len() - came);
                ended = next == 0;
                buffer.extend_from_slice(&stream[came..came + next]);
                came += next;
            }
            Found::TooLong | Found::CutOff => return (requests, true),
        }
    }
}

/// What requests are made of.
pub fn words() -> Vec<Vec<u8>> {
    [
        "{\"command\":\"PUT\",\"key\":\"a\",\"value\":\"b\"}",
        "\"seconds\":60",
        "\"encoding\":\"base64\"",
        "{\n",
        "}",
        "[",
        "\\u0000",
        "\\ud800",
        "\n",
        "\r\n",
        "PUT a b\n",
        "PUT a b c:7401,d:7402\n",
        "GET a\n",
        "EXPIRE a 5\n",
        "REGISTER_NODE ::1 7401\n",
        "AUTH secret\n",
    ]
    .map(|word| word.as_bytes().to_vec())
    .to_vec()
}
