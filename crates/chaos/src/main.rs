//! `chaos`: a local cluster of real processes, hurt on purpose while unmodified Redis clients use it.
//!
//! It looks at the product from outside only: it starts the `annulet` binary, speaks the Redis protocol to it, and ends its
//! processes with signals. What the clients were told is then held against what the cluster says:
//!
//! | command | hurts by | checks |
//! | --- | --- | --- |
//! | `kill` | SIGKILL of a node, the coordinator often among them | nothing acknowledged is lost; how long each partition stood still |
//! | `kill-loop` | SIGKILL of one node and of all, again and again | nothing acknowledged is lost; how long until all is served again |
//! | `pause` | SIGSTOP, then SIGCONT | the woken node serves no stale read and acknowledges nothing that is lost |
//! | `refill` | SIGKILL of a node that holds much | clients of the others see no error while it is filled again |
//! | `shape` | joins, drains, a dead node, other numbers of copies, restarts | nothing lost, no read goes back, planned changes show no error |
//! | `storm` | all of it and more, in network namespaces: kills, stops, cuts, a proxy, disks, clocks, joins, drains | histories are linearizable; outages by kind of fault |
//! | `pressure` | clients that ask for too much, a node that is slow | others are served, and memory is bounded |
//! | `bench` | nothing | measures, for docs/performance.md |
//! | `compare` | nothing | measures one node beside other servers, for docs/performance.md |
//!
//! [`cluster`] runs the nodes, as [`processes`], [`load`] writes and remembers what it was told, [`probe`] times every partition, and
//! [`verify`] compares. The exit code is 0, or 1 where a promise was broken, or 2 where a run could not be made; `storm` has 77 for a
//! machine that lacks what it needs.

mod bench;
mod cluster;
mod compare;
mod failure;
mod kill;
mod kill_loop;
mod load;
mod pause;
mod pressure;
mod probe;
mod processes;
mod queue;
mod refill;
mod report;
mod shape;
mod status;
mod storm;
mod verify;

use clap::{Args, Parser, Subcommand};
use cluster::Shape;
use failure::Failure;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Hurts a local cluster of real processes and checks that it keeps its promises.
#[derive(Parser)]
#[command(name = "chaos", version)]
struct Flags {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Args)]
struct Common {
    /// The binary to run. By default the one beside this program.
    #[arg(long, global = true, value_name = "PATH")]
    annulet: Option<PathBuf>,
    /// First port: nodes take PORT + i, PORT + 100 + i, PORT + 200 + i, PORT + 300 + i and PORT + 400 + i. By default free ones are looked for.
    #[arg(long, global = true)]
    port: Option<u16>,
    /// Nodes of the cluster.
    #[arg(long, global = true, default_value_t = 3, value_parser = clap::value_parser!(u16).range(2..=99))]
    nodes: u16,
    /// Copies of each partition.
    #[arg(long, global = true, default_value_t = 2)]
    copies: u16,
    /// Partitions of the cluster. By default 1024; `storm` has 16, since it asks for each of them all the time.
    #[arg(long, global = true)]
    partitions: Option<u16>,
    /// A further setting of every node, as NAME=VALUE. May be repeated.
    #[arg(long = "set", global = true, value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    /// Where the nodes' data and logs go, to stay there. By default a temporary directory, which stays only after a violation.
    #[arg(long, global = true)]
    dir: Option<PathBuf>,
    /// Chooses the victims. By default a new one each time.
    #[arg(long, global = true)]
    seed: Option<u64>,
    /// Connections that write at full speed, half of them with pipelines, besides half as many cluster-aware clients.
    #[arg(long, global = true, default_value_t = 6)]
    clients: u16,
    /// Milliseconds between two writes to the same partition that time it. 0: no timing.
    #[arg(long, global = true, default_value_t = 20)]
    probe_ms: u64,
    /// Longest wait, in seconds, for the cluster to serve or to be in sync again.
    #[arg(long, global = true, default_value_t = 120)]
    patience: u64,
    /// Print the result as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Kills a node each round, restarts it, and checks all that was acknowledged.
    Kill(kill::Flags),
    /// Kills one node, then all at once, again and again, in a cluster of one node and one of several.
    KillLoop(kill_loop::Flags),
    /// Stops a node for a while without its noticing, wakes it, and checks what it then says.
    Pause(pause::Flags),
    /// Kills and restarts a node that holds much data, and checks that the others' clients do not notice its filling.
    Refill(refill::Flags),
    /// Hurts a cluster in network namespaces of its own in every way there is, and judges the history of all that clients saw.
    Storm(storm::Flags),
    /// Changes the cluster's shape under a steady load, and measures what clients feel of it.
    Shape(shape::Flags),
    /// Asks for too much, and watches clients that ask for little and the nodes' memory.
    Pressure(pressure::Flags),
    /// Measures with redis-benchmark and prints a Markdown table.
    Bench(bench::Flags),
    /// Measures one node beside other servers, each on one processor: rates, memory or pauses.
    Compare(compare::Flags),
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.replace('_', "-"), value.to_owned()))
}

impl Common {
    fn shape(&self) -> Result<Shape, Failure> {
        let annulet = match &self.annulet {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("annulet"),
        };
        if !annulet.is_file() {
            return Err(format!(
                "there is no {}; build it (`cargo build -p annulet`, with this program's profile) or name one with --annulet",
                annulet.display()
            )
            .into());
        }
        Ok(Shape {
            annulet,
            nodes: self.nodes,
            copies: self.copies,
            partitions: self.partitions(),
            port: self.port,
            dir: self.dir.clone(),
            settings: self.settings.clone(),
            patience: Duration::from_secs(self.patience),
        })
    }

    fn partitions(&self) -> u16 {
        self.partitions.unwrap_or(1024)
    }

    fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            (now.as_nanos() as u64) % 1_000_000
        })
    }
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let outcome = match &flags.command {
        Command::Kill(own) => kill::run(&flags.common, own),
        Command::KillLoop(own) => kill_loop::run(&flags.common, own),
        Command::Pause(own) => pause::run(&flags.common, own),
        Command::Refill(own) => refill::run(&flags.common, own),
        Command::Storm(own) => storm::run(&flags.common, own),
        Command::Shape(own) => shape::run(&flags.common, own),
        Command::Pressure(own) => pressure::run(&flags.common, own),
        Command::Bench(own) => bench::run(&flags.common, own),
        Command::Compare(own) => compare::run(&flags.common, own),
    };
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("chaos: {failure}");
            ExitCode::from(2)
        }
    }
}
