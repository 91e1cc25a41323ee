//! The join secret, the cluster id that is made from it, and proofs of knowing it.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::fmt;
use std::io;
use types::{NodeId, ShardId};
use wire::peer::handshake::{CLUSTER_ID_BYTES, NONCE_BYTES, PROOF_BYTES};

const SECRET_BYTES: usize = 32;

/// A cluster's join secret. It is never shown.
#[derive(Clone)]
pub struct Secret([u8; SECRET_BYTES]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// What marks a shard's files as this cluster's, this node's and that shard's; who does not know the secret cannot make it.
    pub fn file_identity(&self, node: NodeId, shard: ShardId) -> [u8; PROOF_BYTES] {
        self.prove(format!("files of node {node}, shard {shard}").as_bytes())
    }

    /// From 64 hex digits.
    pub fn parse(text: &str) -> Option<Secret> {
        let digits = text.as_bytes();
        if digits.len() != 2 * SECRET_BYTES {
            return None;
        }
        let mut secret = [0; SECRET_BYTES];
        for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            *byte = (digit(0)? << 4 | digit(1)?) as u8;
        }
        Some(Secret(secret))
    }

    /// A new one, from the system's generator.
    pub fn draw() -> io::Result<Secret> {
        random().map(Secret)
    }

    /// 64 hex digits, for its file.
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }

    /// The id of the cluster that this secret makes.
    pub fn cluster_id(&self) -> [u8; CLUSTER_ID_BYTES] {
        let digest = Sha256::new().chain_update(b"annulet cluster id").chain_update(self.0).finalize();
        let mut id = [0; CLUSTER_ID_BYTES];
        id.copy_from_slice(&digest[..CLUSTER_ID_BYTES]);
        id
    }

    /// What keys are hashed with, in this cluster's tables.
    pub fn hash_seed(&self) -> u64 {
        let digest = Sha256::new().chain_update(b"annulet hash seed").chain_update(self.0).finalize();
        digest[..8].iter().fold(0, |seed, &byte| seed << 8 | u64::from(byte))
    }

    /// The cluster's id as it is shown: 40 hex digits.
    pub fn cluster_id_text(&self) -> String {
        hex(&self.cluster_id())
    }

    /// Proves to who knows the secret that so does who said `message`.
    pub fn prove(&self, message: &[u8]) -> [u8; PROOF_BYTES] {
        self.mac(message).finalize().into_bytes().into()
    }

    /// Whether `proof` is that of `message`. Takes as long for a near miss as for any other.
    pub fn holds(&self, message: &[u8], proof: &[u8; PROOF_BYTES]) -> bool {
        self.mac(message).verify_slice(proof).is_ok()
    }

    fn mac(&self, message: &[u8]) -> Hmac<Sha256> {
        let mut key = [0; 64];
        key[..SECRET_BYTES].copy_from_slice(&self.0);
        // HMAC pads a shorter key with zeros to the hash's block, so this is the same key, of the one length that
        // needs no error.
        Hmac::<Sha256>::new(&key.into()).chain_update(message)
    }
}

/// A number used once.
pub fn nonce() -> io::Result<[u8; NONCE_BYTES]> {
    random()
}

/// Random bytes from the system.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2, has a key of 4 bytes: padded with zeros it is the same key.
    #[test]
    fn proofs_are_hmac_sha256() {
        let mut key = [0; SECRET_BYTES];
        key[..4].copy_from_slice(b"Jefe");
        let proof = Secret(key).prove(b"what do ya want for nothing?");
        assert_eq!(hex(&proof), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert!(Secret(key).holds(b"what do ya want for nothing?", &proof));
        assert!(!Secret(key).holds(b"what do ya want for something?", &proof));
    }

    #[test]
    fn secrets_read_back_and_are_not_shown() {
        let secret = Secret::draw().unwrap();
        assert_eq!(Secret::parse(&secret.to_hex()).unwrap().0, secret.0);
        assert_eq!(secret.cluster_id_text().len(), 40);
        assert!(!format!("{secret:?}").contains(&secret.to_hex()[..8]));
        assert!(Secret::parse("xx").is_none());
        assert!(Secret::parse(&"é".repeat(32)).is_none());
    }
}
