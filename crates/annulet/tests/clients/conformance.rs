//! Replies are those of Redis 7.0, byte for byte: a corpus of commands is sent to redis-server, to a cluster of one node
//! and to one of three, each time from an empty database, and all have to answer alike.
//!
//! The corpus is `tests/conformance/*.txt`:
//!
//! ```text
//! # A remark.
//!
//! == a case: a new connection, and an empty database
//! > SET k "two words"
//! +OK
//! > GET k
//! "two words"
//! @unordered
//! > KEYS *
//! ["k"]
//! ```
//!
//! Words are parted by blanks; `"..."` and `'...'` quote them as in redis-cli, and `"x"*45` is a word of 45 letters. Below
//! a command stands the reply of redis-server, as [`Frame`] shows it; `UPDATE_CONFORMANCE=1` writes the replies anew. Before
//! a command may stand
//!
//! - `@unordered`: arrays are compared as bags
//! - `@varies`: only kinds are compared, since numbers and texts are different each time
//! - `@about`: a number may be up to a tenth less than the file has: time passes
//! - `@until`: the command is sent again until the reply comes that the file has
//! - `@differs REASON`: Annulet answers something else, which stands below behind `! `. docs/compatibility.md has to give
//!   the reason in these very words.
//!
//! redis-server has to be there: `apt install redis-server`.

use crate::local_cluster::{LocalCluster, PATIENCE, Shared, output, until};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

// ------------------------------------------------------------------------------------------------------ replies

/// A reply as it came: two are equal if their bytes are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Frame {
    /// A kind that is one line: `+`, `-`, `:`, `,`, `#`, `_`, `(`.
    Line(u8, Vec<u8>),
    /// `$` or `=`, whose length went before it.
    Bytes(u8, Vec<u8>),
    /// `$-1` or `*-1`.
    Nothing(u8),
    /// `*`, `~`, `%` or `>`, and what it holds: a map's keys and values in turn.
    Many(u8, Vec<Frame>),
}

impl Frame {
    /// Reads one from the front of what came, if it is whole.
    fn read(input: &mut &[u8]) -> Option<Frame> {
        let end = input.windows(2).position(|two| two == b"\r\n")?;
        let (line, rest) = (&input[..end], &input[end + 2..]);
        let (&kind, text) = line.split_first().expect("a kind");
        *input = rest;
        let length = || std::str::from_utf8(text).unwrap().parse::<i64>().expect("a length");
        Some(match kind {
            b'$' | b'*' if text == b"-1" => Frame::Nothing(kind),
            b'$' | b'=' => {
                let length = length() as usize;
                let bytes = input.get(..length)?.to_vec();
                *input = input.get(length + 2..)?;
                Frame::Bytes(kind, bytes)
            }
            b'*' | b'~' | b'>' => {
                Frame::Many(kind, (0..length()).map(|_| Frame::read(input)).collect::<Option<_>>()?)
            }
            b'%' => Frame::Many(kind, (0..2 * length()).map(|_| Frame::read(input)).collect::<Option<_>>()?),
            b'+' | b'-' | b':' | b',' | b'#' | b'_' | b'(' => Frame::Line(kind, text.to_vec()),
            other => panic!("no reply begins with {:?}", other as char),
        })
    }

    /// The same with what arrays hold in order of the bytes.
    fn sorted(self) -> Frame {
        match self {
            Frame::Many(b'%', items) => Frame::Many(b'%', items.into_iter().map(Frame::sorted).collect()),
            Frame::Many(kind, items) => {
                let mut items: Vec<Frame> = items.into_iter().map(Frame::sorted).collect();
                items.sort();
                Frame::Many(kind, items)
            }
            other => other,
        }
    }

    /// The same without what varies: numbers keep their sign, texts are left out.
    fn kinds(self) -> Frame {
        match self {
            Frame::Line(b':', text) => {
                Frame::Line(b':', if text.starts_with(b"-") { b"-N".into() } else { b"N".into() })
            }
            Frame::Bytes(kind, _) => Frame::Bytes(kind, b"...".into()),
            Frame::Many(kind, items) => Frame::Many(kind, items.into_iter().map(Frame::kinds).collect()),
            other => other,
        }
    }
}

