//! What connections tell the rest of a client: that the map may be old, and where a node's plain door is.

use crate::map::Address;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// Shared by a client and its connections.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    refresh: Notify,
    /// For each address that was connected to, the plain door of its node, where it is known.
    plain_doors: Mutex<BTreeMap<Address, Option<Address>>>,
}

impl Signals {
    /// The map may be old. Many such words are one.
    pub(crate) fn refresh(&self) {
        self.refresh.notify_one();
    }

    /// Waits until the map may be old.
    pub(crate) async fn refresh_wanted(&self) {
        self.refresh.notified().await;
    }

    /// A connection to `address` has learned its node's plain door, or that it is not told.
    pub(crate) fn plain_door(&self, address: &Address, plain: Option<Address>) {
        self.plain_doors.lock().unwrap_or_else(PoisonError::into_inner).insert(address.clone(), plain);
    }

    /// The plain doors that are known, and the addresses that were asked.
    pub(crate) fn plain_doors(&self) -> BTreeMap<Address, Option<Address>> {
        self.plain_doors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets all but some.
    pub(crate) fn keep(&self, wanted: impl Fn(&Address) -> bool) {
        self.plain_doors.lock().unwrap_or_else(PoisonError::into_inner).retain(|address, _| wanted(address));
    }
}
