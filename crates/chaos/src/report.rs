//! What a run found: for people while it goes on, and at its end for people or programs.

use serde::Serialize;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// How many violations are shown.
const SHOWN: usize = 20;

/// The broken promises of a run.
#[derive(Default)]
pub(crate) struct Report {
    violations: Vec<String>,
}

/// How long partitions stood still.
#[derive(Debug, Serialize)]
pub(crate) struct Gaps {
    pub worst_ms: u64,
    pub median_ms: u64,
}

impl Gaps {
    pub(crate) fn of(mut gaps: Vec<Duration>) -> Gaps {
        gaps.sort_unstable();
        let at = |index: usize| gaps.get(index).map_or(0, |gap| gap.as_millis() as u64);
        Gaps { worst_ms: at(gaps.len().saturating_sub(1)), median_ms: at(gaps.len() / 2) }
    }
}

impl Report {
    /// Notes a broken promise.
    pub(crate) fn violation(&mut self, text: String) {
        if self.violations.len() < SHOWN {
            eprintln!("VIOLATION: {text}");
        }
        self.violations.push(text);
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// Prints the end of a run: `text` for people, or `result` with the violations. `dir` is where the nodes' logs stay after a
    /// violation.
    pub(crate) fn end<T: Serialize>(
        &self,
        json: bool,
        result: &T,
        text: &str,
        dir: Option<&Path>,
    ) -> ExitCode {
        if json {
            let shown = &self.violations[..self.violations.len().min(SHOWN)];
            let whole = serde_json::json!({
                "ok": self.is_clean(), "violations": self.violations.len(), "examples": shown, "result": result,
            });
            println!("{whole}");
        } else {
            println!("{text}");
            match self.violations.len() {
                0 => println!("no promise was broken"),
                count => println!("{count} VIOLATIONS, the first of them above"),
            }
        }
        if let Some(dir) = dir {
            eprintln!("the nodes' logs are in {}", dir.display());
        }
        if self.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(1) }
    }
}

/// Counted texts in one line.
pub(crate) fn counted(counts: &std::collections::BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return "none".to_owned();
    }
    counts.iter().map(|(text, count)| format!("{count} x \"{text}\"")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_have_a_worst_and_a_middle() {
        let gaps = Gaps::of([30, 10, 20].map(Duration::from_millis).to_vec());
        assert_eq!((gaps.worst_ms, gaps.median_ms), (30, 20));
        assert_eq!(Gaps::of(Vec::new()).worst_ms, 0);
    }
}
