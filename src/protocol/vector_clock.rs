//! Vector clocks, which say what a write had seen.
//!
//! Fidge (1988) and Mattern (1989), with one deviation: an entry is not a count of the node's writes but the [`Stamp`] of its last
//! one. A counter can be reused after a crash or a restored backup; a stamp that must exceed everything in the record cannot.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;
use crate::stamp::Stamp;

/// Node id to the stamp of that node's last write that is included. A node without an entry has written nothing that is included.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VectorClock {
    entries: BTreeMap<NodeId, Stamp>,
}

impl VectorClock {
    /// The stamp of `node`'s last included write; zero if none is.
    pub fn entry(&self, node: NodeId) -> Stamp {
        self.entries.get(&node).copied().unwrap_or_default()
    }

    /// Includes `node`'s write of `stamp`; entries never go back.
    pub fn include(&mut self, node: NodeId, stamp: Stamp) {
        let entry = self.entries.entry(node).or_default();
        *entry = stamp.max(*entry);
    }

    /// Includes everything that `other` includes: the least upper bound of both.
    pub fn join(&mut self, other: &Self) {
        other.entries.iter().for_each(|(node, stamp)| self.include(*node, *stamp));
    }

    /// The greatest entry; zero in an empty clock.
    pub fn greatest(&self) -> Stamp {
        self.entries.values().copied().max().unwrap_or_default()
    }

    /// The entries, in the order of node ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (NodeId, Stamp)> {
        self.entries.iter().map(|(node, stamp)| (*node, *stamp))
    }

    /// Which of two clocks includes the other; `None` if neither does: the writes were concurrent.
    pub fn causal_cmp(&self, other: &Self) -> Option<Ordering> {
        let includes = |a: &Self, b: &Self| b.entries.iter().all(|(node, stamp)| a.entry(*node) >= *stamp);
        match (includes(self, other), includes(other, self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Greater),
            (false, true) => Some(Ordering::Less),
            (false, false) => None,
        }
    }
}

impl FromIterator<(NodeId, Stamp)> for VectorClock {
    fn from_iter<I: IntoIterator<Item = (NodeId, Stamp)>>(entries: I) -> Self {
        let mut clock = Self::default();
        entries.into_iter().for_each(|(node, stamp)| clock.include(node, stamp));
        clock
    }
}
