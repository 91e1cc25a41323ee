//! A shard's connections, found by the key under which the machine knows them.

use crate::connection::Connection;

/// Connections by place. A place is used again under another generation, so that a late reply meets nobody.
#[derive(Default)]
pub(super) struct Connections {
    pub places: Vec<Place>,
    pub free: Vec<usize>,
    pub count: usize,
}

#[derive(Default)]
pub(super) struct Place {
    pub generation: u64,
    pub connection: Option<Box<Connection>>,
    /// Its weight, as it counts in `ShardLoop::kept`.
    pub weight: usize,
    /// In `ShardLoop::runnable` and `ShardLoop::dirty`.
    pub is_runnable: bool,
    pub is_dirty: bool,
    /// When it was last asked after ([`Connections::is_its_first`]).
    heard_in: u64,
}

const PLACE_BITS: u32 = 24;

impl Connections {
    /// A free place and the key of the connection that it is for.
    pub fn reserve(&mut self) -> (usize, u64) {
        let at = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            self.places.len() - 1
        });
        (at, self.places[at].generation << PLACE_BITS | at as u64)
    }

    pub fn put(&mut self, at: usize, connection: Connection) {
        self.places[at].connection = Some(Box::new(connection));
        self.count += 1;
    }

    pub fn take(&mut self, at: usize) -> Option<Box<Connection>> {
        let connection = self.places[at].connection.take()?;
        self.places[at].generation += 1;
        self.free.push(at);
        self.count -= 1;
        Some(connection)
    }

    /// The place of a connection that may be gone.
    pub fn place_of(&self, key: u64) -> Option<usize> {
        let at = (key & ((1 << PLACE_BITS) - 1)) as usize;
        let connection = self.places.get(at)?.connection.as_ref()?;
        (connection.key == key).then_some(at)
    }

    /// Whether this connection is asked after for the first time in this turn. One that is gone never is.
    pub fn is_its_first(&mut self, key: u64, turn: u64) -> bool {
        let place = self.place_of(key).map(|at| &mut self.places[at]);
        place.is_some_and(|place| std::mem::replace(&mut place.heard_in, turn) != turn)
    }
}
