//! What a client knows of the cluster, and how it learns it anew.
//!
//! Whoever finds the map old asks for a refresh; those that ask while one runs share it. The nodes of the map are asked, then
//! the seeds, one after the other without waiting long for any, until one answers with a map at least as new as the one known.

use crate::levels::Levels;
use crate::map::{Address, SlotMap};
use crate::nearness::{Dice, Nearness};
use crate::pipe::Job;
use crate::pool::Pool;
use crate::retry::Failure;
use crate::signals::Signals;
use bytes::Bytes;
use command::Reply;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use types::Slot;

/// How long one node is waited for before the next is asked beside it.
const STAGGER: Duration = Duration::from_millis(200);
/// How long a node that greets may take to tell the map.
const TELLING: Duration = Duration::from_secs(2);

/// The cluster as a client knows it, and its connections.
#[derive(Debug)]
pub(crate) struct Topology {
    pub(crate) settings: Arc<crate::builder::Settings>,
    pub(crate) pool: Pool,
    pub(crate) nearness: Arc<Nearness>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) dice: Dice,
    map: RwLock<SlotMap>,
    /// Grows with every attempt to learn the map.
    attempts: AtomicU64,
    refreshing: tokio::sync::Mutex<()>,
}

impl Topology {
    pub(crate) fn new(settings: Arc<crate::builder::Settings>) -> Topology {
        let (nearness, signals) = (Arc::new(Nearness::default()), Arc::new(Signals::default()));
        Topology {
            pool: Pool::new(settings.clone(), signals.clone(), nearness.clone()),
            settings,
            nearness,
            signals,
            dice: Dice::new(),
            map: RwLock::new(SlotMap::empty()),
            attempts: AtomicU64::new(0),
            refreshing: tokio::sync::Mutex::new(()),
        }
    }

    /// How often the map was asked for: what [`Topology::refresh`] wants to be told.
    pub(crate) fn attempts(&self) -> u64 {
        self.attempts.load(Ordering::Acquire)
    }

    /// Learns the map anew, unless that was tried since `attempts` was read. Returns what went wrong where nobody told it.
    pub(crate) async fn refresh(&self, attempts: u64) -> Result<(), Vec<(Address, Failure)>> {
        let _one = self.refreshing.lock().await;
        if self.attempts() != attempts {
            return Ok(());
        }
        let learned = self.ask_around().await;
        self.attempts.fetch_add(1, Ordering::AcqRel);
        let map = learned?;
        {
            let seeds = &self.settings.seeds;
            let wanted = |address: &Address| map.nodes().contains(address) || seeds.contains(address);
            self.pool.keep(|address| {
                let plain = self.signals.plain_doors();
                wanted(address)
                    || plain.iter().any(|(of, plain)| wanted(of) && plain.as_ref() == Some(address))
            });
            self.signals.keep(wanted);
            self.nearness.keep(|address| {
                let plain = self.signals.plain_doors();
                wanted(address) || plain.values().flatten().any(|plain| plain == address)
            });
        }
        *self.map.write().unwrap_or_else(PoisonError::into_inner) = map;
        Ok(())
    }

    /// The first map at least as new as the known one, or the newest where all are older.
    async fn ask_around(&self) -> Result<SlotMap, Vec<(Address, Failure)>> {
        let known = self.map.read().unwrap_or_else(PoisonError::into_inner).version;
        let (mut asked, mut failures, mut best) = (JoinSet::new(), Vec::new(), None::<SlotMap>);
        let mut others = self.others().into_iter();
        loop {
            let next = others.next();
            let is_last = next.is_none();
            if let Some(address) = next {
                let lane = self.pool.lane(&address, Levels::default());
                asked.spawn(async move {
                    let told = ask(&lane, &address).await;
                    (address, told)
                });
            }
            loop {
                let answer = match is_last {
                    true => asked.join_next().await,
                    false => match timeout(STAGGER, asked.join_next()).await {
                        Ok(answer) => answer,
                        Err(_) => break,
                    },
                };
                match answer {
                    Some(Ok((_, Ok(map)))) if map.version >= known => return Ok(map),
                    Some(Ok((_, Ok(map)))) => {
                        if best.as_ref().is_none_or(|best| best.version < map.version) {
                            best = Some(map);
                        }
                    }
                    Some(Ok((address, Err(failure)))) => failures.push((address, failure)),
                    Some(Err(_)) => {}
                    None => break,
                }
            }
            if is_last {
                return best.ok_or(failures);
            }
        }
    }

