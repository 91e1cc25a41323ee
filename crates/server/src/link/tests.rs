//! Two nodes of stand-ins, joined by real sockets.

use super::Links;
use crate::peers::Dialer;
use crate::proof::Secret;
use crate::testing::{FakeConfig, FakeNode, Told, forwarded, nodes, port, with_both_drivers};
use control::message::{Beat, Identity};
use node::Published;
use replication::message::Sender;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use storage::{Rope, Sink};
use types::{Endpoint, Incarnation, Instant, NodeId, ShardId};

with_both_drivers! {
    messages_arrive_in_order_with_their_proved_sender,
    a_link_is_made_again_after_its_node_has_come_back,
    strangers_hear_the_challenge_and_no_more,
}

fn config(id: u16, secret: &Secret, peers: &TcpListener, nodes: &str, driver: &str) -> FakeConfig {
    FakeConfig {
        id,
        incarnation: u64::from(id) * 10,
        secret: secret.clone(),
        peers: peers.try_clone().unwrap(),
        nodes: nodes.to_owned(),
        heart_to: None,
        maxclients: 10,
        io_driver: driver.into(),
    }
}

fn tell(node: &FakeNode, text: &str) {
    let mut stream = TcpStream::connect(node.port).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    for _ in text.lines() {
        stream.read_exact(&mut [0; 5]).unwrap();
    }
}

fn fill(out: &mut Rope, bytes: usize) {
    let out = out.bytes();
    out.resize(out.len() + bytes, 0);
}

#[test]
fn a_large_frame_is_taken_and_behind_it_as_much_as_may_wait() {
    let poll = mio::Poll::new().unwrap();
    let (dialer, _requests) = Dialer::new();
    let own = Endpoint::Shard(ShardId(0));
    let mut links =
        Links::new(own, poll.registry().try_clone().unwrap(), dialer, 1000, Arc::new(Published::new(1)));
    let queue = |links: &mut Links, bytes: usize| {
        links.queue(Instant(1), NodeId(2), own, |_, out| fill(out, bytes));
        (links.waiting_bytes(), links.drops())
    };
    // Little by little no more than once too much is reached.
    let other = Endpoint::Shard(ShardId(1));
    for bytes in [900, 200, 1] {
        links.queue(Instant(1), NodeId(2), other, |_, out| fill(out, bytes));
    }
    assert_eq!((links.waiting_bytes(), links.drops()), (1100, 1));
    let queue = |links: &mut Links, bytes: usize| {
        let (waits, drops) = queue(links, bytes);
        (waits - 1100, drops - 1)
    };
    assert_eq!(queue(&mut links, 900), (900, 0));
    // Little waits: were this dropped, it would be each time that it is sent again.
    assert_eq!(queue(&mut links, 10_000), (10_900, 0));
    // What is little is not dropped because of it, as much as may wait; another large one is.
    assert_eq!(queue(&mut links, 600), (11_500, 0));
    assert_eq!(queue(&mut links, 10_000), (11_500, 1));
    assert_eq!(queue(&mut links, 400), (11_900, 1));
    assert_eq!(queue(&mut links, 1), (11_900, 2));
}

fn messages_arrive_in_order_with_their_proved_sender(driver: &str) {
    let (a, b) = (port(), port());
    let (secret, nodes) = (Secret::draw().unwrap(), nodes(&[&a, &b]));
    let first = FakeNode::start(config(1, &secret, &a, &nodes, driver));
    let second = FakeNode::start(FakeConfig { heart_to: Some(1), ..config(2, &secret, &b, &nodes, driver) });
    // The third is larger than what waits for a link that is down, were it not the first that waits.
    tell(&second, "TELL 1 0 1 10\r\nTELL 1 0 2 100000\r\nTELL 1 0 3 3\r\n");
    let from = Sender { node: NodeId(2), incarnation: Incarnation(20), shard: ShardId(0) };
    let mut beat = None;
    for (sequence, bytes) in [(1, 10), (2, 100_000), (3, 3)] {
        let told = first.wait_for(|told| match told {
            Told::Beat(from, heartbeat) => {
                beat.get_or_insert((from, heartbeat));
                None
            }
            told => Some(told),
        });
        assert_eq!(told, Told::Shard(from, forwarded(sequence, bytes)));
    }
    let (from, heartbeat) = beat.unwrap_or_else(|| {
        first.wait_for(|told| if let Told::Beat(from, beat) = told { Some((from, beat)) } else { None })
    });
    assert_eq!(from, Identity { node: NodeId(2), incarnation: Incarnation(20), directory: 200 });
    assert!(matches!(heartbeat, Beat::Heartbeat { .. }));
    // Large ones, over many turns of a full socket.
    let many: String = (10..30).map(|at| format!("TELL 1 0 {at} 2000000\r\n")).collect();
    tell(&second, &many);
    for at in 10..30 {
        let told = first.wait_for(|told| if let Told::Beat(..) = told { None } else { Some(told) });
        assert!(
            told == Told::Shard(
                Sender { node: NodeId(2), incarnation: Incarnation(20), shard: ShardId(0) },
                forwarded(at, 2_000_000)
            )
        );
    }
}

fn a_link_is_made_again_after_its_node_has_come_back(driver: &str) {
    let (a, b) = (port(), port());
    let (secret, nodes) = (Secret::draw().unwrap(), nodes(&[&a, &b]));
    let first = FakeNode::start(config(1, &secret, &a, &nodes, driver));
    let second = FakeNode::start(config(2, &secret, &b, &nodes, driver));
    tell(&first, "TELL 2 0 1 1\r\n");
    second.wait_for(|told| matches!(told, Told::Shard(..)).then_some(()));
    drop(second);
    first.wait_for(|told| (told == Told::Lost(NodeId(2))).then_some(()));
    // Nobody accepts now: the message waits.
    tell(&first, "TELL 2 0 2 1\r\n");
    let second = FakeNode::start(FakeConfig { incarnation: 21, ..config(2, &secret, &b, &nodes, driver) });
    let told = second.wait_for(|told| matches!(told, Told::Shard(..)).then_some(told));
    let from = Sender { node: NodeId(1), incarnation: Incarnation(10), shard: ShardId(0) };
    assert_eq!(told, Told::Shard(from, forwarded(2, 1)));
}

fn strangers_hear_the_challenge_and_no_more(driver: &str) {
    let a = port();
    let nodes = nodes(&[&a]);
    let _node = FakeNode::start(config(1, &Secret::draw().unwrap(), &a, &nodes, driver));
    // Another protocol, a frame of 4 GiB, an empty one.
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0, 0, 0, 0]] {
        let mut stream = TcpStream::connect(a.local_addr().unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(bytes).unwrap();
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        assert!(heard.len() <= 38, "{heard:?}");
    }
}
