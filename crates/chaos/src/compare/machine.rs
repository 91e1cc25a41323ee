//! Where figures come from: the machine, the day, and whether anybody else was there. Figures of a busy machine are worth little,
//! so it says so before anything is measured, and in the report.

use crate::failure::Failure;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long other processes are watched before a run.
const WATCH: Duration = Duration::from_secs(1);
/// Processes of one name that take more of a processor disturb.
const BUSY_PERCENT: f64 = 5.0;
/// As does a greater load average of the last minute.
const BUSY_LOAD: f64 = 0.5;

/// Who runs where.
#[derive(Clone, Copy, Debug, Serialize, PartialEq)]
pub(super) struct Processors {
    pub server: usize,
    pub load: usize,
}

impl Processors {
    /// Those named, or the first two that this process may use.
    pub(super) fn choose(server: Option<usize>, load: Option<usize>) -> Result<Processors, Failure> {
        let mine = sched_getaffinity(None).map_err(|errno| format!("no processors: {errno}"))?;
        let allowed: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|processor| mine.is_set(*processor)).collect();
        let first = *allowed.first().ok_or("this process may use no processor")?;
        let server = server.unwrap_or(first);
        let other = allowed.iter().copied().find(|processor| *processor != server).unwrap_or(server);
        let chosen = Processors { server, load: load.unwrap_or(other) };
        for processor in [chosen.server, chosen.load] {
            if !allowed.contains(&processor) {
                return Err(format!("processor {processor} is none of those to be used: {allowed:?}").into());
            }
        }
        Ok(chosen)
    }

    /// Keeps this thread, and what it starts from now on, on the load's processor.
    pub(super) fn pin_load(&self) -> Result<(), Failure> {
        let mut only = CpuSet::new();
        only.set(self.load);
        sched_setaffinity(None, &only).map_err(|errno| format!("cannot run on {}: {errno}", self.load).into())
    }
}

/// The machine, as far as figures depend on it.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    processor: String,
    processors: usize,
    memory_gib: f64,
    kernel: String,
    date: String,
    pinned: Processors,
    load_average: String,
    /// What disturbs the figures.
    warnings: Vec<String>,
    #[serde(skip)]
    times: Times,
}

/// Ticks of all processors since the machine started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Times {
    all: u64,
    stolen: u64,
}

impl Machine {
    /// Looks at the machine and says loudly what would disturb.
    pub(super) fn look(pinned: &Processors) -> Result<Machine, Failure> {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo")?;
        let value = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = value(&std::fs::read_to_string("/proc/meminfo")?, "MemTotal")
            .and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok())
            .unwrap_or(0.0);
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut machine = Machine {
            processor: value(&cpuinfo, "model name").unwrap_or_else(|| "unknown processor".to_owned()),
            processors: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            memory_gib: memory / 1_048_576.0,
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            date: date(seconds / 86_400),
            pinned: *pinned,
            load_average: std::fs::read_to_string("/proc/loadavg")?.trim().to_owned(),
            warnings: Vec::new(),
            times: times()?,
        };
        if pinned.server == pinned.load {
            machine.warn("servers and load share one processor".to_owned());
        }
        let load: f64 =
            machine.load_average.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
        if load > BUSY_LOAD {
            machine.warn(format!("load average of the last minute before the run: {load}"));
        }
        for busy in busy()? {
            machine.warn(format!("{busy} before the run"));
        }
        Ok(machine)
    }

    /// At the end: who else has come, and what the hypervisor took.
    pub(super) fn look_again(&mut self) -> Result<(), Failure> {
        for busy in busy()? {
            self.warn(format!("{busy} at its end"));
        }
        let now = times()?;
        let all = now.all.saturating_sub(self.times.all).max(1);
        let stolen = 100.0 * now.stolen.saturating_sub(self.times.stolen) as f64 / all as f64;
        if stolen >= 0.5 {
            self.warn(format!("the hypervisor took {stolen:.1}% of the processors' time"));
        }
        Ok(())
    }

    /// Notes, and says loudly, what disturbs.
    pub(super) fn warn(&mut self, warning: String) {
        eprintln!("*** THE MACHINE IS NOT IDLE: {warning}. Figures of this run are doubtful. ***");
        self.warnings.push(warning);
    }

    /// The first paragraph of a report.
    pub(super) fn text(&self, versions: &[String]) -> String {
        let disturbed = if self.warnings.is_empty() {
            "Nothing else was busy when it began or ended.".to_owned()
        } else {
            format!("**The machine was not idle**: {}.", self.warnings.join("; "))
        };
        format!(
            "{}: {}, {} processors, {:.0} GiB, Linux {}. Servers on processor {}, load on processor {}. {disturbed}\n\n{}.\n",
            self.date,
            self.processor,
            self.processors,
            self.memory_gib,
            self.kernel,
            self.pinned.server,
            self.pinned.load,
            versions.join("; ")
        )
    }
}

