//! Finding the difference: which question comes next, and what an answer tells.
//!
//! 1. The cells of whole sets are subtracted from a copy of this node's own, made when the first of the peer's came.
//! 2. Sketches of partitions are made when they are asked for, at one instant each, and never continued: one that was too short is asked for anew.
//! 3. Each question leads to finer ones of the same part of the set, and the finest, the items, to its next page only: finding ends.

use std::collections::{BTreeSet, VecDeque};

use super::serving::{MAX_SCANNED, scan_all, sketch_of};
use super::{Asked, MAX_CALLS_AT_ONCE};
use crate::io::Counters;
use crate::item::{Item, KeyHash};
use crate::records::Records;
use crate::sketch::{Cell, Decoder, MAX_CELLS, Progress, Side, Sketch, SketchHasher, cells_for};
use crate::store::{Store, StoreFault};
use crate::summary::{PARTITIONS, Root, Summary};
use crate::wire::{
    CellsRequest, FIRST_CELLS, ItemsAnswer, ItemsRequest, MAX_CELLS_SENT, MAX_ITEMS, PartitionsRequest, Request, SketchesRequest,
};

/// How many cells there are after a second call, at least: a good estimate, and enough for 150 differences.
const SECOND_CELLS: usize = 256;
/// With more differences than this, as estimated, cells of the whole set are left for sketches of partitions. A quarter more than decode,
/// because partitions cost half as much again for each difference, and estimates err.
const TOO_MANY: usize = 3500;

/// A question about the difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Search {
    /// More cells of the whole set.
    Cells { to: usize },
    /// The roots of the partitions.
    Partitions,
    /// Sketches of partitions, so long.
    Sketches { partitions: Vec<u8>, cells: usize },
    /// The items of partitions from a key hash on.
    Items { partitions: Vec<u8>, from: u64 },
}

impl Search {
    /// Whether the two can be asked in one call.
    fn joins(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sketches { cells, .. }, Self::Sketches { cells: others, .. }) => cells == others,
            (Self::Items { from, .. }, Self::Items { from: other, .. }) => *from == 0 && *other == 0,
            (Self::Cells { .. } | Self::Partitions | Self::Sketches { .. } | Self::Items { .. }, _) => false,
        }
    }

    fn partitions(&self) -> &[u8] {
        match self {
            Self::Sketches { partitions, .. } | Self::Items { partitions, .. } => partitions,
            Self::Cells { .. } | Self::Partitions => &[],
        }
    }

    fn set_partitions(&mut self, mut to: Vec<u8>) {
        to.sort_unstable();
        match self {
            Self::Sketches { partitions, .. } | Self::Items { partitions, .. } => *partitions = to,
            Self::Cells { .. } | Self::Partitions => {}
        }
    }

    /// Cells of each partition.
    fn cells(&self) -> usize {
        match self {
            Self::Sketches { cells, .. } => *cells,
            Self::Cells { .. } | Self::Partitions | Self::Items { .. } => 0,
        }
    }

    /// Most items to be read for the answer.
    fn most_items(&self) -> u64 {
        match self {
            Self::Items { .. } => MAX_ITEMS as u64,
            Self::Cells { .. } | Self::Partitions | Self::Sketches { .. } => MAX_SCANNED as u64,
        }
    }
}

/// What is known of a difference, and what is to be asked next.
#[derive(Debug)]
pub(super) struct Finding {
    hasher: SketchHasher,
    /// The number under which the peer keeps its sketch.
    number: u32,
    /// This node's own sketch, as it was when the first cells came. Given up when it is of no more use.
    frozen: Option<Sketch>,
    decoder: Decoder,
    searches: VecDeque<Search>,
    /// The larger of both sides' number of items in each partition.
    sizes: Vec<u64>,
    given_up: bool,
}

type Found = Vec<(KeyHash, Side)>;

