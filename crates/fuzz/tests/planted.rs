//! The model of Redis finds something: each bug that is planted in commands and tables is found within a bounded number of
//! sequences.
//!
//! `cargo test -p annulet-fuzz --features planted --test planted -- --nocapture`

mod drawn;

use fuzz::commands::run;
use std::cell::RefCell;
use std::panic::catch_unwind;
use types::planted::{Bug, COMMAND_BUGS, plant};

/// Sequences that a bug may survive.
const SEQUENCES_MAX: u64 = 20_000;

thread_local! {
    /// What the last assertion said that did not hold.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The first seed whose sequence finds a bug, and what it says.
fn found_by(bug: Option<Bug>, seeds: u64) -> Option<(u64, String)> {
    plant(bug);
    let found = (0..seeds).find(|&seed| {
        let input = drawn::input(seed);
        catch_unwind(|| run(&input)).is_err()
    });
    plant(None);
    found.map(|seed| (seed, SAID.take()))
}

#[test]
fn every_planted_bug_is_found() {
    std::panic::set_hook(Box::new(|panic| SAID.set(panic.to_string())));
    let clean = found_by(None, 100);
    let found = COMMAND_BUGS.map(|bug| (bug, found_by(Some(bug), SEQUENCES_MAX)));
    let _ = std::panic::take_hook();
    assert_eq!(clean, None, "without a bug nothing is found");
    for (bug, found) in &found {
        match found {
            Some((seed, said)) => {
                let said: String =
                    said.lines().skip(1).take(1).flat_map(|line| line.chars().take(150)).collect();
                println!("{bug:?}: found by sequence {}: {said}", seed + 1);
            }
            None => println!("{bug:?}: NOT found in {SEQUENCES_MAX} sequences"),
        }
    }
    let missed: Vec<Bug> = found.iter().filter(|(_, found)| found.is_none()).map(|(bug, _)| *bug).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
