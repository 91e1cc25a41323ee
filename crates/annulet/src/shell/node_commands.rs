//! STATUS, STATS, KEYS, LIST_NODES, SERVERS, GET_NODES_FOR_KEY: what the shell makes of what nodes tell.
//!
//! The nodes and where they are come from `ANNULET STATUS`; figures from each node's `INFO`; a node's own keys from its door for
//! cluster-aware clients, which speaks for its primaries alone; who holds a key from `ANNULET HOLDERS`.

use super::paint::Paint;
use super::print::Style;
use super::run::Shell;
use super::words::Does;
use crate::Failure;
use crate::status::{self, Node, Status};
use client::{Connection, Options, Reply};
use comfy_table::{CellAlignment, Table, presets};
use config::host_port;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is shown, in words and for programs.
pub(crate) struct Said {
    pub text: String,
    pub json: Value,
    /// Whether what was asked for is there.
    pub found: bool,
}

/// Runs one of the shell's own words with its argument; KEYS has its own function.
pub(crate) fn run(shell: &mut Shell, does: Does, argument: Option<&[u8]>) -> Result<Said, Failure> {
    let (status, text) = ask_status(shell)?;
    let paint = match shell.style {
        Style::Readable(paint) => paint,
        Style::Raw | Style::Json => Paint::Plain,
    };
    match (does, argument) {
        (Does::Stats, None) => Ok(stats_of_all(shell, &status)),
        (Does::Stats, Some(id)) => stats_of_one(shell, &status, id),
        (Does::NodesForKey, Some(key)) => nodes_for_key(shell, &status, key),
        (Does::ListNodes, _) => Ok(list_nodes(&status, paint)),
        (Does::Servers, _) => Ok(servers(&status)),
        _ => Ok(Said { text: status.render(), json: serde_json::from_str(&text)?, found: true }),
    }
}

fn ask_status(shell: &mut Shell) -> Result<(Status, String), Failure> {
    let answer = shell.ask(&["ANNULET", "STATUS"])?;
    status::read(answer, shell.connection.address())
}

/// KEYS: of the whole cluster, of one node's primaries, or by a pattern. A number that is no node's is a pattern.
pub(crate) fn keys(shell: &mut Shell, argument: Option<&[u8]>) -> Result<Reply<'static>, Failure> {
    let Some(argument) = argument else { return Ok(shell.ask(&["KEYS", "*"])?) };
    let node = match number(argument) {
        Some(id) => ask_status(shell)?.0.node(id).cloned(),
        None => None,
    };
    match node {
        None => Ok(shell.ask(&[b"KEYS".as_slice(), argument])?),
        Some(node) if node.cluster_port == 0 => Err(format!(
            "node {} has no port for cluster-aware clients (cluster_port = 0), which alone tells its own keys",
            node.id
        )
        .into()),
        Some(node) => {
            let address = host_port(&node.host, node.cluster_port);
            // Not as an error of the connection: other nodes may well answer.
            let asked = Connection::connect(&[address], shell.options.clone())
                .and_then(|mut connection| connection.request(&["KEYS", "*"]));
            asked.map_err(|why| format!("node {} cannot be asked: {why}", node.id).into())
        }
    }
}

fn number(argument: &[u8]) -> Option<u16> {
    std::str::from_utf8(argument).ok()?.parse().ok()
}

fn address(node: &Node) -> String {
    host_port(&node.host, node.port)
}

fn list_nodes(status: &Status, paint: Paint) -> Said {
    let line = |node: &Node| {
        let state = match node.state.as_str() {
            "ACTIVE" => node.state.clone(),
            other => paint.error(other),
        };
        format!("node {:<4} {:<21} {state}", node.id, address(node))
    };
    let lines: Vec<String> = status.nodes.iter().map(line).collect();
    let json = status
        .nodes
        .iter()
        .map(|node| json!({ "id": node.id, "address": address(node), "state": node.state }));
    Said { text: lines.join("\n"), json: json.collect(), found: !status.nodes.is_empty() }
}

fn servers(status: &Status) -> Said {
    let role = |node: &Node| {
        let mut roles: Vec<&str> = Vec::new();
        roles.extend((status.coordinator == Some(node.id)).then_some("coordinator"));
        roles.extend(node.voter.then_some("voter"));
        roles.extend(node.draining.then_some("draining"));
        roles
    };
    let coordinator = status.coordinator.map_or("none".to_owned(), |id| format!("node {id}"));
    let rows = status.nodes.iter().map(|node| {
        vec![
            node.id.to_string(),
            node.host.clone(),
            node.port.to_string(),
            node.cluster_port.to_string(),
            node.peer_port.to_string(),
            node.state.clone(),
            role(node).join(", "),
        ]
    });
    let header = ["node", "host", "port", "cluster", "peers", "state", "roles"];
    let text = format!("coordinator: {coordinator}\n{}", table(&header, rows, &["host", "state", "roles"]));
    let nodes: Value = status
        .nodes
        .iter()
        .map(|node| {
            json!({
                "id": node.id, "host": node.host, "port": node.port, "cluster_port": node.cluster_port,
                "peer_port": node.peer_port, "state": node.state, "roles": role(node),
            })
        })
        .collect();
    let json = json!({ "coordinator": status.coordinator, "nodes": nodes });
    Said { text, json, found: true }
}

