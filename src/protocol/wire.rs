//! What nodes say to each other: JSON bodies of HTTP requests and answers under `/gossip/`.
//!
//! The frequent fields have short names, explained here and in the proposal on serialisation and transport:
//!
//! | name | meaning | | name | meaning |
//! |---|---|---|---|---|
//! | `v` | protocol version | | `r` | root of the record set |
//! | `c` | cluster | | `m` | fingerprint of the member list |
//! | `n` | node id of the sender | | `b` | the message itself |
//! | `i` | incarnation of the sender | | | |
//!
//! Every list has a bound here. A reader refuses what exceeds it as malformed.

mod hex;
mod members;
mod payloads;
mod records;

use serde::{Deserialize, Serialize};

use crate::ids::{BlobId, NodeId};
use crate::record::{MAX_BYTES, Record};
use crate::version::Malformed;

pub use members::{Join, MemberList};
pub use payloads::{Holds, HoldsAnswer, PayloadRequest, PayloadsRequest, Receipt, Receipts};
pub use records::{Digest, Items, Partitions, RecordsAnswer, RecordsRequest};

/// The version of this protocol.
pub const VERSION: u32 = 1;
/// Largest body of a peer's message, in bytes: a page of records and the largest single record fit.
pub const MAX_BODY: usize = 4 << 20;
/// Most records in one message.
pub const MAX_RECORDS: usize = 512;
/// Records are added to a message until it holds about this many bytes of them.
pub const RECORDS_BUDGET: usize = 1 << 20;
/// Most items in one answer.
pub const MAX_ITEMS: usize = 16_384;
/// Most members in one message.
pub const MAX_MEMBERS: usize = 10_000;
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
    /// The record sets differ: the sender's partitions, for the items of those that differ.
    Partitions(Partitions),
    /// Gives records and asks for others.
    Records(RecordsRequest),
    /// The member lists differ: the sender's whole list, for the receiver's.
    Members(MemberList),
    /// Fresh records, pushed.
    Rumors(Rumors),
    /// Versions that the sender holds durably, payload included, as it was asked to say.
    Receipts(Receipts),
    /// Does the receiver hold this payload durably?
    Holds(Holds),
}

/// What a node answers. Serialises as what is inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// To [`Request::Exchange`].
    Exchange(Digest),
    /// To [`Request::Partitions`].
    Partitions(Items),
    /// To [`Request::Records`].
    Records(RecordsAnswer),
    /// To [`Request::Members`].
    Members(MemberList),
    /// To [`Request::Rumors`] and [`Request::Receipts`]: taken.
    Taken(Taken),
    /// To [`Request::Holds`].
    Holds(HoldsAnswer),
}

/// Fresh records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rumors {
    /// The records.
    pub records: Vec<Entry>,
    /// Versions for which the sender wishes a receipt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub receipts: Vec<Receipt>,
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
        validate_entries(&self.records)
    }
}

impl Request {
    /// Checks bounds and the rules of records and members. A message that fails changes nothing.
    pub fn validate(&self) -> Result<(), BadMessage> {
        match self {
            Self::Exchange(_) | Self::Holds(_) => Ok(()),
            Self::Partitions(partitions) => partitions.validate(),
            Self::Records(records) => records.validate(),
            Self::Members(list) => list.validate(),
            Self::Rumors(rumors) => rumors.validate(),
            Self::Receipts(receipts) => at_most(receipts.receipts.len(), MAX_RECEIPTS),
        }
    }

    /// Which of the messages it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Exchange(_) => Kind::Exchange,
            Self::Partitions(_) => Kind::Partitions,
            Self::Records(_) => Kind::Records,
            Self::Members(_) => Kind::Members,
            Self::Rumors(_) => Kind::Rumors,
            Self::Receipts(_) => Kind::Receipts,
            Self::Holds(_) => Kind::Holds,
        }
    }
}

/// The messages, each posted under a path of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// [`Request::Exchange`]
    Exchange,
    /// [`Request::Partitions`]
    Partitions,
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
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::Exchange, Self::Partitions, Self::Records, Self::Members, Self::Rumors, Self::Receipts, Self::Holds];

    /// The last segment of the path under `/gossip/`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exchange => "exchange",
            Self::Partitions => "partitions",
            Self::Records => "records",
            Self::Members => "members",
            Self::Rumors => "rumors",
            Self::Receipts => "receipts",
            Self::Holds => "holds",
        }
    }

    /// Reads a request of this kind.
    pub fn read_request(self, json: &[u8]) -> Result<Envelope<Request>, serde_json::Error> {
        match self {
            Self::Exchange => read(json, Request::Exchange),
            Self::Partitions => read(json, Request::Partitions),
            Self::Records => read(json, Request::Records),
            Self::Members => read(json, Request::Members),
            Self::Rumors => read(json, Request::Rumors),
            Self::Receipts => read(json, Request::Receipts),
            Self::Holds => read(json, Request::Holds),
        }
    }

    /// Reads the answer to a request of this kind.
    pub fn read_answer(self, json: &[u8]) -> Result<Envelope<Answer>, serde_json::Error> {
        match self {
            Self::Exchange => read(json, Answer::Exchange),
            Self::Partitions => read(json, Answer::Partitions),
            Self::Records => read(json, Answer::Records),
            Self::Members => read(json, Answer::Members),
            Self::Rumors | Self::Receipts => read(json, Answer::Taken),
            Self::Holds => read(json, Answer::Holds),
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
            Self::Exchange(_) | Self::Taken(_) | Self::Holds(_) => Ok(()),
            Self::Partitions(items) => items.validate(),
            Self::Records(records) => validate_entries(&records.give),
            Self::Members(list) => list.validate(),
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
    use crate::summary::Root;

    #[test]
    fn an_idle_exchange_is_small_and_reads_back() {
        let digest = Digest { root: Root { sum: u128::MAX, count: 10_000_000 }, members: 7 };
        let envelope = Envelope {
            version: VERSION,
            cluster: "gossip-cdn".into(),
            sender: NodeId::from_public_key(&[1; 32]),
            incarnation: 1_000,
            body: digest,
        };
        let json = serde_json::to_string(&envelope).expect("serialises");
        assert!(json.len() <= 180, "{json}");
        assert_eq!(serde_json::from_str::<Envelope<Digest>>(&json).expect("reads"), envelope);
    }

    #[test]
    fn items_and_keys_read_back_and_hostile_ones_are_refused() {
        let items = Items {
            partitions: vec![1, 2],
            items: vec![Item { key: KeyHash(1), state: StateHash(2) }, Item { key: KeyHash(u64::MAX), state: StateHash(0) }],
            next: Some(9),
        };
        let json = serde_json::to_string(&items).expect("serialises");
        assert_eq!(serde_json::from_str::<Items>(&json).expect("reads"), items);
        for hostile in [r#"{"partitions":[],"items":"é"}"#, r#"{"partitions":[],"items":"00"}"#, r#"{"partitions":[300],"items":""}"#] {
            assert!(serde_json::from_str::<Items>(hostile).is_err(), "{hostile}");
        }
        let unordered = Answer::Partitions(Items { partitions: vec![2, 1], items: vec![], next: None });
        assert_eq!(unordered.validate(), Err(BadMessage::Unordered));
    }
}
