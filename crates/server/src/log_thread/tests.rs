//! Syncs, and what is done beside a log's writes, take as long as the test wants.

use super::*;
use crate::disk::RealDisk;
use crate::mailbox::{Mailbox, mailbox};
use crate::testing::TempDir;
use bytes::Bytes;
use mio::{Poll, Token};
use node::recover::{RecoverConfig, open_shard};
use replication::Durability;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Condvar, Mutex};
use std::thread::JoinHandle;
use storage::{ShardLogOptions, Sink};
use types::NodeId;

const SHARD: ShardId = ShardId(0);
/// After so long something is taken for what never comes.
const PATIENCE: Duration = Duration::from_secs(60);
/// A write that is not answered within that time waits for something.
const A_WHILE: Duration = Duration::from_millis(500);

/// The disk, whose syncs take as long as the test wants, and on which huge writes leave a hole.
#[derive(Clone, Default)]
struct TestDisk(Arc<(Mutex<Syncs>, Condvar)>);

#[derive(Default)]
struct Syncs {
    are_held: bool,
    waiting: usize,
}

impl TestDisk {
    fn hold_syncs(&self, hold: bool) {
        self.0.0.lock().unwrap().are_held = hold;
        self.0.1.notify_all();
    }

    fn await_sync(&self) {
        let syncs = self.0.0.lock().unwrap();
        let (syncs, _) = self.0.1.wait_timeout_while(syncs, PATIENCE, |syncs| syncs.waiting == 0).unwrap();
        assert!(syncs.waiting > 0, "nothing is synced");
    }
}

impl Disk for TestDisk {
    type File = File;

    fn sync(&self, file: &File) -> io::Result<()> {
        let mut syncs = self.0.0.lock().unwrap();
        syncs.waiting += 1;
        self.0.1.notify_all();
        let mut syncs = self.0.1.wait_while(syncs, |syncs| syncs.are_held).unwrap();
        syncs.waiting -= 1;
        drop(syncs);
        RealDisk.sync(file)
    }

    fn create_dir_all(&self, directory: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(directory)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(directory)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        RealDisk.open(path)
    }

    fn len(&self, file: &File) -> io::Result<u64> {
        RealDisk.len(file)
    }

    fn read(&self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        RealDisk.read(file, offset, buffer)
    }

    fn write_at(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if storage::lent::is_huge(bytes.len()) {
            return RealDisk.truncate(file, offset + bytes.len() as u64);
        }
        RealDisk.write_at(file, offset, bytes)
    }

    fn truncate(&self, file: &File, bytes: u64) -> io::Result<()> {
        RealDisk.truncate(file, bytes)
    }

    fn allocate(&self, _: &File, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        RealDisk.sync_dir(directory)
    }
}

/// A log's thread, and what it hears and says.
struct Running {
    disk: TestDisk,
    feed: LogFeed,
    mailbox: Mailbox<Mail>,
    tasks: Receiver<Task<TestDisk>>,
    reports: Sender<Report<File>>,
    thread: JoinHandle<u64>,
    turn: u64,
    answered: u64,
    /// Where the log ended then.
    log_end: u64,
    // Both outlive the thread.
    _poll: Poll,
    _directory: TempDir,
}

/// What a log's threads are made of, their letter box, and what has to outlive them.
fn parts<D: Disk + Clone>(
    disk: D,
    fsync: Fsync,
    segment_bytes: u64,
    feed: LogFeed,
) -> (LogParts<D>, Mailbox<Mail>, (Poll, TempDir)) {
    let directory = TempDir::new();
    let config = RecoverConfig {
        node: NodeId(1),
        shard: SHARD,
        identity: [7; 32],
        hash_seed: 0,
        durability: Durability::Disk,
        log: ShardLogOptions { segment_bytes },
        ended_at: 0,
    };
    let opened = open_shard(&disk, directory.path(), &config, &mut |_| {}).unwrap();
    let poll = Poll::new().unwrap();
    let (post, mailbox) = mailbox(mio::Waker::new(poll.registry(), Token(0)).unwrap());
    let (snapshots, _) = mpsc::channel();
    let (freer, _) = mpsc::channel();
    let published = Arc::new(Published::new(1));
    let (log, begin) = (opened.log, opened.begin);
    let parts = LogParts { log, begin, feed, shard: SHARD, post, fsync, published, snapshots, freer };
    (parts, mailbox, (poll, directory))
}

