//! Messages about who is in the network.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{BadMessage, MAX_MEMBERS, at_most};
use crate::ids::NodeId;
use crate::member::Member;
use crate::summary::Root;

/// Members as the sender knows them, itself included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberList {
    /// The claims.
    pub members: Vec<Member>,
}

impl MemberList {
    pub(super) fn validate(&self) -> Result<(), BadMessage> {
        at_most(self.members.len(), MAX_MEMBERS)?;
        Ok(self.members.iter().try_for_each(Member::validate)?)
    }
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
    /// The nodes it exchanged with since the last time.
    pub exchanged: BTreeSet<NodeId>,
}
