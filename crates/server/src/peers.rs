//! Other nodes: dialing and accepting, and the proof of membership before a connection becomes a link.
//!
//! The proof also tells of the two builds: the link's format is the newest that both have, and a node whose build has less than the
//! cluster uses gets no link, in either direction, and is told why.
//!
//! Handshakes run on a small runtime beside the loops. What comes out of one is a plain nonblocking socket, posted
//! to the thread that the link is meant for. Nothing after the handshake is read here.

use crate::address_book::AddressBook;
use crate::link::{LinkMail, Spoken};
use crate::proof::{self, Secret};
use crate::threads::{Mail, Threads};
use bytes::Bytes;
use control::message::Identity;
use node::{BUILD, Published};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};
use types::{Endpoint, Incarnation, Level, NodeId};
use wire::peer::handshake::Step;
use wire::peer::{
    About, Challenge, Frame, FrameError, HANDSHAKE_FRAME_BYTES_MAX, Hello, LENGTH_BYTES, NODES_BYTES_MAX,
    Welcome, body_bytes, decode, encode_handshake,
};

const CONNECT_TIMEOUT: Duration = Duration::from_millis(700);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// A link whose bytes nobody acknowledges for this long is broken.
const USER_TIMEOUT_MS: u32 = 2000;
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Handshakes under way with those who dialed us.
const HANDSHAKES_MAX: usize = 256;

/// Asks for a link to a thread of another node. Answered by [`LinkMail::Dialed`].
#[derive(Clone, Copy, Debug)]
pub struct DialRequest {
    /// The thread of this node that asks.
    pub from: Endpoint,
    /// The node.
    pub node: NodeId,
    /// Its thread.
    pub to: Endpoint,
}

/// Where dial requests go. A link has one under way at most, which bounds the queue.
#[derive(Clone, Debug)]
pub struct Dialer(mpsc::UnboundedSender<DialRequest>);

impl Dialer {
    /// A dialer, and what [`run`] serves it from.
    pub fn new() -> (Dialer, mpsc::UnboundedReceiver<DialRequest>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Dialer(sender), receiver)
    }

    /// Asks for a link. Nothing comes of it when the node is stopping.
    pub fn dial(&self, request: DialRequest) {
        let _ = self.0.send(request);
    }
}

/// What both ends of a handshake need to know.
pub struct Membership {
    /// Who we are.
    pub identity: Identity,
    /// What members know.
    pub secret: Secret,
    /// Where the other nodes are.
    pub book: Arc<AddressBook>,
    /// What the cluster's level is, and where to tell of other nodes' builds.
    pub published: Arc<Published>,
}

/// What this node says of its build.
fn own_build() -> About {
    About::own(Level::HIGHEST, BUILD)
}

/// The node that a hello is to where the dialer does not know who answers: it wants to join.
const WHOEVER: NodeId = NodeId(0);

/// Asks the node at a peer address for what a joiner has to know ([`AddressBook::answer`]). `me`: the number that it wants to have; 0
/// for any. Blocks, for a few seconds at most.
pub fn ask_to_join(address: &str, me: NodeId, secret: &Secret) -> Result<String, String> {
    let ask = async {
        let connect = timeout(CONNECT_TIMEOUT, TcpStream::connect(address));
        let mut stream = connect.await.map_err(|_| HandshakeError::Timeout)??;
        let identity = Identity { node: me, incarnation: Incarnation(0), directory: 0 };
        let request = DialRequest { from: Endpoint::Control, node: WHOEVER, to: Endpoint::Control };
        say_hello(secret, identity, request, Level::FIRST, &mut stream).await?;
        match receive(&mut stream, NODES_BYTES_MAX).await? {
            Frame::Nodes(nodes) => Ok(nodes),
            _ => Err(HandshakeError::Unexpected),
        }
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let asked = runtime.block_on(async { timeout(HANDSHAKE_TIMEOUT, ask).await });
    asked.map_err(|_| HandshakeError::Timeout.to_string())?.map_err(|error: HandshakeError| error.to_string())
}

/// Why a handshake failed.
#[derive(Debug, Error)]
enum HandshakeError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("no answer in time")]
    Timeout,
    #[error("neither the map nor the `nodes` setting says where it is")]
    NotKnown,
    #[error("an unexpected frame in the handshake")]
    Unexpected,
    #[error("refused: {0}")]
    Refused(String),
    #[error("{0}")]
    Refuse(String),
    #[error("{0}")]
    Formats(String),
    #[error("{0}")]
    TooOld(String),
    #[error(
        "node {found} answers at this address: correct the `nodes` setting, or start the node there, so that it says where it is"
    )]
    OtherNode { found: NodeId },
    #[error("it does not know this cluster's join secret: copy join.secret from a node that does")]
    NoProof,
}

