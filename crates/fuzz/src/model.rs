//! What Redis 7.0 does with strings, keys and their lifetimes, said in the plainest way: a map from keys to values and ends.
//!
//! It shares no code with the product, neither for numbers nor for the texts of errors. `tests/model.rs` holds it against
//! redis-server, so that it says what Redis does and not what somebody believes; where Annulet differs on purpose is
//! [`Whose`], and nowhere else.
//!
//! Requests have the arguments that their commands take, names in lower case: arity is the conformance corpus' business.
//!
//! Left out: sums of fractions that need rounding ([`Model::run`] then says nothing; room `command` has tests of its own for
//! those), commands that show keys in no order (SCAN, KEYS, RANDOMKEY), and what tells of the server (OBJECT, MEMORY, DBSIZE,
//! which counts keys that are over and not yet removed).

use std::collections::BTreeMap;

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A status line.
    Status(String),
    /// An error, code word first.
    Error(String),
    /// A number.
    Integer(i64),
    /// Bytes.
    Bulk(Vec<u8>),
    /// Nothing where bytes might be.
    Nil,
    /// Several.
    Many(Vec<Answer>),
}

/// Whose rules a model follows where the two differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The key is there until the end of the very millisecond at which it ends (and yet EXPIRE with that end removes it at once).
    /// There is no `SET ... IFEQ`.
    Redis,
    /// The key is gone from that millisecond on. `SET ... IFEQ` is Valkey's.
    Annulet,
}

/// A key's value, and the Unix milliseconds at which it ends.
pub type Kept = (Vec<u8>, Option<i64>);

/// A database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Model {
    /// What it holds, also what is over and was not looked at since.
    pub entries: BTreeMap<Vec<u8>, Kept>,
}

type Ran = Result<Answer, String>;

const SYNTAX: &str = "ERR syntax error";
const NOT_INTEGER: &str = "ERR value is not an integer or out of range";
const NOT_FLOAT: &str = "ERR value is not a valid float";
const OVERFLOW: &str = "ERR increment or decrement would overflow";
const TOO_LONG: &str = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
const BIT_OFFSET: &str = "ERR bit offset is not an integer or out of range";
/// 512 MiB.
const VALUE_BYTES_MAX: i64 = 512 << 20;

impl Default for Model {
    fn default() -> Model {
        Model::new()
    }
}

impl Model {
    /// An empty one.
    pub const fn new() -> Model {
        Model { entries: BTreeMap::new() }
    }

    /// Forgets the keys that are over.
    pub fn forget(&mut self, whose: Whose, now: i64) {
        self.entries.retain(|_, (_, end)| match whose {
            Whose::Redis => end.is_none_or(|end| now <= end),
            Whose::Annulet => end.is_none_or(|end| now < end),
        });
    }

    /// Runs a request at a time in Unix milliseconds. `None`: the model does not say, and nothing happened.
    pub fn run(&mut self, whose: Whose, request: &[Vec<u8>], now: i64) -> Option<Answer> {
        self.forget(whose, now);
        let words: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
        let ran = match words[..] {
            [b"incrbyfloat", key, by] => self.add_fraction(key, by)?,
            [b"set", key, value, ref options @ ..] => self.set(whose, (key, value), options, now),
            _ => self.ran(&words, now),
        };
        Some(ran.unwrap_or_else(Answer::Error))
    }

