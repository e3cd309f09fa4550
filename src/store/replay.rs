//! What a commit changes of records and payloads, in bytes, as the journal holds it; and how it comes back into the tables.
//!
//! ```text
//! body     255, which no change of the history begins with; number of payloads, the payloads, the records up to the end
//! payload  hash (32), size, 1 and the bytes where they are inline, else 0
//! record   key (24), length of the row, the row
//! ```
//!
//! Numbers are LEB128. Several bodies come back as one change: where a batch ends is nothing that a table tells.
//!
//! 1. What comes back is what was written, in its order.
//! 2. No payload is collected while bodies come back, as none was when they were written: a batch that collects goes into the database at once. The
//!    record that claims a payload may be in a later body; what is unclaimed behind the last one the caller finds among the unowned.
//! 3. Bytes that were not written here are an error, never a panic and never memory beyond their own size.

use std::collections::BTreeSet;

use gossip_cdn_protocol::io::RecordChange;
use gossip_cdn_protocol::item::StateHash;
use gossip_cdn_protocol::{ContentHash, Persist};
use redb::{Error, WriteTransaction};

use super::Usage;
use super::commit::Batch;
use super::encoding::{self, Rest, write_number};
use super::pins::Pins;
use super::tables::{self, KeyBytes, Tables};
use super::writer::Request;

/// What a body begins with.
const ROWS: u8 = u8::MAX;

/// Whether a body of the journal is one of these.
pub(super) fn is_rows(body: &[u8]) -> bool {
    body.first() == Some(&ROWS)
}

/// The body of a batch. `None`: it has something that belongs into the database at once. Empty: it changes nothing.
pub(super) fn to_bytes(batch: &[Request]) -> Option<Vec<u8>> {
    let (mut payloads, mut persists) = (Vec::new(), Vec::new());
    for request in batch {
        match request {
            Request::Payload(row, _) => payloads.push(row),
            Request::Persist(persist, ..) if is_records_alone(persist) => persists.push(persist),
            Request::Wake => (),
            Request::Persist(..) | Request::Key(..) | Request::Scrub(..) | Request::Reopen(_) => return None,
        }
    }
    if payloads.is_empty() && persists.iter().all(|persist| persist.records.is_empty()) {
        return Some(Vec::new());
    }
    let payloads = payloads.into_iter().map(|row| (row.hash, row.size, row.inline.as_deref()));
    let changes = persists.into_iter().flat_map(|persist| &persist.records);
    Some(body(payloads, changes.map(|change| (tables::key_bytes(change.key), encoding::row(change.state.0, &change.record)))))
}

/// The body of these payloads, each with its size and the bytes that are inline, and of these rows of records.
pub(super) fn body<'row>(
    payloads: impl ExactSizeIterator<Item = (ContentHash, u64, Option<&'row [u8]>)>,
    records: impl Iterator<Item = (KeyBytes, impl AsRef<[u8]>)>,
) -> Vec<u8> {
    let mut bytes = vec![ROWS];
    write_number(&mut bytes, payloads.len() as u64);
    for (hash, size, inline) in payloads {
        bytes.extend_from_slice(&hash.0);
        write_number(&mut bytes, size);
        bytes.push(u8::from(inline.is_some()));
        bytes.extend_from_slice(inline.unwrap_or_default());
    }
    for (key, row) in records {
        bytes.extend_from_slice(&key);
        write_number(&mut bytes, row.as_ref().len() as u64);
        bytes.extend_from_slice(row.as_ref());
    }
    bytes
}

/// Members, contacts and the incarnation change too seldom to be worth a place in the journal, and history has bodies of its own.
pub(super) fn is_records_alone(persist: &Persist) -> bool {
    let Persist { token: _, records: _, members, incarnation, contacts, history } = persist;
    members.is_empty() && incarnation.is_none() && contacts.is_none() && history.is_empty()
}

/// A payload of a body.
#[derive(Debug, PartialEq, Eq)]
struct Payload<'body> {
    hash: ContentHash,
    size: u64,
    inline: Option<&'body [u8]>,
}

