//! The promises of the plans: even, frugal, repeatable, zones apart. And the figures of docs/placement.md, which
//! `UPDATE_DOCS=1 cargo test -p annulet-placement` writes anew.

use placement::{PlanNode, even_primaries, plan_new, replan};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fmt::Write;
use types::{NodeId, NodeSet, partition_of_slot, slot_of_key};

type Placed = (Option<NodeId>, NodeSet);

fn equal(ids: impl IntoIterator<Item = u16>) -> Vec<PlanNode> {
    ids.into_iter().map(|id| PlanNode { id: NodeId(id), weight: 1, zone: None }).collect()
}

fn fresh(partitions: u16, copies: u16, nodes: &[PlanNode]) -> Vec<Placed> {
    plan_new(partitions, copies, nodes).into_iter().map(|set| (set.iter().next(), set)).collect()
}

fn again(current: &[Placed], copies: u16, nodes: &[PlanNode]) -> Vec<Placed> {
    replan(current, copies, nodes).into_iter().map(|(primary, set)| (Some(primary), set)).collect()
}

/// Copies and primaries of each node, nodes that hold nothing included.
fn counts(placed: &[Placed], nodes: &[PlanNode]) -> BTreeMap<NodeId, (usize, usize)> {
    let mut counts: BTreeMap<NodeId, (usize, usize)> = nodes.iter().map(|node| (node.id, (0, 0))).collect();
    for (primary, set) in placed {
        set.iter().for_each(|node| counts.get_mut(&node).expect("a node of the plan").0 += 1);
        counts.get_mut(&primary.expect("a primary")).expect("a node of the plan").1 += 1;
    }
    counts
}

fn spread(values: impl Iterator<Item = usize> + Clone) -> (usize, usize) {
    (values.clone().min().unwrap_or(0), values.max().unwrap_or(0))
}

fn assert_sound(placed: &[Placed], copies: u16, nodes: &[PlanNode]) {
    for (primary, set) in placed {
        assert_eq!(set.len(), usize::from(copies).min(nodes.len()));
        assert!(set.contains(primary.expect("a primary")), "the primary holds a copy");
        let mut ids: Vec<NodeId> = set.iter().collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), set.len(), "never two copies on one node");
    }
}

fn assert_even(placed: &[Placed], nodes: &[PlanNode]) {
    let counts = counts(placed, nodes);
    let (fewest, most) = spread(counts.values().map(|count| count.0));
    assert!(most - fewest <= 1, "copies a node from {fewest} to {most}");
    let (fewest, most) = spread(counts.values().map(|count| count.1));
    assert!(most - fewest <= 1, "primaries a node from {fewest} to {most}");
}

/// How many copies lie where none lay before.
fn moved(before: &[Placed], after: &[Placed]) -> usize {
    before
        .iter()
        .zip(after)
        .map(|(old, new)| new.1.iter().filter(|&node| !old.1.contains(node)).count())
        .sum()
}

/// The least number of copies that any even plan has to place anew: what the fullest even targets leave missing, and
/// at least one for each copy that a partition lacks.
fn least_moves(before: &[Placed], copies: u16, nodes: &[PlanNode]) -> usize {
    let wanted = usize::from(copies).min(nodes.len());
    let mut held: BTreeMap<NodeId, usize> = nodes.iter().map(|node| (node.id, 0)).collect();
    let mut lacking = 0;
    for (_, set) in before {
        let kept: Vec<NodeId> = set.iter().filter(|node| held.contains_key(node)).collect();
        lacking += wanted.saturating_sub(kept.len());
        kept.iter().for_each(|node| *held.get_mut(node).expect("kept") += 1);
    }
    let total = before.len() * wanted;
    let (floor, over) = (total / nodes.len(), total % nodes.len());
    let mut loads: Vec<usize> = held.into_values().collect();
    loads.sort_unstable_by(|a, b| b.cmp(a));
    let target = |place: usize| floor + usize::from(place < over);
    let missing = loads.iter().enumerate().map(|(place, &load)| target(place).saturating_sub(load)).sum();
    lacking.max(missing)
}

fn assert_frugal(before: &[Placed], after: &[Placed], copies: u16, nodes: &[PlanNode]) {
    let (moves, least) = (moved(before, after), least_moves(before, copies, nodes));
    assert!(moves * 10 <= least * 11, "{moves} copies moved where {least} would do");
}

#[test]
fn new_plans_are_even() {
    for nodes in [1, 2, 3, 5, 10, 50] {
        for copies in 1..=3 {
            for partitions in [1, 8, 64, 1024] {
                let nodes = equal(1..=nodes);
                let placed = fresh(partitions, copies, &nodes);
                assert_sound(&placed, copies, &nodes);
                assert_even(&placed, &nodes);
            }
        }
    }
    let nodes = equal(1..=50);
    assert_even(&fresh(16384, 3, &nodes), &nodes);
}

