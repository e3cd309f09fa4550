//! The large payloads of which some bytes are here or on their way: who is at them, who reads them, what earlier lives left.
//!
//! 1. There is one [`Arrival`] of a payload, shared by all its transfers and readers.
//! 2. What was verified stays while the payload is missing: in memory and open while somebody is at it, and of those that nobody is at,
//!    the latest [`MAX_KEPT`]; in `partial/` in any case. A transfer that brought nothing leaves nothing.
//! 3. What an earlier life left counts only as far as it matches the hash now. It is read when the first transfer asks for it, so the
//!    start of a node does not follow its unfinished payloads.
//! 4. It goes when the payload came by another way, or nobody misses it any more.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use gossip_cdn_protocol::parts::Parts;
use gossip_cdn_protocol::{ContentHash, NodeId, StoreFault};
use tokio::sync::watch;

use super::arriving::Arriving;
use super::folder::{Partial, TempFile};
use super::{Shared, lock, tree};

/// Most unfinished payloads kept open while no transfer is at them. A guess: far below the files that a process may have open.
pub(super) const MAX_KEPT: usize = 64;

/// What changed of an arrival, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Changes {
    /// Groups that came.
    pub(super) groups: u64,
    /// Parts given back or taken over, transfers that ended.
    pub(super) others: u64,
}

pub(super) struct State {
    pub(super) parts: Parts,
    /// Who is sending at present, the first to begin first.
    pub(super) holders: Vec<NodeId>,
    /// Transfers at it.
    pub(super) transfers: usize,
    /// The payload is here, or nobody misses it, or nothing came and nobody is at it: who reads it may go on.
    pub(super) over: bool,
    /// How many transfers of any payload had begun when the last one let go of it.
    let_go: u64,
}

/// One payload's bytes so far.
pub(super) struct Arrival {
    pub(super) hash: ContentHash,
    pub(super) size: u64,
    pub(super) data: TempFile,
    pub(super) outboard: TempFile,
    pub(super) changed: watch::Sender<Changes>,
    pub(super) readers: AtomicUsize,
    /// Whether it is durable under its name.
    pub(super) placed: Arc<tokio::sync::Mutex<bool>>,
    state: Mutex<State>,
}

