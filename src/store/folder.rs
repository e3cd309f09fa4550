//! The data folder: its layout, its lock, the card that says whose it is.
//!
//! ```text
//! DIR/store.json     the card: format and cluster, readable before anything else is touched
//! DIR/lock           held for as long as a store is open
//! DIR/store.redb     records, small payloads, members, messages, the key of the node
//! DIR/journal        what store.redb does not have durably yet
//! DIR/payloads/ab/   large payloads: <hash>, and its tree <hash>.obao if it is longer than 1 MiB, by the first byte of the hash
//! DIR/partial/       large payloads of which some bytes are here: <hash>.<size>.<n> and its tree beside it
//! DIR/tmp/           what is on its way from clients; emptied at start
//! ```
//!
//! 1. A folder of another cluster or another format is refused before anything in it is written.
//! 2. A file gets its final name only when its bytes are on disk; the name is on disk when [`Folder::place`] returns.
//! 3. A database gets its name only when it is complete, so a crash at the very first start leaves nothing that cannot be opened.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use gossip_cdn_protocol::ContentHash;
use serde::{Deserialize, Serialize};

use super::faults::{Faults, Operation};

/// The format this release writes. Records were JSON in format 1, which no release wrote; in format 3 the slots of the message history named their
/// messages; in format 4 every payload file had a tree.
const FORMAT: u32 = 5;
/// The oldest format that it reads: one without a journal, which it adds.
const OLDEST: u32 = 2;

/// Why a store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the data folder {} is in use by another node: stop that one, or name another folder with --data", .dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// A newer release wrote it.
    #[error("the data folder {} has format {found}, this release reads up to {ours}: use a newer release, or name another folder with --data", .dir.display())]
    NewerFormat {
        /// The folder.
        dir: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format this release reads.
        ours: u32,
    },
    /// It is of a format from before the first release.
    #[error("the data folder {} has format {found} from before the first release, which is not read any more: name another folder with --data, and the node fetches everything from the others", .dir.display())]
    OlderFormat {
        /// The folder.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It belongs to a node of another cluster.
    #[error(
        "the data folder belongs to the cluster {found:?}, not to {wanted:?}: name that cluster with --cluster, or another folder with --data"
    )]
    OtherCluster {
        /// The cluster it belongs to.
        found: String,
        /// The cluster asked for.
        wanted: String,
    },
    /// A file or folder cannot be made, read or written.
    #[error("{}: {source}: check its owner, its rights and the space on its disk, or name another folder with --data", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database does not open.
    #[error("the database in {} does not open: {reason}: put the folder back from a backup and start with --restored, or name an empty folder with --data, and the node fetches everything from the others", .dir.display())]
    Database {
        /// The folder.
        dir: PathBuf,
        /// What redb says.
        reason: String,
    },
}

/// What stands on the card.
#[derive(Debug, Serialize, Deserialize)]
struct Card {
    format: u32,
    #[serde(default)]
    cluster: String,
}

/// A data folder that is ours for as long as this lives.
pub(super) struct Folder {
    dir: PathBuf,
    /// Numbers temporary files, so that no two share a name.
    next: AtomicU64,
    faults: Faults,
    /// Its lock goes with it.
    _lock: File,
}

impl Folder {
    /// Checks and locks the folder; makes it, and whatever is missing in it.
    pub(super) fn claim(dir: &Path, cluster: &str, faults: Faults) -> Result<Self, OpenError> {
        check(dir, cluster)?;
        at(dir, make_dir(dir))?;
        let path = dir.join("lock");
        let lock = at(&path, OpenOptions::new().create(true).append(true).open(&path))?;
        match lock.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked { dir: dir.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(OpenError::Io { path, source }),
        }
        // Again, for a card that somebody wrote between the first look and the lock.
        let carded = check(dir, cluster)?;
        let folder = Self { dir: dir.to_owned(), next: AtomicU64::new(0), faults, _lock: lock };
        at(dir, folder.empty_tmp())?;
        at(dir, folder.make_payload_dirs())?;
        at(dir, make_dir(&folder.dir.join("partial")))?;
        if !carded {
            at(dir, folder.write_card(cluster))?;
        }
        Ok(folder)
    }

    /// The folder itself.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What tests let go wrong.
    pub(super) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The database.
    pub(super) fn database(&self) -> PathBuf {
        self.dir.join("store.redb")
    }

