//! The opening of a store: the first transaction and the sweep.
//!
//! 1. The incarnation is on disk before anybody hears it, and greater than in every life before.
//! 2. What a crash left halfway is gone: temporary files, payloads that no record claims, payload files that no row names.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ed25519_dalek::SigningKey;
use gossip_cdn_protocol::ContentHash;
use gossip_cdn_protocol::NodeId;
use gossip_cdn_protocol::item::ItemHasher;
use redb::{Builder, Database, Error, ReadableDatabase, ReadableTable};
use tokio::sync::mpsc;

use super::folder::{Folder, at};
use super::incoming::Arrivals;
use super::pins::Pins;
use super::tables::{self, Tables};
use super::writer::{Queue, Request};
use super::{Identity, OpenError, Options, Shared, Usage};

pub(super) fn open(dir: &Path, options: Options) -> Result<(Shared, mpsc::Receiver<Request>), OpenError> {
    let folder = Folder::claim(dir, &options.cluster)?;
    let refused = |error: Error| OpenError::Database { dir: dir.to_owned(), reason: error.to_string() };
    let database = database(&folder, options.cache_bytes)?;
    let (identity, usage) = begin_life(&database, &options).map_err(refused)?;
    sweep(&folder, &database).map_err(refused)?;
    if !folder.database().exists() {
        at(dir, folder.bear_database())?;
    }
    let (queue, requests) = Queue::new();
    let shared = Shared {
        queue,
        pins: Pins::default(),
        arrivals: Arrivals::new(),
        usage: usage.into(),
        identity,
        hasher: ItemHasher::new(&options.cluster),
        reserve: options.reserve,
        database,
        folder,
    };
    Ok((shared, requests))
}

/// Opens the database, or makes one that still has to be given its name.
fn database(folder: &Folder, cache_bytes: usize) -> Result<Database, OpenError> {
    let named = folder.database();
    let path = if named.exists() { named } else { folder.unborn_database() };
    // For its owner only: it holds a private key.
    let file = at(&path, OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path))?;
    Builder::new()
        .set_cache_size(cache_bytes)
        .create_file(file)
        .map_err(|error| OpenError::Database { dir: folder.dir().to_owned(), reason: error.to_string() })
}

fn begin_life(database: &Database, options: &Options) -> Result<(Identity, Usage), Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    let mut tables = Tables::open(&transaction)?;
    let known = tables.meta.get(tables::SECRET)?.and_then(|row| <[u8; 32]>::try_from(row.value()).ok());
    let (secret, lives) = match known.filter(|_| !options.restored) {
        Some(secret) => {
            let lives = tables.meta.get(tables::INCARNATION)?.map(|row| tables::from_json::<u64>(row.value())).transpose()?;
            (secret, lives.unwrap_or_default())
        }
        None => (options.fresh_key, 0),
    };
    let public = SigningKey::from_bytes(&secret).verifying_key().to_bytes();
    let identity = Identity { secret, public, id: NodeId::from_public_key(&public), incarnation: lives.saturating_add(1) };
    let usage = tables.meta.get(tables::USAGE)?.map(|row| tables::from_json(row.value())).transpose()?;
    let mut usage: Usage = usage.unwrap_or_default();
    drop_unowned(&mut tables, &mut usage)?;
    tables.meta.insert(tables::SECRET, &secret[..])?;
    tables.meta.insert(tables::INCARNATION, tables::to_json(&[], &identity.incarnation)?.as_slice())?;
    tables.meta.insert(tables::USAGE, tables::to_json(&[], &usage)?.as_slice())?;
    drop(tables);
    transaction.commit()?;
    Ok((identity, usage))
}

/// Removes the rows of uploads whose record never came.
fn drop_unowned(tables: &mut Tables<'_>, usage: &mut Usage) -> Result<(), Error> {
    let rows = tables.unowned.iter()?;
    let unowned: Vec<ContentHash> = rows.map(|row| row.map(|(hash, _)| ContentHash(*hash.value()))).collect::<Result<_, _>>()?;
    for hash in unowned {
        let size = tables.payloads.get(&hash.0)?.map(|row| row.value());
        if let Some(size) = size {
            tables.remove_payload(hash, size, usage)?;
        }
    }
    Ok(())
}

fn sweep(folder: &Folder, database: &Database) -> Result<(), Error> {
    let table = database.begin_read()?.open_table(tables::PAYLOADS)?;
    folder.sweep(|hash| Ok::<_, Error>(table.get(&hash.0)?.is_some()))
}
