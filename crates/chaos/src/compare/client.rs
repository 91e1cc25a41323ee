//! A small client of the Redis protocol: it skims big replies instead of keeping them, and fills a server with keys, so that as
//! little as possible of the load's processor goes into it.

use crate::failure::Failure;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Longest time without a byte of an answer.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;

/// A reply of one level. Elements of an array are replies that follow.
#[derive(Debug, PartialEq)]
pub(super) enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    /// The bytes of a bulk string, which are read over unless asked for.
    Bulk(Vec<u8>),
    Nil,
    Array(u64),
}

/// A connection.
pub(super) struct Client {
    socket: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    pub(super) fn connect(port: u16) -> Result<Client, Failure> {
        let socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let reader = BufReader::with_capacity(READ_BYTES, socket.try_clone()?);
        Ok(Client { socket, reader })
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.socket.write_all(bytes)?)
    }

    /// One request and its whole reply, of which the bytes of strings are kept only in the first level.
    pub(super) fn ask(&mut self, arguments: &[&[u8]]) -> Result<Reply, Failure> {
        self.send(&request(arguments))?;
        let reply = self.head(true)?;
        if let Reply::Array(count) = reply {
            self.skip(count)?;
        }
        Ok(reply)
    }

    /// As [`Client::ask`], where an error is a failure.
    pub(super) fn must(&mut self, arguments: &[&[u8]]) -> Result<Reply, Failure> {
        match self.ask(arguments)? {
            Reply::Error(text) => {
                let name = arguments.first().copied().unwrap_or_default();
                Err(format!("{} is answered: {text}", String::from_utf8_lossy(name)).into())
            }
            reply => Ok(reply),
        }
    }

    pub(super) fn keys_held(&mut self) -> Result<i64, Failure> {
        match self.must(&[b"DBSIZE"])? {
            Reply::Integer(count) => Ok(count),
            other => Err(format!("DBSIZE is answered {other:?}").into()),
        }
    }

    /// What the server says of its disk, by name.
    pub(super) fn persistence(&mut self) -> Result<BTreeMap<String, String>, Failure> {
        match self.must(&[b"INFO", b"persistence"])? {
            Reply::Bulk(text) => Ok(String::from_utf8_lossy(&text)
                .lines()
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect()),
            other => Err(format!("INFO is answered {other:?}").into()),
        }
    }

    /// One step of a scan: the next cursor and how many keys there were.
    pub(super) fn scan(&mut self, cursor: &[u8]) -> Result<(Vec<u8>, u64), Failure> {
        self.send(&request(&[b"SCAN", cursor, b"COUNT", b"1000"]))?;
        match self.head(true)? {
            Reply::Array(2) => {}
            other => return Err(format!("SCAN is answered {other:?}").into()),
        }
        let Reply::Bulk(next) = self.head(true)? else { return Err("SCAN gives no cursor".into()) };
        let Reply::Array(count) = self.head(false)? else { return Err("SCAN gives no list".into()) };
        self.skip(count)?;
        Ok((next, count))
    }

    /// Reads over replies, whatever their depth.
    fn skip(&mut self, mut count: u64) -> Result<(), Failure> {
        while count > 0 {
            count -= 1;
            if let Reply::Array(more) = self.head(false)? {
                count += more;
            }
        }
        Ok(())
    }

    /// Reads one reply, of an array only its length. Without `keep` the bytes of a string are only counted.
    pub(super) fn head(&mut self, keep: bool) -> Result<Reply, Failure> {
        let mut line = Vec::with_capacity(32);
        self.reader.read_until(b'\n', &mut line)?;
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return Err("the server closed the connection".into());
        };
        let text = String::from_utf8_lossy(line.get(1..).unwrap_or_default()).into_owned();
        let number = || text.parse::<i64>().map_err(|_| Failure::from(format!("{text:?} is no number")));
        match line.first() {
            Some(b'+') => Ok(Reply::Simple(text)),
            Some(b'-') => Ok(Reply::Error(text)),
            Some(b':') => Ok(Reply::Integer(number()?)),
            Some(b'*') => Ok(u64::try_from(number()?).map_or(Reply::Nil, Reply::Array)),
            Some(b'$') => match u64::try_from(number()?) {
                Err(_) => Ok(Reply::Nil),
                Ok(length) => Ok(Reply::Bulk(self.string(length, keep)?)),
            },
            _ => Err(format!("no reply begins with {:?}", String::from_utf8_lossy(line)).into()),
        }
    }

    fn string(&mut self, length: u64, keep: bool) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let mut body = (&mut self.reader).take(length + 2);
        let read = if keep {
            body.read_to_end(&mut bytes)? as u64
        } else {
            std::io::copy(&mut body, &mut std::io::sink())?
        };
        if read != length + 2 {
            return Err("the server closed the connection".into());
        }
        bytes.truncate(length as usize);
        Ok(bytes)
    }
}

