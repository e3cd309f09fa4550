//! Snapshot: a newcomer takes the records of others in pages, from several of them at once.
//!
//! Where less than half of a peer's records are here, finding out which ones are missing costs more than taking all of them. This
//! holds for each partition by itself, so a node that lacks very many looks whether there are partitions of which it has less than
//! half. They are cut into stretches; who is free takes the next one.
//!
//! 1. The stretches still to take and those under way are disjoint, so no two peers are asked for the same record.
//! 2. At most [`MAX_SOURCES`] peers are asked, each for one page at a time.
//! 3. A stretch whose page does not come is given back, from where its last page ended: nothing of it is skipped.
//! 4. A partition of which at least half is here is not taken. So a snapshot that was broken off goes on where it was.
//! 5. Room for the records of every page under way is set aside before it is asked for: none is dropped when it comes.
//! 6. A snapshot ends: when it is through, after [`MAX_PAGES`], or when nothing new came for [`MAX_STALL`]. Whatever it left is found by the ordinary
//!    reconciliation that follows, which also gives what only the newcomer has.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::ids::{BlobId, NodeId};
use crate::io::Target;
use crate::planted::{Bug, is_planted};
use crate::record::Record;
use crate::records::{Records, first_key, next_key};
use crate::store::{Store, StoreFault};
use crate::summary::{PARTITIONS, Root, Summary};
use crate::time::Instant;
use crate::version::Content;
use crate::wire::{Entry, PartitionsRequest, RECORDS_BUDGET, Request, SNAPSHOT_PAGE, SnapshotAnswer, SnapshotRequest};

/// Most peers that are asked at once.
pub const MAX_SOURCES: usize = 4;
/// With fewer records a peer is not worth a snapshot: the roots of its partitions alone weigh as much as so many records.
pub const LEAST_RECORDS: u64 = 32;
/// Who lacks so many records looks for partitions to take, even if it has most of the others. A guess: their items alone, listed,
/// would be half a megabyte.
pub const VERY_MANY: u64 = 1 << 14;
/// Most pages of one snapshot: a bound for peers that send crumbs. Sixty million records.
pub const MAX_PAGES: u32 = 1 << 16;
/// A snapshot that brings nothing new for so long ends, and none begins for as long again. A guess: twice a call of the longest kind.
pub const MAX_STALL: Duration = Duration::from_secs(60);

/// How long a peer that is busy is left alone.
const REST: Duration = Duration::from_secs(1);
/// Most peers with few records that are told apart.
const MAX_LEFT_ALONE: usize = 1024;
/// So many exchanges in a row must find a peer with few records unchanged before it is given records instead of being left to its
/// own snapshot. A guess: it calls somebody every second.
const UNCHANGED: u8 = 4;

/// Whether a node with the records of `ours` is a newcomer to one with those of `theirs`.
pub fn is_newcomer(ours: Root, theirs: Root) -> bool {
    theirs.count >= LEAST_RECORDS && ours.count < theirs.count / 2
}

/// Whether a node with the records of `ours` looks for partitions to take from one with those of `theirs`.
pub fn may_take(ours: Root, theirs: Root) -> bool {
    is_newcomer(ours, theirs) || theirs.count.saturating_sub(ours.count) >= VERY_MANY
}

/// Part of the order of records, as it is asked for: from behind a record on to the end of a partition.
type Stretch = SnapshotRequest;

/// What a peer is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// The roots of its partitions.
    Partitions,
    /// The records at the beginning of a stretch.
    Page(SnapshotRequest),
}

impl Question {
    /// As a call.
    pub fn request(self) -> Request {
        match self {
            Self::Partitions => Request::Partitions(PartitionsRequest {}),
            Self::Page(stretch) => Request::Snapshot(stretch),
        }
    }
}

#[derive(Debug)]
struct Source {
    target: Target,
    asked: Option<Question>,
    rests_until: Option<Instant>,
}

#[derive(Debug)]
struct Taking {
    /// How many records the first peer has.
    records: u64,
    /// What is still to take, in order; `None` until the roots of a peer's partitions are here.
    todo: Option<VecDeque<Stretch>>,
    sources: BTreeMap<NodeId, Source>,
    pages: u32,
    /// When something new came last.
    moved: Instant,
}

/// How a snapshot ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Everything was taken; this peer is one of those that gave.
    Complete(Target),
    /// Nobody is left to give, or nothing new came: another exchange goes on.
    BrokenOff,
}

