//! Messages and commands as builds of feature level 1 write and read them.
//!
//! What such a build has stays as it was, byte for byte, in both formats; so this holds only what differs: the forms without levels and
//! builds, and where in the two enumerations they stand. Later additions have later numbers, and no form here.

use crate::command::Command;
use crate::message::{self, Kept, Message};
use placement::{PartitionState, format_1 as old_map};
use serde::{Deserialize, Serialize};
use types::{Incarnation, Level, NodeId, PartitionId};

/// The version of entries and of frames of the control file.
pub(crate) const FORMAT: u8 = 3;

/// The number of [`Command::Up`].
const UP: u8 = 1;
/// The last command that there was: [`Command::HandOver`].
const COMMAND_LAST: u8 = 15;
/// The number of [`Message::Register`].
const REGISTER: u8 = 1;
/// The number of [`Message::Map`].
const MAP: u8 = 7;
/// The number of [`Message::MapChanges`].
const MAP_CHANGES: u8 = 8;
/// The last message that there was: [`Message::HandOver`].
const MESSAGE_LAST: u8 = 12;

/// See [`message::Registration`].
#[derive(Serialize, Deserialize)]
struct Registration {
    node: NodeId,
    incarnation: Incarnation,
    directory: u64,
    votes: bool,
    shards: u16,
    kept: Kept,
    host: String,
    port: u16,
    cluster_port: u16,
    peer_port: u16,
    weight: u16,
    zone: String,
}

/// See [`message::MapChanges`].
#[derive(Serialize, Deserialize)]
struct MapChanges {
    from: u64,
    to: u64,
    copies: u16,
    min_in_sync: u16,
    members: Vec<old_map::Member>,
    gone: Vec<NodeId>,
    removed: Vec<(NodeId, Incarnation)>,
    voter_directories: Vec<(NodeId, u64)>,
    partitions: Vec<(PartitionId, PartitionState)>,
}

/// Appends a message. False, and nothing is appended, where this format has none for it.
pub fn encode_message(message: &Message, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let written = match message {
        Message::Register(registration) => put(REGISTER, &Registration::from(registration.clone()), out),
        Message::Map(map) if map.level == Level::FIRST => {
            put(MAP, &old_map::ClusterMap::from(map.as_ref().clone()), out)
        }
        Message::MapChanges(changes) if changes.level == Level::FIRST => {
            put(MAP_CHANGES, &MapChanges::from(changes.clone()), out)
        }
        Message::Map(_) | Message::MapChanges(_) => false,
        other => extend(other, out) && out.get(start).is_some_and(|&number| number <= MESSAGE_LAST),
    };
    if !written {
        out.truncate(start);
    }
    written
}

/// Takes a message off the front of bytes. None: they are none.
pub fn take_message(bytes: &[u8]) -> Option<(Message, &[u8])> {
    let (&number, rest) = bytes.split_first()?;
    match number {
        REGISTER => {
            let (old, rest) = postcard::take_from_bytes::<Registration>(rest).ok()?;
            Some((Message::Register(old.into()), rest))
        }
        MAP => {
            let (old, rest) = postcard::take_from_bytes::<old_map::ClusterMap>(rest).ok()?;
            Some((Message::Map(Box::new(old.into())), rest))
        }
        MAP_CHANGES => {
            let (old, rest) = postcard::take_from_bytes::<MapChanges>(rest).ok()?;
            Some((Message::MapChanges(old.into()), rest))
        }
        0..=MESSAGE_LAST => postcard::take_from_bytes(bytes).ok(),
        _ => None,
    }
}

/// The bytes of commands, as they stand in an entry after its version. None where one of them has no form here.
pub(crate) fn encode_commands(commands: &[Command]) -> Option<Vec<u8>> {
    let mut out = postcard::to_stdvec(&commands.len()).ok()?;
    for command in commands {
        let start = out.len();
        let written = match command {
            Command::Up(registration) => put(UP, &Registration::from(registration.clone()), &mut out),
            other => extend(other, &mut out) && out.get(start).is_some_and(|&number| number <= COMMAND_LAST),
        };
        if !written {
            return None;
        }
    }
    Some(out)
}