/// Dials and accepts until the runtime is dropped.
pub async fn run(
    membership: Arc<Membership>,
    threads: Threads,
    listener: TcpListener,
    mut requests: mpsc::UnboundedReceiver<DialRequest>,
) {
    tokio::spawn(accept_all(membership.clone(), threads.clone(), listener));
    let said = Arc::new(Said::default());
    while let Some(request) = requests.recv().await {
        tokio::spawn(dial(membership.clone(), threads.clone(), said.clone(), request));
    }
}

/// What was last said of each node in the log, so that a node that is down is told of once.
#[derive(Debug, Default)]
struct Said(Mutex<BTreeMap<NodeId, String>>);

impl Said {
    fn reached(&self, node: NodeId) {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&node).is_some() {
            info!(node = node.0, "reached the node");
        }
    }

    fn failed(&self, node: NodeId, error: &HandshakeError) {
        let text = error.to_string();
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.get(&node) != Some(&text) {
            warn!(node = node.0, %error, "cannot reach the node");
            said.insert(node, text);
        }
    }
}

async fn dial(membership: Arc<Membership>, threads: Threads, said: Arc<Said>, request: DialRequest) {
    let link = match dial_once(&membership, request).await {
        Ok(link) => {
            said.reached(request.node);
            Some(link)
        }
        Err(error) => {
            said.failed(request.node, &error);
            None
        }
    };
    if let Some(post) = threads.post(request.from) {
        post.send(Mail::Link(LinkMail::Dialed { node: request.node, to: request.to, link }));
    }
}

