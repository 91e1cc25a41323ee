//! Looks at the process several times a second: memory as the allocator tells it, and rates. Asking the allocator costs
//! what no data thread should spend, so this runs beside them, and everybody reads what it published.

use crate::clock;
use crate::scheduling;
use node::{Published, ShardCounters};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tikv_jemalloc_ctl::{epoch, stats};
use types::Instant;
use types::shared_settings::SettingsReader;

/// From one look at the rates to the next.
const PERIOD: Duration = Duration::from_millis(100);
/// From one look at the memory to the next, where there is a `maxmemory` that it must not pass.
const GUARD_PERIOD: Duration = Duration::from_millis(20);
/// Elsewhere of so many looks one is at the memory too: it costs more than all the rest of an idle node.
const MEMORY_LOOK: u32 = 3;
/// Of so many looks one is for the allocator's threads, which come when they are first needed.
const POLITE_LOOK: u32 = 10;
/// The name that the allocator gives its threads.
const PURGING: &str = "jemalloc_bg_thd";
/// Their place behind all others.
const PURGING_NICE: i32 = 19;
/// Rates are over so many looks, as in Redis.
const LOOKS: usize = 16;

/// What is looked at.
pub struct Sampler {
    published: Arc<Published>,
    settings: SettingsReader,
    /// Commands, bytes in and bytes out, as they were lately.
    lately: VecDeque<(Instant, [u64; 3])>,
}

impl Sampler {
    /// Has looked once.
    pub fn new(published: Arc<Published>, settings: SettingsReader) -> Sampler {
        let mut sampler = Sampler { published, settings, lately: VecDeque::with_capacity(LOOKS + 1) };
        sampler.look_at_memory();
        sampler.rates(clock::now());
        sampler
    }

    /// Looks for as long as the process runs.
    pub async fn run(mut self) {
        for number in 1u32.. {
            self.settings.refresh();
            if self.settings.maxmemory.0 > 0 {
                for _ in 0..PERIOD.as_millis() / GUARD_PERIOD.as_millis() {
                    tokio::time::sleep(GUARD_PERIOD).await;
                    self.look_at_memory();
                }
            } else {
                tokio::time::sleep(PERIOD).await;
                if number.is_multiple_of(MEMORY_LOOK) {
                    self.look_at_memory();
                }
            }
            self.rates(clock::now());
            if number % POLITE_LOOK == 1 {
                make_purging_polite();
            }
        }
    }

    fn look_at_memory(&mut self) {
        let figures = &self.published.process;
        let set = ShardCounters::set;
        // The allocator's own figures stand still between two epochs.
        if epoch::advance().is_ok() {
            let size = |read: Result<usize, _>| read.map_or(0, |bytes| bytes as u64);
            let allocated = size(stats::allocated::read());
            set(&figures.allocated, allocated);
            set(&figures.active, size(stats::active::read()));
            set(&figures.resident, size(stats::resident::read()));
            let load =
                |figure: &std::sync::atomic::AtomicU64| figure.load(std::sync::atomic::Ordering::Relaxed);
            set(&figures.peak, load(&figures.peak).max(allocated));
            if load(&figures.startup) == 0 {
                set(&figures.startup, allocated);
            }
        }
    }

    fn rates(&mut self, now: Instant) {
        let sums = [
            self.published.sum(|shard| &shard.commands),
            self.published.sum(|shard| &shard.bytes_in),
            self.published.sum(|shard| &shard.bytes_out),
        ];
        self.lately.push_back((now, sums));
        if self.lately.len() > LOOKS {
            self.lately.pop_front();
        }
        let Some(&(then, before)) = self.lately.front() else { return };
        let seconds = now.since(then).as_secs_f64();
        let figures = &self.published.process;
        let rates = [&figures.ops_per_second, &figures.in_per_second, &figures.out_per_second];
        for ((sum, before), rate) in sums.into_iter().zip(before).zip(rates) {
            let a_second = if seconds > 0.0 { sum.saturating_sub(before) as f64 / seconds } else { 0.0 };
            ShardCounters::set(rate, a_second as u64);
        }
    }
}

/// The allocator's threads give memory back in long system calls. Where a data thread shares their processor, it goes first.
fn make_purging_polite() {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return };
    for thread in threads.flatten() {
        let is_purging =
            std::fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.trim() == PURGING);
        let id = thread
            .file_name()
            .to_str()
            .and_then(|id| id.parse().ok())
            .and_then(rustix::process::Pid::from_raw);
        if let (true, Some(id)) = (is_purging, id) {
            // Refused only where the system forbids being polite.
            let _ = rustix::process::setpriority_process(Some(id), PURGING_NICE);
            let _ = scheduling::ask_for_short_turns(Some(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::settings::Settings;
    use types::shared_settings::SharedSettings;

    #[test]
    fn rates_are_over_the_last_looks() {
        let published = Arc::new(Published::new(1));
        let settings = SharedSettings::new(Arc::new(Settings::default())).reader();
        let mut sampler = Sampler { published: published.clone(), settings, lately: VecDeque::new() };
        let load = || published.process.ops_per_second.load(std::sync::atomic::Ordering::Relaxed);
        let counter = &published.shards()[0].commands;
        for second in 0..40u64 {
            // 100 a second for half of the time, then none.
            ShardCounters::set(counter, second.min(20) * 100);
            sampler.rates(Instant(second * 1_000_000_000));
            if second == 20 {
                assert_eq!(load(), 100);
            }
        }
        assert_eq!(load(), 0);
    }
}
