//! Requests: arrays of bulk strings, or words on a line.
//!
//! The decoder holds no bytes. It is given the connection's buffer from where the present request starts, and says
//! where its arguments lie in it. Given the same request's first bytes again with more behind them, it goes on where it
//! stopped. So what it finds does not depend on how the bytes arrived.

use super::ProtocolError;
use command::number::parse_i64;
use types::limits::{
    ARGUMENTS_MAX, INLINE_BYTES_MAX, UNAUTHENTICATED_ARGUMENTS_MAX, UNAUTHENTICATED_BYTES_MAX,
    VALUE_BYTES_MAX,
};
use types::planted::{self, Bug};
use types::settings::Settings;

/// Where an argument lies: its start, and the end behind it, counted from the request's first byte.
pub type Span = (usize, usize);

/// What a connection may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest argument, in bytes.
    pub bulk_bytes_max: usize,
    /// The most arguments.
    pub arguments_max: usize,
    /// The longest line, in bytes.
    pub line_bytes_max: usize,
    /// The longest request, in bytes; Redis' `client-query-buffer-limit`.
    pub request_bytes_max: usize,
    /// Whether the connection has authenticated.
    pub authenticated: bool,
}

impl Limits {
    /// For a connection that has authenticated, or need not.
    pub fn authenticated(settings: &Settings) -> Limits {
        Limits {
            bulk_bytes_max: usize::try_from(settings.proto_max_bulk_len)
                .unwrap_or(usize::MAX)
                .min(VALUE_BYTES_MAX),
            ..Limits::default()
        }
    }

    /// For a stranger.
    pub fn unauthenticated() -> Limits {
        Limits {
            bulk_bytes_max: UNAUTHENTICATED_BYTES_MAX,
            arguments_max: UNAUTHENTICATED_ARGUMENTS_MAX,
            line_bytes_max: UNAUTHENTICATED_BYTES_MAX,
            request_bytes_max: UNAUTHENTICATED_BYTES_MAX,
            authenticated: false,
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            bulk_bytes_max: VALUE_BYTES_MAX,
            arguments_max: ARGUMENTS_MAX,
            line_bytes_max: INLINE_BYTES_MAX,
            request_bytes_max: 2 * VALUE_BYTES_MAX,
            authenticated: true,
        }
    }
}

/// How far a decoder came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A request of this many bytes, whose arguments are [`Decoder::arguments`]. Without arguments (an empty line,
    /// `*0`) there is nothing to do but to drop the bytes.
    Complete(usize),
    /// At least this many more bytes are needed.
    Incomplete {
        /// At least 1.
        need: usize,
    },
}

/// Finds one request after the other.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    /// How many bytes of the request are done with.
    at: usize,
    /// How many bytes from `at` on were searched for a line's end.
    searched: usize,
    /// What comes next.
    next: Next,
    /// The arguments found so far.
    spans: Vec<Span>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Next {
    /// A request.
    #[default]
    Start,
    /// The length of an argument; so many are still to come.
    Length { left: usize },
    /// An argument; so many are still to come, this one included.
    Argument { left: usize, bytes: usize },
}

/// Room for spans that is kept from one request to the next.
const SPANS_KEPT: usize = 1024;

