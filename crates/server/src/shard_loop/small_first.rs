//! Who asks for little at a time does not wait for those that ask for much at once: of what one turn brings, what is quickly done goes
//! first, and its replies go out before the rest is begun.
//!
//! Each turn does all that it has found, so nobody waits for longer than a turn because of that.

use crate::ring::Completion;

/// Puts completions in order.
#[derive(Default)]
pub(super) struct SmallFirst {
    turn: u64,
    /// Empty: what they are sorted into.
    first: Vec<Completion>,
    rest: Vec<Completion>,
}

impl SmallFirst {
    /// Puts what brought few bytes before the rest, where something brought many. What is of one connection keeps its order: `is_its_first`
    /// tells of a connection and a turn whether it is asked for the first time. Returns how many come first.
    pub fn sort(
        &mut self,
        completions: &mut Vec<Completion>,
        mut is_its_first: impl FnMut(u64, u64) -> bool,
    ) -> usize {
        let there_is = |what: fn(Completion) -> bool| completions.iter().any(|&completion| what(completion));
        if !there_is(Completion::is_small) || !there_is(Completion::is_large) {
            return 0;
        }
        self.turn += 1;
        for completion in completions.drain(..) {
            let is_first = completion.key().is_some_and(|key| is_its_first(key, self.turn));
            let part = if is_first && completion.is_small() { &mut self.first } else { &mut self.rest };
            part.push(completion);
        }
        let count = self.first.len();
        completions.append(&mut self.first);
        completions.append(&mut self.rest);
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Ring;
    use crate::testing::FakeNode;
    use mio::Poll;
    use std::collections::HashMap;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::os::fd::AsRawFd;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    /// Received bytes by connection, and 0 for what is no receiving.
    fn sorted(
        turn: &mut SmallFirst,
        heard: &mut HashMap<u64, u64>,
        came: &[(u64, i32)],
    ) -> (usize, Vec<(u64, i32)>) {
        let completion = |&(key, result): &(u64, i32)| match result {
            0 => Completion::Sent { key, result },
            _ => Completion::Received { key, buffer: None, result, more: true },
        };
        let mut completions: Vec<Completion> = came.iter().map(completion).collect();
        let first = turn.sort(&mut completions, |key, turn| heard.insert(key, turn) != Some(turn));
        let seen = completions.iter().map(|completion| match *completion {
            Completion::Received { key, result, .. } | Completion::Sent { key, result } => (key, result),
            _ => unreachable!("there is no other"),
        });
        (first, seen.collect())
    }

    #[test]
    fn what_is_small_comes_first_and_each_connection_keeps_its_order() {
        let (mut turn, mut heard) = (SmallFirst::default(), HashMap::new());
        let mut sorted = |came: &[(u64, i32)]| sorted(&mut turn, &mut heard, came);
        assert_eq!(
            sorted(&[(1, 2000), (2, 30), (3, 1600), (4, 512), (5, 513)]),
            (2, vec![(2, 30), (4, 512), (1, 2000), (3, 1600), (5, 513)])
        );
        // The end of a large request, and what follows a small one.
        assert_eq!(
            sorted(&[(1, 2000), (1, 30), (2, 40), (2, 2000), (2, 10), (3, 0), (3, 20)]),
            (1, vec![(2, 40), (1, 2000), (1, 30), (2, 2000), (2, 10), (3, 0), (3, 20)])
        );
        // The next turn is another.
        assert_eq!(sorted(&[(3, 9000), (2, 40)]), (1, vec![(2, 40), (3, 9000)]));
        // An error and an end are not small.
        assert_eq!(sorted(&[(1, -104), (2, 40), (3, 9000)]), (1, vec![(2, 40), (1, -104), (3, 9000)]));
    }

    /// On real sockets, before a shard that stands still twice: while all of it arrives, and in the midst of what is large.
    #[test]
    fn a_small_request_is_answered_before_a_large_one_is_begun() {
        let poll = Poll::new().unwrap();
        if let Err(error) = Ring::new(poll.as_raw_fd()) {
            let _ = writeln!(
                std::io::stderr(),
                "\nLEFT OUT: small requests first: there is no io_uring: {error}\n"
            );
            return;
        }
        let node = FakeNode::alone_with("io_uring");
        let connect = || {
            let stream = TcpStream::connect(node.port).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream
        };
        let [mut busy, mut large, mut small] = [connect(), connect(), connect()];
        let hears = |stream: &mut TcpStream, expected: &str| {
            let mut heard = vec![0; expected.len()];
            stream.read_exact(&mut heard).unwrap();
            assert_eq!(String::from_utf8_lossy(&heard), expected);
        };
        // They are served, all of them.
        for stream in [&mut busy, &mut large, &mut small] {
            stream.write_all(b"ECHO a\r\n").unwrap();
            hears(stream, "$1\r\na\r\n");
        }
        busy.write_all(b"HOLD\r\n").unwrap();
        while node.ran.load(Ordering::SeqCst) < 4 {
            std::thread::yield_now();
        }
        let value = "v".repeat(2000);
        large.write_all(format!("HOLD\r\nECHO {value}\r\n").as_bytes()).unwrap();
        small.write_all(b"ECHO b\r\n").unwrap();
        node.release.send(()).unwrap();
        hears(&mut busy, "+OK\r\n");
        hears(&mut small, "$1\r\nb\r\n");
        node.release.send(()).unwrap();
        hears(&mut large, &format!("+OK\r\n$2000\r\n{value}\r\n"));
    }

    #[test]
    fn where_all_are_alike_nothing_is_sorted() {
        let (mut turn, mut heard) = (SmallFirst::default(), HashMap::new());
        let all = [
            &[(1, 30), (2, 40), (1, 50)][..],
            &[(1, 3000), (2, 0), (1, 5000)],
            &[(1, 0), (2, 40), (3, -104)],
            &[],
        ];
        for came in all {
            assert_eq!(sorted(&mut turn, &mut heard, came), (0, came.to_vec()));
        }
        assert!(heard.is_empty(), "nobody is asked");
    }
}