#[test]
fn one_node_more_or_less_moves_no_more_than_it_must() {
    for count in [2, 3, 4, 5, 9, 10, 49, 50] {
        for copies in 1..=3 {
            let (fewer, more) = (equal(1..=count), equal(1..=count + 1));
            let small = fresh(1024, copies, &fewer);
            let large = again(&small, copies, &more);
            assert_sound(&large, copies, &more);
            assert_even(&large, &more);
            assert_frugal(&small, &large, copies, &more);
            // Not the one that came: the first, so that what is left was never planned without it.
            let others = equal(2..=count + 1);
            let left = again(&large, copies, &others);
            assert_sound(&left, copies, &others);
            assert_even(&left, &others);
            assert_frugal(&large, &left, copies, &others);
        }
    }
}

#[test]
fn an_even_map_is_left_alone() {
    let nodes = equal(1..=5);
    let placed = fresh(1024, 2, &nodes);
    assert_eq!(again(&placed, 2, &nodes), placed);
}

#[test]
fn a_lost_primary_passes_to_a_copy_that_has_the_data() {
    let nodes = equal(1..=5);
    let placed = fresh(1024, 2, &nodes);
    let left = again(&placed, 2, &equal(1..=4));
    let filled_late =
        placed.iter().zip(&left).filter(|(old, new)| !old.1.contains(new.0.expect("a primary"))).count();
    assert!(filled_late <= 10, "{filled_late} partitions wait for a new copy to lead them");
}

#[test]
fn copies_come_and_go_with_their_number() {
    let nodes = equal(1..=5);
    let two = fresh(1024, 2, &nodes);
    let three = again(&two, 3, &nodes);
    assert_sound(&three, 3, &nodes);
    assert_even(&three, &nodes);
    assert_frugal(&two, &three, 3, &nodes);
    let back = again(&three, 2, &nodes);
    assert_sound(&back, 2, &nodes);
    assert_even(&back, &nodes);
    assert_eq!(moved(&three, &back), 0, "fewer copies need no new ones");
}

#[test]
fn fewer_nodes_than_copies_hold_everything() {
    let nodes = equal(1..=2);
    let placed = fresh(64, 3, &nodes);
    assert_sound(&placed, 3, &nodes);
    assert_even(&placed, &nodes);
    assert!(replan(&placed, 2, &[]).iter().all(|(primary, set)| primary.0 == 0 && set.is_empty()));
}

#[test]
fn weight_is_load_and_none_is_none() {
    let mut nodes = equal(1..=4);
    nodes[3].weight = 2;
    let placed = fresh(1000, 2, &nodes);
    let loads = counts(&placed, &nodes);
    assert_eq!(loads.values().map(|count| count.0).collect::<Vec<_>>(), [400, 400, 400, 800]);
    assert_eq!(loads.values().map(|count| count.1).collect::<Vec<_>>(), [200, 200, 200, 400]);
    nodes[0].weight = 0;
    let drained = again(&placed, 2, &nodes);
    assert_eq!(counts(&drained, &nodes)[&NodeId(1)], (0, 0));
}

fn in_zones(zones: &[&str]) -> Vec<PlanNode> {
    let mut nodes = equal(1..=zones.len() as u16);
    nodes.iter_mut().zip(zones).for_each(|(node, zone)| node.zone = Some((*zone).to_owned()));
    nodes
}

fn zones_apart(placed: &[Placed], nodes: &[PlanNode]) -> bool {
    let zone = |id: NodeId| nodes.iter().find(|node| node.id == id).and_then(|node| node.zone.clone());
    placed.iter().all(|(_, set)| {
        let mut zones: Vec<_> = set.iter().map(zone).collect();
        zones.sort();
        zones.dedup();
        zones.len() == set.len()
    })
}

#[test]
fn copies_lie_in_different_zones() {
    let nodes = in_zones(&["a", "a", "b", "b", "c", "c"]);
    for copies in 1..=3 {
        let placed = fresh(1024, copies, &nodes);
        assert!(zones_apart(&placed, &nodes));
        assert_even(&placed, &nodes);
    }
    let uneven = in_zones(&["a", "a", "a", "b"]);
    let placed = fresh(1024, 2, &uneven);
    assert!(zones_apart(&placed, &uneven));
    assert_eq!(counts(&placed, &uneven)[&NodeId(4)].0, 1024, "the only node of its zone holds all");
    // A zone comes to nodes that had none: copies that now share it are moved apart.
    let before = fresh(1024, 2, &equal(1..=6));
    let after = again(&before, 2, &nodes);
    assert_sound(&after, 2, &nodes);
    assert!(zones_apart(&after, &nodes));
    assert_even(&after, &nodes);
    // Fewer zones than copies: as far apart as can be, and still on different nodes.
    assert_sound(&fresh(256, 3, &in_zones(&["a", "a", "b", "b"])), 3, &uneven);
}

