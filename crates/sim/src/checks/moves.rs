//! A copy that was in sync stops being one of its partition's copies only when all that stay were in sync before (rule 11).
//!
//! Only maps that follow each other by one entry of the control plane's log tell this: after several, other things may have
//! happened since. They are nearly all, since the coordinator applies one entry before it makes the next.

use placement::ClusterMap;

/// How many copies went.
#[derive(Default)]
pub struct Moves {
    /// Those that were in sync.
    pub gone: usize,
}

impl Moves {
    /// Compares the newest map with the one before it.
    pub fn look(&mut self, before: &ClusterMap, after: &ClusterMap) -> Result<(), String> {
        if after.version != before.version + 1 {
            return Ok(());
        }
        for ((id, old), (_, new)) in before.each_partition().zip(after.each_partition()) {
            let gone = old.in_sync.iter().filter(|&node| !new.copies.contains(node));
            let gone: Vec<_> = gone.collect();
            let behind = new.copies.iter().find(|&node| !old.in_sync.contains(node));
            if let (Some(first), Some(behind)) = (gone.first(), behind) {
                return Err(format!(
                    "node {first} gave up its copy of partition {id} while node {behind}'s was not in sync: {old:?} became \
                     {new:?} in version {}",
                    after.version
                ));
            }
            self.gone += gone.len();
        }
        Ok(())
    }
}
