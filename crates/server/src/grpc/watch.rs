//! `annulet.v1.KV.Watch`: the changes of a key, or of all keys with a prefix, as they are committed.
//!
//! Each partition is followed by a task of its own, which asks for what is behind the place that it knows (`CHANGES`), hands that to the
//! client, and asks again. So no more is under way than the client takes, nothing is kept for it meanwhile but the partitions' logs, and
//! a primary that moves is found as every request finds it.

use super::Services;
use crate::doors::parted;
use crate::http::connection::Caller;
use ::grpc::ask::Since;
use ::grpc::v1::watch_request::Keys;
use ::grpc::{answer, ask, v1};
use command::CommandError;
use command::changes::BLOCK_MAX;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use types::limits::KEY_BYTES_MAX;
use types::{Epoch, Lsn, PartitionId, Position, slot_of_key, slots_of_partition};

/// Bytes of changes that are asked for at once, about, of one partition.
const BYTES: usize = 64 * 1024;
/// Messages that wait for the client.
const MESSAGES_AHEAD: usize = 2;
/// Partitions that are asked at once where a watch begins.
const BEGINNING_AT_ONCE: usize = 64;

/// A partition that has begun: its slot, where it stands, and what was behind the place where it began.
type Begun = (u16, Position, Vec<v1::Change>);
type Messages = mpsc::Sender<Result<v1::WatchResponse, Status>>;

/// Begins a watch, which ends with the client, with what is wrong, or with this node.
pub(super) fn begin(
    services: Services,
    caller: Caller,
    request: v1::WatchRequest,
) -> Result<ReceiverStream<Result<v1::WatchResponse, Status>>, Status> {
    // Of the cluster, not of this node's settings, which may have come later.
    let partitions = services.http.cluster.map().partitions.len() as u16;
    if partitions == 0 {
        let why = "the cluster is still forming".into();
        return Err(::grpc::errors::status(&CommandError::ClusterDown { why }));
    }
    let starts = starts(&request, partitions)?;
    let unread = Duration::from_millis(services.http.settings.get().reply_unread_timeout_ms);
    let (messages, stream) = mpsc::channel(MESSAGES_AHEAD);
    let keys = request.keys.map(Arc::new);
    // Its places are its own for as long as it goes on, so that no later one takes them.
    let Some(places) = services.http.desk.wait_places(starts.len()) else {
        let why = "too many watches are under way at this node: ask another node".into();
        return Err(::grpc::errors::status(&CommandError::TryAgain { why }));
    };
    let mut parting = services.http.parting.clone();
    let watch = Watch { services, caller, keys, messages, unread };
    tokio::spawn(async move {
        let _places = places;
        tokio::select! {
            ended = watch.run(starts) => {
                let status = match ended {
                    Err(Ended::Failed(status)) => status,
                    _ => unread_too_long(),
                };
                let _ = tokio::time::timeout(watch.unread, watch.messages.send(Err(status))).await;
            }
            () = parted(&mut parting) => {
                if let Ended::Failed(status) = stops() {
                    let _ = tokio::time::timeout(watch.unread, watch.messages.send(Err(status))).await;
                }
            }
            // Which ends all that is under way for it.
            () = watch.messages.closed() => {}
        }
    });
    Ok(ReceiverStream::new(stream))
}

/// The partitions that are followed, by their first slots, and where each begins.
fn starts(request: &v1::WatchRequest, partitions: u16) -> Result<Vec<(u16, Since)>, Status> {
    let first_slot = |id| slots_of_partition(id, partitions).0.0;
    let ids: Vec<PartitionId> = match &request.keys {
        Some(Keys::Key(key)) => vec![types::partition_of_slot(slot_of_key(key), partitions)],
        Some(Keys::Prefix(_)) | None => (0..partitions).map(PartitionId).collect(),
    };
    if let Some(Keys::Key(name) | Keys::Prefix(name)) = &request.keys
        && name.len() > KEY_BYTES_MAX
    {
        return Err(Status::invalid_argument(format!("a key has {KEY_BYTES_MAX} bytes at most")));
    }
    let mut places = HashMap::new();
    for position in &request.positions {
        let place = Position { epoch: Epoch(position.epoch), lsn: Lsn(position.lsn) };
        places.insert(position.slot, place);
    }
    let otherwise = match request.after_version {
        0 => Since::Now,
        version => Since::Version(version),
    };
    let mut starts = Vec::with_capacity(ids.len());
    for slot in ids.into_iter().map(first_slot) {
        let known = places.remove(&u32::from(slot));
        starts.push((slot, known.map_or(otherwise, Since::Place)));
    }
    match places.keys().next() {
        None => Ok(starts),
        Some(slot) => Err(Status::invalid_argument(format!(
            "slot {slot} is not the first of a partition that this request watches: positions are told by an earlier watch of the same keys"
        ))),
    }
}

#[derive(Clone)]
struct Watch {
    services: Services,
    caller: Caller,
    keys: Option<Arc<Keys>>,
    messages: Messages,
    /// How long a client may take nothing.
    unread: Duration,
}

