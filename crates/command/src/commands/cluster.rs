//! CLUSTER: the cluster map, in the words of Redis Cluster.
//!
//! Redis cannot say that a node is primary of one partition and backup of another. So in NODES and SHARDS each node is a master
//! with the ranges that it serves; backups appear only in SLOTS. Addresses are those of the door for cluster-aware
//! clients, whatever door is asked.

use super::integer;
use crate::host::{ClusterView, NodeView};
use crate::table::{help_of, run_subcommand};
use crate::{Categories, Command, CommandError, Flags, Handler, Reply, SessionFn};
use std::collections::BTreeSet;
use std::fmt::Write;
use storage::Keyspace;
use types::{SLOTS, Slot, slot_of_key};

const FLAGS: Flags = Flags::LOADING.with(Flags::STALE);

/// CLUSTER subcommand
pub(crate) const COMMAND: Command = Command {
    name: "cluster",
    syntax: "subcommand [argument ...]",
    arity: -2,
    flags: FLAGS,
    group: "cluster",
    since: "3.0.0",
    summary: "The cluster map, for cluster-aware clients.",
    categories: Categories::SLOW,
    handler: Handler::Session(run_subcommand),
    subcommands: &[
        Command {
            name: "countkeysinslot",
            parent: "cluster",
            syntax: "slot",
            arity: 3,
            flags: FLAGS.with(Flags::READONLY),
            group: "cluster",
            complexity: "O(N), N the number of keys in the slot's partition",
            since: "3.0.0",
            summary: "How many keys a slot holds.",
            categories: Categories::SLOW,
            handler: Handler::Slot { at: 2, run: count_keys },
            ..Command::BASE
        },
        row("help", "", 2, "5.0.0", "The subcommands.", |_, _, _| Ok(help_of("cluster"))),
        whole_map("info", "", 2, "3.0.0", "The state of the cluster, in figures.", |_, host, _| {
            Ok(Reply::Verbatim(info(&host.cluster())))
        }),
        row("keyslot", "key", 3, "3.0.0", "The slot of a key.", |_, _, args| {
            Ok(Reply::Integer(i64::from(slot_of_key(args[2]).0)))
        }),
        row("myid", "", 2, "3.0.0", "This node's 40 hex digits.", |_, host, _| {
            let view = host.cluster();
            Ok(Reply::bulk(view.node(view.my_id).map_or("", |node| &node.name)))
        }),
        whole_map(
            "nodes",
            "",
            2,
            "3.0.0",
            "The nodes and the slots that each serves, as lines.",
            |_, host, _| Ok(Reply::Verbatim(nodes(&host.cluster()))),
        ),
        whole_map("shards", "", 2, "7.0.0", "The nodes and the slots that each serves.", |_, host, _| {
            Ok(shards(&host.cluster()))
        }),
        whole_map(
            "slots",
            "",
            2,
            "3.0.0",
            "Runs of slots, each with its primary and its backups.",
            |_, host, _| Ok(slots(&host.cluster())),
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
        parent: "cluster",
        syntax,
        arity,
        flags: FLAGS,
        group: "cluster",
        since,
        summary,
        categories: Categories::SLOW,
        handler: Handler::Session(run),
        ..Command::BASE
    }
}

/// One that walks the whole map.
const fn whole_map(
    name: &'static str,
    syntax: &'static str,
    arity: i32,
    since: &'static str,
    summary: &'static str,
    run: SessionFn,
) -> Command {
    Command {
        complexity: "O(N), N the number of partitions",
        ..row(name, syntax, arity, since, summary, run)
    }
}

fn count_keys<'t>(keyspace: &'t mut Keyspace<'_>, args: &[&[u8]]) -> Result<Reply<'t>, CommandError> {
    let slot = u16::try_from(integer(args[2])?).ok().filter(|&slot| slot < SLOTS);
    let slot = Slot(slot.ok_or_else(|| CommandError::Other("ERR Invalid slot".into()))?);
    let mut count = 0;
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        cursor = keyspace.scan(at, 1024, &mut |entry| count += usize::from(slot_of_key(entry.key) == slot));
    }
    Ok(Reply::count(count))
}

