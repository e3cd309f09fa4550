//! What nodes believe of each other, held against who really runs.

use std::collections::{BTreeMap, BTreeSet};

use gossip_cdn_protocol::{MemberState, NodeId};

use crate::meter::Report;

/// A process that was killed, and what others made of it so far.
#[derive(Debug)]
struct Killed {
    at: u64,
    suspected: bool,
    dead: bool,
    known: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Nodes that run, with the number of their life.
    running: BTreeMap<NodeId, u64>,
    killed: BTreeMap<NodeId, Killed>,
    /// Who believes whom dead.
    believers: BTreeMap<NodeId, BTreeSet<usize>>,
    suspected_in: BTreeSet<(NodeId, u64)>,
    buried_in: BTreeSet<(NodeId, u64)>,
}

impl Watch {
    pub(crate) fn on_start(&mut self, node: NodeId, life: u64) {
        self.killed.remove(&node);
        self.running.insert(node, life);
    }

    /// A process ends; `unannounced`: nobody was told.
    pub(crate) fn on_end(&mut self, node: NodeId, unannounced: bool, now: u64) {
        self.running.remove(&node);
        if unannounced {
            self.killed.insert(node, Killed { at: now, suspected: false, dead: false, known: false });
        }
    }

    /// An observer's belief about a node changed.
    pub(crate) fn on_belief(&mut self, observer: usize, node: NodeId, state: MemberState, now: u64, report: &mut Report) {
        let believers = self.believers.entry(node).or_default();
        if state == MemberState::Dead {
            believers.insert(observer);
        } else {
            believers.remove(&observer);
        }
        let all = believers.len() >= self.running.len();
        match (self.running.get(&node), state) {
            (Some(life), MemberState::Suspect) => report.false_suspicions += u64::from(self.suspected_in.insert((node, *life))),
            (Some(life), MemberState::Dead) => report.false_deaths += u64::from(self.buried_in.insert((node, *life))),
            (Some(_), MemberState::Alive | MemberState::Left | MemberState::Forgotten) | (None, _) => {}
        }
        let Some(killed) = self.killed.get_mut(&node) else { return };
        let after = now - killed.at;
        if matches!(state, MemberState::Suspect | MemberState::Dead) && !std::mem::replace(&mut killed.suspected, true) {
            report.suspected.add(after);
        }
        if state == MemberState::Dead && !std::mem::replace(&mut killed.dead, true) {
            report.dead.add(after);
        }
        if state == MemberState::Dead && all && !std::mem::replace(&mut killed.known, true) {
            report.known.add(after);
        }
    }
}
