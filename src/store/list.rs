//! Pages of blobs, in the orders that have an index.
//!
//! A cursor is the key of the last entry of a page, so a page costs a seek and its entries, however deep it lies, and changes
//! between two pages neither repeat nor skip a blob that did not itself move.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Bound;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gossip_cdn_protocol::item::ItemHasher;
use gossip_cdn_protocol::{BlobId, Record, StoreFault};
use redb::{Error, Key, ReadTransaction, TableDefinition};
use uuid::Uuid;

use super::fresh::{Rows, merged};
use super::tables::{self, NameKey, StampBytes};
use super::{Shared, encoding, fault};

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

/// Of which blobs there is a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Which {
    /// Live ones.
    #[default]
    Live,
    /// Deleted ones.
    Deleted,
    /// Those with several live versions, whether the winner says deleted or not.
    Conflicts,
}

/// Which blobs to list.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// In which order.
    pub order: Order,
    /// Only those whose file name begins so; with [`Order::Name`] only.
    pub name_prefix: Option<String>,
    /// Of which blobs; of others than live ones in the order [`Order::Newest`] only.
    pub which: Which,
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
    #[error("a prefix of names needs the order by name; deleted blobs and conflicts are listed newest first")]
    NoIndex,
    /// The store cannot be read.
    #[error("{0}")]
    Store(#[from] StoreFault),
}

/// The five indexes, by the first byte of their cursors.
#[derive(Clone, Copy)]
enum Index {
    Newest,
    Name,
    Id,
    Tombstones,
    Conflicts,
}

impl Index {
    fn of(query: &ListQuery) -> Result<Self, ListFault> {
        match (query.which, query.order, &query.name_prefix) {
            (Which::Live, Order::Newest, None) => Ok(Self::Newest),
            (Which::Live, Order::Id, None) => Ok(Self::Id),
            (Which::Live, Order::Name, _) => Ok(Self::Name),
            (Which::Deleted, Order::Newest, None) => Ok(Self::Tombstones),
            (Which::Conflicts, Order::Newest, None) => Ok(Self::Conflicts),
            (Which::Live, Order::Newest | Order::Id, Some(_))
            | (Which::Deleted | Which::Conflicts, Order::Newest, Some(_))
            | (Which::Deleted | Which::Conflicts, Order::Name | Order::Id, _) => Err(ListFault::NoIndex),
        }
    }