    /// The journal.
    pub(super) fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }

    /// Makes the names in the folder durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        sync_dir(&self.dir)
    }

    /// Where the database is made, before it is given its name.
    pub(super) fn unborn_database(&self) -> PathBuf {
        self.dir.join("tmp").join("store.redb")
    }

    /// Gives the database its name, durably.
    pub(super) fn bear_database(&self) -> io::Result<()> {
        fs::rename(self.unborn_database(), self.database())?;
        sync_dir(&self.dir)
    }

    /// The file of a large payload.
    pub(super) fn payload(&self, hash: ContentHash) -> PathBuf {
        self.payload_dir(hash).join(hash.to_string())
    }

    /// The tree of a large payload.
    pub(super) fn outboard(&self, hash: ContentHash) -> PathBuf {
        self.payload_dir(hash).join(format!("{hash}.obao"))
    }

    fn payload_dir(&self, hash: ContentHash) -> PathBuf {
        self.dir.join("payloads").join(format!("{:02x}", hash.0[0]))
    }

    /// A new file in `tmp/`.
    pub(super) fn temporary(&self) -> io::Result<TempFile> {
        let path = self.dir.join("tmp").join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        let file = Arc::new(OpenOptions::new().read(true).write(true).create_new(true).open(&path)?);
        Ok(TempFile { path, file, stays: AtomicBool::new(false) })
    }

    /// New files in `partial/` for a payload and its tree. They stay, in a crash and when they are dropped, until they are discarded.
    pub(super) fn partial(&self, hash: ContentHash, size: u64) -> io::Result<(TempFile, TempFile)> {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let path = self.dir.join("partial").join(format!("{hash}.{size}.{number}"));
            match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
                Ok(file) => {
                    let outboard = outboard_of(&path);
                    let tree = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&outboard)?;
                    return Ok((TempFile::kept(path, file), TempFile::kept(outboard, tree)));
                }
                // Of an earlier life, which numbered its files from the same beginning.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (),
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes an unfinished payload of a damaged one: what is right of it need not be fetched again. Who has it open reads on.
    pub(super) fn set_aside(&self, hash: ContentHash, size: u64) -> io::Result<Partial> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // Files in the folder were numbered from the same beginning by earlier lives.
        let numbers = (number..=u64::MAX).map(|number| self.dir.join("partial").join(format!("{hash}.{size}.{number}")));
        let path = numbers.into_iter().find(|path| !path.exists()).ok_or(io::ErrorKind::AlreadyExists)?;
        match fs::rename(self.outboard(hash), outboard_of(&path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => drop(File::create(outboard_of(&path))?),
            renamed => renamed?,
        }
        fs::rename(self.payload(hash), &path)?;
        Ok(Partial { size, path })
    }

    /// Opens what [`Self::partials`] found.
    pub(super) fn open_partial(&self, left: &Partial) -> io::Result<(TempFile, TempFile)> {
        let open = |path: PathBuf| {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            Ok::<_, io::Error>(TempFile::kept(path, file))
        };
        Ok((open(left.path.clone())?, open(outboard_of(&left.path))?))
    }

    /// What earlier lives left of payloads for which `missing` says yes, one of each; everything else in `partial/` is removed.
    pub(super) fn partials<E: From<io::Error>>(
        &self,
        missing: impl Fn(ContentHash) -> Result<bool, E>,
    ) -> Result<BTreeMap<ContentHash, Partial>, E> {
        let mut left = BTreeMap::new();
        let mut paths = Vec::new();
        for entry in fs::read_dir(self.dir.join("partial"))? {
            paths.push(entry?.path());
        }
        paths.sort_unstable();
        for path in &paths {
            if let Some((hash, size)) = partial_name(path)
                && outboard_of(path).exists()
                && missing(hash)?
            {
                left.entry(hash).or_insert(Partial { size, path: path.clone() });
            }
        }
        for path in &paths {
            let kept = left.values().any(|partial| *path == partial.path || *path == outboard_of(&partial.path));
            if !kept {
                remove(path)?;
            }
        }
        Ok(left)
    }

    /// Removes the name of a file that is discarded; who has it open reads on.
    pub(super) fn unlink(&self, file: &TempFile) {
        if let Err(error) = remove(&file.path) {
            tracing::warn!(path = %file.path.display(), %error, "a discarded file stays until the next start");
        }
    }

    /// Removes what an earlier life left of a payload.
    pub(super) fn remove_partial(&self, left: &Partial) -> io::Result<()> {
        remove(&left.path)?;
        remove(&outboard_of(&left.path))
    }

    /// Puts a payload and its tree, if it has one, under their names, complete; durable when it returns.
    pub(super) fn place(&self, hash: ContentHash, data: &TempFile, outboard: Option<&TempFile>) -> io::Result<()> {
        for TempFile { file, .. } in std::iter::once(data).chain(outboard) {
            self.faults.strike(file, Operation::Sync)?;
            file.sync_data()?;
        }
        // The tree first: a payload file without its own does not exist even between the two.
        if let Some(outboard) = outboard {
            outboard.place(&self.outboard(hash))?;
        }
        data.place(&self.payload(hash))?;
        sync_dir(&self.payload_dir(hash))
    }

    /// Removes a large payload. Who has it open reads on.
    pub(super) fn remove(&self, hash: ContentHash) -> io::Result<()> {
        remove(&self.payload(hash))?;
        remove(&self.outboard(hash))
    }

    /// Removes the payload files for which `known` says no.
    pub(super) fn sweep<E: From<io::Error>>(&self, known: impl Fn(ContentHash) -> Result<bool, E>) -> Result<(), E> {
        for shelf in fs::read_dir(self.dir.join("payloads"))? {
            for entry in fs::read_dir(shelf?.path())? {
                let path = entry?.path();
                let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
                let Ok(hash) = name.parse::<ContentHash>() else { continue };
                if !known(hash)? {
                    tracing::debug!(path = %path.display(), "sweeping a payload file that no row names");
                    remove(&path)?;
                }
            }
        }
        Ok(())
    }

    /// Whether there is any payload file.
    pub(super) fn has_payloads(&self) -> io::Result<bool> {
        for shelf in fs::read_dir(self.dir.join("payloads"))? {
            if fs::read_dir(shelf?.path())?.next().is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn empty_tmp(&self) -> io::Result<()> {
        let tmp = self.dir.join("tmp");
        make_dir(&tmp)?;
        for entry in fs::read_dir(&tmp)? {
            remove(&entry?.path())?;
        }
        Ok(())
    }

    /// All 256 at once, so that no upload has to make one durable.
    fn make_payload_dirs(&self) -> io::Result<()> {
        let payloads = self.dir.join("payloads");
        make_dir(&payloads)?;
        let mut made = false;
        for byte in 0..=u8::MAX {
            let path = payloads.join(format!("{byte:02x}"));
            if !path.is_dir() {
                fs::create_dir(&path)?;
                made = true;
            }
        }
        if made { sync_dir(&payloads) } else { Ok(()) }
    }

    fn write_card(&self, cluster: &str) -> io::Result<()> {
        let card = self.temporary()?;
        let json = serde_json::to_vec(&Card { format: FORMAT, cluster: cluster.to_owned() })?;
        (&*card.file).write_all(&json)?;
        card.file.sync_data()?;
        card.place(&card_path(&self.dir))?;
        sync_dir(&self.dir)
    }
}

/// Checks the card; false if there is none of this format.
fn check(dir: &Path, cluster: &str) -> Result<bool, OpenError> {
    let path = card_path(dir);
    let json = match fs::read(&path) {
        Ok(json) => json,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(OpenError::Io { path, source }),
    };
    let card: Card = at(&path, serde_json::from_slice(&json).map_err(io::Error::from))?;
    if card.format > FORMAT {
        return Err(OpenError::NewerFormat { dir: dir.to_owned(), found: card.format, ours: FORMAT });
    }
    if card.format < OLDEST {
        return Err(OpenError::OlderFormat { dir: dir.to_owned(), found: card.format });
    }
    if card.cluster != cluster {
        return Err(OpenError::OtherCluster { found: card.cluster, wanted: cluster.to_owned() });
    }
    Ok(card.format == FORMAT)
}

fn card_path(dir: &Path) -> PathBuf {
    dir.join("store.json")
}

pub(super) fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, OpenError> {
    result.map_err(|source| OpenError::Io { path: path.to_owned(), source })
}

/// Makes a folder and those above it, durably, for its owner only: it holds a private key.
fn make_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_dir(parent)?;
    DirBuilder::new().mode(0o700).create(path)?;
    sync_dir(parent)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Some bytes of a payload, in `partial/`.
#[derive(Debug, Clone)]
pub(super) struct Partial {
    /// Length of the whole payload, as a record claimed.
    pub(super) size: u64,
    path: PathBuf,
}

impl Partial {
    /// What that file holds, once nobody has it open.
    pub(super) fn of(size: u64, data: &TempFile) -> Self {
        Self { size, path: data.path.clone() }
    }
}

fn outboard_of(partial: &Path) -> PathBuf {
    partial.with_added_extension("obao")
}

fn partial_name(path: &Path) -> Option<(ContentHash, u64)> {
    let mut fields = path.file_name()?.to_str()?.split('.');
    let (hash, size, number) = (fields.next()?, fields.next()?, fields.next()?);
    number.parse::<u64>().ok()?;
    fields.next().is_none().then_some((hash.parse().ok()?, size.parse().ok()?))
}

/// A file without a lasting name, removed when dropped unless it was given one, or is to stay without.
pub(super) struct TempFile {
    path: PathBuf,
    pub(super) file: Arc<File>,
    stays: AtomicBool,
}

impl TempFile {
    fn kept(path: PathBuf, file: File) -> Self {
        Self { path, file: Arc::new(file), stays: AtomicBool::new(true) }
    }

    fn place(&self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        self.stays.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// It is not to stay: it goes when it is dropped.
    pub(super) fn discard(&self) {
        self.stays.store(false, Ordering::Relaxed);
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if self.stays.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a temporary file stays until the next start");
        }
    }
}
