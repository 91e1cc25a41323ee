//! A cluster file: one file that names all nodes of a fixed cluster, from which each of them is started.
//!
//! ```toml
//! copies = 2                  # any setting: the same for every node
//! partitions = 1024
//! virtual_nodes = 160
//! join_secret = "64 hex digits"
//!
//! [[nodes]]
//! id = 1
//! host = "10.0.0.1"           # what the others and clients are told, and what it listens on
//! port = 7001                 # further ports count from it; or any setting of this node alone
//! ```
//!
//! [`tree`] reads TOML or JSON; here it gets its meaning, and becomes each node's settings. Every complaint names the file, the line
//! where there is one, and the field.

mod tree;

use crate::settings_file::{Given, is_number};
use crate::{host_port, write_private};
use placement::ring::VIRTUAL_NODES;
use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use thiserror::Error;
use tree::{Entry, Item, Value};
use types::settings::{SETTINGS, Setting, SettingError, Settings};

/// What a cluster file decides by naming the nodes.
const DECIDED: &[&str] = &["node_id", "nodes", "join", "announce"];
/// Where nodes keep their data unless the file says otherwise: each in a directory of its own below this.
const DIR: &str = "annulet-data";
const SECRET_DIGITS: usize = 64;
const SECRET_FILE: &str = "join.secret";

/// Why a cluster file, or its use, was refused.
#[derive(Debug, Error)]
pub enum ClusterFileError {
    /// The file cannot be read, or is not UTF-8.
    #[error("cannot read the cluster file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is neither TOML nor JSON.
    #[error("{} is not {format}: {why}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Which of the two it was taken for.
        format: &'static str,
        /// What is wrong, and in which line.
        why: String,
    },
    /// Something in it makes no sense.
    #[error("{}{}: {why}", path.display(), place)]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Where in it.
        place: Place,
        /// What is wrong, and what would do.
        why: String,
    },
    /// A node is to be started that it does not name.
    #[error("{} names no node {asked}; it names {}", path.display(), known.join(", "))]
    NoSuchNode {
        /// The file.
        path: PathBuf,
        /// The number of that node.
        asked: u16,
        /// The nodes that it names.
        known: Vec<String>,
    },
    /// The data directory is of another cluster.
    #[error(
        "{} holds another secret than join_secret in the cluster file says: it belongs to another cluster, or one of the two was \
         changed",
        path.display()
    )]
    OtherSecret {
        /// The file with the secret.
        path: PathBuf,
    },
    /// The secret cannot be left, or looked at.
    #[error("cannot write {}: {why}", path.display())]
    Secret {
        /// The file with the secret.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// Where in a file something stands: its line, where that is known, and its field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    line: Option<usize>,
    field: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(line) = self.line {
            write!(f, " line {line}")?;
        }
        if self.field.is_empty() { Ok(()) } else { write!(f, " ({})", self.field) }
    }
}

/// A complaint, before it knows its file.
type Wrong = (Place, String);

fn wrong<T>(line: Option<usize>, field: impl Into<String>, why: impl Into<String>) -> Result<T, Wrong> {
    Err((Place { line, field: field.into() }, why.into()))
}

/// A key as a place shows it: what is no plain word (in TOML, a bare key) stands in quotes, so that one without letters is seen, too.
fn field(above: &str, name: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    match !name.is_empty() && name.chars().all(is_plain) {
        true => format!("{above}{name}"),
        false => format!("{above}{name:?}"),
    }
}

/// Settings with where they stand.
type Placed = BTreeMap<&'static str, (String, Place)>;

/// One node of the file.
#[derive(Debug)]
struct FileNode {
    id: u16,
    host: String,
    /// Its own settings.
    own: Placed,
    place: Place,
}

/// A cluster file that makes sense.
#[derive(Debug)]
pub struct ClusterFile {
    path: PathBuf,
    common: Placed,
    secret: Option<String>,
    nodes: Vec<FileNode>,
}

