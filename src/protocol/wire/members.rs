//! Messages about who is in the network.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::hex::hex64_option;
use super::{BadMessage, MAX_MEMBERS, at_most};
use crate::ids::NodeId;
use crate::member::{BadMember, Member, is_base_url};
use crate::summary::Root;

/// Opens an exchange of members: answered by a [`MemberList`] of the same extent, after the claims were taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersRequest {
    /// The claims: all of the sender's, or those that changed in the last minute.
    pub members: Vec<Member>,
    /// Whether they are all, and all are wanted.
    pub full: bool,
}

/// Asks whether the receiver reaches another node, or is the one asked for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Whom.
    pub id: NodeId,
    /// Where.
    pub address: String,
}

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// Whether it answered just now.
    pub alive: bool,
}

/// Members as the sender knows them, itself included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberList {
    /// The claims.
    pub members: Vec<Member>,
    /// The fingerprint of all that the sender knows, where it has one: a bootstrap node has none.
    #[serde(default, with = "hex64_option", skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<u64>,
}

impl MemberList {
    pub(super) fn validate(&self) -> Result<(), BadMessage> {
        validate_members(&self.members, MAX_MEMBERS)
    }
}

impl MembersRequest {
    pub(super) fn validate(&self) -> Result<(), BadMessage> {
        validate_members(&self.members, MAX_MEMBERS)
    }
}

impl Probe {
    pub(super) fn validate(&self) -> Result<(), BadMessage> {
        if is_base_url(&self.address) { Ok(()) } else { Err(BadMember::BadAddress.into()) }
    }
}

/// Claims that break no rule, and no more than `bound` of them.
pub(super) fn validate_members(members: &[Member], bound: usize) -> Result<(), BadMessage> {
    at_most(members.len(), bound)?;
    Ok(members.iter().try_for_each(Member::validate)?)
}

/// A node introduces itself to a bootstrap node, and does so again every few seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The node itself.
    pub member: Member,
    /// How many records it has, tombstones included.
    pub records: u64,
    /// Bytes of the payloads it holds.
    pub payload_bytes: u64,
    /// Root of its record set.
    pub root: Root,
    /// Payloads on their way to it.
    #[serde(default)]
    pub wanted: u64,
    /// Messages delivered at it.
    #[serde(default)]
    pub messages: u64,
    /// What people like to see; the program around the core adds it, for the core has no use for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
    /// The nodes it exchanged with since the last time.
    pub exchanged: BTreeSet<NodeId>,
    /// The message history that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<Uuid>,
    /// It would found a history if it were named: it belongs to none and knows no other node, and it asks the first bootstrap node of its list.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_found: bool,
}

/// What a [`Join`] tells of the program that runs the core.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its version.
    pub version: String,
    /// Its live blobs.
    pub blobs: u64,
}

impl Program {
    /// Longest name of a version, in bytes.
    pub const MAX_VERSION: usize = 32;

    /// Whether the version is a short word that can be shown to people.
    pub fn is_plain(&self) -> bool {
        self.version.len() <= Self::MAX_VERSION && self.version.bytes().all(|byte| byte.is_ascii_graphic())
    }
}

/// A bootstrap node's answer to a [`Join`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Introduction {
    /// Members to talk to.
    pub members: Vec<Member>,
    /// Whoever asked is named: it founds the network's message history, unless it belongs to one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub founder: bool,
}
