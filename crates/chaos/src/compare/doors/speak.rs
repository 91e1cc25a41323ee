//! A client at each door, with one request at a time: as little of its own as the door allows, so that the node is what is measured.
//!
//! Every answer is looked at: one that is not a success ends the run.

use super::super::client::request;
use crate::failure::Failure;
use bytes::Bytes;
use h2::client::SendRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Resp,
    Json,
    Text,
    Http,
    Grpc,
}

impl Door {
    pub(super) const ALL: [Door; 5] = [Door::Resp, Door::Json, Door::Text, Door::Http, Door::Grpc];

    pub(super) fn name(self) -> &'static str {
        match self {
            Door::Resp => "RESP",
            Door::Json => "line, JSON",
            Door::Text => "line, text",
            Door::Http => "HTTP/1.1",
            Door::Grpc => "gRPC",
        }
    }

    /// From a node's port for Redis clients.
    fn port(self, port: u16) -> u16 {
        match self {
            Door::Resp => port,
            Door::Http | Door::Grpc => port + 300,
            Door::Json | Door::Text => port + 400,
        }
    }

    /// How long an answer is, once its end can be told.
    fn length(self, bytes: &[u8]) -> Option<usize> {
        let line = || bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        match self {
            Door::Json | Door::Text => line(),
            Door::Resp => {
                let head = line()?;
                match bytes.strip_prefix(b"$") {
                    Some(rest) => Some(head + number(rest)? + 2),
                    None => Some(head),
                }
            }
            Door::Http => {
                let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
                let name: &[u8] = b"content-length: ";
                let at = bytes[..head].windows(name.len()).position(|part| part.eq_ignore_ascii_case(name));
                Some(head + at.map_or(Some(0), |at| number(&bytes[at + name.len()..]))?)
            }
            Door::Grpc => None,
        }
    }

    fn is_success(self, answer: &[u8]) -> bool {
        match self {
            Door::Resp => answer.starts_with(b"+OK") || answer.starts_with(b"$"),
            Door::Json => answer.starts_with(b"{\"status\":\"success\""),
            Door::Text => answer.starts_with(b"OK") || answer.starts_with(b"VALUE "),
            Door::Http => answer.starts_with(b"HTTP/1.1 20"),
            Door::Grpc => false,
        }
    }
}

/// The decimal number at the beginning.
fn number(bytes: &[u8]) -> Option<usize> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&bytes[..digits]).ok()?.parse().ok()
}

/// A connection to a door.
pub(super) enum Speaker {
    Plain { door: Door, stream: TcpStream, input: Vec<u8> },
    Grpc { requests: SendRequest<Bytes> },
}

impl Speaker {
    pub(super) async fn connect(door: Door, port: u16) -> Result<Speaker, Failure> {
        let stream = TcpStream::connect(("127.0.0.1", door.port(port))).await?;
        stream.set_nodelay(true)?;
        if door != Door::Grpc {
            return Ok(Speaker::Plain { door, stream, input: Vec::new() });
        }
        let (requests, connection) =
            h2::client::handshake(stream).await.map_err(|error| format!("no HTTP/2: {error}"))?;
        // It ends with the last of its requests; what goes wrong is seen there.
        tokio::task::spawn_local(async move { _ = connection.await });
        Ok(Speaker::Grpc { requests })
    }

