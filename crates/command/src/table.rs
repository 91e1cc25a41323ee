//! The command table: what the rest of the system knows of a command is data here.
//!
//! The dispatcher, access rights, routing, `COMMAND`, help and docs/commands.md all read it. A new command is a file
//! in `commands/` with its row, and one line of [`TABLE`].

mod index;

pub use index::lookup;

use crate::clients::ClientOrder;
use crate::commands::*;
use crate::error::CommandError;
use crate::host::Host;
use crate::reply::Reply;
use crate::session::Session;
use std::borrow::Cow;
use std::fmt::Write;
use std::ops::BitOr;
use storage::Keyspace;
use types::limits::KEY_BYTES_MAX;

/// Runs on the table of one partition. The arguments include the command's name.
pub type KeysFn = for<'t, 'k> fn(&'t mut Keyspace<'k>, &[&[u8]]) -> Result<Reply<'t>, CommandError>;

/// Runs on a connection's session, where the connection is. The arguments include the command's name.
pub type SessionFn = fn(&mut Session, &mut dyn Host, &[&[u8]]) -> Result<Reply<'static>, CommandError>;

/// Says what is asked of the connections of this node. The arguments include the command's name.
pub type ClientsFn = fn(&Session, &[&[u8]]) -> Result<ClientOrder, CommandError>;

/// Where and how a command runs.
#[derive(Clone, Copy, Debug)]
pub enum Handler {
    /// On the partitions of its keys.
    Keys {
        /// Runs on one of them.
        run: KeysFn,
        /// What several partitions mean.
        over: Over,
    },
    /// On every partition.
    Everywhere {
        /// Runs on one of them.
        run: KeysFn,
        /// Makes one reply of all.
        merge: Merge,
    },
    /// `SCAN`: partition after partition, as its cursor says. The node drives [`scan`].
    Scan,
    /// `KEYS`: on every partition, by steps of `SCAN`. The node drives it and makes one [`crate::List`].
    Listing,
    /// On the partition of the slot that an argument names.
    Slot {
        /// Which argument.
        at: usize,
        /// What runs there.
        run: KeysFn,
    },
    /// `CHANGES`: on the partition of the slot that its first argument names. The node reads the log, as [`changes`] says.
    Changes,
    /// On the connection's session, touching no key.
    Session(SessionFn),
    /// `RANDOMKEY`: a partition after all have said how many keys they have. The node chooses, and drives [`randomkey`].
    RandomKey,
    /// On every connection of this node: the server does it.
    Clients(ClientsFn),
    /// `WAIT`: the node does it, from what [`wait`] parsed.
    Wait,
}

/// What a command's keys in several partitions mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// `CROSSSLOT`.
    One,
    /// The request is split by partition, key by key with what belongs to it ([`KeySpec::step`]), and the replies merged.
    Split(Merge),
}

/// How the replies of several partitions become one. The first error is the reply, whatever the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Integers are added.
    Sum,
    /// `OK` if all are.
    AllOk,
    /// Arrays with an item a key are put back in the order of the request's keys.
    InKeyOrder,
}

/// A set of properties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u32);

