//! Quotas: how many copies each node should hold, from weights and zones, before anybody asks which.
//!
//! A node's fair share is in proportion to its weight, but no node can hold a partition twice, and no zone may hold
//! more copies of a partition than its limit. What a bounded node or zone cannot take, the others share (water
//! filling). Shares are exact fractions; [`Quotas::targets`] rounds them up or down so that the fewest copies move.

use crate::plan::PlanNode;

/// An exact, non-negative fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    above: u64,
    below: u64,
}

impl Share {
    pub(crate) fn floor(self) -> usize {
        (self.above / self.below) as usize
    }

    fn is_whole(self) -> bool {
        self.above.is_multiple_of(self.below)
    }

    /// What is left over the floor, in millionths: only to prefer one of two nodes.
    fn rest(self) -> u64 {
        (u128::from(self.above % self.below) * 1_000_000 / u128::from(self.below)) as u64
    }

    /// The floor and the ceiling of this share divided by `parts`.
    pub(crate) fn split(self, parts: usize) -> (usize, usize) {
        let below = self.below * parts as u64;
        ((self.above / below) as usize, self.above.div_ceil(below) as usize)
    }
}

/// The fair shares of some nodes.
pub(crate) struct Quotas {
    /// How many copies each partition gets: as asked, but no more than there are nodes.
    pub copies: usize,
    /// The most copies of one partition in one zone. 1 where there are enough zones.
    pub zone_limit: usize,
    /// The zone of each node, by index. A node without one is a zone of its own.
    pub zone: Vec<usize>,
    /// The copies that each node should hold, by index.
    pub shares: Vec<Share>,
    zone_cap: Vec<usize>,
    total: usize,
}

impl Quotas {
    pub(crate) fn new(partitions: usize, copies: usize, nodes: &[PlanNode]) -> Quotas {
        let copies = copies.min(nodes.len());
        let zone = number_zones(nodes);
        let mut members = vec![0; zone.iter().max().map_or(0, |most| most + 1)];
        zone.iter().for_each(|&z| members[z] += 1);
        let room = |limit: usize| members.iter().map(|&n: &usize| n.min(limit)).sum::<usize>();
        let zone_limit = (1..).find(|&limit| room(limit) >= copies).unwrap_or(1);
        let zone_cap: Vec<usize> = members.iter().map(|&n| n.min(zone_limit) * partitions).collect();
        let total = partitions * copies;
        let weights: Vec<u64> = nodes.iter().map(|node| u64::from(node.weight)).collect();
        let shares = fill_zones(total, partitions, &weights, &zone, &zone_cap);
        Quotas { copies, zone_limit, zone, shares, zone_cap, total }
    }

    /// Whole numbers of copies for each node: its share, rounded up where it holds more than the floor already, so
    /// that the fewest copies move; then by the greater rest, then by index.
    pub(crate) fn targets(&self, held: &[usize]) -> Vec<usize> {
        let mut targets: Vec<usize> = self.shares.iter().map(|share| share.floor()).collect();
        let mut in_zone = vec![0; self.zone_cap.len()];
        for (node, &target) in targets.iter().enumerate() {
            in_zone[self.zone[node]] += target;
        }
        let mut missing = self.total - targets.iter().sum::<usize>();
        let mut order: Vec<usize> =
            (0..targets.len()).filter(|&node| !self.shares[node].is_whole()).collect();
        order.sort_by_key(|&node| {
            (held[node] <= targets[node], std::cmp::Reverse(self.shares[node].rest()), node)
        });
        for node in order {
            let zone = self.zone[node];
            if missing > 0 && in_zone[zone] < self.zone_cap[zone] {
                targets[node] += 1;
                in_zone[zone] += 1;
                missing -= 1;
            }
        }
        assert_eq!(missing, 0, "shares add up to all copies, so rounding them can too");
        targets
    }
}

/// Each node's zone as a number.
fn number_zones(nodes: &[PlanNode]) -> Vec<usize> {
    let mut names: Vec<Option<&str>> = Vec::new();
    let mut zones = Vec::with_capacity(nodes.len());
    for node in nodes {
        let name = node.zone.as_deref();
        let known = names.iter().position(|&other| other.is_some() && other == name);
        zones.push(known.unwrap_or(names.len()));
        if known.is_none() {
            names.push(name);
        }
    }
    zones
}

