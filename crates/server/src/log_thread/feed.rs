//! What a shard hands to its log's thread, and how that thread is woken.

use node::SnapshotJob;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use storage::Rope;
use storage::lent::is_batch_enough;

/// A buffer that one large turn made longer than this is given back.
const BUFFER_BYTES_MAX: usize = 4 << 20;

/// The shard's end.
#[derive(Clone, Debug, Default)]
pub struct LogFeed(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// In order.
    items: Vec<Item>,
    /// A buffer to be used again.
    spare: Rope,
    /// There is something else to look at.
    nudged: bool,
    asleep: bool,
    stop: bool,
}

#[derive(Debug)]
pub(super) enum Item {
    /// Entries, up to those of a turn.
    Turn(u64, Rope),
    Job(SnapshotJob),
}

impl Item {
    pub fn bytes(&self) -> usize {
        match self {
            Item::Turn(_, bytes) => bytes.len(),
            Item::Job(_) => 0,
        }
    }
}

impl LogFeed {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nobody panics while holding it.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over the entries of a turn. They are put to those that wait, unless that would be too much for one write.
    pub fn push(&self, turn: u64, bytes: &mut Rope) {
        let mut state = self.lock();
        match state.items.last_mut() {
            // More in one write would serve nobody, and there is a largest one.
            Some(Item::Turn(last, waiting)) if !is_batch_enough(waiting.len() + bytes.len()) => {
                *last = turn;
                waiting.append(bytes);
            }
            _ => {
                let spare = std::mem::take(&mut state.spare);
                state.items.push(Item::Turn(turn, std::mem::replace(bytes, spare)));
            }
        }
        self.wake(state);
        bytes.clear();
        if bytes.capacity() > BUFFER_BYTES_MAX {
            *bytes = Rope::default();
        }
    }

    /// Hands over what has to be done about snapshots, after what was handed over before.
    pub fn push_jobs(&self, jobs: &mut Vec<SnapshotJob>) {
        let mut state = self.lock();
        state.items.extend(jobs.drain(..).map(Item::Job));
        self.wake(state);
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        if asleep {
            self.0.wake.notify_one();
        }
    }

    /// There is something to look at that came another way.
    pub(super) fn nudge(&self) {
        let mut state = self.lock();
        state.nudged = true;
        self.wake(state);
    }

    /// Takes what has come, and waits for it until `left` has passed; `None`: as long as it takes. False: no more comes, and all is
    /// taken.
    pub(super) fn take(&self, items: &mut Vec<Item>, mut left: impl FnMut() -> Option<Duration>) -> bool {
        let mut state = self.lock();
        while state.items.is_empty() && !state.nudged {
            if state.stop {
                return false;
            }
            state.asleep = true;
            state = match left() {
                None => self.0.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => break,
                Some(left) => self.0.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        (state.asleep, state.nudged) = (false, false);
        std::mem::swap(&mut state.items, items);
        true
    }

    /// A buffer that is written may be used again.
    pub(super) fn give_back(&self, mut bytes: Rope) {
        if bytes.capacity() <= BUFFER_BYTES_MAX {
            bytes.clear();
            self.lock().spare = bytes;
        }
    }

    /// Whether no more comes.
    pub(super) fn is_stopped(&self) -> bool {
        self.lock().stop
    }

    /// No more comes: the thread writes and syncs what it has, and ends.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.0.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use storage::Sink;

    /// A turn of so many bytes. All share one buffer.
    fn turn(whole: &Bytes, bytes: usize) -> Rope {
        let mut rope = Rope::default();
        rope.put(&whole.slice(..bytes));
        rope
    }

    #[test]
    fn turns_wait_together_up_to_what_one_write_is_to_have() {
        const MIB: usize = 1 << 20;
        let whole = Bytes::from(vec![7; 80 * MIB]);
        let feed = LogFeed::default();
        for (number, mib) in [1, 40, 20, 20, 80, 3, 61, 1, 1].into_iter().enumerate() {
            feed.push(number as u64 + 1, &mut turn(&whole, mib * MIB));
        }
        feed.push_jobs(&mut vec![SnapshotJob::Abandon]);
        feed.push(10, &mut turn(&whole, MIB));
        let mut items = Vec::new();
        assert!(feed.take(&mut items, || None));
        let taken: Vec<(u64, usize)> = items
            .iter()
            .map(|item| match item {
                Item::Turn(last, bytes) => (*last, bytes.len() / MIB),
                Item::Job(_) => (0, 0),
            })
            .collect();
        assert_eq!(taken, [(3, 61), (4, 20), (5, 80), (7, 64), (9, 2), (0, 0), (10, 1)]);
    }
}
