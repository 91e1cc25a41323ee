//! The calls that most programs need, with Rust's types for arguments and results. Everything else is [`Client::command`].
//!
//! A call on several keys is carried out key by key (docs/consistency.md): atomic only for keys of one slot, such as those
//! with the same `{tag}`.

use crate::client::Client;
use crate::error::Error;
use crate::request::plan;
use crate::set_options::SetOptions;
use command::Reply;
use std::time::Duration;

/// What a key's time to live is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeToLive {
    /// There is no such key.
    Absent,
    /// It lasts.
    Forever,
    /// It is removed after this long, to the millisecond.
    Left(Duration),
}

impl Client {
    async fn call(&self, args: &[&[u8]]) -> Result<Reply<'static>, Error> {
        self.run_plan(plan(args)?).await
    }

    /// The value of a key, if it has one.
    ///
    /// # Errors
    ///
    /// As for every call: see [`Error`].
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, Error> {
        value(self.call(&[b"GET", key.as_ref()]).await?)
    }

    /// Stores a value, whatever was there.
    ///
    /// # Errors
    ///
    /// As for every write: see [`Error`], above all [`Error::OutcomeUnknown`].
    pub async fn set(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Error> {
        ok(&self.call(&[b"SET", key.as_ref(), value.as_ref()]).await?)
    }

    /// Stores a value under a condition, or for a time. Returns whether it was stored.
    ///
    /// # Errors
    ///
    /// As [`Client::set`].
    pub async fn set_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: &SetOptions,
    ) -> Result<bool, Error> {
        let words = options.words();
        let mut args = vec![&b"SET"[..], key.as_ref(), value.as_ref()];
        args.extend(words.iter().map(Vec::as_slice));
        match self.call(&args).await? {
            Reply::Null => Ok(false),
            reply => ok(&reply).map(|()| true),
        }
    }

    /// Stores a value only where the key has the expected one. Returns whether it was stored.
    ///
    /// # Errors
    ///
    /// As [`Client::set`].
    pub async fn compare_and_set(
        &self,
        key: impl AsRef<[u8]>,
        expected: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<bool, Error> {
        self.set_with(key, value, &SetOptions::new().if_equal(expected.as_ref())).await
    }

    /// Removes keys. Returns how many there were.
    ///
    /// # Errors
    ///
    /// As [`Client::set`]; [`Error::Partial`] where some were removed and others not.
    pub async fn del<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<u64, Error> {
        self.count("DEL", keys).await
    }

    /// How many of these keys there are; one that is named twice counts twice.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn exists<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<u64, Error> {
        self.count("EXISTS", keys).await
    }

    async fn count<K: AsRef<[u8]>>(&self, name: &str, keys: &[K]) -> Result<u64, Error> {
        if keys.is_empty() {
            return Ok(0);
        }
        let args: Vec<&[u8]> = [name.as_bytes()].into_iter().chain(keys.iter().map(AsRef::as_ref)).collect();
        let reply = self.call(&args).await?;
        integer(&reply).and_then(|number| u64::try_from(number).map_err(|_| Error::unexpected(&reply)))
    }

    /// Lets a key last for so long from now. Returns whether there is such a key.
    ///
    /// # Errors
    ///
    /// As [`Client::set`].
    pub async fn expire(&self, key: impl AsRef<[u8]>, lifetime: Duration) -> Result<bool, Error> {
        let ms = lifetime.as_millis().to_string();
        flag(&self.call(&[b"PEXPIRE", key.as_ref(), ms.as_bytes()]).await?)
    }

    /// Lets a key last for ever. Returns whether it had an end.
    ///
    /// # Errors
    ///
    /// As [`Client::set`].
    pub async fn persist(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        flag(&self.call(&[b"PERSIST", key.as_ref()]).await?)
    }

    /// How long a key lasts.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn ttl(&self, key: impl AsRef<[u8]>) -> Result<TimeToLive, Error> {
        let reply = self.call(&[b"PTTL", key.as_ref()]).await?;
        match integer(&reply)? {
            -2 => Ok(TimeToLive::Absent),
            -1 => Ok(TimeToLive::Forever),
            ms => {
                let ms = u64::try_from(ms).map_err(|_| Error::unexpected(&reply))?;
                Ok(TimeToLive::Left(Duration::from_millis(ms)))
            }
        }
    }

    /// Adds to the number that a key holds, 0 where it is absent, and returns the new one.
    ///
    /// # Errors
    ///
    /// As [`Client::set`]. After [`Error::OutcomeUnknown`] it must not simply be sent again: it would count twice.
    pub async fn incr_by(&self, key: impl AsRef<[u8]>, by: i64) -> Result<i64, Error> {
        integer(&self.call(&[b"INCRBY", key.as_ref(), by.to_string().as_bytes()]).await?)
    }

    /// The values of many keys, in their order.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn mget<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let args: Vec<&[u8]> = [&b"MGET"[..]].into_iter().chain(keys.iter().map(AsRef::as_ref)).collect();
        match self.call(&args).await? {
            Reply::Array(values) if values.len() == keys.len() => values.into_iter().map(value).collect(),
            other => Err(Error::unexpected(&other)),
        }
    }

    /// Stores many values.
    ///
    /// # Errors
    ///
    /// As [`Client::set`]; [`Error::Partial`] where some were stored and others not.
    pub async fn mset<K: AsRef<[u8]>, V: AsRef<[u8]>>(&self, pairs: &[(K, V)]) -> Result<(), Error> {
        if pairs.is_empty() {
            return Ok(());
        }
        let mut args = vec![&b"MSET"[..]];
        args.extend(pairs.iter().flat_map(|(key, value)| [key.as_ref(), value.as_ref()]));
        ok(&self.call(&args).await?)
    }
}

/// Bytes, or nothing.
fn value(reply: Reply<'static>) -> Result<Option<Vec<u8>>, Error> {
    match reply {
        Reply::Bulk(bytes) => Ok(Some(bytes.into_owned())),
        Reply::Null => Ok(None),
        other => Err(Error::unexpected(&other)),
    }
}

fn ok(reply: &Reply<'static>) -> Result<(), Error> {
    if *reply == Reply::ok() { Ok(()) } else { Err(Error::unexpected(reply)) }
}

fn integer(reply: &Reply<'static>) -> Result<i64, Error> {
    if let Reply::Integer(number) = reply { Ok(*number) } else { Err(Error::unexpected(reply)) }
}

fn flag(reply: &Reply<'static>) -> Result<bool, Error> {
    match reply {
        Reply::Integer(0) => Ok(false),
        Reply::Integer(1) => Ok(true),
        other => Err(Error::unexpected(other)),
    }
}
