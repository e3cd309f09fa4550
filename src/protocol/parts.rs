//! Parts: which bytes of a large payload are here, which are on their way from whom, and what to ask a holder for next.
//!
//! One such value for each payload that arrives, shared by all its transfers. It is kept by the shell, beside the bytes, since only the
//! shell knows them; it stands here, without files and sockets, so that the node and the simulator divide the work by the same rules.
//!
//! 1. No byte is asked of two transfers at once, and none that is here is asked for again.
//! 2. The lowest bytes first, for readers who follow; those that a reader waits for before all others.
//! 3. What a transfer leaves undone goes back, without what it brought.
//! 4. While anything else is left to do, nobody is disturbed. Then a part that has [stalled](STALL) is taken over, and of one that would
//!    take [long](SLOW) its holder keeps the lower half: nobody waits for the slowest, and no byte comes twice but those on the wire.
//! 5. Only whole groups count, each as it is verified.
//!
//! Handing out what is rare first (BitTorrent, "Incentives Build Robustness in BitTorrent", section 2.4.2) serves swarms of unfinished
//! holders; here a holder has everything, and readers want the beginning.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use crate::time::Instant;
use crate::transfer::PARALLEL_FROM;

/// What is verified as a whole, in bytes: a group of the hash tree.
pub const GROUP: u64 = 16 << 10;
/// What one holder is asked for at a time, in bytes; parts begin at its multiples. A guess: small enough that a holder which dies or
/// slows down keeps little from others, large enough that its proof (0.4 %) and a round trip weigh little.
pub const PART: u64 = 4 << 20;
/// A part of which nothing has come for so long may be taken over. A guess: longer than a lost packet's repair, shorter than the 10 s
/// after which its holder is given up.
pub const STALL: Duration = Duration::from_secs(3);
/// A part that would take longer than this, at the pace it has had, is shared with a holder that has nothing else to do.
pub const SLOW: Duration = Duration::from_secs(2);
/// No part is split below this, in bytes.
const LEAST_HALF: u64 = 16 * GROUP;

/// A part that is being fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(u64);

/// Somebody who waits for certain bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WishId(u64);

#[derive(Debug)]
struct Lease {
    /// The next byte expected; what lies before it is here.
    at: u64,
    end: u64,
    brought: u64,
    begun: Instant,
    /// When the last group came.
    last: Instant,
}

/// The parts of one payload.
#[derive(Debug)]
pub struct Parts {
    size: u64,
    /// What is here, from start to end; these never touch. One more than there are gaps: a few for each transfer.
    here: BTreeMap<u64, u64>,
    /// At most one for each transfer.
    leases: BTreeMap<LeaseId, Lease>,
    /// At most one for each reader.
    wishes: BTreeMap<WishId, u64>,
    next: u64,
}

impl Parts {
    /// Of a payload of `size` bytes, of which nothing is here.
    pub fn new(size: u64) -> Self {
        Self { size, here: BTreeMap::new(), leases: BTreeMap::new(), wishes: BTreeMap::new(), next: 0 }
    }

