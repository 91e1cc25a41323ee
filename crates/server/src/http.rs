//! The HTTP port: accepts within bounds and hands each connection to the routes.
//!
//! Whoever connects is a stranger: so many connections at once and no more, each for a limited time; a head of a
//! request that is too large or comes too slowly ends its connection. What there is to ask is in [`router`], what it
//! says in [`health`] and in [`crate::metrics`]. Later doors (an HTTP API, gRPC) add their routes there.

pub mod health;
pub mod router;

use crate::client_ports::ClientCount;
use crate::desk::Desk;
use crate::metrics::Source;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use node::{Published, ServerFigures};
use router::router;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};
use types::NodeId;
use types::shared_settings::SharedSettings;

/// Connections at once.
const CONNECTIONS_MAX: usize = 256;
/// How long the head of a request may take to come, also after an earlier request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection lives at most: a client that reads nothing holds its place no longer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// How long to let others close their files where the process has none left.
const OUT_OF_FILES_PAUSE: Duration = Duration::from_millis(20);

/// What the routes answer from.
#[derive(Clone)]
pub struct HttpState {
    /// This node.
    pub node: NodeId,
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

/// Serves for as long as the process runs.
pub async fn serve(listener: TcpListener, state: HttpState) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let router = router(state);
    loop {
        // Beyond the bound connections wait in the system's queue, which is bounded, too.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(OUT_OF_FILES_PAUSE).await;
                continue;
            }
        };
        let router = router.clone();
        tokio::spawn(async move {
            let served = tokio::time::timeout(CONNECTION_TIMEOUT, serve_one(stream, router)).await;
            if let Ok(Err(error)) = served {
                debug!(%error, "an HTTP connection ended");
            }
            drop(place);
        });
    }
}

async fn serve_one(stream: TcpStream, router: axum::Router) -> Result<(), hyper::Error> {
    let _ = stream.set_nodelay(true);
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
}
