//! CHANGES: what was committed in a partition behind a position, in its order. Annulet's own: `Watch` over gRPC is made of it. The
//! node reads the log; here is what a request says, and how what was found is told.

use super::is;
use super::setv::version;
use crate::number::parse_i64;
use crate::{Categories, Command, CommandError, Flags, Handler, Reply};
use bytes::Bytes;
use std::time::Duration;
use storage::Value;
use storage::effect::Effect;
use types::{Epoch, Lsn, Position, Version};

/// CHANGES slot NOW | AFTER epoch lsn | VERSION version [KEY key | PREFIX prefix] [BYTES bytes] [BLOCK milliseconds]
pub(crate) const COMMAND: Command = Command {
    name: "changes",
    syntax: "slot NOW | AFTER epoch lsn | VERSION version [KEY key | PREFIX prefix] [BYTES bytes] [BLOCK milliseconds]",
    arity: -3,
    flags: Flags::READONLY.with(Flags::BLOCKING),
    group: "generic",
    since: "0.1.0",
    complexity: "O(N), N the changes behind the position",
    summary: "Changes of a slot's partition, in their order, and the position that leads on, as an epoch and an lsn; waits a while where there are none yet.",
    categories: Categories::KEYSPACE.with(Categories::READ).with(Categories::SLOW).with(Categories::BLOCKING),
    handler: Handler::Changes,
    ..Command::BASE
};

/// The longest wait of one request: whoever wants more asks again.
pub const BLOCK_MAX: Duration = Duration::from_millis(1000);
/// Bytes of a reply, about, unless the request says otherwise; and the most that it may say.
const BYTES: usize = 1 << 20;
const BYTES_MAX: i64 = 16 << 20;

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// With what comes next.
    Now,
    /// Behind a position that an earlier reply told.
    Position(Position),
    /// Behind the changes up to this version.
    Version(Version),
}

/// Which keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which<'a> {
    /// All of the partition.
    All,
    /// This one.
    Key(&'a [u8]),
    /// Those that begin so.
    Prefix(&'a [u8]),
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangesRequest<'a> {
    /// Where to begin.
    pub since: Since,
    /// Which keys.
    pub which: Which<'a>,
    /// Bytes of keys and values after which the reply ends, at the end of a record.
    pub bytes: usize,
    /// How long to wait where there is nothing yet.
    pub block: Duration,
}

impl Which<'_> {
    /// Whether a change is of interest. One of all keys is of interest to everybody.
    pub fn takes(&self, key: Option<&[u8]>) -> bool {
        match (self, key) {
            (Which::All, _) | (_, None) => true,
            (Which::Key(wanted), Some(key)) => *wanted == key,
            (Which::Prefix(prefix), Some(key)) => key.starts_with(prefix),
        }
    }
}