impl Running {
    fn start(fsync: Fsync, segment_bytes: u64) -> Running {
        let disk = TestDisk::default();
        let feed = LogFeed::default();
        let (parts, mailbox, (poll, directory)) = parts(disk.clone(), fsync, segment_bytes, feed.clone());
        let (thread, Beside { tasks, reports, .. }) = new(parts);
        // Where a test fails the thread goes on waiting: its own failure would end the process without a word of the other.
        std::mem::forget(reports.clone());
        let thread = std::thread::spawn(move || thread.run());
        Running {
            disk,
            feed,
            mailbox,
            tasks,
            reports,
            thread,
            turn: 0,
            answered: 0,
            log_end: 0,
            _poll: poll,
            _directory: directory,
        }
    }

    /// Hands over a turn of so many bytes. Whether the log's thread says within a while that it is written.
    fn write(&mut self, bytes: usize) -> bool {
        self.turn += 1;
        let mut rope = Rope::default();
        rope.bytes().resize(bytes, 7);
        self.feed.push(self.turn, &mut rope);
        self.is_answered(A_WHILE)
    }

    fn is_answered(&mut self, within: Duration) -> bool {
        let until = clock::now() + within;
        while self.answered < self.turn && clock::now() < until {
            match self.mailbox.take() {
                Some(Mail::Logged(turn, end)) => (self.answered, self.log_end) = (turn, end),
                Some(other) => panic!("{other:?}"),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        self.answered == self.turn
    }

    /// Writes until a write waits for something, which it has no reason to before `may_wait` says so: a slow one is waited for. There
    /// are fewer than `most` before.
    fn write_until_one_waits(&mut self, bytes: usize, most: u64, may_wait: impl Fn(u64) -> bool) {
        let before = self.turn;
        loop {
            let pushed = clock::now();
            let mut is_answered = self.write(bytes);
            while !is_answered {
                if may_wait(self.turn) {
                    return;
                }
                assert!(clock::now().since(pushed) < PATIENCE, "a write waits too soon");
                is_answered = self.is_answered(A_WHILE);
            }
            assert!(self.turn - before < most, "no write waits");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn next_task(&self) -> Errand {
        match self.tasks.recv_timeout(PATIENCE).expect("there is something to do") {
            Task::Errand(errand, _) => errand,
            Task::LetGo(..) => panic!("nothing is unneeded"),
        }
    }

    fn do_it(&self, errand: Errand) {
        self.reports.send(Report::Errand(errand.run().unwrap())).unwrap();
        self.feed.nudge();
    }

    /// Does it, and whatever else a write waits for, until that one is answered.
    fn finish(&mut self, errand: Errand) {
        let began = clock::now();
        self.do_it(errand);
        while !self.is_answered(A_WHILE) {
            assert!(clock::now().since(began) < PATIENCE, "a write waits for something else");
            if let Ok(Task::Errand(errand, _)) = self.tasks.recv_timeout(A_WHILE) {
                self.do_it(errand);
            }
        }
    }

    /// The thread is told to end, and does, with all that is left done for it.
    fn end(self) {
        let began = clock::now();
        self.feed.stop();
        while !self.thread.is_finished() {
            assert!(clock::now().since(began) < PATIENCE, "the thread does not end");
            if let Ok(task) = self.tasks.recv_timeout(Duration::from_millis(1)) {
                match task {
                    Task::Errand(errand, _) => self.do_it(errand),
                    Task::LetGo(..) => panic!("nothing is unneeded"),
                }
            }
        }
        assert_eq!(self.thread.join().unwrap(), self.log_end);
    }
}

type Errand = storage::shard_log::Errand<TestDisk>;

/// Rule 1: what is acknowledged is durable, and with `always` that is on the disk.
#[test]
fn with_always_a_write_is_answered_after_its_sync() {
    let mut log = Running::start(Fsync::Always, 64 << 20);
    for _ in 0..2 {
        log.disk.hold_syncs(true);
        let is_answered = log.write(100);
        log.disk.await_sync();
        assert!(!is_answered && !log.is_answered(A_WHILE), "it is not on the disk");
        log.disk.hold_syncs(false);
        assert!(log.is_answered(PATIENCE), "it is");
    }
    log.end();
}

/// So nothing is lost with the power but the writes of the last seconds.
#[test]
fn with_everysec_a_write_waits_where_the_sync_before_takes_long() {
    let mut log = Running::start(Fsync::Everysec, 64 << 20);
    // All that was written before is durable.
    let began = clock::now();
    assert!(log.write(100) || log.is_answered(PATIENCE), "nothing is under way");
    let sync = log.next_task();
    assert!(sync.is_sync());
    log.write_until_one_waits(100, 10_000, |_| clock::now().since(began) >= UNSYNCED_MAX);
    assert!(log.tasks.try_recv().is_err(), "one thing at a time");
    // It goes on when the disk does.
    log.finish(sync);
    log.end();
}

/// Nothing is synced by itself, and nothing waits for it.
#[test]
fn with_never_no_write_waits_for_a_sync() {
    let mut log = Running::start(Fsync::Never, 64 << 20);
    let began = clock::now();
    while clock::now().since(began) < UNSYNCED_MAX + SECOND {
        assert!(log.write(100) || log.is_answered(PATIENCE), "a write waits, and for ever");
        // Far less than what is written back early.
        std::thread::sleep(Duration::from_millis(3));
    }
    assert!(log.tasks.try_recv().is_err(), "there is nothing to do");
    log.end();
}

/// The segment in use grows meanwhile, but not for ever.
#[test]
fn a_write_waits_where_the_making_of_the_next_segment_takes_long() {
    const SEGMENT: u64 = 32 << 20;
    const WRITE: u64 = 1 << 20;
    let mut log = Running::start(Fsync::Never, SEGMENT);
    let mut to_do = None;
    while to_do.is_none() {
        assert!(log.write(WRITE as usize) || log.is_answered(PATIENCE));
        assert!(log.turn * WRITE < SEGMENT, "what was written is written back, and that first");
        to_do = log.tasks.try_recv().ok();
    }
    let Some(Task::Errand(first, _)) = to_do else { panic!("nothing is unneeded") };
    let is_overgrown = |turn: u64| turn * WRITE > 2 * SEGMENT - WRITE;
    log.write_until_one_waits(WRITE as usize, 3 * SEGMENT / WRITE, is_overgrown);
    log.finish(first);
    log.end();
}

/// A sync under way is no reason to wait, as long as the segment in use does not grow too far.
#[test]
fn no_write_waits_for_the_sync_of_the_segment_before() {
    const SEGMENT: u64 = 16 << 20;
    const WRITE: u64 = 1 << 20;
    let mut log = Running::start(Fsync::Never, SEGMENT);
    let held = loop {
        assert!(log.write(WRITE as usize) || log.is_answered(PATIENCE));
        assert!(log.turn * WRITE < 4 * SEGMENT, "a segment is ended, and settled");
        match log.tasks.try_recv() {
            Ok(Task::Errand(errand, _)) if errand.is_sync() => break errand,
            Ok(Task::Errand(errand, _)) => log.do_it(errand),
            Ok(Task::LetGo(..)) => panic!("nothing is unneeded"),
            Err(_) => {}
        }
    };
    let since = log.turn;
    log.write_until_one_waits(WRITE as usize, 3 * SEGMENT / WRITE, |turn| {
        (turn - since) * WRITE > 2 * SEGMENT - 4 * WRITE
    });
    log.finish(held);
    log.end();
}

/// Turns wait while another is written. Together they are more than one batch can be.
#[test]
fn a_few_of_the_largest_values_wait_together_and_are_written() {
    let whole = Bytes::from(vec![0; types::limits::VALUE_BYTES_MAX]);
    let feed = LogFeed::default();
    for turn in 1..=4 {
        let mut rope = Rope::default();
        rope.bytes().extend_from_slice(b"head");
        rope.put(&whole);
        feed.push(turn, &mut rope);
    }
    feed.stop();
    let (parts, mailbox, _kept) = parts(TestDisk::default(), Fsync::Always, 64 << 20, feed);
    let before = parts.log.end();
    let (thread, _beside) = new(parts);
    thread.run();
    let Some(Mail::Logged(4, end)) = mailbox.take() else { panic!("nothing is written") };
    assert!(end - before > 4 * whole.len() as u64, "{before} to {end}");
    assert!(mailbox.take().is_none(), "one sync serves all");
}

#[test]
fn the_room_that_is_certain_is_told() {
    let feed = LogFeed::default();
    let mut rope = Rope::default();
    rope.bytes().extend_from_slice(b"entries");
    feed.push(1, &mut rope);
    feed.stop();
    let (parts, _mailbox, (_poll, directory)) = parts(RealDisk, Fsync::Always, 64 << 20, feed);
    let published = parts.published.clone();
    let has_room = |bytes| published.claim_room(SHARD, 0, bytes);
    assert!(has_room(1 << 50), "nobody has looked yet");
    let (thread, _beside) = new(parts);
    thread.run();
    let free = RealDisk.free(directory.path()).unwrap();
    assert!(has_room(50 << 20), "the first file has been reserved");
    assert!(!has_room(free + (200 << 20)));
    assert!(free < 1 << 30 || has_room(free / 2));
}
