//! The control machine of a node with the file that it must not forget: every frame is on disk before anything that
//! follows from it leaves this driver (rule 16).
//!
//! The file also issues the node's incarnation, which grows at every start, and holds the number of the data
//! directory. A failed write or sync is final: the driver says so, and the process has to stop.

use crate::published::{Published, ShardCounters};
use control::{
    Change, Control, ControlConfig, HeartInput, HeartNotice, Identity, Kept, Message, Order, Registration,
};
use placement::ClusterMap;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use storage::{Disk, Journal, JournalError};
use thiserror::Error;
use types::settings::{Settings, YesNo};
use types::{Incarnation, Instant, Level, NodeId, PartitionId, Position};

/// The control file's name in the data directory.
pub const FILE: &str = "control.journal";
/// What to do where it has rotted.
pub(crate) const ROT_ADVICE: &str = "Where other nodes of the cluster run, move this one file aside and start the node again, if it votes with --join HOST:PORT (a \
     running node's peer address): it keeps its data, and takes from the others what it missed. A node that is the whole cluster \
     needs its data directory back from a backup";
/// Room that it holds in reserve: for writing it anew, and half of it at least for going on. Control rewrites it before it
/// has grown by a quarter of that.
const ROOM_BYTES: u64 = 2 << 20;
/// Between two attempts to get that room back.
const ROOM_RETRY: Duration = Duration::from_secs(1);

/// This build's version, as it is told to other nodes.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");

