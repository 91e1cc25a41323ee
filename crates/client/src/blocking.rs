//! The client for programs without a runtime: the same calls, each of which waits for its result.
//!
//! It has a runtime of its own, on one thread, which all clones share. Calls can be made from many threads at a time.

use crate::builder::Builder;
use crate::calls::TimeToLive;
use crate::error::Error;
use crate::set_options::SetOptions;
use command::Reply;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Handle, Runtime};

/// A cluster's client whose calls block. Cloning it is cheap.
///
/// Not for tasks of a runtime: there every call is [`Error::Setup`], since it would hold up the runtime's thread.
#[derive(Clone, Debug)]
pub struct Client {
    inner: crate::Client,
    runtime: Arc<Own>,
}

/// A runtime that can be dropped anywhere.
#[derive(Debug)]
struct Own(Option<Runtime>);

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Own {
    fn run<T>(&self, call: impl Future<Output = T>) -> Result<T, Error> {
        if Handle::try_current().is_ok() {
            return Err(Error::Setup { why: "a blocking client was called from a task of a runtime".into() });
        }
        match &self.0 {
            Some(runtime) => Ok(runtime.block_on(call)),
            None => Err(Error::Setup { why: "the client has ended".into() }),
        }
    }
}

/// Methods that wait for those of the same name.
macro_rules! waiting {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) -> $result:ty;)+) => {
        impl Client {
            $($(#[$doc])*
            ///
            /// # Errors
            ///
            /// Those of the method of the same name of [`crate::Client`].
            pub fn $name(&self, $($arg: $type),*) -> Result<$result, Error> {
                self.runtime.run(self.inner.$name($($arg),*))?
            })+
        }
    };
}

waiting! {
    /// The value of a key, if it has one.
    fn get(key: impl AsRef<[u8]>) -> Option<Vec<u8>>;
    /// Stores a value, whatever was there.
    fn set(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> ();
    /// Stores a value under a condition, or for a time. Returns whether it was stored.
    fn set_with(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, options: &SetOptions) -> bool;
    /// Stores a value only where the key has the expected one. Returns whether it was stored.
    fn compare_and_set(key: impl AsRef<[u8]>, expected: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> bool;
    /// Removes keys. Returns how many there were.
    fn del(keys: &[impl AsRef<[u8]>]) -> u64;
    /// How many of these keys there are.
    fn exists(keys: &[impl AsRef<[u8]>]) -> u64;
    /// Lets a key last for so long from now. Returns whether there is such a key.
    fn expire(key: impl AsRef<[u8]>, lifetime: Duration) -> bool;
    /// Lets a key last for ever. Returns whether it had an end.
    fn persist(key: impl AsRef<[u8]>) -> bool;
    /// How long a key lasts.
    fn ttl(key: impl AsRef<[u8]>) -> TimeToLive;
    /// Adds to the number that a key holds, and returns the new one.
    fn incr_by(key: impl AsRef<[u8]>, by: i64) -> i64;
    /// The values of many keys, in their order.
    fn mget(keys: &[impl AsRef<[u8]>]) -> Vec<Option<Vec<u8>>>;
    /// Stores many values.
    fn mset(pairs: &[(impl AsRef<[u8]>, impl AsRef<[u8]>)]) -> ();
    /// Runs any command, its name first.
    fn command(args: &[impl AsRef<[u8]>]) -> Reply<'static>;
}

impl Client {
    pub(crate) fn connect(builder: Builder) -> Result<Client, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("annulet-client")
            .enable_all()
            .build()
            .map_err(|error| Error::Setup { why: format!("no runtime can be started: {error}") })?;
        let runtime = Arc::new(Own(Some(runtime)));
        let inner = runtime.run(builder.connect())??;
        Ok(Client { inner, runtime })
    }

    /// The client that it is made of, to set levels and deadline: `client.with(|inner| inner.with_deadline(short))`.
    #[must_use]
    pub fn with(&self, change: impl FnOnce(&crate::Client) -> crate::Client) -> Client {
        Client { inner: change(&self.inner), runtime: self.runtime.clone() }
    }

    /// Runs a pipeline, which `fill` puts requests into. Returns a result for each, in their order.
    ///
    /// # Errors
    ///
    /// Only [`Error::Setup`]; the requests' own errors are among the results.
    pub fn pipeline(
        &self,
        fill: impl FnOnce(&mut crate::Pipeline),
    ) -> Result<Vec<Result<Reply<'static>, Error>>, Error> {
        let mut pipeline = self.inner.pipeline();
        fill(&mut pipeline);
        self.runtime.run(pipeline.run())
    }

    /// Goes through all keys of the cluster that match a pattern (`*` for all), a page at a time.
    pub fn scan(&self, pattern: impl Into<Vec<u8>>) -> Pages {
        Pages { scan: Some(self.inner.scan().matching(pattern)), runtime: self.runtime.clone() }
    }
}

/// Pages of keys. It ends after the first error.
#[derive(Debug)]
pub struct Pages {
    scan: Option<crate::Scan>,
    runtime: Arc<Own>,
}

impl Iterator for Pages {
    type Item = Result<Vec<Vec<u8>>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let scan = self.scan.as_mut()?;
        let page = self.runtime.run(scan.next_page()).and_then(|page| page);
        if !matches!(page, Ok(Some(_))) {
            self.scan = None;
        }
        page.transpose()
    }
}
