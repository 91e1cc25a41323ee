//! Where a request ends.
//!
//! The first byte that is not white space decides: `{` begins a JSON request, anything else a text request. A request ends at a
//! newline; a JSON request also where its object closes, newline or not. An object whose first line is its brace alone is written
//! over several lines, as people and pretty-printers do: it ends only where it closes. Text clients exist that send no newline at
//! all: text of at most [`IDLE_TEXT_BYTES_MAX`] bytes that has stood without one for a while is a whole request, too, and so is
//! whatever is there when the sender shuts down its writing side.
//!
//! The machine holds no bytes and has no clock: it is given the connection's buffer, and told when bytes came and what time it is.
//! Apart from text that ends by standing still, what it finds does not depend on how the bytes arrived.

use std::time::Duration;
use types::Instant;
use types::planted::{self, Bug};

/// The longest text that standing still makes a whole request, in bytes: what one packet of a network carries.
pub const IDLE_TEXT_BYTES_MAX: usize = 1400;

/// What kind of request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A JSON object.
    Json,
    /// Words.
    Text,
}

/// What a connection may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The longest request, in bytes, its newline not counted.
    pub request_bytes_max: usize,
    /// How long text stands without a newline until it is a whole request. None: for ever.
    pub idle: Option<Duration>,
}

/// What there is at the start of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// White space between requests, so many bytes: drop them.
    Blank(usize),
    /// A request: the first `bytes` of the buffer, of which the last ones may be the end of the line. Drop `taken` bytes.
    Request {
        /// Which.
        kind: Kind,
        /// How long it is.
        bytes: usize,
        /// The same, with its newline.
        taken: usize,
    },
    /// Not yet a whole request. Where a time is named, it is one then, unless more comes before.
    Nothing {
        /// When.
        whole_at: Option<Instant>,
    },
    /// A request that is longer than the bounds allow. There is no telling where it ends.
    TooLong,
    /// Text of more than some bytes that was not ended before its sender ended: it may be a part of what was meant.
    CutOff,
}

/// Finds one request after the other.
#[derive(Clone, Debug, Default)]
pub struct Framing {
    /// How many bytes of the request were looked at.
    at: usize,
    state: State,
    /// When bytes last came.
    came: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Start,
    Text,
    Json(Object),
}

/// What is known of an object that has not closed.
#[derive(Clone, Copy, Debug, Default)]
struct Object {
    /// Braces and brackets that are open.
    depth: usize,
    in_string: bool,
    /// The last byte was a backslash in a string.
    escaped: bool,
    /// Something followed its first brace on the same line.
    begun: bool,
    /// Its first line was its brace alone.
    over_lines: bool,
}

enum Step {
    On,
    /// The object is over, this byte included.
    Closed,
    /// This newline ends the request.
    Line,
}

impl Object {
    fn step(&mut self, byte: u8) -> Step {
        if byte == b'\n' {
            // No string of JSON holds a bare newline.
            if self.in_string || self.begun && !self.over_lines {
                return Step::Line;
            }
            self.over_lines = true;
            return Step::On;
        }
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return Step::On;
        }
        self.begun |= self.depth > 0 && !byte.is_ascii_whitespace();
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    return Step::Closed;
                }
            }
            _ => {}
        }
        Step::On
    }
}

impl Framing {
    /// Bytes came, and stand at the end of the buffer now.
    pub fn came(&mut self, now: Instant) {
        self.came = now;
    }

    /// Whether it stands between two requests: nothing of the next one was seen.
    pub fn is_at_start(&self) -> bool {
        matches!(self.state, State::Start)
    }

    /// Looks for a request at the start of the buffer. `ended`: nothing more comes. After [`Found::Nothing`] the next call is given
    /// the same bytes, and maybe more behind them; after [`Found::Blank`] and [`Found::Request`] what is behind those; after
    /// [`Found::TooLong`] nothing more.
    pub fn next(&mut self, buffer: &[u8], now: Instant, ended: bool, bounds: &Bounds) -> Found {
        if self.is_at_start() {
            let blank = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            match buffer.get(blank) {
                _ if blank > 0 => return Found::Blank(blank),
                None => return Found::Nothing { whole_at: None },
                Some(b'{') => self.state = State::Json(Object::default()),
                Some(_) => self.state = State::Text,
            }
            self.at = 0;
        }
        let most = bounds.request_bytes_max;
        let found = match &mut self.state {
            State::Json(object) => json_end(object, &mut self.at, buffer),
            _ => text_end(&mut self.at, buffer),
        };
        match found {
            Some((bytes, _)) if bytes > most && !planted::is(Bug::TakesAnyLine) => Found::TooLong,
            Some((bytes, taken)) => self.end(bytes, taken),
            None if buffer.len() > most => Found::TooLong,
            // A sender that dies in the midst of a long value is no sender that has said all.
            None if ended && matches!(self.state, State::Text) && buffer.len() > IDLE_TEXT_BYTES_MAX => {
                Found::CutOff
            }
            None if ended => self.end(buffer.len(), buffer.len()),
            None => match self.whole_at(buffer, bounds) {
                Some(at) if now >= at => self.end(buffer.len(), buffer.len()),
                whole_at => Found::Nothing { whole_at },
            },
        }
    }