/// A table as `annulet status` draws it; columns are to the right but for those named.
fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>, to_the_left: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(header.to_vec());
    rows.for_each(|row| _ = table.add_row(row));
    for (at, column) in table.column_iter_mut().enumerate() {
        if !to_the_left.contains(&header[at]) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A node's figures under the names that other doors use for them too.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stats(BTreeMap<&'static str, u64>);

/// The figures, in the order in which they are shown.
const FIGURES: &[&str] = &[
    "uptime_seconds",
    "total_requests",
    "get_requests",
    "set_requests",
    "delete_requests",
    "expire_requests",
    "requests_per_second",
    "forwarded_requests",
    "errors",
    "total_keys",
    "keys_with_ttl",
    "used_memory",
    "clients",
    "peers",
];

impl Stats {
    /// Of what a node's INFO says, in a cluster of so many nodes.
    fn of(info: &str, nodes: usize) -> Stats {
        let lines: BTreeMap<&str, &str> =
            info.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
        let plain = |name: &str| lines.get(name).and_then(|value| value.parse().ok()).unwrap_or(0);
        // `keys=3,expires=1,...`
        let part = |name: &str, part: &str| {
            let parts = lines.get(name).copied().unwrap_or_default().split(',');
            parts
                .filter_map(|text| text.split_once('='))
                .find(|(name, _)| *name == part)
                .and_then(|(_, value)| value.parse().ok())
        };
        let calls = |names: &[&str]| {
            names.iter().filter_map(|name| part(&format!("cmdstat_{name}"), "calls")).sum::<u64>()
        };
        let value = |name: &str| match name {
            "uptime_seconds" => plain("uptime_in_seconds"),
            "total_requests" => plain("total_commands_processed"),
            "get_requests" => calls(&["get", "mget", "getex", "getdel", "getrange"]),
            "set_requests" => {
                calls(&["set", "mset", "msetnx", "setex", "psetex", "setnx", "getset", "append", "setrange"])
            }
            "delete_requests" => calls(&["del", "unlink", "getdel"]),
            "expire_requests" => calls(&["expire", "pexpire", "expireat", "pexpireat"]),
            "requests_per_second" => plain("instantaneous_ops_per_sec"),
            "forwarded_requests" => plain("forwarded_requests"),
            "errors" => plain("total_error_replies"),
            "total_keys" => part("db0", "keys").unwrap_or(0),
            "keys_with_ttl" => part("db0", "expires").unwrap_or(0),
            "used_memory" => plain("used_memory"),
            "clients" => plain("connected_clients"),
            _ => nodes.saturating_sub(1) as u64,
        };
        Stats(FIGURES.iter().map(|name| (*name, value(name))).collect())
    }

    fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}

/// Asks a node for its figures.
fn ask_stats(shell: &Shell, status: &Status, node: &Node) -> Result<Stats, Failure> {
    let options = Options {
        connect_timeout: Duration::from_millis(500),
        request_timeout: Duration::from_secs(3),
        ..shell.options.clone()
    };
    let mut connection = Connection::connect(&[address(node)], options)?;
    match connection.request(&["INFO", "everything"])? {
        Reply::Verbatim(text) => Ok(Stats::of(&text, status.nodes.len())),
        Reply::Bulk(text) => Ok(Stats::of(&String::from_utf8_lossy(&text), status.nodes.len())),
        Reply::Error(error) => Err(error.to_string().into()),
        _ => Err(format!("{} answers INFO with something else", address(node)).into()),
    }
}

fn stats_of_all(shell: &Shell, status: &Status) -> Said {
    const SHOWN: [&str; 8] = [
        "uptime_seconds",
        "total_requests",
        "requests_per_second",
        "errors",
        "total_keys",
        "keys_with_ttl",
        "used_memory",
        "clients",
    ];
    let all: Vec<(&Node, Option<Stats>)> =
        status.nodes.iter().map(|node| (node, ask_stats(shell, status, node).ok())).collect();
    let rows = all.iter().map(|(node, stats)| {
        let cell = |name: &&str| stats.as_ref().map_or("?".to_owned(), |stats| stats.get(name).to_string());
        [node.id.to_string(), address(node)].into_iter().chain(SHOWN.iter().map(cell)).collect()
    });
    let header = [
        "node", "address", "uptime s", "requests", "a second", "errors", "keys", "with ttl", "memory",
        "clients",
    ];
    let text = table(&header, rows, &["address"]).to_string();
    let json = all.iter().map(|(node, stats)| {
        json!({ "id": node.id, "address": address(node), "stats": stats.as_ref().map(|stats| &stats.0) })
    });
    Said { text, json: json.collect(), found: true }
}