impl Finding {
    pub(super) fn new(theirs: Root, number: u32, ours: &Summary) -> Self {
        let hasher = ours.sketch().hasher().clone();
        let surplus = i128::from(theirs.count) - i128::from(ours.root().count);
        let decoder = Decoder::new(hasher.clone(), surplus);
        let frozen = Some(ours.sketch().clone());
        Self { hasher, number, frozen, decoder, searches: VecDeque::new(), sizes: vec![], given_up: false }
    }

    /// This node's own side is frozen anew: what must not be, for [`crate::planted`].
    pub(super) fn freeze_anew(&mut self, ours: &Summary) {
        self.frozen = self.frozen.take().map(|_| ours.sketch().clone());
    }

    /// How many cells of the whole set have come.
    pub(super) fn length(&self) -> usize {
        self.decoder.length()
    }

    /// Whether there is no further question, for now.
    pub(super) fn is_over(&self) -> bool {
        self.searches.is_empty()
    }

    /// Nothing more is asked.
    pub(super) fn give_up(&mut self) {
        self.given_up = true;
        self.searches.clear();
    }

    fn search(&mut self, search: Search) {
        if !self.given_up {
            self.searches.push_back(search);
        }
    }

    /// The next question. Partitions that are asked for in the same way are asked for together, as many as the peer can read at once and
    /// one answer carries, but so few that as many calls as may run side by side share the whole.
    pub(super) fn next(&mut self) -> Option<Search> {
        let mut search = self.searches.pop_front()?;
        let share = PARTITIONS / MAX_CALLS_AT_ONCE;
        let (Search::Sketches { .. } | Search::Items { .. }) = &search else { return Some(search) };
        while let Some(other) = self.searches.front().filter(|other| search.joins(other)) {
            let mut partitions = search.partitions().to_vec();
            partitions.extend(other.partitions());
            let scanned: u64 = partitions.iter().map(|partition| self.size(*partition)).sum();
            if partitions.len() > share || scanned > search.most_items() || partitions.len() * search.cells() > MAX_CELLS_SENT {
                break;
            }
            self.searches.pop_front();
            search.set_partitions(partitions);
        }
        Some(search)
    }

    fn size(&self, partition: u8) -> u64 {
        self.sizes.get(usize::from(partition)).copied().unwrap_or(0)
    }

    /// A question as a call.
    pub(super) fn call(&self, search: Search) -> (Request, Asked) {
        match search {
            Search::Cells { to } => {
                (Request::Cells(CellsRequest { sketch: self.number, from: self.decoder.length(), to }), Asked::Cells { to })
            }
            Search::Partitions => (Request::Partitions(PartitionsRequest {}), Asked::Partitions),
            Search::Sketches { partitions, cells } => {
                (Request::Sketches(SketchesRequest { partitions: partitions.clone(), cells }), Asked::Sketches { partitions, cells })
            }
            Search::Items { partitions, from } => {
                let request = ItemsRequest { partitions: partitions.clone(), from: Some(from).filter(|from| *from > 0) };
                (Request::Items(request), Asked::Items { partitions, from })
            }
        }
    }

    /// The next cells of the peer's whole set.
    pub(super) fn on_cells(&mut self, theirs: &[Cell], counters: &mut Counters) -> Found {
        let Some(frozen) = &self.frozen else { return vec![] };
        let ours = frozen.cells().get(self.decoder.length()..).unwrap_or_default();
        match self.decoder.extend(theirs, ours) {
            Progress::Complete => {
                self.frozen = None;
                return keys(&self.decoder);
            }
            Progress::Contradiction => {
                counters.decode_failures += 1;
                self.fall_back(counters);
            }
            Progress::Incomplete => match self.more_cells() {
                Some(to) => self.search(Search::Cells { to }),
                None => self.fall_back(counters),
            },
        }
        vec![]
    }

