//! Replies of servers that may be none, and those that nodes pass on to each other.
//!
//! Our client's decoder finds the same replies however the bytes arrive, and what it read and writes again it reads again as
//! the same, in both versions of the protocol. The neutral form, which crosses the peer port, reads back what it wrote.
//!
//! An input is a byte that chooses, one that cuts the stream, and the stream.

use crate::input::{Cuts, Input};
use crate::meter;
use command::Reply;
use wire::resp::{ProtocolError, ReplyDecoder, decode_reply, write};

/// See the [module](self).
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (choice, cuts) = (input.byte(), Cuts::new(input.byte()));
    let stream = input.rest;
    // The decoder makes room for 64 items for each of 32 aggregates at once; an item of three bytes is a `Reply`.
    let room = (512 << 10) + 512 * stream.len();
    if choice % 2 == 1 {
        meter::within(room, || neutral(stream));
        return;
    }
    let (whole, cut) = meter::within(room, || (read(stream, Cuts::new(0)), read(stream, cuts)));
    // A double may be no number, which equals nothing: compared as shown.
    assert_eq!(format!("{whole:?}"), format!("{cut:?}"), "what is found depends on how the bytes arrived");
    whole.0.iter().for_each(reads_back);
}

fn read(stream: &[u8], mut cuts: Cuts) -> (Vec<Reply<'static>>, Result<(), ProtocolError>) {
    let mut decoder = ReplyDecoder::new();
    let (mut replies, mut buffer, mut came) = (Vec::new(), Vec::new(), 0);
    loop {
        match decoder.decode(&buffer) {
            Ok(Some((reply, bytes))) => {
                assert!(bytes > 0 && bytes <= buffer.len());
                buffer.drain(..bytes);
                replies.push(reply);
            }
            Ok(None) => {
                let next = cuts.next(stream.len() - came);
                if next == 0 {
                    return (replies, Ok(()));
                }
                buffer.extend_from_slice(&stream[came..came + next]);
                came += next;
            }
            Err(error) => return (replies, Err(error)),
        }
    }
}

/// Written and read, a reply writes the same bytes again.
///
/// # Panics
///
/// Where it does not.
pub fn reads_back(reply: &Reply<'_>) {
    for protocol in [2, 3] {
        let mut bytes = Vec::new();
        write(reply, protocol, &mut bytes);
        let (read, used) = decode_reply(&bytes)
            .unwrap_or_else(|error| panic!("{reply:?} does not read back: {error}"))
            .unwrap_or_else(|| panic!("{reply:?} is not whole"));
        assert_eq!(used, bytes.len(), "{reply:?} is more than one reply");
        let mut again = Vec::new();
        write(&read, protocol, &mut again);
        assert_eq!(again.escape_ascii().to_string(), bytes.escape_ascii().to_string());
    }
}

fn neutral(bytes: &[u8]) {
    let Ok(reply) = Reply::decode_neutral(&bytes.to_vec().into()) else { return };
    let mut again = Vec::new();
    reply.encode_neutral(&mut again);
    let read = Reply::decode_neutral(&again.clone().into()).expect("what was written reads back");
    assert_eq!(format!("{read:?}"), format!("{reply:?}"));
}

/// What replies are made of.
pub fn words() -> Vec<Vec<u8>> {
    [
        "+OK\r\n",
        "-ERR ",
        "-MOVED 1 h:1\r\n",
        ":1\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "_\r\n",
        "#t\r\n",
        "#f\r\n",
        ",1.5\r\n",
        ",inf\r\n",
        ",nan\r\n",
        "(123\r\n",
        "=5\r\ntxt:a\r\n",
        "!3\r\nERR\r\n",
        "%1\r\n",
        "~2\r\n",
        ">2\r\n",
        "*1\r\n",
        "$1\r\na\r\n",
        "*4294967295\r\n",
        "$536870912\r\n",
    ]
    .map(|word| word.as_bytes().to_vec())
    .to_vec()
}
