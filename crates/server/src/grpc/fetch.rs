//! Keys with their values, a few at once and in order: what scans and snapshots show.

use super::Services;
use crate::http::connection::Caller;
use ::grpc::answer::{self, Found};
use ::grpc::{Ask, ask, errors};
use bytes::Bytes;
use command::{CommandError, Reply};
use tonic::Status;
use types::settings::ReadLevel;

/// Values that are asked for at once: so many may lie in memory beside those that are handed over.
pub(super) const AT_ONCE: usize = 8;

impl Services {
    /// What a few keys hold; none for those that are gone meanwhile, and for those that hold no string.
    pub(super) async fn fetch(
        &self,
        caller: &Caller,
        read_level: Option<ReadLevel>,
        keys: &[Bytes],
    ) -> Result<Vec<(Bytes, Found)>, Status> {
        let asked = keys.iter().map(|key| {
            let (services, caller) = (self.clone(), caller.clone());
            let get = Ask::new([Bytes::from_static(b"GETV"), key.clone()]).reading(read_level);
            (key, tokio::spawn(async move { services.ask(&caller, get).await }))
        });
        let mut fetched = Vec::with_capacity(keys.len());
        for (key, reply) in asked.collect::<Vec<_>>() {
            let stops = |_| errors::status(&CommandError::TryAgain { why: "this node stops".into() });
            match reply.await.map_err(stops)? {
                Reply::Error(CommandError::WrongType) => {}
                reply => fetched.extend(answer::found(reply)?.map(|found| (key.clone(), found))),
            }
        }
        Ok(fetched)
    }

    /// The next page of a scan: where to go on, 0 at the end, and keys.
    pub(super) async fn page(
        &self,
        caller: &Caller,
        scope: command::Door,
        read_level: Option<ReadLevel>,
        cursor: u64,
        prefix: &[u8],
        count: u32,
    ) -> Result<(u64, Vec<Bytes>), Status> {
        let step = ask::scan(cursor, prefix, count).reading(read_level);
        answer::scanned(self.ask_of(caller, scope, step).await)
    }
}
