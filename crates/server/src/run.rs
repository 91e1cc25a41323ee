//! The real node: the machines of room `node`, made from a data directory and settings.

use crate::client_ports::ClientCount;
use crate::data::{self, ReadLogs};
use crate::disk::RealDisk;
use crate::machine::{HeartEffects, HeartInput, HeartMachine};
use crate::start::{Machines, Prepared, StartError, run_with};
use crate::stats::ShardStats;
use crate::{clock, proof};
use control::message::{Beat, Identity};
use node::recover::RecoverConfig;
use node::{
    ControlDriver, ControlDriverConfig, ControlDriverError, HeartDriver, KeptLogs, Published, ServerFigures,
    Shard, ShardConfig,
};
use replication::Durability;
use std::sync::Arc;
use storage::ShardLogOptions;
use tracing::{info, warn};
use types::settings::Settings;
use types::shared_settings::SettingsReader;
use types::{Instant, Level, NodeId, ShardId};

/// The room that the shards' logs reserve at the start, in bytes.
const SEGMENTS_BYTES: u64 = 256 << 20;
const SEGMENT_BYTES_MIN: u64 = 16 << 20;

/// Runs a node until SIGTERM or SIGINT.
pub fn run(settings: Settings) -> Result<(), StartError> {
    run_with(settings, build)
}

type NodeMachines = Machines<Shard, Heart, ControlDriver<RealDisk>>;

fn build(prepared: &mut Prepared) -> Result<(Identity, NodeMachines), StartError> {
    let settings = &prepared.settings.clone();
    let random = || {
        let drawn = proof::random::<8>().map(u64::from_le_bytes);
        drawn.map_err(|source| StartError::System { what: "cannot draw random numbers", source })
    };
    let config = ControlDriverConfig {
        settings: settings.clone(),
        cluster_id: prepared.secret.cluster_id_text(),
        shards: prepared.shards,
        wall_ms: clock::wall_ms(),
        seed: random()?,
        kept: KeptLogs::default(),
        level: Level::HIGHEST,
    };
    let not_opened = |error| match error {
        ControlDriverError::Settings(error) => StartError::Setting(error),
        other => StartError::Control { why: other.to_string() },
    };
    let read = read_logs(prepared)?;
    let kept = read.as_ref().map(|read| read.kept.clone()).unwrap_or_default();
    let config = ControlDriverConfig { kept, ..config };
    let mut control =
        ControlDriver::open(RealDisk, prepared.directory.path(), config, clock::now()).map_err(not_opened)?;
    // What the logs have lost is on disk now, so that another start knows it, too.
    let logs = match (&mut prepared.data, read) {
        (Some(data), Some(read)) => data::begin(data, prepared.directory.path(), settings.fsync, read)?,
        _ => Vec::new(),
    };
    let identity = control.identity();
    let published = Arc::new(Published::new(prepared.shards));
    control.publish_to(published.clone());
    let heart = control.heart_config(settings).map_err(not_opened)?;
    let heart = Heart {
        driver: HeartDriver::new(heart, published.clone(), clock::now()),
        published: published.clone(),
        settings: prepared.shared.reader(),
        leased: false,
        offset_ms: 0,
    };
    // The same on every node, so that a SCAN's cursor means the same place in every copy; and as secret as the secret.
    let hash_seed = prepared.secret.hash_seed();
    let figures = figures(prepared.client_count.clone());
    let (mut copies, logs): (Vec<_>, Vec<_>) =
        logs.into_iter().map(|open| (Some(open.copies), (open.log, open.begin))).unzip();
    let shards = (0..prepared.shards).map(ShardId).map(|shard| {
        let mut machine = Shard::new(ShardConfig {
            settings: prepared.shared.reader(),
            identity,
            shard,
            shards: prepared.shards,
            hash_seed,
            chunk_bytes: replication::CHUNK_BYTES,
            published: published.clone(),
        });
        machine.set_figures(figures.clone());
        if let Some(copies) = copies.get_mut(usize::from(shard.0)).and_then(Option::take) {
            machine.adopt(copies);
        }
        (machine, ShardStats::new(published.clone(), shard))
    });
    let shards = shards.collect();
    Ok((identity, Machines { shards, heart, control, logs, published, figures }))
}

