//! The checks can fail: each bug that is planted in the machines is found within a bounded number of seeds.
//!
//! `cargo test --profile campaign -p annulet-sim --features planted --test planted -- --nocapture`
//!
//! The seed that found a bug when this was last looked at is tried first, so that every commit can show that each is found. Where the
//! simulation has changed and it finds it no more, the search begins at seed 0. `PLANTED_FROM_0=1` always does: that is how many
//! seeds a bug survives.

use sim::shrink::{same_way, shrink};
use sim::{Options, run};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use types::planted::{BUGS, Bug, plant};

/// Seeds that a bug may survive.
const SEEDS_MAX: u64 = 1500;

/// Whether a bug shows only where a process that restarts has lost what it held.
fn needs_log_off(bug: Bug) -> bool {
    bug == Bug::BelievesOldIncarnation
}

/// The seeds that found bugs which survive many.
const LAST_FOUND_BY: [(Bug, u64); 4] = [
    (Bug::ServesAfterRelease, 306),
    (Bug::AcknowledgesUnsynced, 42),
    (Bug::TearsApart, 38),
    (Bug::BelievesUnapplied, 31),
];

/// The first seed that finds a bug, and what it says.
fn found_by(bug: Bug) -> Option<(u64, String)> {
    let from_0 = std::env::var_os("PLANTED_FROM_0").is_some();
    let last = LAST_FOUND_BY.iter().filter(|(found, _)| *found == bug && !from_0).map(|(_, seed)| *seed);
    plant(Some(bug));
    let found = last.chain(0..SEEDS_MAX).find_map(|seed| {
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
    let (next, missed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let search = || {
        while let Some(&bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
            match found_by(bug) {
                Some((seed, what)) => {
                    let what: String = what.chars().take(150).collect();
                    println!("{bug:?}: found by seed {seed}: {what}");
                }
                None => {
                    println!("{bug:?}: NOT found in {SEEDS_MAX} seeds");
                    missed.lock().expect("nobody panics with it").push(bug);
                }
            }
        }
    };
    // Joined by the scope, which passes a panic on.
    std::thread::scope(|scope| {
        scope.spawn(search);
        scope.spawn(search);
    });
    let missed = missed.into_inner().expect("nobody panicked with it");
    assert!(!bugs.is_empty() && missed.is_empty(), "not found: {missed:?}");
}

/// What is left of a failing seed still fails, by the same check, from the flags that are printed; and it is less.
#[test]
fn a_failing_seed_is_made_small() {
    // It takes a fault to show.
    plant(Some(Bug::DropsTail));
    let found = (0..SEEDS_MAX).find_map(|seed| run(seed, Options::default()).err());
    let failure = found.expect("a seed fails");
    let (seed, what, all) = (failure.seed, failure.what.clone(), failure.happened.len());
    let mut asked = 0;
    let small = shrink(failure, &Options::default(), &mut |progress| {
        asked = progress.runs;
        progress.runs < 60
    });
    assert!(small.runs <= 60 && asked <= 60, "{} runs", small.runs);
    let left = small.failure.happened.len();
    println!("seed {seed}, {all} things, then {left}:{}", small.keep);
    assert!(0 < left && left < all, "{left} of {all} things are left");
    let again = run(seed, Options { keep: small.keep, ..Options::default() }).expect_err("it fails as it is");
    plant(None);
    assert_eq!((again.now, &again.what), (small.failure.now, &small.failure.what));
    assert!(same_way(&again.what, &what), "{what}, then {}", again.what);
}
