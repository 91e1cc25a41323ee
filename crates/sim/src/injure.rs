//! Faults happen here, and end.

use crate::faults::{Death, Kind};
use crate::network::{Cut, Link, MS};
use crate::process::Process;
use crate::world::{Event, MACHINES, World};
use types::NodeId;

/// The longest pause, cut and absence.
const PAUSE_MAX: u64 = 20_000 * MS;
const CUT_MAX: u64 = 8_000 * MS;
const ABSENCE_MAX: u64 = 6_000 * MS;
/// The longest that a disk is slow, fails or is full.
const DISK_MAX: u64 = 6_000 * MS;
/// Between two deaths of all nodes at once, so that something can happen meanwhile.
const BLACKOUT_GAP: u64 = 4_000 * MS;
/// So long after the last fault nothing follows from it any more.
const CALM: u64 = 1_500 * MS;
/// How long a node that stops waits at most for another coordinator.
const STEP_DOWN_MAX: u64 = 1_000 * MS;
/// Between two attempts to start a process whose disk is full or fails.
const START_RETRY: u64 = 500 * MS;

/// The end of a fault.
#[derive(Clone, Debug)]
pub(crate) enum Mend {
    /// Links are good again.
    Quality(Vec<(usize, usize)>),
    /// A cut of links ends.
    Cut(Vec<(usize, usize)>, Cut),
    /// A node goes on. The second: its how-manieth process.
    Pause(usize, u64),
    /// A node's process is started again.
    Crash(usize),
    /// A node's process, told to stop, goes on with that. The second: its how-manieth process; the third: until when it waits.
    Stop(usize, u64, u64),
    /// A node's disk is as quick as ever.
    SlowDisk(usize),
    /// A node's disk syncs again, and has room.
    HurtDisk(usize),
}

/// Adds what a process has counted of transfers.
pub(crate) fn add(transfers: &mut [u64; 2], process: Option<&Process>) {
    let counted = process.map_or([0; 2], Process::transfers);
    transfers.iter_mut().zip(counted).for_each(|(sum, more)| *sum += more);
}

impl World {
    /// One fault.
    pub(crate) fn injure(&mut self) -> Result<(), String> {
        let kind = self.plan.next_kind();
        let machines = self.machines();
        let node = self.plan.random().below(machines as u64) as usize;
        let other = (node + 1 + self.plan.random().below(machines as u64 - 1) as usize) % machines;
        self.faults += 1;
        let now = self.now;
        let was_calm = self.is_calm();
        self.restless_at = now;
        self.trace.event(now, &[20, kind as u64, node as u64, other as u64], || {
            format!("fault: {kind:?}, node {} (and {})", node + 1, other + 1)
        });
        match kind {
            Kind::Late | Kind::Loss | Kind::Twice => self.worsen(kind, node, other),
            Kind::OneWay => self.cut(vec![(node, other)]),
            Kind::Isolate => self.cut(
                (0..machines)
                    .filter(|&peer| peer != node)
                    .flat_map(|peer| [(node, peer), (peer, node)])
                    .collect(),
            ),
            Kind::Pause => {
                if self.nodes[node].process.is_some() {
                    self.nodes[node].pauses += 1;
                    let until = now + self.plan.lasting(PAUSE_MAX);
                    let start = self.nodes[node].start;
                    self.schedule(until, Event::Mend(Mend::Pause(node, start)));
                }
            }
            Kind::Crash => {
                let mut death = self.draw_death();
                if death == Death::Power && self.keeping.is_late() && !was_calm {
                    // Its last record may be gone, and so may be the other copy's seat, by a decision that nobody knows yet.
                    death = Death::Killed;
                }
                if self.may_kill(node, death) {
                    if death == Death::Stopped {
                        return self.begin_stop(node);
                    }
                    self.kill(node, death);
                    self.start_later(node);
                }
            }
            Kind::Blackout => self.blackout(),
            Kind::SlowDisk => {
                self.nodes[node].disk_takes = self.plan.random().pick(&[5, 50, 500, 3000]) * MS;
                let until = now + self.plan.lasting(DISK_MAX);
                self.schedule(until, Event::Mend(Mend::SlowDisk(node)));
            }
            Kind::FailedSync | Kind::FullDisk => {
                if !self.nodes[node].disk_hurt {
                    self.hurt_disk(kind, node);
                }
            }
            Kind::Reset => {
                self.reset(node, other);
            }
            Kind::Jump => {
                let mut random = self.plan.random().fork();
                self.nodes[node].clock.jump(&mut random);
            }
        }
        Ok(())
    }

