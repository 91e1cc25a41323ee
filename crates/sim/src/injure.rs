//! Faults happen here, and end.

use crate::faults::{Death, Kind, lasting};
use crate::keep::Part;
use crate::network::{Cut, MS};
use crate::process::Process;
use crate::world::{Event, MACHINES, World};
use history::random::Random;
use types::NodeId;

/// The longest pause, the longest of a run that has long ones, and the longest absence.
const PAUSE_MAX: u64 = 20_000 * MS;
const LONG_PAUSE_MAX: u64 = 60_000 * MS;
const ABSENCE_MAX: u64 = 6_000 * MS;
/// The longest that a node is slow, and that a wall clock is wrong.
const SLOW_MAX: u64 = 8_000 * MS;
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
    /// A node's process, told to stop, goes on with that. The second: its how-manieth process.
    Stop(usize, u64, Stopping),
    /// A node is as quick as ever.
    SlowNode(usize),
    /// A node's wall clock runs as it should.
    Clock(usize),
    /// A node's disk is as quick as ever.
    SlowDisk(usize),
    /// A node's disk syncs again, and has room.
    HurtDisk(usize),
}

/// A process that is told to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopping {
    /// Until when it waits.
    until: u64,
    /// How long it is away then.
    absence: u64,
}

/// Adds what a process has counted of transfers.
pub(crate) fn add(transfers: &mut [u64; 2], process: Option<&Process>) {
    let counted = process.map_or([0; 2], Process::transfers);
    transfers.iter_mut().zip(counted).for_each(|(sum, more)| *sum += more);
}

impl World {
    /// One fault.
    pub(crate) fn injure(&mut self, number: u64) -> Result<(), String> {
        let random = &mut self.plan.occasions.stream(number);
        let kind = random.pick(&self.plan.kinds);
        let machines = self.machines();
        let node = random.below(machines as u64) as usize;
        let other = (node + 1 + random.below(machines as u64 - 1) as usize) % machines;
        self.faults += 1;
        let now = self.now;
        let was_calm = self.is_calm();
        self.restless_at = now;
        self.trace.event(now, &[20, kind as u64, node as u64, other as u64], || {
            format!("fault {number}: {kind:?}, node {} (and {})", node + 1, other + 1)
        });
        let happens = match kind {
            Kind::Late | Kind::Loss | Kind::Twice | Kind::Reorder | Kind::SlowLink => {
                self.worsen(kind, node, other, random);
                true
            }
            Kind::OneWay => {
                self.cut(vec![(node, other)], random);
                true
            }
            Kind::Isolate => {
                self.isolate(node, random);
                true
            }
            Kind::Partial => {
                self.cut_some(node, other, random);
                true
            }
            Kind::Reset => {
                self.reset(node, other, random);
                true
            }
            Kind::Pause => self.pause(node, lasting(random, PAUSE_MAX)),
            Kind::LongPause => {
                // One is enough, and it ends before all is healed.
                let lasts = random.between(PAUSE_MAX, LONG_PAUSE_MAX);
                let is_in_time =
                    now + lasts < self.plan.end && self.nodes.iter().all(|node| node.pauses == 0);
                is_in_time && self.pause(node, lasts)
            }
            Kind::SlowNode => {
                self.nodes[node].takes = random.pick(&[200, 1000, 5000, 30_000]) * MS / 1000;
                self.schedule(now + lasting(random, SLOW_MAX), Event::Mend(Mend::SlowNode(node)));
                self.nodes[node].process.is_some()
            }
            Kind::Crash => {
                let mut death = draw_death(random);
                if death == Death::Power && self.keeping.is_late() && !was_calm {
                    // Its last record may be gone, and so may be the other copy's seat, by a decision that nobody knows yet.
                    death = Death::Killed;
                }
                let may = self.may_kill(node, death);
                if may && death == Death::Stopped {
                    self.begin_stop(node, random)?;
                } else if may {
                    self.kill(node, death);
                    self.start_later(node, random);
                }
                may
            }
            Kind::Blackout => self.blackout(random),
            Kind::SlowDisk => {
                self.slow_disk(node, random);
                true
            }
            Kind::FailedSync | Kind::FailedWrite | Kind::FailedRead | Kind::FullDisk => {
                self.hurt_disk(kind, node, random)
            }
            Kind::Rot => self.rot(node, random),
            Kind::Jump | Kind::Leap | Kind::Drift | Kind::ClockStops => {
                self.set_clock(kind, node, random);
                true
            }
        };
        if happens {
            self.count(format!("{kind:?}"));
        }
        Ok(())
    }

