//! Reading payloads, and encoding them for peers.
//!
//! 1. The first reading of a payload after a start is checked before a byte of it leaves ([`super::verified`]); peers are sent checked
//!    groups only, always.
//! 2. A copy that fails its check is not here any more, from that moment on ([`super::damage`]); so is one whose file is gone or short,
//!    or lies where the disk cannot read it.
//!
//! An open file survives the collection of its payload: it is unlinked, and its bytes go when the last reader closes it.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Weak};

use bao_tree::io::outboard::{PostOrderMemOutboard, PostOrderOutboard};
use bao_tree::io::sync::{ReadAt, encode_ranges_validated};
use bao_tree::{BaoTree, ChunkNum, ChunkRanges};
use bytes::Bytes;
use gossip_cdn_protocol::{ContentHash, StoreFault};
use redb::{Error, ReadTransaction};

use super::damage::Evidence;
use super::tree::{self, BLOCK, GROUP, TREELESS_MAX};
use super::verified::Groups;
use super::{Shared, reading, tables};

/// A payload that is here.
#[derive(Debug, Clone)]
pub enum PayloadReader {
    /// All its bytes, checked.
    Inline(Bytes),
    /// Its file, all of which was checked since the start; read it with `read_at`.
    File {
        /// The file, open.
        file: Arc<File>,
        /// Its length in bytes.
        size: u64,
    },
    /// Its file, of which some groups were not read yet since the start.
    Unread(FirstReading),
}

impl PayloadReader {
    /// Length of the payload in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::File { size, .. } => *size,
            Self::Unread(reading) => reading.size,
        }
    }
}

/// Why bytes cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadFault {
    /// They are not those of the payload, which is missing now: it has to come from another node.
    #[error("the copy here is damaged")]
    Damaged,
    /// The system refuses.
    #[error("the payload cannot be read: {0}")]
    Local(#[from] io::Error),
}

/// The first reading of a large payload since the start: what is read is checked, unless it was before.
#[derive(Clone)]
pub struct FirstReading {
    /// A reader that takes its time does not keep the store from being closed.
    shared: Weak<Shared>,
    hash: ContentHash,
    size: u64,
    file: Arc<File>,
    /// `None`: it is so short that it has none, and is checked whole.
    tree: Option<Arc<File>>,
    pub(super) groups: Arc<Groups>,
}

impl std::fmt::Debug for FirstReading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FirstReading").field("hash", &self.hash).field("size", &self.size).finish_non_exhaustive()
    }
}

impl FirstReading {
    /// Of the file of a payload and the tree beside it; `None`: one of them is gone, or not as long as it was. Damage is noted.
    pub(super) fn of(shared: &Arc<Shared>, hash: ContentHash, size: u64, file: Arc<File>) -> io::Result<Option<Self>> {
        let has_tree = size > TREELESS_MAX as u64;
        let tree = match has_tree.then(|| File::open(shared.folder.outboard(hash))).transpose() {
            Ok(tree) => tree.map(Arc::new),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if has_tree != tree.is_some() || file.metadata().is_ok_and(|metadata| metadata.len() != size) {
            shared.note_damage(hash, Evidence::File(file));
            return Ok(None);
        }
        let groups = shared.verified.groups(hash, size);
        Ok(Some(Self { shared: Arc::downgrade(shared), hash, size, file, tree, groups }))
    }

    /// Length of the payload in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads so many bytes from `offset` on, which all are the payload's. Blocks.
    pub fn read(&self, offset: u64, length: usize) -> Result<Bytes, ReadFault> {
        let end = offset.saturating_add(length as u64);
        if end > self.size || length == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a range of the payload").into());
        }
        let mut groups = offset / GROUP as u64..end.div_ceil(GROUP as u64);
        let is_known = self.groups.have(groups.clone());
        if self.tree.is_none() && !is_known {
            groups = 0..self.size.div_ceil(GROUP as u64);
        }
        let from = groups.start * GROUP as u64;
        let to = (groups.end * GROUP as u64).min(self.size);
        let mut bytes = vec![0; usize::try_from(to - from).map_err(io::Error::other)?];
        let is_right = FileExt::read_exact_at(&*self.file, &mut bytes, from).and_then(|()| Ok(is_known || self.matches(from, &bytes)?));
        match is_right {
            Ok(true) => {
                if self.groups.add(groups)
                    && let Some(shared) = self.shared.upgrade()
                {
                    shared.verified.add(self.hash);
                }
            }
            Ok(false) => return Err(self.damaged()),
            Err(error) if is_damage(&error) => return Err(self.damaged()),
            Err(error) => return Err(error.into()),
        }
        let start = usize::try_from(offset - from).map_err(io::Error::other)?;
        Ok(Bytes::from(bytes).slice(start..start + length))
    }

