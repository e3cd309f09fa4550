//! Background verification: is the summary still that of the records?
//!
//! The summary is kept in step with every change and otherwise never looked at again, so a fault in it would cost reconciliations
//! that find nothing, for ever. One partition at a time is counted again from the records, slowly.
//!
//! 1. Each input costs at most one slice of [`SLICE`] items.
//! 2. Between two slices, what is counted is the sum of the *present* items before the cursor: a change of a record there is made
//!    good in it at once, one behind the cursor is met when the cursor gets there.
//! 3. The summary is replaced only after two disagreements of the same partition in a row, equal in what is missing or too much, and
//!    then as a whole, by one counted afresh in the same way.

use std::time::Duration;

use crate::item::{Item, KeyHash, RecordKey};
use crate::records::{Records, first_key, next_key};
use crate::store::{Store, StoreFault};
use crate::summary::{Root, Summary};
use crate::time::Instant;

/// How often a partition is counted again: all of them in four and a half hours.
pub const INTERVAL: Duration = Duration::from_secs(60);
/// How many items are counted at a time.
pub const SLICE: usize = 4096;
/// The pause between two slices, in which others have their turn.
const PAUSE: Duration = Duration::from_millis(20);

/// What is counted afresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Partition(u8),
    Everything,
}

impl Scope {
    fn first(self) -> RecordKey {
        match self {
            Self::Partition(partition) => first_key(KeyHash::first_of(partition)),
            Self::Everything => first_key(KeyHash(0)),
        }
    }

    fn holds(self, key: KeyHash) -> bool {
        match self {
            Self::Partition(partition) => key.partition() == partition,
            Self::Everything => true,
        }
    }
}

/// A count under way.
#[derive(Debug)]
struct Count {
    scope: Scope,
    /// All items of the scope before this key are counted.
    cursor: RecordKey,
    counted: Summary,
}

/// What one partition's items lack to its summary: sum and number.
type Gap = (u128, u64);

/// What a slice led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// A partition adds up to its summary.
    Agrees(u8),
    /// It does not.
    Disagrees(u8),
    /// The summary was replaced: what it was, what it is.
    Repaired(Root, Root),
}

/// The background verification of a node.
#[derive(Debug)]
pub struct Verification {
    /// The partition to be counted next.
    partition: u8,
    next: Instant,
    count: Option<Count>,
    /// The partition that was counted last, if it disagreed, and by how much.
    suspicion: Option<(u8, Gap)>,
}

impl Verification {
    /// Begins with `partition`, an interval from now.
    pub fn new(partition: u8, now: Instant) -> Self {
        Self { partition, next: now + INTERVAL, count: None, suspicion: None }
    }

    /// When it goes on.
    pub fn deadline(&self) -> Instant {
        self.next
    }

    /// A record changed from one item to another; `before` is `None` where it is new.
    pub fn on_change(&mut self, key: RecordKey, before: Option<Item>, after: Item) {
        let Some(count) = &mut self.count else { return };
        if count.scope.holds(key.hash) && key < count.cursor {
            before.into_iter().for_each(|before| count.counted.remove(before));
            count.counted.add(after);
        }
    }

    /// Counts a slice if its time has come.
    pub fn on_deadline<S: Store>(&mut self, now: Instant, records: &mut Records<S>) -> Result<Option<Finding>, StoreFault> {
        self.count_on(now, records, SLICE)
    }

    fn count_on<S: Store>(&mut self, now: Instant, records: &mut Records<S>, slice: usize) -> Result<Option<Finding>, StoreFault> {
        if now < self.next {
            return Ok(None);
        }
        let scope = Scope::Partition(self.partition);
        let count = self.count.get_or_insert_with(|| Count::new(scope, records));
        self.next = now + PAUSE;
        if !count.add_slice(records, slice)? {
            return Ok(None);
        }
        Ok(self.count.take().map(|count| self.conclude(count, now, records)))
    }

    fn conclude<S: Store>(&mut self, count: Count, now: Instant, records: &mut Records<S>) -> Finding {
        let Scope::Partition(partition) = count.scope else {
            self.next = now + INTERVAL;
            let before = records.replace_summary(count.counted);
            return Finding::Repaired(before, records.summary().root());
        };
        let place = usize::from(partition);
        let (counted, kept) = (count.counted.partitions()[place], records.summary().partitions()[place]);
        self.next = now + INTERVAL;
        if counted == kept {
            self.suspicion = None;
            self.partition = partition.wrapping_add(1);
            return Finding::Agrees(partition);
        }
        let found = (partition, (counted.sum.wrapping_sub(kept.sum), counted.count.wrapping_sub(kept.count)));
        if self.suspicion.replace(found) == Some(found) {
            self.suspicion = None;
            self.partition = partition.wrapping_add(1);
            self.count = Some(Count::new(Scope::Everything, records));
            self.next = now + PAUSE;
        }
        Finding::Disagrees(partition)
    }
}

impl Count {
    fn new<S: Store>(scope: Scope, records: &Records<S>) -> Self {
        Self { scope, cursor: scope.first(), counted: Summary::new(records.hasher().sketch().clone()) }
    }

