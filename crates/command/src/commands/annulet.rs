//! ANNULET: what Redis has no command for.

use crate::table::{help_of, run_subcommand};
use crate::{Categories, Command, CommandError, Flags, Handler, Host, Reply, Session, SessionFn};

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
        row("help", "The subcommands.", |_, _, _| Ok(help_of("annulet"))),
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
            ("", "annulet nonsense", "(error) ERR unknown subcommand 'nonsense'. Try ANNULET HELP."),
        ]);
    }
}
