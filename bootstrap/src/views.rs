//! The JSON that programs read: members and exchanges. A node's own `/network` has the same form.

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
    /// `alive`, `dead` or `left`: to a bootstrap node who was silent for 15 s is dead. Nodes say `suspect` and `forgotten` too.
    #[schema(example = "alive")]
    pub state: &'static str,
    /// The number of its life.
    pub incarnation: u64,
    /// When it was last heard, in RFC 3339; null if never since the start.
    pub last_seen: Option<String>,
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
    /// Present and true of the node that is asked.
    #[serde(rename = "self", skip_serializing_if = "std::ops::Not::not")]
    pub is_self: bool,
    /// The version of its program; like all that follows null until it has said so.
    pub version: Option<String>,
    /// Its live blobs.
    pub blobs: Option<u64>,
    /// Its records, tombstones included.
    pub records: Option<u64>,
    /// Bytes of the payloads it holds.
    pub payload_bytes: Option<u64>,
    /// Payloads on their way to it.
    pub wanted: Option<u64>,
    /// Messages delivered at it.
    pub messages: Option<u64>,
    /// The message history that it belongs to; null without one.
    pub history: Option<String>,
    /// Root of its record set: equal roots, equal sets.
    pub root: Option<String>,
    /// When it said so, in RFC 3339.
    pub reported: Option<String>,
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
            last_seen: Some(time(shown.last_seen)),
        }
    }
}

impl NodeView {
    fn of(shown: &Shown) -> Self {
        Self::new(MemberView::of(shown), shown.report.clone().map(|report| (report, shown.last_seen)))
    }

    /// A member, with what it said of itself and when.
    pub fn new(member: MemberView, said: Option<(Report, WallTime)>) -> Self {
        let (report, reported) = said.unzip();
        let number = |what: fn(&Report) -> u64| report.as_ref().map(what);
        let program = report.as_ref().and_then(|report| report.program.as_ref());
        Self {
            member,
            is_self: false,
            version: program.map(|program| program.version.clone()),
            blobs: program.map(|program| program.blobs),
            records: number(|report| report.records),
            payload_bytes: number(|report| report.payload_bytes),
            wanted: number(|report| report.wanted),
            messages: number(|report| report.messages),
            history: report.as_ref().and_then(|report| report.history).map(|history| history.to_string()),
            root: report.as_ref().map(|report| report.root.to_string()),
            reported: reported.map(time),
        }
    }
}

/// In RFC 3339, in UTC.
pub fn time(wall: WallTime) -> String {
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
