//! A file of requests, read a piece at a time: RESP, or a command a line. Its first byte tells which.
//!
//! Requests come out as RESP, one after the other. What is kept in memory is a piece, and the request that is not whole yet. A line
//! whose quotes do not match is told and passed over; in RESP nobody knows where the next request starts after a mistake, so that
//! is the end.

use crate::quoting::split;
use std::io::{self, Read};
use wire::resp::{Decoder, Limits, Parsed, encode_request, slices};

/// How much is read at once, in bytes.
const CHUNK_BYTES: usize = 64 * 1024;

/// What a file is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A command a line, quoted as for the shell.
    Text,
    /// Requests as RESP has them.
    Resp,
}

impl Kind {
    /// How a place in the file is named.
    pub(crate) fn place(self) -> &'static str {
        match self {
            Kind::Text => "line",
            Kind::Resp => "command",
        }
    }
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A request, which was appended as RESP; its line in a text, its number among the commands in RESP, from 1.
    Request { at: u64 },
    /// Something that is not to be sent; the next step goes on behind it.
    Refused { at: u64, why: String },
    /// Nothing whole is left of what was read.
    NeedsMore,
    /// The file is over, or says QUIT.
    End,
    /// Nothing behind this can be understood.
    Broken { at: u64, why: String },
}

/// A file that is being read.
pub(crate) struct Input<R> {
    source: R,
    limits: Limits,
    buffer: Vec<u8>,
    /// Where in `buffer` the next request starts.
    start: usize,
    /// How far from there no line's end was found.
    searched: usize,
    kind: Option<Kind>,
    decoder: Decoder,
    /// Lines or commands so far.
    at: u64,
    /// Bytes of requests that were passed on.
    consumed: u64,
    is_over: bool,
}

impl<R: Read> Input<R> {
    pub(crate) fn new(source: R) -> Input<R> {
        Input {
            source,
            limits: Limits::default(),
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            kind: None,
            decoder: Decoder::new(),
            at: 0,
            consumed: 0,
            is_over: false,
        }
    }

    /// What the file is made of, as far as it is known.
    pub(crate) fn kind(&self) -> Kind {
        self.kind.unwrap_or(Kind::Text)
    }

