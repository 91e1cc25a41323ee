//! The node processes of a local cluster: started, watched, stopped. Only ever this process's own children.

use crate::cluster::Cluster;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How many lines of a log are shown with a failure.
const TAIL_LINES: usize = 15;
/// How much of a log is read for that, in bytes.
const TAIL_BYTES: u64 = 16 * 1024;

/// A running node.
pub(crate) struct Node {
    pub id: u16,
    child: Child,
}

/// A node that ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub id: u16,
    pub pid: u32,
    pub status: ExitStatus,
}

/// The node processes that still run.
#[derive(Default)]
pub(crate) struct Nodes {
    running: Vec<Node>,
}

impl Nodes {
    /// Starts one more node. Call it from the thread that lives longest: the node stops when this thread ends.
    pub(crate) fn start(&mut self, cluster: &Cluster, id: u16) -> io::Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(cluster.log_path(id))?;
        let child = Command::new(program()?)
            .arg("serve")
            .arg("--die-with-parent")
            .arg(std::process::id().to_string())
            .arg("--config")
            .arg(cluster.config_path(id))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A group of its own: Ctrl-C reaches the launcher alone, which then stops the nodes in order.
            .process_group(0)
            .spawn()?;
        self.running.push(Node { id, child });
        Ok(())
    }

    /// How many run.
    pub(crate) fn count(&self) -> usize {
        self.running.len()
    }

    /// The nodes that ended since the last call.
    pub(crate) fn ended(&mut self) -> io::Result<Vec<Ended>> {
        let mut ended = Vec::new();
        for node in &mut self.running {
            if let Some(status) = node.child.try_wait()? {
                ended.push(Ended { id: node.id, pid: node.child.id(), status });
            }
        }
        self.running.retain(|node| ended.iter().all(|end| end.id != node.id));
        Ok(ended)
    }

    /// Has one node hand over what others can take over, and stop; waits until it has or `patience` is over or `hurry` says so, and
    /// kills it then. False where it had to be killed, or runs no more.
    pub(crate) fn stop_one(
        &mut self,
        id: u16,
        patience: Duration,
        hurry: &dyn Fn() -> bool,
    ) -> io::Result<bool> {
        let Some(at) = self.running.iter().position(|node| node.id == id) else { return Ok(false) };
        signal(&self.running[at], Signal::TERM);
        let deadline = Instant::now() + patience;
        let mut node = self.running.remove(at);
        while Instant::now() < deadline && !hurry() {
            if node.child.try_wait()?.is_some() {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        node.child.kill()?;
        node.child.wait()?;
        Ok(false)
    }

    /// Kills one node without a word, as a crash would, and does not wait for its end: the caller does. None where it does not run.
    pub(crate) fn kill(&mut self, id: u16) -> io::Result<Option<Child>> {
        let Some(at) = self.running.iter().position(|node| node.id == id) else { return Ok(None) };
        let mut node = self.running.remove(at);
        node.child.kill()?;
        Ok(Some(node.child))
    }

    /// The nodes that run.
    pub(crate) fn ids(&self) -> Vec<u16> {
        self.running.iter().map(|node| node.id).collect()
    }

    /// Asks all to stop, waits until they have or `patience` is over or `hurry` says so, and kills the rest. Returns who
    /// had to be killed.
    pub(crate) fn stop(&mut self, patience: Duration, hurry: &dyn Fn() -> bool) -> io::Result<Vec<u16>> {
        for node in &self.running {
            signal(node, Signal::INT);
        }
        let deadline = Instant::now() + patience;
        while !self.running.is_empty() && Instant::now() < deadline && !hurry() {
            self.ended()?;
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut killed = Vec::new();
        for mut node in std::mem::take(&mut self.running) {
            if node.child.try_wait()?.is_none() {
                node.child.kill()?;
                node.child.wait()?;
                killed.push(node.id);
            }
        }
        Ok(killed)
    }
}

impl Drop for Nodes {
    /// No way out leaves a node behind.
    fn drop(&mut self) {
        for node in &mut self.running {
            let _ = node.child.kill();
            let _ = node.child.wait();
        }
    }
}

/// This program's file. Where a newer version was put in its place, that one: a rolling restart is how it comes into use.
fn program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    // So the system names a file that was replaced under a running process.
    let replaced = path.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
    Ok(replaced.filter(|path| path.exists()).unwrap_or(path))
}

/// The child has not been waited for, so its id is still its own.
fn signal(node: &Node, signal: Signal) {
    if let Some(pid) = i32::try_from(node.child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// The last lines of a log, indented, from `start` on. Empty where there are none.
pub(crate) fn tail(path: &Path, start: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(start.max(length.saturating_sub(TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(TAIL_LINES);
    lines[first..].iter().map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_the_last_lines_of_this_run() {
        let path = std::env::temp_dir().join(format!("annulet-tail-{}", std::process::id()));
        let lines: String = (1..=5000).map(|n| format!("line {n}\n")).collect();
        std::fs::write(&path, &lines).unwrap();
        let shown = tail(&path, 0);
        assert_eq!(shown.lines().count(), TAIL_LINES);
        assert!(shown.ends_with("    line 5000\n"));
        assert_eq!(tail(&path, lines.len() as u64), "");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(tail(&path, 0), "");
    }
}
