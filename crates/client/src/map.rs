//! The slot map as a client knows it: which addresses serve a slot, its primary first. Made from `CLUSTER SLOTS`, and corrected
//! by redirections until the next one.

use command::{CommandError, Reply};
use std::collections::HashMap;
use std::sync::Arc;
use types::{SLOTS, Slot};

/// `host:port` of a door.
pub(crate) type Address = Arc<str>;

/// No copies are known.
const NOBODY: u16 = u16::MAX;

/// Slots and who serves them.
#[derive(Debug)]
pub(crate) struct SlotMap {
    /// The cluster map's version that this shows, or a later one.
    pub(crate) version: u64,
    /// For each slot, its place in `copies`.
    slots: Vec<u16>,
    /// The sets of copies that there are, each with its primary first.
    copies: Vec<Vec<Address>>,
    places: HashMap<Vec<Address>, u16>,
    nodes: Vec<Address>,
}

impl SlotMap {
    /// A map that knows nothing.
    pub(crate) fn empty() -> SlotMap {
        SlotMap {
            version: 0,
            slots: vec![NOBODY; usize::from(SLOTS)],
            copies: Vec::new(),
            places: HashMap::new(),
            nodes: Vec::new(),
        }
    }

    /// Reads the reply to `CLUSTER SLOTS`. A node that does not name its own host is at `asked`. None where that is no such reply.
    pub(crate) fn read(version: u64, reply: &Reply<'_>, asked: &str) -> Option<SlotMap> {
        let Reply::Array(entries) = reply else { return None };
        let mut map = SlotMap { version, ..SlotMap::empty() };
        for entry in entries {
            let Reply::Array(fields) = entry else { return None };
            let [Reply::Integer(first), Reply::Integer(last), copies @ ..] = &fields[..] else { return None };
            let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
            let copies = copies.iter().map(|copy| endpoint(copy, asked)).collect::<Option<Vec<_>>>()?;
            let place = map.place(copies)?;
            map.slots.get_mut(first..=last)?.fill(place);
        }
        Some(map)
    }

    /// Where a set of copies stands; none where it is empty, or there are too many sets.
    fn place(&mut self, copies: Vec<Address>) -> Option<u16> {
        if let Some(&place) = self.places.get(&copies) {
            return Some(place);
        }
        let place =
            u16::try_from(self.copies.len()).ok().filter(|&place| place != NOBODY && !copies.is_empty())?;
        for node in &copies {
            if !self.nodes.contains(node) {
                self.nodes.push(node.clone());
            }
        }
        self.places.insert(copies.clone(), place);
        self.copies.push(copies);
        Some(place)
    }

    /// A node said that another serves this slot.
    pub(crate) fn moved(&mut self, slot: Slot, address: Address) {
        let place = self.place(vec![address]);
        if let (Some(place), Some(of_slot)) = (place, self.slots.get_mut(usize::from(slot.0))) {
            *of_slot = place;
        }
    }

    /// The copies of a slot, its primary first; empty where nobody serves it.
    pub(crate) fn copies(&self, slot: Slot) -> &[Address] {
        let place = self.slots.get(usize::from(slot.0)).copied().unwrap_or(NOBODY);
        self.copies.get(usize::from(place)).map_or(&[], Vec::as_slice)
    }

    /// Every address that it names.
    pub(crate) fn nodes(&self) -> &[Address] {
        &self.nodes
    }
}

/// `[host, port, ...]`.
fn endpoint(reply: &Reply<'_>, asked: &str) -> Option<Address> {
    let Reply::Array(fields) = reply else { return None };
    let (host, port) = match &fields[..] {
        [Reply::Bulk(host), Reply::Integer(port), ..] => (String::from_utf8_lossy(host), *port),
        [Reply::Null, Reply::Integer(port), ..] => ("".into(), *port),
        _ => return None,
    };
    let port = u16::try_from(port).ok().filter(|&port| port > 0)?;
    Some(join(&host, port, asked))
}

