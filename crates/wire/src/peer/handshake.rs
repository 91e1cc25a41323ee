//! Proof of membership, before anything more is parsed.
//!
//! ```text
//! dialer                                   acceptor
//!    |   <-- Challenge: nonce a ---------------  |
//!    |   --- Hello: cluster, who, to whom,       |
//!    |         nonce d, HMAC(secret, "dial",     |
//!    |         a, all before) ---------------->  |
//!    |   <-- Welcome: who, HMAC(secret,          |
//!    |         "accept", d, a, who) -----------  |   or Refused: why
//! ```
//!
//! **Formats.** Which formats and levels a node has it says in an [`About`]: in the hello and in the welcome, where the proofs cover it. A
//! build that has one format only (2) knows no such thing. So that either side can tell, the last bytes of the challenge's nonce are a
//! mark and the acceptor's formats, as TLS 1.3 marks its server's random number (RFC 8446, 4.1.3): who does not know the mark takes
//! it for random bytes, and the proofs cover it too. Only to who showed it goes a hello with an about. The link's format is the
//! newest that both have. What a later build adds to an about is left out here; so the handshake itself stays readable.
//!
//! A node that joins may know no more than one address: its hello is to node 0, from and
//! to the control plane, and after the welcome it gets what a joiner has to know instead of a link.
//!
//! Each proof covers the other side's fresh nonce, so that none can be replayed, and says in which role it was
//! made, so that none can be reflected. The hello names the node and the thread that it is meant for, so that
//! it is of no use elsewhere. What follows is neither encrypted nor authenticated message by message: the peer
//! network is trusted to carry bytes, not to say who belongs.

use super::codec::{Reader, put_bytes, put_endpoint, put_number};
use super::{
    FORMAT_NEWEST, FORMAT_OLDEST, FrameError, KIND_CHALLENGE, KIND_HELLO, KIND_NODES, KIND_REFUSED,
    KIND_WELCOME, NODES_BYTES_MAX,
};
use control::message::Identity;
use types::{Endpoint, Incarnation, Level, NodeId};

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 32;
/// Bytes of a proof: HMAC-SHA256.
pub const PROOF_BYTES: usize = 32;
/// Bytes of a cluster's id: twice as many hex digits.
pub const CLUSTER_ID_BYTES: usize = 20;
/// The longest reason of a refusal, in bytes.
const WHY_BYTES_MAX: usize = 512;

/// The format of a hello and a welcome with an [`About`], whatever format the link gets.
const FORMAT_WITH_ABOUT: u8 = 3;
/// The end of a challenge's nonce, before the lowest and the highest format. A nonce is random enough without these bytes.
const MARK: [u8; 6] = *b"ANNFMT";
/// The most bytes of an about, with what later builds add.
const ABOUT_BYTES_MAX: usize = 256;
/// The most bytes of a build's version.
const BUILD_BYTES_MAX: usize = 64;

/// Acceptor to dialer, at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Random, never used twice; its end may be a mark.
    pub nonce: [u8; NONCE_BYTES],
}

/// What a node says of its build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The oldest format of frames that it reads and writes.
    pub oldest: u8,
    /// The newest.
    pub newest: u8,
    /// The highest feature level that it has.
    pub level: Level,
    /// Its version. Empty: not told.
    pub build: String,
}

impl About {
    /// What this build says.
    pub fn own(level: Level, build: &str) -> About {
        About { oldest: FORMAT_OLDEST, newest: FORMAT_NEWEST, level, build: build.to_owned() }
    }

    /// What is true of a build that says nothing.
    pub fn unsaid() -> About {
        About { oldest: FORMAT_OLDEST, newest: FORMAT_OLDEST, level: Level::FIRST, build: String::new() }
    }