    /// How many cells there are to be next; `None` if the difference is too large for those that the peer keeps.
    fn more_cells(&self) -> Option<usize> {
        let (length, estimate) = (self.decoder.length(), self.decoder.estimate());
        if length <= FIRST_CELLS {
            // The first estimate errs by a quarter: three quarters of it are hardly ever too much.
            let to = if estimate > TOO_MANY { SECOND_CELLS } else { (estimate * 3 / 4).max(SECOND_CELLS) };
            return Some(to.min(MAX_CELLS));
        }
        // An eighth more at least: what was planned by a good estimate and did not decode lacks little.
        let to = cells_for(estimate).max(length * 9 / 8).min(MAX_CELLS);
        (estimate <= TOO_MANY && length < MAX_CELLS).then_some(to)
    }

    fn fall_back(&mut self, counters: &mut Counters) {
        counters.fallbacks += 1;
        self.frozen = None;
        self.search(Search::Partitions);
    }

    /// The roots of the peer's partitions: those that differ are asked for by sketches, of a length that follows from the estimate for the whole.
    pub(super) fn on_partitions(&mut self, theirs: &[Root], ours: &[Root; PARTITIONS]) {
        self.sizes = theirs.iter().zip(ours).map(|(theirs, ours)| theirs.count.max(ours.count)).collect();
        let differ: Vec<u8> = (0..=u8::MAX).filter(|n| theirs.get(usize::from(*n)) != ours.get(usize::from(*n))).collect();
        // The keys are hashes, so differences are spread like rain: two standard deviations more than the mean fit most partitions.
        let mean = self.decoder.estimate() / differ.len().max(1);
        let cells = cells_for(mean.saturating_add(2 * mean.isqrt()));
        for partition in differ {
            self.search_partition(partition, cells);
        }
    }

    /// By a sketch, unless the items themselves cost no more.
    fn search_partition(&mut self, partition: u8, cells: usize) {
        let size = self.size(partition);
        let (of_cells, of_items) = (26 * cells as u64, 16 * size);
        let by_items = cells > MAX_CELLS || size > MAX_SCANNED as u64 || of_cells >= of_items;
        self.search(if by_items {
            Search::Items { partitions: vec![partition], from: 0 }
        } else {
            Search::Sketches { partitions: vec![partition], cells }
        });
    }

    /// Sketches of the first of those partitions.
    pub(super) fn on_sketches<S: Store>(
        &mut self,
        partitions: &[u8],
        length: usize,
        theirs: &[Cell],
        records: &Records<S>,
        counters: &mut Counters,
    ) -> Result<Found, StoreFault> {
        let mut found = vec![];
        let mut sketches = theirs.chunks_exact(length);
        for (n, partition) in partitions.iter().enumerate() {
            let Some(theirs) = sketches.next() else {
                // Those that the peer could not read at once. If that is the first, it never can.
                if n == 0 {
                    self.search(Search::Items { partitions: vec![*partition], from: 0 });
                } else {
                    self.search(Search::Sketches { partitions: vec![*partition], cells: length });
                }
                continue;
            };
            let ours = sketch_of(*partition, length, records)?;
            let mut decoder = Decoder::new(self.hasher.clone(), surplus(theirs, ours.cells()));
            match decoder.extend(theirs, ours.cells()) {
                Progress::Complete => found.extend(keys(&decoder)),
                Progress::Incomplete => self.search_partition(*partition, cells_for(decoder.estimate()).max(length * 3 / 2)),
                Progress::Contradiction => {
                    counters.decode_failures += 1;
                    self.search(Search::Items { partitions: vec![*partition], from: 0 });
                }
            }
        }
        Ok(found)
    }

