//! Hashes a payload of unknown length in one pass, writing its outboard on the way.
//!
//! The outboard is that of bao-tree (groups of 16 KiB, post order, no length): the pair of child hashes of each parent, a parent
//! behind its children. bao-tree makes it from a finished file only, which would read every upload twice. The merging is that of the
//! BLAKE3 paper (O'Connor, Aumasson, Neves, Wilcox-O'Hearn, section 5.1.2): a subtree is merged when it is complete and known not
//! to be the root, so the stack holds one hash per set bit of the number of groups.
//!
//! [`verified`] is the way back: it finds out which groups of a payload that is not all here match the hash. What it needs of the
//! outboard is only the pairs above those groups, so the outboard says where to look, and the hash what is right: no list of what is here
//! has to be kept beside, none can be ahead of the bytes or behind them. [`matches`] asks the same of bytes in memory, that are to be sent.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use bao_tree::BlockSize;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use gossip_cdn_protocol::ContentHash;

/// The groups that are verified as a whole: 2^4 chunks of 1 KiB.
pub(super) const BLOCK: BlockSize = BlockSize::from_chunk_log(4);
/// Their length in bytes.
pub(super) const GROUP: usize = 16 << 10;

/// The longest payload whose file has no tree beside it: to hash all of it where one is wanted takes less than a second file at every upload.
pub(super) const TREELESS_MAX: usize = 1 << 20;

/// A BLAKE3 hasher that keeps the tree.
pub(super) struct TreeHasher<W> {
    outboard: W,
    /// The last group, which may turn out to be the whole payload; at most [`GROUP`] bytes.
    last: Vec<u8>,
    /// Groups hashed so far.
    groups: u64,
    /// The subtrees that wait for their right siblings; at most 64.
    stack: Vec<ChainingValue>,
}

impl<W: Write> TreeHasher<W> {
    /// Hashes into `outboard`, which should be buffered.
    pub(super) fn new(outboard: W) -> Self {
        Self { outboard, last: Vec::with_capacity(GROUP), groups: 0, stack: Vec::new() }
    }

    /// Takes the next bytes.
    pub(super) fn update(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.last.len() == GROUP {
                let mut last = std::mem::take(&mut self.last);
                self.group(&last)?;
                last.clear();
                self.last = last;
            }
            if self.last.is_empty() && bytes.len() > GROUP {
                let (group, rest) = bytes.split_at(GROUP);
                self.group(group)?;
                bytes = rest;
                continue;
            }
            let (head, rest) = bytes.split_at(bytes.len().min(GROUP - self.last.len()));
            self.last.extend_from_slice(head);
            bytes = rest;
        }
        Ok(())
    }

    /// The hash of everything, and the finished outboard.
    pub(super) fn finish(mut self) -> io::Result<(ContentHash, W)> {
        if self.groups == 0 {
            return Ok((ContentHash::of(&self.last), self.outboard));
        }
        let last = std::mem::take(&mut self.last);
        self.group(&last)?;
        loop {
            let (left, right) = self.pair()?;
            if self.stack.is_empty() {
                let root = merge_subtrees_root(&left, &right, Mode::Hash);
                return Ok((ContentHash(*root.as_bytes()), self.outboard));
            }
            self.stack.push(merge_subtrees_non_root(&left, &right, Mode::Hash));
        }
    }

    fn group(&mut self, bytes: &[u8]) -> io::Result<()> {
        let complete = usize::try_from(self.groups.count_ones()).unwrap_or(usize::MAX);
        while self.stack.len() > complete {
            let (left, right) = self.pair()?;
            self.stack.push(merge_subtrees_non_root(&left, &right, Mode::Hash));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(self.groups * GROUP as u64).update(bytes);
        self.stack.push(hasher.finalize_non_root());
        self.groups += 1;
        Ok(())
    }

    /// Takes the two rightmost subtrees and writes their hashes down.
    fn pair(&mut self) -> io::Result<(ChainingValue, ChainingValue)> {
        let (Some(right), Some(left)) = (self.stack.pop(), self.stack.pop()) else { unreachable!("a merge needs two subtrees") };
        self.outboard.write_all(&left)?;
        self.outboard.write_all(&right)?;
        Ok((left, right))
    }
}