    fn ran(&mut self, words: &[&[u8]], now: i64) -> Ran {
        match *words {
            [b"get", key] => Ok(self.shown(key)),
            [b"getset", key, value] => {
                let old = self.shown(key);
                self.put(key, value, None);
                Ok(old)
            }
            [b"getdel", key] => {
                let old = self.shown(key);
                self.entries.remove(key);
                Ok(old)
            }
            [b"getex", key, ref options @ ..] => self.getex(key, options, now),
            [b"setnx", key, value] => {
                let absent = !self.has(key);
                if absent {
                    self.put(key, value, None);
                }
                Ok(flag(absent))
            }
            [b"setex", key, amount, value] => {
                let end = end_of("setex", b"ex", amount, now)?;
                self.put(key, value, Some(end));
                Ok(ok())
            }
            [b"psetex", key, amount, value] => {
                let end = end_of("psetex", b"px", amount, now)?;
                self.put(key, value, Some(end));
                Ok(ok())
            }
            [b"mget", ref keys @ ..] => Ok(Answer::Many(keys.iter().map(|key| self.shown(key)).collect())),
            [b"mset", ref pairs @ ..] => {
                pairs.chunks(2).for_each(|pair| self.put(pair[0], pair[1], None));
                Ok(ok())
            }
            [b"msetnx", ref pairs @ ..] => {
                let free = pairs.chunks(2).all(|pair| !self.has(pair[0]));
                if free {
                    pairs.chunks(2).for_each(|pair| self.put(pair[0], pair[1], None));
                }
                Ok(flag(free))
            }
            [b"append", key, tail] => {
                let value = [self.value(key), tail].concat();
                self.rewrite(key, &value);
                Ok(length(&value))
            }
            [b"strlen", key] => Ok(length(self.value(key))),
            [b"getrange" | b"substr", key, start, end] => {
                let (start, end) = (integer(start)?, integer(end)?);
                let value = self.value(key);
                let backwards = start < 0 && end < 0 && start > end;
                let (first, last) = places(start, end, value.len());
                let is_empty = value.is_empty() || backwards || first > last;
                Ok(Answer::Bulk(if is_empty {
                    Vec::new()
                } else {
                    value[first as usize..=last as usize].to_vec()
                }))
            }
            [b"setrange", key, offset, part] => {
                let offset = integer(offset)?;
                if offset < 0 {
                    return Err("ERR offset is out of range".into());
                }
                let mut value = self.value(key).to_vec();
                if part.is_empty() {
                    return Ok(length(&value));
                }
                if offset > VALUE_BYTES_MAX - part.len() as i64 {
                    return Err(TOO_LONG.into());
                }
                let offset = offset as usize;
                value.resize(value.len().max(offset + part.len()), 0);
                value[offset..offset + part.len()].copy_from_slice(part);
                self.rewrite(key, &value);
                Ok(length(&value))
            }
            [b"incr", key] => self.add(key, 1),
            [b"decr", key] => self.add(key, -1),
            [b"incrby", key, by] => self.add(key, integer(by)?),
            [b"decrby", key, by] => match integer(by)? {
                i64::MIN => Err("ERR decrement would overflow".into()),
                by => self.add(key, -by),
            },
            [b"setbit", key, offset, bit] => {
                let offset = bit_offset(offset)?;
                let bit = match integer(bit) {
                    Ok(bit @ (0 | 1)) => bit == 1,
                    _ => return Err("ERR bit is not an integer or out of range".into()),
                };
                let mut bits = bits_of(self.value(key));
                bits.resize(bits.len().max(8 * (offset / 8 + 1)), false);
                let was = std::mem::replace(&mut bits[offset], bit);
                self.rewrite(key, &bytes_of(&bits));
                Ok(flag(was))
            }
            [b"getbit", key, offset] => {
                let offset = bit_offset(offset)?;
                Ok(flag(bits_of(self.value(key)).get(offset).is_some_and(|bit| *bit)))
            }
            [b"bitcount", key, ref range @ ..] => self.bitcount(key, range),
            [b"bitpos", key, bit, ref range @ ..] => self.bitpos(key, bit, range),
            [b"del" | b"unlink", ref keys @ ..] => {
                Ok(count(keys.iter().filter(|key| self.entries.remove(**key).is_some()).count()))
            }
            [b"exists" | b"touch", ref keys @ ..] => {
                Ok(count(keys.iter().filter(|key| self.has(key)).count()))
            }
            [b"type", key] => Ok(Answer::Status(if self.has(key) { "string" } else { "none" }.into())),
            [b"persist", key] => {
                let end = self.entries.get_mut(key).and_then(|(_, end)| end.take());
                Ok(flag(end.is_some()))
            }
            [b"rename", from, to] => {
                let kept = self.entries.remove(from).ok_or("ERR no such key")?;
                self.entries.insert(to.to_vec(), kept);
                Ok(ok())
            }
            [b"renamenx", from, to] => {
                if !self.has(from) {
                    return Err("ERR no such key".into());
                }
                let free = !self.has(to);
                if free && let Some(kept) = self.entries.remove(from) {
                    self.entries.insert(to.to_vec(), kept);
                }
                Ok(flag(free))
            }
            [b"copy", from, to, ref options @ ..] => self.copy(from, to, options),
            [b"expire", key, amount, ref options @ ..] => {
                self.expire("expire", (key, amount), (1000, now), options, now)
            }
            [b"pexpire", key, amount, ref options @ ..] => {
                self.expire("pexpire", (key, amount), (1, now), options, now)
            }
            [b"expireat", key, amount, ref options @ ..] => {
                self.expire("expireat", (key, amount), (1000, 0), options, now)
            }
            [b"pexpireat", key, amount, ref options @ ..] => {
                self.expire("pexpireat", (key, amount), (1, 0), options, now)
            }
            [b"ttl", key] => Ok(self.end(key, |end| (end - now + 500) / 1000)),
            [b"pttl", key] => Ok(self.end(key, |end| end - now)),
            [b"expiretime", key] => Ok(self.end(key, |end| (end + 500) / 1000)),
            [b"pexpiretime", key] => Ok(self.end(key, |end| end)),
            [b"flushall" | b"flushdb"] => {
                self.entries.clear();
                Ok(ok())
            }
            _ => panic!("the model knows no such request: {words:?}"),
        }
    }

