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

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ids::{BlobId, ContentHash, NodeId};
use crate::item::{Item, KeyHash, StateHash};
use crate::member::Member;
use crate::record::{MAX_BYTES, Record};
use crate::summary::{PARTITIONS, Root};
use crate::version::{Malformed, VersionId};

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

/// The digest that opens an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// Root of the record set.
    #[serde(rename = "r")]
    pub root: Root,
    /// Fingerprint of the member list.
    #[serde(rename = "m", with = "hex64")]
    pub members: u64,
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

/// The roots of the sender's partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partitions {
    /// One for each of the 256, in order.
    pub roots: Vec<Root>,
    /// Go on from this key hash; absent at first.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hex64_option")]
    pub from: Option<u64>,
}

/// The items of the partitions that differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Items {
    /// Which partitions differ.
    pub partitions: Vec<u8>,
    /// Their items in the order of key hashes, 32 hexadecimal digits each.
    #[serde(with = "hex_items")]
    pub items: Vec<Item>,
    /// Where to go on: all items of lower key hashes are here. Absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hex64_option")]
    pub next: Option<u64>,
}

/// Records given, records asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordsRequest {
    /// What the receiver lacks.
    pub give: Vec<Entry>,
    /// Key hashes of the records wanted.
    #[serde(with = "hex_keys")]
    pub ask: Vec<KeyHash>,
}

/// Records asked for; those that did not fit are asked for again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordsAnswer {
    /// As many as fit, in the order asked.
    pub give: Vec<Entry>,
    /// How many of the key hashes asked for were looked at.
    pub seen: usize,
}

/// Members as the sender knows them, itself included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberList {
    /// The claims.
    pub members: Vec<Member>,
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

/// A version of a blob, as receipts name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Receipt {
    /// The blob.
    pub id: BlobId,
    /// The version.
    pub version: VersionId,
}

/// Receipts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipts {
    /// What the sender holds durably.
    pub receipts: Vec<Receipt>,
}

/// Asks for a holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    /// The payload.
    pub hash: ContentHash,
}

/// Whether the sender holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldsAnswer {
    /// Durably.
    pub holds: bool,
}

/// Asks a holder for one payload from an offset on, encoded with its hash tree. Answered by bytes, not JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadRequest {
    /// The payload.
    pub hash: ContentHash,
    /// Where to begin: a multiple of the tree's group size of 16 KiB.
    pub offset: u64,
}

/// Asks a holder for several small payloads. Answered by a frame for each, in the order asked: its hash (32 bytes), its length (8
/// bytes, big-endian; all ones if the holder lacks it), its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadsRequest {
    /// The payloads, at most [`crate::transfer::MAX_BATCH`].
    pub hashes: Vec<ContentHash>,
}

/// Nothing to say but that it was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {}

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

impl Request {
    /// Checks bounds and the rules of records and members. A message that fails changes nothing.
    pub fn validate(&self) -> Result<(), BadMessage> {
        match self {
            Self::Exchange(_) | Self::Holds(_) => Ok(()),
            Self::Partitions(partitions) => {
                let found = partitions.roots.len();
                if found == PARTITIONS { Ok(()) } else { Err(BadMessage::TooMany { found, bound: PARTITIONS }) }
            }
            Self::Records(records) => {
                at_most(records.ask.len(), MAX_RECORDS)?;
                validate_entries(&records.give)
            }
            Self::Members(list) => list.validate(),
            Self::Rumors(rumors) => {
                at_most(rumors.receipts.len(), MAX_RECEIPTS)?;
                validate_entries(&rumors.records)
            }
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
            Self::Partitions(items) => {
                at_most(items.items.len(), MAX_ITEMS)?;
                at_most(items.partitions.len(), PARTITIONS)?;
                let ordered = items.partitions.is_sorted_by(|a, b| a < b) && items.items.is_sorted();
                if ordered { Ok(()) } else { Err(BadMessage::Unordered) }
            }
            Self::Records(records) => validate_entries(&records.give),
            Self::Members(list) => list.validate(),
        }
    }
}

impl MemberList {
    fn validate(&self) -> Result<(), BadMessage> {
        at_most(self.members.len(), MAX_MEMBERS)?;
        Ok(self.members.iter().try_for_each(Member::validate)?)
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

mod hex64 {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bits: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{bits:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        super::parse_hex64(&text).ok_or_else(|| serde::de::Error::custom("not 16 hexadecimal digits"))
    }
}

mod hex64_option {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bits: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match bits {
            Some(bits) => super::hex64::serialize(bits, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| super::parse_hex64(&text).ok_or_else(|| serde::de::Error::custom("not 16 hexadecimal digits"))).transpose()
    }
}

fn parse_hex64(text: &str) -> Option<u64> {
    if text.len() == 16 && crate::ids::is_lower_hex(text) { u64::from_str_radix(text, 16).ok() } else { None }
}

/// Reads `text` as words of 16 hexadecimal digits, `per` of them to a value.
fn parse_words(text: &str, per: usize) -> Option<Vec<Vec<u64>>> {
    if !text.len().is_multiple_of(16 * per) || !text.is_ascii() {
        return None;
    }
    let words: Option<Vec<u64>> = text.as_bytes().chunks_exact(16).map(|word| parse_hex64(std::str::from_utf8(word).ok()?)).collect();
    Some(words?.chunks_exact(per).map(<[u64]>::to_vec).collect())
}

mod hex_items {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Item, KeyHash, StateHash, parse_words};

    pub(super) fn serialize<S: Serializer>(items: &[Item], serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(items.len() * 32);
        for item in items {
            text.push_str(&format!("{:032x}", item.bits()));
        }
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Item>, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let words = parse_words(&text, 2).ok_or_else(|| serde::de::Error::custom("not items of 32 hexadecimal digits each"))?;
        Ok(words.into_iter().map(|word| Item { key: KeyHash(word[0]), state: StateHash(word[1]) }).collect())
    }
}

mod hex_keys {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{KeyHash, parse_words};

    pub(super) fn serialize<S: Serializer>(keys: &[KeyHash], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&keys.iter().map(|key| format!("{:016x}", key.0)).collect::<String>())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<KeyHash>, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let words = parse_words(&text, 1).ok_or_else(|| serde::de::Error::custom("not key hashes of 16 hexadecimal digits each"))?;
        Ok(words.into_iter().map(|word| KeyHash(word[0])).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
