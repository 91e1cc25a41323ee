//! The doors for clients: accepts connections on both ports and deals them to the shards in turn.

use crate::StartError;
use crate::threads::{Mail, Threads};
use command::Door;
use mio::{Events, Interest, Poll, Token, Waker};
use std::io::{self, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tracing::warn;
use types::shared_settings::SettingsReader;

/// How many connections may wait for this thread.
const BACKLOG: i32 = 4096;
const WAKER: Token = Token(usize::MAX);
/// How long to let others close their files where the process has none left.
const OUT_OF_FILES_PAUSE: Duration = Duration::from_millis(20);
const REFUSAL: &[u8] = b"-ERR max number of clients reached\r\n";

/// How many clients are connected.
#[derive(Debug, Default)]
pub struct ClientCount {
    connected: AtomicUsize,
    refused: AtomicU64,
}

impl ClientCount {
    /// Takes a place, if one of so many is free.
    pub fn enter(&self, most: usize) -> bool {
        if self.connected.fetch_add(1, Ordering::Relaxed) < most {
            return true;
        }
        self.leave();
        self.refused.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Gives a place back.
    pub fn leave(&self) {
        self.connected.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many found no place.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How many places are taken.
    pub fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }
}

/// Opens a port, with a queue for bursts of connections. `setting` names it to whoever has to change it.
pub fn listen(host: &str, port: u16, setting: &'static str) -> Result<TcpListener, StartError> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let failed = |source: io::Error| StartError::Port { setting, host: host.to_owned(), port, source };
    let listener = TcpListener::bind((host, port)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    // The standard library asks for a short queue; asking again makes it longer.
    rustix::net::listen(&listener, BACKLOG).map_err(|errno| failed(errno.into()))?;
    Ok(listener)
}

struct Port {
    listener: mio::net::TcpListener,
    door: Door,
    ready: bool,
}

/// The accepting thread's state.
pub struct ClientPorts {
    poll: Poll,
    ports: Vec<Port>,
    threads: Threads,
    count: Arc<ClientCount>,
    settings: SettingsReader,
    next_shard: usize,
    stop: Arc<AtomicBool>,
}

/// Tells the accepting thread to stop.
#[derive(Debug)]
pub struct ClientPortsStop {
    waker: Waker,
    stop: Arc<AtomicBool>,
}

impl ClientPortsStop {
    /// The ports close soon.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.waker.wake();
    }
}

impl ClientPorts {
    /// Watches open ports.
    pub fn new(
        listeners: Vec<(TcpListener, Door)>,
        threads: Threads,
        count: Arc<ClientCount>,
        settings: SettingsReader,
    ) -> io::Result<(ClientPorts, ClientPortsStop)> {
        let poll = Poll::new()?;
        let mut ports = Vec::new();
        for (at, (listener, door)) in listeners.into_iter().enumerate() {
            let mut listener = mio::net::TcpListener::from_std(listener);
            poll.registry().register(&mut listener, Token(at), Interest::READABLE)?;
            ports.push(Port { listener, door, ready: false });
        }
        let stop = Arc::new(AtomicBool::new(false));
        let waker = Waker::new(poll.registry(), WAKER)?;
        let handle = ClientPortsStop { waker, stop: stop.clone() };
        Ok((ClientPorts { poll, ports, threads, count, settings, next_shard: 0, stop }, handle))
    }

    /// Accepts until told to stop.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(8);
        let mut out_of_files = false;
        while !self.stop.load(Ordering::SeqCst) {
            let timeout = out_of_files.then_some(OUT_OF_FILES_PAUSE);
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != ErrorKind::Interrupted
            {
                warn!(%error, "cannot wait for connections");
                std::thread::sleep(OUT_OF_FILES_PAUSE);
            }
            for event in &events {
                if let Some(port) = self.ports.get_mut(event.token().0) {
                    port.ready = true;
                }
            }
            out_of_files = false;
            for at in 0..self.ports.len() {
                out_of_files |= self.ports[at].ready && !self.accept(at);
            }
        }
        // Who has connected before the ports close may have sent something already.
        for at in 0..self.ports.len() {
            self.accept(at);
        }
    }

    /// Accepts all that wait at one port. False where the process cannot open more files now.
    fn accept(&mut self, at: usize) -> bool {
        loop {
            let port = &mut self.ports[at];
            match port.listener.accept() {
                Ok((stream, _)) => {
                    let door = port.door;
                    self.deal(stream.into(), door);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    port.ready = false;
                    return true;
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) => {
                    warn!(%error, "cannot accept a client: are there enough file descriptors (ulimit -n)?");
                    return false;
                }
            }
        }
    }

    fn deal(&mut self, mut stream: TcpStream, door: Door) {
        self.settings.refresh();
        if !self.count.enter(self.settings.maxclients as usize) {
            // Nonblocking, and the buffer of a new connection is empty: this never waits.
            let _ = stream.write(REFUSAL);
            return;
        }
        let _ = stream.set_nodelay(true);
        let shard = self.next_shard % self.threads.shards.len();
        self.next_shard = shard + 1;
        self.threads.shards[shard].send(Mail::Client(stream, door));
    }
}