/// The day of a number of days since 1970 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn date(days: u64) -> String {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

fn times() -> Result<Times, Failure> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let first = text.lines().next().unwrap_or_default();
    // user, nice, system, idle, iowait, irq, softirq, steal; what guests took is in user already.
    let ticks: Vec<u64> =
        first.split_whitespace().skip(1).take(8).filter_map(|field| field.parse().ok()).collect();
    Ok(Times { all: ticks.iter().sum(), stolen: ticks.get(7).copied().unwrap_or(0) })
}

/// Ticks that a process has had, on behalf of all its threads, also of those that are gone. The kernel splits a sum of
/// nanoseconds into user's and system's, so the sum is exact to two ticks.
pub(super) fn ticks_of(process: u32) -> Result<u64, Failure> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    parse_stat(&text).map(|(_, ticks)| ticks).ok_or_else(|| format!("/proc/{process}/stat: {text}").into())
}

fn parse_stat(text: &str) -> Option<(&str, u64)> {
    // The name may hold anything, also brackets.
    let (name, rest) = text.split_once('(')?.1.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((name, user + system))
}

/// Ticks a second.
pub(super) fn tick_rate() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

/// Other processes that disturb, those of one name together, found by watching for a moment.
fn busy() -> Result<Vec<String>, Failure> {
    let before = all_ticks()?;
    let ticks_before = times()?.all;
    std::thread::sleep(WATCH);
    let after = all_ticks()?;
    let processors = std::fs::read_to_string("/proc/stat")?
        .lines()
        .filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "))
        .count()
        .max(1) as f64;
    let passed = (times()?.all.saturating_sub(ticks_before).max(1)) as f64 / processors;
    let mut shares: BTreeMap<String, (u32, f64)> = BTreeMap::new();
    for (id, (name, ticks)) in after {
        let had = before.get(&id).map_or(0, |(_, ticks)| *ticks);
        let percent = 100.0 * ticks.saturating_sub(had) as f64 / passed;
        if id != std::process::id() && percent > 0.0 {
            let share = shares.entry(name).or_default();
            *share = (share.0 + 1, share.1 + percent);
        }
    }
    Ok(shares
        .into_iter()
        .filter(|(_, (_, percent))| *percent >= BUSY_PERCENT)
        .map(|(name, (count, percent))| format!("{count} x {name} at {percent:.0}% of a processor"))
        .collect())
}

fn all_ticks() -> Result<BTreeMap<u32, (String, u64)>, Failure> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process may end at any moment.
        if let Ok(text) = std::fs::read_to_string(format!("/proc/{id}/stat"))
            && let Some((name, ticks)) = parse_stat(&text)
        {
            found.insert(id, (name.to_owned(), ticks));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(11_016), "2000-02-29");
        assert_eq!(date(20_777), "2026-11-20");
    }

    #[test]
    fn a_process_has_a_name_and_ticks() {
        let text = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 7 7 20 0 1 0 100 1000 10";
        assert_eq!(parse_stat(text), Some(("a (b) c", 300)));
        assert_eq!(parse_stat("42 (a) S 1"), None);
        assert!(ticks_of(std::process::id()).is_ok());
    }

    #[test]
    fn processors_are_those_that_may_be_used() {
        let chosen = Processors::choose(None, None).unwrap();
        assert_eq!(Processors::choose(Some(chosen.server), Some(chosen.load)).unwrap(), chosen);
        assert!(Processors::choose(Some(CpuSet::MAX_CPU), None).is_err());
    }
}
