//! What nodes say to each other: JSON bodies of HTTP requests and answers under `/gossip/`.
//!
//! The frequent fields have short names, explained here and in the proposal on serialisation and transport:
//!
//! | name | meaning | | name | meaning |
//! |---|---|---|---|---|
//! | `v` | protocol version | | `r` | root of the record set |
//! | `c` | cluster | | `m` | fingerprint of the member list |
//! | `n` | node id of the sender | | `b` | the message itself |
//! | `i` | incarnation of the sender | | `s` | number of a sketch kept for the peer |
//! | `o` | the sender is occupied: it wants no cells | `f` | fingerprint of the message history |
//! | `h` | the message history, and whether it is young | | |
//!
//! Every list has a bound here. A reader refuses what exceeds it as malformed.

mod hex;
mod members;
mod packed;
mod payloads;
mod records;
mod snapshot;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::history::talk::{HistoryAnswer, HistoryCall};
use crate::ids::{BlobId, NodeId};
use crate::member::{Member, Suspicion};
use crate::record::{MAX_BYTES, Record};
use crate::version::Malformed;

pub use members::{Introduction, Join, MemberList, MembersRequest, Probe, Probed, Program};
pub use payloads::{Holds, HoldsAnswer, PayloadRequest, PayloadsRequest, Receipt, Receipts};
pub use records::{
    CellsAnswer, CellsRequest, Compared, Digest, ItemsAnswer, ItemsRequest, PartitionsAnswer, PartitionsRequest, RecordsAnswer,
    RecordsRequest, SketchesAnswer, SketchesRequest,
};
pub use snapshot::{SnapshotAnswer, SnapshotRequest};

/// The version of this protocol.
pub const VERSION: u32 = 1;
/// Largest body of a peer's message, in bytes: a page of records and the largest single record fit.
pub const MAX_BODY: usize = 4 << 20;
/// Most records in one message.
pub const MAX_RECORDS: usize = 512;
/// Records are added to a message until it holds about this many bytes of them.
pub const RECORDS_BUDGET: usize = 1 << 20;
/// Most records in one page of a snapshot: what a core merges in some milliseconds.
pub const SNAPSHOT_PAGE: usize = 1024;
/// Most items in one answer.
pub const MAX_ITEMS: usize = 16_384;
/// How many cells the answer to an exchange carries. Twelve differences mostly decode from them, and they cost 1.1 KB.
pub const FIRST_CELLS: usize = 32;
/// Most cells in one answer: 1.1 MB.
pub const MAX_CELLS_SENT: usize = 32_768;
/// Most members in one message.
pub const MAX_MEMBERS: usize = 10_000;
/// Most claims, and most suspicions, among the rumors of one message.
pub const MAX_FRESH_MEMBERS: usize = 256;
/// How long a small call may take, its answer included: a heartbeat, a question, a registration.
pub const SMALL_CALL: Duration = Duration::from_secs(3);
/// How long one may take that carries records, items or members. A guess: the largest body at 140 kB/s.
pub const BULK_CALL: Duration = Duration::from_secs(30);
/// Most receipts in one message.
pub const MAX_RECEIPTS: usize = 1024;

/// Every message, with what is said of its sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// Protocol version.
    #[serde(rename = "v")]
    pub version: u32,
    /// Cluster name.
    #[serde(rename = "c")]
    pub cluster: String,
    /// Sender.
    #[serde(rename = "n")]
    pub sender: NodeId,
    /// Incarnation of the sender.
    #[serde(rename = "i")]
    pub incarnation: u64,
    /// The message.
    #[serde(rename = "b")]
    pub body: T,
}

/// The head of an [`Envelope`] alone: read first, so that a message of another cluster or version is recognised whatever its body.
#[derive(Debug, Clone, Deserialize)]
pub struct Head {
    /// Protocol version.
    #[serde(rename = "v")]
    pub version: u32,
    /// Cluster name.
    #[serde(rename = "c")]
    pub cluster: String,
}

/// A record with its GUID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The GUID.
    pub id: BlobId,
    /// The live versions.
    pub versions: Record,
}

/// What a node asks of another. Serialises as what is inside; which one it is says the path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Request {
    /// Opens an exchange; also a heartbeat.
    Exchange(Digest),
    /// The record sets differ: more cells of the receiver's sketch.
    Cells(CellsRequest),
    /// They differ in more than sketches of whole sets tell: the roots of the partitions.
    Partitions(PartitionsRequest),
    /// Sketches of partitions that differ.
    Sketches(SketchesRequest),
    /// The items of partitions that differ in more than a sketch tells.
    Items(ItemsRequest),
    /// Gives records and asks for others.
    Records(RecordsRequest),
    /// The member lists differ: the sender's recent changes or whole list, for the receiver's.
    Members(MembersRequest),
    /// Fresh records, pushed.
    Rumors(Rumors),
    /// Versions that the sender holds durably, payload included, as it was asked to say.
    Receipts(Receipts),
    /// Does the receiver hold this payload durably?
    Holds(Holds),
    /// Does the receiver reach that node?
    Probe(Probe),
    /// A newcomer takes a page of records.
    Snapshot(SnapshotRequest),
    /// About the message history.
    History(Box<HistoryCall>),
}

