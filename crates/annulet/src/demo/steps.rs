//! The steps of the demo, in their order: what is told, done, shown and checked.

use super::NODES;
use super::stage::{Broken, Stage};
use crate::launch::{Launch, TICK};
use crate::status::Status;
use client::{Connection, Options, Reply};
use config::host_port;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How many steps there are.
const STEPS: usize = 7;
/// Keys that are written before a node dies, and while it is away.
const KEYS: u32 = 1000;
const LATER_KEYS: u32 = 200;
/// The key that is looked at closely.
const KEY: &str = "user:42";
/// The longest wait for the cluster to find a node dead. Half a second is usual.
const DEATH: Duration = Duration::from_secs(30);
/// The fewest keys that a node of three should hold of [`KEYS`]: placement is even by partitions, so a third, and some chance.
const FAIR_SHARE: u64 = 200;

/// Which port of a node.
#[derive(Clone, Copy)]
enum Door {
    /// Answers any key, by asking whoever holds it.
    Plain,
    /// For cluster-aware clients: only what this node holds.
    Cluster,
}

/// The nodes that hold a key.
struct Holders {
    primary: u16,
    backup: u16,
    /// The node that has no copy.
    outsider: u16,
}

/// Says what is to come.
pub(super) fn welcome(stage: &mut Stage, directory: &Path) -> io::Result<()> {
    stage.tell(&format!(
        "This starts {NODES} Annulet nodes on this machine, in {}, and shows what they do: distribution, replication, forwarding, \
         and what becomes of the data when one of them dies.",
        directory.display()
    ))
}

/// All steps.
pub(super) fn play(stage: &mut Stage, launch: &mut Launch) -> Result<(), Broken> {
    started(stage, launch)?;
    distribution(stage, launch)?;
    let holders = replication(stage, launch)?;
    forwarding(stage, launch, &holders)?;
    death(stage, launch, &holders)?;
    reading_on(stage, launch, &holders)?;
    recovery(stage, launch, &holders)
}

fn connect(launch: &Launch, id: u16, door: Door) -> Result<Connection, Broken> {
    let step = match door {
        Door::Plain => 0,
        Door::Cluster => launch.settings.cluster_port - launch.settings.port,
    };
    let address = host_port(launch.cluster.host(), launch.cluster.port(id) + step);
    Ok(Connection::connect(&[address], Options::default())?)
}

fn ask(launch: &Launch, id: u16, door: Door, line: &str) -> Result<Reply<'static>, Broken> {
    let words: Vec<&str> = line.split(' ').collect();
    Ok(connect(launch, id, door)?.request(&words)?)
}

fn status(launch: &Launch, id: u16) -> Result<Status, Broken> {
    Ok(Status::ask(&mut connect(launch, id, Door::Plain)?)?.0)
}

fn shown(reply: &Reply<'_>) -> String {
    match reply {
        Reply::Bulk(bytes) => format!("\"{}\"", String::from_utf8_lossy(bytes)),
        Reply::Integer(number) => number.to_string(),
        Reply::Simple(text) => text.to_string(),
        Reply::Error(error) => error.to_string(),
        Reply::Null => "nothing".to_owned(),
        _ => "another kind of reply".to_owned(),
    }
}

/// Requests that are sent ahead of their replies, in order.
fn ask_all(launch: &Launch, id: u16, requests: &[Vec<String>]) -> Result<Vec<Reply<'static>>, Broken> {
    let (mut sender, mut replies) = connect(launch, id, Door::Plain)?.into_halves()?;
    let mut bytes = Vec::new();
    for words in requests {
        let words: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
        wire::resp::encode_request(&words, &mut bytes);
    }
    sender.write_all(&bytes)?;
    Ok(requests.iter().map(|_| replies.read()).collect::<io::Result<_>>()?)
}

fn write_all(launch: &Launch, id: u16, names: &str, count: u32) -> Result<usize, Broken> {
    let set = |n| vec!["SET".to_owned(), format!("{names}:{n}"), value_of(n)];
    let replies = ask_all(launch, id, &(1..=count).map(set).collect::<Vec<_>>())?;
    Ok(replies.iter().filter(|reply| **reply == Reply::ok()).count())
}

/// How many of these keys have the value that was written.
fn right_ones(launch: &Launch, id: u16, names: &str, count: u32) -> Result<usize, Broken> {
    let get = |n| vec!["GET".to_owned(), format!("{names}:{n}")];
    let replies = ask_all(launch, id, &(1..=count).map(get).collect::<Vec<_>>())?;
    Ok((1..=count).zip(replies).filter(|(n, reply)| *reply == Reply::bulk(value_of(*n))).count())
}

