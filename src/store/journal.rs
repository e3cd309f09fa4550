//! The journal: what is durable and not in the database yet, in a file that a record is appended to with one synchronous write.
//!
//! ```text
//! record   sequence (8), length of the body (4), checksum (16), the body, zeros to the end of the block
//! ```
//!
//! Integers are big-endian. The checksum is BLAKE3 over sequence and body, keyed with a key that only the database of this folder knows: no
//! bytes that somebody else had stored can pass for a record.
//!
//! 1. A record that was appended is on disk. The file has its size, written with zeros, before the first: an append changes no metadata.
//! 2. What was appended is written over only when the database has it durably ([`Journal::restart`], [`Journal::release`]): a record begins a block of its own.
//! 3. What is read at a start is a prefix of what was appended, and everything whose appending was reported. A record that is cut or damaged is the
//!    last one, which was reported to nobody; one behind which another follows was whole once, and is an error.
//! 4. The file is bounded. What does not fit is refused, and goes into the database. Appending goes on in one half of it while the database takes
//!    what the other has.
//! 5. A record goes around the page cache, if the file system can do that: nobody reads it before the next start, and neither a copy of it nor
//!    the bookkeeping of dirty pages stands between the write and the disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::direct;
use super::faults::{Faults, Operation};

/// Bytes of a block: a page of memory, which the system writes whole.
const BLOCK: usize = direct::ALIGNMENT;
/// Bytes before the body of a record.
const HEAD: usize = 28;
/// Bytes of half of the file.
pub(super) const HALF: usize = 8 << 20;
/// Bytes of the file.
pub(super) const CAPACITY: usize = 2 * HALF;

/// The journal of a folder, open for appending.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    /// The same file, written around the page cache and synchronously; `None` where that does not work.
    direct: Option<File>,
    key: [u8; 32],
    /// Of the next record.
    sequence: u64,
    /// Where it goes; a multiple of [`BLOCK`].
    offset: usize,
    /// Where the half begins that it goes into.
    start: usize,
    /// The first sequence of that half.
    turned: u64,
    /// The first sequence that the database does not have.
    first: u64,
    /// Whether the file has its size.
    is_sized: bool,
    capacity: usize,
    /// The record being written, from a multiple of [`BLOCK`] on, as direct writes want it; kept for its memory.
    record: Vec<u8>,
    faults: Faults,
}

impl Journal {
    /// Opens the file, making it if it does not exist, and reads the bodies of its records from that sequence on. What is found is to be in
    /// the database before [`Self::restart`], and that before anything is appended.
    pub(super) fn open(path: &Path, key: [u8; 32], sequence: u64, capacity: usize, faults: Faults) -> io::Result<(Self, Vec<Vec<u8>>)> {
        // For its owner only, as the database.
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (direct, is_sized) = (direct::open_synchronous(path), bytes.len() >= capacity);
        let (start, record) = (0, Vec::new());
        let (turned, first) = (sequence, sequence);
        let mut journal = Self { file, direct, key, sequence, offset: 0, start, turned, first, is_sized, capacity, record, faults };
        let bodies = journal.chain(&bytes, sequence);
        journal.sequence += bodies.len() as u64;
        journal.expect_nothing_behind(&bytes)?;
        Ok((journal, bodies))
    }

    /// The bodies of the records from that sequence on. Behind one follows the next, or the beginning of the other half.
    fn chain(&self, bytes: &[u8], from: u64) -> Vec<Vec<u8>> {
        let (mut bodies, mut offset, mut sequence) = (Vec::new(), 0, from);
        loop {
            let places = [offset, 0, self.half()];
            let found = places.into_iter().find_map(|place| Some((place, self.body_at(bytes, place, sequence..=sequence)?)));
            let Some((place, body)) = found else { return bodies };
            bodies.push(body.to_vec());
            offset = place + blocks(body.len());
            sequence += 1;
        }
    }

    fn half(&self) -> usize {
        self.capacity / 2
    }

