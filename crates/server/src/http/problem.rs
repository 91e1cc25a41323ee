//! Errors of the HTTP API, as problem details (RFC 9457), and the one table of what a command's error is in HTTP.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use command::{CommandError, ErrorKind};
use serde::Serialize;

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");
/// Seconds after which whoever was refused for now may ask again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Something that went wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// The response's status.
    pub status: StatusCode,
    /// The first word of the error as RESP tells it; a word of its own where RESP knows no such error.
    pub code: String,
    /// What happened, and what to do.
    pub detail: String,
    /// Whether the same request may succeed in a moment.
    pub is_retryable: bool,
}

#[derive(Serialize)]
struct Written<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
}

impl Problem {
    /// Of the request itself: it will fail again.
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Problem {
        Problem { status, code: code.to_owned(), detail: detail.into(), is_retryable: false }
    }

    /// A request that makes no sense.
    pub fn bad(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "ERR", detail)
    }

    /// There is no such key.
    pub fn no_key() -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "NOTFOUND", "there is no such key")
    }

    /// The key is not as a condition wants it.
    pub fn precondition() -> Problem {
        let why = "the key is not as If-Match or If-None-Match wants it: nothing was changed";
        Problem::new(StatusCode::PRECONDITION_FAILED, "PRECONDITION", why)
    }
}

/// What a command's error is in HTTP.
fn status_of(error: &CommandError) -> StatusCode {
    use CommandError as E;
    match error {
        E::NoAuth | E::NoAuthHello | E::WrongPass | E::NoPassword => StatusCode::UNAUTHORIZED,
        E::NoPermission { .. } | E::ReadOnly => StatusCode::FORBIDDEN,
        E::WrongType => StatusCode::CONFLICT,
        E::ValueTooLong => StatusCode::PAYLOAD_TOO_LARGE,
        E::KeyTooLong => StatusCode::URI_TOO_LONG,
        E::OutOfMemory | E::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        // Nobody can say whether the write was done: as with a server behind this one that does not answer.
        E::OutcomeUnknown { .. } => StatusCode::GATEWAY_TIMEOUT,
        other if other.kind() == ErrorKind::Retryable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Problem {
        let detail = error.to_string();
        let code = detail.split(' ').next().unwrap_or_default().to_owned();
        Problem {
            status: status_of(&error),
            code,
            detail,
            is_retryable: error.kind() == ErrorKind::Retryable,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let written = Written {
            r#type: format!("urn:annulet:problem:{}", self.code),
            title,
            status: self.status.as_u16(),
            detail: &self.detail,
            code: &self.code,
        };
        let body = serde_json::to_vec(&written).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
        if self.is_retryable {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_status_that_fits_its_kind() {
        let why = || std::borrow::Cow::Borrowed("x");
        for (error, status, retryable) in [
            (CommandError::NoAuth, 401, false),
            (CommandError::WrongType, 409, false),
            (CommandError::ValueTooLong, 413, false),
            (CommandError::KeyTooLong, 414, false),
            (CommandError::InvalidExpire { command: why() }, 400, false),
            (CommandError::TryAgain { why: why() }, 503, true),
            (CommandError::ClusterDown { why: why() }, 503, true),
            (CommandError::NoReplicas, 503, true),
            (CommandError::OutcomeUnknown { why: why() }, 504, false),
            (CommandError::OutOfMemory, 507, false),
            (CommandError::DiskFull, 507, true),
        ] {
            let text = error.to_string();
            let problem = Problem::from(error);
            assert_eq!((problem.status.as_u16(), problem.is_retryable), (status, retryable), "{text}");
            assert_eq!((Some(problem.code.as_str()), problem.detail), (text.split(' ').next(), text.clone()));
        }
    }
}