/// What a node answers. Serialises as what is inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// To [`Request::Exchange`].
    Exchange(Compared),
    /// To [`Request::Cells`].
    Cells(CellsAnswer),
    /// To [`Request::Partitions`].
    Partitions(PartitionsAnswer),
    /// To [`Request::Sketches`].
    Sketches(SketchesAnswer),
    /// To [`Request::Items`].
    Items(ItemsAnswer),
    /// To [`Request::Records`].
    Records(RecordsAnswer),
    /// To [`Request::Members`].
    Members(MemberList),
    /// To [`Request::Rumors`] and [`Request::Receipts`]: taken.
    Taken(Taken),
    /// To [`Request::Holds`].
    Holds(HoldsAnswer),
    /// To [`Request::Probe`].
    Probe(Probed),
    /// To [`Request::Snapshot`].
    Snapshot(SnapshotAnswer),
    /// To [`Request::History`].
    History(Box<HistoryAnswer>),
}

/// What is fresh: of the records and of the members.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rumors {
    /// The records.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Entry>,
    /// Versions for which the sender wishes a receipt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub receipts: Vec<Receipt>,
    /// Members that are new, moved, came back, died, left or were forgotten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
    /// Members that do not answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suspicions: Vec<Suspicion>,
}

/// Nothing to say but that it was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {}

/// Why a well-formed envelope's body is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// A record breaks a rule.
    #[error("{0}")]
    Record(#[from] Malformed),
    /// A member breaks a rule.
    #[error("{0}")]
    Member(#[from] crate::member::BadMember),
    /// A message of the history breaks a rule.
    #[error("{0}")]
    History(#[from] crate::history::message::BadMessage),
    /// A list has more entries than its bound, or not as many as it must.
    #[error("a list of {found} entries where {bound} are expected at most")]
    TooMany {
        /// Entries found.
        found: usize,
        /// The bound.
        bound: usize,
    },
    /// Items out of order.
    #[error("items out of order")]
    Unordered,
}

fn at_most(found: usize, bound: usize) -> Result<(), BadMessage> {
    if found <= bound { Ok(()) } else { Err(BadMessage::TooMany { found, bound }) }
}

fn validate_entries(entries: &[Entry]) -> Result<(), BadMessage> {
    at_most(entries.len(), MAX_RECORDS)?;
    validate_each(entries)
}

fn validate_each(entries: &[Entry]) -> Result<(), BadMessage> {
    for entry in entries {
        entry.versions.validate()?;
        if size(entry) > MAX_BYTES {
            return Err(Malformed::RecordTooLarge.into());
        }
    }
    Ok(())
}

impl Rumors {
    fn validate(&self) -> Result<(), BadMessage> {
        at_most(self.receipts.len(), MAX_RECEIPTS)?;
        members::validate_members(&self.members, MAX_FRESH_MEMBERS)?;
        at_most(self.suspicions.len(), MAX_FRESH_MEMBERS)?;
        validate_entries(&self.records)
    }
}

impl Request {
    /// Checks bounds and the rules of records and members. A message that fails changes nothing.
    pub fn validate(&self) -> Result<(), BadMessage> {
        match self {
            Self::Exchange(_) | Self::Partitions(_) | Self::Holds(_) => Ok(()),
            Self::Items(items) => items.validate(),
            Self::Cells(cells) => cells.validate(),
            Self::Sketches(sketches) => sketches.validate(),
            Self::Records(records) => records.validate(),
            Self::Members(list) => list.validate(),
            Self::Rumors(rumors) => rumors.validate(),
            Self::Receipts(receipts) => at_most(receipts.receipts.len(), MAX_RECEIPTS),
            Self::Probe(probe) => probe.validate(),
            Self::Snapshot(snapshot) => snapshot.validate(),
            Self::History(call) => Ok(call.ask.validate()?),
        }
    }

    /// Which of the messages it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Exchange(_) => Kind::Exchange,
            Self::Cells(_) => Kind::Cells,
            Self::Partitions(_) => Kind::Partitions,
            Self::Sketches(_) => Kind::Sketches,
            Self::Items(_) => Kind::Items,
            Self::Records(_) => Kind::Records,
            Self::Members(_) => Kind::Members,
            Self::Rumors(_) => Kind::Rumors,
            Self::Receipts(_) => Kind::Receipts,
            Self::Holds(_) => Kind::Holds,
            Self::Probe(_) => Kind::Probe,
            Self::Snapshot(_) => Kind::Snapshot,
            Self::History(_) => Kind::History,
        }
    }
}

