//! What has one value in a cluster: a node that starts asks the others whether they go by the same, and does not stay where they do not.
//!
//! Rules rest on it. A copy that calls a record durable sooner than the others do would have writes acknowledged that are on fewer disks
//! than `fsync` promises; a voter with a shorter `grace_ms` would call a node dead that still has its lease. Who joins takes over what
//! the cluster has ([`crate::membership`]); who is listed was told by hand, where a slip is easy.
//!
//! Each node asks when its own peer port answers already: of two that start at once, the later one is told by the other.

use crate::cluster_view::host_port;
use crate::membership::Answer;
use crate::peers;
use crate::proof::Secret;
use signal_hook::consts::SIGINT;
use std::io;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;
use tracing::{debug, error};
use types::NodeId;
use types::settings::{ListedNode, Settings};

/// Attempts at a node that does not answer: it may be about to start, or to stop.
const TRIES: usize = 5;
const BETWEEN_TRIES: Duration = Duration::from_secs(1);
/// What the map says, and operators change while nodes run.
const IN_THE_MAP: [&str; 2] = ["copies", "min_in_sync"];

/// What came of asking: why this node cannot stay.
#[derive(Clone, Default)]
pub struct Disagreement(Arc<OnceLock<String>>);

impl Disagreement {
    /// Why, if so.
    pub fn why(&self) -> Option<String> {
        self.0.get().cloned()
    }
}

/// Asks the listed nodes, each by itself, and ends this process by a signal where one of them goes by something else.
pub fn ask_others(settings: &Arc<Settings>, secret: &Secret) -> io::Result<Disagreement> {
    let found = Disagreement::default();
    for node in settings.listed_nodes().unwrap_or_default() {
        if node.id == settings.node_id {
            continue;
        }
        let (settings, secret, found) = (settings.clone(), secret.clone(), found.clone());
        thread::Builder::new().name(format!("agree-{}", node.id)).spawn(move || {
            if let Some(why) = ask(&node, &settings, &secret)
                && found.0.set(why.clone()).is_ok()
            {
                error!("{why}");
                let _ = signal_hook::low_level::raise(SIGINT);
            }
        })?;
    }
    Ok(found)
}

/// Why the two cannot be in one cluster. None where they agree, or where it does not answer: it asks this one when it starts.
fn ask(node: &ListedNode, settings: &Settings, secret: &Secret) -> Option<String> {
    let ListedNode { id, host, peer_port } = node;
    let address = host_port(host, *peer_port);
    for attempt in 0..TRIES {
        if attempt > 0 {
            thread::sleep(BETWEEN_TRIES);
        }
        match peers::ask_to_join(&address, NodeId(settings.node_id), secret) {
            Ok(text) => {
                let different = difference(settings, &Answer::decode(&text)?)?;
                return Some(format!(
                    "{different} at node {id} ({address}), and a cluster has one value of it. Start this node with that one; to \
                     change it, stop all nodes, and start them with the new one"
                ));
            }
            Err(why) => debug!(node = id, why, "does not say what settings it has"),
        }
    }
    None
}

/// The first setting that is not the same.
fn difference(own: &Settings, other: &Answer) -> Option<String> {
    let mut compared =
        other.settings.iter().filter(|(name, _)| name != "nodes" && !IN_THE_MAP.contains(&name.as_str()));
    compared.find_map(|(name, theirs)| {
        let ours = own.get(name)?;
        (ours != *theirs).then(|| format!("{name} is {ours} here and {theirs}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_told_but_for_what_the_map_says() {
        let answer = |settings: &[(&str, &str)]| {
            let settings =
                settings.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
            Answer { node: NodeId(1), settings, alive: Vec::new(), known_before: true }
        };
        let own = Settings::default();
        let nodes = ("nodes", "1=a:1");
        assert_eq!(
            difference(&own, &answer(&[nodes, ("fsync", "always"), ("copies", "3"), ("min_in_sync", "2")])),
            None
        );
        assert_eq!(
            difference(&own, &answer(&[nodes, ("log", "on"), ("fsync", "never"), ("grace_ms", "1")]))
                .unwrap(),
            "fsync is always here and never"
        );
        assert_eq!(difference(&own, &answer(&[nodes, ("of_a_later_build", "1")])), None);
    }
}
