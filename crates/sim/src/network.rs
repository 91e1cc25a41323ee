//! The network between nodes: for each direction of each pair what becomes of a message.
//!
//! The machines are promised little: a message may be lost, late, overtaken by a later one, or come twice. A cut
//! either loses what is sent, or holds it back until it is mended, as a connection does that outlives the cut. A slow link takes
//! one message after the other, and loses those for which its queue has no room.

use history::Time;
use history::random::Random;

/// A millisecond, in the simulator's unit.
pub const MS: Time = 1_000_000;

/// The longest that a message waits for others on a slow link.
const QUEUE_MAX: Time = 1_000 * MS;
/// The most by which a message is overtaken where that is a fault.
const OVERTAKEN_MAX: Time = 50 * MS;

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
    /// Messages that others overtake, in a thousand, whether the rest keep their order or not.
    pub overtaken: u64,
    /// How long it is busy with each message, in nanoseconds.
    pub takes: Time,
    /// Messages keep their order, as on one connection.
    pub ordered: bool,
    last: Time,
    /// Until when it is busy.
    busy_until: Time,
}

impl Link {
    /// A good link.
    pub fn new(ordered: bool) -> Link {
        Link {
            cuts: Vec::new(),
            loss: 0,
            twice: 0,
            late: 0,
            late_max: 0,
            overtaken: 0,
            takes: 0,
            ordered,
            last: 0,
            busy_until: 0,
        }
    }

    /// Everything is well again.
    pub fn heal(&mut self) {
        *self = Link { last: self.last, ..Link::new(self.ordered) };
    }

    /// It is as quick and as sure as ever. Cuts last.
    pub fn restore(&mut self) {
        *self = Link { last: self.last, cuts: std::mem::take(&mut self.cuts), ..Link::new(self.ordered) };
    }

    /// Whether it has no fault.
    pub fn is_good(&self) -> bool {
        self.cuts.is_empty() && self.loss + self.twice + self.late + self.overtaken + self.takes == 0
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
        if self.takes > 0 {
            let begins = self.busy_until.max(now);
            if begins > now + QUEUE_MAX {
                return Fate::Lost;
            }
            self.busy_until = begins + self.takes;
        }
        let first = self.arrival(now.max(self.busy_until), random);
        let again = (self.twice > 0 && random.chance(self.twice)).then(|| first + random.between(0, 50 * MS));
        Fate::Arrives(first, again)
    }

    fn arrival(&mut self, now: Time, random: &mut Random) -> Time {
        let mut at = now + random.between(MS / 20, MS / 2);
        if self.late > 0 && random.chance(self.late) {
            at += random.between(0, self.late_max);
        }
        if self.overtaken > 0 && random.chance(self.overtaken) {
            return at + random.between(0, OVERTAKEN_MAX);
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
        self.links.iter().all(Link::is_good)
    }

    /// Everything is well again.
    pub fn heal(&mut self) {
        self.links.iter_mut().for_each(Link::heal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(link: &mut Link, count: u64) -> Vec<Time> {
        let mut random = Random::new(5);
        let sent = (0..count).map(|number| link.send(number * MS, &mut random));
        sent.filter_map(|fate| if let Fate::Arrives(at, _) = fate { Some(at) } else { None }).collect()
    }

    #[test]
    fn a_slow_link_has_a_queue_and_loses_what_has_no_room() {
        let mut link = Link { takes: 10 * MS, ..Link::new(true) };
        let at = arrivals(&mut link, 1000);
        assert!((190..250).contains(&at.len()), "{} arrived", at.len());
        assert!(at.windows(2).all(|two| two[1] >= two[0] + 9 * MS));
        link.restore();
        assert!(link.is_good());
    }

    #[test]
    fn messages_are_overtaken_where_that_is_a_fault() {
        let mut link = Link { overtaken: 200, ..Link::new(true) };
        let at = arrivals(&mut link, 1000);
        assert!(at.windows(2).filter(|two| two[1] < two[0]).count() > 100);
        link.restore();
        assert!(arrivals(&mut link, 1000).is_sorted());
    }
}