    pub(super) async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        let (key_text, value_text) = (String::from_utf8_lossy(key), String::from_utf8_lossy(value));
        match self {
            Speaker::Plain { door, .. } => {
                let bytes = match door {
                    Door::Json => {
                        format!("{{\"command\":\"PUT\",\"key\":\"{key_text}\",\"value\":\"{value_text}\"}}\n")
                            .into_bytes()
                    }
                    Door::Text => format!("PUT {key_text} {value_text}\n").into_bytes(),
                    Door::Http => format!(
                        "PUT /v1/kv/{key_text} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{value_text}",
                        value.len()
                    )
                    .into_bytes(),
                    _ => request(&[b"SET", key, value]),
                };
                self.exchange(&bytes, 0).await
            }
            Speaker::Grpc { requests } => {
                let message = [field(1, key), field(2, value)].concat();
                call(requests, "/annulet.v1.KV/Put", &message, 0).await
            }
        }
    }

    pub(super) async fn get(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        let key_text = String::from_utf8_lossy(key);
        match self {
            Speaker::Plain { door, .. } => {
                let bytes = match door {
                    Door::Json => format!("{{\"command\":\"GET\",\"key\":\"{key_text}\"}}\n").into_bytes(),
                    Door::Text => format!("GET {key_text}\n").into_bytes(),
                    Door::Http => format!("GET /v1/kv/{key_text} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes(),
                    _ => request(&[b"GET", key]),
                };
                self.exchange(&bytes, value.len()).await
            }
            Speaker::Grpc { requests } => {
                call(requests, "/annulet.v1.KV/Get", &field(1, key), value.len()).await
            }
        }
    }

    /// Sends a request and takes its answer, which has at least so many bytes.
    async fn exchange(&mut self, request: &[u8], least: usize) -> Result<(), Failure> {
        let Speaker::Plain { door, stream, input } = self else { return Err("another door".into()) };
        stream.write_all(request).await?;
        loop {
            if let Some(length) = door.length(input).filter(|&length| length <= input.len()) {
                let answer = &input[..length];
                if !door.is_success(answer) || length < least {
                    let said = String::from_utf8_lossy(answer).into_owned();
                    return Err(format!("{} answers {said:?}", door.name()).into());
                }
                input.drain(..length);
                return Ok(());
            }
            if stream.read_buf(input).await? == 0 {
                return Err(format!("the node closed a connection by {}", door.name()).into());
            }
        }
    }
}

/// A field of bytes of a protobuf message.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 127 {
        field.push(length as u8 | 128);
        length >>= 7;
    }
    field.push(length as u8);
    field.extend_from_slice(bytes);
    field
}

/// One call with one message and one answer, of at least so many bytes.
async fn call(
    requests: &mut SendRequest<Bytes>,
    path: &'static str,
    message: &[u8],
    least: usize,
) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::from(format!("gRPC: {error}"));
    let request = http::Request::post(format!("http://a{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(|error| failed(&error))?;
    let mut ready = requests.clone().ready().await.map_err(|error| failed(&error))?;
    let (response, mut body) = ready.send_request(request, false).map_err(|error| failed(&error))?;
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(message);
    body.send_data(framed.into(), true).map_err(|error| failed(&error))?;
    let mut answer = response.await.map_err(|error| failed(&error))?.into_body();
    let mut bytes = 0;
    while let Some(data) = answer.data().await {
        let data = data.map_err(|error| failed(&error))?;
        bytes += data.len();
        answer.flow_control().release_capacity(data.len()).map_err(|error| failed(&error))?;
    }
    let trailers = answer.trailers().await.map_err(|error| failed(&error))?.unwrap_or_default();
    match trailers.get("grpc-status").map(|status| status.as_bytes()) {
        Some(b"0") if bytes >= least => Ok(()),
        _ => Err(format!("gRPC answers {bytes} bytes and {trailers:?}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_answers_are_found() {
        assert_eq!(Door::Resp.length(b"$3\r\nabc\r\n+"), Some(9));
        assert_eq!(Door::Resp.length(b"+OK\r\n"), Some(5));
        assert_eq!(Door::Resp.length(b"$3\r"), None);
        assert_eq!(Door::Text.length(b"VALUE a\nV"), Some(8));
        assert_eq!(Door::Http.length(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"), Some(40));
        assert_eq!(Door::Http.length(b"HTTP/1.1 204 No Content\r\n\r\n"), Some(27));
        assert_eq!(Door::Http.length(b"HTTP/1.1 204 No Content\r\n"), None);
    }

    #[test]
    fn fields_are_as_protobuf_has_them() {
        assert_eq!(field(1, b"ab"), [10, 2, b'a', b'b']);
        assert_eq!(field(2, &[7; 300])[..3], [18, 0xac, 2]);
    }
}