fn stats_of_one(shell: &Shell, status: &Status, id: &[u8]) -> Result<Said, Failure> {
    let id = number(id).ok_or_else(|| format!("'{}' is no node's number", String::from_utf8_lossy(id)))?;
    status.known(id)?;
    let Some(node) = status.node(id) else { return Err(format!("there is no node {id}").into()) };
    let stats = ask_stats(shell, status, node).map_err(|why| format!("node {id} cannot be asked: {why}"))?;
    let lines: Vec<String> = FIGURES.iter().map(|name| format!("{name:<20}{}", stats.get(name))).collect();
    let json = json!({ "id": node.id, "address": address(node), "stats": stats.0 });
    Ok(Said { text: format!("node {id}, {}\n{}", address(node), lines.join("\n")), json, found: true })
}

/// What `ANNULET HOLDERS` says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Holders {
    slot: i64,
    partition: i64,
    primary: Option<u16>,
    backups: Vec<u16>,
}

impl Holders {
    fn of(reply: &Reply<'_>) -> Holders {
        let mut holders = Holders::default();
        let id = |value: &Reply<'_>| match value {
            Reply::Integer(id) => u16::try_from(*id).ok(),
            _ => None,
        };
        let Reply::Map(pairs) = reply else { return holders };
        for (name, value) in pairs {
            match (name, value) {
                (Reply::Bulk(name), Reply::Integer(slot)) if **name == *b"slot" => holders.slot = *slot,
                (Reply::Bulk(name), Reply::Integer(at)) if **name == *b"partition" => holders.partition = *at,
                (Reply::Bulk(name), primary) if **name == *b"primary" => holders.primary = id(primary),
                (_, Reply::Array(backups)) => holders.backups = backups.iter().filter_map(id).collect(),
                _ => {}
            }
        }
        holders
    }
}

fn nodes_for_key(shell: &mut Shell, status: &Status, key: &[u8]) -> Result<Said, Failure> {
    let holders = match shell.ask(&[b"ANNULET".as_slice(), b"HOLDERS", key])? {
        Reply::Error(error) => return Err(error.to_string().into()),
        reply => Holders::of(&reply),
    };
    Ok(holders_said(&holders, status))
}

fn holders_said(holders: &Holders, status: &Status) -> Said {
    let Holders { slot, partition, primary, backups } = holders;
    let mut text = format!("slot {slot}, partition {partition}\n");
    let line = |role: &str, id: &u16| {
        let address = status.node(*id).map_or("?".to_owned(), address);
        format!("{role} {address} (node {id})\n")
    };
    match primary {
        Some(id) => text += &line("PRIMARY", id),
        None => text += "no node serves it now; STATUS tells more\n",
    }
    backups.iter().for_each(|id| text += &line("REPLICA", id));
    let of = |id: &u16| json!({ "id": id, "address": status.node(*id).map(address) });
    let json = json!({
        "slot": slot, "partition": partition, "primary": primary.as_ref().map(of),
        "backups": backups.iter().map(of).collect::<Value>(),
    });
    Said { text, json, found: primary.is_some() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_info() {
        let info = "# Server\r\nuptime_in_seconds:7\r\n# Stats\r\ntotal_commands_processed:9\r\n# Commandstats\r\n\
                    cmdstat_get:calls=3,usec=1\r\ncmdstat_mget:calls=1,usec=1\r\ncmdstat_pexpire:calls=2,usec=1\r\n\
                    # Keyspace\r\ndb0:keys=5,expires=2,avg_ttl=0\r\n";
        let stats = Stats::of(info, 3);
        let read = |name: &str| stats.get(name);
        assert_eq!((read("uptime_seconds"), read("total_requests"), read("get_requests")), (7, 9, 4));
        assert_eq!(
            (read("expire_requests"), read("total_keys"), read("keys_with_ttl"), read("peers")),
            (2, 5, 2, 2)
        );
        assert_eq!(read("delete_requests"), 0);
        assert_eq!(stats.0.len(), FIGURES.len());
    }

    #[test]
    fn holders_are_named_with_their_addresses() {
        let word = |name: &'static str| Reply::bulk(name);
        let reply = Reply::Map(vec![
            (word("slot"), Reply::Integer(10)),
            (word("partition"), Reply::Integer(1)),
            (word("primary"), Reply::Integer(2)),
            (word("backups"), Reply::Array(vec![Reply::Integer(1)])),
        ]);
        let mut holders = Holders::of(&reply);
        assert_eq!(holders, Holders { slot: 10, partition: 1, primary: Some(2), backups: vec![1] });
        let node = |id: u16| Node { id, host: "h".into(), port: 7000 + id, ..Node::default() };
        let status = Status { nodes: vec![node(1), node(2)], ..Status::default() };
        let said = holders_said(&holders, &status);
        assert!(said.found);
        assert_eq!(said.text, "slot 10, partition 1\nPRIMARY h:7002 (node 2)\nREPLICA h:7001 (node 1)\n");
        assert_eq!(said.json["primary"]["address"], "h:7002");
        holders.primary = None;
        assert!(!holders_said(&holders, &status).found);
    }
}
