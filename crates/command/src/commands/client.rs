//! CLIENT: what a connection says of itself, and what operators ask of all connections of a node.

use super::{is, shown};
use crate::clients::ClientOrder;
use crate::number::parse_i64;
use crate::table::{ClientsFn, help_of, run_subcommand};
use crate::{
    Categories, Command, CommandError, Flags, Handler, Host, Pause, Reply, ReplyMode, Session, SessionFn,
};
use std::time::Duration;

const FLAGS: Flags = Flags::NOSCRIPT.with(Flags::LOADING).with(Flags::STALE);

/// CLIENT subcommand
pub(crate) const COMMAND: Command = Command {
    name: "client",
    syntax: "subcommand [argument ...]",
    arity: -2,
    flags: FLAGS,
    group: "connection",
    since: "2.4.0",
    summary: "What a connection says of itself.",
    categories: Categories::SLOW.with(Categories::CONNECTION),
    handler: Handler::Session(run_subcommand),
    subcommands: &[
        row("getname", "", 2, "2.6.9", "The connection's name, if it has one.", |session, _, _| {
            Ok(if session.name.is_empty() { Reply::Null } else { Reply::bulk(&session.name[..]) })
        }),
        row("help", "", 2, "5.0.0", "The subcommands.", |_, _, _| Ok(help_of("client"))),
        row("id", "", 2, "5.0.0", "The connection's number.", |session, _, _| {
            Ok(Reply::Integer(session.id as i64))
        }),
        of_clients("info", "", 2, "6.2.0", "What is known of the connection.", ClientOrder::info),
        of_operators(of_clients(
            "kill",
            "address | option value [option value ...]",
            -3,
            "2.4.0",
            "Closes connections to this node. Options are ID, TYPE, USER, ADDR, LADDR, SKIPME yes or no, and MAXAGE seconds.",
            ClientOrder::kill,
        )),
        of_operators(of_clients(
            "list",
            "[TYPE type | ID id [id ...]]",
            -2,
            "2.4.0",
            "What is known of the connections to this node.",
            ClientOrder::list,
        )),
        of_operators(row(
            "no-evict",
            "ON | OFF",
            3,
            "7.0.0",
            "Has the connection closed last where clients take too much memory.",
            |session, _, args| {
                session.no_evict = on_or_off(args[2])?;
                Ok(Reply::ok())
            },
        )),
        row(
            "no-touch",
            "ON | OFF",
            3,
            "7.2.0",
            "Leaves access times of keys alone. Keys have none here, so this only shows in CLIENT LIST.",
            |session, _, args| {
                session.no_touch = on_or_off(args[2])?;
                Ok(Reply::ok())
            },
        ),
        of_operators(row(
            "pause",
            "milliseconds [WRITE | ALL]",
            -3,
            "3.0.0",
            "Makes requests of this node's clients wait: those that may write, or all but CLIENT and operators' commands.",
            pause,
        )),
        row("reply", "ON | OFF | SKIP", 3, "3.2.0", "Which requests of the connection are answered.", reply),
        row(
            "setinfo",
            "LIB-NAME name | LIB-VER version",
            4,
            "7.2.0",
            "Names the client library or its version.",
            set_info,
        ),
        row(
            "setname",
            "name",
            3,
            "2.6.9",
            "Names the connection; an empty name takes it away.",
            |session, _, args| {
                set_name(session, args[2])?;
                Ok(Reply::ok())
            },
        ),
        of_operators(row("unpause", "", 2, "6.2.0", "Lets paused clients go on.", |_, host, _| {
            host.unpause_clients();
            Ok(Reply::ok())
        })),
    ],
    ..Command::BASE
};

/// What concerns other connections than one's own.
const fn of_operators(command: Command) -> Command {
    let categories = Categories::ADMIN.with(Categories::SLOW).with(Categories::DANGEROUS);
    Command { categories: categories.with(Categories::CONNECTION), ..command }
}

const fn row(
    name: &'static str,
    syntax: &'static str,
    arity: i32,
    since: &'static str,
    summary: &'static str,
    run: SessionFn,
) -> Command {
    Command {
        name,
        parent: "client",
        syntax,
        arity,
        flags: FLAGS,
        group: "connection",
        since,
        summary,
        categories: Categories::SLOW.with(Categories::CONNECTION),
        handler: Handler::Session(run),
        ..Command::BASE
    }
}

const fn of_clients(
    name: &'static str,
    syntax: &'static str,
    arity: i32,
    since: &'static str,
    summary: &'static str,
    order: ClientsFn,
) -> Command {
    Command {
        complexity: "O(n) in connections",
        handler: Handler::Clients(order),
        ..row(name, syntax, arity, since, summary, |_, _, _| Ok(Reply::ok()))
    }
}

fn on_or_off(word: &[u8]) -> Result<bool, CommandError> {
    match word {
        word if is(word, "on") => Ok(true),
        word if is(word, "off") => Ok(false),
        _ => Err(CommandError::Syntax),
    }
}

fn pause(_: &mut Session, host: &mut dyn Host, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    let pause = match args[3..] {
        [] => Pause::All,
        [word] if is(word, "write") => Pause::Writes,
        [word] if is(word, "all") => Pause::All,
        [_] => return Err(CommandError::Other("ERR CLIENT PAUSE mode must be WRITE or ALL".into())),
        _ => return Err(CommandError::WrongArity { command: "client|pause".into() }),
    };
    let lasting = parse_i64(args[2]).ok_or(CommandError::BadTimeout)?;
    let lasting = u64::try_from(lasting).map_err(|_| CommandError::NegativeTimeout)?;
    host.pause_clients(Duration::from_millis(lasting), pause);
    Ok(Reply::ok())
}

