//! What changes in the network, as server-sent events: hints for who shows it live. The present state is asked of `/network`.

use std::collections::BTreeSet;

use gossip_cdn_protocol::wire::Join;
use gossip_cdn_protocol::{MemberState, NodeId};
use gossip_cdn_shell::events::Event;
use serde::Serialize;
use utoipa::ToSchema;

use crate::registry::Taken;

/// Something that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A member introduced itself, came back, left, or was silent for too long.
    Member(NodeId, MemberState),
    /// A member told with whom it exchanged since it last told.
    Exchanges(NodeId, BTreeSet<NodeId>),
}

/// The data of an event. An event is named like its schema, in small letters.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Shown {
    /// A member is in another state, or is new.
    Member {
        /// The node.
        id: String,
        /// `alive`, `dead` (silent for 15 s) or `left`.
        state: &'static str,
    },
    /// A node renewed, and told whom it called about its records since the last time.
    Exchanges {
        /// The node.
        from: String,
        /// Those it called.
        to: Vec<String>,
    },
}

impl Change {
    /// What a claim that was taken so changes.
    pub fn of(join: &Join, taken: Taken) -> Vec<Self> {
        let member = Self::Member(join.member.id, join.member.state);
        let exchanges = Self::Exchanges(join.member.id, join.exchanged.clone());
        match taken {
            Taken::New | Taken::Changed => vec![member, exchanges],
            Taken::Renewed => vec![exchanges],
            Taken::Stale | Taken::Unremembered => vec![],
        }
    }

    /// As it is sent.
    pub fn event(&self) -> Event {
        let (name, shown) = match self {
            Self::Member(id, state) => ("member", Shown::Member { id: id.to_string(), state: state.name() }),
            Self::Exchanges(from, to) => {
                ("exchanges", Shown::Exchanges { from: from.to_string(), to: to.iter().map(ToString::to_string).collect() })
            }
        };
        Event { id: None, name, data: serde_json::to_string(&shown).unwrap_or_default() }
    }
}
