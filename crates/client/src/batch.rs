//! Many requests at once: split by node, sent to each node in order on one connection, and one result each.
//!
//! Requests of the same slot keep their order, also where some of them have to be sent again ([`redo`]): a request that was refused
//! for the moment is sent again only together with everything behind it in its slot, and not at all where a write
//! behind it was already carried out, or may have been.

use crate::client::Client;
use crate::error::Error;
use crate::map::Address;
use crate::pool::Lane;
use crate::request::{Plan, Request, Route, plan};
use crate::retry::{Failure, Risk, Verdict, judge};
use bytes::Bytes;
use command::Reply;
use std::collections::HashMap;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use types::Slot;

/// What one round brought for a request.
#[derive(Debug)]
enum Outcome {
    Done(Reply<'static>),
    /// It may be sent again.
    Again(Failure),
    /// It may not, or it would not help.
    Given(Error),
}

/// What becomes of a request after a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Keeps,
    Redone,
    Overtaken,
}

/// A request of one round and what it brought.
struct Tried {
    route: Route,
    risk: Risk,
    outcome: Outcome,
}

/// What becomes of each request of a round, in their order.
fn redo(tried: &[Tried]) -> Vec<Fate> {
    let mut fates = vec![Fate::Keeps; tried.len()];
    let mut by_slot: HashMap<Slot, Vec<usize>> = HashMap::new();
    for (at, one) in tried.iter().enumerate() {
        match one.route {
            Route::Slot(slot) => by_slot.entry(slot).or_default().push(at),
            Route::Any | Route::Whole if matches!(one.outcome, Outcome::Again(_)) => fates[at] = Fate::Redone,
            Route::Any | Route::Whole => {}
        }
    }
    for of_slot in by_slot.values() {
        // From the last to the first: nothing before a write that may have happened can be sent any more.
        let mut overtaken = false;
        let mut first = None;
        for &at in of_slot.iter().rev() {
            match &tried[at].outcome {
                // A read changes nothing: it can be sent whatever came after it, but would then show too much.
                Outcome::Again(_) if overtaken => fates[at] = Fate::Overtaken,
                Outcome::Again(_) => {
                    fates[at] = Fate::Redone;
                    first = Some(at);
                }
                Outcome::Done(_) if tried[at].risk != Risk::None => overtaken = true,
                Outcome::Given(error) if error.may_have_happened() => overtaken = true,
                Outcome::Done(_) | Outcome::Given(_) => {}
            }
        }
        // What came behind the first that is sent again did so too early: it read, or was refused for, the state before.
        if let Some(first) = first {
            of_slot.iter().filter(|&&at| at > first).for_each(|&at| fates[at] = Fate::Redone);
        }
    }
    fates
}

