//! Queues between threads, each joined to its reader's event loop by a waker.
//!
//! A waker costs a system call, so it is used only when the reader may be asleep: the first post after the reader
//! began to drain its box wakes it, those behind it need not.

use mio::Waker;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

/// The writing end. Clones share the queue.
#[derive(Debug)]
pub struct Post<T> {
    sender: mpsc::Sender<T>,
    shared: Arc<Shared>,
}

/// The reading end.
#[derive(Debug)]
pub struct Mailbox<T> {
    receiver: mpsc::Receiver<T>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    waker: Waker,
    woken: AtomicBool,
    waiting: AtomicUsize,
}

impl<T> Clone for Post<T> {
    fn clone(&self) -> Self {
        Post { sender: self.sender.clone(), shared: self.shared.clone() }
    }
}

/// A queue whose reader `waker` wakes.
pub fn mailbox<T>(waker: Waker) -> (Post<T>, Mailbox<T>) {
    let (sender, receiver) = mpsc::channel();
    let shared = Arc::new(Shared { waker, woken: AtomicBool::new(false), waiting: AtomicUsize::new(0) });
    (Post { sender, shared: shared.clone() }, Mailbox { receiver, shared })
}

impl<T> Post<T> {
    /// Posts what is bounded by its nature, as a client's connection is. Lost where the reader is gone.
    pub fn send(&self, item: T) {
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        if self.sender.send(item).is_err() {
            return;
        }
        if !self.shared.woken.swap(true, Ordering::SeqCst) {
            // An eventfd that cannot be written is full, so the reader is awake.
            let _ = self.shared.waker.wake();
        }
    }

    /// Posts unless `most` items wait already; gives the item back then.
    pub fn send_below(&self, most: usize, item: T) -> Result<(), T> {
        if self.shared.waiting.load(Ordering::Relaxed) >= most {
            return Err(item);
        }
        self.send(item);
        Ok(())
    }
}

impl<T> Mailbox<T> {
    /// To be called before draining: whoever posts from now on wakes the reader again.
    pub fn arm(&self) {
        self.shared.woken.store(false, Ordering::SeqCst);
    }

    /// The next item, if one waits.
    pub fn take(&self) -> Option<T> {
        let item = self.receiver.try_recv().ok()?;
        self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll, Token};
    use std::time::Duration;

    #[test]
    fn a_post_wakes_its_reader_once_and_the_bound_holds() {
        let mut poll = Poll::new().unwrap();
        let (post, mailbox) = mailbox(Waker::new(poll.registry(), Token(7)).unwrap());
        post.send(1);
        post.send(2);
        assert_eq!(post.send_below(2, 3), Err(3));
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
        assert_eq!(events.iter().count(), 1);
        mailbox.arm();
        assert_eq!((mailbox.take(), mailbox.take(), mailbox.take()), (Some(1), Some(2), None));
        assert_eq!(post.send_below(2, 4), Ok(()));
        poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
        assert_eq!(events.iter().count(), 1);
    }
}