/// Shares in proportion to weight, none above `node_cap` nor, added up over a zone, above the zone's cap. Each round
/// raises the water until somebody is full, closes who is, and shares the rest among the open ones.
fn fill_zones(
    total: usize,
    node_cap: usize,
    weights: &[u64],
    zone: &[usize],
    zone_cap: &[usize],
) -> Vec<Share> {
    let mut shares: Vec<Option<Share>> = vec![None; weights.len()];
    let mut left = total as u64;
    loop {
        let open: Vec<usize> = (0..weights.len()).filter(|&node| shares[node].is_none()).collect();
        let weight: u64 = open.iter().map(|&node| weights[node]).sum();
        if open.is_empty() {
            break;
        }
        let cap = node_cap as u64;
        let full_zone = (0..zone_cap.len()).find(|&z| {
            let closed: u64 = (0..weights.len())
                .filter(|&node| zone[node] == z)
                .filter_map(|node| shares[node])
                .map(|share| share.above / share.below)
                .sum();
            // In units of 1/weight, so that everything stays whole.
            let wanted: u64 = open
                .iter()
                .filter(|&&node| zone[node] == z)
                .map(|&node| (left * weights[node]).min(cap * weight))
                .sum();
            wanted > 0 && wanted + closed * weight > zone_cap[z] as u64 * weight
        });
        if let Some(z) = full_zone {
            let inside: Vec<usize> = open.iter().copied().filter(|&node| zone[node] == z).collect();
            let closed: u64 = (0..weights.len())
                .filter(|&node| zone[node] == z)
                .filter_map(|node| shares[node])
                .map(|share| share.above / share.below)
                .sum();
            let room = zone_cap[z] as u64 - closed;
            let weights_inside: Vec<u64> = inside.iter().map(|&node| weights[node]).collect();
            let alone: Vec<usize> = vec![0; inside.len()];
            let filled = fill_zones(room as usize, node_cap, &weights_inside, &alone, &[usize::MAX >> 32]);
            for (&node, share) in inside.iter().zip(filled) {
                shares[node] = Some(share);
            }
            left -= room;
            continue;
        }
        let full: Vec<usize> =
            open.iter().copied().filter(|&node| left * weights[node] > cap * weight).collect();
        for &node in &full {
            shares[node] = Some(Share { above: cap, below: 1 });
            left -= cap;
        }
        if full.is_empty() {
            for &node in &open {
                shares[node] = Some(Share { above: left * weights[node], below: weight });
            }
        }
    }
    shares.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::NodeId;

    fn nodes(list: &[(u32, Option<&str>)]) -> Vec<PlanNode> {
        list.iter()
            .enumerate()
            .map(|(at, &(weight, zone))| PlanNode {
                id: NodeId(at as u16 + 1),
                weight,
                zone: zone.map(str::to_owned),
            })
            .collect()
    }

    fn targets(partitions: usize, copies: usize, list: &[(u32, Option<&str>)]) -> Vec<usize> {
        Quotas::new(partitions, copies, &nodes(list)).targets(&vec![0; list.len()])
    }

    #[test]
    fn shares_follow_weight_until_something_is_full() {
        assert_eq!(targets(1024, 1, &[(1, None), (1, None), (2, None)]), [256, 256, 512]);
        assert_eq!(targets(100, 2, &[(1, None), (1, None), (9, None)]), [50, 50, 100]);
        assert_eq!(targets(100, 3, &[(1, None), (5, None)]), [100, 100]);
    }

    #[test]
    fn a_small_zone_holds_one_copy_of_everything() {
        let (a, b) = (Some("a"), Some("b"));
        assert_eq!(targets(100, 2, &[(1, a), (1, a), (1, b)]), [50, 50, 100]);
        assert_eq!(targets(100, 3, &[(1, a), (1, a), (1, a), (1, b)]), [66 + 1, 67, 66, 100]);
        assert_eq!(targets(90, 2, &[(1, a), (1, a), (1, None), (1, None)]), [45, 45, 45, 45]);
    }

    #[test]
    fn who_holds_more_keeps_it() {
        let quotas = Quotas::new(10, 1, &nodes(&[(1, None); 3]));
        assert_eq!(quotas.targets(&[3, 3, 4]), [3, 3, 4]);
        assert_eq!(quotas.targets(&[0, 9, 0]), [3, 4, 3]);
    }
}