    /// Bytes of the file that were passed on.
    pub(crate) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Reads more. It may wait for whoever writes.
    pub(crate) fn fill(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let length = self.buffer.len();
        self.buffer.resize(length + CHUNK_BYTES, 0);
        let read = loop {
            match self.source.read(&mut self.buffer[length..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.buffer.truncate(length + *read.as_ref().unwrap_or(&0));
        self.is_over = read? == 0;
        if self.kind.is_none() {
            self.kind = self.buffer.first().map(|byte| if *byte == b'*' { Kind::Resp } else { Kind::Text });
        }
        Ok(())
    }

    /// The next request of what was read, appended to `out`.
    pub(crate) fn next(&mut self, out: &mut Vec<u8>) -> Step {
        match self.kind {
            None if self.is_over => Step::End,
            None => Step::NeedsMore,
            Some(Kind::Text) => self.next_line(out),
            Some(Kind::Resp) => self.next_request(out),
        }
    }

    fn next_line(&mut self, out: &mut Vec<u8>) -> Step {
        loop {
            let rest = &self.buffer[self.start..];
            let end = rest[self.searched..].iter().position(|byte| *byte == b'\n');
            let (length, used) = match end {
                Some(end) => (self.searched + end, self.searched + end + 1),
                None if self.is_over && rest.is_empty() => return Step::End,
                None if self.is_over => (rest.len(), rest.len()),
                None if rest.len() > self.limits.request_bytes_max => {
                    let most = self.limits.request_bytes_max;
                    return Step::Broken { at: self.at + 1, why: format!("longer than {most} bytes") };
                }
                None => {
                    self.searched = rest.len();
                    return Step::NeedsMore;
                }
            };
            let words = split(&rest[..length]);
            self.searched = 0;
            self.start += used;
            self.consumed += used as u64;
            self.at += 1;
            let words = match words {
                Ok(words) if words.is_empty() => continue,
                Ok(words) => words,
                Err(error) => return Step::Refused { at: self.at, why: error.to_string() },
            };
            let args: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            return pass_on(&args, self.at, out);
        }
    }

    fn next_request(&mut self, out: &mut Vec<u8>) -> Step {
        loop {
            let buffer = &mut self.buffer[self.start..];
            if buffer.is_empty() && self.is_over {
                return Step::End;
            }
            let used = match self.decoder.parse(buffer, &self.limits) {
                Ok(Parsed::Complete(used)) => used,
                Ok(Parsed::Incomplete { .. }) if self.is_over => {
                    let why = "the file ends in the middle of it".to_owned();
                    return Step::Broken { at: self.at + 1, why };
                }
                Ok(Parsed::Incomplete { .. }) => return Step::NeedsMore,
                Err(error) => return Step::Broken { at: self.at + 1, why: error.to_string() },
            };
            let args: Vec<&[u8]> = slices(buffer, self.decoder.arguments()).collect();
            let step = (!args.is_empty()).then(|| pass_on(&args, self.at + 1, out));
            self.start += used;
            self.consumed += used as u64;
            if let Some(step) = step {
                self.at += 1;
                return step;
            }
        }
    }
}

fn pass_on(args: &[&[u8]], at: u64, out: &mut Vec<u8>) -> Step {
    let is = |place: usize, word: &str| {
        args.get(place).is_some_and(|arg: &&[u8]| arg.eq_ignore_ascii_case(word.as_bytes()))
    };
    if args.len() == 1 && (is(0, "quit") || is(0, "exit")) {
        return Step::End;
    }
    if is(0, "client") && is(1, "reply") {
        // Replies that do not come cannot be counted.
        return Step::Refused {
            at,
            why: "CLIENT REPLY has no place here: every reply is counted".to_owned(),
        };
    }
    encode_request(args, out);
    Step::Request { at }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives out so many bytes a read.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len()).min(out.len());
            out[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    /// All steps but those that need more, and what there is to send.
    fn all(file: &[u8], piece: usize) -> (Vec<Step>, Vec<u8>) {
        let mut input = Input::new(Slow(file, piece));
        let (mut steps, mut out) = (Vec::new(), Vec::new());
        loop {
            match input.next(&mut out) {
                Step::NeedsMore => input.fill().unwrap(),
                step => {
                    let is_last = matches!(step, Step::End | Step::Broken { .. });
                    steps.push(step);
                    if is_last {
                        return (steps, out);
                    }
                }
            }
        }
    }

    fn encoded(requests: &[&[&[u8]]]) -> Vec<u8> {
        let mut out = Vec::new();
        requests.iter().for_each(|args| encode_request(args, &mut out));
        out
    }

    #[test]
    fn lines_are_requests_whatever_the_pieces() {
        let file = b"set a 1\r\n\n  set \"b c\" '2'\nset a \"x\n\xff\xfe z\nget b";
        let expected =
            encoded(&[&[b"set", b"a", b"1"], &[b"set", b"b c", b"2"], &[b"\xff\xfe", b"z"], &[b"get", b"b"]]);
        for piece in [1, 2, 7, 1000] {
            let (steps, out) = all(file, piece);
            assert_eq!(out, expected);
            let why = "Invalid argument(s): quotes do not match".to_owned();
            let request = |at| Step::Request { at };
            let refused = Step::Refused { at: 4, why };
            assert_eq!(steps, [request(1), request(3), refused, request(5), request(6), Step::End]);
        }
    }

    #[test]
    fn resp_is_told_by_its_first_byte_and_passed_on_whole() {
        let requests = encoded(&[&[b"SET", b"a\n", b"\r\n*1\r\n"], &[b"GET", b"a\n"]]);
        for piece in [1, 3, 1000] {
            let (steps, out) = all(&requests, piece);
            assert_eq!(out, requests);
            assert_eq!(steps, [Step::Request { at: 1 }, Step::Request { at: 2 }, Step::End]);
        }
    }

    #[test]
    fn what_breaks_off_or_makes_no_sense_ends_it_and_says_where() {
        let broken = |file: &[u8]| match all(file, 4).0.pop() {
            Some(Step::Broken { at, why }) => (at, why),
            other => panic!("{other:?}"),
        };
        let (at, why) = broken(b"*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$1");
        assert_eq!((at, why.as_str()), (2, "the file ends in the middle of it"));
        let (at, why) = broken(b"*1\r\n!4\r\n");
        assert!(at == 1 && why.contains("expected '$'"), "{why}");
    }

    #[test]
    fn some_things_are_not_sent() {
        let (steps, out) = all(b"client reply off\nQUIT\nset a 1\n", 100);
        assert!(matches!(steps[0], Step::Refused { at: 1, .. }));
        assert_eq!(steps[1], Step::End);
        assert!(out.is_empty());
        assert_eq!(all(b"", 100).0, [Step::End]);
    }
}
