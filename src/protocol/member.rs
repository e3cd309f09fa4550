//! Members: what a node knows of another node.
//!
//! The order of claims about a member is that of SWIM (Das, Gupta, Motivala, DSN 2002, section 4.2): a greater incarnation
//! overrides a smaller one; at the same incarnation dead overrides suspect overrides alive. Left is dead by the member's own word,
//! forgotten by that of a person, who may say so only of the dead and of those who left.

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;

/// Longest address, in bytes.
pub const MAX_ADDRESS: usize = 256;

/// Greatest incarnation. No node gets there by living; it keeps a claim from leaving its owner nothing greater to say.
pub const MAX_INCARNATION: u64 = 1 << 53;

/// What is believed of a member, in the order in which claims of one incarnation override each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It did not answer; it may refute.
    Suspect,
    /// It did not answer for long enough. It is still tried, ever more slowly.
    Dead,
    /// It said goodbye. It is still tried, like the dead.
    Left,
    /// Somebody who runs a node said that it will not come back: it is listed, but neither tried nor counted. No ban: a node that
    /// comes back raises its incarnation, and is a member again.
    Forgotten,
}

impl MemberState {
    /// Whether exchanges are held with it.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }

    /// As it is written in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
            Self::Left => "left",
            Self::Forgotten => "forgotten",
        }
    }
}

/// A claim about a node, as it is stored and as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its identity.
    pub id: NodeId,
    /// The base URL under which others reach it, such as `http://127.0.0.1:7701`.
    pub address: String,
    /// The number of its life; only the node itself raises it.
    pub incarnation: u64,
    /// What is believed of it.
    pub state: MemberState,
    /// Its Ed25519 public key in hexadecimal; the id is made from it.
    pub key: crate::ids::PublicKey,
}

/// One node's word that a member does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Suspicion {
    /// The suspect.
    pub id: NodeId,
    /// Of which life. A later one is not meant, and thereby refutes.
    pub incarnation: u64,
    /// Who says so of its own experience.
    pub by: NodeId,
}

/// Why a claim about a member is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadMember {
    /// The id must be made from the key.
    #[error("the id of a member is not made from its public key")]
    KeyMismatch,
    /// The address must be an `http://` or `https://` base URL without a path, of at most [`MAX_ADDRESS`] bytes.
    #[error("the address of a member is not a base URL such as http://127.0.0.1:7701")]
    BadAddress,
    /// At most [`MAX_INCARNATION`].
    #[error("the incarnation of a member is greater than 2^53")]
    BadIncarnation,
}

impl Member {
    /// Checks what must hold of every claim from outside.
    pub fn validate(&self) -> Result<(), BadMember> {
        if NodeId::from_public_key(&self.key.0) != self.id {
            return Err(BadMember::KeyMismatch);
        }
        if self.incarnation > MAX_INCARNATION {
            return Err(BadMember::BadIncarnation);
        }
        if is_base_url(&self.address) { Ok(()) } else { Err(BadMember::BadAddress) }
    }

    /// Whether this claim replaces `held`.
    pub fn overrides(&self, held: &Self) -> bool {
        (self.incarnation, self.state) > (held.incarnation, held.state)
    }
}

/// Whether `address` is a base URL: scheme, host and perhaps a port, nothing behind.
pub fn is_base_url(address: &str) -> bool {
    let Some(authority) = address.strip_prefix("http://").or_else(|| address.strip_prefix("https://")) else { return false };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    !authority.is_empty() && address.len() <= MAX_ADDRESS && authority.bytes().all(plain)
}
