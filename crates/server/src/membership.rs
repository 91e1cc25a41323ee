//! Joining: a node that the cluster never knew, or that comes back on a new data directory, asks a running one.
//!
//! What it asks for is a number of its own, where its operator gave none, where the voters are, and the settings that all nodes
//! must agree on. It keeps the answer in its data directory, so that it needs none of this to be said again: at its next start it
//! asks those that it knows, and where nobody answers it goes on with what it was told.
//!
//! A joiner has no vote until the cluster gives it one (rule 16). The file is a journal of one frame of text, a setting a line; only nodes that joined have one.

use crate::disk::RealDisk;
use crate::peers;
use crate::proof::Secret;
use crate::start::StartError;
use node::CONTROL_FILE;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use storage::{Journal, JournalError};
use tracing::{info, warn};
use types::NodeId;
use types::settings::{SETTINGS, Settings};

/// The file's name in the data directory.
pub(crate) const FILE: &str = "membership.journal";

/// A node whose number is that of one that lives may have lost its data directory a moment ago. So long it waits for the cluster to
/// find the other one dead, beside the grace.
const DEATH: Duration = Duration::from_secs(3);
const BETWEEN_ASKS: Duration = Duration::from_millis(100);

/// What a running node tells one that wants to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The joiner's number.
    pub node: NodeId,
    /// Settings by name: where the voters are, and what all nodes agree on.
    pub settings: Vec<(String, String)>,
    /// Nodes that are alive.
    pub alive: Vec<NodeId>,
    /// Whether the cluster knows this number already.
    pub known_before: bool,
}

impl Answer {
    /// As text, a line each.
    pub fn encode(&self) -> String {
        let alive: Vec<String> = self.alive.iter().map(|node| node.0.to_string()).collect();
        let known = if self.known_before { "yes" } else { "no" };
        let mut text = format!("node={}\nalive={}\nknown={known}\n", self.node, alive.join(","));
        for (name, value) in &self.settings {
            text += &format!("{name}={value}\n");
        }
        text
    }

    /// From text; none where it makes no sense. Settings that this program does not know are left out.
    pub fn decode(text: &str) -> Option<Answer> {
        let mut answer =
            Answer { node: NodeId(0), settings: Vec::new(), alive: Vec::new(), known_before: false };
        for line in text.lines() {
            let (name, value) = line.split_once('=')?;
            match name {
                "node" => answer.node = NodeId(value.parse().ok()?),
                "known" => answer.known_before = value == "yes",
                "alive" => {
                    for node in value.split(',').filter(|node| !node.is_empty()) {
                        answer.alive.push(NodeId(node.parse().ok()?));
                    }
                }
                _ if name == "nodes" || SETTINGS.iter().any(|s| s.name == name && s.cluster_wide) => {
                    answer.settings.push((name.to_owned(), value.to_owned()));
                }
                _ => {}
            }
        }
        (answer.node.0 > 0 && answer.settings.iter().any(|(name, _)| name == "nodes")).then_some(answer)
    }
}

/// What a node that joined keeps.
pub struct MembershipFile {
    journal: Journal<RealDisk>,
    answer: Answer,
}

impl MembershipFile {
    /// Reads it; none where this directory's node never joined.
    fn open(directory: &Path) -> Result<Option<MembershipFile>, StartError> {
        let path = directory.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let (journal, frames) =
            Journal::open(RealDisk, &path).map_err(|error| broken(&path, error.to_string()))?;
        let Some(frame) = frames.last() else { return Ok(None) };
        let answer = std::str::from_utf8(frame).ok().and_then(Answer::decode);
        let answer = answer.ok_or_else(|| {
            broken(&path, "it was written by another version: start the program that wrote it".into())
        })?;
        Ok(Some(MembershipFile { journal, answer }))
    }

    fn write(directory: &Path, answer: Answer) -> Result<MembershipFile, StartError> {
        let path = directory.join(FILE);
        let failed = |error: JournalError| broken(&path, error.to_string());
        let (mut journal, _) = Journal::open(RealDisk, &path).map_err(failed)?;
        journal.rewrite(&[answer.encode()]).map_err(failed)?;
        Ok(MembershipFile { journal, answer })
    }

