//! How durations are counted: a histogram of fixed buckets, four to a power of two, from 1 µs to 67 s.
//!
//! A bucket holds what is longer than the bound before it and at most its own, so that the bounds are those of
//! Prometheus' `le`. Every bound is a whole number of 250 ns: 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4 µs and so on. A
//! bucket's bound is at most a quarter above what it holds.

/// A bound is a multiple of this.
const UNIT_NS: u64 = 250;
/// Powers of two from 1 µs to the last bound.
const POWERS: usize = 26;
/// Buckets with a bound: up to 1 µs, and four a power of two.
const BOUNDED: usize = 1 + 4 * POWERS;
/// All buckets; the last has no bound.
pub const BUCKETS: usize = BOUNDED + 1;

/// The bucket of a duration.
#[inline]
pub fn bucket_of(took_ns: u64) -> usize {
    let units = took_ns.div_ceil(UNIT_NS);
    if units <= 4 {
        return 0;
    }
    let last = units - 1;
    let power = last.ilog2() as usize;
    let quarter = (last >> (power - 2)) as usize & 3;
    ((power - 2) * 4 + quarter + 1).min(BOUNDED)
}

/// The longest duration that a bucket holds, in nanoseconds; none for the last.
pub fn bound_ns(bucket: usize) -> Option<u64> {
    match bucket {
        0 => Some(4 * UNIT_NS),
        1..BOUNDED => Some(UNIT_NS * ((5 + (bucket as u64 - 1) % 4) << ((bucket - 1) / 4))),
        _ => None,
    }
}

/// Durations, counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// How many each bucket holds.
    pub counts: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: vec![0; BUCKETS] }
    }
}

impl Histogram {
    /// How many durations were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How many were no longer than each power of two, from 1 µs on: bound in nanoseconds and count. What is longer than
    /// the last is in [`Histogram::total`] only.
    pub fn by_powers_of_two(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut sum = 0;
        self.counts.iter().enumerate().filter_map(move |(bucket, count)| {
            sum += count;
            bound_ns(bucket).filter(|_| bucket % 4 == 0).map(|bound| (bound, sum))
        })
    }

    /// A duration, in nanoseconds, that so large a part (0 to 1) did not exceed. 0 where nothing was counted.
    pub fn quantile_ns(&self, part: f64) -> u64 {
        let wanted = (self.total() as f64 * part).ceil().max(1.0) as u64;
        let mut sum = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            sum += count;
            if sum >= wanted {
                return bound_ns(bucket.min(BOUNDED - 1)).unwrap_or_default();
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_its_bounds_say() {
        let mut before = 0;
        for bucket in 0..BOUNDED {
            let bound = bound_ns(bucket).unwrap();
            assert!(bound > before);
            assert_eq!((bucket_of(before + 1), bucket_of(bound)), (bucket, bucket), "up to {bound}");
            before = bound;
        }
        assert_eq!(before, 1000 << POWERS);
        assert_eq!((bucket_of(before + 1), bucket_of(u64::MAX)), (BOUNDED, BOUNDED));
        assert_eq!((bucket_of(0), bound_ns(BOUNDED)), (0, None));
    }

    #[test]
    fn quantiles_and_powers() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile_ns(0.5), 0);
        for (took_us, count) in [(1, 90), (100, 9), (1_000_000_000, 1)] {
            histogram.counts[bucket_of(took_us * 1000)] += count;
        }
        assert_eq!(histogram.total(), 100);
        assert_eq!(histogram.quantile_ns(0.5), 1000);
        assert_eq!(histogram.quantile_ns(0.99), 112_000);
        assert_eq!(histogram.quantile_ns(1.0), 1000 << POWERS);
        let powers: Vec<(u64, u64)> = histogram.by_powers_of_two().collect();
        assert_eq!((powers[0], powers[6], powers[7]), ((1000, 90), (64_000, 90), (128_000, 99)));
        assert_eq!(powers.last(), Some(&(1000 << POWERS, 99)));
    }
}
