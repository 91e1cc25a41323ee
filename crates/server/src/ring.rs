//! Clients' sockets over io_uring: what the kernel has received is taken in batches, and what is to be sent is handed
//! over in one system call a turn, or in two where some are answered before the others.
//!
//! Everything else that a thread waits for (its letter box, its links, its timers) stays with epoll: the ring watches the
//! epoll descriptor like one more socket, so that one wait covers both. A kernel or a sandbox that refuses any part of
//! this is served by epoll alone: [`Ring::new`] finds out.
//!
//! Receiving is *multishot*: asked for once, it completes again and again, each time into a buffer of a pool that the
//! kernel chooses from. The reader gives each buffer back once it has been read. Where the pool runs dry, receiving
//! ends, and is asked for again.
//!
//! What is being sent must not move or be freed until its completion has come, also when the connection is closed
//! meanwhile: [`Ring::bury`] keeps such a connection until the kernel has let go of it.

use crate::connection::{Connection, Dead};
use io_uring::types::{BufRingEntry, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// Operations that wait to be handed to the kernel, at most; more are handed over at once.
const SUBMISSIONS: u32 = 1024;
const COMPLETIONS: u32 = 8192;
/// Buffers for what is received: a power of two.
const BUFFERS: u16 = 128;
const BUFFER_BYTES: usize = 16 * 1024;
const BUFFER_GROUP: u16 = 0;
const PAGE: usize = 4096;

/// The upper bits of an operation's name; the rest is the connection's key.
const OP_SHIFT: u32 = 61;
const RECEIVE: u64 = 0;
const SEND: u64 = 1;
const CANCEL: u64 = 2;
const WATCH: u64 = 3;
const BREAK: u64 = 4;
const KEY_MASK: u64 = (1 << OP_SHIFT) - 1;

/// What the kernel has to do with one connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flight {
    /// Receiving was asked for and has not ended.
    pub receiving: bool,
    /// Its end was asked for.
    pub cancelling: bool,
    /// Something is being sent.
    pub sending: bool,
    /// It is not received from, and the ring says if it breaks.
    pub watched: bool,
    /// The client has finished sending, so that watching would tell that at once, and no more.
    pub half_closed: bool,
}

impl Flight {
    fn is_over(self) -> bool {
        !self.receiving && !self.sending && !self.watched
    }
}

/// What has happened.
#[derive(Clone, Copy, Debug)]
pub enum Completion {
    /// The watched descriptor has events.
    Watched,
    /// A connection has received something, or cannot.
    Received {
        /// The connection.
        key: u64,
        /// What came. [`Ring::give_back`] follows.
        buffer: Option<Buffer>,
        /// 0: the client has finished. Negative: an error.
        result: i32,
        /// Whether more will come without being asked for.
        more: bool,
    },
    /// A connection has sent this many bytes, or cannot (a negative number).
    Sent {
        /// The connection.
        key: u64,
        /// Bytes, or an error.
        result: i32,
    },
    /// A connection that is not received from has broken, or its client has finished sending.
    Broken {
        /// The connection.
        key: u64,
        /// Which of the two: the events of poll(2).
        result: i32,
    },
}

impl Completion {
    /// The connection that it is about.
    pub fn key(self) -> Option<u64> {
        match self {
            Completion::Received { key, .. }
            | Completion::Sent { key, .. }
            | Completion::Broken { key, .. } => Some(key),
            Completion::Watched => None,
        }
    }

    /// Whether bytes were received, and few.
    pub fn is_small(self) -> bool {
        matches!(self, Completion::Received { result: 1..=SMALL_BYTES, .. })
    }

    /// Whether bytes were received, and not few.
    pub fn is_large(self) -> bool {
        matches!(self, Completion::Received { result, .. } if result > SMALL_BYTES)
    }
}

/// A request or a few, without large values.
const SMALL_BYTES: i32 = 512;

/// Received bytes.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    id: u16,
    len: usize,
}

/// One thread's ring.
pub struct Ring {
    ring: IoUring,
    buffers: Buffers,
    watched: RawFd,
    /// Connections that are closed, but that the kernel still works for.
    graves: HashMap<u64, Box<Connection>>,
}