macro_rules! bits {
    ($type:ident { $($(#[$doc:meta])* $name:ident = $bit:literal, $word:literal;)+ }) => {
        impl $type {
            /// The empty set.
            pub const NONE: $type = $type(0);
            $($(#[$doc])* pub const $name: $type = $type(1 << $bit);)+
            const WORDS: &'static [($type, &'static str)] = &[$(($type::$name, $word)),+];

            /// Whether all of `other` are in it.
            pub const fn contains(self, other: $type) -> bool {
                self.0 & other.0 == other.0
            }

            /// Those of either.
            pub const fn with(self, other: $type) -> $type {
                $type(self.0 | other.0)
            }

            /// The words of its members, as `COMMAND` shows them.
            pub fn words(self) -> impl Iterator<Item = &'static str> {
                Self::WORDS.iter().filter(move |(flag, _)| self.contains(*flag)).map(|(_, word)| *word)
            }
        }

        impl BitOr for $type {
            type Output = $type;
            fn bitor(self, other: $type) -> $type {
                self.with(other)
            }
        }
    };
}

bits!(Flags {
    /// May change data.
    WRITE = 0, "write";
    /// Reads data and changes none.
    READONLY = 1, "readonly";
    /// May need more memory.
    DENYOOM = 2, "denyoom";
    /// Of the operator.
    ADMIN = 3, "admin";
    /// Not for scripts.
    NOSCRIPT = 4, "noscript";
    /// May wait.
    BLOCKING = 5, "blocking";
    /// Allowed while data is loaded.
    LOADING = 6, "loading";
    /// Allowed where data may be stale.
    STALE = 7, "stale";
    /// Takes constant or logarithmic time.
    FAST = 8, "fast";
    /// Allowed before the connection has authenticated.
    NO_AUTH = 9, "no_auth";
    /// Not to be shown in a monitor: it carries a secret.
    SENSITIVE = 10, "skip_monitor";
});

/// Access categories, as in Redis' `@read`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Categories(u32);

bits!(Categories {
    /// Works on keys of any type, or on the keyspace.
    KEYSPACE = 0, "@keyspace";
    /// Reads.
    READ = 1, "@read";
    /// Writes.
    WRITE = 2, "@write";
    /// Works on strings.
    STRING = 3, "@string";
    /// Takes constant or logarithmic time.
    FAST = 4, "@fast";
    /// May take long.
    SLOW = 5, "@slow";
    /// May wait.
    BLOCKING = 6, "@blocking";
    /// Can do harm.
    DANGEROUS = 7, "@dangerous";
    /// Of the operator.
    ADMIN = 8, "@admin";
    /// Works on the connection.
    CONNECTION = 9, "@connection";
    /// Works on the bits of strings.
    BITMAP = 10, "@bitmap";
});

/// Which arguments are keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// The first key's argument; 0 where there is none.
    pub first: usize,
    /// The last key's argument; a negative number counts from the end.
    pub last: isize,
    /// From one key to the next: what lies between belongs to the first of them.
    pub step: usize,
}

impl KeySpec {
    /// No keys.
    pub const NONE: KeySpec = KeySpec { first: 0, last: 0, step: 0 };
    /// The first argument.
    pub const ONE: KeySpec = KeySpec { first: 1, last: 1, step: 1 };
    /// Every argument.
    pub const ALL: KeySpec = KeySpec { first: 1, last: -1, step: 1 };
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// In lower case.
    pub name: &'static str,
    /// The command that this is a subcommand of, or empty.
    pub parent: &'static str,
    /// Other names, in lower case.
    pub aliases: &'static [&'static str],
    /// What arguments it takes, for help.
    pub syntax: &'static str,
    /// How many arguments it takes, its name and its parent's included; `-n` is at least n.
    pub arity: i32,
    /// What it is like.
    pub flags: Flags,
    /// Which arguments are keys.
    pub keys: KeySpec,
    /// Where it stands in the docs.
    pub group: &'static str,
    /// The version of Redis that brought it; of Annulet for what Redis has not.
    pub since: &'static str,
    /// How its time grows.
    pub complexity: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Who may run it.
    pub categories: Categories,
    /// Where and how it runs.
    pub handler: Handler,
    /// Its subcommands, by name.
    pub subcommands: &'static [Command],
    /// Its place in the table, which the table itself gives it. Subcommands have none: see [`place_of`].
    pub(crate) row: u16,
}

impl Command {
    /// What rows build upon: a connection command that does nothing.
    pub(crate) const BASE: Command = Command {
        name: "",
        parent: "",
        aliases: &[],
        syntax: "",
        arity: 1,
        flags: Flags::NONE,
        keys: KeySpec::NONE,
        group: "",
        since: "1.0.0",
        complexity: "O(1)",
        summary: "",
        categories: Categories::NONE,
        handler: Handler::Session(|_, _, _| Ok(Reply::ok())),
        subcommands: &[],
        row: 0,
    };

    /// `set`, or `client|setname`.
    pub fn full_name(&self) -> Cow<'static, str> {
        if self.parent.is_empty() {
            Cow::Borrowed(self.name)
        } else {
            Cow::Owned(format!("{}|{}", self.parent, self.name))
        }
    }

    /// Whether it may change data.
    pub fn is_write(&self) -> bool {
        self.flags.contains(Flags::WRITE)
    }

    /// Checks the number of arguments; a key needs all that belongs to it.
    #[inline]
    pub fn check_arity(&self, args: &[&[u8]]) -> Result<(), CommandError> {
        let wanted = self.arity.unsigned_abs() as usize;
        let enough = if self.arity < 0 { args.len() >= wanted } else { args.len() == wanted };
        let whole = self.keys.step < 2
            || self.keys.last > 0
            || args.len().saturating_sub(self.keys.first).is_multiple_of(self.keys.step);
        match enough && whole {
            true => Ok(()),
            false if self.name == "exec" => Err(multi::malformed_exec()),
            false => Err(CommandError::WrongArity { command: self.full_name() }),
        }
    }

    /// Checks the length of the keys.
    #[inline]
    pub fn check_keys(&self, args: &[&[u8]]) -> Result<(), CommandError> {
        let is_too_long = match self.keys {
            // Most commands have just one.
            KeySpec::ONE => args.get(1).is_some_and(|key| key.len() > KEY_BYTES_MAX),
            _ => self.key_positions(args).any(|at| args[at].len() > KEY_BYTES_MAX),
        };
        if is_too_long { Err(CommandError::KeyTooLong) } else { Ok(()) }
    }

    /// The places of the keys among the arguments.
    pub fn key_positions(&self, args: &[&[u8]]) -> impl Iterator<Item = usize> + use<> {
        let KeySpec { first, last, step } = self.keys;
        let end = if last < 0 {
            (args.len() + 1).saturating_sub(last.unsigned_abs())
        } else {
            (last.unsigned_abs() + 1).min(args.len())
        };
        let end = if first == 0 { 0 } else { end };
        (first..end).step_by(step.max(1))
    }

    /// The subcommand with this name.
    pub fn subcommand(&self, name: &[u8]) -> Option<&'static Command> {
        self.subcommands.iter().find(|sub| sub.name.as_bytes().eq_ignore_ascii_case(name))
    }
}