/// The messages, each posted under a path of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// [`Request::Exchange`]
    Exchange,
    /// [`Request::Cells`]
    Cells,
    /// [`Request::Partitions`]
    Partitions,
    /// [`Request::Sketches`]
    Sketches,
    /// [`Request::Items`]
    Items,
    /// [`Request::Records`]
    Records,
    /// [`Request::Members`]
    Members,
    /// [`Request::Rumors`]
    Rumors,
    /// [`Request::Receipts`]
    Receipts,
    /// [`Request::Holds`]
    Holds,
    /// [`Request::Probe`]
    Probe,
    /// [`Request::Snapshot`]
    Snapshot,
    /// [`Request::History`]
    History,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Exchange,
        Self::Cells,
        Self::Partitions,
        Self::Sketches,
        Self::Items,
        Self::Records,
        Self::Snapshot,
        Self::Members,
        Self::Rumors,
        Self::Receipts,
        Self::Holds,
        Self::Probe,
        Self::History,
    ];

    /// The last segment of the path under `/gossip/`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exchange => "exchange",
            Self::Cells => "cells",
            Self::Partitions => "partitions",
            Self::Sketches => "sketches",
            Self::Items => "items",
            Self::Records => "records",
            Self::Members => "members",
            Self::Rumors => "rumors",
            Self::Receipts => "receipts",
            Self::Holds => "holds",
            Self::Probe => "probe",
            Self::Snapshot => "snapshot",
            Self::History => "history",
        }
    }

    /// How long a call of this kind may take, its answer included.
    pub fn patience(self) -> Duration {
        match self {
            Self::Exchange | Self::Holds | Self::Probe | Self::History => SMALL_CALL,
            Self::Cells
            | Self::Partitions
            | Self::Sketches
            | Self::Items
            | Self::Records
            | Self::Snapshot
            | Self::Members
            | Self::Rumors
            | Self::Receipts => BULK_CALL,
        }
    }

    /// Reads a request of this kind.
    pub fn read_request(self, json: &[u8]) -> Result<Envelope<Request>, serde_json::Error> {
        match self {
            Self::Exchange => read(json, Request::Exchange),
            Self::Cells => read(json, Request::Cells),
            Self::Partitions => read(json, Request::Partitions),
            Self::Sketches => read(json, Request::Sketches),
            Self::Items => read(json, Request::Items),
            Self::Records => read(json, Request::Records),
            Self::Members => read(json, Request::Members),
            Self::Rumors => read(json, Request::Rumors),
            Self::Receipts => read(json, Request::Receipts),
            Self::Holds => read(json, Request::Holds),
            Self::Probe => read(json, Request::Probe),
            Self::Snapshot => read(json, Request::Snapshot),
            Self::History => read(json, Request::History),
        }
    }

    /// Reads the answer to a request of this kind.
    pub fn read_answer(self, json: &[u8]) -> Result<Envelope<Answer>, serde_json::Error> {
        match self {
            Self::Exchange => read(json, Answer::Exchange),
            Self::Cells => read(json, Answer::Cells),
            Self::Partitions => read(json, Answer::Partitions),
            Self::Sketches => read(json, Answer::Sketches),
            Self::Items => read(json, Answer::Items),
            Self::Records => read(json, Answer::Records),
            Self::Members => read(json, Answer::Members),
            Self::Rumors | Self::Receipts => read(json, Answer::Taken),
            Self::Holds => read(json, Answer::Holds),
            Self::Probe => read(json, Answer::Probe),
            Self::Snapshot => read(json, Answer::Snapshot),
            Self::History => read(json, Answer::History),
        }
    }
}

fn read<'a, T: Deserialize<'a>, U>(json: &'a [u8], wrap: fn(T) -> U) -> Result<Envelope<U>, serde_json::Error> {
    let envelope: Envelope<T> = serde_json::from_slice(json)?;
    let Envelope { version, cluster, sender, incarnation, body } = envelope;
    Ok(Envelope { version, cluster, sender, incarnation, body: wrap(body) })
}

impl Answer {
    /// Checks bounds and the rules of records and members. An answer that fails changes nothing.
    pub fn validate(&self) -> Result<(), BadMessage> {
        match self {
            Self::Taken(_) | Self::Holds(_) | Self::Probe(_) => Ok(()),
            Self::Exchange(compared) => compared.validate(),
            Self::Cells(cells) => cells.validate(),
            Self::Partitions(partitions) => partitions.validate(),
            Self::Sketches(sketches) => sketches.validate(),
            Self::Items(items) => items.validate(),
            Self::Records(records) => records.validate(),
            Self::Members(list) => list.validate(),
            Self::Snapshot(snapshot) => snapshot.validate(),
            Self::History(answer) => Ok(answer.validate()?),
        }
    }
}