#[test]
fn the_order_in_which_nodes_are_named_does_not_matter() {
    let nodes = equal(1..=7);
    let reversed = equal((1..=7).rev());
    let plan = fresh(512, 3, &nodes);
    assert_eq!(plan, fresh(512, 3, &reversed));
    assert_eq!(again(&plan, 3, &nodes[1..]), again(&plan, 3, &reversed[..6]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// From any map, however it came about: an even one, in few moves.
    #[test]
    fn any_map_becomes_even(
        sets in prop::collection::vec(prop::collection::vec(1u16..12, 0..4), 1..200),
        ids in prop::collection::btree_set(1u16..12, 1..10),
        copies in 1u16..4,
    ) {
        let current: Vec<Placed> = sets
            .into_iter()
            .map(|ids| {
                let set: NodeSet = ids.into_iter().map(NodeId).collect();
                (set.iter().last(), set)
            })
            .collect();
        let nodes = equal(ids);
        let after = again(&current, copies, &nodes);
        assert_sound(&after, copies, &nodes);
        assert_even(&after, &nodes);
        prop_assert_eq!(&after, &again(&current, copies, &nodes));
        prop_assert_eq!(moved(&after, &again(&after, copies, &nodes)), 0);
    }

    /// A cluster that grows and shrinks for a while stays even and never moves much.
    #[test]
    fn comings_and_goings_stay_frugal(steps in prop::collection::vec((any::<bool>(), 0usize..20), 1..8), copies in 1u16..4) {
        let mut ids: Vec<u16> = vec![1, 2, 3, 4];
        let mut placed = fresh(256, copies, &equal(ids.clone()));
        let mut next = 5;
        for (grow, which) in steps {
            if grow || ids.len() <= 3 {
                ids.push(next);
                next += 1;
            } else {
                ids.remove(which % ids.len());
            }
            let nodes = equal(ids.clone());
            let after = again(&placed, copies, &nodes);
            assert_sound(&after, copies, &nodes);
            assert_even(&after, &nodes);
            assert_frugal(&placed, &after, copies, &nodes);
            placed = after;
        }
    }

    /// With weights and zones, whatever they are: sound, and apart where there are zones enough.
    #[test]
    fn weights_and_zones_always_find_a_plan(
        kinds in prop::collection::vec((1u32..5, 0usize..4), 1..10),
        gone in 0usize..10,
        copies in 1u16..5,
    ) {
        let nodes: Vec<PlanNode> = kinds
            .iter()
            .enumerate()
            .map(|(at, &(weight, zone))| PlanNode { id: NodeId(at as u16 + 1), weight, zone: Some(zone.to_string()) })
            .collect();
        let mut left = nodes.clone();
        let before = fresh(128, copies, &nodes);
        if left.len() > 1 {
            left.remove(gone % nodes.len());
        }
        for (placed, nodes) in [(before.clone(), &nodes), (again(&before, copies, &left), &left)] {
            assert_sound(&placed, copies, nodes);
            let mut zones: Vec<_> = nodes.iter().map(|node| node.zone.clone()).collect();
            zones.sort();
            zones.dedup();
            if zones.len() >= usize::from(copies) {
                prop_assert!(zones_apart(&placed, nodes));
            }
        }
    }
}

/// Random keys from a fixed seed (splitmix64).
fn random_keys(count: usize) -> impl Iterator<Item = String> {
    let mut state = 7u64;
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        format!("key:{:016x}", x ^ (x >> 31))
    })
    .take(count)
}

/// The standard deviation of keys per node as a share of the mean: measured, and as theory has it.
///
/// Theory: node i gets each key with its share s of the partitions, so its count has the variance n s (1 - s), and lies
/// n (s - 1/N) from the mean because partitions do not divide evenly.
fn keys_per_node(keys: usize, count: u16, partitions: u16) -> (f64, f64) {
    let nodes = equal(1..=count);
    let plan = plan_new(partitions, 2, &nodes);
    let mut on = vec![0f64; nodes.len()];
    for key in random_keys(keys) {
        let partition = partition_of_slot(slot_of_key(key.as_bytes()), partitions);
        on[usize::from(plan[usize::from(partition.0)].as_slice()[0].0) - 1] += 1.0;
    }
    let (n, size) = (keys as f64, f64::from(count));
    let mean = n / size;
    let measured = (on.iter().map(|keys| (keys - mean).powi(2)).sum::<f64>() / size).sqrt() / mean;
    let variance = nodes.iter().map(|node| {
        let primaries = plan.iter().filter(|set| set.as_slice()[0] == node.id).count();
        let share = primaries as f64 / f64::from(partitions);
        n * share * (1.0 - share) + (n * (share - 1.0 / size)).powi(2)
    });
    (measured, (variance.sum::<f64>() / size).sqrt() / mean)
}

