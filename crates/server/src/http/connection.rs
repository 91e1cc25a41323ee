//! One connection of the HTTP port, from its first byte to its end: HTTP/1.1, or HTTP/2 where the client begins with that (in the
//! clear, without asking first, as gRPC does).
//!
//! It lives for a limited time, so that nobody holds a place for ever: then it is ended in order, after what is under way. A
//! request that is under way prolongs it, since those that stream may take long; each of them has bounds of its own.

use crate::doors::parted;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long the head of a request may take to come, also after an earlier request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection lives, unless a request is under way.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);
/// How often one that is old is looked at.
const LOOKS: Duration = Duration::from_secs(1);
/// How long what is under way may take once the connection is to end.
const ENDING: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// Requests of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 128;
/// How often a quiet HTTP/2 client is asked whether it is there, and how long it may take to say so.
const PINGS: Duration = Duration::from_secs(30);

/// Who asks, and what of it is under way. Each request carries one as an extension.
#[derive(Clone, Debug)]
pub struct Caller {
    /// `host:port` of the other end.
    pub asker: Arc<str>,
    /// Whether this request shows the password of administration. Known once it has been asked for.
    pub administrates: bool,
    /// Requests.
    under_way: Arc<AtomicUsize>,
    /// Whether it has ever asked for anything that it may.
    has_asked: Arc<AtomicBool>,
    /// Whether it takes nothing of what it asked for.
    takes_nothing: Arc<AtomicBool>,
}

impl Default for Caller {
    fn default() -> Caller {
        Caller {
            asker: Arc::from(""),
            administrates: false,
            under_way: Arc::default(),
            has_asked: Arc::default(),
            takes_nothing: Arc::default(),
        }
    }
}

/// A request that is under way.
#[derive(Debug)]
pub struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    /// Counts until it is dropped.
    pub fn begin(caller: &Caller) -> UnderWay {
        caller.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(caller.under_way.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Caller {
    /// It has shown that it may ask.
    pub(crate) fn is_known(&self) {
        self.has_asked.store(true, Ordering::Relaxed);
    }

    /// It takes nothing of what it asked for: its connection is to end.
    pub(crate) fn give_up(&self) {
        self.takes_nothing.store(true, Ordering::Relaxed);
    }

    /// Whether a connection of this age has to end.
    fn is_over(&self, age: Duration) -> bool {
        let is_busy = self.under_way.load(Ordering::Relaxed) > 0;
        self.takes_nothing.load(Ordering::Relaxed)
            || age >= HEAD_TIMEOUT && !self.has_asked.load(Ordering::Relaxed)
            || age >= CONNECTION_TIMEOUT && !is_busy
    }
}

/// Serves a connection to its end.
pub async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    mut parting: watch::Receiver<bool>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let _ = stream.set_nodelay(true);
    let caller = Caller { asker: peer.to_string().into(), ..Caller::default() };
    let routes = TowerToHyperService::new(router);
    let asked = caller.clone();
    let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(asked.clone());
        hyper::service::Service::call(&routes, request)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(PINGS)
        .keep_alive_timeout(PINGS);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let began = Instant::now();
    while !caller.is_over(began.elapsed()) {
        tokio::select! {
            ended = connection.as_mut() => return ended,
            // The node lets its clients go: each after what it has under way.
            () = parted(&mut parting) => break,
            () = tokio::time::sleep(LOOKS) => {}
        }
    }
    connection.as_mut().graceful_shutdown();
    let patience = if caller.takes_nothing.load(Ordering::Relaxed) { LOOKS } else { ENDING };
    tokio::time::timeout(patience, connection).await.unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_prolongs_a_connection() {
        let caller = Caller::default();
        assert!(!caller.is_over(HEAD_TIMEOUT / 2));
        assert!(caller.is_over(HEAD_TIMEOUT), "it never asked");
        caller.has_asked.store(true, Ordering::Relaxed);
        assert!(!caller.is_over(HEAD_TIMEOUT));
        let scan = UnderWay::begin(&caller);
        assert!(!caller.is_over(CONNECTION_TIMEOUT * 10));
        drop(scan);
        assert!(caller.is_over(CONNECTION_TIMEOUT));
    }
}
