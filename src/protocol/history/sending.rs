//! Sending: pages of this node's history for others that asked for an update.
//!
//! 1. A page is in the order of this node's deliveries, and holds nothing before which the asker lacks something: what it takes from the front it can
//!    deliver.
//! 2. At most [`MAX_SERVED`] nodes are served at once, and a page reads at most [`MAX_SCANNED`] places, so that the core never stalls.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::history::disk::{HistoryStore, Place};
use crate::history::message::{Channel, MessageId};
use crate::history::talk::{MAX_PIECES, PAGE_BUDGET, Piece, Update, UpdateMe};
use crate::ids::NodeId;
use crate::store::StoreFault;
use crate::time::Instant;

/// Most nodes served at once.
pub(super) const MAX_SERVED: usize = 4;
/// Who has not asked for its next page for so long is served no more.
const IDLE: Duration = Duration::from_secs(2);
/// Most places read for one page.
const MAX_SCANNED: u64 = 4096;
/// How many places are read at a time.
const SCAN: usize = 256;

/// The nodes in the middle of an update, by when they last asked.
#[derive(Debug, Default)]
pub(super) struct Sending {
    served: BTreeMap<NodeId, Instant>,
    /// Pages sent since the start.
    pub(super) pages: u64,
}

impl Sending {
    /// Whether that node may be served now.
    pub(super) fn admit(&mut self, node: NodeId, now: Instant) -> bool {
        self.served.retain(|_, asked| now.since(*asked) < IDLE);
        let free = self.served.len() < MAX_SERVED || self.served.contains_key(&node);
        if free {
            self.served.insert(node, now);
        }
        free
    }

    /// A page was sent.
    pub(super) fn on_sent(&mut self, node: NodeId, last: bool) {
        self.pages += 1;
        if last {
            self.served.remove(&node);
        }
    }

    /// What must hold at all times.
    pub(super) fn check(&self) {
        assert!(self.served.len() <= MAX_SERVED, "no more are served than said");
    }
}

/// Collects pieces until a page is full.
struct Page<'a> {
    store: &'a dyn HistoryStore,
    pieces: Vec<Piece>,
    bytes: usize,
    /// The last slot put into it, or known to the asker.
    slot: u64,
}

impl Page<'_> {
    fn is_full(&self) -> bool {
        self.pieces.len() >= MAX_PIECES || self.bytes >= PAGE_BUDGET
    }

    /// Adds the slots up to that one; `false` if the page was full before.
    fn add_slots(&mut self, to: u64) -> Result<bool, StoreFault> {
        while self.slot < to {
            if self.is_full() {
                return Ok(false);
            }
            let Some((slot, batch)) = self.store.slots(self.slot + 1, 1)?.into_iter().next() else { break };
            self.bytes += batch.messages().map(|message| message.body.bytes().len()).sum::<usize>();
            self.pieces.push(Piece::Slot(slot, batch));
            self.slot = slot;
        }
        Ok(true)
    }

    /// Adds what stands at a place, if the asker lacks it; `false` if the page was full before.
    fn add(&mut self, place: &Place, request: &UpdateMe) -> Result<bool, StoreFault> {
        if let Some(order) = place.order {
            return if order.slot > self.slot { self.add_slots(order.slot) } else { Ok(true) };
        }
        if request.origins.get(&place.id.origin).is_none_or(|last| place.id.sequence <= *last) {
            return Ok(true);
        }
        if self.is_full() {
            return Ok(false);
        }
        if let Some(message) = self.store.message(place.id)? {
            self.bytes += message.body.bytes().len();
            self.pieces.push(Piece::Message(message));
        }
        Ok(true)
    }
}

/// Where the first thing stands that the asker lacks.
fn first_index(request: &UpdateMe, store: &dyn HistoryStore) -> Result<u64, StoreFault> {
    let mut first = store.first_index_after(request.slot)?;
    for (origin, last) in &request.origins {
        let id = MessageId { origin: *origin, channel: Channel::Causal, sequence: last.saturating_add(1) };
        if let Some(place) = store.place(id)? {
            first = first.min(place.index);
        }
    }
    Ok(first)
}

/// The next page for that request.
pub(super) fn page(request: &UpdateMe, store: &dyn HistoryStore) -> Result<Update, StoreFault> {
    let start = if request.from > 0 { request.from } else { first_index(request, store)? };
    let mut page = Page { store, pieces: vec![], bytes: 0, slot: request.slot };
    let mut index = start;
    loop {
        let places = store.places(index, SCAN)?;
        for place in &places {
            if !page.add(place, request)? {
                return Ok(Update { pieces: page.pieces, next: Some(place.index) });
            }
            index = place.index + 1;
        }
        if places.len() < SCAN {
            break;
        }
        if index - start >= MAX_SCANNED {
            return Ok(Update { pieces: page.pieces, next: Some(index) });
        }
    }
    // Slots behind the last message: of an epoch alone, or not delivered here yet.
    let all = page.add_slots(u64::MAX)?;
    Ok(Update { pieces: page.pieces, next: (!all).then_some(index) })
}
