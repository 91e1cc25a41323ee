//! The fuzzers' targets find something: each bug that is planted in commands and tables is found within a bounded number of
//! sequences by the model of Redis, each that is planted where bytes of strangers and peers are read by a corpus and mutations of it.
//!
//! `cargo test -p annulet-fuzz --features planted --test planted -- --nocapture`

mod drawn;
mod mutants;

use fuzz::TARGETS;
use fuzz::commands::run;
use mutants::Mutants;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use types::planted::{Bug, COMMAND_BUGS, WIRE_BUGS, plant};

#[global_allocator]
static ALLOCATOR: fuzz::meter::Metered = fuzz::meter::Metered;

/// Sequences that a bug may survive.
const SEQUENCES_MAX: u64 = 20_000;
/// Inputs of its target that a bug may survive.
const INPUTS_MAX: usize = 20_000;

thread_local! {
    /// What the last assertion said that did not hold, where this thread looks for one.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `input` with a bug planted. What it says, if it finds that.
fn finds(bug: Option<Bug>, run: fn(&[u8]), input: &[u8]) -> Option<String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let looks =
                SAID.with_borrow_mut(|said| said.as_mut().map(|said| *said = panic.to_string()).is_some());
            if !looks {
                tell(panic);
            }
        }));
    });
    SAID.set(Some(String::new()));
    plant(bug);
    let found = catch_unwind(AssertUnwindSafe(|| run(input))).is_err();
    plant(None);
    SAID.take().filter(|_| found)
}

/// The first of the inputs that finds a bug, and what it says.
fn found_by(
    bug: Option<Bug>,
    run: fn(&[u8]),
    inputs: impl Iterator<Item = Vec<u8>>,
) -> Option<(usize, String)> {
    inputs.enumerate().find_map(|(number, input)| finds(bug, run, &input).map(|said| (number, said)))
}

/// Tells what was found. All has to be.
fn tell(found: &[(Bug, Option<(usize, String)>)]) {
    for (bug, found) in found {
        match found {
            Some((number, said)) => {
                let said: String =
                    said.lines().skip(1).take(1).flat_map(|line| line.chars().take(150)).collect();
                println!("{bug:?}: found by input {}: {said}", number + 1);
            }
            None => println!("{bug:?}: NOT found"),
        }
    }
    let missed: Vec<Bug> = found.iter().filter(|(_, found)| found.is_none()).map(|(bug, _)| *bug).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn every_bug_that_is_planted_in_commands_is_found() {
    let inputs = |seeds| (0..seeds).map(drawn::input);
    assert_eq!(found_by(None, run, inputs(100)), None, "without a bug nothing is found");
    tell(&COMMAND_BUGS.map(|bug| (bug, found_by(Some(bug), run, inputs(SEQUENCES_MAX)))));
}

/// Where bytes that are read with a bug come in.
fn door(bug: Bug) -> &'static str {
    match bug {
        Bug::ReservesDeclaredFrame => "frames",
        Bug::TakesAnyLine => "lines",
        _ => "requests",
    }
}

#[test]
fn every_bug_that_is_planted_where_bytes_come_in_is_found() {
    // Without a bug nothing is found: `replay.rs`, with the same inputs.
    let found = WIRE_BUGS.map(|bug| {
        let target = TARGETS.iter().find(|target| target.name == door(bug)).expect("a target");
        let mut mutants = Mutants::of(target);
        let corpus: Vec<Vec<u8>> = mutants.corpus.iter().map(|(_, input)| input.clone()).collect();
        let inputs = corpus.into_iter().chain(std::iter::repeat_with(|| mutants.draw()));
        (bug, found_by(Some(bug), target.run, inputs.take(INPUTS_MAX)))
    });
    tell(&found);
}
