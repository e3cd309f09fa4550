//! Reconciliation: two nodes whose roots differ find out where, and give each other what is missing.
//!
//! In this release the difference is found by partitions: the roots of the 256 partitions are compared, and the items of those that
//! differ are sent, 16 bytes each. Its cost follows the size of the differing partitions; the sketch of the next release will make
//! it follow the difference and slot in before this step, which then serves very large differences.
//!
//! 1. A node runs at most one reconciliation as initiator.
//! 2. Each step is a pure function of the two sets at its own time; a change in between costs at most another exchange, since
//!    records are merged, never copied.
//! 3. Every page is bounded, and a session ends after [`MAX_CALLS`] calls: the next exchange goes on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ids::NodeId;
use crate::io::Target;
use crate::item::{Item, KeyHash, RecordKey};
use crate::records::{Records, first_key};
use crate::store::{Store, StoreFault};
use crate::summary::PARTITIONS;
use crate::wire::{self, Entry, Items, Partitions, RecordsAnswer, RecordsRequest, Request};

/// Most calls of one session. A guess: a million items and as many records in pages.
pub const MAX_CALLS: u32 = 4096;

/// How many items a scan takes at a time.
const SCAN_PAGE: usize = 1024;

/// The reconciliation that this node runs as initiator.
#[derive(Debug, Default)]
pub struct Reconciliation {
    session: Option<Session>,
}

#[derive(Debug)]
struct Session {
    peer: Target,
    /// Where the next page of items begins; `None` when there is none.
    next: Option<u64>,
    ask: VecDeque<KeyHash>,
    give: VecDeque<RecordKey>,
    calls: u32,
    /// The records it brought that changed something, as long as they are few enough to be pushed on.
    brought: Vec<RecordKey>,
}

impl Reconciliation {
    /// Begins with a peer whose root differs, unless one is under way.
    pub fn begin(&mut self, peer: Target) -> bool {
        let free = self.session.is_none();
        if free {
            let (ask, give) = (VecDeque::new(), VecDeque::new());
            self.session = Some(Session { peer, next: Some(0), ask, give, calls: 0, brought: vec![] });
        }
        free
    }

    /// The peer of the session under way.
    pub fn peer(&self) -> Option<NodeId> {
        self.session.as_ref().and_then(|session| session.peer.id)
    }

    /// The next call, or `None` when the session is at its end (see [`Self::end`]).
    pub fn step<S: Store>(&mut self, records: &Records<S>) -> Result<Option<(Target, Request)>, StoreFault> {
        let Some(session) = &mut self.session else { return Ok(None) };
        if session.calls >= MAX_CALLS {
            return Ok(None);
        }
        session.calls += 1;
        if !session.ask.is_empty() || !session.give.is_empty() {
            let give = fill(&mut session.give, records)?;
            let ask = session.ask.iter().take(wire::MAX_RECORDS).copied().collect();
            return Ok(Some((session.peer.clone(), Request::Records(RecordsRequest { give, ask }))));
        }
        let Some(from) = session.next.take() else { return Ok(None) };
        let roots = records.summary().partitions().to_vec();
        Ok(Some((session.peer.clone(), Request::Partitions(Partitions { roots, from: Some(from).filter(|from| *from > 0) }))))
    }

    /// The peer sent the items of the partitions that differ: what is missing on either side is queued.
    pub fn on_items<S: Store>(&mut self, from: Option<u64>, items: Items, records: &Records<S>) -> Result<(), StoreFault> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let Difference { ask, give, next } = difference(from, &items, records)?;
        // A page that does not advance would be asked for again for ever.
        session.next = next.filter(|next| *next > from.unwrap_or(0));
        session.ask.extend(ask);
        session.give.extend(give);
        Ok(())
    }

    /// The peer looked at `seen` of the records asked for, and those given changed `changed` here.
    pub fn on_records(&mut self, seen: usize, changed: &[RecordKey]) {
        let Some(session) = &mut self.session else { return };
        // A peer that looks at nothing would be asked for ever.
        let seen = seen.max(1).min(session.ask.len());
        session.ask.drain(..seen);
        let room = (crate::spread::MAX_PUSHED_ON + 1).saturating_sub(session.brought.len());
        session.brought.extend(changed.iter().take(room));
    }

    /// Ends the session; returns the records to push on: all it brought, if they were few.
    pub fn end(&mut self) -> Vec<RecordKey> {
        let brought = self.session.take().map(|session| session.brought).unwrap_or_default();
        if brought.len() <= crate::spread::MAX_PUSHED_ON { brought } else { vec![] }
    }
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

