//! Payloads from clients: bytes of unknown number and hash.
//!
//! 1. Memory does not follow size: a block is collected while the one before it is hashed and written on the blocking pool.
//! 2. Nothing is left of an upload that is dropped, fails, or is never finished.
//! 3. When [`Upload::finish`] returns, the payload waits for its record, to be durable with it, or its row is queued, behind its durable file if it has one:
//!    a record that is persisted afterwards is never durable without its payload.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use gossip_cdn_protocol::{ContentHash, Sha256Digest};
use sha2::{Digest, Sha256};
use tokio::task::{JoinHandle, spawn_blocking};

use super::direct::{Appended, Block};
use super::folder::TempFile;
use super::pins::Pin;
use super::tree::{TREELESS_MAX, TreeHasher};
use super::writer::{PayloadRow, Request};
use super::{INLINE_MAX, Life, Shared};

/// Bytes collected before they are written at once; a payload that needs a tree needs several blocks.
const BLOCK: usize = TREELESS_MAX;

/// A payload stored, and kept for as long as its pin lives.
#[derive(Debug)]
pub struct Stored {
    /// Its name.
    pub hash: ContentHash,
    /// Its SHA-256.
    pub sha256: Sha256Digest,
    /// Its length in bytes.
    pub size: u64,
    /// In which it was stored: a record may name it in this life, for if the store fails now it may be lost.
    pub life: Life,
    /// To be held until the record that names the payload is committed, or will never be.
    pub pin: Pin,
}

/// A payload on its way from a client.
pub struct Upload {
    shared: Arc<Shared>,
    size: u64,
    collected: Collected,
    spilled: Spilled,
}

/// The last bytes that came.
enum Collected {
    /// All of them: so few that their place is in the database.
    Few(Vec<u8>),
    Block(Block),
}

/// All bytes before the last ones.
enum Spilled {
    /// There are none.
    Nothing,
    /// The last block of them is on its way to a file, and gives its memory back.
    Writing(JoinHandle<io::Result<(Spill, Block)>>),
    /// A write failed.
    Failed,
}

impl Collected {
    /// Takes as many bytes as there is room for; gives the rest.
    fn fill<'bytes>(&mut self, bytes: &'bytes [u8]) -> &'bytes [u8] {
        match self {
            Self::Few(few) if few.len() + bytes.len() <= INLINE_MAX => {
                few.extend_from_slice(bytes);
                &[]
            }
            Self::Few(few) => {
                let mut block = Block::new(BLOCK);
                block.fill(few);
                let rest = block.fill(bytes);
                *self = Self::Block(block);
                rest
            }
            Self::Block(block) => block.fill(bytes),
        }
    }
}

impl Upload {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, size: 0, collected: Collected::Few(Vec::new()), spilled: Spilled::Nothing }
    }

    /// Takes the next bytes. [`io::ErrorKind::StorageFull`] where they would touch the reserve. After an error there is only the drop.
    pub async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.size += bytes.len() as u64;
        let mut rest = self.collected.fill(&bytes);
        while !rest.is_empty() {
            self.spill().await?;
            rest = self.collected.fill(rest);
        }
        Ok(())
    }

    /// Bytes taken so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Sends the block that is full on its way, once the one before it is written.
    async fn spill(&mut self) -> io::Result<()> {
        let (spill, empty) = self.landed().await?.unzip();
        let empty = Collected::Block(empty.unwrap_or_else(|| Block::new(BLOCK)));
        let Collected::Block(mut block) = std::mem::replace(&mut self.collected, empty) else { return Ok(()) };
        let shared = Arc::clone(&self.shared);
        self.spilled = Spilled::Writing(spawn_blocking(move || {
            let mut spill = spill.map_or_else(|| Spill::new(&shared), Ok)?;
            spill.absorb(&shared, &block)?;
            block.clear();
            Ok((spill, block))
        }));
        Ok(())
    }

    /// Waits for the block that is being written. Dropped meanwhile, it loses nothing.
    async fn landed(&mut self) -> io::Result<Option<(Spill, Block)>> {
        let result = match &mut self.spilled {
            Spilled::Nothing => return Ok(None),
            Spilled::Writing(flight) => flight.await,
            Spilled::Failed => return Err(io::Error::other("this upload failed before")),
        };
        self.spilled = Spilled::Failed;
        result.map_err(io::Error::other)?.map(Some)
    }

    /// No more bytes: makes the payload's file durable and queues its row, if it is large; lets it wait for its record, if it is small.
    pub async fn finish(mut self) -> io::Result<Stored> {
        let landed = self.landed().await?;
        let Self { shared, collected, size, .. } = self;
        let mut bytes = match collected {
            Collected::Few(bytes) => bytes,
            Collected::Block(block) => {
                let finish = move || match landed {
                    Some((spill, _)) => spill.finish(&shared, &block, size),
                    None => finish_block(&shared, &block),
                };
                return spawn_blocking(finish).await.map_err(io::Error::other)?;
            }
        };
        let hash = ContentHash::of(&bytes);
        let sha256 = Sha256Digest(Sha256::digest(&bytes).into());
        let (pin, life) = (Pin::new(&shared, hash), shared.life());
        // They stay in memory until thousands of them go into the tables.
        bytes.shrink_to_fit();
        if let Err(bytes) = shared.pins.await_record(hash, bytes.into()) {
            let row = PayloadRow { hash, size, inline: Some(bytes), _pin: Pin::new(&shared, hash) };
            shared.queue.send(Request::Payload(row, None)).await.map_err(io::Error::other)?;
        }
        Ok(Stored { hash, sha256, size, life, pin })
    }
}

