//! Nobody waits for ever: a node that is awake answers a request in the time that it is given, if only with an error.

use crate::client::{Client, shown};
use crate::machine::Node;
use crate::network::MS;
use crate::world::REQUEST_TIMEOUT;
use history::Time;

/// How long an answer may take: as long as a node lets a request wait, and a while for its way and for what else the node does.
pub const PATIENCE: Time = REQUEST_TIMEOUT + 1_500 * MS;

/// Whether nothing can be expected of a node that was asked [`PATIENCE`] ago: it stands still, is slow, or is gone, or was meanwhile.
pub(crate) fn is_excused(node: &Node, now: Time) -> bool {
    let awake_for = now - node.awake_since.min(now);
    // Where it was killed, the news that the connection broke is under way.
    node.pauses > 0 || node.is_slow() || node.process.is_none() || awake_for < PATIENCE
}

/// What is wrong where a client still waits that nothing excuses.
pub(crate) fn violation(client: &Client) -> String {
    let waiting = client.waiting.as_ref().map(|waiting| shown(&waiting.args));
    format!(
        "client {} waits for ever at node {} for {}",
        client.number,
        client.node + 1,
        waiting.unwrap_or_default()
    )
}
