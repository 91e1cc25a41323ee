//! CLIENT: what a connection says of itself.

use super::{is, shown};
use crate::table::{help_of, run_subcommand};
use crate::{Categories, Command, CommandError, Flags, Handler, Host, Reply, Session, SessionFn};

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
        row("info", "", 2, "6.2.0", "What is known of the connection.", |session, host, _| {
            Ok(Reply::Verbatim(describe(session, host)))
        }),
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
    ],
    ..Command::BASE
};

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

fn describe(session: &Session, host: &mut dyn Host) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let age = (host.info().now_us / 1000).saturating_sub(session.created_ms) / 1000;
    // What is not kept is shown as Redis shows nothing: client libraries read all of its fields.
    format!(
        "id={} addr={} laddr={} fd=0 name={} age={age} idle=0 flags={} db=0 sub=0 psub=0 ssub=0 multi=-1 \
         qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r \
         cmd=client|info user=default redir=-1 resp={} lib-name={} lib-ver={}\n",
        session.id,
        session.address,
        session.local_address,
        text(&session.name),
        if session.readonly { "r" } else { "N" },
        session.protocol,
        text(&session.lib_name),
        text(&session.lib_version),
    )
}

#[cfg(test)]
mod tests {
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
        assert!(world.run("client info").contains("lib-name=rust"));
        assert!(world.run("client help").contains("SETNAME name"));
    }
}
