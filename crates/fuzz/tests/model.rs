//! `fuzz::model` says what redis-server says: sequences that seeds determine are sent to one, and every reply has to be the model's.
//!
//! The server has a clock of its own. So each request stands between two questions for the time, and the model may have run it at
//! any of the milliseconds between: all states that fit the replies so far are kept in mind, and one has to fit the next reply.
//! Milliseconds pass here, too, a few at a time, so that keys end in the middle of a sequence.
//!
//! redis-server 7.0 has to be there (`apt install redis-server`); without it the test says that it was left out.

mod drawn;

use fuzz::model::{Answer, Model, Whose};
use fuzz::sequence::{Sequence, Step};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How many sequences are played.
const SEQUENCES: u64 = 3000;
/// At once, each with a server of its own: most of the time passes asleep.
const SERVERS: u64 = 6;
/// The longest that a sequence sleeps at a time here.
const SLEEP_MS_MAX: u64 = 4;
/// More states than this tell nothing any more: the sequence ends there.
const STATES_MAX: usize = 64;
/// For a server to start, and for a reply to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A redis-server of this test's own, stopped when dropped.
struct Redis {
    child: Child,
    directory: PathBuf,
}

impl Redis {
    /// One of several. `None`: there is no redis-server here.
    fn start(number: u64) -> Option<Redis> {
        let version = match Command::new("redis-server").arg("--version").output() {
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            version => version.expect("redis-server says its version").stdout,
        };
        let version = String::from_utf8_lossy(&version);
        assert!(version.contains(" v=7.0."), "the model is of Redis 7.0, but this is {version}");
        let directory = std::env::temp_dir().join(format!("annulet-model-{}-{number}", std::process::id()));
        std::fs::create_dir(&directory).expect("a directory of this test's own");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(directory.join("socket"))
            .arg("--dir")
            .arg(&directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        Some(Redis { child, directory })
    }

    fn connect(&self) -> Talk {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match UnixStream::connect(self.directory.join("socket")) {
                Ok(socket) => {
                    socket.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
                    return Talk { socket, came: Vec::new() };
                }
                Err(error) => assert!(Instant::now() < deadline, "redis-server does not answer: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A connection, and what has come on it and is not read yet.
struct Talk {
    socket: UnixStream,
    came: Vec<u8>,
}

impl Talk {
    /// Sends requests in one piece, and reads a reply to each.
    fn say(&mut self, requests: &[&[Vec<u8>]]) -> Vec<Answer> {
        let mut bytes = Vec::new();
        for request in requests {
            bytes.extend(format!("*{}\r\n", request.len()).bytes());
            for word in *request {
                bytes.extend(format!("${}\r\n", word.len()).bytes());
                bytes.extend_from_slice(word);
                bytes.extend(b"\r\n");
            }
        }
        self.socket.write_all(&bytes).expect("the server reads");
        requests.iter().map(|_| self.answer()).collect()
    }

    fn answer(&mut self) -> Answer {
        let mut chunk = [0; 4096];
        loop {
            let mut rest = &self.came[..];
            if let Some(answer) = read(&mut rest) {
                self.came = rest.to_vec();
                return answer;
            }
            let count = self.socket.read(&mut chunk).expect("the server writes");
            assert!(count > 0, "the server hung up");
            self.came.extend_from_slice(&chunk[..count]);
        }
    }
}

/// Reads a reply in RESP2 from the front of what came, if it is whole.
fn read(came: &mut &[u8]) -> Option<Answer> {
    let end = came.windows(2).position(|two| two == b"\r\n")?;
    let (line, rest) = (String::from_utf8_lossy(&came[..end]).into_owned(), &came[end + 2..]);
    *came = rest;
    let (kind, text) = line.split_at(1);
    let number = || text.parse::<i64>().expect("a number");
    Some(match (kind, text) {
        ("+", _) => Answer::Status(text.to_owned()),
        ("-", _) => Answer::Error(text.to_owned()),
        (":", _) => Answer::Integer(number()),
        ("$", "-1") => Answer::Nil,
        ("$", _) => {
            let length = number() as usize;
            let bytes = came.get(..length)?.to_vec();
            *came = came.get(length + 2..)?;
            Answer::Bulk(bytes)
        }
        ("*", _) => Answer::Many((0..number()).map(|_| read(came)).collect::<Option<_>>()?),
        _ => panic!("no reply is {line}"),
    })
}

/// The milliseconds that TIME shows.
fn ms(answer: &Answer) -> i64 {
    let Answer::Many(parts) = answer else { panic!("no time: {answer:?}") };
    let numbers: Vec<i64> = parts
        .iter()
        .map(|part| match part {
            Answer::Bulk(text) => String::from_utf8_lossy(text).parse().expect("a number"),
            other => panic!("no number: {other:?}"),
        })
        .collect();
    numbers[0] * 1000 + numbers[1] / 1000
}

/// What may be so after the replies that have come.
struct World {
    states: BTreeSet<Model>,
    /// How many replies were compared.
    compared: usize,
}

impl World {
    /// Sends requests and compares the replies. False: from here on nothing can be told.
    fn batch(&mut self, requests: &[Vec<Vec<u8>>], redis: &mut Talk) -> Result<bool, String> {
        let time = [b"time".to_vec()];
        let mut asked: Vec<&[Vec<u8>]> = vec![&time];
        requests.iter().for_each(|request| asked.extend([&request[..], &time]));
        let answers = redis.say(&asked);
        for (request, three) in requests.iter().zip(answers.windows(3).step_by(2)) {
            let (mut fitting, mut said) = (BTreeSet::new(), BTreeSet::new());
            for at in ms(&three[0])..=ms(&three[2]) {
                for mut state in self.states.iter().cloned() {
                    let Some(expected) = state.run(Whose::Redis, request, at) else { return Ok(false) };
                    if expected == three[1] {
                        fitting.insert(state);
                    }
                    said.insert(format!("{expected:?}"));
                }
            }
            if fitting.is_empty() {
                let words: Vec<String> = request.iter().map(|word| word.escape_ascii().to_string()).collect();
                return Err(format!("{words:?}: redis-server says {:?}, the model {said:?}", three[1]));
            }
            self.states = fitting;
            self.compared += 1;
            if self.states.len() > STATES_MAX {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Plays a seed's sequence. How many replies were compared.
fn play(seed: u64, redis: &mut Talk) -> Result<usize, String> {
    let input = drawn::input(seed);
    let mut sequence = Sequence::new(&input);
    let answers = redis.say(&[&[b"flushall".to_vec()], &[b"time".to_vec()]]);
    let now = ms(&answers[1]);
    let mut world = World { states: BTreeSet::from([Model::new()]), compared: 0 };
    // What is likely so, by which is chosen what to ask.
    let mut likely = Model::new();
    let mut requests = Vec::new();
    while let Some(step) = sequence.next(now as u64) {
        match step {
            // It has no records, and its snapshots are its own.
            Step::Commit(_) | Step::RollBack(_) | Step::Snapshot => {}
            Step::Run(request) => {
                if likely.run(Whose::Redis, &request, now).is_some() {
                    requests.push(request);
                }
            }
            Step::Sleep(ms) => {
                if !world.batch(&requests, redis)? {
                    return Ok(world.compared);
                }
                requests.clear();
                likely = world.states.first().cloned().unwrap_or_default();
                std::thread::sleep(Duration::from_millis(ms.min(SLEEP_MS_MAX)));
            }
        }
    }
    world.batch(&requests, redis)?;
    Ok(world.compared)
}

#[test]
fn the_model_says_what_redis_server_says() {
    let servers: Option<Vec<Redis>> = (0..SERVERS).map(Redis::start).collect();
    let Some(servers) = servers else {
        eprintln!("left out: there is no redis-server here to hold the model against");
        return;
    };
    let play_some = |redis: &Redis, first: u64| -> Vec<Result<usize, String>> {
        let mut talk = redis.connect();
        let seeds = (first..SEQUENCES).step_by(SERVERS as usize);
        seeds.map(|seed| play(seed, &mut talk).map_err(|wrong| format!("seed {seed}: {wrong}"))).collect()
    };
    let results: Vec<Result<usize, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..).zip(&servers).map(|(first, redis)| scope.spawn(move || play_some(redis, first))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("it says what is wrong")).collect()
    });
    let wrong: Vec<&String> = results.iter().filter_map(|result| result.as_ref().err()).take(20).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let compared: usize = results.iter().flatten().sum();
    println!("{SEQUENCES} sequences, {compared} replies");
    assert!(compared as u64 > 10 * SEQUENCES, "{compared} replies say little");
}
