//! A connection of one client to one partition: bytes are decoded, commands run, replies go out and are read again, the way
//! they take in a node but for its sockets.
//!
//! Beside the primary's table stands a copy that knows only the effects, as a backup does. Whatever the commands were, both
//! hold the same in the end; so they do after uncommitted changes were taken back; and what is committed is what the
//! records up to there make. Every reply reads back, in the protocol and in the form that nodes pass on.
//!
//! An input is a byte for the session (door, password), one that cuts the stream, and the stream. Four words in it are for
//! the target itself: `~sleep MS`, `~commit N` and `~rollback N`, of the last N records, and `~stale`, for reads to come.
//!
//! Left out: several partitions, which room `node` parts and merges.

use crate::input::{Cuts, Input};
use crate::partition::Partition;
use crate::replies::reads_back;
use command::testing::FixedHost;
use command::{
    Command, CommandError, Door, Flags, Handler, Host, List, Reply, Session, changes, check_rights,
    check_session, keys, randomkey, resolve, scan, table, wait,
};
use storage::Keyspace;
use types::settings::Settings;
use wire::resp::{Decoder, Limits, Parsed, slices, write};

/// Values that grow to a length that was only named (SETRANGE, SETBIT) grow to this at most here.
const OFFSET_MAX: u64 = 1 << 16;
/// The most requests of an input, and the most bytes of a table: what follows is left.
const REQUESTS_MAX: usize = 200;
const TABLE_BYTES_MAX: usize = 1 << 20;

/// See the [module](self).
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    let mut cuts = Cuts::new(input.byte());
    let mut world = World::new(choice);
    let mut decoder = Decoder::new();
    let mut buffer = Vec::new();
    let mut requests = 0;
    loop {
        let limits = match world.session.authenticated {
            true => Limits::authenticated(world.host.settings()),
            false => Limits::unauthenticated(),
        };
        match decoder.parse(&mut buffer, &limits) {
            Ok(Parsed::Complete(bytes)) => {
                let args: Vec<&[u8]> = slices(&buffer, decoder.arguments()).collect();
                if !args.is_empty() {
                    world.request(&args);
                    requests += 1;
                }
                buffer.drain(..bytes);
                if world.session.close_after_reply || requests > REQUESTS_MAX {
                    break;
                }
            }
            Ok(Parsed::Incomplete { .. }) => {
                let count = cuts.next(input.rest.len());
                if count == 0 {
                    break;
                }
                buffer.extend_from_slice(input.bytes(count));
            }
            Err(error) => {
                world.reply(&Reply::from(error));
                break;
            }
        }
    }
    world.partition.check();
}

struct World {
    partition: Partition,
    stale: bool,
    session: Session,
    host: FixedHost,
}

impl World {
    fn new(choice: u8) -> World {
        let mut settings = Settings::default();
        if choice & 1 != 0 {
            settings.set("requirepass", "secret").expect("any text is a password");
        }
        if choice & 4 != 0 {
            settings.set("adminpass", "master").expect("any text is a password");
        }
        let door = if choice & 2 != 0 { Door::Cluster } else { Door::Plain };
        World {
            partition: Partition::default(),
            stale: false,
            session: Session::new(7, door, &settings),
            host: FixedHost::new(settings),
        }
    }

    fn request(&mut self, args: &[&[u8]]) {
        if self.own(args) || self.partition.table.bytes() > TABLE_BYTES_MAX || is_huge(args) {
            return;
        }
        // As `node::Shard::dispatch`.
        let reply = match resolve(args) {
            Err(_) if !self.session.authenticated => Err(CommandError::NoAuth),
            Err(error) => Err(error),
            Ok(command) if !self.session.authenticated && !command.flags.contains(Flags::NO_AUTH) => {
                Err(CommandError::NoAuth)
            }
            Ok(command) => check_session(&self.session, command)
                .and_then(|()| check_rights(&self.session, command, self.host.settings()))
                .and_then(|()| self.run_command(command, args)),
        };
        self.reply(&Reply::from(reply));
    }

    /// The target's own words.
    fn own(&mut self, args: &[&[u8]]) -> bool {
        let number = |at: usize| {
            let text = args.get(at).and_then(|arg| std::str::from_utf8(arg).ok());
            text.and_then(|text| text.parse::<u32>().ok()).unwrap_or(1) as usize
        };
        match args[0] {
            b"~sleep" => self.partition.now_ms += number(1) as u64,
            b"~stale" => self.stale = !self.stale,
            b"~commit" => self.partition.commit(number(1)),
            b"~rollback" => {
                self.partition.roll_back(number(1));
                self.partition.check();
            }
            _ => return false,
        }
        true
    }

