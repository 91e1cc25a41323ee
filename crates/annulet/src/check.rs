//! `annulet check`: reads a stopped node's data directory to its last byte, and says what is torn, damaged or missing.

use crate::{FAILED, Failure, print};
use clap::ArgMatches;
use comfy_table::{CellAlignment, Table, presets};
use node::look::{ControlLook, Finding, Severity, ShardLook};
use serde_json::{Value, json};
use server::look::{DataLook, LookError, NodeFiles, data_directories};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use types::{NodeId, ShardId};

/// Reading that takes longer than this is shown, and again each time.
const SHOWN_EVERY: Duration = Duration::from_secs(1);

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    const { assert!(FAILED == 2, "the help of `check` says so") };
    let path = matches.get_one::<PathBuf>("dir").expect("clap requires it");
    let directories = data_directories(path)?;
    let mut reports = Vec::new();
    for directory in &directories {
        match look(directory) {
            Ok(report) => reports.push(report),
            // Of several nodes the others are still worth a look.
            Err(error) if directories.len() > 1 => reports.push(Report::of_error(directory, &error)),
            Err(error) => return Err(error.into()),
        }
    }
    let worst = reports.iter().filter_map(Report::worst).max();
    let text = if matches.get_flag("json") { format!("{}\n", as_json(&reports)) } else { as_text(&reports) };
    print(&text)?;
    Ok(match worst {
        None | Some(Severity::Harmless) => ExitCode::SUCCESS,
        Some(Severity::Damaged) => ExitCode::from(1),
        Some(Severity::Unreadable) => ExitCode::from(FAILED),
    })
}

/// What a node's data directory holds.
#[derive(Default)]
struct Report {
    path: PathBuf,
    node: Option<NodeId>,
    data: Option<DataLook>,
    control: ControlLook,
    shards: Vec<(ShardId, ShardLook)>,
    /// What is not as it should be, also in the shards.
    findings: Vec<Finding>,
}

impl Report {
    fn of_error(path: &Path, error: &LookError) -> Report {
        let finding = Finding::new(Severity::Unreadable, path, error.to_string());
        Report { path: path.to_owned(), findings: vec![finding], ..Report::default() }
    }

    fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

fn look(directory: &Path) -> Result<Report, LookError> {
    let files = NodeFiles::open(directory)?;
    let control = files.look_at_control();
    let mut findings = files.findings.clone();
    findings.extend(control.findings.iter().cloned());
    let mut progress = Progress::new(&files);
    let mut shards = Vec::new();
    // One after the other: a shard's copies are as large as its tables.
    for &shard in &files.shards {
        let look = files.look_at_shard(shard, &mut |bytes| progress.count(bytes));
        findings.extend(look.findings.iter().cloned());
        shards.push((shard, look));
    }
    Ok(Report { path: directory.to_owned(), node: files.node, data: files.data, control, shards, findings })
}

/// Tells on standard error how far a long reading is.
struct Progress {
    path: PathBuf,
    total: u64,
    done: u64,
    began: Instant,
    shown: Instant,
}

impl Progress {
    fn new(files: &NodeFiles) -> Progress {
        let total = files.shards.iter().map(|&shard| files.bytes_of(shard)).sum();
        let now = Instant::now();
        Progress { path: files.path().to_owned(), total, done: 0, began: now, shown: now }
    }