    fn has(&self, key: &[u8]) -> bool {
        self.entries.contains_key(key)
    }

    fn value(&self, key: &[u8]) -> &[u8] {
        self.entries.get(key).map_or(&[], |(value, _)| value)
    }

    fn shown(&self, key: &[u8]) -> Answer {
        self.entries.get(key).map_or(Answer::Nil, |(value, _)| Answer::Bulk(value.clone()))
    }

    fn put(&mut self, key: &[u8], value: &[u8], end: Option<i64>) {
        self.entries.insert(key.to_vec(), (value.to_vec(), end));
    }

    /// Another value, and the same end.
    fn rewrite(&mut self, key: &[u8], value: &[u8]) {
        self.entries.entry(key.to_vec()).or_default().0 = value.to_vec();
    }

    /// What a key's end shows; -1: it has none, -2: there is no key.
    fn end(&self, key: &[u8], show: impl Fn(i64) -> i64) -> Answer {
        Answer::Integer(match self.entries.get(key) {
            Some((_, Some(end))) => show(*end),
            Some((_, None)) => -1,
            None => -2,
        })
    }

    fn add(&mut self, key: &[u8], by: i64) -> Ran {
        let old = if self.has(key) { integer(self.value(key))? } else { 0 };
        let sum = old.checked_add(by).ok_or(OVERFLOW)?;
        self.rewrite(key, sum.to_string().as_bytes());
        Ok(Answer::Integer(sum))
    }

