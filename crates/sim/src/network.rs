//! The network between nodes: for each direction of each pair what becomes of a message.
//!
//! The machines are promised little: a message may be lost, late, overtaken by a later one, or come twice. A cut
//! either loses what is sent, or holds it back until it is mended, as a connection does that outlives the cut.

use history::Time;
use history::random::Random;

/// A millisecond, in the simulator's unit.
pub const MS: Time = 1_000_000;

/// What a cut does with messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// They are lost.
    Loses,
    /// They arrive once it is mended.
    Holds,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is lost.
    Lost,
    /// It waits for the cut to be mended.
    Held,
    /// It arrives then, and perhaps once more.
    Arrives(Time, Option<Time>),
}

/// One direction between two nodes.
#[derive(Clone, Debug)]
pub struct Link {
    /// Cuts in force: several faults may overlap.
    pub cuts: Vec<Cut>,
    /// Messages lost, in a thousand.
    pub loss: u64,
    /// Messages that come twice, in a thousand.
    pub twice: u64,
    /// Messages that are late, in a thousand, and by how much at most.
    pub late: u64,
    /// The most that a late one is late, in nanoseconds.
    pub late_max: Time,
    /// Messages keep their order, as on one connection.
    pub ordered: bool,
    last: Time,
}

impl Link {
    /// A good link.
    pub fn new(ordered: bool) -> Link {
        Link { cuts: Vec::new(), loss: 0, twice: 0, late: 0, late_max: 0, ordered, last: 0 }
    }

    /// Everything is well again.
    pub fn heal(&mut self) {
        *self = Link { last: self.last, ..Link::new(self.ordered) };
    }

    /// What becomes of a message sent now.
    pub fn send(&mut self, now: Time, random: &mut Random) -> Fate {
        match self.cuts.first() {
            Some(_) if self.cuts.contains(&Cut::Loses) => return Fate::Lost,
            Some(_) => return Fate::Held,
            None => {}
        }
        if self.loss > 0 && random.chance(self.loss) {
            return Fate::Lost;
        }
        let first = self.arrival(now, random);
        let again = (self.twice > 0 && random.chance(self.twice)).then(|| first + random.between(0, 50 * MS));
        Fate::Arrives(first, again)
    }

    fn arrival(&mut self, now: Time, random: &mut Random) -> Time {
        let mut at = now + random.between(MS / 20, MS / 2);
        if self.late > 0 && random.chance(self.late) {
            at += random.between(0, self.late_max);
        }
        if self.ordered {
            at = at.max(self.last + 1);
            self.last = at;
        }
        at
    }
}

/// Every link, by sender and receiver.
#[derive(Clone, Debug)]
pub struct Network {
    nodes: usize,
    links: Vec<Link>,
}

impl Network {
    /// A good network.
    pub fn new(nodes: usize, ordered: bool) -> Network {
        Network { nodes, links: vec![Link::new(ordered); nodes * nodes] }
    }

    /// The direction from one node to another, by index.
    pub fn link(&mut self, from: usize, to: usize) -> &mut Link {
        &mut self.links[from * self.nodes + to]
    }

    /// Whether no link has a fault.
    pub fn is_good(&self) -> bool {
        self.links.iter().all(|link| link.cuts.is_empty() && link.loss + link.twice + link.late == 0)
    }

    /// Everything is well again.
    pub fn heal(&mut self) {
        self.links.iter_mut().for_each(Link::heal);
    }
}