impl Ring {
    /// A ring for this thread alone, which also watches another descriptor. An error where the system has not all that
    /// is needed (Linux 6.1 has), or forbids it.
    pub fn new(watched: RawFd) -> io::Result<Ring> {
        let ring: IoUring = IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .build(SUBMISSIONS)?;
        let params = ring.params();
        if !params.is_feature_ext_arg() || !params.is_feature_nodrop() || !params.is_feature_fast_poll() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let buffers = Buffers::new();
        // SAFETY: the entries are as many as said, page-aligned, and are never freed.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                buffers.entries.as_ptr() as u64,
                BUFFERS,
                BUFFER_GROUP,
                0,
            )?;
        }
        let mut ring = Ring { ring, buffers, watched, graves: HashMap::new() };
        ring.watch();
        // The kernel says at once whether it knows these operations.
        ring.enter(0, Duration::ZERO)?;
        Ok(ring)
    }

    fn watch(&mut self) {
        let readable = rustix::event::PollFlags::IN.bits();
        let entry = opcode::PollAdd::new(Fd(self.watched), u32::from(readable)).multi(true).build();
        self.push(entry.user_data(WATCH << OP_SHIFT));
    }

    /// Asks for what a connection receives, until [`Completion::Received`] says that no more comes.
    fn receive(&mut self, connection: &mut Connection) {
        let entry = opcode::RecvMulti::new(Fd(connection.raw_fd()), BUFFER_GROUP).build();
        connection.flight.receiving = true;
        self.push(entry.user_data(RECEIVE << OP_SHIFT | connection.key));
    }

    /// Sends what a connection has to say, and sees to it that it receives if it should.
    pub fn serve(&mut self, connection: &mut Connection) -> Result<(), Dead> {
        connection.check()?;
        self.send(connection);
        match connection.wants_input() {
            true if !connection.flight.receiving => self.receive(connection),
            false if connection.flight.receiving => self.stop_receiving(connection),
            false if !connection.flight.watched && !connection.flight.half_closed => {
                self.watch_for_break(connection)
            }
            _ => {}
        }
        Ok(())
    }

    /// Nothing is read that would tell: errors and hang-ups are always reported, without being asked for.
    fn watch_for_break(&mut self, connection: &mut Connection) {
        let entry = opcode::PollAdd::new(Fd(connection.raw_fd()), 0).build();
        connection.flight.watched = true;
        self.push(entry.user_data(BREAK << OP_SHIFT | connection.key));
    }

    /// Whether a watched connection is of no more use.
    pub fn is_broken(connection: &mut Connection, result: i32) -> bool {
        use rustix::event::PollFlags;
        connection.flight.watched = false;
        let events = PollFlags::from_bits_retain(result.max(0) as u16);
        connection.flight.half_closed = events.contains(PollFlags::RDHUP);
        result > 0 && events.intersects(PollFlags::HUP | PollFlags::ERR)
    }

    /// A completion has said whether more comes.
    pub fn received(&mut self, connection: &mut Connection, more: bool) {
        connection.flight.receiving = more;
        connection.flight.cancelling &= more;
    }

    /// Whether receiving just ended, and may be asked for again: it was told to, or the pool had run dry.
    pub fn is_passing(result: i32) -> bool {
        let is = |errno: rustix::io::Errno| result == -errno.raw_os_error();
        is(rustix::io::Errno::CANCELED) || is(rustix::io::Errno::NOBUFS) || is(rustix::io::Errno::INTR)
    }

    /// Asks for no more.
    fn stop_receiving(&mut self, connection: &mut Connection) {
        if connection.flight.receiving && !connection.flight.cancelling {
            connection.flight.cancelling = true;
            self.cancel(RECEIVE, connection.key);
        }
    }

    /// Sends what a connection has, if nothing of it is being sent yet.
    fn send(&mut self, connection: &mut Connection) {
        if connection.flight.sending {
            return;
        }
        let fd = Fd(connection.raw_fd());
        let Some(bytes) = connection.next_to_send() else { return };
        let no_signal = rustix::net::SendFlags::NOSIGNAL.bits() as i32;
        let entry = opcode::Send::new(fd, bytes.as_ptr(), bytes.len() as u32).flags(no_signal).build();
        connection.flight.sending = true;
        self.push(entry.user_data(SEND << OP_SHIFT | connection.key));
    }

    /// Takes a closed connection, and drops it once the kernel is done with it.
    pub fn bury(&mut self, mut connection: Box<Connection>) {
        let (flight, key) = (connection.flight, connection.key);
        if flight.is_over() {
            return;
        }
        let _ = connection.shut_down();
        self.graves.insert(key, connection);
        if flight.receiving && !flight.cancelling {
            self.cancel(RECEIVE, key);
        }
        if flight.sending {
            self.cancel(SEND, key);
        }
        if flight.watched {
            self.cancel(BREAK, key);
        }
    }

    fn cancel(&mut self, op: u64, key: u64) {
        let entry = opcode::AsyncCancel::new(op << OP_SHIFT | key).build();
        self.push(entry.user_data(CANCEL << OP_SHIFT | key));
    }

    fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: what an entry points to lives until its completion: sent bytes in a connection that is kept until
        // then, buffers for ever.
        while unsafe { self.ring.submission().push(&entry).is_err() } {
            // Full: the kernel takes what there is. It cannot fail for good while the ring lives.
            let _ = self.ring.submit();
        }
    }

    /// Hands over what was asked for. What cannot be taken now is handed over with the next wait.
    pub fn submit(&mut self) {
        if !self.ring.submission().is_empty() {
            let _ = self.ring.submit();
        }
    }

    /// Hands over what was asked for, and waits for something to happen.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        self.enter(1, timeout)
    }

    fn enter(&mut self, want: usize, timeout: Duration) -> io::Result<()> {
        let time = Timespec::new().sec(timeout.as_secs()).nsec(timeout.subsec_nanos());
        let args = SubmitArgs::new().timespec(&time);
        match self.ring.submitter().submit_with_args(want, &args) {
            Ok(_) => Ok(()),
            // Time has passed, or a signal came, or there is more to take first.
            Err(error)
                if error.kind() == io::ErrorKind::Interrupted
                    || error.raw_os_error() == Some(rustix::io::Errno::TIME.raw_os_error())
                    || error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Appends what has happened.
    pub fn take(&mut self, completions: &mut Vec<Completion>) {
        let mut watch_again = false;
        for entry in self.ring.completion() {
            let (op, key) = (entry.user_data() >> OP_SHIFT, entry.user_data() & KEY_MASK);
            let (result, more) = (entry.result(), cqueue::more(entry.flags()));
            match op {
                RECEIVE => {
                    let id = cqueue::buffer_select(entry.flags());
                    let buffer = id.map(|id| Buffer { id, len: result.max(0) as usize });
                    completions.push(Completion::Received { key, buffer, result, more });
                }
                SEND => completions.push(Completion::Sent { key, result }),
                BREAK => completions.push(Completion::Broken { key, result }),
                WATCH => {
                    watch_again |= !more;
                    completions.push(Completion::Watched);
                }
                _ => {}
            }
        }
        if watch_again {
            self.watch();
        }
    }

    /// What was received. The buffer must have come with a completion and not been given back.
    pub fn bytes(&mut self, buffer: Buffer) -> &mut [u8] {
        self.buffers.bytes(buffer)
    }

    /// Lets the kernel use a buffer again.
    pub fn give_back(&mut self, buffer: Buffer) {
        self.buffers.give_back(buffer.id);
    }

    /// The thread ends. What the kernel still works for is left where it is, and goes with the process.
    pub fn close(mut self, connections: impl Iterator<Item = Box<Connection>>) {
        for mut connection in connections {
            let _ = connection.shut_down();
            if !connection.flight.is_over() {
                std::mem::forget(connection);
            }
        }
        std::mem::forget(std::mem::take(&mut self.graves));
    }

    /// A completion of a connection that is closed.
    pub fn completed_in_grave(&mut self, completion: Completion) {
        let Some(key) = completion.key() else { return };
        if let Completion::Received { buffer: Some(buffer), .. } = completion {
            self.give_back(buffer);
        }
        let Some(connection) = self.graves.get_mut(&key) else { return };
        match completion {
            Completion::Received { more, .. } => connection.flight.receiving &= more,
            Completion::Broken { .. } => connection.flight.watched = false,
            _ => connection.flight.sending = false,
        }
        if connection.flight.is_over() {
            self.graves.remove(&key);
        }
    }
}

/// The pool of buffers and the ring by which the kernel is told which are free. Neither is ever freed: when a ring is
/// closed the kernel may still write to them for a moment, and a ring lives as long as its thread.
struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    tail: u16,
}

