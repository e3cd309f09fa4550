//! The live members as a dense list, so that drawing some at random costs as much as are drawn, however many there are.
//!
//! They also form a graph, the same at all nodes that know the same members, in which each node passes on what all are to hear: among n nodes in the
//! order of their ids the one at place i has the `d` successors d i, d i + 1, ... (modulo n). After k steps that is d^k places in a row, so
//! everybody is reached in log n (base d) steps, rounded up, with d copies for each node (Imase, Itoh, "Design to Minimize Diameter on Building-Block
//! Network", 1981). Where nodes are missing or views differ most are reached all the same, by another of their d predecessors.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::ids::NodeId;

/// Ids in no order, and the place of each.
#[derive(Debug, Default)]
pub(super) struct Live {
    ids: Vec<NodeId>,
    places: BTreeMap<NodeId, usize>,
    /// As long as nobody comes or goes.
    successors: RefCell<Option<Successors>>,
}

#[derive(Debug)]
struct Successors {
    of: NodeId,
    degree: usize,
    are: Vec<NodeId>,
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
            self.successors.take();
            self.places.insert(id, self.ids.len());
            self.ids.push(id);
        }
    }

    /// The last one takes the place of the one that goes.
    pub(super) fn remove(&mut self, id: NodeId) {
        let Some(place) = self.places.remove(&id) else { return };
        self.successors.take();
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

    /// In no order.
    pub(super) fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.ids.iter().copied()
    }

    /// The successors of `me`, which is none of the live ones but counts among them.
    pub(super) fn successors(&self, me: NodeId, degree: usize) -> Vec<NodeId> {
        let known =
            self.successors.borrow().as_ref().filter(|known| known.of == me && known.degree == degree).map(|known| known.are.clone());
        known.unwrap_or_else(|| {
            let are = self.find_successors(me, degree);
            self.successors.replace(Some(Successors { of: me, degree, are: are.clone() }));
            are
        })
    }

    fn find_successors(&self, me: NodeId, degree: usize) -> Vec<NodeId> {
        let (count, place) = (self.ids.len() + 1, self.places.range(..me).count());
        let wanted: BTreeSet<usize> = (0..degree).map(|n| (place * degree + n) % count).filter(|found| *found != place).collect();
        // Behind this node's own place, the others' are one less without it.
        let wanted = wanted.into_iter().map(|found| if found > place { found - 1 } else { found });
        let mut others = self.places.keys();
        let mut passed = 0;
        let mut are = Vec::with_capacity(degree);
        for found in wanted {
            are.extend(others.nth(found - passed));
            passed = found + 1;
        }
        are
    }

    pub(super) fn check(&self) {
        assert_eq!(self.ids.len(), self.places.len(), "everybody has one place");
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn whatever_one_node_knows_all_know_after_a_logarithm_of_steps() {
        for count in [2_u8, 3, 5, 24, 25, 33, 64, 65, 200] {
            let all: Vec<NodeId> = (0..count).map(node).collect();
            let views: BTreeMap<NodeId, Live> = all
                .iter()
                .map(|me| {
                    let mut live = live(count);
                    live.remove(*me);
                    (*me, live)
                })
                .collect();
            let most = (0..).find(|steps| 4_usize.pow(*steps) >= usize::from(count)).unwrap();
            for first in &all {
                let mut reached = BTreeSet::from([*first]);
                for _ in 0..most {
                    reached.extend(reached.clone().iter().flat_map(|node| views[node].successors(*node, 4)));
                }
                assert_eq!(reached.len(), all.len(), "among {count} from {first}");
            }
            assert!(all.iter().all(|me| views[me].successors(*me, 4).len() <= 4 && !views[me].successors(*me, 4).contains(me)));
        }
    }

    #[test]
    fn who_comes_or_goes_changes_the_successors() {
        let mut live = live(3);
        live.remove(node(0));
        let all = |live: &Live| live.successors(node(0), 4).into_iter().collect::<BTreeSet<_>>();
        assert_eq!(all(&live), BTreeSet::from([node(1), node(2)]));
        live.remove(node(1));
        assert_eq!(all(&live), BTreeSet::from([node(2)]));
        live.insert(node(3));
        assert_eq!(all(&live), BTreeSet::from([node(2), node(3)]));
    }
}
