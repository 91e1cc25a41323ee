//! What a gRPC request passes before a service sees it: the password, and the taking in of its message within bounds.
//!
//! The message is taken in whole, as it comes, and counted in the budget of these doors ([`crate::budget`]). The library that reads it makes room for the
//! length that its first bytes declare; so it is given only messages that are there.

use super::Services;
use crate::budget::Held;
use crate::http::connection::Caller;
use crate::http::router::shown_by;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use command::CommandError;
use command::rights::Shown;
use std::time::Duration;
use tokio_stream::StreamExt;
use tonic::Status;

/// Bytes of a question of the reflection service, and of a probe.
pub(super) const QUESTION_BYTES_MAX: usize = 16 * 1024;
/// Of a message: whether it is compressed, and its length.
const HEAD_BYTES: usize = 5;
const MIB: usize = 1024 * 1024;

/// Lets through who shows the password, or everybody where none is set.
pub(super) async fn only_with_password(
    State(services): State<Services>,
    mut request: Request,
    next: Next,
) -> Response {
    let shown = shown_by(&services.http.settings.get(), request.headers());
    if shown != Shown::Wrong {
        if let Some(caller) = request.extensions_mut().get_mut::<Caller>() {
            caller.administrates = shown == Shown::Administrates;
            caller.is_known();
        }
        return next.run(request).await;
    }
    let why = "show the password of requirepass, as metadata `authorization: Bearer <password>`";
    refused(::grpc::errors::status(&CommandError::NoAuth), why)
}

/// Takes in the message of a request, and lets the service see it once it is there.
pub(super) async fn whole_message(
    State(services): State<Services>,
    request: Request,
    next: Next,
) -> Response {
    let most = usize::try_from(services.http.settings.get().max_request_bytes.0).unwrap_or(usize::MAX);
    within(most, services, request, next).await
}

/// The same for who need not show a password: what a stranger may have the node hold is small.
pub(super) async fn small_message(
    State(services): State<Services>,
    request: Request,
    next: Next,
) -> Response {
    within(QUESTION_BYTES_MAX, services, request, next).await
}

async fn within(most: usize, services: Services, request: Request, next: Next) -> Response {
    let settings = services.http.settings.get();
    let patience = Duration::from_millis(settings.request_incomplete_timeout_ms)
        + Duration::from_secs((most / MIB) as u64);
    let (head, body) = request.into_parts();
    let mut held = services.http.budget.hold();
    let taken = tokio::time::timeout(patience, take(body, most, &mut held)).await;
    match taken.unwrap_or_else(|_| Err(Status::invalid_argument("the request did not come whole in time"))) {
        Ok(message) => next.run(Request::from_parts(head, Body::from(message))).await,
        Err(status) => status.into_http::<Body>(),
    }
}

fn refused(status: Status, why: &str) -> Response {
    let mut told = Status::new(status.code(), format!("{} {why}", status.message()));
    *told.metadata_mut() = status.metadata().clone();
    told.into_http::<Body>().into_response()
}

/// One message, with its head.
async fn take(body: Body, most: usize, held: &mut Held) -> Result<Bytes, Status> {
    let mut pieces = body.into_data_stream();
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    let mut length = 0;
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| Status::cancelled("the request broke off"))?;
        length += piece.len();
        if !held.set(length) {
            let why = "this node has too many bytes of requests in hand (maxmemory_clients): ask again in a moment, or another node".into();
            return Err(::grpc::errors::status(&CommandError::TryAgain { why }));
        }
        if first.is_empty() {
            first = piece;
        } else {
            if whole.is_empty() {
                whole.extend_from_slice(&first);
            }
            whole.extend_from_slice(&piece);
        }
        let so_far = if whole.is_empty() { &first[..] } else { &whole[..] };
        if declared(so_far)?.unwrap_or_default() > most || so_far.len() > most + HEAD_BYTES {
            return Err(Status::resource_exhausted(format!(
                "a request to this service may have {most} bytes (max_request_bytes, or less where no password is asked for)"
            )));
        }
    }
    let message = if whole.is_empty() { first } else { whole.freeze() };
    match declared(&message)? {
        Some(length) if length == message.len() - HEAD_BYTES => Ok(message),
        _ => Err(Status::invalid_argument("a request is one whole message")),
    }
}

/// The length that a message's head declares, once the head is there.
fn declared(bytes: &[u8]) -> Result<Option<usize>, Status> {
    match bytes.first_chunk::<HEAD_BYTES>() {
        None => Ok(None),
        Some(&[0, a, b, c, d]) => Ok(Some(u32::from_be_bytes([a, b, c, d]) as usize)),
        Some(_) => Err(Status::unimplemented("compressed messages are not taken: send them plain")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use tonic::Code;

    fn taken(pieces: &[&[u8]], most: usize) -> Result<Bytes, Code> {
        taken_of(&Budget::new(1 << 20), pieces, most)
    }

    fn taken_of(budget: &Budget, pieces: &[&[u8]], most: usize) -> Result<Bytes, Code> {
        let mut held = budget.hold();
        let pieces: Vec<Result<Bytes, std::io::Error>> =
            pieces.iter().map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let body = Body::from_stream(tokio_stream::iter(pieces));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(take(body, most, &mut held)).map_err(|status| status.code())
    }

    #[test]
    fn a_message_is_taken_in_whole_or_not_at_all() {
        let whole = Ok(Bytes::from_static(b"\0\0\0\0\x03abc"));
        assert_eq!(taken(&[b"\0\0\0\0\x03abc"], 3), whole);
        assert_eq!(taken(&[b"\0\0", b"", b"\0\0\x03a", b"bc"], 3), whole);
        assert_eq!(taken(&[b"\0\0\0\0\0"], 3), Ok(Bytes::from_static(b"\0\0\0\0\0")));
        for cut in [&b""[..], b"\0", b"\0\0\0\0", b"\0\0\0\0\x03ab", b"\0\0\0\0\x03abcd", b"\0\0\0\0\x02abc"]
        {
            assert_eq!(taken(&[cut], 8), Err(Code::InvalidArgument), "{cut:?}");
        }
    }

    /// The declared length alone is refused, before what it promises has come.
    #[test]
    fn what_is_too_large_is_refused_at_its_head() {
        assert_eq!(taken(&[b"\0\xff\xff\xff\xff"], 3), Err(Code::ResourceExhausted));
        assert_eq!(taken(&[b"\0\0\0\0\x04"], 3), Err(Code::ResourceExhausted));
        assert_eq!(taken(&[b"\0\0\0\0\x01", b"abcdefgh"], 3), Err(Code::ResourceExhausted));
        assert_eq!(taken(&[b"\x01\0\0\0\x03abc"], 3), Err(Code::Unimplemented));
    }

    #[test]
    fn what_goes_beyond_the_budget_is_refused_for_now() {
        let message = [&b"\0\0\x01\x86\xa0"[..], &[b'x'; 100_000]].concat();
        let budget = Budget::new(150_000);
        assert_eq!(taken_of(&budget, &[&message], 1 << 20).map(|bytes| bytes.len()), Ok(message.len()));
        let mut another = budget.hold();
        assert!(another.set(100_000));
        assert_eq!(taken_of(&budget, &[&message], 1 << 20), Err(Code::Unavailable));
        drop(another);
        assert!(
            taken_of(&budget, &[&message], 1 << 20).is_ok(),
            "the refused one has given back what it held"
        );
    }
}