/// The snapshot that this node takes, and whom it leaves to take theirs.
#[derive(Debug, Default)]
pub struct Snapshot {
    taking: Option<Taking>,
    /// None begins before.
    not_before: Instant,
    /// Peers with few records: what they had, and how many exchanges in a row found it so.
    left_alone: BTreeMap<NodeId, (Root, u8)>,
}

impl Snapshot {
    /// Whether one is being taken.
    pub fn is_under_way(&self) -> bool {
        self.taking.is_some()
    }

    /// Begins with a peer that has `records`, unless one is under way or the last one stalled a while ago.
    pub fn begin(&mut self, peer: Target, records: u64, now: Instant) -> bool {
        if self.taking.is_some() || now < self.not_before {
            return false;
        }
        self.taking = Some(Taking { records, todo: None, sources: BTreeMap::new(), pages: 0, moved: now });
        self.join(peer, records);
        true
    }

    /// Another peer was found; it is asked as well if it has about as much as the first, and there is room.
    pub fn join(&mut self, peer: Target, records: u64) {
        let (Some(taking), Some(id)) = (&mut self.taking, peer.id) else { return };
        // Writes go on meanwhile, so one may lag a little behind the other.
        let enough = records >= taking.records - taking.records / 64;
        if enough && taking.sources.len() < MAX_SOURCES {
            taking.sources.entry(id).or_insert(Source { target: peer, asked: None, rests_until: None });
        }
    }

    /// Whether a peer with few records is left to its own snapshot: it is as long as it gets on from one exchange to the next.
    pub fn leaves_alone(&mut self, peer: NodeId, theirs: Root) -> bool {
        if self.left_alone.len() >= MAX_LEFT_ALONE && !self.left_alone.contains_key(&peer) {
            self.left_alone.clear();
        }
        let (root, unchanged) = self.left_alone.entry(peer).or_insert((theirs, 0));
        *unchanged = if *root == theirs { *unchanged + 1 } else { 0 };
        *root = theirs;
        let alone = *unchanged < UNCHANGED;
        if !alone {
            self.left_alone.remove(&peer);
        }
        alone
    }

    /// How many records may come with the pages under way.
    pub fn reserved(&self) -> usize {
        let pages = self.taking.iter().flat_map(|taking| taking.sources.values());
        pages.filter(|source| matches!(source.asked, Some(Question::Page(_)))).count() * SNAPSHOT_PAGE
    }

    /// The next call to make, if there is one; `room` for records is left beside [`Self::reserved`].
    pub fn next(&mut self, now: Instant, room: usize) -> Option<(Target, Question)> {
        let taking = self.taking.as_mut()?;
        let asking = taking.sources.values().any(|source| source.asked == Some(Question::Partitions));
        for source in taking.sources.values_mut() {
            source.rests_until = source.rests_until.filter(|until| *until > now);
        }
        let free = |source: &&mut Source| source.asked.is_none() && source.rests_until.is_none();
        let source = taking.sources.values_mut().find(free)?;
        let Some(todo) = &mut taking.todo else {
            if asking {
                return None;
            }
            source.asked = Some(Question::Partitions);
            return Some((source.target.clone(), Question::Partitions));
        };
        if room < SNAPSHOT_PAGE || taking.pages >= MAX_PAGES {
            return None;
        }
        let stretch = todo.pop_front()?;
        taking.pages += 1;
        source.asked = Some(Question::Page(stretch));
        Some((source.target.clone(), Question::Page(stretch)))
    }

    /// A peer told the roots of its partitions: what lacks most of their records in `ours` is to be taken. Returns how many partitions are not, being equal.
    pub fn on_partitions(&mut self, peer: NodeId, roots: &[Root], ours: &Summary) -> u64 {
        let Some(taking) = &mut self.taking else { return 0 };
        let Some(source) = taking.sources.get_mut(&peer).filter(|source| source.asked == Some(Question::Partitions)) else { return 0 };
        source.asked = None;
        let (stretches, equal) = plan(roots, ours.partitions());
        taking.todo = Some(stretches);
        equal
    }

    /// A page came. `next`: the last record that it tells of, if its stretch goes on; `moved`: it brought something new.
    pub fn on_page(&mut self, peer: NodeId, next: Option<BlobId>, moved: bool, now: Instant) {
        let Some(taking) = &mut self.taking else { return };
        if moved {
            taking.moved = now;
        }
        let Some(Question::Page(stretch)) = taking.sources.get_mut(&peer).and_then(|source| source.asked.take()) else { return };
        if let (Some(after), Some(todo)) = (next, &mut taking.todo) {
            todo.push_front(Stretch { after: Some(after), ..stretch });
        }
    }

