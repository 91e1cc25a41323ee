//! At most one node serves a partition at any instant of true time: is its primary, has committed its tail, and holds
//! a lease that runs on the node's own clock.

use crate::checks::Seat;

/// Which partitions each node would serve, if its lease runs.
pub struct OnePrimary {
    served: Vec<u128>,
}

impl OnePrimary {
    /// Nobody serves anything.
    pub fn new(nodes: usize) -> OnePrimary {
        OnePrimary { served: vec![0; nodes] }
    }

    /// The process of a node is gone.
    pub fn gone(&mut self, node: usize) {
        self.served[node] = 0;
    }

    /// Looks at what a node serves now.
    pub fn look(&mut self, seat: &Seat<'_>) {
        self.served[seat.node] = seat
            .process
            .copies(seat.now)
            .filter(|copy| copy.serves)
            .fold(0, |served, copy| served | 1 << (copy.partition % 128));
    }

    /// Whether what a node serves is served by it alone. Serving begins only by an event at the node.
    pub fn check(&self, node: usize, seats: &[Option<Seat<'_>>]) -> Result<(), String> {
        for seat in seats.iter().flatten().filter(|seat| seat.node != node) {
            let both = self.served[node] & self.served[seat.node];
            if both != 0 && seat.now < seat.process.lease_until() {
                return Err(format!(
                    "partition {} is served by nodes {} and {} at once",
                    both.trailing_zeros(),
                    node + 1,
                    seat.node + 1
                ));
            }
        }
        Ok(())
    }
}
