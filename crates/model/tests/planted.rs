//! The properties can fail: each bug that is planted is found, and by a property that it offends.
//!
//! `cargo test --profile campaign -p annulet-model --features planted --test planted -- --nocapture`
//!
//! A bug is planted in the machines (`types::planted`) or in what the model itself has in place of the rest. The same bounds hold
//! without it, which each test shows, too.

use model::copy::Disk;
use model::data::Bounds;
use model::leases::{Bounds as LeaseBounds, Plant};
use model::scenes::{QUIET, STILL, Scene};
use std::time::Duration;
use types::planted::{Bug, MODEL_BUGS};

/// Far more than any of them takes.
const MOST: Duration = Duration::from_secs(900);

const HELD: &str = "what is acknowledged is held by all in sync";
const COMMITTED: &str = "what is committed is so everywhere and for ever";
const READ: &str = "a read misses nothing";
const ONE: &str = "one primary serves";
const EPOCHS: &str = "epochs only grow";
const DROPPED: &str = "a copy goes once those that stay are in sync";
const DEPOSED: &str = "a deposed primary holds no lease";
/// One voter, which is as good as a majority.
const ALONE: LeaseBounds = LeaseBounds { voters: 1, entries: 1, ..STILL };
const DEAD: &str = "whoever was declared dead holds no lease before it knows";

/// The bug is found by one of the properties, and without it they all hold.
fn is_found(what: &str, healthy: Scene, sick: Scene, bug: Option<Bug>, by: &[&str]) {
    let found = sick.explore(bug, MOST);
    let names: Vec<&str> = found.failed.iter().map(|(name, _)| *name).collect();
    println!("{what}: {names:?} after {} states, {:?}", found.states, found.took);
    assert!(names.iter().any(|name| by.contains(name)), "{what}: {names:?} after {} states", found.states);
    let held = healthy.explore(None, MOST);
    println!("{what}: without it {} states, {:?}", held.states, held.took);
    assert!(held.failed.is_empty() && held.took < MOST, "{what}: {:#?}", held.failed);
}

fn data(bug: Bug, bounds: Bounds, by: &[&str]) {
    is_found(&format!("{bug:?}"), Scene::Data(bounds.clone()), Scene::Data(bounds), Some(bug), by);
}

fn leases(bug: Bug, bounds: LeaseBounds) {
    let (healthy, sick) = (Scene::Leases(bounds.clone()), Scene::Leases(bounds));
    is_found(&format!("{bug:?}"), healthy, sick, Some(bug), &[DEPOSED, DEAD]);
}

/// One node is cut off and declared dead.
const CUT: Bounds = Bounds { lapses: 1, deaths: 1, ..QUIET };

#[test]
fn solo_acknowledgement() {
    data(Bug::AcknowledgesEarly, QUIET, &[HELD]);
}

#[test]
fn an_acknowledgement_before_the_sync() {
    let bounds = Bounds { disk: Disk::Slow, crashes: 1, ..QUIET };
    data(Bug::AcknowledgesUnsynced, bounds, &[HELD]);
}

#[test]
fn a_failover_before_the_grace() {
    let healthy = Bounds { reads: 1, ..CUT };
    let sick = Bounds { buries_the_living: true, ..healthy.clone() };
    is_found("a failover before the grace", Scene::Data(healthy), Scene::Data(sick), None, &[ONE, READ]);
}

#[test]
fn a_dropped_tail() {
    data(Bug::DropsTail, CUT, &[HELD, COMMITTED]);
}

#[test]
fn a_rejoin_without_truncation() {
    data(Bug::KeepsOldTail, CUT, &[COMMITTED, HELD]);
}

#[test]
fn readmission_of_an_old_incarnation() {
    data(Bug::BelievesOldIncarnation, Bounds { ticks: 1, crashes: 1, ..QUIET }, &[HELD]);
}

#[test]
fn a_required_set_without_the_leaver() {
    data(Bug::LeaverNotCounted, Bounds { ticks: 1, ..QUIET }, &[HELD]);
}

#[test]
fn a_joiner_that_does_not_count() {
    data(Bug::JoinerNotCounted, Bounds { ticks: 1, ..CUT }, &[HELD]);
}

#[test]
fn an_unknown_change_taken_for_a_failed_one() {
    data(Bug::UnknownIsFailed, Bounds { ticks: 2, ..CUT }, &[HELD]);
}

#[test]
fn two_changes_of_a_set_at_once() {
    data(Bug::ChangesAtAnyEpoch, Bounds { ticks: 1, deaths: 2, ..CUT }, &[HELD]);
}

#[test]
fn records_of_an_old_epoch() {
    data(Bug::TakesOldEpoch, Bounds { ticks: 1, ..CUT }, &[EPOCHS, COMMITTED, HELD]);
}

#[test]
fn a_read_without_a_lease() {
    data(Bug::ReadsWithoutLease, Bounds { reads: 1, ..CUT }, &[ONE, READ]);
}

#[test]
fn the_promotion_of_an_outsider() {
    data(Bug::PromotesOutsider, Bounds { lapses: 2, deaths: 2, ..QUIET }, &[HELD, COMMITTED]);
}

#[test]
fn serving_after_a_release() {
    data(Bug::ServesAfterRelease, Bounds { ticks: 1, hand_overs: 1, ..QUIET }, &[ONE, HELD, READ]);
}

#[test]
fn a_copy_that_goes_too_early() {
    data(Bug::DropsBeforeFilled, Bounds { nodes: 3, moves: true, ..QUIET }, &[DROPPED]);
}

#[test]
fn a_voter_that_reports_before_the_grace() {
    leases(Bug::ReportsEarly, ALONE);
}

#[test]
fn a_voter_that_grants_after_it_reported() {
    leases(Bug::GrantsAfterReport, ALONE);
}

#[test]
fn a_restarted_voter_that_forgot_its_grants() {
    leases(Bug::ForgetsGrants, LeaseBounds { restarts: 1, ..ALONE });
}

#[test]
fn a_restarted_voter_that_forgot_its_reports() {
    let healthy = LeaseBounds { restarts: 1, ..ALONE };
    let sick = LeaseBounds { plant: Plant::ReportsForgotten, ..healthy.clone() };
    let (healthy, sick) = (Scene::Leases(healthy), Scene::Leases(sick));
    is_found("reports forgotten", healthy, sick, None, &[DEPOSED, DEAD]);
}

#[test]
fn a_report_that_counts_after_its_answer() {
    let healthy = LeaseBounds { entries: 2, ..ALONE };
    let sick = LeaseBounds { plant: Plant::AnsweredCount, ..healthy.clone() };
    let (healthy, sick) = (Scene::Leases(healthy), Scene::Leases(sick));
    is_found("answered reports count", healthy, sick, None, &[DEPOSED, DEAD]);
}

/// A report that is over has to be so no later than the entry that answered it is in the file.
#[test]
fn a_restarted_voter_that_forgot_an_answer() {
    let healthy = LeaseBounds { restarts: 1, ..ALONE };
    let sick = LeaseBounds { plant: Plant::AnswersForgotten, ..healthy.clone() };
    let (healthy, sick) = (Scene::Leases(healthy), Scene::Leases(sick));
    is_found("answers forgotten", healthy, sick, None, &[DEPOSED, DEAD]);
}

/// Each bug that is here for this room alone has its test above.
#[test]
fn no_bug_is_left_out() {
    let text = include_str!("planted.rs");
    for bug in MODEL_BUGS {
        assert!(text.contains(&format!("Bug::{bug:?},")), "{bug:?}");
    }
}