/// Reads what [`encode_commands`] has written.
pub(crate) fn decode_commands(bytes: &[u8]) -> Option<Vec<Command>> {
    let (count, mut rest) = postcard::take_from_bytes::<usize>(bytes).ok()?;
    let mut commands = Vec::new();
    for _ in 0..count {
        let (&number, fields) = rest.split_first()?;
        let (command, after) = match number {
            UP => {
                let (old, rest) = postcard::take_from_bytes::<Registration>(fields).ok()?;
                (Command::Up(old.into()), rest)
            }
            0..=COMMAND_LAST => postcard::take_from_bytes(rest).ok()?,
            _ => return None,
        };
        commands.push(command);
        rest = after;
    }
    Some(commands)
}

fn put<T: Serialize>(number: u8, fields: &T, out: &mut Vec<u8>) -> bool {
    out.push(number);
    extend(fields, out)
}

fn extend<T: Serialize>(value: &T, out: &mut Vec<u8>) -> bool {
    match postcard::to_stdvec(value) {
        Ok(bytes) => {
            out.extend_from_slice(&bytes);
            true
        }
        Err(_) => false,
    }
}

impl From<message::Registration> for Registration {
    fn from(new: message::Registration) -> Registration {
        Registration {
            node: new.node,
            incarnation: new.incarnation,
            directory: new.directory,
            votes: new.votes,
            shards: new.shards,
            kept: new.kept,
            host: new.host,
            port: new.port,
            cluster_port: new.cluster_port,
            peer_port: new.peer_port,
            weight: new.weight,
            zone: new.zone,
        }
    }
}

impl From<Registration> for message::Registration {
    fn from(old: Registration) -> message::Registration {
        message::Registration {
            node: old.node,
            incarnation: old.incarnation,
            directory: old.directory,
            votes: old.votes,
            shards: old.shards,
            kept: old.kept,
            host: old.host,
            port: old.port,
            cluster_port: old.cluster_port,
            peer_port: old.peer_port,
            http_port: 0,
            line_port: 0,
            weight: old.weight,
            zone: old.zone,
            level: Level::FIRST,
            build: String::new(),
            witness: false,
        }
    }
}

impl From<message::MapChanges> for MapChanges {
    fn from(new: message::MapChanges) -> MapChanges {
        MapChanges {
            from: new.from,
            to: new.to,
            copies: new.copies,
            min_in_sync: new.min_in_sync,
            members: new.members.into_iter().map(old_map::Member::from).collect(),
            gone: new.gone,
            removed: new.removed,
            voter_directories: old_map::directories_of(&new.seats),
            partitions: new.partitions,
        }
    }
}

impl From<MapChanges> for message::MapChanges {
    fn from(old: MapChanges) -> message::MapChanges {
        message::MapChanges {
            from: old.from,
            to: old.to,
            level: Level::FIRST,
            copies: old.copies,
            min_in_sync: old.min_in_sync,
            members: old.members.into_iter().map(placement::Member::from).collect(),
            gone: old.gone,
            removed: old.removed,
            // The voters are those of the map before.
            voters: Vec::new(),
            old_voters: Vec::new(),
            voters_since: 0,
            seats: old_map::seats_of(&[], &old.voter_directories),
            partitions: old.partitions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{FORMAT as NEWER, decode_entry, encode_entry};

    /// What raises the level is written as at the new one, and so it is read; beside anything else it has no form.
    #[test]
    fn what_raises_the_level_has_no_form_here() {
        let raise = Command::Raise { level: Level::BUILDS, builds: Vec::new() };
        assert!(raise.needs() > Level::FIRST);
        let entry = encode_entry(Level::FIRST, std::slice::from_ref(&raise)).unwrap();
        assert_eq!(entry[0], NEWER);
        assert_eq!(decode_entry(&entry), Some(vec![raise.clone()]));
        assert_eq!(encode_entry(Level::FIRST, &[Command::Activate, raise]), None);
        assert_eq!(encode_entry(Level::FIRST, &[Command::Activate]), Some(vec![FORMAT, 1, 2]));
        assert_eq!(decode_entry(&[NEWER + 1, 0]), None, "a newer build's");
        assert_eq!(decode_entry(&[]), Some(Vec::new()), "a new leader's first");
    }
}
