//! The commands: one file each, families together. A file holds a command's row of the table, its parsing and what it
//! does.

pub mod annulet;
pub mod append;
pub mod auth;
pub mod bitcount;
pub mod bitpos;
pub mod changes;
pub mod client;
pub mod cluster;
pub mod command;
pub mod config;
pub mod consistency;
pub mod copy;
pub mod dbsize;
pub mod del;
pub mod delv;
pub mod echo;
pub mod exists;
pub mod expire;
pub mod flushall;
pub mod get;
pub mod getdel;
pub mod getex;
pub mod getrange;
pub mod getset;
pub mod getv;
pub mod hello;
pub mod incr;
pub mod incrbyfloat;
pub mod info;
pub mod keys;
pub mod latency;
pub mod memory;
pub mod mget;
pub mod mset;
pub mod msetnx;
pub mod multi;
pub mod object;
pub mod persist;
pub mod ping;
pub mod quit;
pub mod randomkey;
pub mod readonly;
pub mod rename;
pub mod reset;
pub mod save;
pub mod scan;
pub mod select;
pub mod set;
pub mod setbit;
pub mod setex;
pub mod setnx;
pub mod setrange;
pub mod setv;
pub mod slowlog;
pub mod strlen;
pub mod time;
pub mod ttl;
pub mod r#type;
pub mod wait;

use crate::Blob;
use crate::error::CommandError;
use crate::number::parse_i64;
use storage::{Entry, Keyspace, Value};
use types::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// The bytes of a string; WRONGTYPE for anything else.
pub(crate) fn string_of(value: Value<'_>) -> Result<&[u8], CommandError> {
    match value {
        Value::String(bytes) => Ok(bytes),
    }
}

/// The string that an entry has, for a reply; WRONGTYPE for anything else.
pub(crate) fn blob_of<'e>(entry: &Entry<'e>) -> Result<Blob<'e>, CommandError> {
    match entry.value {
        Value::String(_) => Ok(Blob::string_of(entry)),
    }
}

/// The name of a value's type, as `TYPE` shows it.
pub(crate) fn type_name(value: Value<'_>) -> &'static str {
    match value {
        Value::String(_) => "string",
    }
}

/// Stores a string, within the limits: every command that makes keys comes through here.
pub(crate) fn put_string(
    keyspace: &mut Keyspace<'_>,
    key: &[u8],
    value: &[u8],
    expire_at_ms: Option<u64>,
) -> Result<(), CommandError> {
    if key.len() > KEY_BYTES_MAX {
        return Err(CommandError::KeyTooLong);
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(CommandError::ValueTooLong);
    }
    keyspace.put(key, Value::String(value), expire_at_ms);
    Ok(())
}

/// A key's value and expiry, to be stored elsewhere; `None` where it is absent.
pub(crate) fn copy_of(keyspace: &mut Keyspace<'_>, key: &[u8]) -> Option<(Blob<'static>, Option<u64>)> {
    let entry = keyspace.get(key)?;
    // A new type of value has to say here how it is taken along.
    let bytes = match entry.value {
        Value::String(_) => Blob::string_of(&entry).without_borrow(),
    };
    Some((bytes, entry.expire_at_ms))
}

/// Stores what [`copy_of`] has found.
pub(crate) fn put_copy(
    keyspace: &mut Keyspace<'_>,
    key: &[u8],
    value: Blob<'_>,
    expire_at_ms: Option<u64>,
) -> Result<(), CommandError> {
    match value {
        Blob::Shared(value) if key.len() <= KEY_BYTES_MAX => keyspace.share(key, value, expire_at_ms),
        value => put_string(keyspace, key, &value, expire_at_ms)?,
    }
    Ok(())
}

/// An argument that has to be an integer.
pub(crate) fn integer(arg: &[u8]) -> Result<i64, CommandError> {
    parse_i64(arg).ok_or(CommandError::NotInteger)
}

/// An argument that has to name a database: 0 is the only one.
pub(crate) fn database(arg: &[u8]) -> Result<(), CommandError> {
    match i32::try_from(integer(arg)?) {
        Ok(0) => Ok(()),
        Ok(_) => Err(CommandError::DatabaseOutOfRange),
        Err(_) => {
            let text = format!("ERR value is out of range, value must between {} and {}", i32::MIN, i32::MAX);
            Err(CommandError::Other(text))
        }
    }
}

/// A lifetime's end in Unix milliseconds: positive, and in 63 bits. `command` is who asks, for the error.
pub(crate) fn end_ms(
    command: &'static str,
    amount: &[u8],
    seconds: bool,
    relative: bool,
    now_ms: u64,
) -> Result<u64, CommandError> {
    let invalid = || CommandError::InvalidExpire { command: command.into() };
    let amount = integer(amount)?;
    if amount <= 0 {
        return Err(invalid());
    }
    let amount = if seconds { amount.checked_mul(1000).ok_or_else(invalid)? } else { amount };
    let start = if relative { i64::try_from(now_ms).map_err(|_| invalid())? } else { 0 };
    Ok(amount.checked_add(start).ok_or_else(invalid)? as u64)
}

/// Whether an argument is this word, in either case.
pub(crate) fn is(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}

/// Text for a message: what a stranger sent, at most 128 bytes of it.
pub(crate) fn shown(arg: &[u8]) -> String {
    String::from_utf8_lossy(&arg[..arg.len().min(128)]).into_owned()
}