    fn worsen(&mut self, kind: Kind, node: usize, other: usize) {
        let machines = self.machines();
        let random = self.plan.random();
        let links: Vec<(usize, usize)> = match random.below(3) {
            0 => vec![(node, other)],
            1 => vec![(node, other), (other, node)],
            _ => (0..machines)
                .flat_map(|a| (0..machines).filter(move |&b| a != b).map(move |b| (a, b)))
                .collect(),
        };
        let permille = random.pick(&[10, 50, 200, 500]);
        let late_max = random.pick(&[5, 50, 400, 2000]) * MS;
        for &(from, to) in &links {
            let link: &mut Link = self.network.link(from, to);
            match kind {
                Kind::Late => (link.late, link.late_max) = (permille * 2, late_max),
                Kind::Loss => link.loss = permille,
                _ => link.twice = permille,
            }
        }
        let until = self.now + self.plan.lasting(CUT_MAX);
        self.schedule(until, Event::Mend(Mend::Quality(links)));
    }

    fn cut(&mut self, links: Vec<(usize, usize)>) {
        let cut = if self.plan.random().chance(600) { Cut::Loses } else { Cut::Holds };
        let lasting = self.plan.lasting(CUT_MAX);
        for &(from, to) in &links {
            self.network.link(from, to).cuts.push(cut);
            // Some time later one end or both give the connection up.
            for (end, peer) in [(from, to), (to, from)] {
                let gives_up = self.plan.random().between(100 * MS, 4_000 * MS);
                if gives_up < lasting {
                    self.lose_link(end, peer, self.now + gives_up);
                }
            }
        }
        self.schedule(self.now + lasting, Event::Mend(Mend::Cut(links, cut)));
    }

    fn lose_link(&mut self, node: usize, peer: usize, at: u64) {
        let start = self.nodes[node].start;
        self.schedule(at, Event::LinkLost { node, start, peer: NodeId(peer as u16 + 1) });
    }

    /// The connection between two nodes breaks: both notice at once, or a little later.
    fn reset(&mut self, node: usize, other: usize) {
        for (end, peer) in [(node, other), (other, node)] {
            let at = self.now + self.plan.random().between(0, 20 * MS);
            self.lose_link(end, peer, at);
        }
    }

    /// A message waits until a cut is mended.
    pub(crate) fn hold(&mut self, from: usize, to: usize, event: Event) {
        self.held.entry((from, to)).or_default().push(event);
    }

    /// Whether all is well, and has been for a while.
    fn is_calm(&mut self) -> bool {
        let all_run = self.nodes.iter().filter(|node| node.start > 0).all(|node| {
            node.process.is_some() && node.pauses == 0 && node.disk_takes == 0 && !node.disk_hurt
        });
        let links_are_good = self.network.is_good();
        all_run && links_are_good && self.has_no_moves() && self.now >= self.restless_at + CALM
    }

    fn draw_death(&mut self) -> Death {
        self.plan.random().pick(&[Death::Power, Death::Power, Death::Killed, Death::Stopped])
    }

    fn start_later(&mut self, node: usize) {
        let until = self.now + self.plan.lasting(ABSENCE_MAX);
        self.schedule(until, Event::Mend(Mend::Crash(node)));
    }

    /// A node is told to stop: it hands over what others can take over, for as long as it has patience.
    pub(crate) fn begin_stop(&mut self, node: usize) -> Result<(), String> {
        let mut patience = self.plan.random().pick(&[0, 50, 2000]) * MS;
        if !self.keeping.logs() {
            // It may hold the last copy of something when it has waited, and could not be let go.
            patience = 0;
        }
        self.trace.event(self.now, &[24, node as u64], || format!("node {} is told to stop", node + 1));
        let start = self.nodes[node].start;
        if patience > 0 {
            self.nodes[node].retires_at = self.now + STEP_DOWN_MAX.min(patience / 2);
            self.nodes[node].led = self.nodes[node].process.as_ref().is_some_and(Process::is_coordinator);
            self.at_node(node, true, |process, own, _| process.step_down(own))?;
        }
        self.schedule(self.now, Event::Mend(Mend::Stop(node, start, self.now + patience)));
        Ok(())
    }

