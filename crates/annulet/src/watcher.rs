//! Watching a cluster whose nodes come and go: its state, asked of whichever node answers, and how fast it changes.

use crate::status::Status;
use crate::{Failure, flags};
use clap::ArgMatches;
use client::{Connection, Options, Reply};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// From one look to the next.
pub(crate) const BETWEEN: Duration = Duration::from_millis(200);
/// Without any answer for this long, there is nothing to wait for.
const SILENCE: Duration = Duration::from_secs(30);
/// An order that the state does not show after this long was not obeyed.
const ORDER: Duration = Duration::from_secs(10);
/// An order may be lost with a coordinator that dies: it is given again.
const ORDER_AGAIN: Duration = Duration::from_secs(1);
/// What is in the way of moves is told when they have stood still for this long.
const STUCK: Duration = Duration::from_secs(15);

/// Asks the nodes that the flags name, and those that these name, in turn.
pub(crate) struct Watcher {
    addresses: Vec<String>,
    options: Options,
    connection: Option<Connection>,
    answered_at: Instant,
}

impl Watcher {
    /// With the node that the flags name, which has to answer.
    pub(crate) fn begin(matches: &ArgMatches) -> Result<(Watcher, Status), Failure> {
        let mut connection = crate::status::connect(matches)?;
        let (status, _) = Status::ask(&mut connection)?;
        let target = flags::target(matches);
        let options = Options {
            password: target.password,
            connect_timeout: Duration::from_millis(500),
            request_timeout: Duration::from_secs(2),
        };
        let connection = Some(connection);
        let mut watcher =
            Watcher { addresses: target.addresses, options, connection, answered_at: Instant::now() };
        watcher.learn(&status);
        Ok((watcher, status))
    }

    fn learn(&mut self, status: &Status) {
        for node in status.nodes.iter().filter(|node| node.state == "ACTIVE" && node.port > 0) {
            let address = config::host_port(&node.host, node.port);
            if !self.addresses.contains(&address) {
                self.addresses.push(address);
            }
        }
    }

    /// The cluster's state; none where no node answers just now. An error where none has for long.
    pub(crate) fn look(&mut self) -> Result<Option<(Status, String)>, Failure> {
        let Some(connection) = self.connection() else { return self.silent() };
        match Status::ask(connection) {
            Ok((status, json)) => {
                self.learn(&status);
                self.answered_at = Instant::now();
                Ok(Some((status, json)))
            }
            Err(_) => {
                self.drop_connection();
                self.silent()
            }
        }
    }

    fn connection(&mut self) -> Option<&mut Connection> {
        if self.connection.is_none() {
            self.connection = Connection::connect(&self.addresses, self.options.clone()).ok();
        }
        self.connection.as_mut()
    }

    /// The next attempt is made with another node.
    fn drop_connection(&mut self) {
        self.connection = None;
        self.addresses.rotate_left(1);
    }

    fn silent(&self) -> Result<Option<(Status, String)>, Failure> {
        match self.answered_at.elapsed() > SILENCE {
            true => Err(format!(
                "no node has answered for {} s: {}",
                SILENCE.as_secs(),
                self.addresses.join(", ")
            )
            .into()),
            false => Ok(None),
        }
    }

    /// Gives an order, again where need be, until the cluster's state shows it.
    pub(crate) fn order(
        &mut self,
        words: &[&str],
        shows: impl Fn(&Status) -> bool,
    ) -> Result<Status, Failure> {
        let began = Instant::now();
        let mut given_at: Option<Instant> = None;
        let mut why = "no node answers".to_owned();
        loop {
            if given_at.is_none_or(|at| at.elapsed() > ORDER_AGAIN)
                && let Some(connection) = self.connection()
            {
                match connection.request(words) {
                    Ok(Reply::Error(error)) if !is_passing(&error.to_string()) => {
                        return Err(error.to_string().into());
                    }
                    Ok(Reply::Error(error)) => why = error.to_string(),
                    Ok(_) => {
                        given_at = Some(Instant::now());
                        why = "the coordinator has not carried it out".to_owned();
                    }
                    Err(error) => {
                        why = error.to_string();
                        self.drop_connection();
                    }
                }
            }
            if let Some((status, _)) = self.look()?
                && given_at.is_some()
                && shows(&status)
            {
                return Ok(status);
            }
            if began.elapsed() > ORDER {
                return Err(
                    format!("not done after {} s: {why}. It can be asked again", ORDER.as_secs()).into()
                );
            }
            std::thread::sleep(BETWEEN);
        }
    }

