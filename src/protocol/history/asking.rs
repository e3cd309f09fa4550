//! Asking: how a node gets what it lacks of the history, one source after another.
//!
//! First the nodes asked say how far they are ([`Known`]). Then pages are fetched from the one with the greatest last slot, and among equals with
//! the most messages; if it dies, from the next; then from the others what they still have beyond. The same way for one node that was met and is
//! ahead, and for all voters at a start.
//!
//! 1. One session at a time, one page of it under way at a time, and none while the disk is behind.
//! 2. Every page is taken in the order in which the source delivered, so whatever is taken can be delivered at once.
//! 3. A node is **synchronised** when a majority of the voters has answered since it last knew of a gap, and all they had is here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::history::epoch::Epoch;
use crate::history::talk::{Ask, Known, UpdateMe};
use crate::ids::NodeId;
use crate::time::Instant;

/// How long answers are awaited that say how far others are.
const PATIENCE: Duration = Duration::from_secs(3);
/// After a session that brought no majority the next one begins so much later.
const PAUSE: Duration = Duration::from_secs(1);
/// So many meetings in a row that explained no difference, and everything is compared.
const STRIKES: u32 = 3;

/// Which session an answer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionId(u64);

#[derive(Debug)]
struct Session {
    id: SessionId,
    /// Whether it is to find out all that a majority has.
    general: bool,
    awaiting: BTreeSet<NodeId>,
    answered: BTreeSet<NodeId>,
    /// How far those are that may still have something.
    sources: BTreeMap<NodeId, Known>,
    source: Option<NodeId>,
    /// Where the source's next page begins; `None` while one is under way.
    next: Option<u64>,
    until: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Asking {
    session: Option<Session>,
    sessions: u64,
    synchronised: bool,
    /// When all voters are to be asked again.
    general_at: Option<Instant>,
    /// Nodes known to be ahead while a session was under way.
    ahead: Option<NodeId>,
    /// How often in a row a meeting with that node explained nothing.
    strikes: BTreeMap<NodeId, u32>,
    /// Pages fetched since the start.
    pub(super) pages: u64,
}

/// What to ask next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) to: NodeId,
    pub(super) ask: Ask,
    pub(super) session: SessionId,
}

/// What this node lacks of what another one has.
fn lacking(theirs: &Known, ours: &Known) -> Option<Known> {
    let origins: BTreeMap<NodeId, u64> = theirs
        .origins
        .iter()
        .filter(|(origin, last)| ours.origins.get(origin).is_none_or(|ours| ours < last))
        .map(|(origin, last)| (*origin, *last))
        .collect();
    (theirs.slot > ours.slot || !origins.is_empty()).then_some(Known { slot: theirs.slot, origins, full: theirs.full, traces: None })
}

impl Asking {
    pub(super) fn is_synchronised(&self) -> bool {
        self.synchronised
    }

    pub(super) fn is_busy(&self) -> bool {
        self.session.is_some()
    }

