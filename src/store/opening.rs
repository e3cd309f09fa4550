//! The opening of a store: the first transaction and the sweep.
//!
//! 1. The incarnation is on disk before anybody hears it, and greater than in every life before.
//! 2. What the journal has and the tables do not is in the tables before anybody reads.
//! 3. What a crash left halfway is gone: temporary files, payloads that no record claims, payload files that no row names. What had come
//!    of a payload that is still missing stays.
//! 4. An index that the folder has not got yet is made of its records.
//! 5. No record is damaged ([`super::rows`]). A database that is damaged elsewhere is refused, or read as what is written.
//! 6. A store that failed is opened again by the same steps, in a new life, but for what somebody in this process still needs.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Mutex;

use gossip_cdn_protocol::ContentHash;
use gossip_cdn_protocol::history::disk::Change;
use gossip_cdn_protocol::item::ItemHasher;
use redb::{Database, Durability, Error, ReadableDatabase, ReadableTable, TableHandle};
use tokio::sync::mpsc;

use super::arrivals::Arrivals;
use super::base::{self, Base};
use super::damage::Damages;
use super::faults::Faults;
use super::folder::{Folder, Partial, at};
use super::fresh::Fresh;
use super::history::{self, Front};
use super::journal::{CAPACITY, Journal};
use super::pins::Pins;
use super::rows::{self, Mended};
use super::tables::{self, Tables};
use super::traffic::Traffic;
use super::verified::Verified;
use super::writer::{Queue, Request};
use super::{Identity, OpenError, Options, Shared, Usage, indexes, lock, replay, unless_damaged};

pub(super) fn open(dir: &Path, options: Options, faults: Faults) -> Result<(Shared, mpsc::Receiver<Request>, Journal), OpenError> {
    let folder = Folder::claim(dir, &options.cluster, faults.clone())?;
    let refused = |error: Error| OpenError::Database { dir: dir.to_owned(), reason: error.to_string() };
    let base = Base::new(options.cache_bytes, faults);
    // A database that is damaged where redb does not expect it makes it panic.
    let database = unless_damaged(|| Ok(database(&folder, &base))).map_err(refused)??;
    let hasher = ItemHasher::new(&options.cluster);
    let life = || {
        let found = journal(&folder, &database, &options)?;
        let life = begin_life(&database, &options, &found, &hasher, Unowned::Dropped)?;
        Ok((found, life, sweep(&folder, &database)?))
    };
    let (mut found, Life { identity, usage, mended, .. }, partials) = unless_damaged(life).map_err(refused)?;
    found.journal.restart();
    base.put(database);
    if !folder.database().exists() {
        at(dir, folder.bear_database())?;
    }
    let damages = Damages::default();
    damages.count_rows(mended);
    let (queue, requests) = Queue::new();
    let shared = Shared {
        queue,
        pins: Pins::default(),
        arrivals: Arrivals::new(partials),
        traffic: Traffic::default(),
        verified: Verified::default(),
        damages,
        opened: tokio::time::Instant::now(),
        usage: usage.into(),
        tail: Mutex::default(),
        fresh: Fresh::default(),
        commits: 0.into(),
        lives: 0.into(),
        identity: identity.into(),
        hasher,
        options: Options { restored: false, ..options },
        database: base,
        folder,
    };
    Ok((shared, requests, found.journal))
}

/// Opens a store again that failed, or that somebody could not read; gives its journal. While this goes on nothing can be read.
pub(super) fn reopen(shared: &Shared) -> Result<Journal, Error> {
    let Shared { folder, database: base, pins, .. } = shared;
    base.close();
    for path in [folder.database(), folder.journal()] {
        base::forget_cached(&File::open(path)?);
    }
    // The key that is here is the one that the database has, or it is nobody's.
    let options = Options { fresh_key: lock(&shared.identity).secret, ..shared.options.clone() };
    let database = unless_damaged(|| base.open(&folder.database()))?;
    let life = || {
        let found = journal(folder, &database, &options)?;
        let life = begin_life(&database, &options, &found, &shared.hasher, Unowned::Kept)?;
        Ok((found, life))
    };
    let (mut found, Life { identity, usage, mended, unowned }) = unless_damaged(life)?;
    found.journal.restart();
    base.put(database);
    shared.damages.count_rows(mended);
    // Behind the database: what leaves the tail is in the tables, and so are fresh rows.
    shared.fresh.clear();
    *lock(&shared.tail) = std::sync::Arc::default();
    *lock(&shared.usage) = usage;
    *lock(&shared.identity) = identity;
    pins.release_unpinned(unowned);
    sweep_unpinned(shared)?;
    Ok(found.journal)
}

