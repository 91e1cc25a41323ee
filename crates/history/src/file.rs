//! A history as text, so that the one of a failed run can be kept, read by people, and judged again.
//!
//! The first line names the format: `annulet-history 1`. Then comes one operation a line, in any order:
//!
//! ```text
//! # a comment; empty lines are skipped, too, and both may stand before the first line
//! annulet-history 1
//! 3 1000200 2500300 answered 7 set 20000 -> done, 8 set 30000 -> done
//! 4 1000250 2600000 answered 7 get -> value 20000, 8 get -> none
//! 5 1000300 - unknown 7 compare-and-set 20000 40000
//! 5 9000000 9100000 refused 8 increment
//! ```
//!
//! | what | how it is written |
//! | --- | --- |
//! | operation | client, invoked, returned, outcome, parts with commas between them |
//! | returned | nanoseconds, or `-`: never, or nobody knows |
//! | outcome | `answered`, `refused`, `unknown` |
//! | part | key, call; where it was answered ` -> ` and the answer |
//! | call | `get`, `set VALUE`, `set-if-absent VALUE`, `set-if-all-absent VALUE`, `set-expiring VALUE EXPIRY`, `increment`, `delete`, `compare-and-set EXPECTED NEW`, `compare-and-delete EXPECTED`, `expire EXPIRY` |
//! | answer | `done`, `value VALUE`, `none` (no value), `counted VALUE`, `changed`, `unchanged`, `mismatch`, `absent`, `removed COUNT` |

use crate::{Answer, Call, Operation, Outcome, Part, Time};
use std::io::{BufRead, Write};
use std::str::{FromStr, SplitWhitespace};

/// What the first line says.
const HEAD: &str = "annulet-history 1";

/// Why a file holds no history.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It cannot be read.
    #[error("line {line} cannot be read: {source}")]
    Read {
        /// The line, from 1 on.
        line: usize,
        /// Why.
        source: std::io::Error,
    },
    /// It does not begin as a history does.
    #[error("line {line}: a history begins with \"{HEAD}\", not with \"{found}\"")]
    Head {
        /// The line, from 1 on.
        line: usize,
        /// What is there.
        found: String,
    },
    /// A line is no operation.
    #[error("line {line}: {what}")]
    Line {
        /// The line, from 1 on.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
}

/// Writes a history. Comments of the caller's may stand before it.
pub fn write(to: &mut impl Write, operations: &[Operation]) -> std::io::Result<()> {
    writeln!(to, "{HEAD}")?;
    for operation in operations {
        writeln!(to, "{}", line_of(operation))?;
    }
    Ok(())
}

/// Reads a history.
pub fn read(from: impl BufRead) -> Result<Vec<Operation>, Unreadable> {
    let (mut operations, mut head, mut last) = (Vec::new(), false, 0);
    for (at, text) in from.lines().enumerate() {
        let line = at + 1;
        last = line;
        let text = text.map_err(|source| Unreadable::Read { line, source })?;
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        if !head {
            if text != HEAD {
                return Err(Unreadable::Head { line, found: text.chars().take(80).collect() });
            }
            head = true;
            continue;
        }
        operations.push(operation_of(text).map_err(|what| Unreadable::Line { line, what })?);
    }
    if head { Ok(operations) } else { Err(Unreadable::Head { line: last + 1, found: "its end".into() }) }
}

/// An operation as its line.
pub fn line_of(operation: &Operation) -> String {
    let returned = match operation.returned {
        Time::MAX => "-".to_owned(),
        returned => returned.to_string(),
    };
    let outcome = match operation.outcome {
        Outcome::Answered => "answered",
        Outcome::Refused => "refused",
        Outcome::Unknown => "unknown",
    };
    let part = |part: &Part| match part.answer {
        Some(answer) => format!("{} {} -> {}", part.key, call_words(part.call), answer_words(answer)),
        None => format!("{} {}", part.key, call_words(part.call)),
    };
    let parts: Vec<String> = operation.parts.iter().map(part).collect();
    format!("{} {} {returned} {outcome} {}", operation.client, operation.invoked, parts.join(", "))
}

