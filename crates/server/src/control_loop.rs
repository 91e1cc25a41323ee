//! The control plane's thread. Its machine writes and syncs its journal inside its calls, so this thread, and only
//! this one, waits for the disk.

use crate::address_book::AddressBook;
use crate::clock;
use crate::join_progress::{JoinProgress, Place};
use crate::link::{Links, is_link};
use crate::machine::{ControlMachine, DriverEffects};
use crate::mailbox::Mailbox;
use crate::shard_loop::{ERROR_PAUSE, SCRATCH_BYTES, WAKER};
use crate::threads::{Mail, Threads};
use control::message::{Identity, Message};
use mio::{Events, Poll};
use rustix::process::{Signal, getpid, kill_process};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;
use storage::Sink;
use tracing::{error, info, warn};
use types::{Endpoint, Instant, NodeId, PartitionId, Position};
use wire::peer::{Frame, encode_control};

/// Rounds of messages to this very node in one turn.
const LOCAL_ROUNDS: usize = 4;

/// The control plane's thread.
pub struct ControlLoop<M> {
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
    /// Where the other nodes are: as every newer map says.
    pub book: Arc<AddressBook>,
    /// What a node that joins tells its operator.
    pub progress: JoinProgress,
    /// It was seen that this node is no member any more.
    pub removed: bool,
    /// Answers that not every shard has had its part in.
    pub gathering: BTreeMap<(NodeId, u64), Gathered>,
}

/// A part of what the shards answer to one question.
#[derive(Debug, Default)]
pub struct Gathered {
    shards: usize,
    tails: Vec<(PartitionId, Position)>,
}

impl<M: ControlMachine> ControlLoop<M> {
    /// Runs until told to stop.
    pub fn run(mut self) {
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
                error!(%error, "the control plane cannot wait for events");
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
                self.machine.tick(now);
                self.links.tick(now);
            }
            self.carry_out(&mut outgoing);
            self.links.flush(clock::now());
        }
    }

    /// False when it is time to stop.
    fn open_mail(&mut self) -> bool {
        self.mailbox.arm();
        while let Some(mail) = self.mailbox.take() {
            let now = clock::now();
            match mail {
                Mail::Link(mail) => self.links.mail(now, mail),
                Mail::Changes(changes) => self.machine.changes(now, changes),
                Mail::AcceptLoss => self.machine.accept_loss(now),
                Mail::Order(order) => self.machine.order(now, order),
                Mail::Notices(notices) => {
                    for notice in notices {
                        self.machine.notice(now, notice);
                    }
                }
                Mail::Tails(to, question, tails) => self.gather(now, to, question, tails),
                Mail::StepDown => self.machine.step_down(now),
                Mail::Leave => self.machine.leave(now),
                Mail::Stop => return false,
                _ => debug_assert!(false, "a letter that is not for the control plane"),
            }
        }
        true
    }

    /// Answers once every shard has.
    fn gather(&mut self, now: Instant, to: NodeId, question: u64, tails: Vec<(PartitionId, Position)>) {
        let gathered = self.gathering.entry((to, question)).or_default();
        gathered.shards += 1;
        gathered.tails.extend(tails);
        if gathered.shards == self.threads.shards.len()
            && let Some(gathered) = self.gathering.remove(&(to, question))
        {
            self.machine.tails(now, to, question, gathered.tails);
        }
    }

    fn read_links(&mut self, scratch: &mut [u8]) {
        let machine = &mut self.machine;
        self.links.read(scratch, |now, from, _, frame| {
            let Frame::Control(messages) = frame else { return };
            for message in messages {
                machine.message(now, from, message);
            }
        });
        // The consensus library and the coordinator send again what matters.
        self.links.take_lost();
    }

    fn carry_out(&mut self, outgoing: &mut BTreeMap<NodeId, Vec<Message>>) {
        for round in 0..LOCAL_ROUNDS {
            let DriverEffects { messages, map, to_heart, ask_tails, room, failed } = self.machine.effects();
            if let Some(why) = failed {
                // Whatever this node would say from here on could be a broken promise.
                error!("the node stops: {why}");
                std::process::exit(1);
            }
            match room.take() {
                Some(false) => warn!(
                    "the disk has no room left, and control.journal lacks some of what it holds in reserve: the control plane \
                     goes on in what it still has. Free some, or give the file system more"
                ),
                Some(true) => info!("control.journal holds its room in reserve again"),
                None => {}
            }
            if !to_heart.is_empty() {
                self.threads.heart.send(Mail::Inputs(std::mem::take(to_heart)));
            }
            if let Some(map) = map.take() {
                self.book.learn(&map);
                match self.progress.map(clock::now(), &map) {
                    Ok(Place::Has) => {}
                    Ok(Place::Removed) if std::mem::replace(&mut self.removed, true) => {}
                    Ok(Place::Removed) => {
                        info!("this node holds nothing, and is no member of the cluster any more: it stops");
                        // In order, as when an operator asks for it: its clients are let go.
                        let _ = kill_process(getpid(), Signal::TERM);
                    }
                    Err(why) => {
                        error!("the node stops: {why}");
                        std::process::exit(1);
                    }
                }
                for shard in &self.threads.shards {
                    shard.send(Mail::Map(map.clone()));
                }
            }
            for (to, question, partitions) in ask_tails.drain(..) {
                let partitions: Arc<[PartitionId]> = partitions.into();
                for shard in &self.threads.shards {
                    shard.send(Mail::AskTails(to, question, partitions.clone()));
                }
            }
            let mut local = Vec::new();
            for (node, message) in messages.drain(..) {
                if node == self.identity.node {
                    local.push(message);
                } else {
                    outgoing.entry(node).or_default().push(message);
                }
            }
            if local.is_empty() || round + 1 == LOCAL_ROUNDS {
                break;
            }
            for message in local {
                self.machine.message(clock::now(), self.identity, message);
            }
        }
        let now: Instant = clock::now();
        for (&node, messages) in outgoing.iter_mut().filter(|(_, messages)| !messages.is_empty()) {
            self.links.queue(now, node, Endpoint::Control, |format, out| {
                encode_control(format, messages, out.bytes())
            });
            messages.clear();
        }
    }
}
