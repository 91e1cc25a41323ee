//! The HTTP port: accepts within bounds and hands each connection to the routes.
//!
//! Whoever connects is a stranger: so many connections at once and no more, each for a limited time; a head of a
//! request that is too large or comes too slowly ends its connection ([`connection`]). What there is to ask is in [`router`]; what it
//! says in [`api`], in [`health`], in [`crate::metrics`] and in [`crate::grpc`].

pub mod api;
pub mod connection;
pub mod health;
pub(crate) mod outgoing;
pub mod problem;
pub mod query;
pub mod router;

use crate::budget::Budget;
use crate::client_ports::ClientCount;
use crate::cluster_view::ClusterView;
use crate::desk::Desk;
use crate::doors::Guests;
use crate::metrics::Source;
use node::{Published, ServerFigures};
use router::router;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tracing::{debug, warn};
use types::NodeId;
use types::shared_settings::SharedSettings;

/// Connections at once.
const CONNECTIONS_MAX: usize = 256;
/// How long to let others close their files where the process has none left.
const OUT_OF_FILES_PAUSE: Duration = Duration::from_millis(20);

/// What the routes answer from.
#[derive(Clone)]
pub struct HttpState {
    /// This node.
    pub node: NodeId,
    /// The cluster, as the newest map shows it.
    pub cluster: ClusterView,
    /// What the node's threads publish.
    pub published: Arc<Published>,
    /// The node's settings as they stand now.
    pub settings: Arc<SharedSettings>,
    /// Figures of the process.
    pub figures: Arc<dyn Fn() -> ServerFigures + Send + Sync>,
    /// The node's clients.
    pub clients: Arc<ClientCount>,
    /// Where commands are run.
    pub desk: Desk,
    /// What the doors have in hand.
    pub budget: Budget,
    /// Connections of the HTTP port.
    pub guests: Guests,
    /// Whether the node lets its clients go.
    pub parting: watch::Receiver<bool>,
}

impl HttpState {
    /// What /metrics shows, as of now.
    pub fn source(&self) -> Source<'_> {
        Source {
            node: self.node,
            published: &self.published,
            totals: self.published.totals(),
            figures: (self.figures)(),
            clients: &self.clients,
            settings: self.settings.get(),
            now: crate::clock::now(),
        }
    }
}

/// Accepts until the node lets its clients go.
pub async fn serve(listener: TcpListener, state: HttpState, mut parting: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let guests = state.guests.clone();
    let router = router(state);
    while !*parting.borrow_and_update() {
        // Beyond the bound connections wait in the system's queue, which is bounded, too.
        let next = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            _ = parting.changed() => continue,
        };
        let Ok(place) = place else { return };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(OUT_OF_FILES_PAUSE).await;
                continue;
            }
        };
        let (router, parting) = (router.clone(), parting.clone());
        let guest = guests.enter();
        tokio::spawn(async move {
            let _guest = guest;
            if let Err(error) = connection::serve(stream, peer, router, parting).await {
                debug!(%error, "an HTTP connection ended");
            }
            drop(place);
        });
    }
}