/// Removes the files of payloads whose rows did not come to be, and that nobody in this process is still about to name.
fn sweep_unpinned(shared: &Shared) -> Result<(), Error> {
    let here = shared.database.begin_read()?.open_table(tables::PAYLOADS)?;
    shared.folder.sweep(|hash| {
        let is_needed = here.get(&hash.0)?.is_some() || !shared.pins.condemn_absent(hash);
        Ok::<_, Error>(is_needed)
    })?;
    shared.pins.spare_all();
    Ok(())
}

/// Opens the database, or makes one that still has to be given its name.
fn database(folder: &Folder, base: &Base) -> Result<Database, OpenError> {
    let named = folder.database();
    let path = if named.exists() {
        named
    } else if at(&named, folder.has_payloads())? {
        // An empty database would have them all swept.
        return Err(OpenError::Database { dir: folder.dir().to_owned(), reason: "there are payload files, but no store.redb".to_owned() });
    } else {
        folder.unborn_database()
    };
    base.open(&path).map_err(|error| OpenError::Database { dir: folder.dir().to_owned(), reason: error.to_string() })
}

/// The journal, and what the tables do not have of it.
struct Found {
    journal: Journal,
    key: [u8; 32],
    /// What the history changed.
    changes: Vec<Change>,
    /// Bodies of [`replay`].
    rows: Vec<Vec<u8>>,
}

fn journal(folder: &Folder, database: &Database, options: &Options) -> Result<Found, Error> {
    let path = folder.journal();
    // A database without a name has no tables yet.
    let known = if folder.database().exists() { journal_key(database)? } else { None };
    let is_there = path.exists();
    if known.is_some() && !is_there {
        return Err(Error::Corrupted("the journal of the message history is gone".to_owned()));
    }
    let key = known.unwrap_or_else(|| blake3::derive_key("gossip-cdn 2026 journal of the message history", &options.fresh_key));
    let (sequence, replayed) = match known {
        Some(_) => (tables::journaled(&database.begin_read()?)?, tables::replayed(&database.begin_read()?)?),
        None => (0, 0),
    };
    let (journal, bodies) = Journal::open(&path, key, sequence, CAPACITY, folder.faults().clone())?;
    if !is_there {
        folder.sync()?;
    }
    let (rows, told): (Vec<_>, Vec<_>) = (sequence..).zip(bodies).partition(|(_, body)| replay::is_rows(body));
    let rows = not_replayed(rows, replayed);
    let mut changes = Vec::new();
    if !told.is_empty() {
        let front = Front::of(database.begin_read()?)?;
        let mut front = front.ok_or_else(|| Error::Corrupted("the journal is of a message history that there is not".to_owned()))?;
        for (_, body) in told {
            changes.extend(history::read(&body, &mut front)?);
        }
    }
    Ok(Found { journal, key, changes, rows })
}

fn not_replayed(bodies: Vec<(u64, Vec<u8>)>, replayed: u64) -> Vec<Vec<u8>> {
    bodies.into_iter().filter(|(sequence, body)| *sequence >= replayed && replay::is_rows(body)).map(|(_, body)| body).collect()
}

/// Lets what the journal has of records and payloads be read in a database that writes nothing to the disk.
pub(super) fn read_on(database: &Database, bodies: Vec<(u64, Vec<u8>)>) -> Result<(), Error> {
    let until = bodies.last().map(|(sequence, _)| sequence + 1);
    let rows = not_replayed(bodies, tables::replayed(&database.begin_read()?)?);
    let usage = tables::meta(&database.begin_read()?, tables::USAGE)?.unwrap_or_default();
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::None)?;
    replay::replay(&transaction, &rows, usage)?;
    if let Some(until) = until {
        tables::note_replayed(&transaction, until)?;
    }
    Ok(transaction.commit()?)
}

fn journal_key(database: &Database) -> Result<Option<[u8; 32]>, Error> {
    let row = database.begin_read()?.open_table(tables::META)?.get(tables::JOURNAL_KEY)?.map(|row| row.value().try_into());
    row.transpose().map_err(|_| Error::Corrupted("the key of the journal is not of 32 bytes".to_owned()))
}

/// What becomes of payloads that no record claims.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unowned {
    /// Their uploads ended with the process.
    Dropped,
    /// Their uploads may be under way.
    Kept,
}

/// What a life begins with.
struct Life {
    identity: Identity,
    usage: Usage,
    mended: Mended,
    /// Payloads that no record claims.
    unowned: Vec<ContentHash>,
}

