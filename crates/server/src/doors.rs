//! The threads of the doors on the runtime: HTTP and the line port. They are not those of the nodes' handshakes, so that no client
//! keeps a node waiting.
//!
//! A node that stops lets the clients of these doors go as it does those of RESP ([`crate::stop`]): first the ports close and whoever
//! is quiet is let go, then, once all are gone or patience is at its end, the threads end.

use std::io;
use std::net::TcpListener;
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
        Ok(Doors { runtime, parting: watch::Sender::new(false) })
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

    /// The clients are to be let go.
    pub fn part(&self) {
        self.parting.send_replace(true);
    }

    /// Ends the threads.
    pub fn end(self) {
        self.runtime.shutdown_timeout(ENDING);
    }
}
