//! `annulet cli`: one command, a script of commands, a bulk load, or a shell for people.
//!
//! ```text
//!   annulet cli get a          one command         run       exit code 0, 1 (nothing there) or 2 (error)
//!   annulet cli < lines        a script            run       line by line; 2 where any failed
//!   annulet cli --pipe FILE    a bulk load         pipe      sent ahead, replies counted
//!   annulet cli                on a terminal       interactive, complete
//! ```
//!
//! A line is split as redis-cli splits it (`quoting`) and is either one of the shell's own words (`words`: STATUS, KEYS, HELP and
//! so on; `node_commands` carries them out, `help` from the tables) or goes to a node as it is. `print` shows replies, with `paint` in
//! colours. What is not here: subscriptions and other replies that come without a request.

mod complete;
mod help;
mod interactive;
mod node_commands;
pub(crate) mod paint;
mod pipe;
mod pipe_input;
mod print;
mod run;
mod words;

use crate::quoting::split;
use crate::{FAILED, Failure, flags, status};
use clap::ArgMatches;
use client::Options;
use paint::Paint;
use print::Style;
use run::{Outcome, Shell, show_help};
use std::ffi::OsString;
use std::io::{BufRead, IsTerminal};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::time::Duration;
use words::Does;

/// A bulk load waits longer for a reply than a person does: the cluster may be busy with what was sent before.
const PIPE_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let style = match (matches.get_flag("json"), matches.get_flag("raw")) {
        (true, _) => Style::Json,
        (_, true) => Style::Raw,
        _ => Style::Readable(Paint::detect(&std::io::stdout())),
    };
    let words: Vec<Vec<u8>> = matches
        .get_many::<OsString>("command")
        .map_or_else(Vec::new, |words| words.cloned().map(OsString::into_vec).collect());
    if let Ok(Some(Does::Help)) = words::meaning(&words) {
        return Ok(show_help(&words[1..], style)?.exit_code());
    }
    let target = flags::target(matches);
    let mut options = Options { password: target.password.clone(), ..Options::default() };
    let pipe = matches.get_one::<OsString>("pipe");
    if pipe.is_some() {
        options.request_timeout = PIPE_TIMEOUT;
    }
    let connection = status::connect_to(&target, options.clone())?;
    if let Some(path) = pipe {
        return pipe::load(path, connection, style);
    }
    let mut shell = Shell { connection, options, style, addresses: target.addresses.len() };
    if !words.is_empty() {
        return Ok(shell.run(&words)?.exit_code());
    }
    if std::io::stdin().is_terminal() { interactive::run(&mut shell) } else { script(&mut shell) }
}

/// Each line a command. Errors end nothing but show in the exit code; with no node left to ask it ends.
fn script(shell: &mut Shell) -> Result<ExitCode, Failure> {
    let mut code = ExitCode::SUCCESS;
    for (at, line) in std::io::stdin().lock().split(b'\n').enumerate() {
        let words = split(line?).map_err(|error| format!("line {}: {error}", at + 1))?;
        if words.is_empty() {
            continue;
        }
        match shell.run(&words)? {
            Outcome::Exit => break,
            Outcome::Failed => code = ExitCode::from(FAILED),
            Outcome::Found | Outcome::Nothing => {}
        }
    }
    Ok(code)
}
