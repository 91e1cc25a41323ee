//! Replies as messages: what each command of [`crate::ask`] answers, or the error as a status.

use crate::errors::{nonsense, status};
use crate::v1;
use bytes::Bytes;
use command::Reply;
use tonic::Status;
use types::{Epoch, Lsn, Position, Version};

/// What GETV tells of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its version.
    pub version: Version,
    /// Milliseconds until it expires; none: never.
    pub ttl_ms: Option<u64>,
    /// Its value.
    pub value: Bytes,
}

/// The error that a reply is, if it is one.
fn checked(reply: Reply<'static>) -> Result<Reply<'static>, Status> {
    match reply {
        Reply::Error(error) => Err(status(&error)),
        other => Ok(other),
    }
}

/// Of GETV; none where there is no such key.
pub fn found(reply: Reply<'static>) -> Result<Option<Found>, Status> {
    let parts = match checked(reply)? {
        Reply::Null => return Ok(None),
        Reply::Array(parts) => parts,
        _ => return Err(nonsense("GETV")),
    };
    match <[Reply<'static>; 3]>::try_from(parts) {
        Ok([Reply::Integer(version), Reply::Integer(left_ms), Reply::Bulk(value)]) => Ok(Some(Found {
            version: Version(version as u64),
            ttl_ms: u64::try_from(left_ms).ok(),
            value: value.into_bytes(),
        })),
        Ok([Reply::Null, Reply::Null, Reply::Null]) => Ok(None),
        _ => Err(nonsense("GETV")),
    }
}

/// How old what GETV told with AGE may be, taken off its end.
fn take_age(reply: &mut Reply<'static>) -> Option<u64> {
    let Reply::Array(parts) = reply else { return None };
    match (parts.len(), parts.last()) {
        (4, Some(&Reply::Integer(age))) => {
            parts.pop();
            u64::try_from(age).ok()
        }
        (4, Some(Reply::Null)) => {
            parts.pop();
            None
        }
        _ => None,
    }
}

/// A key with what was found of it.
pub fn entry(key: Bytes, found: Found) -> v1::Entry {
    let Found { version, ttl_ms, value } = found;
    v1::Entry { key, value, version: version.0, written_at_ms: written_at_ms(version), ttl_ms }
}

/// When a version was made, in Unix milliseconds.
pub fn written_at_ms(version: Version) -> i64 {
    i64::try_from(version.millis()).unwrap_or(i64::MAX)
}

/// Of KV.Get.
pub fn get(key: Bytes, mut reply: Reply<'static>) -> Result<v1::GetResponse, Status> {
    let age_ms = take_age(&mut reply);
    Ok(v1::GetResponse { entry: found(reply)?.map(|found| entry(key, found)), age_ms })
}

/// Of SETV.
pub fn put(reply: Reply<'static>) -> Result<v1::PutResponse, Status> {
    match checked(reply)? {
        Reply::Null => Ok(v1::PutResponse { applied: false, version: 0 }),
        Reply::Integer(version) => Ok(v1::PutResponse { applied: true, version: version as u64 }),
        _ => Err(nonsense("SETV")),
    }
}

/// Of DELV.
pub fn delete(reply: Reply<'static>) -> Result<v1::DeleteResponse, Status> {
    match checked(reply)? {
        Reply::Null => Ok(v1::DeleteResponse { deleted: false, found: true }),
        Reply::Integer(removed) => Ok(v1::DeleteResponse { deleted: removed == 1, found: removed == 1 }),
        _ => Err(nonsense("DELV")),
    }
}

/// Of SCAN: where to go on, 0 at the end, and keys.
pub fn scanned(reply: Reply<'static>) -> Result<(u64, Vec<Bytes>), Status> {
    let Reply::Array(parts) = checked(reply)? else { return Err(nonsense("SCAN")) };
    match <[Reply<'static>; 2]>::try_from(parts) {
        Ok([Reply::Bulk(cursor), Reply::Array(keys)]) => {
            let cursor = std::str::from_utf8(&cursor).ok().and_then(|text| text.parse().ok());
            let keys = keys.into_iter().map(|key| match key {
                Reply::Bulk(key) => Some(key.into_bytes()),
                _ => None,
            });
            cursor.zip(keys.collect::<Option<Vec<_>>>()).ok_or_else(|| nonsense("SCAN"))
        }
        _ => Err(nonsense("SCAN")),
    }
}

/// Of CHANGES: up to where it has looked, and what it found.
pub fn changes(reply: Reply<'static>) -> Result<(Position, Vec<v1::Change>), Status> {
    let Reply::Array(parts) = checked(reply)? else { return Err(nonsense("CHANGES")) };
    match <[Reply<'static>; 3]>::try_from(parts) {
        Ok([Reply::Integer(epoch), Reply::Integer(lsn), Reply::Array(found)]) => {
            let place = Position { epoch: Epoch(epoch as u64), lsn: Lsn(lsn as u64) };
            let changes = found.into_iter().map(change).collect::<Option<Vec<_>>>();
            Ok((place, changes.ok_or_else(|| nonsense("CHANGES"))?))
        }
        _ => Err(nonsense("CHANGES")),
    }
}

/// One change; none where it is told otherwise than this build knows.
fn change(reply: Reply<'static>) -> Option<v1::Change> {
    let Reply::Array(parts) = reply else { return None };
    let mut parts = parts.into_iter();
    let bulk = |parts: &mut std::vec::IntoIter<Reply<'static>>| match parts.next() {
        Some(Reply::Bulk(bytes)) => Some(bytes.into_bytes()),
        _ => None,
    };
    let number = |parts: &mut std::vec::IntoIter<Reply<'static>>| match parts.next() {
        Some(Reply::Integer(number)) => Some(number),
        _ => None,
    };
    let kind = bulk(&mut parts)?;
    let mut change = v1::Change { version: number(&mut parts)? as u64, ..v1::Change::default() };
    let kind = match &kind[..] {
        b"flush" => v1::ChangeKind::AllRemoved,
        b"set" | b"del" | b"expire" => {
            change.key = bulk(&mut parts)?;
            if &kind[..] != b"del" {
                change.expire_at_ms = u64::try_from(number(&mut parts)?).ok();
            }
            match &kind[..] {
                b"set" => {
                    change.value = bulk(&mut parts)?;
                    v1::ChangeKind::Set
                }
                b"del" => v1::ChangeKind::Removed,
                _ => v1::ChangeKind::Expiry,
            }
        }
        _ => return None,
    };
    change.set_kind(kind);
    Some(change)
}