impl Decoder {
    /// A decoder at the start of a request.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Looks for a request at the start of `buffer`. After [`Parsed::Incomplete`] the next call is given the same bytes with
    /// more behind them, at whatever address; after [`Parsed::Complete`], what follows the request; after an error,
    /// nothing more. Quotes in an inline request are taken off where they stand: nothing else changes the buffer.
    pub fn parse(&mut self, buffer: &mut [u8], limits: &Limits) -> Result<Parsed, ProtocolError> {
        if let Next::Start = self.next {
            if self.at == 0 && self.searched == 0 {
                self.spans.clear();
                self.spans.shrink_to(SPANS_KEPT);
                if let Some(bytes) = self.small(buffer, limits) {
                    return Ok(Parsed::Complete(bytes));
                }
                self.spans.clear();
            }
            match buffer.first() {
                None => return Ok(Parsed::Incomplete { need: 1 }),
                Some(b'*') => {}
                Some(_) => return self.inline(buffer, limits),
            }
            let Some((line, end)) = self.line(buffer, limits, ProtocolError::MultibulkCountTooBig)? else {
                return Ok(Parsed::Incomplete { need: 1 });
            };
            let count = parse_line(line).ok_or(ProtocolError::InvalidMultibulkLength)?;
            if count <= 0 {
                return Ok(self.complete(end));
            }
            let count = usize::try_from(count).map_err(|_| ProtocolError::InvalidMultibulkLength)?;
            if count > limits.arguments_max && !planted::is(Bug::TakesAnyArguments) {
                return Err(match limits.authenticated {
                    true => ProtocolError::InvalidMultibulkLength,
                    false => ProtocolError::UnauthenticatedMultibulk,
                });
            }
            self.at = end;
            self.next = Next::Length { left: count };
        }
        self.arguments_from(buffer, limits)
    }

    /// What nearly every request is, in one go: up to nine short arguments, and all of it is there. Returns how many bytes it
    /// takes; `None`: it is something else, or too much for the limits, and nothing but spans is changed.
    #[inline]
    fn small(&mut self, buffer: &[u8], limits: &Limits) -> Option<usize> {
        let &[b'*', count @ b'1'..=b'9', b'\r', b'\n', ..] = buffer else { return None };
        let count = usize::from(count - b'0');
        let mut at = 4;
        for _ in 0..count {
            let digit = |byte: u8| usize::from(byte - b'0');
            let (bytes, head) = match *buffer.get(at..)? {
                [b'$', a @ b'0'..=b'9', b'\r', b'\n', ..] => (digit(a), 4),
                [b'$', a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', ..] => (10 * digit(a) + digit(b), 5),
                [b'$', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b'\r', b'\n', ..] => {
                    (100 * digit(a) + 10 * digit(b) + digit(c), 6)
                }
                _ => return None,
            };
            let (start, end) = (at + head, at + head + bytes);
            if buffer.get(end..end + 2)? != b"\r\n" || bytes > limits.bulk_bytes_max {
                return None;
            }
            self.spans.push((start, end));
            at = end + 2;
        }
        (count <= limits.arguments_max && at <= limits.request_bytes_max).then_some(at)
    }

    /// The arguments of the request that was complete.
    pub fn arguments(&self) -> &[Span] {
        &self.spans
    }

    /// Whether it stands between two requests: nothing of the next one was seen.
    pub fn is_at_start(&self) -> bool {
        self.at == 0 && self.searched == 0
    }

    /// Bytes that it keeps for the request that has not wholly come.
    pub fn kept_bytes(&self) -> usize {
        if self.is_at_start() { 0 } else { self.spans.len() * size_of::<Span>() }
    }

    fn arguments_from(&mut self, buffer: &[u8], limits: &Limits) -> Result<Parsed, ProtocolError> {
        loop {
            match self.next {
                Next::Length { left } => {
                    match buffer.get(self.at) {
                        // Each of those to come takes at least `$0`, an end, and another.
                        None => return Ok(Parsed::Incomplete { need: left.saturating_mul(6) }),
                        Some(b'$') => {}
                        Some(&got) => return Err(ProtocolError::ExpectedDollar { got }),
                    }
                    let Some((line, end)) = self.line(buffer, limits, ProtocolError::BulkCountTooBig)? else {
                        return Ok(Parsed::Incomplete { need: 1 });
                    };
                    let bytes = parse_line(line)
                        .and_then(|bytes| usize::try_from(bytes).ok())
                        .ok_or(ProtocolError::InvalidBulkLength)?;
                    if bytes > limits.bulk_bytes_max {
                        return Err(match limits.authenticated {
                            true => ProtocolError::InvalidBulkLength,
                            false => ProtocolError::UnauthenticatedBulk,
                        });
                    }
                    if end.saturating_add(bytes) > limits.request_bytes_max {
                        return Err(match limits.authenticated {
                            true => ProtocolError::RequestTooBig,
                            false => ProtocolError::UnauthenticatedBulk,
                        });
                    }
                    self.at = end;
                    self.next = Next::Argument { left, bytes };
                }
                Next::Argument { left, bytes } => {
                    let end = self.at + bytes;
                    if buffer.len() < end + 2 {
                        return Ok(Parsed::Incomplete { need: end + 2 - buffer.len() });
                    }
                    if buffer[end..end + 2] != *b"\r\n" {
                        return Err(ProtocolError::ExpectedLineEnd);
                    }
                    self.spans.push((self.at, end));
                    self.at = end + 2;
                    if left == 1 {
                        return Ok(self.complete(self.at));
                    }
                    self.next = Next::Length { left: left - 1 };
                }
                // Only `parse` starts a request, and it never stays there.
                Next::Start => return Ok(Parsed::Incomplete { need: 1 }),
            }
        }
    }

    /// The line at `self.at` without its first byte and its `\n`, and where the next one starts. Its search is not
    /// begun anew when more bytes come.
    fn line<'b>(
        &mut self,
        buffer: &'b [u8],
        limits: &Limits,
        too_big: ProtocolError,
    ) -> Result<Option<(&'b [u8], usize)>, ProtocolError> {
        let rest = &buffer[self.at..];
        let found = rest[self.searched.min(rest.len())..].iter().position(|&byte| byte == b'\n');
        let length = found.map_or(rest.len(), |found| self.searched + found);
        if length > limits.line_bytes_max {
            return Err(too_big);
        }
        if found.is_none() {
            self.searched = rest.len() + usize::from(planted::is(Bug::SkipsWhatComesNext));
            return Ok(None);
        }
        self.searched = 0;
        Ok(Some((&rest[1.min(length)..length], self.at + length + 1)))
    }

