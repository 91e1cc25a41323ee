//! gRPC, on the HTTP port beside everything else: what an existing family of small clients speaks ([`kvstore`]), Annulet's own
//! service ([`keys`], [`cluster`]), health and reflection. Messages and their translation are in room `grpc`; commands are run at the
//! [`crate::desk`].
//!
//! Every request but a health check goes through the [`gate`]: it asks for the password, takes the message in within bounds, and
//! only then lets the service see it.

mod cluster;
mod fetch;
mod gate;
mod health;
mod keys;
mod kvstore;
mod watch;

use crate::desk::Question;
use crate::http::HttpState;
use crate::http::connection::Caller;
use crate::http::outgoing;
use ::grpc::Ask;
use ::grpc::kvstore::key_value_store_server::KeyValueStoreServer;
use ::grpc::kvstore::node_service_server::NodeServiceServer;
use ::grpc::v1::cluster_server::ClusterServer;
use ::grpc::v1::kv_server::KvServer;
use axum::Router;
use axum::middleware;
use bytes::Bytes;
use command::{CommandError, Door, Reply};
use std::sync::{Arc, OnceLock};
use tonic::server::NamedService;
use tonic::{Extensions, Status};
use tonic_health::pb::health_server::HealthServer;

/// The services that health knows, beside the whole server, which has no name.
const SERVICES: [&str; 4] = [
    KeyValueStoreServer::<Services>::NAME,
    NodeServiceServer::<Services>::NAME,
    KvServer::<Services>::NAME,
    ClusterServer::<Services>::NAME,
];

/// What every service answers from.
#[derive(Clone)]
struct Services {
    http: HttpState,
    /// The node's 40 hex digits, once they are known.
    name: Arc<OnceLock<String>>,
}

/// The routes of all services.
pub(crate) fn routes(http: HttpState) -> Router {
    let services = Services { http, name: Arc::default() };
    let of = |name: &str| format!("/{name}/{{*method}}");
    // The gate has bounded what comes, and a reply is as large as what it shows.
    let unary = Router::new()
        .route_service(
            &of(KeyValueStoreServer::<Services>::NAME),
            KeyValueStoreServer::new(services.clone()).max_decoding_message_size(usize::MAX),
        )
        .route_service(
            &of(NodeServiceServer::<Services>::NAME),
            NodeServiceServer::new(services.clone()).max_decoding_message_size(usize::MAX),
        )
        .route_service(
            &of(KvServer::<Services>::NAME),
            KvServer::new(services.clone()).max_decoding_message_size(usize::MAX),
        )
        .route_service(
            &of(ClusterServer::<Services>::NAME),
            ClusterServer::new(services.clone()).max_decoding_message_size(usize::MAX),
        )
        .layer(middleware::from_fn_with_state(services.clone(), gate::whole_message))
        .layer(middleware::from_fn_with_state(services.http.clone(), outgoing::counted))
        .layer(middleware::from_fn_with_state(services.clone(), gate::only_with_password));
    // Probes have no password.
    let health = Router::new()
        .route_service(&of(HealthServer::<Services>::NAME), HealthServer::new(services.clone()))
        .layer(middleware::from_fn_with_state(services.clone(), gate::small_message));
    unary.merge(health).merge(reflection(&services))
}

/// The descriptions of all services, in both versions of the protocol that tools speak.
fn reflection(services: &Services) -> Router {
    let describe = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(::grpc::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut router = Router::new();
    // They were made when this was built, so they are sound.
    if let (Ok(v1), Ok(v1alpha)) = (describe().build_v1(), describe().build_v1alpha()) {
        router = router
            .route_service(
                "/grpc.reflection.v1.ServerReflection/{*method}",
                v1.max_decoding_message_size(gate::QUESTION_BYTES_MAX),
            )
            .route_service(
                "/grpc.reflection.v1alpha.ServerReflection/{*method}",
                v1alpha.max_decoding_message_size(gate::QUESTION_BYTES_MAX),
            );
    }
    router.layer(middleware::from_fn_with_state(services.clone(), gate::only_with_password))
}

/// Who asks, as the connection says.
fn caller(extensions: &Extensions) -> Caller {
    extensions.get::<Caller>().cloned().unwrap_or_default()
}

impl Services {
    /// Has a command run, over the whole cluster.
    async fn ask(&self, caller: &Caller, ask: Ask) -> Reply<'static> {
        self.ask_of(caller, Door::Plain, ask).await
    }

    /// Has a command run.
    async fn ask_of(&self, caller: &Caller, scope: Door, ask: Ask) -> Reply<'static> {
        self.http.desk.ask(question(caller, scope, ask)).await
    }

    /// Has a command run that waits on purpose.
    async fn ask_and_wait(&self, caller: &Caller, ask: Ask) -> Reply<'static> {
        self.http.desk.ask_and_wait(question(caller, Door::Plain, ask)).await
    }

    /// Has a command run and, if it succeeds, has the backups counted that hold what it wrote. Both replies, as an array.
    async fn ask_and_count(&self, caller: &Caller, ask: Ask) -> Reply<'static> {
        let then = ["WAIT", "0", "0"].map(Bytes::from).to_vec();
        self.http.desk.ask(Question { then, ..question(caller, Door::Plain, ask) }).await
    }

    /// This node's 40 hex digits.
    async fn name(&self, caller: &Caller) -> Result<String, Status> {
        if let Some(name) = self.name.get() {
            return Ok(name.clone());
        }
        // They are made from the cluster's id, which comes with the map.
        if self.http.published.acted_version() == 0 {
            let why = "the cluster is still forming".into();
            return Err(::grpc::errors::status(&CommandError::ClusterDown { why }));
        }
        match self.ask(caller, Ask::new(["CLUSTER", "MYID"])).await {
            Reply::Bulk(name) => {
                let name = String::from_utf8_lossy(&name).into_owned();
                Ok(self.name.get_or_init(|| name).clone())
            }
            Reply::Error(error) => Err(::grpc::errors::status(&error)),
            _ => Err(::grpc::errors::nonsense("CLUSTER MYID")),
        }
    }
}

fn question(caller: &Caller, scope: Door, ask: Ask) -> Question {
    let Ask { args, read_level, write_level } = ask;
    let administrates = caller.administrates;
    Question { read_level, write_level, scope, administrates, ..Question::new(&caller.asker, args) }
}
