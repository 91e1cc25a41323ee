//! One blocking connection to whichever of several addresses answers.

use crate::halves::{self, Replies, Requests};
use command::{CommandError, Reply};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};
use thiserror::Error;

/// How to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// What `requirepass` says on the server.
    pub password: Option<String>,
    /// The longest wait for one address to accept a connection.
    pub connect_timeout: Duration,
    /// The longest wait for a reply, from when its request was sent.
    pub request_timeout: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            password: None,
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(15),
        }
    }
}

/// Why a request has no reply. An error that the server replies is a [`Reply::Error`] instead.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No address accepted a connection. Nothing was sent.
    #[error("cannot connect to {}", failures.iter().map(|(address, why)| format!("{address} ({why})")).collect::<Vec<_>>().join(", "))]
    Unreachable {
        /// Each address and what went wrong there.
        failures: Vec<(String, io::Error)>,
    },
    /// The server does not let us in. Nothing was sent.
    #[error("{address} refuses the connection: {error}")]
    Refused {
        /// The server.
        address: String,
        /// What it says.
        error: CommandError,
    },
    /// No reply came within the request timeout, or the connection broke before it. The request may have been done.
    #[error("outcome unknown: {address} did not answer ({source})")]
    OutcomeUnknown {
        /// The server.
        address: String,
        /// What went wrong.
        source: io::Error,
    },
    /// What came is not RESP. The request may have been done.
    #[error("outcome unknown: {address} does not speak the Redis protocol ({why})")]
    Protocol {
        /// The server.
        address: String,
        /// What is wrong with it.
        why: String,
    },
}

impl ClientError {
    /// Whether the request surely was not sent, so that sending it again cannot do it twice.
    pub fn is_unsent(&self) -> bool {
        matches!(self, ClientError::Unreachable { .. } | ClientError::Refused { .. })
    }
}

/// A connection that comes back: after a failure the next request connects anew, to the next address.
#[derive(Debug)]
pub struct Connection {
    addresses: Vec<String>,
    options: Options,
    /// Which address is used, or tried next.
    at: usize,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Connection {
    /// Connects to the first of `addresses` (`host:port`) that answers and lets us in.
    pub fn connect(addresses: &[String], options: Options) -> Result<Connection, ClientError> {
        let mut connection = Connection { addresses: addresses.to_vec(), options, at: 0, open: None };
        connection.ensure_open()?;
        Ok(connection)
    }

    /// The address in use, or tried next.
    pub fn address(&self) -> &str {
        self.addresses.get(self.at).map_or("", String::as_str)
    }

    /// Sends one request, its name first, and waits for the reply.
    pub fn request<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<Reply<'static>, ClientError> {
        self.ensure_open()?;
        self.exchange(args)
    }

    /// Lets go of a connection that the server has closed while nothing was under way, so that the next request goes to
    /// the next address instead of into the void, where its outcome would be unknown. Says whether that was so.
    pub fn drop_if_closed(&mut self) -> bool {
        let is_closed = self.open.as_ref().is_some_and(Open::is_closed);
        if is_closed {
            self.fail_over();
        }
        is_closed
    }

    /// Gives the connection away to send many requests before their replies are read. It does not come back by itself.
    pub fn into_halves(mut self) -> Result<(Requests, Replies), ClientError> {
        self.ensure_open()?;
        let Some(open) = self.open.take() else {
            return Err(ClientError::Unreachable { failures: Vec::new() });
        };
        let address = self.address().to_owned();
        halves::split(open.stream, open.input, self.options.request_timeout)
            .map_err(|error| ClientError::Unreachable { failures: vec![(address, error)] })
    }

    fn ensure_open(&mut self) -> Result<(), ClientError> {
        if self.open.is_some() {
            return Ok(());
        }
        let mut failures = Vec::new();
        for _ in 0..self.addresses.len() {
            let address = self.address().to_owned();
            match open(&address, self.options.connect_timeout) {
                Ok(stream) => {
                    self.open = Some(Open { stream, input: Vec::new() });
                    match self.introduce() {
                        Ok(()) => return Ok(()),
                        // Lost in the middle of the greeting: as good as no connection.
                        Err(ClientError::OutcomeUnknown { address, source }) => {
                            failures.push((address, source));
                        }
                        Err(ClientError::Protocol { address, why }) => {
                            failures.push((address, io::Error::new(io::ErrorKind::InvalidData, why)));
                            self.fail_over();
                        }
                        Err(refused) => {
                            self.open = None;
                            return Err(refused);
                        }
                    }
                }
                Err(error) => {
                    failures.push((address, error));
                    self.fail_over();
                }
            }
        }
        Err(ClientError::Unreachable { failures })
    }

