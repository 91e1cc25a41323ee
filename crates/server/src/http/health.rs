//! Whether a node is alive and whether it serves, from what its threads publish.

use node::Published;
use std::sync::atomic::Ordering;
use std::time::Duration;
use types::Instant;

/// A thread that has not ended a turn for this long does not move. Idle threads end one every few milliseconds.
const STILL: Duration = Duration::from_secs(5);

/// Whether every thread moves; else which does not.
pub fn health(published: &Published, now: Instant) -> Result<(), String> {
    let shards = published.shards().iter().enumerate();
    let shards =
        shards.map(|(at, shard)| (format!("shard {at}"), Instant(shard.stamp.load(Ordering::Relaxed))));
    let others = [
        ("the heart".to_owned(), published.heart_stamp()),
        ("the control plane".to_owned(), published.control_stamp()),
    ];
    let still = shards.chain(others).filter(|(_, stamp)| now.since(*stamp) > STILL);
    told(still.map(|(thread, stamp)| match stamp {
        Instant(0) => format!("{thread} has not begun"),
        stamp => format!("{thread} has not moved for {} s", now.since(stamp).as_secs()),
    }))
}

/// Whether the node serves all that it is to serve; else what it lacks.
pub fn readiness(published: &Published, now: Instant) -> Result<(), String> {
    health(published, now)?;
    let mut lacks = Vec::new();
    if published.acted_version() == 0 {
        lacks.push("no cluster map yet".to_owned());
    }
    if now >= published.lease_until() {
        lacks.push("no lease: a majority of the voters does not hear this node, or has not yet".to_owned());
    }
    let (primaries, serving) =
        (published.sum(|shard| &shard.primaries), published.sum(|shard| &shard.serving));
    if serving < primaries {
        lacks
            .push(format!("{serving} of the {primaries} partitions that this node is primary of are served"));
    }
    told(lacks.into_iter())
}

fn told(reasons: impl Iterator<Item = String>) -> Result<(), String> {
    let reasons: Vec<String> = reasons.collect();
    if reasons.is_empty() { Ok(()) } else { Err(reasons.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use node::ShardCounters;
    use types::ShardId;

    #[test]
    fn what_stands_still_is_named() {
        let published = Published::new(2);
        let now = Instant(100_000_000_000);
        published.stamp(ShardId(0), now);
        published.stamp(ShardId(1), Instant(now.0 - 7_500_000_000));
        let why = health(&published, now).unwrap_err();
        assert_eq!(
            why,
            "shard 1 has not moved for 7 s; the heart has not begun; the control plane has not begun"
        );
        assert_eq!(readiness(&published, now).unwrap_err(), why);
    }

    #[test]
    fn what_is_lacking_is_named() {
        let published = Published::new(1);
        // So early that no thread can be called still.
        let now = Instant(1);
        ShardCounters::set(&published.shards()[0].primaries, 3);
        ShardCounters::set(&published.shards()[0].serving, 2);
        assert_eq!(health(&published, now), Ok(()));
        let why = readiness(&published, now).unwrap_err();
        assert_eq!(
            why,
            "no cluster map yet; no lease: a majority of the voters does not hear this node, or has not yet; \
             2 of the 3 partitions that this node is primary of are served"
        );
    }
}