/// The commands, by name.
static TABLE: &[Command] = &numbered([
    annulet::COMMAND,
    append::COMMAND,
    readonly::ASKING,
    auth::COMMAND,
    save::BGSAVE,
    bitcount::COMMAND,
    bitpos::COMMAND,
    changes::COMMAND,
    client::COMMAND,
    cluster::COMMAND,
    command::COMMAND,
    config::COMMAND,
    consistency::COMMAND,
    copy::COMMAND,
    dbsize::COMMAND,
    incr::DECR,
    incr::DECRBY,
    del::COMMAND,
    delv::COMMAND,
    multi::DISCARD,
    echo::COMMAND,
    multi::EXEC,
    exists::COMMAND,
    expire::EXPIRE,
    expire::EXPIREAT,
    ttl::EXPIRETIME,
    flushall::COMMAND,
    flushall::FLUSHDB,
    get::COMMAND,
    setbit::GETBIT,
    getdel::COMMAND,
    getex::COMMAND,
    getrange::GETRANGE,
    getset::COMMAND,
    getv::COMMAND,
    hello::COMMAND,
    incr::INCR,
    incr::INCRBY,
    incrbyfloat::COMMAND,
    info::COMMAND,
    keys::COMMAND,
    save::LASTSAVE,
    latency::COMMAND,
    memory::COMMAND,
    mget::COMMAND,
    mset::COMMAND,
    msetnx::COMMAND,
    multi::MULTI,
    object::COMMAND,
    persist::COMMAND,
    expire::PEXPIRE,
    expire::PEXPIREAT,
    ttl::PEXPIRETIME,
    ping::COMMAND,
    setex::PSETEX,
    ttl::PTTL,
    quit::COMMAND,
    randomkey::COMMAND,
    readonly::READONLY,
    readonly::READWRITE,
    rename::RENAME,
    rename::RENAMENX,
    reset::COMMAND,
    scan::COMMAND,
    select::COMMAND,
    set::COMMAND,
    setbit::SETBIT,
    setex::SETEX,
    setnx::COMMAND,
    setrange::COMMAND,
    setv::COMMAND,
    slowlog::COMMAND,
    strlen::COMMAND,
    getrange::SUBSTR,
    time::COMMAND,
    exists::TOUCH,
    ttl::TTL,
    r#type::COMMAND,
    del::UNLINK,
    wait::COMMAND,
]);

/// Gives each row its number.
const fn numbered<const ROWS: usize>(mut rows: [Command; ROWS]) -> [Command; ROWS] {
    let mut row = 0;
    while row < ROWS {
        rows[row].row = row as u16;
        row += 1;
    }
    rows
}

/// Every command and subcommand, each at its [`place_of`]: the rows of the table first, then their subcommands.
pub fn places() -> impl Iterator<Item = &'static Command> {
    TABLE.iter().chain(TABLE.iter().flat_map(|command| command.subcommands))
}

/// A number for each command and subcommand, from 0 without gaps: where figures are kept by command. It is the same as
/// long as the process runs.
pub fn place_of(command: &Command) -> usize {
    if command.parent.is_empty() {
        return usize::from(command.row);
    }
    let same = |other: &Command| other.name == command.name && other.parent == command.parent;
    places().position(same).unwrap_or_default()
}

/// All commands, by name.
pub fn table() -> &'static [Command] {
    TABLE
}

