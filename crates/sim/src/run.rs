//! One run: what it is asked for, and what is said of it.

use crate::keep::{Keep, Part};
use crate::world::World;
use history::Time;
use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use storage::lent;

/// How to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Keep the last lines of the trace.
    pub keep_trace: bool,
    /// Print the trace as it grows.
    pub print_trace: bool,
    /// Nothing is kept on disk, whatever the seed draws.
    pub log_off: bool,
    /// What is left of the run.
    pub keep: Keep,
}

/// What a run was like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The hash of everything that happened.
    pub hash: u64,
    /// Events.
    pub events: u64,
    /// Operations on keys.
    pub operations: usize,
    /// Those of unknown outcome.
    pub unknown: usize,
    /// Those that were refused.
    pub refused: usize,
    /// Stale reads.
    pub stale_reads: usize,
    /// Changes that a follower was shown.
    pub followed: usize,
    /// Snapshots of partitions that were written to disks.
    pub snapshots: u64,
    /// Transfers of snapshots between nodes that were begun.
    pub transfers: u64,
    /// Those that went on after a break.
    pub transfers_gone_on: u64,
    /// Nodes that were upgraded.
    pub upgrades: usize,
    /// Whether nodes of two builds ran at once.
    pub mixed: bool,
    /// Whether the feature level rose after that, while faults went on.
    pub raised: bool,
    /// Faults.
    pub faults: usize,
    /// How often each sort of thing happened.
    pub counts: BTreeMap<String, u64>,
    /// Nodes that joined, and orders of operators.
    pub shapes: usize,
    /// Copies that went for good.
    pub moved: usize,
    /// How often the voters changed.
    pub voters_changed: usize,
    /// Reigns: how often a partition got a primary.
    pub reigns: u64,
    /// How often a primary handed over to its heir.
    pub hand_overs: u64,
    /// How often a coordinator that was told to stop had another node lead first.
    pub leads_given: u64,
    /// Partitions of which every copy was lost.
    pub lost: usize,
    /// How long the cluster took to be whole again, in nanoseconds.
    pub mended: Time,
}

/// What went wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// When.
    pub now: Time,
    /// What.
    pub what: String,
    /// What had happened by then, of what can be left out.
    pub happened: Vec<(Part, u64)>,
    /// When all was healed, or was to be.
    pub heals_at: Time,
    /// The last lines of the trace, where they were kept.
    pub trace: Vec<String>,
}

/// What is huge: in a third of the seeds nothing, in a third what clients write after a while, in a third what has hundreds of bytes.
const HUGE_ABOVE: [usize; 3] = [usize::MAX, 5, 300];

/// Runs a seed.
pub fn run(seed: u64, options: Options) -> Result<Summary, Failure> {
    lent::huge_above(HUGE_ABOVE[seed as usize % HUGE_ABOVE.len()]);
    let mut world = World::new(seed, options);
    // An assertion of the machines that does not hold is a failure like any other.
    let result = catch_unwind(AssertUnwindSafe(|| world.run()))
        .unwrap_or_else(|panic| Err(format!("an assertion does not hold: {}", said(&*panic))));
    result.map_err(|what| Failure {
        seed,
        now: world.now,
        what,
        happened: std::mem::take(&mut world.happened),
        heals_at: world.heals_at,
        trace: world.trace.into_lines(),
    })
}

fn said(panic: &dyn Any) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it does not say what")
}
