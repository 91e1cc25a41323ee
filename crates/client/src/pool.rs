//! The connections to every node: a few for each address and choice of levels, opened when first used.

use crate::builder::Settings;
use crate::levels::Levels;
use crate::map::Address;
use crate::nearness::Nearness;
use crate::pipe::{Job, Pipe};
use crate::signals::Signals;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Where requests for one connection are queued.
pub(crate) type Lane = mpsc::Sender<Job>;

/// All connections of a client.
#[derive(Debug)]
pub(crate) struct Pool {
    settings: Arc<Settings>,
    signals: Arc<Signals>,
    nearness: Arc<Nearness>,
    nodes: Mutex<HashMap<Address, Vec<Lanes>>>,
}

/// The connections to one node with the same levels.
#[derive(Debug)]
struct Lanes {
    levels: Levels,
    lanes: Vec<Option<Lane>>,
    /// Which is next: they take turns.
    next: usize,
}

impl Pool {
    pub(crate) fn new(settings: Arc<Settings>, signals: Arc<Signals>, nearness: Arc<Nearness>) -> Pool {
        Pool { settings, signals, nearness, nodes: Mutex::new(HashMap::new()) }
    }

    /// A connection to a node. Its task is started, on the present runtime, where it has none or that has ended.
    pub(crate) fn lane(&self, address: &Address, levels: Levels) -> Lane {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let of_node = nodes.entry(address.clone()).or_default();
        let at = of_node.iter().position(|lanes| lanes.levels == levels).unwrap_or_else(|| {
            let lanes = vec![None; self.settings.connections_per_node];
            of_node.push(Lanes { levels, lanes, next: 0 });
            of_node.len() - 1
        });
        let lanes = &mut of_node[at];
        lanes.next = (lanes.next + 1) % lanes.lanes.len();
        let lane = &mut lanes.lanes[lanes.next];
        match lane {
            Some(open) if !open.is_closed() => open.clone(),
            _ => lane.insert(self.start(address, levels)).clone(),
        }
    }

    fn start(&self, address: &Address, levels: Levels) -> Lane {
        let (sender, receiver) = mpsc::channel(self.settings.queue_requests_max);
        let pipe = Pipe {
            address: address.clone(),
            levels,
            settings: self.settings.clone(),
            signals: self.signals.clone(),
            round_trip: self.nearness.of(address),
        };
        tokio::spawn(pipe.run(receiver));
        sender
    }

    /// Lets go of all connections but those to some addresses. They end once what they were asked is answered.
    pub(crate) fn keep(&self, wanted: impl Fn(&Address) -> bool) {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).retain(|address, _| wanted(address));
    }
}
