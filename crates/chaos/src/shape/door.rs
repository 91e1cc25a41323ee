//! A connection of a client that sends one request at a time, and looks before each whether the server has ended the connection
//! meanwhile, as good clients do (go-redis before each use, redis-py when it takes one out of its pool): a connection that a node
//! has ended in order costs no request.

use redis::{Parser, RedisError, Value};
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(2);

pub(super) struct Door {
    stream: TcpStream,
    parser: Parser,
}

impl Door {
    /// Connects to a port of this machine. A reply may take as long as `patience`.
    pub(super) fn open(port: u16, patience: Duration) -> Result<Door, RedisError> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect_timeout(&address, CONNECT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Door { stream, parser: Parser::new() })
    }

    /// Whether the server has ended it, or broken it off.
    pub(super) fn is_ended(&self) -> bool {
        let peeked = self.stream.set_nonblocking(true).and_then(|()| self.stream.peek(&mut [0]));
        let is_open = peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        !(is_open && self.stream.set_nonblocking(false).is_ok())
    }

    /// Sends a request, and waits for its reply.
    pub(super) fn ask(&mut self, words: &[&str]) -> Result<Value, RedisError> {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        self.stream.write_all(&command.get_packed_command())?;
        self.parser.parse_value(&mut self.stream)
    }
}
