//! The tables of the database: their names and the layout of their keys and values.
//!
//! 1. No table is named anywhere else, but for those that each history has of its own ([`super::history`]).
//! 2. A name carries the version of its layout; another layout is another table, so no release misreads an older one's bytes.
//! 3. Keys are big-endian, so their byte order is the order that is scanned.

use gossip_cdn_protocol::item::{KeyHash, RecordKey};
use gossip_cdn_protocol::{BlobId, ContentHash, Stamp};
use redb::{Error, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};
use uuid::Uuid;

use super::{Identity, Usage};

/// A [`RecordKey`]: 8 bytes of hash, 16 of GUID.
pub(super) type KeyBytes = [u8; 24];
/// A stamp of 8 bytes and a GUID of 16.
pub(super) type StampBytes = [u8; 24];
/// A file name and a GUID.
pub(super) type NameKey = (String, [u8; 16]);
/// A content hash and a record key.
pub(super) type OwnerBytes = [u8; 56];
/// A record key, the hash waited for, the hash retained.
pub(super) type RetainedBytes = [u8; 88];

type Definition<K, V> = TableDefinition<'static, K, V>;

/// Record key to the row of the record: see [`super::encoding`].
pub(super) const RECORDS: Definition<&[u8; 24], &[u8]> = Definition::new("records_v2");
/// Live blobs by the stamp of their winner.
pub(super) const NEWEST: Definition<&[u8; 24], ()> = Definition::new("live_by_stamp_v1");
/// Live blobs by the file name of their winner; those without one have the empty name.
pub(super) const NAMES: Definition<(&str, &[u8; 16]), ()> = Definition::new("live_by_name_v1");
/// Live blobs by GUID.
pub(super) const IDS: Definition<&[u8; 16], ()> = Definition::new("live_by_id_v1");
/// Deleted blobs by the stamp of their tombstone.
pub(super) const TOMBSTONES: Definition<&[u8; 24], ()> = Definition::new("tombstones_by_stamp_v1");
/// Blobs with several live versions, deleted ones among them, by the stamp of their winner.
pub(super) const CONFLICTS: Definition<&[u8; 24], ()> = Definition::new("conflicts_by_stamp_v1");
/// The payloads that are here, by hash, with their size. Up to [`super::INLINE_MAX`] the bytes are in [`INLINE`], else in files.
pub(super) const PAYLOADS: Definition<&[u8; 32], u64> = Definition::new("payloads_v1");
/// Bytes of small payloads.
pub(super) const INLINE: Definition<&[u8; 32], &[u8]> = Definition::new("inline_v1");
/// Hash and record key of every claim on a payload; true where a live version names it, false where it is only retained.
pub(super) const OWNERS: Definition<&[u8; 56], bool> = Definition::new("owners_v1");
/// Payloads here whose version is covered: record key, the hash whose bytes are waited for, the hash retained until then.
pub(super) const RETAINED: Definition<&[u8; 88], ()> = Definition::new("retained_v1");
/// Payloads here that nobody claims: uploads whose record is still on its way. Swept at start.
pub(super) const UNOWNED: Definition<&[u8; 32], ()> = Definition::new("unowned_v1");
/// Payloads that live versions name and that are not here: size, and a record that names it.
pub(super) const MISSING: Definition<&[u8; 32], (u64, &[u8; 24])> = Definition::new("missing_v1");
/// Of the missing payloads those whose copy here was damaged.
pub(super) const DAMAGED: Definition<&[u8; 32], ()> = Definition::new("damaged_v1");
/// Member claims by node id, as JSON.
pub(super) const MEMBERS: Definition<&[u8; 16], &[u8]> = Definition::new("members_v1");
/// The histories that the node ever belonged to, by id, each with its single values as JSON. Made with the first of them.
pub(super) const HISTORIES: Definition<&[u8; 16], &[u8]> = Definition::new("histories_v1");
/// Single values: see the constants below.
pub(super) const META: Definition<&str, &[u8]> = Definition::new("meta_v1");

/// In [`META`]: the Ed25519 seed, 32 bytes.
pub(super) const SECRET: &str = "secret";
/// In [`META`]: the incarnation, JSON.
pub(super) const INCARNATION: &str = "incarnation";
/// In [`META`]: addresses introduced by hand that never answered, JSON.
pub(super) const CONTACTS: &str = "contacts";
/// In [`META`]: the counters of [`super::Usage`], JSON.
pub(super) const USAGE: &str = "usage";

/// In [`META`]: the id of the history that the node belongs to, JSON.
pub(super) const HISTORY: &str = "history";

