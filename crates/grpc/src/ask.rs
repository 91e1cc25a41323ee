//! Requests as commands: the arguments that a client of the Redis protocol would send, and the levels that it would have chosen.

use crate::v1;
use bytes::Bytes;
use tonic::Status;
use types::Position;
use types::settings::{ReadLevel, WriteLevel};

/// A command to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Its name and its arguments.
    pub args: Vec<Bytes>,
    /// What a read may show; none: what the settings say.
    pub read_level: Option<ReadLevel>,
    /// When a write is acknowledged; none: what the settings say.
    pub write_level: Option<WriteLevel>,
}

impl Ask {
    /// A command with the levels of the settings.
    pub fn new(args: impl IntoIterator<Item = impl Into<Bytes>>) -> Ask {
        Ask { args: args.into_iter().map(Into::into).collect(), read_level: None, write_level: None }
    }

    /// The same with a read level.
    pub fn reading(self, read_level: Option<ReadLevel>) -> Ask {
        Ask { read_level, ..self }
    }

    fn writing(self, write_level: Option<WriteLevel>) -> Ask {
        Ask { write_level, ..self }
    }
}

fn word(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// A read level as messages have it.
pub fn read_level(level: i32) -> Result<Option<ReadLevel>, Status> {
    match v1::ReadLevel::try_from(level) {
        Ok(v1::ReadLevel::Unspecified) => Ok(None),
        Ok(v1::ReadLevel::Linearizable) => Ok(Some(ReadLevel::Linearizable)),
        Ok(v1::ReadLevel::Stale) => Ok(Some(ReadLevel::Stale)),
        Err(_) => Err(Status::invalid_argument(format!("there is no read level {level}"))),
    }
}

/// A write level as messages have it.
pub fn write_level(level: i32) -> Result<Option<WriteLevel>, Status> {
    match v1::WriteLevel::try_from(level) {
        Ok(v1::WriteLevel::Unspecified) => Ok(None),
        Ok(v1::WriteLevel::All) => Ok(Some(WriteLevel::All)),
        Ok(v1::WriteLevel::Quorum) => Ok(Some(WriteLevel::Quorum)),
        Ok(v1::WriteLevel::One) => Ok(Some(WriteLevel::One)),
        Err(_) => Err(Status::invalid_argument(format!("there is no write level {level}"))),
    }
}

/// KV.Get.
pub fn get(request: v1::GetRequest) -> Result<Ask, Status> {
    let level = read_level(request.read_level)?;
    let mut args = vec![word("GETV"), request.key];
    if level == Some(ReadLevel::Stale) {
        args.push(word("AGE"));
    }
    Ok(Ask::new(args).reading(level))
}

/// KV.Put.
pub fn put(request: v1::PutRequest) -> Result<Ask, Status> {
    use v1::put_request::{Condition, Expiry};
    let level = write_level(request.write_level)?;
    let mut args = vec![word("SETV"), request.key, request.value];
    match request.condition {
        Some(Condition::IfAbsent(true)) => args.push(word("NX")),
        Some(Condition::IfPresent(true)) => args.push(word("XX")),
        Some(Condition::IfVersion(version)) => args.extend([word("IFVERSION"), number(version)]),
        Some(Condition::IfAbsent(false) | Condition::IfPresent(false)) | None => {}
    }
    match request.expiry {
        Some(Expiry::TtlMs(ms)) => args.extend([word("PX"), number(ms)]),
        Some(Expiry::KeepTtl(true)) => args.push(word("KEEPTTL")),
        Some(Expiry::KeepTtl(false)) | None => {}
    }
    Ok(Ask::new(args).writing(level))
}

/// KV.Delete.
pub fn delete(request: v1::DeleteRequest) -> Result<Ask, Status> {
    let level = write_level(request.write_level)?;
    let mut args = vec![word("DELV"), request.key];
    if let Some(version) = request.if_version {
        args.extend([word("IFVERSION"), number(version)]);
    }
    Ok(Ask::new(args).writing(level))
}

/// A step of a scan.
pub fn scan(cursor: u64, prefix: &[u8], count: u32) -> Ask {
    let mut args = vec![word("SCAN"), number(cursor)];
    if !prefix.is_empty() {
        args.extend([word("MATCH"), starting_with(prefix)]);
    }
    args.extend([word("COUNT"), number(count.into())]);
    Ask::new(args)
}

/// Where a watch of a partition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// With what comes next.
    Now,
    /// Behind this place in the log.
    Place(Position),
    /// Behind this version.
    Version(u64),
}

