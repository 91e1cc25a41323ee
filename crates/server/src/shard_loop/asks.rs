//! What the doors on the runtime ask of a shard ([`crate::desk`]): each question is run like the request of a connection that
//! sends one and goes.

use crate::clock;
use crate::desk::{Asked, Question};
use crate::machine::{Answer, ShardMachine, Ticket};
use command::{CommandError, Pause, Reply, Session};
use std::collections::{HashMap, VecDeque};
use tokio::sync::oneshot;
use types::Instant;
use types::settings::Settings;

/// Sets the keys of questions apart from those of connections.
const QUESTION: u64 = 1 << 63;

/// The questions that are under way on a shard.
#[derive(Default)]
pub(super) struct Asks {
    last: u64,
    open: HashMap<u64, Open>,
    /// Those that wait for the end of a pause.
    held: VecDeque<Asked>,
}

/// One that is answered later.
struct Open {
    answer: oneshot::Sender<Reply<'static>>,
    command: usize,
    began: Instant,
}

impl Asks {
    /// Runs a question, or keeps it until a pause is over. `now` must have been read after it came.
    pub fn ask<M: ShardMachine>(
        &mut self,
        now: Instant,
        machine: &mut M,
        asked: Asked,
        id: u64,
        settings: &Settings,
    ) {
        let args: smallvec::SmallVec<[&[u8]; 8]> = asked.question.args.iter().map(|arg| &arg[..]).collect();
        if args.is_empty() {
            let _ = asked.answer.send(Reply::Error(CommandError::Syntax));
            return;
        }
        let pause = machine.pause(now);
        if pause != Pause::Off && pause.holds(&args) {
            drop(args);
            self.held.push_back(asked);
            return;
        }
        self.last += 1;
        let key = QUESTION | self.last;
        let mut session = session(&asked.question, id, settings);
        let preview = machine.preview(&args);
        let mut reply = None;
        let ticket = Ticket { connection: key, sequence: 0 };
        let answer = machine.request(now, ticket, &mut session, &args, &preview, &mut |said| {
            reply = Some(said.clone().into_owned());
        });
        let command = machine.command_at_hand();
        match answer {
            Answer::Later | Answer::Alone => {
                self.open.insert(key, Open { answer: asked.answer, command, began: now });
            }
            Answer::Now => {
                let reply = reply.unwrap_or(Reply::Null);
                let took_ns = clock::now().since(now).as_nanos() as u64;
                if took_ns >= machine.slow_ns() {
                    machine.slow(&session, &args, took_ns);
                }
                count(machine, command, took_ns, &reply);
                machine.closed(key);
                // Whoever asked may have gone.
                let _ = asked.answer.send(reply);
            }
        }
    }

    /// Whether a reply of the machine is to a question.
    pub fn is_question(ticket: Ticket) -> bool {
        ticket.connection & QUESTION != 0
    }

    /// The machine's reply to a question that it did not answer at once.
    pub fn reply<M: ShardMachine>(&mut self, now: Instant, machine: &mut M, key: u64, reply: Reply<'static>) {
        machine.closed(key);
        let Some(open) = self.open.remove(&key) else { return };
        count(machine, open.command, now.since(open.began).as_nanos() as u64, &reply);
        let _ = open.answer.send(reply);
    }

    /// Those that a pause held, once it is over.
    pub fn take_held(&mut self) -> VecDeque<Asked> {
        std::mem::take(&mut self.held)
    }

    /// Whether a pause holds any.
    pub fn is_held(&self) -> bool {
        !self.held.is_empty()
    }
}

fn session(question: &Question, id: u64, settings: &Settings) -> Session {
    let mut session = Session::new(id, question.scope, settings);
    session.protocol = 3;
    session.authenticated = true;
    session.administrates = question.administrates;
    session.read_level = question.read_level.unwrap_or(settings.read_level);
    session.write_level = question.write_level.unwrap_or(settings.write_level);
    session.address = question.asker.as_ref().to_owned();
    session
}

fn count<M: ShardMachine>(machine: &mut M, command: usize, took_ns: u64, reply: &Reply<'_>) {
    let error = if let Reply::Error(error) = reply { Some(error) } else { None };
    match (command, error) {
        (usize::MAX, Some(error)) => machine.refused(error),
        (usize::MAX, None) => {}
        (command, error) => machine.answered(command, 1, took_ns, error),
    }
}
