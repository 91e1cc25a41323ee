//! A connection in two halves: one thread sends requests ahead, another reads the replies in the same order.
//!
//! Nothing is counted here and nothing is sent again: whoever sends ahead keeps in mind what was sent.

use crate::connection::timed_out;
use command::Reply;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// How much is read at once, in bytes.
const CHUNK_BYTES: usize = 64 * 1024;

/// The half that sends. What is written are requests as RESP has them.
#[derive(Debug)]
pub struct Requests {
    stream: TcpStream,
    timeout: Duration,
}

/// The half that reads replies.
#[derive(Debug)]
pub struct Replies {
    stream: TcpStream,
    input: Vec<u8>,
    /// Where in `input` the next reply starts.
    start: usize,
    decoder: wire::resp::ReplyDecoder,
    timeout: Duration,
}

pub(crate) fn split(stream: TcpStream, input: Vec<u8>, timeout: Duration) -> io::Result<(Requests, Replies)> {
    stream.set_write_timeout(Some(timeout))?;
    stream.set_read_timeout(Some(timeout))?;
    let requests = Requests { stream: stream.try_clone()?, timeout };
    let decoder = wire::resp::ReplyDecoder::new();
    Ok((requests, Replies { stream, input, start: 0, decoder, timeout }))
}

impl Write for Requests {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes).map_err(|error| timed_out(error, self.timeout))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Replies {
    /// The next reply. Call it only while one is due: it waits for the request timeout. After an error the connection is of
    /// no use any more.
    pub fn read(&mut self) -> io::Result<Reply<'static>> {
        loop {
            match self.decoder.decode(&self.input[self.start..]) {
                Ok(Some((reply, used))) => {
                    self.start += used;
                    return Ok(reply.into_owned());
                }
                Ok(None) => {}
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
            }
            self.input.drain(..self.start);
            self.start = 0;
            let length = self.input.len();
            self.input.resize(length + CHUNK_BYTES, 0);
            let read = self.stream.read(&mut self.input[length..]);
            self.input.truncate(length + *read.as_ref().unwrap_or(&0));
            if read.map_err(|error| timed_out(error, self.timeout))? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"));
            }
        }
    }

    /// Ends both halves: whoever waits in the other one is let go.
    pub fn close(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
