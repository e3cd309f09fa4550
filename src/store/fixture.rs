//! Stores for tests: in a folder of their own, with a writer on a thread of its own.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use bytes::Bytes;
use gossip_cdn_protocol::io::RecordChange;
use gossip_cdn_protocol::item::ItemHasher;
use gossip_cdn_protocol::{BlobId, Content, ContentHash, NodeId, Payload, Persist, Record, Sha256Digest, Stamp, StoreFault, Version};
use tempfile::TempDir;
use uuid::Uuid;

use super::{OpenError, Options, Reserve, Store, Stored, Writer};

pub(super) const CLUSTER: &str = "test";

pub(super) fn options() -> Options {
    Options { cluster: CLUSTER.into(), cache_bytes: 1 << 20, reserve: Reserve::Bytes(0), fresh_key: [7; 32], restored: false }
}

/// A store whose writer runs until the fixture is dropped.
pub(super) struct Fixture {
    pub(super) store: Store,
    writer: Option<JoinHandle<Result<(), StoreFault>>>,
    dir: Option<TempDir>,
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap()).unwrap()
    }

    pub(super) fn at(dir: TempDir) -> Result<Self, OpenError> {
        let (store, writer) = Store::open(dir.path(), options())?;
        Ok(Self { store, writer: Some(start(writer)), dir: Some(dir) })
    }

    /// A folder as a power cut at this moment would leave it, opened.
    pub(super) fn after_a_crash(&self) -> Self {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(self.dir(), copy.path());
        Self::at(copy).unwrap()
    }

    /// Closed and opened again.
    pub(super) fn reopened(mut self) -> Self {
        self.stop().unwrap();
        let dir = self.dir.take().unwrap();
        drop(self);
        Self::at(dir).unwrap()
    }

    pub(super) fn stop(&mut self) -> Result<(), StoreFault> {
        self.store.close();
        self.writer.take().map_or(Ok(()), |writer| writer.join().unwrap())
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }

    /// Uploads in pieces of a few sizes.
    pub(super) async fn upload(&self, bytes: &[u8]) -> Stored {
        let mut upload = self.store.upload();
        for piece in bytes.chunks(100_001) {
            upload.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        upload.finish().await.unwrap()
    }

    /// Persists records; they are on disk when this returns.
    pub(super) async fn persist(&self, records: &[(BlobId, &Record)]) {
        self.store.persist(persist(records)).await.await.unwrap().unwrap();
    }

    /// Everything queued before is committed, and its files are unlinked, when this returns.
    pub(super) async fn settle(&self) {
        // The second is taken up only when the writer is done with the first.
        self.persist(&[]).await;
        self.persist(&[]).await;
    }

    /// The tables have everything when this returns, and nothing is fresh.
    pub(super) async fn fill_tables(&self) {
        let change = Persist { contacts: Some(vec![]), ..persist(&[]) };
        self.store.persist(change).await.await.unwrap().unwrap();
    }

    /// The files below a folder of the store.
    pub(super) fn files(&self, folder: &str) -> Vec<PathBuf> {
        files(&self.dir().join(folder))
    }

    pub(super) fn bytes(&self, hash: ContentHash) -> Option<Vec<u8>> {
        bytes(&self.store, hash)
    }
}

/// A payload, if it is here and whole.
pub(super) fn bytes(store: &Store, hash: ContentHash) -> Option<Vec<u8>> {
    match store.payload(hash).unwrap()? {
        super::PayloadReader::Inline(bytes) => Some(bytes.to_vec()),
        super::PayloadReader::File { file, size } => Some(read(&file, size)),
        super::PayloadReader::Unread(reading) => match reading.read(0, usize::try_from(reading.size()).unwrap()) {
            Ok(bytes) => Some(bytes.to_vec()),
            Err(super::ReadFault::Damaged) => None,
            Err(super::ReadFault::Local(error)) => panic!("{error}"),
        },
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        assert!(self.stop().is_ok() || std::thread::panicking(), "the writer ended with a fault");
    }
}

#[expect(clippy::disallowed_methods, reason = "a test has no app to make its threads")]
pub(super) fn start(writer: Writer) -> JoinHandle<Result<(), StoreFault>> {
    std::thread::Builder::new().spawn(move || writer.run()).unwrap()
}

pub(super) fn read(file: &std::fs::File, size: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, 0).unwrap();
    bytes
}

/// The files below a folder, in order.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(folder).sort_by_file_name();
    entries.into_iter().map(Result::unwrap).filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect()
}

pub(super) fn copy_dir(from: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(from).min_depth(1) {
        let entry = entry.unwrap();
        let target = to.join(entry.path().strip_prefix(from).unwrap());
        if entry.file_type().is_dir() {
            std::fs::create_dir(target).unwrap();
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// That many bytes that do not repeat from group to group.
pub(super) fn noise(size: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

pub(super) fn blob(n: u128) -> BlobId {
    BlobId(Uuid::from_u128(n))
}

pub(super) fn node(n: u8) -> NodeId {
    NodeId::from_public_key(&[n; 32])
}

/// What a version says of those bytes.
pub(super) fn content(bytes: &[u8], name: Option<&str>) -> Content {
    Content::Payload(Payload {
        hash: ContentHash::of(bytes),
        sha256: Sha256Digest([0; 32]),
        size: bytes.len() as u64,
        media_type: "text/plain".into(),
        file_name: name.map(Into::into),
    })
}

/// A write by node `origin` at `stamp` that has seen `record`.
pub(super) fn write(record: &Record, origin: u8, stamp: u64, content: Content) -> Record {
    let mut clock = record.join();
    let stamp = Stamp(stamp.max(clock.greatest().0 + 1));
    clock.include(node(origin), stamp);
    let mut record = record.clone();
    record.insert(Version { stamp, origin: node(origin), content, clock });
    record
}

pub(super) fn persist(records: &[(BlobId, &Record)]) -> Persist {
    let hasher = ItemHasher::new(CLUSTER);
    let change = |(blob, record): &(BlobId, &Record)| RecordChange {
        key: hasher.key(*blob),
        record: (*record).clone(),
        state: hasher.state(record),
    };
    Persist { records: records.iter().map(change).collect(), ..Persist::default() }
}
