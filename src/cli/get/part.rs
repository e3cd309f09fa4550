//! The part file of a download, and the pipe that writes and hashes.
//!
//! 1. Only one download at a time writes a part file: it is locked.
//! 2. A part file longer than the blob is of no use and starts empty.
//! 3. Hashing covers the bytes that were there before, so a resumed download is verified as a whole.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use gossip_cdn_protocol::ContentHash;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::cli::fault::Fault;

/// Bytes gathered before they are handed to the writing thread. Two such batches are in memory at most.
const BATCH: usize = 1 << 20;
/// Buffer for hashing a file.
const BUFFER: usize = 1 << 20;

/// `NAME.part`.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    /// Bytes in it when it was opened.
    pub(super) length: u64,
    /// Locked as long as it is open.
    file: File,
    hasher: blake3::Hasher,
}

impl Part {
    /// Opens or makes the part file of `target` and hashes what is in it.
    pub(super) async fn open(target: &Path, size: u64) -> Result<Self, Fault> {
        let path = part_path(target);
        let doing = |error: &io::Error| Fault::of_file("write", &path, error);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(|error| doing(&error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Fault::Failed(format!("another download is writing {}", path.display()))),
            // A file system without locks: the hash at the end finds out who disturbed whom.
            Err(TryLockError::Error(_)) => {}
        }
        let length = resume_at(file.metadata().map_err(|error| doing(&error))?.len(), size);
        file.set_len(length).map_err(|error| doing(&error))?;
        let reading = spawn_blocking(move || hash_all(&file).map(|hasher| (file, hasher)));
        let (file, hasher) = reading.await.map_err(io::Error::other).flatten().map_err(|error| Fault::of_file("read", &path, &error))?;
        Ok(Self { path, length, file, hasher })
    }

    /// A pipe to its end.
    pub(super) fn pipe(&self) -> Result<Pipe, Fault> {
        let doing = |error: io::Error| Fault::of_file("write", &self.path, &error);
        let mut file = self.file.try_clone().map_err(doing)?;
        file.seek(SeekFrom::Start(self.length)).map_err(doing)?;
        Ok(Pipe::new(Box::new(file), self.hasher.clone(), self.length))
    }

    /// Removes it: its bytes are of no use.
    pub(super) fn remove(self) -> Result<(), Fault> {
        std::fs::remove_file(&self.path).map_err(|error| Fault::of_file("remove", &self.path, &error))
    }

    /// Leaves it for the next attempt, if there is anything in it.
    pub(super) fn leave(self) -> Result<(), Fault> {
        match self.file.metadata() {
            Ok(metadata) if metadata.len() == 0 => self.remove(),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Gives it its name: the bytes are on the disk before they take the place of others.
    pub(super) async fn publish(self, target: &Path) -> Result<(), Fault> {
        let Self { path, file, .. } = self;
        let synced = spawn_blocking(move || file.sync_all()).await.map_err(io::Error::other).flatten();
        synced.and_then(|()| std::fs::rename(&path, target)).map_err(|error| Fault::of_file("write", target, &error))
    }
}

fn part_path(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// Where to go on with a part file of `length` bytes.
fn resume_at(length: u64, size: u64) -> u64 {
    if length > size { 0 } else { length }
}

/// The hash of a file.
pub(super) async fn hash_of(path: &Path) -> Result<ContentHash, Fault> {
    let opened = path.to_path_buf();
    let hashed = spawn_blocking(move || hash_all(&File::open(opened)?)).await.map_err(io::Error::other).flatten();
    hashed.map(|hasher| ContentHash(*hasher.finalize().as_bytes())).map_err(|error| Fault::of_file("read", path, &error))
}

fn hash_all(mut file: &File) -> io::Result<blake3::Hasher> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER];
    file.seek(SeekFrom::Start(0))?;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher),
            length => hasher.update(&buffer[..length]),
        };
    }
}

/// Writes and hashes on a blocking thread, one batch behind the network.
pub(super) struct Pipe {
    /// Not here while a batch is being written, and never again after one failed.
    idle: Option<End>,
    writing: Option<JoinHandle<io::Result<End>>>,
    batch: Vec<Bytes>,
    gathered: usize,
    taken: u64,
}

/// The far end of a pipe.
struct End {
    output: Box<dyn Write + Send>,
    hasher: blake3::Hasher,
}

