//! Pages of blobs, in the orders that have an index.
//!
//! A cursor is the key of the last entry of a page, so a page costs a seek and its entries, however deep it lies, and changes
//! between two pages neither repeat nor skip a blob that did not itself move.

use std::ops::Bound;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gossip_cdn_protocol::item::ItemHasher;
use gossip_cdn_protocol::{BlobId, Record, StoreFault};
use redb::{Error, Key, ReadTransaction, TableDefinition};
use uuid::Uuid;

use super::{fault, tables};

/// In which order blobs are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Latest winner first.
    #[default]
    Newest,
    /// By file name, bytewise; those without one first.
    Name,
    /// By GUID.
    Id,
}

/// Which blobs to list.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// In which order.
    pub order: Order,
    /// Only those whose file name begins so; with [`Order::Name`] only.
    pub name_prefix: Option<String>,
    /// Deleted blobs instead of live ones; in the order [`Order::Newest`] only.
    pub deleted: bool,
    /// The cursor that the page before gave.
    pub after: Option<String>,
    /// Most entries of the page; at least 1.
    pub limit: usize,
}

/// A page of blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage {
    /// The blobs with their records.
    pub entries: Vec<(BlobId, Record)>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<String>,
}

/// Why there is no page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListFault {
    /// The cursor is not one that this order gave.
    #[error("the cursor is not one that a page of this order gave")]
    BadCursor,
    /// No index serves this query.
    #[error("a prefix of names needs the order by name; deleted blobs are listed newest first")]
    NoIndex,
    /// The store cannot be read.
    #[error("{0}")]
    Store(#[from] StoreFault),
}

/// The four indexes, by the first byte of their cursors.
#[derive(Clone, Copy)]
enum Index {
    Newest,
    Name,
    Id,
    Tombstones,
}

impl Index {
    fn of(query: &ListQuery) -> Result<Self, ListFault> {
        match (query.order, query.deleted, &query.name_prefix) {
            (Order::Newest, true, None) => Ok(Self::Tombstones),
            (Order::Newest, false, None) => Ok(Self::Newest),
            (Order::Id, false, None) => Ok(Self::Id),
            (Order::Name, false, _) => Ok(Self::Name),
            (Order::Name | Order::Id, true, _) | (Order::Newest | Order::Id, _, Some(_)) => Err(ListFault::NoIndex),
        }
    }

    fn letter(self) -> u8 {
        match self {
            Self::Newest => b'n',
            Self::Name => b'm',
            Self::Id => b'i',
            Self::Tombstones => b'd',
        }
    }

    fn cursor(self, key: &[u8]) -> String {
        let mut bytes = vec![self.letter()];
        bytes.extend_from_slice(key);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The key behind a cursor of this index.
    fn key(self, cursor: &str) -> Result<Vec<u8>, ListFault> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| ListFault::BadCursor)?;
        match bytes.split_first() {
            Some((letter, key)) if *letter == self.letter() => Ok(key.to_vec()),
            Some(_) | None => Err(ListFault::BadCursor),
        }
    }
}

/// The keys of a page: what the cursor holds, and the blob.
type Keys = Vec<(Vec<u8>, BlobId)>;

/// Reads a page.
pub(super) fn page(transaction: &ReadTransaction, hasher: &ItemHasher, query: &ListQuery) -> Result<ListPage, ListFault> {
    let index = Index::of(query)?;
    let after = query.after.as_deref().map(|cursor| index.key(cursor)).transpose()?;
    let limit = query.limit.max(1);
    let stored = |error: Error| ListFault::Store(fault(error));
    // One more than asked for tells whether there is a next page.
    let mut keys = match index {
        Index::Newest => by_stamp(transaction, tables::NEWEST, after, limit + 1)?,
        Index::Tombstones => by_stamp(transaction, tables::TOMBSTONES, after, limit + 1)?,
        Index::Id => by_id(transaction, after, limit + 1)?,
        Index::Name => by_name(transaction, query.name_prefix.as_deref().unwrap_or_default(), after, limit + 1)?,
    };
    let more = keys.len() > limit;
    keys.truncate(limit);
    let next = keys.last().filter(|_| more).map(|(key, _)| index.cursor(key));
    let mut entries = Vec::with_capacity(keys.len());
    let records = transaction.open_table(tables::RECORDS).map_err(|error| stored(error.into()))?;
    for (_, blob) in keys {
        if let Some(row) = records.get(&tables::key_bytes(hasher.key(blob))).map_err(|error| stored(error.into()))? {
            entries.push((blob, tables::record_of(row.value()).map_err(stored)?));
        }
    }
    Ok(ListPage { entries, next })
}