    /// Shows how far moves are until `is_done`, which says no while there is something to wait for.
    pub(crate) fn wait(&mut self, what: &str, is_done: impl Fn(&Status) -> bool) -> Result<Status, Failure> {
        let bar = Bar::new(what);
        let mut pace = Pace::default();
        let mut seen = (0, Instant::now());
        loop {
            if let Some((status, _)) = self.look()? {
                if is_done(&status) {
                    bar.end();
                    return Ok(status);
                }
                let left = status.to_do();
                if left != seen.0 {
                    seen = (left, Instant::now());
                }
                pace.saw(Instant::now(), left);
                bar.show(&pace, &status);
                if seen.1.elapsed() > STUCK && !status.moves.blocked.is_empty() {
                    bar.end();
                    return Err(format!("nothing moves: {}", status.moves.blocked.join("; ")).into());
                }
            }
            std::thread::sleep(BETWEEN);
        }
    }
}

/// Whether the same order may be obeyed a moment later.
fn is_passing(error: &str) -> bool {
    ["no coordinator is known", "LOADING", "TRYAGAIN", "CLUSTERDOWN"].iter().any(|word| error.contains(word))
}

/// How fast moves are made, over the last while.
#[derive(Default)]
pub(crate) struct Pace {
    most: u64,
    seen: std::collections::VecDeque<(Instant, u64)>,
}

/// The while.
const WINDOW: Duration = Duration::from_secs(30);

impl Pace {
    /// So much is left now.
    pub(crate) fn saw(&mut self, now: Instant, left: u64) {
        if self.seen.back().is_some_and(|(_, before)| left > *before) {
            // There is more to do than there was: what went before says little.
            self.seen.clear();
            self.most = 0;
        }
        self.most = self.most.max(left);
        self.seen.push_back((now, left));
        while self.seen.len() > 2 && self.seen.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW)
        {
            self.seen.pop_front();
        }
    }

    /// How long the rest takes if it goes on so; none where nothing was seen to move.
    pub(crate) fn left(&self) -> Option<Duration> {
        let (&(began, before), &(now, left)) = self.seen.front().zip(self.seen.back())?;
        let (done, took) = (before.checked_sub(left).filter(|done| *done > 0)?, now.duration_since(began));
        Some(took.mul_f64(left as f64 / done as f64))
    }

    /// The same in words.
    pub(crate) fn words(&self) -> String {
        match self.left() {
            None => String::new(),
            Some(left) if left.as_secs() < 120 => format!(", about {} s left", left.as_secs().max(1)),
            Some(left) if left.as_secs() < 7200 => format!(", about {} min left", left.as_secs() / 60),
            Some(left) => format!(", about {} h left", left.as_secs() / 3600),
        }
    }
}

/// A bar on a terminal; a line now and then elsewhere.
struct Bar {
    bar: ProgressBar,
    what: String,
    is_live: bool,
    said_at: std::cell::Cell<Option<Instant>>,
}

/// Between lines where there is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

impl Bar {
    fn new(what: &str) -> Bar {
        let is_live = std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(what.to_owned());
        Bar { bar, what: what.to_owned(), is_live, said_at: std::cell::Cell::new(None) }
    }

    fn show(&self, pace: &Pace, status: &Status) {
        let left = status.to_do();
        let text = format!("{}{}", status.moves_words(), pace.words());
        if self.is_live {
            self.bar.set_length(pace.most);
            self.bar.set_position(pace.most.saturating_sub(left));
            self.bar.set_message(text);
        } else if self.said_at.get().is_none_or(|at| at.elapsed() > BETWEEN_LINES) {
            self.said_at.set(Some(Instant::now()));
            eprintln!("{}: {text}", self.what);
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_follows_the_last_pace_and_starts_anew_with_more_to_do() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::default();
        pace.saw(at(0), 100);
        assert_eq!((pace.left(), pace.words()), (None, String::new()));
        pace.saw(at(10), 80);
        assert_eq!(pace.left(), Some(Duration::from_secs(40)));
        assert_eq!(pace.words(), ", about 40 s left");
        // Five times slower from here on; the first look is forgotten.
        pace.saw(at(60), 60);
        pace.saw(at(80), 50);
        assert_eq!(pace.left(), Some(Duration::from_secs(100)));
        pace.saw(at(81), 500);
        assert_eq!((pace.left(), pace.most), (None, 500));
    }

    #[test]
    fn what_passes_is_asked_again() {
        assert!(is_passing("ERR no coordinator is known now, which would carry it out"));
        assert!(!is_passing("ERR there is no node 9"));
    }
}
