//! `annulet serve`: one node, until it is told to stop.

use crate::{Failure, flags};
use clap::ArgMatches;
use config::cluster_file::ClusterFile;
use config::settings_file;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use types::settings::Settings;

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let settings = settings(matches)?;
    if let Some(&parent) = matches.get_one::<i32>("die-with-parent") {
        die_with(parent)?;
    }
    log_to_stderr(settings.log_level.as_str())?;
    server::run(settings)?;
    Ok(ExitCode::SUCCESS)
}

fn settings(matches: &ArgMatches) -> Result<Settings, Failure> {
    let flags = flags::given_settings(matches, &[]);
    let Some(path) = matches.get_one::<PathBuf>("cluster") else {
        let file = matches.get_one::<PathBuf>("config");
        return Ok(settings_file::settings(file.map(PathBuf::as_path), &flags)?);
    };
    let cluster = ClusterFile::read(path)?;
    let id = matches.get_one::<u16>("node").copied().unwrap_or_default();
    let settings = settings_file::settings_over(path, cluster.node_settings(id)?, &flags)?;
    cluster.leave_secret(&settings.directory())?;
    Ok(settings)
}

fn log_to_stderr(level: &str) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(level).map_err(|error| {
        format!("invalid value '{level}' for 'log_level': {error}; say error, warn, info, debug or trace")
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}

/// Has this process stopped when the one that started it dies, however that comes: the kernel sends SIGTERM. Should the
/// clean stop hang, it ends the hard way.
fn die_with(parent: i32) -> Result<(), Failure> {
    const CLEAN_STOP: Duration = Duration::from_secs(10);
    set_parent_process_death_signal(Some(Signal::TERM))?;
    let orphaned = move || getppid().map(Pid::as_raw_nonzero).is_none_or(|pid| pid.get() != parent);
    // The parent may have died before the request: then no signal comes.
    if orphaned() {
        return Err("the process that started this node is gone already".into());
    }
    std::thread::Builder::new().name("parent".into()).spawn(move || {
        while !orphaned() {
            std::thread::sleep(Duration::from_millis(500));
        }
        std::thread::sleep(CLEAN_STOP);
        std::process::exit(1);
    })?;
    Ok(())
}
