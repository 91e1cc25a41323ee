//! Transfers that break off: a snapshot on its way between two nodes is over in a few milliseconds, so what happens elsewhere
//! hardly ever meets one. In some runs a chunk's arrival is a fault's occasion: the link is cut, or the copy's process is killed.
//!
//! The draws are of their own, and each chunk's too, so that a seed has the same other faults with them and without.

use crate::faults::Death;
use crate::keep::Part;
use crate::network::{Cut, MS};
use crate::process::Envelope;
use crate::world::{Event, World};
use history::random::Random;
use replication::Message;

/// The longest cut, and the longest absence.
const CUT_MAX: u64 = 5_000 * MS;
const ABSENCE_MAX: u64 = 2_000 * MS;

/// Which transfers break in a run.
pub(crate) struct Breaks {
    /// How many chunks in a thousand are one's last for now.
    permille: u64,
    /// How many have come.
    chunks: u64,
    seed: u64,
}

impl Breaks {
    /// What a seed has in store.
    pub fn draw(seed: u64) -> Breaks {
        let mut random = Random::new(seed ^ 0x3b9d_0000_0000_0000);
        let permille = random.pick(&[0, 50, 150, 300]);
        Breaks { permille, chunks: 0, seed: random.draw() }
    }
}

/// Whether more chunks are to follow.
pub(crate) fn is_chunk(envelope: &Envelope) -> bool {
    matches!(envelope, Envelope::Shard(_, _, Message::Chunk(chunk)) if chunk.end.is_none())
}

impl World {
    /// A chunk has come to a node.
    pub(crate) fn break_transfer(&mut self, from: usize, to: usize) -> Result<(), String> {
        self.breaks.chunks += 1;
        let number = self.breaks.chunks;
        let random = &mut Random::new(self.breaks.seed ^ number).fork();
        // Where nothing goes wrong nothing does.
        let is_last = !self.healed && !self.plan.kinds.is_empty() && random.chance(self.breaks.permille);
        if !is_last || !self.comes_to_pass(Part::Breaks, number) {
            return Ok(());
        }
        let now = self.now;
        self.faults += 1;
        self.restless_at = now;
        self.count("Transfer broken".into());
        let kills = random.chance(500);
        let lasting = random.between(20 * MS, if kills { ABSENCE_MAX } else { CUT_MAX });
        self.trace.event(now, &[26, from as u64, to as u64], || {
            format!("break {number}: a transfer from node {} to node {} breaks", from + 1, to + 1)
        });
        if kills && self.may_kill(to, Death::Killed) {
            self.kill(to, Death::Killed);
            self.schedule(now + lasting, Event::Mend(crate::injure::Mend::Crash(to)));
        } else {
            let links = vec![(from, to), (to, from)];
            for &(from, to) in &links {
                self.network.link(from, to).cuts.push(Cut::Loses);
            }
            self.schedule(now + lasting, Event::Mend(crate::injure::Mend::Cut(links, Cut::Loses)));
        }
        Ok(())
    }
}
