//! Which payloads were read right since the start.
//!
//! What was written in this life of the node, or arrived in it, was checked on its way in. Everything else is checked when it is read
//! first: a small payload whole, a large one group by group, so that a range costs the check of the groups that it touches.
//!
//! 1. A payload or a group counts as verified only if bytes of it that were read from the disk since the start match its hash.
//! 2. To be forgotten costs another check and nothing else, so both memories are of fixed size: of whole payloads a table of [`PLACES`] in
//!    which a later one takes the place of an earlier one, of groups [`GROUPS_BYTES`], of which the payload begun first goes.
//! 3. What is verified whole costs one look into the memory of the process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use gossip_cdn_protocol::ContentHash;

use super::lock;
use super::tree::GROUP;

/// How many payloads are remembered as verified whole: 1 MiB of memory.
const PLACES: usize = 1 << 17;
/// How many bytes say which groups are, of all payloads together: enough for 1 TiB of few payloads, or for some 30,000 small ones.
const GROUPS_BYTES: usize = 8 << 20;
/// What a payload begun costs beside its bits, about: its entries in two maps, and where the bits stand.
const ENTRY_BYTES: usize = 256;

/// The groups of one payload that are verified.
#[derive(Debug)]
pub(super) struct Groups {
    state: Mutex<Bits>,
}

#[derive(Debug)]
struct Bits {
    words: Vec<u64>,
    /// Groups that are not verified.
    left: u64,
}

impl Groups {
    pub(super) fn new(size: u64) -> Self {
        let groups = size.div_ceil(GROUP as u64);
        let words = usize::try_from(groups.div_ceil(64)).unwrap_or(usize::MAX);
        Self { state: Mutex::new(Bits { words: vec![0; words], left: groups }) }
    }

    fn bytes(&self) -> usize {
        ENTRY_BYTES + lock(&self.state).words.len() * 8
    }

    /// Whether all these groups are.
    pub(super) fn have(&self, mut groups: std::ops::Range<u64>) -> bool {
        let mut state = lock(&self.state);
        groups.all(|group| state.bit(group).is_some_and(|(word, bit)| *word & bit != 0))
    }

    /// These groups are; true if now all of the payload are.
    pub(super) fn add(&self, groups: std::ops::Range<u64>) -> bool {
        let mut state = lock(&self.state);
        for group in groups {
            let Some((word, bit)) = state.bit(group) else { continue };
            let fresh = *word & bit == 0;
            *word |= bit;
            state.left = state.left.saturating_sub(u64::from(fresh));
        }
        state.left == 0
    }
}

impl Bits {
    fn bit(&mut self, group: u64) -> Option<(&mut u64, u64)> {
        let word = self.words.get_mut(usize::try_from(group / 64).ok()?)?;
        Some((word, 1 << (group % 64)))
    }
}

#[derive(Default)]
struct Begun {
    /// With the number under which each was begun.
    payloads: BTreeMap<ContentHash, (u64, Arc<Groups>)>,
    /// The first begun first.
    order: BTreeMap<u64, ContentHash>,
    next: u64,
    bytes: usize,
}

/// Which payloads are verified, whole or in part.
pub(super) struct Verified {
    /// Of a payload its second eight bytes, at the place that its first eight lead to.
    whole: Box<[AtomicU64]>,
    begun: Mutex<Begun>,
}

impl Default for Verified {
    fn default() -> Self {
        Self { whole: (0..PLACES).map(|_| AtomicU64::new(0)).collect(), begun: Mutex::default() }
    }
}

impl Verified {
    fn place(&self, hash: ContentHash) -> Option<(&AtomicU64, u64)> {
        let (head, rest) = hash.0.split_first_chunk::<8>()?;
        let tag = rest.first_chunk::<8>().map(|tag| u64::from_le_bytes(*tag))?;
        let place = usize::try_from(u64::from_le_bytes(*head) % PLACES as u64).ok()?;
        // Nothing stands for an empty place.
        Some((self.whole.get(place)?, tag.max(1)))
    }