    fn count(&mut self, bytes: u64) {
        self.done += bytes;
        if self.shown.elapsed() < SHOWN_EVERY {
            return;
        }
        self.shown = Instant::now();
        let line = progress_line(self.done, self.total, self.began.elapsed());
        eprintln!("reading {}: {line}", self.path.display());
    }
}

fn progress_line(done: u64, total: u64, took: Duration) -> String {
    let percent = (done.saturating_mul(100)).checked_div(total).unwrap_or(100).min(100);
    let left = took.as_secs_f64() * total.saturating_sub(done) as f64 / done.max(1) as f64;
    format!("{percent} % of {} MiB, about {left:.0} s left", total >> 20)
}

fn as_text(reports: &[Report]) -> String {
    let mut text = String::new();
    for report in reports {
        text += &render(report);
        text.push('\n');
    }
    let wrong: Vec<&Finding> = reports
        .iter()
        .flat_map(|report| &report.findings)
        .filter(|finding| finding.severity > Severity::Harmless)
        .collect();
    match wrong[..] {
        [] => text += "ok\n",
        [one] => text += &format!("wrong: {}\n", one.text),
        _ => text += &format!("wrong: {} things, each marked with ! above\n", wrong.len()),
    }
    text
}

fn render(report: &Report) -> String {
    let node = report.node.map_or("a node".to_owned(), |node| format!("node {node}"));
    let mut text = format!("{node} in {}\n", report.path.display());
    if let Some(frames) = report.control.frames {
        text += &format!("control.journal: {frames} frames");
        if let Some(incarnation) = report.control.incarnation {
            text += &format!(", incarnation {incarnation}");
        }
        text.push('\n');
    }
    match report.data {
        Some(DataLook { clean: true, .. }) => text += "the node stopped in order\n",
        Some(DataLook { clean: false, .. }) => text += "the node was killed, or its machine stopped\n",
        None if report.shards.is_empty() && report.node.is_none() => text += "no logs are on disk\n",
        None => {}
    }
    if !report.shards.is_empty() {
        text += &format!("\n{}\n", table(&report.shards));
    }
    if !report.findings.is_empty() {
        text.push('\n');
    }
    for finding in &report.findings {
        let mark = if finding.severity == Severity::Harmless { '-' } else { '!' };
        let shard = finding.shard.map_or(String::new(), |shard| format!("shard {shard}: "));
        text += &format!("{mark} {shard}{}\n", finding.text);
    }
    text
}

fn table(shards: &[(ShardId, ShardLook)]) -> Table {
    const HEADER: [&str; 10] = [
        "shard",
        "segments",
        "bytes",
        "batches",
        "entries",
        "snapshots",
        "bytes of these",
        "copies",
        "keys",
        "tail",
    ];
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(HEADER);
    for (shard, look) in shards {
        let numbers = [
            u64::from(shard.0),
            look.segments,
            look.log_bytes,
            look.batches,
            look.entries,
            look.snapshots,
            look.snapshot_bytes,
            look.copies,
            look.keys,
            look.tail,
        ];
        table.add_row(numbers.map(|number| number.to_string()));
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn as_json(reports: &[Report]) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "severity": match finding.severity {
                Severity::Harmless => "harmless",
                Severity::Damaged => "damaged",
                Severity::Unreadable => "unreadable",
            },
            "shard": finding.shard.map(|shard| shard.0),
            "partition": finding.partition.map(|partition| partition.0),
            "path": finding.path.as_ref().map(|path| path.display().to_string()),
            "offset": finding.offset,
            "text": finding.text,
        })
    };
    let shard = |(shard, look): &(ShardId, ShardLook)| {
        json!({
            "shard": shard.0,
            "segments": look.segments,
            "log_bytes": look.log_bytes,
            "batches": look.batches,
            "entries": look.entries,
            "snapshots": look.snapshots,
            "snapshot_bytes": look.snapshot_bytes,
            "copies": look.copies,
            "keys": look.keys,
            "tail": look.tail,
        })
    };
    let node = |report: &Report| {
        json!({
            "path": report.path.display().to_string(),
            "node": report.node.map(|node| node.0),
            "clean": report.data.map(|data| data.clean),
            "control": {
                "frames": report.control.frames,
                "incarnation": report.control.incarnation.map(|incarnation| incarnation.0),
            },
            "shards": report.shards.iter().map(shard).collect::<Vec<_>>(),
            "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        })
    };
    let ok = reports.iter().filter_map(Report::worst).all(|worst| worst == Severity::Harmless);
    json!({ "ok": ok, "nodes": reports.iter().map(node).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(severity: Severity) -> Report {
        let mut finding = Finding::new(severity, Path::new("d/shard-0/log-0"), "it is torn".to_owned());
        finding.shard = Some(ShardId(0));
        let look = ShardLook { segments: 1, keys: 77, ..ShardLook::default() };
        let (path, shards) = ("d".into(), vec![(ShardId(0), look)]);
        Report { path, node: Some(NodeId(3)), shards, findings: vec![finding], ..Report::default() }
    }

    #[test]
    fn the_last_line_says_whether_all_is_well() {
        let text = as_text(&[report(Severity::Harmless)]);
        assert!(text.starts_with("node 3 in d\n") && text.contains("77"), "{text}");
        assert!(text.contains("\n- shard 0: it is torn\n") && text.ends_with("\nok\n"), "{text}");
        let text = as_text(&[report(Severity::Damaged)]);
        assert!(text.contains("\n! shard 0: it is torn\n"), "{text}");
        assert!(text.ends_with("\nwrong: it is torn\n"), "{text}");
        let text =
            as_text(&[report(Severity::Harmless), report(Severity::Damaged), report(Severity::Unreadable)]);
        assert!(text.ends_with("\nwrong: 2 things, each marked with ! above\n"), "{text}");
    }

    #[test]
    fn programs_read_the_same() {
        let value = as_json(&[report(Severity::Damaged)]);
        assert_eq!(value["ok"], false);
        assert_eq!(value["nodes"][0]["shards"][0]["keys"], 77);
        assert_eq!(value["nodes"][0]["findings"][0]["severity"], "damaged");
        assert_eq!(as_json(&[report(Severity::Harmless)])["ok"], true);
    }

    #[test]
    fn progress_has_an_end() {
        assert_eq!(
            progress_line(25 << 20, 100 << 20, Duration::from_secs(2)),
            "25 % of 100 MiB, about 6 s left"
        );
        assert_eq!(progress_line(0, 0, Duration::ZERO), "100 % of 0 MiB, about 0 s left");
    }
}
