//! A request made ready: its bytes, where it goes, and what sending it twice would mean. The command table of room `command`
//! says all of that, so every command that the server has can be routed.
//!
//! A command whose keys may lie in several slots (`MGET`, `MSET`, `DEL`, ...) is split by slot into parts, since the cluster
//! door takes one slot at a time; the parts' replies are merged as the table says.

use crate::error::Error;
use crate::retry::Risk;
use bytes::Bytes;
use command::{Command, CommandError, Flags, Handler, Merge, Over, Reply, resolve};
use std::collections::BTreeMap;
use types::{SLOTS, Slot, slot_of_key};

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// To the primary of a slot; a stale read to any copy of it.
    Slot(Slot),
    /// To any node.
    Any,
    /// To a node's plain door, where it speaks for the whole cluster.
    Whole,
}

/// One request to one node.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) bytes: Bytes,
    pub(crate) route: Route,
    pub(crate) risk: Risk,
}

/// What a call comes to: one request or several, and how their replies are one.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) parts: Vec<Request>,
    merge: Option<Merging>,
}

#[derive(Clone, Debug)]
struct Merging {
    merge: Merge,
    /// For each part, which of the call's keys are its keys.
    places: Vec<Vec<usize>>,
    writes: bool,
}

/// Commands that change or concern the connection that they come by.
const OF_ONE_CONNECTION: &[&str] = &[
    "asking",
    "auth",
    "client",
    "consistency",
    "discard",
    "exec",
    "hello",
    "multi",
    "quit",
    "readonly",
    "readwrite",
    "reset",
    "select",
    "wait",
];

/// Makes a call ready, its name first.
pub(crate) fn plan(args: &[&[u8]]) -> Result<Plan, Error> {
    let command = resolve(args).map_err(Error::Server)?;
    if OF_ONE_CONNECTION.contains(&command.name) || OF_ONE_CONNECTION.contains(&command.parent) {
        return Err(Error::NotShared { command: command.full_name().replace('|', " ").to_ascii_uppercase() });
    }
    let route = match command.handler {
        Handler::Keys { over, .. } => return over_keys(command, over, args),
        Handler::Slot { at, .. } => Route::Slot(slot_argument(args.get(at).copied().unwrap_or_default())?),
        Handler::Changes => Route::Slot(slot_argument(args[1])?),
        Handler::Everywhere { .. } | Handler::Scan | Handler::Listing | Handler::RandomKey => Route::Whole,
        Handler::Session(_) | Handler::Clients(_) | Handler::Wait => Route::Any,
    };
    Ok(Plan { parts: vec![request(command, route, args)], merge: None })
}

fn over_keys(command: &Command, over: Over, args: &[&[u8]]) -> Result<Plan, Error> {
    let keys: Vec<usize> = command.key_positions(args).collect();
    let slots: Vec<Slot> = keys.iter().map(|&at| slot_of_key(args[at])).collect();
    let Some(&first) = slots.first() else {
        return Ok(Plan { parts: vec![request(command, Route::Any, args)], merge: None });
    };
    if slots.iter().all(|&slot| slot == first) {
        return Ok(Plan { parts: vec![request(command, Route::Slot(first), args)], merge: None });
    }
    let Over::Split(merge) = over else { return Err(Error::Server(CommandError::CrossSlot)) };
    let mut by_slot: BTreeMap<Slot, Vec<usize>> = BTreeMap::new();
    for (place, &slot) in slots.iter().enumerate() {
        by_slot.entry(slot).or_default().push(place);
    }
    let step = command.keys.step.max(1);
    let mut parts = Vec::with_capacity(by_slot.len());
    let mut places = Vec::with_capacity(by_slot.len());
    for (slot, of_part) in by_slot {
        let mut part = args[..command.keys.first].to_vec();
        for &place in &of_part {
            part.extend(args[keys[place]..].iter().take(step));
        }
        parts.push(request(command, Route::Slot(slot), &part));
        places.push(of_part);
    }
    Ok(Plan { parts, merge: Some(Merging { merge, places, writes: command.is_write() }) })
}

fn request(command: &Command, route: Route, args: &[&[u8]]) -> Request {
    let mut bytes = Vec::new();
    wire::resp::encode_request(args, &mut bytes);
    let session = matches!(command.handler, Handler::Session(_));
    let reads = command.flags.contains(Flags::READONLY)
        || (session && !command.flags.contains(Flags::ADMIN) && !command.is_write());
    let risk = match (reads, route) {
        (true, _) => Risk::None,
        (false, Route::Whole) => Risk::Spread,
        (false, _) => Risk::Twice,
    };
    Request { bytes: bytes.into(), route, risk }
}

fn slot_argument(text: &[u8]) -> Result<Slot, Error> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    let slot = number.filter(|&number: &u16| number < SLOTS);
    slot.map(Slot).ok_or_else(|| Error::Server(CommandError::Other("ERR Invalid slot".into())))
}

impl Plan {
    /// One reply of the parts' replies, which are in the order of the parts.
    pub(crate) fn merge(
        &self,
        mut replies: Vec<Result<Reply<'static>, Error>>,
    ) -> Result<Reply<'static>, Error> {
        let Some(merging) = &self.merge else {
            return replies
                .pop()
                .unwrap_or_else(|| Err(Error::Unavailable { why: "it was not sent".into() }));
        };
        if let Some(error) = merging.error(&replies) {
            return Err(error);
        }
        let replies = replies.into_iter().flatten();
        match merging.merge {
            Merge::Sum => {
                let mut sum = 0i64;
                for reply in replies {
                    match reply {
                        Reply::Integer(number) => sum = sum.saturating_add(number),
                        other => return Err(Error::unexpected(&other)),
                    }
                }
                Ok(Reply::Integer(sum))
            }
            Merge::AllOk => Ok(Reply::ok()),
            Merge::InKeyOrder => {
                let count = merging.places.iter().map(Vec::len).sum();
                let mut merged = vec![Reply::Null; count];
                for (reply, places) in replies.zip(&merging.places) {
                    match reply {
                        Reply::Array(items) if items.len() == places.len() => {
                            for (item, &place) in items.into_iter().zip(places) {
                                merged[place] = item;
                            }
                        }
                        other => return Err(Error::unexpected(&other)),
                    }
                }
                Ok(Reply::Array(merged))
            }
        }
    }
}

