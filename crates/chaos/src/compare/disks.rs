//! Servers that keep what they are told: with which settings, on which file system, and when they are done saving.
//!
//! What a server does about its log beside writing it (Annulet's snapshots by the log's size, rewriting in Redis and its kin) is
//! off in all of them, and happens only where a measurement asks for it: else a run would have it or not by chance.

use super::client::Client;
use super::median;
use super::servers::Contender;
use crate::failure::Failure;
use serde::Serialize;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// When what was written counts as kept, the same words in all servers.
pub(super) const ALWAYS: &str = "always";
/// See [`ALWAYS`].
pub(super) const EVERYSEC: &str = "everysec";

/// Writes with which a file system is tried.
const TRIES: usize = 200;
/// Bytes of such a write.
const TRY_BYTES: usize = 4096;
/// From one look at a server that saves to the next.
const TICK: Duration = Duration::from_millis(20);

/// The server with a log of every write, synced as said.
pub(super) fn logged(contender: &Contender, fsync: &'static str) -> Contender {
    if contender.is_own {
        let never = ("snapshot-log-bytes", "1000000000000");
        let settings = [("log", "on"), ("fsync", fsync), never, ("snapshot-interval", "0")];
        return contender.with(fsync, &settings);
    }
    let settings = [
        ("save", ""),
        ("appendonly", "yes"),
        ("appendfsync", fsync),
        ("aof-use-rdb-preamble", "no"),
        ("auto-aof-rewrite-percentage", "0"),
    ];
    contender.with(fsync, &settings)
}

/// A peer whose log, once rewritten, begins with a snapshot.
pub(super) fn logged_with_preamble(contender: &Contender) -> Contender {
    let settings = [
        ("save", ""),
        ("appendonly", "yes"),
        ("appendfsync", EVERYSEC),
        ("aof-use-rdb-preamble", "yes"),
        ("auto-aof-rewrite-percentage", "0"),
    ];
    contender.with("preamble", &settings)
}

/// A peer that keeps nothing but the snapshots that it is asked for.
pub(super) fn saved(contender: &Contender) -> Contender {
    contender.with("saved", &[("save", ""), ("appendonly", "no")])
}

/// Waits until the server neither saves nor rewrites. Fails where that failed.
pub(super) fn wait_saved(client: &mut Client, patience: Duration) -> Result<(), Failure> {
    let started = Instant::now();
    loop {
        let said = client.persistence()?;
        let is = |name: &str, value: &str| said.get(name).is_some_and(|other| other == value);
        let under_way = ["rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled"];
        if under_way.iter().all(|name| is(name, "0")) {
            let failed = ["rdb_last_bgsave_status", "aof_last_bgrewrite_status"];
            return match failed.iter().find(|name| !is(name, "ok")) {
                None => Ok(()),
                Some(name) => Err(format!("it could not save: {name}").into()),
            };
        }
        if started.elapsed() > patience {
            return Err(format!("it still saves after {} s; see --patience", patience.as_secs()).into());
        }
        std::thread::sleep(TICK);
    }
}

/// The bytes of all files below a directory.
pub(super) fn bytes_below(dir: &Path) -> Result<u64, Failure> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let about = entry.metadata()?;
        bytes += if about.is_dir() { bytes_below(&entry.path())? } else { about.len() };
    }
    Ok(bytes)
}

/// Where all servers of a run keep their files.
#[derive(Debug, Serialize)]
pub(super) struct FileSystem {
    /// Such as `ext4`.
    pub kind: String,
    /// How long a write of 4 KiB at the end of a file takes together with its sync: the median.
    pub sync_ms: f64,
}

impl FileSystem {
    /// Tries it.
    pub(super) fn look(dir: &Path) -> Result<FileSystem, Failure> {
        let path = dir.join("tried");
        let mut file = File::create(&path)?;
        let mut took = Vec::new();
        for _ in 0..TRIES {
            let began = Instant::now();
            file.write_all(&[b'x'; TRY_BYTES])?;
            file.sync_data()?;
            took.push(began.elapsed().as_secs_f64() * 1e3);
        }
        std::fs::remove_file(&path)?;
        let mounts = std::fs::read_to_string("/proc/mounts")?;
        let kind = kind_of(&mounts, &dir.canonicalize()?).unwrap_or("unknown").to_owned();
        Ok(FileSystem { kind, sync_ms: median(took.into_iter()) })
    }

    /// What makes it a poor disk.
    pub(super) fn warning(&self) -> Option<String> {
        let in_memory = ["tmpfs", "ramfs"].contains(&self.kind.as_str());
        in_memory
            .then(|| format!("files are on {}, which is no disk: name another place with --dir", self.kind))
    }

    pub(super) fn text(&self) -> String {
        format!(
            "Files of all servers on one {} file system, where writing 4 KiB and syncing them takes {:.2} ms (median of {TRIES}).",
            self.kind, self.sync_ms
        )
    }
}

/// The kind of the innermost mount that a path is on.
fn kind_of<'a>(mounts: &'a str, path: &Path) -> Option<&'a str> {
    let mut best: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(place), Some(kind)) = (fields.next(), fields.next()) else { continue };
        // A later mount hides an earlier one at the same place.
        if path.starts_with(place) && best.is_none_or(|(length, _)| place.len() >= length) {
            best = Some((place.len(), kind));
        }
    }
    best.map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_on_its_innermost_mount() {
        let mounts = "/dev/vda / ext4 rw 0 0\nnone /tmp tmpfs rw 0 0\nnone /tmpfiles xfs rw 0 0\nnone /tmp btrfs rw 0 0\n";
        let kind = |path: &str| kind_of(mounts, Path::new(path));
        assert_eq!(kind("/tmp/a"), Some("btrfs"));
        assert_eq!(kind("/tmpfiles"), Some("xfs"));
        assert_eq!(kind("/home"), Some("ext4"));
        assert_eq!(kind_of("", Path::new("/")), None);
    }
}
