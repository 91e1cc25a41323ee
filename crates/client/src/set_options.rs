//! What a `SET` may depend on, and how long its value lasts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Conditions and lifetime of [`Client::set_with`](crate::Client::set_with). Without any, the value is stored whatever was there,
/// and lasts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetOptions {
    condition: Condition,
    lifetime: Lifetime,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Condition {
    #[default]
    Always,
    Absent,
    Present,
    Equal(Vec<u8>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Lifetime {
    #[default]
    Forever,
    Kept,
    /// Milliseconds from now.
    After(u128),
    /// Unix milliseconds.
    At(u128),
}

impl SetOptions {
    /// No condition, and no end.
    pub fn new() -> SetOptions {
        SetOptions::default()
    }

    /// Stores only where the key is absent (`NX`).
    #[must_use]
    pub fn if_absent(mut self) -> SetOptions {
        self.condition = Condition::Absent;
        self
    }

    /// Stores only where the key has a value (`XX`).
    #[must_use]
    pub fn if_present(mut self) -> SetOptions {
        self.condition = Condition::Present;
        self
    }

    /// Stores only where the key has just this value (`IFEQ`): compare and set.
    #[must_use]
    pub fn if_equal(mut self, value: impl Into<Vec<u8>>) -> SetOptions {
        self.condition = Condition::Equal(value.into());
        self
    }

    /// The value lasts for so long, to the millisecond.
    #[must_use]
    pub fn expire_after(mut self, lifetime: Duration) -> SetOptions {
        self.lifetime = Lifetime::After(lifetime.as_millis());
        self
    }

    /// The value lasts until then, to the millisecond, on the cluster's clock. A time in the past removes the key.
    #[must_use]
    pub fn expire_at(mut self, end: SystemTime) -> SetOptions {
        // 0 is no valid time; 1 is as much in the past.
        let ms = end.duration_since(UNIX_EPOCH).map_or(1, |since| since.as_millis().max(1));
        self.lifetime = Lifetime::At(ms);
        self
    }

    /// The value lasts as long as the one before would have (`KEEPTTL`).
    #[must_use]
    pub fn keep_ttl(mut self) -> SetOptions {
        self.lifetime = Lifetime::Kept;
        self
    }

    /// The words that follow key and value.
    pub(crate) fn words(&self) -> Vec<Vec<u8>> {
        let word = |text: &str| text.as_bytes().to_vec();
        let mut words = match &self.condition {
            Condition::Always => vec![],
            Condition::Absent => vec![word("NX")],
            Condition::Present => vec![word("XX")],
            Condition::Equal(value) => vec![word("IFEQ"), value.clone()],
        };
        words.extend(match self.lifetime {
            Lifetime::Forever => vec![],
            Lifetime::Kept => vec![word("KEEPTTL")],
            Lifetime::After(ms) => vec![word("PX"), ms.to_string().into_bytes()],
            Lifetime::At(ms) => vec![word("PXAT"), ms.to_string().into_bytes()],
        });
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_the_words_of_set() {
        let words = |options: SetOptions| {
            options
                .words()
                .iter()
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(words(SetOptions::new()), "");
        assert_eq!(words(SetOptions::new().if_absent().expire_after(Duration::from_secs(2))), "NX PX 2000");
        assert_eq!(words(SetOptions::new().if_equal("x y").keep_ttl()), "IFEQ x y KEEPTTL");
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        assert_eq!(words(SetOptions::new().if_present().expire_at(at)), "XX PXAT 1700000000123");
        assert_eq!(words(SetOptions::new().expire_at(UNIX_EPOCH - Duration::from_secs(1))), "PXAT 1");
    }
}
