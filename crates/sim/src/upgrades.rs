//! Clusters that are upgraded while all else happens: in some runs nodes begin on an older build, and are stopped and started on the
//! new one, one after another; some go back for a while, as long as the cluster's feature level lets them.
//!
//! The older build is this one, told that it has level 1 only: it says so, and what its control plane and others say to each other goes
//! through the bytes of that level ([`control::format_1`]). What the server's handshakes refuse is not delivered. At the end all nodes
//! run the new build, and the level must have risen.
//!
//! Not in runs that keep nothing on disk: there a restart may lose the last copy.

use crate::checks::levels;
use crate::faults::Death;
use crate::network::MS;
use crate::occasions::Occasions;
use crate::process::Envelope;
use crate::world::{MACHINES, World};
use control::format_1;
use history::Time;
use history::random::Random;
use std::collections::BTreeSet;
use types::Level;

/// When the first node may be upgraded: the cluster has formed.
const FIRST: Time = 1500 * MS;

/// What a seed's run has in store.
pub(crate) struct Upgrades {
    /// None in some runs.
    pub occasions: Occasions,
    /// Nodes that have been upgraded so far.
    pub done: usize,
    /// Whether nodes of two builds ran at once.
    pub mixed: bool,
    /// Whether the feature level rose before all was healed.
    pub raised: bool,
    seed: u64,
}

impl Upgrades {
    /// Drawn from a seed.
    pub fn draw(seed: u64, keeps_logs: bool) -> Upgrades {
        let mut random = Random::new(seed ^ 0x0b5e_0000_0000_0000);
        let gap = random.chance(400).then(|| random.pick(&[1500, 4000, 9000]) * MS);
        let gap = gap.filter(|_| keeps_logs).map(|gap| (gap / 2, gap * 2));
        let occasions = Occasions::new(random.draw(), gap, FIRST);
        Upgrades { occasions, done: 0, mixed: false, raised: false, seed: random.draw() }
    }

    /// The chance that decides on the build of a start: that of one node and start alone.
    fn chance_of_build(&self, node: usize, start: u64) -> Random {
        Random::new(self.seed ^ (node as u64) << 32 ^ start).fork()
    }
}

impl World {
    /// The level of the build that a node starts with.
    pub(crate) fn level_to_start(&mut self, node: usize) -> Level {
        let may_be_old =
            self.upgrades.occasions.any() && !self.healed && self.checks.maps.newest().level == Level::FIRST;
        if !may_be_old {
            return Level::HIGHEST;
        }
        let mut random = self.upgrades.chance_of_build(node, self.nodes[node].start);
        let is_old = match self.nodes[node].build {
            // The first start.
            None => random.chance(850),
            Some(Level::FIRST) => random.chance(700),
            // Somebody goes back.
            Some(_) => random.chance(150),
        };
        if is_old { Level::FIRST } else { Level::HIGHEST }
    }

    /// A node has started.
    pub(crate) fn note_builds(&mut self) {
        let levels: BTreeSet<Level> = self
            .nodes
            .iter()
            .filter_map(|node| node.process.as_ref().map(|process| process.level()))
            .collect();
        self.upgrades.mixed |= levels.len() > 1;
    }

    /// All is about to be healed.
    pub(crate) fn note_level(&mut self) {
        self.upgrades.raised = self.upgrades.mixed && self.checks.maps.newest().level > Level::FIRST;
    }

    /// A node is stopped in order, to be started on the new build.
    pub(crate) fn upgrade(&mut self, number: u64) -> Result<(), String> {
        let is_old = |at: &usize| {
            let node = &self.nodes[*at];
            node.process.is_some() && node.pauses == 0 && node.build == Some(Level::FIRST)
        };
        let Some(node) = (0..MACHINES).find(is_old) else { return Ok(()) };
        self.nodes[node].build = Some(Level::HIGHEST);
        self.upgrades.done += 1;
        self.faults += 1;
        self.restless_at = self.now;
        self.count("Upgrade".into());
        let random = &mut self.upgrades.occasions.stream(number);
        self.begin_stop(node, random)
    }

    /// At the end nobody runs an older build any more.
    pub(crate) fn upgrade_at_once(&mut self, node: usize) -> Result<(), String> {
        let is_old =
            self.nodes[node].process.as_ref().is_some_and(|process| process.level() < Level::HIGHEST);
        if is_old {
            self.kill(node, Death::Stopped);
            self.start(node)?;
        }
        Ok(())
    }

    /// What is left of a message between two nodes, given their builds; none where they have no link, or no form for it.
    pub(crate) fn as_spoken(&self, from: usize, to: usize, envelope: Envelope) -> Option<Envelope> {
        let [from, to] = [from, to].map(|at| self.nodes[at].process.as_ref());
        let (from, to) = (from?, to?);
        if from.level() < to.cluster_level() || to.level() < from.cluster_level() {
            return None;
        }
        match envelope {
            Envelope::Control(message) if from.level().min(to.level()) == Level::FIRST => {
                let mut bytes = Vec::new();
                let (message, _) = format_1::encode_message(&message, &mut bytes)
                    .then(|| format_1::take_message(&bytes))
                    .flatten()?;
                Some(Envelope::Control(message))
            }
            envelope => Some(envelope),
        }
    }

    /// A message that comes must be one that the build knows.
    pub(crate) fn check_spoken(&self, to: usize, envelope: &Envelope) -> Result<(), String> {
        let Some(process) = &self.nodes[to].process else { return Ok(()) };
        levels::check_message(process.level(), envelope).map_err(|why| format!("node {}: {why}", to + 1))
    }

    /// Whether a process stops because the cluster has gone on without its build.
    pub(crate) fn is_left_behind(&self, node: usize) -> bool {
        let newest = self.checks.maps.newest().level;
        self.nodes[node].process.as_ref().is_some_and(|process| process.level() < newest)
    }
}
