//! What goes wrong between nodes: links get worse, are cut, and break.

use crate::faults::{Kind, lasting};
use crate::injure::Mend;
use crate::network::{Cut, Link, MS};
use crate::world::{Event, World};
use history::random::Random;
use types::NodeId;

/// The longest that links are bad or cut.
const CUT_MAX: u64 = 8_000 * MS;

impl World {
    /// Some links get worse: one direction, both, or all.
    pub(crate) fn worsen(&mut self, kind: Kind, node: usize, other: usize, random: &mut Random) {
        let machines = self.machines();
        let links: Vec<(usize, usize)> = match random.below(3) {
            0 => vec![(node, other)],
            1 => vec![(node, other), (other, node)],
            _ => (0..machines)
                .flat_map(|a| (0..machines).filter(move |&b| a != b).map(move |b| (a, b)))
                .collect(),
        };
        let permille = random.pick(&[10, 50, 200, 500]);
        let late_max = random.pick(&[5, 50, 400, 2000]) * MS;
        let takes = random.pick(&[1, 5, 20, 100]) * MS;
        for &(from, to) in &links {
            let link: &mut Link = self.network.link(from, to);
            match kind {
                Kind::Late => (link.late, link.late_max) = (permille * 2, late_max),
                Kind::Loss => link.loss = permille,
                Kind::Reorder => link.overtaken = permille,
                Kind::SlowLink => link.takes = takes,
                _ => link.twice = permille,
            }
        }
        let until = self.now + lasting(random, CUT_MAX);
        self.schedule(until, Event::Mend(Mend::Quality(links)));
    }

    /// A node is cut off from all others.
    pub(crate) fn isolate(&mut self, node: usize, random: &mut Random) {
        let others = (0..self.machines()).filter(|&peer| peer != node);
        self.cut(others.flat_map(|peer| [(node, peer), (peer, node)]).collect(), random);
    }

    /// Some pairs are cut, of which all may be reached by others: the two, any, or those on two sides. Sometimes in one direction.
    pub(crate) fn cut_some(&mut self, node: usize, other: usize, random: &mut Random) {
        let machines = self.machines();
        let pairs = (0..machines).flat_map(|a| (a + 1..machines).map(move |b| (a, b)));
        let mut cut: Vec<(usize, usize)> = match random.below(3) {
            0 => Vec::new(),
            1 => pairs.filter(|_| random.chance(400)).collect(),
            _ => {
                let sides: Vec<bool> = (0..machines).map(|_| random.chance(500)).collect();
                pairs.filter(|&(a, b)| sides[a] != sides[b]).collect()
            }
        };
        if cut.is_empty() {
            cut.push((node, other));
        }
        let is_one_way = random.chance(200);
        let back: Vec<_> = cut.iter().filter(|_| !is_one_way).map(|&(a, b)| (b, a)).collect();
        cut.extend(back);
        self.cut(cut, random);
    }

    /// Links are cut for a while.
    pub(crate) fn cut(&mut self, links: Vec<(usize, usize)>, random: &mut Random) {
        let cut = if random.chance(600) { Cut::Loses } else { Cut::Holds };
        let lasting = lasting(random, CUT_MAX);
        for &(from, to) in &links {
            self.network.link(from, to).cuts.push(cut);
            // Some time later one end or both give the connection up.
            for (end, peer) in [(from, to), (to, from)] {
                let gives_up = random.between(100 * MS, 4_000 * MS);
                if gives_up < lasting {
                    self.lose_link(end, peer, self.now + gives_up);
                }
            }
        }
        self.schedule(self.now + lasting, Event::Mend(Mend::Cut(links, cut)));
    }

    /// A node notices that a connection is gone.
    pub(crate) fn lose_link(&mut self, node: usize, peer: usize, at: u64) {
        let start = self.nodes[node].start;
        self.schedule(at, Event::LinkLost { node, start, peer: NodeId(peer as u16 + 1) });
    }

    /// The connection between two nodes breaks: both notice at once, or a little later.
    pub(crate) fn reset(&mut self, node: usize, other: usize, random: &mut Random) {
        for (end, peer) in [(node, other), (other, node)] {
            let at = self.now + random.between(0, 20 * MS);
            self.lose_link(end, peer, at);
        }
    }

    /// A message waits until a cut is mended.
    pub(crate) fn hold(&mut self, from: usize, to: usize, event: Event) {
        self.held.entry((from, to)).or_default().push(event);
    }

    /// Cuts of links end.
    pub(crate) fn mend_cut(&mut self, links: Vec<(usize, usize)>, cut: Cut) {
        self.links_mended_at = self.now;
        for (from, to) in links {
            let cuts = &mut self.network.link(from, to).cuts;
            if let Some(at) = cuts.iter().position(|&other| other == cut) {
                cuts.remove(at);
            }
            if cuts.is_empty() {
                self.let_go(from, to);
            }
        }
    }

    /// What a cut held back arrives, in order.
    pub(crate) fn let_go(&mut self, from: usize, to: usize) {
        for (place, event) in self.held.remove(&(from, to)).unwrap_or_default().into_iter().enumerate() {
            self.schedule(self.now + place as u64, event);
        }
    }
}