/// A call as its words.
fn call_words(call: Call) -> String {
    match call {
        Call::Get => "get".into(),
        Call::Set(value) => format!("set {value}"),
        Call::SetIfAbsent(value) => format!("set-if-absent {value}"),
        Call::SetIfAllAbsent(value) => format!("set-if-all-absent {value}"),
        Call::SetExpiring(value, expiry) => format!("set-expiring {value} {expiry}"),
        Call::Increment => "increment".into(),
        Call::Delete => "delete".into(),
        Call::CompareAndSet { expected, new } => format!("compare-and-set {expected} {new}"),
        Call::CompareAndDelete(expected) => format!("compare-and-delete {expected}"),
        Call::Expire(expiry) => format!("expire {expiry}"),
    }
}

/// An answer as its words.
fn answer_words(answer: Answer) -> String {
    match answer {
        Answer::Done => "done".into(),
        Answer::Value(Some(value)) => format!("value {value}"),
        Answer::Value(None) => "none".into(),
        Answer::Counted(value) => format!("counted {value}"),
        Answer::Changed(true) => "changed".into(),
        Answer::Changed(false) => "unchanged".into(),
        Answer::Mismatch => "mismatch".into(),
        Answer::Absent => "absent".into(),
        Answer::Removed(count) => format!("removed {count}"),
    }
}

/// The operation of a line.
fn operation_of(line: &str) -> Result<Operation, String> {
    let mut head = line.splitn(5, ' ').map(str::trim);
    let mut word =
        |what: &str| head.next().filter(|word| !word.is_empty()).ok_or(format!("{what} is missing"));
    let client = number(word("the client")?, "a client")?;
    let invoked: Time = number(word("the time of invocation")?, "a time")?;
    let returned = match word("the time of return")? {
        "-" => Time::MAX,
        text => number(text, "a time")?,
    };
    let outcome = match word("the outcome")? {
        "answered" => Outcome::Answered,
        "refused" => Outcome::Refused,
        "unknown" => Outcome::Unknown,
        other => return Err(format!("\"{other}\" is no outcome: answered, refused or unknown")),
    };
    let parts = word("the key")?.split(',').map(part_of).collect::<Result<Vec<Part>, String>>()?;
    if returned < invoked {
        return Err(format!("it returned at {returned}, before it was invoked at {invoked}"));
    }
    if outcome == Outcome::Unknown && returned != Time::MAX {
        return Err("an operation of unknown outcome returned: \"-\" is its time of return".into());
    }
    if outcome != Outcome::Answered && parts.iter().any(|part| part.answer.is_some()) {
        return Err("an answer, and yet it was not answered".into());
    }
    Ok(Operation { client, parts, invoked, returned, outcome })
}

fn part_of(text: &str) -> Result<Part, String> {
    let (asked, told) = match text.split_once("->") {
        Some((asked, told)) => (asked, Some(told)),
        None => (text, None),
    };
    let mut words = asked.split_whitespace();
    let key = number(words.next().ok_or("the key is missing")?, "a key")?;
    let call = match words.next().ok_or("the call is missing")? {
        "get" => Call::Get,
        "set" => Call::Set(next(&mut words)?),
        "set-if-absent" => Call::SetIfAbsent(next(&mut words)?),
        "set-if-all-absent" => Call::SetIfAllAbsent(next(&mut words)?),
        "set-expiring" => Call::SetExpiring(next(&mut words)?, next(&mut words)?),
        "increment" => Call::Increment,
        "delete" => Call::Delete,
        "compare-and-set" => Call::CompareAndSet { expected: next(&mut words)?, new: next(&mut words)? },
        "compare-and-delete" => Call::CompareAndDelete(next(&mut words)?),
        "expire" => Call::Expire(next(&mut words)?),
        other => return Err(format!("\"{other}\" is no call")),
    };
    end(words)?;
    let answer = told.map(answer_of).transpose()?;
    Ok(Part { key, call, answer })
}

fn answer_of(text: &str) -> Result<Answer, String> {
    let mut words = text.split_whitespace();
    let answer = match words.next().ok_or("the answer is missing")? {
        "done" => Answer::Done,
        "value" => Answer::Value(Some(next(&mut words)?)),
        "none" => Answer::Value(None),
        "counted" => Answer::Counted(next(&mut words)?),
        "changed" => Answer::Changed(true),
        "unchanged" => Answer::Changed(false),
        "mismatch" => Answer::Mismatch,
        "absent" => Answer::Absent,
        "removed" => Answer::Removed(next(&mut words)?),
        other => return Err(format!("\"{other}\" is no answer")),
    };
    end(words)?;
    Ok(answer)
}

