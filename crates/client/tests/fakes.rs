//! The client against nodes that misbehave as the test says: redirections, refusals, connections that break, half replies, silence.

mod fake;

use client::{Builder, Client, Error, ReadLevel, Reply, WriteLevel};
use fake::{Act, Fakes, Store, agreeable, closed_address, ok, say};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Long enough for everything here, unless the test wants the deadline to pass.
const PATIENCE: Duration = Duration::from_secs(30);

fn builder(fakes: &Fakes) -> Builder {
    let back_off = (Duration::from_millis(1), Duration::from_millis(20));
    Client::builder().seeds(fakes.seeds()).deadline(PATIENCE).back_off(back_off.0, back_off.1)
}

async fn one(script: impl Fn(&str, usize) -> Act + Send + Sync + 'static) -> (Fakes, Client) {
    let fakes = Fakes::start(vec![Box::new(script)]).await;
    let client = builder(&fakes).connect().await.unwrap();
    (fakes, client)
}

/// The slot of `foo`.
const FOO: u16 = 12182;

#[tokio::test]
async fn a_redirection_is_followed_and_remembered() {
    let to = Arc::new(std::sync::Mutex::new(String::new()));
    let redirect = to.clone();
    let store = Store::default();
    let fakes = Fakes::start(vec![
        Box::new(move |_, _| say(&format!("-MOVED {FOO} {}", redirect.lock().unwrap()))),
        Box::new(move |line, _| store.run(line)),
    ])
    .await;
    *to.lock().unwrap() = fakes.nodes[1].address.clone();
    let client = builder(&fakes).connect().await.unwrap();
    // Nodes tell it from now on; the client finds out by the redirection.
    fakes.tell(&[(0, 16383, &[1])]);
    client.set("foo", "1").await.unwrap();
    assert_eq!(client.get("foo").await.unwrap(), Some(b"1".to_vec()));
    assert_eq!(fakes.nodes[0].heard(), ["SET foo 1"]);
    assert_eq!(fakes.nodes[1].heard(), ["SET foo 1", "GET foo"]);
    // The redirection named one slot; the map that it made the client ask for has the others.
    while fakes.nodes.iter().map(|node| node.questions("CLUSTER SLOTS")).sum::<usize>() < 2 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn redirections_in_circles_end_at_the_deadline() {
    let to = Arc::new(std::sync::Mutex::new(String::new()));
    let redirect = to.clone();
    let (fakes, client) = one(move |_, _| say(&format!("-MOVED {FOO} {}", redirect.lock().unwrap()))).await;
    *to.lock().unwrap() = fakes.nodes[0].address.clone();
    let error = client.with_deadline(Duration::from_millis(200)).set("foo", "1").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("MOVED"), "{error}");
}

#[tokio::test]
async fn what_was_surely_not_done_is_sent_again() {
    for refusal in
        ["-TRYAGAIN moving", "-CLUSTERDOWN nobody", "-NOREPLICAS Not enough good replicas to write."]
    {
        let (fakes, client) = one(move |_, before| if before < 3 { say(refusal) } else { say(":1") }).await;
        assert_eq!(client.incr_by("foo", 1).await.unwrap(), 1);
        assert_eq!(fakes.nodes[0].heard(), ["INCRBY foo 1"; 4], "{refusal}");
    }
    let (_, client) = one(|_, _| say("-TRYAGAIN moving")).await;
    let error = client.with_deadline(Duration::from_millis(100)).incr_by("foo", 1).await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable { why } if why == "TRYAGAIN moving"), "{error}");
    assert!(!error.may_have_happened());
}

#[tokio::test]
async fn an_uncertain_write_is_never_sent_again_and_a_read_is() {
    let broken: [Act; 5] = [
        Act::SayAndClose(String::new()),
        Act::SayAndClose(":".into()),
        Act::SayAndClose(":1".into()),
        Act::SayAndClose("$5\r\nabc".into()),
        Act::Say("what is this\r\n".into()),
    ];
    for act in broken {
        let first = act.clone();
        let script = move |line: &str, before| match (line, before) {
            ("GET foo", 1) => say("$1\r\nx"),
            _ => first.clone(),
        };
        let (fakes, client) = one(script).await;
        let error = client.incr_by("foo", 1).await.unwrap_err();
        assert!(error.is_outcome_unknown() && error.may_have_happened(), "{act:?}: {error}");
        assert_eq!(client.get("foo").await.unwrap(), Some(b"x".to_vec()), "{act:?}");
        assert_eq!(fakes.nodes[0].heard(), ["INCRBY foo 1", "GET foo", "GET foo"], "{act:?}");
    }
    let unknown = "-UNKNOWN outcome unknown: the primary died";
    let (fakes, client) = one(move |_, before| if before == 0 { say(unknown) } else { say("$1\r\nx") }).await;
    let error = client.set("foo", "1").await.unwrap_err();
    assert!(matches!(&error, Error::OutcomeUnknown { why } if why == "the primary died"), "{error}");
    assert_eq!(client.get("foo").await.unwrap(), Some(b"x".to_vec()));
    assert_eq!(fakes.nodes[0].heard(), ["SET foo 1", "GET foo", "GET foo"]);
}