/// `[host, port, id, metadata]`.
fn endpoint(node: &NodeView) -> Reply<'static> {
    Reply::Array(vec![
        Reply::bulk(&*node.host),
        Reply::Integer(i64::from(node.cluster_port)),
        Reply::bulk(&*node.name),
        Reply::Map(Vec::new()),
    ])
}

/// Clients such as redis-py take a node for a primary or a replica by where they see it first, and leave out those that
/// they take for replicas when they ask all primaries (DBSIZE, KEYS, SCAN, FLUSHALL). Here nearly every node is both. So
/// each primary's first slot comes first of all, in an entry of its own that names no backup.
fn slots(view: &ClusterView) -> Reply<'static> {
    let mut primaries = BTreeSet::new();
    let (mut introductions, mut entries) = (Vec::new(), Vec::new());
    for range in view.joined_ranges() {
        // Slots that nobody serves are left out, as in Redis: clients ask again.
        let Some(primary) = range.primary.and_then(|id| view.node(id)) else { continue };
        let backups = range.backups.iter().filter_map(|&id| view.node(id)).filter(|node| !node.failed);
        let backups: Vec<&NodeView> = backups.collect();
        let mut first = range.first;
        if primaries.insert(primary.id) {
            introductions.push(slots_entry(first, first, primary, &[]));
            first += 1;
        }
        if first <= range.last {
            entries.push(slots_entry(first, range.last, primary, &backups));
        }
    }
    introductions.append(&mut entries);
    Reply::Array(introductions)
}

fn slots_entry(first: u16, last: u16, primary: &NodeView, backups: &[&NodeView]) -> Reply<'static> {
    let mut entry =
        vec![Reply::Integer(i64::from(first)), Reply::Integer(i64::from(last)), endpoint(primary)];
    entry.extend(backups.iter().map(|node| endpoint(node)));
    Reply::Array(entry)
}

fn shards(view: &ClusterView) -> Reply<'static> {
    let shard = |node: &NodeView| {
        let slots = view
            .served_by(node.id)
            .into_iter()
            .flat_map(|(first, last)| [Reply::Integer(i64::from(first)), Reply::Integer(i64::from(last))])
            .collect();
        let health = if node.failed { "fail" } else { "online" };
        let described = Reply::Map(vec![
            (Reply::bulk("id"), Reply::bulk(&*node.name)),
            (Reply::bulk("port"), Reply::Integer(i64::from(node.cluster_port))),
            (Reply::bulk("ip"), Reply::bulk(&*node.host)),
            (Reply::bulk("endpoint"), Reply::bulk(&*node.host)),
            (Reply::bulk("role"), Reply::bulk("master")),
            (Reply::bulk("replication-offset"), Reply::Integer(0)),
            (Reply::bulk("health"), Reply::bulk(health)),
        ]);
        Reply::Map(vec![
            (Reply::bulk("slots"), Reply::Array(slots)),
            (Reply::bulk("nodes"), Reply::Array(vec![described])),
        ])
    };
    Reply::Array(view.nodes.iter().map(shard).collect())
}

fn nodes(view: &ClusterView) -> String {
    let mut lines = String::new();
    for node in &view.nodes {
        let mut flags = Vec::new();
        if node.id == view.my_id {
            flags.push("myself");
        }
        flags.push("master");
        if node.failed {
            flags.push("fail");
        }
        let link = if node.failed { "disconnected" } else { "connected" };
        let _ = write!(
            lines,
            "{} {}:{}@{} {} - 0 0 {} {link}",
            node.name,
            node.host,
            node.cluster_port,
            node.peer_port,
            flags.join(","),
            node.epoch
        );
        for (first, last) in view.served_by(node.id) {
            let _ = if first == last { write!(lines, " {first}") } else { write!(lines, " {first}-{last}") };
        }
        lines.push('\n');
    }
    lines
}