impl Pipe {
    /// A pipe into `output`, which `taken` bytes with the hash state `hasher` have gone into already.
    pub(super) fn new(output: Box<dyn Write + Send>, hasher: blake3::Hasher, taken: u64) -> Self {
        Self { idle: Some(End { output, hasher }), writing: None, batch: Vec::new(), gathered: 0, taken }
    }

    /// How many bytes went in, those before included.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Takes bytes; waits while both batches are full.
    pub(super) async fn push(&mut self, bytes: Bytes) -> io::Result<()> {
        self.taken += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.gathered += bytes.len();
        self.batch.push(bytes);
        if self.gathered < BATCH { Ok(()) } else { self.pass_on().await }
    }

    /// Writes what is left; gives the hash of everything.
    pub(super) async fn finish(mut self) -> io::Result<ContentHash> {
        self.pass_on().await?;
        let mut end = self.settle().await?;
        end.output.flush()?;
        Ok(ContentHash(*end.hasher.finalize().as_bytes()))
    }

    async fn pass_on(&mut self) -> io::Result<()> {
        let mut end = self.settle().await?;
        let batch = std::mem::take(&mut self.batch);
        self.gathered = 0;
        self.writing = Some(spawn_blocking(move || {
            for bytes in batch {
                end.hasher.update(&bytes);
                end.output.write_all(&bytes)?;
            }
            Ok(end)
        }));
        Ok(())
    }

    /// The far end, when the batch on its way is written.
    async fn settle(&mut self) -> io::Result<End> {
        match self.writing.take() {
            Some(writing) => writing.await.map_err(io::Error::other)?,
            None => self.idle.take().ok_or_else(|| io::Error::other("an earlier write failed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_resumed_at_its_end_unless_it_is_too_long() {
        assert_eq!([resume_at(0, 10), resume_at(4, 10), resume_at(10, 10), resume_at(11, 10)], [0, 4, 10, 0]);
        assert_eq!(part_path(Path::new("a/b.iso")), Path::new("a/b.iso.part"));
    }

    #[actix_web::test]
    async fn a_resumed_download_is_hashed_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x");
        std::fs::write(part_path(&target), "abc").unwrap();
        let part = Part::open(&target, 6).await.unwrap();
        assert_eq!(part.length, 3);
        let mut pipe = part.pipe().unwrap();
        pipe.push(Bytes::from_static(b"def")).await.unwrap();
        assert_eq!(pipe.taken(), 6);
        assert_eq!(pipe.finish().await.unwrap(), ContentHash::of(b"abcdef"));
        part.publish(&target).await.unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"abcdef");
        assert!(!part_path(&target).exists());
        assert_eq!(hash_of(&target).await.unwrap(), ContentHash::of(b"abcdef"));
    }

    #[actix_web::test]
    async fn only_a_part_with_bytes_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x");
        Part::open(&target, 6).await.unwrap().leave().unwrap();
        assert!(!part_path(&target).exists());
        std::fs::write(part_path(&target), "abc").unwrap();
        Part::open(&target, 6).await.unwrap().leave().unwrap();
        assert_eq!(std::fs::read(part_path(&target)).unwrap(), b"abc");
    }

    #[actix_web::test]
    async fn two_downloads_do_not_share_a_part() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x");
        let first = Part::open(&target, 6).await.unwrap();
        assert!(Part::open(&target, 6).await.unwrap_err().to_string().contains("another download"));
        drop(first);
        assert!(Part::open(&target, 6).await.is_ok());
    }

    #[actix_web::test]
    async fn batches_arrive_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x");
        let part = Part::open(&target, u64::MAX).await.unwrap();
        let mut pipe = part.pipe().unwrap();
        let mut whole = Vec::new();
        for n in 0..40_u8 {
            let piece = vec![n; 100_000];
            whole.extend_from_slice(&piece);
            pipe.push(piece.into()).await.unwrap();
        }
        assert_eq!(pipe.finish().await.unwrap(), ContentHash::of(&whole));
        assert_eq!(std::fs::read(&part.path).unwrap(), whole);
    }

    #[actix_web::test]
    async fn a_full_disk_is_told() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut pipe = Pipe::new(Box::new(Full), blake3::Hasher::new(), 0);
        pipe.push(Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(pipe.finish().await.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
