//! What tells two states of a machine apart: all that its `Debug` shows, with moments as how long ago they are.

use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;
use types::Instant;

/// 128 bits of hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub u64, u64);

/// A hash of a text.
pub(crate) fn short(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

impl Digest {
    /// The digest of a machine of a model whose time is bounded: moments are what they are.
    pub(crate) fn of(machine: &impl Hash) -> Digest {
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, machine).hash(&mut hasher);
            hasher.finish()
        };
        Digest(half(0), half(1))
    }
}

/// The digest of a machine, by what its `Debug` shows. What is `most` ago, or longer, is the same to it; no moment (0) is.
pub(crate) fn digest(text: &str, now: Instant, most: Duration) -> Digest {
    let text = without_time(text, now, most);
    Digest(short(&text), short(&format!("{text}.")))
}

fn without_time(text: &str, now: Instant, most: Duration) -> String {
    const MOMENT: &str = "Instant(";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(MOMENT) {
        let (before, moment) = rest.split_at(at + MOMENT.len());
        out.push_str(before);
        let end = moment.find(')').unwrap_or(moment.len());
        let (number, after) = moment.split_at(end);
        match number.parse::<u64>() {
            Ok(0) | Err(_) => out.push_str(number),
            Ok(then) if then > now.0 => _ = write!(out, "in {}", then - now.0),
            Ok(then) => _ = write!(out, "{} ago", now.since(Instant(then)).min(most).as_nanos()),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_how_long_ago_a_moment_is_counts() {
        let of = |text: &str, now| without_time(text, Instant(now), Duration::from_nanos(100));
        assert_eq!(of("a Instant(50) b", 60), "a Instant(10 ago) b");
        assert_eq!(of("a Instant(50) b", 60), of("a Instant(150) b", 160));
        assert_eq!(of("Instant(50)", 150), of("Instant(50)", 1000), "long ago is long ago");
        assert_eq!(of("Instant(0)", 1000), "Instant(0)", "never is not long ago");
        assert_eq!(of("Instant(90)", 80), "Instant(in 10)");
        assert_ne!(
            digest("Instant(5) 1", Instant(6), Duration::from_secs(1)),
            digest("Instant(5) 2", Instant(6), Duration::from_secs(1))
        );
    }
}
