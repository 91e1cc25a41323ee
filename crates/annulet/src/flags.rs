//! The command line: one tree of subcommands and flags, from which clap makes parser and help.
//!
//! Settings are not listed here. [`setting_flags`] makes their flags from `types::settings::SETTINGS`, the table that the
//! config file, `annulet settings` and docs/settings.md are made from too.

use crate::settings_page;
use clap::builder::Styles;
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};
use config::settings_file::{Given, flag_name, is_number};
use types::settings::{SETTINGS, Setting};

/// Settings that `annulet up` decides for each of its nodes.
pub(crate) const DECIDED_BY_UP: &[&str] = &[
    "node_id",
    "nodes",
    "join",
    "dir",
    "announce",
    "port",
    "cluster_port",
    "peer_port",
    "http_port",
    "line_port",
    "witness",
];

/// The whole command line.
pub(crate) fn command() -> Command {
    Command::new("annulet")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A distributed key-value store that speaks the Redis protocol")
        .long_about(ABOUT)
        .after_long_help(EXAMPLES)
        .after_help("`annulet --help` has examples; `annulet help up` tells more of one command.")
        .styles(Styles::plain())
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(up())
        .subcommand(demo())
        .subcommand(cli())
        .subcommand(status())
        .subcommand(serve())
        .subcommand(node())
        .subcommand(set())
        .subcommand(rebalance())
        .subcommand(rolling_restart())
        .subcommand(accept_loss())
        .subcommand(check())
        .subcommand(dump())
        .subcommand(
            Command::new("settings")
                .about("List every setting: the flags of `serve`, the names in its config file")
                .after_long_help(settings_page::text())
                .arg(
                    Arg::new("markdown")
                        .long("markdown")
                        .help("As the page docs/settings.md")
                        .action(ArgAction::SetTrue),
                ),
        )
}

/// The settings that the flags give.
pub(crate) fn given_settings(matches: &ArgMatches, except: &[&str]) -> Given {
    let wanted = SETTINGS.iter().filter(|setting| !except.contains(&setting.name));
    wanted
        .filter_map(|setting| Some((setting.name, matches.get_one::<String>(setting.name)?.clone())))
        .collect()
}

fn setting_flags(except: &'static [&'static str]) -> impl Iterator<Item = Arg> {
    SETTINGS.iter().filter(move |setting| !except.contains(&setting.name)).map(|setting| {
        let flag = Arg::new(setting.name)
            .long(flag_name(setting.name))
            .value_name(if is_number(setting) { "N" } else { "TEXT" })
            .help(setting_help(setting))
            .help_heading("Settings");
        match setting.name {
            // The flag alone says yes, and what follows may be another flag.
            "witness" => flag.num_args(0..=1).default_missing_value("yes"),
            _ => flag.allow_hyphen_values(true),
        }
    })
}

/// One line about a setting: what it does, its default, whether all nodes have to agree.
pub(crate) fn setting_help(setting: &Setting) -> String {
    let mut help = setting.help.to_owned();
    if !setting.default.is_empty() {
        help += &format!(" [default: {}]", setting.default);
    }
    if setting.cluster_wide {
        help += " [cluster-wide: the same on every node]";
    }
    help
}

fn up() -> Command {
    Command::new("up")
        .about("Start a cluster on this machine: by default three nodes")
        .long_about(UP)
        .arg(
            Arg::new("count")
                .value_name("N")
                .help("How many nodes [default: 3]")
                .value_parser(value_parser!(u16).range(1..=99)),
        )
        .arg(
            Arg::new("nodes")
                .long("nodes")
                .value_name("N")
                .help("The same, as a flag")
                .value_parser(value_parser!(u16).range(1..=99))
                .conflicts_with("count"),
        )
        .arg(
            Arg::new("port")
                .long("port")
                .value_name("PORT")
                .help("First node's port for clients; further nodes and ports count from it [default: 7001]")
                .value_parser(value_parser!(u16).range(1..)),
        )
        .arg(
            Arg::new("dir")
                .long("dir")
                .value_name("DIR")
                .help("Directory of the cluster: each node's data and log")
                .default_value("annulet-data")
                .value_hint(ValueHint::DirPath),
        )
        .args(setting_flags(DECIDED_BY_UP))
}