    /// The body of a whole record of one of these sequences that begins there.
    fn body_at<'bytes>(&self, bytes: &'bytes [u8], offset: usize, sequences: std::ops::RangeInclusive<u64>) -> Option<&'bytes [u8]> {
        let (sequence, rest) = bytes.get(offset..)?.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (checksum, rest) = rest.split_first_chunk::<16>()?;
        let sequence = u64::from_be_bytes(*sequence);
        let body = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        (sequences.contains(&sequence) && self.checksum(sequence, body) == *checksum).then_some(body)
    }

    fn checksum(&self, sequence: u64, body: &[u8]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&sequence.to_be_bytes()).update(body);
        let mut half = [0; 16];
        hasher.finalize_xof().fill(&mut half);
        half
    }

    /// A record is appended when all before it are on disk, so behind one that was cut there is none. One in its place that is later means that
    /// the database is older than its journal: it was put back without it.
    fn expect_nothing_behind(&self, bytes: &[u8]) -> io::Result<()> {
        let later = self.sequence + 1..=u64::MAX;
        let damaged = (0..bytes.len()).step_by(BLOCK).any(|offset| self.body_at(bytes, offset, later.clone()).is_some());
        if damaged {
            Err(io::Error::new(io::ErrorKind::InvalidData, "a record of the journal is damaged, or the database is older than it"))
        } else {
            Ok(())
        }
    }

    /// Appends a record durably. False: there is no room for it, and nothing was written.
    pub(super) fn append(&mut self, body: &[u8]) -> io::Result<bool> {
        let Ok(length) = u32::try_from(body.len()) else { return Ok(false) };
        let size = blocks(body.len());
        if self.offset + size > self.start + self.half() {
            return Ok(false);
        }
        self.make_room()?;
        let checksum = self.checksum(self.sequence, body);
        self.record.clear();
        self.record.reserve(size + BLOCK);
        let start = self.record.as_ptr().align_offset(BLOCK).min(BLOCK);
        self.record.resize(start, 0);
        self.record.extend_from_slice(&self.sequence.to_be_bytes());
        self.record.extend_from_slice(&length.to_be_bytes());
        self.record.extend_from_slice(&checksum);
        self.record.extend_from_slice(body);
        self.record.resize(start + size, 0);
        self.write(start)?;
        self.offset += size;
        self.sequence += 1;
        Ok(true)
    }

    /// Writes the record, which begins there in its memory, and has it on disk.
    fn write(&mut self, start: usize) -> io::Result<()> {
        let (record, offset) = (self.record.get(start..).unwrap_or_default(), self.offset as u64);
        self.faults.strike(&self.file, Operation::Write(offset, record))?;
        if let Some(direct) = &self.direct {
            match direct.write_all_at(record, offset) {
                // It opens such files, and takes no writes of this kind.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.direct = None,
                written => return written.and_then(|()| self.faults.strike(&self.file, Operation::Sync)),
            }
        }
        self.file.write_all_at(record, offset)?;
        self.faults.strike(&self.file, Operation::Sync)?;
        self.file.sync_data()
    }

    /// Gives the file its size when it is needed first: a node that is told no message does not need it.
    fn make_room(&mut self) -> io::Result<()> {
        if !self.is_sized {
            let length = usize::try_from(self.file.metadata()?.len()).unwrap_or(self.capacity);
            let mut file = &self.file;
            io::Seek::seek(&mut file, io::SeekFrom::Start(length as u64))?;
            self.faults.strike(file, Operation::Resize)?;
            file.write_all(&vec![0; self.capacity - length])?;
            self.faults.strike(file, Operation::Sync)?;
            file.sync_all()?;
            self.is_sized = true;
        }
        Ok(())
    }

    /// The bodies of what was appended since the restart, with their sequences.
    pub(super) fn bodies(&self) -> io::Result<Vec<(u64, Vec<u8>)>> {
        let mut bytes = vec![0; usize::try_from(self.file.metadata()?.len()).unwrap_or(self.capacity)];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok((self.first..self.sequence).zip(self.chain(&bytes, self.first)).collect())
    }

    /// What follows goes into the other half. False: the database does not have all that is there yet.
    pub(super) fn turn(&mut self) -> bool {
        if self.first < self.turned {
            return false;
        }
        self.start = self.half() - self.start;
        (self.offset, self.turned) = (self.start, self.sequence);
        true
    }

    /// Everything before that sequence is durable elsewhere: its half may be written over.
    pub(super) fn release(&mut self, sequence: u64) {
        self.first = self.first.max(sequence);
    }

    /// Everything appended so far is durable elsewhere: what follows is written over it.
    pub(super) fn restart(&mut self) {
        (self.offset, self.start) = (0, 0);
        (self.turned, self.first) = (self.sequence, self.sequence);
    }

    /// The sequence of the next record: those before it are what is to be in the database for a restart.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Bytes that are taken of the half that is written.
    pub(super) fn taken(&self) -> usize {
        self.offset - self.start
    }

    /// Whether the database has everything.
    pub(super) fn is_empty(&self) -> bool {
        self.first == self.sequence
    }
}

