//! The exhaustive runs.

use model::data::{Bounds, Cluster};
use model::scenes::QUIET;
use stateright::{Checker, Model};
use std::time::Instant;

fn main() {
    let words: Vec<u8> = std::env::args().skip(1).map(|word| word.parse().expect("a number")).collect();
    let at = |index: usize| words.get(index).copied().unwrap_or(0);
    let bounds = Bounds {
        nodes: u16::from(at(0)).max(2),
        copies: u16::from(at(1)).max(2),
        puts: at(2),
        reads: at(3),
        ticks: at(4),
        lapses: at(5),
        crashes: at(6),
        losses: at(7),
        hand_overs: at(8),
        moves: at(9) > 0,
        reorder: at(10) > 0,
        disk: match at(11) {
            0 => model::copy::Disk::None,
            1 => model::copy::Disk::Quick,
            _ => model::copy::Disk::Slow,
        },
        ..QUIET
    };
    let started = Instant::now();
    let checker = Cluster::new(bounds, None).checker().threads(2).spawn_bfs().join();
    println!(
        "{} unique states, {} in all, depth {}, {} steps, {:?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        checker.model().steps(),
        started.elapsed()
    );
    for (name, path) in checker.discoveries() {
        println!("{name}: {} actions: {:?}", path.clone().into_actions().len(), path.into_actions());
    }
}
