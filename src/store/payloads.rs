//! Reading payloads, and encoding them for peers.
//!
//! An open file survives the collection of its payload: it is unlinked, and its bytes go when the last reader closes it.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use bao_tree::io::outboard::{PostOrderMemOutboard, PostOrderOutboard};
use bao_tree::io::sync::{ReadAt, encode_ranges_validated};
use bao_tree::{BaoTree, ChunkNum, ChunkRanges};
use bytes::Bytes;
use gossip_cdn_protocol::{ContentHash, StoreFault};
use redb::{Error, ReadableDatabase};

use super::tree::{BLOCK, GROUP};
use super::{Shared, fault, tables};

/// A payload that is here.
#[derive(Debug, Clone)]
pub enum PayloadReader {
    /// All its bytes.
    Inline(Bytes),
    /// Its file; read it with `read_at`.
    File {
        /// The file, open.
        file: Arc<File>,
        /// Its length in bytes.
        size: u64,
    },
}

impl PayloadReader {
    /// Length of the payload in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::File { size, .. } => *size,
        }
    }
}

/// Why a payload from a peer was not stored.
#[derive(Debug, thiserror::Error)]
pub enum PutFault {
    /// Its bytes do not match the hash. Misbehaviour of who sent them.
    #[error("the bytes do not match the hash")]
    WrongBytes,
    /// Larger than [`super::INLINE_MAX`]: it has to come as an [`super::Incoming`].
    #[error("too large to be taken in one piece")]
    TooLarge,
    /// Not all bytes are here yet.
    #[error("bytes are still missing")]
    Incomplete,
    /// A file cannot be written.
    #[error("the payload cannot be written: {0}")]
    Local(#[from] io::Error),
    /// The database cannot be written.
    #[error("{0}")]
    Store(#[from] StoreFault),
}

/// How often a payload that was collected and came back between two looks is looked for.
const LOOKS: usize = 3;

/// Opens a payload; `None`: it is not here.
pub(super) fn open(shared: &Shared, hash: ContentHash) -> Result<Option<PayloadReader>, StoreFault> {
    for _ in 0..LOOKS {
        let row = look(shared, hash).map_err(fault)?;
        let Some(Row::File(size)) = row else {
            return Ok(row.and_then(Row::inline));
        };
        match File::open(shared.folder.payload(hash)) {
            Ok(file) => return Ok(Some(PayloadReader::File { file: Arc::new(file), size })),
            // Collected between the look and the opening: look again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => (),
            Err(error) => return Err(StoreFault(format!("the file of payload {hash}: {error}"))),
        }
    }
    Err(StoreFault(format!("the file of payload {hash} is gone from the folder")))
}

enum Row {
    Inline(Bytes),
    File(u64),
}

impl Row {
    fn inline(self) -> Option<PayloadReader> {
        match self {
            Self::Inline(bytes) => Some(PayloadReader::Inline(bytes)),
            Self::File(_) => None,
        }
    }
}

fn look(shared: &Shared, hash: ContentHash) -> Result<Option<Row>, Error> {
    let transaction = shared.database.begin_read()?;
    // The small ones first: for them this is the only look-up.
    if let Some(row) = transaction.open_table(tables::INLINE)?.get(&hash.0)? {
        return Ok(Some(Row::Inline(Bytes::copy_from_slice(row.value()))));
    }
    Ok(transaction.open_table(tables::PAYLOADS)?.get(&hash.0)?.map(|row| Row::File(row.value())))
}

/// The chunks that a range of bytes touches.
pub(super) fn chunks(range: &Range<u64>) -> ChunkRanges {
    ChunkRanges::from(ChunkNum(range.start >> 10)..ChunkNum(range.end.div_ceil(1 << 10)))
}

/// Writes a range of a payload in bao encoding; false: it is not here. Nothing is written of a group that fails its check.
pub(super) fn encode(shared: &Shared, hash: ContentHash, range: &Range<u64>, sink: impl Write) -> io::Result<bool> {
    let Some(payload) = open(shared, hash).map_err(io::Error::other)? else { return Ok(false) };
    let bounds = |offset: &u64| offset.is_multiple_of(GROUP as u64) || *offset == payload.size();
    if range.start > range.end || range.end > payload.size() || ![range.start, range.end].iter().all(bounds) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a range of groups of the payload"));
    }
    if range.is_empty() {
        return Ok(true);
    }
    match payload {
        PayloadReader::Inline(bytes) => {
            let outboard = PostOrderMemOutboard::create(&bytes, BLOCK);
            encode_ranges_validated(&bytes[..], outboard, &chunks(range), sink)?;
        }
        PayloadReader::File { file, size } => {
            let data = File::open(shared.folder.outboard(hash))?;
            let outboard = PostOrderOutboard { root: hash.0.into(), tree: BaoTree::new(size, BLOCK), data: Positioned(&data) };
            encode_ranges_validated(Positioned(&file), outboard, &chunks(range), sink)?;
        }
    }
    Ok(true)
}

/// A borrowed file, read and written at positions.
pub(super) struct Positioned<'a>(pub(super) &'a File);

impl ReadAt for Positioned<'_> {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self.0, buffer, position)
    }
}

impl bao_tree::io::sync::WriteAt for Positioned<'_> {
    fn write_at(&mut self, position: u64, bytes: &[u8]) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(self.0, bytes, position)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use gossip_cdn_protocol::Record;

    use super::super::fixture::{Fixture, blob, content, noise, write};
    use super::*;

    async fn with_payload(bytes: &[u8]) -> (Fixture, ContentHash) {
        let fixture = Fixture::new();
        let stored = fixture.upload(bytes).await;
        let record = write(&Record::default(), 1, 5, content(bytes, None));
        fixture.persist(&[(blob(1), &record)]).await;
        (fixture, stored.hash)
    }

    #[tokio::test]
    async fn what_is_not_here_or_not_asked_for_at_a_group_is_not_encoded() {
        let (fixture, hash) = with_payload(&noise(100_000, 1)).await;
        let group = GROUP as u64;
        assert!(!fixture.store.encode(ContentHash::of(b"other"), 0..group, Vec::new()).unwrap());
        for (start, end) in [(1, group), (group - 1, group), (7 * group, 100_000), (0, 100_001), (0, 1), (group, 0), (0, u64::MAX)] {
            let refused = fixture.store.encode(hash, start..end, Vec::new()).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{start}..{end}");
        }
        assert!(fixture.store.encode(hash, 6 * group..100_000, Vec::new()).unwrap());
        let (fixture, hash) = with_payload(b"").await;
        assert!(fixture.store.encode(hash, 0..0, Vec::new()).unwrap());
    }

    #[tokio::test]
    async fn a_damaged_group_is_never_sent() {
        let bytes = noise(10 * GROUP, 1);
        let (fixture, hash) = with_payload(&bytes).await;
        let file = std::fs::OpenOptions::new().write(true).open(fixture.store.shared.folder.payload(hash)).unwrap();
        file.write_all_at(b"damaged", 5 * GROUP as u64).unwrap();
        let mut sent = Vec::new();
        let error = fixture.store.encode(hash, 0..10 * GROUP as u64, &mut sent).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(sent.len() < 6 * GROUP && !sent.windows(7).any(|window| window == b"damaged"));
    }

    #[tokio::test]
    async fn a_file_that_somebody_removed_is_a_fault_and_not_an_absent_payload() {
        let (fixture, hash) = with_payload(&noise(100_000, 1)).await;
        std::fs::remove_file(fixture.store.shared.folder.payload(hash)).unwrap();
        assert!(fixture.store.payload(hash).is_err());
    }
}