impl Arrival {
    fn new(hash: ContentHash, size: u64, (data, outboard): (TempFile, TempFile), here: Vec<Range<u64>>) -> Self {
        let parts = Parts::resume(size, here);
        let state = State { parts, holders: Vec::new(), transfers: 0, over: false, let_go: 0 };
        let (changed, readers) = (watch::Sender::default(), AtomicUsize::new(0));
        Self { hash, size, data, outboard, changed, readers, placed: Arc::default(), state: Mutex::new(state) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// A group came.
    pub(super) fn advanced(&self) {
        self.changed.send_modify(|changes| changes.groups = changes.groups.wrapping_add(1));
    }

    /// Something else changed that transfers or readers may wait for.
    pub(super) fn stirred(&self) {
        self.changed.send_modify(|changes| changes.others = changes.others.wrapping_add(1));
    }

    /// Whether nobody wants it any more.
    pub(super) fn is_pointless(&self, state: &State) -> bool {
        state.over && self.readers.load(Ordering::Acquire) == 0
    }

    /// Its files go: at once, unless some transfer goes on for its readers.
    fn discard(&self, state: &State, shared: &Shared) {
        self.data.discard();
        self.outboard.discard();
        if state.transfers == 0 {
            for file in [&self.data, &self.outboard] {
                shared.folder.unlink(file);
            }
        }
    }
}

#[derive(Default)]
struct Known {
    arriving: BTreeMap<ContentHash, Arc<Arrival>>,
    /// In `partial/` only.
    left: BTreeMap<ContentHash, Partial>,
}

/// All arrivals. Bounded by the transfers under way and [`MAX_KEPT`], and by the payloads that are missing.
pub(super) struct Arrivals {
    known: Mutex<Known>,
    /// Held while what an earlier life left is read: one at a time, off the disk that everybody needs.
    resuming: Mutex<()>,
    /// Counts the transfers begun, so that readers who wait for one look again.
    begun: watch::Sender<u64>,
}

impl Arrivals {
    /// With what earlier lives left.
    pub(super) fn new(left: BTreeMap<ContentHash, Partial>) -> Self {
        let known = Known { arriving: BTreeMap::new(), left };
        Self { known: Mutex::new(known), resuming: Mutex::new(()), begun: watch::Sender::new(0) }
    }

    /// A transfer begins; what came before is kept. Blocks while what an earlier life left is read.
    pub(super) fn join(&self, shared: &Shared, hash: ContentHash, size: u64) -> Result<Arc<Arrival>, StoreFault> {
        let no_room = |error: std::io::Error| StoreFault(format!("no room for payload {hash}: {error}"));
        if let Some(arrival) = self.join_known(shared, hash, size)? {
            return Ok(arrival);
        }
        let _one_at_a_time;
        let mut resumed = None;
        if lock(&self.known).left.contains_key(&hash) {
            _one_at_a_time = lock(&self.resuming);
            if let Some(arrival) = self.join_known(shared, hash, size)? {
                return Ok(arrival);
            }
            resumed = self.resume(shared, hash, size);
        }
        let received = resumed.as_ref().map_or(0, |arrival| arrival.state().parts.received());
        shared.require_room(size - received).map_err(no_room)?;
        let mut known = lock(&self.known);
        // Another transfer may have been faster, and what was read may not be missing any more.
        let faster = known.arriving.get(&hash).filter(|arrival| arrival.size == size).map(Arc::clone);
        let fresh = match (faster, resumed) {
            (Some(arrival), _) => arrival,
            (None, Some(resumed)) if known.left.remove(&hash).is_some() => {
                shared.traffic.resumed(received);
                Arc::new(resumed)
            }
            (None, _) => Arc::new(Arrival::new(hash, size, shared.folder.partial(hash, size).map_err(no_room)?, Vec::new())),
        };
        fresh.state().transfers += 1;
        known.arriving.insert(hash, Arc::clone(&fresh));
        drop(known);
        self.begin();
        Ok(fresh)
    }

    /// The arrival that is known of that size. One of another size that nobody is at goes: a record lied, then or now.
    fn join_known(&self, shared: &Shared, hash: ContentHash, size: u64) -> Result<Option<Arc<Arrival>>, StoreFault> {
        let mut known = lock(&self.known);
        if known.left.get(&hash).is_some_and(|left| left.size != size)
            && let Some(left) = known.left.remove(&hash)
        {
            remove(shared, &left);
        }
        let Some(arrival) = known.arriving.get(&hash).map(Arc::clone) else { return Ok(None) };
        let mut state = arrival.state();
        if arrival.size == size {
            state.transfers += 1;
            drop(state);
            drop(known);
            self.begin();
            return Ok(Some(arrival));
        }
        if state.transfers > 0 {
            return Err(StoreFault(format!("payload {hash} is arriving in another size")));
        }
        arrival.discard(&state, shared);
        drop(state);
        known.arriving.remove(&hash);
        Ok(None)
    }

    fn begin(&self) {
        self.begun.send_modify(|begun| *begun = begun.wrapping_add(1));
    }

    /// Reads what an earlier life left, as far as it is right.
    fn resume(&self, shared: &Shared, hash: ContentHash, size: u64) -> Option<Arrival> {
        let left = lock(&self.known).left.get(&hash).cloned()?;
        let read = || {
            let (data, outboard) = shared.folder.open_partial(&left)?;
            let here = tree::verified(hash, size, &data.file, &outboard.file)?;
            Ok::<_, std::io::Error>(Arrival::new(hash, size, (data, outboard), here))
        };
        read().inspect_err(|error| tracing::warn!(%hash, %error, "what is here of a payload cannot be read; it is fetched anew")).ok()
    }

    /// A transfer ends. Nobody at it for now: it is kept only if that saves a later transfer something.
    pub(super) fn leave(&self, shared: &Shared, arrival: &Arc<Arrival>, holder: Option<NodeId>) {
        let mut known = lock(&self.known);
        let mut state = arrival.state();
        state.transfers -= 1;
        if let Some(place) = state.holders.iter().position(|other| Some(*other) == holder) {
            state.holders.remove(place);
        }
        state.let_go = *self.begun.borrow();
        let (idle, empty, over) = (state.transfers == 0, state.parts.received() == 0, state.over);
        if idle && (empty || over) {
            arrival.discard(&state, shared);
        }
        // The next transfer begins another arrival: who reads this one looks for that.
        state.over |= idle && empty;
        drop(state);
        arrival.stirred();
        if idle && empty && known.arriving.get(&arrival.hash).is_some_and(|kept| Arc::ptr_eq(kept, arrival)) {
            known.arriving.remove(&arrival.hash);
        }
        if idle {
            known.close_surplus();
        }
    }

    /// A payload is here now, or not missing any more. Transfers at it go on while it is read.
    pub(super) fn forget(&self, shared: &Shared, hash: ContentHash) {
        let mut known = lock(&self.known);
        let (arrival, left) = (known.arriving.remove(&hash), known.left.remove(&hash));
        drop(known);
        if let Some(arrival) = arrival {
            let mut state = arrival.state();
            state.over = true;
            arrival.discard(&state, shared);
            drop(state);
            arrival.stirred();
        }
        if let Some(left) = left {
            remove(shared, &left);
        }
    }

    /// A payload was damaged here: what is right of it is there for the transfer that fetches it, unless one is at it already.
    pub(super) fn keep(&self, shared: &Shared, hash: ContentHash, left: Partial) {
        let mut known = lock(&self.known);
        let surplus = if known.arriving.contains_key(&hash) { Some(left) } else { known.left.insert(hash, left) };
        drop(known);
        if let Some(surplus) = surplus {
            remove(shared, &surplus);
        }
    }

    /// A reader of the payload, if it is arriving.
    pub(super) fn reader(&self, hash: ContentHash) -> Option<Arriving> {
        let known = lock(&self.known);
        let arrival = known.arriving.get(&hash).filter(|arrival| arrival.state().transfers > 0)?;
        Some(Arriving::new(Arc::clone(arrival)))
    }

    /// Waits until the payload is arriving.
    pub(super) async fn next_reader(&self, hash: ContentHash) -> Arriving {
        let mut begun = self.begun.subscribe();
        loop {
            begun.mark_unchanged();
            if let Some(reader) = self.reader(hash) {
                return reader;
            }
            if begun.changed().await.is_err() {
                // The sender is a sibling field, so it lives as long as this.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Known {
    /// Closes the files of the payload that was let go longest ago, if there are too many.
    fn close_surplus(&mut self) {
        let idle = || self.arriving.values().filter(|arrival| arrival.state().transfers == 0);
        if idle().count() <= MAX_KEPT {
            return;
        }
        let oldest = idle().min_by_key(|arrival| arrival.state().let_go).map(|arrival| arrival.hash);
        if let Some(arrival) = oldest.and_then(|hash| self.arriving.remove(&hash)) {
            self.left.insert(arrival.hash, Partial::of(arrival.size, &arrival.data));
        }
    }
}

fn remove(shared: &Shared, left: &Partial) {
    if let Err(error) = shared.folder.remove_partial(left) {
        tracing::warn!(%error, "a part of a payload that is not missing stays until the next start");
    }
}