    fn add_fraction(&mut self, key: &[u8], by: &[u8]) -> Option<Ran> {
        let (old, by) = match (self.has(key).then(|| fraction(self.value(key))), fraction(by)) {
            (Some(Fraction::None), _) | (_, Fraction::None) => return Some(Err(NOT_FLOAT.into())),
            (Some(Fraction::Millionths(old)), Fraction::Millionths(by)) => (old, by),
            (None, Fraction::Millionths(by)) => (0, by),
            _ => return None,
        };
        let sum = old + by;
        let (whole, part) = (sum.unsigned_abs() / 1_000_000, sum.unsigned_abs() % 1_000_000);
        let sign = if sum < 0 { "-" } else { "" };
        let text = format!("{sign}{whole}.{part:06}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        self.rewrite(key, text.as_bytes());
        Some(Ok(Answer::Bulk(text.into())))
    }

    fn set(&mut self, whose: Whose, (key, value): (&[u8], &[u8]), options: &[&[u8]], now: i64) -> Ran {
        let (mut nx, mut xx, mut get, mut keep) = (false, false, false, false);
        let (mut lifetimes, mut equals) = (Vec::new(), Vec::new());
        let mut words = options.iter();
        while let Some(&word) = words.next() {
            match word {
                b"nx" => nx = true,
                b"xx" => xx = true,
                b"get" => get = true,
                b"keepttl" => keep = true,
                b"ifeq" if whose == Whose::Annulet => equals.push(*words.next().ok_or(SYNTAX)?),
                b"ex" | b"px" | b"exat" | b"pxat" => lifetimes.push((word, *words.next().ok_or(SYNTAX)?)),
                _ => return Err(SYNTAX.into()),
            }
        }
        let conditions = usize::from(nx) + usize::from(xx) + equals.len();
        let kinds = lifetimes.windows(2).filter(|two| two[0].0 != two[1].0).count();
        if conditions > 1 || kinds > 0 || keep && !lifetimes.is_empty() {
            return Err(SYNTAX.into());
        }
        let end = match lifetimes.last() {
            Some((unit, amount)) => Some(end_of("set", unit, amount, now)?),
            None => None,
        };
        let old = self.entries.get(key).cloned();
        let reply = if get { self.shown(key) } else { ok() };
        let refused = nx && old.is_some()
            || xx && old.is_none()
            || equals.iter().any(|wanted| old.as_ref().is_none_or(|(value, _)| value != wanted));
        if refused {
            return Ok(if get { reply } else { Answer::Nil });
        }
        let kept = old.and_then(|(_, end)| end).filter(|_| keep);
        self.put(key, value, end.or(kept));
        Ok(reply)
    }

    fn getex(&mut self, key: &[u8], options: &[&[u8]], now: i64) -> Ran {
        let (mut persist, mut lifetimes) = (false, Vec::new());
        let mut words = options.iter();
        while let Some(&word) = words.next() {
            match word {
                b"persist" => persist = true,
                b"ex" | b"px" | b"exat" | b"pxat" => lifetimes.push((word, *words.next().ok_or(SYNTAX)?)),
                _ => return Err(SYNTAX.into()),
            }
        }
        let kinds = lifetimes.windows(2).filter(|two| two[0].0 != two[1].0).count();
        if kinds > 0 || persist && !lifetimes.is_empty() {
            return Err(SYNTAX.into());
        }
        let reply = self.shown(key);
        let Some((_, end)) = self.entries.get_mut(key) else { return Ok(Answer::Nil) };
        if persist {
            *end = None;
        }
        if let Some((unit, amount)) = lifetimes.last() {
            let new = end_of("getex", unit, amount, now)?;
            *end = Some(new);
            if new <= now {
                self.entries.remove(key);
            }
        }
        Ok(reply)
    }

    fn bitcount(&self, key: &[u8], range: &[&[u8]]) -> Ran {
        if !self.has(key) {
            return Ok(Answer::Integer(0));
        }
        let bits = bits_of(self.value(key));
        let counted = match *range {
            [] => &bits[..],
            [start, end, ref unit @ ..] if unit.len() < 2 => {
                let (start, end) = (integer(start)?, integer(end)?);
                if start < 0 && end < 0 && start > end {
                    return Ok(Answer::Integer(0));
                }
                let (first, last) = bit_places(start, end, unit.first().copied(), bits.len())?;
                if first > last { &[] } else { &bits[first as usize..=last as usize] }
            }
            _ => return Err(SYNTAX.into()),
        };
        Ok(count(counted.iter().filter(|bit| **bit).count()))
    }

    fn bitpos(&self, key: &[u8], bit: &[u8], range: &[&[u8]]) -> Ran {
        let wanted = match integer(bit)? {
            0 => false,
            1 => true,
            _ => return Err("ERR The bit argument must be 1 or 0.".into()),
        };
        if !self.has(key) {
            return Ok(Answer::Integer(if wanted { -1 } else { 0 }));
        }
        let bits = bits_of(self.value(key));
        let start = range.first().map_or(Ok(0), |start| integer(start))?;
        let unit = range.get(2).copied();
        // What is wrong with the unit is told before what is wrong with the end.
        bit_places(0, 0, unit, 0)?;
        let end = range.get(1).map_or(Ok(-1), |end| integer(end))?;
        let (first, last) = bit_places(start, end, unit, bits.len())?;
        let found = (first..=last).find(|at| bits[*at as usize] == wanted);
        Ok(Answer::Integer(match found {
            Some(at) => at,
            None if !wanted && range.len() < 2 && first <= last => bits.len() as i64,
            None => -1,
        }))
    }

    fn copy(&mut self, from: &[u8], to: &[u8], options: &[&[u8]]) -> Ran {
        let mut replace = false;
        let mut words = options.iter();
        while let Some(&word) = words.next() {
            match word {
                b"replace" => replace = true,
                b"db" => match words.next().map(|number| integer(number)) {
                    Some(Ok(0)) => {}
                    other => panic!("the model has one database, not {other:?}"),
                },
                _ => return Err(SYNTAX.into()),
            }
        }
        if from == to {
            return Err("ERR source and destination objects are the same".into());
        }
        let Some(kept) = self.entries.get(from).cloned().filter(|_| replace || !self.has(to)) else {
            return Ok(flag(false));
        };
        self.entries.insert(to.to_vec(), kept);
        Ok(flag(true))
    }

    fn expire(
        &mut self,
        command: &str,
        (key, amount): (&[u8], &[u8]),
        (unit, since): (i64, i64),
        options: &[&[u8]],
        now: i64,
    ) -> Ran {
        let (mut nx, mut xx, mut gt, mut lt) = (false, false, false, false);
        for word in options {
            match *word {
                b"nx" => nx = true,
                b"xx" => xx = true,
                b"gt" => gt = true,
                b"lt" => lt = true,
                other => return Err(format!("ERR Unsupported option {}", String::from_utf8_lossy(other))),
            }
        }
        if nx && (xx || gt || lt) {
            return Err("ERR NX and XX, GT or LT options at the same time are not compatible".into());
        }
        if gt && lt {
            return Err("ERR GT and LT options at the same time are not compatible".into());
        }
        let end = i128::from(integer(amount)?) * i128::from(unit);
        let in_range = |number| {
            i64::try_from(number).map_err(|_| format!("ERR invalid expire time in '{command}' command"))
        };
        let end = in_range(i128::from(in_range(end)?) + i128::from(since))?;
        let Some((_, old)) = self.entries.get_mut(key) else { return Ok(flag(false)) };
        let refused = match *old {
            Some(old) => nx || gt && end <= old || lt && end >= old,
            None => xx || gt,
        };
        if refused {
            return Ok(flag(false));
        }
        *old = Some(end);
        if end <= now {
            self.entries.remove(key);
        }
        Ok(flag(true))
    }
}

fn ok() -> Answer {
    Answer::Status("OK".into())
}

fn flag(is: bool) -> Answer {
    Answer::Integer(is.into())
}

fn count(number: usize) -> Answer {
    Answer::Integer(number as i64)
}

fn length(value: &[u8]) -> Answer {
    count(value.len())
}

/// A number in 64 bits, and in the one way in which it is written.
fn integer(text: &[u8]) -> Result<i64, String> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
    number.filter(|number| number.to_string().as_bytes() == text).ok_or(NOT_INTEGER.into())
}