/// Reads a request.
pub fn parse<'a>(args: &[&'a [u8]]) -> Result<ChangesRequest<'a>, CommandError> {
    let mut words = args.iter().copied().skip(2);
    let mut next = || words.next().ok_or(CommandError::Syntax);
    let since = next()?;
    let since = if is(since, "now") {
        Since::Now
    } else if is(since, "after") {
        let (epoch, lsn) = (version(next()?)?, version(next()?)?);
        Since::Position(Position { epoch: Epoch(epoch), lsn: Lsn(lsn) })
    } else if is(since, "version") {
        Since::Version(Version(version(next()?)?))
    } else {
        return Err(CommandError::Syntax);
    };
    let mut request = ChangesRequest { since, which: Which::All, bytes: BYTES, block: Duration::ZERO };
    while let Some(word) = words.next() {
        let value = words.next().ok_or(CommandError::Syntax)?;
        let number = |most: i64| {
            let number = parse_i64(value).ok_or(CommandError::NotInteger)?;
            if (0..=most).contains(&number) { Ok(number as u64) } else { Err(CommandError::NotInteger) }
        };
        match request.which {
            Which::All if is(word, "key") => request.which = Which::Key(value),
            Which::All if is(word, "prefix") => request.which = Which::Prefix(value),
            _ if is(word, "bytes") => request.bytes = number(BYTES_MAX)? as usize,
            _ if is(word, "block") => {
                request.block = Duration::from_millis(number(BLOCK_MAX.as_millis() as i64)?);
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    Ok(request)
}

/// A request's arguments, for one that goes on behind a position.
pub fn go_on(args: &[Bytes], position: Position) -> Vec<Bytes> {
    let number = |number: u64| Bytes::from(number.to_string());
    let from_words = match args.get(2) {
        Some(word) if is(word, "after") => 3,
        Some(word) if is(word, "version") => 2,
        _ => 1,
    };
    let behind = [Bytes::from_static(b"AFTER"), number(position.epoch.0), number(position.lsn.0)];
    args.iter().take(2).cloned().chain(behind).chain(args.iter().skip(2 + from_words).cloned()).collect()
}

/// What was found, and behind what to go on.
pub fn reply(position: Position, changes: Vec<Reply<'static>>) -> Reply<'static> {
    Reply::Array(vec![
        Reply::Integer(position.epoch.0 as i64),
        Reply::Integer(position.lsn.0 as i64),
        Reply::Array(changes),
    ])
}

/// One change: what happened, its version, the key, when it ends (-1: never), its value.
pub fn change(effect: &Effect<'_>) -> Reply<'static> {
    let end = |at_ms: Option<u64>| Reply::Integer(at_ms.map_or(-1, |at_ms| at_ms as i64));
    let head =
        |word: &'static str, version: Version| vec![Reply::bulk(word), Reply::Integer(version.0 as i64)];
    let mut parts;
    match *effect {
        Effect::Put { key, value: Value::String(value), expire_at_ms, version } => {
            parts = head("set", version);
            parts.extend([Reply::bulk(key.to_vec()), end(expire_at_ms), Reply::bulk(value.to_vec())]);
        }
        Effect::Remove { key, version } => {
            parts = head("del", version);
            parts.push(Reply::bulk(key.to_vec()));
        }
        Effect::Expire { key, expire_at_ms, version } => {
            parts = head("expire", version);
            parts.extend([Reply::bulk(key.to_vec()), end(expire_at_ms)]);
        }
        Effect::Clear { version } => parts = head("flush", version),
    }
    Reply::Array(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&[u8]> {
        text.split(' ').map(str::as_bytes).collect()
    }

    #[test]
    fn requests() {
        let position = Position { epoch: Epoch(3), lsn: Lsn(9) };
        let plain =
            ChangesRequest { since: Since::Now, which: Which::All, bytes: BYTES, block: Duration::ZERO };
        assert_eq!(parse(&words("changes 5 now")), Ok(plain));
        assert_eq!(
            parse(&words("changes 5 after 3 9 key a bytes 10 block 1000")),
            Ok(ChangesRequest {
                since: Since::Position(position),
                which: Which::Key(b"a"),
                bytes: 10,
                block: BLOCK_MAX
            })
        );
        let since = Since::Version(Version(7));
        assert_eq!(
            parse(&words("changes 5 VERSION 7 PREFIX a")),
            Ok(ChangesRequest { since, which: Which::Prefix(b"a"), ..plain })
        );
        for (wrong, error) in [
            ("changes 5 then", CommandError::Syntax),
            ("changes 5 after 3", CommandError::Syntax),
            ("changes 5 after x 3", CommandError::NotInteger),
            ("changes 5 version -1", CommandError::NotInteger),
            ("changes 5 now key", CommandError::Syntax),
            ("changes 5 now key a prefix b", CommandError::Syntax),
            ("changes 5 now block 1001", CommandError::NotInteger),
            ("changes 5 now block x", CommandError::NotInteger),
            ("changes 5 now bytes -1", CommandError::NotInteger),
            ("changes 5 now nonsense 1", CommandError::Syntax),
        ] {
            assert_eq!(parse(&words(wrong)), Err(error), "{wrong}");
        }
    }

    #[test]
    fn a_request_that_goes_on_is_the_same_but_for_its_place() {
        let position = Position { epoch: Epoch(3), lsn: Lsn(9) };
        for from in ["now", "after 1 2", "version 5"] {
            let text = format!("changes 5 {from} prefix a block 7");
            let args: Vec<Bytes> = text.split(' ').map(|word| Bytes::from(word.to_owned())).collect();
            let on = go_on(&args, position);
            let slices: Vec<&[u8]> = on.iter().map(|arg| &arg[..]).collect();
            assert_eq!(slices, words("changes 5 AFTER 3 9 prefix a block 7"));
            assert_eq!(go_on(&on, position), on);
        }
    }

    #[test]
    fn which_keys() {
        assert!(
            Which::All.takes(Some(b"a")) && Which::Key(b"a").takes(None) && Which::Prefix(b"a").takes(None)
        );
        assert!(Which::Key(b"a").takes(Some(b"a")) && !Which::Key(b"a").takes(Some(b"ab")));
        assert!(Which::Prefix(b"a").takes(Some(b"ab")) && !Which::Prefix(b"ab").takes(Some(b"a")));
    }
}