/// Looks at the rows of the records, and makes the first commit of a life.
fn begin_life(database: &Database, options: &Options, found: &Found, hasher: &ItemHasher, keeping: Unowned) -> Result<Life, Error> {
    let damaged = rows::damaged(|| Ok(database.begin_read()?), hasher)?;
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    if !damaged.is_empty() {
        rows::drop_indexes(&transaction)?;
    }
    let knows_conflicts = transaction.list_tables()?.any(|table| table.name() == tables::CONFLICTS.name());
    let mut tables = Tables::open(&transaction)?;
    let known = tables.meta.get(tables::SECRET)?.and_then(|row| <[u8; 32]>::try_from(row.value()).ok());
    let (secret, lives) = match known.filter(|_| !options.restored) {
        Some(secret) => {
            let lives = tables.meta.get(tables::INCARNATION)?.map(|row| tables::from_json::<u64>(row.value())).transpose()?;
            (secret, lives.unwrap_or_default())
        }
        None => (options.fresh_key, 0),
    };
    let identity = Identity::new(secret, lives.saturating_add(1));
    let mut usage = tables.usage()?;
    let mut mended = Mended::default();
    if !damaged.is_empty() {
        mended = rows::mend(&mut tables, hasher, &damaged, &mut usage)?;
    } else if !knows_conflicts {
        indexes::find_conflicts(&mut tables, &mut usage)?;
    }
    drop(tables);
    usage = replay::replay(&transaction, &found.rows, usage)?;
    let mut tables = Tables::open(&transaction)?;
    // Only now: what claims them may have been in the journal.
    let unowned = unowned(&tables)?;
    if keeping == Unowned::Dropped {
        drop_unowned(&mut tables, &unowned, &mut usage)?;
    }
    tables.write_identity(&identity)?;
    tables.meta.insert(tables::JOURNAL_KEY, &found.key[..])?;
    tables.meta.insert(tables::USAGE, tables::to_json(&[], &usage)?.as_slice())?;
    drop(tables);
    history::write(&transaction, &found.changes)?;
    history::note_journaled(&transaction, found.journal.sequence())?;
    transaction.commit()?;
    if mended.found > 0 {
        let Mended { found, righted } = mended;
        tracing::error!(found, righted, "rows of records were damaged; those that were not put right come again from other nodes");
    }
    Ok(Life { identity, usage, mended, unowned })
}

/// Payloads of uploads whose record never came, or has not come yet.
fn unowned(tables: &Tables<'_>) -> Result<Vec<ContentHash>, Error> {
    tables.unowned.iter()?.map(|row| Ok(ContentHash(*row?.0.value()))).collect()
}

/// Removes the rows of uploads whose record never came.
fn drop_unowned(tables: &mut Tables<'_>, unowned: &[ContentHash], usage: &mut Usage) -> Result<(), Error> {
    for &hash in unowned {
        let size = tables.payloads.get(&hash.0)?.map(|row| row.value());
        if let Some(size) = size {
            tables.remove_payload(hash, size, usage)?;
        }
    }
    Ok(())
}