    /// The same, but for what is here already: whole groups, and the last.
    pub fn resume(size: u64, here: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut parts = Self::new(size);
        here.into_iter().for_each(|range| parts.insert(range));
        parts
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The next part to fetch; `None`: everything is here or on its way, for now.
    pub fn next(&mut self, now: Instant) -> Option<(LeaseId, Range<u64>)> {
        let wished = self.wishes.values().copied().collect::<Vec<_>>();
        let wished = wished.into_iter().find_map(|at| self.take_stalled(now, Some(at)).or_else(|| self.free(at)));
        let range = wished.or_else(|| self.free(0)).or_else(|| self.take_stalled(now, None)).or_else(|| self.split(now))?;
        let id = LeaseId(self.number());
        self.leases.insert(id, Lease { at: range.start, end: range.end, brought: 0, begun: now, last: now });
        Some((id, range))
    }

    /// The first part from `offset` on that is neither here nor on its way.
    fn free(&self, offset: u64) -> Option<Range<u64>> {
        let mut at = offset - offset % GROUP;
        loop {
            let end = self.readable(at);
            let taken = self.leases.values().find(|lease| lease.at <= end && end < lease.end).map(|lease| lease.end);
            match taken {
                Some(beyond) => at = beyond,
                None if end == at => break,
                None => at = end,
            }
        }
        let part = if self.size < PARALLEL_FROM { self.size } else { (at - at % PART).saturating_add(PART) };
        let here = self.here.range(at..).next().map_or(self.size, |(start, _)| *start);
        let taken = self.leases.values().map(|lease| lease.at).filter(|other| *other >= at).min().unwrap_or(self.size);
        let end = part.min(here).min(taken).min(self.size);
        (at < end).then_some(at..end)
    }

    /// What is left of a part that has stalled, the one that `within` lies in if that is given; its lease ends.
    fn take_stalled(&mut self, now: Instant, within: Option<u64>) -> Option<Range<u64>> {
        let wanted = |lease: &Lease| within.is_none_or(|at| lease.at <= at && at < lease.end) && now.since(lease.last) >= STALL;
        let (id, range) = self.leases.iter().find(|(_, lease)| wanted(lease)).map(|(id, lease)| (*id, lease.at..lease.end))?;
        self.leases.remove(&id);
        Some(range)
    }

    /// The upper half of what is left of the part that will take longest, if that is long.
    fn split(&mut self, now: Instant) -> Option<Range<u64>> {
        let left = |lease: &Lease| {
            let (took, brought) = (u64::try_from(now.since(lease.begun).as_micros()).unwrap_or(u64::MAX), lease.brought);
            Duration::from_micros(took.saturating_mul((lease.end - lease.at) / GROUP) / (brought / GROUP).max(1))
        };
        let splittable = |lease: &&mut Lease| lease.brought >= GROUP && lease.end - lease.at >= 2 * LEAST_HALF && left(lease) > SLOW;
        let lease = self.leases.values_mut().filter(splittable).max_by_key(|lease| left(lease))?;
        let half = (lease.end - lease.at) / 2;
        let middle = lease.at + (half - half % GROUP);
        Some(middle..std::mem::replace(&mut lease.end, middle))
    }

    /// A verified group, or several, of a part; in order. False: somebody else is asked for these bytes now, or nobody: not to be kept.
    pub fn arrived(&mut self, id: LeaseId, range: Range<u64>, now: Instant) -> bool {
        let Some(lease) = self.leases.get_mut(&id) else { return false };
        if range.start != lease.at || range.end > lease.end || range.is_empty() {
            return false;
        }
        lease.at = range.end;
        lease.brought += range.end - range.start;
        lease.last = now;
        self.insert(range);
        true
    }

    /// Where the next bytes of a part are expected; `None`: no more are, it is complete or was taken over.
    pub fn expects(&self, id: LeaseId) -> Option<u64> {
        self.leases.get(&id).filter(|lease| lease.at < lease.end).map(|lease| lease.at)
    }

    /// Whether that transfer is still the one to bring the rest of its part, if any is left.
    pub fn holds(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    /// Nobody fetches this part any more, done or not.
    pub fn end(&mut self, id: LeaseId) {
        self.leases.remove(&id);
    }

    /// Somebody waits for the bytes at `offset`.
    pub fn wish(&mut self, offset: u64) -> WishId {
        let id = WishId(self.number());
        self.wishes.insert(id, offset);
        id
    }

    /// They wait no more.
    pub fn fulfil(&mut self, wish: WishId) {
        self.wishes.remove(&wish);
    }

    fn insert(&mut self, range: Range<u64>) {
        let mut merged = range;
        if let Some((start, end)) = self.here.range(..=merged.start).next_back().map(|(start, end)| (*start, *end))
            && end >= merged.start
        {
            merged = start..end.max(merged.end);
        }
        while let Some((start, end)) = self.here.range(merged.start..=merged.end).next().map(|(start, end)| (*start, *end)) {
            self.here.remove(&start);
            merged.end = merged.end.max(end);
        }
        self.here.insert(merged.start, merged.end);
    }

    /// Up to where everything from `offset` on is here; `offset` itself if the byte there is not.
    pub fn readable(&self, offset: u64) -> u64 {
        let before = self.here.range(..=offset).next_back();
        before.map_or(offset, |(_, end)| offset.max(*end))
    }

    /// How many bytes are here.
    pub fn received(&self) -> u64 {
        self.here.iter().map(|(start, end)| end - start).sum()
    }

    /// Whether all are.
    pub fn is_complete(&self) -> bool {
        self.readable(0) >= self.size
    }

    /// What must hold at all times.
    pub fn check(&self) {
        let mut beyond = None;
        for (start, end) in &self.here {
            assert!(start < end && *end <= self.size && beyond.is_none_or(|beyond| beyond < *start), "what is here is in order");
            beyond = Some(*end);
        }
        let mut leased: Vec<(u64, u64)> = self.leases.values().map(|lease| (lease.at, lease.end)).filter(|(at, end)| at < end).collect();
        leased.sort_unstable();
        assert!(leased.windows(2).all(|pair| pair[0].1 <= pair[1].0), "no byte is asked of two");
        for (at, end) in leased {
            assert!(self.here.iter().all(|(start, beyond)| *beyond <= at || end <= *start), "nothing that is here is asked for");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::iter::once;

    use proptest::prelude::*;

    use super::*;

    const SIZE: u64 = 5 * PART + 100;

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000)
    }

    fn all_next(parts: &mut Parts, now: Instant) -> Vec<(LeaseId, Range<u64>)> {
        std::iter::from_fn(|| parts.next(now)).collect()
    }

    #[test]
    fn parts_are_handed_out_once_the_lowest_first_and_what_is_left_undone_goes_back() {
        let mut parts = Parts::new(SIZE);
        let given = all_next(&mut parts, at(0));
        let expected: Vec<_> = (0..6).map(|n| n * PART..((n + 1) * PART).min(SIZE)).collect();
        assert_eq!(given.iter().map(|(_, range)| range.clone()).collect::<Vec<_>>(), expected);
        assert!(parts.arrived(given[1].0, PART..PART + GROUP, at(0)));
        parts.end(given[1].0);
        let again: Vec<u64> = all_next(&mut parts, at(0)).iter().flat_map(|(_, range)| [range.start, range.end]).collect();
        assert_eq!(again, [PART + GROUP, 2 * PART]);
        parts.check();
    }

    #[test]
    fn a_payload_that_one_holder_brings_is_asked_for_in_one_piece() {
        let mut parts = Parts::resume(PARALLEL_FROM - 1, once(0..GROUP));
        assert_eq!(parts.next(at(0)).map(|(_, range)| range), Some(GROUP..PARALLEL_FROM - 1));
        assert_eq!(parts.next(at(0)), None);
    }

    #[test]
    fn a_part_that_stalls_is_taken_over_only_when_nothing_else_is_left_and_its_bytes_are_refused_then() {
        let mut parts = Parts::new(SIZE);
        let (slow, _) = parts.next(at(0)).unwrap();
        let others = all_next(&mut parts, at(2));
        assert_eq!(others.len(), 5, "not before the others, and not before it has stalled");
        for (id, range) in others {
            assert!(parts.arrived(id, range, at(4)));
        }
        let (_, range) = parts.next(at(4)).unwrap();
        assert_eq!(range, 0..PART);
        assert!(!parts.arrived(slow, 0..GROUP, at(4)));
        assert_eq!(parts.expects(slow), None);
        parts.check();
    }

    #[test]
    fn a_reader_does_not_wait_for_a_stalled_holder_until_everything_else_is_here() {
        let mut parts = Parts::new(SIZE);
        parts.next(at(0)).unwrap();
        let wish = parts.wish(5);
        assert_eq!(parts.next(at(2)).unwrap().1, PART..2 * PART);
        assert_eq!(parts.next(at(3)).unwrap().1, 0..PART, "the part it waits for has stalled");
        parts.fulfil(wish);
        parts.wish(4 * PART + GROUP + 1);
        assert_eq!(parts.next(at(3)).unwrap().1, 4 * PART + GROUP..5 * PART, "what a reader waits for comes first");
        parts.check();
    }

    #[test]
    fn of_a_slow_part_the_upper_half_goes_to_who_has_nothing_else_to_do() {
        let mut parts = Parts::resume(SIZE, once(PART..SIZE));
        let (slow, _) = parts.next(at(0)).unwrap();
        assert_eq!(parts.next(at(1)), None, "nothing is known of its pace");
        assert!(parts.arrived(slow, 0..PART / 4, at(1)));
        assert_eq!(parts.next(at(1)).unwrap().1, PART / 4 + PART * 3 / 8..PART);
        assert!(!parts.arrived(slow, PART / 4..PART, at(1)), "beyond its half");
        assert!(parts.arrived(slow, PART / 4..PART / 4 + PART * 3 / 8, at(1)));
        assert_eq!(parts.expects(slow), None);
        parts.check();
    }

    #[test]
    fn a_fast_part_is_left_alone() {
        let mut parts = Parts::resume(SIZE, once(PART..SIZE));
        let (fast, _) = parts.next(at(0)).unwrap();
        assert!(parts.arrived(fast, 0..PART / 2, at(1)));
        assert_eq!(parts.next(at(1)), None);
    }

    proptest! {
        /// Transfers ask, bring some groups or none, give up, stall; readers wish: each byte is taken once, and in the end all are here.
        #[test]
        fn each_byte_is_taken_once_however_transfers_come_and_go(
            size in 1..SIZE,
            kept in proptest::collection::vec(0_u64..SIZE / GROUP, 0..6),
            steps in proptest::collection::vec((0..6_u8, 0..8_usize, 1..300_u64), 0..300),
        ) {
            let group = |start: u64| start..(start + GROUP).min(size);
            let resumed: Vec<_> = kept.iter().map(|n| group(n * GROUP)).filter(|range| range.start < size).collect();
            let mut parts = Parts::resume(size, resumed);
            let mut taken = parts.received();
            let (mut leases, mut now, mut wishes) = (Vec::new(), Instant(0), Vec::new());
            for (step, which, amount) in steps {
                now = Instant(now.0 + amount * 10_000);
                match (step, leases.get(which).copied()) {
                    (0, _) => leases.extend(parts.next(now).map(|(id, _)| id)),
                    (1, Some(id)) => { parts.end(id); leases.retain(|lease| *lease != id) }
                    (2, _) => wishes.push(parts.wish(amount * 70_000)),
                    (3, _) => wishes.pop().into_iter().for_each(|wish| parts.fulfil(wish)),
                    (_, Some(id)) => for _ in 0..amount {
                        let Some(start) = parts.expects(id) else { break };
                        prop_assert!(parts.arrived(id, group(start), now));
                        taken += group(start).end - start;
                    },
                    (_, None) => {}
                }
                parts.check();
                prop_assert_eq!(taken, parts.received());
            }
            leases.into_iter().for_each(|id| parts.end(id));
            while let Some((id, range)) = parts.next(now) {
                taken += range.end - range.start;
                prop_assert!(parts.arrived(id, range, now));
                parts.end(id);
            }
            prop_assert!(parts.is_complete());
            prop_assert_eq!(taken, size);
        }
    }
}
