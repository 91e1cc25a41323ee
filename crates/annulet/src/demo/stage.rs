//! How the demo is told: steps with a title and a sentence or two, what is shown, checks, and the pace from one to the next.

use crate::Failure;
use crate::launch::Stops;
use crate::shell::paint::Paint;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant};

/// How long the demo stands still between steps where it goes on by itself.
const READING: Duration = Duration::from_secs(3);
/// How often it is looked whether a stop was asked for.
const TICK: Duration = Duration::from_millis(100);
/// How wide a line is.
const WIDTH: usize = 96;

/// How it goes on from one step to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// At once.
    Fast,
    /// After a moment to read.
    ByItself,
    /// When Enter is pressed.
    OnEnter,
}

/// Why a demo did not come to its end.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Something was not as it has to be.
    Check { expected: String, seen: String },
    /// It was asked to stop.
    Interrupted,
    /// Something else went wrong.
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for Broken {
    fn from(error: E) -> Broken {
        Broken::Failed(error.into())
    }
}

/// What steps share.
pub(crate) struct Stage {
    paint: Paint,
    pace: Pace,
    pub stops: Stops,
    step: usize,
    checks: usize,
    began: Instant,
}

impl Stage {
    pub(crate) fn new(paint: Paint, pace: Pace, stops: Stops) -> Stage {
        Stage { paint, pace, stops, step: 0, checks: 0, began: Instant::now() }
    }

    /// Text in lines that fit a terminal.
    pub(crate) fn tell(&self, text: &str) -> io::Result<()> {
        let mut line = String::new();
        for word in text.split_whitespace() {
            if !line.is_empty() && line.len() + 1 + word.len() > WIDTH {
                self.print(&line)?;
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line += word;
        }
        self.print(&line)
    }

    /// Something that was seen.
    pub(crate) fn show(&self, text: &str) -> io::Result<()> {
        text.lines().try_for_each(|line| self.print(&format!("    {line}")))
    }

    /// How to see the same by hand.
    pub(crate) fn hint(&self, text: &str) -> io::Result<()> {
        self.print(&self.paint.dim(&format!("    by hand: {text}")))
    }

    fn print(&self, line: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()
    }

    /// Begins a step, once it is time.
    pub(crate) fn step(&mut self, of: usize, title: &str, text: &str) -> Result<(), Broken> {
        self.wait()?;
        self.step += 1;
        self.print("")?;
        self.print(&self.paint.strong(&format!("{} of {of}: {title}", self.step)))?;
        Ok(self.tell(text)?)
    }

    /// What has to be so.
    pub(crate) fn check(
        &mut self,
        expected: &str,
        is_so: bool,
        seen: impl FnOnce() -> String,
    ) -> Result<(), Broken> {
        if !is_so {
            return Err(Broken::Check { expected: expected.to_owned(), seen: seen() });
        }
        self.checks += 1;
        Ok(self.print(&format!("  {} {expected}", self.paint.text("ok")))?)
    }

    /// That nobody has asked to stop.
    pub(crate) fn go_on(&self) -> Result<(), Broken> {
        if self.stops.count() > 0 { Err(Broken::Interrupted) } else { Ok(()) }
    }

    fn wait(&self) -> Result<(), Broken> {
        self.go_on()?;
        match self.pace {
            Pace::Fast => Ok(()),
            Pace::ByItself => {
                let began = Instant::now();
                while began.elapsed() < READING {
                    std::thread::sleep(TICK);
                    self.go_on()?;
                }
                Ok(())
            }
            Pace::OnEnter => {
                let mut out = io::stdout().lock();
                write!(out, "\n{}", self.paint.dim("Enter goes on, Ctrl-C ends "))?;
                out.flush()?;
                drop(out);
                self.wait_for_line()
            }
        }
    }

    /// Reads a line, and looks meanwhile whether a stop was asked for.
    fn wait_for_line(&self) -> Result<(), Broken> {
        let stdin = io::stdin();
        let tick = Timespec { tv_sec: 0, tv_nsec: TICK.as_nanos() as i64 };
        loop {
            self.go_on()?;
            let mut asked = [PollFd::new(&stdin, PollFlags::IN)];
            match poll(&mut asked, Some(&tick)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => {
                    stdin.lock().read_line(&mut String::new())?;
                    return Ok(());
                }
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
        }
    }

    /// The last word.
    pub(crate) fn farewell(&self) -> io::Result<()> {
        let seconds = self.began.elapsed().as_secs();
        self.print("")?;
        self.tell(&format!(
            "All {} checks held, in {seconds} s. The nodes have stopped and their directory is gone.",
            self.checks
        ))?;
        self.print("")?;
        self.print("  a cluster that stays      annulet up")?;
        self.print("  a shell                   annulet cli")?;
        self.print("  what users see of faults  docs/failures.md")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_fails_says_what_was_expected_and_seen() {
        let mut stage = Stage::new(Paint::Plain, Pace::Fast, Stops::default());
        assert!(stage.check("one is one", true, || unreachable!()).is_ok());
        let broken = stage.check("a key is there", false, || "nothing".into());
        let Err(Broken::Check { expected, seen }) = broken else { panic!("{broken:?}") };
        assert_eq!((expected.as_str(), seen.as_str(), stage.checks), ("a key is there", "nothing", 1));
    }
}