    /// Whether these groups, all of them where there is no tree, are those of the payload.
    fn matches(&self, from: u64, groups: &[u8]) -> io::Result<bool> {
        match &self.tree {
            Some(tree) => tree::matches(self.hash, self.size, tree, from, groups),
            None => Ok(ContentHash::of(groups) == self.hash),
        }
    }

    fn damaged(&self) -> ReadFault {
        if let Some(shared) = self.shared.upgrade() {
            shared.note_damage(self.hash, Evidence::File(Arc::clone(&self.file)));
        }
        ReadFault::Damaged
    }
}

/// Whether that error says that the bytes of a file are not what was written: it is shorter, or the disk cannot read them.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
        || rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::IO)
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

/// Opens a payload; `None`: it is not here, or what is here is not it.
pub(super) fn open(shared: &Arc<Shared>, hash: ContentHash) -> Result<Option<PayloadReader>, StoreFault> {
    open_as_of(shared, None, hash)
}

/// The same, looked for first as of an earlier moment.
pub(super) fn open_as_of(
    shared: &Arc<Shared>,
    mut moment: Option<ReadTransaction>,
    hash: ContentHash,
) -> Result<Option<PayloadReader>, StoreFault> {
    if shared.damages.is_noted(hash) {
        return Ok(None);
    }
    if moment.is_none()
        && let Some(bytes) = shared.fresh.payload(hash)
    {
        return Ok(small(shared, hash, bytes));
    }
    for _ in 0..LOOKS {
        let moment = moment.take();
        let size = match reading(|| look(&moment.map_or_else(|| shared.database.begin_read(), Ok)?, hash))? {
            None => return Ok(None),
            Some(Row::Inline(bytes)) => return Ok(small(shared, hash, bytes)),
            Some(Row::File(size)) => size,
        };
        let opened = match File::open(shared.folder.payload(hash)) {
            Ok(file) if shared.verified.is_whole(hash) => Ok(Some(PayloadReader::File { file: Arc::new(file), size })),
            Ok(file) => FirstReading::of(shared, hash, size, Arc::new(file)).map(|reading| reading.map(PayloadReader::Unread)),
            // Collected between the look and the opening: look again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => Err(error),
        };
        return opened.map_err(|error| StoreFault(format!("the file of payload {hash}: {error}")));
    }
    shared.note_damage(hash, Evidence::NoFile);
    Ok(None)
}

/// A small payload, if it is what its name says.
pub(super) fn small(shared: &Shared, hash: ContentHash, bytes: Bytes) -> Option<PayloadReader> {
    if shared.damages.is_noted(hash) {
        return None;
    }
    if !shared.verified.is_whole(hash) {
        if ContentHash::of(&bytes) != hash {
            shared.note_damage(hash, Evidence::Inline);
            return None;
        }
        shared.verified.add(hash);
    }
    Some(PayloadReader::Inline(bytes))
}

enum Row {
    Inline(Bytes),
    File(u64),
}

