//! What clients did and saw, by object: a few keys of one hash tag, which lie in one partition, with the history of all that was asked of
//! them.
//!
//! Objects retire, so that a run of any length is checked as it goes, in bounded memory: most after every fault, some only after several
//! of them or when much was asked of them. A retired object is read once more, after the cluster is whole again, so a write that is lost shows;
//! then its history is judged ([`history::linearizability`]) and dropped.
//!
//! Where anything is wrong the history is judged a second time, without the reads of while it went on: what is wrong even then was
//! lost (or done twice), what is not was a stale read. A loss that only such reads show, since another write came over it before the last
//! ones, counts as a stale read, too: the two look the same.

use history::{Answer, Call, History, Operation, Time, linearizability};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Keys of an object.
pub(super) const KEYS: usize = 3;
/// Objects in use at a time.
const OBJECTS: usize = 48;
/// One in so many outlasts a single fault.
const LASTING_EVERY: usize = 3;
/// Faults that such a one outlasts.
const LASTS_STEPS: u64 = 6;
/// Operations after which any object retires.
const OPERATIONS_MAX: usize = 2500;
/// Who reads retired objects.
pub(super) const READER: u32 = 0;

/// Keys of one hash tag and all that was asked of them.
pub(super) struct Object {
    number: u64,
    lasting: bool,
    /// The step it was made in.
    born: u64,
    /// Whether a wall clock jumped meanwhile: then a value may expire at any time.
    clocks_jumped: AtomicBool,
    /// The expiries so far.
    expiries: AtomicU32,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    history: History,
    /// By operation that is an expiry: the earliest time at which it may happen where clocks go right.
    due: Vec<(usize, Time)>,
    /// The value that somebody saw last, by key.
    seen: [Option<i64>; KEYS],
    /// From here on it is read only because it is retired.
    retired_at: Option<usize>,
}

/// What clients were told, counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub attempted: AtomicU64,
    pub acknowledged: AtomicU64,
    pub unknown: AtomicU64,
    pub refused: AtomicU64,
}

/// What is wrong with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// A write that was acknowledged is gone, or one was done twice, or one that was refused was done.
    Lost,
    /// A read showed what was not the newest. A write may have been lost and hidden by the next one.
    Stale,
    /// The search was given up.
    Undecided,
}

/// An object whose history no order explains.
pub(super) struct Verdict {
    pub wrong: Wrong,
    pub text: String,
}

/// Where the next operation goes, and what is to be judged.
pub(super) struct Board {
    began: Instant,
    objects: RwLock<Vec<Arc<Object>>>,
    next: AtomicU64,
    step: AtomicU64,
    pub counts: Counts,
}

impl Board {
    pub(super) fn new() -> Board {
        let board = Board {
            began: Instant::now(),
            objects: RwLock::new(Vec::new()),
            next: AtomicU64::new(0),
            step: AtomicU64::new(0),
            counts: Counts::default(),
        };
        let objects = (0..OBJECTS).map(|place| board.make(place)).collect();
        *board.objects.write().unwrap_or_else(PoisonError::into_inner) = objects;
        board
    }

    fn make(&self, place: usize) -> Arc<Object> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Arc::new(Object {
            number,
            lasting: place.is_multiple_of(LASTING_EVERY),
            born: self.step.load(Ordering::Relaxed),
            clocks_jumped: AtomicBool::new(false),
            expiries: AtomicU32::new(0),
            inner: Mutex::new(Inner::default()),
        })
    }

    /// Time on the clock of every history.
    pub(super) fn now(&self) -> Time {
        self.began.elapsed().as_nanos() as Time
    }

    /// The object at a place, any number.
    pub(super) fn object(&self, place: u64) -> Arc<Object> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects[(place % objects.len() as u64) as usize].clone()
    }

    /// How many are in use.
    pub(super) fn len(&self) -> u64 {
        OBJECTS as u64
    }

    /// A wall clock jumps: values of the objects in use may expire at any time.
    pub(super) fn clocks_jump(&self) {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.iter().for_each(|object| object.clocks_jumped.store(true, Ordering::Relaxed));
    }

    /// A step is over: takes the objects that retire out of use, and puts new ones in their place. `all` of them at the end.
    pub(super) fn retire(&self, all: bool) -> Vec<Arc<Object>> {
        let step = self.step.fetch_add(1, Ordering::Relaxed) + 1;
        let mut retired = Vec::new();
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        for (place, object) in objects.iter_mut().enumerate() {
            let is_old = !object.lasting || step >= object.born + LASTS_STEPS;
            if all || is_old || object.operations() > OPERATIONS_MAX {
                retired.push(std::mem::replace(object, self.make(place)));
            }
        }
        retired
    }
}

