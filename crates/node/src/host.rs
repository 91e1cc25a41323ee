//! What connection commands ask of the node: figures, the cluster as clients see it, and its state as JSON.

use crate::control_driver::BUILD;
use crate::operate;
use crate::published::{LogFigures, ShardCounters};
use crate::shard::Shard;
use command::{
    ClusterOrder, ClusterView, CommandFigures, Host, InfoData, NodeView, Pause, Persistence, RangeView,
    SlowRequest,
};
use placement::{ClusterMap, Member, MemberState};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use types::settings::Settings;
use types::shared_settings::ChangeError;
use types::{Epoch, Instant, Level, NodeId, slots_of_partition};

/// A shard, as the commands of one of its connections see its node.
pub(crate) struct NodeHost<'a> {
    pub shard: &'a mut Shard,
}

/// A node's 40 hex digits: made from the cluster's id and its number, so that they last.
pub fn node_name(cluster_id: &str, node: NodeId) -> String {
    let mut state = u64::from(node.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for byte in cluster_id.bytes() {
        state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    let mut name = String::with_capacity(48);
    while name.len() < 40 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let _ = write!(name, "{:016x}", mixed ^ (mixed >> 31));
    }
    name.truncate(40);
    name
}

/// How the cluster's partitions fare.
#[derive(Default)]
pub(crate) struct Health {
    pub total: usize,
    served: usize,
    /// Down to the last copy, where more are wanted.
    pub at_risk: usize,
    /// With a copy that is being filled.
    filling: usize,
    /// With fewer copies in sync than belong to them, for whatever reason.
    pub short: usize,
    pub unavailable: usize,
    /// Every in-sync log is gone.
    pub lost: usize,
}

/// How the partitions of a map fare.
pub(crate) fn health_of(map: &ClusterMap) -> Health {
    let mut health = Health { total: map.partitions.len(), ..Health::default() };
    for state in &map.partitions {
        let served = state.primary.is_some_and(|primary| map.is_alive(primary));
        health.served += usize::from(served);
        health.unavailable += usize::from(!served);
        health.lost += usize::from(state.in_sync.is_empty() && state.epoch > Epoch(0));
        health.at_risk += usize::from(state.in_sync.len() == 1 && state.copies.len() > 1);
        let missing = || state.copies.iter().filter(|node| !state.in_sync.contains(*node));
        health.short += usize::from(missing().next().is_some());
        health.filling += usize::from(missing().any(|node| map.is_active(node)));
    }
    health
}

fn persistence(shard: &Shard) -> Persistence {
    let published = &shard.config.published;
    let (asked, done) = (published.saves_asked(), published.saves_done());
    let sum = |figure: fn(&LogFigures) -> &AtomicU64| {
        published.logs().iter().map(|log| figure(log).load(Ordering::Relaxed)).sum()
    };
    Persistence {
        logs: shard.durability.logs(),
        saving: asked > done,
        saves: done,
        last_save_s: published.last_save_s(),
        disk_full: published.is_disk_full(),
        log_bytes: sum(|log| &log.disk_bytes),
        written_bytes: sum(|log| &log.bytes_written),
        syncs: sum(|log| &log.syncs),
        sync_ns: sum(|log| &log.sync_ns),
    }
}

impl NodeHost<'_> {
    fn health(&self) -> Health {
        health_of(&self.shard.context.map)
    }

    fn is_ok(&self, health: &Health) -> bool {
        // This node must be able to serve, too: until it holds a lease it cannot know.
        health.total > 0 && health.unavailable == 0 && self.shard.context.leased()
    }

    /// A member's feature level and build, as fields of JSON; null where they are not known.
    fn build_json(&self, member: &Member) -> String {
        let known = match member.id == self.shard.config.identity.node {
            true => Some((Level::HIGHEST, BUILD.to_owned())),
            false => self.shard.config.published.builds.of(&self.shard.context.map, member),
        };
        let level = known.as_ref().map_or("null".to_owned(), |(level, _)| level.to_string());
        let build = known.filter(|(_, build)| !build.is_empty());
        let build = build.map_or("null".to_owned(), |(_, build)| json_string(&build));
        format!("\"level\":{level},\"build\":{build}")
    }
}