/// The connection leaves out what is not wanted: [`Session::wants_reply`].
fn reply(session: &mut Session, _: &mut dyn Host, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    match args[2] {
        word if is(word, "on") => session.replies = ReplyMode::On,
        word if is(word, "off") => session.replies = ReplyMode::Off,
        word if is(word, "skip") && session.replies == ReplyMode::Off => {}
        word if is(word, "skip") => session.replies = ReplyMode::SkipNext,
        _ => return Err(CommandError::Syntax),
    }
    Ok(Reply::ok())
}

fn is_plain(text: &[u8]) -> bool {
    text.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

/// Names the connection. A name has to fit the one-line lists that show it.
pub(crate) fn set_name(session: &mut Session, name: &[u8]) -> Result<(), CommandError> {
    if !is_plain(name) {
        let text = "ERR Client names cannot contain spaces, newlines or special characters.";
        return Err(CommandError::Other(text.into()));
    }
    session.name = name.to_vec();
    Ok(())
}

fn set_info(session: &mut Session, _: &mut dyn Host, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    let field = match args[2] {
        word if is(word, "lib-name") => &mut session.lib_name,
        word if is(word, "lib-ver") => &mut session.lib_version,
        word => return Err(CommandError::Other(format!("ERR Unrecognized option '{}'", shown(word)))),
    };
    if !is_plain(args[3]) {
        let name = shown(args[2]).to_ascii_lowercase();
        let text = format!("ERR {name} cannot contain spaces, newlines or special characters.");
        return Err(CommandError::Other(text));
    }
    *field = args[3].to_vec();
    Ok(Reply::ok())
}

#[cfg(test)]
mod tests {
    use super::{Duration, Pause};
    use crate::testing::{World, check};

    #[test]
    fn client() {
        let bad = "(error) ERR Client names cannot contain spaces, newlines or special characters.";
        check(&[
            ("", "client id", "(integer) 7"),
            ("", "client getname", "(nil)"),
            ("client setname me", "CLIENT GETNAME", "'me'"),
            ("", "client setname a\tb", bad),
            ("", "client setinfo lib-name x", "OK"),
            ("", "client setinfo LIB-VER 1.2", "OK"),
            ("", "client setinfo nonsense 1.2", "(error) ERR Unrecognized option 'nonsense'"),
            (
                "",
                "client setinfo lib-name a\tb",
                "(error) ERR lib-name cannot contain spaces, newlines or special characters.",
            ),
            ("", "client", "(error) ERR wrong number of arguments for 'client' command"),
            ("", "client id x", "(error) ERR wrong number of arguments for 'client|id' command"),
            ("", "client nonsense", "(error) ERR unknown subcommand 'nonsense'. Try CLIENT HELP."),
        ]);
        let mut world = World::new();
        world.run("client setinfo lib-name rust");
        assert_eq!(world.session.lib_name, b"rust");
        assert!(world.run("client help").contains("SETNAME name"));
    }

    #[test]
    fn pausing() {
        let mut world = World::new();
        for (line, error) in [
            ("client pause x", "ERR timeout is not an integer or out of range"),
            ("client pause -1", "ERR timeout is negative"),
            ("client pause 10 foo", "ERR CLIENT PAUSE mode must be WRITE or ALL"),
            ("client pause", "ERR wrong number of arguments for 'client|pause' command"),
        ] {
            assert_eq!(world.run(line), format!("(error) {error}"), "{line}");
        }
        assert_eq!(world.paused(), None);
        for (line, pause) in [("", Pause::All), (" write", Pause::Writes), (" ALL", Pause::All)] {
            assert_eq!(world.run(&format!("client pause 1500{line}")), "OK");
            assert_eq!(world.paused(), Some((Duration::from_millis(1500), pause)));
        }
        world.run("client unpause");
        assert_eq!(world.paused(), None);
        let held =
            |pause: Pause, line: &str| pause.holds(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        for (line, writes, all) in [
            ("get a", false, true),
            ("set a 1", true, true),
            ("nonsense", false, true),
            ("client unpause", false, false),
            ("config get a", false, false),
        ] {
            let found = (held(Pause::Writes, line), held(Pause::All, line), held(Pause::Off, line));
            assert_eq!(found, (writes, all, false), "{line}");
        }
    }

    /// As Redis 7.0.15 does: what follows a word, and whether it is answered.
    #[test]
    fn replies_that_are_not_wanted() {
        let mut world = World::new();
        for (line, answered) in [
            ("client reply nonsense", true),
            ("client reply on", true),
            ("client reply skip", false),
            ("ping", false),
            ("ping", true),
            ("client reply off", false),
            ("ping", false),
            ("client reply skip", false),
            ("ping", false),
            ("client reply on", true),
            ("client reply skip", false),
            ("client reply on", true),
            ("ping", true),
            ("client reply skip", false),
            ("client reply skip", false),
            ("ping", false),
            ("ping", true),
        ] {
            world.run(line);
            assert_eq!(world.session.wants_reply(), answered, "{line}");
        }
    }
}
