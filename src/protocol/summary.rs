//! The summary of a record set: what an exchange compares, and where two sets differ.
//!
//! Three views of one set, kept up with each change: the root, which tells whether two sets differ; the [`Sketch`], from which up to about 2800
//! differences are found; the roots of 256 partitions, by which larger differences are cut into small ones.
//!
//! 1. After any sequence of inserts and removals the summary equals that of the set counted afresh: its sums do not care for
//!    order, so a change needs no pass over the keys.
//! 2. Equal roots mean equal sets, but for an accident of 128-bit sums of keyed hashes.
//!
//! It takes 140 KiB of memory, whatever the size of the set, and 0.2 microseconds for each item that comes or goes.

use std::fmt;
use std::str::FromStr;

use crate::ids::text_serde;
use crate::item::Item;
use crate::planted::{Bug, is_planted};
use crate::sketch::{MAX_CELLS, Sketch, SketchHasher};

/// How many parts the order of records is cut into.
pub const PARTITIONS: usize = 256;

/// The sum of a set's items modulo 2^128, and their count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Root {
    /// Sum of the items modulo 2^128.
    pub sum: u128,
    /// Number of the items.
    pub count: u64,
}

impl Root {
    fn add(&mut self, item: Item) {
        self.sum = self.sum.wrapping_add(item.bits());
        self.count += 1;
    }

    fn join(&mut self, other: Self) {
        self.sum = self.sum.wrapping_add(other.sum);
        self.count += other.count;
    }

    fn remove(&mut self, item: Item) {
        debug_assert!(self.count > 0, "an item leaves a set that is empty");
        self.sum = self.sum.wrapping_sub(item.bits());
        self.count = self.count.saturating_sub(1);
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}.{}", self.sum, self.count)
    }
}

/// A root that is not written `<32 hexadecimal digits>.<count>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a root, written <32 hexadecimal digits>.<count>")]
pub struct BadRoot;

impl FromStr for Root {
    type Err = BadRoot;

    fn from_str(text: &str) -> Result<Self, BadRoot> {
        let (sum, count) = text.split_once('.').ok_or(BadRoot)?;
        if sum.len() != 32 {
            return Err(BadRoot);
        }
        Ok(Self { sum: u128::from_str_radix(sum, 16).map_err(|_| BadRoot)?, count: count.parse().map_err(|_| BadRoot)? })
    }
}

text_serde!(Root);

/// Root, sketch and partitions of a set, maintained with every change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    partitions: Box<[Root; PARTITIONS]>,
    total: Root,
    sketch: Sketch,
}

impl Summary {
    /// Of the empty set, for items of the cluster of that hasher.
    pub fn new(hasher: SketchHasher) -> Self {
        let sketch = Sketch::new(hasher, MAX_CELLS);
        Self { partitions: Box::new([Root::default(); PARTITIONS]), total: Root::default(), sketch }
    }

    /// Counts an item in.
    pub fn add(&mut self, item: Item) {
        self.sketch.insert(item.bits());
        self.partitions[usize::from(item.key.partition())].add(item);
        self.total.add(item);
    }

    /// Counts an item out.
    pub fn remove(&mut self, item: Item) {
        if !is_planted(Bug::SketchNotUpdated) {
            self.sketch.remove(item.bits());
        }
        self.partitions[usize::from(item.key.partition())].remove(item);
        self.total.remove(item);
    }

    /// Counts in all items of a set that has none of those counted so far.
    pub fn join(&mut self, other: &Self) {
        self.sketch.join(&other.sketch);
        self.partitions.iter_mut().zip(other.partitions.iter()).for_each(|(ours, theirs)| ours.join(*theirs));
        self.total.join(other.total);
    }

    /// The root of the whole set.
    pub fn root(&self) -> Root {
        self.total
    }

    /// The first cells of the whole set, as it is now.
    pub fn sketch(&self) -> &Sketch {
        &self.sketch
    }

    /// The roots of the partitions, in order.
    pub fn partitions(&self) -> &[Root; PARTITIONS] {
        &self.partitions
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::item::{KeyHash, StateHash};

    proptest! {
        #[test]
        fn a_maintained_summary_equals_one_counted_afresh(keys in prop::collection::vec((any::<u64>(), any::<u64>()), 0..40), removed in 0..40usize) {
            let items: Vec<Item> = keys.iter().map(|&(key, state)| Item { key: KeyHash(key), state: StateHash(state) }).collect();
            let removed = removed.min(items.len());
            let mut maintained = Summary::new(SketchHasher::new("test"));
            items.iter().for_each(|item| maintained.add(*item));
            items[..removed].iter().for_each(|item| maintained.remove(*item));
            let mut afresh = Summary::new(SketchHasher::new("test"));
            items[removed..].iter().rev().for_each(|item| afresh.add(*item));
            prop_assert_eq!(&maintained, &afresh);
            prop_assert_eq!(maintained.root().to_string().parse(), Ok(afresh.root()));
            let mut joined = Summary::new(SketchHasher::new("test"));
            for share in items[removed..].chunks(3) {
                let mut summary = Summary::new(SketchHasher::new("test"));
                share.iter().for_each(|item| summary.add(*item));
                joined.join(&summary);
            }
            prop_assert_eq!(&joined, &afresh);
        }
    }
}