/// The bytes of a request.
pub(super) fn request(arguments: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// The key of a number, 16 bytes as redis-benchmark makes it.
pub(super) fn key(number: u64) -> String {
    format!("key:{number:012}")
}

/// Keys to be set.
pub(super) struct Fill<'a> {
    pub value_bytes: usize,
    /// Requests sent at once.
    pub pipeline: u64,
    /// What stands after the value, such as when the key ends.
    pub options: &'a [&'a [u8]],
}

impl Fill<'_> {
    /// Sets the keys of these numbers. Returns how long that took.
    pub(super) fn run(&self, port: u16, numbers: std::ops::Range<u64>) -> Result<Duration, Failure> {
        let mut client = Client::connect(port)?;
        let value = vec![b'x'; self.value_bytes];
        let name = key(numbers.start);
        let mut arguments: Vec<&[u8]> = vec![b"SET", name.as_bytes(), &value];
        arguments.extend_from_slice(self.options);
        // All requests are alike but for the key, so one is a pattern for the others.
        let pattern = request(&arguments);
        let at = pattern
            .windows(name.len())
            .position(|part| part == name.as_bytes())
            .ok_or("the key is in its request")?;
        let started = Instant::now();
        let (mut batch, mut replies) = (Vec::new(), Vec::new());
        let mut next = numbers.start;
        while next < numbers.end {
            let count = self.pipeline.max(1).min(numbers.end - next);
            batch.clear();
            for number in next..next + count {
                let from = batch.len() + at;
                batch.extend_from_slice(&pattern);
                write!(&mut batch[from..from + name.len()], "key:{number:012}")?;
            }
            client.send(&batch)?;
            replies.clear();
            (&mut client.reader).take(count * 5).read_to_end(&mut replies)?;
            if replies.chunks(5).any(|reply| reply != b"+OK\r\n") || replies.len() as u64 != count * 5 {
                return Err(format!("SET is answered: {}", String::from_utf8_lossy(&replies)).into());
            }
            next += count;
        }
        Ok(started.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn replies_are_read_and_skimmed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            socket
                .write_all(
                    b"*2\r\n$2\r\n17\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n*2\r\n*1\r\n:1\r\n$-1\r\n:42\r\n-ERR no\r\n$3\r\nab",
                )
                .unwrap();
            socket.shutdown(std::net::Shutdown::Write).unwrap();
            std::io::copy(&mut socket, &mut std::io::sink()).unwrap();
        });
        let mut client = Client::connect(port).unwrap();
        assert_eq!(client.scan(b"0").unwrap(), (b"17".to_vec(), 2));
        assert_eq!(client.ask(&[b"ANY"]).unwrap(), Reply::Array(2));
        assert_eq!(client.keys_held().unwrap(), 42);
        assert!(client.must(&[b"ANY"]).unwrap_err().to_string().contains("ERR no"));
        assert!(client.ask(&[b"ANY"]).is_err());
        drop(client);
        server.join().unwrap();
    }

    #[test]
    fn a_request_is_an_array_of_strings() {
        assert_eq!(request(&[b"GET", key(7).as_bytes()]), b"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000007\r\n");
    }
}
