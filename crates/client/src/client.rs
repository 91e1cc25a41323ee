//! The client: sends a request to whoever answers for it, again where that is safe, until its deadline.

use crate::builder::{Builder, Settings};
use crate::error::Error;
use crate::levels::Levels;
use crate::map::{Address, redirection};
use crate::request::{Plan, Request, Route, plan};
use crate::retry::{BackOff, Failure, Risk, Verdict, judge};
use crate::topology::{Topology, send};
use command::{CommandError, Reply};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout_at};
use types::settings::{ReadLevel, WriteLevel};

/// The longest wait for a reply to a read of one slot before it is sent again, maybe elsewhere: its node may stand still.
const READ_ATTEMPT: Duration = Duration::from_secs(2);

/// A cluster's client. Cloning it is cheap, and all clones share connections and map: make one for a program.
///
/// Calls can be made from any task, and many at a time. A call that is dropped before its end may or may not have been
/// carried out, as if its outcome were unknown.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
    levels: Levels,
    deadline: Duration,
}

#[derive(Debug)]
struct Shared {
    topology: Arc<Topology>,
    /// Learns the map anew, now and then and when asked.
    refresher: AbortHandle,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.refresher.abort();
    }
}

impl Client {
    /// Begins to make a client.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) async fn connect(
        settings: Settings,
        levels: Levels,
        deadline: Duration,
    ) -> Result<Client, Error> {
        let topology = Arc::new(Topology::new(Arc::new(settings)));
        let until = Instant::now() + deadline;
        match timeout_at(until, topology.refresh(topology.attempts())).await {
            Ok(Ok(())) => {}
            Ok(Err(failures)) => return Err(unreachable(failures)),
            Err(_) => {
                let why = "no answer before the deadline".to_owned();
                let seeds = topology.settings.seeds.iter();
                return Err(Error::Unreachable {
                    failures: seeds.map(|seed| (seed.to_string(), why.clone())).collect(),
                });
            }
        }
        let refresher = tokio::spawn(keep_fresh(topology.clone())).abort_handle();
        Ok(Client { shared: Arc::new(Shared { topology, refresher }), levels, deadline })
    }

    /// The same client with another read level.
    #[must_use]
    pub fn with_read_level(&self, level: ReadLevel) -> Client {
        let levels = Levels { read: Some(level), ..self.levels };
        Client { levels, ..self.clone() }
    }

    /// The same client with another write level.
    #[must_use]
    pub fn with_write_level(&self, level: WriteLevel) -> Client {
        let levels = Levels { write: Some(level), ..self.levels };
        Client { levels, ..self.clone() }
    }

    /// The same client with another deadline for each call.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Client {
        Client { deadline, ..self.clone() }
    }

    /// Runs any command, its name first, and returns the server's reply. The command table says where it goes: to the primary of
    /// its key; split by slot where it has several keys and may be; to a node that speaks for the whole cluster (`KEYS`,
    /// `DBSIZE`, `FLUSHALL`); to any node (`INFO`).
    ///
    /// # Errors
    ///
    /// An error that the server replies is [`Error::Server`]. [`Error::NotShared`] for commands that change their
    /// connection, such as `AUTH`, `CONSISTENCY` and `WAIT`.
    pub async fn command<A: AsRef<[u8]>>(&self, args: &[A]) -> Result<Reply<'static>, Error> {
        let args: Vec<&[u8]> = args.iter().map(AsRef::as_ref).collect();
        let plan = plan(&args)?;
        self.run_plan(plan).await
    }

    pub(crate) async fn run_plan(&self, plan: Plan) -> Result<Reply<'static>, Error> {
        match &plan.parts[..] {
            [request] => self.run(request).await,
            parts => {
                let replies = self.run_all(parts).await;
                plan.merge(replies)
            }
        }
    }

    async fn run(&self, request: &Request) -> Result<Reply<'static>, Error> {
        let deadline = self.deadline();
        let mut back_off = self.back_off();
        // The last that a node said: it tells more than that the deadline came before another attempt was sent.
        let mut said = None;
        loop {
            let attempts = self.topology().attempts();
            let failure = match self.attempt(request, deadline).await {
                Ok(reply) => return Ok(reply),
                Err(failure) => failure,
            };
            if let Failure::Said(error) = &failure {
                said = Some(error.to_string());
            }
            match judge(request.risk, &failure) {
                Verdict::Give(error) => return Err(error),
                Verdict::Again { refresh, pause } => {
                    let wait = back_off.next(pause, self.topology().dice.roll());
                    if !self.wait(wait, refresh.then_some(attempts), deadline).await {
                        return Err(match (&failure, said) {
                            (Failure::Unsent(_), Some(why)) => Error::Unavailable { why },
                            _ => failure.too_late(),
                        });
                    }
                }
            }
        }
    }

    async fn attempt(&self, request: &Request, deadline: Instant) -> Result<Reply<'static>, Failure> {
        let until = self.attempt_until(request, deadline);
        let address = self.address(request, until).await?;
        let lane = self.topology().pool.lane(&address, self.levels);
        let result = send(&lane, request.bytes.clone(), until).await;
        if let Err(failure) = &result {
            self.learn(&address, failure);
        }
        result
    }

    /// Until when one attempt is waited for.
    pub(crate) fn attempt_until(&self, request: &Request, deadline: Instant) -> Instant {
        match (request.risk, request.route) {
            (Risk::None, Route::Slot(_) | Route::Any) => deadline.min(Instant::now() + READ_ATTEMPT),
            _ => deadline,
        }
    }

    /// Where a request goes now.
    pub(crate) async fn address(&self, request: &Request, until: Instant) -> Result<Address, Failure> {
        let any_copy = request.risk == Risk::None && self.levels.reads_stale();
        let address = match request.route {
            Route::Slot(slot) => self.topology().of_slot(slot, any_copy),
            Route::Any => self.topology().any(),
            Route::Whole => return self.topology().plain_door(until).await,
        };
        address.ok_or_else(|| Failure::Unsent("no node is known".into()))
    }

    /// Takes in what a failure tells of the cluster.
    pub(crate) fn learn(&self, address: &Address, failure: &Failure) {
        match failure {
            Failure::Said(error @ CommandError::Moved { .. }) => match redirection(error, address) {
                Some((slot, to)) => self.topology().moved(slot, to),
                None => self.topology().signals.refresh(),
            },
            Failure::Unsent(_) | Failure::Lost(_) => self.topology().nearness.of(address).unreachable(),
            Failure::Said(_) | Failure::Refused { .. } => {}
        }
    }

    /// Waits before another attempt, and meanwhile learns the map anew where that is wanted. False where there is no time for it.
    pub(crate) async fn wait(&self, wait: Duration, refresh: Option<u64>, deadline: Instant) -> bool {
        let until = Instant::now() + wait;
        if until >= deadline {
            return false;
        }
        if let Some(attempts) = refresh
            && timeout_at(deadline, self.topology().refresh(attempts)).await.is_err()
        {
            return false;
        }
        if !wait.is_zero() {
            sleep_until(until).await;
        }
        true
    }

    pub(crate) fn topology(&self) -> &Topology {
        &self.shared.topology
    }

    pub(crate) fn levels(&self) -> Levels {
        self.levels
    }

    pub(crate) fn deadline(&self) -> Instant {
        // A deadline beyond what the clock can say is none in practice.
        let now = Instant::now();
        now.checked_add(self.deadline).unwrap_or(now + Duration::from_secs(86_400 * 365))
    }

    pub(crate) fn back_off(&self) -> BackOff {
        let settings = &self.topology().settings;
        BackOff::new(settings.pause_first, settings.pause_most)
    }
}

/// Refreshes the map when it may be old, and now and then.
async fn keep_fresh(topology: Arc<Topology>) {
    loop {
        let _ =
            tokio::time::timeout(topology.settings.refresh_every, topology.signals.refresh_wanted()).await;
        // What fails here is tried again at the next occasion.
        let _ = topology.refresh(topology.attempts()).await;
        tokio::time::sleep(topology.settings.pause_most).await;
    }
}

/// The error of a client that cannot be made. A refusal of the password says more than addresses that nobody listens on.
fn unreachable(failures: Vec<(Address, Failure)>) -> Error {
    if let Some((_, Failure::Refused { address, error })) =
        failures.iter().find(|(_, failure)| matches!(failure, Failure::Refused { .. }))
    {
        return Error::Refused { address: address.clone(), error: error.clone() };
    }
    Error::Unreachable {
        failures: failures.iter().map(|(address, failure)| (address.to_string(), failure.why())).collect(),
    }
}