    /// Something happened, of a sort that is counted.
    pub(crate) fn count(&mut self, sort: String) {
        *self.counts.entry(sort).or_default() += 1;
    }

    /// Whether a thing that comes to pass by its number is left in this run. If so it is noted.
    pub(crate) fn comes_to_pass(&mut self, part: Part, number: u64) -> bool {
        let is_left = self.keep.has(part, number);
        if is_left {
            self.happened.push((part, number));
        }
        is_left
    }

    /// A node stands still. False: it does not run.
    fn pause(&mut self, node: usize, lasts: u64) -> bool {
        if self.nodes[node].process.is_none() {
            return false;
        }
        self.nodes[node].pauses += 1;
        let start = self.nodes[node].start;
        self.schedule(self.now + lasts, Event::Mend(Mend::Pause(node, start)));
        true
    }

    fn set_clock(&mut self, kind: Kind, node: usize, random: &mut Random) {
        let (now, until) = (self.now, self.now + lasting(random, SLOW_MAX));
        let clock = &mut self.nodes[node].clock;
        match kind {
            Kind::Jump => clock.jump(now, random),
            Kind::Leap => clock.leap(now, random),
            Kind::Drift => clock.drift(now, random),
            _ => clock.stop(now),
        }
        self.wall_off_ms = self.wall_off_ms.max(clock.off_ms(now));
        if matches!(kind, Kind::Drift | Kind::ClockStops) {
            self.schedule(until, Event::Mend(Mend::Clock(node)));
        }
    }

    /// Whether all is well, and has been for a while.
    fn is_calm(&mut self) -> bool {
        let all_run = self.nodes.iter().filter(|node| node.start > 0).all(|node| {
            node.process.is_some()
                && node.pauses == 0
                && !node.is_slow()
                && node.disk_takes == 0
                && !node.disk_hurt
        });
        let links_are_good = self.network.is_good();
        all_run && links_are_good && self.has_no_moves() && self.now >= self.restless_at + CALM
    }

    pub(crate) fn start_later(&mut self, node: usize, random: &mut Random) {
        let until = self.now + lasting(random, ABSENCE_MAX);
        self.schedule(until, Event::Mend(Mend::Crash(node)));
    }

    /// A node is told to stop: it hands over what others can take over, for as long as it has patience.
    pub(crate) fn begin_stop(&mut self, node: usize, random: &mut Random) -> Result<(), String> {
        let mut patience = random.pick(&[0, 50, 2000]) * MS;
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
        let stopping = Stopping { until: self.now + patience, absence: lasting(random, ABSENCE_MAX) };
        self.schedule(self.now, Event::Mend(Mend::Stop(node, start, stopping)));
        Ok(())
    }