    fn run_command(&mut self, command: &Command, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
        match command.handler {
            Handler::Session(run) => run(&mut self.session, &mut self.host, args),
            Handler::Keys { run, .. } | Handler::Everywhere { run, .. } | Handler::Slot { run, .. } => {
                self.keyspace(command, |keyspace| run(keyspace, args).map(Reply::into_owned))
            }
            Handler::Scan => {
                let request = scan::parse(args)?;
                let mut found = Vec::new();
                let next = self.keyspace(command, |keyspace| {
                    scan::run_partition(keyspace, request.cursor, &request, &mut found)
                });
                Ok(Reply::Array(vec![
                    Reply::bulk(next.unwrap_or(0).to_string()),
                    Reply::Array(found.into_iter().map(Reply::bulk).collect()),
                ]))
            }
            Handler::Wait => wait::parse(args).map(|_| Reply::Integer(0)),
            Handler::Changes => changes::parse(args).map(|_| Reply::Integer(0)),
            Handler::RandomKey => {
                Ok(self.keyspace(command, |keyspace| randomkey::run_partition(keyspace, &[args[0], b"0"])))
            }
            Handler::Listing => {
                let mut list = List::default();
                let mut cursor = Some(0);
                while let Some(at) = cursor {
                    let step = keys::step(args[1], at);
                    let step: Vec<&[u8]> = step.iter().map(|arg| &arg[..]).collect();
                    let request = scan::parse(&step)?;
                    let mut found = Vec::new();
                    cursor = self.keyspace(command, |keyspace| {
                        scan::run_partition(keyspace, at, &request, &mut found)
                    });
                    found.iter().for_each(|key| list.push(key));
                }
                Ok(Reply::List(list))
            }
            Handler::Clients(parse) => {
                let _order = parse(&self.session, args)?;
                Ok(Reply::ok())
            }
        }
    }

    fn keyspace<T>(&mut self, command: &Command, run: impl FnOnce(&mut Keyspace<'_>) -> T) -> T {
        match self.stale && !command.is_write() {
            true => self.partition.run_stale(run),
            false => self.partition.run(run),
        }
    }

    fn reply(&mut self, reply: &Reply<'_>) {
        let mut out = Vec::new();
        write(reply, self.session.protocol, &mut out);
        reads_back(reply);
        let mut neutral = Vec::new();
        reply.encode_neutral(&mut neutral);
        let read = Reply::decode_neutral(&neutral.into()).expect("the neutral form reads back");
        let mut again = Vec::new();
        write(&read, self.session.protocol, &mut again);
        assert_eq!(again, out, "a forwarded reply is another: {reply:?}");
    }
}

/// Whether a command makes a value as long as it says: half a gigabyte is its right, but no use here.
fn is_huge(args: &[&[u8]]) -> bool {
    let grows = [&b"setrange"[..], b"setbit", b"bitfield", b"bitop"];
    let is_long = |arg: &&[u8]| {
        let digits = arg.iter().filter(|byte| byte.is_ascii_digit()).count();
        let number = std::str::from_utf8(arg).ok().and_then(|text| text.parse::<u64>().ok());
        number.map_or(digits > 4, |number| number > OFFSET_MAX)
    };
    grows.iter().any(|name| args[0].eq_ignore_ascii_case(name)) && args[1..].iter().any(is_long)
}

/// The commands' names and their subcommands', options, and the target's own words.
pub fn words() -> Vec<Vec<u8>> {
    let mut words: Vec<String> = [
        "~sleep 1000\r\n",
        "~commit 1\r\n",
        "~rollback 1\r\n",
        "~stale\r\n",
        "\r\n",
        " k ",
        " key v\r\n",
        "*3\r\n$3\r\n",
    ]
    .map(str::to_owned)
    .to_vec();
    for command in table() {
        words.push(format!("{} ", command.name));
        words.extend(command.subcommands.iter().map(|sub| format!("{} {} ", command.name, sub.name)));
        // Options stand in capitals in the syntax.
        let options = command.syntax.split(|c: char| !c.is_ascii_uppercase()).filter(|word| word.len() > 1);
        words.extend(options.map(|option| format!(" {option} ")));
    }
    words.sort();
    words.dedup();
    words.into_iter().map(String::into_bytes).collect()
}
