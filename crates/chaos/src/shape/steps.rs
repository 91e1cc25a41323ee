//! The steps: each gives its orders, as an operator would, and waits until every copy is where it should be and in sync, and the
//! primaries are even. Which copies came to be where is seen in `CLUSTER SLOTS`, asked again and again.

use super::clients::Shared;
use super::{Flags, Row, Times};
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::status::{Holders, Status, connect};
use history::random::Random;
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// No more steps than this.
pub(super) const MAX: usize = 16;
/// From one look to the next.
const TICK: Duration = Duration::from_millis(100);
/// Between two steps: what comes late is still the step's that caused it.
const SETTLE: Duration = Duration::from_millis(500);
/// How long the primaries may take to be even after all is in sync.
const EVEN: Duration = Duration::from_secs(20);
/// After a kill, until the copies that are left serve.
const FAILOVER: Duration = Duration::from_secs(2);

/// Copies: partition and node.
type Copies = BTreeSet<(usize, u16)>;

struct Steps<'a> {
    cluster: &'a Cluster,
    shared: &'a Shared,
    rows: Vec<Row>,
    /// The nodes that are members and run.
    members: BTreeSet<u16>,
}

/// Makes all steps. What clients saw is not in the rows yet.
pub(super) fn all(
    cluster: &Cluster,
    shared: &Shared,
    flags: &Flags,
    random: &mut Random,
) -> Result<Vec<Row>, Failure> {
    let mut steps = Steps { cluster, shared, rows: Vec::new(), members: cluster.ids().collect() };
    let first = cluster.shape.nodes;
    let (fourth, fifth) = (first + 1, first + 2);
    let copies = cluster.shape.copies;
    let rest = Duration::from_secs_f64(flags.rest_seconds);
    steps.step("at rest", true, false, |_| {
        std::thread::sleep(rest);
        Ok(())
    })?;
    if flags.restart_only {
        steps.restart_all()?;
        return Ok(steps.rows);
    }
    for id in [fourth, fifth] {
        steps.step(&format!("node {id} joins"), true, true, |steps| steps.join(id))?;
    }
    for id in [fifth, fourth] {
        steps.step(&format!("node {id} drained"), true, true, |steps| steps.drain(id))?;
    }
    steps.step(&format!("node {fourth} joins again, empty"), true, true, |steps| steps.join(fourth))?;
    steps.step(&format!("node {fourth} killed, and removed"), false, true, |steps| steps.remove(fourth))?;
    for wanted in [copies + 1, copies] {
        let name = format!("copies {wanted}");
        steps.step(&name, true, true, |steps| {
            steps.order(&["CONFIG", "SET", "copies", &wanted.to_string()])
        })?;
    }
    let victim = random.pick(&cluster.ids().collect::<Vec<_>>());
    steps.step(&format!("node {victim} killed"), false, false, |steps| {
        steps.cluster.kill_node(victim)?;
        steps.members.remove(&victim);
        std::thread::sleep(FAILOVER);
        Ok(())
    })?;
    steps
        .step(&format!("node {victim} back, and its primaries"), true, false, |steps| steps.start(victim))?;
    steps.restart_all()?;
    Ok(steps.rows)
}

