//! Stretches of time, and what is left of others without them.

use serde::Serialize;
use std::time::{Duration, Instant};

/// From when to when something lasted.
pub(super) type Span = (Instant, Instant);

/// Spans in order, none of which meets another.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Spans(Vec<Span>);

/// How many there were, and the longest.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Summary {
    pub are_known: bool,
    pub count: usize,
    pub longest_ms: f64,
    /// Whose the longest was, where that is known.
    pub whose: Option<String>,
}

impl Spans {
    /// Of spans in any order, which may overlap.
    pub(super) fn of(mut all: Vec<Span>) -> Spans {
        all.sort_unstable();
        let mut spans: Vec<Span> = Vec::new();
        for (start, end) in all {
            match spans.last_mut() {
                Some((_, last)) if start <= *last => *last = end.max(*last),
                _ => spans.push((start, end)),
            }
        }
        Spans(spans)
    }

    /// What is in either.
    pub(super) fn and(&self, other: &Spans) -> Spans {
        Spans::of(self.0.iter().chain(&other.0).copied().collect())
    }

    /// The longest of some spans, each less what of these lies in it.
    pub(super) fn longest_less(&self, of: &[Span]) -> Duration {
        let left = of.iter().map(|span| (span.1 - span.0).saturating_sub(self.within(*span)));
        left.max().unwrap_or_default()
    }

    fn within(&self, (from, to): Span) -> Duration {
        let first = self.0.partition_point(|(_, end)| *end <= from);
        let inside = self.0[first..].iter().take_while(|(start, _)| *start < to);
        inside.map(|(start, end)| (*end).min(to) - (*start).max(from)).sum()
    }

    /// Those that meet a span.
    pub(super) fn summary(&self, span: Span) -> Summary {
        let inside = || self.0.iter().filter(|(start, end)| *end > span.0 && *start < span.1);
        let longest = inside().map(|(start, end)| *end - *start).max().unwrap_or_default();
        Summary {
            are_known: true,
            count: inside().count(),
            longest_ms: longest.as_secs_f64() * 1e3,
            whose: None,
        }
    }
}

impl Summary {
    /// All of them together.
    pub(super) fn all<'a>(summaries: impl Iterator<Item = &'a Summary>) -> Summary {
        let none = Summary { are_known: true, ..Summary::default() };
        summaries.fold(none, |all, one| {
            let longest = if one.longest_ms > all.longest_ms { one } else { &all };
            Summary {
                are_known: all.are_known && one.are_known,
                count: all.count + one.count,
                longest_ms: longest.longest_ms,
                whose: longest.whose.clone(),
            }
        })
    }

    pub(super) fn text(&self) -> String {
        if !self.are_known {
            return "not known".to_owned();
        }
        let whose = self.whose.as_ref().map_or_else(String::new, |whose| format!(" ({whose})"));
        format!("{}, {:.1} ms{whose}", self.count, self.longest_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_off_is_taken_off_once() {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        let spans = Spans::of(vec![(at(30), at(40)), (at(10), at(14)), (at(20), at(21)), (at(12), at(13))]);
        let less = |from, to| spans.longest_less(&[(at(from), at(to))]).as_millis();
        assert_eq!([less(0, 10), less(0, 12), less(11, 13), less(12, 22), less(14, 20)], [10, 10, 0, 7, 6]);
        assert_eq!([less(0, 50), less(35, 36), less(40, 50)], [35, 0, 10]);
        assert_eq!(spans.longest_less(&[(at(0), at(3)), (at(30), at(41))]), Duration::from_millis(3));
        assert_eq!(spans.longest_less(&[]), Duration::ZERO);
        let summary = spans.summary((at(12), at(30)));
        assert_eq!((summary.are_known, summary.count, summary.longest_ms), (true, 2, 4.0));
        let both = spans.and(&Spans::of(vec![(at(13), at(18)), (at(21), at(22))]));
        assert_eq!(both, Spans::of(vec![(at(10), at(18)), (at(20), at(22)), (at(30), at(40))]));
    }

    #[test]
    fn the_longest_of_all_says_whose_it_was() {
        let one = |count, longest_ms, whose: &str| Summary {
            are_known: true,
            count,
            longest_ms,
            whose: Some(whose.to_owned()),
        };
        let all = Summary::all([one(2, 1.5, "a"), one(3, 3.25, "b"), one(1, 2.0, "c")].iter());
        assert_eq!((&all, all.text().as_str()), (&one(6, 3.25, "b"), "6, 3.2 ms (b)"));
        assert_eq!(Summary::all([one(2, 1.5, "a"), Summary::default()].iter()).text(), "not known");
        assert_eq!(Spans::default().summary((Instant::now(), Instant::now())).text(), "0, 0.0 ms");
    }
}
