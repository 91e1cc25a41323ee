//! Child processes that no way out leaves behind: they are killed when their [`Processes`] are ended, on a panic, on Ctrl-C, and,
//! by the kernel, when this program dies otherwise. For that they are started by the main thread alone.

use crate::failure::Failure;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_setaffinity};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What has to be undone on every way out.
pub(crate) struct Processes {
    running: Mutex<BTreeMap<u16, Child>>,
    /// To be removed with all that is in it.
    scratch: Mutex<Option<PathBuf>>,
}

impl Processes {
    /// None yet. `scratch` is removed at the end.
    pub(crate) fn new(scratch: Option<PathBuf>) -> Processes {
        Processes { running: Mutex::new(BTreeMap::new()), scratch: Mutex::new(scratch) }
    }

    /// Those that run, by their number.
    pub(crate) fn running(&self) -> MutexGuard<'_, BTreeMap<u16, Child>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the files where they are.
    pub(crate) fn keep_scratch(&self) {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Kills what runs and removes what was written. Never waits for a lock: a panic may hold it.
    pub(crate) fn end(&self) {
        if let Ok(mut running) = self.running.try_lock() {
            for child in running.values_mut() {
                let _ = child.kill();
                let _ = child.wait();
            }
            running.clear();
        }
        if let Some(dir) = self.scratch.try_lock().ok().and_then(|mut scratch| scratch.take()) {
            let _ = std::fs::remove_dir_all(dir);
        }
    }

    /// Has them ended by Ctrl-C and its kin, and by a panic of any thread.
    pub(crate) fn guard(self: &Arc<Processes>) -> Result<(), Failure> {
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let processes = self.clone();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            if signals.forever().next().is_some() {
                processes.end();
                std::process::exit(130);
            }
        })?;
        let processes = self.clone();
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            usual(panic);
            processes.end();
            std::process::exit(101);
        }));
        Ok(())
    }
}

/// Ties the process to be to this thread's life, and to one processor where one is named.
pub(crate) fn tie(command: &mut Command, processor: Option<usize>) {
    let parent = rustix::process::getpid();
    let only = processor.map(|processor| {
        let mut only = CpuSet::new();
        only.set(processor);
        only
    });
    // SAFETY: between fork and exec only three system calls are made, without allocation or locks.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            if let Some(only) = &only {
                sched_setaffinity(None, only)?;
            }
            // The parent may have died before the request: then no signal comes.
            if getppid() == Some(parent) { Ok(()) } else { Err(rustix::io::Errno::SRCH.into()) }
        });
    }
}