/// Of a command that just says OK.
pub fn done(reply: Reply<'static>) -> Result<(), Status> {
    checked(reply).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use command::CommandError;
    use tonic::Code;

    #[test]
    fn what_changes_tells() {
        let place = Position { epoch: Epoch(3), lsn: Lsn(9) };
        let told = |kind: &'static str, version, rest: Vec<Reply<'static>>| {
            Reply::Array([vec![Reply::bulk(kind), Reply::Integer(version)], rest].concat())
        };
        let reply = |found| Reply::Array(vec![Reply::Integer(3), Reply::Integer(9), Reply::Array(found)]);
        let found = vec![
            told("set", 7, vec![Reply::bulk("k"), Reply::Integer(5), Reply::bulk("v")]),
            told("del", 8, vec![Reply::bulk("k")]),
            told("expire", 9, vec![Reply::bulk("k"), Reply::Integer(-1)]),
            told("flush", 10, vec![]),
        ];
        let (at, changes) = changes(reply(found)).unwrap();
        assert_eq!(at, place);
        let kinds: Vec<v1::ChangeKind> = changes.iter().map(v1::Change::kind).collect();
        use v1::ChangeKind::{AllRemoved, Expiry, Removed, Set};
        assert_eq!(kinds, [Set, Removed, Expiry, AllRemoved]);
        assert_eq!(changes.iter().map(|change| change.version).collect::<Vec<_>>(), [7, 8, 9, 10]);
        assert_eq!((&changes[0].value[..], changes[0].expire_at_ms), (&b"v"[..], Some(5)));
        assert!(changes[..3].iter().all(|change| &change.key[..] == b"k") && changes[3].key.is_empty());
        assert_eq!(changes[2].expire_at_ms, None);
        for odd in [told("new", 1, vec![]), told("set", 1, vec![Reply::bulk("k")]), Reply::Null] {
            assert!(super::changes(reply(vec![odd])).is_err());
        }
    }

    #[test]
    fn what_getv_tells() {
        let version = (1_700_000_000_000u64 << 16) | 3;
        let reply =
            |left| Reply::Array(vec![Reply::Integer(version as i64), Reply::Integer(left), Reply::bulk("v")]);
        let entry = get("k".into(), reply(9)).unwrap().entry.unwrap();
        assert_eq!((entry.version, entry.written_at_ms, entry.ttl_ms), (version, 1_700_000_000_000, Some(9)));
        assert_eq!((&entry.key[..], &entry.value[..]), (&b"k"[..], &b"v"[..]));
        assert_eq!(get("k".into(), reply(-1)).unwrap().entry.unwrap().ttl_ms, None);
        assert_eq!(get("k".into(), Reply::Null).unwrap().entry, None);
        let aged = |told: [Reply<'static>; 4]| get("k".into(), Reply::Array(told.into())).unwrap();
        let told = aged([Reply::Integer(7), Reply::Integer(-1), Reply::bulk("v"), Reply::Integer(30)]);
        assert_eq!((told.entry.unwrap().version, told.age_ms), (7, Some(30)));
        let told = aged([Reply::Null, Reply::Null, Reply::Null, Reply::Integer(30)]);
        assert_eq!((told.entry, told.age_ms), (None, Some(30)));
        let told = aged([Reply::Null, Reply::Null, Reply::Null, Reply::Null]);
        assert_eq!((told.entry, told.age_ms), (None, None));
        assert_eq!(found(Reply::ok()).unwrap_err().code(), Code::Internal);
        assert_eq!(found(CommandError::WrongType.into()).unwrap_err().code(), Code::FailedPrecondition);
    }

    #[test]
    fn what_setv_delv_and_scan_tell() {
        assert_eq!(put(Reply::Integer(5)).unwrap(), v1::PutResponse { applied: true, version: 5 });
        assert!(!put(Reply::Null).unwrap().applied);
        let told = |reply| delete(reply).map(|told| (told.deleted, told.found)).unwrap();
        assert_eq!(told(Reply::Integer(1)), (true, true));
        assert_eq!(told(Reply::Integer(0)), (false, false));
        assert_eq!(told(Reply::Null), (false, true));
        let page = Reply::Array(vec![Reply::bulk("17"), Reply::Array(vec![Reply::bulk("a")])]);
        assert_eq!(scanned(page).unwrap(), (17, vec![Bytes::from("a")]));
        let wrong = Reply::Array(vec![Reply::bulk("x"), Reply::Array(Vec::new())]);
        assert_eq!(scanned(wrong).unwrap_err().code(), Code::Internal);
    }
}
