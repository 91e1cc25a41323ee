//! Package `kvstore`: the service of an existing family of small clients, as the table of the protocol fixes it.

use super::fetch::AT_ONCE;
use super::{Services, caller};
use crate::clock;
use ::grpc::kvstore as messages;
use ::grpc::kvstore::key_value_store_server::KeyValueStore;
use ::grpc::kvstore::node_service_server::NodeService;
use ::grpc::state::{Here, State};
use ::grpc::{Ask, answer, errors};
use bytes::Bytes;
use command::{Door, Reply};
use messages::NodesOnly;
use std::collections::HashSet;
use tonic::{Request, Response, Status};
use types::settings::ReadLevel;

/// Keys that one step of a snapshot looks at.
const STEP_KEYS: u32 = 1000;
/// What a pair takes beside its key and its value, at most.
const PAIR_BYTES: usize = 32;
const NOT_FOUND: &str = "Key not found";

fn text(bytes: Bytes, what: &str) -> Result<String, Status> {
    String::from_utf8(bytes.into()).map_err(|_| errors::not_text(what))
}

fn int32(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// What a write answered, and how many backups hold it, where that is known.
fn counted(reply: Reply<'static>) -> Result<(Reply<'static>, Result<i32, String>), Status> {
    match reply {
        Reply::Error(error) => Err(errors::status(&error)),
        Reply::Array(both) => match <[Reply<'static>; 2]>::try_from(both) {
            Ok([written, Reply::Integer(count)]) => {
                Ok((written, Ok(int32(usize::try_from(count).unwrap_or(0)))))
            }
            Ok([written, Reply::Error(error)]) => Ok((written, Err(error.to_string()))),
            _ => Err(errors::nonsense("WAIT")),
        },
        _ => Err(errors::nonsense("a write")),
    }
}

fn message(done: &str, count: &Result<i32, String>) -> String {
    match count {
        Ok(_) => done.to_owned(),
        Err(why) => format!("{done}; how many backups hold it could not be found out: {why}"),
    }
}

#[tonic::async_trait]
impl KeyValueStore for Services {
    async fn put(
        &self,
        request: Request<messages::PutRequest>,
    ) -> Result<Response<messages::PutResponse>, Status> {
        let caller = caller(request.extensions());
        let messages::PutRequest { key, value, timestamp: _ } = request.into_inner();
        let set = Ask::new([Bytes::from("SET"), Bytes::from(key), Bytes::from(value)]);
        // Before the write: once that is done nothing may fail any more.
        let node_id = self.name(&caller).await?;
        let (_, count) = counted(self.ask_and_count(&caller, set).await)?;
        Ok(Response::new(messages::PutResponse {
            success: true,
            message: message("stored", &count),
            node_id,
            replicas_count: count.unwrap_or(0),
        }))
    }

    async fn get(
        &self,
        request: Request<messages::GetRequest>,
    ) -> Result<Response<messages::GetResponse>, Status> {
        let caller = caller(request.extensions());
        let messages::GetRequest { key, read_from_replica } = request.into_inner();
        let get = Ask::new([Bytes::from("GETV"), Bytes::from(key)])
            .reading(read_from_replica.then_some(ReadLevel::Stale));
        let found = answer::found(self.ask(&caller, get).await)?;
        let node_id = self.name(&caller).await?;
        Ok(Response::new(match found {
            Some(found) => messages::GetResponse {
                found: true,
                value: text(found.value, "the value")?,
                message: "found".into(),
                node_id,
                timestamp: answer::written_at_ms(found.version),
            },
            None => messages::GetResponse {
                message: NOT_FOUND.into(),
                node_id,
                ..messages::GetResponse::default()
            },
        }))
    }

    async fn delete(
        &self,
        request: Request<messages::DeleteRequest>,
    ) -> Result<Response<messages::DeleteResponse>, Status> {
        let caller = caller(request.extensions());
        let key = request.into_inner().key;
        let delete = Ask::new([Bytes::from("DEL"), Bytes::from(key)]);
        let (removed, count) = counted(self.ask_and_count(&caller, delete).await)?;
        Ok(Response::new(match removed {
            Reply::Integer(1) => messages::DeleteResponse {
                success: true,
                message: message("removed", &count),
                replicas_count: count.unwrap_or(0),
            },
            _ => messages::DeleteResponse { success: false, message: NOT_FOUND.into(), replicas_count: 0 },
        }))
    }

    async fn list_keys(
        &self,
        request: Request<messages::ListKeysRequest>,
    ) -> Result<Response<messages::ListKeysResponse>, Status> {
        let caller = caller(request.extensions());
        let all = Ask::new(["KEYS", "*"]).reading(Some(ReadLevel::Stale));
        let mut list = match self.ask_of(&caller, Door::Held, all).await {
            Reply::List(list) => list,
            Reply::Error(error) => return Err(errors::status(&error)),
            _ => return Err(errors::nonsense("KEYS")),
        };
        let mut keys = Vec::with_capacity(list.len());
        // By pieces, so that they do not lie here twice.
        while let Some(chunk) = list.take_chunk() {
            for key in chunk.iter() {
                keys.push(text(Bytes::copy_from_slice(key), "a key that this node holds")?);
            }
        }
        let count = int32(keys.len());
        Ok(Response::new(messages::ListKeysResponse { keys, count, node_id: self.name(&caller).await? }))
    }
}

/// Why no client may call what nodes say to each other.
fn nodes_only(method: &str) -> Status {
    Status::permission_denied(format!(
        "{method} is for nodes, which speak to each other on the peer port, where each proves with the join secret that it belongs; \
         a node joins with `annulet serve --join HOST:PEER_PORT`"
    ))
}

#[tonic::async_trait]
impl NodeService for Services {
    async fn get_membership(
        &self,
        request: Request<messages::MembershipRequest>,
    ) -> Result<Response<messages::MembershipResponse>, Status> {
        let caller = caller(request.extensions());
        let state = State::read(self.ask(&caller, Ask::new(["ANNULET", "STATUS"])).await)?;
        let (published, now) = (&self.http.published, clock::now());
        let leased = now < published.lease_until();
        let seconds = published.clock_ms(now).map(|ms| (ms / 1000) as i64).filter(|_| leased);
        let here = Here {
            node: self.http.node.0,
            http_port: self.http.settings.get().http_port,
            leased_at_s: seconds,
        };
        Ok(Response::new(state.into_membership(here)))
    }

    async fn get_snapshot(
        &self,
        request: Request<messages::SnapshotRequest>,
    ) -> Result<Response<messages::SnapshotResponse>, Status> {
        let caller = caller(request.extensions());
        let most = usize::try_from(self.http.settings.get().max_request_bytes.0).unwrap_or(usize::MAX);
        let now_ms = self.http.published.clock_ms(clock::now()).unwrap_or_else(clock::wall_ms);
        let stale = Some(ReadLevel::Stale);
        let (mut data, mut shown, mut bytes, mut cursor) = (Vec::new(), HashSet::new(), 0, 0);
        loop {
            let (next, keys) = self.page(&caller, Door::Held, stale, cursor, b"", STEP_KEYS).await?;
            for few in keys.chunks(AT_ONCE) {
                for (key, found) in self.fetch(&caller, stale, few).await? {
                    if !shown.insert(key.clone()) {
                        continue;
                    }
                    bytes += key.len() + found.value.len() + PAIR_BYTES;
                    if bytes > most {
                        return Err(Status::resource_exhausted(format!(
                            "a snapshot may have {most} bytes (max_request_bytes), and this node holds more: \
                             annulet.v1.KV/Scan streams all keys with their values"
                        )));
                    }
                    data.push(messages::KeyValuePair {
                        key: text(key, "a key that this node holds")?,
                        timestamp: answer::written_at_ms(found.version),
                        value: text(found.value, "a value that this node holds")?,
                    });
                }
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        Ok(Response::new(messages::SnapshotResponse {
            total_keys: int32(data.len()),
            data,
            provider_node_id: self.name(&caller).await?,
            snapshot_timestamp: now_ms as i64,
        }))
    }

    async fn heartbeat(&self, _: Request<NodesOnly>) -> Result<Response<NodesOnly>, Status> {
        Err(nodes_only("Heartbeat"))
    }

    async fn forward_put(&self, _: Request<NodesOnly>) -> Result<Response<NodesOnly>, Status> {
        Err(nodes_only("ForwardPut"))
    }

    async fn forward_get(&self, _: Request<NodesOnly>) -> Result<Response<NodesOnly>, Status> {
        Err(nodes_only("ForwardGet"))
    }

    async fn forward_delete(&self, _: Request<NodesOnly>) -> Result<Response<NodesOnly>, Status> {
        Err(nodes_only("ForwardDelete"))
    }

    async fn replicate(&self, _: Request<NodesOnly>) -> Result<Response<NodesOnly>, Status> {
        Err(nodes_only("Replicate"))
    }

    async fn join_cluster(&self, _: Request<NodesOnly>) -> Result<Response<NodesOnly>, Status> {
        Err(nodes_only("JoinCluster"))
    }
}
