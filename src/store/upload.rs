//! Payloads from clients: bytes of unknown number and hash.
//!
//! 1. Memory does not follow size: a block is collected while the one before it is hashed and written on the blocking pool.
//! 2. Nothing is left of an upload that is dropped, fails, or is never finished.
//! 3. When [`Upload::finish`] returns, the payload's row is queued, behind its durable file if it has one: a record that is
//!    persisted afterwards is never durable without its payload.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use bytes::Bytes;
use gossip_cdn_protocol::{ContentHash, Sha256Digest};
use sha2::{Digest, Sha256};
use tokio::task::{JoinHandle, spawn_blocking};

use super::folder::TempFile;
use super::pins::Pin;
use super::tree::TreeHasher;
use super::writer::{PayloadRow, Request};
use super::{INLINE_MAX, Life, Shared};

/// Bytes collected before they are written at once.
const BLOCK: usize = 1 << 20;

/// A payload stored, and kept for as long as its pin lives.
#[derive(Debug)]
pub struct Stored {
    /// Its name.
    pub hash: ContentHash,
    /// Its SHA-256.
    pub sha256: Sha256Digest,
    /// Its length in bytes.
    pub size: u64,
    /// In which its row was queued: a record may name it in this life, for if the store fails now the row may be lost.
    pub life: Life,
    /// To be held until the record that names the payload is committed, or will never be.
    pub pin: Pin,
}

/// A payload on its way from a client.
pub struct Upload {
    shared: Arc<Shared>,
    /// At most [`BLOCK`] and the last piece written.
    buffer: Vec<u8>,
    size: u64,
    stage: Stage,
}

enum Stage {
    /// Everything is in the buffer.
    Memory,
    /// All before the buffer is on its way to a file.
    Spilling(JoinHandle<io::Result<Spill>>),
    /// A write failed.
    Failed,
}

impl Upload {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, buffer: Vec::new(), size: 0, stage: Stage::Memory }
    }

    /// Takes the next bytes. [`io::ErrorKind::StorageFull`] where they would touch the reserve. After an error there is only the drop.
    pub async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.size += bytes.len() as u64;
        self.buffer.extend_from_slice(&bytes);
        if self.buffer.len() >= BLOCK { self.spill().await } else { Ok(()) }
    }

    /// Bytes taken so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    async fn spill(&mut self) -> io::Result<()> {
        let spill = self.landed().await?;
        let block = std::mem::replace(&mut self.buffer, Vec::with_capacity(BLOCK));
        let shared = Arc::clone(&self.shared);
        self.stage = Stage::Spilling(spawn_blocking(move || {
            let mut spill = spill.map_or_else(|| Spill::new(&shared), Ok)?;
            spill.absorb(&shared, &block)?;
            Ok(spill)
        }));
        Ok(())
    }

    /// Waits for the block that is being written. Dropped meanwhile, it loses nothing.
    async fn landed(&mut self) -> io::Result<Option<Spill>> {
        let result = match &mut self.stage {
            Stage::Memory => return Ok(None),
            Stage::Spilling(flight) => flight.await,
            Stage::Failed => return Err(io::Error::other("this upload failed before")),
        };
        self.stage = Stage::Failed;
        result.map_err(io::Error::other)?.map(Some)
    }

    /// No more bytes: makes the payload's file durable, if it is large, and queues its row.
    pub async fn finish(mut self) -> io::Result<Stored> {
        let spill = self.landed().await?;
        let Self { shared, buffer, size, .. } = self;
        if size > INLINE_MAX as u64 {
            return spawn_blocking(move || finish_large(&shared, spill, &buffer, size)).await.map_err(io::Error::other)?;
        }
        let hash = ContentHash::of(&buffer);
        let sha256 = Sha256Digest(Sha256::digest(&buffer).into());
        let (pin, life) = (Pin::new(&shared, hash), shared.life());
        let row = PayloadRow { hash, size, inline: Some(buffer.into()), _pin: Pin::new(&shared, hash) };
        shared.queue.send(Request::Payload(row, None)).await.map_err(io::Error::other)?;
        Ok(Stored { hash, sha256, size, life, pin })
    }
}

fn finish_large(shared: &Arc<Shared>, spill: Option<Spill>, rest: &[u8], size: u64) -> io::Result<Stored> {
    let mut spill = spill.map_or_else(|| Spill::new(shared), Ok)?;
    spill.absorb(shared, rest)?;
    let Spill { data, outboard, sha256, tree } = spill;
    let (hash, mut writer) = tree.finish()?;
    writer.flush()?;
    let (pin, life) = (Pin::new(shared, hash), shared.life());
    let row = PayloadRow { hash, size, inline: None, _pin: Pin::new(shared, hash) };
    shared.pins.wait_until_spared(hash);
    shared.folder.place(hash, &data, &outboard)?;
    shared.queue.blocking_send(Request::Payload(row, None)).map_err(io::Error::other)?;
    Ok(Stored { hash, sha256: Sha256Digest(sha256.finalize().into()), size, life, pin })
}

