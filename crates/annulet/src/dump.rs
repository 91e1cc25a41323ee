//! `annulet dump`: what a stopped node's logs hold, one line an entry, or what its snapshots hold.
//!
//! It ends quietly where the reader has gone, and at a damaged place with a word on it.

use crate::quoting::quote;
use crate::{FAILED, Failure};
use clap::ArgMatches;
use node::look::{Finding, Severity, SnapshotPart};
use server::look::{NodeFiles, data_directories};
use std::fmt::Write as _;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use storage::effect::effects;
use storage::{Effect, LogEntry, Record, SnapshotEnd, Value, snapshot};
use types::{PartitionId, RequestId, ShardId, Version};

/// What is asked for.
struct Wanted {
    shard: Option<ShardId>,
    partition: Option<PartitionId>,
    from: u64,
    values: bool,
    snapshots: bool,
}

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    const { assert!(FAILED == 2, "the help of `dump` says so") };
    let path = matches.get_one::<PathBuf>("dir").expect("clap requires it");
    let wanted = Wanted {
        shard: matches.get_one::<u16>("shard").copied().map(ShardId),
        partition: matches.get_one::<u16>("partition").copied().map(PartitionId),
        from: matches.get_one::<u64>("from").copied().unwrap_or(0),
        values: matches.get_flag("values"),
        snapshots: matches.get_flag("snapshots"),
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let directories = data_directories(path)?;
    let (mut worst, mut known) = (Severity::Harmless, false);
    for directory in &directories {
        let files = NodeFiles::open(directory)?;
        known |= wanted.shard.is_none_or(|shard| files.shards.contains(&shard));
        let heading = directories.len() > 1;
        match dump(&files, &wanted, heading, &mut out) {
            Ok(findings) => {
                for finding in findings {
                    eprintln!("annulet: {}", finding.text);
                    worst = worst.max(finding.severity);
                }
            }
            // It has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(shard) = wanted.shard.filter(|_| !known) {
        return Err(format!("{} has no shard {shard}; `annulet check` lists them", path.display()).into());
    }
    Ok(match worst {
        Severity::Harmless => ExitCode::SUCCESS,
        Severity::Damaged => ExitCode::from(1),
        Severity::Unreadable => ExitCode::from(FAILED),
    })
}

/// Writes what is wanted of a node, and returns what was in the way.
fn dump(files: &NodeFiles, wanted: &Wanted, heading: bool, out: &mut impl Write) -> io::Result<Vec<Finding>> {
    if heading {
        writeln!(out, "# {}", files.path().display())?;
    }
    let mut findings = Vec::new();
    for &shard in files.shards.iter().filter(|&&shard| wanted.shard.is_none_or(|wanted| wanted == shard)) {
        let mut written = Ok(());
        let mut line = String::new();
        let mut put = |line: &mut String, out: &mut dyn Write| {
            line.push('\n');
            written = out.write_all(line.as_bytes());
            line.clear();
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        if wanted.snapshots {
            let found = files.walk_snapshots(shard, wanted.partition, &mut |partition, part| {
                let _ = write!(line, "shard {shard} snapshot partition {partition} ");
                put_part(&mut line, part, wanted.values);
                put(&mut line, out)
            });
            findings.extend(found);
        } else {
            let walked = files.walk_log(shard, wanted.from, &mut |offset, entry| {
                if wanted.partition.is_some_and(|partition| partition != entry.partition()) {
                    return ControlFlow::Continue(());
                }
                let _ = write!(line, "{offset} shard {shard} ");
                put_entry(&mut line, &entry, wanted.values);
                put(&mut line, out)
            });
            findings.extend(walked.err().map(|finding| *finding));
        }
        written?;
        // Before a word on standard error about what comes next.
        out.flush()?;
    }
    Ok(findings)
}

fn put_entry(line: &mut String, entry: &LogEntry, values: bool) {
    let partition = entry.partition();
    let _ = match entry {
        LogEntry::Record { commit, record, .. } => {
            let _ = write!(line, "record partition {partition} ");
            put_record(line, record, commit.0, values);
            Ok(())
        }
        LogEntry::Truncate { after, .. } => write!(line, "truncate partition {partition} after lsn {after}"),
        LogEntry::Wipe { .. } => write!(line, "wipe partition {partition}"),
        LogEntry::Chunk { payload, .. } => {
            let bytes = payload.len();
            match snapshot::show_chunk(payload, &mut |_| {}) {
                Ok(count) => write!(line, "chunk partition {partition} {bytes} bytes, {count} entries"),
                Err(corrupt) => write!(line, "chunk partition {partition} {bytes} bytes, {corrupt}"),
            }
        }
        LogEntry::Session { reign, session, next, .. } => {
            write!(line, "session partition {partition} reign {reign} session {session} from chunk {next} on")
        }
        LogEntry::Filled { end, .. } => {
            let _ = write!(line, "filled partition {partition} ");
            put_end(line, end);
            Ok(())
        }
    };
}

fn put_record(line: &mut String, record: &Record, commit: u64, values: bool) {
    let position = record.position;
    let _ = write!(line, "{}/{}", position.epoch, position.lsn);
    if record.prev_epoch != position.epoch {
        let _ = write!(line, " after {}/{}", record.prev_epoch, record.prev().lsn);
    }
    let _ = write!(line, " time {} commit {commit}", time(record.time_ms));
    if let Some((id, reply)) = &record.request {
        let _ = write!(line, " request {} reply {}", request(id), quote(reply));
    }
    line.push_str(": ");
    if record.body.is_empty() {
        line.push_str("no change");
    }
    for (at, effect) in effects(&record.body).enumerate() {
        if at > 0 {
            line.push_str("; ");
        }
        match effect {
            Ok(effect) => put_effect(line, &effect, values),
            Err(corrupt) => {
                let _ = write!(line, "{corrupt}");
            }
        }
    }
}

fn put_effect(line: &mut String, effect: &Effect<'_>, values: bool) {
    let _ = match *effect {
        Effect::Put { key, value: Value::String(value), expire_at_ms, .. } => {
            let _ = match values {
                true => write!(line, "PUT {} {}", quote(key), quote(value)),
                false => write!(line, "PUT {} {} bytes", quote(key), value.len()),
            };
            expire_at_ms.map_or(Ok(()), |at_ms| write!(line, " expires {}", time(at_ms)))
        }
        Effect::Remove { key, .. } => write!(line, "DEL {}", quote(key)),
        Effect::Expire { key, expire_at_ms, .. } => match expire_at_ms {
            Some(at_ms) => write!(line, "EXPIRE {} at {}", quote(key), time(at_ms)),
            None => write!(line, "EXPIRE {} never", quote(key)),
        },
        Effect::Clear { .. } => write!(line, "CLEAR"),
    };
    let _ = write!(line, " version {}", version(effect.version()));
}

fn put_part(line: &mut String, part: SnapshotPart<'_>, values: bool) {
    let _ = match part {
        SnapshotPart::Header(header) => {
            write!(line, "begins: {} bytes, the log goes on from {}", header.bytes, header.log_offset)
        }
        SnapshotPart::Entry(effect) => {
            put_effect(line, &effect, values);
            Ok(())
        }
        SnapshotPart::End(loaded) => {
            let _ = write!(line, "ends: {} entries, ", loaded.entries);
            put_end(line, &loaded.end);
            Ok(())
        }
    };
}

fn put_end(line: &mut String, end: &SnapshotEnd) {
    let _ = write!(
        line,
        "base {}/{} complete at lsn {} time {} version {}, {} requests",
        end.base.epoch,
        end.base.lsn,
        end.complete_at,
        time(end.time_ms),
        version(end.version),
        end.requests.len()
    );
}

/// Who forwarded it: node, incarnation, shard, number.
fn request(id: &RequestId) -> String {
    format!("{}/{}/{}/{}", id.node, id.incarnation, id.shard, id.sequence)
}

/// Milliseconds and counter.
fn version(version: Version) -> String {
    format!("{}.{}", version.millis(), version.0 & 0xffff)
}

/// Unix milliseconds as ISO 8601, in UTC. Beyond the year 9999 the number.
fn time(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    // Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days. Years begin in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    if year > 9999 {
        return format!("{unix_ms} ms");
    }
    let (hour, minute, second, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{Epoch, Incarnation, Lsn, NodeId, Position};

    #[test]
    fn times_are_readable() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(time(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(time(253_402_300_799_999), "9999-12-31T23:59:59.999Z");
        assert_eq!(time(253_402_300_800_000), "253402300800000 ms");
        assert_eq!(time(u64::MAX), "18446744073709551615 ms");
    }

    fn line_of(entry: &LogEntry, values: bool) -> String {
        let mut line = String::new();
        put_entry(&mut line, entry, values);
        line
    }

    #[test]
    fn an_entry_is_a_line() {
        let version = Version(1_700_000_000_123 << 16 | 5);
        let mut body = Vec::new();
        for effect in [
            Effect::Put { key: b"a\n", value: Value::String(b"xyz"), expire_at_ms: Some(0), version },
            Effect::Remove { key: b"b", version },
            Effect::Expire { key: b"c", expire_at_ms: None, version },
            Effect::Clear { version },
        ] {
            effect.encode(&mut body);
        }
        let id = RequestId { node: NodeId(1), incarnation: Incarnation(2), shard: ShardId(3), sequence: 4 };
        let record = Record {
            position: Position { epoch: Epoch(3), lsn: Lsn(9) },
            prev_epoch: Epoch(2),
            time_ms: 1,
            request: Some((id, b"+OK\r\n".as_slice().to_vec().into())),
            body: body.into(),
        };
        let partition = PartitionId(7);
        let entry = LogEntry::Record { partition, commit: Lsn(8), record: record.clone() };
        assert_eq!(
            line_of(&entry, false),
            "record partition 7 3/9 after 2/8 time 1970-01-01T00:00:00.001Z commit 8 request 1/2/3/4 reply \"+OK\\r\\n\": \
             PUT \"a\\n\" 3 bytes expires 1970-01-01T00:00:00.000Z version 1700000000123.5; \
             DEL \"b\" version 1700000000123.5; EXPIRE \"c\" never version 1700000000123.5; \
             CLEAR version 1700000000123.5"
        );
        assert!(line_of(&entry, true).contains("PUT \"a\\n\" \"xyz\" expires"));
        let opens = Record { body: Default::default(), request: None, prev_epoch: Epoch(3), ..record };
        assert_eq!(
            line_of(&LogEntry::Record { partition, commit: Lsn(8), record: opens }, false),
            "record partition 7 3/9 time 1970-01-01T00:00:00.001Z commit 8: no change"
        );
        assert_eq!(
            line_of(&LogEntry::Truncate { partition, after: Lsn(4) }, false),
            "truncate partition 7 after lsn 4"
        );
        assert_eq!(line_of(&LogEntry::Wipe { partition }, false), "wipe partition 7");
        let session = LogEntry::Session { partition, reign: Epoch(3), session: 2, next: 6 };
        assert_eq!(line_of(&session, false), "session partition 7 reign 3 session 2 from chunk 6 on");
    }
}
