//! `annulet status`: one look at the cluster, and what `ANNULET STATUS` says, as types.

use crate::{FAILED, Failure, flags, print};
use clap::ArgMatches;
use client::{Connection, Options, Reply};
use comfy_table::{CellAlignment, Table, presets};
use serde::Deserialize;
use std::process::ExitCode;

/// What a node says of its cluster.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    /// Whether every partition is served, and in the wanted number of copies.
    pub ok: bool,
    pub cluster_id: String,
    /// The cluster map's version.
    pub version: u64,
    pub coordinator: Option<u16>,
    pub copies: u16,
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
    pub incarnation: u64,
    pub primaries: u64,
    pub copies: u64,
    pub in_sync: u64,
    pub keys: Option<u64>,
}

impl Status {
    /// Asks a node. The JSON is returned beside what it says.
    pub(crate) fn ask(connection: &mut Connection) -> Result<(Status, String), Failure> {
        let text = match connection.request(&["ANNULET", "STATUS"])? {
            Reply::Bulk(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Reply::Verbatim(text) => text,
            Reply::Simple(text) => text.into_owned(),
            Reply::Error(error) => {
                return Err(format!("{} answers: {error}", connection.address()).into());
            }
            _ => return Err(not_annulet(connection.address())),
        };
        let status = serde_json::from_str(&text).map_err(|_| not_annulet(connection.address()))?;
        Ok((status, text))
    }

    /// Whether something needs attention: data at risk, not served, or lost.
    pub(crate) fn is_degraded(&self) -> bool {
        let partitions = &self.partitions;
        partitions.at_risk + partitions.unavailable + partitions.lost > 0
    }

    fn render(&self) -> String {
        let partitions = &self.partitions;
        let coordinator = self.coordinator.map_or("none".to_owned(), |id| format!("node {id}"));
        let verdict = match (self.is_degraded(), self.ok) {
            (true, _) => "DEGRADED",
            (false, true) => "ok",
            (false, false) => "settling",
        };
        let mut text = format!(
            "cluster {}: {verdict}\nmap version {}, coordinator {coordinator}, copies {}\n",
            self.cluster_id, self.version, self.copies
        );
        text += &format!("partitions: {} of {} served", partitions.served, partitions.total);
        if partitions.short > 0 {
            text += &format!(", {} short of a copy ({} filling)", partitions.short, partitions.filling);
        }
        text += &format!("\n\n{}\n", self.table());
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

    fn table(&self) -> Table {
        const HEADER: [&str; 10] =
            ["node", "host", "port", "cluster", "peers", "state", "primaries", "copies", "in sync", "keys"];
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(HEADER);
        for node in &self.nodes {
            let voter = if node.voter { " (voter)" } else { "" };
            table.add_row([
                node.id.to_string(),
                node.host.clone(),
                node.port.to_string(),
                node.cluster_port.to_string(),
                node.peer_port.to_string(),
                format!("{}{voter}", node.state),
                node.primaries.to_string(),
                node.copies.to_string(),
                node.in_sync.to_string(),
                node.keys.map_or("?".to_owned(), |keys| keys.to_string()),
            ]);
        }
        for (at, column) in table.column_iter_mut().enumerate() {
            if !matches!(HEADER[at], "host" | "state") {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}

fn not_annulet(address: &str) -> Failure {
    format!("{address} is no Annulet node: its answer to ANNULET STATUS makes no sense").into()
}

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let mut connection = connect(matches)?;
    let (status, json) = Status::ask(&mut connection)?;
    let text = if matches.get_flag("json") { format!("{}\n", json.trim_end()) } else { status.render() };
    print(&text)?;
    Ok(if status.is_degraded() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// A connection to the node that the flags name.
pub(crate) fn connect(matches: &ArgMatches) -> Result<Connection, Failure> {
    const { assert!(FAILED == 2, "the help of `status` and `cli` says so") };
    let target = flags::target(matches);
    let options = Options { password: target.password, ..Options::default() };
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
        assert!(!shown.contains('!'));
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
