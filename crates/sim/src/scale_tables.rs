//! The tables of a run of [`crate::scale`]: one for each stretch, with a row for each size of the cluster.

use crate::network::MS;
use crate::scale::{Figures, KINDS, PHASES, Phase, Report};
use std::fmt::Write;

/// Markdown, as docs/scale.md shows it. `deaths` are the runs in which another node than the coordinator died, `heads` those in
/// which the coordinator did: of these only the failover is shown.
pub fn tables(deaths: &[Report], heads: &[Report]) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "| nodes | copies a node | bytes of the map |\n| ---: | ---: | ---: |");
    for report in deaths {
        let _ = writeln!(out, "| {} | {} | {} |", report.nodes, report.copies_lost, report.map_bytes);
    }
    for phase in PHASES {
        table(&mut out, title(phase), phase, deaths);
        if phase == Phase::Failover {
            table(&mut out, "The coordinator dies: until every partition is served", phase, heads);
        }
    }
    out
}

fn title(phase: Phase) -> &'static str {
    match phase {
        Phase::Forming => "From the start of all nodes until all is in sync and even",
        Phase::Rest => "A second of rest",
        Phase::Failover => "A node dies: until every partition is served",
        Phase::Replacing => "From there until its copies are made anew, in sync and even",
    }
}

fn table(out: &mut String, title: &str, phase: Phase, reports: &[Report]) {
    let _ = writeln!(out, "\n**{title}**\n");
    let kinds: Vec<String> = KINDS.iter().map(|kind| format!("{kind:?}").to_lowercase()).collect();
    let _ = writeln!(
        out,
        "| nodes | took, ms | {} | KiB | versions of the map | coordinator, CPU ms | its longest step, ms |",
        kinds.join(" | ")
    );
    let _ = writeln!(out, "|{}", " ---: |".repeat(6 + KINDS.len()));
    for report in reports {
        if let Some(figures) = report.phases.iter().find(|figures| figures.phase == phase) {
            let _ = writeln!(out, "| {} | {} |", report.nodes, cells(figures).join(" | "));
        }
    }
}

fn cells(figures: &Figures) -> Vec<String> {
    let count = |kind| figures.counts.get(kind).copied().unwrap_or_default();
    let ms = |ns: u64| format!("{:.2}", ns as f64 / 1e6);
    let mut cells = vec![(figures.took / MS).to_string()];
    cells.extend(KINDS.iter().map(|kind| count(kind).messages.to_string()));
    let bytes: u64 = figures.counts.values().map(|count| count.bytes).sum();
    cells.extend([(bytes >> 10).to_string(), figures.versions.to_string()]);
    cells.extend([ms(figures.coordinator.total_ns), ms(figures.coordinator.longest_ns)]);
    cells
}
