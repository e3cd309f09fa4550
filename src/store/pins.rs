//! Pins: payloads that must not be collected though no record claims them yet.
//!
//! 1. A payload that is pinned is not condemned.
//! 2. While a payload is condemned (its row is being removed, its file unlinked) no file of that name is put in place: otherwise the
//!    unlink would take the new file. [`Pins::wait_until_spared`] is where the placing waits.
//! 3. A payload that was spared only because of a pin is looked at again when its last pin goes.
//! 4. The bytes of a small upload wait here for their record, so that both are one change; with their last pin they are gone.
//!
//! Bounded by the uploads and transfers under way, and by [`MOST_WAITING`] and [`WAITING_BYTES`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use bytes::Bytes;
use gossip_cdn_protocol::ContentHash;

use super::{Shared, lock};

/// Most payloads that wait for their records; what comes then goes its own way. As many as a queue of the writer has places.
const MOST_WAITING: usize = 2048;
/// And most bytes of them: a form keeps those of its files until its end, however slowly that comes.
const WAITING_BYTES: usize = 16 << 20;

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
    /// The bytes of pinned payloads that are nowhere else yet.
    waiting: BTreeMap<ContentHash, Bytes>,
    /// How many they are.
    waiting_bytes: usize,
}

impl State {
    fn take_waiting(&mut self, hash: ContentHash) -> Option<Bytes> {
        let bytes = self.waiting.remove(&hash)?;
        self.waiting_bytes -= bytes.len();
        Some(bytes)
    }
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

    /// Lets the bytes of a payload, which is pinned, wait for a record that claims them. They are given back where too many wait.
    pub(super) fn await_record(&self, hash: ContentHash, bytes: Bytes) -> Result<(), Bytes> {
        let mut state = lock(&self.state);
        if state.waiting.len() >= MOST_WAITING || state.waiting_bytes + bytes.len() > WAITING_BYTES {
            return Err(bytes);
        }
        // The same bytes may have come twice.
        state.take_waiting(hash);
        state.waiting_bytes += bytes.len();
        state.waiting.insert(hash, bytes);
        Ok(())
    }

    /// The bytes that waited for the record that is about to be written.
    pub(super) fn take_waiting(&self, hash: ContentHash) -> Option<Bytes> {
        lock(&self.state).take_waiting(hash)
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
        drop(state.take_waiting(self.hash));
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
        let bytes = noise(100_000, 1);
        let stored = fixture.upload(&bytes).await;
        let again = Pin::new(&fixture.store.shared, stored.hash);
        let hash = stored.hash;
        drop(stored);
        fixture.settle().await;
        assert!(fixture.bytes(hash).is_some());
        let record = write(&Record::default(), 1, 5, content(&bytes, None));
        fixture.persist(&[(blob(1), &record)]).await;
        drop(again);
        fixture.settle().await;
        assert!(fixture.bytes(hash).is_some(), "and a record claims it now");
    }

    #[tokio::test]
    async fn what_waits_for_its_record_is_gone_with_its_last_pin_and_is_bounded() {
        let fixture = Fixture::new();
        let pins = &fixture.store.shared.pins;
        let hash = |n: usize| ContentHash::of(&n.to_le_bytes());
        let mut held = Vec::new();
        for n in 0..MOST_WAITING {
            held.push([Pin::new(&fixture.store.shared, hash(n)), Pin::new(&fixture.store.shared, hash(n))]);
            assert_eq!(pins.await_record(hash(n), Bytes::from_static(b"x")), Ok(()));
        }
        let last = Pin::new(&fixture.store.shared, hash(MOST_WAITING));
        assert!(pins.await_record(hash(MOST_WAITING), Bytes::from_static(b"y")).is_err(), "there is no room");
        let [one, other] = held.remove(0);
        drop(one);
        assert!(pins.await_record(hash(MOST_WAITING), Bytes::from_static(b"y")).is_err(), "it is pinned still");
        drop(other);
        assert_eq!(pins.take_waiting(hash(0)), None);
        assert_eq!(pins.await_record(hash(MOST_WAITING), Bytes::from_static(b"y")), Ok(()));
        assert_eq!(pins.take_waiting(hash(1)).as_deref(), Some(&b"x"[..]));
        assert_eq!(pins.take_waiting(hash(1)), None, "it is taken once");
        drop((held, last));
        let bytes = Bytes::from(vec![7; WAITING_BYTES / 2]);
        let _pins: Vec<Pin> = (0..3).map(|n| Pin::new(&fixture.store.shared, hash(n))).collect();
        assert!(pins.await_record(hash(0), bytes.clone()).is_ok() && pins.await_record(hash(1), bytes).is_ok());
        assert!(pins.await_record(hash(2), Bytes::from_static(b"x")).is_err(), "they are bytes enough");
        assert!(pins.take_waiting(hash(0)).is_some());
        for _ in 0..2 {
            assert_eq!(pins.await_record(hash(2), Bytes::from_static(b"x")), Ok(()), "the same bytes count once");
        }
        assert_eq!(lock(&pins.state).waiting_bytes, WAITING_BYTES / 2 + 1);
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
