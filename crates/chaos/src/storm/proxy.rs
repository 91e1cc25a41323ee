//! A proxy between a node and the others that a bad network is made of: it delays what it passes on, holds it back for seconds, breaks
//! connections off in the middle of a message, or swallows everything and only then breaks off.
//!
//! The packet filter sends the node's connections to others here. What a connection was meant for the kernel still knows (SO_ORIGINAL_DST);
//! the proxy's own way there carries a mark, by which the packet filter lets it pass. TCP's promise is kept: no byte is lost from the
//! middle of a stream that goes on.

use crate::failure::Failure;
use history::random::Random;
use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt::ip_original_dst};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The mark of the proxy's own connections.
pub(super) const MARK: u32 = 0x77;
/// Most bytes passed on at once.
const PIECE: usize = 8192;
/// From one look at whether to stop to the next.
const TICK: Duration = Duration::from_millis(20);

/// How bad it is. Chances are of one piece, in a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Badness {
    pub delay_ms_max: u64,
    pub stall_chance: u64,
    pub stall_ms_max: u64,
    /// Broken off in the middle of a piece.
    pub cut_chance: u64,
    /// Swallowed from here on, and broken off after a stall.
    pub swallow_chance: u64,
}

/// What it did.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub connections: AtomicU64,
    pub bytes: AtomicU64,
    pub stalls: AtomicU64,
    pub cuts: AtomicU64,
}

/// Where a connection goes on: what it was meant for, by default.
type Target = fn(&TcpStream) -> std::io::Result<SocketAddr>;

/// One that runs. It ends with this, and every connection with it.
pub(super) struct Proxy {
    pub port: u16,
    pub done: Arc<Done>,
    stop: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    thread: Option<JoinHandle<()>>,
}

/// Where the packet filter found the connection to be going.
fn original(stream: &TcpStream) -> std::io::Result<SocketAddr> {
    Ok(ip_original_dst(stream)?.into())
}

impl Proxy {
    /// Listens on a free port in the network namespace that `enter` moves a thread into.
    pub(super) fn start(
        badness: Badness,
        seed: u64,
        enter: impl FnOnce() -> Result<(), Failure> + Send + 'static,
    ) -> Result<Proxy, Failure> {
        Proxy::start_to(badness, seed, original, enter)
    }

    fn start_to(
        badness: Badness,
        seed: u64,
        target: Target,
        enter: impl FnOnce() -> Result<(), Failure> + Send + 'static,
    ) -> Result<Proxy, Failure> {
        let done = Arc::new(Done::default());
        let stop = Arc::new(AtomicBool::new(false));
        let open = Arc::new(Mutex::new(Vec::new()));
        let (tell, told) = mpsc::channel();
        let thread = std::thread::Builder::new().name("proxy".into()).spawn({
            let (done, stop, open) = (done.clone(), stop.clone(), open.clone());
            move || {
                let listening = enter().and_then(|()| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?));
                let listener = listening.and_then(|listener| {
                    listener.set_nonblocking(true)?;
                    Ok((listener.local_addr()?.port(), listener))
                });
                match listener {
                    Ok((port, listener)) => {
                        let _ = tell.send(Ok(port));
                        accept(&listener, badness, Random::new(seed), target, &done, &stop, &open);
                    }
                    Err(failure) => _ = tell.send(Err(failure)),
                }
            }
        })?;
        let port = told.recv().map_err(|_| "the proxy's thread has died")??;
        Ok(Proxy { port, done, stop, open, thread: Some(thread) })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for stream in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn accept(
    listener: &TcpListener,
    badness: Badness,
    mut random: Random,
    target: Target,
    done: &Arc<Done>,
    stop: &Arc<AtomicBool>,
    open: &Mutex<Vec<TcpStream>>,
) {
    while !stop.load(Ordering::Relaxed) {
        let (near, _) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(_) => {
                std::thread::sleep(TICK / 4);
                continue;
            }
        };
        done.connections.fetch_add(1, Ordering::Relaxed);
        // A peer that cannot be reached is one that breaks off.
        let Ok(pair) = target(&near).and_then(|to| Ok((go_on(to)?, near))) else { continue };
        let (far, near) = pair;
        let _ = near.set_nonblocking(false);
        let _ = near.set_nodelay(true);
        let mut pumps = Vec::new();
        for (from, to) in [(&near, &far), (&far, &near)] {
            let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
            let _ = from.set_read_timeout(Some(TICK));
            let (done, stop, random) = (done.clone(), stop.clone(), random.fork());
            let pump = Pump { from, to, badness, random, done, stop };
            // Not joined: it ends with its connection.
            pumps.push(std::thread::Builder::new().name("pump".into()).spawn(move || pump.run()));
        }
        if pumps.len() == 2 && pumps.iter().all(Result::is_ok) {
            open.lock().unwrap_or_else(PoisonError::into_inner).extend([near, far]);
        } else {
            let _ = near.shutdown(Shutdown::Both);
        }
    }
}

