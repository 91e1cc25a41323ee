//! `CLIENT LIST`, `KILL` and `INFO`: what one client asks of all connections of its node.
//!
//! A shard knows its own connections only. So the one whose client asks sends the order to every other shard by letter,
//! answers for itself, and gathers what comes back. One order is under way at a time: a client that asks ten thousand
//! times is answered ten thousand times, but nobody's memory holds that many lists.

use crate::machine::Ticket;
use crate::threads::{Mail, Threads};
use command::{ClientAnswer, ClientOrder, Reply};
use std::collections::VecDeque;
use types::ShardId;

/// The orders that clients of one shard have given.
#[derive(Debug, Default)]
pub struct Orders {
    waiting: VecDeque<(Ticket, u64, ClientOrder)>,
    open: Option<Open>,
    next: u64,
}

#[derive(Debug)]
struct Open {
    number: u64,
    ticket: Ticket,
    order: ClientOrder,
    /// Shards that have not answered.
    missing: usize,
    answer: ClientAnswer,
}

/// An order for this shard's own connections.
#[derive(Debug)]
pub struct Own {
    /// The connection that asks.
    pub asker: u64,
    /// What it asks.
    pub order: ClientOrder,
    number: u64,
}

impl Orders {
    /// Clients have asked: the request, the number of the connection that asks, and what.
    pub fn add(&mut self, orders: &mut Vec<(Ticket, u64, ClientOrder)>) {
        self.waiting.extend(orders.drain(..));
    }

    /// Whether [`Orders::begin`] has something to do.
    pub fn can_begin(&self) -> bool {
        self.open.is_none() && !self.waiting.is_empty()
    }

    /// Begins the next order, if none is under way: it is sent to the other shards. The caller carries it out here, and
    /// gives the answer to [`Orders::answered`].
    pub fn begin(&mut self, here: ShardId, threads: &Threads) -> Option<Own> {
        if !self.can_begin() {
            return None;
        }
        let (ticket, asker, order) = self.waiting.pop_front()?;
        self.next += 1;
        let number = self.next;
        let mut missing = 1;
        if order != ClientOrder::Info {
            for (at, post) in threads.shards.iter().enumerate().filter(|&(at, _)| at != usize::from(here.0)) {
                debug_assert_ne!(at, usize::from(here.0));
                post.send(Mail::ClientOrder(here, number, order.clone()));
                missing += 1;
            }
        }
        self.open =
            Some(Open { number, ticket, order: order.clone(), missing, answer: ClientAnswer::default() });
        Some(Own { asker, order, number })
    }

    /// This shard's own answer.
    pub fn answered_here(&mut self, own: &Own, answer: ClientAnswer) -> Option<(Ticket, Reply<'static>)> {
        self.answered(own.number, answer)
    }

    /// A shard's answer; the reply, if it was the last.
    pub fn answered(&mut self, number: u64, answer: ClientAnswer) -> Option<(Ticket, Reply<'static>)> {
        let open = self.open.as_mut().filter(|open| open.number == number)?;
        open.answer.lines.extend(answer.lines);
        open.answer.closed += answer.closed;
        open.missing -= 1;
        if open.missing > 0 {
            return None;
        }
        let open = self.open.take()?;
        Some((open.ticket, open.order.reply(open.answer)))
    }
}