/// Which parts of a file are those of the payload with that hash and size, in order, by an outboard of which any part may be missing.
///
/// Reads little else: a subtree whose pair is not right is not entered.
pub(super) fn verified(hash: ContentHash, size: u64, data: &File, outboard: &File) -> io::Result<Vec<Range<u64>>> {
    let mut walk = Walk { size, data, outboard, group: vec![0; GROUP], found: Vec::new() };
    if size > 0 {
        walk.subtree(Subtree { first: 0, groups: size.div_ceil(GROUP as u64), parents_before: 0 }, hash.0, true)?;
    }
    Ok(walk.found)
}

/// Whether these bytes are those of the payload with that hash and size from `start` on, which is where a group begins; they end where
/// one ends. Every group and every pair above it is checked.
pub(super) fn matches(hash: ContentHash, size: u64, outboard: &File, start: u64, bytes: &[u8]) -> io::Result<bool> {
    if size == 0 {
        return Ok(bytes.is_empty() && hash == ContentHash::of(&[]));
    }
    let look = Look { first: start / GROUP as u64, bytes, outboard };
    look.subtree(Subtree { first: 0, groups: size.div_ceil(GROUP as u64), parents_before: 0 }, hash.0, true)
}

/// Groups in memory, looked at.
struct Look<'a> {
    /// The number of the first.
    first: u64,
    bytes: &'a [u8],
    outboard: &'a File,
}

impl Look<'_> {
    fn subtree(&self, subtree: Subtree, expected: ChainingValue, is_root: bool) -> io::Result<bool> {
        let Subtree { first, groups, .. } = subtree;
        let end = self.first + self.bytes.len().div_ceil(GROUP) as u64;
        if first >= end || first + groups <= self.first {
            return Ok(true);
        }
        if groups == 1 {
            let at = usize::try_from(first - self.first).map_err(io::Error::other)? * GROUP;
            let group = &self.bytes[at..self.bytes.len().min(at + GROUP)];
            return Ok(hash_of_group(first, group, is_root) == expected);
        }
        let Some([left, right]) = subtree.children(self.outboard, expected, is_root)? else { return Ok(false) };
        let [before, beyond] = subtree.halves();
        Ok(self.subtree(before, left, false)? && self.subtree(beyond, right, false)?)
    }
}

fn hash_of_group(number: u64, group: &[u8], is_root: bool) -> ChainingValue {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(number * GROUP as u64).update(group);
    if is_root { *hasher.finalize().as_bytes() } else { hasher.finalize_non_root() }
}

struct Walk<'a> {
    size: u64,
    data: &'a File,
    outboard: &'a File,
    group: Vec<u8>,
    found: Vec<Range<u64>>,
}

#[derive(Clone, Copy)]
struct Subtree {
    first: u64,
    groups: u64,
    /// How many pairs stand in the outboard before its own.
    parents_before: u64,
}

impl Subtree {
    /// The hashes of its halves, if the outboard has the pair that makes `expected`.
    fn children(self, outboard: &File, expected: ChainingValue, is_root: bool) -> io::Result<Option<[ChainingValue; 2]>> {
        let mut pair = [[0; 32]; 2];
        if !read_whole(outboard, pair.as_flattened_mut(), (self.parents_before + self.groups - 2) * 64)? {
            return Ok(None);
        }
        let [left, right] = &pair;
        let actual = if is_root {
            *merge_subtrees_root(left, right, Mode::Hash).as_bytes()
        } else {
            merge_subtrees_non_root(left, right, Mode::Hash)
        };
        Ok((actual == expected).then_some(pair))
    }

    fn halves(self) -> [Self; 2] {
        let Self { first, groups, parents_before } = self;
        // The largest power of two that leaves something for the right.
        let half = groups.next_power_of_two() / 2;
        let beyond = Self { first: first + half, groups: groups - half, parents_before: parents_before + half - 1 };
        [Self { groups: half, ..self }, beyond]
    }
}

