//! Who is due when, in order of time.
//!
//! 1. Everybody has at most one moment; a later word replaces it.
//! 2. The next moment is found at once, and everything else in logarithmic time.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Instant;

/// Moments by whose they are and by their order.
#[derive(Debug, Clone)]
pub(crate) struct Schedule<K> {
    moments: BTreeMap<K, Instant>,
    order: BTreeSet<(Instant, K)>,
}

impl<K> Default for Schedule<K> {
    fn default() -> Self {
        Self { moments: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Ord + Copy> Schedule<K> {
    /// `key` is due at that moment, and at no other.
    pub(crate) fn set(&mut self, key: K, at: Instant) {
        if let Some(before) = self.moments.insert(key, at) {
            self.order.remove(&(before, key));
        }
        self.order.insert((at, key));
    }

    /// `key` is due no more; returns when it was.
    pub(crate) fn remove(&mut self, key: K) -> Option<Instant> {
        let at = self.moments.remove(&key)?;
        self.order.remove(&(at, key));
        Some(at)
    }

    pub(crate) fn contains(&self, key: K) -> bool {
        self.moments.contains_key(&key)
    }

    pub(crate) fn len(&self) -> usize {
        self.moments.len()
    }

    /// The next moment.
    pub(crate) fn first(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Everybody who has a moment, in no order of time.
    pub(crate) fn keys(&self) -> impl Iterator<Item = K> {
        self.moments.keys().copied()
    }

    /// Takes out the earliest of those whose moment has come.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<K> {
        let (at, key) = self.order.first().copied().filter(|(at, _)| *at <= now)?;
        self.order.remove(&(at, key));
        self.moments.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_a_later_word_replaces_a_moment() {
        let mut schedule = Schedule::default();
        schedule.set('a', Instant(1));
        schedule.set('b', Instant(2));
        schedule.set('a', Instant(3));
        assert_eq!((schedule.first(), schedule.len()), (Some(Instant(2)), 2));
        assert_eq!(schedule.pop_due(Instant(1)), None);
        assert_eq!(schedule.pop_due(Instant(9)), Some('b'));
        assert_eq!(schedule.remove('a'), Some(Instant(3)));
        assert!(schedule.first().is_none() && !schedule.contains('a'));
    }
}
