//! SLOWLOG: the requests of this node that kept a data thread busy for long.

use super::integer;
use crate::table::{help_of, run_subcommand};
use crate::{
    Categories, Command, CommandError, Flags, Handler, Host, Reply, Session, SessionFn, SlowRequest,
};

const FLAGS: Flags = Flags::ADMIN.with(Flags::LOADING).with(Flags::STALE);
const CATEGORIES: Categories = Categories::ADMIN.with(Categories::SLOW).with(Categories::DANGEROUS);
/// Requests that `SLOWLOG GET` shows where no number is given, as in Redis.
const SHOWN: usize = 10;

/// SLOWLOG subcommand
pub(crate) const COMMAND: Command = Command {
    name: "slowlog",
    syntax: "subcommand [argument]",
    arity: -2,
    flags: FLAGS,
    group: "server",
    since: "2.2.12",
    summary: "The requests of this node that kept a data thread busy for longer than slowlog_log_slower_than.",
    categories: CATEGORIES,
    handler: Handler::Session(run_subcommand),
    subcommands: &[
        Command {
            complexity: "O(N)",
            ..row(
                "get",
                "[count]",
                -2,
                "Slow requests, the newest first: 10 of them, or count; -1 is all.",
                get,
            )
        },
        row("help", "", 2, "The subcommands.", |_, _, _| Ok(help_of("slowlog"))),
        row("len", "", 2, "How many slow requests are kept.", len),
        row("reset", "", 2, "Forgets the slow requests.", reset),
    ],
    ..Command::BASE
};

const fn row(
    name: &'static str,
    syntax: &'static str,
    arity: i32,
    summary: &'static str,
    run: SessionFn,
) -> Command {
    Command {
        name,
        parent: "slowlog",
        syntax,
        arity,
        flags: FLAGS,
        group: "server",
        since: "2.2.12",
        summary,
        categories: CATEGORIES,
        handler: Handler::Session(run),
        ..Command::BASE
    }
}

fn get(_: &mut Session, host: &mut dyn Host, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    let count = match args {
        [_, _] => SHOWN,
        [_, _, count] => match integer(count) {
            Ok(-1) => usize::MAX,
            Ok(count @ 0..) => usize::try_from(count).unwrap_or(usize::MAX),
            _ => {
                let text = "ERR count should be greater than or equal to -1";
                return Err(CommandError::Other(text.into()));
            }
        },
        _ => return Err(CommandError::WrongArity { command: "slowlog|get".into() }),
    };
    Ok(Reply::Array(host.slow_requests(count).iter().map(|request| entry(request)).collect()))
}

fn entry(request: &SlowRequest) -> Reply<'static> {
    Reply::Array(vec![
        Reply::Integer(request.id as i64),
        Reply::Integer(request.at_unix_seconds as i64),
        Reply::Integer(request.took_us as i64),
        Reply::Array(request.args.iter().map(|arg| Reply::bulk(arg.clone())).collect()),
        Reply::bulk(request.address.clone()),
        Reply::bulk(request.name.clone()),
    ])
}

fn len(_: &mut Session, host: &mut dyn Host, _: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    Ok(Reply::count(host.slow_requests(usize::MAX).len()))
}

fn reset(_: &mut Session, host: &mut dyn Host, _: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    host.forget_slow_requests();
    Ok(Reply::ok())
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn slowlog() {
        let entry = "[(integer) 4, (integer) 1700000000, (integer) 12000, ['GET', 'a'], '127.0.0.1:5', 'me']";
        check(&[
            ("", "slowlog get", &format!("[{entry}]")),
            ("", "slowlog get -1", &format!("[{entry}]")),
            ("", "slowlog get 0", "[]"),
            ("", "slowlog len", "(integer) 1"),
            ("slowlog reset", "slowlog len", "(integer) 0"),
            ("", "slowlog get -2", "(error) ERR count should be greater than or equal to -1"),
            ("", "slowlog get x", "(error) ERR count should be greater than or equal to -1"),
            ("", "slowlog get 1 2", "(error) ERR wrong number of arguments for 'slowlog|get' command"),
            ("", "slowlog nope", "(error) ERR unknown subcommand 'nope'. Try SLOWLOG HELP."),
        ]);
    }
}