fn value_of(n: u32) -> String {
    format!("value {n}")
}

fn holders(launch: &Launch, asked: u16, key: &str) -> Result<(Option<u16>, Vec<u16>), Broken> {
    let reply = ask(launch, asked, Door::Plain, &format!("ANNULET HOLDERS {key}"))?;
    let Reply::Map(pairs) = &reply else {
        return Err(format!("ANNULET HOLDERS answers {}", shown(&reply)).into());
    };
    let id = |reply: &Reply<'_>| match reply {
        Reply::Integer(id) => u16::try_from(*id).ok(),
        _ => None,
    };
    let of = |name: &str| pairs.iter().find(|(key, _)| *key == Reply::bulk(name)).map(|(_, value)| value);
    let backups = match of("backups") {
        Some(Reply::Array(backups)) => backups.iter().filter_map(id).collect(),
        _ => Vec::new(),
    };
    Ok((of("primary").and_then(id), backups))
}

fn started(stage: &mut Stage, launch: &Launch) -> Result<(), Broken> {
    stage.step(
        STEPS,
        "a cluster",
        "Three processes that need nothing beside them. The data is cut into 1024 partitions, each kept in two copies on different \
         nodes: a primary, which orders writes, and a backup.",
    )?;
    let status = status(launch, 1)?;
    for node in &status.nodes {
        let address = host_port(&node.host, node.port);
        stage.show(&format!("node {} at {address}: primary of {} partitions", node.id, node.primaries))?;
    }
    stage.hint(&format!("annulet status --port {}", launch.cluster.port(1)))?;
    let partitions = &status.partitions;
    stage.check("every partition is served, in two copies", status.ok && status.nodes.len() == 3, || {
        format!("{} of {} served, {} short of a copy", partitions.served, partitions.total, partitions.short)
    })
}

fn distribution(stage: &mut Stage, launch: &Launch) -> Result<(), Broken> {
    stage.step(
        STEPS,
        "distribution",
        &format!("{KEYS} keys are written, all through node 1. A key's hash says to which partition it belongs, and so on which node it ends up."),
    )?;
    let written = write_all(launch, 1, "user", KEYS)?;
    stage.check(&format!("{KEYS} writes are acknowledged"), written == KEYS as usize, || {
        format!("{written} are")
    })?;
    let mut counts = Vec::new();
    for id in launch.cluster.ids() {
        // The door for cluster-aware clients speaks for this node's primaries alone.
        let count = match ask(launch, id, Door::Cluster, "DBSIZE")? {
            Reply::Integer(count) => count as u64,
            other => return Err(format!("DBSIZE answers {}", shown(&other)).into()),
        };
        stage.show(&format!("node {id} {:<34} {count} keys", "#".repeat((count / 15) as usize)))?;
        counts.push(count);
    }
    stage.hint(&format!("annulet cli --port {} stats", launch.cluster.port(1)))?;
    let total: u64 = counts.iter().sum();
    let is_even = total == u64::from(KEYS) && counts.iter().all(|count| *count >= FAIR_SHARE);
    stage.check("each node is primary of about a third of them", is_even, || format!("{counts:?}"))
}

fn replication(stage: &mut Stage, launch: &Launch) -> Result<Holders, Broken> {
    stage.step(
        STEPS,
        "replication",
        &format!("A write is acknowledged once both copies have it on disk. So {KEY} is not only on its primary: its backup can answer for it."),
    )?;
    let (primary, backups) = holders(launch, 1, KEY)?;
    let outsider = launch.cluster.ids().find(|id| Some(*id) != primary && !backups.contains(id));
    let (Some(primary), Some(&backup), Some(outsider)) = (primary, backups.first(), outsider) else {
        let seen = format!("primary {primary:?}, backups {backups:?}");
        return Err(Broken::Check { expected: format!("{KEY} has a primary and a backup"), seen });
    };
    stage.show(&format!(
        "primary of {KEY}: node {primary}; backup: node {backup}; no copy: node {outsider}"
    ))?;
    stage.hint(&format!("annulet cli --port {} get_nodes_for_key {KEY}", launch.cluster.port(1)))?;
    // READONLY lets a cluster-aware client read from a backup.
    let read_here = |id| -> Result<Reply<'static>, Broken> {
        let mut connection = connect(launch, id, Door::Cluster)?;
        connection.request(&["READONLY"])?;
        Ok(connection.request(&["GET", KEY])?)
    };
    let at_backup = read_here(backup)?;
    let right = at_backup == Reply::bulk(value_of(42));
    stage.check(&format!("node {backup}'s own copy has the value"), right, || shown(&at_backup))?;
    let at_outsider = read_here(outsider)?;
    let sends_on = shown(&at_outsider).starts_with("MOVED ");
    stage.check(&format!("node {outsider} has none, and names the node that has"), sends_on, || {
        shown(&at_outsider)
    })?;
    Ok(Holders { primary, backup, outsider })
}

