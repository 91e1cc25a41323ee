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
//! A node that joins may know no more than one address: its hello is to node 0, from and
//! to the control plane, and after the welcome it gets what a joiner has to know instead of a link.
//!
//! Each proof covers the other side's fresh nonce, so that none can be replayed, and says in which role it was
//! made, so that none can be reflected. The hello names the node and the thread that it is meant for, so that
//! it is of no use elsewhere. What follows is neither encrypted nor authenticated message by message: the peer
//! network is trusted to carry bytes, not to say who belongs.

use super::codec::{Reader, put_bytes, put_endpoint, put_number};
use super::{
    FrameError, KIND_CHALLENGE, KIND_HELLO, KIND_NODES, KIND_REFUSED, KIND_WELCOME, NODES_BYTES_MAX,
};
use control::message::Identity;
use types::{Endpoint, Incarnation, NodeId};

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 32;
/// Bytes of a proof: HMAC-SHA256.
pub const PROOF_BYTES: usize = 32;
/// Bytes of a cluster's id: twice as many hex digits.
pub const CLUSTER_ID_BYTES: usize = 20;
/// The longest reason of a refusal, in bytes.
const WHY_BYTES_MAX: usize = 512;

/// Acceptor to dialer, at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Random, never used twice.
    pub nonce: [u8; NONCE_BYTES],
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
    /// HMAC of [`Hello::proved`].
    pub proof: [u8; PROOF_BYTES],
}

/// The acceptor's proof in return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The acceptor.
    pub identity: Identity,
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

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Step::Challenge(challenge) => out.extend_from_slice(&challenge.nonce),
            Step::Hello(hello) => {
                hello.put_claims(out);
                out.extend_from_slice(&hello.proof);
            }
            Step::Welcome(welcome) => {
                put_identity(out, &welcome.identity);
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
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Hello, FrameError> {
        Ok(Hello {
            cluster_id: reader.array()?,
            identity: read_identity(reader)?,
            from: reader.endpoint()?,
            to_node: NodeId(reader.number_to()?),
            to: reader.endpoint()?,
            nonce: reader.array()?,
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
        put_identity(&mut bytes, &self.identity);
        bytes
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Welcome, FrameError> {
        Ok(Welcome { identity: read_identity(reader)?, proof: reader.array()? })
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
