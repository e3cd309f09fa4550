//! A file that can be read, and above it, in memory, what would have been written to it.
//!
//! An opening of the database writes a little: it says that it is open, and keeps books. On a disk that takes nothing this goes nowhere, and is
//! not needed anywhere.
//!
//! 1. The file below is not changed.
//! 2. Once closed, it is not read either.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError, RwLock};

use redb::StorageBackend;

use super::lock;

/// Bytes of what is kept in one piece.
const PAGE: usize = 4096;

#[derive(Debug)]
pub(super) struct Overlay {
    below: RwLock<Option<File>>,
    above: Mutex<Above>,
}

#[derive(Debug)]
struct Above {
    length: u64,
    /// Pages that were written to, by their number.
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    /// Above the file as it is.
    pub(super) fn of(file: File) -> io::Result<Self> {
        let above = Above { length: file.metadata()?.len(), pages: BTreeMap::new() };
        Ok(Self { below: RwLock::new(Some(file)), above: Mutex::new(above) })
    }

    /// Reads the file; behind its end are zeros.
    fn read_below(&self, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        let file = self.below.read().unwrap_or_else(PoisonError::into_inner);
        let file = file.as_ref().ok_or_else(|| io::Error::other("the database is closed"))?;
        while !out.is_empty() {
            let count = file.read_at(out, offset)?;
            if count == 0 {
                out.fill(0);
                return Ok(());
            }
            out = out.split_at_mut(count).1;
            offset += count as u64;
        }
        Ok(())
    }
}

/// The pages that `length` bytes from `offset` on touch: of each its number, the first byte in it, and the first and last byte of the range.
fn touched(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let here = offset + at as u64;
        let within = usize::try_from(here % PAGE as u64).ok()?;
        let count = (PAGE - within).min(length - at);
        let range = at..at + count;
        at += count;
        (count > 0).then_some((here / PAGE as u64, within, range))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.above).length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() as u64 > lock(&self.above).length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_below(offset, out)?;
        let above = lock(&self.above);
        for (number, within, range) in touched(offset, out.len()) {
            let page = above.pages.get(&number).and_then(|page| page.get(within..within + range.len()));
            if let (Some(page), Some(out)) = (page, out.get_mut(range)) {
                out.copy_from_slice(page);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        lock(&self.above).length = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut above = lock(&self.above);
        for (number, within, range) in touched(offset, data.len()) {
            let page = match above.pages.entry(number) {
                Entry::Occupied(page) => page.into_mut(),
                Entry::Vacant(place) => {
                    let mut page = vec![0; PAGE];
                    self.read_below(number * PAGE as u64, &mut page)?;
                    place.insert(page)
                }
            };
            if let (Some(page), Some(data)) = (page.get_mut(within..within + range.len()), data.get(range)) {
                page.copy_from_slice(data);
            }
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        *self.below.write().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn it_reads_as_a_file_that_was_written_and_the_file_below_stays(
            below in prop::collection::vec(any::<u8>(), 0..3 * PAGE),
            writes in prop::collection::vec((0..4 * PAGE, prop::collection::vec(any::<u8>(), 1..2 * PAGE)), 0..6),
        ) {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(&below).unwrap();
            let overlay = Overlay::of(File::open(file.path()).unwrap()).unwrap();
            let mut expected = below.clone();
            for (offset, data) in writes {
                expected.resize(expected.len().max(offset + data.len()), 0);
                expected[offset..offset + data.len()].copy_from_slice(&data);
                overlay.set_len(expected.len() as u64).unwrap();
                overlay.write(offset as u64, &data).unwrap();
            }
            let mut found = vec![1; expected.len()];
            overlay.read(0, &mut found).unwrap();
            prop_assert!(found == expected);
            let middle = expected.len() / 2;
            let mut found = vec![1; expected.len() - middle];
            overlay.read(middle as u64, &mut found).unwrap();
            prop_assert!(found == expected[middle..]);
            prop_assert!(overlay.read(1, &mut vec![0; expected.len()]).is_err(), "there is nothing behind the end");
            prop_assert!(std::fs::read(file.path()).unwrap() == below);
            overlay.close().unwrap();
            prop_assert!(expected.is_empty() || overlay.read(0, &mut [0]).is_err());
        }
    }
}
