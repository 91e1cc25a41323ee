//! Replies read back, for our own client.
//!
//! The decoder keeps the aggregates that it is in on a stack of its own, so a long reply is read once however it
//! arrives, and a deep one takes no stack of the thread's.

use super::ProtocolError;
use command::number::parse_i64;
use command::{CommandError, Reply};
use std::borrow::Cow;
use types::limits::{INLINE_BYTES_MAX, VALUE_BYTES_MAX};

/// How deep aggregates may nest.
const DEPTH_MAX: usize = 32;
/// The longest line: an error's text may be long, but not without end.
const LINE_BYTES_MAX: usize = INLINE_BYTES_MAX;
/// The most items of an aggregate that a server may declare.
const ITEMS_MAX: i64 = u32::MAX as i64;

/// Reads one reply, if the whole of it is there, and says how many bytes it took.
pub fn decode_reply(buffer: &[u8]) -> Result<Option<(Reply<'static>, usize)>, ProtocolError> {
    ReplyDecoder::new().decode(buffer)
}

/// Reads one reply after the other.
#[derive(Debug, Default)]
pub struct ReplyDecoder {
    /// How many bytes of the reply are done with.
    at: usize,
    /// The length that the buffer must have before it is worth looking at.
    wanted: usize,
    /// The aggregates that are not complete, the innermost last.
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    kind: u8,
    left: usize,
    items: Vec<Reply<'static>>,
}

impl Open {
    fn close(self) -> Reply<'static> {
        match self.kind {
            b'%' => {
                let mut items = self.items.into_iter();
                let mut pairs = Vec::with_capacity(items.len() / 2);
                while let (Some(key), Some(value)) = (items.next(), items.next()) {
                    pairs.push((key, value));
                }
                Reply::Map(pairs)
            }
            b'~' => Reply::Set(self.items),
            _ => Reply::Array(self.items),
        }
    }
}

/// What stands at one place of the buffer.
enum Element {
    Whole(Reply<'static>),
    Opens { kind: u8, items: usize },
}

impl ReplyDecoder {
    /// A decoder at the start of a reply.
    pub fn new() -> ReplyDecoder {
        ReplyDecoder::default()
    }

    /// Looks for a reply at the start of `buffer`, and says how many bytes it took. After `None` the next call is given
    /// the same bytes with more behind them; after a reply, what follows it; after an error, nothing more.
    pub fn decode(&mut self, buffer: &[u8]) -> Result<Option<(Reply<'static>, usize)>, ProtocolError> {
        if buffer.len() < self.wanted {
            return Ok(None);
        }
        loop {
            let Some((element, end)) = self.element(buffer)? else { return Ok(None) };
            self.at = end;
            let mut reply = match element {
                Element::Whole(reply) => reply,
                Element::Opens { kind, items: 0 } => Open { kind, left: 0, items: Vec::new() }.close(),
                Element::Opens { kind, items } => {
                    if self.open.len() == DEPTH_MAX {
                        return Err(ProtocolError::InvalidReply);
                    }
                    // Grows with what comes, not with what was declared.
                    self.open.push(Open { kind, left: items, items: Vec::with_capacity(items.min(64)) });
                    continue;
                }
            };
            loop {
                let Some(mut open) = self.open.pop() else {
                    (self.at, self.wanted) = (0, 0);
                    return Ok(Some((reply, end)));
                };
                open.items.push(reply);
                open.left -= 1;
                if open.left > 0 {
                    self.open.push(open);
                    break;
                }
                reply = open.close();
            }
        }
    }

