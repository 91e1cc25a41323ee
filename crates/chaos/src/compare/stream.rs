//! Writes without a break over many connections, each sending its next batch as soon as the last is answered, and how long each
//! batch took. One thread does it, so that what it measures is not its own threads' turns on its processor.

use super::client::{key, request};
use super::spans::Span;
use super::stops::{self, Role};
use crate::failure::Failure;
use history::random::Random;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What every SET is answered.
const OK: &[u8] = b"+OK\r\n";
/// What lasts so long is noted by itself: a batch, and a silence. They are few.
pub(super) const LONG: Duration = Duration::from_millis(3);
pub(super) const LONG_SILENCE: Duration = Duration::from_millis(1);
/// Room for so many batches of a phase is taken before: a list that grows meanwhile is copied, for which the load stands still.
const BATCHES: usize = 16 << 20;
/// How long nothing at all may come.
const PATIENCE: Duration = Duration::from_secs(60);

/// The load.
pub(super) struct Stream {
    pub port: u16,
    pub connections: u64,
    /// Requests of a batch.
    pub pipeline: u64,
    /// Existing keys, of which each is as likely as another.
    pub keys: u64,
    pub value_bytes: usize,
}

/// What was seen in one phase.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    /// How long each batch took that was answered in it, in microseconds.
    pub took_us: Vec<u32>,
    /// Batches that took long.
    pub long: Vec<Span>,
    /// Long times in which nothing at all came: the server answered nobody.
    pub silences: Vec<Span>,
}

struct Connection {
    socket: TcpStream,
    /// The batch to be sent, all alike but for the keys.
    batch: Vec<u8>,
    /// Bytes of it that are sent, and of replies that are read.
    sent: usize,
    read: usize,
    began: Instant,
}

impl Stream {
    /// Writes until the phase is none of so many. Batches count for the phase in which their last answer came.
    pub(super) fn run(&self, phase: &AtomicUsize, phases: usize) -> Result<Vec<Heard>, Failure> {
        stops::take_place(Role::Load);
        let value = vec![b'y'; self.value_bytes];
        let pattern = request(&[b"SET", key(0).as_bytes(), &value]);
        let name = key(0);
        let at = pattern.windows(name.len()).position(|part| part == name.as_bytes());
        let at = at.ok_or("the key is in its request")?;
        let mut random = Random::new(1);
        let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(1024));
        let mut connections = Vec::new();
        for number in 0..self.connections {
            let socket = std::net::TcpStream::connect(("127.0.0.1", self.port))?;
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            let mut socket = TcpStream::from_std(socket);
            poll.registry().register(
                &mut socket,
                Token(number as usize),
                Interest::READABLE | Interest::WRITABLE,
            )?;
            let batch = pattern.repeat(self.pipeline as usize);
            let mut connection = Connection { socket, batch, sent: 0, read: 0, began: Instant::now() };
            // What cannot be sent yet is sent once it can.
            connection.next(pattern.len(), at, self.keys, &mut random)?;
            connections.push(connection);
        }
        let expected = OK.len() * self.pipeline as usize;
        let heard = || Heard { took_us: Vec::with_capacity(BATCHES), ..Heard::default() };
        let mut seen: Vec<Heard> = (0..phases).map(|_| heard()).collect();
        let mut heard = Instant::now();
        loop {
            poll.poll(&mut events, Some(Duration::from_millis(100)))?;
            let now = phase.load(Ordering::Relaxed);
            let Some(seen) = seen.get_mut(now) else { return Ok(seen) };
            if events.is_empty() && heard.elapsed() > PATIENCE {
                return Err(format!("no write is answered for {} s", PATIENCE.as_secs()).into());
            }
            for event in &events {
                let now = Instant::now();
                if now - heard >= LONG_SILENCE {
                    seen.silences.push((heard, now));
                }
                heard = now;
                let Some(connection) = connections.get_mut(event.token().0) else { continue };
                connection.write()?;
                while connection.read(expected)? {
                    let (began, now) = (connection.began, Instant::now());
                    seen.took_us.push(u32::try_from((now - began).as_micros()).unwrap_or(u32::MAX));
                    if now - began >= LONG {
                        seen.long.push((began, now));
                    }
                    connection.next(pattern.len(), at, self.keys, &mut random)?;
                }
            }
        }
    }
}

impl Connection {
    /// Begins the next batch.
    fn next(&mut self, request: usize, at: usize, keys: u64, random: &mut Random) -> Result<(), Failure> {
        for one in self.batch.chunks_mut(request) {
            write!(&mut one[at..], "key:{:012}", random.below(keys))?;
        }
        (self.sent, self.read, self.began) = (0, 0, Instant::now());
        self.write()
    }

    fn write(&mut self) -> Result<(), Failure> {
        while self.sent < self.batch.len() {
            match self.socket.write(&self.batch[self.sent..]) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(bytes) => self.sent += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads what is there. True: all of the batch's answers have come.
    fn read(&mut self, expected: usize) -> Result<bool, Failure> {
        let mut buffer = [0; 4096];
        while self.read < expected {
            let most = buffer.len().min(expected - self.read);
            match self.socket.read(&mut buffer[..most]) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(bytes) => {
                    let right = OK.iter().cycle().skip(self.read % OK.len());
                    if buffer[..bytes].iter().zip(right).any(|(byte, right)| byte != right) {
                        let text = String::from_utf8_lossy(&buffer[..bytes]);
                        return Err(format!("SET is answered: {text}").into());
                    }
                    self.read += bytes;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead;
    use std::net::TcpListener;

    #[test]
    fn batches_follow_one_another_and_count_for_their_phase() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let phase = AtomicUsize::new(0);
        let stream = Stream { port, connections: 1, pipeline: 3, keys: 50, value_bytes: 4 };
        std::thread::scope(|scope| {
            let load = scope.spawn(|| stream.run(&phase, 2));
            let (mut socket, _) = listener.accept().unwrap();
            let mut reader = std::io::BufReader::new(socket.try_clone().unwrap());
            for batch in 0..4 {
                for _ in 0..3 {
                    // SET, key and value, each with its length.
                    let lines: Vec<String> = reader.by_ref().lines().take(7).map(Result::unwrap).collect();
                    assert!(lines[4].starts_with("key:0000000000") && lines[6] == "yyyy", "{lines:?}");
                }
                phase.store(batch / 2, Ordering::Relaxed);
                socket.write_all(b"+OK\r\n+O").unwrap();
                std::thread::sleep(Duration::from_millis(5));
                socket.write_all(b"K\r\n+OK\r\n").unwrap();
            }
            // The next batch, which is not answered.
            assert!(reader.read_line(&mut String::new()).is_ok());
            phase.store(2, Ordering::Relaxed);
            let seen = load.join().unwrap().unwrap();
            assert_eq!((seen[0].took_us.len(), seen[1].took_us.len()), (2, 2));
            assert!(seen.iter().flat_map(|seen| &seen.took_us).all(|took| *took >= 5000), "{seen:?}");
            // Between the two parts of an answer.
            let lasted = |(from, to): &Span| *to - *from >= Duration::from_millis(5);
            assert!(seen.iter().all(|seen| seen.silences.iter().any(lasted)), "{seen:?}");
            assert!(seen.iter().all(|seen| seen.long.len() == 2 && seen.long.iter().all(lasted)), "{seen:?}");
        });
    }
}