#[tokio::test]
async fn a_deadline_that_passes_after_sending_leaves_a_write_unknown() {
    let (fakes, client) = one(|_, _| Act::Silent).await;
    let client = client.with_deadline(Duration::from_millis(100));
    let error = client.set("foo", "1").await.unwrap_err();
    assert!(error.is_outcome_unknown(), "{error}");
    let error = client.get("foo").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert_eq!(fakes.nodes[0].heard(), ["SET foo 1", "GET foo"]);
}

#[tokio::test]
async fn a_node_that_refuses_connections_was_sent_nothing() {
    let fakes = Fakes::start(vec![Box::new(|_, _| say(":1"))]).await;
    fakes.tell_addresses(vec![(0, 16383, vec![closed_address().await])]);
    let client = builder(&fakes).connect().await.unwrap();
    let error = client.with_deadline(Duration::from_millis(100)).incr_by("foo", 1).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    // The node that lives is only found through the seed: the map names a dead one alone.
    fakes.tell(&[(0, 16383, &[0])]);
    assert_eq!(client.incr_by("foo", 1).await.unwrap(), 1);
    assert_eq!(fakes.nodes[0].heard(), ["INCRBY foo 1"]);
}

#[tokio::test]
async fn errors_of_the_request_are_given_at_once() {
    let (fakes, client) =
        one(|_, _| say("-WRONGTYPE Operation against a key holding the wrong kind of value")).await;
    assert!(matches!(client.incr_by("foo", 1).await, Err(Error::Server(_))));
    assert!(matches!(client.get("foo").await, Err(Error::Server(_))));
    assert_eq!(fakes.nodes[0].heard().len(), 2);
    let (_, client) = one(agreeable).await;
    assert!(matches!(client.get("foo").await, Err(Error::UnexpectedReply { .. })));
    assert!(matches!(client.command(&["WAIT", "1", "0"]).await, Err(Error::NotShared { .. })));
}

#[tokio::test]
async fn the_password_and_the_levels_open_every_connection() {
    let (fakes, client) = one(agreeable).await;
    client.set("foo", "1").await.unwrap();
    assert_eq!(
        fakes.nodes[0].questions("HELLO 3"),
        2,
        "one connection for the map, the next for the request"
    );
    let secret = builder(&fakes).password("secret").connect().await.unwrap();
    secret.set("foo", "1").await.unwrap();
    let questions = |line: &str| fakes.nodes[0].questions(line);
    assert!(questions("HELLO 3 AUTH default secret") > 0);
    assert_eq!(questions("CONSISTENCY READ stale WRITE one"), 0);
    let quick = secret.with_read_level(ReadLevel::Stale).with_write_level(WriteLevel::One);
    quick.set("foo", "2").await.unwrap();
    assert_eq!(questions("CONSISTENCY READ stale WRITE one"), 1);
    let error = builder(&fakes).password("guess").connect().await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }) && error.to_string().contains("WRONGPASS"), "{error}");
}

#[tokio::test]
async fn any_seed_will_do_and_none_is_told() {
    let fakes = Fakes::start(vec![Box::new(agreeable)]).await;
    let seeds = [closed_address().await, fakes.nodes[0].address.clone()];
    let client = Client::builder().seeds(&seeds).deadline(PATIENCE).connect().await.unwrap();
    client.set("foo", "1").await.unwrap();
    let dead = closed_address().await;
    let error = Client::builder().seeds([&dead]).connect().await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable { failures } if failures[0].0 == dead), "{error}");
    assert!(matches!(Client::builder().connect().await, Err(Error::Setup { .. })));
}