impl Object {
    /// The name of one of its keys.
    pub(super) fn key(&self, key: usize) -> String {
        format!("{{storm:{}}}:{key}", self.number)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn operations(&self) -> usize {
        self.inner().history.operations().len()
    }

    /// A number for a [`Call::SetExpiring`], by which its expiry knows it: no two have the same, or one could come early by the other's.
    pub(super) fn expiry_number(&self) -> u32 {
        self.expiries.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The value that somebody saw last.
    pub(super) fn seen(&self, key: usize) -> Option<i64> {
        self.inner().seen[key]
    }

    /// Somebody asks. `lives` is how long the values of [`Call::SetExpiring`] live.
    pub(super) fn invoke(
        &self,
        board: &Board,
        client: u32,
        calls: &[(usize, Call)],
        lives: Duration,
    ) -> usize {
        let mut inner = self.inner();
        let now = board.now();
        let operation = inner.history.invoke(client, calls, now);
        for (key, call) in calls {
            if let Call::SetExpiring(_, number) = call {
                let expiry = inner.history.invoke(client, &[(*key, Call::Expire(*number))], now);
                // Partitions' clocks are steered by a fiftieth at most.
                inner.due.push((expiry, now + lives.as_nanos() as Time * 9 / 10));
            }
        }
        operation
    }

    /// Each part was answered.
    pub(super) fn answered(&self, board: &Board, operation: usize, answers: &[Answer]) {
        let mut inner = self.inner();
        let now = board.now();
        inner.history.answered(operation, now, answers);
        let seen: Vec<(usize, Option<i64>)> = inner.history.operations()[operation]
            .parts
            .iter()
            .filter_map(|part| match (part.call, part.answer?) {
                (_, Answer::Value(value)) => Some((part.key, value)),
                (_, Answer::Counted(value)) => Some((part.key, Some(value))),
                (Call::Set(value) | Call::SetExpiring(value, _), Answer::Done) => {
                    Some((part.key, Some(value)))
                }
                _ => None,
            })
            .collect();
        for (key, value) in seen {
            inner.seen[key] = value;
        }
    }

    /// It was surely not done.
    pub(super) fn refused(&self, board: &Board, operation: usize) {
        let mut inner = self.inner();
        let now = board.now();
        inner.history.refused(operation, now);
    }

    /// What comes from here on is read because it is retired.
    pub(super) fn begin_last_reads(&self) {
        let mut inner = self.inner();
        inner.retired_at = Some(inner.history.operations().len());
    }

    /// Judges its history.
    pub(super) fn judge(&self) -> Option<Verdict> {
        let inner = self.inner();
        let mut operations = inner.history.operations().to_vec();
        if !self.clocks_jumped.load(Ordering::Relaxed) {
            for (expiry, due) in &inner.due {
                operations[*expiry].invoked = *due;
            }
        }
        let violation = linearizability::check(&operations).err()?;
        let retired_at = inner.retired_at.unwrap_or(operations.len());
        drop(inner);
        let is_read = |operation: &Operation| operation.parts.iter().all(|part| part.call == Call::Get);
        let without: Vec<Operation> = operations
            .iter()
            .enumerate()
            .filter(|(at, operation)| *at >= retired_at || !is_read(operation))
            .map(|(_, operation)| operation.clone())
            .collect();
        let wrong = match linearizability::check(&without) {
            _ if violation.undecided => Wrong::Undecided,
            Err(_) => Wrong::Lost,
            Ok(()) => Wrong::Stale,
        };
        Some(Verdict { wrong, text: violation.explain(|key| self.key(key)) })
    }

    /// Writes its history into a directory. Returns where.
    pub(super) fn keep(&self, dir: &Path) -> std::io::Result<PathBuf> {
        let path = dir.join(format!("history-{}", self.number));
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path)?);
        history::file::write(&mut file, self.inner().history.operations())?;
        file.flush()?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Duration = Duration::ZERO;

    struct Told {
        board: Board,
        object: Arc<Object>,
    }

    impl Told {
        fn new() -> Told {
            let board = Board::new();
            let object = board.object(1);
            Told { board, object }
        }

        fn say(&self, calls: &[(usize, Call)], answers: &[Answer]) -> &Told {
            let operation = self.object.invoke(&self.board, 1, calls, NONE);
            self.object.answered(&self.board, operation, answers);
            self
        }

        fn wrong(&self) -> Option<Wrong> {
            self.object.judge().map(|verdict| verdict.wrong)
        }
    }

    fn read(value: i64) -> [Answer; 1] {
        [Answer::Value(Some(value))]
    }

    #[test]
    fn a_lost_write_shows_in_the_last_reads() {
        for (last, wrong) in [(20, None), (10, Some(Wrong::Lost))] {
            let told = Told::new();
            told.say(&[(0, Call::Set(10))], &[Answer::Done]).say(&[(0, Call::Set(20))], &[Answer::Done]);
            told.object.begin_last_reads();
            told.say(&[(0, Call::Get)], &read(last));
            assert_eq!(told.wrong(), wrong);
        }
    }

    #[test]
    fn a_stale_read_is_told_from_a_loss() {
        let told = Told::new();
        told.say(&[(0, Call::Set(10))], &[Answer::Done]).say(&[(0, Call::Set(20))], &[Answer::Done]);
        told.say(&[(0, Call::Get)], &read(10));
        told.object.begin_last_reads();
        told.say(&[(0, Call::Get)], &read(20));
        assert_eq!(told.wrong(), Some(Wrong::Stale));
    }

    #[test]
    fn a_loss_that_another_write_hides_counts_as_stale() {
        let told = Told::new();
        told.say(&[(0, Call::Set(10))], &[Answer::Done]).say(&[(0, Call::Set(20))], &[Answer::Done]);
        told.say(&[(0, Call::Get)], &read(10)).say(&[(0, Call::Set(30))], &[Answer::Done]);
        told.object.begin_last_reads();
        told.say(&[(0, Call::Get)], &read(30));
        assert_eq!(told.wrong(), Some(Wrong::Stale));
    }

    #[test]
    fn what_nobody_knows_may_have_happened_and_what_was_refused_may_not() {
        for (refuse, wrong) in [(false, None), (true, Some(Wrong::Lost))] {
            let told = Told::new();
            told.say(&[(0, Call::Set(10))], &[Answer::Done]);
            let operation = told.object.invoke(&told.board, 2, &[(0, Call::Set(20))], NONE);
            if refuse {
                told.object.refused(&told.board, operation);
            }
            told.object.begin_last_reads();
            told.say(&[(0, Call::Get)], &read(20));
            assert_eq!(told.wrong(), wrong);
        }
    }

    #[test]
    fn half_of_several_keys_is_a_loss() {
        let told = Told::new();
        told.say(&[(0, Call::Set(10)), (1, Call::Set(11))], &[Answer::Done; 2]);
        told.object.begin_last_reads();
        told.say(&[(0, Call::Get)], &read(10)).say(&[(1, Call::Get)], &[Answer::Value(None)]);
        assert_eq!(told.wrong(), Some(Wrong::Lost));
    }

    #[test]
    fn a_value_may_expire_once_it_is_due_or_when_clocks_jump() {
        for (lives_s, jump, wrong) in [(0, false, None), (3600, false, Some(Wrong::Lost)), (3600, true, None)]
        {
            let told = Told::new();
            let calls = [(0, Call::SetExpiring(10, told.object.expiry_number()))];
            let lives = Duration::from_secs(lives_s);
            let operation = told.object.invoke(&told.board, 1, &calls, lives);
            told.object.answered(&told.board, operation, &[Answer::Done]);
            if jump {
                told.board.clocks_jump();
            }
            told.object.begin_last_reads();
            told.say(&[(0, Call::Get)], &[Answer::Value(None)]);
            assert_eq!(told.wrong(), wrong, "{lives_s} {jump}");
        }
    }

    #[test]
    fn objects_retire_after_a_step_or_after_several() {
        let board = Board::new();
        let first = board.retire(false);
        assert!(first.len() < OBJECTS && first.iter().all(|object| !object.lasting));
        let later: usize = (1..LASTS_STEPS).map(|_| board.retire(false).len()).sum();
        let lasting = OBJECTS - first.len();
        assert_eq!(later, (LASTS_STEPS as usize - 1) * first.len() + lasting);
        assert_eq!(board.retire(true).len(), OBJECTS);
    }
}