/// A payload too large for memory: its file and tree so far.
struct Spill {
    data: TempFile,
    outboard: TempFile,
    sha256: Sha256,
    tree: TreeHasher<BufWriter<Arc<std::fs::File>>>,
}

impl Spill {
    fn new(shared: &Shared) -> io::Result<Self> {
        let (data, outboard) = (shared.folder.temporary()?, shared.folder.temporary()?);
        let tree = TreeHasher::new(BufWriter::with_capacity(64 << 10, Arc::clone(&outboard.file)));
        Ok(Self { data, outboard, sha256: Sha256::new(), tree })
    }

    fn absorb(&mut self, shared: &Shared, block: &[u8]) -> io::Result<()> {
        shared.require_room(block.len() as u64)?;
        (&*self.data.file).write_all(block)?;
        self.sha256.update(block);
        self.tree.update(block)
    }
}

#[cfg(test)]
mod tests {
    use gossip_cdn_protocol::{Record, Store as _};

    use super::super::fixture::{Fixture, blob, content, noise, options, write};
    use super::super::{PayloadReader, Reserve, Store};
    use super::*;

    #[tokio::test]
    async fn payloads_of_every_size_read_back_also_after_a_crash() {
        let fixture = Fixture::new();
        let sizes = [0, 1, INLINE_MAX, INLINE_MAX + 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 77];
        let mut payloads = Vec::new();
        for (n, size) in (1..).zip(sizes) {
            let bytes = noise(size, n);
            let stored = fixture.upload(&bytes).await;
            assert_eq!((stored.hash, stored.size), (ContentHash::of(&bytes), size as u64));
            assert_eq!(stored.sha256.0, <[u8; 32]>::from(Sha256::digest(&bytes)));
            let record = write(&Record::default(), 1, 5, content(&bytes, None));
            fixture.persist(&[(blob(u128::from(n)), &record)]).await;
            payloads.push(bytes);
        }
        let crashed = fixture.after_a_crash();
        for store in [&fixture, &crashed] {
            for bytes in &payloads {
                let hash = ContentHash::of(bytes);
                assert!(store.store.holds(hash).unwrap());
                assert!(store.bytes(hash).as_ref() == Some(bytes), "{}", bytes.len());
                let inline = matches!(store.store.payload(hash).unwrap(), Some(PayloadReader::Inline(_)));
                assert_eq!(inline, bytes.len() <= INLINE_MAX);
            }
        }
        assert!(fixture.files("tmp").is_empty());
        assert_eq!(fixture.files("payloads").len(), 2 * 5, "a file and a tree each");
    }

    #[tokio::test]
    async fn a_dropped_upload_leaves_nothing() {
        let fixture = Fixture::new();
        let mut upload = fixture.store.upload();
        for _ in 0..3 {
            upload.write(noise(BLOCK, 1).into()).await.unwrap();
        }
        let spilled = upload.landed().await.unwrap();
        assert_eq!(fixture.files("tmp").len(), 2);
        drop(spilled);
        drop(upload);
        assert!(fixture.files("tmp").is_empty() && fixture.files("payloads").is_empty());
        assert_eq!(fixture.store.usage().payloads, 0);
    }

    #[tokio::test]
    async fn an_upload_whose_record_never_comes_is_collected_when_its_pin_goes() {
        for size in [10, 100_000] {
            let fixture = Fixture::new();
            let stored = fixture.upload(&noise(size, 1)).await;
            fixture.settle().await;
            assert_eq!(fixture.store.usage().payload_bytes, size as u64, "kept while it is pinned");
            let hash = stored.hash;
            drop(stored);
            fixture.settle().await;
            assert!(fixture.bytes(hash).is_none());
            assert_eq!(fixture.store.usage(), super::super::Usage::default());
            assert!(fixture.files("payloads").is_empty());
        }
    }

    #[tokio::test]
    async fn the_reserve_of_the_disk_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let options = super::super::Options { reserve: Reserve::Bytes(u64::MAX), ..options() };
        let (store, _writer) = Store::open(dir.path(), options).unwrap();
        assert!(!store.room_for(1).unwrap());
        let mut upload = store.upload();
        upload.write(noise(BLOCK, 1).into()).await.unwrap();
        let full = upload.write(noise(BLOCK, 2).into()).await.unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert!(upload.finish().await.is_err(), "a failed upload is not finished");
        assert!(super::super::fixture::files(&dir.path().join("tmp")).is_empty());
    }

    #[tokio::test]
    async fn the_same_bytes_uploaded_twice_are_stored_once() {
        let fixture = Fixture::new();
        let bytes = noise(200_000, 1);
        let (one, two) = (fixture.upload(&bytes).await, fixture.upload(&bytes).await);
        let record = write(&Record::default(), 1, 5, content(&bytes, None));
        fixture.persist(&[(blob(1), &record)]).await;
        drop((one, two));
        fixture.settle().await;
        assert_eq!((fixture.store.usage().payloads, fixture.files("payloads").len()), (1, 2));
        assert!(fixture.bytes(ContentHash::of(&bytes)) == Some(bytes));
    }
}