    /// The format that a link between the two has; none where they have none in common.
    pub fn format_with(&self, other: &About) -> Option<u8> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let mut bytes = vec![self.oldest, self.newest];
        put_number(&mut bytes, u64::from(self.level.0));
        put_bytes(&mut bytes, self.build.as_bytes());
        put_bytes(out, &bytes);
    }

    fn decode(reader: &mut Reader) -> Result<About, FrameError> {
        let bytes = reader.bytes()?;
        if bytes.len() > ABOUT_BYTES_MAX {
            return Err(FrameError::Corrupt { what: "a node says too much of its build" });
        }
        // Whatever follows the fields is of a later build.
        let mut fields = Reader::new(bytes);
        let (oldest, newest, level) = (fields.byte()?, fields.byte()?, Level(fields.number_to()?));
        let build = fields.bytes()?;
        // It goes into logs and tables.
        if build.len() > BUILD_BYTES_MAX || !build.iter().all(u8::is_ascii_graphic) {
            return Err(FrameError::Corrupt { what: "a build's version that is none" });
        }
        let build = String::from_utf8_lossy(&build).into_owned();
        Ok(About { oldest, newest, level, build })
    }
}

/// Who dials, whom it wants, and the proof that it may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The cluster that the dialer belongs to.
    pub cluster_id: [u8; CLUSTER_ID_BYTES],
    /// The dialer.
    pub identity: Identity,
    /// Which of its threads sends.
    pub from: Endpoint,
    /// The node that it means to reach.
    pub to_node: NodeId,
    /// The thread there.
    pub to: Endpoint,
    /// Random, never used twice.
    pub nonce: [u8; NONCE_BYTES],
    /// The dialer's build. None where the acceptor showed no mark.
    pub about: Option<About>,
    /// HMAC of [`Hello::proved`].
    pub proof: [u8; PROOF_BYTES],
}

/// The acceptor's proof in return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The acceptor.
    pub identity: Identity,
    /// The acceptor's build. None where the dialer said nothing of its own.
    pub about: Option<About>,
    /// HMAC of [`Welcome::proved`].
    pub proof: [u8; PROOF_BYTES],
}

