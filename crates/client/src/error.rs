//! Why a request of [`crate::Client`] has no reply, told apart by what may have happened and what to do.

use command::CommandError;
use thiserror::Error;

/// Why a request was not answered as asked.
///
/// The first question is always whether the request may have been carried out. Only [`Error::OutcomeUnknown`] (maybe),
/// [`Error::Partial`] (in part) and [`Error::UnexpectedReply`] (yes, probably) leave that open; every other error says that
/// nothing was done. What could help by itself was tried until the deadline: errors are not worth an immediate repeat.
#[derive(Clone, Debug, Error)]
pub enum Error {
    /// No seed let the client in and told it the cluster map. *Check addresses and that nodes run.*
    #[error("no seed could be asked for the cluster map: {}", failures.iter().map(|(address, why)| format!("{address} ({why})")).collect::<Vec<_>>().join(", "))]
    Unreachable {
        /// Each address and what went wrong there.
        failures: Vec<(String, String)>,
    },
    /// A node refuses the connection for good, for instance because of the password. Nothing was done. *Mend the
    /// credentials or levels given to the [`Builder`](crate::Builder).*
    #[error("{address} refuses the connection: {error}")]
    Refused {
        /// The node.
        address: String,
        /// What it says.
        error: CommandError,
    },
    /// The server refused the request, and would again. Nothing was done. *Mend the request.*
    #[error("{0}")]
    Server(CommandError),
    /// The request could not be carried out before its deadline, though it was tried where that was safe. Nothing was done;
    /// a read may have been answered too late. *Try later; look at the cluster's state where it lasts.*
    #[error("nothing was done before the deadline: {why}")]
    Unavailable {
        /// What went wrong last.
        why: String,
    },
    /// The write may or may not have been carried out, now or later. It is never sent again by itself. *Send it again where
    /// doing it twice does no harm (`SET`, `DEL`); otherwise read first and decide.*
    #[error("outcome unknown: {why}")]
    OutcomeUnknown {
        /// What happened.
        why: String,
    },
    /// A write of several keys was carried out for some and not for others. *Send it again, or read what there is.*
    #[error("done in part: {source}")]
    Partial {
        /// Why the rest was not.
        source: Box<Error>,
    },
    /// In a pipeline: the request was refused for the moment, and a later write to its slot was already carried out, or may
    /// have been. Sending it again would change their order, so nothing was done. *Decide whether it is still wanted.*
    #[error("nothing was done, since a later write of the pipeline came first: {why}")]
    Overtaken {
        /// Why it was refused.
        why: String,
    },
    /// The command works on one connection, and this client's are shared by all. Nothing was done. *Use
    /// [`Connection`](crate::Connection), or the builder's settings for password and levels.*
    #[error("{command} concerns one connection, and this client shares its connections")]
    NotShared {
        /// The command, in capitals.
        command: String,
    },
    /// The server answered with something that the command does not answer. The request was probably carried out. *A server
    /// of another version, or something that is no Annulet.*
    #[error("unexpected reply: {reply}")]
    UnexpectedReply {
        /// What it said, cut short.
        reply: String,
    },
    /// The client cannot be made like this. *Mend what is named.*
    #[error("{why}")]
    Setup {
        /// What is wrong.
        why: String,
    },
}

impl Error {
    /// Whether the request may have been carried out, wholly or in part. If not, nothing was done.
    pub fn may_have_happened(&self) -> bool {
        matches!(self, Error::OutcomeUnknown { .. } | Error::Partial { .. } | Error::UnexpectedReply { .. })
    }

    /// Whether nobody can say if the write happened.
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            Error::OutcomeUnknown { .. } => true,
            Error::Partial { source } => source.is_outcome_unknown(),
            _ => false,
        }
    }

    /// A reply of a kind that the command does not have.
    pub(crate) fn unexpected(reply: &command::Reply<'_>) -> Error {
        let mut shown = format!("{reply:?}");
        if shown.len() > SHOWN_BYTES_MAX {
            let mut end = SHOWN_BYTES_MAX;
            while !shown.is_char_boundary(end) {
                end -= 1;
            }
            shown.truncate(end);
        }
        Error::UnexpectedReply { reply: shown }
    }
}

/// How much of an unexpected reply an error shows.
const SHOWN_BYTES_MAX: usize = 200;
