//! Sequences of valid requests on strings, keys and their lifetimes, drawn from the bytes of an input: few keys, small values,
//! times near now, so that requests have to do with each other.
//!
//! Valid means that a request has as many arguments as its command takes. They may still be numbers that are none, or options
//! that do not go together.

use crate::input::Input;

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A request, its command in lower case.
    Run(Vec<Vec<u8>>),
    /// Milliseconds pass.
    Sleep(u64),
    /// So many records are committed.
    Commit(usize),
    /// So many records are taken back.
    RollBack(usize),
    /// A snapshot begins.
    Snapshot,
}

/// The commands that sequences are made of, as often as they are worth it.
const COMMANDS: &[&str] = &[
    "append",
    "bitcount",
    "bitpos",
    "copy",
    "decr",
    "decrby",
    "del",
    "exists",
    "expire",
    "expire",
    "expireat",
    "expiretime",
    "flushall",
    "flushdb",
    "get",
    "get",
    "getbit",
    "getdel",
    "getex",
    "getex",
    "getrange",
    "getset",
    "incr",
    "incrby",
    "incrbyfloat",
    "mget",
    "mset",
    "msetnx",
    "persist",
    "pexpire",
    "pexpire",
    "pexpireat",
    "pexpiretime",
    "psetex",
    "pttl",
    "rename",
    "rename",
    "renamenx",
    "set",
    "set",
    "set",
    "set",
    "setbit",
    "setex",
    "setnx",
    "setrange",
    "strlen",
    "substr",
    "touch",
    "ttl",
    "type",
    "unlink",
];

/// The most steps.
const STEPS_MAX: usize = 200;

/// A sequence that is being drawn.
#[derive(Clone, Debug)]
pub struct Sequence<'a> {
    input: Input<'a>,
    left: usize,
}