fn look(transaction: &ReadTransaction, hash: ContentHash) -> Result<Option<Row>, Error> {
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
pub(super) fn encode(shared: &Arc<Shared>, hash: ContentHash, range: &Range<u64>, sink: impl Write) -> io::Result<bool> {
    let Some(payload) = open(shared, hash).map_err(io::Error::other)? else { return Ok(false) };
    let bounds = |offset: &u64| offset.is_multiple_of(GROUP as u64) || *offset == payload.size();
    if range.start > range.end || range.end > payload.size() || ![range.start, range.end].iter().all(bounds) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a range of groups of the payload"));
    }
    if range.is_empty() {
        return Ok(true);
    }
    let (file, size) = match payload {
        PayloadReader::Inline(bytes) => return encode_whole(&bytes, range, sink).map(|()| true),
        PayloadReader::File { file, size } => (file, size),
        PayloadReader::Unread(FirstReading { file, size, .. }) => (file, size),
    };
    if size > TREELESS_MAX as u64 {
        return encode_file(shared, hash, (&file, size), range, sink).map(|()| true);
    }
    let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    let read = FileExt::read_exact_at(&*file, &mut bytes, 0);
    let is_right = read.is_ok() && ContentHash::of(&bytes) == hash;
    if !is_right && read.as_ref().err().is_none_or(is_damage) {
        shared.note_damage(hash, Evidence::File(file));
        return Err(io::Error::new(io::ErrorKind::InvalidData, ReadFault::Damaged));
    }
    read?;
    encode_whole(&bytes, range, sink).map(|()| true)
}

/// Of bytes in memory, which are the payload's.
fn encode_whole(bytes: &[u8], range: &Range<u64>, sink: impl Write) -> io::Result<()> {
    let outboard = PostOrderMemOutboard::create(bytes, BLOCK);
    Ok(encode_ranges_validated(bytes, outboard, &chunks(range), sink)?)
}

/// Of a file and the tree beside it, group by group.
fn encode_file(
    shared: &Arc<Shared>,
    hash: ContentHash,
    (file, size): (&Arc<File>, u64),
    range: &Range<u64>,
    sink: impl Write,
) -> io::Result<()> {
    // Faults of the files tell of damage, those of the sink of a reader that is gone.
    let mut sink = Sink { inner: sink, failed: false };
    let data = File::open(shared.folder.outboard(hash))?;
    let outboard = PostOrderOutboard { root: hash.0.into(), tree: BaoTree::new(size, BLOCK), data: Positioned(&data) };
    let encoded = encode_ranges_validated(Positioned(file), outboard, &chunks(range), &mut sink).map_err(io::Error::from);
    if let Err(error) = &encoded
        && !sink.failed
        && is_damage(error)
    {
        shared.note_damage(hash, Evidence::File(Arc::clone(file)));
    }
    encoded
}

/// Where encoded bytes go; whether that failed.
struct Sink<W> {
    inner: W,
    failed: bool,
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes).inspect_err(|_| self.failed = true)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush().inspect_err(|_| self.failed = true)
    }
}

/// A borrowed file, read and written at positions.
pub(super) struct Positioned<'a>(pub(super) &'a File);

impl ReadAt for Positioned<'_> {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self.0, buffer, position)
    }
}