/// The command, or subcommand, that a request names, after its arity and the length of its keys were checked.
pub fn resolve(args: &[&[u8]]) -> Result<&'static Command, CommandError> {
    let command = args.first().and_then(|name| lookup(name));
    resolve_from(command.ok_or_else(|| CommandError::unknown_command(args))?, args)
}

/// As [`resolve`], where the first word's command is known.
#[inline]
pub fn resolve_from(mut command: &'static Command, args: &[&[u8]]) -> Result<&'static Command, CommandError> {
    if let (false, Some(name)) = (command.subcommands.is_empty(), args.get(1)) {
        command = command.subcommand(name).ok_or_else(|| CommandError::UnknownSubcommand {
            name: String::from_utf8_lossy(&name[..name.len().min(128)]).into_owned(),
            command: command.name.to_ascii_uppercase(),
        })?;
    }
    command.check_arity(args)?;
    command.check_keys(args)?;
    Ok(command)
}

/// Whether a session takes this command now: not within a transaction that was refused.
#[inline]
pub fn check_session(session: &Session, command: &Command) -> Result<(), CommandError> {
    if session.refuses_transaction && !multi::ends_refusal(command) {
        return Err(multi::not_run());
    }
    Ok(())
}

/// Runs the subcommand that the arguments name: the handler of commands that have some.
pub(crate) fn run_subcommand(
    session: &mut Session,
    host: &mut dyn Host,
    args: &[&[u8]],
) -> Result<Reply<'static>, CommandError> {
    let command = resolve(args)?;
    match command.handler {
        Handler::Session(run) if !command.parent.is_empty() => run(session, host, args),
        _ => Err(CommandError::WrongArity { command: command.full_name() }),
    }
}

/// What `CLIENT HELP` and its like show: the subcommands, each with its sentence.
pub(crate) fn help_of(name: &str) -> Reply<'static> {
    let Some(command) = lookup(name.as_bytes()) else { return Reply::Array(Vec::new()) };
    let upper = command.name.to_ascii_uppercase();
    let mut lines = vec![format!("{upper} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")];
    for sub in command.subcommands {
        lines.push(format!("{} {}", sub.name.to_ascii_uppercase(), sub.syntax).trim_end().to_owned());
        lines.push(format!("    {}", sub.summary));
    }
    Reply::Array(lines.into_iter().map(|line| Reply::Simple(Cow::Owned(line))).collect())
}

/// docs/commands.md: every command, from the table.
pub fn reference_markdown() -> String {
    let mut groups: Vec<&str> = TABLE.iter().map(|command| command.group).collect();
    groups.sort_unstable();
    groups.dedup();
    let mut page = String::from(
        "# Commands\n\n\
         Made from the command table; do not edit. Arity, replies and errors are those of Redis 7 where Redis has the\n\
         command. *Since* is the version of Redis that brought it, or of Annulet for what Redis has not.\n",
    );
    for group in groups {
        let _ = write!(page, "\n## {group}\n\n| command | what | time | since | over several partitions |\n");
        page += "| --- | --- | --- | --- | --- |\n";
        for command in TABLE.iter().filter(|command| command.group == group) {
            if command.subcommands.is_empty() || command.arity == -1 {
                reference_row(&mut page, command);
            }
            command.subcommands.iter().for_each(|sub| reference_row(&mut page, sub));
        }
    }
    page
}

