//! A machine of the world: the node on it, its clocks and its disk, and what is wrong with them.

use crate::checks::Seat;
use crate::clock::Clock;
use crate::disk::SimDisk;
use crate::process::Process;
use crate::world::Event;
use history::Time;
use std::collections::VecDeque;
use types::Level;

/// A node: what outlives its processes, and the one that runs.
pub(crate) struct Node {
    pub clock: Clock,
    pub disk: SimDisk,
    /// Whether its disk refuses something.
    pub disk_hurt: bool,
    /// How much longer than usual its disk takes, at most.
    pub disk_takes: Time,
    /// Whether its machine has lost power since its last process began.
    pub power_lost: bool,
    /// Whether its last process ended in order.
    pub stopped: bool,
    /// Told to stop: when it hands over even if it is still the coordinator, and whether it was.
    pub retires_at: Time,
    pub led: bool,
    /// Whether its last process began with all that the one before had acknowledged.
    pub whole: bool,
    /// Until when all that each shard has for its log was durable, as last seen.
    pub synced_at: Vec<Time>,
    pub process: Option<Process>,
    /// The level of the build that it started with last, or is to start with next.
    pub build: Option<Level>,
    /// Counts its processes.
    pub start: u64,
    /// How many pauses hold it.
    pub pauses: u32,
    /// What came while it stood still.
    pub inbox: Vec<Event>,
    /// How long it takes for each thing that it does.
    pub takes: Time,
    /// What a slow node has not got round to.
    pub queue: VecDeque<Event>,
    /// Whether its disk may have lost copies to rot that are not in sync again.
    pub rotten: bool,
    /// When it last went on after a pause, or was started.
    pub awake_since: Time,
    /// When the last map went to each shard, so that they keep their order.
    pub map_at: Time,
}

impl Node {
    /// One that has never run a process.
    pub fn new(clock: Clock) -> Node {
        Node {
            clock,
            disk: SimDisk::new(),
            disk_hurt: false,
            disk_takes: 0,
            power_lost: false,
            stopped: false,
            retires_at: 0,
            led: false,
            whole: true,
            synced_at: Vec::new(),
            process: None,
            build: None,
            start: 0,
            pauses: 0,
            inbox: Vec::new(),
            takes: 0,
            queue: VecDeque::new(),
            rotten: false,
            awake_since: 0,
            map_at: 0,
        }
    }

    /// Whether it is slow, or has not got round to all that came while it was.
    pub fn is_slow(&self) -> bool {
        self.takes > 0 || !self.queue.is_empty()
    }
}

/// A node as the checks see it, where its process runs.
pub(crate) fn seat(node: &Node, at: usize, now: Time) -> Option<Seat<'_>> {
    let process = node.process.as_ref()?;
    Some(Seat { node: at, process, now: node.clock.monotonic(now) })
}
