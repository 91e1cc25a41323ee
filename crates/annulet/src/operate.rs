//! `annulet node`, `annulet set`, `annulet rebalance`: operators' orders to the whole cluster, and waiting for what follows from them.
//!
//! An order goes to any node, which refuses what makes no sense on its map and passes the rest on to the coordinator. Here it is
//! given again until the state shows it, so that a coordinator that dies meanwhile loses nothing.

use crate::status::Status;
use crate::watcher::Watcher;
use crate::{Failure, print};
use clap::ArgMatches;
use std::process::ExitCode;

/// `annulet node drain` and `annulet node remove`.
pub(crate) fn node(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    match matches.subcommand() {
        Some(("drain", matches)) => drain(matches),
        Some(("remove", matches)) => remove(matches),
        _ => unreachable!("clap requires one of them"),
    }
}

fn id_of(matches: &ArgMatches) -> u16 {
    matches.get_one("id").copied().unwrap_or_default()
}

fn drain(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let id = id_of(matches);
    let text = id.to_string();
    let (mut watcher, before) = Watcher::begin(matches)?;
    before.known(id)?;
    if matches.get_flag("undo") {
        watcher.order(&["ANNULET", "DRAIN", &text, "UNDO"], |status| {
            status.node(id).is_some_and(|node| !node.draining)
        })?;
        return print(&format!("Node {id} stays. It gets back its share of the data.\n"));
    }
    let status = watcher
        .order(&["ANNULET", "DRAIN", &text], |status| status.node(id).is_none_or(|node| node.draining))?;
    emptied(matches, &mut watcher, status, id, "is being emptied; it serves meanwhile")
}

fn remove(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let id = id_of(matches);
    let text = id.to_string();
    let (mut watcher, before) = Watcher::begin(matches)?;
    before.known(id)?;
    let status = watcher
        .order(&["ANNULET", "REMOVE", &text], |status| status.node(id).is_none_or(|node| node.draining))?;
    emptied(
        matches,
        &mut watcher,
        status,
        id,
        "is removed; the copies that it had are made anew on other nodes",
    )
}

/// Tells how far the emptying of a node is, and waits for its end where that is asked for.
fn emptied(
    matches: &ArgMatches,
    watcher: &mut Watcher,
    mut status: Status,
    id: u16,
    how: &str,
) -> Result<ExitCode, Failure> {
    if !is_empty(&status, id) {
        let held = status.node(id).map_or(0, |node| node.copies);
        print(&format!("Node {id} {how}: {held} copies to go.\n"))?;
        for why in &status.moves.blocked {
            eprintln!("annulet: {why}");
        }
        if !matches.get_flag("wait") {
            return print(
                "`annulet status --watch` shows how far it is, `annulet rebalance --wait` waits for the end.\n",
            );
        }
        status = watcher.wait(&format!("emptying node {id}"), |status| is_empty(status, id))?;
    }
    match status.node(id) {
        None => print(&format!(
            "Node {id} holds nothing, and is no member any more. Its process ends by itself.\n"
        )),
        Some(_) => print(&format!(
            "Node {id} holds nothing, but still votes: it is the last that can. Keep it running.\n"
        )),
    }
}

fn is_empty(status: &Status, id: u16) -> bool {
    // One that votes is removed once another does in its place; where no other can, it stays.
    let others = status.nodes.iter().any(|node| node.id != id && !node.draining && node.state == "ACTIVE");
    status.node(id).is_none_or(|node| node.copies == 0 && !others)
}

/// `annulet set NAME VALUE`.
pub(crate) fn set(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let (Some(name), Some(&value)) = (matches.get_one::<String>("name"), matches.get_one::<u16>("value"))
    else {
        unreachable!("clap requires both")
    };
    let (mut watcher, before) = Watcher::begin(matches)?;
    let of = |status: &Status| if name == "copies" { status.copies } else { status.min_in_sync };
    let status = watcher.order(&["CONFIG", "SET", name, &value.to_string()], |status| of(status) == value)?;
    print(&format!("{name} is {value} now, and was {}.\n", of(&before)))?;
    let active = status.nodes.iter().filter(|node| !node.draining && node.weight > 0).count();
    if name == "copies" && usize::from(value) > active {
        eprintln!(
            "annulet: only {active} nodes may hold copies: until there are more, each partition has as many copies as there are nodes"
        );
        return Ok(ExitCode::SUCCESS);
    }
    if matches.get_flag("wait") {
        watcher.wait("moving copies", Status::is_at_rest)?;
        return print("Every copy is where it should be.\n");
    }
    match status.is_at_rest() {
        true => Ok(ExitCode::SUCCESS),
        false => print(&format!("{}; `annulet rebalance --wait` waits for the end.\n", status.moves_words())),
    }
}

/// `annulet rebalance`.
pub(crate) fn rebalance(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let (mut watcher, status) = Watcher::begin(matches)?;
    for why in &status.moves.blocked {
        eprintln!("annulet: {why}");
    }
    if status.is_at_rest() {
        return print("Every copy is where it should be, and in sync. There is nothing to do.\n");
    }
    if !matches.get_flag("wait") {
        return print(&format!(
            "{}. The cluster does this by itself; `annulet rebalance --wait` waits for the end.\n",
            status.moves_words()
        ));
    }
    watcher.wait("moving copies", Status::is_at_rest)?;
    print("Every copy is where it should be, and in sync.\n")
}
