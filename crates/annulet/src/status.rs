//! `annulet status`: one look at the cluster, and what `ANNULET STATUS` says, as types.

use crate::watcher::{Pace, Watcher};
use crate::{FAILED, Failure, flags, print};
use clap::ArgMatches;
use client::{Connection, Options, Reply};
use comfy_table::{CellAlignment, Table, presets};
use serde::Deserialize;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What a node says of its cluster.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    /// Whether every partition is served, and in the wanted number of copies.
    pub ok: bool,
    pub cluster_id: String,
    /// The cluster map's version.
    pub version: u64,
    /// The cluster's feature level: what all nodes' builds have.
    pub level: u16,
    pub coordinator: Option<u16>,
    pub copies: u16,
    pub min_in_sync: u16,
    pub moves: Moves,
    pub partitions: Partitions,
    pub nodes: Vec<Node>,
}

/// How many partitions there are, and in which state.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Partitions {
    pub total: u64,
    pub served: u64,
    /// Served by their last in-sync copy.
    pub at_risk: u64,
    /// With a copy that is being filled.
    pub filling: u64,
    /// With fewer copies in sync than belong to them.
    pub short: u64,
    /// Not served now; a copy may come back.
    pub unavailable: u64,
    /// Without any copy.
    pub lost: u64,
}

/// How far copies are from where they should be.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Moves {
    /// Copies that are not there yet.
    pub left: u64,
    /// Being filled.
    pub filling: u64,
    /// To go once others are in sync.
    pub leaving: u64,
    /// Not begun.
    pub waiting: u64,
    /// Primaries that pass to another copy.
    pub handing_over: u64,
    /// What is in the way, in words.
    pub blocked: Vec<String>,
}

/// One node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Node {
    pub id: u16,
    pub name: String,
    pub host: String,
    pub port: u16,
    pub cluster_port: u16,
    pub peer_port: u16,
    /// ACTIVE, JOINING or FAILED.
    pub state: String,
    pub voter: bool,
    /// It is there to vote, and holds no data.
    pub witness: bool,
    pub incarnation: u64,
    pub primaries: u64,
    pub copies: u64,
    pub in_sync: u64,
    pub keys: Option<u64>,
    pub weight: u16,
    pub zone: String,
    /// Being emptied, to be removed.
    pub draining: bool,
    /// The highest feature level of its build, where the node that was asked knows.
    pub level: Option<u16>,
    /// Its build's version, where it tells it.
    pub build: Option<String>,
}

impl Node {
    /// Its build in words.
    fn build_words(&self) -> String {
        match (&self.build, self.level) {
            (Some(build), Some(level)) => format!("{build}, level {level}"),
            (None, Some(level)) => format!("older, level {level}"),
            (_, None) => "?".to_owned(),
        }
    }
}

impl Status {
    /// Asks a node. The JSON is returned beside what it says.
    pub(crate) fn ask(connection: &mut Connection) -> Result<(Status, String), Failure> {
        let answer = connection.request(&["ANNULET", "STATUS"])?;
        read(answer, connection.address())
    }

    /// Whether something needs attention: data at risk, not served, or lost.
    pub(crate) fn is_degraded(&self) -> bool {
        let partitions = &self.partitions;
        partitions.at_risk + partitions.unavailable + partitions.lost > 0
    }

    /// The node with this number.
    pub(crate) fn node(&self, id: u16) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// That there is such a node; else which ones there are.
    pub(crate) fn known(&self, id: u16) -> Result<(), Failure> {
        let ids: Vec<String> = self.nodes.iter().map(|node| node.id.to_string()).collect();
        match self.node(id) {
            Some(_) => Ok(()),
            None => {
                Err(format!("there is no node {id}; the cluster has the nodes {}", ids.join(", ")).into())
            }
        }
    }