    /// The element at `self.at`, and where it ends.
    fn element(&mut self, buffer: &[u8]) -> Result<Option<(Element, usize)>, ProtocolError> {
        let rest = buffer.get(self.at..).unwrap_or_default();
        let Some(&kind) = rest.first() else {
            self.wanted = self.at + 1;
            return Ok(None);
        };
        let line_end = rest.iter().take(LINE_BYTES_MAX + 2).position(|&byte| byte == b'\n');
        let Some(line_end) = line_end else {
            if rest.len() > LINE_BYTES_MAX {
                return Err(ProtocolError::InvalidReply);
            }
            self.wanted = buffer.len() + 1;
            return Ok(None);
        };
        let [_, line @ .., b'\r'] = &rest[..line_end] else { return Err(ProtocolError::InvalidReply) };
        let end = self.at + line_end + 1;
        let text = || String::from_utf8_lossy(line);
        let number = || parse_i64(line).ok_or(ProtocolError::InvalidReply);
        let whole = |reply| Ok(Some((Element::Whole(reply), end)));
        match kind {
            b'+' if line == b"OK" => whole(Reply::ok()),
            b'+' => whole(Reply::Simple(Cow::Owned(text().into_owned()))),
            b'-' => whole(Reply::Error(CommandError::from_line(&text()))),
            b':' => whole(Reply::Integer(number()?)),
            b'_' if line.is_empty() => whole(Reply::Null),
            b'#' if line == b"t" => whole(Reply::Boolean(true)),
            b'#' if line == b"f" => whole(Reply::Boolean(false)),
            b',' => whole(Reply::Double(text().parse().map_err(|_| ProtocolError::InvalidReply)?)),
            // A number too big for 64 bits is left as its digits.
            b'(' => whole(Reply::bulk(line)),
            b'$' if line == b"-1" => whole(Reply::Null),
            b'*' if line == b"-1" => whole(Reply::NullArray),
            b'$' | b'=' | b'!' => {
                let bytes = usize::try_from(number()?)
                    .ok()
                    .filter(|&bytes| bytes <= VALUE_BYTES_MAX)
                    .ok_or(ProtocolError::InvalidReply)?;
                if buffer.len() < end + bytes + 2 {
                    self.wanted = end + bytes + 2;
                    return Ok(None);
                }
                let (body, tail) = buffer[end..end + bytes + 2].split_at(bytes);
                if tail != b"\r\n" {
                    return Err(ProtocolError::InvalidReply);
                }
                let reply = match kind {
                    b'$' => Reply::bulk(body),
                    b'!' => Reply::Error(CommandError::from_line(&String::from_utf8_lossy(body))),
                    // `txt:` or `mkd:` comes first.
                    _ => {
                        let text = body.get(4..).ok_or(ProtocolError::InvalidReply)?;
                        Reply::Verbatim(String::from_utf8_lossy(text).into_owned())
                    }
                };
                Ok(Some((Element::Whole(reply), end + bytes + 2)))
            }
            // What a server pushes is an array to us.
            b'*' | b'~' | b'>' | b'%' => {
                let items = Some(number()?)
                    .filter(|items| (0..=ITEMS_MAX).contains(items))
                    .map(|items| if kind == b'%' { 2 * items } else { items })
                    .and_then(|items| usize::try_from(items).ok())
                    .ok_or(ProtocolError::InvalidReply)?;
                Ok(Some((Element::Opens { kind, items }, end)))
            }
            _ => Err(ProtocolError::InvalidReply),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::write;
    use proptest::prelude::*;

    fn any_reply() -> impl Strategy<Value = Reply<'static>> {
        let leaf = prop_oneof![
            "[^\r\n]*".prop_map(|text| Reply::Simple(Cow::Owned(text))),
            any::<i64>().prop_map(Reply::Integer),
            any::<Vec<u8>>().prop_map(Reply::bulk),
            Just(Reply::Null),
            any::<bool>().prop_map(Reply::Boolean),
            any::<f64>().prop_map(Reply::Double),
            ".*".prop_map(Reply::Verbatim),
            Just(Reply::Error(CommandError::WrongType)),
            any::<u16>().prop_map(|slot| CommandError::Moved { slot, address: "h:1".into() }.into()),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Reply::Array),
                prop::collection::vec(inner.clone(), 0..8).prop_map(Reply::Set),
                prop::collection::vec((inner.clone(), inner), 0..8).prop_map(Reply::Map),
            ]
        })
    }

    fn bytes_of(reply: &Reply<'_>, protocol: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(reply, protocol, &mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn resp3_reads_back(reply in any_reply()) {
            let bytes = bytes_of(&reply, 3);
            prop_assert_eq!(decode_reply(&bytes), Ok(Some((reply, bytes.len()))));
        }

        /// RESP2 loses what kind a thing was, but no byte: written again it is the same.
        #[test]
        fn resp2_reads_back(reply in any_reply()) {
            let bytes = bytes_of(&reply, 2);
            let (read, taken) = decode_reply(&bytes).unwrap().unwrap();
            prop_assert_eq!(taken, bytes.len());
            prop_assert_eq!(bytes_of(&read, 2), bytes);
        }

        #[test]
        fn how_the_bytes_arrive_does_not_matter(reply in any_reply(), protocol in 2u8..=3) {
            let bytes = bytes_of(&reply, protocol);
            let mut decoder = ReplyDecoder::new();
            for end in 0..bytes.len() {
                prop_assert_eq!(decoder.decode(&bytes[..end]), Ok(None));
            }
            prop_assert_eq!(decoder.decode(&bytes), decode_reply(&bytes));
        }

        #[test]
        fn random_bytes_do_no_harm(bytes: Vec<u8>, start in "[*%~$=!:+,#_>(-][0-9]{0,3}\r\n") {
            let _ = decode_reply(&bytes);
            let _ = decode_reply(&[start.as_bytes(), &bytes].concat());
        }
    }

    #[test]
    fn hostile_replies_are_errors() {
        for bad in [
            "x\r\n",
            "*-2\r\n",
            "$-2\r\n",
            "$999999999999\r\n",
            "*99999999999\r\n",
            ":x\r\n",
            "+a\n",
            "$1\r\nabc",
            "#x\r\n",
        ] {
            assert_eq!(decode_reply(bad.as_bytes()), Err(ProtocolError::InvalidReply), "{bad:?}");
        }
        assert_eq!(decode_reply("*1\r\n".repeat(100_000).as_bytes()), Err(ProtocolError::InvalidReply));
        assert_eq!(decode_reply(&vec![b'+'; 100_000]), Err(ProtocolError::InvalidReply));
        // Declared, but not there: nothing is allocated for it.
        assert_eq!(decode_reply(b"*4000000000\r\n"), Ok(None));
    }
}
