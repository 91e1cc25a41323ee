//! Who is let in, who is not, and what a dialer believes.

use super::*;
use crate::mailbox::{Mailbox, mailbox};
use mio::{Poll, Token, Waker};
use types::settings::Settings;
use types::{Incarnation, ShardId};

const SHARD: Endpoint = Endpoint::Shard(ShardId(0));

fn membership(node: u16, secret: &Secret, address: std::net::SocketAddr) -> Membership {
    let identity = Identity { node: NodeId(node), incarnation: Incarnation(1), directory: 1 };
    let nodes: Vec<String> = [1, 2, 3].map(|node| format!("{node}={address}")).into();
    let mut settings = Settings::default();
    settings.set("nodes", &nodes.join(",")).unwrap();
    let book = AddressBook::new(Arc::new(settings), None).unwrap();
    let published = Arc::new(Published::new(1));
    Membership { identity, secret: secret.clone(), book: Arc::new(book), published }
}

fn threads() -> (Threads, Mailbox<Mail>) {
    let poll = Poll::new().unwrap();
    let (post, mailbox) = mailbox(Waker::new(poll.registry(), Token(0)).unwrap());
    (Threads { shards: vec![post.clone()], control: post.clone(), heart: post }, mailbox)
}

fn to(node: u16, from: Endpoint, to: Endpoint) -> DialRequest {
    DialRequest { from, node: NodeId(node), to }
}

fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

#[test]
fn only_who_knows_the_secret_is_let_in() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (secret, other) = (Secret::draw().unwrap(), Secret::draw().unwrap());
        let (threads, mailbox) = threads();
        tokio::spawn(accept_all(Arc::new(membership(1, &secret, address)), threads, listener));

        let refusals = [
            (membership(2, &other, address), to(1, SHARD, SHARD), "another cluster"),
            (membership(1, &secret, address), to(1, SHARD, SHARD), "the same node_id"),
            (membership(0, &secret, address), to(1, SHARD, SHARD), "without a number"),
            (membership(2, &secret, address), to(3, SHARD, SHARD), "another node than was dialed"),
            (membership(2, &secret, address), to(1, SHARD, Endpoint::Control), "no such thread"),
            (membership(2, &secret, address), to(1, SHARD, Endpoint::Shard(ShardId(7))), "no such thread"),
            (membership(2, &secret, address), to(8, SHARD, SHARD), "neither the map nor"),
        ];
        for (dialer, request, why) in refusals {
            let error = dial_once(&dialer, request).await.unwrap_err().to_string();
            assert!(error.contains(why), "{error}, not {why}");
        }
        assert!(mailbox.take().is_none());

        // One that is not listed may be joining.
        dial_once(&membership(9, &secret, address), to(1, SHARD, SHARD)).await.unwrap();
        let accepted = loop {
            match mailbox.take() {
                Some(mail) => break mail,
                None => sleep(Duration::from_millis(1)).await,
            }
        };
        let Mail::Link(LinkMail::Accepted { identity, from, .. }) = accepted else { panic!("{accepted:?}") };
        assert_eq!((identity.node, from), (NodeId(9), SHARD));
    });
}

#[test]
fn a_forged_or_replayed_proof_is_refused() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let secret = Secret::draw().unwrap();
        let (threads, mailbox) = threads();
        tokio::spawn(accept_all(Arc::new(membership(1, &secret, address)), threads, listener));
        let mut hello = Hello {
            cluster_id: secret.cluster_id(),
            identity: membership(2, &secret, address).identity,
            from: SHARD,
            to_node: NodeId(1),
            to: SHARD,
            nonce: [7; 32],
            about: None,
            proof: [0; 32],
        };
        // A forged proof; then one that was right for an earlier challenge.
        for _ in 0..2 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let Frame::Challenge(challenge) = receive(&mut stream, HANDSHAKE_FRAME_BYTES_MAX).await.unwrap()
            else {
                panic!()
            };
            send(&mut stream, &Step::Hello(&hello)).await.unwrap();
            let Frame::Refused(why) = receive(&mut stream, HANDSHAKE_FRAME_BYTES_MAX).await.unwrap() else {
                panic!("let in")
            };
            assert!(why.contains("proof"), "{why}");
            hello.proof = secret.prove(&hello.proved(&challenge));
        }
        assert!(mailbox.take().is_none());
    });
}

#[test]
fn a_dialer_believes_only_who_knows_the_secret_and_is_whom_it_wants() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (secret, other) = (Secret::draw().unwrap(), Secret::draw().unwrap());
        let dialer = membership(2, &secret, address);
        for (answers, node, why) in [(&other, 1, "join secret"), (&secret, 3, "node 3 answers")] {
            let accept = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let challenge = Challenge { nonce: [1; 32] };
                send(&mut stream, &Step::Challenge(&challenge)).await.unwrap();
                let Frame::Hello(hello) = receive(&mut stream, HANDSHAKE_FRAME_BYTES_MAX).await.unwrap()
                else {
                    panic!()
                };
                let identity = membership(node, answers, address).identity;
                let mut welcome = Welcome { identity, about: None, proof: [0; 32] };
                welcome.proof = answers.prove(&welcome.proved(&challenge, &hello.nonce));
                send(&mut stream, &Step::Welcome(&welcome)).await.unwrap();
            };
            let (dialed, ()) = tokio::join!(dial_once(&dialer, to(1, SHARD, SHARD)), accept);
            let error = dialed.unwrap_err().to_string();
            assert!(error.contains(why), "{error}, not {why}");
        }
    });
}