fn demo() -> Command {
    Command::new("demo")
        .about("See a cluster at work: a guided, checked walk of a minute")
        .long_about(DEMO)
        .arg(
            Arg::new("fast")
                .long("fast")
                .help("Without pauses, as where there is no terminal")
                .action(ArgAction::SetTrue),
        )
        .arg(
            Arg::new("yes")
                .long("yes")
                .short('y')
                .help("Go on by itself after a moment to read, instead of waiting for Enter")
                .action(ArgAction::SetTrue),
        )
}

fn serve() -> Command {
    Command::new("serve")
        .about("Run one node")
        .long_about(SERVE)
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .help("TOML file of settings; flags win over it")
                .value_parser(value_parser!(std::path::PathBuf))
                .value_hint(ValueHint::FilePath),
        )
        .arg(
            Arg::new("cluster")
                .long("cluster")
                .value_name("FILE")
                .help("TOML or JSON file of a whole fixed cluster, the same on every machine; flags win over it")
                .value_parser(value_parser!(std::path::PathBuf))
                .value_hint(ValueHint::FilePath)
                .requires("node")
                .conflicts_with_all(["config", "node_id", "nodes", "join"]),
        )
        .arg(
            Arg::new("node")
                .long("node")
                .value_name("ID")
                .help("Which of the cluster file's nodes this is")
                .value_parser(value_parser!(u16).range(1..=9999))
                .requires("cluster"),
        )
        .arg(
            Arg::new("die-with-parent")
                .long("die-with-parent")
                .value_name("PID")
                .hide(true)
                .value_parser(value_parser!(i32).range(1..)),
        )
        .args(setting_flags(&[]))
}

fn status() -> Command {
    Command::new("status")
        .about("Show the nodes, and whether all data is served and how safe it is")
        .long_about(STATUS)
        .arg(json("Print the status as JSON, as the node tells it"))
        .arg(
            Arg::new("watch")
                .short('w')
                .long("watch")
                .help("Show it again every second, with how long moves still take, until Ctrl-C")
                .action(ArgAction::SetTrue),
        )
        .args(connection())
}

fn node() -> Command {
    let id = || {
        Arg::new("id")
            .value_name("ID")
            .help("The node's number, as `annulet status` shows it")
            .required(true)
            .value_parser(value_parser!(u16).range(1..=9999))
    };
    Command::new("node")
        .about("Empty a node, or remove a dead one")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("drain")
                .about("Move all data off a node while it serves, then remove it")
                .long_about(DRAIN)
                .arg(id())
                .arg(
                    Arg::new("undo")
                        .long("undo")
                        .help("Let it stay after all, as long as it is a member")
                        .action(ArgAction::SetTrue)
                        .conflicts_with("wait"),
                )
                .arg(wait())
                .args(connection()),
        )
        .subcommand(
            Command::new("remove")
                .about("Make a dead node's copies anew on others at once, and remove it")
                .long_about(REMOVE)
                .arg(id())
                .arg(wait())
                .args(connection()),
        )
}

fn set() -> Command {
    Command::new("set")
        .about("Change how many copies the whole cluster keeps, while it serves")
        .long_about(SET)
        .arg(
            Arg::new("name")
                .value_name("NAME")
                .help("What to change")
                .required(true)
                .value_parser(["copies", "min_in_sync"]),
        )
        .arg(
            Arg::new("value")
                .value_name("N")
                .help("Its new value")
                .required(true)
                .value_parser(value_parser!(u16).range(1..=7)),
        )
        .arg(wait())
        .args(connection())
}

fn rebalance() -> Command {
    Command::new("rebalance")
        .about("Say what is still to be moved, or wait until nothing is")
        .long_about(REBALANCE)
        .arg(wait())
        .args(connection())
}

fn rolling_restart() -> Command {
    Command::new("rolling-restart")
        .about("Restart the nodes of an `annulet up` cluster one after the other, while it serves")
        .long_about(ROLLING_RESTART)
        .arg(
            Arg::new("dir")
                .long("dir")
                .value_name("DIR")
                .help("The directory that `annulet up` was given")
                .default_value("annulet-data")
                .value_hint(ValueHint::DirPath),
        )
}

fn wait() -> Arg {
    Arg::new("wait")
        .long("wait")
        .help("Wait until it is done, and show how far it is")
        .action(ArgAction::SetTrue)
}

fn accept_loss() -> Command {
    Command::new("accept-loss")
        .about("Start partitions whose every copy is lost anew, empty")
        .long_about(ACCEPT_LOSS)
        .arg(
            Arg::new("yes-lose-data")
                .long("yes-lose-data")
                .help("Say that the data of these partitions is to be given up")
                .action(ArgAction::SetTrue),
        )
        .args(connection())
}