#[test]
fn keys_spread_as_theory_has_it() {
    let (measured, theory) = keys_per_node(100_000, 3, 1024);
    println!(
        "100,000 keys on 3 nodes: deviation {:.3}% of the mean, theory {:.3}%",
        measured * 100.0,
        theory * 100.0
    );
    assert!(measured < 0.02);
    assert!(measured < theory * 2.5, "more than chance explains");
}

#[test]
fn the_documented_figures_are_measured() {
    let mut page = String::from(HEAD);
    for count in [3, 5, 10, 50] {
        for copies in 1..=3 {
            let nodes = equal(1..=count);
            let placed = fresh(1024, copies, &nodes);
            let loads = counts(&placed, &nodes);
            let copies_of = spread(loads.values().map(|load| load.0));
            let primaries_of = spread(loads.values().map(|load| load.1));
            let more = equal(1..=count + 1);
            let joined = again(&placed, copies, &more);
            let fewer = equal(2..=count);
            let left = again(&placed, copies, &fewer);
            writeln!(
                page,
                "| {count} | {copies} | {} to {} | {} to {} | {} of {} | {} of {} |",
                copies_of.0,
                copies_of.1,
                primaries_of.0,
                primaries_of.1,
                moved(&placed, &joined),
                least_moves(&placed, copies, &more),
                moved(&placed, &left),
                least_moves(&placed, copies, &fewer),
            )
            .expect("writing to a string");
        }
    }
    page.push_str(KEYS_HEAD);
    for count in [3, 5, 10, 50] {
        let (measured, theory) = keys_per_node(100_000, count, 1024);
        writeln!(page, "| {count} | {:.2}% | {:.2}% |", measured * 100.0, theory * 100.0)
            .expect("writing to a string");
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/placement.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).expect("docs/placement.md can be written");
    }
    println!("{page}");
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(written, page, "docs/placement.md is out of date: run this test with UPDATE_DOCS=1");
}

const HEAD: &str = "\
# Placement, measured

How partitions are placed is told in `crates/placement/src/plan.rs`: quotas make a plan even, a consistent-hash ring with
160 virtual nodes a node decides what evenness leaves open, and from an existing map the plan with the fewest moves is
taken. This page has the figures. A test measures them (`cargo test -p annulet-placement --test evenness`) and fails where
this page says something else; with `UPDATE_DOCS=1` it writes the page.

1024 partitions, equal weights, no zones. Copies and primaries a node: the fewest and the most that any node has. Moves:
copies that were placed anew when a node joined, or when the first node left, of the least number that any even placement
needs.

| nodes | copies | copies a node | primaries a node | moves, one joins | moves, one leaves |
| --- | --- | --- | --- | --- | --- |
";

const KEYS_HEAD: &str = "
100,000 random keys by the CRC16 of Redis Cluster, two copies: the standard deviation of keys per node (of its primaries) as
a share of the mean. Theory is the binomial deviation of chance and the one partition by which nodes differ.

| nodes | measured | theory |
| --- | --- | --- |
";

#[test]
fn primaries_are_evened_out_where_the_copies_are_and_then_left_alone() {
    for (count, copies) in [(3, 2), (3, 3), (5, 2), (10, 3)] {
        let nodes = equal(1..=count);
        let placed = fresh(1024, copies, &nodes);
        // The first node was away: others are primary of what it held.
        let failed_over: Vec<Placed> = placed
            .iter()
            .map(|(primary, set)| {
                let heir = set.iter().find(|&node| node != NodeId(1));
                (if *primary == Some(NodeId(1)) { heir } else { *primary }, *set)
            })
            .collect();
        let orders = even_primaries(&failed_over, copies, &nodes);
        let mut after = failed_over.clone();
        for &(partition, heir) in &orders {
            let (primary, set) = &mut after[usize::from(partition.0)];
            assert!(set.contains(heir) && *primary != Some(heir));
            *primary = Some(heir);
        }
        assert_even(&after, &nodes);
        let lost = 1024 / usize::from(count);
        assert!(orders.len() >= lost && orders.len() <= lost * 3, "{} hand-overs for {lost}", orders.len());
        assert_eq!(even_primaries(&after, copies, &nodes), [], "it comes to rest");
    }
    assert_eq!(even_primaries(&[], 2, &equal(1..=3)), []);
    let nowhere = [(None, [NodeId(1), NodeId(2)].into_iter().collect())];
    assert_eq!(even_primaries(&nowhere, 2, &equal(1..=3)), [], "who has none is the failover's business");
}