impl Client {
    /// Runs many requests, and returns a result for each.
    pub(crate) async fn run_all(&self, requests: &[Request]) -> Vec<Result<Reply<'static>, Error>> {
        let deadline = self.deadline();
        let mut back_off = self.back_off();
        let mut results: Vec<Option<Result<Reply<'static>, Error>>> = vec![None; requests.len()];
        let mut open: Vec<usize> = (0..requests.len()).collect();
        while !open.is_empty() {
            let attempts = self.topology().attempts();
            let (mut refreshes, mut pauses) = (false, false);
            let mut tried = Vec::with_capacity(open.len());
            for (at, result) in open.iter().zip(self.round(requests, &open, deadline).await) {
                let Request { route, risk, .. } = requests[*at];
                let outcome = match result {
                    Ok(reply) => Outcome::Done(reply),
                    Err(failure) => match judge(risk, &failure) {
                        Verdict::Give(error) => Outcome::Given(error),
                        Verdict::Again { refresh, pause } => {
                            refreshes |= refresh;
                            pauses |= pause;
                            Outcome::Again(failure)
                        }
                    },
                };
                tried.push(Tried { route, risk, outcome });
            }
            let fates = redo(&tried);
            let mut again = Vec::new();
            for ((at, fate), one) in open.iter().copied().zip(fates).zip(tried) {
                // What is sent again has this result where there is no time for it.
                results[at] = Some(match (fate, one.outcome) {
                    (Fate::Overtaken, Outcome::Again(failure)) => {
                        Err(Error::Overtaken { why: failure.why() })
                    }
                    (_, Outcome::Again(failure)) => Err(failure.too_late()),
                    (_, Outcome::Done(reply)) => Ok(reply),
                    (_, Outcome::Given(error)) => Err(error),
                });
                if fate == Fate::Redone {
                    again.push(at);
                }
            }
            open = again;
            if open.is_empty() {
                break;
            }
            let wait = back_off.next(pauses, self.topology().dice.roll());
            if !self.wait(wait, refreshes.then_some(attempts), deadline).await {
                break;
            }
        }
        let unsent = || Err(Error::Unavailable { why: "it was not sent".into() });
        results.into_iter().map(|result| result.unwrap_or_else(unsent)).collect()
    }

    /// Sends the open requests once, and returns what each brought, in their order.
    async fn round(
        &self,
        requests: &[Request],
        open: &[usize],
        deadline: Instant,
    ) -> Vec<Result<Reply<'static>, Failure>> {
        let mut results: Vec<Option<Result<Reply<'static>, Failure>>> = vec![None; open.len()];
        let mut groups: Vec<Group> = Vec::new();
        let mut places: HashMap<Address, usize> = HashMap::new();
        // A slot is looked up once a round: were its primary to change meanwhile, its requests would go two ways at once.
        let mut slots: HashMap<Slot, Address> = HashMap::new();
        for (place, &at) in open.iter().enumerate() {
            let request = &requests[at];
            let until = self.attempt_until(request, deadline);
            let known = match request.route {
                Route::Slot(slot) => slots.get(&slot).cloned(),
                Route::Any | Route::Whole => None,
            };
            let address = match known {
                Some(address) => address,
                None => match self.address(request, until).await {
                    Ok(address) => address,
                    Err(failure) => {
                        results[place] = Some(Err(failure));
                        continue;
                    }
                },
            };
            if let Route::Slot(slot) = request.route
                && !self.levels().reads_stale()
            {
                slots.insert(slot, address.clone());
            }
            let group = *places.entry(address.clone()).or_insert_with(|| {
                let lane = self.topology().pool.lane(&address, self.levels());
                groups.push(Group { address, lane, until, requests: Vec::new() });
                groups.len() - 1
            });
            // One that writes has until the deadline, and what stands around it has, too.
            groups[group].until = groups[group].until.max(until);
            groups[group].requests.push((place, request.bytes.clone()));
        }
        let mut took_part = JoinSet::new();
        // The usual case of one node needs no task of its own.
        let last = groups.pop();
        for group in groups {
            took_part.spawn(group.run());
        }
        let mut done = Vec::new();
        if let Some(group) = last {
            done.push(group.run().await);
        }
        while let Some(joined) = took_part.join_next().await {
            done.extend(joined);
        }
        for (address, of_group) in done {
            for (place, result) in of_group {
                if let Err(failure) = &result {
                    self.learn(&address, failure);
                }
                results[place] = Some(result);
            }
        }
        let lost = || Err(Failure::Lost("the task that sent it has ended".into()));
        results.into_iter().map(|result| result.unwrap_or_else(lost)).collect()
    }
}

/// The requests of a round for one node.
struct Group {
    address: Address,
    lane: Lane,
    until: Instant,
    /// Places in the round, and bytes.
    requests: Vec<(usize, Bytes)>,
}

impl Group {
    /// Queues all on one connection, in order, and waits for the replies.
    async fn run(self) -> (Address, Vec<(usize, Result<Reply<'static>, Failure>)>) {
        let mut waiting = Vec::with_capacity(self.requests.len());
        for (place, bytes) in self.requests {
            let (job, reply) = crate::pipe::Job::new(bytes);
            let queued = match timeout_at(self.until, self.lane.send(job)).await {
                Ok(Ok(())) => Ok(reply),
                Ok(Err(_)) => Err("the connection's task has ended"),
                Err(_) => Err("the node takes no more requests just now"),
            };
            waiting.push((place, queued));
        }
        let mut done = Vec::with_capacity(waiting.len());
        for (place, queued) in waiting {
            let result = match queued {
                Ok(reply) => reply.reply(self.until).await,
                Err(why) => Err(Failure::Unsent(why.into())),
            };
            done.push((place, result));
        }
        (self.address, done)
    }
}

/// Requests that are sent together. Made by [`Client::pipeline`].
///
/// Each has a result of its own. Those of one key are carried out in their order; those of different keys in any. Nothing is
/// atomic: others' requests may come between.
#[derive(Debug)]
pub struct Pipeline {
    client: Client,
    plans: Vec<Result<Plan, Error>>,
}

impl Client {
    /// Begins a pipeline.
    pub fn pipeline(&self) -> Pipeline {
        Pipeline { client: self.clone(), plans: Vec::new() }
    }
}

impl Pipeline {
    /// Adds any command, its name first. What is wrong with it shows in its result.
    pub fn command<A: AsRef<[u8]>>(&mut self, args: &[A]) -> &mut Pipeline {
        let args: Vec<&[u8]> = args.iter().map(AsRef::as_ref).collect();
        self.plans.push(plan(&args));
        self
    }

