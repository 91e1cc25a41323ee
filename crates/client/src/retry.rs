//! What may be sent again, and when: the decisions, without I/O.
//!
//! A request that surely was not carried out is sent again until its deadline, whatever it is. One that may have been is sent
//! again only where it reads. Between attempts the client waits, longer each time and never the same time as others
//! (exponential back-off with jitter), so that clients that lost the same node do not come back in step.

use crate::error::Error;
use command::{CommandError, ErrorKind};
use std::time::Duration;

/// What sending a request twice would mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Risk {
    /// It reads: it may be sent again whatever happened.
    None,
    /// It writes in one partition: it may be sent again only where it surely was not carried out.
    Twice,
    /// It writes in many partitions, and an error may leave it done in some: once sent it is not sent again.
    Spread,
}

/// Why an attempt brought no reply.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// It surely was not sent.
    Unsent(String),
    /// It was not sent, since the node refuses the connection for good.
    Refused {
        /// The node.
        address: String,
        /// What it says.
        error: CommandError,
    },
    /// It was sent, wholly or in part, and no reply will come.
    Lost(String),
    /// The server replied an error.
    Said(CommandError),
}

impl Failure {
    /// In words.
    pub(crate) fn why(&self) -> String {
        match self {
            Failure::Unsent(why) | Failure::Lost(why) => why.clone(),
            Failure::Refused { error, .. } | Failure::Said(error) => error.to_string(),
        }
    }

    /// The error where there is no time for another attempt, though one would be safe.
    pub(crate) fn too_late(&self) -> Error {
        Error::Unavailable { why: self.why() }
    }
}

/// What follows a failure.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The request may be sent again.
    Again {
        /// Ask for the map first: this one may be old.
        refresh: bool,
        /// Wait first. Only a redirection is followed at once.
        pause: bool,
    },
    /// It may not, or it would not help.
    Give(Error),
}

/// Decides what follows a failure of a request with this risk.
pub(crate) fn judge(risk: Risk, failure: &Failure) -> Verdict {
    let unknown = |why: String| match risk {
        Risk::None => Verdict::Again { refresh: true, pause: true },
        Risk::Twice | Risk::Spread => Verdict::Give(Error::OutcomeUnknown { why }),
    };
    match failure {
        Failure::Unsent(_) => Verdict::Again { refresh: true, pause: true },
        Failure::Refused { address, error } => {
            Verdict::Give(Error::Refused { address: address.clone(), error: error.clone() })
        }
        Failure::Lost(why) => unknown(why.clone()),
        Failure::Said(error) => match error.kind() {
            ErrorKind::Final => Verdict::Give(Error::Server(error.clone())),
            ErrorKind::UnknownOutcome => match error {
                CommandError::OutcomeUnknown { why } => unknown(why.clone().into_owned()),
                other => unknown(other.to_string()),
            },
            ErrorKind::Retryable if risk == Risk::Spread => {
                Verdict::Give(Error::Partial { source: Box::new(Error::Server(error.clone())) })
            }
            ErrorKind::Retryable => match error {
                CommandError::Moved { .. } => Verdict::Again { refresh: false, pause: false },
                CommandError::NoReplicas | CommandError::DiskFull | CommandError::Loading => {
                    Verdict::Again { refresh: false, pause: true }
                }
                _ => Verdict::Again { refresh: true, pause: true },
            },
        },
    }
}

/// Redirections that are followed at once; after that each is waited for, lest two nodes send a request to and fro.
const REDIRECTIONS_AT_ONCE: u32 = 3;

/// Counts one request's attempts and says how long to wait before the next.
#[derive(Debug)]
pub(crate) struct BackOff {
    first: Duration,
    most: Duration,
    waits: u32,
    redirections: u32,
}

impl BackOff {
    pub(crate) fn new(first: Duration, most: Duration) -> BackOff {
        BackOff { first, most, waits: 0, redirections: 0 }
    }