impl Host for NodeHost<'_> {
    fn password(&self) -> &str {
        self.shard.config.settings.requirepass.as_str()
    }

    fn settings(&self) -> &Settings {
        &self.shard.config.settings
    }

    fn now_us(&mut self) -> u64 {
        let context = &self.shard.context;
        match context.clock_ms {
            Some(ms) => ms * 1000 + context.now.0 % 1_000_000 / 1000,
            // No majority of voters has told it yet.
            None => (self.shard.figures)().now_us,
        }
    }

    fn info(&mut self) -> InfoData {
        let shard = &*self.shard;
        let published = &shard.config.published;
        let figures = (shard.figures)();
        let health = self.health();
        let map = &shard.context.map;
        let me = shard.config.identity.node;
        let mine = || map.partitions.iter().filter(|state| state.primary == Some(me));
        let short = |state: &&placement::PartitionState| state.in_sync.len() < usize::from(map.copies);
        let mut backups: Vec<NodeId> =
            mine().flat_map(|state| state.in_sync.iter()).filter(|&n| n != me).collect();
        backups.sort_unstable();
        backups.dedup();
        let totals = published.totals_since_reset();
        let process = &published.process;
        let load = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let since = |figure: fn(&ShardCounters) -> &AtomicU64| published.sum_since_reset(figure);
        InfoData {
            disk: persistence(shard),
            version: env!("CARGO_PKG_VERSION").into(),
            build_id: String::new(),
            os: figures.os,
            process_id: u64::from(std::process::id()),
            run_id: node_name(&format!("{}/{}", map.cluster_id, shard.config.identity.incarnation), me),
            uptime_seconds: figures.uptime_seconds,
            now_us: figures.now_us,
            shards: u64::from(shard.config.shards),
            connected_clients: published.sum(|s| &s.connections),
            waiting_clients: published.sum(|s| &s.waiting),
            used_memory: load(&process.allocated),
            used_memory_peak: load(&process.peak),
            used_memory_rss: figures.used_memory_rss,
            used_memory_dataset: published.sum(|s| &s.table_bytes),
            used_memory_startup: load(&process.startup),
            allocator_active: load(&process.active),
            allocator_resident: load(&process.resident),
            total_system_memory: figures.total_system_memory,
            loading: false,
            total_connections_received: since(|s| &s.connections_total),
            rejected_connections: figures.rejected_connections,
            total_commands_processed: since(|s| &s.commands),
            instantaneous_ops_per_sec: load(&process.ops_per_second),
            total_net_input_bytes: since(|s| &s.bytes_in),
            total_net_output_bytes: since(|s| &s.bytes_out),
            instantaneous_input_kbps: load(&process.in_per_second) as f64 / 1024.0,
            instantaneous_output_kbps: load(&process.out_per_second) as f64 / 1024.0,
            expired_keys: since(|s| &s.expired),
            keyspace_hits: totals.hits,
            keyspace_misses: totals.misses,
            total_error_replies: since(|s| &s.errors),
            forwarded_requests: since(|s| &s.forwarded),
            unknown_outcomes: totals.unknown_outcomes(),
            errors: totals.errors,
            connected_backups: backups.len() as u64,
            replication_offset: published.sum(|s| &s.last_lsn),
            replication_lag_max: published.shards().iter().map(|s| load(&s.lag_max)).max().unwrap_or(0),
            replication_id: map.cluster_id.clone(),
            primaries: mine().count() as u64,
            backups: published.sum(|s| &s.backups),
            partitions_short_of_copies: mine().filter(short).count() as u64,
            partitions_unavailable: health.unavailable as u64,
            copies: map.copies,
            min_in_sync: map.min_in_sync,
            moves_left: operate::moves_left(map),
            weight: map.member(me).map_or(shard.config.settings.weight, |member| member.weight),
            zone: map.member(me).map_or_else(String::new, |member| member.zone.clone()),
            draining: map.member(me).is_some_and(|member| member.draining),
            nodes_draining: map.members.iter().filter(|member| member.draining).count() as u64,
            coordinator: published.view().coordinator.map_or(0, |node| node.0),
            node_id: me.0,
            used_cpu_sys: figures.used_cpu_sys,
            used_cpu_user: figures.used_cpu_user,
            used_cpu_sys_children: figures.used_cpu_sys_children,
            used_cpu_user_children: figures.used_cpu_user_children,
            executable: figures.executable,
            keys: published.sum(|s| &s.keys),
            expires: published.sum(|s| &s.expires),
        }
    }

    fn cluster(&mut self) -> ClusterView {
        let health = self.health();
        let map = &self.shard.context.map;
        let partitions = map.partitions.len() as u16;
        let node = |member: &Member| NodeView {
            id: member.id.0,
            name: node_name(&map.cluster_id, member.id),
            host: member.host.clone(),
            port: member.port,
            cluster_port: member.cluster_port,
            peer_port: member.peer_port,
            failed: member.state == MemberState::Failed,
            epoch: map.version,
        };
        let ranges = map.each_partition().map(|(id, state)| {
            let (first, last) = slots_of_partition(id, partitions);
            let backups =
                state.in_sync.iter().filter(|&node| Some(node) != state.primary && map.is_active(node));
            RangeView {
                first: first.0,
                last: last.0,
                primary: state.primary.map(|node| node.0),
                backups: backups.map(|node| node.0).collect(),
            }
        });
        ClusterView {
            my_id: self.shard.config.identity.node.0,
            nodes: map.members.iter().filter(|member| !member.host.is_empty()).map(node).collect(),
            ranges: ranges.collect(),
            current_epoch: map.version,
            ok: health.total > 0 && health.unavailable == 0,
        }
    }

    fn status_json(&mut self) -> String {
        let health = self.health();
        let ok = self.is_ok(&health);
        let map = &self.shard.context.map;
        let view = self.shard.config.published.view();
        let number = |node: Option<NodeId>| node.map_or("null".to_owned(), |node| node.0.to_string());
        let nodes: Vec<String> = map
            .members
            .iter()
            .map(|member| {
                let state = match member.state {
                    MemberState::Joining => "JOINING",
                    MemberState::Active => "ACTIVE",
                    MemberState::Failed => "FAILED",
                    MemberState::Stopping => "STOPPING",
                };
                let count = |holds: &dyn Fn(&placement::PartitionState) -> bool| {
                    map.partitions.iter().filter(|state| holds(state)).count()
                };
                let keys = view.keys.iter().find(|(node, _)| *node == member.id);
                let keys = keys.map_or("null".to_owned(), |(_, keys)| keys.to_string());
                format!(
                    "{{\"id\":{},\"name\":\"{}\",\"host\":{},\"port\":{},\"cluster_port\":{},\"peer_port\":{},\
                     \"http_port\":{},\"line_port\":{},\
                     \"state\":\"{state}\",\"voter\":{},\"witness\":{},\"incarnation\":{},\"primaries\":{},\"copies\":{},\
                     \"in_sync\":{},\"keys\":{keys},{},{}}}",
                    member.id,
                    node_name(&map.cluster_id, member.id),
                    json_string(&member.host),
                    member.port,
                    member.cluster_port,
                    member.peer_port,
                    member.http_port,
                    member.line_port,
                    map.is_voter_yet(member.id),
                    member.witness,
                    member.incarnation,
                    count(&|state| state.primary == Some(member.id)),
                    count(&|state| state.copies.contains(member.id)),
                    count(&|state| state.in_sync.contains(member.id)),
                    operate::shape_json(member),
                    self.build_json(member),
                )
            })
            .collect();
        format!(
            "{{\"ok\":{ok},\"cluster_id\":\"{}\",\"version\":{},\"level\":{},\"coordinator\":{},\"copies\":{},\"min_in_sync\":{},\"moves\":{},\
             \"partitions\":{{\"total\":{},\"served\":{},\"at_risk\":{},\"filling\":{},\"short\":{},\"unavailable\":{},\"lost\":{}}},\
             \"nodes\":[{}]}}",
            map.cluster_id,
            map.version,
            map.level,
            number(view.coordinator),
            map.copies,
            map.min_in_sync,
            operate::moves_json(map),
            health.total,
            health.served,
            health.at_risk,
            health.filling,
            health.short,
            health.unavailable,
            health.lost,
            nodes.join(","),
        )
    }

    fn pause_clients(&mut self, lasting: Duration, pause: Pause) {
        let now = self.shard.context.now;
        let lasting = u64::try_from(lasting.as_nanos()).unwrap_or(u64::MAX);
        self.shard.config.published.set_pause(now, Instant(now.0.saturating_add(lasting)), pause);
    }

    fn unpause_clients(&mut self) {
        self.shard.config.published.end_pause();
    }

    fn accept_loss(&mut self) -> usize {
        let count = self.health().lost;
        self.shard.effects.accept_loss |= count > 0;
        count
    }

    fn refusal(&self, order: ClusterOrder) -> Option<String> {
        operate::refusal(self.shard, order)
    }

    fn order(&mut self, order: ClusterOrder) {
        self.shard.effects.orders.push(operate::in_control_words(order));
    }

    fn cluster_value(&self, name: &str) -> Option<String> {
        operate::cluster_value(&self.shard.context.map, name)
    }

    fn change_settings(&mut self, pairs: &[(&str, &str)]) -> Result<(), ChangeError> {
        self.shard.config.settings.shared().change(pairs)?;
        self.shard.refresh_settings();
        Ok(())
    }

    fn command_figures(&mut self) -> Vec<CommandFigures> {
        self.shard.config.published.totals_since_reset().commands
    }

    fn reset_figures(&mut self) {
        self.shard.config.published.reset_totals();
    }

    fn slow_requests(&mut self, most: usize) -> Vec<Arc<SlowRequest>> {
        let kept = self.shard.config.settings.slowlog_max_len as usize;
        self.shard.config.published.slow.newest(most.min(kept))
    }

    fn persistence(&mut self) -> Persistence {
        persistence(self.shard)
    }

    fn save(&mut self) {
        self.shard.config.published.ask_save();
    }

    fn forget_slow_requests(&mut self) {
        self.shard.config.published.slow.clear();
    }
}

pub(crate) fn json_string(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                out.push('\\');
                out.push(character);
            }
            control if (control as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", control as u32);
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
