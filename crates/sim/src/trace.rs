//! What happened, in order: a hash of all of it, so that two runs can be compared, and on demand the lines for people.

use crate::checks::shown;
use crate::process::Envelope;
use control::Beat;
use history::Time;
use placement::ClusterMap;
use replication::Message;
use replication::message::{AppendOutcome, ForwardOutcome};
use std::collections::VecDeque;

/// Lines kept.
const LINES_MAX: usize = 400;

/// The trace of a run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    lines: Option<VecDeque<String>>,
    print: bool,
}

impl Trace {
    /// `keep`: keep the last lines. `print`: print all of them.
    pub fn new(keep: bool, print: bool) -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, events: 0, lines: (keep || print).then(VecDeque::new), print }
    }

    /// Something happened: numbers that tell it from anything else, and a line that is made only where it is wanted.
    pub fn event(&mut self, now: Time, numbers: &[u64], line: impl FnOnce() -> String) {
        self.events += 1;
        for number in std::iter::once(&now).chain(numbers) {
            self.hash = (self.hash ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        }
        if let Some(lines) = &mut self.lines {
            let line = format!("{} {}", shown(now), line());
            if self.print {
                println!("{line}");
            }
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(line);
        }
    }

    /// The hash of everything so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The last lines.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default().into()
    }
}

/// A message for people.
pub(crate) fn brief(envelope: &Envelope) -> String {
    match envelope {
        Envelope::Control(control::Message::Raft(bytes)) => format!("consensus, {} bytes", bytes.len()),
        Envelope::Control(control::Message::Map(map)) => format!("map {}", brief_map(map)),
        other => format!("{other:?}"),
    }
}

/// A map for people.
pub(crate) fn brief_map(map: &ClusterMap) -> String {
    let nodes: Vec<String> =
        map.members.iter().map(|m| format!("{}:{}:{:?}", m.id, m.incarnation, m.state)).collect();
    let voters: Vec<u16> = map.voters.iter().map(|node| node.0).collect();
    let old: Vec<u16> = map.old_voters.iter().map(|node| node.0).collect();
    let seats: Vec<u16> = map.seats.iter().map(|seat| seat.node.0).collect();
    let partitions: Vec<String> = map
        .partitions
        .iter()
        .map(|p| format!("e{} p{} {:?}", p.epoch, p.primary.unwrap_or_default(), p.in_sync))
        .collect();
    let group = format!("{voters:?} {old:?} of {seats:?}");
    format!("{} [{}] [{group}] [{}]", map.version, nodes.join(" "), partitions.join(", "))
}

/// Numbers that tell a message from most others.
pub fn digest(envelope: &Envelope) -> [u64; 4] {
    match envelope {
        Envelope::Beat(Beat::Heartbeat { sent_at, stalled, keys }) => {
            [1, *sent_at, u64::from(*stalled), *keys]
        }
        Envelope::Beat(Beat::Grant { sent_at, map_version, wall_ms, .. }) => {
            [2, *sent_at, *map_version, *wall_ms]
        }
        Envelope::Beat(Beat::Refusal { sent_at, map_version, .. }) => [3, *sent_at, *map_version, 0],
        Envelope::Control(control::Message::Raft(bytes)) => [
            4,
            bytes.len() as u64,
            bytes.iter().fold(7, |sum: u64, &byte| sum.wrapping_mul(31) + u64::from(byte)),
            0,
        ],
        Envelope::Control(control::Message::Map(map)) => [5, map.version, 0, 0],
        Envelope::Control(control::Message::Report { applied, silent, heard, .. }) => {
            [6, *applied, silent.len() as u64, heard.len() as u64]
        }
        Envelope::Control(control::Message::Propose(changes)) => [7, changes.len() as u64, 0, 0],
        Envelope::Control(_) => [8, 0, 0, 0],
        Envelope::Shard(_, _, message) => digest_of_shard(message),
    }
}

fn digest_of_shard(message: &Message) -> [u64; 4] {
    match message {
        Message::Append(m) => [
            20 + u64::from(m.partition.0),
            m.epoch.0,
            m.prev.lsn.0,
            m.commit.0 << 16 | m.records.len() as u64,
        ],
        Message::Appended(m) => {
            let (kind, lsn) = match m.outcome {
                AppendOutcome::Held(lsn) => (0, lsn.0),
                AppendOutcome::Behind(position) => (1, position.lsn.0),
                AppendOutcome::Empty => (2, 0),
                AppendOutcome::Fenced => (3, 0),
            };
            [1000 + u64::from(m.partition.0), m.epoch.0, kind, lsn]
        }
        Message::Chunk(m) => [
            2000 + u64::from(m.partition.0),
            m.epoch.0,
            m.session << 32 | u64::from(m.index),
            m.payload.len() as u64,
        ],
        Message::ChunkStored(m) => [3000 + u64::from(m.partition.0), m.epoch.0, m.session, u64::from(m.next)],
        Message::Forward(m) => {
            [4000 + u64::from(m.partition.0), m.primary_since.0, m.id.sequence, m.id.incarnation.0]
        }
        Message::Committed(m) => {
            let furthest = m.partitions.iter().map(|committed| committed.lsn.0).sum();
            [6000, m.time_ms, m.partitions.len() as u64, furthest]
        }
        Message::Forwarded(m) => {
            let kind = match &m.outcome {
                ForwardOutcome::Reply { reply, .. } => reply.len() as u64,
                ForwardOutcome::NotOrdered => 1 << 40,
                ForwardOutcome::Unknown => 2 << 40,
            };
            [5000 + m.primary_since.0, m.id.sequence, m.id.incarnation.0, kind]
        }
    }
}