/// Why a watch ends.
enum Ended {
    /// The client is told.
    Failed(Status),
    /// The client is gone, or reads no more.
    Unread,
}

fn position(slot: u16, place: Position) -> v1::WatchPosition {
    v1::WatchPosition { slot: slot.into(), epoch: place.epoch.0, lsn: place.lsn.0 }
}

impl Watch {
    /// Follows all, until one fails.
    async fn run(&self, starts: Vec<(u16, Since)>) -> Result<(), Ended> {
        let mut beginning: JoinSet<Result<Begun, Ended>> = JoinSet::new();
        let mut starts = starts.into_iter();
        let mut quiet = Vec::new();
        let mut places = Vec::new();
        loop {
            while beginning.len() < BEGINNING_AT_ONCE
                && let Some((slot, since)) = starts.next()
            {
                let watch = self.clone();
                beginning.spawn(async move {
                    let (place, changes) = watch.step(slot, since, Duration::ZERO).await?;
                    Ok((slot, place, changes))
                });
            }
            let Some(begun) = beginning.join_next().await else { break };
            let (slot, place, changes) = begun.map_err(|_| stops())??;
            places.push((slot, place));
            if changes.is_empty() {
                quiet.push(position(slot, place));
            } else {
                self.send(changes, vec![position(slot, place)]).await?;
            }
        }
        // Also where it is empty: the client knows that the watch has begun.
        self.send(Vec::new(), quiet).await?;
        let mut following = JoinSet::new();
        for (slot, place) in places {
            let watch = self.clone();
            following.spawn(async move { watch.follow(slot, place).await });
        }
        match following.join_next().await {
            Some(Ok(Err(ended))) => Err(ended),
            _ => Err(stops()),
        }
    }

    /// Follows one partition.
    async fn follow(&self, slot: u16, mut place: Position) -> Result<(), Ended> {
        loop {
            let (next, changes) = self.step(slot, Since::Place(place), BLOCK_MAX).await?;
            // That others' keys have moved it on is told, too: a watch that goes on from long ago might find no history.
            if !changes.is_empty() || next != place {
                self.send(changes, vec![position(slot, next)]).await?;
            }
            place = next;
        }
    }

    async fn step(
        &self,
        slot: u16,
        since: Since,
        block: Duration,
    ) -> Result<(Position, Vec<v1::Change>), Ended> {
        let step = ask::changes(slot, since, self.keys.as_deref(), BYTES, block.as_millis() as u64);
        let reply = match block.is_zero() {
            true => self.services.ask(&self.caller, step).await,
            false => self.services.ask_and_wait(&self.caller, step).await,
        };
        answer::changes(reply).map_err(Ended::Failed)
    }

    async fn send(&self, changes: Vec<v1::Change>, positions: Vec<v1::WatchPosition>) -> Result<(), Ended> {
        let message = Ok(v1::WatchResponse { changes, positions });
        match tokio::time::timeout(self.unread, self.messages.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Ended::Unread),
        }
    }
}

fn unread_too_long() -> Status {
    let why = "this watch was not read for too long: watch on from its positions".into();
    ::grpc::errors::status(&CommandError::TryAgain { why })
}

/// A task was ended: nothing but the end of the node does that.
fn stops() -> Ended {
    let why = "this node stops: watch on at another node".into();
    Ended::Failed(::grpc::errors::status(&CommandError::TryAgain { why }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_watch_begins() {
        let of = |request: v1::WatchRequest| starts(&request, 4);
        let all = v1::WatchRequest::default();
        let now = |slot| (slot, Since::Now);
        assert_eq!(of(all.clone()).unwrap(), [now(0), now(4096), now(8192), now(12288)]);
        // Slot 15495.
        let one = v1::WatchRequest { keys: Some(Keys::Key("a".into())), ..all.clone() };
        assert_eq!(of(one.clone()).unwrap(), [now(12288)]);
        let from = v1::WatchRequest { after_version: 9, ..one.clone() };
        assert_eq!(of(from).unwrap(), [(12288, Since::Version(9))]);
        let place = Position { epoch: Epoch(3), lsn: Lsn(7) };
        let on =
            v1::WatchRequest { positions: vec![position(12288, place)], after_version: 9, ..all.clone() };
        let earlier = |slot| (slot, Since::Version(9));
        assert_eq!(of(on).unwrap(), [earlier(0), earlier(4096), earlier(8192), (12288, Since::Place(place))]);
        for wrong in [1, 4096, 70_000] {
            let other = v1::WatchPosition { slot: wrong, epoch: 1, lsn: 1 };
            let error = of(v1::WatchRequest { positions: vec![other], ..one.clone() }).unwrap_err();
            assert_eq!(error.code(), tonic::Code::InvalidArgument, "{wrong}");
        }
        let long = vec![b'k'; KEY_BYTES_MAX + 1];
        assert!(of(v1::WatchRequest { keys: Some(Keys::Prefix(long.into())), ..all }).is_err());
    }
}