    /// A page of the items of partitions, compared with this node's own up to where both are known.
    pub(super) fn on_items<S: Store>(
        &mut self,
        partitions: &[u8],
        from: u64,
        answer: &ItemsAnswer,
        records: &Records<S>,
        counters: &mut Counters,
    ) -> Result<Found, StoreFault> {
        counters.items_compared += answer.items.len() as u64;
        let ours = scan_all(partitions, KeyHash(from), records)?;
        let next = [answer.next, ours.next.map(|next| next.0)].into_iter().flatten().min();
        let in_page = |item: &&Item| {
            item.key.0 >= from && next.is_none_or(|next| item.key.0 < next) && partitions.binary_search(&item.key.partition()).is_ok()
        };
        let theirs: BTreeSet<Item> = answer.items.iter().filter(in_page).copied().collect();
        let ours: BTreeSet<Item> = ours.items.iter().filter(in_page).copied().collect();
        // A page that does not advance would be asked for again for ever.
        if let Some(next) = next.filter(|next| *next > from) {
            let partitions = partitions.iter().filter(|partition| **partition >= KeyHash(next).partition()).copied().collect();
            self.search(Search::Items { partitions, from: next });
        }
        let lacking = theirs.difference(&ours).map(|item| (item.key, Side::Theirs));
        Ok(lacking.chain(ours.difference(&theirs).map(|item| (item.key, Side::Ours))).collect())
    }
}

fn keys(decoder: &Decoder) -> Found {
    decoder.found().map(|(bits, side)| (Item::from_bits(bits).key, side)).collect()
}

/// How many items more the peer has, by the first cell, which holds them all: sets of partitions are small enough for its 16 bits.
fn surplus(theirs: &[Cell], ours: &[Cell]) -> i128 {
    let count = |cells: &[Cell]| cells.first().map_or(0, |cell| cell.count);
    i128::from(count(theirs).wrapping_sub(count(ours)).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sketch::tests::sketch;

    fn finding(sizes: u64) -> Finding {
        let summary = Summary::new(SketchHasher::new("test"));
        Finding { sizes: vec![sizes; PARTITIONS], ..Finding::new(Root { sum: 1, count: 60 }, 1, &summary) }
    }

    #[test]
    fn sketches_are_asked_for_together_within_what_one_answer_may_read_and_carry() {
        let groups = |sizes: u64, cells: usize| {
            let mut finding = finding(sizes);
            (0..=u8::MAX).for_each(|partition| finding.search_partition(partition, cells));
            let calls: Vec<usize> = std::iter::from_fn(|| finding.next())
                .map(|search| match search {
                    Search::Sketches { partitions, .. } => partitions.len(),
                    other @ (Search::Cells { .. } | Search::Partitions | Search::Items { .. }) => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(calls.iter().sum::<usize>(), PARTITIONS);
            (calls.len(), calls.into_iter().max().unwrap())
        };
        assert!(groups(4000, 350).1 <= 16, "of 65,536 items");
        assert!(groups(20_000, 4096).1 <= 8, "of 32,768 cells");
        assert!(groups(100, 10).0 >= MAX_CALLS_AT_ONCE, "several calls side by side");
        assert!(groups(60_000, 10).1 == 1);
    }

    #[test]
    fn a_partition_whose_items_cost_no_more_is_not_sketched() {
        let mut finding = finding(100);
        finding.search_partition(3, 62);
        assert_eq!(finding.next(), Some(Search::Items { partitions: vec![3], from: 0 }));
        finding.search_partition(3, 61);
        assert_eq!(finding.next(), Some(Search::Sketches { partitions: vec![3], cells: 61 }));
    }

    #[test]
    fn cells_of_two_instants_are_counted_and_fall_back() {
        let (mut finding, mut counters) = (finding(0), Counters::default());
        let mut theirs = sketch(256, 0..60);
        assert_eq!(finding.on_cells(&theirs.cells()[..32], &mut counters), []);
        assert_eq!(finding.next(), Some(Search::Cells { to: 256 }));
        theirs.insert(60);
        assert_eq!(finding.on_cells(&theirs.cells()[32..], &mut counters), []);
        assert_eq!((counters.decode_failures, counters.fallbacks), (1, 1));
        assert_eq!(finding.next(), Some(Search::Partitions));
    }

    #[test]
    fn what_is_given_up_is_not_taken_up_again() {
        let mut finding = finding(100_000);
        finding.search_partition(1, 50);
        finding.give_up();
        assert!(finding.is_over());
        finding.search_partition(1, 50);
        assert!(finding.is_over());
    }
}