    fn whole_at(&self, buffer: &[u8], bounds: &Bounds) -> Option<Instant> {
        let stands = matches!(self.state, State::Text) && buffer.len() <= IDLE_TEXT_BYTES_MAX;
        bounds.idle.filter(|_| stands).map(|idle| self.came + idle)
    }

    fn end(&mut self, bytes: usize, taken: usize) -> Found {
        let kind = if let State::Json(_) = self.state { Kind::Json } else { Kind::Text };
        (self.state, self.at) = (State::Start, 0);
        Found::Request { kind, bytes, taken }
    }
}

/// How long the object is, and how long with what ends it, if it ends.
fn json_end(object: &mut Object, at: &mut usize, buffer: &[u8]) -> Option<(usize, usize)> {
    for &byte in buffer.get(*at..).unwrap_or_default() {
        let place = *at;
        *at += 1;
        match object.step(byte) {
            Step::On => {}
            Step::Closed => return Some((place + 1, place + 1)),
            Step::Line => return Some((place, place + 1)),
        }
    }
    None
}

fn text_end(at: &mut usize, buffer: &[u8]) -> Option<(usize, usize)> {
    let newline = buffer.get(*at..).unwrap_or_default().iter().position(|byte| *byte == b'\n');
    let end = newline.map(|offset| *at + offset);
    *at = buffer.len();
    end.map(|end| (end, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { request_bytes_max: 64, idle: Some(Duration::from_millis(20)) };
    const START: Instant = Instant(1_000_000_000);

    fn at(ms: u64) -> Instant {
        START + Duration::from_millis(ms)
    }

    /// Requests as they are found, and whether one was too long. Pieces come `gap_ms` apart; the sender shuts down at the end.
    fn read(pieces: &[&[u8]], gap_ms: u64, bounds: &Bounds) -> (Vec<(Kind, Vec<u8>)>, bool) {
        let mut framing = Framing::default();
        let (mut buffer, mut requests, mut now) = (Vec::new(), Vec::new(), START);
        for (number, piece) in pieces.iter().chain([&&b""[..]]).enumerate() {
            let ended = number == pieces.len();
            if !ended {
                buffer.extend_from_slice(piece);
                framing.came(now);
            }
            // What is there is looked at when it comes, and again right before the next piece.
            for now in [now, now + Duration::from_millis(gap_ms)] {
                loop {
                    match framing.next(&buffer, now, ended, bounds) {
                        Found::Blank(bytes) => drop(buffer.drain(..bytes)),
                        Found::Request { kind, bytes, taken } => {
                            assert!(bytes > 0 && bytes <= taken && framing.is_at_start());
                            requests.push((kind, buffer[..bytes].to_vec()));
                            buffer.drain(..taken);
                        }
                        Found::Nothing { .. } => break,
                        Found::TooLong | Found::CutOff => return (requests, true),
                    }
                }
            }
            now = now + Duration::from_millis(gap_ms);
        }
        assert!(buffer.is_empty(), "all is taken in the end");
        (requests, false)
    }

    fn found(stream: &str) -> Vec<(Kind, String)> {
        let (requests, too_long) = read(&[stream.as_bytes()], 0, &BOUNDS);
        assert!(!too_long);
        requests.into_iter().map(|(kind, bytes)| (kind, String::from_utf8(bytes).unwrap())).collect()
    }

    #[test]
    fn a_newline_or_the_objects_end() {
        let (json, text) = (|of: &str| (Kind::Json, of.to_owned()), |of: &str| (Kind::Text, of.to_owned()));
        assert_eq!(found("GET a\nGET b\n"), [text("GET a"), text("GET b")]);
        assert_eq!(found("\r\n  GET a\r\n\n"), [text("GET a\r")]);
        assert_eq!(found("{\"a\":1}{\"b\":2}"), [json("{\"a\":1}"), json("{\"b\":2}")]);
        assert_eq!(found(" {\"a\":{\"b\":[{}]}}\nGET a"), [json("{\"a\":{\"b\":[{}]}}"), text("GET a")]);
        assert_eq!(found("{\"}\":\"\\\"}\\\\\"}x"), [json("{\"}\":\"\\\"}\\\\\"}"), text("x")]);
        // Cut off by its line's end, in a string or not; or by the end of all.
        assert_eq!(found("{\"a\":\nGET b\n"), [json("{\"a\":"), text("GET b")]);
        assert_eq!(found("{\"a\nGET b\n"), [json("{\"a"), text("GET b")]);
        assert_eq!(found("{\"a\":"), [json("{\"a\":")]);
        assert_eq!(found("{]{}"), [json("{]"), json("{}")]);
        // Over several lines.
        assert_eq!(found("{ \r\n \"a\":\n1\n}\nGET b\n"), [json("{ \r\n \"a\":\n1\n}"), text("GET b")]);
        assert_eq!(found(""), []);
    }

    /// The kernel of a client that dies says the same as one that has said all.
    #[test]
    fn long_text_without_an_end_is_not_taken_for_whole() {
        let wide = Bounds { request_bytes_max: 1 << 20, ..BOUNDS };
        let line = |bytes: usize| [b"PUT k ".to_vec(), vec![b'x'; bytes - 6]].concat();
        let (requests, cut) = read(&[&line(IDLE_TEXT_BYTES_MAX)], 0, &wide);
        assert_eq!((requests.len(), cut), (1, false));
        let (requests, cut) = read(&[&line(IDLE_TEXT_BYTES_MAX + 1)], 0, &wide);
        assert_eq!((requests.len(), cut), (0, true));
        let (requests, cut) = read(&[&[line(5000), vec![b'\n']].concat()], 0, &wide);
        assert_eq!((requests.len(), cut), (1, false));
    }

    #[test]
    fn what_stands_still_is_whole() {
        let mut framing = Framing::default();
        framing.came(at(0));
        assert_eq!(framing.next(b"GET", at(0), false, &BOUNDS), Found::Nothing { whole_at: Some(at(20)) });
        assert_eq!(framing.next(b"GET", at(19), false, &BOUNDS), Found::Nothing { whole_at: Some(at(20)) });
        // A piece within the time: it begins anew.
        framing.came(at(19));
        assert_eq!(framing.next(b"GET a", at(19), false, &BOUNDS), Found::Nothing { whole_at: Some(at(39)) });
        let whole = Found::Request { kind: Kind::Text, bytes: 5, taken: 5 };
        assert_eq!(framing.next(b"GET a", at(39), false, &BOUNDS), whole);
        assert!(framing.is_at_start());
    }

    #[test]
    fn json_and_long_text_do_not_end_by_standing_still() {
        let wide = Bounds { request_bytes_max: 1 << 20, ..BOUNDS };
        let never = Found::Nothing { whole_at: None };
        let mut framing = Framing::default();
        framing.came(at(0));
        assert_eq!(framing.next(b"{\"a\":1", at(5000), false, &wide), never);
        let long = [b'x'; IDLE_TEXT_BYTES_MAX + 1];
        let mut framing = Framing::default();
        framing.came(at(0));
        assert_eq!(framing.next(&long, at(5000), false, &wide), never);
        let as_long_as_may_be = &long[1..];
        let mut framing = Framing::default();
        framing.came(at(0));
        let whole =
            Found::Request { kind: Kind::Text, bytes: IDLE_TEXT_BYTES_MAX, taken: IDLE_TEXT_BYTES_MAX };
        assert_eq!(framing.next(as_long_as_may_be, at(20), false, &wide), whole);
        // Turned off.
        let off = Bounds { idle: None, ..wide };
        let mut framing = Framing::default();
        framing.came(at(0));
        assert_eq!(framing.next(b"GET a", at(5000), false, &off), never);
    }

    #[test]
    fn the_longest_request_is_bounded() {
        let with = |most: usize, stream: &str| {
            let bounds = Bounds { request_bytes_max: most, idle: None };
            let (requests, too_long) = read(&[stream.as_bytes()], 0, &bounds);
            (requests.len(), too_long)
        };
        assert_eq!(with(5, "GET a\n"), (1, false));
        assert_eq!(with(4, "GET a\n"), (0, true));
        assert_eq!(with(4, "GET a"), (0, true));
        assert_eq!(with(2, "{}{}"), (2, false));
        assert_eq!(with(1, "{}"), (0, true));
        assert_eq!(with(2, "      \n\n\n\nab"), (1, false), "what lies between requests is none");
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"\n".to_vec()),
            Just(b"{".to_vec()),
            Just(b"}".to_vec()),
            Just(b"\"".to_vec()),
            Just(b"\\".to_vec()),
            Just(b"{\n".to_vec()),
            Just(b"GET a\n".to_vec()),
            Just(b"{\"command\":\"GET\",\"key\":\"a\"}".to_vec()),
            prop::collection::vec(any::<u8>(), 0..8),
        ];
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn the_cuts_do_not_matter(
            stream in stream(),
            mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
            most in 0usize..80,
        ) {
            let mut places: Vec<usize> = cuts.drain(..).map(|cut| cut.index(stream.len() + 1)).collect();
            places.extend([0, stream.len()]);
            places.sort_unstable();
            let pieces: Vec<&[u8]> = places.windows(2).map(|two| &stream[two[0]..two[1]]).collect();
            // Pieces that come within the idle time, and any pieces where nothing ends by standing still.
            let bounds = Bounds { request_bytes_max: most, ..BOUNDS };
            let whole = read(&[&stream], 0, &bounds);
            prop_assert_eq!(&read(&pieces, 2, &bounds), &whole);
            prop_assert_eq!(&read(&pieces, 60_000, &Bounds { idle: None, ..bounds }), &whole);
        }
    }
}