fn read(body: &[u8]) -> Result<(Vec<Payload<'_>>, Vec<RecordChange>), Error> {
    let (mut rest, mut payloads, mut records) = (Rest(body), Vec::new(), Vec::new());
    let ([kind], count) = (rest.array()?, rest.number()?);
    if kind != ROWS {
        return Err(Error::Corrupted("a body of the journal is not one of rows".to_owned()));
    }
    for _ in 0..count {
        let (hash, size, [is_inline]) = (ContentHash(rest.array()?), rest.number()?, rest.array()?);
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        let inline = if is_inline == 0 { None } else { Some(rest.take(length)?) };
        payloads.push(Payload { hash, size, inline });
    }
    while !rest.0.is_empty() {
        let key = tables::key_of(&rest.array()?);
        let length = usize::try_from(rest.number()?).unwrap_or(usize::MAX);
        let row = rest.take(length)?;
        records.push(RecordChange { key, record: encoding::record_of(row)?, state: StateHash(encoding::state_of(row)?) });
    }
    Ok((payloads, records))
}

/// Brings these bodies back into the tables; gives the counters behind them.
pub(super) fn replay(transaction: &WriteTransaction, bodies: &[Vec<u8>], usage: Usage) -> Result<Usage, Error> {
    if bodies.is_empty() {
        return Ok(usage);
    }
    let pins = Pins::sparing();
    let mut batch = Batch::new(Tables::open(transaction)?, &pins, usage, BTreeSet::new());
    let mut persist = Persist::default();
    for body in bodies {
        let (payloads, records) = read(body)?;
        for Payload { hash, size, inline } in payloads {
            batch.payload(hash, size, inline)?;
        }
        persist.records.extend(records);
    }
    batch.persist(&[&persist])?;
    Ok(batch.finish()?.usage)
}

#[cfg(test)]
mod tests {
    use gossip_cdn_protocol::{BlobId, Content, Record, Store as _};
    use proptest::prelude::*;
    use redb::{ReadableTable as _, ReadableTableMetadata as _};

    use super::super::fixture::{Fixture, blob, content, noise, options, persist, write};
    use super::super::pins::Pin;
    use super::super::writer::PayloadRow;
    use super::super::{INLINE_MAX, ListQuery, Order, Store, Which};
    use super::*;