impl Walk<'_> {
    fn subtree(&mut self, subtree: Subtree, expected: ChainingValue, is_root: bool) -> io::Result<()> {
        if subtree.groups == 1 {
            return self.leaf(subtree.first, expected, is_root);
        }
        let Some([left, right]) = subtree.children(self.outboard, expected, is_root)? else { return Ok(()) };
        let [before, beyond] = subtree.halves();
        self.subtree(before, left, false)?;
        self.subtree(beyond, right, false)
    }

    fn leaf(&mut self, number: u64, expected: ChainingValue, is_root: bool) -> io::Result<()> {
        let start = number * GROUP as u64;
        let end = self.size.min(start + GROUP as u64);
        let group = &mut self.group[..usize::try_from(end - start).map_err(io::Error::other)?];
        if !read_whole(self.data, group, start)? {
            return Ok(());
        }
        if hash_of_group(number, group, is_root) != expected {
            return Ok(());
        }
        match self.found.last_mut().filter(|last| last.end == start) {
            Some(last) => last.end = end,
            None => self.found.push(start..end),
        }
        Ok(())
    }
}

/// Whether the file goes that far.
fn read_whole(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
    match file.read_exact_at(buffer, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use bao_tree::io::outboard::PostOrderMemOutboard;

    use super::*;

    #[test]
    fn hash_and_outboard_are_those_of_bao_tree_for_every_shape_of_tree() {
        let bytes: Vec<u8> = (0..40 * GROUP).map(|n| u8::try_from(n * 31 % 251).unwrap_or_default()).collect();
        for groups in 0..40 {
            for size in [groups * GROUP, groups * GROUP + 1, groups * GROUP + GROUP / 2] {
                let bytes = &bytes[..size.min(bytes.len())];
                let mut hasher = TreeHasher::new(Vec::new());
                // Pieces that end within, at and beyond the ends of groups.
                bytes.chunks(GROUP / 2 + groups * 1000 + 1).for_each(|piece| hasher.update(piece).unwrap());
                let (hash, outboard) = hasher.finish().unwrap();
                let expected = PostOrderMemOutboard::create(bytes, BLOCK);
                assert_eq!(hash.0, *expected.root.as_bytes(), "{size}");
                assert!(outboard == expected.data, "{size}");
            }
        }
    }
    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn what_is_right_is_found_and_nothing_else_for_every_shape_of_tree() {
        let bytes: Vec<u8> = (0..40 * GROUP).map(|n| u8::try_from(n * 31 % 251).unwrap_or_default()).collect();
        for groups in 1..40_u64 {
            let size = groups * GROUP as u64 - groups % 3;
            let bytes = &bytes[..usize::try_from(size).unwrap()];
            let tree = PostOrderMemOutboard::create(bytes, BLOCK);
            let hash = ContentHash(*tree.root.as_bytes());
            let check = |data: &[u8], outboard: &[u8]| verified(hash, size, &file(data), &file(outboard)).unwrap();
            assert_eq!(check(bytes, &tree.data), std::iter::once(0..size).collect::<Vec<_>>(), "{groups}");
            let spoilt = (groups / 2) * GROUP as u64;
            let mut data = bytes.to_vec();
            data[usize::try_from(spoilt).unwrap()] ^= 1;
            let right: Vec<Range<u64>> =
                [0..spoilt, (spoilt + GROUP as u64).min(size)..size].into_iter().filter(|range| !range.is_empty()).collect();
            assert_eq!(check(&data, &tree.data), right, "{groups}");
            let tree_file = file(&tree.data);
            for from in [0, groups / 3, groups / 2, groups - 1] {
                for to in [from + 1, groups / 2 + 1, groups].into_iter().filter(|to| *to > from) {
                    let part = usize::try_from(from).unwrap() * GROUP..bytes.len().min(usize::try_from(to).unwrap() * GROUP);
                    let is_right = |data: &[u8]| matches(hash, size, &tree_file, from * GROUP as u64, &data[part.clone()]).unwrap();
                    assert!(is_right(bytes), "{from}..{to} of {groups}");
                    assert_eq!(is_right(&data), !(from..to).contains(&(groups / 2)), "{from}..{to} of {groups}");
                }
            }
            let short = usize::try_from(size.saturating_sub(1)).unwrap();
            let whole = (size - 1) / GROUP as u64 * GROUP as u64;
            assert_eq!(check(&bytes[..short], &tree.data).last().map_or(0, |range| range.end), whole, "the last group is cut");
            if groups > 1 {
                assert_eq!(check(bytes, &tree.data[..tree.data.len() - 64]), [], "without the root nothing is known");
                assert_eq!(check(bytes, &[]), []);
                assert_eq!(verified(ContentHash([1; 32]), size, &file(bytes), &file(&tree.data)).unwrap(), []);
            }
        }
    }
}