fn check() -> Command {
    Command::new("check")
        .about("Verify a stopped node's data directory: logs, snapshots, control file")
        .long_about(CHECK)
        .arg(data_directory())
        .arg(json("Print what was found as JSON"))
}

fn dump() -> Command {
    let number = |name: &'static str, value_name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value_name).help(help)
    };
    Command::new("dump")
        .about("Print what a stopped node's logs or snapshots hold, a line an entry")
        .long_about(DUMP)
        .arg(data_directory())
        .arg(number("shard", "N", "Only this shard").value_parser(value_parser!(u16)))
        .arg(number("partition", "P", "Only this partition").value_parser(value_parser!(u16)))
        .arg(
            number("from", "OFFSET", "Only entries at or after this offset of the log")
                .value_parser(value_parser!(u64))
                .conflicts_with("snapshots"),
        )
        .arg(
            Arg::new("values")
                .long("values")
                .help("Print values too, not only how long they are")
                .action(ArgAction::SetTrue),
        )
        .arg(
            Arg::new("snapshots")
                .long("snapshots")
                .help("Print the snapshots' entries, not those of the log")
                .action(ArgAction::SetTrue),
        )
}

fn data_directory() -> Arg {
    Arg::new("dir")
        .value_name("DIR")
        .help("A node's data directory (`dir`), or the one that `annulet up` made")
        .required(true)
        .value_parser(value_parser!(std::path::PathBuf))
        .value_hint(ValueHint::DirPath)
}

fn cli() -> Command {
    Command::new("cli")
        .about("Run one command, or a shell")
        .long_about(CLI)
        .args(connection())
        .arg(json("Print replies as JSON, one value a line"))
        .arg(
            Arg::new("raw")
                .long("raw")
                .help("Print values as they are, without quotes")
                .action(ArgAction::SetTrue)
                .conflicts_with("json"),
        )
        .arg(
            Arg::new("pipe")
                .long("pipe")
                .value_name("FILE")
                .help("Load a file of commands (RESP, or one a line) at full speed; - is standard input")
                .value_parser(value_parser!(std::ffi::OsString))
                .value_hint(ValueHint::FilePath)
                .conflicts_with_all(["command", "raw"]),
        )
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .help("A command and its arguments; without, a shell (`help` lists the commands)")
                .num_args(0..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .value_parser(value_parser!(std::ffi::OsString)),
        )
}

fn json(help: &'static str) -> Arg {
    Arg::new("json").long("json").help(help).action(ArgAction::SetTrue)
}

fn connection() -> [Arg; 4] {
    [
        Arg::new("addresses")
            .long("nodes")
            .value_name("HOST[:PORT],...")
            .help("Nodes to try in turn: the next one goes on where one does not answer")
            .value_delimiter(',')
            .conflicts_with("host"),
        Arg::new("host")
            .long("host")
            .value_name("HOST[:PORT]")
            .help("A node's host; repeated, the next is tried where one does not answer [default: 127.0.0.1]")
            .action(ArgAction::Append),
        Arg::new("port")
            .short('p')
            .long("port")
            .value_name("PORT")
            .help("Its port for clients, where --host names none [default: 7001]")
            .value_parser(value_parser!(u16).range(1..)),
        Arg::new("password")
            .short('a')
            .long("password")
            .value_name("PASSWORD")
            .help("What `requirepass` says; better given as ANNULET_PASSWORD, which no process list shows")
            .allow_hyphen_values(true),
    ]
}

/// How to reach a node, from the flags of [`connection`].
pub(crate) struct Target {
    /// Addresses to try, in order.
    pub addresses: Vec<String>,
    /// The password, from the flag or the environment.
    pub password: Option<String>,
}

/// The port that clients use unless told otherwise: the first node's of a local cluster.
const PORT: u16 = 7001;

/// How to reach a node, from the flags of [`connection`].
pub(crate) fn target(matches: &ArgMatches) -> Target {
    let port = matches.get_one::<u16>("port").copied().unwrap_or(PORT);
    let hosts: Vec<String> =
        matches.get_many::<String>("addresses").or_else(|| matches.get_many::<String>("host")).map_or_else(
            || vec!["127.0.0.1".to_owned()],
            |hosts| hosts.map(|host| host.trim().to_owned()).collect(),
        );
    let given = matches.get_one::<String>("password").cloned();
    let password = given.or_else(|| std::env::var("ANNULET_PASSWORD").ok()).filter(|text| !text.is_empty());
    Target { addresses: hosts.iter().map(|host| address(host, port)).collect(), password }
}

