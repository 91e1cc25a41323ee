//! An answer on its way to the client: what it has the node keep is counted ([`crate::budget`]) until the client has taken it, and the
//! connection stays for as long.
//!
//! An answer that finds no room is refused: with a status where it has not begun, in its trailers where gRPC has begun it. Only what
//! shows values is large, so no write is refused after it was done. A client that takes nothing for `reply_unread_timeout_ms` is let go.

use super::HttpState;
use super::connection::{Caller, UnderWay};
use super::problem::Problem;
use crate::budget::{ALWAYS_BYTES, Held};
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tonic::Code;

const NO_ROOM: &str = "TRYAGAIN this node has too many bytes of answers in hand (maxmemory_clients): ask again in a moment, or another node";

/// Counts the answers of what is behind it.
pub(crate) async fn counted(State(state): State<HttpState>, request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
    let under_way = UnderWay::begin(&caller);
    let response = next.run(request).await;
    let mut held = state.budget.hold();
    let known = usize::try_from(response.body().size_hint().lower()).unwrap_or(usize::MAX);
    if !held.set(known) {
        return Problem {
            is_retryable: true,
            ..Problem::new(StatusCode::SERVICE_UNAVAILABLE, "TRYAGAIN", NO_ROOM)
        }
        .into_response();
    }
    let content_type = response.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let is_grpc = content_type.starts_with(b"application/grpc");
    let unread = Duration::from_millis(state.settings.get().reply_unread_timeout_ms);
    response.map(|body| {
        Body::new(Outgoing {
            body,
            held,
            _under_way: under_way,
            caller,
            is_grpc,
            unread,
            refused: false,
            taken: None,
        })
    })
}

struct Outgoing {
    body: Body,
    held: Held,
    _under_way: UnderWay,
    caller: Caller,
    is_grpc: bool,
    /// How long a client may take nothing.
    unread: Duration,
    refused: bool,
    /// How often the client had taken what was there: once something large was.
    taken: Option<Arc<AtomicU64>>,
}

impl Outgoing {
    /// The client gets something large: it is looked at whether it takes it.
    fn watch(&mut self) {
        if self.taken.is_some() {
            return;
        }
        let taken = Arc::new(AtomicU64::new(0));
        let (weak, caller, unread) = (Arc::downgrade(&taken), self.caller.clone(), self.unread);
        self.taken = Some(taken);
        tokio::spawn(async move {
            let mut before = 0;
            loop {
                tokio::time::sleep(unread).await;
                let Some(taken) = weak.upgrade() else { return };
                let now = taken.load(Ordering::Relaxed);
                // Odd: something is on its way.
                if now == before && now % 2 == 1 {
                    return caller.give_up();
                }
                before = now;
            }
        });
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.refused {
            return Poll::Ready(None);
        }
        if let Some(taken) = &self.taken {
            // Whoever asks for more has taken what was there.
            taken.fetch_or(1, Ordering::Relaxed);
            taken.fetch_add(1, Ordering::Relaxed);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let bytes = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        // Of a body whose length is known, what is not here yet counts, too.
        let left = usize::try_from(self.body.size_hint().lower()).unwrap_or(usize::MAX);
        if bytes > 0 && !self.held.set(bytes.saturating_add(left)) {
            self.refused = true;
            if !self.is_grpc {
                return Poll::Ready(Some(Err(axum::Error::new(std::io::Error::other(NO_ROOM)))));
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from(Code::Unavailable as i32));
            trailers.insert("grpc-message", HeaderValue::from_static(NO_ROOM));
            trailers.insert("annulet-code", HeaderValue::from_static("TRYAGAIN"));
            trailers.insert("annulet-kind", HeaderValue::from_static("retryable"));
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        if bytes > ALWAYS_BYTES as usize {
            self.watch();
        }
        if let Some(taken) = self.taken.as_ref().filter(|_| bytes > 0) {
            taken.fetch_or(1, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.refused || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
