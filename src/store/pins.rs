//! Pins: payloads that must not be collected though no record claims them yet.
//!
//! 1. A payload that is pinned is not condemned.
//! 2. While a payload is condemned (its row is being removed, its file unlinked) no file of that name is put in place: otherwise the
//!    unlink would take the new file. [`Pins::wait_until_spared`] is where the placing waits.
//! 3. A payload that was spared only because of a pin is looked at again when its last pin goes.
//!
//! Bounded by the uploads and transfers under way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use gossip_cdn_protocol::ContentHash;

use super::{Shared, lock};

#[derive(Default)]
struct State {
    /// How many pins a payload has; absent at none.
    counts: BTreeMap<ContentHash, usize>,
    /// Being collected.
    condemned: BTreeSet<ContentHash>,
    /// Unclaimed, and here only because they are pinned.
    spared: BTreeSet<ContentHash>,
    /// Of the spared, those whose last pin is gone: the writer looks at them next.
    released: BTreeSet<ContentHash>,
}

/// Who is pinned and who is condemned.
#[derive(Default)]
pub(super) struct Pins {
    state: Mutex<State>,
    changed: Condvar,
    /// Whether everything is as if it were pinned.
    spares_all: bool,
}

impl Pins {
    /// Pins that let nothing be condemned.
    pub(super) fn sparing() -> Self {
        Self { spares_all: true, ..Self::default() }
    }

    /// Condemns a payload that nobody claims, unless it is pinned.
    pub(super) fn condemn(&self, hash: ContentHash) -> bool {
        let mut state = lock(&self.state);
        let pinned = self.spares_all || state.counts.contains_key(&hash);
        if pinned {
            state.spared.insert(hash);
        } else {
            state.spared.remove(&hash);
            state.condemned.insert(hash);
        }
        !pinned
    }

    /// Condemns the files of a damaged payload, unless it is pinned: then a good copy may be taking their names.
    pub(super) fn condemn_damaged(&self, hash: ContentHash) -> bool {
        let mut state = lock(&self.state);
        let free = !state.counts.contains_key(&hash);
        if free {
            state.condemned.insert(hash);
        }
        free
    }

    /// A record claims it now.
    pub(super) fn claimed(&self, hash: ContentHash) {
        let mut state = lock(&self.state);
        state.spared.remove(&hash);
        state.released.remove(&hash);
    }

    /// The collection of these is over, done or not.
    pub(super) fn spare(&self, hashes: &[ContentHash]) {
        let mut state = lock(&self.state);
        for hash in hashes {
            state.condemned.remove(hash);
        }
        self.changed.notify_all();
    }

    /// No collection goes on any more.
    pub(super) fn spare_all(&self) {
        lock(&self.state).condemned.clear();
        self.changed.notify_all();
    }

    /// The unclaimed payloads whose last pin is gone since the last call.
    pub(super) fn take_released(&self) -> BTreeSet<ContentHash> {
        std::mem::take(&mut lock(&self.state).released)
    }

    /// Condemns a payload of which there is no row, unless it is pinned.
    pub(super) fn condemn_absent(&self, hash: ContentHash) -> bool {
        let mut state = lock(&self.state);
        let pinned = state.counts.contains_key(&hash);
        if !pinned {
            state.condemned.insert(hash);
        }
        !pinned
    }

    /// All unclaimed payloads, of a store that was opened again: those that are not pinned are looked at next, the others when their pins go.
    pub(super) fn release_unpinned(&self, unclaimed: Vec<ContentHash>) {
        let mut state = lock(&self.state);
        let (spared, released) = unclaimed.into_iter().partition(|hash| state.counts.contains_key(hash));
        (state.spared, state.released) = (spared, released);
    }

    /// Blocks while the payload is being collected: for a commit and an unlink at most. The caller has pinned it.
    pub(super) fn wait_until_spared(&self, hash: ContentHash) {
        let mut state = lock(&self.state);
        while state.condemned.contains(&hash) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Keeps a payload from being collected for as long as it lives.
pub struct Pin {
    shared: Arc<Shared>,
    hash: ContentHash,
}

impl Pin {
    pub(super) fn new(shared: &Arc<Shared>, hash: ContentHash) -> Self {
        *lock(&shared.pins.state).counts.entry(hash).or_default() += 1;
        Self { shared: Arc::clone(shared), hash }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.pins.state);
        let Some(count) = state.counts.get_mut(&self.hash) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        state.counts.remove(&self.hash);
        if state.spared.remove(&self.hash) {
            state.released.insert(self.hash);
            drop(state);
            self.shared.queue.wake();
        }
    }
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pin").field(&self.hash).finish()
    }
}

#[cfg(test)]
mod tests {
    use gossip_cdn_protocol::{Content, Record};

    use super::super::PayloadReader;
    use super::super::fixture::{Fixture, blob, content, noise, read, write};
    use super::*;

    #[tokio::test]
    async fn nothing_is_collected_while_it_is_pinned_and_a_running_reader_goes_on() {
        let fixture = Fixture::new();
        let bytes = noise(300_000, 1);
        let stored = fixture.upload(&bytes).await;
        let first = write(&Record::default(), 1, 5, content(&bytes, None));
        fixture.persist(&[(blob(1), &first)]).await;
        fixture.persist(&[(blob(1), &write(&first, 1, 6, Content::Tombstone))]).await;
        fixture.settle().await;
        let Some(PayloadReader::File { file, size }) = fixture.store.payload(stored.hash).unwrap() else { panic!("it is pinned") };
        let hash = stored.hash;
        drop(stored);
        fixture.settle().await;
        assert!(fixture.bytes(hash).is_none() && fixture.files("payloads").is_empty());
        assert!(read(&file, size) == bytes, "who has it open reads on");
    }

    #[tokio::test]
    async fn a_payload_pinned_again_before_its_collection_is_spared() {
        let fixture = Fixture::new();
        let stored = fixture.upload(b"x").await;
        let again = Pin::new(&fixture.store.shared, stored.hash);
        let hash = stored.hash;
        drop(stored);
        fixture.settle().await;
        assert!(fixture.bytes(hash).is_some());
        let record = write(&Record::default(), 1, 5, content(b"x", None));
        fixture.persist(&[(blob(1), &record)]).await;
        drop(again);
        fixture.settle().await;
        assert!(fixture.bytes(hash).is_some(), "and a record claims it now");
    }

    #[tokio::test]
    async fn no_file_is_placed_under_a_name_that_is_being_unlinked() {
        let fixture = Fixture::new();
        let pins = &fixture.store.shared.pins;
        let hash = ContentHash::of(b"x");
        assert!(pins.condemn(hash));
        let pin = Pin::new(&fixture.store.shared, hash);
        std::thread::scope(|scope| {
            let placing = scope.spawn(|| pins.wait_until_spared(hash));
            assert!(!placing.is_finished());
            pins.spare(&[hash]);
            placing.join().unwrap();
        });
        assert!(!pins.condemn(hash), "pinned, it cannot be condemned again");
        drop(pin);
    }
}
