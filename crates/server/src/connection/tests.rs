//! Clients on real sockets, before a shard that is a stand-in.

use crate::testing::{FakeNode, Told, with_both_drivers};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;
use storage::lent::HUGE_BYTES;

with_both_drivers! {
    replies_come_in_the_order_of_requests_however_these_are_cut,
    a_long_list_is_written_in_turns_and_alone,
    a_client_that_does_not_read_is_not_read_from,
    waiting_requests_are_bounded,
    quit_and_broken_requests_are_answered_before_the_connection_closes,
    hello_is_answered_in_the_protocol_that_it_chose,
    one_client_too_many_is_told_so,
    a_client_that_was_reset_is_closed_though_it_is_not_read_from,
    a_large_request_arrives_whole,
    a_huge_request_lends_its_buffer_and_others_around_it_do_not,
    a_stopping_node_answers_what_it_took,
    a_node_that_lets_its_clients_go_ends_each_with_its_last_reply_or_when_it_is_quiet,
    a_client_that_never_rests_is_let_go_when_patience_is_over,
}

fn connect(node: &FakeNode) -> TcpStream {
    let stream = TcpStream::connect(node.port).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn request(words: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    wire::resp::encode_request(&words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>(), &mut out);
    out
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn read_to_end(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

fn replies_come_in_the_order_of_requests_however_these_are_cut(driver: &str) {
    let node = FakeNode::alone_with(driver);
    let mut sent = Vec::new();
    let mut expected = String::new();
    for at in 0..500usize {
        let text = format!("{at}");
        // Delays that fall and rise, so that later requests are ready before earlier ones.
        let delay = format!("{}", (at * 7919) % 5);
        sent.extend(match at % 3 {
            0 => request(&["ECHO", &text]),
            1 => request(&["LATER", &delay, &text]),
            _ => format!("ECHO \"{text}\"\r\n").into_bytes(),
        });
        expected += &bulk(&text);
    }
    for piece in [1usize, 7, 1000, 1_000_000] {
        let mut stream = connect(&node);
        for part in sent.chunks(piece) {
            stream.write_all(part).unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(stream), expected, "in pieces of {piece}");
    }
}

/// A list of more than a turn writes comes whole and in its place, and nothing behind it runs before it is out.
fn a_long_list_is_written_in_turns_and_alone(driver: &str) {
    let node = FakeNode::alone_with(driver);
    let mut stream = connect(&node);
    const ITEMS: usize = 300_000;
    let mut sent = request(&["LATER", "3", "before"]);
    sent.extend(request(&["LIST", "1", &ITEMS.to_string()]));
    sent.extend(request(&["ECHO", "behind"]));
    sent.extend(request(&["QUIT"]));
    stream.write_all(&sent).unwrap();
    while node.ran.load(Ordering::SeqCst) < 2 {
        std::thread::yield_now();
    }
    // Nobody has read yet, and the socket cannot hold the list.
    assert_eq!(node.ran.load(Ordering::SeqCst), 2, "the next request waits");
    let items: String = (0..ITEMS).map(|item| bulk(&item.to_string())).collect();
    let expected = format!("{}*{ITEMS}\r\n{items}{}+OK\r\n", bulk("before"), bulk("behind"));
    assert!(read_to_end(stream) == expected, "the list comes whole, between the others");
    assert_eq!(node.ran.load(Ordering::SeqCst), 4);
}

fn a_client_that_does_not_read_is_not_read_from(driver: &str) {
    const BYTES: usize = 64 * 1024;
    const REQUESTS: usize = 2000;
    let node = FakeNode::alone_with(driver);
    let mut stream = connect(&node);
    let mut writer = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        writer.write_all(&request(&["BIG", &BYTES.to_string()]).repeat(REQUESTS)).unwrap();
    });
    let mut reply = vec![0; format!("${BYTES}\r\n").len() + BYTES + 2];
    for read in 1..=REQUESTS {
        stream.read_exact(&mut reply).unwrap();
        let ahead = node.ran.load(Ordering::SeqCst).saturating_sub(read);
        // A buffer of 1 MiB here, and what the system buffers between us.
        assert!(ahead < 500, "{ahead} requests of which no reply was read");
    }
    sender.join().unwrap();
}

fn waiting_requests_are_bounded(driver: &str) {
    let node = FakeNode::alone_with(driver);
    let mut stream = connect(&node);
    stream.set_nonblocking(true).unwrap();
    let many = request(&["NEVER"]).repeat(2_000_000);
    let (mut sent, mut blocked) = (0, 0);
    // The system's buffers are full when nothing has moved for a while: nobody reads any more.
    while blocked < 40 && sent < many.len() {
        match stream.write(&many[sent..]) {
            Ok(bytes) => {
                sent += bytes;
                blocked = 0;
            }
            Err(_) => {
                blocked += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    assert!(sent < many.len(), "all was read");
    let ran = node.ran.load(Ordering::SeqCst);
    // None was answered: it is still as new.
    assert_eq!(ran, 8);
}

fn quit_and_broken_requests_are_answered_before_the_connection_closes(driver: &str) {
    let node = FakeNode::alone_with(driver);
    for (last, reply) in [("QUIT\r\nECHO never\r\n", "+OK\r\n"), ("*1\r\n!", "-ERR Protocol error: ")] {
        let mut stream = connect(&node);
        stream.write_all(&request(&["LATER", "3", "first"])).unwrap();
        stream.write_all(last.as_bytes()).unwrap();
        let mut text = Vec::new();
        // Bytes that were never read may turn the end into a reset.
        let _ = stream.read_to_end(&mut text);
        let text = String::from_utf8(text).unwrap();
        let expected = bulk("first") + reply;
        assert!(text.starts_with(&expected) && !text.contains("never"), "{text}");
    }
}

fn hello_is_answered_in_the_protocol_that_it_chose(driver: &str) {
    let node = FakeNode::alone_with(driver);
    let mut stream = connect(&node);
    stream.write_all(b"NIL\r\nHELLO 3\r\nNIL\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(stream), "$-1\r\n%0\r\n_\r\n");
}

fn one_client_too_many_is_told_so(driver: &str) {
    let node = FakeNode::alone_with(driver);
    let mut held: Vec<TcpStream> = (0..3).map(|_| connect(&node)).collect();
    for stream in &mut held {
        stream.write_all(b"ECHO a\r\n").unwrap();
        stream.read_exact(&mut [0; 7]).unwrap();
    }
    assert_eq!(read_to_end(connect(&node)), "-ERR max number of clients reached\r\n");
    drop(held);
    node.wait_for(|told| (told == Told::Closed).then_some(()));
    let mut stream = connect(&node);
    stream.write_all(b"ECHO a\r\n").unwrap();
    stream.read_exact(&mut [0; 7]).unwrap();
}

fn a_client_that_was_reset_is_closed_though_it_is_not_read_from(driver: &str) {
    let node = FakeNode::alone_with(driver);
    let mut stream = connect(&node);
    // A reply that the client leaves unread turns its close into a reset.
    stream.write_all(b"ECHO a\r\n").unwrap();
    stream.peek(&mut [0; 7]).unwrap();
    stream.write_all(&request(&["NEVER"]).repeat(10_000)).unwrap();
    // No more of them than a new connection may have under way are run; what is behind them is left unread.
    while node.ran.load(Ordering::SeqCst) < 8 {
        std::thread::yield_now();
    }
    drop(stream);
    node.wait_for(|told| (told == Told::Closed).then_some(()));
}

fn a_large_request_arrives_whole(driver: &str) {
    let node = FakeNode::alone_with(driver);
    let mut stream = connect(&node);
    let value = "v".repeat(20 << 20);
    let mut writer = stream.try_clone().unwrap();
    let sent = request(&["ECHO", &value]);
    let sender = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut reply = vec![0; bulk(&value).len()];
    stream.read_exact(&mut reply).unwrap();
    assert!(reply == bulk(&value).into_bytes());
    sender.join().unwrap();
}

fn a_huge_request_lends_its_buffer_and_others_around_it_do_not(driver: &str) {
    let node = FakeNode::alone_with(driver);
    let mut stream = connect(&node);
    let value = "v".repeat(HUGE_BYTES + 1);
    let mut writer = stream.try_clone().unwrap();
    let rounds = [
        request(&["ECHO", "before"]),
        request(&["LENT", &value]),
        request(&["LENT", "little"]),
        request(&["ECHO", &value]),
        b"ECHO \"inline\"\r\n".to_vec(),
        request(&["ECHO", &value]),
        request(&["LENT", &value[1..]]),
    ];
    let sent = rounds.concat();
    let sender = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    let long = bulk(&value);
    let wanted = [&bulk("before"), ":1\r\n:0\r\n", &long, &bulk("inline"), &long, ":0\r\n"].concat();
    let mut replies = vec![0; wanted.len()];
    stream.read_exact(&mut replies).unwrap();
    assert!(replies == wanted.into_bytes());
    sender.join().unwrap();
}

fn a_stopping_node_answers_what_it_took(driver: &str) {
    let mut node = FakeNode::alone_with(driver);
    let mut stream = connect(&node);
    stream.write_all(&request(&["LATER", "20", "late"])).unwrap();
    while node.ran.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    node.running.take().unwrap().stop(false);
    assert_eq!(read_to_end(stream), bulk("late"));
}

fn a_node_that_lets_its_clients_go_ends_each_with_its_last_reply_or_when_it_is_quiet(driver: &str) {
    let mut node = FakeNode::alone_with(driver);
    let mut asks = connect(&node);
    let mut pipelines = connect(&node);
    let rests = connect(&node);
    asks.write_all(&request(&["LATER", "20", "late"])).unwrap();
    let two = [request(&["LATER", "20", "first"]), request(&["ECHO", "second"])].concat();
    pipelines.write_all(&two).unwrap();
    while node.ran.load(Ordering::SeqCst) < 3 {
        std::thread::yield_now();
    }
    // Nobody is let go because time is over.
    node.running.take().unwrap().end(Duration::from_secs(3600));
    assert_eq!(read_to_end(asks), bulk("late"));
    assert_eq!(read_to_end(pipelines), bulk("first") + &bulk("second"));
    assert_eq!(read_to_end(rests), "");
}

fn a_client_that_never_rests_is_let_go_when_patience_is_over(driver: &str) {
    let mut node = FakeNode::alone_with(driver);
    let mut stream = connect(&node);
    let requests = [request(&["LATER", "20", "late"]), b"*1\r\n$4\r\nPI".to_vec()].concat();
    stream.write_all(&requests).unwrap();
    while node.ran.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    // Half a request has come: it is not at rest, and never will be.
    node.running.take().unwrap().end(Duration::from_millis(300));
    assert_eq!(read_to_end(stream), bulk("late"));
}
