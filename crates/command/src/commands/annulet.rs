//! ANNULET: what Redis has no command for.

use crate::table::{help_of, run_subcommand};
use crate::{Categories, Command, Flags, Handler, Reply, SessionFn};

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
        row("help", "The subcommands.", |_, _, _| Ok(help_of("annulet"))),
        row("status", "The state of the cluster, as JSON.", |_, host, _| Ok(Reply::bulk(host.status_json()))),
    ],
    ..Command::BASE
};

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
            ("", "annulet nonsense", "(error) ERR unknown subcommand 'nonsense'. Try ANNULET HELP."),
        ]);
    }
}