    /// Keeps where the voters are now.
    pub fn set_nodes(&mut self, nodes: &str) -> Result<(), JournalError> {
        let Some((_, kept)) = self.answer.settings.iter_mut().find(|(name, _)| name == "nodes") else {
            return Ok(());
        };
        if kept == nodes {
            return Ok(());
        }
        nodes.clone_into(kept);
        self.journal.rewrite(&[self.answer.encode()])
    }
}

fn broken(path: &Path, why: String) -> StartError {
    StartError::Data { path: PathBuf::from(path), why }
}

/// Completes the settings of a node that joins or has joined; nothing is done for one that is listed from the beginning. The file is
/// to be kept up to date with the map.
pub fn complete(
    settings: &mut Settings,
    directory: &Path,
    secret: &Secret,
) -> Result<Option<MembershipFile>, StartError> {
    let kept = MembershipFile::open(directory)?;
    let joins = !settings.join.as_str().is_empty();
    // Who lists the nodes by hand knows them, and needs to ask nobody.
    if kept.is_none() && (!joins || !settings.nodes.as_str().is_empty()) {
        if settings.node_id == 0 {
            settings.node_id = 1;
        }
        settings.check()?;
        return Ok(None);
    }
    let answer = match &kept {
        Some(file) => ask_again(settings, file, secret)?,
        None => ask_first(settings, directory, secret)?,
    };
    let file = match kept {
        Some(file) if file.answer == answer => file,
        _ => MembershipFile::write(directory, answer)?,
    };
    adopt(settings, &file.answer)?;
    Ok(Some(file))
}

/// Whether this directory's node has joined a cluster at an earlier start.
pub fn has_joined(directory: &Path) -> bool {
    directory.join(FILE).exists()
}

fn refused(address: &str, why: impl Into<String>) -> StartError {
    StartError::Join { address: address.to_owned(), why: why.into() }
}

/// The first start: only the node at `join` can tell.
fn ask_first(settings: &Settings, directory: &Path, secret: &Secret) -> Result<Answer, StartError> {
    let address = settings.join.as_str();
    let is_new = !directory.join(CONTROL_FILE).exists();
    if !is_new && settings.node_id == 0 {
        return Err(refused(
            address,
            format!("{} holds a node's data, and does not say of which: say --node-id", directory.display()),
        ));
    }
    let began = Instant::now();
    let patience = DEATH + Duration::from_millis(settings.grace_ms);
    let mut waiting = false;
    let answer = loop {
        let asked = NodeId(settings.node_id);
        let answer = ask(address, asked, secret).map_err(|why| refused(address, why))?;
        // Somebody else's number would have two nodes push each other out again and again.
        if !is_new || !answer.alive.contains(&answer.node) {
            break answer;
        }
        if began.elapsed() > patience {
            let node = answer.node;
            return Err(refused(
                address,
                format!(
                    "node {node} is alive, and this data directory is not its own. Leave out `node_id` to get a free number, or \
                     stop that node if this one is to take its place"
                ),
            ));
        }
        if !std::mem::replace(&mut waiting, true) {
            info!(
                node = answer.node.0,
                "the cluster knows a node of this number as alive: waiting for it to be found dead"
            );
        }
        std::thread::sleep(BETWEEN_ASKS);
    };
    match answer.known_before {
        true => info!(
            node = answer.node.0,
            by = address,
            "joins: comes back as this node, to be filled from the others"
        ),
        false => info!(node = answer.node.0, by = address, "joins: the cluster gets a new node"),
    }
    Ok(answer)
}

