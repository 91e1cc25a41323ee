//! The cluster's feature level never goes down, no start that the map knows runs a build that has less, and nobody is given what comes
//! with a higher one: neither in the map, nor by another node, nor on the disk that an older build starts on.

use crate::checks::Seat;
use crate::disk::SimDisk;
use crate::process::Envelope;
use node::look::walk_log;
use node::recover::RecoverConfig;
use placement::{ClusterMap, MemberState};
use replication::Message;
use std::ops::ControlFlow;
use std::path::Path;
use storage::log_entry::LogEntry;
use types::Level;

/// Compares the newest map with the one before it, and with what runs.
pub fn check(before: &ClusterMap, after: &ClusterMap, seats: &[Option<Seat<'_>>]) -> Result<(), String> {
    if after.level < before.level {
        return Err(format!(
            "the feature level went from {} in version {} to {} in {}",
            before.level, before.version, after.level, after.version
        ));
    }
    let stopping = after.members.iter().find(|member| member.state == MemberState::Stopping);
    if let Some(member) = stopping.filter(|_| after.level < Level::STOPPING) {
        return Err(format!(
            "node {} is shown as about to stop in version {} of the map, at feature level {}",
            member.id, after.version, after.level
        ));
    }
    for seat in seats.iter().flatten() {
        let identity = seat.process.identity();
        let is_it = after.member(identity.node).is_some_and(|m| m.incarnation == identity.incarnation);
        if is_it && seat.process.level() < after.level {
            return Err(format!(
                "the feature level is {} in version {} of the map, and node {} runs a build that has {}",
                after.level,
                after.version,
                identity.node,
                seat.process.level()
            ));
        }
    }
    Ok(())
}

/// A message that comes to a process whose build has this level.
pub fn check_message(level: Level, envelope: &Envelope) -> Result<(), String> {
    match envelope {
        Envelope::Shard(_, _, Message::Chunk(chunk))
            if chunk.joint_after().is_some() && level < Level::TRANSFERS_GO_ON =>
        {
            Err(format!("a build of feature level {level} is sent a joint: {chunk:?}"))
        }
        _ => Ok(()),
    }
}

/// The log that a build of this level starts on.
pub fn check_log(level: Level, disk: &SimDisk, data: &Path, config: &RecoverConfig) -> Result<(), String> {
    if level >= Level::TRANSFERS_GO_ON {
        return Ok(());
    }
    let mut unknown = None;
    let mut on_entry = |_, entry| match entry {
        LogEntry::Session { .. } => {
            unknown = Some(entry);
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    };
    walk_log(disk, data, config, 0, &mut on_entry).map_err(|finding| finding.text)?;
    match unknown {
        Some(entry) => Err(format!("a build of feature level {level} starts on a log with {entry:?}")),
        None => Ok(()),
    }
}
