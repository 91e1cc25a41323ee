//! The outcome of `chaos storm` in words.

use super::Outcome;
use super::outage::{CALM, SINGLE, Spread};
use crate::failure::Failure;
use crate::report::counted;

/// The bar for the outage of a single process's fault, and the goal, in milliseconds.
const BAR_MS: u64 = 1500;
/// See [`BAR_MS`].
const GOAL_MS: u64 = 600;

/// The section of docs/chaos.md.
pub(super) fn text(outcome: &Outcome) -> Result<String, Failure> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let mut text = format!(
        "{} processors for all nodes and clients, Linux {}; load average of the last minute of the run: {}. Seed {}.\n\n\
         {} nodes, {} copies, {} partitions, disks in memory; {} plain and {} cluster-aware clients, which together ask for {} a second \
         at most; {} steps in {} s.\n\n",
        std::thread::available_parallelism()?,
        kernel.trim(),
        load.split(' ').next().unwrap_or("unknown"),
        outcome.seed,
        outcome.nodes,
        outcome.copies,
        outcome.partitions,
        outcome.plain,
        outcome.cluster,
        outcome.rate,
        outcome.steps,
        outcome.seconds,
    );
    text += "| operations attempted | acknowledged | unknown | failed | acknowledged writes lost | stale reads |\n\
             | ---: | ---: | ---: | ---: | ---: | ---: |\n";
    text += &format!(
        "| {} | {} | {} | {} | **{}** | **{}** |\n\n",
        outcome.attempted,
        outcome.acknowledged,
        outcome.unknown,
        outcome.refused,
        outcome.lost,
        outcome.stale
    );
    text += "| fault | times | longest outage of any partition: median | p99 | longest | whole again: median | longest |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n";
    for line in &outcome.lines {
        let name = if line.name == SINGLE { format!("**{}**", line.name) } else { line.name.clone() };
        let whole = match line.name.as_str() {
            CALM => " |".to_owned(),
            _ => format!("{} | {}", seconds(line.whole.median_ms), seconds(line.whole.longest_ms)),
        };
        let Spread { median_ms, p99_ms, longest_ms } = line.outage;
        text += &format!(
            "| {name} | {} | {} | {} | {} | {whole} |\n",
            line.count,
            seconds(median_ms),
            seconds(p99_ms),
            seconds(longest_ms)
        );
    }
    if let Some(single) = outcome.lines.iter().find(|line| line.name == SINGLE && line.count > 0) {
        let within = |bound_ms: u64| if single.outage.p99_ms <= bound_ms { "within" } else { "**beyond**" };
        text += &format!(
            "\nThe p99 of a single process's faults, {}, is {} the bar of {} and {} the goal of {}.\n",
            seconds(single.outage.p99_ms),
            within(BAR_MS),
            seconds(BAR_MS),
            within(GOAL_MS),
            seconds(GOAL_MS),
        );
    }
    if !outcome.left_out.is_empty() {
        text += &format!("\nLeft out: {}.\n", outcome.left_out.join("; "));
    }
    Ok(text)
}

/// What clients were told, for who looks at the run itself.
pub(super) fn errors(outcome: &Outcome) -> String {
    format!("errors that clients saw: {}", counted(&outcome.errors))
}

fn seconds(ms: u64) -> String {
    format!("{:.2} s", ms as f64 / 1e3)
}