impl Merging {
    /// The whole's error, if a part has one: an unknown outcome first.
    fn error(&self, replies: &[Result<Reply<'static>, Error>]) -> Option<Error> {
        let errors = || replies.iter().filter_map(|reply| reply.as_ref().err());
        let worst = errors().find(|error| error.is_outcome_unknown()).or_else(|| errors().next())?;
        let all = errors().count() == replies.len();
        match self.writes && !all && !worst.is_outcome_unknown() {
            true => Some(Error::Partial { source: Box::new(worst.clone()) }),
            false => Some(worst.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(line: &str) -> Result<Plan, Error> {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        plan(&args)
    }

    /// Each part's risk, route and words.
    fn shown(line: &str) -> Vec<String> {
        let parts = planned(line).unwrap().parts;
        let words = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            text.lines().filter(|line| !line.starts_with(['*', '$'])).collect::<Vec<_>>().join(" ")
        };
        parts.iter().map(|part| format!("{:?} {:?} {}", part.risk, part.route, words(&part.bytes))).collect()
    }

    #[test]
    fn the_table_says_where_a_request_goes_and_what_twice_would_mean() {
        for (line, expected) in [
            ("get foo", "None Slot(Slot(12182)) get foo"),
            ("SET foo 1 NX", "Twice Slot(Slot(12182)) SET foo 1 NX"),
            ("put foo 1", "Twice Slot(Slot(12182)) put foo 1"),
            ("getdel foo", "Twice Slot(Slot(12182)) getdel foo"),
            ("object encoding foo", "None Slot(Slot(12182)) object encoding foo"),
            ("cluster countkeysinslot 7", "None Slot(Slot(7)) cluster countkeysinslot 7"),
            ("rename {foo}a {foo}b", "Twice Slot(Slot(12182)) rename {foo}a {foo}b"),
            ("ping", "None Any ping"),
            ("info server", "None Any info server"),
            ("config set timeout 1", "Twice Any config set timeout 1"),
            ("dbsize", "None Whole dbsize"),
            ("keys f*", "None Whole keys f*"),
            ("scan 0", "None Whole scan 0"),
            ("flushall", "Spread Whole flushall"),
        ] {
            assert_eq!(shown(line), [expected]);
        }
    }

    #[test]
    fn keys_of_several_slots_are_parted_with_what_belongs_to_them() {
        assert_eq!(
            shown("mset foo 1 {b}x 2 {foo}y 3"),
            ["Twice Slot(Slot(3300)) mset {b}x 2", "Twice Slot(Slot(12182)) mset foo 1 {foo}y 3"]
        );
        assert_eq!(shown("mget {foo}a {foo}b").len(), 1);
        assert!(matches!(planned("rename a b"), Err(Error::Server(CommandError::CrossSlot))));
        assert!(matches!(planned("msetnx a 1 b 2"), Err(Error::Server(CommandError::CrossSlot))));
    }

    #[test]
    fn bad_requests_are_refused_before_they_are_sent() {
        for line in ["get", "nonsense a", "mset a", "cluster countkeysinslot 99999"] {
            assert!(matches!(planned(line), Err(Error::Server(_))), "{line}");
        }
        for line in ["wait 1 0", "client reply off", "AUTH x", "hello 2", "multi", "consistency", "readonly"]
        {
            assert!(matches!(planned(line), Err(Error::NotShared { .. })), "{line}");
        }
        assert!(plan(&[]).is_err());
    }

    #[test]
    fn replies_are_merged_in_the_order_of_the_keys() {
        let plan = planned("mget foo {b}x {foo}y").unwrap();
        let array = |items: &[&str]| Ok(Reply::Array(items.iter().map(|&item| Reply::bulk(item)).collect()));
        let merged = plan.merge(vec![array(&["2"]), array(&["1", "3"])]).unwrap();
        assert_eq!(merged, Reply::Array(["1", "2", "3"].map(Reply::bulk).to_vec()));
        assert!(matches!(plan.merge(vec![array(&["2"]), array(&["1"])]), Err(Error::UnexpectedReply { .. })));
        let plan = planned("del foo {b}x").unwrap();
        assert_eq!(
            plan.merge(vec![Ok(Reply::Integer(1)), Ok(Reply::Integer(0))]).unwrap(),
            Reply::Integer(1)
        );
    }

    #[test]
    fn a_part_that_fails_is_told_by_what_became_of_the_others() {
        let late = || Err(Error::Unavailable { why: "late".into() });
        let unknown = || Err(Error::OutcomeUnknown { why: "broken".into() });
        let write = planned("mset foo 1 {b}x 2").unwrap();
        assert!(matches!(write.merge(vec![late(), late()]), Err(Error::Unavailable { .. })));
        assert!(matches!(write.merge(vec![Ok(Reply::ok()), late()]), Err(Error::Partial { .. })));
        assert!(matches!(write.merge(vec![late(), unknown()]), Err(Error::OutcomeUnknown { .. })));
        let read = planned("exists foo {b}x").unwrap();
        assert!(matches!(read.merge(vec![Ok(Reply::Integer(1)), late()]), Err(Error::Unavailable { .. })));
    }
}
