//! `annulet.v1.Cluster`: the cluster's state, and operators' orders to it.

use super::{Services, caller};
use ::grpc::state::State;
use ::grpc::v1::cluster_server::Cluster;
use ::grpc::{Ask, errors, v1};
use command::Reply;
use tonic::{Extensions, Request, Response, Status};

impl Services {
    /// Gives an order, or says why the cluster refuses it.
    async fn order(&self, extensions: &Extensions, words: Vec<String>) -> Result<(), Status> {
        match self.ask(&caller(extensions), Ask::new(words)).await {
            Reply::Error(error) => Err(errors::refused(&error)),
            _ => Ok(()),
        }
    }
}

fn words(of: &[&str]) -> Vec<String> {
    of.iter().map(|&word| word.to_owned()).collect()
}

#[tonic::async_trait]
impl Cluster for Services {
    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let asked = Ask::new(["ANNULET", "STATUS"]);
        let state = State::read(self.ask(&caller(request.extensions()), asked).await)?;
        Ok(Response::new(state.into_response()))
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        let &v1::DrainRequest { node, undo } = request.get_ref();
        let mut order = words(&["ANNULET", "DRAIN", &node.to_string()]);
        if undo {
            order.push("UNDO".into());
        }
        self.order(request.extensions(), order).await?;
        Ok(Response::new(v1::DrainResponse {}))
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveRequest>,
    ) -> Result<Response<v1::RemoveResponse>, Status> {
        let order = words(&["ANNULET", "REMOVE", &request.get_ref().node.to_string()]);
        self.order(request.extensions(), order).await?;
        Ok(Response::new(v1::RemoveResponse {}))
    }

    async fn set(&self, request: Request<v1::SetRequest>) -> Result<Response<v1::SetResponse>, Status> {
        let &v1::SetRequest { copies, min_in_sync } = request.get_ref();
        let mut order = words(&["CONFIG", "SET"]);
        for (name, value) in [("copies", copies), ("min_in_sync", min_in_sync)] {
            order.extend(value.into_iter().flat_map(|value| [name.to_owned(), value.to_string()]));
        }
        if order.len() == 2 {
            return Err(Status::invalid_argument("say what to set: copies, min_in_sync, or both"));
        }
        self.order(request.extensions(), order).await?;
        Ok(Response::new(v1::SetResponse {}))
    }
}
