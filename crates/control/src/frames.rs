//! What a node's control file holds, as frames: the start of a node, and what its part of the consensus must not forget.
//!
//! Each frame begins with its version. As long as the cluster is at feature level 1 frames are of format 3, which builds of that level
//! read, so that a node can go back to the build that it came from. From level 2 on they are of format 4, and say how far the
//! cluster has come: an older build does not start on them.

use crate::format::{self, decode_map};
use crate::format_1;
use crate::message::Kept;
use placement::ClusterMap;
use protobuf::Message as _;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;
use types::{Incarnation, Level, NodeId, PartitionId};

/// Why a control file could not be read back.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RestoreError {
    /// A frame does not decode.
    #[error(
        "frame {at} of the control file does not decode; it was written by another version, or is damaged"
    )]
    Frame {
        /// Which frame, from 0.
        at: usize,
    },
    /// A frame has a format that this version does not know.
    #[error(
        "the control file has format {found}; this version knows {} and {}: start the build that wrote it, or a newer one",
        format_1::FORMAT,
        format::FORMAT
    )]
    Format {
        /// The format found.
        found: u8,
    },
    /// The cluster uses what this build does not have.
    #[error(
        "the cluster that this node is of has come to feature level {found}, and this build has {highest}: start the build that ran \
         here last, or a newer one"
    )]
    Level {
        /// The cluster's level, as this node last knew it.
        found: Level,
        /// The highest that this build has.
        highest: Level,
    },
}

/// What a node's control file said at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Started {
    /// The newest incarnation issued. 0: none.
    pub incarnation: Incarnation,
    /// The directory's number. 0: none drawn yet.
    pub directory: u64,
    /// Reports that nothing has answered, for the heart.
    pub reported: Vec<(NodeId, Incarnation)>,
    /// Whether this directory comes back without the vote that an earlier one had.
    pub rejoins: bool,
    /// The oldest start of which all that was acknowledged since was still there at the last one.
    pub kept_since: Incarnation,
    /// But for these partitions, and which start found it so.
    pub lost: Vec<(PartitionId, Incarnation)>,
    /// The highest level of the cluster that this node has known.
    pub level: Level,
}

/// A frame of the control file.
#[derive(Serialize, Deserialize)]
pub(crate) enum Frame {
    Start {
        incarnation: Incarnation,
        directory: u64,
        rejoins: bool,
        kept_since: Incarnation,
        lost: Vec<(PartitionId, Incarnation)>,
    },
    HardState(Vec<u8>),
    Entries(Vec<Vec<u8>>),
    Snapshot(Vec<u8>),
    Reports(Vec<(NodeId, Report)>),
    /// The cluster has come to this level. From format 4 on.
    Level(Level),
    /// The node's seat in the consensus group, as its member's number (0: it has none), and who was in the group when it began to be
    /// one. What frames before this one say of a seat is over. From format 4 on.
    Seat {
        id: u64,
        group: Vec<u8>,
    },
    /// The map, where the node has no seat: so that it finds the voters when it starts again. From format 4 on.
    Map(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub incarnation: Incarnation,
    /// The coordinator's term that it was made in.
    pub term: u64,
    /// The newest entry applied when it was made: only a later one answers it.
    pub applied: u64,
    /// The heart's mark; 0 after a restart.
    pub mark: u64,
}

/// The bytes of a frame, in the format of the cluster's level.
pub(crate) fn encode_frame(level: Level, frame: &Frame) -> Vec<u8> {
    let mut bytes = vec![format::format_at(level)];
    bytes.extend(postcard::to_stdvec(frame).unwrap_or_default());
    bytes
}

/// The frame that says which seat a node has, and who was in the group when it began to be a member.
pub(crate) fn seat_frame(level: Level, id: u64, group: &ConfState) -> Vec<u8> {
    encode_frame(level, &Frame::Seat { id, group: group.write_to_bytes().unwrap_or_default() })
}

fn decode_frame(at: usize, bytes: &[u8]) -> Result<Frame, RestoreError> {
    match bytes.split_first() {
        Some((&(format_1::FORMAT | format::FORMAT), rest)) => {
            postcard::from_bytes(rest).map_err(|_| RestoreError::Frame { at })
        }
        Some((&found, _)) => Err(RestoreError::Format { found }),
        None => Err(RestoreError::Frame { at }),
    }
}

/// What a control file said, read back before anything is decided.
#[derive(Default)]
pub struct Restored {
    /// Of the node itself.
    pub started: Started,
    /// None: nothing was ever said of a seat.
    pub(crate) seat: Option<(u64, ConfState)>,
    pub(crate) map: Option<ClusterMap>,
    pub(crate) hard_state: HardState,
    pub(crate) entries: Vec<Entry>,
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) reports: BTreeMap<NodeId, Report>,
}

/// Reads the frames of a control file.
pub fn restore(frames: &[Vec<u8>]) -> Result<Restored, RestoreError> {
    let mut restored = Restored::default();
    for (at, bytes) in frames.iter().enumerate() {
        let broken = RestoreError::Frame { at };
        match decode_frame(at, bytes)? {
            Frame::Start { incarnation, directory, rejoins, kept_since, lost } => {
                restored.started.kept_since = kept_since;
                restored.started.lost = lost;
                restored.started.incarnation = incarnation;
                restored.started.directory = directory;
                restored.started.rejoins = rejoins;
            }
            Frame::Seat { id, group } => {
                let group = ConfState::parse_from_bytes(&group).map_err(|_| broken)?;
                restored = Restored {
                    started: restored.started,
                    map: restored.map,
                    seat: Some((id, group)),
                    ..Restored::default()
                };
            }
            Frame::Map(bytes) => {
                let map = decode_map(&bytes).ok_or(broken)?;
                restored.started.level = restored.started.level.max(map.level);
                restored.map = Some(map);
            }
            Frame::HardState(bytes) => {
                restored.hard_state = HardState::parse_from_bytes(&bytes).map_err(|_| broken)?;
            }
            Frame::Entries(list) => {
                for bytes in list {
                    let entry = Entry::parse_from_bytes(&bytes).map_err(|_| broken.clone())?;
                    restored.entries.retain(|kept| kept.index < entry.index);
                    restored.entries.push(entry);
                }
            }
            Frame::Snapshot(bytes) => {
                let snapshot = Snapshot::parse_from_bytes(&bytes).map_err(|_| broken)?;
                let index = snapshot.get_metadata().index;
                restored.entries.retain(|kept| kept.index > index);
                if let Some(map) = decode_map(&snapshot.data) {
                    restored.started.level = restored.started.level.max(map.level);
                }
                restored.snapshot = Some(snapshot);
            }
            Frame::Level(level) => restored.started.level = restored.started.level.max(level),
            Frame::Reports(reports) => {
                // Marks are the heart's own, which starts anew.
                restored.reports =
                    reports.into_iter().map(|(node, report)| (node, Report { mark: 0, ..report })).collect();
            }
        }
    }
    restored.started.reported =
        restored.reports.iter().map(|(&node, report)| (node, report.incarnation)).collect();
    Ok(restored)
}

/// The frame that issues an incarnation to a data directory: durable before the node says a word. `level`: the cluster's, as the file
/// says ([`Started::level`]).
pub fn start_frame(
    level: Level,
    incarnation: Incarnation,
    directory: u64,
    rejoins: bool,
    kept: &Kept,
) -> Vec<u8> {
    let (kept_since, lost) = (kept.since, kept.lost.clone());
    encode_frame(level, &Frame::Start { incarnation, directory, rejoins, kept_since, lost })
}
