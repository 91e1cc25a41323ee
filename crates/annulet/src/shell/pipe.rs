//! `annulet cli --pipe FILE`: a file of commands at full speed, over one connection, in their order.
//!
//! One thread reads the file and sends ahead; another reads replies, counts them, and shows the first errors with their place in
//! the file. So much is under way at once ([`AHEAD_BYTES`]), and no more is kept in memory, however long the file.
//!
//! Nothing is sent twice. Where the connection breaks, what was sent and not answered has an unknown outcome: it is said from which
//! place on.

use super::pipe_input::{Input, Kind, Step};
use super::print::Style;
use crate::{FAILED, Failure};
use client::{Connection, Replies, Reply, Requests};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How many bytes of requests are under way at once, unless it is one request.
const AHEAD_BYTES: usize = 4 * 1024 * 1024;
/// How many bytes of requests are sent in one go, or more where one is larger.
const SEND_BYTES: usize = 64 * 1024;
/// How many errors are shown.
const ERRORS_SHOWN: usize = 10;

/// A request that was sent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: u64,
    bytes: usize,
    /// How far in the file it ends.
    end: u64,
}

#[derive(Debug, Default)]
struct State {
    /// Sent and not answered, in order.
    under_way: VecDeque<Sent>,
    /// Their bytes.
    bytes: usize,
    replies: u64,
    errors: u64,
    first_errors: Vec<(u64, String)>,
    /// Nothing more is sent.
    is_over: bool,
    /// Why the connection is of no use any more.
    broken: Option<String>,
}

/// What both threads know.
#[derive(Debug, Default)]
struct Flow {
    state: Mutex<State>,
    changed: Condvar,
}

impl Flow {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, is_so: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        self.changed.wait_while(self.lock(), |state| is_so(state)).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room, and notes what is about to be sent. False where nobody reads replies any more.
    fn begin(&self, requests: &mut Vec<Sent>) -> bool {
        let bytes: usize = requests.iter().map(|sent| sent.bytes).sum();
        let is_full = |state: &State| !state.under_way.is_empty() && state.bytes + bytes > AHEAD_BYTES;
        let mut state = self.wait_while(|state| state.broken.is_none() && is_full(state));
        if state.broken.is_some() {
            return false;
        }
        state.bytes += bytes;
        state.under_way.extend(requests.drain(..));
        drop(state);
        self.changed.notify_all();
        true
    }

    fn end(&self, broken: Option<String>) {
        let mut state = self.lock();
        state.is_over = true;
        state.broken = state.broken.take().or(broken);
        drop(state);
        self.changed.notify_all();
    }

    /// Counts an error, and shows it where it is one of the first.
    fn note(&self, at: u64, why: String, progress: &Progress) {
        let mut state = self.lock();
        state.errors += 1;
        if state.first_errors.len() < ERRORS_SHOWN {
            progress.say(&format!("{} {at}: {why}", progress.kind.place()));
            state.first_errors.push((at, why));
            if state.first_errors.len() == ERRORS_SHOWN {
                progress.say("(further errors are only counted)");
            }
        }
    }
}

/// A bar on a terminal, nothing elsewhere.
struct Progress {
    bar: ProgressBar,
    kind: Kind,
}

impl Progress {
    fn new(length: Option<u64>, kind: Kind) -> Progress {
        let is_live = std::io::stderr().is_terminal();
        let target = if is_live { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(length, target);
        let template = match length {
            Some(_) => "[{bar:30}] {bytes} of {total_bytes}, {msg}, {eta} left",
            None => "{spinner} {bytes}, {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Progress { bar, kind }
    }

    fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("annulet: {text}"));
    }
}