/// Reads back what the shards' logs on disk have kept, where there are some.
fn read_logs(prepared: &Prepared) -> Result<Option<ReadLogs>, StartError> {
    let Some(data) = &prepared.data else { return Ok(None) };
    let settings = &prepared.settings;
    let node = NodeId(settings.node_id);
    let configs = (0..prepared.shards).map(ShardId).map(|shard| RecoverConfig {
        node,
        shard,
        identity: prepared.secret.file_identity(node, shard),
        hash_seed: prepared.secret.hash_seed(),
        durability: Durability::of(settings),
        log: ShardLogOptions { segment_bytes: segment_bytes(prepared.shards) },
        ended_at: data.end_of(shard),
    });
    let is_alone =
        settings.copies == 1 || (settings.listed_nodes()?.len() == 1 && prepared.membership.is_none());
    let directory = prepared.directory.path();
    data::read_logs(data, directory, configs.collect(), settings.partitions, is_alone).map(Some)
}

/// How large files of a shard's log grow. Room for one is reserved at the start, so those of many shards are smaller.
fn segment_bytes(shards: u16) -> u64 {
    (SEGMENTS_BYTES / u64::from(shards.max(1)))
        .clamp(SEGMENT_BYTES_MIN, ShardLogOptions::default().segment_bytes)
}

/// The heart, which also tells the operator when the node begins and ceases to serve.
struct Heart {
    driver: HeartDriver,
    published: Arc<Published>,
    settings: SettingsReader,
    leased: bool,
    /// `chaos_wall_offset_ms`, as last seen.
    offset_ms: i64,
}

impl Heart {
    /// Nobody is to find a clock that is wrong on purpose by what becomes of his keys.
    fn look_at_the_offset(&mut self) {
        let offset_ms = self.settings.chaos_wall_offset_ms;
        if offset_ms == std::mem::replace(&mut self.offset_ms, offset_ms) {
            return;
        }
        match offset_ms {
            0 => info!("this node believes its wall clock again"),
            _ => warn!(
                offset_ms,
                "this node takes its wall clock to be wrong: chaos_wall_offset_ms is set, which is for tests only"
            ),
        }
    }

    /// What this node takes the wall clock to show.
    fn wall_ms(&self, shown_ms: u64) -> u64 {
        shown_ms.saturating_add_signed(self.settings.chaos_wall_offset_ms)
    }
}

impl HeartMachine for Heart {
    fn tick(&mut self, now: Instant, wall_ms: u64) {
        self.settings.refresh();
        self.look_at_the_offset();
        self.driver.tick(now, self.wall_ms(wall_ms));
        let leased = now < self.published.lease_until();
        if leased != self.leased {
            self.leased = leased;
            if leased {
                info!("this node serves: a majority of the voters has granted it a lease");
            } else {
                info!("this node does not serve: its lease has run out");
            }
        }
    }

    fn beat(&mut self, now: Instant, wall_ms: u64, from: Identity, beat: Beat) {
        self.driver.beat(now, self.wall_ms(wall_ms), from, beat);
    }

    fn input(&mut self, now: Instant, input: HeartInput) {
        self.driver.input(now, input);
    }

    fn effects(&mut self) -> &mut HeartEffects {
        self.driver.effects()
    }
}

type Figures = Arc<dyn Fn() -> ServerFigures + Send + Sync>;

/// Figures of this process, for INFO.
fn figures(clients: Arc<ClientCount>) -> Figures {
    let started = clock::now();
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let os = format!("{} {} {}", text(uname.sysname()), text(uname.release()), text(uname.machine()));
    let executable = std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default();
    Arc::new(move || {
        let info = rustix::system::sysinfo();
        let unit = u64::from(info.mem_unit.max(1));
        let [user, sys, user_children, sys_children] = processor_seconds();
        ServerFigures {
            now_us: clock::wall_ms() * 1000,
            uptime_seconds: clock::now().since(started).as_secs(),
            used_memory_rss: resident_bytes(),
            total_system_memory: info.totalram as u64 * unit,
            used_cpu_sys: sys,
            used_cpu_user: user,
            used_cpu_sys_children: sys_children,
            used_cpu_user_children: user_children,
            rejected_connections: clients.refused(),
            os: os.clone(),
            executable: executable.clone(),
        }
    })
}

/// Seconds of processor time: of this process outside of the kernel and in it, and the same of its children.
fn processor_seconds() -> [f64; 4] {
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in brackets, may hold anything; fields count from behind it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    [11, 12, 13, 14].map(|at| field(at) / TICKS_A_SECOND)
}

/// The process' resident memory; 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}