/// Bytes as words are written in the corpus.
struct Plain<'a>(&'a [u8]);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.0 {
            match byte {
                b'\'' => f.write_char('\'')?,
                other => write!(f, "{}", other.escape_ascii())?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Frame::Line(kind, text) => write!(f, "{}{}", *kind as char, Plain(text)),
            Frame::Bytes(b'$', bytes) => write!(f, "\"{}\"", Plain(bytes)),
            Frame::Bytes(kind, bytes) => write!(f, "{}\"{}\"", *kind as char, Plain(bytes)),
            Frame::Nothing(b'$') => f.write_str("nil"),
            Frame::Nothing(_) => f.write_str("nil array"),
            Frame::Many(kind, items) => {
                if *kind != b'*' {
                    f.write_char(*kind as char)?;
                }
                f.write_char('[')?;
                for (at, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if at == 0 { "" } else { " " })?;
                }
                f.write_char(']')
            }
        }
    }
}

// ------------------------------------------------------------------------------------------------------ servers

trait Socket: Read + Write {}
impl<S: Read + Write> Socket for S {}

/// Somebody who answers.
trait Server {
    fn name(&self) -> &str;
    fn connect(&self) -> io::Result<Box<dyn Socket>>;
}

/// A connection, and what has come on it and is not read yet.
struct Talk {
    socket: Box<dyn Socket>,
    input: Vec<u8>,
}

impl Talk {
    fn with(server: &dyn Server) -> Talk {
        Talk { socket: server.connect().expect("the server answers"), input: Vec::new() }
    }

    fn say(&mut self, words: &[Vec<u8>]) -> Frame {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend(format!("${}\r\n", word.len()).bytes());
            request.extend(word);
            request.extend(b"\r\n");
        }
        self.socket.write_all(&request).expect("the server reads");
        let mut chunk = [0; 65536];
        loop {
            let mut rest = &self.input[..];
            if let Some(frame) = Frame::read(&mut rest) {
                self.input = rest.to_vec();
                return frame;
            }
            match self.socket.read(&mut chunk).expect("the server writes") {
                0 => panic!("the server hung up"),
                count => self.input.extend_from_slice(&chunk[..count]),
            }
        }
    }
}

/// A redis-server of this test's own, stopped when dropped.
struct Redis {
    child: Child,
    dir: PathBuf,
}

impl Redis {
    fn start() -> Redis {
        let dir = std::env::temp_dir().join(format!("annulet-conformance-{}", std::process::id()));
        std::fs::create_dir(&dir).expect("a directory of this test's own");
        let advice = "apt install redis-server";
        let version = output(Command::new("redis-server").arg("--version"), advice);
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        assert!(version.contains(" v=7.0."), "the replies are those of Redis 7.0, but this is {version}");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(dir.join("socket"))
            .arg("--dir")
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect(advice);
        let redis = Redis { child, dir };
        until("redis-server answers", || redis.connect().is_ok());
        redis
    }
}

impl Server for Redis {
    fn name(&self) -> &str {
        "redis-server"
    }

    fn connect(&self) -> io::Result<Box<dyn Socket>> {
        let socket = UnixStream::connect(self.dir.join("socket"))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Box::new(socket))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

struct Annulet {
    name: &'static str,
    port: u16,
}

impl Server for Annulet {
    fn name(&self) -> &str {
        self.name
    }

    fn connect(&self) -> io::Result<Box<dyn Socket>> {
        let socket = TcpStream::connect(("127.0.0.1", self.port))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Box::new(socket))
    }
}

// ------------------------------------------------------------------------------------------------------- corpus

#[derive(Default)]
struct Marks {
    unordered: bool,
    varies: bool,
    about: bool,
    until: bool,
    differs: Option<String>,
}

struct Step {
    marks: Marks,
    line: String,
    words: Vec<Vec<u8>>,
    /// As the file has it.
    expected: String,
    /// Where the reply differs: Annulet's.
    ours: String,
}

enum Item {
    /// A remark, or an empty line.
    Text(String),
    Case(String),
    Step(Step),
}

/// The words of a line, quoted as in redis-cli.
fn words(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut rest = line.trim().as_bytes();
    while !rest.is_empty() {
        let mut word = Vec::new();
        match rest[0] {
            quote @ (b'"' | b'\'') => {
                rest = &rest[1..];
                while rest[0] != quote {
                    let used = match (quote, rest) {
                        (b'"', [b'\\', b'x', high, low, ..]) => {
                            let digits = [*high, *low];
                            word.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                            4
                        }
                        (b'"', [b'\\', escaped, ..]) => {
                            word.push(match escaped {
                                b'n' => b'\n',
                                b'r' => b'\r',
                                b't' => b'\t',
                                other => *other,
                            });
                            2
                        }
                        _ => {
                            word.push(rest[0]);
                            1
                        }
                    };
                    rest = &rest[used..];
                }
                rest = &rest[1..];
                if let Some(after) = rest.strip_prefix(b"*") {
                    let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
                    let times = std::str::from_utf8(&after[..digits]).unwrap().parse().expect("how often");
                    word = word.repeat(times);
                    rest = &after[digits..];
                }
            }
            _ => {
                let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
                word.extend(&rest[..end]);
                rest = &rest[end..];
            }
        }
        words.push(word);
        rest = rest.trim_ascii_start();
    }
    words
}

