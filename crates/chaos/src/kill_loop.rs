//! `chaos kill-loop`: rounds of SIGKILL of one node, and of all at once, under load, on a cluster of one node and on one of several.
//! What was acknowledged has to be there at the end: it was on disk.

use crate::Common;
use crate::cluster::{Cluster, Shape};
use crate::failure::Failure;
use crate::kill::{self, wait_served};
use crate::load::Load;
use crate::probe::Prober;
use crate::report::{Gaps, Report};
use crate::verify::{self, Summary};
use clap::Args;
use history::random::Random;
use serde::Serialize;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Between two probes of a partition, where the flags turn probes off.
const PROBE: Duration = Duration::from_millis(20);

/// What `chaos kill-loop` takes.
#[derive(Args)]
pub(crate) struct Flags {
    /// How many rounds each cluster goes through. In every other one all its nodes are killed at once.
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    /// Milliseconds of load before each kill, at least; up to half as many again are added by chance.
    #[arg(long, default_value_t = 600)]
    calm_ms: u64,
}

/// What one cluster went through.
#[derive(Debug, Serialize)]
struct Loop {
    nodes: u16,
    /// Rounds in which one node was killed, and in which all were.
    rounds_of_one: usize,
    rounds_of_all: usize,
    writes: Summary,
    /// From the kill until every partition has taken a write that was sent after it.
    serves_after_one: Gaps,
    serves_after_all: Gaps,
    /// From the kill until every copy was in sync.
    in_sync: Gaps,
}

/// The whole run.
#[derive(Debug, Serialize)]
struct Outcome {
    seed: u64,
    loops: Vec<Loop>,
    /// Over all of them.
    writes: Summary,
}

pub(crate) fn run(common: &Common, flags: &Flags) -> Result<ExitCode, Failure> {
    let seed = common.seed();
    eprintln!("seed {seed}");
    let mut random = Random::new(seed);
    let mut report = Report::default();
    let mut loops = Vec::new();
    let mut kept = None;
    for nodes in [1, common.nodes] {
        let shape = shape(common, nodes)?;
        let cluster = Cluster::start(shape, &mut random)?;
        loops.push(kill_again_and_again(common, flags, &cluster, &mut random, &mut report)?);
        if !report.is_clean() || common.dir.is_some() {
            kept = Some(cluster.keep().to_owned());
        }
    }
    let mut writes = Summary::default();
    for part in &loops {
        writes.acknowledged += part.writes.acknowledged;
        writes.unknown += part.writes.unknown;
        writes.failed += part.writes.failed;
        writes.lost += part.writes.lost;
    }
    let outcome = Outcome { seed, loops, writes };
    Ok(report.end(common.json, &outcome, &outcome.text(), kept.as_deref()))
}

/// As the flags say, with so many nodes, and each write synced before it is acknowledged.
fn shape(common: &Common, nodes: u16) -> Result<Shape, Failure> {
    let mut shape = common.shape()?;
    (shape.nodes, shape.copies) = (nodes, shape.copies.min(nodes));
    shape.dir = shape.dir.map(|dir| dir.join(format!("of-{nodes}")));
    if shape.settings.iter().all(|(name, _)| name != "fsync") {
        shape.settings.push(("fsync".to_owned(), "always".to_owned()));
    }
    Ok(shape)
}

fn kill_again_and_again(
    common: &Common,
    flags: &Flags,
    cluster: &Cluster,
    random: &mut Random,
    report: &mut Report,
) -> Result<Loop, Failure> {
    let nodes: Vec<u16> = cluster.ids().collect();
    let load = Load::start(cluster, kill::load(common, None));
    let (mut after_one, mut after_all, mut in_sync) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..flags.rounds {
        let before = cluster.wait_healthy(&BTreeMap::new())?;
        load.home();
        let of_all = number % 2 == 1;
        let victims = if of_all { nodes.clone() } else { vec![random.pick(&nodes)] };
        let period = if common.probe_ms == 0 { PROBE } else { Duration::from_millis(common.probe_ms) };
        let prober = Some(Prober::start(cluster, &nodes, period)?);
        let calm = flags.calm_ms + random.below(flags.calm_ms.max(2) / 2);
        std::thread::sleep(Duration::from_millis(calm));
        let killed = Instant::now();
        cluster.kill_nodes(&victims)?;
        for victim in &victims {
            cluster.start_node(*victim)?;
        }
        wait_served(cluster, &prober, killed)?;
        let served = killed.elapsed();
        let older = victims.iter().map(|id| (*id, before.node(*id).map_or(0, |node| node.incarnation)));
        cluster.wait_healthy(&older.collect())?;
        in_sync.push(killed.elapsed());
        eprintln!(
            "{} of {} killed, round {}: serves after {} ms, in sync after {} ms; {} writes acknowledged so far",
            victims.len(),
            nodes.len(),
            number + 1,
            served.as_millis(),
            killed.elapsed().as_millis(),
            load.acknowledged()
        );
        if of_all { after_all.push(served) } else { after_one.push(served) }
    }
    let journals = load.stop();
    let writes = verify::check(cluster, &nodes, &journals, report)?;
    cluster.check_running()?;
    Ok(Loop {
        nodes: cluster.shape.nodes,
        rounds_of_one: after_one.len(),
        rounds_of_all: after_all.len(),
        writes,
        serves_after_one: Gaps::of(after_one),
        serves_after_all: Gaps::of(after_all),
        in_sync: Gaps::of(in_sync),
    })
}

impl Outcome {
    fn text(&self) -> String {
        let mut text = format!(
            "seed {}\n\n| nodes | killed | rounds | serves again: median | max |\n| --- | --- | --- | --- | --- |\n",
            self.seed
        );
        for part in &self.loops {
            for (what, rounds, gaps) in [
                ("one", part.rounds_of_one, &part.serves_after_one),
                ("all", part.rounds_of_all, &part.serves_after_all),
            ] {
                text += &format!(
                    "| {} | {what} | {rounds} | {} ms | {} ms |\n",
                    part.nodes, gaps.median_ms, gaps.worst_ms
                );
            }
        }
        text += "\n| nodes | acknowledged | unknown | refused | lost | all in sync: median | max |\n";
        text += "| --- | --- | --- | --- | --- | --- | --- |\n";
        for Loop { nodes, writes, in_sync, .. } in &self.loops {
            let Summary { acknowledged, unknown, failed, lost } = writes;
            text += &format!(
                "| {nodes} | {acknowledged} | {unknown} | {failed} | {lost} | {} ms | {} ms |\n",
                in_sync.median_ms, in_sync.worst_ms
            );
        }
        text
    }
}
