//! Things of one kind that happen to a cluster in a run, one after another: when each comes, and the chance that it draws from.
//!
//! Each has a number, and a stream of chance of its own, which follows from the seed and the number alone. So a run that leaves
//! some of them out ([`crate::keep`]) has the others as they were: at the same time, and of the same kind.

use history::Time;
use history::random::Random;

/// When things of one kind happen.
pub(crate) struct Occasions {
    seed: u64,
    /// The least and the most time between two. None: there are none.
    gap: Option<(Time, Time)>,
    /// When the last one came.
    last: Time,
    /// How many there have been.
    count: u64,
    times: Random,
}

impl Occasions {
    /// Those of a run: `seed` is for this kind of thing alone, and none comes before `first`.
    pub fn new(seed: u64, gap: Option<(Time, Time)>, first: Time) -> Occasions {
        Occasions { seed, gap, last: first, count: 0, times: Random::new(seed ^ 0x71e5_0000_0000_0000) }
    }

    /// Whether there are any.
    pub fn any(&self) -> bool {
        self.gap.is_some()
    }

    /// The next one: its number, from 1, and when it comes.
    pub fn next(&mut self) -> Option<(u64, Time)> {
        let (least, most) = self.gap?;
        self.count += 1;
        self.last += self.times.between(least, most);
        Some((self.count, self.last))
    }

    /// The chance that the one with this number draws from.
    pub fn stream(&self, number: u64) -> Random {
        Random::new(self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).fork()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_draws_does_not_depend_on_the_others() {
        let mut some = Occasions::new(7, Some((10, 200)), 1000);
        let mut again = Occasions::new(7, Some((10, 200)), 1000);
        let mut drawn = Vec::new();
        for _ in 0..5 {
            let next = some.next();
            let number = next.map_or(0, |(number, _)| number);
            // However much is drawn from the stream of each.
            let mut stream = some.stream(number);
            drawn.push(stream.draw());
            for _ in 0..number {
                stream.draw();
            }
            assert_eq!(again.next(), next);
        }
        let straight: Vec<u64> = (1..=5).map(|number| again.stream(number).draw()).collect();
        assert_eq!(straight, drawn);
        drawn.dedup();
        assert_eq!(drawn.len(), 5);
    }
}
