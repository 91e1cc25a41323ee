//! Bounds that were chosen: each scene looks at one thing, is small enough to be explored to its end, and large enough that what it
//! looks at can go wrong (`tests/planted.rs` shows that it does).

use crate::copy::Disk;
use crate::data::{Bounds, Cluster};
use crate::leases::{self, Leases, Plant};
use stateright::{Checker, CheckerBuilder, HasDiscoveries, Model};
use std::time::{Duration, Instant};
use types::planted::Bug;

/// What the scenes of [`crate::data`] differ from: two copies in memory, one write, and nothing happens.
pub const QUIET: Bounds = Bounds {
    nodes: 2,
    copies: 2,
    disk: Disk::None,
    puts: 1,
    reads: 0,
    ticks: 0,
    lapses: 0,
    crashes: 0,
    deaths: 0,
    losses: 0,
    hand_overs: 0,
    moves: false,
    reorder: false,
    buries_the_living: false,
};

/// What the scenes of [`crate::leases`] differ from: three voters beside the holder, and nothing happens but time.
pub const STILL: leases::Bounds = leases::Bounds {
    voters: 3,
    holder_votes: false,
    steps: 2,
    voters_sleep: false,
    restarts: 0,
    ups: 0,
    terms: 0,
    entries: 2,
    plant: Plant::Nothing,
};

/// How much of a scene is explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// In seconds, also where little is optimized: what the tests run.
    Small,
    /// In a minute or two for all scenes, optimized.
    Medium,
    /// In many minutes, optimized.
    Large,
}

/// What a scene is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scene {
    /// Replication.
    Data(Bounds),
    /// Leases.
    Leases(leases::Bounds),
}

/// The names of all scenes.
pub const NAMES: [&str; 11] = [
    "failover",
    "restart",
    "disks",
    "three copies",
    "move",
    "hand-over",
    "overtaking",
    "leases",
    "leases of a voter",
    "voters restart",
    "terms",
];

impl Scene {
    /// The scene of a name.
    pub fn of(name: &str, size: Size) -> Option<Scene> {
        let pick = |small: u8, medium: u8, large: u8| match size {
            Size::Small => small,
            Size::Medium => medium,
            Size::Large => large,
        };
        let scene = match name {
            // A primary is cut off, and is declared dead; or its backup is, and comes back.
            "failover" => Scene::Data(Bounds {
                puts: pick(1, 2, 2),
                reads: 1,
                ticks: pick(1, 1, 2),
                lapses: 1,
                deaths: pick(1, 1, 2),
                losses: pick(0, 0, 1),
                ..QUIET
            }),
            // A process ends, and starts again with nothing.
            "restart" => Scene::Data(Bounds {
                puts: pick(1, 1, 2),
                reads: pick(0, 1, 1),
                ticks: 1,
                crashes: 1,
                deaths: pick(0, 1, 1),
                ..QUIET
            }),
            // Processes end, also all of them, and start again with what their disks have kept.
            "disks" => Scene::Data(Bounds {
                disk: if size == Size::Small { Disk::Quick } else { Disk::Slow },
                ticks: pick(0, 0, 1),
                crashes: pick(1, 1, 2),
                deaths: pick(0, 1, 1),
                ..QUIET
            }),
            "three copies" => Scene::Data(Bounds {
                nodes: 3,
                copies: 3,
                ticks: pick(0, 0, 1),
                lapses: 1,
                deaths: 1,
                ..QUIET
            }),
            "move" => Scene::Data(Bounds { nodes: 3, ticks: pick(1, 1, 2), moves: true, ..QUIET }),
            "hand-over" => Scene::Data(Bounds {
                reads: 1,
                ticks: pick(1, 2, 3),
                lapses: pick(0, 0, 1),
                deaths: pick(0, 0, 1),
                hand_overs: 1,
                ..QUIET
            }),
            "overtaking" => {
                Scene::Data(Bounds { ticks: pick(1, 1, 2), lapses: 1, deaths: 1, reorder: true, ..QUIET })
            }
            // One voter is as good as a majority, and there are far fewer orders of what it does.
            "leases" => Scene::Leases(leases::Bounds {
                voters: pick(1, 1, 3).into(),
                steps: pick(3, 4, 3),
                voters_sleep: size != Size::Large,
                ups: 1,
                entries: pick(2, 3, 2),
                ..STILL
            }),
            "leases of a voter" => Scene::Leases(leases::Bounds {
                holder_votes: true,
                ups: pick(0, 0, 1),
                entries: pick(1, 1, 2),
                ..STILL
            }),
            "voters restart" => Scene::Leases(leases::Bounds {
                voters: pick(1, 3, 3).into(),
                holder_votes: size != Size::Small,
                restarts: pick(2, 1, 2),
                entries: pick(2, 1, 1),
                ..STILL
            }),
            "terms" => Scene::Leases(leases::Bounds {
                voters: pick(1, 1, 3).into(),
                holder_votes: size == Size::Large,
                steps: pick(3, 4, 2),
                terms: 1,
                restarts: pick(0, 1, 0),
                entries: pick(2, 3, 2),
                ..STILL
            }),
            _ => return None,
        };
        Some(scene)
    }

    /// Explores it, to its end or, where a bug is planted, until a property fails; at most for so long.
    pub fn explore(self, bug: Option<Bug>, most: Duration) -> Explored {
        match self {
            Scene::Data(bounds) => explore(Cluster::new(bounds, bug).checker(), most),
            Scene::Leases(bounds) => explore(Leases::new(bounds, bug).checker(), most),
        }
    }
}

/// What came of a scene.
#[derive(Clone, Debug)]
pub struct Explored {
    /// Different states.
    pub states: usize,
    /// Steps from one to another.
    pub steps: usize,
    /// The longest way to a state that was taken.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// Properties that failed, with the actions that led there.
    pub failed: Vec<(&'static str, String)>,
    /// What should have happened somewhere, and did nowhere.
    pub missed: Vec<&'static str>,
}

fn explore<M>(builder: CheckerBuilder<M>, most: Duration) -> Explored
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + PartialEq + std::hash::Hash + Send + Sync + 'static,
    M::Action: Clone + PartialEq + std::fmt::Debug,
{
    let begun = Instant::now();
    let builder = builder.threads(2).timeout(most).finish_when(HasDiscoveries::AnyFailures);
    let checker = builder.spawn_bfs().join();
    let (mut failed, mut missed) = (Vec::new(), Vec::new());
    let mut found = checker.discoveries();
    for property in checker.model().properties() {
        let path = found.remove(property.name);
        match (property.expectation, path) {
            (stateright::Expectation::Sometimes, None) => missed.push(property.name),
            (stateright::Expectation::Sometimes, Some(_)) | (_, None) => {}
            (_, Some(path)) => failed.push((property.name, format!("{:?}", path.into_actions()))),
        }
    }
    Explored {
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        took: begun.elapsed(),
        failed,
        missed,
    }
}