impl ClusterFile {
    /// Reads a file and checks all of it, whichever node is to be started: a mistake shows on the first machine.
    pub fn read(path: &Path) -> Result<ClusterFile, ClusterFileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ClusterFileError::Unreadable { path: path.to_owned(), source })?;
        ClusterFile::parse(path, &text)
    }

    /// The same of a file with this text. Its name's ending says whether it is TOML or JSON; without one that does, the text itself.
    pub fn parse(path: &Path, text: &str) -> Result<ClusterFile, ClusterFileError> {
        let is_json = match path.extension().and_then(|extension| extension.to_str()) {
            Some(extension) if extension.eq_ignore_ascii_case("json") => true,
            Some(extension) if extension.eq_ignore_ascii_case("toml") => false,
            _ => text.trim_start().starts_with('{'),
        };
        let (format, entries) = match is_json {
            true => ("JSON", tree::of_json(text)),
            false => ("TOML", tree::of_toml(text)),
        };
        let entries =
            entries.map_err(|why| ClusterFileError::Syntax { path: path.to_owned(), format, why })?;
        let file = ClusterFile::of(path, entries).and_then(|file| file.check().map(|()| file));
        file.map_err(|(place, why)| ClusterFileError::Wrong { path: path.to_owned(), place, why })
    }

    fn of(path: &Path, entries: Vec<Entry>) -> Result<ClusterFile, Wrong> {
        let (mut common, mut secret, mut nodes) = (Placed::new(), None, None);
        for entry in each_once(entries, "")? {
            match entry.name.as_str() {
                "nodes" => nodes = Some(nodes_of(entry)?),
                "join_secret" => secret = Some(secret_of(&entry)?),
                "virtual_nodes" => check_virtual_nodes(&entry)?,
                name => {
                    let place = Place { line: entry.line, field: field("", name) };
                    let setting = setting_of(name, &place)?;
                    common.insert(setting.name, (value_of(setting, &entry.value, &place)?, place));
                }
            }
        }
        match nodes {
            Some(nodes) => Ok(ClusterFile { path: path.to_owned(), common, secret, nodes }),
            None => wrong(
                None,
                "nodes",
                "it names no nodes; each is a section [[nodes]] with id and host (JSON: \"nodes\": [{\"id\": 1, \"host\": ...}])",
            ),
        }
    }

    /// What only all of it together tells.
    fn check(&self) -> Result<(), Wrong> {
        for (at, node) in self.nodes.iter().enumerate() {
            if let Some(other) = self.nodes[..at].iter().find(|other| other.id == node.id) {
                let field = format!("{}.id", node.place.field);
                let why = format!("id {} is taken by {}; each node has its own", node.id, other.place.field);
                return wrong(node.place.line, field, why);
            }
        }
        let mut taken: BTreeMap<(&str, u16), (String, &'static str)> = BTreeMap::new();
        for node in &self.nodes {
            for (name, port) in self.ports(node)? {
                if port == 0 {
                    continue;
                }
                let before = taken.insert((node.host.as_str(), port), (node.place.field.clone(), name));
                if let Some((other, other_name)) = before {
                    let place = self.place_of(node, name);
                    let why = format!(
                        "port {port} of {} is already the {other_name} of {other}; give one of them another (what is not given \
                         counts from `port`)",
                        node.host
                    );
                    return wrong(place.line, format!("{}.{name}", node.place.field), why);
                }
            }
            self.check_together(node)?;
        }
        Ok(())
    }

    fn check_together(&self, node: &FileNode) -> Result<(), Wrong> {
        let mut settings = Settings::default();
        let given = self.settings_of(node)?;
        let checked = given.iter().try_for_each(|(name, value)| settings.set(name, value));
        // Whether it may listen where it should is told at its start: the password may come as a flag.
        match checked.and_then(|()| settings.check()) {
            Err(SettingError::Invalid { name: "bind", .. }) | Ok(()) => Ok(()),
            Err(error) => {
                let name = match &error {
                    SettingError::Invalid { name, .. } => *name,
                    SettingError::Unknown { .. } => "",
                };
                Err((self.place_of(node, name), error.to_string()))
            }
        }
    }

    /// Where a node's setting stands: with the node, or for all; else the node itself.
    fn place_of(&self, node: &FileNode, name: &str) -> Place {
        let own = node.own.get(name).or_else(|| self.common.get(name));
        own.map_or_else(|| node.place.clone(), |(_, place)| place.clone())
    }

    /// The ports of a node by setting: those that are given, and the others as far from `port` as by default.
    fn ports(&self, node: &FileNode) -> Result<Vec<(&'static str, u16)>, Wrong> {
        let given = |name: &str| node.own.get(name).or_else(|| self.common.get(name));
        let number = |text: &str| text.parse::<u16>().unwrap_or(0);
        let usual = Settings::default().port;
        let base = given("port").map_or(usual, |(text, _)| number(text));
        let ports = SETTINGS.iter().filter(|setting| is_port(setting)).map(|setting| {
            let usual_here = number(setting.default);
            match given(setting.name) {
                Some((text, _)) => Ok((setting.name, number(text))),
                // Without a port for clients there is nothing to count from.
                None if base == 0 => Ok((setting.name, usual_here)),
                None => match (base - 1).checked_add(usual_here - usual + 1) {
                    Some(port) => Ok((setting.name, port)),
                    None => wrong(
                        self.place_of(node, "port").line,
                        format!("{}.{}", node.place.field, setting.name),
                        format!("counted from port {base} it would be beyond 65535; give it, or choose a lower port"),
                    ),
                },
            }
        });
        ports.collect()
    }

    /// All that a node is told.
    fn settings_of(&self, node: &FileNode) -> Result<Given, Wrong> {
        let mut peers = Vec::new();
        for other in &self.nodes {
            let port =
                self.ports(other)?.iter().find(|(name, _)| *name == "peer_port").map(|(_, port)| *port);
            peers.push(format!("{}={}", other.id, host_port(&other.host, port.unwrap_or_default())));
        }
        let dir = match (node.own.get("dir"), self.common.get("dir")) {
            (Some((own, _)), _) => own.clone(),
            (None, above) => {
                let above = above.map_or(DIR, |(dir, _)| dir.as_str());
                Path::new(above).join(format!("node-{}", node.id)).display().to_string()
            }
        };
        let mut given: BTreeMap<&'static str, String> = BTreeMap::new();
        given.insert("bind", node.host.clone());
        given.extend(self.common.iter().chain(&node.own).map(|(name, (value, _))| (*name, value.clone())));
        given.extend(self.ports(node)?.into_iter().map(|(name, port)| (name, port.to_string())));
        given.insert("node_id", node.id.to_string());
        given.insert("nodes", peers.join(","));
        given.insert("announce", node.host.clone());
        given.insert("dir", dir);
        Ok(given.into_iter().collect())
    }

    /// The settings of the node with this number.
    pub fn node_settings(&self, id: u16) -> Result<Given, ClusterFileError> {
        let path = self.path.clone();
        let Some(node) = self.nodes.iter().find(|node| node.id == id) else {
            let known = self.nodes.iter().map(|node| format!("{} ({})", node.id, node.host)).collect();
            return Err(ClusterFileError::NoSuchNode { path, asked: id, known });
        };
        self.settings_of(node).map_err(|(place, why)| ClusterFileError::Wrong { path, place, why })
    }

    /// Puts the secret by which the nodes know each other into a data directory that has none. One that is there stays, and has to
    /// be the same.
    pub fn leave_secret(&self, directory: &Path) -> Result<(), ClusterFileError> {
        let Some(secret) = &self.secret else { return Ok(()) };
        let path = directory.join(SECRET_FILE);
        match std::fs::read_to_string(&path) {
            Ok(there) if there.trim().eq_ignore_ascii_case(secret) => Ok(()),
            Ok(_) => Err(ClusterFileError::OtherSecret { path }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let failed = |why: String| ClusterFileError::Secret { path: path.clone(), why };
                let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
                made.map_err(|error| failed(error.to_string()))?;
                write_private(&path, &format!("{secret}\n")).map_err(|error| failed(error.to_string()))
            }
            Err(error) => Err(ClusterFileError::Secret { path, why: error.to_string() }),
        }
    }
}