fn forwarding(stage: &mut Stage, launch: &Launch, holders: &Holders) -> Result<(), Broken> {
    let Holders { primary, outsider, .. } = holders;
    stage.step(
        STEPS,
        "forwarding",
        "A client need not know any of this: whichever node it asks passes the request on to the primary. Cluster-aware clients, at \
         another port, are told where to go instead.",
    )?;
    let value = ask(launch, *outsider, Door::Plain, &format!("GET {KEY}"))?;
    stage.show(&format!("node {outsider}> GET {KEY}\n{}", shown(&value)))?;
    let right = value == Reply::bulk(value_of(42));
    stage.check(&format!("node {outsider}, without a copy, answers too"), right, || shown(&value))?;
    let mut counted = Vec::new();
    for id in launch.cluster.ids() {
        let count = ask(launch, id, Door::Plain, "INCR visits")?;
        stage.show(&format!("node {id}> INCR visits\n{}", shown(&count)))?;
        counted.push(count);
    }
    let in_order = counted == [1, 2, 3].map(Reply::Integer);
    stage.check("all three count the same visits", in_order, || {
        counted.iter().map(shown).collect::<Vec<_>>().join(", ")
    })?;
    let moved = ask(launch, *outsider, Door::Cluster, &format!("GET {KEY}"))?;
    stage.show(&format!("node {outsider}, cluster-aware> GET {KEY}\n{}", shown(&moved)))?;
    let port = launch.cluster.port(*primary) + launch.settings.cluster_port - launch.settings.port;
    let right = shown(&moved).starts_with("MOVED ") && shown(&moved).ends_with(&format!(":{port}"));
    stage.check(&format!("a cluster-aware client is sent to node {primary}"), right, || shown(&moved))
}

fn death(stage: &mut Stage, launch: &mut Launch, holders: &Holders) -> Result<(), Broken> {
    let Holders { primary, backup, outsider } = holders;
    stage.step(
        STEPS,
        "a node dies",
        &format!(
            "Node {primary}, the primary of {KEY}, is killed (SIGKILL) and cannot say goodbye. Until the others agree that it is dead \
             nobody answers for its partitions: requests wait, and no stale answer is given."
        ),
    )?;
    let mut asker = connect(launch, *outsider, Door::Plain)?;
    let killed_at = Instant::now();
    let Some(mut killed) = launch.nodes.kill(*primary)? else {
        return Err(format!("node {primary} does not run any more").into());
    };
    let value = asker.request(&["GET", KEY])?;
    let waited = killed_at.elapsed();
    killed.wait()?;
    stage.show(&format!("killed process {}", killed.id()))?;
    stage.show(&format!(
        "node {outsider}> GET {KEY}\n{} (after {} ms)",
        shown(&value),
        waited.as_millis()
    ))?;
    let right = value == Reply::bulk(value_of(42));
    stage.check("the read waits for the failover and then has the value", right, || shown(&value))?;
    let (now, _) = self::holders(launch, *outsider, KEY)?;
    stage.check(
        &format!("node {backup}, which was the backup, is the primary now"),
        now == Some(*backup),
        || now.map_or("there is none".to_owned(), |id| format!("node {id} is")),
    )
}

