//! The one mapping of command errors to gRPC: a status code, the error line of the Redis protocol as the message, and its code
//! word and kind as metadata. docs/grpc.md has it as a table.
//!
//! A client that retries by the status code is safe: `UNAVAILABLE` and `RESOURCE_EXHAUSTED` say that nothing was done, and `UNKNOWN`
//! alone says that a write may have been done, or may yet be. `ABORTED`, which libraries retry, and `DEADLINE_EXCEEDED`, which
//! they also make up themselves, are never sent.

use command::{CommandError, ErrorKind};
use tonic::{Code, Status};

/// Metadata: the first word of the error line.
pub const CODE_KEY: &str = "annulet-code";
/// Metadata: what a client may do about it: `retryable`, `final` or `unknown-outcome`.
pub const KIND_KEY: &str = "annulet-kind";

/// The gRPC code of an error.
pub fn code(error: &CommandError) -> Code {
    use CommandError::*;
    match error {
        // The request makes no sense, whatever the state.
        WrongArity { .. }
        | UnknownCommand { .. }
        | UnknownSubcommand { .. }
        | Syntax
        | NotInteger
        | NotFloat
        | NoProto
        | CrossSlot
        | InvalidExpire { .. }
        | DatabaseOutOfRange
        | InvalidCursor
        | ValueTooLong
        | KeyTooLong
        | NegativeTimeout
        | BadTimeout
        | NoPassword => Code::InvalidArgument,
        IncrementOverflow | DecrementOverflow | NoHistory => Code::OutOfRange,
        // It would make sense in another state.
        WrongType | ReadOnly => Code::FailedPrecondition,
        NoAuth | NoAuthHello | WrongPass => Code::Unauthenticated,
        NoPermission { .. } => Code::PermissionDenied,
        // Nothing was done, and soon it may be.
        Moved { .. } | Ask { .. } | TryAgain { .. } | ClusterDown { .. } | NoReplicas | Loading => {
            Code::Unavailable
        }
        OutOfMemory | DiskFull => Code::ResourceExhausted,
        OutcomeUnknown { .. } => Code::Unknown,
        Other(line) if line.starts_with("ERR ") => Code::InvalidArgument,
        Other(_) => Code::FailedPrecondition,
    }
}

fn kind_word(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Retryable => "retryable",
        ErrorKind::Final => "final",
        ErrorKind::UnknownOutcome => "unknown-outcome",
    }
}

/// An error as it is sent.
pub fn status(error: &CommandError) -> Status {
    coded(code(error), error)
}

/// An order of an operator that the cluster, as it is now, refuses.
pub fn refused(error: &CommandError) -> Status {
    match error {
        CommandError::Other(_) => coded(Code::FailedPrecondition, error),
        other => status(other),
    }
}

fn coded(code: Code, error: &CommandError) -> Status {
    let line = error.to_string();
    let word = line.split(' ').next().unwrap_or_default().parse();
    let mut status = Status::new(code, line);
    if let Ok(word) = word {
        status.metadata_mut().insert(CODE_KEY, word);
    }
    let kind = tonic::metadata::MetadataValue::from_static(kind_word(error.kind()));
    status.metadata_mut().insert(KIND_KEY, kind);
    status
}

/// A command answered what it never does.
pub fn nonsense(command: &str) -> Status {
    Status::internal(format!("{command} answered with something else than it does"))
}

/// Text that a `string` cannot carry.
pub fn not_text(what: &str) -> Status {
    Status::failed_precondition(format!(
        "{what} is no UTF-8 text, which the strings of this service cannot carry: use annulet.v1.KV, which has bytes"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of each kind some; what a code promises a client must be true of all of them.
    #[test]
    fn codes_promise_what_is_true() {
        let errors = [
            CommandError::WrongType,
            CommandError::Syntax,
            CommandError::KeyTooLong,
            CommandError::OutOfMemory,
            CommandError::DiskFull,
            CommandError::NoReplicas,
            CommandError::Loading,
            CommandError::NoAuth,
            CommandError::WrongPass,
            CommandError::TryAgain { why: "it moves".into() },
            CommandError::ClusterDown { why: "no copy is alive".into() },
            CommandError::OutcomeUnknown { why: "the primary died".into() },
            CommandError::Moved { slot: 1, address: "h:1".into() },
            CommandError::NoPermission { command: "get".into() },
            CommandError::Other("ERR anything".into()),
            CommandError::Other("BUSYKEY it is there".into()),
        ];
        for error in &errors {
            let (code, kind) = (code(error), error.kind());
            assert_eq!(code == Code::Unknown, kind == ErrorKind::UnknownOutcome, "{error}");
            if kind == ErrorKind::Retryable {
                assert!(matches!(code, Code::Unavailable | Code::ResourceExhausted), "{error}");
            }
            assert!(code != Code::Unavailable || kind == ErrorKind::Retryable, "{error}");
            let status = status(error);
            assert_eq!(status.message(), error.to_string());
            let word = status.metadata().get(CODE_KEY).unwrap().to_str().unwrap();
            assert!(error.to_string().starts_with(word), "{word}");
            assert_eq!(status.metadata().get(KIND_KEY).unwrap(), kind_word(kind));
        }
    }

    #[test]
    fn a_line_that_no_header_can_carry_is_still_sent() {
        let odd = status(&CommandError::Other("\u{7}\u{fc}\n x".into()));
        assert_eq!(odd.code(), Code::FailedPrecondition);
        assert!(odd.metadata().get(CODE_KEY).is_none());
    }
}
