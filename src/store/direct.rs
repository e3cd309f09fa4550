//! Writing around the page cache.
//!
//! What is written once and read by nobody before it is on disk gains nothing from a copy in the system's memory: the copy has to be found room for,
//! and the bookkeeping of its dirty pages stands between the write and the disk.
//!
//! 1. What a file holds afterwards does not depend on whether that works: where the file system does not take such writes, they go through the
//!    cache.
//! 2. Nothing is durable before the file is synchronised.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::faults::{Faults, Operation};

/// What the address, the offset and the length of such a write are multiples of: a page, enough for every device.
pub(super) const ALIGNMENT: usize = 4096;

/// Bytes that begin at a multiple of [`ALIGNMENT`] in memory, of a capacity that does not change.
#[derive(Debug)]
pub(super) struct Block {
    memory: Vec<u8>,
    /// Where they begin.
    start: usize,
    capacity: usize,
}

impl Block {
    /// Without a byte. Memory is touched only as bytes come.
    pub(super) fn new(capacity: usize) -> Self {
        let mut memory = Vec::<u8>::with_capacity(capacity + ALIGNMENT);
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        memory.resize(start, 0);
        Self { memory, start, capacity }
    }

    /// Takes as many bytes as there is room for; gives the rest.
    pub(super) fn fill<'bytes>(&mut self, bytes: &'bytes [u8]) -> &'bytes [u8] {
        let (head, rest) = bytes.split_at(bytes.len().min(self.capacity - self.bytes().len()));
        self.memory.extend_from_slice(head);
        rest
    }

    pub(super) fn clear(&mut self) {
        self.memory.truncate(self.start);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..).unwrap_or_default()
    }
}

/// A file that is written from its beginning to its end.
pub(super) struct Appended {
    file: Arc<File>,
    length: u64,
    faults: Faults,
    /// Whether writes go around the cache at present.
    is_direct: bool,
}

impl Appended {
    /// Of an empty file.
    pub(super) fn new(file: Arc<File>, faults: Faults) -> Self {
        let is_direct = set_direct(&file, true).is_ok();
        Self { file, length: 0, faults, is_direct }
    }

    /// Appends these bytes: around the cache, until some that are not whole pages were appended.
    pub(super) fn append(&mut self, block: &Block) -> io::Result<()> {
        let (pages, rest) = block.bytes().split_at(block.bytes().len() / ALIGNMENT * ALIGNMENT);
        self.write(pages)?;
        if !rest.is_empty() {
            self.go_through_the_cache()?;
            self.write(rest)?;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.faults.strike(&self.file, Operation::Write(self.length, bytes))?;
        match self.file.write_all_at(bytes, self.length) {
            // The file opens for such writes, and does not take them.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput && self.is_direct => {
                self.go_through_the_cache()?;
                self.file.write_all_at(bytes, self.length)?;
            }
            written => written?,
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn go_through_the_cache(&mut self) -> io::Result<()> {
        if self.is_direct {
            set_direct(&self.file, false)?;
            self.is_direct = false;
        }
        Ok(())
    }
}

/// Whether writes of an open file go around the cache.
#[cfg(target_os = "linux")]
fn set_direct(file: &File, is_direct: bool) -> io::Result<()> {
    let mut flags = rustix::fs::fcntl_getfl(file)?;
    flags.set(rustix::fs::OFlags::DIRECT, is_direct);
    Ok(rustix::fs::fcntl_setfl(file, flags)?)
}

#[cfg(not(target_os = "linux"))]
fn set_direct(_: &File, is_direct: bool) -> io::Result<()> {
    if is_direct { Err(io::ErrorKind::Unsupported.into()) } else { Ok(()) }
}

/// Opens a file for writes that go around the cache and are durable when they return; `None` where that does not work.
#[cfg(target_os = "linux")]
pub(super) fn open_synchronous(path: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = rustix::fs::OFlags::DIRECT | rustix::fs::OFlags::DSYNC;
    File::options().write(true).custom_flags(flags.bits().cast_signed()).open(path).ok()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn open_synchronous(_: &Path) -> Option<File> {
    None
}

#[cfg(test)]
mod tests {
    use super::super::fixture::noise;
    use super::*;

    #[test]
    fn a_block_takes_what_it_has_room_for_and_stays_where_it_is() {
        let mut block = Block::new(10_000);
        for round in 0..3_u8 {
            let bytes = noise(10_007, round);
            let (head, tail) = bytes.split_at(4000);
            assert!(block.fill(head).is_empty());
            assert_eq!(block.fill(tail), &bytes[10_000..]);
            assert!(block.bytes() == &bytes[..10_000]);
            assert_eq!(block.bytes().as_ptr().align_offset(ALIGNMENT), 0);
            block.clear();
        }
    }

    /// Where tests keep their folders, and where nothing can go around the cache on many systems.
    #[test]
    fn a_file_holds_what_was_appended_whatever_the_way() {
        let folders = [std::env::temp_dir(), "/dev/shm".into()];
        for folder in folders.into_iter().filter(|folder| folder.is_dir()) {
            for pieces in
                [&[1][..], &[ALIGNMENT], &[3 * ALIGNMENT, 2 * ALIGNMENT + 5], &[2 * ALIGNMENT, 0, 4 * ALIGNMENT, 1], &[5, ALIGNMENT, 7]]
            {
                let file = tempfile::NamedTempFile::new_in(&folder).unwrap();
                let mut appended = Appended::new(Arc::new(file.reopen().unwrap()), Faults::default());
                let mut expected = Vec::new();
                for (n, length) in (0..).zip(pieces) {
                    let mut block = Block::new(8 * ALIGNMENT);
                    block.fill(&noise(*length, n));
                    appended.append(&block).unwrap();
                    expected.extend_from_slice(block.bytes());
                }
                assert!(std::fs::read(file.path()).unwrap() == expected, "{pieces:?}");
            }
        }
    }
}
