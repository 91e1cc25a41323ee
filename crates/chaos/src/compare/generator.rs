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

/// What one run says with its percentiles.
#[derive(Clone, Copy, Debug, Serialize, PartialEq)]
pub(super) struct Tail {
    #[serde(flatten)]
    pub figures: Figures,
    /// Of the first percentile from 99.9% on that it shows: 99.902%.
    pub p999_ms: f64,
}

impl Tail {
    /// Reads what is printed without `--csv`: percentiles line by line, then a summary of throughput and latency.
    pub(super) fn parse(text: &str) -> Option<Tail> {
        let mut lines = text.split(['\n', '\r']).map(str::trim);
        let p999_ms = lines
            .by_ref()
            .skip_while(|line| !line.starts_with("Latency by percentile"))
            .skip(1)
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split_once("% <= "))
            .filter_map(|(percentile, rest)| {
                Some((percentile.parse::<f64>().ok()?, rest.split_once(' ')?.0.parse::<f64>().ok()?))
            })
            .find(|(percentile, _)| *percentile >= 99.9)?
            .1;
        let per_s = lines.by_ref().find_map(|line| line.strip_prefix("throughput summary: "))?;
        let mut lines = lines.skip_while(|line| !line.starts_with("latency summary")).skip(1);
        let names: Vec<&str> = lines.next()?.split_whitespace().collect();
        let own: Vec<&str> = lines.next()?.split_whitespace().collect();
        let number =
            |name: &str| own.get(names.iter().position(|other| *other == name)?)?.parse::<f64>().ok();
        let per_s = per_s.split_once(' ')?.0.parse::<f64>().ok().filter(|number| number.is_finite())?;
        let figures =
            Figures { per_s, p50_ms: number("p50")?, p99_ms: number("p99")?, max_ms: number("max")? };
        Some(Tail { figures, p999_ms })
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
        let text = self.output(port, &["--csv"])?;
        Figures::parse(&text, self.command).ok_or_else(|| self.unread(&text))
    }

    /// The same, with the percentiles that the short form leaves out.
    pub(super) fn run_with_tail(&self, port: u16) -> Result<Tail, Failure> {
        let text = self.output(port, &[])?;
        Tail::parse(&text).ok_or_else(|| self.unread(&text))
    }

    fn unread(&self, text: &str) -> Failure {
        format!("{} says: {text}", self.program).into()
    }

    fn output(&self, port: u16, form: &[&str]) -> Result<String, Failure> {
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
        generator.args(["-t", &self.command.to_lowercase()]).args(form).stdin(Stdio::null());
        crate::processes::tie(&mut generator, None);
        let output = generator.output()?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text += &String::from_utf8_lossy(&output.stderr);
        Ok(text)
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

    #[test]
    fn what_it_prints_at_length_is_read() {
        let text = "SET: rps=0.0 (overall: 0.0)\r====== SET ======\n  100000 requests completed in 0.22 seconds\n\n\
            Latency by percentile distribution:\n0.000% <= 0.391 milliseconds (cumulative count 16)\n\
            99.805% <= 32.799 milliseconds (cumulative count 99808)\n99.902% <= 32.863 milliseconds (cumulative count 99904)\n\
            100.000% <= 32.959 milliseconds (cumulative count 100000)\n\nCumulative distribution of latencies:\n\
            99.950% <= 40.103 milliseconds (cumulative count 0)\n\nSummary:\n\
            \x20 throughput summary: 588235.31 requests per second\n  latency summary (msec):\n\
            \x20         avg       min       p50       p95       p99       max\n\
            \x20       1.134     0.304     1.031     1.767     3.047    32.959\n";
        let figures = Figures { per_s: 588_235.31, p50_ms: 1.031, p99_ms: 3.047, max_ms: 32.959 };
        assert_eq!(Tail::parse(text), Some(Tail { figures, p999_ms: 32.863 }));
        assert_eq!(Tail::parse(&text.replace("588235.31", "inf")), None);
        assert_eq!(Tail::parse("Could not connect"), None);
        // Everything was over earlier.
        let short = text.replace("99.902%", "99.302%");
        assert_eq!(Tail::parse(&short).map(|tail| tail.p999_ms), Some(32.959));
    }
}