    /// Whether a page is awaited.
    pub(super) fn is_fetching(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.source.is_some() && session.next.is_none())
    }

    /// There may be a gap: all voters are to be asked.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.synchronised = false;
        self.general_at.get_or_insert(now);
    }

    /// That node has more: it is asked at once, or when the session under way has ended.
    pub(super) fn on_ahead(&mut self, node: NodeId) {
        self.ahead = Some(node);
    }

    /// Histories differ from that node's: it is asked how, unless somebody is asked already. `true` if everything is to be compared.
    pub(super) fn on_differ(&mut self, node: NodeId) -> Option<bool> {
        if self.session.is_some() {
            return None;
        }
        let strikes = self.strikes.entry(node).or_default();
        *strikes += 1;
        let full = *strikes >= STRIKES;
        if full {
            self.strikes.remove(&node);
        }
        Some(full)
    }

    /// Histories are equal.
    pub(super) fn on_equal(&mut self, node: NodeId) {
        self.strikes.remove(&node);
    }

    /// Begins to ask those nodes how far they are.
    pub(super) fn begin(&mut self, nodes: BTreeSet<NodeId>, general: bool, ours: &Known, now: Instant) -> Vec<Question> {
        self.sessions += 1;
        let id = SessionId(self.sessions);
        let questions = nodes.iter().map(|node| Question { to: *node, ask: Ask::Versions(ours.clone()), session: id }).collect();
        if general {
            self.general_at = None;
        }
        self.session = Some(Session {
            id,
            general,
            awaiting: nodes,
            answered: BTreeSet::new(),
            sources: BTreeMap::new(),
            source: None,
            next: None,
            until: now + PATIENCE,
        });
        questions
    }

    /// Whom to ask now, if a session is due: `None` for all voters, or one node.
    pub(super) fn due(&mut self, now: Instant) -> Option<Option<NodeId>> {
        if self.session.is_some() {
            return None;
        }
        if self.general_at.is_some_and(|at| at <= now) {
            return Some(None);
        }
        self.ahead.take().map(Some)
    }

    fn current(&mut self, id: SessionId) -> Option<&mut Session> {
        self.session.as_mut().filter(|session| session.id == id)
    }

    /// A node said how far it is, or nothing.
    pub(super) fn on_versions(&mut self, id: SessionId, from: NodeId, known: Option<Known>) {
        let Some(session) = self.current(id) else { return };
        session.awaiting.remove(&from);
        if let Some(known) = known {
            session.answered.insert(from);
            session.sources.insert(from, known);
        }
    }

    /// A page was taken; `next` says where the one after it begins.
    pub(super) fn on_page(&mut self, id: SessionId, from: NodeId, next: Option<u64>) {
        self.pages += 1;
        let Some(session) = self.current(id).filter(|session| session.source == Some(from)) else { return };
        session.next = next;
        // It has given all it said it had. Whatever of that cannot be delivered yet waits for something that it did not speak of.
        if next.is_none() {
            session.source = None;
            session.sources.remove(&from);
        }
    }

    /// A source brought no page: the next one is asked.
    pub(super) fn on_page_failed(&mut self, id: SessionId, from: NodeId) {
        let Some(session) = self.current(id).filter(|session| session.source == Some(from)) else { return };
        session.sources.remove(&from);
        session.source = None;
        // What it had is not here: its word counts for nothing.
        session.answered.remove(&from);
    }

    /// The next page to ask for, if one may be; ends the session if there is nothing more to ask.
    pub(super) fn proceed(&mut self, me: NodeId, epoch: &Epoch, ours: &Known, now: Instant) -> Option<Question> {
        let session = self.session.as_mut()?;
        if session.until <= now {
            session.awaiting.clear();
        }
        if !session.awaiting.is_empty() || session.source.is_some() && session.next.is_none() {
            return None;
        }
        if let (Some(source), Some(from)) = (session.source, session.next.take()) {
            return session.page(source, from, ours);
        }
        session.sources.retain(|_, theirs| lacking(theirs, ours).is_some());
        let best = session.sources.iter().max_by_key(|(_, theirs)| (theirs.slot, theirs.origins.values().sum::<u64>()));
        match best.map(|(node, _)| *node) {
            Some(source) => {
                session.source = Some(source);
                session.page(source, 0, ours)
            }
            None => {
                self.end(me, epoch, now);
                None
            }
        }
    }

    fn end(&mut self, me: NodeId, epoch: &Epoch, now: Instant) {
        let Some(session) = self.session.take().filter(|session| session.general) else { return };
        let mut answered = session.answered;
        answered.insert(me);
        if epoch.is_majority(&answered) && self.general_at.is_none() {
            self.synchronised = true;
        } else {
            self.general_at = Some(now + PAUSE);
        }
    }

    /// When [`Self::proceed`] or [`Self::due`] is wanted.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.session {
            Some(session) => Some(session.until).filter(|_| !session.awaiting.is_empty()),
            None => self.general_at,
        }
    }

    /// What must hold at all times.
    pub(super) fn check(&self) {
        assert!(!self.synchronised || self.general_at.is_none(), "a node that is to ask is not synchronised");
    }
}

impl Session {
    fn page(&mut self, source: NodeId, from: u64, ours: &Known) -> Option<Question> {
        let theirs = self.sources.get(&source)?;
        let origins = theirs
            .origins
            .iter()
            .map(|(origin, last)| (*origin, ours.origins.get(origin).map_or(0, |ours| *ours), *last))
            .filter(|(_, ours, theirs)| ours < theirs)
            .map(|(origin, ours, _)| (origin, ours))
            .collect();
        Some(Question { to: source, ask: Ask::UpdateMe(UpdateMe { slot: ours.slot, origins, from }), session: self.id })
    }
}