/// Removes files that nobody needs; gives those of payloads that are on their way.
fn sweep(folder: &Folder, database: &Database) -> Result<BTreeMap<ContentHash, Partial>, Error> {
    let transaction = database.begin_read()?;
    let (here, missing) = (transaction.open_table(tables::PAYLOADS)?, transaction.open_table(tables::MISSING)?);
    folder.sweep(|hash| Ok::<_, Error>(here.get(&hash.0)?.is_some()))?;
    folder.partials(|hash| Ok::<_, Error>(missing.get(&hash.0)?.is_some()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use gossip_cdn_protocol::{NodeId, Record, Store as _};

    use super::super::fixture::{Fixture, blob, content, files, noise, options, persist, start, write};
    use super::super::{ListQuery, Store, Which};
    use super::*;

    fn refused(dir: &Path, options: Options) -> OpenError {
        Store::open(dir, options).err().unwrap()
    }

    fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        files(dir).into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
    }

    #[test]
    fn the_folder_is_locked_against_a_second_store() {
        let fixture = Fixture::new();
        assert!(matches!(refused(fixture.dir(), options()), OpenError::Locked { .. }));
    }

    #[test]
    fn a_folder_is_free_when_store_and_writer_are_gone() {
        let fixture = Fixture::new().reopened();
        assert_eq!(fixture.store.identity().incarnation, 2);
    }

    #[test]
    fn another_cluster_or_another_format_is_refused_and_the_folder_is_untouched() {
        let dir = tempfile::tempdir().unwrap();
        drop(Store::open(dir.path(), options()).unwrap());
        std::fs::write(dir.path().join("tmp").join("0"), "left by a crash").unwrap();
        let before = snapshot(dir.path());
        let other = refused(dir.path(), Options { cluster: "other".into(), ..options() });
        assert!(matches!(&other, OpenError::OtherCluster { found, wanted } if found == "test" && wanted == "other"), "{other}");
        assert_eq!(snapshot(dir.path()), before);

        let card = dir.path().join("store.json");
        std::fs::write(&card, r#"{"format": 6, "whatever": []}"#).unwrap();
        let before = snapshot(dir.path());
        let newer = refused(dir.path(), options());
        assert!(matches!(newer, OpenError::NewerFormat { found: 6, ours: 5, .. }), "{newer}");
        assert_eq!(snapshot(dir.path()), before);

        std::fs::write(&card, r#"{"format": 1, "cluster": "test"}"#).unwrap();
        let before = snapshot(dir.path());
        let older = refused(dir.path(), options());
        assert!(matches!(older, OpenError::OlderFormat { found: 1, .. }), "{older}");
        assert_eq!(snapshot(dir.path()), before);
    }

    #[test]
    fn a_folder_of_the_format_before_the_journal_gets_one() {
        let dir = tempfile::tempdir().unwrap();
        let was = Store::open(dir.path(), options()).unwrap().0.identity();
        // As that format was: no journal, and no word of it in the database.
        let database = Database::open(dir.path().join("store.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut meta = transaction.open_table(tables::META).unwrap();
        assert!(meta.remove(tables::JOURNAL_KEY).unwrap().is_some() && meta.remove(tables::JOURNALED).unwrap().is_some());
        drop(meta);
        transaction.commit().unwrap();
        drop(database);
        std::fs::remove_file(dir.path().join("journal")).unwrap();
        let card = dir.path().join("store.json");
        std::fs::write(&card, r#"{"format": 2, "cluster": "test"}"#).unwrap();
        assert_eq!(Store::open(dir.path(), options()).unwrap().0.identity().id, was.id);
        assert!(std::fs::read_to_string(card).unwrap().contains(r#""format":5"#) && dir.path().join("journal").exists());
    }

    #[test]
    fn a_folder_without_its_journal_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(Store::open(dir.path(), options()).unwrap());
        std::fs::remove_file(dir.path().join("journal")).unwrap();
        let refused = refused(dir.path(), options());
        assert!(refused.to_string().contains("journal"), "{refused}");
        assert!(!dir.path().join("journal").exists());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = refused(&file.join("node"), options());
        assert!(error.to_string().contains(&file.display().to_string()), "{error}");
    }

    #[test]
    fn identity_stays_and_the_incarnation_grows_with_every_life() {
        let dir = tempfile::tempdir().unwrap();
        let open = |options| Store::open(dir.path(), options).unwrap().0.identity();
        let first = open(options());
        let second = open(Options { fresh_key: [9; 32], ..options() });
        assert_eq!((first.incarnation, second.incarnation), (1, 2));
        assert_eq!((first.id, first.secret), (second.id, second.secret));
        assert_eq!(first.id, NodeId::from_public_key(&first.public));
        let restored = open(Options { fresh_key: [9; 32], restored: true, ..options() });
        assert_eq!((restored.incarnation, restored.secret), (1, [9; 32]));
        assert_ne!(restored.id, first.id);
    }

    #[tokio::test]
    async fn a_restored_folder_keeps_its_blobs_and_an_incarnation_that_grew_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (store, writer) = Store::open(dir.path(), options()).unwrap();
        let record = write(&Record::default(), 1, 5, content(b"a", None));
        let grown = gossip_cdn_protocol::Persist { incarnation: Some(40), ..persist(&[(blob(1), &record)]) };
        let durable = store.persist(grown).await;
        store.close();
        start(writer).join().unwrap().unwrap();
        assert_eq!(durable.await.unwrap(), Ok(()));
        drop(store);
        let (store, writer) = Store::open(dir.path(), options()).unwrap();
        assert_eq!(store.identity().incarnation, 41);
        drop((store, writer));
        let (store, _writer) = Store::open(dir.path(), Options { restored: true, ..options() }).unwrap();
        assert_eq!(store.blob(blob(1)).unwrap(), Some(record));
    }

    #[tokio::test]
    async fn a_folder_without_an_index_of_conflicts_is_given_one() {
        let dir = tempfile::tempdir().unwrap();
        let (store, writer) = Store::open(dir.path(), options()).unwrap();
        let mut torn = write(&Record::default(), 1, 5, content(b"a", None));
        torn.insert(write(&Record::default(), 2, 6, content(b"b", None)).winner().unwrap().clone());
        let calm = write(&Record::default(), 1, 7, content(b"c", None));
        let durable = store.persist(persist(&[(blob(1), &torn), (blob(2), &calm)])).await;
        store.close();
        start(writer).join().unwrap().unwrap();
        assert_eq!(durable.await.unwrap(), Ok(()));
        drop(store);
        let database = Database::open(dir.path().join("store.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        assert!(transaction.delete_table(tables::CONFLICTS).unwrap());
        transaction.commit().unwrap();
        drop(database);
        let (store, _writer) = Store::open(dir.path(), options()).unwrap();
        let page = store.list(&ListQuery { which: Which::Conflicts, limit: 9, ..ListQuery::default() }).unwrap();
        assert_eq!(page.entries, [(blob(1), torn)]);
        assert_eq!(store.usage().conflicts, 1);
    }

    #[tokio::test]
    async fn another_key_is_taken_behind_what_is_queued_and_lasts() {
        let fixture = Fixture::new();
        let was = fixture.store.identity();
        let record = write(&Record::default(), 1, 5, content(b"a", None));
        let grown = gossip_cdn_protocol::Persist { incarnation: Some(40), ..persist(&[(blob(1), &record)]) };
        let durable = fixture.store.persist(grown).await;
        fixture.store.take_key([9; 32]).await.unwrap();
        assert_eq!(durable.await.unwrap(), Ok(()));
        let is = fixture.store.identity();
        assert_eq!((is.secret, is.incarnation), ([9; 32], 1));
        assert_ne!(is.id, was.id);
        let crashed = fixture.after_a_crash();
        assert_eq!((crashed.store.identity().id, crashed.store.identity().incarnation), (is.id, 2));
        assert_eq!(crashed.store.blob(blob(1)).unwrap(), Some(record));
    }

    #[tokio::test]
    async fn what_a_crash_left_halfway_is_swept() {
        let fixture = Fixture::new();
        let kept = noise(100_000, 1);
        let stored = fixture.upload(&kept).await;
        let record = write(&Record::default(), 1, 5, content(&kept, None));
        fixture.persist(&[(blob(1), &record)]).await;
        // Two uploads whose records never come, one on its way, and a file whose row never came.
        let orphans = [fixture.upload(&noise(100_000, 2)).await, fixture.upload(&noise(10, 3)).await];
        let mut under_way = fixture.store.upload();
        for seed in 4..7 {
            under_way.write(noise(1 << 20, seed).into()).await.unwrap();
        }
        fixture.settle().await;
        let rowless = ContentHash::of(b"rowless");
        std::fs::write(fixture.store.shared.folder.payload(rowless), b"rowless").unwrap();
        std::fs::write(fixture.store.shared.folder.outboard(rowless), b"").unwrap();
        assert!(!fixture.files("tmp").is_empty());

        let crashed = fixture.after_a_crash();
        assert!(crashed.files("tmp").is_empty());
        assert_eq!(crashed.files("payloads").len(), 1);
        for orphan in &orphans {
            assert!(!crashed.store.holds(orphan.hash).unwrap());
        }
        assert_eq!(crashed.store.usage().payload_bytes, 100_000);
        assert!(crashed.bytes(stored.hash) == Some(kept));
    }

    #[test]
    fn payload_files_without_their_database_are_not_swept() {
        let dir = tempfile::tempdir().unwrap();
        drop(Store::open(dir.path(), options()).unwrap());
        std::fs::remove_file(dir.path().join("store.redb")).unwrap();
        let payload = dir.path().join("payloads").join("ab").join("ab".repeat(32));
        std::fs::write(&payload, "bytes").unwrap();
        assert!(matches!(refused(dir.path(), options()), OpenError::Database { .. }));
        assert!(payload.exists());
    }

    #[test]
    fn a_crash_at_the_very_first_start_leaves_a_folder_that_opens() {
        let dir = tempfile::tempdir().unwrap();
        // The card is written, the database is half made.
        drop(Folder::claim(dir.path(), "test", Faults::default()).unwrap());
        std::fs::write(dir.path().join("tmp").join("store.redb"), [0; 100]).unwrap();
        let (store, _writer) = Store::open(dir.path(), options()).unwrap();
        assert_eq!(store.identity().incarnation, 1);
        assert!(dir.path().join("store.redb").exists());
    }
}
