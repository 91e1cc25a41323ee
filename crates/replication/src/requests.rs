//! Which forwarded requests a partition has done (rule 17).
//!
//! A forwarder that does not learn what became of a write sends it again, under the same number, maybe to another
//! primary. The number and the reply are part of the record, so every copy that holds the record can answer the
//! repeat. The newest are kept, for a minute at most, far longer than a forwarder repeats; what is older is remembered only as
//! "this number or a later one was forgotten", so that a very late repeat is refused instead of done twice.
//!
//! A write that changed nothing makes no record: `DEL` of an absent key. Were it forgotten, a repeat under way could
//! delete what was written since. The primary that ran it remembers it for its own reign, which is all that a repeat
//! of its forward can be meant for.

use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, VecDeque};
use types::{Lsn, RequestId};

/// How long a finished request is remembered, in milliseconds of partition time.
const KEPT_MS: u64 = 60_000;
/// How many are remembered at most.
const KEPT_MAX: usize = 256;

/// What a repeat finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Not done here: run it.
    Never,
    /// Done by this record, with this reply.
    Done(Lsn, Bytes),
    /// Done in this reign without any change, with this reply, which tells of what this record committed.
    Unchanged(Lsn, Bytes),
    /// So old that nobody knows any more.
    Forgotten,
}

#[derive(Debug, Default)]
pub(crate) struct Requests {
    done: HashMap<RequestId, (Lsn, Bytes)>,
    order: VecDeque<(Lsn, u64, RequestId)>,
    /// By forwarder, as a request id with its newest forgotten number.
    forgotten: BTreeMap<RequestId, u64>,
    /// Those of this reign that changed nothing.
    unchanged: HashMap<RequestId, (Lsn, Bytes)>,
    unchanged_order: VecDeque<(u64, RequestId)>,
}

fn forwarder(id: RequestId) -> RequestId {
    RequestId { sequence: 0, ..id }
}

impl Requests {
    pub fn seen(&self, id: RequestId) -> Seen {
        if let Some((lsn, reply)) = self.done.get(&id) {
            return Seen::Done(*lsn, reply.clone());
        }
        if let Some((lsn, reply)) = self.unchanged.get(&id) {
            return Seen::Unchanged(*lsn, reply.clone());
        }
        match self.forgotten.get(&forwarder(id)) {
            Some(&newest) if id.sequence <= newest => Seen::Forgotten,
            _ => Seen::Never,
        }
    }

    pub fn add(&mut self, id: RequestId, lsn: Lsn, time_ms: u64, reply: Bytes) {
        self.done.insert(id, (lsn, reply));
        self.order.push_back((lsn, time_ms, id));
        while let Some(&(_, then, old)) = self.order.front() {
            if self.order.len() <= KEPT_MAX && then + KEPT_MS > time_ms {
                break;
            }
            self.order.pop_front();
            self.done.remove(&old);
            self.forget(old);
        }
    }

    /// A request was run and changed nothing; its reply tells of what is committed up to `wait`.
    pub fn add_unchanged(&mut self, id: RequestId, wait: Lsn, time_ms: u64, reply: Bytes) {
        self.unchanged.insert(id, (wait, reply));
        self.unchanged_order.push_back((time_ms, id));
        while let Some(&(then, old)) = self.unchanged_order.front() {
            if self.unchanged_order.len() <= KEPT_MAX && then + KEPT_MS > time_ms {
                break;
            }
            self.unchanged_order.pop_front();
            self.unchanged.remove(&old);
            self.forget(old);
        }
    }

    /// Another reign begins: what changed nothing in the last one may be run again.
    pub fn begin_reign(&mut self) {
        self.unchanged.clear();
        self.unchanged_order.clear();
    }

    fn forget(&mut self, old: RequestId) {
        let newest = self.forgotten.entry(forwarder(old)).or_default();
        *newest = (*newest).max(old.sequence);
    }

    /// The records after `lsn` never happened.
    pub fn undo_after(&mut self, lsn: Lsn) {
        while let Some((_, _, id)) = self.order.pop_back_if(|(at, _, _)| *at > lsn) {
            self.done.remove(&id);
        }
    }

    pub fn clear(&mut self) {
        *self = Requests::default();
    }

    /// For a snapshot: what is remembered of the records up to `upto`, and what is forgotten.
    pub fn export(&self, upto: Lsn) -> (Vec<(RequestId, Lsn, Bytes)>, Vec<RequestId>) {
        let kept = self.order.iter().take_while(|(lsn, _, _)| *lsn <= upto);
        let done =
            kept.filter_map(|(lsn, _, id)| self.done.get(id).map(|(_, reply)| (*id, *lsn, reply.clone())));
        let forgotten = self.forgotten.iter().map(|(id, &sequence)| RequestId { sequence, ..*id });
        (done.collect(), forgotten.collect())
    }

    pub fn import(&mut self, done: Vec<(RequestId, Lsn, Bytes)>, forgotten: Vec<RequestId>, time_ms: u64) {
        self.clear();
        for id in forgotten {
            self.forgotten.insert(forwarder(id), id.sequence);
        }
        for (id, lsn, reply) in done {
            self.add(id, lsn, time_ms, reply);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{Incarnation, NodeId, ShardId};

    fn id(sequence: u64) -> RequestId {
        RequestId { node: NodeId(1), incarnation: Incarnation(1), shard: ShardId(0), sequence }
    }

    #[test]
    fn a_repeat_is_answered_refused_or_run_but_never_done_twice() {
        let mut requests = Requests::default();
        for sequence in 1..=10 {
            requests.add(id(sequence), Lsn(sequence), 1000, Bytes::from_static(b"ok"));
        }
        assert_eq!(requests.seen(id(3)), Seen::Done(Lsn(3), Bytes::from_static(b"ok")));
        requests.undo_after(Lsn(8));
        assert_eq!(requests.seen(id(9)), Seen::Never);
        requests.add(id(11), Lsn(9), 1000 + KEPT_MS, Bytes::new());
        assert_eq!(requests.seen(id(3)), Seen::Forgotten);
        assert_eq!(requests.seen(id(12)), Seen::Never);
        requests.add_unchanged(id(13), Lsn(9), 1000 + KEPT_MS, Bytes::from_static(b"0"));
        assert_eq!(requests.seen(id(13)), Seen::Unchanged(Lsn(9), Bytes::from_static(b"0")));
        let (done, forgotten) = requests.export(Lsn(99));
        let mut copy = Requests::default();
        copy.import(done, forgotten, 1000 + KEPT_MS);
        assert_eq!(copy.seen(id(3)), Seen::Forgotten);
        assert!(matches!(copy.seen(id(11)), Seen::Done(..)));
        assert_eq!(copy.seen(id(13)), Seen::Never, "only the reign that ran it remembers it");
        requests.begin_reign();
        assert_eq!(requests.seen(id(13)), Seen::Never);
    }
}