/// A later start: those that were known may tell what has changed; where none answers, nothing is known to have.
fn ask_again(settings: &Settings, file: &MembershipFile, secret: &Secret) -> Result<Answer, StartError> {
    let node = file.answer.node;
    if settings.node_id != 0 && settings.node_id != node.0 {
        return Err(refused(
            settings.join.as_str(),
            format!(
                "the data directory is that of node {node}, not {}: leave out `node_id`, or give this node another `dir`",
                settings.node_id
            ),
        ));
    }
    let kept = file.answer.settings.iter().find(|(name, _)| name == "nodes").map_or("", |(_, nodes)| nodes);
    let addresses = kept.split(',').filter_map(|node| node.split_once('=')).map(|(_, address)| address);
    let given = Some(settings.join.as_str()).filter(|address| !address.is_empty());
    for address in given.into_iter().chain(addresses) {
        match ask(address, node, secret) {
            Ok(answer) => return Ok(answer),
            Err(why) => info!(address, why, "does not tell of the cluster"),
        }
    }
    warn!(
        node = node.0,
        "no other node answers: goes on with what the cluster told it when it was here last"
    );
    Ok(file.answer.clone())
}

fn ask(address: &str, node: NodeId, secret: &Secret) -> Result<Answer, String> {
    let text = peers::ask_to_join(address, node, secret)?;
    Answer::decode(&text).ok_or_else(|| "its answer makes no sense: it may run another version".to_owned())
}

/// Takes over what the cluster says, and tells of what was said differently here.
fn adopt(settings: &mut Settings, answer: &Answer) -> Result<(), StartError> {
    settings.node_id = answer.node.0;
    let usual = Settings::default();
    for (name, value) in &answer.settings {
        let own = settings.get(name).unwrap_or_default();
        if name != "nodes" && own != *value && usual.get(name).as_ref() != Some(&own) {
            warn!("{name} = {value} as in the whole cluster, not {own}");
        }
        settings.set(name, value)?;
    }
    if settings.join.as_str().is_empty() {
        // It is not one of those that made the cluster, at this start as at the first.
        let first = answer.settings.iter().find(|(name, _)| name == "nodes");
        let first = first.and_then(|(_, nodes)| nodes.split(',').next()?.split_once('='));
        settings.set("join", first.map_or("", |(_, address)| address))?;
    }
    Ok(settings.check()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    fn answer() -> Answer {
        Answer {
            node: NodeId(4),
            settings: vec![
                ("nodes".to_owned(), "1=a:1,2=b:2,3=[::1]:3".to_owned()),
                ("copies".to_owned(), "3".to_owned()),
            ],
            alive: vec![NodeId(1), NodeId(3)],
            known_before: false,
        }
    }

    #[test]
    fn an_answer_reads_back_and_nonsense_does_not() {
        assert_eq!(Answer::decode(&answer().encode()), Some(answer()));
        for bad in [
            "",
            "nodes",
            "node=4\n",
            "node=x\nnodes=1=a:1\n",
            "node=0\nnodes=1=a:1\n",
            "node=4\nalive=1,b\nnodes=1=a:1",
        ] {
            assert_eq!(Answer::decode(bad), None, "{bad:?}");
        }
        let stranger = format!("{}requirepass=x\nfuture=1\ndir=/\n", answer().encode());
        assert_eq!(Answer::decode(&stranger), Some(answer()), "only what all must agree on is taken over");
    }

    #[test]
    fn a_number_lasts_and_what_the_cluster_says_wins() {
        let dir = TempDir::new();
        let secret = Secret::draw().unwrap();
        MembershipFile::write(dir.path(), answer()).unwrap();
        // Nobody listens at these addresses: the file alone has to do.
        let mut settings = Settings { node_id: 0, ..Settings::default() };
        let file = complete(&mut settings, dir.path(), &secret).unwrap().unwrap();
        assert_eq!((settings.node_id, settings.copies, settings.join.as_str()), (4, 3, "a:1"));
        assert_eq!(settings.voter_ids().unwrap(), [1, 2, 3], "a joiner is none of the voters");
        drop(file);
        let mut settings = Settings { node_id: 5, ..Settings::default() };
        let error = complete(&mut settings, dir.path(), &secret).err().unwrap().to_string();
        assert!(error.contains("that of node 4, not 5"), "{error}");
    }

    #[test]
    fn who_is_listed_asks_nobody() {
        let dir = TempDir::new();
        let secret = Secret::draw().unwrap();
        let mut settings = Settings { node_id: 0, ..Settings::default() };
        assert!(complete(&mut settings, dir.path(), &secret).unwrap().is_none());
        assert_eq!(settings.node_id, 1);
        assert!(!has_joined(dir.path()));
    }
}
