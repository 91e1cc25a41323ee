//! Sequences of valid commands, answered as Redis would: each reply is that of [`crate::model`], and in the end so is all that
//! is kept.
//!
//! The input says what is run, when milliseconds pass, records are committed or taken back, and a snapshot begins
//! ([`crate::sequence`]). The snapshot is cut a chunk after each step, while the table goes on changing; with the records from
//! its beginning on it has to make the same table. What records alone make is looked at by [`Partition::check`].
//!
//! Left out: commands of Annulet's own ([`LEFT_OUT`]), and several partitions.

use crate::model::{Answer, Kept, Model, Whose};
use crate::partition::Partition;
use crate::records::contents;
use crate::sequence::{Sequence, Step};
use command::{CommandError, Handler, Reply, resolve};
use std::collections::BTreeMap;
use storage::effect::apply_all;
use storage::snapshot::{load_chunk, write_chunk};
use storage::{Hasher, OwnedValue, Table, TailedBuffer};

/// Commands on keys that no sequence holds, and why.
pub const LEFT_OUT: &[(&str, &str)] = &[
    ("changes", "Annulet's own: how others follow a partition"),
    ("delv", "Annulet's own: Redis has no versions"),
    ("getv", "Annulet's own: Redis has no versions"),
    ("keys", "what it shows has no order"),
    ("object", "it tells of Redis' inside"),
    ("randomkey", "it draws lots"),
    ("scan", "what it shows has no order"),
    ("setv", "Annulet's own: Redis has no versions"),
    ("wait", "it is about replication"),
];

/// Small, so that a snapshot takes several steps.
const CHUNK_BYTES: usize = 64;

/// See the [module](self).
pub fn run(data: &[u8]) {
    let mut sequence = Sequence::new(data);
    let mut world = World::default();
    while let Some(step) = sequence.next(world.partition.now_ms) {
        world.take(step);
    }
    world.check();
}

/// A snapshot that is being cut.
struct Snapshot {
    /// How many records there were when it began.
    base: usize,
    cursor: Option<u64>,
    /// What its chunks made.
    loaded: Table,
}

impl Snapshot {
    fn cut(&mut self, table: &Table) {
        let Some(cursor) = self.cursor else { return };
        let mut chunk = TailedBuffer::default();
        self.cursor = write_chunk(table, cursor, CHUNK_BYTES, &mut chunk);
        load_chunk(&chunk, &mut self.loaded).expect("our own chunk");
    }
}

#[derive(Default)]
struct World {
    partition: Partition,
    model: Model,
    /// What the model held after each record; the first is before all of them.
    before: Vec<Model>,
    snapshot: Option<Snapshot>,
}

impl World {
    fn take(&mut self, step: Step) {
        match step {
            Step::Run(request) => self.request(&request),
            Step::Sleep(ms) => self.partition.now_ms += ms,
            Step::Commit(count) => self.partition.commit(count),
            Step::RollBack(count) => {
                self.partition.roll_back(count);
                self.before.truncate(self.partition.log().len() + 1);
                self.model = self.before.last().cloned().unwrap_or_default();
                // It may show what was taken back.
                self.snapshot = None;
                self.check();
            }
            Step::Snapshot => {
                let (base, loaded) = (self.partition.log().len(), Table::new(Hasher::new(3)));
                self.snapshot = Some(Snapshot { base, cursor: Some(0), loaded });
            }
        }
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.cut(&self.partition.table);
        }
    }

    fn request(&mut self, request: &[Vec<u8>]) {
        if self.before.is_empty() {
            self.before.push(Model::new());
        }
        let now_ms = self.partition.now_ms;
        let Some(expected) = self.model.run(Whose::Annulet, request, now_ms as i64) else { return };
        let args: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
        let reply = self.answer(&args);
        let line =
            || args.iter().map(|arg| format!("'{}'", arg.escape_ascii())).collect::<Vec<_>>().join(" ");
        assert_eq!(reply, expected, "the answer, and what Redis says to {} at {now_ms}", line());
        // One command makes one record at most.
        if self.partition.log().len() == self.before.len() {
            self.before.push(self.model.clone());
        }
        assert_eq!(self.partition.log().len() + 1, self.before.len());
    }

    fn answer(&mut self, args: &[&[u8]]) -> Answer {
        let ran = resolve(args).and_then(|command| match command.handler {
            Handler::Keys { run, .. } | Handler::Everywhere { run, .. } => {
                self.partition.run(|keyspace| run(keyspace, args).map(Reply::into_owned))
            }
            _ => panic!("{} works on no keys", command.name),
        });
        answer_of(ran)
    }

    /// What is kept is what the model keeps, whichever way it is told.
    fn check(&mut self) {
        self.partition.check();
        let now = self.partition.now_ms as i64;
        self.model.forget(Whose::Annulet, now);
        assert_eq!(
            kept(&self.partition.table, now),
            self.model.entries,
            "what is kept, and what Redis keeps"
        );
        let Some(mut snapshot) = self.snapshot.take() else { return };
        while snapshot.cursor.is_some() {
            snapshot.cut(&self.partition.table);
        }
        for body in &self.partition.log()[snapshot.base..] {
            apply_all(body, &mut snapshot.loaded).expect("what a command logged");
        }
        let (loaded, whole) = (contents(&snapshot.loaded), contents(&self.partition.table));
        assert_eq!(loaded, whole, "a snapshot with the records behind it, and the table");
    }
}

fn answer_of(ran: Result<Reply<'static>, CommandError>) -> Answer {
    match ran {
        Err(error) | Ok(Reply::Error(error)) => Answer::Error(error.to_string()),
        Ok(Reply::Simple(text)) => Answer::Status(text.into_owned()),
        Ok(Reply::Integer(number)) => Answer::Integer(number),
        Ok(Reply::Bulk(bytes)) => Answer::Bulk(bytes.into_owned()),
        Ok(Reply::Null) => Answer::Nil,
        Ok(Reply::Array(items)) => Answer::Many(items.into_iter().map(|item| answer_of(Ok(item))).collect()),
        Ok(other) => panic!("no command on strings answers {other:?}"),
    }
}

/// What a table holds that is not over.
fn kept(table: &Table, now: i64) -> BTreeMap<Vec<u8>, Kept> {
    let entries = contents(table).into_iter().map(|(key, entry)| {
        let OwnedValue::String(value) = entry.value;
        (key, (value.to_vec(), entry.expire_at_ms.map(|end| end as i64)))
    });
    entries.filter(|(_, (_, end))| end.is_none_or(|end| end > now)).collect()
}
