//! What a request of the line port comes to: commands at the desk, and the cluster's state.

use super::LineState;
use crate::clock;
use crate::desk::Question;
use bytes::Bytes;
use command::rights::{Shown, shown};
use command::{CommandError, Door, List, Reply, lookup, place_of};
use std::sync::Arc;
use std::time::Duration;
use types::NodeId;
use wire::line::{json, text};

/// How long the answer to UNREGISTER_NODE waits for the node to be empty. Emptying goes on without it.
const DRAIN_PATIENCE: Duration = Duration::from_secs(60);
/// How often that is looked at.
const LOOKS: Duration = Duration::from_millis(20);
/// How often the order is given again, since a coordinator may die with it.
const ORDERS: Duration = Duration::from_secs(1);
/// What every stranger is told.
const NO_AUTH: CommandError = CommandError::NoAuth;
const NODES_ONLY: &str = "this is for nodes, which speak on the peer port and prove there who they are; a node joins with \
                          `annulet serve --join HOST:PEER_PORT` and the cluster's join.secret";

/// Who asks.
pub(super) struct Caller<'a> {
    /// What there is to answer from.
    pub state: &'a LineState,
    /// `host:port`.
    pub asker: &'a Arc<str>,
    /// Whether it has shown the password, or none is needed.
    pub authenticated: &'a mut bool,
    /// Whether it has shown that of administration.
    pub administrates: &'a mut bool,
}

/// What of an answer is still to be written.
pub(super) enum Rest {
    /// Nothing.
    None,
    /// All of these keys.
    Keys(List),
}

