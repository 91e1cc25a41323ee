//! Nodes that are none: each listens on a port of its own, greets as Annulet does, tells a slot map that the test sets, and
//! answers everything else as the test's script says. They run on the test's own runtime, and end with it.

use command::Reply;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a fake node does about a request.
#[derive(Clone, Debug)]
pub enum Act {
    /// Answers with these bytes.
    Say(String),
    /// Answers with these bytes, after so long.
    SayAfter(Duration, String),
    /// Answers with these bytes and closes the connection.
    SayAndClose(String),
    /// Never answers.
    Silent,
}

/// What a request is, and how often the same one came to this node before.
type Script = dyn Fn(&str, usize) -> Act + Send + Sync;

/// What the nodes share.
#[derive(Default)]
struct Told {
    /// First slot, last slot, and the nodes with its copies, the primary first.
    ranges: Vec<(u16, u16, Vec<String>)>,
    version: u64,
}

/// A cluster of fake nodes.
pub struct Fakes {
    pub nodes: Vec<Arc<Node>>,
    told: Arc<Mutex<Told>>,
}

pub struct Node {
    pub address: String,
    /// The requests that came, but for greetings and questions for the map.
    heard: Mutex<Vec<String>>,
    /// Greetings and questions.
    questions: Mutex<Vec<String>>,
    script: Box<Script>,
}

impl Node {
    /// What came, so far.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often a greeting or a question came.
    pub fn questions(&self, line: &str) -> usize {
        let questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        questions.iter().filter(|question| *question == line).count()
    }
}

/// A script that answers `OK` to everything.
pub fn agreeable(_: &str, _: usize) -> Act {
    ok()
}

pub fn ok() -> Act {
    Act::Say("+OK\r\n".into())
}

pub fn say(text: &str) -> Act {
    Act::Say(format!("{text}\r\n"))
}

impl Fakes {
    /// Starts nodes with these scripts. The first serves every slot until [`Fakes::tell`] says otherwise.
    pub async fn start(scripts: Vec<Box<Script>>) -> Fakes {
        let told = Arc::new(Mutex::new(Told::default()));
        let mut nodes = Vec::new();
        for script in scripts {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let node =
                Arc::new(Node { address, heard: Mutex::default(), questions: Mutex::default(), script });
            tokio::spawn(accept(listener, node.clone(), told.clone()));
            nodes.push(node);
        }
        let fakes = Fakes { nodes, told };
        fakes.tell(&[(0, 16383, &[0])]);
        fakes
    }

    /// What every node says of the slots from now on.
    pub fn tell(&self, ranges: &[(u16, u16, &[usize])]) {
        let named = |nodes: &[usize]| nodes.iter().map(|&node| self.nodes[node].address.clone()).collect();
        self.tell_addresses(ranges.iter().map(|&(first, last, nodes)| (first, last, named(nodes))).collect());
    }

    pub fn tell_addresses(&self, ranges: Vec<(u16, u16, Vec<String>)>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.ranges = ranges;
        told.version += 1;
    }

    pub fn seeds(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address.clone()).collect()
    }
}

/// An address that nobody listens on.
pub async fn closed_address() -> String {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}

async fn accept(listener: TcpListener, node: Arc<Node>, told: Arc<Mutex<Told>>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, node.clone(), told.clone()));
    }
}

async fn serve(mut stream: TcpStream, node: Arc<Node>, told: Arc<Mutex<Told>>) -> Option<()> {
    let mut input = Vec::new();
    loop {
        // A request is an array of byte strings, as a reply may be.
        while let Some((request, used)) = wire::resp::decode_reply(&input).unwrap() {
            input.drain(..used);
            let Reply::Array(words) = request else { panic!("{request:?}") };
            let words = words.iter().map(|word| match word {
                Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                other => panic!("{other:?}"),
            });
            let line = words.collect::<Vec<_>>().join(" ");
            let act = match greeting(&line, &told) {
                Some(text) => {
                    node.questions.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                    Act::Say(text)
                }
                None => {
                    let before = {
                        let mut heard = node.heard.lock().unwrap_or_else(PoisonError::into_inner);
                        let before = heard.iter().filter(|other| **other == line).count();
                        heard.push(line.clone());
                        before
                    };
                    (node.script)(&line, before)
                }
            };
            match act {
                Act::Say(text) => stream.write_all(text.as_bytes()).await.ok()?,
                Act::SayAfter(wait, text) => {
                    tokio::time::sleep(wait).await;
                    stream.write_all(text.as_bytes()).await.ok()?;
                }
                Act::SayAndClose(text) => {
                    stream.write_all(text.as_bytes()).await.ok()?;
                    return Some(());
                }
                Act::Silent => {}
            }
        }
        if stream.read_buf(&mut input).await.ok()? == 0 {
            return Some(());
        }
    }
}

fn greeting(line: &str, told: &Mutex<Told>) -> Option<String> {
    let told = told.lock().unwrap_or_else(PoisonError::into_inner);
    let words: Vec<&str> = line.split(' ').collect();
    Some(match words[..] {
        ["HELLO", "3"] => "%1\r\n$4\r\nmode\r\n$7\r\ncluster\r\n".into(),
        ["HELLO", "3", "AUTH", "default", "secret"] => "%1\r\n$4\r\nmode\r\n$7\r\ncluster\r\n".into(),
        ["HELLO", ..] => "-WRONGPASS invalid username-password pair or user is disabled.\r\n".into(),
        ["CONSISTENCY", ..] | ["CLIENT", "SETINFO", ..] => "+OK\r\n".into(),
        ["CONFIG", "GET", "port"] => "%0\r\n".into(),
        ["CLUSTER", "INFO"] => {
            let text = format!("cluster_current_epoch:{}\r\n", told.version);
            format!("${}\r\n{text}\r\n", text.len())
        }
        ["CLUSTER", "SLOTS"] => {
            let mut text = format!("*{}\r\n", told.ranges.len());
            for (first, last, nodes) in &told.ranges {
                text += &format!("*{}\r\n:{first}\r\n:{last}\r\n", nodes.len() + 2);
                for node in nodes {
                    let (host, port) = node.rsplit_once(':').unwrap();
                    text += &format!("*2\r\n${}\r\n{host}\r\n:{port}\r\n", host.len());
                }
            }
            text
        }
        _ => return None,
    })
}

/// A store that really counts and stores, for scripts: SET, GET, INCRBY.
#[derive(Default)]
pub struct Store(Mutex<HashMap<String, String>>);

impl Store {
    pub fn run(&self, line: &str) -> Act {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["SET", key, value] => {
                values.insert(key.into(), value.into());
                ok()
            }
            ["GET", key] => match values.get(key) {
                Some(value) => say(&format!("${}\r\n{value}", value.len())),
                None => say("_"),
            },
            ["INCRBY", key, by] => {
                let before: i64 = values.get(key).map_or(0, |value| value.parse().unwrap());
                let after = before + by.parse::<i64>().unwrap();
                values.insert(key.into(), after.to_string());
                say(&format!(":{after}"))
            }
            _ => say("-ERR what"),
        }
    }
}