/// In [`META`]: the key of the journal's checksums, 32 bytes.
pub(super) const JOURNAL_KEY: &str = "journal_key";
/// In [`META`]: the sequence of the first record of the journal that the tables do not have, 8 bytes.
pub(super) const JOURNALED: &str = "journaled";

/// In [`META`]: the sequence of the first record of the journal whose rows the tables do not have, 8 bytes; not below [`JOURNALED`] while it counts.
pub(super) const REPLAYED: &str = "replayed";

/// In [`META`]: how far the scrub is, JSON.
pub(super) const SCRUB: &str = "scrub";

/// All tables but those of histories, open in one write transaction.
pub(super) struct Tables<'txn> {
    pub(super) records: Table<'txn, &'static [u8; 24], &'static [u8]>,
    pub(super) newest: Table<'txn, &'static [u8; 24], ()>,
    pub(super) names: Table<'txn, (&'static str, &'static [u8; 16]), ()>,
    pub(super) ids: Table<'txn, &'static [u8; 16], ()>,
    pub(super) tombstones: Table<'txn, &'static [u8; 24], ()>,
    pub(super) conflicts: Table<'txn, &'static [u8; 24], ()>,
    pub(super) payloads: Table<'txn, &'static [u8; 32], u64>,
    pub(super) inline: Table<'txn, &'static [u8; 32], &'static [u8]>,
    pub(super) owners: Table<'txn, &'static [u8; 56], bool>,
    pub(super) retained: Table<'txn, &'static [u8; 88], ()>,
    pub(super) unowned: Table<'txn, &'static [u8; 32], ()>,
    pub(super) missing: Table<'txn, &'static [u8; 32], (u64, &'static [u8; 24])>,
    pub(super) damaged: Table<'txn, &'static [u8; 32], ()>,
    pub(super) members: Table<'txn, &'static [u8; 16], &'static [u8]>,
    pub(super) meta: Table<'txn, &'static str, &'static [u8]>,
}

impl<'txn> Tables<'txn> {
    /// Opens them, making those that do not exist.
    pub(super) fn open(transaction: &'txn WriteTransaction) -> Result<Self, Error> {
        Ok(Self {
            records: transaction.open_table(RECORDS)?,
            newest: transaction.open_table(NEWEST)?,
            names: transaction.open_table(NAMES)?,
            ids: transaction.open_table(IDS)?,
            tombstones: transaction.open_table(TOMBSTONES)?,
            conflicts: transaction.open_table(CONFLICTS)?,
            payloads: transaction.open_table(PAYLOADS)?,
            inline: transaction.open_table(INLINE)?,
            owners: transaction.open_table(OWNERS)?,
            retained: transaction.open_table(RETAINED)?,
            unowned: transaction.open_table(UNOWNED)?,
            missing: transaction.open_table(MISSING)?,
            damaged: transaction.open_table(DAMAGED)?,
            members: transaction.open_table(MEMBERS)?,
            meta: transaction.open_table(META)?,
        })
    }
}

impl Tables<'_> {
    /// The counters as of the rows.
    pub(super) fn usage(&self) -> Result<Usage, Error> {
        let usage = self.meta.get(USAGE)?.map(|row| from_json(row.value())).transpose()?;
        Ok(usage.unwrap_or_default())
    }

    /// Who this node is, from this commit on.
    pub(super) fn write_identity(&mut self, identity: &Identity) -> Result<(), Error> {
        self.meta.insert(SECRET, &identity.secret[..])?;
        self.meta.insert(INCARNATION, to_json(&[], &identity.incarnation)?.as_slice())?;
        Ok(())
    }
}

/// The bytes of a record key.
pub(super) fn key_bytes(key: RecordKey) -> KeyBytes {
    join(&key.hash.0.to_be_bytes(), key.blob.0.as_bytes())
}

/// The record key of those bytes.
pub(super) fn key_of(bytes: &KeyBytes) -> RecordKey {
    let (hash, blob) = halves::<8, 16>(bytes);
    RecordKey { hash: KeyHash(u64::from_be_bytes(hash)), blob: BlobId(Uuid::from_bytes(blob)) }
}

/// The bytes under which an index by stamp has a blob.
pub(super) fn stamp_bytes(stamp: Stamp, blob: BlobId) -> StampBytes {
    join(&stamp.0.to_be_bytes(), blob.0.as_bytes())
}

/// The blob of an index by stamp.
pub(super) fn stamp_blob(bytes: &StampBytes) -> BlobId {
    BlobId(Uuid::from_bytes(halves::<8, 16>(bytes).1))
}

