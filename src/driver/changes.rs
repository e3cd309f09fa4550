//! What the core does, told to those who show it live.
//!
//! 1. A change of a record or of a holder is told when it is durable, not before.
//! 2. Telling costs nothing while nobody listens, and never waits for who does.

use gossip_cdn_protocol::io::{Event, Fetch, FetchFault};
use gossip_cdn_protocol::wire::Request;
use gossip_cdn_protocol::{BlobId, ContentHash, MemberState, NodeId, Persist, VersionId};
use gossip_cdn_shell::events::Feed;

use super::exchanged::Exchanged;

/// Something that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A record.
    Record {
        /// The blob.
        blob: BlobId,
        /// Its winner now.
        winner: VersionId,
        /// Whether that says deleted.
        deleted: bool,
        /// How many live versions there are.
        versions: usize,
    },
    /// A node holds the payload of a blob durably.
    Holder {
        /// The blob.
        blob: BlobId,
        /// The node.
        node: NodeId,
    },
    /// A member is believed in another state, or is new.
    Member {
        /// The member.
        id: NodeId,
        /// What is believed.
        state: MemberState,
    },
    /// A node called another one.
    Exchange {
        /// Who called.
        from: NodeId,
        /// Whom.
        to: NodeId,
        /// What for, in a word.
        kind: &'static str,
    },
}

/// Tells changes.
#[derive(Debug, Clone)]
pub(super) struct Changes {
    pub(super) feed: Feed<Change>,
    pub(super) exchanged: Exchanged,
    pub(super) me: NodeId,
}

/// A call under way; of an exchange, whose.
pub(super) struct Calling(Option<(Exchanged, NodeId, NodeId)>);

impl Calling {
    /// It was answered, or was not.
    pub(super) fn answered(self, well: bool) {
        if let Some((exchanged, from, to)) = self.0.filter(|_| well) {
            exchanged.note(from, to);
        }
    }
}

impl Changes {
    /// What to tell when a commit is durable.
    pub(super) fn of_persist(&self, persist: &Persist) -> Vec<Change> {
        if !self.feed.is_heard() {
            return Vec::new();
        }
        let change = |change: &gossip_cdn_protocol::io::RecordChange| {
            let winner = change.record.winner()?;
            let deleted = winner.content.payload().is_none();
            Some(Change::Record { blob: change.key.blob, winner: winner.id(), deleted, versions: change.record.versions().len() })
        };
        persist.records.iter().filter_map(change).collect()
    }

    /// What to tell when payloads have come.
    pub(super) fn of_fetch(&self, fetch: &Fetch) -> Vec<(ContentHash, Change)> {
        self.called(Some(self.me), fetch.from.id, "payload");
        let wants = fetch.wants.iter().filter(|_| self.feed.is_heard());
        wants.map(|missing| (missing.hash, Change::Holder { blob: missing.key.blob, node: self.me })).collect()
    }

    /// Payloads have come, or have not.
    pub(super) fn fetched(&self, wanted: Vec<(ContentHash, Change)>, results: &[(ContentHash, Result<(), FetchFault>)]) {
        let came = |hash: &ContentHash| results.iter().any(|(found, result)| found == hash && result.is_ok());
        self.tell(wanted.into_iter().filter(|(hash, _)| came(hash)).map(|(_, change)| change));
    }

    pub(super) fn tell(&self, changes: impl IntoIterator<Item = Change>) {
        changes.into_iter().for_each(|change| self.feed.tell(change));
    }

    /// This node calls another one.
    pub(super) fn on_call(&self, to: Option<NodeId>, request: &Request) -> Calling {
        self.called(Some(self.me), to, kind(request));
        let exchange = matches!(request, Request::Exchange(_));
        Calling(to.filter(|_| exchange).map(|to| (self.exchanged.clone(), self.me, to)))
    }

    /// Another node calls this one.
    pub(super) fn on_request(&self, from: NodeId, request: &Request) {
        self.called(Some(from), Some(self.me), kind(request));
        if matches!(request, Request::Exchange(_)) {
            self.exchanged.note(from, self.me);
        }
        if let Request::Receipts(receipts) = request {
            self.tell(receipts.receipts.iter().map(|receipt| Change::Holder { blob: receipt.id, node: from }));
        }
    }

    pub(super) fn on_event(&self, event: &Event) {
        if let Event::MemberChanged(id, state) = event {
            self.tell([Change::Member { id: *id, state: *state }]);
        }
    }

    fn called(&self, from: Option<NodeId>, to: Option<NodeId>, kind: &'static str) {
        if let (Some(from), Some(to)) = (from, to)
            && self.feed.is_heard()
        {
            self.tell([Change::Exchange { from, to, kind }]);
        }
    }
}

fn kind(request: &Request) -> &'static str {
    match request {
        Request::Exchange(_) => "exchange",
        Request::Cells(_)
        | Request::Partitions(_)
        | Request::Sketches(_)
        | Request::Items(_)
        | Request::Records(_)
        | Request::Snapshot(_) => "records",
        Request::Members(_) => "members",
        Request::Rumors(_) | Request::Receipts(_) => "rumor",
        Request::Holds(_) => "payload",
        Request::Probe(_) => "probe",
        Request::History(_) => "messages",
    }
}