    /// What a peer is asked.
    pub fn asked(&self, peer: NodeId) -> Option<Question> {
        self.taking.as_ref()?.sources.get(&peer)?.asked
    }

    /// A peer gave nothing: what it was asked for is given back. One that is `busy` is asked again after a rest, any other not until
    /// an exchange finds it.
    pub fn on_failed(&mut self, peer: NodeId, busy: bool, now: Instant) {
        let Some(taking) = &mut self.taking else { return };
        let Some(source) = taking.sources.get_mut(&peer) else { return };
        let asked = source.asked.take();
        source.rests_until = Some(now + REST);
        if !busy {
            taking.sources.remove(&peer);
        }
        if let (Some(Question::Page(stretch)), Some(todo)) = (asked, &mut taking.todo) {
            todo.push_front(stretch);
        }
    }

    /// Ends the snapshot if nothing of it is left to do, or nothing can be done.
    pub fn end(&mut self, now: Instant) -> Option<Ended> {
        let taking = self.taking.as_ref()?;
        let idle = taking.sources.values().all(|source| source.asked.is_none());
        let through = taking.todo.as_ref().is_some_and(VecDeque::is_empty) || taking.pages >= MAX_PAGES;
        let stalled = now >= taking.moved + MAX_STALL;
        let giver = taking.sources.values().next().map(|source| source.target.clone());
        let ended = match giver {
            Some(giver) if idle && through => Ended::Complete(giver),
            None => Ended::BrokenOff,
            Some(_) if stalled => {
                self.not_before = now + MAX_STALL;
                Ended::BrokenOff
            }
            Some(_) => return None,
        };
        if taking.pages == 0 && through {
            // Nothing was to be taken, and so it is for a while: whoever lacks so many here and there reconciles.
            self.not_before = now + MAX_STALL;
        }
        self.taking = None;
        Some(ended)
    }

    /// When something is to be done here though nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        let taking = self.taking.as_ref()?;
        taking.sources.values().filter_map(|source| source.rests_until).chain([taking.moved + MAX_STALL]).min()
    }

    /// What must hold at all times.
    pub fn check(&self) {
        let Some(taking) = &self.taking else { return };
        assert!(taking.sources.len() <= MAX_SOURCES, "the sources are bounded");
        let under_way = taking.sources.values().filter_map(|source| match source.asked {
            Some(Question::Page(stretch)) => Some(stretch),
            Some(Question::Partitions) | None => None,
        });
        let mut stretches: Vec<Stretch> = taking.todo.iter().flatten().copied().chain(under_way).collect();
        stretches.sort_unstable_by_key(|stretch| stretch.first);
        assert!(stretches.is_sorted_by(|a, b| a.last < b.first), "stretches are disjoint");
    }
}

/// Cuts the partitions of which less than half is here into stretches, as many partitions to each as fill a page; tells how many partitions are equal.
fn plan(theirs: &[Root], ours: &[Root; PARTITIONS]) -> (VecDeque<Stretch>, u64) {
    let mut stretches: VecDeque<Stretch> = VecDeque::new();
    // How many records the stretch that is being made has; `None` where a new one begins.
    let mut filled: Option<u64> = None;
    let mut equal = 0;
    for (partition, (theirs, ours)) in (0..=u8::MAX).zip(theirs.iter().zip(ours)) {
        if theirs.count == 0 {
            continue;
        }
        if ours.count >= theirs.count.div_ceil(2) {
            equal += u64::from(theirs == ours);
            filled = None;
            continue;
        }
        let grown = filled.map(|filled| filled.saturating_add(theirs.count)).filter(|grown| *grown <= SNAPSHOT_PAGE as u64);
        match (grown, stretches.back_mut()) {
            (Some(_), Some(stretch)) => stretch.last = partition,
            (None, _) | (_, None) => stretches.push_back(Stretch { first: partition, last: partition, after: None }),
        }
        filled = Some(grown.unwrap_or(theirs.count));
    }
    (stretches, equal)
}