/// About how many bytes of JSON an entry takes; never less.
pub fn size(entry: &Entry) -> usize {
    record_size(&entry.versions)
}

/// About how many bytes of JSON a record takes; never less.
pub fn record_size(record: &Record) -> usize {
    // Quotation marks and backslashes are escaped; control characters are refused.
    let text = |text: &String| text.len() + text.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count();
    let clock_entry = 60;
    record.versions().iter().fold(64, |total, version| {
        let texts = version.content.payload().map_or(0, |payload| text(&payload.media_type) + payload.file_name.as_ref().map_or(0, text));
        total + 330 + texts + clock_entry * version.clock.iter().len()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{Item, KeyHash, StateHash};
    use crate::sketch::{Cell, MAX_CELLS};
    use crate::summary::{PARTITIONS, Root};

    fn envelope<T>(body: T) -> Envelope<T> {
        let sender = NodeId::from_public_key(&[1; 32]);
        Envelope { version: VERSION, cluster: "gossip-cdn".into(), sender, incarnation: 1_000, body }
    }

    #[test]
    fn an_idle_exchange_is_small_and_reads_back() {
        let digest =
            envelope(Digest { root: Root { sum: u128::MAX, count: 10_000_000 }, members: 7, history: Some(u64::MAX), occupied: false });
        let json = serde_json::to_string(&digest).expect("serialises");
        assert!(json.len() <= 200, "{json}");
        assert_eq!(serde_json::from_str::<Envelope<Digest>>(&json).expect("reads"), digest);
        let answer = serde_json::to_string(&envelope(Compared::default())).expect("serialises");
        assert!(answer.len() <= 90, "{answer}");
    }

    #[test]
    fn packed_lists_read_back_and_hostile_ones_are_refused() {
        let items = vec![Item { key: KeyHash(1), state: StateHash(2) }, Item { key: KeyHash(u64::MAX), state: StateHash(0) }];
        let items = ItemsAnswer { items, next: Some(9) };
        let json = serde_json::to_string(&items).expect("serialises");
        assert_eq!(serde_json::from_str::<ItemsAnswer>(&json).expect("reads"), items);
        let cells = CellsAnswer { cells: vec![Cell { items: u128::MAX - 5, checks: 7, count: 0xff01 }, Cell::default()] };
        let json = serde_json::to_string(&cells).expect("serialises");
        assert_eq!(serde_json::from_str::<CellsAnswer>(&json).expect("reads"), cells);
        let roots = PartitionsAnswer { roots: vec![Root { sum: 1 << 100, count: 3 }; PARTITIONS] };
        let json = serde_json::to_string(&roots).expect("serialises");
        assert_eq!(serde_json::from_str::<PartitionsAnswer>(&json).expect("reads"), roots);
        for hostile in [r#"{"items":"é"}"#, r#"{"items":"AAAA"}"#, r#"{"items":"AAAAAAAAAAAAAAAAAAAAAA=="}"#, r#"{"items":5}"#] {
            assert!(serde_json::from_str::<ItemsAnswer>(hostile).is_err(), "{hostile}");
        }
    }

    #[test]
    fn what_exceeds_its_bound_or_is_out_of_order_is_refused() {
        let bad = |request: Request| assert!(request.validate().is_err(), "{request:?}");
        let cells = |from, to| Request::Cells(CellsRequest { sketch: 1, from, to });
        bad(cells(5, 5));
        bad(cells(5, MAX_CELLS + 1));
        assert_eq!(cells(0, MAX_CELLS).validate(), Ok(()));
        let sketches = |partitions: &[u8], cells| Request::Sketches(SketchesRequest { partitions: partitions.to_vec(), cells });
        bad(sketches(&[2, 1], 1));
        bad(sketches(&[1, 1], 1));
        bad(sketches(&[1], 0));
        bad(sketches(&[1], MAX_CELLS + 1));
        bad(sketches(&(0..=u8::MAX).collect::<Vec<_>>(), 129));
        let bad = |answer: Answer| assert!(answer.validate().is_err(), "{answer:?}");
        bad(Answer::Partitions(PartitionsAnswer { roots: vec![] }));
        bad(Answer::Items(ItemsAnswer { items: vec![Item::from_bits(2), Item::from_bits(1)], next: None }));
        bad(Answer::Exchange(Compared { cells: vec![Cell::default(); FIRST_CELLS], ..Compared::default() }));
        bad(Answer::Exchange(Compared { root: Some(Root::default()), sketch: Some(1), ..Compared::default() }));
    }
}
