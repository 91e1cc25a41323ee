//! `annulet.v1.KV`: keys and values as bytes, conditions, expiry, levels, batches, and a streaming scan.

use super::fetch::AT_ONCE;
use super::{Services, caller, watch};
use crate::http::connection::Caller;
use ::grpc::v1::kv_server::Kv;
use ::grpc::v1::operation::Operation;
use ::grpc::v1::operation_result::Result as OperationAnswer;
use ::grpc::{answer, ask, v1};
use bytes::Bytes;
use command::Door;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Operations of one batch.
const OPERATIONS_MAX: usize = 10_000;
/// Keys of a batch that are worked at at once.
const KEYS_AT_ONCE: usize = 64;
/// Keys that a page of a scan looks at, where the request does not say.
const PAGE_KEYS: u32 = 256;
const PAGE_KEYS_MAX: u32 = 10_000;
/// A message of a scan is sent once it has so many bytes.
const MESSAGE_BYTES: usize = 1024 * 1024;
/// Messages of a scan that wait for the client.
const MESSAGES_AHEAD: usize = 2;

impl Services {
    async fn run(&self, caller: &Caller, operation: Operation) -> Result<OperationAnswer, Status> {
        Ok(match operation {
            Operation::Get(request) => {
                let key = request.key.clone();
                OperationAnswer::Get(answer::get(key, self.ask(caller, ask::get(request)?).await)?)
            }
            Operation::Put(request) => {
                OperationAnswer::Put(answer::put(self.ask(caller, ask::put(request)?).await)?)
            }
            Operation::Delete(request) => {
                OperationAnswer::Delete(answer::delete(self.ask(caller, ask::delete(request)?).await)?)
            }
        })
    }
}

fn key_of(operation: &Operation) -> &Bytes {
    match operation {
        Operation::Get(request) => &request.key,
        Operation::Put(request) => &request.key,
        Operation::Delete(request) => &request.key,
    }
}

fn told(result: Result<OperationAnswer, Status>) -> v1::OperationResult {
    let result = result.unwrap_or_else(|status| {
        let (code, message) = (status.code() as i32, status.message().to_owned());
        OperationAnswer::Error(v1::OperationError { code, message })
    });
    v1::OperationResult { result: Some(result) }
}

/// Each key's operations with their places, in order.
type Lanes = Vec<Vec<(usize, Operation)>>;

fn lanes(operations: Vec<v1::Operation>) -> Result<Lanes, Status> {
    let mut lanes: Lanes = Vec::new();
    let mut by_key: HashMap<Bytes, usize> = HashMap::new();
    for (at, operation) in operations.into_iter().enumerate() {
        let Some(operation) = operation.operation else {
            return Err(Status::invalid_argument(format!("operation {at} of the batch is empty")));
        };
        let lane = *by_key.entry(key_of(&operation).clone()).or_insert(lanes.len());
        match lanes.get_mut(lane) {
            Some(lane) => lane.push((at, operation)),
            None => lanes.push(vec![(at, operation)]),
        }
    }
    Ok(lanes)
}

