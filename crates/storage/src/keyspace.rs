//! What a command runs on: one partition's table, with a recorder of what it changes.
//!
//! A [`Keyspace`] lives as long as one command. It hands every change to [`Changes`] twice: as an effect, which
//! becomes part of the record, and among the [`Undos`], as what the change replaced. It also finds out what a
//! reply has to wait for: a reply may tell only of what is committed (rule 5), so every look at a key that an
//! uncommitted record touched raises [`Footprint::wait`].
//!
//! There are two views. *Fresh* is the primary's newest state, which commands that order writes need. *Committed*
//! is what stale reads may see: on a primary, the newest state with the uncommitted changes thought away; on a
//! backup, whose table holds nothing else, the table.
//!
//! Expiry takes effect only as a logged removal (rule 14): a fresh look at a key whose time has come logs one
//! first, and reports the key as absent; the committed view shows the key until that removal is committed.
//!
//! Left out: types of values other than strings; when what an undo held is freed, which [`crate::garbage`] says.

use crate::effect::Effect;
use crate::lent::Lent;
use crate::rope::TailedBuffer;
use crate::table::{Entry, Piece, Put, Table, Value};
use crate::uncommitted::{Uncommitted, Undos, Was};
use bytes::Bytes;
use std::cell::Cell;
use types::planted::{self, Bug};
use types::{Lsn, Version};

// ---------------------------------------------------------------------------------------------------- changes

/// What a command changed, gathered while it runs. Reused from command to command.
#[derive(Debug, Default)]
pub struct Changes {
    /// The effects, encoded: the body of the record. Empty where the body is not kept.
    pub body: TailedBuffer,
    /// How many changes there were.
    pub count: usize,
    /// What they replaced, in the order in which they were made. Empty where undo is not kept.
    pub undo: Undos,
    /// Whether a key became absent by them.
    pub removed_any: bool,
    keep_body: bool,
    keep_undo: bool,
}

impl Changes {
    /// No changes yet. `keep_body`: encode effects, for a log; `keep_undo`: keep what is replaced.
    pub fn new(keep_body: bool, keep_undo: bool) -> Changes {
        Changes { keep_body, keep_undo, ..Changes::default() }
    }

    /// Whether nothing was changed.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Forgets the changes and keeps the buffers.
    pub fn clear(&mut self) {
        self.body.clear();
        self.undo.clear();
        self.count = 0;
        self.removed_any = false;
    }

    /// What to keep of the changes that follow.
    pub fn set_keep(&mut self, body: bool, undo: bool) {
        self.keep_body = body;
        self.keep_undo = undo;
    }

    fn log(&mut self, effect: Effect<'_>) {
        self.log_sharing(effect, None);
    }

    /// `value`: that of a put, where it is shared.
    #[inline]
    fn log_sharing(&mut self, effect: Effect<'_>, value: Option<&Bytes>) {
        self.count += 1;
        if self.keep_body {
            effect.encode_sharing(value, &mut self.body);
        }
    }

    fn keep(&mut self, was: Was) {
        if self.keep_undo {
            self.undo.keep(was);
        }
    }
}

// --------------------------------------------------------------------------------------------------- keyspace

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    Fresh,
    Committed,
}

/// What a command has left behind: kept outside of the [`Keyspace`], so that it can be asked while a reply still borrows
/// from the table.
#[derive(Debug, Default)]
pub struct Footprint {
    wait: Cell<Lsn>,
    changed: Cell<bool>,
    found: Cell<u32>,
    missed: Cell<u32>,
}

impl Footprint {
    /// The last record that has to be committed before a reply may tell what was seen; 0: none. The record that
    /// the command itself makes is not counted.
    pub fn wait(&self) -> Lsn {
        self.wait.get()
    }

    /// Whether the command changed nothing and saw nothing that is not committed.
    pub fn is_clean(&self) -> bool {
        self.wait.get() == Lsn(0) && !self.changed.get()
    }

    /// How many keys were looked for and found, and how many were not there.
    pub fn looked_up(&self) -> (u64, u64) {
        (self.found.get().into(), self.missed.get().into())
    }

    #[inline]
    fn wait_for(&self, lsn: Lsn) {
        self.wait.set(self.wait.get().max(lsn));
    }
}

/// One partition as one command sees it.
#[derive(Debug)]
pub struct Keyspace<'p> {
    table: &'p mut Table,
    changes: &'p mut Changes,
    uncommitted: &'p Uncommitted,
    last_version: &'p mut Version,
    now_ms: u64,
    view: View,
    footprint: &'p Footprint,
    /// A key whose hash is known: where it lies, and the hash.
    known: (*const u8, usize, u64),
    /// How old what it shows may be, where that is known.
    age_ms: Option<u64>,
    /// Where values that are put may lie, to be shared.
    lent: Option<&'p Lent<'p>>,
}

