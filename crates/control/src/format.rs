//! The bytes of what the consensus group keeps: entries, and the map as its snapshot; each in the format of the cluster's level.
//!
//! An entry is a version and commands; an empty one is a new leader's first. A snapshot of format 4 begins with a zero and its version;
//! one of format 3 with the map's version, which is never zero there. What a build does not know it does not skip: whoever
//! left out an entry would have another map than the rest.

use crate::command::Command;
use crate::format_1;
use placement::{ClusterMap, format_1 as old_map};
use types::Level;

/// The version of entries, and of frames of the control file, from level 2 on.
pub(crate) const FORMAT: u8 = 4;

/// The format that is written at a level.
pub(crate) fn format_at(level: Level) -> u8 {
    if level < Level::BUILDS { format_1::FORMAT } else { FORMAT }
}

/// An entry's bytes. The entry that raises the level is written as at the new one: all members can read it.
///
/// None: the level has no form for one of them. [`Command::needs`] tells that before.
pub(crate) fn encode_entry(level: Level, commands: &[Command]) -> Option<Vec<u8>> {
    let level = match commands {
        [Command::Raise { level, .. }] => *level,
        _ => level,
    };
    let format = format_at(level);
    let bytes = match format {
        format_1::FORMAT => format_1::encode_commands(commands)?,
        _ => postcard::to_stdvec(commands).ok()?,
    };
    let mut data = vec![format];
    data.extend(bytes);
    Some(data)
}

/// The commands of an entry. None: a newer build has written it.
pub(crate) fn decode_entry(data: &[u8]) -> Option<Vec<Command>> {
    match data.split_first() {
        None => Some(Vec::new()),
        Some((&format_1::FORMAT, rest)) => format_1::decode_commands(rest),
        Some((&FORMAT, rest)) => postcard::from_bytes(rest).ok(),
        Some(_) => None,
    }
}

/// The map's bytes, in the format of its level.
pub(crate) fn encode_map(map: &ClusterMap) -> Vec<u8> {
    let encoded = match format_at(map.level) {
        format_1::FORMAT => postcard::to_stdvec(&old_map::ClusterMap::from(map.clone())),
        format => postcard::to_extend(map, vec![0, format]),
    };
    encoded.unwrap_or_default()
}

/// Reads what [`encode_map`] has written. None: a newer build has, or it is no map.
pub(crate) fn decode_map(bytes: &[u8]) -> Option<ClusterMap> {
    match bytes {
        [0, FORMAT, rest @ ..] => postcard::from_bytes(rest).ok(),
        [0, ..] => None,
        _ => postcard::from_bytes::<old_map::ClusterMap>(bytes).ok().map(ClusterMap::from),
    }
}