/// Why a control driver cannot start or go on.
#[derive(Debug, Error)]
pub enum ControlDriverError {
    /// The file cannot be read, written or synced.
    #[error(transparent)]
    Journal(JournalError),
    /// Bytes of the file that were durable have changed.
    #[error("{source}. {ROT_ADVICE}")]
    Rot {
        /// Which file, and where.
        source: JournalError,
    },
    /// The file's content is not understood.
    #[error("{file}: {why}")]
    Content {
        /// The file.
        file: String,
        /// What is wrong with it.
        why: control::RestoreError,
    },
    /// The settings do not fit together.
    #[error(transparent)]
    Settings(#[from] types::settings::SettingError),
}

impl From<JournalError> for ControlDriverError {
    fn from(error: JournalError) -> ControlDriverError {
        match error {
            source @ JournalError::Rot { .. } => ControlDriverError::Rot { source },
            error => ControlDriverError::Journal(error),
        }
    }
}

/// What a control driver is opened with.
#[derive(Clone, Debug)]
pub struct ControlDriverConfig {
    /// The node's settings, checked.
    pub settings: Arc<Settings>,
    /// The cluster's id.
    pub cluster_id: String,
    /// Data threads of this node.
    pub shards: u16,
    /// Unix milliseconds on this machine's wall clock. Incarnations of a new directory begin here, so that they are
    /// greater than those of one that was lost.
    pub wall_ms: u64,
    /// Any random number.
    pub seed: u64,
    /// What this node's logs have kept.
    pub kept: KeptLogs,
    /// The highest feature level that this node's build has.
    pub level: Level,
}

/// What a node's logs have kept since its last start, as reading them back has shown.
#[derive(Clone, Debug, Default)]
pub struct KeptLogs {
    /// Whether there is a log at all.
    pub any: bool,
    /// Whether everything that the last start acknowledged is there.
    pub whole: bool,
    /// But for these partitions.
    pub lost: Vec<PartitionId>,
}

/// What a control driver wants done. Everything in it is backed by the disk already.
#[derive(Debug, Default)]
pub struct DriverEffects {
    /// To other nodes' control planes.
    pub messages: Vec<(NodeId, Message)>,
    /// The newest map, for the shards.
    pub map: Option<Arc<ClusterMap>>,
    /// For the heart, after the map.
    pub to_heart: Vec<HeartInput>,
    /// The shards are to say how far their logs of these partitions reach: who asks, the question, which.
    pub ask_tails: Vec<(NodeId, u64, Vec<PartitionId>)>,
    /// Whether the file holds the room again that it keeps in reserve, or does not any more.
    pub room: Option<bool>,
    /// The node must stop, and say why: its disk failed, or it is not who it was.
    pub failed: Option<String>,
}

/// A node's control machine and its file.
pub struct ControlDriver<D: Disk> {
    control: Control,
    journal: Journal<D>,
    /// Whether that was last known to hold its room, and when it was last looked at.
    has_room: bool,
    room_asked: Instant,
    identity: Identity,
    reported: Vec<(NodeId, Incarnation)>,
    votes: bool,
    effects: DriverEffects,
    published: Option<Arc<Published>>,
    /// As last published.
    coordinator: Option<NodeId>,
}

impl<D: Disk> ControlDriver<D> {
    /// Opens or makes the file in `directory`, issues this start's incarnation durably, and starts the machine.
    pub fn open(
        disk: D,
        directory: &Path,
        config: ControlDriverConfig,
        now: Instant,
    ) -> Result<ControlDriver<D>, ControlDriverError> {
        let path = directory.join(FILE);
        let (mut journal, frames) = Journal::open_with_room(disk, &path, ROOM_BYTES)?;
        let restored = control::restore(&frames)
            .map_err(|why| ControlDriverError::Content { file: path.display().to_string(), why })?;
        let level = restored.started.level;
        if level > config.level {
            let (found, highest, file) = (level, config.level, path.display().to_string());
            let why = control::RestoreError::Level { found, highest };
            return Err(ControlDriverError::Content { file, why });
        }
        let settings = &config.settings;
        let is_new = restored.started.incarnation == Incarnation(0);
        let incarnation = if is_new { config.wall_ms.max(1) } else { restored.started.incarnation.0 + 1 };
        let directory_number = if is_new { config.seed.max(1) } else { restored.started.directory };
        let rejoins = if is_new { !settings.join.as_str().is_empty() } else { restored.started.rejoins };
        let identity = Identity {
            node: NodeId(settings.node_id),
            incarnation: Incarnation(incarnation),
            directory: directory_number,
        };
        let passes = config.kept.whole && restored.started.kept_since > Incarnation(0);
        // What an earlier start has lost is gone from the logs without a trace, and that start may have ended unheard.
        let mut lost: BTreeMap<PartitionId, Incarnation> = restored.started.lost.iter().copied().collect();
        lost.extend(config.kept.lost.iter().map(|&partition| (partition, identity.incarnation)));
        let kept = Kept {
            since: if passes { restored.started.kept_since } else { identity.incarnation },
            log: config.kept.any,
            lost: lost.into_iter().collect(),
        };
        let (incarnation, number) = (identity.incarnation, identity.directory);
        journal.append(&control::start_frame(level, incarnation, number, rejoins, &kept))?;
        journal.sync()?;
        let listed: Vec<NodeId> = settings.listed_nodes()?.iter().map(|node| NodeId(node.id)).collect();
        let voters: Vec<NodeId> = settings.voter_ids()?.into_iter().map(NodeId).collect();
        let votes = voters.contains(&identity.node) && !rejoins;
        let witness = settings.witness == YesNo::Yes;
        let reported = restored.started.reported.clone();
        let control_config = ControlConfig {
            me: Registration {
                node: identity.node,
                incarnation: identity.incarnation,
                directory: identity.directory,
                votes,
                shards: config.shards,
                kept,
                host: settings.announced_host().to_owned(),
                port: settings.port,
                cluster_port: settings.cluster_port,
                peer_port: settings.peer_port,
                http_port: settings.http_port,
                line_port: settings.line_port,
                weight: if witness { 0 } else { settings.weight },
                zone: settings.zone.as_str().to_owned(),
                level: config.level,
                build: BUILD.to_owned(),
                witness,
            },
            listed,
            voters,
            voters_max: settings.voters_max(),
            rejoins,
            cluster_id: config.cluster_id.clone(),
            copies: settings.copies,
            min_in_sync: settings.min_in_sync,
            partitions: settings.partitions,
            replace_after: Duration::from_secs(settings.replace_after),
            replace_voter_after: Duration::from_secs(settings.replace_voter_after),
            election: Duration::from_millis(settings.election_ms),
            seed: config.seed,
        };
        let control = Control::new(control_config, restored, now);
        Ok(ControlDriver {
            control,
            journal,
            has_room: true,
            room_asked: now,
            identity,
            reported,
            votes,
            effects: DriverEffects::default(),
            published: None,
            coordinator: None,
        })
    }