/// Loads a file; `-` is standard input.
pub(crate) fn load(path: &OsStr, connection: Connection, style: Style) -> Result<ExitCode, Failure> {
    let (source, length): (Box<dyn Read>, Option<u64>) = if path == "-" {
        (Box::new(std::io::stdin().lock()), None)
    } else {
        let failed = |error| format!("cannot read {}: {error}", path.display());
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?;
        (Box::new(file), length.is_file().then_some(length.len()))
    };
    let mut input = Input::new(source);
    input.fill().map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let address = connection.address().to_owned();
    let (requests, replies) = connection.into_halves()?;
    let (flow, progress) = (Flow::default(), Progress::new(length, input.kind()));
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| read_replies(replies, &address, &flow, &progress));
        let broken = send(&mut input, requests, &address, &flow, &progress).err();
        flow.end(broken);
    });
    progress.bar.finish_and_clear();
    let seconds = began.elapsed().as_secs_f64();
    let state = flow.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    report(&state, input.kind(), seconds, style)
}

/// Sends the file. An error says why its rest is not sent.
fn send(
    input: &mut Input<impl Read>,
    mut requests: Requests,
    address: &str,
    flow: &Flow,
    progress: &Progress,
) -> Result<(), String> {
    let (mut out, mut noted) = (Vec::with_capacity(2 * SEND_BYTES), Vec::new());
    loop {
        let before = out.len();
        let step = input.next(&mut out);
        if let Step::Request { at } = step {
            noted.push(Sent { at, bytes: out.len() - before, end: input.consumed() });
            if out.len() < SEND_BYTES {
                continue;
            }
        }
        if !flow.begin(&mut noted) {
            return Ok(());
        }
        requests.write_all(&out).map_err(|error| format!("{address}: {error}"))?;
        out.clear();
        out.shrink_to(2 * SEND_BYTES);
        match step {
            Step::Request { .. } => {}
            Step::Refused { at, why } => flow.note(at, why, progress),
            Step::NeedsMore => input.fill().map_err(|error| format!("the file cannot be read: {error}"))?,
            Step::End => return Ok(()),
            Step::Broken { at, why } => {
                flow.note(at, format!("{why}; nothing from here on was sent"), progress);
                return Ok(());
            }
        }
    }
}

/// Reads replies until all have come, or none comes any more.
fn read_replies(mut replies: Replies, address: &str, flow: &Flow, progress: &Progress) {
    loop {
        let state = flow.wait_while(|state| state.under_way.is_empty() && !state.is_over);
        if state.under_way.is_empty() {
            return;
        }
        drop(state);
        let reply = match replies.read() {
            Ok(reply) => reply,
            Err(error) => {
                flow.end(Some(format!("{address}: {error}")));
                // Whoever waits to send is let go.
                return replies.close();
            }
        };
        let mut state = flow.lock();
        let Some(sent) = state.under_way.pop_front() else { return };
        state.bytes -= sent.bytes;
        state.replies += 1;
        let count = state.replies;
        drop(state);
        flow.changed.notify_all();
        if let Reply::Error(error) = reply {
            flow.note(sent.at, error.to_string(), progress);
        }
        if count.is_multiple_of(1024) {
            progress.bar.set_position(sent.end);
            progress.bar.set_message(format!("{count} replies"));
        }
    }
}

fn report(state: &State, kind: Kind, seconds: f64, style: Style) -> Result<ExitCode, Failure> {
    let unknown = state.under_way.len() as u64;
    let commands = state.replies + unknown;
    let text = if style == Style::Json {
        let errors: Vec<_> = state
            .first_errors
            .iter()
            .map(|(at, why)| serde_json::json!({ kind.place(): at, "error": why }))
            .collect();
        let json = serde_json::json!({
            "commands": commands, "replies": state.replies, "errors": state.errors, "unknown": unknown,
            "seconds": seconds, "first_errors": errors,
        });
        format!("{json}\n")
    } else {
        let rate = state.replies as f64 / seconds.max(0.001);
        format!(
            "{commands} commands sent, {} replies, {} errors, in {seconds:.1} s ({rate:.0} a second)\n",
            state.replies, state.errors
        )
    };
    crate::print(&text)?;
    if let Some(why) = &state.broken {
        let rest = match state.under_way.front() {
            Some(sent) => format!(
                "; of {unknown} commands nobody knows whether they were done, from {} {} on",
                kind.place(),
                sent.at
            ),
            None => String::new(),
        };
        return Err(format!("{why}{rest}").into());
    }
    Ok(if state.errors == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}