#[tokio::test]
async fn a_pipeline_goes_to_each_primary_and_answers_in_order() {
    let stores = [Store::default(), Store::default()].map(Arc::new);
    let scripts = stores.map(|store| {
        let script = move |line: &str, _| store.run(line);
        Box::new(script) as Box<dyn Fn(&str, usize) -> Act + Send + Sync>
    });
    let fakes = Fakes::start(scripts.into()).await;
    fakes.tell(&[(0, 8191, &[0]), (8192, 16383, &[1])]);
    let client = builder(&fakes).connect().await.unwrap();
    let mut pipeline = client.pipeline();
    for number in 0..500 {
        pipeline.set(format!("key:{number}"), number.to_string());
        pipeline.incr_by(format!("key:{number}"), 1000);
        pipeline.get(format!("key:{number}"));
    }
    pipeline.command(&["GET"]);
    assert_eq!(pipeline.len(), 1501);
    let results = pipeline.run().await;
    for (number, three) in results.chunks(3).take(500).enumerate() {
        let [Ok(set), Ok(incremented), Ok(got)] = three else { panic!("{three:?}") };
        let sum = 1000 + number as i64;
        assert_eq!(
            (set, incremented, got),
            (&Reply::ok(), &Reply::Integer(sum), &Reply::bulk(sum.to_string()))
        );
    }
    assert!(matches!(results[1500], Err(Error::Server(_))));
    assert!(fakes.nodes.iter().all(|node| node.heard().len() > 500), "each has its part");
    assert_eq!(fakes.nodes.iter().map(|node| node.heard().len()).sum::<usize>(), 1500);
}

#[tokio::test]
async fn a_pipeline_keeps_the_order_of_a_key_when_it_sends_again() {
    // The key is not served for the first requests, whatever they are.
    let (store, refusals) = (Store::default(), AtomicUsize::new(2));
    let script = move |line: &str, _: usize| {
        let left = refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() { say("-TRYAGAIN moving") } else { store.run(line) }
    };
    let (_, client) = one(script).await;
    let mut pipeline = client.pipeline();
    pipeline.set("foo", "1").incr_by("foo", 5).get("foo");
    let replies: Vec<Reply> = pipeline.run().await.into_iter().map(Result::unwrap).collect();
    assert_eq!(replies, [Reply::ok(), Reply::Integer(6), Reply::bulk("6")]);
    // One that is refused while a later one is done is not done after it.
    let store = Store::default();
    let (fakes, client) = one(move |line, _| match line {
        "SET foo 1" => say("-TRYAGAIN moving"),
        _ => store.run(line),
    })
    .await;
    let mut pipeline = client.pipeline();
    pipeline.set("foo", "1").set("foo", "2").get("foo");
    let results = pipeline.run().await;
    assert!(matches!(results[0], Err(Error::Overtaken { .. })), "{results:?}");
    assert_eq!(results[2].as_ref().unwrap(), &Reply::bulk("2"));
    assert_eq!(fakes.nodes[0].heard(), ["SET foo 1", "SET foo 2", "GET foo"]);
}

#[tokio::test]
async fn a_pipeline_says_of_each_request_what_became_of_it() {
    let (fakes, client) = one(|line, before| match line {
        "SET b 1" => Act::SayAndClose(String::new()),
        "GET c" if before == 0 => Act::SayAndClose(String::new()),
        "GET c" => say("$1\r\nx"),
        _ => ok(),
    })
    .await;
    let mut pipeline = client.pipeline();
    pipeline.set("a", "1").set("b", "1").get("c");
    let results = pipeline.run().await;
    assert_eq!(results[0].as_ref().unwrap(), &Reply::ok());
    assert!(results[1].as_ref().unwrap_err().is_outcome_unknown(), "{results:?}");
    assert_eq!(results[2].as_ref().unwrap(), &Reply::bulk("x"));
    assert_eq!(fakes.nodes[0].heard().iter().filter(|line| *line == "SET b 1").count(), 1);
}

#[tokio::test]
async fn stale_reads_go_to_the_nearest_copy_and_writes_to_the_primary() {
    let slow = |line: &str, _: usize| match line {
        "GET foo" => Act::SayAfter(Duration::from_millis(20), "$1\r\nx\r\n".into()),
        _ => ok(),
    };
    let fakes = Fakes::start(vec![Box::new(slow), Box::new(|_, _| say("$1\r\nx"))]).await;
    fakes.tell(&[(0, 16383, &[0, 1])]);
    let client = builder(&fakes).connections_per_node(1).connect().await.unwrap();
    let stale = client.with_read_level(ReadLevel::Stale);
    for _ in 0..200 {
        assert_eq!(stale.get("foo").await.unwrap(), Some(b"x".to_vec()));
    }
    let near = fakes.nodes[1].heard().len();
    assert!(near > 150, "only {near} of 200 went to the near copy");
    assert_eq!(fakes.nodes[1].questions("CONSISTENCY READ stale"), 1);
    stale.set("foo", "1").await.unwrap();
    client.get("foo").await.unwrap();
    assert_eq!(fakes.nodes[1].heard().len(), near, "writes, and reads of other levels, go to the primary");
}