    /// Whether every copy is where it should be, and in sync.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.to_do() == 0 && self.partitions.unavailable == 0 && self.moves.handing_over == 0
    }

    /// What is left to do until then, in copies.
    pub(crate) fn to_do(&self) -> u64 {
        self.moves.left.max(self.partitions.short)
    }

    /// The moves in words.
    pub(crate) fn moves_words(&self) -> String {
        let Moves { left, filling, waiting, handing_over, .. } = &self.moves;
        let mut text = match self.to_do() {
            0 if *handing_over > 0 => format!("{handing_over} primaries pass to other copies"),
            0 => "no copies to move".to_owned(),
            1 => "1 copy to make".to_owned(),
            to_do => format!("{to_do} copies to make"),
        };
        if *left > 0 {
            text += &format!(" ({filling} being filled, {waiting} wait for their turn)");
        }
        text
    }

    pub(crate) fn render(&self) -> String {
        let partitions = &self.partitions;
        let coordinator = self.coordinator.map_or("none".to_owned(), |id| format!("node {id}"));
        let verdict = match (self.is_degraded(), self.ok) {
            (true, _) => "DEGRADED",
            (false, true) => "ok",
            (false, false) => "settling",
        };
        let mut text = format!(
            "cluster {}: {verdict}\nmap version {}, coordinator {coordinator}, copies {}{}\n",
            self.cluster_id,
            self.version,
            self.copies,
            self.level_words()
        );
        text += &format!("partitions: {} of {} served", partitions.served, partitions.total);
        if partitions.short > 0 {
            text += &format!(", {} short of a copy ({} filling)", partitions.short, partitions.filling);
        }
        if self.moves.left + self.moves.handing_over > 0 {
            text += &format!("\nmoves: {}", self.moves_words());
        }
        text += &format!("\n\n{}\n", self.table());
        text += &self.upgrade_words();
        for why in &self.moves.blocked {
            text += &format!("\n! {why}\n");
        }
        let warnings = [
            (
                partitions.at_risk,
                "down to the last copy: another failure makes the data unavailable, or loses it",
            ),
            (partitions.unavailable, "not served: no in-sync copy is alive; start its node again"),
            (
                partitions.lost,
                "lost: no copy is left; `annulet accept-loss --yes-lose-data` starts them anew, empty",
            ),
        ];
        for (count, what) in warnings.into_iter().filter(|(count, _)| *count > 0) {
            text += &format!("\n! {count} {} {what}\n", if count == 1 { "partition" } else { "partitions" });
        }
        text
    }

    /// The cluster's feature level; nothing where an older node was asked, which knows of none.
    fn level_words(&self) -> String {
        match (self.level, self.nodes.first()) {
            (0, _) => String::new(),
            (level, Some(Node { build: Some(build), .. })) if !self.has_builds() => {
                format!(", feature level {level}, build {build}")
            }
            (level, _) => format!(", feature level {level}"),
        }
    }

    /// Whether nodes run different builds, as far as is known.
    fn has_builds(&self) -> bool {
        self.level > 0 && self.nodes.windows(2).any(|two| two[0].build_words() != two[1].build_words())
    }

    /// What the feature level waits for, where some nodes have more.
    fn upgrade_words(&self) -> String {
        let Some(most) = self.nodes.iter().filter_map(|node| node.level).max() else { return String::new() };
        if self.level == 0 || most <= self.level {
            return String::new();
        }
        let behind = self
            .nodes
            .iter()
            .filter(|node| node.state != "ACTIVE" || node.level.is_none_or(|level| level < most));
        let behind: Vec<String> = behind.map(|node| node.id.to_string()).collect();
        let (level, nodes) = (self.level, behind.join(", "));
        match behind.len() {
            0 => format!("\nan upgrade is under way: feature level {level} rises to {most} in a moment\n"),
            1 => format!(
                "\nan upgrade is under way: feature level {level} until node {nodes} runs a build that has {most}\n"
            ),
            _ => format!(
                "\nan upgrade is under way: feature level {level} until nodes {nodes} run a build that has {most}\n"
            ),
        }
    }

    fn table(&self) -> Table {
        const HEADER: [&str; 10] =
            ["node", "host", "port", "cluster", "peers", "state", "primaries", "copies", "in sync", "keys"];
        // Most clusters have no zones, and nodes of one size.
        let has_zones = self.nodes.iter().any(|node| !node.zone.is_empty());
        let has_weights = self.nodes.iter().any(|node| node.weight != 1);
        let mut header: Vec<&str> = HEADER.to_vec();
        header.extend(has_zones.then_some("zone"));
        header.extend(has_weights.then_some("weight"));
        let has_builds = self.has_builds();
        header.extend(has_builds.then_some("build"));
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(header.clone());
        for node in &self.nodes {
            let voter = match (node.voter, node.witness) {
                (true, true) => " (voter, witness)",
                (true, false) => " (voter)",
                (false, true) => " (witness)",
                (false, false) => "",
            };
            let draining = if node.draining { ", draining" } else { "" };
            let mut row = vec![
                node.id.to_string(),
                node.host.clone(),
                node.port.to_string(),
                node.cluster_port.to_string(),
                node.peer_port.to_string(),
                format!("{}{voter}{draining}", node.state),
                node.primaries.to_string(),
                node.copies.to_string(),
                node.in_sync.to_string(),
                node.keys.map_or("?".to_owned(), |keys| keys.to_string()),
            ];
            row.extend(has_zones.then(|| node.zone.clone()));
            row.extend(has_weights.then(|| node.weight.to_string()));
            row.extend(has_builds.then(|| node.build_words()));
            table.add_row(row);
        }
        for (at, column) in table.column_iter_mut().enumerate() {
            if !matches!(header[at], "host" | "state" | "zone" | "build") {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}

/// What a node's answer to `ANNULET STATUS` says, and the JSON that it is.
pub(crate) fn read(answer: Reply<'static>, address: &str) -> Result<(Status, String), Failure> {
    let text = match answer {
        Reply::Bulk(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Reply::Verbatim(text) => text,
        Reply::Simple(text) => text.into_owned(),
        Reply::Error(error) => return Err(format!("{address} answers: {error}").into()),
        _ => return Err(not_annulet(address)),
    };
    let status = serde_json::from_str(&text).map_err(|_| not_annulet(address))?;
    Ok((status, text))
}

fn not_annulet(address: &str) -> Failure {
    format!("{address} is no Annulet node: its answer to ANNULET STATUS makes no sense").into()
}

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    if matches.get_flag("watch") {
        return watch(matches);
    }
    let mut connection = connect(matches)?;
    let (status, json) = Status::ask(&mut connection)?;
    let text = if matches.get_flag("json") { format!("{}\n", json.trim_end()) } else { status.render() };
    print(&text)?;
    Ok(if status.is_degraded() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// Shows the state again and again, until the process is ended.
fn watch(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    const BETWEEN: Duration = Duration::from_secs(1);
    let (mut watcher, _) = Watcher::begin(matches)?;
    let (mut pace, is_live) = (Pace::default(), std::io::stdout().is_terminal());
    loop {
        let text = match watcher.look()? {
            None => "no node answers just now\n".to_owned(),
            Some((_, json)) if matches.get_flag("json") => format!("{}\n", json.trim_end()),
            Some((status, _)) => {
                pace.saw(Instant::now(), status.to_do());
                let moving = match status.is_at_rest() {
                    true => String::new(),
                    false => format!("\n{}{}\n", status.moves_words(), pace.words()),
                };
                format!("{}{moving}\n", status.render())
            }
        };
        // On a terminal over what was there: home, the text, and what is left of the old below it goes.
        let text = match is_live {
            true => format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")),
            false => text,
        };
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
            written => written?,
        }
        drop(out);
        std::thread::sleep(BETWEEN);
    }
}

/// A connection to the node that the flags name.
pub(crate) fn connect(matches: &ArgMatches) -> Result<Connection, Failure> {
    let target = flags::target(matches);
    let options = Options { password: target.password.clone(), ..Options::default() };
    connect_to(&target, options)
}

/// The same, with options of one's own.
pub(crate) fn connect_to(target: &flags::Target, options: Options) -> Result<Connection, Failure> {
    const { assert!(FAILED == 2, "the help of `status` and `cli` says so") };
    Connection::connect(&target.addresses, options).map_err(|error| {
        let advice = match &error {
            client::ClientError::Unreachable { .. } => {
                "; is it running (`annulet up`)? --host and --port choose another"
            }
            client::ClientError::Refused { .. } => "; --password or ANNULET_PASSWORD gives the password",
            _ => "",
        };
        format!("{error}{advice}").into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"ok":true,"cluster_id":"c0ffee","version":42,"coordinator":2,"copies":2,
        "partitions":{"total":1024,"served":1024,"at_risk":0,"filling":3,"short":4,"unavailable":0,"lost":0},
        "nodes":[
        {"id":1,"name":"node-1","host":"127.0.0.1","port":7001,"cluster_port":7101,"peer_port":7201,
         "state":"ACTIVE","voter":true,"incarnation":1,"primaries":512,"copies":1024,"in_sync":1024,"keys":12},
        {"id":2,"name":"node-2","host":"127.0.0.1","port":7002,"cluster_port":7102,"peer_port":7202,
         "state":"FAILED","voter":false,"incarnation":1,"primaries":512,"copies":1024,"in_sync":1021,"keys":null}]}"#;

    #[test]
    fn the_table_shows_every_node() {
        let status: Status = serde_json::from_str(JSON).unwrap();
        assert!(!status.is_degraded());
        let shown = status.render();
        for part in [
            "cluster c0ffee: ok",
            "coordinator node 2",
            "1024 of 1024 served, 4 short of a copy (3 filling)",
            "ACTIVE (voter)",
            "FAILED",
            "7202",
            "1021",
            "?",
        ] {
            assert!(shown.contains(part), "{part} in\n{shown}");
        }
        assert!(
            !shown.contains('!') && !shown.contains("level"),
            "an older node tells of no levels:\n{shown}"
        );
    }

    #[test]
    fn builds_are_shown_where_they_differ_and_what_the_level_waits_for() {
        let mut status: Status = serde_json::from_str(JSON).unwrap();
        status.level = 2;
        for node in &mut status.nodes {
            node.state = "ACTIVE".into();
            (node.level, node.build) = (Some(2), Some("0.2.0".into()));
        }
        let shown = status.render();
        assert!(
            shown.contains("copies 2, feature level 2, build 0.2.0") && !shown.contains("upgrade"),
            "{shown}"
        );
        status.level = 1;
        let shown = status.render();
        assert!(shown.contains("feature level 1 rises to 2 in a moment"), "{shown}");
        (status.nodes[1].level, status.nodes[1].build) = (Some(1), None);
        let shown = status.render();
        for part in
            ["0.2.0, level 2", "older, level 1", "feature level 1 until node 2 runs a build that has 2"]
        {
            assert!(shown.contains(part), "{part} in\n{shown}");
        }
        status.nodes[0].state = "FAILED".into();
        assert!(status.render().contains("until nodes 1, 2 run"), "{}", status.render());
    }

    #[test]
    fn what_needs_attention_is_said_and_is_the_exit_code() {
        let mut status: Status = serde_json::from_str(JSON).unwrap();
        status.partitions.at_risk = 1;
        status.partitions.lost = 2;
        assert!(status.is_degraded());
        let shown = status.render();
        assert!(shown.contains("DEGRADED"));
        assert!(shown.contains("! 1 partition down to the last copy"));
        assert!(shown.contains("! 2 partitions lost") && shown.contains("accept-loss --yes-lose-data"));
    }
}