/// `host:port`, where the host may bring its own port. A bare IPv6 address gets its brackets.
fn address(host: &str, port: u16) -> String {
    if host.parse::<std::net::Ipv6Addr>().is_ok() {
        return format!("[{host}]:{port}");
    }
    let names_port = host.rsplit_once(':').is_some_and(|(_, end)| end.parse::<u16>().is_ok());
    if names_port { host.to_owned() } else { format!("{host}:{port}") }
}

const ABOUT: &str = "\
Annulet is a distributed key-value store in one binary. It speaks the Redis protocol, so any Redis client works. \
By default a write is acknowledged once every in-sync copy has it, and a read never goes back in time.";

const EXAMPLES: &str = "\
Examples:
  annulet demo                      see a cluster at work, in a minute
  annulet up                        start three nodes here; Ctrl-C stops them
  annulet cli put user:1 Alice      store a value (SET; any Redis command works)
  annulet cli get user:1            read it
  annulet cli                       a shell
  redis-cli -p 7001                 any Redis client, at any node
  annulet status                    nodes, partitions, and how safe the data is
  annulet check annulet-data        of a stopped cluster: is everything on disk whole?

A cluster of three machines, on each with its own node id and address:
  annulet serve --node-id 1 --nodes 1=10.0.0.1:7201,2=10.0.0.2:7201,3=10.0.0.3:7201 \\
    --bind 10.0.0.1 --requirepass SECRET --dir /var/lib/annulet

`annulet help COMMAND` tells more of a command; `annulet settings` lists every setting.";

const UP: &str = "\
Starts a cluster on this machine, each node a process of its own, waits until it serves, and stops it on Ctrl-C.

Node i (from 0) listens on PORT + i for every Redis client, PORT + 100 + i for cluster-aware ones, PORT + 200 + i \
for the other nodes, PORT + 300 + i for HTTP (keys, /metrics, /healthz, /readyz), and PORT + 400 + i for JSON and text, a request a \
line. Its data and its log are in DIR/node-(i+1). DIR remembers the shape of the cluster, so that \
`annulet up` alone starts it again. Further flags are settings that every node gets.

Examples:
  annulet up
  annulet up 5 --copies 3
  annulet up --port 8001 --dir /tmp/other
  annulet up --read-level stale";

const DEMO: &str = "\
Starts three nodes on this machine and shows, step by step, what they do: how keys are distributed, how they are replicated, how any \
node answers for all, what becomes of requests when a node is killed, and how it recovers. Each step is explained, done on the real \
cluster, and checked. On a terminal Enter goes on from step to step.

It needs no ports or directories of yours: it takes free ports and a temporary directory, and at the end, or on Ctrl-C, stops its \
nodes and removes it.

The exit code is 0 when every check held, 1 when one did not, 2 when something else went wrong, 130 after Ctrl-C.

Examples:
  annulet demo
  annulet demo --yes
  annulet demo --fast";

const SERVE: &str = "\
Runs one node until it gets SIGTERM or SIGINT. Settings come from their defaults, then a TOML file, then flags.

