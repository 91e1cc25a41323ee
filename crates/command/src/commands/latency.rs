//! LATENCY: how long this node's commands take. Annulet counts every request by command and duration; it keeps no
//! separate events as Redis' latency monitor does, so the subcommands about those have nothing to show, and say so.

use crate::table::{help_of, lookup, places, run_subcommand};
use crate::{
    Categories, Command, CommandError, CommandFigures, Flags, Handler, Host, Reply, Session, SessionFn,
};

const FLAGS: Flags = Flags::ADMIN.with(Flags::NOSCRIPT).with(Flags::LOADING).with(Flags::STALE);
const CATEGORIES: Categories = Categories::ADMIN.with(Categories::SLOW).with(Categories::DANGEROUS);

/// LATENCY subcommand
pub(crate) const COMMAND: Command = Command {
    name: "latency",
    syntax: "subcommand [argument ...]",
    arity: -2,
    flags: FLAGS,
    group: "server",
    since: "2.8.13",
    summary: "How long this node's commands take.",
    categories: CATEGORIES,
    handler: Handler::Session(run_subcommand),
    subcommands: &[
        row("doctor", "", 2, "Where to look for latencies.", doctor),
        row("help", "", 2, "The subcommands.", |_, _, _| Ok(help_of("latency"))),
        Command {
            complexity: "O(N)",
            since: "7.0.0",
            ..row(
                "histogram",
                "[command [command ...]]",
                -2,
                "How many requests of each command took up to how many microseconds, from start to reply.",
                histogram,
            )
        },
        row("history", "event", 3, "Nothing: single events are not kept.", |_, _, _| {
            Ok(Reply::Array(Vec::new()))
        }),
        row("latest", "", 2, "Nothing: single events are not kept.", |_, _, _| Ok(Reply::Array(Vec::new()))),
        row("reset", "[event [event ...]]", -2, "Forgets events, of which there are none: 0.", |_, _, _| {
            Ok(Reply::Integer(0))
        }),
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
        parent: "latency",
        syntax,
        arity,
        flags: FLAGS,
        group: "server",
        since: "2.8.13",
        summary,
        categories: CATEGORIES,
        handler: Handler::Session(run),
        ..Command::BASE
    }
}

fn doctor(_: &mut Session, _: &mut dyn Host, _: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    let text = "Single latency events are not kept. LATENCY HISTOGRAM and INFO latencystats tell how long each command \
                took from its start to its reply, SLOWLOG GET which requests kept a data thread busy.\n";
    Ok(Reply::Verbatim(text.into()))
}

fn histogram(_: &mut Session, host: &mut dyn Host, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    let figures = host.command_figures();
    let asked = |command: &Command| {
        args.len() == 2
            || args[2..].iter().any(|name| {
                // A command's name stands for its subcommands, too, as in Redis.
                let full = command.full_name();
                full.as_bytes().eq_ignore_ascii_case(name)
                    || lookup(name).is_some_and(|named| [command.name, command.parent].contains(&named.name))
            })
    };
    let found =
        places().zip(&figures).filter(|(command, figures)| figures.latencies.total() > 0 && asked(command));
    Ok(Reply::Map(
        found
            .map(|(command, figures)| (Reply::bulk(command.full_name().into_owned()), shown(figures)))
            .collect(),
    ))
}

/// The calls, and how many took up to each power of two: those where the number grows.
fn shown(figures: &CommandFigures) -> Reply<'static> {
    let mut before = 0;
    let mut buckets = Vec::new();
    for (bound_ns, count) in figures.latencies.by_powers_of_two() {
        if count > before {
            buckets.push((Reply::Integer((bound_ns / 1000) as i64), Reply::Integer(count as i64)));
            before = count;
        }
    }
    Reply::Map(vec![
        (Reply::bulk("calls"), Reply::Integer(figures.latencies.total() as i64)),
        (Reply::bulk("histogram_usec"), Reply::Map(buckets)),
    ])
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn latency() {
        let get = "'get': {'calls': (integer) 3, 'histogram_usec': {(integer) 2: (integer) 2, (integer) 128: (integer) 3}}";
        let name = "'client|setname': {'calls': (integer) 1, 'histogram_usec': {(integer) 1: (integer) 1}}";
        check(&[
            ("", "latency histogram", &format!("{{{get}, {name}}}")),
            ("", "latency histogram GET set nonsense", &format!("{{{get}}}")),
            ("", "latency histogram client", &format!("{{{name}}}")),
            ("", "latency histogram client|setname", &format!("{{{name}}}")),
            ("config resetstat", "latency histogram", "{}"),
            ("", "latency latest", "[]"),
            ("", "latency history command", "[]"),
            ("", "latency reset", "(integer) 0"),
            ("", "latency nope", "(error) ERR unknown subcommand 'nope'. Try LATENCY HELP."),
        ]);
    }
}