    fn inline(&mut self, buffer: &mut [u8], limits: &Limits) -> Result<Parsed, ProtocolError> {
        let Some((_, end)) = self.line(buffer, limits, ProtocolError::InlineTooBig)? else {
            return Ok(Parsed::Incomplete { need: 1 });
        };
        let mut line = &mut buffer[..end - 1];
        if let [start @ .., b'\r'] = line {
            line = start;
        }
        split_words(line, &mut self.spans)?;
        if let Some(&(start, end)) = self.spans.first()
            && is_http(&line[start..end])
        {
            return Err(ProtocolError::Http);
        }
        if self.spans.len() > limits.arguments_max {
            return Err(match limits.authenticated {
                true => ProtocolError::InvalidMultibulkLength,
                false => ProtocolError::UnauthenticatedMultibulk,
            });
        }
        Ok(self.complete(end))
    }

    fn complete(&mut self, bytes: usize) -> Parsed {
        (self.at, self.searched, self.next) = (0, 0, Next::Start);
        Parsed::Complete(bytes)
    }
}

/// The number on a line that ends with `\r`.
fn parse_line(line: &[u8]) -> Option<i64> {
    let [digits @ .., b'\r'] = line else { return None };
    match digits {
        // Nearly every line.
        [digit @ b'0'..=b'9'] => Some(i64::from(digit - b'0')),
        _ => parse_i64(digits),
    }
}

/// The arguments themselves, given the buffer in which they were found.
pub fn slices<'b>(buffer: &'b [u8], spans: &[Span]) -> impl Iterator<Item = &'b [u8]> {
    spans.iter().map(|&(start, end)| buffer.get(start..end).unwrap_or_default())
}

