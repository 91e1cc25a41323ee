//! One line run: by the cluster, or by the shell itself; shown; and what came of it as an exit code.
//!
//! A connection that breaks goes on at the next of the nodes that were named. What was surely not sent is sent there; a command that
//! only reads is asked again; a write that was under way is answered "outcome unknown", since it may have been done.

use super::help;
use super::node_commands::{self, Said};
use super::paint::Paint;
use super::print::{Style, reply};
use super::words::{self, Does};
use crate::FAILED;
use client::{ClientError, Connection, Options, Reply};
use command::{CommandError, Flags};
use std::io::{self, Write};
use std::process::ExitCode;

/// The exit code where there was nothing.
const NOTHING: u8 = 1;

/// What came of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There was an answer.
    Found,
    /// There was nothing: a null.
    Nothing,
    /// There was an error.
    Failed,
    /// The line asks to leave.
    Exit,
}

impl Outcome {
    /// As the process's exit code.
    pub(crate) fn exit_code(self) -> ExitCode {
        match self {
            Outcome::Found | Outcome::Exit => ExitCode::SUCCESS,
            Outcome::Nothing => ExitCode::from(NOTHING),
            Outcome::Failed => ExitCode::from(FAILED),
        }
    }
}

/// A connection, and how replies are shown.
pub(crate) struct Shell {
    pub connection: Connection,
    /// For connections to other nodes.
    pub options: Options,
    pub style: Style,
    /// How many addresses there are to try.
    pub addresses: usize,
}

impl Shell {
    /// Runs a line and shows its answer. An error: nobody can be asked any more.
    pub(crate) fn run(&mut self, words: &[Vec<u8>]) -> Result<Outcome, crate::Failure> {
        let said = match words::meaning(words) {
            Err(usage) => Err(usage.into()),
            Ok(None) => return self.command(words),
            Ok(Some(Does::Exit)) => return Ok(Outcome::Exit),
            Ok(Some(Does::Help)) => return Ok(show_help(&words[1..], self.style)?),
            Ok(Some(Does::Keys)) => match node_commands::keys(self, words.get(1).map(Vec::as_slice)) {
                Ok(answer) => return Ok(self.show(&answer)?),
                Err(failure) => Err(failure),
            },
            Ok(Some(does)) => node_commands::run(self, does, words.get(1).map(Vec::as_slice)),
        };
        match said {
            Ok(said) => Ok(self.show_said(&said)?),
            Err(failure) if is_unreachable(&failure) => Err(failure),
            Err(failure) => Ok(self.show(&error(failure.to_string()))?),
        }
    }

    fn command(&mut self, words: &[Vec<u8>]) -> Result<Outcome, crate::Failure> {
        match self.ask(words) {
            Ok(answer) => Ok(self.show(&answer)?),
            Err(failure) if failure.is_unsent() => Err(failure.into()),
            Err(failure) => Ok(self.show(&error(failure.to_string()))?),
        }
    }

    /// The reply to a command, from whichever node answers.
    pub(crate) fn ask(&mut self, words: &[impl AsRef<[u8]>]) -> Result<Reply<'static>, ClientError> {
        self.connection.drop_if_closed();
        let args: Vec<&[u8]> = words.iter().map(AsRef::as_ref).collect();
        let may_repeat = command::resolve(&args).is_ok_and(is_harmless);
        let mut left = if may_repeat { self.addresses } else { 0 };
        loop {
            match self.connection.request(&args) {
                Err(ClientError::OutcomeUnknown { .. }) if left > 0 => left -= 1,
                outcome => return outcome,
            }
        }
    }

    fn show(&self, answer: &Reply<'_>) -> io::Result<Outcome> {
        write(&reply(answer, self.style))?;
        Ok(match answer {
            Reply::Error(_) => Outcome::Failed,
            Reply::Null | Reply::NullArray => Outcome::Nothing,
            _ => Outcome::Found,
        })
    }

    fn show_said(&self, said: &Said) -> io::Result<Outcome> {
        match self.style {
            Style::Json => write(format!("{}\n", said.json).as_bytes())?,
            Style::Readable(_) | Style::Raw => write(format!("{}\n", said.text.trim_end()).as_bytes())?,
        }
        Ok(if said.found { Outcome::Found } else { Outcome::Nothing })
    }
}

/// Shows help, which needs no connection.
pub(crate) fn show_help(topic: &[Vec<u8>], style: Style) -> io::Result<Outcome> {
    let paint = match style {
        Style::Readable(paint) => paint,
        Style::Raw | Style::Json => Paint::Plain,
    };
    match (help::help(topic, paint), topic.first()) {
        (Some(text), _) if style == Style::Json => {
            write(format!("{}\n", serde_json::json!(text)).as_bytes())?
        }
        (Some(text), _) => write(text.as_bytes())?,
        (None, name) => {
            write(&reply(&error(help::unknown(name.map_or(&[], Vec::as_slice))), style))?;
            return Ok(Outcome::Failed);
        }
    }
    Ok(Outcome::Found)
}

/// Shows an error of the shell's own in a reply's place.
pub(crate) fn show_error(text: String, style: Style) -> io::Result<Outcome> {
    write(&reply(&error(text), style))?;
    Ok(Outcome::Failed)
}

fn error(text: String) -> Reply<'static> {
    Reply::Error(CommandError::Other(text))
}

/// Whether running a command twice is as good as once: it reads, or tells of the node, and changes nothing.
fn is_harmless(row: &command::Command) -> bool {
    row.flags.contains(Flags::READONLY)
        || matches!(&*row.full_name(), "info" | "annulet|status" | "ping")
        || row.parent == "cluster"
}

fn is_unreachable(failure: &crate::Failure) -> bool {
    failure.downcast_ref::<ClientError>().is_some_and(ClientError::is_unsent)
}

/// To standard output. A reader that has seen enough ends the program, as it does others'.
fn write(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_found_from_nothing_from_error() {
        let code = |outcome: Outcome| format!("{:?}", outcome.exit_code());
        assert_eq!(code(Outcome::Found), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(code(Outcome::Nothing), format!("{:?}", ExitCode::from(1)));
        assert_eq!(code(Outcome::Failed), format!("{:?}", ExitCode::from(2)));
        assert_eq!(code(Outcome::Exit), format!("{:?}", ExitCode::SUCCESS));
    }

    #[test]
    fn only_what_changes_nothing_is_asked_twice() {
        let harmless = |line: &str| {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            is_harmless(command::resolve(&words).unwrap())
        };
        for line in ["get a", "mget a b", "scan 0", "annulet status", "cluster slots", "info", "ping"] {
            assert!(harmless(line), "{line}");
        }
        for line in ["set a 1", "incr a", "getdel a", "getex a EX 5", "flushall", "client setname x"] {
            assert!(!harmless(line), "{line}");
        }
    }
}
