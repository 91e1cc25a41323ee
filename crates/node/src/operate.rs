//! What operators ask of the cluster and are told of its changes of shape: orders on their way to the coordinator, and how far the
//! cluster is from the shape that it should have.

use crate::shard::Shard;
use command::ClusterOrder;
use control::Order;
use placement::{ClusterMap, Member, Progress, progress};
use types::NodeId;

/// An order in the control plane's words.
pub(crate) fn in_control_words(order: ClusterOrder) -> Order {
    match order {
        ClusterOrder::Drain { node, on } => Order::Drain { node: NodeId(node), on },
        ClusterOrder::Remove(node) => Order::Remove(NodeId(node)),
        ClusterOrder::Copies(copies) => Order::Copies(copies),
        ClusterOrder::MinInSync(min) => Order::MinInSync(min),
    }
}

/// Why this node would refuse an order.
pub(crate) fn refusal(shard: &Shard, order: ClusterOrder) -> Option<String> {
    if shard.config.published.view().coordinator.is_none() {
        return Some(
            "no coordinator is known now, which would carry it out: ask again in a moment".to_owned(),
        );
    }
    control::shape::refusal(&shard.context.map, in_control_words(order))
}

/// What the whole cluster has for a setting that changes while it runs.
pub(crate) fn cluster_value(map: &ClusterMap, name: &str) -> Option<String> {
    match name {
        _ if map.version == 0 => None,
        "copies" => Some(map.copies.to_string()),
        "min_in_sync" => Some(map.min_in_sync.to_string()),
        _ => None,
    }
}

/// Copies that are not yet where they should be: one that is made in another's place counts once.
pub(crate) fn moves_left(map: &ClusterMap) -> u64 {
    left(&progress(map))
}

fn left(progress: &Progress) -> u64 {
    (progress.filling.max(progress.leaving) + progress.waiting) as u64
}

/// The part of the state that tells of moves, as JSON.
pub(crate) fn moves_json(map: &ClusterMap) -> String {
    let progress = progress(map);
    let blocked: Vec<String> = progress.blocked.iter().map(|why| crate::host::json_string(why)).collect();
    format!(
        "{{\"left\":{},\"filling\":{},\"leaving\":{},\"waiting\":{},\"handing_over\":{},\"blocked\":[{}]}}",
        left(&progress),
        progress.filling,
        progress.leaving,
        progress.waiting,
        map.partitions.iter().filter(|state| state.heir.is_some()).count(),
        blocked.join(","),
    )
}

/// What of a member concerns the cluster's shape, as fields of JSON.
pub(crate) fn shape_json(member: &Member) -> String {
    let zone = crate::host::json_string(&member.zone);
    format!("\"weight\":{},\"zone\":{zone},\"draining\":{}", member.weight, member.draining)
}