/// A page of a node's records.
pub fn page_of<S: Store>(request: &SnapshotRequest, records: &Records<S>) -> Result<SnapshotAnswer, StoreFault> {
    let first = first_key(crate::item::KeyHash::first_of(request.first));
    let start = request.after.map_or(Some(first), |after| next_key(records.key(after)).map(|next| next.max(first)));
    let Some(start) = start else { return Ok(SnapshotAnswer { give: vec![], next: None }) };
    let page = records.page(start, request.last, SNAPSHOT_PAGE, RECORDS_BUDGET)?;
    let is_left_out = |record: &Record| {
        is_planted(Bug::SnapshotWithoutTombstones) && record.winner().is_some_and(|winner| winner.content == Content::Tombstone)
    };
    let given = page.records.into_iter().filter(|(_, record)| !is_left_out(record));
    let give = given.map(|(key, versions)| Entry { id: key.blob, versions }).collect();
    Ok(SnapshotAnswer { give, next: page.next.map(|key| key.blob) })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::io::Token;
    use crate::item::{Item, ItemHasher, KeyHash, StateHash};
    use crate::memory::MemoryStore;
    use crate::record::tests::{node, payload, write};
    use crate::sketch::SketchHasher;
    use crate::version::Content;

    fn peer(n: u8) -> Target {
        Target { id: Some(node(n)), address: format!("http://n{n}") }
    }

    fn blob(n: u64) -> BlobId {
        BlobId(uuid::Uuid::from_u128(u128::from(n)))
    }

    fn summary(items: impl IntoIterator<Item = (u64, u64)>) -> Summary {
        let mut summary = empty();
        items.into_iter().for_each(|(key, state)| summary.add(Item { key: KeyHash(key), state: StateHash(state) }));
        summary
    }

    fn empty() -> Summary {
        Summary::new(SketchHasher::new("test"))
    }

    /// A summary with `each` items in every partition.
    fn full(each: u64) -> Summary {
        summary((0..256).flat_map(|partition| (0..each).map(move |n| (partition << 56 | n, 1))))
    }

    fn root(count: u64) -> Root {
        Root { sum: u128::from(count), count }
    }

    fn total(roots: &[Root]) -> Root {
        root(roots.iter().map(|root| root.count).sum())
    }

    /// A snapshot from peer 1, whose partitions are known.
    fn begun(theirs: &Summary, ours: &Summary) -> Snapshot {
        let mut snapshot = Snapshot::default();
        assert!(snapshot.begin(peer(1), theirs.root().count, Instant(0)));
        assert_eq!(snapshot.next(Instant(0), usize::MAX), Some((peer(1), Question::Partitions)));
        snapshot.on_partitions(node(1), theirs.partitions(), ours);
        snapshot
    }

    /// Who is asked for which partitions, and behind which record.
    type Page = (Target, (u8, u8, Option<BlobId>));

    fn asked(snapshot: &mut Snapshot, now: Instant) -> Option<Page> {
        let asked = snapshot.next(now, usize::MAX);
        snapshot.check();
        asked.map(|(target, question)| match question {
            Question::Page(Stretch { first, last, after }) => (target, (first, last, after)),
            Question::Partitions => panic!("it knows the partitions"),
        })
    }

    proptest! {
        #[test]
        fn a_plan_takes_once_what_is_here_by_less_than_half(
            sizes in prop::collection::vec((0..3000u64, 0..3000u64, any::<bool>()), PARTITIONS)
        ) {
            let theirs: Vec<Root> = sizes.iter().map(|(count, ..)| root(*count)).collect();
            let mut ours = [Root::default(); PARTITIONS];
            for (ours, (count, few, equal)) in ours.iter_mut().zip(&sizes) {
                *ours = root(if *equal { *count } else { *few });
            }
            let (stretches, equal) = plan(&theirs, &ours);
            let mut taken = BTreeSet::new();
            for stretch in &stretches {
                let partitions: Vec<u8> = (stretch.first..=stretch.last).collect();
                let sum: u64 = partitions.iter().map(|partition| sizes[usize::from(*partition)].0).sum();
                prop_assert!(partitions.len() == 1 || sum <= SNAPSHOT_PAGE as u64, "a stretch of several is one page");
                for partition in partitions {
                    prop_assert!(taken.insert(partition), "taken twice");
                }
            }
            for ((partition, theirs), ours) in (0..=u8::MAX).zip(&theirs).zip(&ours) {
                // One that is empty there costs nothing.
                prop_assert!(theirs.count == 0 || taken.contains(&partition) == (ours.count * 2 < theirs.count));
            }
            prop_assert_eq!(equal, theirs.iter().zip(&ours).filter(|(theirs, ours)| theirs.count > 0 && theirs == ours).count() as u64);
            if is_newcomer(total(&ours), total(&theirs)) {
                prop_assert!(!stretches.is_empty(), "a newcomer always has something to take");
            }
        }

        #[test]
        fn pages_give_every_record_once_that_may_leave(
            kinds in prop::collection::vec(0..4u8, 0..200), limit in 1..40usize, budget in 1..100_000usize
        ) {
            let mut records = Records::open(MemoryStore::default(), ItemHasher::new("test")).expect("a map");
            let mut expected = BTreeSet::new();
            for (n, kind) in (0..).zip(kinds) {
                let key = records.key(blob(n));
                let content = if kind == 0 { Content::Tombstone } else { payload(1) };
                let record = Record::from(vec![write(&Record::default(), node(1), 5, content)]);
                let state = records.hasher().state(&record);
                let own = kind == 1;
                records.put(key, None, record.clone(), state, Token(n), own);
                if kind % 2 == 0 {
                    records.store().put(key, state, record.clone());
                    records.on_persisted(Token(n), &[key]);
                }
                if !own {
                    expected.insert((key, record.winner().map(|winner| winner.content.clone())));
                }
            }
            let mut given = BTreeSet::new();
            let mut from = Some(first_key(KeyHash(0)));
            while let Some(start) = from {
                let page = records.page(start, u8::MAX, limit, budget).expect("a map");
                prop_assert!(page.records.len() <= limit);
                for (key, record) in page.records {
                    let content = record.winner().map(|winner| winner.content.clone());
                    prop_assert!(given.insert((key, content)), "given twice");
                }
                prop_assert!(page.next.is_none_or(|next| next >= start), "it advances");
                from = page.next.and_then(next_key);
            }
            prop_assert_eq!(given, expected);
        }
    }

    #[test]
    fn a_page_ends_with_its_stretch() {
        let mut records = Records::open(MemoryStore::default(), ItemHasher::new("test")).expect("a map");
        for n in 0..300 {
            let key = records.key(blob(n));
            let record = Record::from(vec![write(&Record::default(), node(1), 5, payload(1))]);
            let state = records.hasher().state(&record);
            records.put(key, None, record, state, Token(1), false);
        }
        let request = SnapshotRequest { first: 10, last: 50, after: None };
        let page = page_of(&request, &records).expect("a map");
        let of_partition: u64 = records.summary().partitions()[10..=50].iter().map(|root| root.count).sum();
        assert_eq!((page.give.len() as u64, page.next), (of_partition, None));
    }

    #[test]
    fn only_who_has_less_than_half_takes_a_snapshot() {
        assert!(is_newcomer(root(0), root(LEAST_RECORDS)));
        assert!(!is_newcomer(root(0), root(LEAST_RECORDS - 1)));
        assert!(is_newcomer(root(499), root(1000)));
        assert!(!is_newcomer(root(500), root(1000)));
    }

    #[test]
    fn who_lacks_very_many_here_and_there_reconciles() {
        let (theirs, ours) = (full(300), full(200));
        assert!(may_take(ours.root(), theirs.root()) && !is_newcomer(ours.root(), theirs.root()));
        let mut snapshot = begun(&theirs, &ours);
        assert_eq!(asked(&mut snapshot, Instant(0)), None, "there is no partition to take");
        assert_eq!(snapshot.end(Instant(0)), Some(Ended::Complete(peer(1))));
        assert!(!snapshot.begin(peer(1), theirs.root().count, Instant(0)), "and it does not look again at once");
    }

    #[test]
    fn partitions_go_to_whoever_is_free_and_back_from_who_fails() {
        let theirs = full(1000);
        let mut snapshot = begun(&theirs, &empty());
        snapshot.join(peer(2), 256_000);
        snapshot.join(peer(3), 100_000);
        assert_eq!(asked(&mut snapshot, Instant(0)), Some((peer(1), (0, 0, None))));
        assert_eq!(asked(&mut snapshot, Instant(0)), Some((peer(2), (1, 1, None))));
        assert_eq!(asked(&mut snapshot, Instant(0)), None, "peer 3 has too little");
        assert_eq!(snapshot.reserved(), 2 * SNAPSHOT_PAGE);
        snapshot.on_page(node(1), Some(blob(7)), true, Instant(0));
        assert_eq!(asked(&mut snapshot, Instant(0)), Some((peer(1), (0, 0, Some(blob(7))))), "a stretch goes on");
        snapshot.on_failed(node(1), false, Instant(0));
        snapshot.on_page(node(2), None, true, Instant(0));
        assert_eq!(asked(&mut snapshot, Instant(0)), Some((peer(2), (0, 0, Some(blob(7))))), "where it was, by another");
        snapshot.on_failed(node(2), true, Instant(0));
        assert_eq!(asked(&mut snapshot, Instant(0)), None, "one that is busy is left alone");
        assert_eq!(snapshot.deadline(), Some(Instant(0) + REST));
        assert_eq!(asked(&mut snapshot, Instant(0) + REST), Some((peer(2), (0, 0, Some(blob(7))))));
        snapshot.on_failed(node(2), false, Instant(0) + REST);
        assert_eq!(snapshot.end(Instant(0) + REST), Some(Ended::BrokenOff), "nobody is left");
    }

    #[test]
    fn at_most_four_are_asked_and_only_for_what_there_is_room_for() {
        let mut snapshot = begun(&full(1000), &empty());
        (2..9).for_each(|n| snapshot.join(peer(n), 256_000));
        assert_eq!(snapshot.next(Instant(0), SNAPSHOT_PAGE - 1), None, "no room");
        let asked: Vec<_> = std::iter::from_fn(|| asked(&mut snapshot, Instant(0))).collect();
        assert_eq!(asked.len(), MAX_SOURCES);
    }

    #[test]
    fn a_snapshot_that_was_broken_off_does_not_take_what_is_equal() {
        let theirs = full(600);
        let ours = summary((0..128).flat_map(|partition| (0..600).map(move |n| (partition << 56 | n, 1))));
        let mut snapshot = Snapshot::default();
        assert!(snapshot.begin(peer(1), theirs.root().count, Instant(0)));
        snapshot.next(Instant(0), 0);
        assert_eq!(snapshot.on_partitions(node(1), theirs.partitions(), &ours), 128);
        let mut pages = 0;
        while let Some((_, (first, ..))) = asked(&mut snapshot, Instant(0)) {
            assert!(first >= 128);
            pages += 1;
            snapshot.on_page(node(1), None, true, Instant(0));
        }
        assert_eq!(pages, 128);
        assert_eq!(snapshot.end(Instant(0)), Some(Ended::Complete(peer(1))));
    }

    #[test]
    fn who_fails_before_its_partitions_are_known_is_followed_by_another() {
        let mut snapshot = Snapshot::default();
        assert!(snapshot.begin(peer(1), 1000, Instant(0)));
        assert!(!snapshot.begin(peer(2), 1000, Instant(0)), "one at a time");
        snapshot.join(peer(2), 1000);
        assert_eq!(snapshot.next(Instant(0), 0), Some((peer(1), Question::Partitions)));
        assert_eq!(snapshot.next(Instant(0), 0), None, "one is asked");
        snapshot.on_failed(node(1), false, Instant(0));
        assert_eq!(snapshot.next(Instant(0), 0), Some((peer(2), Question::Partitions)));
    }

    #[test]
    fn crumbs_and_silence_end() {
        let mut snapshot = begun(&full(1000), &empty());
        assert!(asked(&mut snapshot, Instant(0)).is_some());
        snapshot.on_page(node(1), Some(blob(1)), false, Instant(0) + MAX_STALL / 2);
        assert_eq!(snapshot.end(Instant(0) + MAX_STALL / 2), None);
        let end = Instant(0) + MAX_STALL;
        assert_eq!(snapshot.deadline(), Some(end));
        assert_eq!(snapshot.end(end), Some(Ended::BrokenOff), "nothing new came");
        assert!(!snapshot.begin(peer(1), 256_000, end), "meanwhile ordinary reconciliations have their turn");
        assert!(snapshot.begin(peer(1), 256_000, end + MAX_STALL));
    }

    #[test]
    fn a_newcomer_that_gets_nowhere_is_not_left_alone() {
        let mut snapshot = Snapshot::default();
        assert!((0..100).all(|n| snapshot.leaves_alone(node(1), root(n))), "it gets on");
        assert_eq!((0..UNCHANGED).filter(|_| snapshot.leaves_alone(node(1), root(99))).count(), usize::from(UNCHANGED) - 1);
        (0..2000).for_each(|n| _ = snapshot.leaves_alone(NodeId(uuid::Uuid::from_u128(n)), root(1)));
        assert!(snapshot.left_alone.len() <= MAX_LEFT_ALONE);
    }
}