impl Caller<'_> {
    /// Answers a text request.
    pub async fn text(&mut self, line: &Bytes, out: &mut Vec<u8>) {
        let request = match text::parse(line) {
            Ok(text::Request::Auth { password }) => {
                return match self.authenticate(&password) {
                    Ok(()) => text::Answer::Ok.write(out),
                    Err(error) => text_error(&error, out),
                };
            }
            // A stranger learns nothing but that a password is needed.
            _ if !*self.authenticated => {
                let why = format!("{NO_AUTH} Begin with: AUTH password");
                return text::Answer::Error(&why).write(out);
            }
            Ok(request) => request,
            Err(why) => return text::Answer::Error(&why).write(out),
        };
        if let Err(error) = self.run_text(request, out).await {
            text_error(&error, out);
        }
    }

    async fn run_text(&self, request: text::Request, out: &mut Vec<u8>) -> Result<(), CommandError> {
        use text::{Answer, Request};
        let cluster = self.state.cluster();
        match request {
            // Answered before.
            Request::Auth { .. } => {}
            Request::Put { key, value } => {
                let value = {
                    let map = cluster.map();
                    text::without_replicas(&value, |host, port| cluster.member_at(&map, host, port).is_some())
                };
                self.ask([Bytes::from("SET"), key, value]).await?;
                Answer::Ok.write(out);
            }
            Request::Get { key } => match self.ask([Bytes::from("GET"), key]).await? {
                Reply::Bulk(value) => Answer::Value(&value).write(out),
                _ => Answer::NotFound.write(out),
            },
            Request::Delete { key } => {
                self.ask([Bytes::from("DEL"), key]).await?;
                Answer::Ok.write(out);
            }
            Request::Expire { key, seconds } => match self.expire(key, seconds).await? {
                true => Answer::Ok.write(out),
                false => Answer::NotFound.write(out),
            },
            Request::Info => {
                let keys = self.state.http.published.sum(|shard| &shard.keys);
                Answer::Info { address: &cluster.own_line_address(), keys }.write(out);
            }
            Request::NodesForKey { key } => match cluster.holders(&key) {
                Ok(found) => Answer::Holders { primary: &found.primary, backups: &found.backups }.write(out),
                Err(why) => Answer::Error(&why).write(out),
            },
            Request::ListNodes => Answer::Nodes(&cluster.line_addresses()).write(out),
            Request::RegisterNode { host, port } => self.register(&host, port, out).await?,
            Request::UnregisterNode { host, port } => self.unregister(&host, port, out).await?,
            Request::Replicate => Answer::Error(NODES_ONLY).write(out),
        }
        Ok(())
    }

    /// A node that is a member, or is one again: one that was unregistered and is still there stays after all.
    async fn register(&self, host: &str, port: u16, out: &mut Vec<u8>) -> Result<(), CommandError> {
        let map = self.state.cluster().map();
        let address = crate::cluster_view::host_port(host, port);
        let Some(member) = self.state.cluster().member_at(&map, host, port) else {
            let why = format!(
                "{address} is the line address of no node of this cluster: a node joins with `annulet serve --join HOST:PEER_PORT` and \
                 the cluster's join.secret"
            );
            text::Answer::Error(&why).write(out);
            return Ok(());
        };
        if member.draining {
            let id = member.id.to_string();
            self.ask(["ANNULET", "DRAIN", &id, "UNDO"].map(owned)).await?;
        }
        text::Answer::Registered(&address).write(out);
        Ok(())
    }

    /// Has a node drained, and says so once it holds nothing.
    async fn unregister(&self, host: &str, port: u16, out: &mut Vec<u8>) -> Result<(), CommandError> {
        let cluster = self.state.cluster();
        let address = crate::cluster_view::host_port(host, port);
        let Some(id) = cluster.member_at(&cluster.map(), host, port).map(|member| member.id) else {
            let why =
                format!("{address} is the line address of no node of this cluster: LIST_NODES lists them");
            text::Answer::Error(&why).write(out);
            return Ok(());
        };
        let (began, mut ordered, mut was_draining) = (clock::now(), None, false);
        loop {
            let now = clock::now();
            let is_draining = cluster.map().member(id).is_some_and(|member| member.draining);
            was_draining |= is_draining;
            if was_draining && !is_draining && cluster.map().member(id).is_some() {
                let why = format!("Node {address} is to stay after all: somebody has taken the order back");
                text::Answer::Error(&why).write(out);
                return Ok(());
            }
            // Given again until it shows: it may have been lost with the coordinator.
            if !was_draining && ordered.is_none_or(|at| now.since(at) >= ORDERS) {
                match self.ask(["ANNULET", "DRAIN", &id.to_string()].map(owned)).await {
                    Ok(_) => ordered = Some(now),
                    // Gone already, or no coordinator for a moment.
                    Err(error) if ordered.is_none() => return Err(error),
                    Err(_) => {}
                }
            }
            let map = cluster.map();
            let is_drained = map.member(id).is_none_or(|member| member.draining) && map.is_empty_node(id);
            if is_drained {
                text::Answer::Unregistered(&address).write(out);
                return Ok(());
            }
            if now.since(began) >= DRAIN_PATIENCE {
                let why = format!(
                    "Node {address} is being drained, {}: ask again, to wait on",
                    copies_left(&map, id)
                );
                text::Answer::Error(&why).write(out);
                return Ok(());
            }
            tokio::time::sleep(LOOKS).await;
        }
    }

    /// Answers a JSON request.
    pub async fn json(&mut self, object: &[u8], out: &mut Vec<u8>) -> Rest {
        let here = self.state.here();
        let wrong =
            |message: &str, out: &mut Vec<u8>| json::Answer::Error { message, code: None }.write(&here, out);
        let request = match json::parse(object) {
            Ok(json::Request::Auth { password }) => {
                match self.authenticate(&password) {
                    Ok(()) => json::Answer::Authenticated.write(&here, out),
                    Err(error) => json_error(&error, &here, out),
                }
                return Rest::None;
            }
            _ if !*self.authenticated => {
                let message = format!("{NO_AUTH} Begin with: {{\"command\":\"AUTH\",\"password\":\"...\"}}");
                json::Answer::Error { message: &message, code: Some("NOAUTH") }.write(&here, out);
                return Rest::None;
            }
            Ok(request) => request,
            Err(message) => {
                wrong(&message, out);
                return Rest::None;
            }
        };
        self.run_json(request, &here, out).await.unwrap_or_else(|error| {
            json_error(&error, &here, out);
            Rest::None
        })
    }

    async fn run_json(
        &self,
        request: json::Request,
        here: &json::Here,
        out: &mut Vec<u8>,
    ) -> Result<Rest, CommandError> {
        use json::{Answer, Request};
        match request {
            // Answered before.
            Request::Auth { .. } => {}
            Request::Put { key, value, is_base64, seconds } => {
                let mut args = vec![Bytes::from("SET"), key.clone(), value.clone()];
                args.extend(
                    seconds.into_iter().flat_map(|seconds| [Bytes::from("EX"), owned(&seconds.to_string())]),
                );
                self.ask(args).await?;
                Answer::Stored { key: &key, value: &value, is_base64, seconds }.write(here, out);
            }
            Request::Get { key } => match found(self.ask([Bytes::from("GETV"), key.clone()]).await?) {
                Some((version, ttl, value)) => {
                    Answer::Found { key: &key, value: &value, ttl, version }.write(here, out)
                }
                None => Answer::NotFound { key: &key }.write(here, out),
            },
            Request::Delete { key } => match self.ask([Bytes::from("DEL"), key.clone()]).await? {
                Reply::Integer(1) => Answer::Deleted { key: &key }.write(here, out),
                _ => Answer::NotFound { key: &key }.write(here, out),
            },
            Request::Expire { key, seconds } => match self.expire(key.clone(), seconds).await? {
                true => Answer::Expires { key: &key, seconds }.write(here, out),
                false => Answer::NotFound { key: &key }.write(here, out),
            },
            Request::Keys => {
                let question = Question { scope: Door::Cluster, ..Question::new(self.asker, ["KEYS", "*"]) };
                if let Reply::List(list) = result(self.state.http.desk.ask(question).await)? {
                    return Ok(Rest::Keys(list));
                }
            }
            Request::Stats => Answer::Stats(self.stats()).write(here, out),
            Request::Status => Answer::Status(self.state.cluster().status()).write(here, out),
            Request::NodesOnly => Answer::Error { message: NODES_ONLY, code: None }.write(here, out),
        }
        Ok(Rest::None)
    }

    fn stats(&self) -> json::Stats {
        let published = &self.state.http.published;
        let totals = published.totals();
        let calls = |names: &[&str]| {
            let of = |name: &&str| {
                totals.commands.get(place_of(lookup(name.as_bytes())?)).map(|figures| figures.calls)
            };
            names.iter().filter_map(of).sum::<u64>()
        };
        json::Stats {
            total_requests: totals.commands.iter().map(|figures| figures.calls).sum(),
            get_requests: calls(&["get", "getv", "mget", "getex", "getdel", "getrange"]),
            set_requests: calls(&["set", "setv", "mset", "setex", "psetex", "setnx", "getset"]),
            delete_requests: calls(&["del", "delv", "unlink"]),
            expire_requests: calls(&["expire", "pexpire", "expireat", "pexpireat"]),
            total_keys: published.sum(|shard| &shard.keys),
            keys_with_ttl: published.sum(|shard| &shard.expires),
            uptime_seconds: (self.state.http.figures)().uptime_seconds,
            peers: self.state.cluster().peers(),
        }
    }

    fn authenticate(&mut self, password: &[u8]) -> Result<(), CommandError> {
        let settings = self.state.http.settings.get();
        let is_set = !settings.requirepass.as_str().is_empty() || !settings.adminpass.as_str().is_empty();
        match shown(&settings, password) {
            _ if !is_set => return Err(CommandError::NoPassword),
            Shown::Administrates => (*self.authenticated, *self.administrates) = (true, true),
            // Any lets in where only the other is set: but it is not what was meant.
            Shown::Enters if !settings.requirepass.as_str().is_empty() => *self.authenticated = true,
            Shown::Enters | Shown::Wrong => return Err(CommandError::WrongPass),
        }
        Ok(())
    }

    async fn expire(&self, key: Bytes, seconds: i64) -> Result<bool, CommandError> {
        let reply = self.ask([Bytes::from("EXPIRE"), key, owned(&seconds.to_string())]).await?;
        Ok(reply == Reply::Integer(1))
    }

    async fn ask(&self, args: impl IntoIterator<Item = Bytes>) -> Result<Reply<'static>, CommandError> {
        let administrates = *self.administrates;
        let question = Question { administrates, ..Question::new(self.asker, args) };
        result(self.state.http.desk.ask(question).await)
    }
}