/// Splits a line as Redis' `sdssplitargs` does: words between blanks, `"double"` quotes with escapes, `'single'` ones with
/// `\'` only. What a word is never takes more room than how it was written, so it is put where it stood.
fn split_words(line: &mut [u8], spans: &mut Vec<Span>) -> Result<(), ProtocolError> {
    let mut read = 0;
    loop {
        while read < line.len() && is_blank(line[read]) {
            read += 1;
        }
        if read == line.len() {
            return Ok(());
        }
        let start = read;
        let mut write = read;
        loop {
            match line.get(read) {
                None => break,
                Some(&byte) if is_blank(byte) => break,
                Some(&quote @ (b'"' | b'\'')) => {
                    read = unquote(line, read + 1, quote, &mut write)?;
                    // A quote that closes has to end the word.
                    if line.get(read).is_some_and(|&byte| !is_blank(byte)) {
                        return Err(ProtocolError::UnbalancedQuotes);
                    }
                    break;
                }
                Some(&byte) => {
                    line[write] = byte;
                    write += 1;
                    read += 1;
                }
            }
        }
        spans.push((start, write));
    }
}

/// Takes the quotes off what starts at `read`, behind the opening one. Returns what follows the closing one.
fn unquote(line: &mut [u8], mut read: usize, quote: u8, write: &mut usize) -> Result<usize, ProtocolError> {
    loop {
        let (byte, taken) = match (&line[read.min(line.len())..], quote) {
            ([], _) => return Err(ProtocolError::UnbalancedQuotes),
            ([b'\\', b'x', high, low, ..], b'"') if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (hex(*high) << 4 | hex(*low), 4)
            }
            ([b'\\', escaped, ..], b'"') => {
                let byte = match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    &other => other,
                };
                (byte, 2)
            }
            ([b'\\', b'\'', ..], b'\'') => (b'\'', 2),
            ([byte, ..], quote) if *byte == quote => return Ok(read + 1),
            ([byte, ..], _) => (*byte, 1),
        };
        line[*write] = byte;
        *write += 1;
        read += taken;
    }
}

fn hex(digit: u8) -> u8 {
    (digit as char).to_digit(16).unwrap_or(0) as u8
}

/// Whether this word begins a line of an HTTP request that a web page can have its user's browser send to any port: its
/// body may hold commands, so the connection ends before them. As in Redis, POST and the Host header tell.
fn is_http(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"post") || word.eq_ignore_ascii_case(b"host:")
}