impl Buffers {
    fn new() -> Buffers {
        let entries = allocate(usize::from(BUFFERS) * size_of::<BufRingEntry>()).cast();
        let memory = allocate(usize::from(BUFFERS) * BUFFER_BYTES);
        let mut buffers = Buffers { entries, memory, tail: 0 };
        (0..BUFFERS).for_each(|id| buffers.give_back(id));
        buffers
    }

    fn bytes(&mut self, buffer: Buffer) -> &mut [u8] {
        debug_assert!(buffer.id < BUFFERS && buffer.len <= BUFFER_BYTES);
        // SAFETY: within the memory, and the kernel does not write to a buffer that was not given back.
        unsafe {
            let start = self.memory.as_ptr().add(usize::from(buffer.id % BUFFERS) * BUFFER_BYTES);
            std::slice::from_raw_parts_mut(start, buffer.len.min(BUFFER_BYTES))
        }
    }

    fn give_back(&mut self, id: u16) {
        // SAFETY: the index lies within the entries, which only this thread writes; the kernel reads no further than
        // the tail, which is published after the entry.
        unsafe {
            let start = self.memory.as_ptr().add(usize::from(id) * BUFFER_BYTES);
            let entry = &mut *self.entries.as_ptr().add(usize::from(self.tail % BUFFERS));
            entry.set_addr(start as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

fn allocate(bytes: usize) -> NonNull<u8> {
    let Ok(layout) = Layout::from_size_align(bytes.next_multiple_of(PAGE), PAGE) else {
        unreachable!("a few megabytes in pages")
    };
    // SAFETY: the size is not zero.
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}

// SAFETY: the pointers are to memory that only this ring and the kernel use.
unsafe impl Send for Buffers {}
