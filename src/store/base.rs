//! The database and its file, which can be opened again while everybody keeps the store.
//!
//! redb refuses everything after a fault of its file, reads included. Then the last commit is read on through an [`Overlay`], which writes nothing,
//! until the file is opened again.
//!
//! 1. Two databases are never open on the file: when one is opened, nothing can be read or written through the one before.
//! 2. Every fault of the file is told to the [`Condition`], whoever met it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use redb::{Builder, Database, DatabaseError, Error, ReadTransaction, ReadableDatabase, StorageBackend, WriteTransaction};

use super::condition::{Ailment, Condition};
use super::faults::{Faults, Operation};
use super::overlay::Overlay;

/// The database of a store, as it can be reached at the moment.
pub(super) struct Base {
    /// `None` while it is being opened, or cannot be.
    database: RwLock<Option<Database>>,
    cache_bytes: usize,
    condition: Arc<Condition>,
    faults: Faults,
}

impl Base {
    /// None is open yet.
    pub(super) fn new(cache_bytes: usize, faults: Faults) -> Self {
        Self { database: RwLock::default(), cache_bytes, condition: Arc::default(), faults }
    }

    pub(super) fn condition(&self) -> &Condition {
        &self.condition
    }

    /// Reads as of the last commit.
    pub(super) fn begin_read(&self) -> Result<ReadTransaction, Error> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        Ok(database.as_ref().ok_or(Error::DatabaseClosed)?.begin_read()?)
    }

    /// Begins a commit; there is one at a time.
    pub(super) fn begin_write(&self) -> Result<WriteTransaction, Error> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        Ok(database.as_ref().ok_or(Error::DatabaseClosed)?.begin_write()?)
    }

    /// Opens a database, making it if it is not there. Nobody reaches it before it is [`Self::put`].
    pub(super) fn open(&self, path: &Path) -> Result<Database, Error> {
        // For its owner only: it holds a private key.
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let file = DatabaseFile { file: RwLock::new(Some(file)), condition: Arc::clone(&self.condition), faults: self.faults.clone() };
        Ok(self.build(file)?)
    }

    fn build(&self, file: impl StorageBackend) -> Result<Database, DatabaseError> {
        Builder::new().set_cache_size(self.cache_bytes).create_with_backend(file)
    }

    /// From now on this one is read and written.
    pub(super) fn put(&self, database: Database) {
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = Some(database);
    }

    /// Closes the database. Who reads from it finds a fault.
    pub(super) fn close(&self) {
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Lets the last commit on disk be read, with what `fill` puts above it, and nothing be written.
    pub(super) fn read_on(&self, path: PathBuf, fill: impl FnOnce(&Database) -> Result<(), Error>) {
        // Who wants to read waits.
        let mut place = self.database.write().unwrap_or_else(PoisonError::into_inner);
        *place = None;
        let overlaid = File::open(path).map_err(Error::Io).and_then(|file| {
            forget_cached(&file);
            let database = self.build(Overlay::of(file)?)?;
            if let Err(error) = fill(&database) {
                tracing::warn!(%error, "the last of what was written cannot be read before the database is open again");
            }
            Ok(database)
        });
        match overlaid {
            Ok(database) => *place = Some(database),
            Err(error) => tracing::warn!(%error, "the database cannot even be read"),
        }
    }
}

/// After a sync that failed, memory may hold as written what the disk never took: what is read next comes from the disk.
pub(super) fn forget_cached(file: &File) {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed) {
        tracing::debug!(%error, "what memory holds of a file is not forgotten");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// The file of a database. Its lock is that of the folder.
#[derive(Debug)]
struct DatabaseFile {
    /// `None` once it is closed, which waits for whoever is at it.
    file: RwLock<Option<File>>,
    condition: Arc<Condition>,
    faults: Faults,
}

impl DatabaseFile {
    fn at<T>(&self, act: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner);
        let file = file.as_ref().ok_or_else(|| io::Error::other("the database is closed"))?;
        act(file).inspect_err(|error| self.condition.ail(Ailment::of_io(error)))
    }
}

impl StorageBackend for DatabaseFile {
    fn len(&self) -> io::Result<u64> {
        self.at(|file| Ok(file.metadata()?.len()))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.at(|file| {
            self.faults.strike(file, Operation::Read)?;
            file.read_exact_at(out, offset)
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.at(|file| {
            self.faults.strike(file, Operation::Resize)?;
            file.set_len(len)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.at(|file| {
            self.faults.strike(file, Operation::Sync)?;
            file.sync_data()
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.at(|file| {
            self.faults.strike(file, Operation::Write(offset, data))?;
            file.write_all_at(data, offset)
        })
    }

    fn close(&self) -> io::Result<()> {
        *self.file.write().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }
}