    fn go_on_stopping(&mut self, node: usize, start: u64, until: u64) -> Result<(), String> {
        if self.nodes[node].start != start || self.nodes[node].process.is_none() {
            return Ok(());
        }
        if self.now >= until || self.nodes[node].pauses > 0 || self.healed {
            self.kill(node, Death::Stopped);
            if self.healed {
                return self.start(node);
            }
            self.start_later(node);
            return Ok(());
        }
        let is_late = self.now >= self.nodes[node].retires_at;
        if self.nodes[node].process.as_ref().is_some_and(|process| is_late || process.has_stepped_down()) {
            let gave = self.nodes[node].process.as_ref().is_some_and(|process| !process.is_coordinator());
            self.leads_given += u64::from(std::mem::take(&mut self.nodes[node].led) && gave);
            // Again and again does no harm.
            self.at_node(node, true, |process, own, _| process.retire(own))?;
        }
        if self.nodes[node].process.as_ref().is_some_and(Process::is_retired) {
            self.at_node(node, true, |process, own, _| process.leave(own))?;
        }
        self.schedule(self.now + 20 * MS, Event::Mend(Mend::Stop(node, start, until)));
        Ok(())
    }

    /// All nodes die at once. Where the ends of their logs are not synced, only with their processes: but for the runs in
    /// which that may cost something.
    fn blackout(&mut self) {
        if self.now < self.blackout_at + BLACKOUT_GAP {
            return;
        }
        self.blackout_at = self.now;
        let mut death = self.draw_death();
        if death == Death::Power && self.keeping.is_late() {
            if self.keeping.lossy {
                self.begin_loss();
            } else {
                death = Death::Killed;
            }
        }
        for node in (0..self.machines()).filter(|&node| self.nodes[node].start > 0).collect::<Vec<_>>() {
            if self.nodes[node].process.is_some() {
                self.kill(node, death);
                self.start_later(node);
            } else if death == Death::Power {
                self.lose_power(node);
            }
        }
    }

    /// A disk begins to refuse.
    fn hurt_disk(&mut self, kind: Kind, node: usize) {
        let room = self.plan.random().below(64 << 10);
        let hurt = &mut self.nodes[node];
        hurt.disk_hurt = true;
        match kind {
            Kind::FailedSync => hurt.disk.fail_sync(true),
            _ => hurt.disk.set_room(Some(hurt.disk.used_bytes() + room)),
        }
        let until = self.now + self.plan.lasting(DISK_MAX);
        self.schedule(until, Event::Mend(Mend::HurtDisk(node)));
    }

    /// A process stops because its disk refuses. It is started again, and stops again until the disk is well.
    pub(crate) fn stops(&mut self, node: usize, why: &str) -> Result<(), String> {
        if !self.nodes[node].disk_hurt && !self.is_left_behind(node) {
            return Err(format!("node {} stops: {why}", node + 1));
        }
        if why.contains(node::CONTROL_FILE) && why.contains("no storage space") {
            return Err(format!("a full disk leaves the control plane of node {} no room: {why}", node + 1));
        }
        self.trace.event(self.now, &[23, node as u64], || format!("node {} stops: {why}", node + 1));
        self.kill(node, Death::Killed);
        self.start_later(node);
        Ok(())
    }

    /// Whether every partition that a node holds in sync has another in-sync copy that runs; or whatever dies comes back with
    /// all that it had acknowledged.
    pub(crate) fn may_kill(&self, node: usize, death: Death) -> bool {
        let id = NodeId(node as u16 + 1);
        let map = self.checks.maps.newest();
        if self.nodes[node].process.is_none() {
            return false;
        }
        let keeps = self.keeping.logs() && (!self.keeping.is_late() || death != Death::Power);
        if self.plan.reckless || keeps {
            return true;
        }
        let runs = |other: NodeId| {
            other != id
                && self.nodes[usize::from(other.0) - 1].process.as_ref().is_some_and(|process| {
                    map.member(other).is_some_and(|m| m.incarnation == process.identity().incarnation)
                })
        };
        map.partitions
            .iter()
            .all(|state| state.epoch.0 == 0 || state.in_sync.without(state.leaving).iter().any(runs))
    }