    /// Where to tell the node's other threads how it fares.
    pub fn publish_to(&mut self, published: Arc<Published>) {
        ShardCounters::set(&published.control.level, u64::from(self.control.level().0));
        self.published = Some(published);
    }

    fn publish(&mut self, now: Instant) {
        let Some(published) = &self.published else { return };
        published.stamp_control(now);
        let figures = &published.control;
        let term = self.control.term();
        if term > figures.term.load(Ordering::Relaxed) {
            // The first is the one that this node finds when it starts.
            if figures.term.load(Ordering::Relaxed) > 0 {
                ShardCounters::add(&figures.elections, 1);
            }
            ShardCounters::set(&figures.term, term);
        }
        ShardCounters::set(&figures.is_coordinator, u64::from(self.control.is_coordinator()));
        ShardCounters::set(&figures.map_version, self.control.map().version);
        ShardCounters::set(&figures.level, u64::from(self.control.level().0));
        ShardCounters::set(&figures.lacks_room, u64::from(!self.has_room));
        ShardCounters::set(&figures.stepped_down, u64::from(self.control.has_stepped_down()));
        if self.control.has_left() && figures.left_at.load(Ordering::Relaxed) == 0 {
            figures.left_at.store(self.control.map().version, Ordering::Release);
        }
        let coordinator = self.control.coordinator();
        if coordinator.is_some() && coordinator != self.coordinator {
            if self.coordinator.is_some() {
                ShardCounters::add(&figures.coordinator_changes, 1);
            }
            self.coordinator = coordinator;
        }
    }

    /// Who this node is from this start on.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// What the node's heart is made with.
    pub fn heart_config(&self, settings: &Settings) -> Result<control::HeartConfig, ControlDriverError> {
        Ok(control::HeartConfig {
            me: self.identity,
            voters: settings.voter_ids()?.into_iter().map(NodeId).collect(),
            listed: settings.listed_nodes()?.iter().map(|node| NodeId(node.id)).collect(),
            votes: self.votes,
            heartbeat: Duration::from_millis(settings.heartbeat_ms),
            lease: Duration::from_millis(settings.lease_ms),
            grace: Duration::from_millis(settings.grace_ms),
            reported: self.reported.clone(),
        })
    }

    /// The map that this node knows.
    pub fn map(&self) -> &Arc<ClusterMap> {
        self.control.map()
    }

    /// Whether this node is the coordinator.
    pub fn is_coordinator(&self) -> bool {
        self.control.is_coordinator()
    }

    /// Time passes.
    pub fn tick(&mut self, now: Instant) {
        self.control.tick(now);
        self.settle();
        self.look_at_room(now);
        self.publish(now);
    }

    /// Says when the file has lost the room that it holds in reserve, and asks for it again now and then.
    fn look_at_room(&mut self, now: Instant) {
        if self.has_room && self.journal.holds_room() || now.since(self.room_asked) < ROOM_RETRY {
            return;
        }
        self.room_asked = now;
        let has_room = self.journal.hold_room();
        if has_room != std::mem::replace(&mut self.has_room, has_room) {
            self.effects.room = Some(has_room);
        }
    }

    /// A message from another node's control plane.
    pub fn message(&mut self, now: Instant, from: Identity, message: Message) {
        self.control.message(now, from, message);
        self.settle();
    }