    /// RESP3 and the password, in one request; a server that does not know `HELLO` gets `AUTH`.
    fn introduce(&mut self) -> Result<(), ClientError> {
        let password = self.options.password.clone();
        let mut hello = vec!["HELLO", "3"];
        if let Some(password) = &password {
            hello.extend(["AUTH", "default", password]);
        }
        let Reply::Error(mut error) = self.exchange(&hello)? else { return Ok(()) };
        let text = error.to_string();
        if text.starts_with("ERR unknown command") || text.starts_with("NOPROTO") {
            let Some(password) = &password else { return Ok(()) };
            match self.exchange(&["AUTH", password])? {
                Reply::Error(refused) => error = refused,
                _ => return Ok(()),
            }
        }
        Err(ClientError::Refused { address: self.address().to_owned(), error })
    }

    fn exchange<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<Reply<'static>, ClientError> {
        let deadline = Instant::now() + self.options.request_timeout;
        let address = self.address().to_owned();
        let Some(open) = &mut self.open else {
            return Err(ClientError::Unreachable { failures: Vec::new() });
        };
        let outcome = open.exchange(args, deadline, self.options.request_timeout);
        if outcome.is_err() {
            self.fail_over();
        }
        outcome.map_err(|broken| match broken {
            Broken::Io(source) => ClientError::OutcomeUnknown { address, source },
            Broken::Protocol(why) => ClientError::Protocol { address, why },
        })
    }

    fn fail_over(&mut self) {
        self.open = None;
        self.at = (self.at + 1) % self.addresses.len().max(1);
    }
}

enum Broken {
    Io(io::Error),
    Protocol(String),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Broken {
        Broken::Io(error)
    }
}

impl Open {
    /// Whether the other side has closed it. Looks, and takes nothing.
    fn is_closed(&self) -> bool {
        if self.stream.set_nonblocking(true).is_err() {
            return true;
        }
        let seen = self.stream.peek(&mut [0]);
        let is_closed = match seen {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        self.stream.set_nonblocking(false).is_err() || is_closed
    }

    fn exchange<A: AsRef<[u8]>>(
        &mut self,
        args: &[A],
        deadline: Instant,
        timeout: Duration,
    ) -> Result<Reply<'static>, Broken> {
        let args: Vec<&[u8]> = args.iter().map(AsRef::as_ref).collect();
        let mut output = Vec::new();
        wire::resp::encode_request(&args, &mut output);
        self.stream.set_write_timeout(Some(timeout))?;
        self.stream.write_all(&output).map_err(|error| timed_out(error, timeout))?;
        let mut decoder = wire::resp::ReplyDecoder::new();
        let mut chunk = vec![0; 64 * 1024];
        loop {
            match decoder.decode(&self.input) {
                Ok(Some((reply, used))) => {
                    self.input.drain(..used);
                    return Ok(reply.into_owned());
                }
                Ok(None) => {}
                Err(error) => return Err(Broken::Protocol(error.to_string())),
            }
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut chunk).map_err(|error| timed_out(error, timeout))? {
                0 => {
                    let closed = io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection");
                    return Err(closed.into());
                }
                count => self.input.extend_from_slice(&chunk[..count]),
            }
        }
    }
}

/// The system says "resource temporarily unavailable" for a timeout; this says what it is.
pub(crate) fn timed_out(error: io::Error, after: Duration) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            io::Error::new(io::ErrorKind::TimedOut, format!("no reply within {} ms", after.as_millis()))
        }
        _ => error,
    }
}

