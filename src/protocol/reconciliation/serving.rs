//! What a node answers to those that reconcile with it, and how many of them at once.
//!
//! 1. At most [`MAX_SERVED`] peers have a place. A place is given up by its peer, lost when its peer begins anew or is idle for
//!    [`IDLE`], and taken by another after [`PATIENCE`] of idleness.
//! 2. The cells of one number are those of one instant: the sketch is copied when the place is given.
//! 3. An answer reads [`MAX_SCANNED`] items at most, so that the core never stalls.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::ids::NodeId;
use crate::io::Refusal;
use crate::item::{Item, KeyHash, RecordKey};
use crate::records::{Records, first_key, next_key};
use crate::sketch::{Cell, Sketch};
use crate::store::{Store, StoreFault};
use crate::time::Instant;
use crate::wire::{self, CellsAnswer, CellsRequest, Entry, ItemsAnswer, ItemsRequest, RecordsAnswer, SketchesAnswer, SketchesRequest};

/// Most reconciliations served at once. Each keeps a sketch of 128 KiB.
pub const MAX_SERVED: usize = 4;
/// A place that its peer makes no use of is lost after so long.
pub(super) const IDLE: Duration = Duration::from_secs(10);
/// After so long it is lost if somebody else wants it: a call and its answer travel in less.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// Most items read for one answer: about 50 ms of a core's time.
pub(super) const MAX_SCANNED: usize = 65_536;

/// How many items a scan takes from the store at a time.
const SCAN_PAGE: usize = 1024;
/// When who found no place should come back.
const BUSY: Refusal = Refusal::Busy { retry_after: 1 };

#[derive(Debug)]
struct Place {
    number: u32,
    /// The sketch as it was when the place was given, as long as its peer may ask for it.
    sketch: Option<Sketch>,
    used: Instant,
}

/// The peers that reconcile with this node.
#[derive(Debug, Default)]
pub struct Served {
    places: BTreeMap<NodeId, Place>,
}

impl Served {
    /// A peer begins: gives the sketch as it is now that number and keeps it, if there is a place; `false` if there is none.
    pub fn open(&mut self, peer: NodeId, number: u32, sketch: &Sketch, now: Instant) -> bool {
        self.close(peer);
        let free = self.make_room(now);
        if free {
            self.places.insert(peer, Place { number, sketch: Some(sketch.clone()), used: now });
        }
        free
    }

    /// A peer goes on, or comes with something that needs no kept sketch.
    pub fn enter(&mut self, peer: NodeId, now: Instant) -> Result<(), Refusal> {
        if let Some(place) = self.places.get_mut(&peer) {
            place.used = now;
            return Ok(());
        }
        if !self.make_room(now) {
            return Err(BUSY);
        }
        self.places.insert(peer, Place { number: 0, sketch: None, used: now });
        Ok(())
    }

    /// Cells of the sketch kept under that number.
    pub fn cells(&mut self, peer: NodeId, request: &CellsRequest, now: Instant) -> Result<CellsAnswer, Refusal> {
        let place = self.places.get_mut(&peer).filter(|place| place.number == request.sketch).ok_or(BUSY)?;
        place.used = now;
        let cells = place.sketch.as_ref().and_then(|sketch| sketch.cells().get(request.range())).ok_or(BUSY)?;
        Ok(CellsAnswer { cells: cells.to_vec() })
    }

    /// A peer is done.
    pub fn close(&mut self, peer: NodeId) {
        self.places.remove(&peer);
    }

    /// Gives up what was idle for too long.
    pub fn expire(&mut self, now: Instant) {
        self.places.retain(|_, place| now.since(place.used) < IDLE);
    }

    fn make_room(&mut self, now: Instant) -> bool {
        if self.places.len() >= MAX_SERVED {
            let longest = self.places.iter().min_by_key(|(_, place)| place.used);
            let idle = longest.filter(|(_, place)| now.since(place.used) >= PATIENCE).map(|(peer, _)| *peer);
            idle.into_iter().for_each(|peer| self.close(peer));
        }
        self.places.len() < MAX_SERVED
    }

    /// What must hold at all times.
    pub fn check(&self) {
        assert!(self.places.len() <= MAX_SERVED, "no more reconciliations are served than said");
    }
}

/// The cells of the first of the partitions asked for, as many as may be read at once.
pub fn sketches_of<S: Store>(request: &SketchesRequest, records: &Records<S>) -> Result<SketchesAnswer, StoreFault> {
    let (mut cells, mut scanned): (Vec<Cell>, u64) = (Vec::new(), 0);
    for partition in &request.partitions {
        scanned = scanned.saturating_add(records.summary().partitions()[usize::from(*partition)].count);
        if scanned > MAX_SCANNED as u64 {
            break;
        }
        cells.extend(sketch_of(*partition, request.cells, records)?.cells());
    }
    Ok(SketchesAnswer { cells })
}

/// A sketch of one partition as it is now.
pub(super) fn sketch_of<S: Store>(partition: u8, length: usize, records: &Records<S>) -> Result<Sketch, StoreFault> {
    let mut sketch = Sketch::new(records.hasher().sketch().clone(), length);
    for item in scan(KeyHash::first_of(partition), partition, usize::MAX, records)?.items {
        sketch.insert(item.bits());
    }
    Ok(sketch)
}

/// A page of the items of those partitions.
pub fn items_of<S: Store>(request: &ItemsRequest, records: &Records<S>) -> Result<ItemsAnswer, StoreFault> {
    let Scan { mut items, next } = scan_all(&request.partitions, KeyHash(request.from.unwrap_or(0)), records)?;
    items.sort_unstable();
    Ok(ItemsAnswer { items, next: next.map(|next| next.0) })
}