fn next<N: FromStr>(words: &mut SplitWhitespace<'_>) -> Result<N, String> {
    number(words.next().ok_or("a number is missing")?, "a number")
}

fn end(mut words: SplitWhitespace<'_>) -> Result<(), String> {
    words.next().map_or(Ok(()), |word| Err(format!("\"{word}\" is one word too many")))
}

fn number<N: FromStr>(text: &str, what: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("\"{text}\" is not {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLS: [Call; 10] = [
        Call::Get,
        Call::Set(-7),
        Call::SetIfAbsent(8),
        Call::SetIfAllAbsent(9),
        Call::SetExpiring(10, 11),
        Call::Increment,
        Call::Delete,
        Call::CompareAndSet { expected: 12, new: 13 },
        Call::CompareAndDelete(14),
        Call::Expire(11),
    ];
    const ANSWERS: [Option<Answer>; 10] = [
        None,
        Some(Answer::Done),
        Some(Answer::Value(Some(i64::MIN))),
        Some(Answer::Value(None)),
        Some(Answer::Counted(5)),
        Some(Answer::Changed(true)),
        Some(Answer::Changed(false)),
        Some(Answer::Mismatch),
        Some(Answer::Absent),
        Some(Answer::Removed(3)),
    ];

    #[test]
    fn what_is_written_is_read() {
        let mut operations = Vec::new();
        for call in CALLS {
            for answer in ANSWERS {
                let part = |key| Part { key, call, answer };
                let (invoked, returned) = (operations.len() as u64, 1_000_000_000_000);
                let outcome = Outcome::Answered;
                operations.push(Operation {
                    client: 3,
                    parts: vec![part(0), part(70)],
                    invoked,
                    returned,
                    outcome,
                });
            }
            let parts = vec![Part { key: 1, call, answer: None }];
            let (invoked, returned, outcome) = (7, Time::MAX, Outcome::Unknown);
            operations.push(Operation { client: u32::MAX, parts, invoked, returned, outcome });
        }
        let mut text = b"# seed 5\n\n".to_vec();
        write(&mut text, &operations).unwrap();
        assert_eq!(read(&text[..]).unwrap(), operations);
    }

    #[test]
    fn what_is_no_history_is_told_by_its_line() {
        let complaint = |text: &str| read(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(
            complaint(""),
            "line 1: a history begins with \"annulet-history 1\", not with \"its end\""
        );
        assert_eq!(
            complaint("# x\nannulet-history 2\n"),
            "line 2: a history begins with \"annulet-history 1\", not with \"annulet-history 2\""
        );
        for (line, what) in [
            ("x 1 2 answered 0 get", "\"x\" is not a client"),
            ("1 1", "the time of return is missing"),
            ("1 5 4 answered 0 get -> none", "it returned at 4, before it was invoked at 5"),
            ("1 1 - perhaps 0 get", "\"perhaps\" is no outcome: answered, refused or unknown"),
            ("1 1 2 unknown 0 get", "an operation of unknown outcome returned: \"-\" is its time of return"),
            ("1 1 - unknown 0 get -> none", "an answer, and yet it was not answered"),
            ("1 1 - unknown", "the key is missing"),
            ("1 1 - unknown 0 get,", "the key is missing"),
            ("1 1 - unknown 0", "the call is missing"),
            ("1 1 - unknown 0 fetch", "\"fetch\" is no call"),
            ("1 1 - unknown 0 set", "a number is missing"),
            ("1 1 - unknown 0 set 1 2", "\"2\" is one word too many"),
            ("1 1 - unknown -1 get", "\"-1\" is not a key"),
            ("1 1 2 answered 0 get ->", "the answer is missing"),
            (
                "1 1 2 answered 0 get -> value 99999999999999999999",
                "\"99999999999999999999\" is not a number",
            ),
        ] {
            let text = format!("{HEAD}\n1 1 2 answered 0 get -> none\n{line}\n");
            assert_eq!(complaint(&text), format!("line 3: {what}"), "{line}");
        }
        let bytes = [HEAD.as_bytes(), b"\n\xff\xff\n"].concat();
        let complaint = read(&bytes[..]).unwrap_err().to_string();
        assert!(complaint.starts_with("line 2 cannot be read: "), "{complaint}");
    }
}
