//! What the doors on the runtime ask of a shard ([`crate::desk`]): each question is run like the request of a connection that
//! sends one, or one more after that, and goes.

use crate::clock;
use crate::desk::{Asked, Question};
use crate::machine::{Answer, Request, ShardMachine, Ticket};
use bytes::Bytes;
use command::{CommandError, Pause, Reply, Session};
use std::collections::{HashMap, VecDeque};
use storage::Lent;
use types::Instant;
use types::settings::Settings;

/// Sets the keys of questions apart from those of connections.
const QUESTION: u64 = 1 << 63;

/// The questions that are under way on a shard.
#[derive(Default)]
pub(super) struct Asks {
    last: u64,
    open: HashMap<u64, Open>,
    /// Those whose first command is answered, and whose second is to be run.
    second: VecDeque<(u64, Open)>,
    /// Those that wait for the end of a pause.
    held: VecDeque<Asked>,
}

/// One that is answered later.
struct Open {
    asked: Asked,
    session: Session,
    /// The reply to its first command, while the second is under way.
    first: Option<Reply<'static>>,
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
        if asked.question.args.is_empty() {
            let _ = asked.answer.send(Reply::Error(CommandError::Syntax));
            return;
        }
        let pause = machine.pause(now);
        if pause != Pause::Off && pause.holds(&slices(&asked.question.args)) {
            self.held.push_back(asked);
            return;
        }
        self.last += 1;
        let session = session(&asked.question, id, settings);
        let open = Open { asked, session, first: None, command: usize::MAX, began: now };
        self.run(now, machine, QUESTION | self.last, open);
    }

    /// Runs the command that is next of a question.
    fn run<M: ShardMachine>(&mut self, now: Instant, machine: &mut M, key: u64, mut open: Open) {
        let question = &open.asked.question;
        let words = if open.first.is_none() { &question.args } else { &question.then };
        let args = slices(words);
        let lent = Lent::Args(words);
        let request = Request { args: &args, preview: machine.preview(&args), lent: Some(&lent) };
        let mut reply = None;
        let ticket = Ticket { connection: key, sequence: open.first.is_some().into() };
        let answer = machine.request(now, ticket, &mut open.session, &request, &mut |said| {
            reply = Some(said.clone().into_owned());
        });
        (open.command, open.began) = (machine.command_at_hand(), now);
        match answer {
            Answer::Later | Answer::Alone => {
                drop(args);
                self.open.insert(key, open);
            }
            Answer::Now => {
                let reply = reply.unwrap_or(Reply::Null);
                let took_ns = clock::now().since(now).as_nanos() as u64;
                if took_ns >= machine.slow_ns() {
                    machine.slow(&open.session, &args, took_ns);
                }
                drop(args);
                count(machine, open.command, took_ns, &reply);
                self.go_on(machine, key, open, reply);
            }
        }
    }

    /// A command of a question has been answered.
    fn go_on<M: ShardMachine>(&mut self, machine: &mut M, key: u64, mut open: Open, reply: Reply<'static>) {
        let reply = match open.first.take() {
            None if !open.asked.question.then.is_empty() && !matches!(reply, Reply::Error(_)) => {
                open.first = Some(reply);
                self.second.push_back((key, open));
                return;
            }
            None => reply,
            Some(first) => Reply::Array(vec![first, reply]),
        };
        machine.closed(key);
        // Whoever asked may have gone.
        let _ = open.asked.answer.send(reply);
    }

    /// Runs the second commands of questions whose first were answered. Not within [`Asks::reply`]: that is called while what the
    /// machine wants done is carried out, and a command makes it want more.
    pub fn run_second<M: ShardMachine>(&mut self, machine: &mut M) {
        while let Some((key, open)) = self.second.pop_front() {
            self.run(clock::now(), machine, key, open);
        }
    }

    /// Whether there are such ones.
    pub fn has_second(&self) -> bool {
        !self.second.is_empty()
    }

    /// Whether a reply of the machine is to a question.
    pub fn is_question(ticket: Ticket) -> bool {
        ticket.connection & QUESTION != 0
    }

    /// The machine's reply to a question that it did not answer at once.
    pub fn reply<M: ShardMachine>(&mut self, now: Instant, machine: &mut M, key: u64, reply: Reply<'static>) {
        let Some(open) = self.open.remove(&key) else {
            machine.closed(key);
            return;
        };
        count(machine, open.command, now.since(open.began).as_nanos() as u64, &reply);
        self.go_on(machine, key, open, reply);
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

fn slices(args: &[Bytes]) -> smallvec::SmallVec<[&[u8]; 8]> {
    args.iter().map(|arg| &arg[..]).collect()
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