    /// Whether all of a payload is verified.
    pub(super) fn is_whole(&self, hash: ContentHash) -> bool {
        self.place(hash).is_some_and(|(place, tag)| place.load(Ordering::Acquire) == tag)
    }

    /// All of a payload is.
    pub(super) fn add(&self, hash: ContentHash) {
        if let Some((place, tag)) = self.place(hash) {
            place.store(tag, Ordering::Release);
        }
        lock(&self.begun).drop_groups(hash);
    }

    /// Nothing of a payload is any more: its bytes are others.
    pub(super) fn forget(&self, hash: ContentHash) {
        if let Some((place, tag)) = self.place(hash) {
            // Unless the place is another's by now.
            place.compare_exchange(tag, 0, Ordering::AcqRel, Ordering::Relaxed).ok();
        }
        lock(&self.begun).drop_groups(hash);
    }

    /// Which groups of a payload of that size are.
    pub(super) fn groups(&self, hash: ContentHash, size: u64) -> Arc<Groups> {
        let mut begun = lock(&self.begun);
        if let Some((_, groups)) = begun.payloads.get(&hash) {
            return Arc::clone(groups);
        }
        let groups = Arc::new(Groups::new(size));
        let bytes = groups.bytes();
        while begun.bytes + bytes > GROUPS_BYTES
            && let Some(first) = begun.order.first_key_value().map(|(_, hash)| *hash)
        {
            begun.drop_groups(first);
        }
        begun.bytes += bytes;
        begun.next += 1;
        let number = begun.next;
        begun.order.insert(number, hash);
        begun.payloads.insert(hash, (number, Arc::clone(&groups)));
        groups
    }
}

impl Begun {
    fn drop_groups(&mut self, hash: ContentHash) {
        if let Some((number, groups)) = self.payloads.remove(&hash) {
            self.bytes -= groups.bytes();
            self.order.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> ContentHash {
        ContentHash::of(&n.to_le_bytes())
    }

    #[test]
    fn a_payload_is_whole_when_its_last_group_is_verified_and_forgotten_when_its_bytes_are_others() {
        let verified = Verified::default();
        let size = 130 * GROUP as u64 - 1;
        let groups = verified.groups(hash(1), size);
        assert!(!groups.have(0..1) && !groups.add(0..64) && !groups.add(65..130) && groups.have(65..130) && !groups.have(63..66));
        assert!(Arc::ptr_eq(&groups, &verified.groups(hash(1), size)), "readers share what they find out");
        assert!(groups.add(64..65));
        assert!(!groups.have(129..131), "there is no such group");
        verified.add(hash(1));
        assert!(verified.is_whole(hash(1)) && !verified.is_whole(hash(2)));
        verified.forget(hash(1));
        assert!(!verified.is_whole(hash(1)) && !verified.groups(hash(1), size).have(0..1));
    }

    #[test]
    fn memory_is_bounded_and_what_makes_way_is_not_verified() {
        let verified = Verified::default();
        let quarter = (GROUPS_BYTES / 4 - ENTRY_BYTES) as u64 * 8 * GROUP as u64;
        for n in 0..4 {
            verified.groups(hash(n), quarter).add(0..1);
        }
        assert!((0..4).all(|n| verified.groups(hash(n), quarter).have(0..1)));
        verified.groups(hash(4), quarter);
        assert!(lock(&verified.begun).bytes <= GROUPS_BYTES);
        assert!(!verified.groups(hash(0), quarter).have(0..1), "the first begun made way");
        for n in 0..100_000 {
            verified.groups(hash(n), GROUP as u64 + 1).add(0..1);
        }
        let begun = lock(&verified.begun).payloads.len();
        assert!(begun <= GROUPS_BYTES / ENTRY_BYTES && begun == lock(&verified.begun).order.len(), "small ones count too");
        // Twice as many payloads as places.
        let count = 2 * PLACES as u64;
        (0..count).for_each(|n| verified.add(hash(n)));
        let kept = (0..count).filter(|n| verified.is_whole(hash(*n))).count();
        assert!(kept <= PLACES && kept > PLACES / 2, "{kept}");
        assert!(verified.is_whole(hash(count - 1)));
    }
}