/// A host and a port; an empty host, or `?`, is that of `asked`.
pub(crate) fn join(host: &str, port: u16, asked: &str) -> Address {
    let host = match host {
        "" | "?" => host_of(asked),
        host => host,
    };
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}").into(),
        false => format!("{host}:{port}").into(),
    }
}

/// The address that a redirection names, as seen from the node that sent it. None where it is no redirection, or names nothing.
pub(crate) fn redirection(error: &CommandError, asked: &str) -> Option<(Slot, Address)> {
    let CommandError::Moved { slot, address } = error else { return None };
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok().filter(|&port: &u16| port > 0)?;
    (*slot < SLOTS).then(|| (Slot(*slot), join(host, port, asked)))
}

fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: &str, port: i64) -> Reply<'static> {
        Reply::Array(vec![Reply::bulk(host), Reply::Integer(port), Reply::bulk("id"), Reply::Map(Vec::new())])
    }

    fn range(first: i64, last: i64, nodes: &[(&str, i64)]) -> Reply<'static> {
        let mut fields = vec![Reply::Integer(first), Reply::Integer(last)];
        fields.extend(nodes.iter().map(|&(host, port)| node(host, port)));
        Reply::Array(fields)
    }

    fn copies(map: &SlotMap, slot: u16) -> Vec<&str> {
        map.copies(Slot(slot)).iter().map(|address| &**address).collect()
    }

    #[test]
    fn slots_have_their_primary_first_and_later_entries_count() {
        let reply = Reply::Array(vec![
            range(0, 0, &[("a", 1)]),
            range(0, 99, &[("a", 1), ("b", 2)]),
            range(100, 16383, &[("::1", 2), ("", 3)]),
        ]);
        let mut map = SlotMap::read(7, &reply, "seed:9").unwrap();
        assert_eq!(copies(&map, 0), ["a:1", "b:2"]);
        assert_eq!(copies(&map, 16383), ["[::1]:2", "seed:3"]);
        assert_eq!(
            map.nodes().iter().map(|node| &**node).collect::<Vec<_>>(),
            ["a:1", "b:2", "[::1]:2", "seed:3"]
        );
        map.moved(Slot(5), "c:4".into());
        assert_eq!((copies(&map, 4), copies(&map, 5)), (vec!["a:1", "b:2"], vec!["c:4"]));
        assert!(copies(&SlotMap::empty(), 5).is_empty());
    }

    #[test]
    fn nonsense_is_no_map() {
        for reply in [
            Reply::ok(),
            Reply::Array(vec![Reply::Null]),
            Reply::Array(vec![range(0, 16384, &[("a", 1)])]),
            Reply::Array(vec![range(-1, 5, &[("a", 1)])]),
            Reply::Array(vec![range(9, 5, &[("a", 1)])]),
            Reply::Array(vec![range(0, 5, &[])]),
            Reply::Array(vec![range(0, 5, &[("a", 70_000)])]),
            Reply::Array(vec![Reply::Array(vec![Reply::Integer(0), Reply::Integer(5), Reply::Null])]),
        ] {
            assert!(SlotMap::read(0, &reply, "s:1").is_none(), "{reply:?}");
        }
    }

    #[test]
    fn a_redirection_is_seen_from_who_sent_it() {
        let seen = |line: &str| {
            redirection(&CommandError::from_line(line), "h:1").map(|(slot, at)| format!("{} {at}", slot.0))
        };
        assert_eq!(seen("MOVED 5 other:7").as_deref(), Some("5 other:7"));
        assert_eq!(seen("MOVED 5 :7").as_deref(), Some("5 h:7"));
        assert_eq!(seen("MOVED 5 ::1:7").as_deref(), Some("5 [::1]:7"));
        for line in ["MOVED 5 nowhere", "MOVED 5 h:0", "MOVED 16384 h:1", "TRYAGAIN x"] {
            assert_eq!(seen(line), None, "{line}");
        }
    }
}