fn by_stamp(
    transaction: &ReadTransaction,
    table: TableDefinition<'_, &'static [u8; 24], ()>,
    after: Option<Vec<u8>>,
    count: usize,
) -> Result<Keys, ListFault> {
    let before: Option<[u8; 24]> = exactly(after)?;
    let end = before.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let read = || -> Result<Keys, Error> {
        let table = transaction.open_table(table)?;
        let rows = table.range::<&[u8; 24]>((Bound::Unbounded, end))?;
        rows.rev().take(count).map(|row| row_key(row, |key| (key.to_vec(), tables::stamp_blob(key)))).collect()
    };
    read().map_err(|error| fault(error).into())
}

fn by_id(transaction: &ReadTransaction, after: Option<Vec<u8>>, count: usize) -> Result<Keys, ListFault> {
    let after: Option<[u8; 16]> = exactly(after)?;
    let start = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let read = || -> Result<Keys, Error> {
        let table = transaction.open_table(tables::IDS)?;
        let rows = table.range::<&[u8; 16]>((start, Bound::Unbounded))?;
        rows.take(count).map(|row| row_key(row, |key| (key.to_vec(), BlobId(Uuid::from_bytes(*key))))).collect()
    };
    read().map_err(|error| fault(error).into())
}

fn by_name(transaction: &ReadTransaction, prefix: &str, after: Option<Vec<u8>>, count: usize) -> Result<Keys, ListFault> {
    let after = after.map(name_key).transpose()?;
    // Below the prefix there is nothing to list, whatever the cursor says.
    let start = match &after {
        Some((name, id)) if name.as_str() >= prefix => Bound::Excluded((name.as_str(), id)),
        Some(_) | None => Bound::Included((prefix, &[0; 16])),
    };
    let read = || -> Result<Keys, Error> {
        let table = transaction.open_table(tables::NAMES)?;
        let mut keys = Vec::new();
        for row in table.range::<(&str, &[u8; 16])>((start, Bound::Unbounded))?.take(count) {
            let (key, ()) = row.map(|(key, _)| (key, ()))?;
            let (name, id) = key.value();
            if !name.starts_with(prefix) {
                break;
            }
            keys.push(([name.as_bytes(), id].concat(), BlobId(Uuid::from_bytes(*id))));
        }
        Ok(keys)
    };
    read().map_err(|error| fault(error).into())
}

fn row_key<K: Key + 'static>(
    row: Result<(redb::AccessGuard<'_, K>, redb::AccessGuard<'_, ()>), redb::StorageError>,
    read: impl FnOnce(K::SelfType<'_>) -> (Vec<u8>, BlobId),
) -> Result<(Vec<u8>, BlobId), Error> {
    let (key, _) = row?;
    Ok(read(key.value()))
}

fn exactly<const N: usize>(key: Option<Vec<u8>>) -> Result<Option<[u8; N]>, ListFault> {
    key.map(|key| key.try_into().map_err(|_| ListFault::BadCursor)).transpose()
}

fn name_key(mut key: Vec<u8>) -> Result<(String, [u8; 16]), ListFault> {
    let at = key.len().checked_sub(16).ok_or(ListFault::BadCursor)?;
    let id = key.split_off(at).try_into().map_err(|_| ListFault::BadCursor)?;
    Ok((String::from_utf8(key).map_err(|_| ListFault::BadCursor)?, id))
}
