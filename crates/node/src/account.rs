//! What a shard tells of itself: the request at hand, by command and duration, and how its copies fare.
//!
//! Nobody here reads a clock: whoever runs the requests says how long they took.

use crate::host::health_of;
use crate::operate::moves_left;
use crate::published::ShardCounters;
use crate::shard::Shard;
use command::{Command, CommandError, Session, SlowRequest, place_of};
use replication::Standing;
use types::ShardId;
use types::settings::{ByteSize, Settings, YesNo};

/// The request that a shard was last given, for the statistics.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AtHand {
    /// Which command it is, where it is one.
    pub command: Option<&'static Command>,
    /// Whether it was refused before it ran.
    pub rejected: bool,
}

/// From how many nanoseconds on a request is slow.
pub(crate) fn slow_ns(settings: &Settings) -> u64 {
    u64::try_from(settings.slowlog_log_slower_than).map_or(u64::MAX, |us| us.saturating_mul(1000))
}

fn bytes(size: ByteSize) -> usize {
    usize::try_from(size.0).unwrap_or(usize::MAX)
}

/// Whether an error says that the request was refused where it would have run.
fn was_not_run(error: &CommandError) -> bool {
    matches!(
        error,
        CommandError::OutOfMemory
            | CommandError::NoReplicas
            | CommandError::Moved { .. }
            | CommandError::TryAgain { .. }
            | CommandError::ClusterDown { .. }
    )
}

impl Shard {
    /// The settings may have changed: once a turn.
    pub fn refresh_settings(&mut self) {
        if self.config.settings.refresh() {
            self.take_settings();
        }
    }

    pub(crate) fn take_settings(&mut self) {
        self.slow_ns = slow_ns(&self.config.settings);
        self.context.evict = std::time::Duration::from_millis(self.config.settings.evict_ms);
        self.context.ahead_bytes_max = bytes(self.config.settings.replication_ahead_bytes);
        self.uncommitted_bytes_max = bytes(self.config.settings.uncommitted_bytes_max);
        self.forward_ahead_bytes = bytes(self.config.settings.forward_ahead_bytes);
    }

    /// The place in the command table of the request that [`Shard::request`] was last given; `usize::MAX` where it was
    /// refused before it ran, which is counted here.
    #[inline]
    pub fn command_at_hand(&mut self) -> usize {
        let AtHand { command: Some(command), rejected } = self.at_hand else { return usize::MAX };
        let place = place_of(command);
        if rejected {
            self.config.published.commands(self.config.shard).rejected(place);
            return usize::MAX;
        }
        place
    }

    /// From how many nanoseconds on a request is slow.
    pub fn slow_ns(&self) -> u64 {
        self.slow_ns
    }

    /// Keeps the request that [`Shard::request`] was last given: it kept this thread busy for so long.
    pub fn slow(&mut self, session: &Session, args: &[&[u8]], took_ns: u64, at_unix_ms: u64) {
        let Some(command) = self.at_hand.command else { return };
        let published = &self.config.published;
        let most = self.config.settings.slowlog_max_len as usize;
        let id = published.slow.next_id();
        let slow = SlowRequest::new(id, at_unix_ms / 1000, took_ns / 1000, command, args, session);
        published.slow.push(self.config.shard, slow, most);
    }

    /// So many requests of a command were answered, each so long after it had begun.
    #[inline]
    pub fn answered(&mut self, place: usize, count: u64, took_ns: u64, error: Option<&CommandError>) {
        let stats = self.config.published.commands(self.config.shard);
        if error.is_some_and(was_not_run) {
            stats.rejected(place);
        } else {
            let tracking = self.config.settings.latency_tracking == YesNo::Yes;
            stats.done(place, count, took_ns, error.is_some(), tracking);
        }
        if let Some(error) = error {
            self.refused(error);
        }
    }

    /// An error was sent to a client.
    pub fn refused(&mut self, error: &CommandError) {
        self.config.published.commands(self.config.shard).error(error.word_place());
        ShardCounters::add(&self.counters().errors, 1);
    }

    /// Publishes how the cluster's partitions fare. One shard does it for all.
    pub(crate) fn count_cluster(&self) {
        if self.config.shard != ShardId(0) {
            return;
        }
        let health = health_of(&self.context.map);
        let figures = &self.config.published.cluster;
        ShardCounters::set(&figures.partitions, health.total as u64);
        ShardCounters::set(&figures.unavailable, health.unavailable as u64);
        ShardCounters::set(&figures.short, health.short as u64);
        ShardCounters::set(&figures.at_risk, health.at_risk as u64);
        ShardCounters::set(&figures.lost, health.lost as u64);
        ShardCounters::set(&figures.moves_left, moves_left(&self.context.map));
        let draining = self.context.map.members.iter().filter(|member| member.draining).count();
        ShardCounters::set(&figures.draining, draining as u64);
    }

    /// Publishes how this shard's copies fare: what need not be told at every tick.
    pub(crate) fn count_copies(&self) {
        let [mut serving, mut short, mut lag_max, mut lag_sum, mut uncommitted] = [0u64; 5];
        let [mut records, mut bytes, mut snapshots] = [0u64; 3];
        let copies = usize::from(self.context.map.copies);
        for partition in self.partitions.iter() {
            records += partition.log().len() as u64;
            bytes += partition.log().bytes() as u64;
            if !partition.is_primary() {
                continue;
            }
            serving += u64::from(partition.standing(&self.context) == Standing::Serving);
            uncommitted += partition.tail().lsn.0.saturating_sub(partition.commit().0);
            snapshots += partition.snapshots_under_way() as u64;
            let in_sync = self.context.map.partition(partition.id()).map_or(0, |state| state.in_sync.len());
            short += copies.saturating_sub(in_sync) as u64;
            for lag in partition.lags() {
                lag_max = lag_max.max(lag);
                lag_sum += lag;
            }
        }
        let counters = self.counters();
        for (counter, value) in [
            (&counters.serving, serving),
            (&counters.copies_short, short),
            (&counters.lag_max, lag_max),
            (&counters.lag_sum, lag_sum),
            (&counters.uncommitted, uncommitted),
            (&counters.log_records, records),
            (&counters.log_bytes, bytes),
            (&counters.snapshots, snapshots),
        ] {
            ShardCounters::set(counter, value);
        }
    }
}