fn at_level(membership: Membership, level: u64) -> Membership {
    membership.published.control.level.store(level, std::sync::atomic::Ordering::Relaxed);
    membership
}

/// Dials as a build does that says this of itself, and returns what the acceptor answers at the end.
async fn dial_as(address: std::net::SocketAddr, secret: &Secret, about: Option<About>) -> Frame {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let Frame::Challenge(challenge) = receive(&mut stream, HANDSHAKE_FRAME_BYTES_MAX).await.unwrap() else {
        panic!()
    };
    let mut hello = Hello {
        cluster_id: secret.cluster_id(),
        identity: membership(2, secret, address).identity,
        from: SHARD,
        to_node: NodeId(1),
        to: SHARD,
        nonce: [7; 32],
        about,
        proof: [0; 32],
    };
    hello.proof = secret.prove(&hello.proved(&challenge));
    send(&mut stream, &Step::Hello(&hello)).await.unwrap();
    receive(&mut stream, HANDSHAKE_FRAME_BYTES_MAX).await.unwrap()
}

#[test]
fn builds_agree_on_the_newest_format_that_both_have() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let secret = Secret::draw().unwrap();
        let (threads, mailbox) = threads();
        let acceptor = Arc::new(membership(1, &secret, address));
        tokio::spawn(accept_all(acceptor.clone(), threads, listener));

        let (_, spoken) = dial_once(&membership(2, &secret, address), to(1, SHARD, SHARD)).await.unwrap();
        let newest = Spoken { format: wire::peer::FORMAT_NEWEST, level: Level::HIGHEST };
        let oldest = Spoken { format: wire::peer::FORMAT_OLDEST, level: Level::FIRST };
        assert_eq!(spoken, newest);
        // A build that knows of no formats, and one that has newer ones, too.
        let later = About { newest: 9, level: Level(7), ..About::own(Level::HIGHEST, "9.0.0") };
        for (about, with_about) in [(None, false), (Some(later.clone()), true)] {
            let Frame::Welcome(welcome) = dial_as(address, &secret, about).await else {
                panic!("not let in")
            };
            assert_eq!(welcome.about, with_about.then(own_build));
        }
        let mut agreed = Vec::new();
        while agreed.len() < 3 {
            match mailbox.take() {
                Some(Mail::Link(LinkMail::Accepted { spoken, .. })) => agreed.push(spoken),
                _ => sleep(Duration::from_millis(1)).await,
            }
        }
        assert_eq!(agreed, [newest, oldest, Spoken { level: Level(7), ..newest }]);

        let gone_on = About { oldest: 8, ..later };
        let Frame::Refused(why) = dial_as(address, &secret, Some(gone_on)).await else { panic!("let in") };
        for part in ["node 2 speaks formats 8 to 9", "node 1 formats 2 to 4", "upgrade node 1"] {
            assert!(why.contains(part), "{why}");
        }
    });
}

#[test]
fn who_has_less_than_the_cluster_uses_gets_no_link() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let secret = Secret::draw().unwrap();
        let (threads, mailbox) = threads();
        tokio::spawn(accept_all(Arc::new(at_level(membership(1, &secret, address), 2)), threads, listener));
        let first = About { level: Level::FIRST, ..About::own(Level::HIGHEST, "0.0.9") };
        for (about, build) in [(None, "build has 1"), (Some(first), "build 0.0.9 has 1")] {
            let Frame::Refused(why) = dial_as(address, &secret, about).await else { panic!("let in") };
            assert!(why.contains("feature level 2, and node 2's") && why.contains(build), "{why}");
        }
        assert!(mailbox.take().is_none());

        // The other way round: it is dialed, as a build that says nothing of itself answers.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accept = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let challenge = Challenge { nonce: [1; 32] };
            send(&mut stream, &Step::Challenge(&challenge)).await.unwrap();
            let Frame::Hello(hello) = receive(&mut stream, HANDSHAKE_FRAME_BYTES_MAX).await.unwrap() else {
                panic!()
            };
            let identity = membership(1, &secret, address).identity;
            let mut welcome = Welcome { identity, about: None, proof: [0; 32] };
            welcome.proof = secret.prove(&welcome.proved(&challenge, &hello.nonce));
            send(&mut stream, &Step::Welcome(&welcome)).await.unwrap();
        };
        let dialer = at_level(membership(2, &secret, address), 2);
        let (dialed, ()) = tokio::join!(dial_once(&dialer, to(1, SHARD, SHARD)), accept);
        let error = dialed.unwrap_err().to_string();
        assert!(error.contains("feature level 2, and node 1's build has 1"), "{error}");
    });
}