#[tonic::async_trait]
impl Kv for Services {
    type ScanStream = ReceiverStream<Result<v1::ScanResponse, Status>>;
    type WatchStream = ReceiverStream<Result<v1::WatchResponse, Status>>;

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        let caller = caller(request.extensions());
        let request = request.into_inner();
        let key = request.key.clone();
        Ok(Response::new(answer::get(key, self.ask(&caller, ask::get(request)?).await)?))
    }

    async fn put(&self, request: Request<v1::PutRequest>) -> Result<Response<v1::PutResponse>, Status> {
        let caller = caller(request.extensions());
        let put = ask::put(request.into_inner())?;
        Ok(Response::new(answer::put(self.ask(&caller, put).await)?))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        let caller = caller(request.extensions());
        let delete = ask::delete(request.into_inner())?;
        Ok(Response::new(answer::delete(self.ask(&caller, delete).await)?))
    }

    async fn batch(&self, request: Request<v1::BatchRequest>) -> Result<Response<v1::BatchResponse>, Status> {
        let caller = caller(request.extensions());
        let operations = request.into_inner().operations;
        let count = operations.len();
        if count > OPERATIONS_MAX {
            return Err(Status::invalid_argument(format!(
                "a batch may have {OPERATIONS_MAX} operations, not {count}"
            )));
        }
        let mut results = vec![v1::OperationResult::default(); count];
        let mut running: JoinSet<Vec<(usize, v1::OperationResult)>> = JoinSet::new();
        let mut waiting = lanes(operations)?.into_iter();
        loop {
            while running.len() < KEYS_AT_ONCE
                && let Some(lane) = waiting.next()
            {
                let (services, caller) = (self.clone(), caller.clone());
                running.spawn(async move {
                    let mut done = Vec::with_capacity(lane.len());
                    for (at, operation) in lane {
                        done.push((at, told(services.run(&caller, operation).await)));
                    }
                    done
                });
            }
            let Some(done) = running.join_next().await else { break };
            for (at, result) in
                done.map_err(|_| Status::unknown("UNKNOWN outcome unknown: this node stops"))?
            {
                results[at] = result;
            }
        }
        Ok(Response::new(v1::BatchResponse { results }))
    }

    async fn scan(&self, request: Request<v1::ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        let caller = caller(request.extensions());
        let request = request.into_inner();
        let count = match request.page_size {
            0 => PAGE_KEYS,
            1..=PAGE_KEYS_MAX => request.page_size,
            other => {
                return Err(Status::invalid_argument(format!(
                    "page_size may be 1 to {PAGE_KEYS_MAX}, not {other}"
                )));
            }
        };
        let unread = Duration::from_millis(self.http.settings.get().reply_unread_timeout_ms);
        let (messages, stream) = mpsc::channel(MESSAGES_AHEAD);
        let read_level = ask::read_level(request.read_level)?;
        let scan = Scan { services: self.clone(), request, read_level, count, messages, unread };
        tokio::spawn(async move {
            if let Err(Ended::Failed(status)) = scan.run(&caller).await {
                let _ = tokio::time::timeout(unread, scan.messages.send(Err(status))).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let caller = caller(request.extensions());
        Ok(Response::new(watch::begin(self.clone(), caller, request.into_inner())?))
    }
}

/// A scan that is under way.
struct Scan {
    services: Services,
    request: v1::ScanRequest,
    read_level: Option<types::settings::ReadLevel>,
    count: u32,
    messages: mpsc::Sender<Result<v1::ScanResponse, Status>>,
    /// How long a client may take nothing.
    unread: Duration,
}

/// Why a scan ended before its end.
enum Ended {
    /// The client is told.
    Failed(Status),
    /// The client is gone, or reads no more.
    Unread,
}

impl From<Status> for Ended {
    fn from(status: Status) -> Ended {
        Ended::Failed(status)
    }
}

impl Scan {
    async fn run(&self, caller: &Caller) -> Result<(), Ended> {
        let v1::ScanRequest { prefix, keys_only, mut cursor, .. } = self.request.clone();
        loop {
            let page =
                self.services.page(caller, Door::Plain, self.read_level, cursor, &prefix, self.count).await;
            let (next, keys) = page?;
            let mut entries = Vec::new();
            let mut bytes = 0;
            for few in keys.chunks(AT_ONCE) {
                let found: Vec<v1::Entry> = match keys_only {
                    true => {
                        few.iter().map(|key| v1::Entry { key: key.clone(), ..v1::Entry::default() }).collect()
                    }
                    false => {
                        let found = self.services.fetch(caller, self.read_level, few).await?;
                        found.into_iter().map(|(key, found)| answer::entry(key, found)).collect()
                    }
                };
                for entry in found {
                    bytes += entry.key.len() + entry.value.len();
                    entries.push(entry);
                    if bytes > MESSAGE_BYTES {
                        bytes = 0;
                        self.send(std::mem::take(&mut entries), None).await?;
                    }
                }
            }
            // A page that shows nothing leads on, and is seldom worth a message of its own; but whoever waits should see that it goes on.
            self.send(entries, Some(next)).await?;
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }

    async fn send(&self, entries: Vec<v1::Entry>, cursor: Option<u64>) -> Result<(), Ended> {
        let message = Ok(v1::ScanResponse { entries, cursor });
        match tokio::time::timeout(self.unread, self.messages.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Ended::Unread),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(key: &'static str) -> v1::Operation {
        let request = v1::GetRequest { key: Bytes::from(key), read_level: 0 };
        v1::Operation { operation: Some(Operation::Get(request)) }
    }

    #[test]
    fn operations_on_one_key_keep_their_order() {
        let made = lanes(vec![get("a"), get("b"), get("a"), get("a")]).unwrap();
        let places: Vec<Vec<usize>> =
            made.iter().map(|lane| lane.iter().map(|(at, _)| *at).collect()).collect();
        assert_eq!(places, [vec![0, 2, 3], vec![1]]);
        assert!(lanes(vec![get("a"), v1::Operation { operation: None }]).is_err());
    }
}