fn reference_row(page: &mut String, command: &Command) {
    let usage = [&*command.parent.to_ascii_uppercase(), &*command.name.to_ascii_uppercase(), command.syntax]
        .into_iter()
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    let mut what = command.summary.to_owned();
    if !command.aliases.is_empty() {
        let _ = write!(what, " Also called {}.", command.aliases.join(", ").to_ascii_uppercase());
    }
    let over = match command.handler {
        Handler::Keys { over: Over::One, .. } if command.keys == KeySpec::ONE => "one key",
        Handler::Keys { over: Over::One, .. } => "CROSSSLOT",
        Handler::Keys { over: Over::Split(_), .. } => "each key by itself",
        Handler::Everywhere { .. } | Handler::Scan | Handler::Listing | Handler::RandomKey => {
            "all partitions"
        }
        Handler::Slot { .. } | Handler::Changes => "the slot's",
        Handler::Session(_) | Handler::Clients(_) | Handler::Wait => "no keys",
    };
    let since = if command.since.starts_with('0') {
        format!("Annulet {}", command.since)
    } else {
        command.since.into()
    };
    let escape = |text: &str| text.replace('|', "\\|");
    let _ = writeln!(
        page,
        "| `{}` | {} | {} | {since} | {over} |",
        escape(&usage),
        escape(&what),
        command.complexity
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_consistent() {
        assert!(TABLE.is_sorted_by_key(|command| command.name));
        for command in TABLE {
            for name in [command.name].iter().chain(command.aliases) {
                let found = lookup(name.to_ascii_uppercase().as_bytes()).expect("every name is found");
                assert_eq!(found.name, command.name);
                assert_eq!(name.to_ascii_lowercase(), **name);
            }
            assert_eq!(command.parent, "");
            for row in [command].into_iter().chain(command.subcommands) {
                assert!(row.arity != 0 && !row.group.is_empty(), "{}", row.full_name());
                assert!(row.summary.ends_with('.'), "{}", row.full_name());
                assert!(row.categories != Categories::NONE, "{}", row.full_name());
                assert!(!(row.flags.contains(Flags::WRITE) && row.flags.contains(Flags::READONLY)));
                if let Handler::Keys { .. } | Handler::Everywhere { .. } = row.handler {
                    assert!(
                        row.flags.contains(Flags::WRITE) || row.flags.contains(Flags::READONLY),
                        "{}",
                        row.full_name()
                    );
                }
                assert_eq!(matches!(row.handler, Handler::Keys { .. }), row.keys.first > 0);
            }
            assert!(command.subcommands.is_sorted_by_key(|sub| sub.name), "{}", command.name);
            assert!(command.subcommands.iter().all(|sub| sub.parent == command.name));
        }
    }

    #[test]
    fn every_command_has_a_place_of_its_own() {
        for (place, command) in places().enumerate() {
            assert_eq!(place_of(command), place, "{}", command.full_name());
        }
        let found = resolve(&[b"client", b"setname", b"x"]).unwrap();
        assert_eq!(places().nth(place_of(found)).unwrap().full_name(), "client|setname");
        assert_eq!(place_of(lookup(b"get").unwrap()), place_of(resolve(&[b"GET", b"a"]).unwrap()));
    }

    #[test]
    fn strangers_are_not_found() {
        for name in ["", "nonsense", "getx", "ge", "client|id", "a name that is far too long for the table"] {
            assert!(lookup(name.as_bytes()).is_none(), "{name}");
        }
        assert_eq!(lookup(b"PuT").map(|command| command.name), Some("set"));
        assert_eq!(lookup(b"DELETE").map(|command| command.name), Some("del"));
    }

    #[test]
    fn keys_are_where_the_table_says() {
        let keys = |line: &str| {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            lookup(args[0]).unwrap().key_positions(&args).collect::<Vec<_>>()
        };
        assert_eq!(keys("get a"), [1]);
        assert_eq!(keys("get"), Vec::<usize>::new());
        assert_eq!(keys("mset a 1 b 2"), [1, 3]);
        assert_eq!(keys("mset a 1 b"), [1, 3]);
        assert_eq!(keys("del a b c"), [1, 2, 3]);
        assert_eq!(keys("set a b EX 1"), [1]);
        assert_eq!(keys("ping a b"), Vec::<usize>::new());
    }

    #[test]
    fn requests_are_checked_before_they_run() {
        let text =
            |args: &[&[u8]]| resolve(args).map(|command| command.full_name()).map_err(|e| e.to_string());
        assert_eq!(text(&[b"CLIENT", b"setname", b"x"]), Ok("client|setname".into()));
        for (args, expected) in [
            (vec!["foo", "a"], "ERR unknown command 'foo', with args beginning with: 'a' "),
            (vec!["get"], "ERR wrong number of arguments for 'get' command"),
            (vec!["get", "a", "b"], "ERR wrong number of arguments for 'get' command"),
            (vec!["mset", "a", "1", "b"], "ERR wrong number of arguments for 'mset' command"),
            (vec!["client"], "ERR wrong number of arguments for 'client' command"),
            (vec!["client", "setname"], "ERR wrong number of arguments for 'client|setname' command"),
            (vec!["client", "nope"], "ERR unknown subcommand 'nope'. Try CLIENT HELP."),
        ] {
            let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
            assert_eq!(text(&args), Err(expected.to_owned()));
        }
        let long = vec![b'k'; KEY_BYTES_MAX + 1];
        assert_eq!(
            text(&[b"mset", b"a", b"1", &long, b"2"]),
            Err("ERR key is longer than 65536 bytes".into())
        );
        assert_eq!(text(&[b"mset", b"a", &long]), Ok("mset".into()));
    }

    #[test]
    fn the_reference_names_every_command() {
        let page = reference_markdown();
        for command in TABLE {
            assert!(page.contains(&format!("`{}", command.name.to_ascii_uppercase())), "{}", command.name);
        }
    }
}