impl Steps<'_> {
    /// One step: what is done, and the wait for its end.
    fn step(
        &mut self,
        name: &str,
        planned: bool,
        moves: bool,
        act: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let before = self.copies()?;
        self.shared.step.store(self.rows.len(), Ordering::Relaxed);
        let started = Instant::now();
        act(self)?;
        let is_hurt = !planned && !moves;
        let mut seen = before.clone();
        if !is_hurt {
            self.wait(&mut seen)?;
        }
        let took_ms = started.elapsed().as_millis() as u64;
        let after = self.copies()?;
        seen.extend(&after);
        let moved = moves.then(|| (seen.difference(&before).count() as u64, least(&before, &after)));
        let row = Row {
            name: name.to_owned(),
            planned,
            took_ms,
            errors: 0,
            unknown: 0,
            back: 0,
            texts: BTreeMap::new(),
            reads: Times::default(),
            writes: Times::default(),
            moved,
            primaries: primaries(&self.status()?),
        };
        eprintln!("{name}: {took_ms} ms, moved {moved:?}");
        self.rows.push(row);
        if !is_hurt {
            std::thread::sleep(SETTLE);
        }
        Ok(())
    }

    fn join(&mut self, id: u16) -> Result<(), Failure> {
        self.cluster.join_node(id)?;
        self.members.insert(id);
        Ok(())
    }

    fn drain(&mut self, id: u16) -> Result<(), Failure> {
        self.order(&["ANNULET", "DRAIN", &id.to_string()])?;
        self.members.remove(&id);
        self.cluster.wait_ended(id)
    }

    fn remove(&mut self, id: u16) -> Result<(), Failure> {
        self.cluster.kill_node(id)?;
        self.members.remove(&id);
        self.order(&["ANNULET", "REMOVE", &id.to_string()])
    }

    fn start(&mut self, id: u16) -> Result<(), Failure> {
        self.cluster.start_node(id)?;
        self.members.insert(id);
        Ok(())
    }

    /// Each node is stopped in order, and started again; the next when all is in sync. One row for the stops and one for the starts.
    fn restart_all(&mut self) -> Result<(), Failure> {
        let at = self.rows.len();
        for id in self.cluster.ids() {
            let keep = self.rows.len();
            std::thread::sleep(SETTLE);
            self.shared.step.store(at, Ordering::Relaxed);
            let started = Instant::now();
            self.cluster.signal_node(id, Signal::TERM)?;
            self.members.remove(&id);
            self.cluster.wait_ended(id)?;
            let stopped_ms = started.elapsed().as_millis() as u64;
            if keep == at {
                for name in ["rolling restart: the stops", "rolling restart: the starts"] {
                    self.rows.push(Row {
                        name: name.to_owned(),
                        planned: true,
                        took_ms: 0,
                        errors: 0,
                        unknown: 0,
                        back: 0,
                        texts: BTreeMap::new(),
                        reads: Times::default(),
                        writes: Times::default(),
                        moved: None,
                        primaries: (0, 0),
                    });
                }
            }
            self.rows[at].took_ms += stopped_ms;
            self.shared.step.store(at + 1, Ordering::Relaxed);
            let started = Instant::now();
            self.start(id)?;
            self.wait(&mut Copies::new())?;
            let started_ms = started.elapsed().as_millis() as u64;
            self.rows[at + 1].took_ms += started_ms;
            self.rows[at + 1].primaries = primaries(&self.status()?);
            eprintln!("node {id} stopped in {stopped_ms} ms, and was back after {started_ms} ms");
        }
        self.rows[at].primaries = self.rows[at + 1].primaries;
        std::thread::sleep(SETTLE);
        Ok(())
    }

    /// Gives an order, again until it is taken: a node that died a moment ago still counts as alive.
    fn order(&self, words: &[&str]) -> Result<(), Failure> {
        let started = Instant::now();
        loop {
            let mut connection = connect(self.cluster.plain_port(1), Duration::from_secs(2))?;
            let mut command = redis::cmd(words[0]);
            for word in &words[1..] {
                command.arg(*word);
            }
            match command.query::<()>(&mut connection) {
                // An order of a moment ago may not be in the state yet, so nothing is waited for too early.
                Ok(()) => {
                    std::thread::sleep(TICK * 3);
                    return Ok(());
                }
                Err(error) if started.elapsed() > Duration::from_secs(10) => return Err(error.into()),
                Err(_) => std::thread::sleep(TICK / 2),
            }
        }
    }

    /// What the first member that answers says.
    fn status(&self) -> Result<Status, Failure> {
        let answers = |id: &u16| self.cluster.status(*id).ok();
        self.members.iter().find_map(answers).ok_or_else(|| "no node answers".into())
    }

    fn holders(&self) -> Result<Vec<Holders>, Failure> {
        let answers = |id: &u16| self.cluster.holders(*id).ok();
        self.members.iter().find_map(answers).ok_or_else(|| "no node tells who holds what".into())
    }

    fn copies(&self) -> Result<Copies, Failure> {
        let holders = self.holders()?;
        let of = |(partition, nodes): (usize, Holders)| nodes.into_iter().map(move |node| (partition, node));
        Ok(holders.into_iter().enumerate().flat_map(of).collect())
    }

    /// Waits for the end of a step, and gathers which copies there were meanwhile.
    fn wait(&self, seen: &mut Copies) -> Result<(), Failure> {
        let started = Instant::now();
        let mut in_sync: Option<Instant> = None;
        loop {
            self.cluster.check_running()?;
            seen.extend(self.copies()?);
            let all: Vec<Status> =
                self.members.iter().filter_map(|id| self.cluster.status(*id).ok()).collect();
            let at_rest = all.len() == self.members.len() && all.iter().all(|status| self.is_at_rest(status));
            if at_rest {
                let since = *in_sync.get_or_insert_with(Instant::now);
                let (fewest, most) = primaries(&all[0]);
                if most - fewest <= 1 || since.elapsed() > EVEN {
                    return Ok(());
                }
            }
            if started.elapsed() > self.cluster.shape.patience {
                return Err(format!("the step does not end: {all:?}").into());
            }
            std::thread::sleep(TICK);
        }
    }

    fn is_at_rest(&self, status: &Status) -> bool {
        status.is_healthy()
            && status.moves.left == 0
            && status.moves.handing_over == 0
            && status.nodes.iter().map(|node| node.id).collect::<BTreeSet<u16>>() == self.members
    }
}

fn primaries(status: &Status) -> (u64, u64) {
    let counts = || status.nodes.iter().map(|node| node.primaries);
    (counts().min().unwrap_or(0), counts().max().unwrap_or(0))
}

/// The least number of copies that have to be made anew, so that every node has as many as it has afterwards.
fn least(before: &Copies, after: &Copies) -> u64 {
    let count = |copies: &Copies| {
        let mut counts = BTreeMap::<u16, u64>::new();
        copies.iter().for_each(|(_, node)| *counts.entry(*node).or_default() += 1);
        counts
    };
    let had = count(before);
    count(after).iter().map(|(node, has)| has.saturating_sub(had.get(node).copied().unwrap_or(0))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_is_what_nodes_gain() {
        let before = Copies::from([(0, 1), (0, 2), (1, 1), (1, 2)]);
        let after = Copies::from([(0, 1), (0, 3), (1, 2), (1, 3)]);
        assert_eq!(least(&before, &after), 2);
        let swapped = Copies::from([(0, 1), (0, 3), (1, 1), (1, 2)]);
        assert_eq!(least(&before, &swapped), 1);
    }
}
