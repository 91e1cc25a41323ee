//! The settings of a run's nodes.

use crate::faults::Keeping;
use crate::network::MS;
use crate::shape::Shapes;
use crate::world::{PARTITIONS, REQUEST_TIMEOUT};
use history::random::Random;
use types::settings::{ByteSize, Settings, YesNo};

/// What may be ordered, sent and passed on ahead of what is confirmed, in bytes: in some seeds no more than a few records, so that
/// writes wait for room all the time.
pub(crate) struct Ahead([u64; 3]);

impl Ahead {
    /// Drawn by itself, so that a seed has the same faults as before.
    pub fn draw(seed: u64) -> Ahead {
        let mut random = Random::new(seed ^ 0xb0d5_0000_0000_0000);
        let tight = random.chance(400);
        Ahead([(); 3].map(|()| if tight { random.pick(&[200, 800, 4000]) } else { 1 << 24 }))
    }

    /// Settings with these bounds.
    pub fn set(&self, settings: Settings) -> Settings {
        let [uncommitted, replication, forward] = self.0.map(ByteSize);
        Settings {
            uncommitted_bytes_max: uncommitted,
            replication_ahead_bytes: replication,
            forward_ahead_bytes: forward,
            ..settings
        }
    }
}

/// Small ones, so that a transfer has many, in most runs. The draw is of its own: a seed has the same faults with every size.
pub(crate) fn draw_chunk_bytes(seed: u64) -> usize {
    Random::new(seed ^ 0x71c4_0000_0000_0000).pick(&[1, 1, 1024, replication::CHUNK_BYTES])
}

/// The settings of a node.
pub(crate) fn settings_of(
    id: usize,
    copies: u64,
    shards: u16,
    keeping: Keeping,
    shapes: &Shapes,
) -> Settings {
    // A node that joins is no voter at first: it knows of those that are, and of itself.
    let known = (1..=shapes.founders).chain(Some(id).filter(|&id| id > shapes.founders));
    let listed: Vec<String> = known.map(|id| format!("{id}=sim:{}", 7200 + id)).collect();
    Settings {
        log: keeping.log,
        fsync: keeping.fsync,
        snapshot_log_bytes: ByteSize(keeping.log_bytes),
        snapshot_interval: 0,
        node_id: id as u16,
        nodes: types::settings::Text(listed.join(",")),
        announce: types::settings::Text("sim".into()),
        port: 7000 + id as u16,
        cluster_port: 7100 + id as u16,
        peer_port: 7200 + id as u16,
        shards,
        partitions: PARTITIONS,
        copies: copies as u16,
        replace_after: shapes.replace_after,
        replace_voter_after: shapes.replace_voter_after,
        witness: if shapes.witness && id == shapes.machines { YesNo::Yes } else { YesNo::No },
        request_timeout_ms: REQUEST_TIMEOUT / MS,
        ..Settings::default()
    }
}