/// The end that `SET key value ex amount` and the like give.
fn end_of(command: &str, unit: &[u8], amount: &[u8], now: i64) -> Result<i64, String> {
    let amount = integer(amount)?;
    let ms = i128::from(amount) * if unit.starts_with(b"p") { 1 } else { 1000 };
    let end = ms + if unit.ends_with(b"at") { 0 } else { i128::from(now) };
    let end = i64::try_from(end).ok().filter(|_| amount > 0);
    end.ok_or_else(|| format!("ERR invalid expire time in '{command}' command"))
}

/// The first and the last place of a range in so many; the last is before the first where there are none.
fn places(start: i64, end: i64, total: usize) -> (i64, i64) {
    let total = total as i64;
    let place = |at: i64| if at < 0 { (at + total).max(0) } else { at };
    (place(start), place(end).min(total - 1))
}

/// The same in bits, of a range of bits or bytes.
fn bit_places(start: i64, end: i64, unit: Option<&[u8]>, total: usize) -> Result<(i64, i64), String> {
    match unit {
        Some(b"bit") => Ok(places(start, end, total)),
        Some(b"byte") | None => {
            let (first, last) = places(start, end, total / 8);
            // A place far beyond the end is as good as the end.
            Ok((first.min(total as i64) * 8, last * 8 + 7))
        }
        Some(_) => Err(SYNTAX.into()),
    }
}

