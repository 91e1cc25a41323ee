//! Requests of strangers: [`wire::resp::Decoder`] finds the same ones however the bytes arrive, keeps its limits, and holds no
//! more memory than came.
//!
//! An input is a byte that chooses the limits, one that cuts the stream, and the stream.

use crate::input::{Cuts, Input};
use crate::meter;
use types::settings::Settings;
use wire::resp::{Decoder, Limits, Parsed, ProtocolError, slices};

/// What a stream holds: its requests, and how it ends.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    requests: Vec<Vec<Vec<u8>>>,
    end: Result<(), ProtocolError>,
    /// Bytes of a request that is not complete.
    left: usize,
}

/// See the [module](self).
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let limits = limits(input.byte());
    let cuts = Cuts::new(input.byte());
    let stream = input.rest;
    // An argument is a span of 16 bytes, and two bytes can make one ("a "); vectors double; every request is copied here.
    let (whole, cut) = meter::within(4096 + 160 * stream.len(), || {
        (read(stream, &limits, Cuts::new(0)), read(stream, &limits, cuts))
    });
    assert_eq!(whole, cut, "what is found depends on how the bytes arrived");
}

/// Tight limits, so that short inputs reach them, or those of the product.
fn limits(choice: u8) -> Limits {
    match choice % 4 {
        0 => Limits::authenticated(&Settings::default()),
        1 => Limits::unauthenticated(),
        2 => Limits {
            bulk_bytes_max: 16,
            arguments_max: 4,
            line_bytes_max: 24,
            request_bytes_max: 48,
            authenticated: true,
        },
        _ => Limits {
            bulk_bytes_max: 0,
            arguments_max: 1,
            line_bytes_max: 5,
            request_bytes_max: 1,
            authenticated: false,
        },
    }
}

fn read(stream: &[u8], limits: &Limits, mut cuts: Cuts) -> Found {
    let mut decoder = Decoder::new();
    let (mut buffer, mut came) = (Vec::new(), 0);
    let mut requests = Vec::new();
    loop {
        // A quote that is taken off moves what follows it to the front.
        let is_array = buffer.first() == Some(&b'*');
        match decoder.parse(&mut buffer, limits) {
            Ok(Parsed::Complete(bytes)) => {
                let args: Vec<Vec<u8>> = slices(&buffer, decoder.arguments()).map(<[u8]>::to_vec).collect();
                assert!(bytes > 0 && bytes <= buffer.len(), "{bytes} bytes taken of {}", buffer.len());
                check(&args, bytes, is_array, limits);
                assert!(decoder.is_at_start());
                requests.push(args);
                buffer.drain(..bytes);
            }
            Ok(Parsed::Incomplete { need }) => {
                assert!(need > 0, "it asks for nothing");
                let next = cuts.next(stream.len() - came);
                if next == 0 {
                    return Found { requests, end: Ok(()), left: buffer.len() };
                }
                buffer.extend_from_slice(&stream[came..came + next]);
                came += next;
            }
            // How much of the stream is behind the error depends on the cuts.
            Err(error) => return Found { requests, end: Err(error), left: 0 },
        }
    }
}

/// What holds for every request.
fn check(args: &[Vec<u8>], bytes: usize, is_array: bool, limits: &Limits) {
    assert!(args.len() <= limits.arguments_max);
    let in_args: usize = args.iter().map(Vec::len).sum();
    assert!(in_args <= bytes, "{in_args} bytes of arguments in {bytes}");
    if is_array {
        assert!(args.iter().all(|arg| arg.len() <= limits.bulk_bytes_max));
        // The last argument's end is not counted, and a request without arguments is one line.
        assert!(bytes <= limits.request_bytes_max.max(limits.line_bytes_max + 1) + 2);
    } else {
        assert!(bytes <= limits.line_bytes_max + 1);
    }
}

/// What requests are made of.
pub fn words() -> Vec<Vec<u8>> {
    [
        "*1\r\n",
        "*2\r\n",
        "*-1\r\n",
        "$-1\r\n",
        "$0\r\n\r\n",
        "$1\r\na\r\n",
        "\r\n",
        "\"",
        "'",
        "\\x41",
        "\\n",
        "\\\"",
        "*1048577\r\n",
        "$536870913\r\n",
        "$536870912\r\n",
        "GET / HTTP/1.1\r\n",
        "Host:",
        "post",
    ]
    .map(|word| word.as_bytes().to_vec())
    .to_vec()
}