async fn dial_once(
    membership: &Membership,
    request: DialRequest,
) -> Result<(std::net::TcpStream, Spoken), HandshakeError> {
    let mut failed = HandshakeError::NotKnown;
    for (host, port) in membership.book.addresses(request.node) {
        match dial_at(membership, request, &host, port).await {
            Ok(link) => return Ok(link),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

async fn dial_at(
    membership: &Membership,
    request: DialRequest,
    host: &str,
    port: u16,
) -> Result<(std::net::TcpStream, Spoken), HandshakeError> {
    let connect = TcpStream::connect((host, port));
    let mut stream = timeout(CONNECT_TIMEOUT, connect).await.map_err(|_| HandshakeError::Timeout)??;
    tune(&stream)?;
    let level = membership.published.level();
    let handshake = say_hello(&membership.secret, membership.identity, request, level, &mut stream);
    let (welcome, spoken) =
        timeout(HANDSHAKE_TIMEOUT, handshake).await.map_err(|_| HandshakeError::Timeout)??;
    membership.saw(welcome.identity, spoken, welcome.about.as_ref());
    Ok((stream.into_std()?, spoken))
}

/// `level`: the cluster's; who has less is not spoken to.
async fn say_hello(
    secret: &Secret,
    identity: Identity,
    request: DialRequest,
    level: Level,
    stream: &mut TcpStream,
) -> Result<(Welcome, Spoken), HandshakeError> {
    let challenge = match receive(stream, HANDSHAKE_FRAME_BYTES_MAX).await? {
        Frame::Challenge(challenge) => challenge,
        Frame::Refused(why) => return Err(HandshakeError::Refused(why)),
        _ => return Err(HandshakeError::Unexpected),
    };
    let own = own_build();
    let about = match challenge.formats() {
        None => None,
        Some((oldest, newest)) => {
            let acceptor = About { oldest, newest, ..About::unsaid() };
            if own.format_with(&acceptor).is_none() {
                return Err(HandshakeError::Formats(no_common_format(
                    request.node,
                    &acceptor,
                    identity.node,
                    &own,
                )));
            }
            Some(own.clone())
        }
    };
    let mut hello = Hello {
        cluster_id: secret.cluster_id(),
        identity,
        from: request.from,
        to_node: request.node,
        to: request.to,
        nonce: proof::nonce()?,
        about,
        proof: Default::default(),
    };
    hello.proof = secret.prove(&hello.proved(&challenge));
    send(stream, &Step::Hello(&hello)).await?;
    let welcome = match receive(stream, HANDSHAKE_FRAME_BYTES_MAX).await? {
        Frame::Welcome(welcome) => welcome,
        Frame::Refused(why) => return Err(HandshakeError::Refused(why)),
        _ => return Err(HandshakeError::Unexpected),
    };
    if !secret.holds(&welcome.proved(&challenge, &hello.nonce), &welcome.proof) {
        return Err(HandshakeError::NoProof);
    }
    if welcome.identity.node != request.node && request.node != WHOEVER {
        return Err(HandshakeError::OtherNode { found: welcome.identity.node });
    }
    if welcome.about.is_some() != hello.about.is_some() {
        return Err(HandshakeError::Unexpected);
    }
    let acceptor = welcome.about.clone().unwrap_or_else(About::unsaid);
    let format = own.format_with(&acceptor).ok_or(HandshakeError::Unexpected)?;
    if acceptor.level < level {
        return Err(HandshakeError::TooOld(too_old(welcome.identity.node, &acceptor, level)));
    }
    Ok((welcome, Spoken { format, level: acceptor.level }))
}

/// Why two builds have nothing to say to each other, and what to do. `theirs`: the one at the other end.
fn no_common_format(they: NodeId, theirs: &About, we: NodeId, ours: &About) -> String {
    let behind = if theirs.newest < ours.oldest { they } else { we };
    format!(
        "node {they} speaks formats {} to {} of the peer protocol, and node {we} formats {} to {}: upgrade node {behind}, by way of a \
         build that has one of the other's",
        theirs.oldest, theirs.newest, ours.oldest, ours.newest
    )
}

/// Why a node's build does not do any more, and what to do.
fn too_old(node: NodeId, about: &About, level: Level) -> String {
    let build = if about.build.is_empty() { String::new() } else { format!(" {}", about.build) };
    // One that joins may have no number yet.
    let whose = if node == NodeId(0) { "the joining node's".to_owned() } else { format!("node {node}'s") };
    format!(
        "the cluster has come to feature level {level}, and {whose} build{build} has {}: start a build there that has level {level}",
        about.level
    )
}

impl Membership {
    /// A node has proved who it is.
    fn saw(&self, identity: Identity, spoken: Spoken, about: Option<&About>) {
        let build = about.map_or("", |about| &about.build);
        self.published.builds.saw(identity.node, identity.incarnation, spoken.level, build);
    }
}

async fn accept_all(membership: Arc<Membership>, threads: Threads, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut warned: Option<tokio::time::Instant> = None;
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if warned.is_none_or(|at| at.elapsed() > Duration::from_secs(10)) {
                    warn!(%error, "cannot accept a connection on peer_port");
                    warned = Some(tokio::time::Instant::now());
                }
                // Most likely the process is out of file descriptors: others have to go first.
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (membership, threads) = (membership.clone(), threads.clone());
        tokio::spawn(async move {
            if let Err(error) = accept_one(&membership, &threads, stream).await {
                debug!(%address, %error, "a connection on peer_port was not let in");
            }
            drop(place);
        });
    }
}

async fn accept_one(
    membership: &Membership,
    threads: &Threads,
    mut stream: TcpStream,
) -> Result<(), HandshakeError> {
    tune(&stream)?;
    let handshake = hear_hello(membership, threads, &mut stream);
    let (hello, spoken) =
        timeout(HANDSHAKE_TIMEOUT, handshake).await.map_err(|_| HandshakeError::Timeout)??;
    if hello.to_node == WHOEVER {
        let answer = membership.book.answer(hello.identity.node);
        return send(&mut stream, &Step::Nodes(&answer)).await;
    }
    membership.saw(hello.identity, spoken, hello.about.as_ref());
    let stream = stream.into_std()?;
    if let Some(post) = threads.post(hello.to) {
        let (identity, from) = (hello.identity, hello.from);
        post.send(Mail::Link(LinkMail::Accepted { stream, identity, from, spoken }));
    }
    Ok(())
}

async fn hear_hello(
    membership: &Membership,
    threads: &Threads,
    stream: &mut TcpStream,
) -> Result<(Hello, Spoken), HandshakeError> {
    let challenge = Challenge::marked(proof::nonce()?);
    send(stream, &Step::Challenge(&challenge)).await?;
    let Frame::Hello(hello) = receive(stream, HANDSHAKE_FRAME_BYTES_MAX).await? else {
        return Err(HandshakeError::Unexpected);
    };
    let spoken = match admit(membership, threads, &challenge, &hello) {
        Ok(spoken) => spoken,
        Err(why) => {
            if hello.cluster_id == membership.secret.cluster_id() {
                warn!(node = hello.identity.node.0, why, "refused a node on peer_port");
            }
            send(stream, &Step::Refused(&why)).await?;
            return Err(HandshakeError::Refuse(why));
        }
    };
    let about = hello.about.is_some().then(own_build);
    let mut welcome = Welcome { identity: membership.identity, about, proof: Default::default() };
    welcome.proof = membership.secret.prove(&welcome.proved(&challenge, &hello.nonce));
    send(stream, &Step::Welcome(&welcome)).await?;
    Ok((hello, spoken))
}

/// Whether the dialer may have its link; why not, in words for its operator.
fn admit(
    membership: &Membership,
    threads: &Threads,
    challenge: &Challenge,
    hello: &Hello,
) -> Result<Spoken, String> {
    let (identity, own) = (membership.identity, own_build());
    check_claims(membership, threads, challenge, hello)?;
    let about = hello.about.clone().unwrap_or_else(About::unsaid);
    let Some(format) = own.format_with(&about) else {
        return Err(no_common_format(hello.identity.node, &about, identity.node, &own));
    };
    let level = membership.published.level();
    if about.level < level {
        return Err(too_old(hello.identity.node, &about, level));
    }
    Ok(Spoken { format, level: about.level })
}

/// Whether the dialer belongs to this cluster, and means this node and a thread that it has.
fn check_claims(
    membership: &Membership,
    threads: &Threads,
    challenge: &Challenge,
    hello: &Hello,
) -> Result<(), &'static str> {
    if hello.cluster_id != membership.secret.cluster_id() {
        return Err("another cluster's node: its join.secret is not ours");
    }
    if !membership.secret.holds(&hello.proved(challenge), &hello.proof) {
        return Err("the proof does not hold: its join.secret is not ours");
    }
    let joins = hello.to_node == WHOEVER && hello.to == Endpoint::Control;
    // One that asks is told that this number is taken.
    if hello.identity.node == membership.identity.node && !joins {
        return Err("two nodes have the same node_id: give each its own");
    }
    if hello.identity.node == NodeId(0) && !joins {
        return Err("a node without a number: only one that asks to join may have none");
    }
    if hello.to_node != membership.identity.node && !joins {
        return Err("this is another node than was dialed: correct the `nodes` setting");
    }
    // Whether the map knows the dialer does not matter here: who joins is in nobody's map, and this node's may be old. The proof is what
    // lets it in; what it may do is the coordinator's to say.
    let kinds_fit = matches!(
        (hello.from, hello.to),
        (Endpoint::Shard(_), Endpoint::Shard(_))
            | (Endpoint::Control, Endpoint::Control)
            | (Endpoint::Heart, Endpoint::Heart)
    );
    if !kinds_fit || threads.post(hello.to).is_none() {
        return Err("this node has no such thread");
    }
    Ok(())
}

async fn send(stream: &mut TcpStream, step: &Step<'_>) -> Result<(), HandshakeError> {
    let mut out = Vec::with_capacity(HANDSHAKE_FRAME_BYTES_MAX);
    encode_handshake(step, &mut out);
    Ok(stream.write_all(&out).await?)
}

/// Reads one frame and not a byte beyond: what follows the handshake belongs to another thread.
async fn receive(stream: &mut TcpStream, most: usize) -> Result<Frame, HandshakeError> {
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length).await?;
    let mut body = vec![0; body_bytes(length, most)?];
    stream.read_exact(&mut body).await?;
    Ok(decode(Bytes::from(body))?)
}

/// No delay for small frames; a black hole is noticed, whether bytes are under way or not.
fn tune(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_tcp_user_timeout(stream, USER_TIMEOUT_MS)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEP_ALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEP_ALIVE)?;
    Ok(())
}

#[cfg(test)]
mod tests;
