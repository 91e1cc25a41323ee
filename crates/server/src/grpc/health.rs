//! The standard health service: the whole server, which has no name, and each service serve where the node does
//! ([`crate::http::health::readiness`]).

use super::{SERVICES, Services};
use crate::clock;
use crate::doors::parted;
use crate::http::health::readiness;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// How often a watched node is looked at.
const LOOKS: Duration = Duration::from_millis(500);

impl Services {
    fn serving(&self, service: &str) -> ServingStatus {
        if !service.is_empty() && !SERVICES.contains(&service) {
            return ServingStatus::ServiceUnknown;
        }
        match readiness(&self.http.published, clock::now()) {
            Ok(()) => ServingStatus::Serving,
            Err(_) => ServingStatus::NotServing,
        }
    }
}

#[tonic::async_trait]
impl Health for Services {
    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match self.serving(&request.get_ref().service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found("there is no such service")),
            status => Ok(Response::new(HealthCheckResponse { status: status.into() })),
        }
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (services, service) = (self.clone(), request.into_inner().service);
        let (messages, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut last = None;
            let mut parting = services.http.parting.clone();
            loop {
                let status = services.serving(&service);
                if last.replace(status) != Some(status) {
                    let message = HealthCheckResponse { status: status.into() };
                    if messages.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    () = messages.closed() => return,
                    () = parted(&mut parting) => return,
                    () = tokio::time::sleep(LOOKS) => {}
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