/// The bytes of a claim on a payload.
pub(super) fn owner_bytes(hash: ContentHash, key: &KeyBytes) -> OwnerBytes {
    join(&hash.0, key)
}

/// The payload of a claim.
pub(super) fn owned_hash(bytes: &OwnerBytes) -> ContentHash {
    ContentHash(halves::<32, 24>(bytes).0)
}

/// The record of a claim.
pub(super) fn owner_key(bytes: &OwnerBytes) -> KeyBytes {
    halves::<32, 24>(bytes).1
}

/// The first and the last claim on a payload.
pub(super) fn owners_of(hash: ContentHash) -> (OwnerBytes, OwnerBytes) {
    (join(&hash.0, &[0; 24]), join(&hash.0, &[u8::MAX; 24]))
}

/// The bytes of a retained payload.
pub(super) fn retained_bytes(key: &KeyBytes, wait: ContentHash, hash: ContentHash) -> RetainedBytes {
    join(&waiting(key, wait), &hash.0)
}

/// The payload that is retained.
pub(super) fn retained_hash(bytes: &RetainedBytes) -> ContentHash {
    ContentHash(halves::<56, 32>(bytes).1)
}

/// The first and the last payload that a record retains until the bytes of `wait` are here.
pub(super) fn retained_until(key: &KeyBytes, wait: ContentHash) -> (RetainedBytes, RetainedBytes) {
    let head = waiting(key, wait);
    (join(&head, &[0; 32]), join(&head, &[u8::MAX; 32]))
}

/// The first and the last payload that a record retains.
pub(super) fn retained_by(key: &KeyBytes) -> (RetainedBytes, RetainedBytes) {
    (join(key, &[0; 64]), join(key, &[u8::MAX; 64]))
}

fn waiting(key: &KeyBytes, wait: ContentHash) -> [u8; 56] {
    join(key, &wait.0)
}

/// A value kept as JSON.
pub(super) fn from_json<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::Corrupted(format!("a row is not the JSON it should be: {error}")))
}

/// A value as JSON, behind `head`.
pub(super) fn to_json(head: &[u8], value: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    let mut bytes = head.to_vec();
    serde_json::to_writer(&mut bytes, value).map_err(|error| Error::Corrupted(format!("a value has no JSON: {error}")))?;
    Ok(bytes)
}

/// A single value of [`META`] kept as JSON.
pub(super) fn meta<T: serde::de::DeserializeOwned>(transaction: &ReadTransaction, name: &str) -> Result<Option<T>, Error> {
    transaction.open_table(META)?.get(name)?.map(|row| from_json(row.value())).transpose()
}

/// The sequence of the first record of the journal that the tables do not have.
pub(super) fn journaled(transaction: &ReadTransaction) -> Result<u64, Error> {
    sequence(transaction, JOURNALED)
}

/// The sequence of the first record of the journal whose rows the tables do not have.
pub(super) fn replayed(transaction: &ReadTransaction) -> Result<u64, Error> {
    sequence(transaction, REPLAYED)
}

/// The tables have the rows of the journal up to that record.
pub(super) fn note_replayed(transaction: &WriteTransaction, sequence: u64) -> Result<(), Error> {
    transaction.open_table(META)?.insert(REPLAYED, &sequence.to_be_bytes()[..])?;
    Ok(())
}

/// The same, also if that was told with all that the journal had.
pub(super) fn rows_until(transaction: &ReadTransaction) -> Result<u64, Error> {
    Ok(journaled(transaction)?.max(replayed(transaction)?))
}

fn sequence(transaction: &ReadTransaction, name: &str) -> Result<u64, Error> {
    let row = transaction.open_table(META)?.get(name)?.map(|row| row.value().try_into().map(u64::from_be_bytes));
    row.transpose().map(Option::unwrap_or_default).map_err(|_| Error::Corrupted("a sequence is not of 8 bytes".to_owned()))
}

fn join<const N: usize>(head: &[u8], tail: &[u8]) -> [u8; N] {
    debug_assert_eq!(head.len() + tail.len(), N);
    let mut bytes = [0; N];
    bytes.iter_mut().zip(head.iter().chain(tail)).for_each(|(byte, from)| *byte = *from);
    bytes
}

fn halves<const A: usize, const B: usize>(bytes: &[u8]) -> ([u8; A], [u8; B]) {
    debug_assert_eq!(bytes.len(), A + B);
    let (mut head, mut tail) = ([0; A], [0; B]);
    let (first, second) = bytes.split_at(A);
    head.copy_from_slice(first);
    tail.copy_from_slice(second);
    (head, tail)
}
