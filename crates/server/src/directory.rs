//! The data directory: one process at a time, and the cluster's join secret.

use crate::StartError;
use crate::disk::RealDisk;
use crate::proof::Secret;
use rustix::fs::{FlockOperation, flock};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};
use storage::Disk;

/// Name of the file that holds the join secret.
pub const SECRET_FILE: &str = "join.secret";
const LOCK_FILE: &str = "lock";
/// A process that was killed may hold its lock for a moment more, until the system has taken it apart: whoever starts it again at
/// once is not to be turned away.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// A data directory that this process holds.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: Option<File>,
}

impl Directory {
    /// Makes the directory where there is none, durably, and takes its lock.
    pub fn open(path: &Path) -> Result<Directory, StartError> {
        let failed = |source| StartError::Directory { path: path.to_owned(), source };
        let missing: Vec<&Path> = path.ancestors().take_while(|part| !part.exists()).collect();
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        for made in missing {
            let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
            RealDisk.sync_dir(parent.unwrap_or(Path::new("."))).map_err(failed)?;
        }
        let mut options = OpenOptions::new();
        let lock = options
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path.join(LOCK_FILE))
            .map_err(failed)?;
        let until = Instant::now() + LOCK_PATIENCE;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Directory { path: path.to_owned(), _lock: Some(lock) }),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => sleep(LOCK_RETRY),
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(StartError::DirectoryInUse { path: path.to_owned() });
                }
                Err(errno) => return Err(failed(errno.into())),
            }
        }
    }

    /// Takes the lock of a directory that is there, to look into it: others may look at the same time, and no node may run.
    /// Changes nothing. A directory without a lock was copied without it: no node runs there, since one makes it first of all.
    pub fn look(path: &Path) -> Result<Directory, StartError> {
        let failed = |source| StartError::Directory { path: path.to_owned(), source };
        let lock = match File::open(path.join(LOCK_FILE)) {
            Ok(lock) => lock,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Directory { path: path.to_owned(), _lock: None });
            }
            Err(error) => return Err(failed(error)),
        };
        match flock(&lock, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Directory { path: path.to_owned(), _lock: Some(lock) }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::DirectoryInUse { path: path.to_owned() }),
            Err(errno) => Err(failed(errno.into())),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The cluster's join secret. A node that is its whole cluster draws one where there is none; of several, each
    /// has to be given the same.
    pub fn join_secret(&self, alone: bool) -> Result<Secret, StartError> {
        let path = self.path.join(SECRET_FILE);
        let failed = |source| StartError::Directory { path: path.clone(), source };
        let mut text = String::new();
        match File::open(&path) {
            Ok(file) => {
                file.take(4096).read_to_string(&mut text).map_err(failed)?;
                Secret::parse(text.trim()).ok_or_else(|| StartError::SecretMalformed { path: path.clone() })
            }
            Err(error) if error.kind() == ErrorKind::NotFound && alone => {
                let secret = Secret::draw().map_err(failed)?;
                self.write_secret(&path, &secret).map_err(failed)?;
                Ok(secret)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Err(StartError::SecretMissing { path }),
            Err(error) => Err(failed(error)),
        }
    }

    /// Whole or not at all: written aside, synced, renamed.
    fn write_secret(&self, path: &Path, secret: &Secret) -> std::io::Result<()> {
        let aside = path.with_extension("secret.new");
        match std::fs::remove_file(&aside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&aside)?;
        file.write_all(format!("{}\n", secret.to_hex()).as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&aside, path)?;
        File::open(&self.path)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_directory_is_held_by_one() {
        let dir = TempDir::new();
        let held = Directory::open(dir.path()).unwrap();
        assert!(matches!(Directory::open(dir.path()), Err(StartError::DirectoryInUse { .. })));
        drop(held);
        Directory::open(dir.path()).unwrap();
    }

    #[test]
    fn several_may_look_while_no_node_runs() {
        let dir = TempDir::new();
        Directory::look(dir.path()).unwrap();
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "looking makes nothing");
        let held = Directory::open(dir.path()).unwrap();
        assert!(matches!(Directory::look(dir.path()), Err(StartError::DirectoryInUse { .. })));
        drop(held);
        let looks = [Directory::look(dir.path()).unwrap(), Directory::look(dir.path()).unwrap()];
        assert!(matches!(Directory::open(dir.path()), Err(StartError::DirectoryInUse { .. })));
        drop(looks);
        Directory::open(dir.path()).unwrap();
    }

    #[test]
    fn only_a_lone_node_draws_a_secret() {
        let dir = TempDir::new();
        let directory = Directory::open(dir.path()).unwrap();
        let missing = directory.join_secret(false).unwrap_err();
        assert!(missing.to_string().contains("join.secret"), "{missing}");
        let secret = directory.join_secret(true).unwrap();
        let path = dir.path().join(SECRET_FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(directory.join_secret(false).unwrap().to_hex(), secret.to_hex());
        std::fs::write(&path, "short").unwrap();
        assert!(matches!(directory.join_secret(true), Err(StartError::SecretMalformed { .. })));
    }
}