fn is_blank(byte: u8) -> bool {
    // What C calls a space. A line's bytes behind a NUL are not looked at by Redis; here it ends a word.
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::encode_request;
    use proptest::prelude::*;

    type Requests = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

    /// Decodes what comes in pieces, as a connection does.
    fn decode(pieces: &[&[u8]], limits: &Limits) -> Requests {
        let (mut decoder, mut buffer, mut requests) = (Decoder::new(), Vec::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                match decoder.parse(&mut buffer, limits) {
                    Ok(Parsed::Complete(bytes)) => {
                        let args: Vec<Vec<u8>> =
                            slices(&buffer, decoder.arguments()).map(<[u8]>::to_vec).collect();
                        if !args.is_empty() {
                            requests.push(args);
                        }
                        assert!(bytes > 0 && decoder.is_at_start());
                        buffer.drain(..bytes);
                    }
                    Ok(Parsed::Incomplete { need }) => {
                        assert!(need > 0);
                        break;
                    }
                    Err(error) => return (requests, Some(error)),
                }
            }
        }
        (requests, None)
    }

    fn whole(bytes: &str) -> Requests {
        decode(&[bytes.as_bytes()], &Limits::default())
    }

    fn words(bytes: &str) -> Vec<Vec<String>> {
        let (requests, error) = whole(bytes);
        assert_eq!(error, None, "{bytes:?}");
        let text = |args: &Vec<Vec<u8>>| args.iter().map(|arg| String::from_utf8_lossy(arg).into()).collect();
        requests.iter().map(text).collect()
    }

    #[test]
    fn requests_are_arrays_or_lines() {
        assert_eq!(words("*2\r\n$3\r\nGET\r\n$1\r\na\r\n"), [["GET", "a"]]);
        assert_eq!(words("*1\r\n$0\r\n\r\n"), [[""]]);
        assert_eq!(words("PING\r\n"), [["PING"]]);
        assert_eq!(words("PING\nPING\n"), [["PING"], ["PING"]]);
        assert_eq!(words("  SET  a\tb  \r\n"), [["SET", "a", "b"]]);
        assert_eq!(words("\r\n\n*0\r\n*-1\r\n*-9\r\nPING\r\n"), [["PING"]]);
        assert_eq!(words("   \r\nPING\r\n"), [["PING"]]);
        assert!(words("*2\r\n$3\r\nGET\r\n$1\r\na").is_empty());
    }

    #[test]
    fn quotes_are_taken_off() {
        assert_eq!(words("ECHO \"a b\"\r\n"), [["ECHO", "a b"]]);
        assert_eq!(words("ECHO 'a b' ''\r\n"), [["ECHO", "a b", ""]]);
        assert_eq!(words("ECHO \"\\x41\\n\\\"\\q\\xg1\"\r\n"), [["ECHO", "A\n\"qxg1"]]);
        assert_eq!(words("ECHO 'it\\'s \\n'\r\n"), [["ECHO", "it's \\n"]]);
        assert_eq!(words("ECHO a\"b c\"\r\n"), [["ECHO", "ab c"]]);
        for bad in
            ["ECHO \"a\r\n", "ECHO 'a\r\n", "ECHO \"a\"b\r\n", "ECHO 'a'b\r\n", "ECHO \"a\\\r\n", "\"\r\n"]
        {
            assert_eq!(whole(bad).1, Some(ProtocolError::UnbalancedQuotes), "{bad:?}");
        }
    }

    #[test]
    fn errors_are_those_of_redis() {
        let text = |bytes: &str| whole(bytes).1.map(|error| error.to_string()).unwrap_or_default();
        for (bytes, expected) in [
            ("*x\r\n", "invalid multibulk length"),
            ("*\r\n", "invalid multibulk length"),
            ("*1 \r\n", "invalid multibulk length"),
            ("*1048577\r\n", "invalid multibulk length"),
            ("*99999999999999999999\r\n", "invalid multibulk length"),
            ("*1\r\n$-1\r\n", "invalid bulk length"),
            ("*1\r\n$x\r\n", "invalid bulk length"),
            ("*1\r\n$536870913\r\n", "invalid bulk length"),
            ("*1\r\nx", "expected '$', got 'x'"),
            ("*1\r\n:1\r\n", "expected '$', got ':'"),
            ("*1\r\n$1\r\nabc", "expected CRLF after a bulk string"),
        ] {
            assert_eq!(text(bytes), format!("ERR Protocol error: {expected}"), "{bytes:?}");
        }
        let long = "1".repeat(70_000);
        assert_eq!(text(&format!("*{long}")), "ERR Protocol error: too big mbulk count string");
        assert_eq!(text(&format!("*1\r\n${long}")), "ERR Protocol error: too big bulk count string");
        assert_eq!(text(&long), "ERR Protocol error: too big inline request");
    }

    #[test]
    fn commands_in_the_body_of_a_web_request_do_not_run() {
        for start in ["POST / HTTP/1.1\r\n", "post /\n", "GET / HTTP/1.1\r\nHost: 127.0.0.1:7001\r\n\r\n"] {
            let (requests, error) = whole(&format!("{start}\r\nFLUSHALL\r\n"));
            assert_eq!(error, Some(ProtocolError::Http), "{start:?}");
            assert!(requests.iter().all(|args| args[0] == b"GET"), "{requests:?}");
        }
        // Only as the first word of a line.
        assert_eq!(words("ECHO POST\r\n"), [["ECHO", "POST"]]);
        assert_eq!(words("*1\r\n$4\r\nPOST\r\n"), [["POST"]]);
    }

    #[test]
    fn strangers_may_send_little() {
        let limits = Limits::unauthenticated();
        let error = |bytes: &str| decode(&[bytes.as_bytes()], &limits).1;
        assert_eq!(error("*3\r\n$4\r\nAUTH\r\n$1\r\na\r\n$1\r\nb\r\n"), None);
        assert_eq!(error("*11\r\n"), Some(ProtocolError::UnauthenticatedMultibulk));
        assert_eq!(error("a b c d e f g h i j k\r\n"), Some(ProtocolError::UnauthenticatedMultibulk));
        assert_eq!(error("*1\r\n$16385\r\n"), Some(ProtocolError::UnauthenticatedBulk));
        let halves = format!("*2\r\n$9000\r\n{}\r\n$9000\r\n", "x".repeat(9000));
        assert_eq!(error(&halves), Some(ProtocolError::UnauthenticatedBulk));
        assert_eq!(error(&"x".repeat(17_000)), Some(ProtocolError::InlineTooBig));
    }

    #[test]
    fn a_request_that_trickles_in_is_read_once() {
        let args: Vec<Vec<u8>> = (0..100_000).map(|i: u32| i.to_string().into_bytes()).collect();
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        let mut bytes = Vec::new();
        encode_request(&args, &mut bytes);
        let mut decoder = Decoder::new();
        // Byte by byte: quadratic work would take minutes.
        for end in 0..bytes.len() {
            assert!(matches!(
                decoder.parse(&mut bytes[..end], &Limits::default()),
                Ok(Parsed::Incomplete { .. })
            ));
        }
        assert_eq!(decoder.parse(&mut bytes, &Limits::default()), Ok(Parsed::Complete(bytes.len())));
        assert_eq!(decoder.arguments().len(), 100_000);
    }

    #[test]
    fn the_need_of_a_long_value_is_told() {
        let mut decoder = Decoder::new();
        let mut start = b"*2\r\n$4\r\nECHO\r\n$1000\r\nabc".to_vec();
        let need = 1000 - 3 + 2;
        assert_eq!(decoder.parse(&mut start, &Limits::default()), Ok(Parsed::Incomplete { need }));
    }

    /// Bytes that look like requests, more or less.
    fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..5).prop_map(|args| {
                let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
                let mut bytes = Vec::new();
                encode_request(&args, &mut bytes);
                bytes
            }),
            "[a-z '\"\\\\x0]{0,12}(\r\n|\n)".prop_map(String::into_bytes),
            "[*$][0-9-]{0,3}\r\n".prop_map(String::into_bytes),
            any::<Vec<u8>>(),
        ];
        prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn requests_read_back(args in prop::collection::vec(any::<Vec<u8>>(), 1..8)) {
            let slices: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
            let mut bytes = Vec::new();
            encode_request(&slices, &mut bytes);
            prop_assert_eq!(decode(&[&bytes], &Limits::default()), (vec![args], None));
        }

        #[test]
        fn how_the_bytes_arrive_does_not_matter(
            bytes in any_bytes(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
            strict: bool,
        ) {
            let limits = Limits { line_bytes_max: if strict { 8 } else { 65536 }, ..Limits::default() };
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            let expected = decode(&[&bytes], &limits);
            prop_assert_eq!(&decode(&pieces, &limits), &expected);
            prop_assert_eq!(&decode(&single, &limits), &expected);
        }

        #[test]
        fn random_bytes_do_no_harm(bytes: Vec<u8>) {
            decode(&[&bytes], &Limits::default());
            decode(&[&bytes], &Limits::unauthenticated());
        }
    }
}
