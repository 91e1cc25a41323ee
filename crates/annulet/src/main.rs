//! The binary: flags, a local cluster, status, shell, a look into data directories.
//!
//! `main` reads the command line ([`flags`]) and hands over to a subcommand's file. Each returns its exit code or a
//! failure, which is printed once, here, as `annulet: what happened, and what to do`.

mod accept_loss;
mod allocator;
mod check;
mod cluster;
mod demo;
mod dump;
mod flags;
mod launch;
mod nodes;
mod operate;
mod quoting;
mod rolling_restart;
mod serve;
mod settings_page;
mod shell;
mod status;
mod up;
mod watcher;

use std::error::Error;
use std::io::ErrorKind;
use std::process::ExitCode;

/// Gives memory back to the system and can be asked what it holds.
#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

/// Why a subcommand could not do its work: a text for the user.
type Failure = Box<dyn Error>;

/// The exit code of a failure.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    let matches = flags::command().get_matches();
    let outcome = match matches.subcommand() {
        Some(("serve", matches)) => serve::run(matches),
        Some(("up", matches)) => up::run(matches),
        Some(("demo", matches)) => demo::run(matches),
        Some(("status", matches)) => status::run(matches),
        Some(("node", matches)) => operate::node(matches),
        Some(("set", matches)) => operate::set(matches),
        Some(("rebalance", matches)) => operate::rebalance(matches),
        Some(("rolling-restart", matches)) => rolling_restart::run(matches),
        Some(("accept-loss", matches)) => accept_loss::run(matches),
        Some(("check", matches)) => check::run(matches),
        Some(("dump", matches)) => dump::run(matches),
        Some(("cli", matches)) => shell::run(matches),
        Some(("settings", matches)) if matches.get_flag("markdown") => print(&settings_page::page()),
        Some(("settings", _)) => print(&settings_page::text()),
        _ => unreachable!("clap requires one of the subcommands"),
    };
    outcome.unwrap_or_else(|failure| {
        eprintln!("annulet: {failure}");
        ExitCode::from(FAILED)
    })
}

/// Prints to standard output. A reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> Result<ExitCode, Failure> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}