    /// Counts the next slice; whether it was the last.
    fn add_slice<S: Store>(&mut self, records: &Records<S>, slice: usize) -> Result<bool, StoreFault> {
        let page = records.items(self.cursor, slice)?;
        let inside = page.iter().take_while(|(key, _)| self.scope.holds(key.hash));
        let counted = inside.map(|(_, item)| self.counted.add(*item)).count();
        if counted < page.len() || page.len() < slice {
            return Ok(true);
        }
        match page.last().and_then(|(key, _)| next_key(*key)) {
            Some(cursor) => self.cursor = cursor,
            None => return Ok(true),
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Content;
    use crate::ids::BlobId;
    use crate::io::Token;
    use crate::item::StateHash;
    use crate::memory::MemoryStore;
    use crate::record::tests::{node, payload, write};

    fn blob(n: u64) -> BlobId {
        BlobId(uuid::Uuid::from_u128(u128::from(n)))
    }

    fn records(count: u64) -> Records<MemoryStore> {
        let mut records = Records::open(MemoryStore::default(), crate::item::ItemHasher::new("test")).expect("a map");
        (0..count).for_each(|n| change(&mut records, &mut None, n, n + 1));
        records
    }

    /// Writes over a blob, as the node does.
    fn change(records: &mut Records<MemoryStore>, verification: &mut Option<&mut Verification>, n: u64, stamp: u64) {
        let key = records.key(blob(n));
        let before = records.record(key).expect("a map");
        let content = if stamp.is_multiple_of(3) { Content::Tombstone } else { payload(1) };
        let mut after = before.clone();
        after.insert(write(&before, node(1), stamp, content));
        let (before, after_item) = (records.item(key, &before), records.item(key, &after).expect("written"));
        if let Some(verification) = verification {
            verification.on_change(key, before, after_item);
        }
        records.put(key, before, after.clone(), after_item.state, Token(stamp), false);
        // Every other one is on disk at once.
        if stamp.is_multiple_of(2) {
            records.store().put(key, after_item.state, after);
            records.on_persisted(Token(stamp), &[key]);
        }
    }

    /// An item that is nowhere.
    fn ghost(partition: u8) -> Item {
        Item { key: KeyHash::first_of(partition), state: StateHash(7) }
    }

    /// Counts on until something is found.
    fn found(verification: &mut Verification, records: &mut Records<MemoryStore>) -> Finding {
        loop {
            if let Some(finding) = verification.on_deadline(verification.deadline(), records).expect("a map") {
                return finding;
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Invariant 2, and that no count in between ever disagrees.
        #[test]
        fn changes_between_slices_are_accounted_for(changes in prop::collection::vec((0..300u64, 0..4usize), 1..120)) {
            let mut records = records(200);
            let mut verification = Verification::new(0, Instant(0));
            verification.count = Some(Count::new(Scope::Everything, &records));
            for (stamp, (n, slices)) in (1000..).zip(changes) {
                change(&mut records, &mut Some(&mut verification), n, stamp);
                for _ in 0..slices {
                    let (partition, deadline) = (verification.partition, verification.deadline());
                    match verification.count_on(deadline, &mut records, 16).expect("a map") {
                        None => {}
                        Some(Finding::Repaired(before, after)) => prop_assert_eq!(before, after),
                        Some(finding) => prop_assert_eq!(finding, Finding::Agrees(partition)),
                    }
                    if let Some(count) = &verification.count {
                        let present = records.items(count.scope.first(), usize::MAX).expect("a map");
                        let behind = present.iter().filter(|(key, _)| count.scope.holds(key.hash) && *key < count.cursor);
                        let mut afresh = Count::new(Scope::Everything, &records).counted;
                        behind.for_each(|(_, item)| afresh.add(*item));
                        prop_assert_eq!(&afresh, &count.counted);
                    }
                }
            }
        }
    }

    #[test]
    fn a_wrong_summary_is_repaired_after_two_equal_disagreements() {
        let mut records = records(500);
        let right = records.summary().clone();
        let mut verification = Verification::new(9, Instant(0));
        assert_eq!(found(&mut verification, &mut records), Finding::Agrees(9));
        records.miscount(ghost(10));
        let wrong = records.summary().root();
        assert_eq!(found(&mut verification, &mut records), Finding::Disagrees(10));
        assert_eq!(records.summary().root(), wrong, "one disagreement repairs nothing");
        assert_eq!(found(&mut verification, &mut records), Finding::Disagrees(10));
        assert_eq!(found(&mut verification, &mut records), Finding::Repaired(wrong, right.root()));
        assert_eq!(*records.summary(), right);
        assert_eq!(found(&mut verification, &mut records), Finding::Agrees(11), "and it goes on behind it");
    }

    #[test]
    fn disagreements_that_differ_repair_nothing() {
        let mut records = records(500);
        let mut verification = Verification::new(10, Instant(0));
        for _ in 0..4 {
            records.miscount(ghost(10));
            assert_eq!(found(&mut verification, &mut records), Finding::Disagrees(10));
        }
        assert_eq!(found(&mut verification, &mut records), Finding::Disagrees(10), "equal to the last");
        assert!(matches!(found(&mut verification, &mut records), Finding::Repaired(..)));
    }

    #[test]
    fn a_partition_is_counted_a_minute_and_a_slice_at_a_time() {
        let mut records = records(500);
        let several = (0..=u8::MAX).zip(records.summary().partitions()).find(|(_, root)| root.count > 1);
        let partition = several.expect("some partition has several").0;
        let mut verification = Verification::new(partition, Instant(0));
        assert_eq!(verification.deadline(), Instant(0) + INTERVAL);
        assert_eq!(verification.on_deadline(Instant(1), &mut records), Ok(None));
        assert_eq!(verification.count_on(Instant(0) + INTERVAL, &mut records, 1), Ok(None), "the first of some");
        assert_eq!(verification.deadline(), Instant(0) + INTERVAL + PAUSE);
        let at = verification.deadline();
        assert!(matches!(verification.count_on(at, &mut records, 4096), Ok(Some(Finding::Agrees(found))) if found == partition));
        assert_eq!(verification.deadline(), at + INTERVAL);
    }
}