fn owned(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn result(reply: Reply<'static>) -> Result<Reply<'static>, CommandError> {
    if let Reply::Error(error) = reply { Err(error) } else { Ok(reply) }
}

/// Version, whole seconds left, and value, of what GETV says.
fn found(reply: Reply<'static>) -> Option<(u64, i64, Vec<u8>)> {
    let Reply::Array(parts) = reply else { return None };
    let [Reply::Integer(version), Reply::Integer(left_ms), Reply::Bulk(value)] =
        <[Reply<'static>; 3]>::try_from(parts).ok()?
    else {
        return None;
    };
    // To the nearest second, as TTL says it.
    let ttl = if left_ms < 0 { -1 } else { left_ms.saturating_add(500) / 1000 };
    Some((u64::try_from(version).unwrap_or_default(), ttl, value.into_owned()))
}

fn copies_left(map: &placement::ClusterMap, id: NodeId) -> String {
    let copies = map.partitions.iter().filter(|state| state.copies.contains(id)).count();
    format!("{copies} copies to go")
}

fn text_error(error: &CommandError, out: &mut Vec<u8>) {
    text::Answer::Error(&error.to_string()).write(out);
}

fn json_error(error: &CommandError, here: &json::Here, out: &mut Vec<u8>) {
    let message = error.to_string();
    let code = message.split(' ').next();
    json::Answer::Error { message: &message, code }.write(here, out);
}
