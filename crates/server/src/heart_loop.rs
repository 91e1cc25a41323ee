//! The heart's thread: heartbeats and leases, which no shard and no disk can hold up.

use crate::clock;
use crate::link::{Links, is_link};
use crate::machine::{HeartEffects, HeartMachine};
use crate::mailbox::Mailbox;
use crate::shard_loop::{ERROR_PAUSE, SCRATCH_BYTES, WAKER};
use crate::threads::{Mail, Threads};
use control::message::{Beat, Identity};
use mio::{Events, Poll};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;
use storage::Sink;
use tracing::{debug, error};
use types::{Endpoint, Instant, NodeId};
use wire::peer::{Frame, encode_beats};

/// The priority that the thread asks for, where the system lets it.
const NICE: i32 = -10;

/// The heart's thread.
pub struct HeartLoop<M> {
    /// Its event loop, with [`WAKER`] registered.
    pub poll: Poll,
    /// Its letter box.
    pub mailbox: Mailbox<Mail>,
    /// Its links.
    pub links: Links,
    /// Its machine.
    pub machine: M,
    /// How often that is told that time passes.
    pub tick: Duration,
    /// Who it is.
    pub identity: Identity,
    /// Everybody's letter boxes.
    pub threads: Threads,
}

impl<M: HeartMachine> HeartLoop<M> {
    /// Runs until told to stop.
    pub fn run(mut self) {
        // On Linux this is the calling thread's alone. Most systems refuse it to users: then the heart shares.
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            debug!(%error, "the heart runs at ordinary priority");
        }
        let mut events = Events::with_capacity(256);
        let mut scratch = vec![0; SCRATCH_BYTES];
        let mut next_tick = clock::now();
        let mut outgoing = BTreeMap::new();
        loop {
            let busy = self.links.has_backlog();
            let timeout = if busy { Duration::ZERO } else { next_tick.since(clock::now()) };
            if let Err(error) = self.poll.poll(&mut events, Some(timeout))
                && error.kind() != ErrorKind::Interrupted
            {
                error!(%error, "the heart cannot wait for events");
                std::thread::sleep(ERROR_PAUSE);
            }
            let now = clock::now();
            for event in events.iter().filter(|event| is_link(event.token())) {
                self.links.event(now, event);
            }
            if events.iter().any(|event| event.token() == WAKER) && !self.open_mail() {
                return;
            }
            self.read_links(&mut scratch);
            let now = clock::now();
            if now >= next_tick {
                next_tick = now + self.tick;
                self.machine.tick(now, clock::wall_ms());
                self.links.tick(now);
            }
            self.carry_out(now, &mut outgoing);
            self.links.flush(now);
        }
    }

    /// False when it is time to stop.
    fn open_mail(&mut self) -> bool {
        self.mailbox.arm();
        while let Some(mail) = self.mailbox.take() {
            let now = clock::now();
            match mail {
                Mail::Link(mail) => self.links.mail(now, mail),
                Mail::Inputs(inputs) => {
                    for input in inputs {
                        self.machine.input(now, input);
                    }
                }
                Mail::Stop => return false,
                _ => debug_assert!(false, "a letter that is not for the heart"),
            }
        }
        true
    }

    fn read_links(&mut self, scratch: &mut [u8]) {
        let machine = &mut self.machine;
        self.links.read(scratch, |now, from, _, frame| {
            let Frame::Beat(beats) = frame else { return };
            for beat in beats {
                machine.beat(now, clock::wall_ms(), from, beat);
            }
        });
        // A heart notices silence by itself.
        self.links.take_lost();
    }

    fn carry_out(&mut self, now: Instant, outgoing: &mut BTreeMap<NodeId, Vec<Beat>>) {
        // Two rounds: a beat to this very node is answered at once.
        for _ in 0..2 {
            let HeartEffects { beats, notices } = self.machine.effects();
            if !notices.is_empty() {
                self.threads.control.send(Mail::Notices(std::mem::take(notices)));
            }
            let own = self.identity;
            let mut local = Vec::new();
            for (node, beat) in beats.drain(..) {
                if node == own.node {
                    local.push(beat);
                } else {
                    outgoing.entry(node).or_default().push(beat);
                }
            }
            for beat in local {
                self.machine.beat(now, clock::wall_ms(), own, beat);
            }
        }
        for (&node, beats) in outgoing.iter_mut().filter(|(_, beats)| !beats.is_empty()) {
            self.links
                .queue(now, node, Endpoint::Heart, |format, out| encode_beats(format, beats, out.bytes()));
            beats.clear();
        }
    }
}