fn is_port(setting: &Setting) -> bool {
    setting.name == "port" || setting.name.ends_with("_port")
}

/// The entries, where none stands twice. (TOML sees to that itself.)
fn each_once(entries: Vec<Entry>, above: &str) -> Result<Vec<Entry>, Wrong> {
    for (at, entry) in entries.iter().enumerate() {
        if entries[..at].iter().any(|other| other.name == entry.name) {
            return wrong(entry.line, field(above, &entry.name), "it stands there twice");
        }
    }
    Ok(entries)
}

fn nodes_of(entry: Entry) -> Result<Vec<FileNode>, Wrong> {
    let kind = entry.value.kind();
    let Value::List(items) = entry.value else {
        return wrong(
            entry.line,
            "nodes",
            format!("a list of nodes is expected, each [[nodes]], not {kind}"),
        );
    };
    if items.is_empty() {
        return wrong(entry.line, "nodes", "it is empty; a cluster has at least one node");
    }
    items.into_iter().enumerate().map(|(at, item)| node_of(at, item)).collect()
}

fn node_of(at: usize, Item { line, value }: Item) -> Result<FileNode, Wrong> {
    let name = format!("nodes[{}]", at + 1);
    let kind = value.kind();
    let Value::Table(entries) = value else {
        return wrong(line, name, format!("a node is a section with id and host, not {kind}"));
    };
    let line = entries.first().and_then(|entry| entry.line).or(line);
    let (mut id, mut host, mut own) = (None, None, Placed::new());
    let above = format!("{name}.");
    for entry in each_once(entries, &above)? {
        let field = field(&above, &entry.name);
        match entry.name.as_str() {
            "id" => match &entry.value {
                Value::Number(number @ 1..=9999) => id = Some(*number as u16),
                other => {
                    return wrong(
                        entry.line,
                        field,
                        format!("a number from 1 to 9999 is expected, not {}", shown(other)),
                    );
                }
            },
            "host" => match &entry.value {
                Value::Text(text) if is_host(text) => host = Some(text.clone()),
                other => {
                    let why = format!(
                        "a host name or an address is expected, without a port (`port` and the like give those), not {}",
                        shown(other)
                    );
                    return wrong(entry.line, field, why);
                }
            },
            setting_name => {
                let place = Place { line: entry.line, field };
                let setting = setting_of(setting_name, &place)?;
                if setting.cluster_wide {
                    let why = format!(
                        "`{setting_name}` is the same on every node: put it above the first [[nodes]]"
                    );
                    return Err((place, why));
                }
                own.insert(setting.name, (value_of(setting, &entry.value, &place)?, place));
            }
        }
    }
    let place = Place { line, field: name };
    match (id, host) {
        (Some(id), Some(host)) => Ok(FileNode { id, host, own, place }),
        (None, _) => {
            Err((place, "`id` is missing: a number from 1 to 9999, which stays with the node".into()))
        }
        (_, None) => Err((place, "`host` is missing: where the others and clients reach this node".into())),
    }
}

