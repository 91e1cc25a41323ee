//! `annulet demo`: a newcomer's walk through a real cluster, from its start to a node's death and recovery.
//!
//! It starts three node processes of its own in a temporary directory and on free ports, and ends them whatever happens. Each step
//! says in a sentence or two what is about to be seen, does it, shows it, and *checks* it: what a check expected and did not see
//! ends the demo with exit code 1. [`steps`] are the steps, [`stage`] is what they share: how they are told, checked and paced.

mod stage;
mod steps;

use crate::Failure;
use crate::cluster::{Asked, Cluster};
use crate::launch::{Launch, Stops};
use crate::shell::paint::Paint;
use clap::ArgMatches;
use config::settings_file;
use rustix::fs::Mode;
use stage::{Pace, Stage};
use std::hash::{BuildHasher, Hasher};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The nodes of the demo's cluster.
const NODES: u16 = 3;
/// Where ports are looked for: below those that the system gives to outgoing connections.
const PORTS: std::ops::Range<u16> = 12_000..29_000;
/// How often other ports are tried after somebody else was quicker to take them.
const TRIES: usize = 20;
/// The exit code of a failed check.
const CHECK_FAILED: u8 = 1;
/// The exit code after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let pace = match (matches.get_flag("fast") || !is_terminal, matches.get_flag("yes")) {
        (true, _) => Pace::Fast,
        (false, true) => Pace::ByItself,
        (false, false) => Pace::OnEnter,
    };
    let stops = Stops::listen()?;
    let scratch = Scratch::make()?;
    let mut stage = Stage::new(Paint::detect(&std::io::stdout()), pace, stops.clone());
    steps::welcome(&mut stage, &scratch.0)?;
    let mut launch = start(&scratch.0, &stops)?;
    let outcome = match stops.count() {
        0 => steps::play(&mut stage, &mut launch),
        _ => Err(stage::Broken::Interrupted),
    };
    launch.stop()?;
    drop(launch);
    drop(scratch);
    match outcome {
        Ok(()) => {
            stage.farewell()?;
            Ok(ExitCode::SUCCESS)
        }
        Err(stage::Broken::Interrupted) => {
            eprintln!("annulet: the demo was ended; nothing of it is left.");
            Ok(ExitCode::from(INTERRUPTED))
        }
        Err(stage::Broken::Check { expected, seen }) => {
            eprintln!("annulet: the demo's check failed. Expected: {expected}. Seen: {seen}.");
            Ok(ExitCode::from(CHECK_FAILED))
        }
        Err(stage::Broken::Failed(failure)) => Err(failure),
    }
}

/// A directory that goes with the demo.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> Result<Scratch, Failure> {
        let path = std::env::temp_dir().join(format!("annulet-demo-{}-{:04x}", std::process::id(), chance()));
        // Only its own directory, which nobody else may look into, will be removed.
        rustix::fs::mkdir(&path, Mode::RWXU)
            .map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A number that differs from run to run.
fn chance() -> u16 {
    std::collections::hash_map::RandomState::new().build_hasher().finish() as u16
}

/// A cluster that serves, or a stop was asked for meanwhile.
fn start(scratch: &Path, stops: &Stops) -> Result<Launch, Failure> {
    let mut failure: Failure = "no ports were tried".into();
    for attempt in 0..TRIES {
        let port = PORTS.start + chance() % (PORTS.end - PORTS.start);
        let asked = Asked { nodes: Some(NODES), port: Some(port), ..Asked::default() };
        let cluster = Cluster::open(&scratch.join(format!("cluster-{attempt}")), asked, Vec::new())?;
        if let Err(taken) = cluster.check_ports() {
            failure = taken.into();
            continue;
        }
        cluster.write()?;
        let settings = settings_file::settings(None, &cluster.node_settings(1))?;
        let mut launch = Launch::start(cluster, settings, stops.clone())?;
        match launch.wait_until_served() {
            Ok(()) => return Ok(launch),
            // Between the look at a port and its use somebody else may have taken it.
            Err(why) if why.to_string().contains("in use") => failure = why,
            Err(why) => return Err(why),
        }
    }
    Err(format!("no free ports after {TRIES} tries: {failure}").into())
}
