//! ANNULET: what Redis has no command for.

use super::shown;
use crate::table::{help_of, run_subcommand};
use crate::{
    Categories, ClusterOrder, Command, CommandError, Flags, Handler, Host, Reply, Session, SessionFn,
};
use types::slot_of_key;

const FLAGS: Flags = Flags::ADMIN.with(Flags::LOADING).with(Flags::STALE);
const CATEGORIES: Categories = Categories::ADMIN.with(Categories::SLOW).with(Categories::DANGEROUS);

/// ANNULET subcommand
pub(crate) const COMMAND: Command = Command {
    name: "annulet",
    syntax: "subcommand",
    arity: -2,
    flags: FLAGS,
    group: "server",
    since: "0.1.0",
    summary: "What Redis has no command for.",
    categories: CATEGORIES,
    handler: Handler::Session(run_subcommand),
    subcommands: &[
        Command {
            syntax: "ALL",
            arity: 3,
            complexity: "O(N), N the number of partitions",
            ..row(
                "accept-loss",
                "LOSES DATA: partitions of which every in-sync copy is gone go on with what is left, or empty. How many.",
                accept_loss,
            )
        },
        Command {
            syntax: "node-id [UNDO]",
            arity: -3,
            ..row(
                "drain",
                "Has a node emptied and then removed, while it serves; or lets it stay after all.",
                drain,
            )
        },
        row("help", "The subcommands.", |_, _, _| Ok(help_of("annulet"))),
        Command {
            syntax: "key",
            arity: 3,
            complexity: "O(N), N the number of partitions",
            ..row(
                "holders",
                "Which nodes hold a key: its slot, partition, primary, and backups that are in sync.",
                holders,
            )
        },
        Command {
            syntax: "node-id",
            arity: 3,
            ..row(
                "remove",
                "Has the copies of a dead node made anew on others at once, and removes it.",
                remove,
            )
        },
        row("status", "The state of the cluster, as JSON.", |_, host, _| Ok(Reply::bulk(host.status_json()))),
    ],
    ..Command::BASE
};

fn accept_loss(_: &mut Session, host: &mut dyn Host, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    if !args[2].eq_ignore_ascii_case(b"all") {
        return Err(CommandError::Syntax);
    }
    Ok(Reply::count(host.accept_loss()))
}

fn drain(_: &mut Session, host: &mut dyn Host, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    let on = match args.get(3..).unwrap_or_default() {
        [] => true,
        [undo] if undo.eq_ignore_ascii_case(b"undo") => false,
        _ => return Err(CommandError::Syntax),
    };
    give(host, ClusterOrder::Drain { node: node_id(args[2])?, on })
}

fn remove(_: &mut Session, host: &mut dyn Host, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    give(host, ClusterOrder::Remove(node_id(args[2])?))
}

/// By number; the primary is null where nobody serves the key.
fn holders(_: &mut Session, host: &mut dyn Host, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
    let slot = slot_of_key(args[2]).0;
    let view = host.cluster();
    let partition = view.ranges.iter().position(|range| (range.first..=range.last).contains(&slot));
    let range = partition.map(|at| &view.ranges[at]);
    let number = |id: &u16| Reply::Integer(i64::from(*id));
    let primary = range.and_then(|range| range.primary.as_ref()).map_or(Reply::Null, number);
    let backups = range.map_or(&[][..], |range| &range.backups).iter().map(number);
    Ok(Reply::Map(vec![
        (Reply::bulk("slot"), Reply::Integer(i64::from(slot))),
        (Reply::bulk("partition"), partition.map_or(Reply::Null, Reply::count)),
        (Reply::bulk("primary"), primary),
        (Reply::bulk("backups"), Reply::Array(backups.collect())),
    ]))
}

fn node_id(arg: &[u8]) -> Result<u16, CommandError> {
    let id = std::str::from_utf8(arg).ok().and_then(|text| text.parse().ok()).filter(|&id| id > 0);
    id.ok_or_else(|| {
        CommandError::Other(format!("ERR '{}' is no node id: ANNULET STATUS lists them", shown(arg)))
    })
}

/// What cannot be obeyed is refused here, where somebody listens. OK: it is on its way to the coordinator.
fn give(host: &mut dyn Host, order: ClusterOrder) -> Result<Reply<'static>, CommandError> {
    match host.refusal(order) {
        Some(why) => Err(CommandError::Other(format!("ERR {why}"))),
        None => {
            host.order(order);
            Ok(Reply::ok())
        }
    }
}

const fn row(name: &'static str, summary: &'static str, run: SessionFn) -> Command {
    Command {
        name,
        parent: "annulet",
        arity: 2,
        flags: FLAGS,
        group: "server",
        since: "0.1.0",
        summary,
        categories: CATEGORIES,
        handler: Handler::Session(run),
        ..Command::BASE
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn annulet() {
        check(&[
            ("", "annulet status", "'{}'"),
            ("", "annulet accept-loss all", "(integer) 3"),
            ("", "annulet accept-loss some", "(error) ERR syntax error"),
            ("", "annulet drain 2", "OK"),
            ("", "annulet drain 2 undo", "OK"),
            ("", "annulet drain 2 redo", "(error) ERR syntax error"),
            ("", "annulet drain 9", "(error) ERR there is no node 9"),
            ("", "annulet drain x", "(error) ERR 'x' is no node id: ANNULET STATUS lists them"),
            ("", "annulet remove 0", "(error) ERR '0' is no node id: ANNULET STATUS lists them"),
            ("", "annulet remove 3", "OK"),
            ("", "annulet remove 1", "(error) ERR it is alive"),
            (
                "",
                "annulet holders b",
                "{'slot': (integer) 3300, 'partition': (integer) 0, 'primary': (integer) 1, 'backups': [(integer) 2]}",
            ),
            (
                "",
                "annulet holders a",
                "{'slot': (integer) 15495, 'partition': (integer) 3, 'primary': (nil), 'backups': [(integer) 3]}",
            ),
            ("", "annulet nonsense", "(error) ERR unknown subcommand 'nonsense'. Try ANNULET HELP."),
        ]);
    }
}