/// What a node answers to the partitions of another: the items of those that differ.
pub fn items_of<S: Store>(theirs: &Partitions, records: &Records<S>) -> Result<Items, StoreFault> {
    let ours = records.summary().partitions();
    let differs = |partition: &u8| theirs.roots.get(usize::from(*partition)) != ours.get(usize::from(*partition));
    let partitions: Vec<u8> = (0..=u8::MAX).filter(differs).collect();
    debug_assert_eq!(theirs.roots.len(), PARTITIONS, "validated");
    let from = KeyHash(theirs.from.unwrap_or(0));
    let mut items = Vec::new();
    let mut next = None;
    for partition in partitions.iter().filter(|partition| **partition >= from.partition()) {
        let found = scan(KeyHash::first_of(*partition).max(from), *partition, wire::MAX_ITEMS - items.len(), records)?;
        items.extend(found.items.into_iter().map(|(_, item)| item));
        next = found.next.map(|next| next.0);
        if next.is_some() {
            break;
        }
    }
    items.sort_unstable();
    Ok(Items { partitions, items, next })
}

struct Scan {
    items: Vec<(RecordKey, Item)>,
    /// The key hash of the first item that did not fit.
    next: Option<KeyHash>,
}

/// The items of one partition from `from` on, `limit` at most.
fn scan<S: Store>(from: KeyHash, partition: u8, limit: usize, records: &Records<S>) -> Result<Scan, StoreFault> {
    let mut items: Vec<(RecordKey, Item)> = Vec::new();
    let mut start = Some(first_key(from));
    while let Some(key) = start {
        let page = records.items(key, SCAN_PAGE)?;
        start = if page.len() < SCAN_PAGE { None } else { page.last().and_then(|(key, _)| crate::records::next_key(*key)) };
        for (key, item) in page {
            if key.hash.partition() != partition {
                return Ok(Scan { items, next: None });
            }
            // Items of one key hash stay together, or the page would begin again in their middle.
            if items.len() >= limit && items.last().is_none_or(|(_, last)| last.key != item.key) {
                return Ok(Scan { items, next: Some(item.key) });
            }
            items.push((key, item));
        }
    }
    Ok(Scan { items, next: None })
}

/// What a page of the peer's items tells.
struct Difference {
    ask: Vec<KeyHash>,
    give: Vec<RecordKey>,
    /// Where the next page begins: where theirs does, or earlier where this node has more items than a page holds.
    next: Option<u64>,
}

/// Compares the peer's page of items with this node's own, [`wire::MAX_ITEMS`] of them at most.
fn difference<S: Store>(from: Option<u64>, theirs: &Items, records: &Records<S>) -> Result<Difference, StoreFault> {
    let mut states: BTreeMap<KeyHash, Vec<Item>> = BTreeMap::new();
    for item in &theirs.items {
        states.entry(item.key).or_default().push(*item);
    }
    let from = KeyHash(from.unwrap_or(0));
    let mut next = theirs.next;
    let mut ours = Vec::new();
    for partition in theirs.partitions.iter().filter(|partition| **partition >= from.partition()) {
        let found = scan(KeyHash::first_of(*partition).max(from), *partition, wire::MAX_ITEMS.saturating_sub(ours.len()), records)?;
        ours.extend(found.items);
        if let Some(cut) = found.next {
            next = Some(next.map_or(cut.0, |next| next.min(cut.0)));
            break;
        }
    }
    let in_page = |key: KeyHash| next.is_none_or(|next| key.0 < next);
    let known: BTreeSet<Item> = ours.iter().map(|(_, item)| *item).collect();
    let give = ours.iter().filter(|(_, item)| in_page(item.key) && !states.get(&item.key).is_some_and(|theirs| theirs.contains(item)));
    let give = give.map(|(key, _)| *key).collect();
    let lacking = |(key, items): (KeyHash, Vec<Item>)| (in_page(key) && items.iter().any(|item| !known.contains(item))).then_some(key);
    let ask = states.into_iter().filter_map(lacking).collect();
    Ok(Difference { ask, give, next })
}

/// What a node answers to one that asks for records: as many as fit, in the order asked.
pub fn records_of<S: Store>(ask: &[KeyHash], records: &Records<S>) -> Result<RecordsAnswer, StoreFault> {
    let (mut give, mut bytes, mut seen) = (Vec::new(), 0, 0);
    for hash in ask {
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