    #[test]
    fn a_batch_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _writer) = Store::open(dir.path(), options()).unwrap();
        let row = |bytes: &[u8]| {
            let (hash, size) = (ContentHash::of(bytes), bytes.len() as u64);
            let inline = (bytes.len() <= INLINE_MAX).then(|| bytes.to_vec().into());
            Request::Payload(PayloadRow { hash, size, inline, _pin: Pin::new(&store.shared, hash) }, None)
        };
        let records = |count| {
            let record = write(&Record::default(), 1, 5, content(b"a", Some("name")));
            let deleted = write(&record, 2, 9, Content::Tombstone);
            let all = [(blob(1), &record), (blob(2), &deleted), (blob(1), &deleted)];
            persist(&all[..count])
        };
        let asked = |change| Request::Persist(change, vec![], tokio::sync::oneshot::channel().0);
        let batch = [row(b""), asked(records(3)), row(&noise(1000, 1)), Request::Wake, row(&noise(100_000, 2)), asked(records(1))];
        let bytes = to_bytes(&batch).unwrap();
        assert!(is_rows(&bytes));
        let (payloads, found) = read(&bytes).unwrap();
        let small = noise(1000, 1);
        let expected = [(&[][..], Some(&[][..])), (&small, Some(&small[..])), (&noise(100_000, 2), None)];
        let payload = |(bytes, inline): (&[u8], _)| Payload { hash: ContentHash::of(bytes), size: bytes.len() as u64, inline };
        assert_eq!(payloads, expected.map(|(bytes, inline)| payload((bytes, inline))));
        assert_eq!(found, [records(3).records, records(1).records].concat());
        assert!((1..bytes.len()).filter(|end| read(&bytes[..*end]).is_ok()).count() <= 4, "only between two records");
    }

    /// Bytes that are collected must not come back: a version that names them is missing them, and an opening may drop what nobody claims.
    #[tokio::test]
    async fn what_was_collected_does_not_come_back() {
        let fixture = Fixture::new();
        for step in [Step::Upload(100, 3), Step::Delete] {
            take(&fixture, 1, step).await;
        }
        take(&fixture, 2, Step::Heard(3)).await;
        let crashed = fixture.after_a_crash();
        assert_eq!(seen(&crashed.store), seen(&fixture.store));
        assert_eq!(crashed.store.missing(None, 2).unwrap().len(), 1);
    }

    #[test]
    fn what_is_more_than_records_and_payloads_is_no_body() {
        let asked = |change| [Request::Persist(change, vec![], tokio::sync::oneshot::channel().0)];
        let empty = persist(&[]);
        assert_eq!(to_bytes(&asked(empty.clone())), Some(vec![]));
        assert_eq!(to_bytes(&[Request::Wake]), Some(vec![]));
        assert_eq!(to_bytes(&asked(Persist { incarnation: Some(2), ..empty.clone() })), None);
        assert_eq!(to_bytes(&asked(Persist { contacts: Some(vec![]), ..empty })), None);
        assert_eq!(to_bytes(&[Request::Scrub(vec![], tokio::sync::oneshot::channel().0)]), None);
    }

    /// What becomes of a blob.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// Bytes are uploaded here: that many, made of that seed.
        Upload(usize, u8),
        /// A version comes whose bytes are elsewhere.
        Heard(u8),
        Delete,
        /// The database takes everything.
        Settle,
    }

    fn step() -> impl Strategy<Value = (u128, Step)> {
        let uploaded = prop_oneof![Just(0), Just(100), Just(INLINE_MAX), Just(INLINE_MAX + 1)];
        let step = prop_oneof![
            4 => (uploaded, 0..4u8).prop_map(|(size, seed)| Step::Upload(size, seed)),
            2 => (0..4u8).prop_map(Step::Heard),
            2 => Just(Step::Delete),
            1 => Just(Step::Settle),
        ];
        (0..4u128, step)
    }

    async fn take(fixture: &Fixture, n: u128, step: Step) {
        let known = fixture.store.blob(blob(n)).unwrap().unwrap_or_default();
        match step {
            Step::Upload(size, seed) => {
                let bytes = noise(size, seed);
                let stored = fixture.upload(&bytes).await;
                let name = (seed % 2 == 0).then_some("name");
                fixture.persist(&[(blob(n), &write(&known, 1, 5, content(&bytes, name)))]).await;
                drop(stored);
            }
            Step::Heard(seed) => fixture.persist(&[(blob(n), &write(&known, 2, 5, content(&noise(100, seed), None)))]).await,
            Step::Delete => fixture.persist(&[(blob(n), &write(&known, 3, 5, Content::Tombstone))]).await,
            Step::Settle => fixture.fill_tables().await,
        }
        fixture.settle().await;
    }

    /// Everything that readers can ask for.
    fn seen(store: &Store) -> String {
        let records: Vec<_> = (0..4).map(|n| store.blob(blob(n)).unwrap()).collect();
        let payloads: Vec<_> = (0..4)
            .flat_map(|seed| [0, 100, INLINE_MAX, INLINE_MAX + 1].map(|size| ContentHash::of(&noise(size, seed))))
            .map(|hash| (store.holds(hash).unwrap(), super::super::fixture::bytes(store, hash).map(|bytes| ContentHash::of(&bytes))))
            .collect();
        let orders = [Order::Newest, Order::Name, Order::Id].map(|order| (Which::Live, order));
        let others = [Which::Deleted, Which::Conflicts].map(|which| (which, Order::Newest));
        let lists: Vec<_> = orders.into_iter().chain(others).map(|(which, order)| listed(store, which, order)).collect();
        let first = gossip_cdn_protocol::records::first_key(gossip_cdn_protocol::item::KeyHash(0));
        let items = [1, 10].map(|limit| store.items(first, limit).unwrap());
        let pages = [(1, 1 << 20), (10, 1), (10, 1 << 20)].map(|(limit, budget)| store.records(first, limit, budget).unwrap());
        let keys: Vec<_> = items[1].iter().map(|(key, _)| store.keys(key.hash).unwrap()).collect();
        let mut scanned = Vec::new();
        store.scan(0..=u8::MAX, &mut |item| scanned.push(item)).unwrap();
        scanned.sort_unstable();
        let hashes: Vec<_> =
            std::iter::successors(store.next_payload(None).unwrap(), |last| store.next_payload(Some(*last)).unwrap()).collect();
        let moments: Vec<_> = (0..4).map(|n| read_at_once(store, n)).collect();
        format!(
            "{records:?} {payloads:?} {lists:?} {items:?} {pages:?} {keys:?} {scanned:?} {hashes:?} {moments:?} {:?} {:?}",
            store.usage(),
            // Of the records that name one, any is told.
            store.missing(None, 10).unwrap().into_iter().map(|missing| (missing.hash, missing.size)).collect::<Vec<_>>()
        )
    }

    /// A list, two entries a page.
    fn listed(store: &Store, which: Which, order: Order) -> Vec<(BlobId, Record)> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = store.list(&ListQuery { which, order, name_prefix: None, after, limit: 2 }).unwrap();
            all.extend(page.entries);
            after = page.next;
            if after.is_none() {
                return all;
            }
        }
    }

    /// A record, and the bytes of its winner as of the same moment.
    fn read_at_once(store: &Store, n: u128) -> Option<(Record, Option<u64>)> {
        let (record, moment) = store.moment(blob(n)).unwrap()?;
        let hash = record.winner().and_then(|winner| winner.content.payload()).map(|payload| payload.hash);
        let size = hash.and_then(|hash| moment.payload(hash).unwrap()).map(|payload| payload.size());
        Some((record, size))
    }

    /// The rows that no reader asks for: who claims what.
    fn claims(store: &Store) -> String {
        let transaction = store.shared.database.begin_read().unwrap();
        let owners = transaction.open_table(tables::OWNERS).unwrap();
        let owners: Vec<_> = owners.iter().unwrap().map(|row| row.map(|(pair, live)| (*pair.value(), live.value())).unwrap()).collect();
        let (inline, unowned) = (transaction.open_table(tables::INLINE).unwrap(), transaction.open_table(tables::UNOWNED).unwrap());
        format!("{owners:?} {} {}", inline.len().unwrap(), unowned.len().unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

        #[test]
        fn after_a_crash_at_any_moment_readers_see_what_they_saw(steps in prop::collection::vec(step(), 1..12)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let fixture = Fixture::new();
                for (n, step) in steps {
                    take(&fixture, n, step).await;
                }
                let crashed = fixture.after_a_crash();
                assert_eq!(seen(&crashed.store), seen(&fixture.store));
                assert_eq!(crashed.files("payloads").len(), fixture.files("payloads").len());
                let fresh = seen(&fixture.store);
                for store in [&fixture, &crashed] {
                    store.fill_tables().await;
                    assert_eq!(seen(&store.store), fresh, "wherever it is read from");
                }
                assert_eq!(claims(&fixture.store), claims(&crashed.store));
            });
        }

        #[test]
        fn any_bytes_are_rows_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 1..300)) {
            bytes[0] = ROWS;
            if let Ok((payloads, _)) = read(&bytes) {
                prop_assert!(payloads.iter().filter_map(|payload| payload.inline).map(<[u8]>::len).sum::<usize>() < bytes.len());
            }
            bytes[0] = 0;
            prop_assert!(read(&bytes).is_err());
        }
    }
}
