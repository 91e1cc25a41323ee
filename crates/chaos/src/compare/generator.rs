//! The outside program that makes the load and measures it: redis-benchmark, or another that prints the same CSV. None of ours
//! could be suspected less.

use crate::failure::Failure;
use serde::Serialize;
use std::process::{Command, Stdio};

/// What one run of it says.
#[derive(Clone, Copy, Debug, Serialize, PartialEq)]
pub(crate) struct Figures {
    pub per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Figures {
    /// Reads the line of `command` by the names in the first line:
    /// `"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"`.
    pub(crate) fn parse(text: &str, command: &str) -> Option<Figures> {
        let fields = |line: &str| -> Vec<String> {
            line.split(',').map(|field| field.trim().trim_matches('"').to_owned()).collect()
        };
        let names = text.lines().find(|line| line.starts_with("\"test\""))?;
        let names = fields(names);
        let own = text.lines().find(|line| line.starts_with(&format!("\"{command}\"")))?;
        let own = fields(own);
        let number = |name: &str| {
            let at = names.iter().position(|other| other == name)?;
            own.get(at)?.parse::<f64>().ok().filter(|number| number.is_finite())
        };
        Some(Figures {
            per_s: number("rps")?,
            p50_ms: number("p50_latency_ms")?,
            p99_ms: number("p99_latency_ms")?,
            max_ms: number("max_latency_ms")?,
        })
    }
}

/// One run to be made.
pub(super) struct Load<'a> {
    pub program: &'a str,
    pub command: &'a str,
    pub requests: u64,
    pub connections: u64,
    pub pipeline: u64,
    pub keys: u64,
    pub value_bytes: usize,
}

impl Load<'_> {
    /// Makes it, on the processor of this thread.
    pub(super) fn run(&self, port: u16) -> Result<Figures, Failure> {
        let mut generator = Command::new(self.program);
        for (flag, value) in [
            ("-p", u64::from(port)),
            ("-n", self.requests),
            ("-c", self.connections),
            ("-P", self.pipeline),
            ("-r", self.keys),
            ("-d", self.value_bytes as u64),
        ] {
            generator.arg(flag).arg(value.to_string());
        }
        generator.args(["-t", &self.command.to_lowercase(), "--csv"]).stdin(Stdio::null());
        crate::processes::tie(&mut generator, None);
        let output = generator.output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        Figures::parse(&text, self.command).ok_or_else(|| {
            format!("{} says: {text}{}", self.program, String::from_utf8_lossy(&output.stderr)).into()
        })
    }
}

/// What it calls itself.
pub(super) fn version(program: &str) -> Result<String, Failure> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().map_err(|error| {
        format!("cannot run {program}: {error}; install redis-tools, or name another with --generator")
    })?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_benchmark_prints_is_read() {
        let text = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
                    \"SET\",\"43478.26\",\"0.613\",\"0.160\",\"0.591\",\"0.807\",\"1.103\",\"2.447\"\n";
        let figures = Figures { per_s: 43478.26, p50_ms: 0.591, p99_ms: 1.103, max_ms: 2.447 };
        assert_eq!(Figures::parse(text, "SET"), Some(figures));
        assert_eq!(Figures::parse(text, "GET"), None);
        assert_eq!(Figures::parse(&text.replace("43478.26", "inf"), "SET"), None);
    }
}