    pub(crate) fn kill(&mut self, index: usize, death: Death) {
        let node = &mut self.nodes[index];
        let mut process = node.process.take();
        add(&mut self.transfers, process.as_ref());
        node.inbox.clear();
        node.pauses = 0;
        match death {
            Death::Power => self.lose_power(index),
            Death::Killed => node.disk.end_process(),
            Death::Stopped => {
                node.stopped = process.as_mut().is_some_and(Process::stop);
                node.disk.end_process();
            }
        }
        self.checks.gone(index);
        self.trace.event(self.now, &[21, index as u64], || format!("node {}: {death:?}", index + 1));
        self.break_clients(index);
        for peer in (0..self.machines()).filter(|&peer| peer != index) {
            let at = self.now + self.plan.random().between(0, 5 * MS);
            self.lose_link(peer, index, at);
        }
    }

    /// A machine's power fails, whether a process runs on it or not.
    fn lose_power(&mut self, index: usize) {
        let seed = self.random.draw();
        let scattered = self.random.chance(500);
        let node = &mut self.nodes[index];
        if scattered {
            node.disk.crash_scattered(seed);
        } else {
            node.disk.crash(seed);
        }
        node.power_lost = true;
    }

    /// The end of one fault.
    pub(crate) fn mend(&mut self, mend: Mend) -> Result<(), String> {
        self.restless_at = self.now;
        match mend {
            Mend::Quality(links) => {
                self.links_mended_at = self.now;
                for (from, to) in links {
                    let link = self.network.link(from, to);
                    (link.late, link.loss, link.twice) = (0, 0, 0);
                }
                Ok(())
            }
            Mend::Cut(links, cut) => {
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
                Ok(())
            }
            Mend::Pause(node, start) => {
                let paused = &mut self.nodes[node];
                if paused.start == start && paused.pauses > 0 {
                    paused.pauses -= 1;
                    if paused.pauses == 0 {
                        return self.wake(node);
                    }
                }
                Ok(())
            }
            Mend::Crash(node) => {
                if self.nodes[node].process.is_none()
                    && let Err(why) = self.start(node)
                {
                    if !self.nodes[node].disk_hurt {
                        return Err(why);
                    }
                    self.nodes[node].disk.end_process();
                    self.schedule(self.now + START_RETRY, Event::Mend(Mend::Crash(node)));
                }
                Ok(())
            }
            Mend::Stop(node, start, until) => self.go_on_stopping(node, start, until),
            Mend::SlowDisk(node) => {
                self.nodes[node].disk_takes = 0;
                Ok(())
            }
            Mend::HurtDisk(node) => {
                self.heal_disk(node);
                Ok(())
            }
        }
    }

    fn heal_disk(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.disk_hurt = false;
        node.disk.fail_sync(false);
        node.disk.set_room(None);
    }

    /// What a cut held back arrives, in order.
    fn let_go(&mut self, from: usize, to: usize) {
        for (place, event) in self.held.remove(&(from, to)).unwrap_or_default().into_iter().enumerate() {
            self.schedule(self.now + place as u64, event);
        }
    }

    /// A node goes on: what came meanwhile is delivered, in order, with its own tick before or after.
    fn wake(&mut self, index: usize) -> Result<(), String> {
        self.trace.event(self.now, &[22, index as u64], || format!("node {} wakes", index + 1));
        self.nodes[index].awake_since = self.now;
        let mut inbox = std::mem::take(&mut self.nodes[index].inbox);
        if self.plan.random().chance(500) {
            inbox.sort_by_key(|event| !matches!(event, Event::Tick { .. }));
        }
        for event in inbox {
            if self.nodes[index].process.is_none() {
                break;
            }
            self.handle(event)?;
        }
        Ok(())
    }

    /// Everything is well again, at once.
    pub(crate) fn heal(&mut self) -> Result<(), String> {
        self.note_level();
        self.network.heal();
        self.links_mended_at = self.now;
        for (from, to) in (0..MACHINES).flat_map(|from| (0..MACHINES).map(move |to| (from, to))) {
            self.let_go(from, to);
        }
        for node in 0..MACHINES {
            self.heal_disk(node);
            self.nodes[node].disk_takes = 0;
            if self.nodes[node].start == 0 {
                // It never joined.
            } else if self.nodes[node].process.is_none() {
                self.start(node)?;
            } else if self.nodes[node].pauses > 0 {
                self.nodes[node].pauses = 0;
                self.wake(node)?;
            }
            self.upgrade_at_once(node)?;
        }
        Ok(())
    }
}