fn open(address: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for resolved in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&resolved, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread::{JoinHandle, spawn};

    /// A server that answers each read of each connection with the next of `answers`, then closes.
    fn server(connections: Vec<Vec<&'static str>>) -> (String, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let thread = spawn(move || {
            let mut heard = Vec::new();
            for answers in connections {
                let (mut stream, _) = listener.accept().unwrap();
                for answer in answers {
                    let mut chunk = [0; 1024];
                    let count = stream.read(&mut chunk).unwrap();
                    heard.push(String::from_utf8_lossy(&chunk[..count]).replace("\r\n", " "));
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            }
            heard
        });
        (address, thread)
    }

    fn quick() -> Options {
        Options { request_timeout: Duration::from_millis(300), ..Options::default() }
    }

    fn closed_address() -> String {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
    }

    #[test]
    fn a_dead_address_is_passed_over() {
        let (address, server) = server(vec![vec!["%0\r\n", "+PONG\r\n"]]);
        let mut connection = Connection::connect(&[closed_address(), address.clone()], quick()).unwrap();
        assert_eq!(connection.address(), address);
        assert_eq!(connection.request(&["PING"]).unwrap(), Reply::simple("PONG"));
        assert_eq!(server.join().unwrap(), ["*2 $5 HELLO $1 3 ", "*1 $4 PING "]);
    }

    #[test]
    fn a_password_goes_with_the_greeting_and_a_refusal_is_told() {
        let (address, server) =
            server(vec![vec!["-WRONGPASS invalid username-password pair or user is disabled.\r\n"]]);
        let options = Options { password: Some("guess".into()), ..quick() };
        let error = Connection::connect(&[address], options).unwrap_err();
        assert!(error.is_unsent());
        assert!(error.to_string().contains("WRONGPASS"), "{error}");
        assert_eq!(server.join().unwrap(), ["*5 $5 HELLO $1 3 $4 AUTH $7 default $5 guess "]);
    }

    #[test]
    fn an_old_server_is_authenticated_without_hello() {
        let (address, server) =
            server(vec![vec!["-ERR unknown command 'HELLO', with args beginning with: \r\n", "+OK\r\n"]]);
        let options = Options { password: Some("secret".into()), ..quick() };
        Connection::connect(&[address], options).unwrap();
        assert_eq!(server.join().unwrap()[1], "*2 $4 AUTH $6 secret ");
    }

    #[test]
    fn a_broken_connection_is_an_unknown_outcome_and_the_next_request_connects_anew() {
        let (address, server) = server(vec![vec!["%0\r\n", ":1"], vec!["%0\r\n", ":2\r\n"]]);
        let mut connection = Connection::connect(&[address], quick()).unwrap();
        let error = connection.request(&["INCR", "a"]).unwrap_err();
        assert!(!error.is_unsent());
        assert!(error.to_string().starts_with("outcome unknown"), "{error}");
        assert_eq!(connection.request(&["INCR", "a"]).unwrap(), Reply::Integer(2));
        server.join().unwrap();
    }

    #[test]
    fn a_connection_that_was_closed_while_idle_is_seen_before_a_request_goes_into_it() {
        let (address, server) = server(vec![vec!["%0\r\n"], vec!["%0\r\n", ":1\r\n"]]);
        let mut connection = Connection::connect(&[address], quick()).unwrap();
        // The server has closed the first connection; the end comes when it comes.
        while !connection.drop_if_closed() {
            std::thread::yield_now();
        }
        assert_eq!(connection.request(&["INCR", "a"]).unwrap(), Reply::Integer(1));
        server.join().unwrap();
    }

    #[test]
    fn many_requests_go_before_the_first_reply_is_read() {
        let (address, server) = server(vec![vec!["%0\r\n", "+OK\r\n$3\r\nab", "c\r\n-ERR no\r\n"]]);
        let (mut requests, mut replies) =
            Connection::connect(&[address], quick()).unwrap().into_halves().unwrap();
        requests.write_all(b"one").unwrap();
        assert_eq!(replies.read().unwrap(), Reply::ok());
        requests.write_all(b"two").unwrap();
        assert_eq!(replies.read().unwrap(), Reply::bulk("abc"));
        assert!(matches!(replies.read().unwrap(), Reply::Error(_)));
        assert!(replies.read().unwrap_err().to_string().contains("closed the connection"));
        server.join().unwrap();
    }

    #[test]
    fn silence_is_bounded() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let error = Connection::connect(&[address], quick()).unwrap_err();
        assert!(error.to_string().contains("no reply within 300 ms"), "{error}");
    }
}
