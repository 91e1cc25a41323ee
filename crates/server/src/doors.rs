//! The threads of the doors on the runtime: HTTP and the line port. They are not those of the nodes' handshakes, so that no client
//! keeps a node waiting.
//!
//! A node that stops lets the clients of these doors go as it does those of RESP ([`crate::stop`]): first the ports close and whoever
//! is quiet is let go, then, once all are gone or patience is at its end, the threads end.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Threads. What they do is small: commands run on the shards.
const THREADS: usize = 2;
/// How long what is under way may take once the shards have ended.
const ENDING: Duration = Duration::from_millis(100);

/// The runtime, and word to those who run on it.
#[derive(Debug)]
pub struct Doors {
    runtime: Runtime,
    parting: watch::Sender<bool>,
    guests: Guests,
}

/// Waits for word that the clients are to be let go; or that there will be none.
pub async fn parted(parting: &mut watch::Receiver<bool>) {
    let _ = parting.wait_for(|parting| *parting).await;
}

/// How many connections there are that are not counted among the node's clients. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Guests(Arc<AtomicUsize>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Guest(Guests);

impl Guests {
    /// One more.
    pub fn enter(&self) -> Guest {
        self.0.fetch_add(1, Ordering::Relaxed);
        Guest(self.clone())
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Doors {
    /// Starts the threads.
    pub fn start() -> io::Result<Doors> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("doors")
            .enable_io()
            .enable_time()
            .build()?;
        Ok(Doors { runtime, parting: watch::Sender::new(false), guests: Guests::default() })
    }

    /// Opens a door: `serve` runs until the node ends, and is told when it should let its clients go.
    pub fn open<F>(
        &self,
        listener: TcpListener,
        serve: impl FnOnce(tokio::net::TcpListener, watch::Receiver<bool>) -> F,
    ) -> io::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = {
            let _inside = self.runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        self.runtime.spawn(serve(listener, self.parting.subscribe()));
        Ok(())
    }

    /// Whom it serves beside the node's clients.
    pub fn guests(&self) -> Guests {
        self.guests.clone()
    }

    /// Word of when the clients are to be let go.
    pub fn parting(&self) -> watch::Receiver<bool> {
        self.parting.subscribe()
    }

    /// The clients are to be let go.
    pub fn part(&self) {
        self.parting.send_replace(true);
    }

    /// Ends the threads.
    pub fn end(self) {
        self.runtime.shutdown_timeout(ENDING);
    }
}