/// The bytes of a record's blocks.
fn blocks(body: usize) -> usize {
    (HEAD + body).next_multiple_of(BLOCK)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 32] = [7; 32];
    const SMALL: usize = 16 * BLOCK;

    fn open(path: &Path, sequence: u64) -> (Journal, Vec<Vec<u8>>) {
        Journal::open(path, KEY, sequence, SMALL, Faults::default()).unwrap()
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        (folder, path)
    }

    /// Appends these, for all of which there is room.
    fn fill(journal: &mut Journal, bodies: &[&[u8]]) {
        for body in bodies {
            assert!(journal.append(body).unwrap());
        }
    }

    #[test]
    fn an_append_does_not_change_the_size_of_the_file() {
        let (_folder, path) = folder();
        let (mut journal, found) = open(&path, 1);
        assert!(found.is_empty() && path.metadata().unwrap().len() == 0);
        assert!(journal.append(b"first").unwrap() && journal.append(&[1; 5000]).unwrap());
        assert_eq!((path.metadata().unwrap().len(), journal.taken(), journal.sequence()), (SMALL as u64, 3 * BLOCK, 3));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_goes_around_the_cache_is_on_disk_when_the_write_returns() {
        let (_folder, path) = folder();
        let (mut journal, _) = open(&path, 1);
        assert!(journal.append(b"first").unwrap());
        // Where the file system has no such writes it is the sync behind them that does it.
        if let Some(direct) = &journal.direct {
            assert!(rustix::fs::fcntl_getfl(direct).unwrap().contains(rustix::fs::OFlags::DIRECT | rustix::fs::OFlags::DSYNC));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_leaves_nothing() {
        let (_folder, path) = folder();
        let (mut journal, _) = open(&path, 1);
        assert!(journal.append(&vec![1; SMALL / 2 - HEAD - BLOCK]).unwrap());
        assert!(!journal.append(&[2; BLOCK]).unwrap());
        assert!(journal.append(b"fits").unwrap() && !journal.append(b"full").unwrap());
        assert_eq!(open(&path, 1).1.last().unwrap(), b"fits");
    }

    #[test]
    fn what_is_in_the_database_is_not_read_again() {
        let (_folder, path) = folder();
        let (mut journal, _) = open(&path, 1);
        fill(&mut journal, &[b"1", b"2", b"3"]);
        journal.restart();
        assert!(open(&path, 4).1.is_empty(), "older ones are left behind it");
        assert!(journal.append(b"4").unwrap());
        assert_eq!(open(&path, 4).1, [b"4"]);
    }

    #[test]
    fn one_half_is_written_while_the_database_takes_the_other() {
        let (_folder, path) = folder();
        let (mut journal, _) = open(&path, 1);
        fill(&mut journal, &[b"1", b"2"]);
        assert!(journal.turn() && journal.taken() == 0);
        fill(&mut journal, &[b"3", &vec![4; SMALL / 2 - 3 * BLOCK]]);
        assert!(!journal.turn(), "the database does not have the first half yet");
        assert_eq!(open(&path, 1).1.len(), 4);
        journal.release(3);
        let sequences = |journal: &Journal| journal.bodies().unwrap().into_iter().map(|(sequence, _)| sequence).collect::<Vec<_>>();
        assert_eq!(sequences(&journal), [3, 4]);
        assert!(journal.turn());
        fill(&mut journal, &[b"5"]);
        assert_eq!((sequences(&journal), open(&path, 3).1.len()), (vec![3, 4, 5], 3));
        assert_eq!(Journal::open(&path, KEY, 1, SMALL, Faults::default()).unwrap_err().kind(), io::ErrorKind::InvalidData, "it is older");
        journal.restart();
        assert!(journal.is_empty() && open(&path, 6).1.is_empty());
    }

    #[test]
    fn a_record_of_another_key_is_none() {
        let (_folder, path) = folder();
        let (mut journal, _) = open(&path, 1);
        assert!(journal.append(b"whose?").unwrap());
        assert!(Journal::open(&path, [8; 32], 1, SMALL, Faults::default()).unwrap().1.is_empty());
    }

    #[test]
    fn damage_before_another_record_is_told() {
        let (_folder, path) = folder();
        let (mut journal, _) = open(&path, 1);
        fill(&mut journal, &[b"1", b"2", b"3"]);
        journal.file.write_all_at(b"x", (BLOCK + HEAD) as u64).unwrap();
        assert_eq!(Journal::open(&path, KEY, 1, SMALL, Faults::default()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_journal_that_is_newer_than_its_database_is_refused() {
        let (_folder, path) = folder();
        let (mut journal, _) = open(&path, 1);
        fill(&mut journal, &[b"1", b"2"]);
        journal.restart();
        fill(&mut journal, &[b"3"]);
        assert_eq!(open(&path, 3).1, [b"3"]);
        assert_eq!(Journal::open(&path, KEY, 2, SMALL, Faults::default()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        /// Appends, restarts, turns, and a crash in the middle of an append, of whose blocks any may be on disk.
        #[test]
        fn a_start_reads_what_was_reported_and_at_most_one_more(
            around in any::<bool>(),
            lives in prop::collection::vec((prop::collection::vec((0..9000usize, 0..6u8), 0..16), 0..9000usize, any::<u8>()), 1..4),
        ) {
            let (_folder, path) = folder();
            let (mut database, mut appended) = (1, Vec::new());
            for (steps, torn, landed) in lives {
                let (mut journal, found) = open(&path, database);
                journal.direct = journal.direct.filter(|_| around);
                prop_assert!(found == appended || found.split_last().is_some_and(|(_, before)| before == appended));
                database = journal.sequence();
                journal.restart();
                appended.clear();
                // What is before that the database is about to have.
                let mut settling = None;
                for (length, step) in steps {
                    let body = vec![journal.sequence().to_be_bytes()[7]; length];
                    if step == 0 && journal.turn() {
                        settling = Some(journal.sequence());
                    } else if step == 1 && let Some(until) = settling.take() {
                        journal.release(until);
                        appended.drain(..usize::try_from(until - database).unwrap());
                        database = until;
                    } else if step == 2 || !journal.append(&body).unwrap() {
                        database = journal.sequence();
                        journal.restart();
                        appended.clear();
                        settling = None;
                    } else {
                        appended.push(body);
                    }
                    prop_assert!(journal.bodies().unwrap().into_iter().map(|(_, body)| body).eq(appended.iter().cloned()));
                }
                // The last append: some of its blocks reach the disk, in any order.
                let before = std::fs::read(&path).unwrap();
                if journal.append(&vec![9; torn]).unwrap() {
                    let whole = journal.record[journal.record.len() - blocks(torn)..].to_vec();
                    let at = journal.offset - whole.len();
                    for (n, block) in whole.chunks(BLOCK).enumerate() {
                        let offset = at + n * BLOCK;
                        let old = before.get(offset..offset + block.len()).map_or_else(|| vec![0; block.len()], <[u8]>::to_vec);
                        let bytes = if landed >> n & 1 == 1 { block } else { &old };
                        journal.file.write_all_at(bytes, offset as u64).unwrap();
                    }
                }
            }
            let (_, found) = open(&path, database);
            prop_assert!(found == appended || found.split_last().is_some_and(|(_, before)| before == appended));
        }
    }
}