impl<'a> Sequence<'a> {
    /// The sequence of an input.
    pub fn new(input: &'a [u8]) -> Sequence<'a> {
        Sequence { input: Input::new(input), left: STEPS_MAX }
    }

    /// Whether sequences may hold this command.
    pub fn has(command: &str) -> bool {
        COMMANDS.contains(&command)
    }

    /// The next step at a time in Unix milliseconds, until the input is used up.
    pub fn next(&mut self, now_ms: u64) -> Option<Step> {
        self.left = self.left.checked_sub(1).filter(|_| !self.input.rest.is_empty())?;
        let choice = usize::from(self.input.byte()) % (COMMANDS.len() + 12);
        Some(match choice.checked_sub(COMMANDS.len()) {
            None => Step::Run(self.request(COMMANDS[choice], now_ms)),
            Some(0..6) => Step::Sleep(
                self.pick(&[1, 2, 3, 4, 5, 9, 10, 11, 499, 500, 1000, 2000, 5000, 10_000, 12_000, 100_000]),
            ),
            Some(6..9) => Step::Commit(self.pick(&[1, 2, 5, usize::MAX])),
            Some(9) => Step::RollBack(self.pick(&[1, 2, 5, usize::MAX])),
            Some(_) => Step::Snapshot,
        })
    }

    fn request(&mut self, command: &str, now_ms: u64) -> Vec<Vec<u8>> {
        let mut words = vec![command.as_bytes().to_vec()];
        match command {
            "flushall" | "flushdb" => {}
            "mget" | "del" | "unlink" | "exists" | "touch" => {
                (0..self.pick(&[1, 1, 2, 3])).for_each(|_| words.push(self.key()));
            }
            "mset" | "msetnx" => {
                (0..self.pick(&[1, 2, 2, 3])).for_each(|_| words.extend([self.key(), self.value()]))
            }
            "append" | "getset" | "setnx" => words.extend([self.key(), self.value()]),
            "incrby" | "decrby" => words.extend([self.key(), self.integer()]),
            "incrbyfloat" => words.extend([self.key(), self.value()]),
            "rename" | "renamenx" => words.extend([self.key(), self.key()]),
            "getrange" | "substr" => words.extend([self.key(), self.integer(), self.integer()]),
            "setrange" => words.extend([self.key(), self.offset("536870912"), self.value()]),
            "setbit" => words.extend([self.key(), self.offset("4294967296"), self.bit()]),
            "getbit" => words.extend([self.key(), self.offset("4294967296")]),
            "setex" => words.extend([self.key(), self.amount("ex", now_ms), self.value()]),
            "psetex" => words.extend([self.key(), self.amount("px", now_ms), self.value()]),
            "bitcount" => {
                words.push(self.key());
                match self.pick(&[0, 2, 2, 3]) {
                    0 => {}
                    2 => words.extend([self.integer(), self.integer()]),
                    _ => {
                        words.extend([self.integer(), self.integer(), self.word(&["bit", "byte", "nibble"])])
                    }
                }
            }
            "bitpos" => {
                words.extend([self.key(), self.bit()]);
                match self.pick(&[0, 1, 2, 3]) {
                    0 => {}
                    1 => words.push(self.integer()),
                    2 => words.extend([self.integer(), self.integer()]),
                    _ => {
                        words.extend([self.integer(), self.integer(), self.word(&["bit", "byte", "nibble"])])
                    }
                }
            }
            "copy" => {
                words.extend([self.key(), self.key()]);
                match self.pick(&[0, 1, 2, 3]) {
                    1 => words.push(b"replace".to_vec()),
                    2 => words.extend([b"db".to_vec(), b"0".to_vec()]),
                    3 => words.push(self.word(&["replace", "nx"])),
                    _ => {}
                }
            }
            "expire" | "pexpire" | "expireat" | "pexpireat" => {
                let unit = match command {
                    "expire" => "ex",
                    "pexpire" => "px",
                    "expireat" => "exat",
                    _ => "pxat",
                };
                words.extend([self.key(), self.amount(unit, now_ms)]);
                for _ in 0..self.pick(&[0, 0, 1, 2]) {
                    words.push(self.word(&["nx", "xx", "gt", "lt", "gt", "lt", "xx", "zz"]));
                }
            }
            "set" | "getex" => {
                words.push(self.key());
                if command == "set" {
                    words.push(self.value());
                }
                for _ in 0..self.pick(&[0, 1, 1, 1, 2, 2, 3]) {
                    let option = match command {
                        "set" => self.word(&[
                            "ex", "px", "exat", "pxat", "ex", "px", "nx", "xx", "nx", "get", "keepttl",
                            "keepttl", "ifeq", "persist",
                        ]),
                        _ => self.word(&["ex", "px", "exat", "pxat", "px", "persist", "persist", "keepttl"]),
                    };
                    let more = match std::str::from_utf8(&option) {
                        Ok(unit @ ("ex" | "px" | "exat" | "pxat")) => Some(self.amount(unit, now_ms)),
                        Ok("ifeq") => Some(self.value()),
                        _ => None,
                    };
                    words.push(option);
                    words.extend(more);
                }
            }
            _ => words.push(self.key()),
        }
        words
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[usize::from(self.input.byte()) % items.len()]
    }

    fn word(&mut self, words: &[&str]) -> Vec<u8> {
        self.pick(words).as_bytes().to_vec()
    }

    fn key(&mut self) -> Vec<u8> {
        self.word(&["a", "a", "a", "b", "b", "c", "", "a key whose length is more than a few machine words"])
    }

    fn value(&mut self) -> Vec<u8> {
        let choice = self.input.byte();
        match choice % 32 {
            0..16 => self.word(&[
                "",
                "0",
                "1",
                "-1",
                "7",
                "10",
                "01",
                "-0",
                " 1",
                "9223372036854775807",
                "-9223372036854775808",
                "9223372036854775808",
                "1.5",
                "-0.25",
                "2.",
                "0.1",
                "3.140625",
                "12e3",
                "nan",
                "inf",
                "word",
                "other",
            ]),
            16..22 => i64::from(self.input.byte() as i8).to_string().into_bytes(),
            22..30 => self.input.bytes(usize::from(choice % 32) - 21).to_vec(),
            // Beyond what tables keep with the key, and what they keep in pieces of one size.
            _ => vec![self.input.byte(); usize::from(self.input.byte()) * 2],
        }
    }

    fn integer(&mut self) -> Vec<u8> {
        let choice = self.input.byte();
        match choice {
            0..240 => (i64::from(choice) - 120).to_string().into_bytes(),
            _ => self.word(&[
                "9223372036854775807",
                "-9223372036854775808",
                "9223372036854775800",
                "-9223372036854775807",
                "1.0",
                "01",
                "x",
                "",
                "4611686018427387904",
            ]),
        }
    }

    fn bit(&mut self) -> Vec<u8> {
        self.word(&["0", "1", "0", "1", "0", "1", "2", "x"])
    }

    /// Small, or beyond what a string may have: `beyond` is the first such.
    fn offset(&mut self, beyond: &str) -> Vec<u8> {
        let choice = self.input.byte();
        match choice {
            0..240 => (choice / 2).to_string().into_bytes(),
            _ => self.word(&[
                "-1",
                beyond,
                "4294967296",
                "9223372036854775807",
                "-9223372036854775808",
                "01",
                "x",
            ]),
        }
    }

    /// A time: near now, or out of what can be.
    fn amount(&mut self, unit: &str, now_ms: u64) -> Vec<u8> {
        let choice = self.input.byte();
        let near = 1 + i64::from(choice / 16);
        let now = match unit {
            "exat" => now_ms as i64 / 1000,
            "pxat" => now_ms as i64,
            _ => 0,
        };
        let amount = match choice % 16 {
            0..9 => now + near,
            9 => now + 100 * near,
            10 => now,
            11 => now - near,
            12 => {
                return self
                    .word(&["9223372036854775807", "9223372036854775000"][usize::from(unit == "pxat")..]);
            }
            13 => 9_223_372_036_854_775,
            14 => return self.word(&["x", "1.5", "01", "", "9223372036854775808"]),
            _ => i64::MIN + near,
        };
        amount.to_string().into_bytes()
    }
}