Examples:
  annulet serve                                one node alone, on 127.0.0.1:7001 (metrics: http://127.0.0.1:7301/metrics)
  annulet serve --config /etc/annulet.toml     the same names as the flags, with underscores
  annulet serve --config FILE --log-level debug

A fixed cluster from one file, which every machine has (docs/cluster-file.md), as TOML or as JSON with the same keys:
  copies = 2
  requirepass = \"a long secret\"
  join_secret = \"64 hex digits: openssl rand -hex 32\"
  [[nodes]]
  id = 1
  host = \"10.0.0.1\"
  [[nodes]]
  id = 2
  host = \"10.0.0.2\"
and on the machine of node 2
  annulet serve --cluster cluster.toml --node 2

A new node for a cluster that runs: copy join.secret from any node's data directory into the new one's, and
  annulet serve --join 10.0.0.1:7201 --bind 10.0.0.4 --requirepass SECRET --dir /var/lib/annulet
It gets a free number and the settings that all nodes share, keeps both in its directory, and takes its share of the data. At later
starts --join may be left out.";

const STATUS: &str = "\
Shows the nodes of the cluster, how many partitions are served, and where data is down to its last copy.

The exit code is 0 when all is well, 1 when data is at risk, not served or lost, 2 when no node can be asked.

Examples:
  annulet status
  annulet status --watch
  annulet status --host 10.0.0.1 --host 10.0.0.2
  annulet status --json";

const DRAIN: &str = "\
Moves every copy off a node, a few at a time, and then removes it from the cluster; its process ends by itself. It serves until the \
end, and clients see no errors; point those that connect to it at other nodes first. The others need room for its data, and there have \
to be as many of them as `copies` says. If it votes, another node does so in its place. --undo lets it stay after all and fills it again.

Examples:
  annulet node drain 4 --wait
  annulet node drain 4 --undo";

const REMOVE: &str = "\
For a node that is dead and does not come back: its copies are made anew on other nodes at once, without waiting for \
`replace_after`, and it is no member any more. A node that is alive is refused: drain it. What only this node held is lost with \
it; `annulet status` says so, and `annulet accept-loss` gives it up.

Example:
  annulet node remove 3 --wait";

const SET: &str = "\
Changes a setting of the whole cluster. It lasts: nodes that start later take it over, whatever their own files say.

copies         copies of each partition. More are made, and filled, in the background; those too many go once the rest are in sync.
min_in_sync    writes to a partition with fewer in-sync copies are refused. At most `copies`.

More copies than there are nodes is allowed: the missing ones are made when nodes join.

Examples:
  annulet set copies 3 --wait
  annulet set min_in_sync 2";

const REBALANCE: &str = "\
The cluster moves copies by itself when nodes join or go, when they die for longer than `replace_after`, and when `copies` changes. \
This says how much of that is left. With --wait it shows a bar and returns when every copy is where it should be and in sync: what a \
script runs between one step and the next.

Examples:
  annulet rebalance
  annulet rebalance --wait && echo safe to go on";

const ROLLING_RESTART: &str = "\
Restarts every node of a local cluster in turn, which `annulet up` does for it: each hands over what it serves, stops, starts again and \
catches up, and only then is it the next one's turn. Clients wait for moments and see no errors, but for connections to the node at \
hand, which break; they go on at any other.

For nodes that something else starts, on each machine in turn:
  systemctl restart annulet          (or whatever starts it: SIGTERM stops a node in order)
  annulet rebalance --wait           it has caught up: go on to the next

Example:
  annulet rolling-restart --dir annulet-data";

const ACCEPT_LOSS: &str = "\
Where every copy of a partition is lost, Annulet does not serve it: an empty answer would be a wrong one. This \
command gives the lost data up, so that those partitions are served again, empty. It changes nothing for partitions \
that have a copy left, and it cannot be undone. `annulet status` says whether there are any.

Example:
  annulet accept-loss --yes-lose-data";

const CHECK: &str = "\
Reads everything in the data directory of a stopped node, to the last byte, and changes nothing: the control file, each shard's \
log and snapshots. It makes every copy again in memory, as a start does, and throws it away; so it needs memory for the largest \
shard, and time to read all files. `keys` are of writes that are known to be committed, `tail` counts the records after these, which \
the next start settles with the other copies. DIR is a node's own directory, or that of `annulet up`, which holds the directories of its nodes.

A line that begins with - is harmless: a torn tail is what a crash leaves, was never synced and is cut off by the next start. \
One that begins with ! is lost or damaged; it names the file, the place and what to do. The last line is `ok`, or what is wrong.

The exit code is 0 when all is well (torn tails included), 1 when something is lost or damaged, 2 when it cannot be read: a node \
runs on it, join.secret is missing, another version wrote it.

Examples:
  annulet check annulet-data
  annulet check /var/lib/annulet --json";

const DUMP: &str = "\
Prints what the shards' logs of a stopped node hold, one line an entry, oldest first, and changes nothing:

  OFFSET shard N record partition P EPOCH/LSN time TIME commit LSN [request ID reply REPLY]: PUT KEY ... ; DEL KEY ...

OFFSET is where the entry begins in the shard's log, and what --from takes. `commit` is up to where the partition was known to be \
committed when the record was logged. A request's id is node/incarnation/shard/number of who forwarded it. Keys are quoted as by \
redis-cli. Further kinds are truncate, wipe, chunk and filled; docs/storage.md explains them.

A log with a damaged place is printed up to it. The exit code is 0 when all could be read, 1 when something damaged was in the \
way, 2 when it cannot be read.

Examples:
  annulet dump annulet-data | grep '\"user:1\"'
  annulet dump annulet-data/node-1 --partition 17 --values
  annulet dump annulet-data/node-1 --shard 0 --from 1048576 | head
  annulet dump annulet-data/node-1 --snapshots";

const CLI: &str = "\
Runs one command and prints its reply as redis-cli does. Without a command: a shell with history, completion (Tab) and hints, or, \
where standard input is not a terminal, a command a line. Every Redis command that Annulet has works; PUT and DELETE are SET and DEL.

Beside these the shell has words of its own, in any case:
  STATUS                  the nodes, and whether all data is served and how safe it is
  SERVERS, LIST_NODES     the nodes with their ports and roles; their addresses
  STATS [node]            what nodes have done since they started; one node in full
  KEYS [node | pattern]   all keys; those whose primary is on a node; those that a pattern fits
  GET_NODES_FOR_KEY key   which nodes hold a key
  HELP [command]          every command; what one takes and does

The exit code is 0, or 1 where there was nothing (nil), or 2 for an error; of a script, 2 where any command failed. --json prints one \
JSON value a line, bytes that are not UTF-8 quoted and escaped; an error is {\"error\": ...}. Colours are for terminals, and off where \
NO_COLOR is set.

With --nodes the next node goes on where one breaks off: commands that only read are asked again, a write that was under way is \
answered \"outcome unknown\".

--pipe FILE loads a file of any size over one connection without waiting for each reply: RESP requests where its first byte is *, \
otherwise a command a line. The first errors are shown with their line; the exit code is 2 where any command failed. Only commands \
of the cluster, not the shell's own words.

History is kept in ~/.annulet_history, or where ANNULET_HISTORY says; empty: nowhere.

Examples:
  annulet cli
  annulet cli put user:1 Alice
  annulet cli --port 7002 incrby visits -5
  annulet cli --nodes 10.0.0.1,10.0.0.2,10.0.0.3 get user:1
  annulet cli --json mget user:1 user:2
  echo 'set a 1' | annulet cli
  annulet cli --pipe commands.txt
  generate | annulet cli --pipe -";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_setting_is_a_flag_of_serve_with_its_help() {
        let mut command = command();
        let serve = command.find_subcommand_mut("serve").unwrap();
        let help = serve.render_long_help().to_string().replace('\n', " ");
        let squeezed = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for setting in SETTINGS {
            assert!(squeezed.contains(&format!("--{} ", flag_name(setting.name))), "{}", setting.name);
            assert!(squeezed.contains(&setting_help(setting)), "{}", setting.name);
        }
        assert!(!help.contains("die-with-parent"));
    }

    #[test]
    fn flags_become_settings() {
        let parse = |line: &str| command().try_get_matches_from(line.split(' ')).unwrap();
        let matches = parse("annulet serve --copies 3 --write-level one");
        let (_, serve) = matches.subcommand().unwrap();
        let expected: Given = vec![("copies", "3".into()), ("write_level", "one".into())];
        assert_eq!(given_settings(serve, &[]), expected);
        let witness = |line: &str| {
            let (_, serve) = parse(line).remove_subcommand().unwrap();
            given_settings(&serve, &[]).into_iter().find(|(name, _)| *name == "witness").map(|given| given.1)
        };
        assert_eq!(witness("annulet serve --witness --copies 3"), Some("yes".to_owned()));
        assert_eq!(witness("annulet serve --copies 3 --witness no"), Some("no".to_owned()));
        let matches = parse("annulet up 5 --port 8001 --copies 3");
        let (_, up) = matches.subcommand().unwrap();
        assert_eq!(given_settings(up, DECIDED_BY_UP), vec![("copies", "3".to_owned())]);
        assert!(command().try_get_matches_from(["annulet", "up", "--node-id", "1"]).is_err());
        assert!(command().try_get_matches_from(["annulet", "up", "3", "--nodes", "3"]).is_err());
    }

    #[test]
    fn hosts_may_name_ports() {
        assert_eq!(address("10.0.0.1", 7001), "10.0.0.1:7001");
        assert_eq!(address("db:8000", 7001), "db:8000");
        assert_eq!(address("::1", 7001), "[::1]:7001");
        assert_eq!(address("[::1]:8000", 7001), "[::1]:8000");
    }

    #[test]
    fn a_command_for_the_shell_keeps_its_dashes() {
        let matches =
            command().get_matches_from(["annulet", "cli", "-p", "7002", "incrby", "a", "-5", "--raw"]);
        let (_, cli) = matches.subcommand().unwrap();
        let words: Vec<_> = cli.get_many::<std::ffi::OsString>("command").unwrap().collect();
        assert_eq!(words, ["incrby", "a", "-5", "--raw"]);
        assert_eq!(target(cli).addresses, ["127.0.0.1:7002"]);
    }
}