fn is_host(text: &str) -> bool {
    let is_name = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    !text.is_empty() && (is_name || text.parse::<std::net::Ipv6Addr>().is_ok())
}

fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("\"{text}\""),
        Value::Number(number) => number.to_string(),
        other => other.kind().to_owned(),
    }
}

/// The setting with this name, where a cluster file may give it.
fn setting_of(name: &str, place: &Place) -> Result<&'static Setting, Wrong> {
    if DECIDED.contains(&name) {
        return Err((place.clone(), format!("the cluster file itself decides `{name}`; leave it out")));
    }
    let known = SETTINGS.iter().find(|setting| setting.name == name);
    known.ok_or_else(|| {
        let near = nearest(name).map_or_else(String::new, |near| format!(" (did you mean '{near}'?)"));
        let why = format!(
            "unknown key '{name}'{near}; there are nodes (each with id and host), virtual_nodes, join_secret, and the settings \
             that `annulet settings` lists"
        );
        (place.clone(), why)
    })
}

/// The key that is a few letters away.
fn nearest(name: &str) -> Option<&'static str> {
    let keys = SETTINGS.iter().map(|setting| setting.name);
    let keys = keys.filter(|key| !DECIDED.contains(key)).chain([
        "nodes",
        "virtual_nodes",
        "join_secret",
        "id",
        "host",
    ]);
    let near = keys.map(|key| (distance(name, key), key));
    near.min().filter(|(distance, key)| *distance <= 3 && 2 * distance <= key.len()).map(|(_, key)| key)
}

/// How many letters are to be changed, put in or left out to make one of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.chars().take(64).enumerate() {
        let mut corner = std::mem::replace(&mut row[0], at + 1);
        for (place, same) in other.iter().enumerate() {
            let change = corner + usize::from(letter != *same);
            corner = row[place + 1];
            row[place + 1] = change.min(row[place] + 1).min(corner + 1);
        }
    }
    row[other.len()]
}

/// A setting's value as text, where it is of the right kind and in range.
fn value_of(setting: &Setting, value: &Value, place: &Place) -> Result<String, Wrong> {
    let text = match (is_number(setting), value) {
        (true, Value::Number(number)) => number.to_string(),
        (false, Value::Text(text)) => text.clone(),
        // A size may have a unit, and then it is text.
        (true, Value::Text(text)) if setting.size => text.clone(),
        (number, other) => {
            let expected = if number { "a number, without quotes" } else { "text, in quotes" };
            return Err((place.clone(), format!("{expected}, is expected, not {}", shown(other))));
        }
    };
    Settings::default().set(setting.name, &text).map_err(|error| (place.clone(), error.to_string()))?;
    Ok(text)
}

fn secret_of(entry: &Entry) -> Result<String, Wrong> {
    match &entry.value {
        Value::Text(text)
            if text.len() == SECRET_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            Ok(text.to_ascii_lowercase())
        }
        // Never shown: it may be a secret with a digit too few.
        _ => wrong(
            entry.line,
            "join_secret",
            "64 hex digits in quotes are expected; `openssl rand -hex 32` makes some",
        ),
    }
}

/// Places on the ring are the same in every cluster, so that coordinators of all versions prefer the same nodes: the key is there
/// for files that say it, and has to say that.
fn check_virtual_nodes(entry: &Entry) -> Result<(), Wrong> {
    let usual = VIRTUAL_NODES;
    match &entry.value {
        Value::Number(number) if *number == i64::from(usual) => Ok(()),
        other => wrong(
            entry.line,
            "virtual_nodes",
            format!(
                "every cluster has {usual} virtual nodes for each unit of a node's weight, not {}; say {usual} or leave it out, and \
                 give a node more or less of the data with `weight`",
                shown(other)
            ),
        ),
    }
}

#[cfg(test)]
mod tests;
