//! Connections whose last word is said, while the client may not know it yet.
//!
//! A node that stops ends each connection by finishing its own side of it (FIN), and then reads on for a moment and throws away what
//! still comes. Were the socket closed at once, whatever the client had on its way would be answered by a reset, which may
//! overtake the end of the connection and take replies along that the client has not read.

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, recv};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use types::Instant;

/// How long a client has to see the end of its connection.
const LINGER: Duration = Duration::from_millis(50);

/// Reads of one connection in a turn.
const READS_A_TURN: usize = 16;

/// Such connections of one thread.
#[derive(Default)]
pub struct Parting {
    /// Each until when it is read from.
    sockets: Vec<(OwnedFd, Instant)>,
}

impl Parting {
    /// Keeps a socket, the own side of which is finished. Where the process has no descriptor left it is not kept.
    pub fn keep(&mut self, now: Instant, socket: impl AsFd) {
        if let Ok(socket) = socket.as_fd().try_clone_to_owned() {
            self.sockets.push((socket, now + LINGER));
        }
    }

    /// Whether all are over.
    pub fn is_over(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Throws away what has come, and lets go who has seen the end, or had the time to.
    pub fn tick(&mut self, now: Instant, scratch: &mut [u8]) {
        self.sockets.retain(|(socket, until)| {
            for _ in 0..READS_A_TURN {
                match retry_on_intr(|| recv(socket, &mut *scratch, RecvFlags::DONTWAIT)) {
                    Ok((0, _)) => return false,
                    Ok(_) => {}
                    Err(Errno::AGAIN) => break,
                    Err(_) => return false,
                }
            }
            now < *until
        });
    }
}