fn info(view: &ClusterView) -> String {
    let slots_where = |wanted: &dyn Fn(Option<&NodeView>) -> bool| -> u32 {
        view.ranges
            .iter()
            .filter(|range| wanted(range.primary.and_then(|id| view.node(id))))
            .map(|range| u32::from(range.last) + 1 - u32::from(range.first).min(u32::from(range.last)))
            .sum()
    };
    let assigned = slots_where(&|node| node.is_some());
    let failed = slots_where(&|node| node.is_some_and(|node| node.failed));
    let serving = view.nodes.iter().filter(|node| !view.served_by(node.id).is_empty()).count();
    let own_epoch = view.node(view.my_id).map_or(0, |node| node.epoch);
    let state = if view.ok { "ok" } else { "fail" };
    [
        format!("cluster_state:{state}"),
        format!("cluster_slots_assigned:{assigned}"),
        format!("cluster_slots_ok:{}", assigned - failed),
        "cluster_slots_pfail:0".into(),
        format!("cluster_slots_fail:{failed}"),
        format!("cluster_known_nodes:{}", view.nodes.len()),
        format!("cluster_size:{serving}"),
        format!("cluster_current_epoch:{}", view.current_epoch),
        format!("cluster_my_epoch:{own_epoch}"),
        "cluster_stats_messages_sent:0".into(),
        "cluster_stats_messages_received:0".into(),
        "total_cluster_links_buffer_limit_exceeded:0".into(),
    ]
    .map(|line| line + "\r\n")
    .concat()
}

#[cfg(test)]
mod tests {
    use crate::testing::{World, check, name_of};

    #[test]
    fn slots_have_backups_and_neighbours_are_joined() {
        let (one, two) = (name_of(1), name_of(2));
        check(&[(
            "",
            "cluster slots",
            &format!(
                "[[(integer) 0, (integer) 0, ['h1', (integer) 7101, '{one}', {{}}]], \
                 [(integer) 8192, (integer) 8192, ['h2', (integer) 7102, '{two}', {{}}]], \
                 [(integer) 1, (integer) 8191, ['h1', (integer) 7101, '{one}', {{}}], ['h2', (integer) 7102, '{two}', {{}}]], \
                 [(integer) 8193, (integer) 12287, ['h2', (integer) 7102, '{two}', {{}}], ['h1', (integer) 7101, '{one}', {{}}]]]"
            ),
        )]);
    }

    #[test]
    fn every_node_is_a_master() {
        let (one, two, three) = (name_of(1), name_of(2), name_of(3));
        let lines = format!(
            "{one} h1:7101@7201 myself,master - 0 0 5 connected 0-8191\n\
             {two} h2:7102@7202 master - 0 0 6 connected 8192-12287\n\
             {three} h3:7103@7203 master,fail - 0 0 7 disconnected\n"
        );
        check(&[("", "cluster nodes", &lines)]);
        let shards = World::new().run("cluster shards");
        assert!(shards.starts_with(&format!(
            "[{{'slots': [(integer) 0, (integer) 8191], 'nodes': [{{'id': '{one}', 'port': (integer) 7101, 'ip': 'h1', \
             'endpoint': 'h1', 'role': 'master', 'replication-offset': (integer) 0, 'health': 'online'}}]}}, "
        )));
        assert!(shards.contains("'health': 'fail'"));
    }

    #[test]
    fn other_subcommands() {
        check(&[
            ("", "cluster myid", &format!("'{}'", name_of(1))),
            ("", "cluster keyslot foo", "(integer) 12182"),
            ("", "cluster keyslot {foo}x", "(integer) 12182"),
            ("set {b}1 x; set {b}2 x; set a x", "cluster countkeysinslot 3300", "(integer) 2"),
            ("", "cluster countkeysinslot 16384", "(error) ERR Invalid slot"),
            ("", "cluster countkeysinslot -1", "(error) ERR Invalid slot"),
            ("", "cluster countkeysinslot x", "(error) ERR value is not an integer or out of range"),
            ("", "cluster nope", "(error) ERR unknown subcommand 'nope'. Try CLUSTER HELP."),
        ]);
        let info = World::new().run("cluster info");
        for line in
            ["cluster_state:fail", "cluster_slots_assigned:12288", "cluster_known_nodes:3", "cluster_size:2"]
        {
            assert!(info.contains(&format!("{line}\r\n")), "{line}");
        }
    }
}