const UNKNOWN: (*const u8, usize, u64) = (std::ptr::null(), 0, 0);

/// How often a random choice is repeated that hit an entry which may not be shown.
const RANDOM_TRIES: u64 = 16;

impl<'p> Keyspace<'p> {
    /// The newest state of a primary. `now_ms` is the partition's time in Unix milliseconds; `last_version` the
    /// version of its last change.
    pub fn fresh(
        table: &'p mut Table,
        changes: &'p mut Changes,
        uncommitted: &'p Uncommitted,
        last_version: &'p mut Version,
        now_ms: u64,
        footprint: &'p Footprint,
    ) -> Keyspace<'p> {
        Keyspace {
            table,
            changes,
            uncommitted,
            last_version,
            now_ms,
            view: View::Fresh,
            footprint,
            known: UNKNOWN,
            age_ms: Some(0),
            lent: None,
        }
    }

    /// The committed state of any copy, for stale reads. Writes are mistakes of the caller, and ignored.
    pub fn committed(
        table: &'p mut Table,
        changes: &'p mut Changes,
        uncommitted: &'p Uncommitted,
        last_version: &'p mut Version,
        now_ms: u64,
        footprint: &'p Footprint,
    ) -> Keyspace<'p> {
        Keyspace {
            table,
            changes,
            uncommitted,
            last_version,
            now_ms,
            view: View::Committed,
            footprint,
            known: UNKNOWN,
            age_ms: None,
            lent: None,
        }
    }

    /// Says how old what it shows may be.
    pub fn with_age(mut self, age_ms: Option<u64>) -> Keyspace<'p> {
        self.age_ms = age_ms;
        self
    }

    /// Says where values that are put may lie, to be shared.
    #[inline]
    pub fn lend(&mut self, lent: Option<&'p Lent<'p>>) {
        self.lent = lent;
    }

    /// How old what it shows may be, in milliseconds: it was the newest at most so long ago. None where that is not known.
    pub fn age_ms(&self) -> Option<u64> {
        self.age_ms
    }

    /// The partition's time, in Unix milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// A key's hash, for the operations that take one.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        if (key.as_ptr(), key.len()) == (self.known.0, self.known.1) {
            return self.known.2;
        }
        self.table.hasher().hash(key)
    }

    /// Says a key's hash, which is not reckoned again for this very slice. It must be the table's, of these bytes.
    #[inline]
    pub fn know(&mut self, key: &'p [u8], hash: u64) {
        debug_assert_eq!(hash, self.table.hasher().hash(key));
        self.known = (key.as_ptr(), key.len(), hash);
    }

    /// A key's entry.
    #[inline]
    pub fn get(&mut self, key: &[u8]) -> Option<Entry<'_>> {
        self.get_hashed(self.hash(key), key)
    }

    /// As [`Keyspace::get`], of a key whose hash is known.
    #[inline]
    pub fn get_hashed(&mut self, hash: u64, key: &[u8]) -> Option<Entry<'_>> {
        if self.view == View::Committed {
            let entry = self.uncommitted.committed(hash, key).unwrap_or_else(|| self.table.get(hash, key));
            let counter = if entry.is_some() { &self.footprint.found } else { &self.footprint.missed };
            counter.set(counter.get() + 1);
            return entry;
        }
        let Some(position) = self.find_live(hash, key) else {
            self.footprint.missed.set(self.footprint.missed.get() + 1);
            return None;
        };
        self.footprint.found.set(self.footprint.found.get() + 1);
        if !self.uncommitted.is_empty()
            && let Some(lsn) = self.uncommitted.lsn_of(hash)
        {
            self.footprint.wait_for(lsn);
        }
        Some(self.table.entry_at(position))
    }

    /// Gives a key this value and expiry (Unix milliseconds; `None`: never), whatever it had.
    pub fn put(&mut self, key: &[u8], value: Value<'_>, expire_at_ms: Option<u64>) {
        self.put_hashed(self.hash(key), key, value, expire_at_ms);
    }

    /// As [`Keyspace::put`], of a key whose hash is known.
    pub fn put_hashed(&mut self, hash: u64, key: &[u8], value: Value<'_>, expire_at_ms: Option<u64>) {
        let Value::String(bytes) = value;
        if let Some(shared) = self.lent.and_then(|lent| lent.share(bytes)) {
            return self.share_hashed(hash, key, shared, expire_at_ms);
        }
        let Some(version) = self.log_put(key, value, None, expire_at_ms) else { return };
        if !self.changes.keep_undo {
            return self.table.put(hash, key, value, expire_at_ms, version);
        }
        let undo = &mut self.changes.undo;
        let start = undo.bytes().len();
        match self.table.put_keeping(hash, key, value, expire_at_ms, version, undo.bytes()) {
            Put::Over => undo.keep_copied(hash, start),
            Put::Instead(piece) => undo.keep(Was::Present { hash, piece: piece.into() }),
            Put::New => undo.keep(Was::Absent { hash, key: key.into() }),
        }
    }

    /// As [`Keyspace::put`], of a value that is shared instead of copied.
    pub fn share(&mut self, key: &[u8], value: Bytes, expire_at_ms: Option<u64>) {
        self.share_hashed(self.hash(key), key, value, expire_at_ms);
    }

    fn share_hashed(&mut self, hash: u64, key: &[u8], value: Bytes, expire_at_ms: Option<u64>) {
        let logged = self.log_put(key, Value::String(&value), Some(&value), expire_at_ms);
        let Some(version) = logged else { return };
        if !self.changes.keep_undo {
            return self.table.share(hash, key, value, expire_at_ms, version);
        }
        let was = match self.table.share_keeping(hash, key, value, expire_at_ms, version) {
            Put::Instead(piece) => Was::Present { hash, piece: piece.into() },
            Put::New | Put::Over => Was::Absent { hash, key: key.into() },
        };
        self.changes.undo.keep(was);
    }

    /// Logs that a key has this value, and says in which version. `None`: it may not be written.
    #[inline]
    fn log_put(
        &mut self,
        key: &[u8],
        value: Value<'_>,
        shared: Option<&Bytes>,
        expire_at_ms: Option<u64>,
    ) -> Option<Version> {
        if self.refuse_write() {
            return None;
        }
        let version = self.next_version();
        let expire_at_ms = if planted::is(Bug::EffectForgetsExpiry) { None } else { expire_at_ms };
        self.changes.log_sharing(Effect::Put { key, value, expire_at_ms, version }, shared);
        Some(version)
    }

    /// Removes a key. False where it was absent or its time to expire had come.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        self.remove_hashed(self.hash(key), key)
    }

    /// As [`Keyspace::remove`], of a key whose hash is known.
    pub fn remove_hashed(&mut self, hash: u64, key: &[u8]) -> bool {
        if self.refuse_write() {
            return false;
        }
        let Some(position) = self.find_live(hash, key) else { return false };
        self.remove_at(hash, position);
        true
    }

    /// Gives a key another expiry (Unix milliseconds; `None`: never). False where it is absent.
    pub fn set_expiry(&mut self, key: &[u8], expire_at_ms: Option<u64>) -> bool {
        self.set_expiry_hashed(self.hash(key), key, expire_at_ms)
    }

    /// As [`Keyspace::set_expiry`], of a key whose hash is known.
    pub fn set_expiry_hashed(&mut self, hash: u64, key: &[u8], expire_at_ms: Option<u64>) -> bool {
        if self.refuse_write() {
            return false;
        }
        let Some(position) = self.find_live(hash, key) else { return false };
        let version = self.next_version();
        self.changes.log(Effect::Expire { key, expire_at_ms, version });
        if self.changes.keep_undo {
            let piece = Piece::again(self.table.entry_at(position), expire_at_ms, version);
            let piece = self.table.swap(position, piece);
            if !planted::is(Bug::UndoForgetsExpiry) {
                self.changes.keep(Was::Present { hash, piece: piece.into() });
            }
        } else {
            self.table.set_expiry(hash, key, expire_at_ms, version);
        }
        true
    }

    /// Removes every key and returns how many there were.
    pub fn clear(&mut self) -> usize {
        if self.refuse_write() {
            return 0;
        }
        let len = self.table.len();
        if len == 0 {
            self.footprint.wait_for(self.uncommitted.last_removal());
            return 0;
        }
        let version = self.next_version();
        self.changes.log(Effect::Clear { version });
        self.changes.removed_any = true;
        let empty = Table::new(self.table.hasher());
        let old = std::mem::replace(self.table, empty);
        self.changes.keep(Was::Table(Box::new(old)));
        len
    }

    /// Visits entries from a cursor on, as [`Table::scan`] does. Those whose time to expire has come are not shown, and
    /// a fresh look logs their removal, so that what is not shown is gone for good once the reply is out (rule 14).
    /// `budget` bounds the entries and the length of the walk; a few more may be visited in the committed view.
    pub fn scan(&mut self, cursor: u64, budget: usize, visit: &mut dyn FnMut(Entry<'_>)) -> Option<u64> {
        if self.view == View::Fresh {
            self.footprint.wait_for(self.uncommitted.last());
            let now_ms = self.now_ms;
            let mut expired: Vec<Box<[u8]>> = Vec::new();
            let next = self.table.scan(cursor, budget, &mut |entry| {
                if is_expired(entry, now_ms) {
                    expired.push(entry.key.into());
                } else {
                    visit(entry);
                }
            });
            for key in expired {
                let _ = self.get(&key);
            }
            return next;
        }
        let uncommitted = self.uncommitted;
        let base = uncommitted.base(self.table);
        if uncommitted.is_empty() {
            return base.scan(cursor, budget, visit);
        }
        let hasher = base.hasher();
        let next = base.scan(cursor, budget, &mut |entry| {
            if let Some(entry) =
                uncommitted.committed(hasher.hash(entry.key), entry.key).unwrap_or(Some(entry))
            {
                visit(entry);
            }
        });
        // What uncommitted records removed does not stand in the table.
        uncommitted.for_each_change(|hash, key, was| {
            let in_step = cursor <= hash && next.is_none_or(|next| hash < next);
            if let Some(entry) = was.filter(|_| in_step && base.get(hash, key).is_none()) {
                visit(entry);
            }
        });
        next
    }

    /// How many keys there are, also those whose time to expire has come.
    pub fn len(&mut self) -> usize {
        if self.view == View::Fresh {
            self.footprint.wait_for(self.uncommitted.last());
            return self.table.len();
        }
        let base = self.uncommitted.base(self.table);
        let (mut len, mut absent) = (base.len(), 0);
        self.uncommitted.for_each_change(|hash, key, was| {
            len += usize::from(was.is_some());
            absent += usize::from(base.get(hash, key).is_some());
        });
        len - absent
    }

    /// Whether there is no key.
    pub fn is_empty(&mut self) -> bool {
        self.len() == 0
    }

    /// An entry chosen by a random number. `None`: there is none that may be shown.
    pub fn random(&mut self, random: u64) -> Option<Entry<'_>> {
        if self.view == View::Fresh {
            self.footprint.wait_for(self.uncommitted.last());
        }
        let key = self.random_key(random)?;
        let hash = self.hash(&key);
        match self.view {
            View::Fresh => self.table.get(hash, &key),
            View::Committed => {
                self.uncommitted.committed(hash, &key).unwrap_or_else(|| self.table.get(hash, &key))
            }
        }
    }

    fn random_key(&mut self, random: u64) -> Option<Box<[u8]>> {
        let base = match self.view {
            View::Fresh => &*self.table,
            View::Committed => self.uncommitted.base(self.table),
        };
        for again in 0..RANDOM_TRIES {
            let entry = base.random(random.wrapping_add(again.wrapping_mul(0x9e37_79b9_7f4a_7c15)))?;
            let shown = match self.view {
                View::Fresh => !is_expired(entry, self.now_ms),
                View::Committed => {
                    let hash = base.hasher().hash(entry.key);
                    self.uncommitted.committed(hash, entry.key).is_none_or(|state| state.is_some())
                }
            };
            if shown {
                return Some(entry.key.into());
            }
        }
        // Nearly nothing may be shown: take the first that may, from the random place on.
        let mut found: Option<Box<[u8]>> = None;
        for (start, end) in [(random, None), (0, Some(random))] {
            let mut cursor = Some(start);
            while let Some(from) = cursor.filter(|&from| found.is_none() && end.is_none_or(|end| from < end))
            {
                cursor = self.scan(from, 16, &mut |entry| {
                    found.get_or_insert_with(|| entry.key.into());
                });
            }
        }
        found
    }

    // --- the fresh view

    /// Where a key stands that is there and whose time to expire has not come. Otherwise notes what a reply has
    /// to wait for, and logs the removal.
    #[inline]
    fn find_live(&mut self, hash: u64, key: &[u8]) -> Option<usize> {
        let Ok(position) = self.table.find(hash, key) else {
            self.footprint.wait_for(self.uncommitted.last_removal());
            return None;
        };
        if is_expired(self.table.entry_at(position), self.now_ms) {
            self.remove_at(hash, position);
            return None;
        }
        Some(position)
    }

    fn remove_at(&mut self, hash: u64, position: usize) {
        let version = self.next_version();
        let piece = self.table.take_at(position);
        self.changes.log(Effect::Remove { key: piece.key(), version });
        self.changes.removed_any = true;
        self.changes.keep(Was::Present { hash, piece: piece.into() });
    }

    fn next_version(&mut self) -> Version {
        self.footprint.changed.set(true);
        *self.last_version = self.last_version.next(self.now_ms);
        *self.last_version
    }

    fn refuse_write(&self) -> bool {
        debug_assert_eq!(self.view, View::Fresh, "a write on the committed view");
        self.view == View::Committed
    }
}

fn is_expired(entry: Entry<'_>, now_ms: u64) -> bool {
    let now_ms = if planted::is(Bug::ExpiresLate) { now_ms.saturating_sub(1) } else { now_ms };
    entry.expire_at_ms.is_some_and(|at_ms| at_ms <= now_ms)
}

#[cfg(test)]
mod tests;
