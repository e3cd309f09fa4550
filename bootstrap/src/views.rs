//! The JSON that programs read: members and exchanges.

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use gossip_cdn_protocol::{NodeId, WallTime};
use serde::Serialize;
use utoipa::ToSchema;

use crate::registry::{Report, Shown};

/// The members of the network.
#[derive(Debug, Serialize, ToSchema)]
pub struct Members {
    /// In the order of their ids.
    pub members: Vec<MemberView>,
}

/// A member.
#[derive(Debug, Serialize, ToSchema)]
pub struct MemberView {
    /// Its node id, a GUID.
    #[schema(example = "67e55044-10b1-826f-9247-bb680e5fe0c8")]
    pub id: String,
    /// Its base URL.
    #[schema(example = "http://127.0.0.1:7701")]
    pub address: String,
    /// `alive`, `dead` (silent for 15 s) or `left`.
    #[schema(example = "alive")]
    pub state: &'static str,
    /// The number of its life.
    pub incarnation: u64,
    /// When it was last heard, in RFC 3339.
    pub last_seen: String,
}

/// The map of the network.
#[derive(Debug, Serialize, ToSchema)]
pub struct Map {
    /// The members, in the order of their ids.
    pub nodes: Vec<NodeView>,
    /// Who exchanged with whom in the last minute.
    pub exchanges: Vec<Exchange>,
}

/// A member with what it said of itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodeView {
    /// The member.
    #[serde(flatten)]
    pub member: MemberView,
    /// Its records, tombstones included; null until it renews after a restart of the bootstrap.
    pub records: Option<u64>,
    /// Bytes of the payloads it holds.
    pub payload_bytes: Option<u64>,
    /// Root of its record set: equal roots, equal sets.
    pub root: Option<String>,
}

/// An exchange.
#[derive(Debug, Serialize, ToSchema)]
pub struct Exchange {
    /// Who told of it.
    pub from: String,
    /// With whom it was.
    pub to: String,
    /// When it was told, in RFC 3339.
    pub last_seen: String,
}

impl Members {
    /// Of what the registry shows.
    pub fn of(shown: &[Shown]) -> Self {
        Self { members: shown.iter().map(MemberView::of).collect() }
    }
}

impl Map {
    /// Of what the registry shows; exchanges with nodes it does not know are left out.
    pub fn of(shown: &[Shown]) -> Self {
        let known: BTreeSet<NodeId> = shown.iter().map(|node| node.member.id).collect();
        let exchanges = shown
            .iter()
            .flat_map(|node| node.exchanges.iter().map(|(to, seen)| (node.member.id, *to, *seen)))
            .filter(|(_, to, _)| known.contains(to))
            .map(|(from, to, seen)| Exchange { from: from.to_string(), to: to.to_string(), last_seen: time(seen) })
            .collect();
        Self { nodes: shown.iter().map(NodeView::of).collect(), exchanges }
    }
}

impl MemberView {
    fn of(shown: &Shown) -> Self {
        Self {
            id: shown.member.id.to_string(),
            address: shown.member.address.clone(),
            state: shown.member.state.name(),
            incarnation: shown.member.incarnation,
            last_seen: time(shown.last_seen),
        }
    }
}

impl NodeView {
    fn of(shown: &Shown) -> Self {
        let said = |what: fn(Report) -> u64| shown.report.map(what);
        Self {
            member: MemberView::of(shown),
            records: said(|report| report.records),
            payload_bytes: said(|report| report.payload_bytes),
            root: shown.report.map(|report| report.root.to_string()),
        }
    }
}

/// In RFC 3339, in UTC.
fn time(wall: WallTime) -> String {
    // RFC 3339 ends with the year 9999, and so does what humantime can write.
    let end = Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(wall.0).min(end)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_time_can_be_written() {
        assert_eq!(time(WallTime(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(WallTime(u64::MAX)), "9999-12-31T23:59:59.000Z");
    }
}
