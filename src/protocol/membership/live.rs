//! The live members as a dense list, so that drawing some at random costs as much as are drawn, however many there are.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::ids::NodeId;

/// Ids in no order, and the place of each.
#[derive(Debug, Default)]
pub(super) struct Live {
    ids: Vec<NodeId>,
    places: BTreeMap<NodeId, usize>,
}

impl Live {
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn contains(&self, id: NodeId) -> bool {
        self.places.contains_key(&id)
    }

    pub(super) fn insert(&mut self, id: NodeId) {
        if !self.contains(id) {
            self.places.insert(id, self.ids.len());
            self.ids.push(id);
        }
    }

    /// The last one takes the place of the one that goes.
    pub(super) fn remove(&mut self, id: NodeId) {
        let Some(place) = self.places.remove(&id) else { return };
        self.ids.swap_remove(place);
        if let Some(moved) = self.ids.get(place) {
            self.places.insert(*moved, place);
        }
    }

    /// Up to `count` different ones in random order, none of `except`.
    ///
    /// A shuffle (Fisher and Yates) that goes only as far as needed, and remembers what it moved instead of moving it.
    pub(super) fn draw(&self, count: usize, except: &[NodeId], rng: &mut ChaCha8Rng) -> Vec<NodeId> {
        let mut moved: BTreeMap<usize, usize> = BTreeMap::new();
        let mut drawn = Vec::with_capacity(count.min(self.ids.len()));
        for place in 0..self.ids.len() {
            if drawn.len() >= count {
                break;
            }
            let chosen = rng.random_range(place..self.ids.len());
            let at = |n: usize| moved.get(&n).copied().unwrap_or(n);
            let (here, there) = (at(place), at(chosen));
            moved.insert(chosen, here);
            drawn.extend(self.ids.get(there).filter(|id| !except.contains(id)));
        }
        drawn
    }

    pub(super) fn check(&self) {
        assert_eq!(self.ids.len(), self.places.len(), "everybody has one place");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;

    use super::*;
    use crate::record::tests::node;

    fn live(count: u8) -> Live {
        let mut live = Live::default();
        (0..count).for_each(|n| live.insert(node(n)));
        live
    }

    #[test]
    fn draws_are_different_and_none_of_the_excepted() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let live = live(20);
        let drawn: BTreeSet<NodeId> = live.draw(100, &[node(3), node(99)], &mut rng).into_iter().collect();
        assert_eq!(drawn, (0..20).filter(|n| *n != 3).map(node).collect());
        assert_eq!(live.draw(4, &[], &mut rng).len(), 4);
    }

    #[test]
    fn everybody_is_drawn_about_as_often() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut live = live(11);
        live.remove(node(0));
        live.check();
        let mut counts: BTreeMap<NodeId, usize> = BTreeMap::new();
        (0..10_000).flat_map(|_| live.draw(3, &[], &mut rng)).for_each(|id| *counts.entry(id).or_default() += 1);
        assert_eq!(counts.len(), 10);
        assert!(counts.values().all(|count| (2700..3300).contains(count)), "{counts:?}");
    }
}
