//! The checks can fail: each bug that is planted in the machines is found within a bounded number of seeds.
//!
//! `cargo test --profile campaign -p annulet-sim --features planted --test planted -- --nocapture`

use sim::{Options, run};
use std::panic::{AssertUnwindSafe, catch_unwind};
use types::planted::{BUGS, Bug, plant};

/// Seeds that a bug may survive.
fn seeds_max(bug: Bug) -> u64 {
    match bug {
        // It shows only where a forwarded request that changed nothing is sent again.
        Bug::RunsAgain => 4000,
        _ => 1500,
    }
}

/// Whether a bug shows only where a process that restarts has lost what it held.
fn needs_log_off(bug: Bug) -> bool {
    bug == Bug::BelievesOldIncarnation
}

/// The first seed that finds a bug, and what it says.
fn found_by(bug: Bug) -> Option<(u64, String)> {
    plant(Some(bug));
    let found = (0..seeds_max(bug)).find_map(|seed| {
        let options = Options { log_off: needs_log_off(bug), ..Options::default() };
        match catch_unwind(AssertUnwindSafe(|| run(seed, options))) {
            Ok(Ok(_)) => None,
            Ok(Err(failure)) => Some((seed, failure.what)),
            Err(_) => Some((seed, "an assertion of the machines".into())),
        }
    });
    plant(None);
    found
}

#[test]
fn every_planted_bug_is_found() {
    std::panic::set_hook(Box::new(|_| {}));
    // One alone: PLANTED=DropsTail.
    let wanted = std::env::var("PLANTED").unwrap_or_default();
    let bugs: Vec<Bug> = BUGS.into_iter().filter(|bug| format!("{bug:?}").contains(&wanted)).collect();
    let missed: Vec<Bug> = std::thread::scope(|scope| {
        let halves: Vec<_> = (0..2)
            .map(|half| bugs.iter().skip(half).step_by(2).copied().collect::<Vec<_>>())
            .map(|bugs| {
                scope.spawn(move || {
                    let missed = |bug: &Bug| match found_by(*bug) {
                        Some((seed, what)) => {
                            let what: String = what.chars().take(150).collect();
                            println!("{bug:?}: found after {} seeds: {what}", seed + 1);
                            false
                        }
                        None => {
                            println!("{bug:?}: NOT found in {} seeds", seeds_max(*bug));
                            true
                        }
                    };
                    bugs.into_iter().filter(missed).collect::<Vec<_>>()
                })
            })
            .collect();
        halves.into_iter().flat_map(|half| half.join().unwrap_or_else(|_| BUGS.to_vec())).collect()
    });
    assert!(missed.is_empty(), "not found: {missed:?}");
}