/// A payload of one block: its file stands alone.
fn finish_block(shared: &Arc<Shared>, block: &Block) -> io::Result<Stored> {
    let size = block.bytes().len() as u64;
    shared.require_room(size)?;
    let data = shared.folder.temporary()?;
    Appended::new(Arc::clone(&data.file), shared.folder.faults().clone()).append(block)?;
    let sha256 = Sha256Digest(Sha256::digest(block.bytes()).into());
    place(shared, ContentHash::of(block.bytes()), sha256, size, &data, None)
}

/// Makes the file of a payload durable, with its tree if it has one, and queues its row.
fn place(
    shared: &Arc<Shared>,
    hash: ContentHash,
    sha256: Sha256Digest,
    size: u64,
    data: &TempFile,
    outboard: Option<&TempFile>,
) -> io::Result<Stored> {
    let (pin, life) = (Pin::new(shared, hash), shared.life());
    let row = PayloadRow { hash, size, inline: None, _pin: Pin::new(shared, hash) };
    shared.pins.wait_until_spared(hash);
    shared.folder.place(hash, data, outboard)?;
    shared.queue.blocking_send(Request::Payload(row, None)).map_err(io::Error::other)?;
    Ok(Stored { hash, sha256, size, life, pin })
}

/// A payload of several blocks: its file and tree so far.
struct Spill {
    data: TempFile,
    appended: Appended,
    outboard: TempFile,
    sha256: Sha256,
    tree: TreeHasher<BufWriter<Arc<std::fs::File>>>,
}

impl Spill {
    fn new(shared: &Shared) -> io::Result<Self> {
        let (data, outboard) = (shared.folder.temporary()?, shared.folder.temporary()?);
        let appended = Appended::new(Arc::clone(&data.file), shared.folder.faults().clone());
        let tree = TreeHasher::new(BufWriter::with_capacity(64 << 10, Arc::clone(&outboard.file)));
        Ok(Self { data, appended, outboard, sha256: Sha256::new(), tree })
    }

    fn absorb(&mut self, shared: &Shared, block: &Block) -> io::Result<()> {
        shared.require_room(block.bytes().len() as u64)?;
        let Self { appended, sha256, tree, .. } = self;
        // The disk works while the processor does.
        thread::scope(|scope| {
            let written = thread::Builder::new().name("upload-writer".into()).spawn_scoped(scope, || appended.append(block))?;
            sha256.update(block.bytes());
            tree.update(block.bytes())?;
            written.join().unwrap_or_else(|_| Err(io::Error::other("the thread that writes is gone")))
        })
    }

    fn finish(mut self, shared: &Arc<Shared>, last: &Block, size: u64) -> io::Result<Stored> {
        self.absorb(shared, last)?;
        let (hash, mut writer) = self.tree.finish()?;
        writer.flush()?;
        place(shared, hash, Sha256Digest(self.sha256.finalize().into()), size, &self.data, Some(&self.outboard))
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
        assert_eq!(fixture.files("payloads").len(), 3 + 2 * 2, "three that stand alone, and two with a tree");
    }

    #[tokio::test]
    async fn a_dropped_upload_leaves_nothing() {
        let fixture = Fixture::new();
        let mut upload = fixture.store.upload();
        for _ in 0..4 {
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
            let is_large = size > INLINE_MAX;
            assert_eq!(fixture.store.usage().payload_bytes, if is_large { size as u64 } else { 0 }, "a small one only waits");
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
        upload.write(noise(2 * BLOCK, 1).into()).await.unwrap();
        let full = upload.write(noise(BLOCK, 2).into()).await.unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert!(upload.finish().await.is_err(), "a failed upload is not finished");
        for size in [INLINE_MAX + 1, BLOCK + 1] {
            let mut upload = store.upload();
            upload.write(noise(size, 1).into()).await.unwrap();
            assert_eq!(upload.finish().await.unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
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
        assert_eq!((fixture.store.usage().payloads, fixture.files("payloads").len()), (1, 1));
        assert!(fixture.bytes(ContentHash::of(&bytes)) == Some(bytes));
    }
}
