//! `annulet rolling-restart`: asks the `annulet up` that runs a local cluster to restart its nodes one after the other.
//!
//! Only who started a process can start it again, so the launcher does the work. It holds DIR/lock and has written its process id
//! there; it is asked by SIGUSR1, and says in DIR/rolling-restart how far it is: one line, the last of which is `done` or
//! `failed: why`.

use crate::{Failure, print};
use clap::ArgMatches;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// From one look at the launcher's word to the next.
const BETWEEN: Duration = Duration::from_millis(100);
/// The longest silence of a launcher that works: a node's stop and its start.
const SILENCE: Duration = Duration::from_secs(300);

/// Where the launcher says how far it is.
pub(crate) fn word_path(dir: &Path) -> PathBuf {
    dir.join("rolling-restart")
}

/// The last word of a rolling restart that went well.
pub(crate) const DONE: &str = "done";
/// What the last word of one that went wrong begins with.
pub(crate) const GONE_WRONG: &str = "failed: ";

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let dir = PathBuf::from(matches.get_one::<String>("dir").map_or("annulet-data", String::as_str));
    let launcher = launcher_of(&dir)?;
    let path = word_path(&dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(format!("cannot remove {}: {error}", path.display()).into());
        }
        _ => {}
    }
    kill_process(launcher, Signal::USR1).map_err(|error| format!("cannot ask the launcher: {error}"))?;
    let mut said = String::new();
    let mut said_at = Instant::now();
    loop {
        let word = std::fs::read_to_string(&path).unwrap_or_default();
        let word = word.trim_end();
        if word != said && !word.is_empty() {
            said = word.to_owned();
            said_at = Instant::now();
            if let Some(why) = said.strip_prefix(GONE_WRONG) {
                return Err(why.into());
            }
            if said == DONE {
                return print("Every node was restarted, and every copy is in sync.\n");
            }
            print(&format!("{said}\n"))?;
        }
        if said_at.elapsed() > SILENCE || launcher_of(&dir).is_err() {
            return Err(format!("`annulet up` has ended, or stands still; it said last: {said:?}").into());
        }
        std::thread::sleep(BETWEEN);
    }
}

/// The process of the `annulet up` that runs the cluster in a directory.
fn launcher_of(dir: &Path) -> Result<Pid, Failure> {
    let not_run = || -> Failure {
        format!(
            "no `annulet up` runs a cluster in {}; --dir names another. Nodes that something else starts are restarted by it, one after the \
             other, each followed by `annulet rebalance --wait`: see `annulet help rolling-restart`",
            dir.display()
        )
        .into()
    };
    let path = dir.join("lock");
    let lock = File::open(&path).map_err(|_| not_run())?;
    match lock.try_lock_shared() {
        // Nobody holds it.
        Ok(()) => Err(not_run()),
        Err(std::fs::TryLockError::Error(error)) => {
            Err(format!("cannot look at {}: {error}", path.display()).into())
        }
        Err(std::fs::TryLockError::WouldBlock) => {
            let text = std::fs::read_to_string(&path)?;
            text.trim().parse().ok().and_then(Pid::from_raw).ok_or_else(|| {
                format!(
                    "{} does not say which process holds it: is it an older `annulet up`?",
                    path.display()
                )
                .into()
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launcher_is_who_holds_the_lock() {
        let dir = std::env::temp_dir().join(format!("annulet-rolling-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let error = launcher_of(&dir).unwrap_err().to_string();
        assert!(error.contains("no `annulet up` runs") && error.contains("rebalance --wait"), "{error}");
        // A pid that an ended launcher left behind is not signalled.
        std::fs::write(dir.join("lock"), "4711\n").unwrap();
        assert!(launcher_of(&dir).unwrap_err().to_string().contains("no `annulet up` runs"));
        let held = File::options().write(true).open(dir.join("lock")).unwrap();
        held.try_lock().unwrap();
        assert_eq!(launcher_of(&dir).unwrap().as_raw_nonzero().get(), 4711);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