#[tokio::test]
async fn a_copy_that_has_no_stale_reads_is_left_for_the_primary() {
    let to = Arc::new(std::sync::Mutex::new(String::new()));
    let redirect = to.clone();
    let fakes = Fakes::start(vec![
        Box::new(|_, _| say("$1\r\nx")),
        Box::new(move |_, _| say(&format!("-MOVED {FOO} {}", redirect.lock().unwrap()))),
    ])
    .await;
    *to.lock().unwrap() = fakes.nodes[0].address.clone();
    fakes.tell(&[(0, 16383, &[0, 1])]);
    let client = builder(&fakes).read_level(ReadLevel::Stale).connect().await.unwrap();
    fakes.tell(&[(0, 16383, &[0])]);
    for _ in 0..20 {
        assert_eq!(client.get("foo").await.unwrap(), Some(b"x".to_vec()));
    }
    assert!(fakes.nodes[1].heard().len() <= 1, "{:?}", fakes.nodes[1].heard());
}

#[tokio::test]
async fn many_that_find_the_map_old_ask_for_it_once() {
    let (fakes, client) = one(|_, before| if before == 0 { say("-TRYAGAIN moving") } else { ok() }).await;
    let calls: Vec<_> = (0..100)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { client.set(format!("key:{number}"), "1").await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let asked = fakes.nodes[0].questions("CLUSTER SLOTS");
    assert!((2..50).contains(&asked), "{asked} times for 100 calls");
}

#[tokio::test]
async fn tasks_share_connections_and_wait_where_queues_are_full() {
    let store = Store::default();
    let fakes = Fakes::start(vec![Box::new(move |line, _| store.run(line))]).await;
    let client = builder(&fakes).connections_per_node(1).queue_requests_max(1).connect().await.unwrap();
    let calls: Vec<_> = (0..500)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.incr_by("foo", 1).await })
        })
        .collect();
    let mut counts = Vec::new();
    for call in calls {
        counts.push(call.await.unwrap().unwrap());
    }
    counts.sort_unstable();
    assert_eq!(counts, (1..=500).collect::<Vec<i64>>());
    assert_eq!(fakes.nodes[0].questions("HELLO 3"), 1, "one connection for all");
}

#[tokio::test]
async fn a_call_that_is_dropped_before_it_is_sent_is_not_sent() {
    let held = Fakes::start(vec![Box::new(agreeable)]).await;
    // A node that accepts connections and greets nobody: requests for it stay queued.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    held.tell_addresses(vec![(0, 16383, vec![mute.local_addr().unwrap().to_string()])]);
    let client = builder(&held)
        .connections_per_node(1)
        .connect_timeout(Duration::from_secs(20))
        .connect()
        .await
        .unwrap();
    let error = client.with_deadline(Duration::from_millis(100)).set("foo", "1").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "it surely was not sent: {error}");
    // Now it greets whoever came: what was given up does not come with it.
    let (mut stream, _) = mute.accept().await.unwrap();
    let greeted = "%1\r\n$4\r\nmode\r\n$7\r\ncluster\r\n%0\r\n+OK\r\n+OK\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, greeted.as_bytes()).await.unwrap();
    let call = tokio::spawn(async move { client.set("foo", "2").await });
    let mut came = Vec::new();
    while !String::from_utf8_lossy(&came).contains("SET\r\n$3\r\nfoo\r\n$1\r\n2\r\n") {
        assert!(tokio::io::AsyncReadExt::read_buf(&mut stream, &mut came).await.unwrap() > 0);
    }
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"+OK\r\n").await.unwrap();
    call.await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&came).matches("SET\r\n$3\r\nfoo").count(), 1);
}

#[tokio::test]
async fn pushes_are_passed_over_and_answers_to_nothing_break_the_connection() {
    let (_, client) = one(|_, _| say(">2\r\n$10\r\ninvalidate\r\n_\r\n$1\r\nx")).await;
    assert_eq!(client.get("foo").await.unwrap(), Some(b"x".to_vec()));
    // The second answer answers nothing. What is sent after it must not be taken to have got it.
    let (_, client) = one(|line, _| match line {
        "SET foo 1" => say("+OK\r\n+OK"),
        _ => say("$1\r\nx"),
    })
    .await;
    client.set("foo", "1").await.unwrap();
    assert_eq!(client.get("foo").await.unwrap(), Some(b"x".to_vec()));
}
