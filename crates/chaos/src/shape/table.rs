//! The outcome of `chaos shape` in words.

use super::clients::VALUE_BYTES;
use super::{Outcome, Row, Times};
use crate::failure::Failure;
use crate::report::counted;

/// A step in a line, while the run goes on.
pub(super) fn line(row: &Row) -> String {
    format!(
        "{}: {} ms, {} errors, {} unknown, {} back, reads {}, writes {}; {}",
        row.name,
        row.took_ms,
        row.errors,
        row.unknown,
        row.back,
        times(row.reads),
        times(row.writes),
        counted(&row.texts)
    )
}

fn times(times: Times) -> String {
    format!("{:.2} / {:.2} / {:.1}", times.p50_ms, times.p99_ms, times.longest_ms)
}

/// The section of docs/performance.md.
pub(super) fn text(outcome: &Outcome, copies: u16) -> Result<String, Failure> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let mut text = format!(
        "{} processors for all nodes and clients, Linux {}; load average of the last minute of the run: {}. Seed {}.\n\n\
         {} keys with values of {VALUE_BYTES} bytes, {copies} copies; {} requests a second, half of them writes, from {} plain and {} \
         cluster-aware clients. Times are p50 / p99 / longest, in ms. *Took*: until every copy is where it should be and in sync, and \
         the primaries are even. *Copies moved*: of the least that the new numbers of copies a node need.\n\n\
         | step | took, s | errors | unknown | reads gone back | reads | writes | copies moved | primaries a node |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        std::thread::available_parallelism()?,
        kernel.trim(),
        load.split(' ').next().unwrap_or("unknown"),
        outcome.seed,
        outcome.keys,
        outcome.rate,
        outcome.plain,
        outcome.cluster,
    );
    for row in &outcome.rows {
        let moved = match row.moved {
            None => String::new(),
            Some((moved, 0)) => format!("{moved} of 0"),
            Some((moved, least)) => format!("{moved} of {least} ({:.2}x)", moved as f64 / least as f64),
        };
        text += &format!(
            "| {} | {:.1} | {} | {} | {} | {} | {} | {moved} | {} to {} |\n",
            row.name,
            row.took_ms as f64 / 1e3,
            row.errors,
            row.unknown,
            row.back,
            times(row.reads),
            times(row.writes),
            row.primaries.0,
            row.primaries.1,
        );
    }
    text += &format!(
        "\n{} writes acknowledged, **{} lost**, {} reads gone back.\n",
        outcome.acknowledged, outcome.lost, outcome.back
    );
    Ok(text)
}