    fn letter(self) -> u8 {
        match self {
            Self::Newest => b'n',
            Self::Name => b'm',
            Self::Id => b'i',
            Self::Tombstones => b'd',
            Self::Conflicts => b'c',
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

/// A place in an index: what the cursor holds, the blob, and the row of its record where that is fresh.
struct Place {
    cursor: Vec<u8>,
    blob: BlobId,
    fresh: Option<Vec<u8>>,
}

impl Place {
    fn new(cursor: &[u8], blob: BlobId) -> Self {
        Self { cursor: cursor.to_vec(), blob, fresh: None }
    }

    /// Of rows that are fresh.
    fn fresh(self, rows: &Rows, hasher: &ItemHasher) -> Self {
        let fresh = rows.records.get(&tables::key_bytes(hasher.key(self.blob))).cloned();
        Self { fresh, ..self }
    }

    fn of_stamp(key: &StampBytes) -> Self {
        Self::new(key, tables::stamp_blob(key))
    }

    fn of_id(id: &[u8; 16]) -> Self {
        Self::new(id, BlobId(Uuid::from_bytes(*id)))
    }

    fn of_name(name: &str, id: &[u8; 16]) -> Self {
        Self::new(&[name.as_bytes(), id].concat(), BlobId(Uuid::from_bytes(*id)))
    }
}

/// A transaction, and as many places as are asked for of an index in it and of the fresh rows beside it.
type Places = (ReadTransaction, Vec<Place>);

/// Reads a page.
pub(super) fn page(shared: &Shared, query: &ListQuery) -> Result<ListPage, ListFault> {
    let index = Index::of(query)?;
    let after = query.after.as_deref().map(|cursor| index.key(cursor)).transpose()?;
    let limit = query.limit.max(1);
    let stored = |error: Error| ListFault::Store(fault(error));
    // One more than asked for tells whether there is a next page.
    let (transaction, mut places) = match index {
        Index::Newest => by_stamp(shared, tables::NEWEST, |rows| Some(&rows.newest), after, limit + 1)?,
        // Nothing of these is ever fresh.
        Index::Tombstones => by_stamp(shared, tables::TOMBSTONES, |_| None, after, limit + 1)?,
        Index::Conflicts => by_stamp(shared, tables::CONFLICTS, |_| None, after, limit + 1)?,
        Index::Id => by_id(shared, after, limit + 1)?,
        Index::Name => by_name(shared, query.name_prefix.as_deref().unwrap_or_default(), after, limit + 1)?,
    };
    let more = places.len() > limit;
    places.truncate(limit);
    let next = places.last().filter(|_| more).map(|place| index.cursor(&place.cursor));
    let mut entries = Vec::with_capacity(places.len());
    let records = transaction.open_table(tables::RECORDS).map_err(|error| stored(error.into()))?;
    for Place { blob, fresh, .. } in places {
        let record = match fresh {
            Some(row) => encoding::record_of(&row),
            None => match records.get(&tables::key_bytes(shared.hasher.key(blob))).map_err(|error| stored(error.into()))? {
                Some(row) => encoding::record_of(row.value()),
                None => continue,
            },
        };
        entries.push((blob, record.map_err(stored)?));
    }
    Ok(ListPage { entries, next })
}

/// The first places of both, in the order of their keys.
fn first<K: Ord>(
    count: usize,
    fresh: Vec<(K, Place)>,
    stored: impl Iterator<Item = Result<(K, Place), Error>>,
) -> Result<Vec<Place>, Error> {
    merged(fresh, stored).take(count).map(|row| row.map(|(_, place)| place)).collect()
}

fn by_stamp(
    shared: &Shared,
    table: TableDefinition<'_, &'static StampBytes, ()>,
    fresh: impl Fn(&Rows) -> Option<&BTreeSet<StampBytes>>,
    after: Option<Vec<u8>>,
    count: usize,
) -> Result<Places, ListFault> {
    let before: Option<StampBytes> = exactly(after)?;
    let end = before.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let young = |rows: &Rows| -> Vec<_> {
        let keys = fresh(rows).into_iter().flat_map(|keys| keys.range::<StampBytes, _>((Bound::Unbounded, end)).rev());
        keys.take(count).map(|key| (Reverse(*key), Place::of_stamp(key).fresh(rows, &shared.hasher))).collect()
    };
    let read = || -> Result<Places, Error> {
        let (transaction, fresh) = shared.beside(young)?;
        let table = transaction.open_table(table)?;
        let rows = table.range::<&StampBytes>((Bound::Unbounded, end))?.rev();
        let places = first(count, fresh, rows.map(|row| row_key(row, |key| (Reverse(*key), Place::of_stamp(key)))))?;
        Ok((transaction, places))
    };
    read().map_err(|error| fault(error).into())
}

fn by_id(shared: &Shared, after: Option<Vec<u8>>, count: usize) -> Result<Places, ListFault> {
    let after: Option<[u8; 16]> = exactly(after)?;
    let start = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let young = |rows: &Rows| -> Vec<_> {
        let ids = rows.ids.range::<[u8; 16], _>((start, Bound::Unbounded)).take(count);
        ids.map(|id| (*id, Place::of_id(id).fresh(rows, &shared.hasher))).collect()
    };
    let read = || -> Result<Places, Error> {
        let (transaction, fresh) = shared.beside(young)?;
        let table = transaction.open_table(tables::IDS)?;
        let rows = table.range::<&[u8; 16]>((start, Bound::Unbounded))?;
        let places = first(count, fresh, rows.map(|row| row_key(row, |id| (*id, Place::of_id(id)))))?;
        Ok((transaction, places))
    };
    read().map_err(|error| fault(error).into())
}

fn by_name(shared: &Shared, prefix: &str, after: Option<Vec<u8>>, count: usize) -> Result<Places, ListFault> {
    let after = after.map(name_key).transpose()?;
    // Below the prefix there is nothing to list, whatever the cursor says.
    let (from, is_behind) = match after {
        Some(after) if after.0.as_str() >= prefix => (after, true),
        Some(_) | None => ((prefix.to_owned(), [0; 16]), false),
    };
    let young = |rows: &Rows| -> Vec<_> {
        let start = if is_behind { Bound::Excluded(&from) } else { Bound::Included(&from) };
        let names = rows.names.range::<NameKey, _>((start, Bound::Unbounded)).take_while(|(name, _)| name.starts_with(prefix)).take(count);
        names.map(|(name, id)| ((name.clone(), *id), Place::of_name(name, id).fresh(rows, &shared.hasher))).collect()
    };
    let read = || -> Result<Places, Error> {
        let (transaction, fresh) = shared.beside(young)?;
        let table = transaction.open_table(tables::NAMES)?;
        let key = (from.0.as_str(), &from.1);
        let start = if is_behind { Bound::Excluded(key) } else { Bound::Included(key) };
        let rows = table.range::<(&str, &[u8; 16])>((start, Bound::Unbounded))?;
        let rows = rows.map(|row| row_key(row, |(name, id)| ((name.to_owned(), *id), Place::of_name(name, id))));
        let rows = rows.take_while(|row| row.as_ref().map_or(true, |((name, _), _)| name.starts_with(prefix)));
        let places = first(count, fresh, rows)?;
        Ok((transaction, places))
    };
    read().map_err(|error| fault(error).into())
}

fn row_key<K: Key + 'static, T>(
    row: Result<(redb::AccessGuard<'_, K>, redb::AccessGuard<'_, ()>), redb::StorageError>,
    read: impl FnOnce(K::SelfType<'_>) -> T,
) -> Result<T, Error> {
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

#[cfg(test)]
mod tests {
    use gossip_cdn_protocol::Content;
    use proptest::prelude::*;

    use super::super::fixture::{Fixture, blob, content, write};
    use super::*;

    fn query(order: Order) -> ListQuery {
        ListQuery { order, limit: 100, ..ListQuery::default() }
    }

    /// All pages of a query, as the numbers of the blobs.
    fn walk(fixture: &Fixture, query: &ListQuery) -> Vec<u128> {
        let mut query = query.clone();
        let mut found = Vec::new();
        loop {
            let page = fixture.store.list(&query).unwrap();
            assert!(page.entries.len() <= query.limit);
            found.extend(page.entries.iter().map(|(blob, _)| blob.0.as_u128()));
            match page.next {
                Some(cursor) => query.after = Some(cursor),
                None => return found,
            }
        }
    }

    async fn seven_blobs() -> Fixture {
        let fixture = Fixture::new();
        let names = [Some("b/2"), Some("a"), None, Some("b/1"), Some("b/1"), Some("é"), Some("b")];
        for (n, name) in (1..).zip(names) {
            let stamp = if n % 2 == 0 { 100 + n } else { n };
            let record = write(&Record::default(), 1, stamp, content(&[1], name));
            fixture.persist(&[(blob(u128::from(n)), &record)]).await;
        }
        fixture
    }

    #[tokio::test]
    async fn every_order_lists_everything_once_whatever_the_size_of_a_page() {
        let fixture = seven_blobs().await;
        for limit in [1, 2, 3, 6, 7, 8] {
            let walk = |order| walk(&fixture, &ListQuery { limit, ..query(order) });
            assert_eq!(walk(Order::Newest), [6, 4, 2, 7, 5, 3, 1]);
            assert_eq!(walk(Order::Id), [1, 2, 3, 4, 5, 6, 7]);
            assert_eq!(walk(Order::Name), [3, 2, 7, 4, 5, 1, 6]);
        }
        for (prefix, expected) in [("b", vec![7, 4, 5, 1]), ("b/", vec![4, 5, 1]), ("b/1", vec![4, 5]), ("é", vec![6]), ("z", vec![])] {
            for limit in [1, 2, 9] {
                assert_eq!(
                    walk(&fixture, &ListQuery { limit, name_prefix: Some(prefix.into()), ..query(Order::Name) }),
                    expected,
                    "{prefix}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_deleted_blob_moves_to_the_deleted_ones_and_back() {
        let fixture = seven_blobs().await;
        let deleted = ListQuery { which: Which::Deleted, ..query(Order::Newest) };
        for n in [4, 2] {
            let tombstone = write(&fixture.store.blob(blob(n)).unwrap().unwrap(), 1, 300 - u64::try_from(n).unwrap(), Content::Tombstone);
            fixture.persist(&[(blob(n), &tombstone)]).await;
        }
        assert_eq!(walk(&fixture, &deleted), [2, 4]);
        assert_eq!(walk(&fixture, &query(Order::Newest)), [6, 7, 5, 3, 1]);
        assert_eq!(walk(&fixture, &query(Order::Name)), [3, 7, 5, 1, 6]);
        assert_eq!(walk(&fixture, &query(Order::Id)), [1, 3, 5, 6, 7]);
        let usage = fixture.store.usage();
        assert_eq!((usage.live_blobs, usage.tombstones), (5, 2));
        let again = write(&fixture.store.blob(blob(4)).unwrap().unwrap(), 1, 400, content(&[1], Some("new")));
        fixture.persist(&[(blob(4), &again)]).await;
        assert_eq!(walk(&fixture, &deleted), [2]);
        assert_eq!(walk(&fixture, &query(Order::Newest)), [4, 6, 7, 5, 3, 1]);
    }

    #[tokio::test]
    async fn conflicts_are_found_among_any_number_of_blobs_and_go_when_they_are_settled() {
        let fixture = seven_blobs().await;
        let conflicts = ListQuery { which: Which::Conflicts, ..query(Order::Newest) };
        let versions = |n| fixture.store.blob(blob(n)).unwrap().unwrap();
        assert_eq!(walk(&fixture, &conflicts), [0; 0]);
        // Two that nobody looked at for long, and one of which another node knows nothing but that it deleted it.
        for (n, said) in [(1, content(&[2], Some("a"))), (3, content(&[3], None)), (2, Content::Tombstone)] {
            let mut record = versions(n);
            let other = write(&Record::default(), 2, 500 + u64::try_from(n).unwrap(), said);
            record.insert(other.winner().unwrap().clone());
            assert_eq!(record.versions().len(), 2);
            fixture.persist(&[(blob(n), &record)]).await;
        }
        for limit in [1, 2, 3, 4] {
            assert_eq!(walk(&fixture, &ListQuery { limit, ..conflicts.clone() }), [3, 2, 1], "{limit} a page");
        }
        assert_eq!(fixture.store.usage().conflicts, 3);
        fixture.persist(&[(blob(3), &write(&versions(3), 1, 900, content(&[4], None)))]).await;
        assert_eq!(walk(&fixture, &conflicts), [2, 1]);
        assert_eq!(fixture.store.usage().conflicts, 2);
        assert_eq!(fixture.store.list(&ListQuery { which: Which::Conflicts, ..query(Order::Id) }), Err(ListFault::NoIndex));
    }

    #[tokio::test]
    async fn a_cursor_is_good_for_its_own_order_only() {
        let fixture = seven_blobs().await;
        let next = |order| fixture.store.list(&ListQuery { limit: 2, ..query(order) }).unwrap().next;
        let after = |order, cursor| fixture.store.list(&ListQuery { after: cursor, ..query(order) });
        assert_eq!(after(Order::Id, next(Order::Newest)), Err(ListFault::BadCursor));
        assert_eq!(after(Order::Newest, next(Order::Name)), Err(ListFault::BadCursor));
        let page = after(Order::Id, next(Order::Id)).unwrap();
        assert_eq!((page.entries.len(), page.next), (5, None));
        assert_eq!(fixture.store.list(&ListQuery { name_prefix: Some("b".into()), ..query(Order::Id) }), Err(ListFault::NoIndex));
        assert_eq!(fixture.store.list(&ListQuery { which: Which::Deleted, ..query(Order::Name) }), Err(ListFault::NoIndex));
    }

    #[test]
    fn strange_cursors_are_refused_or_harmless() {
        let fixture = Fixture::new();
        proptest!(ProptestConfig::with_cases(64), |(bytes in prop::collection::vec(any::<u8>(), 0..40), letter in prop::sample::select(b"nmidcx".to_vec()), text in ".{0,20}")| {
            let forged = URL_SAFE_NO_PAD.encode([&[letter], &bytes[..]].concat());
            for after in [forged, text.clone()] {
                let live = [Order::Newest, Order::Name, Order::Id].map(query);
                let others = [Which::Deleted, Which::Conflicts].map(|which| ListQuery { which, ..query(Order::Newest) });
                for query in live.into_iter().chain(others) {
                    let answer = fixture.store.list(&ListQuery { after: Some(after.clone()), ..query });
                    let refused = answer == Err(ListFault::BadCursor);
                    let harmless = answer.is_ok_and(|page| page.entries.is_empty() && page.next.is_none());
                    prop_assert!(harmless || refused);
                }
            }
        });
    }
}
