//! The shell on a terminal: a line editor with history, completion and hints.
//!
//! History is a file of the user's own, written after each line, so that several shells at once lose none of theirs. Lines that
//! carry a password are left out.

use super::complete::Suggestions;
use super::paint::Paint;
use super::run::{Outcome, Shell, show_error};
use super::words::carries_secret;
use crate::Failure;
use crate::quoting::split;
use client::ClientError;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{ColorMode, CompletionType, Config, Editor};
use std::path::PathBuf;
use std::process::ExitCode;

/// How many lines are remembered.
const HISTORY_LINES: usize = 10_000;

/// Where history is kept: where `ANNULET_HISTORY` says, else in the home directory. None where that is empty or unknown.
fn history_file() -> Option<PathBuf> {
    let path = match std::env::var_os("ANNULET_HISTORY") {
        Some(path) => PathBuf::from(path),
        None => {
            PathBuf::from(std::env::var_os("HOME").filter(|home| !home.is_empty())?).join(".annulet_history")
        }
    };
    (!path.as_os_str().is_empty()).then_some(path)
}

/// Reads lines until one asks to leave.
pub(crate) fn run(shell: &mut Shell) -> Result<ExitCode, Failure> {
    let paint = Paint::detect(&std::io::stdout());
    let color = if paint == Paint::Colours { ColorMode::Enabled } else { ColorMode::Disabled };
    let config = Config::builder()
        .max_history_size(HISTORY_LINES)?
        .history_ignore_dups(true)?
        .completion_type(CompletionType::List)
        .color_mode(color)
        .build();
    let mut editor: Editor<Suggestions, DefaultHistory> = Editor::with_config(config)?;
    editor.set_helper(Some(Suggestions { paint }));
    let history = history_file();
    if let Some(path) = history.as_ref().filter(|path| path.exists()) {
        // History that cannot be read is no reason not to run.
        if let Err(error) = editor.load_history(path) {
            eprintln!("annulet: cannot read the history in {}: {error}", path.display());
        }
    }
    println!("{}", paint.dim("HELP lists the commands, Tab completes, EXIT leaves."));
    loop {
        let line = match editor.readline(&format!("{}> ", shell.connection.address())) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(ExitCode::SUCCESS),
            Err(error) => return Err(error.into()),
        };
        // What is pasted comes in one piece, and may be several lines.
        for line in line.lines() {
            let words = match split(line) {
                Ok(words) if words.is_empty() => continue,
                Ok(words) => words,
                Err(error) => {
                    show_error(error.to_string(), shell.style)?;
                    continue;
                }
            };
            if !carries_secret(&words) {
                editor.add_history_entry(line)?;
                // A file that cannot be written leaves the shell with this session's history.
                let _ = history.as_ref().map(|path| editor.append_history(path));
            }
            if run_line(shell, &words, paint)? == Outcome::Exit {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
}

/// Runs a line, and says where the next ones go if that has changed.
fn run_line(shell: &mut Shell, words: &[Vec<u8>], paint: Paint) -> Result<Outcome, Failure> {
    let before = shell.connection.address().to_owned();
    let outcome = match shell.run(words) {
        // Whoever cannot be reached now may be a moment later.
        Err(failure) if failure.downcast_ref::<ClientError>().is_some() => {
            show_error(failure.to_string(), shell.style)?
        }
        outcome => outcome?,
    };
    let now = shell.connection.address();
    if now != before {
        let what = format!("{before} is gone: now at {now}, where CONSISTENCY and the like are as at first");
        eprintln!("{}", paint.dim(&what));
    }
    Ok(outcome)
}
