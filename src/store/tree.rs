//! Hashes a payload of unknown length in one pass, writing its outboard on the way.
//!
//! The outboard is that of bao-tree (groups of 16 KiB, post order, no length): the pair of child hashes of each parent, a parent
//! behind its children. bao-tree makes it from a finished file only, which would read every upload twice. The merging is that of the
//! BLAKE3 paper (O'Connor, Aumasson, Neves, Wilcox-O'Hearn, section 5.1.2): a subtree is merged when it is complete and known not
//! to be the root, so the stack holds one hash per set bit of the number of groups.

use std::io::{self, Write};

use bao_tree::BlockSize;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use gossip_cdn_protocol::ContentHash;

/// The groups that are verified as a whole: 2^4 chunks of 1 KiB.
pub(super) const BLOCK: BlockSize = BlockSize::from_chunk_log(4);
/// Their length in bytes.
pub(super) const GROUP: usize = 16 << 10;

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
}