/// The proxy's own way to where the connection was going.
fn go_on(to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    // Without the right to mark there is no packet filter to pass either.
    let _ = setsockopt(&socket, sockopt::Mark, &MARK);
    connect(&socket, &to)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One direction of a connection.
struct Pump {
    from: TcpStream,
    to: TcpStream,
    badness: Badness,
    random: Random,
    done: Arc<Done>,
    stop: Arc<AtomicBool>,
}

impl Pump {
    fn run(mut self) {
        let _ = self.pass_on();
        let _ = self.from.shutdown(Shutdown::Both);
        let _ = self.to.shutdown(Shutdown::Both);
    }

    fn pass_on(&mut self) -> std::io::Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            let count = match self.from.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if self.stop.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            let badness = self.badness;
            let of_million = self.random.below(1_000_000);
            let (stall, cut) = (badness.stall_chance, badness.stall_chance + badness.cut_chance);
            let swallow = cut + badness.swallow_chance;
            if of_million < stall {
                self.done.stalls.fetch_add(1, Ordering::Relaxed);
                self.wait(badness.stall_ms_max);
            } else if of_million < cut {
                self.done.cuts.fetch_add(1, Ordering::Relaxed);
                let part = self.random.below(count as u64) as usize;
                return self.to.write_all(&piece[..part]);
            } else if of_million < swallow {
                self.done.cuts.fetch_add(1, Ordering::Relaxed);
                return self.swallow();
            } else {
                self.wait(badness.delay_ms_max);
            }
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.to.write_all(&piece[..count])?;
            self.done.bytes.fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    /// Waits up to so long, less where the proxy ends.
    fn wait(&mut self, most_ms: u64) {
        let until = Instant::now() + Duration::from_micros(self.random.below(most_ms * 1000 + 1));
        while !self.stop.load(Ordering::Relaxed) {
            match until.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return,
                left => std::thread::sleep(left.min(TICK)),
            }
        }
    }

    fn swallow(&mut self) -> std::io::Result<()> {
        let until = Instant::now() + Duration::from_millis(self.badness.stall_ms_max);
        let mut nowhere = vec![0; PIECE];
        while Instant::now() < until && !self.stop.load(Ordering::Relaxed) {
            match self.from.read(&mut nowhere) {
                Ok(0) => return Ok(()),
                Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(error);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::OnceLock;

    static ECHO: OnceLock<SocketAddr> = OnceLock::new();

    /// A server that sends back what it gets.
    fn echo() -> SocketAddr {
        *ECHO.get_or_init(|| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let address = listener.local_addr().unwrap();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    std::thread::spawn(move || {
                        let (mut from, mut to) = (stream.try_clone().unwrap(), stream);
                        let _ = std::io::copy(&mut from, &mut to);
                    });
                }
            });
            address
        })
    }

    fn proxy(badness: Badness) -> (Proxy, TcpStream) {
        echo();
        let proxy = Proxy::start_to(badness, 7, |_| Ok(*ECHO.get().unwrap()), || Ok(())).unwrap();
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        (proxy, stream)
    }

    const MILD: Badness =
        Badness { delay_ms_max: 2, stall_chance: 0, stall_ms_max: 10, cut_chance: 0, swallow_chance: 0 };

    #[test]
    fn what_is_delayed_or_held_back_comes_whole_and_in_order() {
        let badness = Badness { stall_chance: 300_000, ..MILD };
        let (proxy, mut stream) = proxy(badness);
        let sent: Vec<u8> = (0..100_000u32).map(|number| (number % 251) as u8).collect();
        let mut writer = stream.try_clone().unwrap();
        let bytes = sent.clone();
        let writing = std::thread::spawn(move || writer.write_all(&bytes).unwrap());
        let mut received = vec![0; sent.len()];
        stream.read_exact(&mut received).unwrap();
        writing.join().unwrap();
        assert!(sent == received);
        assert!(proxy.done.stalls.load(Ordering::Relaxed) > 0);
        assert_eq!(proxy.done.connections.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_cut_connection_ends_and_never_shows_more_than_a_part() {
        for badness in
            [Badness { cut_chance: 1_000_000, ..MILD }, Badness { swallow_chance: 1_000_000, ..MILD }]
        {
            let (proxy, mut stream) = proxy(badness);
            stream.write_all(b"hello").unwrap();
            let mut received = Vec::new();
            // An end or a reset, as the kernel likes.
            let _ = stream.read_to_end(&mut received);
            assert!(received.len() < 5, "{received:?}");
            assert!(proxy.done.cuts.load(Ordering::Relaxed) > 0);
        }
    }

    #[test]
    fn connections_end_with_the_proxy() {
        let (proxy, mut stream) = proxy(MILD);
        stream.write_all(b"hello").unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
        drop(proxy);
        assert!(stream.read(&mut [0; 1]).is_ok_and(|count| count == 0) || stream.write_all(b"more").is_err());
    }
}