fn parse(text: &str) -> Vec<Item> {
    let mut items = Vec::new();
    let mut marks = Marks::default();
    for line in text.lines() {
        if let Some(mark) = line.strip_prefix('@') {
            match mark.split_once(' ').unwrap_or((mark, "")) {
                ("unordered", "") => marks.unordered = true,
                ("varies", "") => marks.varies = true,
                ("about", "") => marks.about = true,
                ("until", "") => marks.until = true,
                ("differs", reason) if !reason.is_empty() => marks.differs = Some(reason.into()),
                _ => panic!("no such mark: {line}"),
            }
        } else if let Some(name) = line.strip_prefix("== ") {
            items.push(Item::Case(name.into()));
        } else if let Some(command) = line.strip_prefix("> ") {
            items.push(Item::Step(Step {
                marks: std::mem::take(&mut marks),
                line: command.into(),
                words: words(command),
                expected: String::new(),
                ours: String::new(),
            }));
        } else if line.is_empty() || line == "#" || line.starts_with("# ") {
            items.push(Item::Text(line.into()));
        } else {
            let Some(Item::Step(step)) = items.last_mut() else { panic!("a reply to nothing: {line}") };
            match line.strip_prefix("! ") {
                Some(ours) => step.ours = ours.into(),
                None => step.expected = line.into(),
            }
        }
    }
    items
}