    /// How long to wait before the next attempt; `dice` is any random number.
    pub(crate) fn next(&mut self, pause: bool, dice: u64) -> Duration {
        if !pause {
            self.redirections += 1;
            if self.redirections <= REDIRECTIONS_AT_ONCE {
                return Duration::ZERO;
            }
        }
        let whole = self.first.saturating_mul(1 << self.waits.min(20)).min(self.most);
        self.waits = self.waits.saturating_add(1);
        // Between a half and the whole.
        let half = whole / 2;
        half + half.mul_f64((dice >> 11) as f64 / (1u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(4);
    const MOST: Duration = Duration::from_millis(100);

    fn said(line: &str) -> Failure {
        Failure::Said(CommandError::from_line(line))
    }

    /// What becomes of a read, a write and a write of many partitions.
    fn verdicts(failure: &Failure) -> [&'static str; 3] {
        [Risk::None, Risk::Twice, Risk::Spread].map(|risk| match judge(risk, failure) {
            Verdict::Again { refresh: true, pause: true } => "again, new map",
            Verdict::Again { refresh: false, pause: true } => "again",
            Verdict::Again { pause: false, .. } => "at once",
            Verdict::Give(Error::OutcomeUnknown { .. }) => "unknown",
            Verdict::Give(Error::Partial { .. }) => "in part",
            Verdict::Give(Error::Server(_)) => "final",
            Verdict::Give(Error::Refused { .. }) => "refused",
            Verdict::Give(other) => panic!("{other}"),
        })
    }

    #[test]
    fn only_what_surely_was_not_done_is_written_again() {
        let unsent = Failure::Unsent("connection refused".into());
        assert_eq!(verdicts(&unsent), ["again, new map"; 3]);
        assert_eq!(verdicts(&Failure::Lost("reset".into())), ["again, new map", "unknown", "unknown"]);
        for (line, expected) in [
            ("UNKNOWN outcome unknown: the primary died", ["again, new map", "unknown", "unknown"]),
            ("MOVED 7 h:1", ["at once", "at once", "in part"]),
            ("TRYAGAIN moving", ["again, new map", "again, new map", "in part"]),
            ("CLUSTERDOWN nobody", ["again, new map", "again, new map", "in part"]),
            ("NOREPLICAS Not enough good replicas to write.", ["again", "again", "in part"]),
            ("LOADING Redis is loading the dataset in memory", ["again", "again", "in part"]),
            ("ERR syntax error", ["final"; 3]),
            ("OOM command not allowed when used memory > 'maxmemory'.", ["final"; 3]),
            ("WHATEVER else", ["final"; 3]),
        ] {
            assert_eq!(verdicts(&said(line)), expected, "{line}");
        }
        let refused = Failure::Refused { address: "h:1".into(), error: CommandError::WrongPass };
        assert_eq!(verdicts(&refused), ["refused"; 3]);
    }

    #[test]
    fn waits_double_up_to_a_bound_and_differ_by_the_dice() {
        let waits = |dice: u64| {
            let mut back_off = BackOff::new(FIRST, MOST);
            std::iter::repeat_with(|| back_off.next(true, dice)).take(40).collect::<Vec<_>>()
        };
        let (least, most) = (waits(0), waits(u64::MAX));
        for (at, (least, most)) in least.iter().zip(&most).enumerate() {
            let whole = FIRST.saturating_mul(1 << at.min(20)).min(MOST);
            assert_eq!(*least, whole / 2, "wait {at}");
            assert!(*most <= whole && *most > whole.mul_f64(0.99), "wait {at}: {most:?}");
        }
        assert_eq!(least[39], MOST / 2);
    }

    #[test]
    fn some_redirections_are_followed_at_once() {
        let mut back_off = BackOff::new(FIRST, MOST);
        let waits: Vec<bool> = (0..5).map(|_| back_off.next(false, 0).is_zero()).collect();
        assert_eq!(waits, [true, true, true, false, false]);
        assert!(!BackOff::new(FIRST, MOST).next(true, 0).is_zero());
    }
}
