//! Where the doors on the runtime have commands run: HTTP, gRPC and the line port ask here and wait for the reply.
//!
//! A question is a command's arguments, with the levels and the scope that a connection of clients would have chosen. It goes to a
//! shard as a letter ([`Mail::Asked`]), is run there as a client's request is ([`crate::shard_loop`]), and its reply comes back by
//! a channel of its own. So these doors have the same commands, the same order and the same errors as RESP.
//!
//! How much may be under way is bounded, in number and in bytes: beyond that whoever asks waits, which holds back its own connection
//! alone. What waits on purpose, for changes, is counted by itself, and refused beyond its bound.
//!
//! Left out: who may ask what, which each door finds out first.

use crate::threads::{Mail, Threads};
use bytes::Bytes;
use command::{CommandError, Door, Reply};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use types::settings::{ReadLevel, WriteLevel};

/// Questions under way at once.
const QUESTIONS_MAX: usize = 4096;
/// Questions under way that wait on purpose.
const WAITING_MAX: usize = 64 * 1024;
/// Bytes of their arguments, in units.
const UNITS_MAX: usize = 64 * 1024;
const UNIT_BYTES: usize = 4 * 1024;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// The command's name and its arguments.
    pub args: Vec<Bytes>,
    /// What a read may show; by default what the settings say.
    pub read_level: Option<ReadLevel>,
    /// When a write is acknowledged; by default what the settings say.
    pub write_level: Option<WriteLevel>,
    /// Whose keys a command over all keys speaks of: the cluster's, those of which this node is primary, or those that it holds.
    pub scope: Door,
    /// A second command of the same connection, run once the first is answered without an error; none where it is empty. The
    /// answer is then both replies, as an array.
    pub then: Vec<Bytes>,
    /// Whether whoever asks has shown the password of administration.
    pub administrates: bool,
    /// Who asks: `host:port`, for the slow log.
    pub asker: Arc<str>,
}

impl Question {
    /// A command with the settings' levels, over the whole cluster.
    pub fn new(asker: &Arc<str>, args: impl IntoIterator<Item = impl Into<Bytes>>) -> Question {
        Question {
            args: args.into_iter().map(Into::into).collect(),
            read_level: None,
            write_level: None,
            scope: Door::Plain,
            then: Vec::new(),
            administrates: false,
            asker: asker.clone(),
        }
    }

    fn units(&self) -> usize {
        let bytes: usize = self.args.iter().chain(&self.then).map(Bytes::len).sum();
        // More than all is let in alone.
        (bytes / UNIT_BYTES + 1).min(UNITS_MAX)
    }
}

/// A question on its way to a shard.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub question: Question,
    /// Where the reply goes.
    pub answer: oneshot::Sender<Reply<'static>>,
    /// Its places, until it is answered: also where whoever asked has gone, or who asks and goes again and again would have a
    /// shard keep any number of questions.
    pub places: Option<[OwnedSemaphorePermit; 2]>,
}

/// Where to ask. Clones are the same desk.
#[derive(Clone, Debug)]
pub struct Desk {
    threads: Threads,
    next: Arc<AtomicUsize>,
    questions: Arc<Semaphore>,
    units: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Desk {
    /// The desk before these threads.
    pub fn new(threads: Threads) -> Desk {
        Desk {
            threads,
            next: Arc::default(),
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            units: Arc::new(Semaphore::new(UNITS_MAX)),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
        }
    }

    /// Has a command run, and waits for its reply. Whoever stops waiting does not stop what it asked for.
    pub async fn ask(&self, question: Question) -> Reply<'static> {
        // At most UNITS_MAX, so it fits.
        let units = question.units() as u32;
        let places = (
            self.questions.clone().acquire_owned().await,
            self.units.clone().acquire_many_owned(units).await,
        );
        let (Ok(place), Ok(units)) = places else { return stopping(&question.args) };
        self.post(question, Some([place, units])).await
    }

    /// Places for what waits on purpose, so many questions at once. None where too much does.
    pub fn wait_places(&self, count: usize) -> Option<OwnedSemaphorePermit> {
        self.waiting.clone().try_acquire_many_owned(u32::try_from(count).ok()?).ok()
    }

    /// The same for what waits on purpose, by whoever holds places for that.
    pub async fn ask_and_wait(&self, question: Question) -> Reply<'static> {
        self.post(question, None).await
    }

    async fn post(&self, question: Question, places: Option<[OwnedSemaphorePermit; 2]>) -> Reply<'static> {
        let (answer, reply) = oneshot::channel();
        let name = question.args.first().cloned();
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.threads.shards.len().max(1);
        let Some(post) = self.threads.shards.get(at) else { return stopping(name.as_slice()) };
        post.send(Mail::Asked(Asked { question, answer, places }));
        reply.await.unwrap_or_else(|_| stopping(name.as_slice()))
    }
}

/// A shard that ends drops what it was asked: whether a write was done nobody can say.
fn stopping(args: &[Bytes]) -> Reply<'static> {
    let why = "this node stops, and did not answer before it did: ask another node".into();
    let name = args.first().map(|name| &name[..]).unwrap_or_default();
    Reply::Error(match command::lookup(name) {
        Some(command) if !command.is_write() => CommandError::TryAgain { why },
        _ => CommandError::OutcomeUnknown { why },
    })
}