fn written(items: &[Item]) -> String {
    let mut text = String::new();
    for item in items {
        match item {
            Item::Text(line) => text += line,
            Item::Case(name) => text += &format!("== {name}"),
            Item::Step(step) => {
                let Marks { unordered, varies, about, until, differs } = &step.marks;
                let set = [("unordered", unordered), ("varies", varies), ("about", about), ("until", until)];
                for (mark, is_set) in set {
                    if *is_set {
                        text += &format!("@{mark}\n");
                    }
                }
                if let Some(reason) = differs {
                    text += &format!("@differs {reason}\n");
                }
                text += &format!("> {}", step.line);
                // A new command has no reply yet.
                if !step.expected.is_empty() {
                    text += &format!("\n{}", step.expected);
                }
                if !step.ours.is_empty() {
                    text += &format!("\n! {}", step.ours);
                }
            }
        }
        text.push('\n');
    }
    text
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

fn corpus() -> BTreeMap<PathBuf, Vec<Item>> {
    let files = std::fs::read_dir(directory()).expect("the corpus").map(|entry| entry.unwrap().path());
    files.map(|path| (path.clone(), parse(&std::fs::read_to_string(&path).unwrap()))).collect()
}

// ------------------------------------------------------------------------------------------------------- the run

/// Whether a number is at most a tenth less than is wanted.
fn is_about(reply: &str, wanted: &str) -> bool {
    let number = |text: &str| text.strip_prefix(':').and_then(|digits| digits.parse::<i64>().ok());
    number(reply)
        .zip(number(wanted))
        .is_some_and(|(reply, wanted)| reply <= wanted && reply >= wanted - wanted / 10)
}

impl Step {
    /// The reply as it is compared.
    fn ask(&self, talk: &mut Talk, wanted: &str) -> String {
        assert!(!self.marks.until || !wanted.is_empty(), "until what? {}", self.line);
        let began = Instant::now();
        loop {
            let mut reply = talk.say(&self.words);
            if self.marks.unordered {
                reply = reply.sorted();
            }
            if self.marks.varies {
                reply = reply.kinds();
            }
            let reply = reply.to_string();
            if self.marks.about && is_about(&reply, wanted) {
                return wanted.into();
            }
            if !self.marks.until || reply == wanted || began.elapsed() > PATIENCE {
                return reply;
            }
            std::thread::yield_now();
        }
    }
}

/// Plays a file at a server. `each` is told every reply.
fn play(items: &mut [Item], server: &dyn Server, mut each: impl FnMut(&str, &mut Step, String)) {
    let mut talk = Talk::with(server);
    let mut case = String::new();
    for item in items {
        match item {
            Item::Text(_) => {}
            Item::Case(name) => {
                case = name.clone();
                let mut flush = Talk::with(server);
                assert_eq!(flush.say(&words("FLUSHALL")).to_string(), "+OK");
                talk = Talk::with(server);
            }
            Item::Step(step) => {
                let ours = step.marks.differs.is_some() && server.name() != "redis-server";
                let wanted = if ours { step.ours.clone() } else { step.expected.clone() };
                let reply = step.ask(&mut talk, &wanted);
                each(&case, step, reply);
            }
        }
    }
}

#[test]
fn replies_are_those_of_redis() {
    let update = std::env::var_os("UPDATE_CONFORMANCE").is_some();
    let redis = Redis::start();
    let three = Shared::turn();
    let one = LocalCluster::start_nodes(1, &[]);
    let clusters = [
        Annulet { name: "a cluster of one node", port: one.port },
        Annulet { name: "a cluster of three nodes", port: three.port },
    ];
    let mut wrong = String::new();
    let mut steps = 0;
    for (path, mut items) in corpus() {
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut note = |server: &str, case: &str, step: &Step, expected: &str, reply: &str| {
            let line = &step.line;
            let _ = write!(
                wrong,
                "\n{file}, {case}: {server}\n    > {line}\n    expected {expected}\n    got      {reply}"
            );
        };
        play(&mut items, &redis, |case, step, reply| {
            steps += 1;
            if update {
                step.expected = reply;
            } else if reply != step.expected {
                note("redis-server", case, step, &step.expected, &reply);
            }
        });
        for cluster in &clusters {
            play(&mut items, cluster, |case, step, reply| {
                if step.marks.differs.is_none() {
                    if reply != step.expected {
                        note(cluster.name(), case, step, &step.expected, &reply);
                    }
                    return;
                }
                if update {
                    step.ours.clone_from(&reply);
                }
                if reply != step.ours {
                    note(cluster.name(), case, step, &step.ours, &reply);
                }
                if reply == step.expected {
                    note(cluster.name(), case, step, "something else, as it is marked", &reply);
                }
            });
        }
        if update {
            std::fs::write(&path, written(&items)).expect("the corpus can be written");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(steps > 500, "only {steps} commands");
}

#[test]
fn differences_are_named_in_the_docs() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compatibility.md");
    let page = std::fs::read_to_string(page).expect("docs/compatibility.md");
    for (path, items) in corpus() {
        for item in items {
            if let Item::Step(Step { marks: Marks { differs: Some(reason), .. }, line, .. }) = item {
                assert!(page.contains(&reason), "{}: {line}: the docs do not say {reason:?}", path.display());
            }
        }
    }
}

#[test]
fn a_file_reads_back_as_it_was_written() {
    let text = "# Why.\n\n== a case\n> SET \"a\\x00b\" ''\n+OK\n@unordered\n@differs two ways\n> KEYS *\n[]\n! nil\n";
    assert_eq!(written(&parse(text)), text);
    assert_eq!(words(r#"a "b \"c\x41" 'd e' "xy"*2"#), [&b"a"[..], b"b \"cA", b"d e", b"xyxy"]);
    for path in corpus().keys() {
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(written(&parse(&text)), text, "{}", path.display());
    }
}

#[test]
fn replies_that_differ_in_a_byte_look_different() {
    let shown = |bytes: &[u8]| {
        let mut rest = bytes;
        let frame = Frame::read(&mut rest).unwrap();
        assert!(rest.is_empty());
        frame
    };
    let all: [&[u8]; 11] = [
        b"+1\r\n",
        b":1\r\n",
        b"$1\r\n1\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"_\r\n",
        b"*1\r\n:1\r\n",
        b"~1\r\n:1\r\n",
        b"%1\r\n:1\r\n:1\r\n",
        b"*2\r\n:1\r\n:1\r\n",
        b"=5\r\ntxt:1\r\n",
    ];
    for (at, one) in all.iter().enumerate() {
        for (other_at, other) in all.iter().enumerate() {
            assert_eq!(shown(one).to_string() == shown(other).to_string(), at == other_at);
        }
    }
    assert_eq!(shown(b"*2\r\n:2\r\n:1\r\n").sorted(), shown(b"*2\r\n:1\r\n:2\r\n"));
    assert_eq!(shown(b":5\r\n").kinds(), shown(b":7\r\n").kinds());
    assert_ne!(shown(b":5\r\n").kinds(), shown(b":-7\r\n").kinds());
    assert_eq!(Frame::read(&mut &b"$5\r\nab"[..]), None);
    assert!(is_about(":90", ":100") && !is_about(":89", ":100") && !is_about(":101", ":100"));
    assert!(!is_about(":-2", ":-1") && !is_about(":1", "nil"));
}
