//! Some seeds, and that a seed is all that a run depends on.

use sim::keep::Keep;
use sim::{Options, run};

const QUIET: Options = Options { keep_trace: false, print_trace: false, log_off: false, keep: Keep::ALL };

#[test]
fn a_seed_gives_the_same_run_every_time() {
    for seed in 0..12 {
        let first = run(seed, QUIET).unwrap_or_else(|failure| panic!("seed {seed}: {}", failure.what));
        let traced = run(seed, Options { keep_trace: true, ..QUIET });
        assert_eq!(traced.ok(), Some(first), "seed {seed}");
    }
}

#[test]
fn the_first_seeds_pass_and_are_worth_running() {
    let (mut operations, mut unknown, mut faults, mut reigns, mut hand_overs, mut leads) = (0, 0, 0, 0, 0, 0);
    let (mut transfers, mut gone_on, mut mixed, mut raised, mut followed) = (0, 0, 0, 0, 0);
    for seed in 0..60 {
        let summary = run(seed, QUIET).unwrap_or_else(|failure| panic!("seed {seed}: {}", failure.what));
        operations += summary.operations;
        unknown += summary.unknown;
        faults += summary.faults;
        reigns += summary.reigns;
        hand_overs += summary.hand_overs;
        leads += summary.leads_given;
        transfers += summary.transfers;
        gone_on += summary.transfers_gone_on;
        followed += summary.followed;
        mixed += usize::from(summary.mixed);
        raised += usize::from(summary.raised);
    }
    assert!(operations > 60 * 300, "{operations} operations");
    assert!(
        unknown > 20 && faults > 300 && reigns > 1000,
        "{unknown} unknown, {faults} faults, {reigns} reigns"
    );
    assert!(hand_overs > 1000, "{hand_overs} hand-overs");
    assert!(followed > 600, "{followed} changes were followed");
    assert!(leads > 1, "{leads} coordinators handed the lead over");
    assert!(gone_on > 20, "{gone_on} of {transfers} transfers went on after a break");
    assert!(
        mixed > 5 && raised > 2,
        "{mixed} clusters of two builds, of which {raised} came to a higher level"
    );
}

/// Seeds that found something once.
#[test]
fn what_was_found_stays_mended() {
    for seed in [5, 43, 47, 106, 124, 183, 198, 240, 345, 414, 461, 549, 783, 813, 1030, 1170, 1200, 1264] {
        run(seed, QUIET).unwrap_or_else(|failure| panic!("seed {seed}: {}", failure.what));
    }
}