    /// Everybody who may be asked: the nodes of the map first, from any of them on, then the seeds.
    fn others(&self) -> Vec<Address> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let mut others = map.nodes().to_vec();
        if !others.is_empty() {
            let turn = self.dice.roll() as usize % others.len();
            others.rotate_left(turn);
        }
        // Those that could not be reached a moment ago come after the others.
        others.sort_by_key(|address| self.nearness.is_far(address));
        others.extend(self.settings.seeds.iter().filter(|seed| !map.nodes().contains(seed)).cloned());
        others
    }

    /// A node said that another serves this slot. The rest of the map is asked for in the background.
    pub(crate) fn moved(&self, slot: Slot, address: Address) {
        self.map.write().unwrap_or_else(PoisonError::into_inner).moved(slot, address);
        self.signals.refresh();
    }

    /// Who answers for a slot: its primary, or the nearest copy where any will do; where nobody serves it any node, which waits
    /// for it to be served.
    pub(crate) fn of_slot(&self, slot: Slot, any_copy: bool) -> Option<Address> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        match map.copies(slot) {
            [] => {}
            [primary, ..] if !any_copy => return Some(primary.clone()),
            copies => return self.nearness.choose(copies, self.dice.roll()).cloned(),
        }
        drop(map);
        self.any()
    }

    /// Any node: the nearest.
    pub(crate) fn any(&self) -> Option<Address> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let nodes = if map.nodes().is_empty() { &self.settings.seeds } else { map.nodes() };
        self.nearness.choose(nodes, self.dice.roll()).cloned()
    }

    /// A door that speaks for the whole cluster: the nearest that is known and can be reached. Where there is none, nodes
    /// are asked for theirs.
    pub(crate) async fn plain_door(&self, deadline: Instant) -> Result<Address, Failure> {
        for _ in 0..2 {
            let doors = self.signals.plain_doors();
            let mut known: Vec<Address> = doors.values().flatten().cloned().collect();
            known.dedup();
            known.retain(|door| !self.nearness.is_far(door));
            if let Some(door) = self.nearness.choose(&known, self.dice.roll()) {
                return Ok(door.clone());
            }
            // A greeting tells it.
            for address in self.others() {
                let ping = Bytes::from_static(b"*1\r\n$4\r\nPING\r\n");
                let lane = self.pool.lane(&address, Levels::default());
                let _ = send(&lane, ping, deadline.min(Instant::now() + TELLING)).await;
            }
        }
        // Those that could not be reached may be there again.
        let doors = self.signals.plain_doors();
        let known: Vec<Address> = doors.values().flatten().cloned().collect();
        let door = self.nearness.choose(&known, self.dice.roll()).cloned();
        door.ok_or_else(|| {
            let why = "no plain door is known, which speaks for the whole cluster: name one among the seeds";
            Failure::Unsent(why.into())
        })
    }
}

/// Sends one request and waits for its reply.
pub(crate) async fn send(
    lane: &crate::pool::Lane,
    bytes: Bytes,
    deadline: Instant,
) -> Result<Reply<'static>, Failure> {
    let (job, waiting) = Job::new(bytes);
    match tokio::time::timeout_at(deadline, lane.send(job)).await {
        Ok(Ok(())) => waiting.reply(deadline).await,
        Ok(Err(_)) => Err(Failure::Unsent("the connection's task has ended".into())),
        Err(_) => Err(Failure::Unsent("the node takes no more requests just now".into())),
    }
}

/// Asks a node for its map. The version is asked for first, so the map is at least as new as it says.
async fn ask(lane: &crate::pool::Lane, address: &Address) -> Result<SlotMap, Failure> {
    let request = |word: &str| {
        let mut bytes = Vec::new();
        wire::resp::encode_request(&[b"CLUSTER", word.as_bytes()], &mut bytes);
        Bytes::from(bytes)
    };
    // Both may have to wait until a connection is there.
    let deadline = Instant::now() + TELLING + TELLING;
    let version = version(&send(lane, request("INFO"), deadline).await?);
    let reply = send(lane, request("SLOTS"), deadline).await?;
    SlotMap::read(version, &reply, address)
        .ok_or_else(|| Failure::Unsent(format!("{address} answers CLUSTER SLOTS with something else")))
}

/// The version of the map in the reply to `CLUSTER INFO`; 0 where it says none.
fn version(reply: &Reply<'_>) -> u64 {
    let text = match reply {
        Reply::Verbatim(text) => text.as_str().into(),
        Reply::Bulk(bytes) => String::from_utf8_lossy(bytes),
        _ => return 0,
    };
    let line = text.lines().find_map(|line| line.strip_prefix("cluster_current_epoch:"));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_cluster_info() {
        let text = "cluster_state:ok\r\ncluster_current_epoch:42\r\ncluster_my_epoch:7\r\n";
        assert_eq!(version(&Reply::Verbatim(text.into())), 42);
        assert_eq!(version(&Reply::bulk(text)), 42);
        assert_eq!(version(&Reply::bulk("cluster_current_epoch:many")), 0);
        assert_eq!(version(&Reply::Null), 0);
    }
}