    fn go_on_stopping(&mut self, node: usize, start: u64, stopping: Stopping) -> Result<(), String> {
        if self.nodes[node].start != start || self.nodes[node].process.is_none() {
            return Ok(());
        }
        if self.now >= stopping.until || self.nodes[node].pauses > 0 || self.healed {
            self.kill(node, Death::Stopped);
            if self.healed {
                return self.start(node);
            }
            self.schedule(self.now + stopping.absence, Event::Mend(Mend::Crash(node)));
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
        self.schedule(self.now + 20 * MS, Event::Mend(Mend::Stop(node, start, stopping)));
        Ok(())
    }

    /// All nodes die at once. Where the ends of their logs are not synced, only with their processes: but for the runs in
    /// which that may cost something.
    fn blackout(&mut self, random: &mut Random) -> bool {
        if self.now < self.blackout_at + BLACKOUT_GAP || self.is_any_rotten() {
            return false;
        }
        self.blackout_at = self.now;
        let mut death = draw_death(random);
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
                self.start_later(node, random);
            } else if death == Death::Power {
                self.lose_power(node);
            }
        }
        true
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
        let random = &mut self.random.fork();
        self.start_later(node, random);
        Ok(())
    }

    /// Whether every partition that a node holds in sync has another in-sync copy that runs; or whatever dies comes back with
    /// all that it had acknowledged.
    pub(crate) fn may_kill(&self, node: usize, death: Death) -> bool {
        if self.nodes[node].process.is_none() {
            return false;
        }
        let keeps = self.keeping.logs() && (!self.keeping.is_late() || death != Death::Power);
        self.plan.reckless || keeps && !self.is_any_rotten() || self.others_hold(NodeId(node as u16 + 1))
    }

    /// Whether every partition that a node holds in sync has another in-sync copy that runs, and lacks nothing.
    pub(crate) fn others_hold(&self, id: NodeId) -> bool {
        let map = self.checks.maps.newest();
        let runs = |other: NodeId| {
            let node = &self.nodes[usize::from(other.0) - 1];
            other != id
                && !node.rotten
                && node.process.as_ref().is_some_and(|process| {
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
        node.queue.clear();
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
        self.count(format!("Death: {death:?}"));
        self.break_clients(index);
        for peer in (0..self.machines()).filter(|&peer| peer != index) {
            let at = self.now + self.random.between(0, 5 * MS);
            self.lose_link(peer, index, at);
        }
    }

    /// A machine's power fails, whether a process runs on it or not.
    fn lose_power(&mut self, index: usize) {
        let seed = self.random.draw();
        let scattered = self.random.chance(500);
        let node = &mut self.nodes[index];
        let lost = if scattered { node.disk.crash_scattered(seed) } else { node.disk.crash(seed) };
        node.power_lost = true;
        *self.counts.entry("Writes torn".into()).or_default() += lost.torn;
        *self.counts.entry("Names lost".into()).or_default() += lost.names;
    }

    /// The end of one fault.
    pub(crate) fn mend(&mut self, mend: Mend) -> Result<(), String> {
        self.restless_at = self.now;
        match mend {
            Mend::Quality(links) => {
                self.links_mended_at = self.now;
                for (from, to) in links {
                    self.network.link(from, to).restore();
                }
                Ok(())
            }
            Mend::Cut(links, cut) => {
                self.mend_cut(links, cut);
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
            Mend::Stop(node, start, stopping) => self.go_on_stopping(node, start, stopping),
            Mend::SlowNode(node) => {
                self.hasten(node);
                Ok(())
            }
            Mend::Clock(node) => {
                self.set_clock_right(node);
                Ok(())
            }
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

    /// A node is as quick as ever: it does at once what waits.
    fn hasten(&mut self, node: usize) {
        if self.nodes[node].is_slow() {
            self.nodes[node].takes = 0;
            self.nodes[node].awake_since = self.now;
        }
    }

    fn set_clock_right(&mut self, node: usize) {
        let clock = &mut self.nodes[node].clock;
        clock.go_on(self.now);
        self.wall_off_ms = self.wall_off_ms.max(clock.off_ms(self.now));
    }

    /// A node goes on: what came meanwhile is delivered, in order, with its own tick before or after.
    fn wake(&mut self, index: usize) -> Result<(), String> {
        self.trace.event(self.now, &[22, index as u64], || format!("node {} wakes", index + 1));
        self.nodes[index].awake_since = self.now;
        let mut inbox = std::mem::take(&mut self.nodes[index].inbox);
        if self.random.chance(500) {
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
            self.set_clock_right(node);
            self.nodes[node].disk_takes = 0;
            self.hasten(node);
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

fn draw_death(random: &mut Random) -> Death {
    random.pick(&[Death::Power, Death::Power, Death::Killed, Death::Stopped])
}