fn bit_offset(text: &[u8]) -> Result<usize, String> {
    let offset = integer(text).ok().filter(|offset| (0..8 * VALUE_BYTES_MAX).contains(offset));
    offset.map(|offset| offset as usize).ok_or(BIT_OFFSET.into())
}

/// Bit 0 is the highest of the first byte.
fn bits_of(bytes: &[u8]) -> Vec<bool> {
    bytes.iter().flat_map(|byte| (0..8).map(move |at| byte >> (7 - at) & 1 == 1)).collect()
}

fn bytes_of(bits: &[bool]) -> Vec<u8> {
    bits.chunks(8).map(|eight| eight.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit))).collect()
}

/// What INCRBYFLOAT makes of a text.
enum Fraction {
    /// So many millionths: a multiple of 1/64, small enough that sums are exact in any floating-point numbers.
    Millionths(i128),
    /// No number.
    None,
    /// The model does not say.
    Unknown,
}

fn fraction(text: &[u8]) -> Fraction {
    // What hexadecimal digits, exponents, infinities and what is none are written with.
    if text.is_empty() || !text.iter().all(|byte| b"0123456789+-.eExXpPaAbBcCdDfFiInNtTyY()_".contains(byte))
    {
        return Fraction::None;
    }
    let (negative, digits) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let mut parts = digits.split(|byte| *byte == b'.');
    let (whole, part) = (parts.next().unwrap_or_default(), parts.next());
    let is_plain =
        |digits: &[u8], most| (1..=most).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    if !is_plain(whole, 12) || part.is_some_and(|part| !is_plain(part, 6)) || parts.next().is_some() {
        return Fraction::Unknown;
    }
    let mut millionths = [whole, part.unwrap_or_default()].concat();
    millionths.resize(whole.len() + 6, b'0');
    let millionths = millionths.iter().fold(0i128, |number, digit| number * 10 + i128::from(digit - b'0'));
    match (negative, millionths) {
        // Whether its sign is kept is a tale of its own.
        (true, 0) => Fraction::Unknown,
        _ if millionths % (1_000_000 / 64) != 0 => Fraction::Unknown,
        (true, _) => Fraction::Millionths(-millionths),
        (false, _) => Fraction::Millionths(millionths),
    }
}