/// The items of those partitions from `from` on, as many as a message may carry.
pub(super) fn scan_all<S: Store>(partitions: &[u8], from: KeyHash, records: &Records<S>) -> Result<Scan, StoreFault> {
    let mut items = Vec::new();
    for partition in partitions.iter().filter(|partition| **partition >= from.partition()) {
        let limit = wire::MAX_ITEMS.saturating_sub(items.len());
        let found = scan(KeyHash::first_of(*partition).max(from), *partition, limit, records)?;
        items.extend(found.items);
        if found.next.is_some() {
            return Ok(Scan { items, next: found.next });
        }
    }
    Ok(Scan { items, next: None })
}

pub(super) struct Scan {
    pub(super) items: Vec<Item>,
    /// The key hash of the first item that did not fit.
    pub(super) next: Option<KeyHash>,
}

/// The items of one partition from `from` on, `limit` at most.
fn scan<S: Store>(from: KeyHash, partition: u8, limit: usize, records: &Records<S>) -> Result<Scan, StoreFault> {
    let mut items: Vec<Item> = Vec::new();
    let mut start = Some(first_key(from)).filter(|from| from.hash.partition() == partition);
    while let Some(key) = start {
        let page = records.items(key, SCAN_PAGE)?;
        start = if page.len() < SCAN_PAGE { None } else { page.last().and_then(|(key, _)| next_key(*key)) };
        for (_, item) in page {
            if item.key.partition() != partition {
                return Ok(Scan { items, next: None });
            }
            // Items of one key hash stay together, or the page would begin again in their middle.
            if items.len() >= limit && items.last().is_none_or(|last| last.key != item.key) {
                return Ok(Scan { items, next: Some(item.key) });
            }
            items.push(item);
        }
    }
    Ok(Scan { items, next: None })
}

/// Takes records from the front of `keys` until a message is full. Those that may not leave yet are passed over.
pub fn fill<S: Store>(keys: &mut VecDeque<RecordKey>, records: &Records<S>) -> Result<Vec<Entry>, StoreFault> {
    let (mut entries, mut bytes) = (Vec::new(), 0);
    while let Some(key) = keys.front() {
        if let Some(record) = records.shareable(*key)? {
            let entry = Entry { id: key.blob, versions: record };
            bytes += wire::size(&entry);
            if entries.len() == wire::MAX_RECORDS || bytes > wire::RECORDS_BUDGET && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        keys.pop_front();
    }
    Ok(entries)
}

/// The records of those key hashes as they are now: as many as fit into a message, in the order asked.
pub fn records_of<S: Store>(ask: &[KeyHash], records: &Records<S>) -> Result<RecordsAnswer, StoreFault> {
    let (mut give, mut bytes, mut seen) = (Vec::new(), 0, 0);
    for hash in ask.iter().take(wire::MAX_RECORDS) {
        let mut keys: VecDeque<RecordKey> = records.keys(*hash)?.into();
        let entries = fill(&mut keys, records)?;
        bytes += entries.iter().map(wire::size).sum::<usize>();
        if give.len() + entries.len() > wire::MAX_RECORDS || bytes > wire::RECORDS_BUDGET && !give.is_empty() {
            break;
        }
        give.extend(entries);
        seen += 1;
    }
    Ok(RecordsAnswer { give, seen })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::node;
    use crate::sketch::tests::sketch;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn the_cells_of_a_number_are_those_of_one_instant() {
        let (mut served, mut kept) = (Served::default(), sketch(64, [1, 2]));
        assert!(served.open(node(1), 7, &kept, Instant(0)));
        let before = kept.clone();
        kept.insert(3);
        let request = CellsRequest { sketch: 7, from: 8, to: 64 };
        assert_eq!(served.cells(node(1), &request, Instant(0)), Ok(CellsAnswer { cells: before.cells()[8..].to_vec() }));
        assert_eq!(served.cells(node(1), &CellsRequest { sketch: 8, ..request }, Instant(0)), Err(BUSY), "of another number");
        assert_eq!(served.cells(node(2), &request, Instant(0)), Err(BUSY), "somebody else's");
        assert_eq!(served.cells(node(1), &CellsRequest { to: 65, ..request }, Instant(0)), Err(BUSY), "beyond the end");
        assert!(served.open(node(1), 9, &kept, Instant(0)));
        assert_eq!(served.cells(node(1), &request, Instant(0)), Err(BUSY), "it began anew");
    }

    #[test]
    fn a_fifth_waits_until_a_place_is_free_or_idle() {
        let (mut served, kept) = (Served::default(), sketch(64, []));
        (1..5).for_each(|n| assert!(served.open(node(n), 1, &kept, Instant(0))));
        assert!(!served.open(node(5), 1, &kept, Instant(SECOND)));
        assert_eq!(served.enter(node(5), Instant(SECOND)), Err(BUSY));
        served.close(node(2));
        assert!(served.open(node(5), 1, &kept, Instant(SECOND)));
        assert_eq!(served.enter(node(1), Instant(SECOND)), Ok(()));
        assert!(served.open(node(6), 1, &kept, Instant(2 * SECOND)), "3 was idle for 2 s");
        let request = CellsRequest { sketch: 1, from: 0, to: 1 };
        assert_eq!(served.cells(node(3), &request, Instant(2 * SECOND)), Err(BUSY));
        served.expire(Instant(11 * SECOND));
        assert_eq!(served.places.keys().copied().collect::<Vec<_>>(), [node(6)]);
    }
}