fn reading_on(stage: &mut Stage, launch: &Launch, holders: &Holders) -> Result<(), Broken> {
    let Holders { primary: dead, outsider: asked, .. } = holders;
    stage.step(
        STEPS,
        "reading and writing on",
        &format!(
            "With node {dead} gone all data is served by the other two. What it held is down to one copy until it comes back (or, after \
             five minutes, until the others have made copies of their own)."
        ),
    )?;
    let right = right_ones(launch, *asked, "user", KEYS)?;
    stage.check(
        &format!("all {KEYS} keys are there, with the values that were acknowledged"),
        right == KEYS as usize,
        || format!("{right} are"),
    )?;
    let written = write_all(launch, *asked, "later", LATER_KEYS)?;
    let all = written == LATER_KEYS as usize;
    stage.check(&format!("{LATER_KEYS} more are written meanwhile"), all, || format!("{written} are"))?;
    let began = Instant::now();
    let (state, status) = loop {
        stage.go_on()?;
        let status = status(launch, *asked)?;
        let state = status.node(*dead).map_or("gone".to_owned(), |node| node.state.clone());
        if state == "FAILED" || began.elapsed() > DEATH {
            break (state, status);
        }
        std::thread::sleep(TICK);
    };
    stage.show(&format!(
        "node {dead}: {state}; {} of {} partitions served, {} of them by their last copy",
        status.partitions.served, status.partitions.total, status.partitions.at_risk
    ))?;
    stage.hint(&format!("annulet status --port {}", launch.cluster.port(*asked)))?;
    let is_told = state == "FAILED"
        && status.partitions.served == status.partitions.total
        && status.partitions.at_risk > 0;
    stage.check("the status says so: all is served, and what is at risk", is_told, || {
        format!(
            "node {dead} is {state}, {} served, {} at risk",
            status.partitions.served, status.partitions.at_risk
        )
    })
}

fn recovery(stage: &mut Stage, launch: &mut Launch, holders: &Holders) -> Result<(), Broken> {
    let Holders { primary: back, outsider, .. } = holders;
    stage.step(
        STEPS,
        "recovery",
        &format!(
            "Node {back} is started again. It reads its log back and is sent what it missed while the others serve; some seconds later \
             it takes back its share of the primaries."
        ),
    )?;
    launch.start_one(*back)?;
    watch_recovery(stage, launch, *back, *outsider)?;
    let status = status(launch, *outsider)?;
    let whole = status.ok && status.partitions.short == 0;
    stage.check("every copy is in sync again, and nothing is at risk", whole, || status.moves_words())?;
    // A key that was written while the node was away, and of which it keeps a copy.
    let mut mine = None;
    for n in 1..=LATER_KEYS {
        let key = format!("later:{n}");
        let (primary, backups) = self::holders(launch, *outsider, &key)?;
        if primary == Some(*back) || backups.contains(back) {
            mine = Some((n, key));
            break;
        }
    }
    let Some((n, key)) = mine else {
        let expected = format!("node {back} keeps copies of keys that were written while it was away");
        return Err(Broken::Check { expected, seen: "it keeps none".to_owned() });
    };
    let mut connection = connect(launch, *back, Door::Cluster)?;
    connection.request(&["READONLY"])?;
    let value = connection.request(&["GET", &key])?;
    let right = value == Reply::bulk(value_of(n));
    stage.check(&format!("its own copy has {key}, which was written while it was away"), right, || {
        shown(&value)
    })?;
    let right = right_ones(launch, *back, "user", KEYS)? + right_ones(launch, *back, "later", LATER_KEYS)?;
    let all = (KEYS + LATER_KEYS) as usize;
    stage.check(&format!("all {all} keys are there, asked at node {back}"), right == all, || {
        format!("{right} are")
    })
}

/// Shows how far a node that came back is, as another one sees it, until all is in sync.
fn watch_recovery(stage: &Stage, launch: &mut Launch, back: u16, asked: u16) -> Result<(), Broken> {
    let began = Instant::now();
    let (mut connection, mut said) = (None, String::new());
    loop {
        stage.go_on()?;
        if let Some(ended) = launch.nodes.ended()?.first() {
            return Err(launch.obituary(ended).into());
        }
        let status = launch.ask(asked, &mut connection);
        let words = match status.as_ref().and_then(|status| status.node(back)) {
            None => format!("node {asked} does not tell"),
            Some(node) => {
                format!("{}, {} of its {} copies in sync", node.state, node.in_sync, node.copies)
            }
        };
        if words != said {
            stage.show(&format!("after {:>5} ms: {words}", began.elapsed().as_millis()))?;
            said = words;
        }
        if status.is_some_and(|status| status.ok && status.is_at_rest()) {
            return Ok(());
        }
        if began.elapsed() > 2 * DEATH {
            let expected = format!("node {back} has caught up within {} s", 2 * DEATH.as_secs());
            return Err(Broken::Check { expected, seen: said });
        }
        std::thread::sleep(4 * TICK);
    }
}