    /// Adds `GET`: bytes, or [`Reply::Null`].
    pub fn get(&mut self, key: impl AsRef<[u8]>) -> &mut Pipeline {
        self.command::<&[u8]>(&[b"GET", key.as_ref()])
    }

    /// Adds `SET`: `OK`.
    pub fn set(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Pipeline {
        self.command::<&[u8]>(&[b"SET", key.as_ref(), value.as_ref()])
    }

    /// Adds `DEL`: 1 or 0.
    pub fn del(&mut self, key: impl AsRef<[u8]>) -> &mut Pipeline {
        self.command::<&[u8]>(&[b"DEL", key.as_ref()])
    }

    /// Adds `INCRBY`: the new number.
    pub fn incr_by(&mut self, key: impl AsRef<[u8]>, by: i64) -> &mut Pipeline {
        self.command::<&[u8]>(&[b"INCRBY", key.as_ref(), by.to_string().as_bytes()])
    }

    /// How many requests it has.
    pub fn len(&self) -> usize {
        self.plans.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.plans.is_empty()
    }

    /// Sends all of them, and returns a result for each, in their order. The deadline is that of one call.
    pub async fn run(self) -> Vec<Result<Reply<'static>, Error>> {
        let parts: Vec<Request> =
            self.plans.iter().flatten().flat_map(|plan| plan.parts.iter().cloned()).collect();
        let mut replies = self.client.run_all(&parts).await.into_iter();
        let merged = self.plans.into_iter().map(|planned| {
            let plan = planned?;
            let of_plan = replies.by_ref().take(plan.parts.len()).collect();
            plan.merge(of_plan)
        });
        merged.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use command::CommandError;

    /// A round of one slot, a letter a request: `r` a read and `w` a write that are done, `R` and `W` refused for the moment,
    /// `f` a final refusal, `u` an unknown outcome. Its fates: `.` keeps, `+` is sent again, `x` is overtaken.
    fn fates(round: &str) -> String {
        let of = |letter: char| {
            let risk = if "rR".contains(letter) { Risk::None } else { Risk::Twice };
            let outcome = match letter {
                'r' | 'w' => Outcome::Done(Reply::ok()),
                'R' | 'W' => Outcome::Again(Failure::Said(CommandError::TryAgain { why: "moving".into() })),
                'f' => Outcome::Given(Error::Server(CommandError::WrongType)),
                _ => Outcome::Given(Error::OutcomeUnknown { why: "broken".into() }),
            };
            Tried { route: Route::Slot(Slot(7)), risk, outcome }
        };
        let tried: Vec<Tried> = round.chars().map(of).collect();
        let shown = |fate: Fate| match fate {
            Fate::Keeps => '.',
            Fate::Redone => '+',
            Fate::Overtaken => 'x',
        };
        redo(&tried).into_iter().map(shown).collect()
    }

    #[test]
    fn requests_of_a_slot_keep_their_order_when_sent_again() {
        for (round, expected) in [
            ("", ""),
            ("rwfu", "...."),
            ("W", "+"),
            ("wrW", "..+"),
            ("WWW", "+++"),
            // What reads behind it reads again; what was refused behind it is asked again.
            ("rWrf", ".+++"),
            // A write behind it was done, or may have been.
            ("Ww", "x."),
            ("Wu", "x."),
            ("Rw", "x."),
            ("WwW", "x.+"),
            ("WrwRrW", "x..+++"),
        ] {
            assert_eq!(fates(round), expected, "{round}");
        }
    }

    #[test]
    fn slots_do_not_concern_each_other() {
        let one = |slot, outcome| Tried { route: Route::Slot(Slot(slot)), risk: Risk::Twice, outcome };
        let again = || Outcome::Again(Failure::Unsent("refused".into()));
        let anywhere = Tried { route: Route::Any, risk: Risk::None, outcome: again() };
        let tried = [one(1, again()), one(2, Outcome::Done(Reply::ok())), anywhere];
        assert_eq!(redo(&tried), [Fate::Redone, Fate::Keeps, Fate::Redone]);
    }
}
