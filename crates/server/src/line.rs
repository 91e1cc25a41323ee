//! The line port: JSON and text requests, for people, scripts and small clients.
//!
//! Each connection is a task ([`connection`]): it finds its requests one after the other, has each run and answers it before the next
//! ([`answers`]). What goes over the wire is `wire::line`'s. Commands run at the [`crate::desk`], so they are ordered, acknowledged and
//! refused like those of RESP.
//!
//! Line clients count among the clients of `maxclients`, and what they have the node keep is bounded ([`crate::budget`]).

mod answers;
mod connection;

use crate::cluster_view::ClusterView;
use crate::http::HttpState;
use connection::Connection;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tracing::{debug, warn};
use wire::line::json::Here;

/// How long to let others close their files where the process has none left.
const OUT_OF_FILES_PAUSE: Duration = Duration::from_millis(20);

/// What the line port answers from.
#[derive(Clone)]
pub struct LineState {
    /// What all doors of the runtime answer from.
    pub http: HttpState,
    /// What every JSON answer tells of this node, once it is known.
    here: Arc<OnceLock<Here>>,
}

impl LineState {
    /// Of this node.
    pub fn new(http: HttpState) -> LineState {
        LineState { http, here: Arc::default() }
    }

    /// The cluster.
    fn cluster(&self) -> &ClusterView {
        &self.http.cluster
    }

    /// What every JSON answer tells of this node.
    fn here(&self) -> Here {
        if let Some(here) = self.here.get() {
            return here.clone();
        }
        let server_port = self.http.settings.get().line_port;
        let name = self.cluster().own_name();
        let is_known = name.is_some();
        let here = Here { server_id: self.http.node.0, server_port, node_id: name.unwrap_or_default() };
        if is_known { self.here.get_or_init(|| here).clone() } else { here }
    }
}

/// A client's place among `maxclients`, given back when it is dropped.
struct Place(LineState);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.http.clients.leave();
    }
}

/// Accepts until the node lets its clients go.
pub async fn serve(listener: TcpListener, state: LineState, mut parting: watch::Receiver<bool>) {
    while !*parting.borrow_and_update() {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = parting.changed() => continue,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a client of the line port: are there enough file descriptors (ulimit -n)?");
                tokio::time::sleep(OUT_OF_FILES_PAUSE).await;
                continue;
            }
        };
        let most = state.http.settings.get().maxclients as usize;
        if !state.http.clients.enter(most) {
            refuse(stream);
            continue;
        }
        let place = Place(state.clone());
        let connection = Connection::new(stream, peer, state.clone(), parting.clone());
        tokio::spawn(async move {
            if let Err(error) = connection.run().await {
                debug!(%error, "a connection of the line port ended");
            }
            drop(place);
        });
    }
}

/// Beyond `maxclients`. The buffer of a new connection is empty: this never waits.
fn refuse(mut stream: TcpStream) {
    tokio::spawn(async move {
        let _ = tokio::time::timeout(
            OUT_OF_FILES_PAUSE,
            stream.write_all(b"ERROR max number of clients reached (maxclients)\n"),
        )
        .await;
    });
}