impl bao_tree::io::sync::WriteAt for Positioned<'_> {
    fn write_at(&mut self, position: u64, bytes: &[u8]) -> io::Result<usize> {
        FileExt::write_at(self.0, bytes, position)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use gossip_cdn_protocol::{Record, Store as _};

    use super::super::DamageCounts;
    use super::super::fixture::{Fixture, blob, content, noise, write};
    use super::super::folder::Folder;
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
        for groups in [10, 70] {
            let bytes = noise(groups * GROUP, 1);
            let (fixture, hash) = with_payload(&bytes).await;
            let file = std::fs::OpenOptions::new().write(true).open(fixture.store.shared.folder.payload(hash)).unwrap();
            file.write_all_at(b"damaged", 5 * GROUP as u64).unwrap();
            let mut sent = Vec::new();
            let error = fixture.store.encode(hash, 0..bytes.len() as u64, &mut sent).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(sent.len() < 6 * GROUP && !sent.windows(7).any(|window| window == b"damaged"));
            assert!(fixture.store.payload(hash).unwrap().is_none(), "it counts as missing at once");
        }
    }

    /// A store with a payload and its record, started anew once `spoil` had its folder.
    async fn restarted(bytes: &[u8], spoil: impl FnOnce(&Fixture)) -> (Fixture, ContentHash) {
        let (fixture, hash) = with_payload(bytes).await;
        let record = fixture.store.blob(blob(1)).unwrap().unwrap();
        assert!(matches!(fixture.store.payload(hash).unwrap(), Some(PayloadReader::File { .. } | PayloadReader::Inline(_))));
        fixture.persist(&[(blob(2), &record)]).await;
        fixture.fill_tables().await;
        spoil(&fixture);
        (fixture.reopened(), hash)
    }

    fn flip(path: &std::path::Path, offset: u64) {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        FileExt::read_exact_at(&file, &mut byte, offset).unwrap();
        FileExt::write_all_at(&file, &[byte[0] ^ 1], offset).unwrap();
    }

    fn first_reading(fixture: &Fixture, hash: ContentHash) -> FirstReading {
        match fixture.store.payload(hash).unwrap() {
            Some(PayloadReader::Unread(reading)) => reading,
            other => panic!("not to be read first but {other:?}"),
        }
    }

    async fn assert_missing(fixture: &Fixture, hash: ContentHash) {
        assert!(fixture.store.payload(hash).unwrap().is_none() && !fixture.store.holds(hash).unwrap(), "it counts as missing at once");
        fixture.settle().await;
        assert!(fixture.store.payload(hash).unwrap().is_none() && !fixture.store.holds(hash).unwrap());
        assert_eq!(fixture.store.missing(None, 9).unwrap().iter().map(|missing| missing.hash).collect::<Vec<_>>(), [hash]);
        assert_eq!((fixture.store.usage().damaged, fixture.store.usage().payload_bytes), (1, 0));
        assert_eq!(fixture.store.damage(), DamageCounts { payloads: 1, ..DamageCounts::default() });
    }

    #[tokio::test]
    async fn what_was_not_read_since_the_start_is_checked_once() {
        let bytes = noise(70 * GROUP + 5, 1);
        let (fixture, hash) = restarted(&bytes, |_| ()).await;
        let first = first_reading(&fixture, hash);
        for range in [0..1, GROUP - 1..GROUP + 1, 5 * GROUP + 3..7 * GROUP, 70 * GROUP..70 * GROUP + 5] {
            assert_eq!(first.read(range.start as u64, range.len()).unwrap(), bytes[range]);
        }
        for (start, length) in [(0, 0), (0, bytes.len() + 1), (u64::MAX, 1)] {
            assert!(matches!(first.read(start, length), Err(ReadFault::Local(_))));
        }
        // What is on the disk changes behind our back: groups that were read before are not checked again.
        flip(&fixture.store.shared.folder.payload(hash), 6 * GROUP as u64);
        assert!(first_reading(&fixture, hash).read(6 * GROUP as u64, 1).is_ok());
        flip(&fixture.store.shared.folder.payload(hash), 6 * GROUP as u64);
        assert_eq!(first_reading(&fixture, hash).read(0, bytes.len()).unwrap(), bytes);
        assert!(matches!(fixture.store.payload(hash).unwrap(), Some(PayloadReader::File { .. })), "now all of it was read");
        let fixture = fixture.reopened();
        assert!(matches!(fixture.store.payload(hash).unwrap(), Some(PayloadReader::Unread(_))), "since that start");
    }

    #[tokio::test]
    async fn of_a_damaged_copy_no_bad_group_is_read_and_only_that_is_fetched_again() {
        let bytes = noise(70 * GROUP, 1);
        let (holder, _) = with_payload(&bytes).await;
        let spoil = |fixture: &Fixture| flip(&fixture.store.shared.folder.payload(ContentHash::of(&bytes)), 5 * GROUP as u64 + 7);
        let (fixture, hash) = restarted(&bytes, spoil).await;
        let first = first_reading(&fixture, hash);
        assert_eq!(first.read(0, 5 * GROUP).unwrap(), bytes[..5 * GROUP]);
        assert!(matches!(first.read(4 * GROUP as u64, 2 * GROUP), Err(ReadFault::Damaged)));
        assert_missing(&fixture, hash).await;
        assert!(fixture.files("payloads").is_empty());
        // Also in the next life.
        let fixture = fixture.reopened();
        assert_eq!(fixture.store.usage().damaged, 1);
        let incoming = fixture.store.incoming(hash, bytes.len() as u64).unwrap();
        let super::super::Next::Part(part) = incoming.next().await else { panic!("a group is missing") };
        assert_eq!(part.range(), 5 * GROUP as u64..6 * GROUP as u64);
        let mut encoded = Vec::new();
        assert!(holder.store.encode(hash, part.range(), &mut encoded).unwrap());
        part.receive(&encoded[..]).unwrap();
        drop(part);
        incoming.finish().await.unwrap();
        assert!(matches!(fixture.store.payload(hash).unwrap(), Some(PayloadReader::File { .. })), "what arrived was checked");
        assert!(fixture.bytes(hash) == Some(bytes));
        assert_eq!((fixture.store.usage().damaged, fixture.store.damage().replaced), (0, 1));
        assert_eq!(fixture.store.missing(None, 9).unwrap(), []);
    }

    #[tokio::test]
    async fn a_copy_whose_files_are_gone_or_cut_is_missing() {
        let spoils: [fn(&Folder, ContentHash, u64); 4] = [
            |folder, hash, _| std::fs::remove_file(folder.payload(hash)).unwrap(),
            |folder, hash, size| File::options().write(true).open(folder.payload(hash)).unwrap().set_len(size - 1).unwrap(),
            |folder, hash, size| File::options().write(true).open(folder.payload(hash)).unwrap().set_len(size + 1).unwrap(),
            |folder, hash, _| std::fs::remove_file(folder.outboard(hash)).unwrap(),
        ];
        for (size, spoils) in [(100_000, &spoils[..3]), (TREELESS_MAX, &spoils[..3]), (TREELESS_MAX + 1, &spoils)] {
            let bytes = noise(size, 1);
            for spoil in spoils {
                let hash = ContentHash::of(&bytes);
                let (fixture, hash) = restarted(&bytes, |fixture| spoil(&fixture.store.shared.folder, hash, size as u64)).await;
                assert!(fixture.store.payload(hash).unwrap().is_none());
                assert_missing(&fixture, hash).await;
            }
        }
        let bytes = noise(70 * GROUP, 1);
        let hash = ContentHash::of(&bytes);
        for offset in [0, 64, 5 * 64] {
            let (fixture, hash) = restarted(&bytes, |fixture| flip(&fixture.store.shared.folder.outboard(hash), offset)).await;
            assert!(
                matches!(first_reading(&fixture, hash).read(0, bytes.len()), Err(ReadFault::Damaged)),
                "without its tree nothing is sure"
            );
            assert_missing(&fixture, hash).await;
        }
    }

    #[tokio::test]
    async fn a_file_without_a_tree_is_checked_whole_when_any_of_it_is_read_first() {
        let bytes = noise(10 * GROUP + 5, 1);
        let (fixture, hash) = restarted(&bytes, |_| ()).await;
        assert_eq!(first_reading(&fixture, hash).read(7 * GROUP as u64 + 3, 10).unwrap(), bytes[7 * GROUP + 3..7 * GROUP + 13]);
        assert!(matches!(fixture.store.payload(hash).unwrap(), Some(PayloadReader::File { .. })), "all of it was read");
        for offset in [0, 7 * GROUP as u64, 10 * GROUP as u64 + 4] {
            let (fixture, hash) = restarted(&bytes, |fixture| flip(&fixture.store.shared.folder.payload(hash), offset)).await;
            assert!(matches!(first_reading(&fixture, hash).read(5 * GROUP as u64, 1), Err(ReadFault::Damaged)));
            assert_missing(&fixture, hash).await;
        }
    }

    #[tokio::test]
    async fn a_tree_that_an_earlier_release_put_beside_a_short_file_is_not_asked_and_goes_with_it() {
        let bytes = noise(100_000, 1);
        let spoil = |fixture: &Fixture| std::fs::write(fixture.store.shared.folder.outboard(ContentHash::of(&bytes)), b"any").unwrap();
        let (fixture, hash) = restarted(&bytes, spoil).await;
        assert!(fixture.bytes(hash).as_ref() == Some(&bytes));
        for n in 1..3 {
            let deleted = write(&fixture.store.blob(blob(n)).unwrap().unwrap(), 1, 9, gossip_cdn_protocol::Content::Tombstone);
            fixture.persist(&[(blob(n), &deleted)]).await;
        }
        fixture.settle().await;
        assert!(fixture.files("payloads").is_empty());
    }

    #[tokio::test]
    async fn a_small_payload_that_is_not_what_its_name_says_is_missing_until_a_peer_has_it() {
        let bytes = noise(500, 1);
        let hash = ContentHash::of(&bytes);
        let spoil = |fixture: &Fixture| {
            let transaction = fixture.store.shared.database.begin_write().unwrap();
            let mut wrong = bytes.clone();
            wrong[77] ^= 1;
            transaction.open_table(tables::INLINE).unwrap().insert(&hash.0, &wrong[..]).unwrap();
            transaction.commit().unwrap();
        };
        let (fixture, _) = restarted(&bytes, spoil).await;
        assert!(fixture.store.holds(hash).unwrap(), "nobody read it yet");
        let mut sent = Vec::new();
        assert!(!fixture.store.encode(hash, 0..500, &mut sent).unwrap() && sent.is_empty());
        assert_missing(&fixture, hash).await;
        fixture.store.put_verified(hash, bytes.clone().into()).await.unwrap();
        assert_eq!(fixture.bytes(hash), Some(bytes.clone()));
        assert_eq!((fixture.store.usage().damaged, fixture.store.damage().replaced), (0, 1));
        // A client that brings the same bytes brings a good copy, too.
        let (fixture, _) = restarted(&bytes, spoil).await;
        let stored = fixture.upload(&bytes).await;
        fixture.persist(&[(blob(3), &write(&Record::default(), 1, 9, content(&bytes, None)))]).await;
        drop(stored);
        assert_eq!(fixture.reopened().bytes(hash), Some(bytes));
    }

    #[tokio::test]
    async fn a_good_copy_that_takes_the_place_of_a_damaged_one_stays() {
        let bytes = noise(100_000, 1);
        let hash = ContentHash::of(&bytes);
        let (fixture, _) = restarted(&bytes, |fixture| flip(&fixture.store.shared.folder.payload(hash), 7)).await;
        let first = first_reading(&fixture, hash);
        // The same bytes come from a client before the damage is found; what is found is the file that was.
        let stored = fixture.upload(&bytes).await;
        assert!(matches!(first.read(0, 1), Err(ReadFault::Damaged)));
        fixture.settle().await;
        assert!(fixture.bytes(hash).as_ref() == Some(&bytes) && fixture.store.usage().damaged == 0);
        drop(stored);
        // While somebody brings them, nothing is unlinked.
        let (fixture, _) = restarted(&bytes, |fixture| flip(&fixture.store.shared.folder.payload(hash), 7)).await;
        let pin = super::super::Pin::new(&fixture.store.shared, hash);
        assert!(matches!(first_reading(&fixture, hash).read(0, 1), Err(ReadFault::Damaged)));
        assert_missing(&fixture, hash).await;
        assert_eq!(fixture.files("payloads").len(), 1);
        drop(fixture.upload(&bytes).await);
        drop(pin);
        fixture.settle().await;
        assert!(fixture.bytes(hash) == Some(bytes));
    }
}