    /// Word from this node's heart.
    pub fn notice(&mut self, now: Instant, notice: HeartNotice) {
        self.control.heart(now, notice);
        self.settle();
    }

    /// Changes of in-sync sets that this node's shards propose.
    pub fn changes(&mut self, now: Instant, changes: Vec<Change>) {
        self.control.changes(now, changes);
        self.settle();
    }

    /// An operator accepts the loss of what no living copy holds.
    pub fn accept_loss(&mut self, now: Instant) {
        self.control.accept_loss(now);
        self.settle();
    }

    /// An operator asks for a change of the cluster.
    pub fn order(&mut self, now: Instant, order: Order) {
        self.control.order(now, order);
        self.settle();
    }

    /// A partition is to be handed over to another of its in-sync copies.
    pub fn hand_over(&mut self, now: Instant, partition: PartitionId, heir: NodeId) {
        self.control.hand_over(now, partition, heir);
        self.settle();
    }

    /// This node is about to stop: another is to be the coordinator.
    pub fn step_down(&mut self, now: Instant) {
        self.control.step_down(now);
        self.settle();
        self.publish(now);
    }

    /// Whether another is, or nobody else can be.
    pub fn has_stepped_down(&self) -> bool {
        self.control.has_stepped_down()
    }

    /// This node is about to stop: its shards order no more.
    pub fn leave(&mut self, now: Instant) {
        self.control.leave(now);
        self.settle();
        self.publish(now);
    }

    /// What the shards answer to [`DriverEffects::ask_tails`].
    pub fn tails(&mut self, now: Instant, to: NodeId, question: u64, tails: Vec<(PartitionId, Position)>) {
        self.control.tails(now, to, question, tails);
        self.settle();
    }

    /// What is to be done; the caller empties it.
    pub fn effects(&mut self) -> &mut DriverEffects {
        &mut self.effects
    }

    /// Makes durable what must be, and only then lets the rest out.
    fn settle(&mut self) {
        let effects = std::mem::take(self.control.effects());
        if self.effects.failed.is_some() {
            return;
        }
        let saved = match &effects.rewrite {
            Some(frames) => match self.journal.rewrite(frames) {
                // Its room went to others. Behind what is there the same frames say the same.
                Err(error) if error.is_full() => self.append(frames, true),
                done => done,
            },
            None => Ok(()),
        }
        .and_then(|()| self.append(&effects.frames, effects.sync));
        if let Err(error) = saved {
            self.effects.failed = Some(error.to_string());
            return;
        }
        if self.control.is_outgrown() {
            self.effects.failed = Some(format!(
                "the cluster has come to feature level {}, and this build has {}: start a newer build here",
                self.control.level(),
                self.control.highest_level()
            ));
            return;
        }
        if self.control.lost_its_vote() {
            self.effects.failed = Some(
                "this node's data directory is new, but the cluster knows it as a voter on another one, whose promises \
                 are lost with it. Start it with --join HOST:PORT (a running node's peer address): it is then filled \
                 anew, and gets a vote where one is wanted"
                    .to_owned(),
            );
            return;
        }
        // Before anything leaves this node that says so: its heart grants by these voters from now on (rule 6).
        if let Some(published) = &self.published {
            published.set_voters_since(self.control.map().voters_since);
        }
        self.effects.messages.extend(effects.messages);
        self.effects.to_heart.extend(effects.to_heart);
        self.effects.ask_tails.extend(effects.ask_tails);
        if effects.map.is_some() {
            self.effects.map = effects.map;
        }
    }

    fn append(&mut self, frames: &[Vec<u8>], sync: bool) -> Result<(), JournalError> {
        if frames.is_empty() {
            return Ok(());
        }
        for frame in frames {
            self.journal.append(frame)?;
        }
        if sync { self.journal.sync() } else { Ok(()) }
    }
}