/// A frame of the handshake, to be written.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// See [`Challenge`].
    Challenge(&'a Challenge),
    /// See [`Hello`].
    Hello(&'a Hello),
    /// See [`Welcome`].
    Welcome(&'a Welcome),
    /// Why the dialer is not let in. Cut after 512 bytes.
    Refused(&'a str),
    /// What a joiner has to know, as text.
    Nodes(&'a str),
}

impl Step<'_> {
    pub(super) fn kind(&self) -> u8 {
        match self {
            Step::Challenge(_) => KIND_CHALLENGE,
            Step::Hello(_) => KIND_HELLO,
            Step::Welcome(_) => KIND_WELCOME,
            Step::Refused(_) => KIND_REFUSED,
            Step::Nodes(_) => KIND_NODES,
        }
    }

    /// The oldest wherever it will do: it is read by every build.
    pub(super) fn format(&self) -> u8 {
        match self {
            Step::Hello(Hello { about: Some(_), .. }) | Step::Welcome(Welcome { about: Some(_), .. }) => {
                FORMAT_WITH_ABOUT
            }
            _ => FORMAT_OLDEST,
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Step::Challenge(challenge) => out.extend_from_slice(&challenge.nonce),
            Step::Hello(hello) => {
                hello.put_claims(out);
                out.extend_from_slice(&hello.proof);
            }
            Step::Welcome(welcome) => {
                welcome.put_claims(out);
                out.extend_from_slice(&welcome.proof);
            }
            Step::Nodes(nodes) => put_bytes(out, nodes.as_bytes()),
            Step::Refused(why) => {
                put_bytes(out, &why.as_bytes()[..why.floor_char_boundary(WHY_BYTES_MAX)]);
            }
        }
    }
}

impl Challenge {
    /// One that tells of the formats that this build has. `random`: as many random bytes.
    pub fn marked(random: [u8; NONCE_BYTES]) -> Challenge {
        let mut nonce = random;
        let mark = &mut nonce[NONCE_BYTES - MARK.len() - 2..];
        mark[..MARK.len()].copy_from_slice(&MARK);
        mark[MARK.len()..].copy_from_slice(&[FORMAT_OLDEST, FORMAT_NEWEST]);
        Challenge { nonce }
    }

    /// The oldest and the newest format of the acceptor; none where its build does not tell.
    pub fn formats(&self) -> Option<(u8, u8)> {
        let [before @ .., oldest, newest] = &self.nonce;
        (before.ends_with(&MARK) && oldest <= newest).then_some((*oldest, *newest))
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Challenge, FrameError> {
        Ok(Challenge { nonce: reader.array()? })
    }
}

impl Hello {
    /// The bytes that the dialer's proof covers.
    pub fn proved(&self, challenge: &Challenge) -> Vec<u8> {
        let mut bytes = b"dial".to_vec();
        bytes.extend_from_slice(&challenge.nonce);
        self.put_claims(&mut bytes);
        bytes
    }

    fn put_claims(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.cluster_id);
        put_identity(out, &self.identity);
        put_endpoint(out, self.from);
        put_number(out, u64::from(self.to_node.0));
        put_endpoint(out, self.to);
        out.extend_from_slice(&self.nonce);
        if let Some(about) = &self.about {
            about.encode(out);
        }
    }

    pub(super) fn decode(format: u8, reader: &mut Reader) -> Result<Hello, FrameError> {
        Ok(Hello {
            cluster_id: reader.array()?,
            identity: read_identity(reader)?,
            from: reader.endpoint()?,
            to_node: NodeId(reader.number_to()?),
            to: reader.endpoint()?,
            nonce: reader.array()?,
            about: read_about(format, reader)?,
            proof: reader.array()?,
        })
    }
}

impl Welcome {
    /// The bytes that the acceptor's proof covers.
    pub fn proved(&self, challenge: &Challenge, hello_nonce: &[u8; NONCE_BYTES]) -> Vec<u8> {
        let mut bytes = b"accept".to_vec();
        bytes.extend_from_slice(hello_nonce);
        bytes.extend_from_slice(&challenge.nonce);
        self.put_claims(&mut bytes);
        bytes
    }

    fn put_claims(&self, out: &mut Vec<u8>) {
        put_identity(out, &self.identity);
        if let Some(about) = &self.about {
            about.encode(out);
        }
    }

    pub(super) fn decode(format: u8, reader: &mut Reader) -> Result<Welcome, FrameError> {
        Ok(Welcome {
            identity: read_identity(reader)?,
            about: read_about(format, reader)?,
            proof: reader.array()?,
        })
    }
}

pub(super) fn decode_refusal(reader: &mut Reader) -> Result<String, FrameError> {
    let why = reader.bytes()?;
    if why.len() > WHY_BYTES_MAX {
        return Err(FrameError::Corrupt { what: "a refusal that is too long" });
    }
    Ok(String::from_utf8_lossy(&why).into_owned())
}

pub(super) fn decode_nodes(reader: &mut Reader) -> Result<String, FrameError> {
    let nodes = reader.bytes()?;
    if nodes.len() > NODES_BYTES_MAX {
        return Err(FrameError::Corrupt { what: "a list of nodes that is too long" });
    }
    Ok(String::from_utf8_lossy(&nodes).into_owned())
}

fn read_about(format: u8, reader: &mut Reader) -> Result<Option<About>, FrameError> {
    if format < FORMAT_WITH_ABOUT { Ok(None) } else { About::decode(reader).map(Some) }
}

fn put_identity(out: &mut Vec<u8>, identity: &Identity) {
    put_number(out, u64::from(identity.node.0));
    put_number(out, identity.incarnation.0);
    put_number(out, identity.directory);
}

fn read_identity(reader: &mut Reader) -> Result<Identity, FrameError> {
    Ok(Identity {
        node: NodeId(reader.number_to()?),
        incarnation: Incarnation(reader.number()?),
        directory: reader.number()?,
    })
}