/// A step of a watch of the partition with this slot: of so many bytes about, and a wait of so many milliseconds where there is nothing.
pub fn changes(
    slot: u16,
    since: Since,
    keys: Option<&v1::watch_request::Keys>,
    bytes: usize,
    block_ms: u64,
) -> Ask {
    use v1::watch_request::Keys;
    let mut args = vec![word("CHANGES"), number(slot.into())];
    match since {
        Since::Now => args.push(word("NOW")),
        Since::Place(place) => args.extend([word("AFTER"), number(place.epoch.0), number(place.lsn.0)]),
        Since::Version(version) => args.extend([word("VERSION"), number(version)]),
    }
    match keys {
        Some(Keys::Key(key)) => args.extend([word("KEY"), key.clone()]),
        Some(Keys::Prefix(prefix)) if !prefix.is_empty() => args.extend([word("PREFIX"), prefix.clone()]),
        Some(Keys::Prefix(_)) | None => {}
    }
    args.extend([word("BYTES"), number(bytes as u64), word("BLOCK"), number(block_ms)]);
    Ask::new(args)
}

fn number(number: u64) -> Bytes {
    Bytes::from(number.to_string())
}

/// The pattern of all keys that begin so.
fn starting_with(prefix: &[u8]) -> Bytes {
    let mut pattern = Vec::with_capacity(prefix.len() + 1);
    for &byte in prefix {
        if b"*?[]\\^".contains(&byte) {
            pattern.push(b'\\');
        }
        pattern.push(byte);
    }
    pattern.push(b'*');
    Bytes::from(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::put_request::{Condition, Expiry};

    fn shown(ask: &Ask) -> String {
        ask.args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn puts() {
        let plain = v1::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        let shown_of = |request: v1::PutRequest| shown(&put(request).unwrap());
        assert_eq!(shown_of(plain.clone()), "SETV k v");
        let with = |condition, expiry| shown_of(v1::PutRequest { condition, expiry, ..plain.clone() });
        assert_eq!(with(Some(Condition::IfAbsent(true)), None), "SETV k v NX");
        assert_eq!(with(Some(Condition::IfAbsent(false)), None), "SETV k v");
        assert_eq!(
            with(Some(Condition::IfPresent(true)), Some(Expiry::KeepTtl(true))),
            "SETV k v XX KEEPTTL"
        );
        assert_eq!(with(Some(Condition::IfVersion(7)), Some(Expiry::TtlMs(9))), "SETV k v IFVERSION 7 PX 9");
        let quorum = v1::PutRequest { write_level: 2, ..plain.clone() };
        assert_eq!(put(quorum).unwrap().write_level, Some(WriteLevel::Quorum));
        let nonsense = put(v1::PutRequest { write_level: 9, ..plain }).unwrap_err();
        assert_eq!(nonsense.code(), tonic::Code::InvalidArgument);
    }

    #[test]
    fn gets_deletes_and_scans() {
        let stale = get(v1::GetRequest { key: "k".into(), read_level: 2 }).unwrap();
        assert_eq!((shown(&stale), stale.read_level), ("GETV k AGE".into(), Some(ReadLevel::Stale)));
        assert!(get(v1::GetRequest { key: "k".into(), read_level: -1 }).is_err());
        let request = v1::DeleteRequest { key: "k".into(), ..Default::default() };
        assert_eq!(shown(&delete(request.clone()).unwrap()), "DELV k");
        let request = v1::DeleteRequest { if_version: Some(0), ..request };
        assert_eq!(shown(&delete(request).unwrap()), "DELV k IFVERSION 0");
        assert_eq!(shown(&scan(0, b"", 5)), "SCAN 0 COUNT 5");
        assert_eq!(shown(&scan(8, b"a*[", 5)), "SCAN 8 MATCH a\\*\\[* COUNT 5");
    }

    #[test]
    fn watches() {
        use v1::watch_request::Keys;
        let place = Position { epoch: types::Epoch(3), lsn: types::Lsn(9) };
        let asked = |since, keys: Option<Keys>| shown(&changes(7, since, keys.as_ref(), 10, 20));
        assert_eq!(asked(Since::Now, None), "CHANGES 7 NOW BYTES 10 BLOCK 20");
        assert_eq!(
            asked(Since::Place(place), Some(Keys::Key("k".into()))),
            "CHANGES 7 AFTER 3 9 KEY k BYTES 10 BLOCK 20"
        );
        assert_eq!(
            asked(Since::Version(5), Some(Keys::Prefix("p".into()))),
            "CHANGES 7 VERSION 5 PREFIX p BYTES 10 BLOCK 20"
        );
        assert_eq!(asked(Since::Now, Some(Keys::Prefix("".into()))), "CHANGES 7 NOW BYTES 10 BLOCK 20");
    }

    /// Whatever the prefix is, its pattern finds the keys that begin so and no others.
    #[test]
    fn a_prefix_is_taken_literally() {
        for first in 0..=255u8 {
            for second in [b'*', b'?', b'[', b']', b'\\', b'^', b'-', b'a', 0] {
                let pattern = starting_with(&[first, second]);
                assert!(command::glob::matches(&pattern, &[first, second]), "{pattern:?}");
                assert!(command::glob::matches(&pattern, &[first, second, b'x']), "{pattern:?}");
                assert!(!command::glob::matches(&pattern, &[first]), "{pattern:?}");
                assert!(!command::glob::matches(&pattern, &[first, second ^ 1]), "{pattern:?}");
                assert!(!command::glob::matches(&pattern, &[first ^ 1, second]), "{pattern:?}");
            }
        }
    }
}
