//! Reconciliation: two nodes whose roots differ find out where, at a cost that follows the difference, and give each other what is
//! missing.
//!
//! The answer to an exchange carries the peer's root and the first cells of its sketch ([`crate::sketch`]). What follows is up to the
//! initiator, step by step, each only if the one before was not enough:
//!
//! 1. more cells of the same sketch, as many as the size of the difference calls for, which the cells there are tell by their counts;
//! 2. the roots of the 256 partitions, and sketches of those that differ, made at that moment;
//! 3. the items themselves of a partition that a sketch does not fit.
//!
//! Then records: asked for and given in pages, several calls at a time. What differs between the record that came and the one that it was merged
//! into is given in turn, so that a blob that changed on both sides travels once each way, and one that changed on one side once.
//!
//! What must hold:
//!
//! 1. A node runs at most one reconciliation as initiator, with at most [`MAX_CALLS_AT_ONCE`] calls under way, [`MAX_CALLS`] in all, and
//!    [`MAX_FOUND`] records found.
//! 2. Cells are subtracted only from cells of one instant each: the peer's under the number of its answer, this node's as they were when
//!    that answer came. A decoding that comes to a contradiction is counted, so where differences are small the count shows whoever breaks this rule.
//! 3. Whatever a sketch says is only a reason to ask and to give: records are merged, never replaced, so a wrong decoding costs a retry
//!    and nothing else.
//! 4. Every step but the last may fail to decode, the last cannot: two nodes that keep talking become equal.
//! 5. Who is refused does not come back at once: it exchanges without wanting cells, for a growing and jittered while.
//! 6. A reconciliation that has found everything, and that only waits for a few records, gives way to another peer's when they do not come: what
//!    one lost message would hold up for the patience of a large call, another peer gives at once. Whatever comes late is merged all the same.

mod finding;
mod serving;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::RngExt;

use crate::ids::NodeId;
use crate::io::{Counters, Target};
use crate::item::{KeyHash, RecordKey};
use crate::planted::{Bug, is_planted};
use crate::records::Records;
use crate::sketch::{Cell, Side};
use crate::spread::MAX_PUSHED_ON;
use crate::store::{Store, StoreFault};
use crate::summary::Root;
use crate::time::Instant;
use crate::wire::{self, Answer, RecordsAnswer, RecordsRequest, Request};

use finding::Finding;
pub use serving::{MAX_SERVED, Served, fill, items_of, records_of, sketches_of};

/// Most calls of one reconciliation: a million items and as many records in pages.
pub const MAX_CALLS: u32 = 4096;
/// Most calls of a reconciliation under way at once.
pub const MAX_CALLS_AT_ONCE: usize = 4;
/// Most records found in one reconciliation; the next one finds the others. 2 MiB of key hashes.
pub const MAX_FOUND: usize = 1 << 18;

/// Who waits so long for at most [`MAX_PUSHED_ON`] records may ask another. A guess: what a call takes to the other end of the world, and some; it
/// must be over when the next exchange begins.
const GIVES_WAY: Duration = Duration::from_millis(500);

/// After a refusal a node wants no cells of that peer for about so long, twice as long after each further one ...
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// ... up to so many doublings.
const MAX_DOUBLINGS: u32 = 4;

/// Which call of which reconciliation an answer belongs to.
#[derive(Debug, Clone)]
pub struct Step {
    session: u64,
    asked: Asked,
}

#[derive(Debug, Clone)]
enum Asked {
    Cells { to: usize },
    Partitions,
    Sketches { partitions: Vec<u8>, cells: usize },
    Items { partitions: Vec<u8>, from: u64 },
    Records(Vec<KeyHash>),
}

/// What came is not an answer to what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfit;

/// How a reconciliation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything found was told, or left to the next one at a bound.
    Done,
    /// A call brought no answer, or not a fitting one.
    Broken,
    /// The peer has too much to do.
    Refused,
}

#[derive(Debug)]
struct Session {
    number: u64,
    peer: Target,
    finding: Finding,
    ask: VecDeque<KeyHash>,
    give: VecDeque<KeyHash>,
    /// Calls under way.
    open: usize,
    calls: u32,
    /// How many differences it found.
    differences: usize,
    /// When it last asked something.
    asked: Instant,
    /// The records it brought that changed something, as long as they are few enough to be pushed on.
    brought: Vec<RecordKey>,
}

#[derive(Debug)]
struct Pause {
    until: Instant,
    doublings: u32,
}

/// The reconciliation that this node runs as initiator.
#[derive(Debug, Default)]
pub struct Reconciliation {
    session: Option<Session>,
    sessions: u64,
    /// The peers that refused lately; as many as there are members at most.
    pauses: BTreeMap<NodeId, Pause>,
}

impl Reconciliation {
    /// Whether cells of that peer would be of no use now.
    pub fn is_occupied(&self, peer: NodeId, now: Instant) -> bool {
        self.session.is_some() && !self.gives_way(now) || self.pauses.get(&peer).is_some_and(|pause| now < pause.until)
    }

    /// Whether the reconciliation under way has waited long for few records.
    pub fn gives_way(&self, now: Instant) -> bool {
        self.session.as_ref().is_some_and(|session| {
            let few = session.finding.is_over() && session.differences <= MAX_PUSHED_ON;
            few && session.open > 0 && now.since(session.asked) >= GIVES_WAY
        })
    }

    /// Begins with a peer whose root differs, from the first cells of the sketch it keeps under that number.
    ///
    /// This node's own side is frozen here.
    pub fn begin<S: Store>(
        &mut self,
        peer: Target,
        theirs: Root,
        (sketch, cells): (u32, &[Cell]),
        records: &Records<S>,
        now: Instant,
        counters: &mut Counters,
    ) {
        if self.session.is_some() {
            return;
        }
        if let Some(peer) = peer.id {
            self.pauses.remove(&peer);
        }
        self.sessions += 1;
        counters.reconciliations += 1;
        let mut session = Session {
            number: self.sessions,
            peer,
            finding: Finding::new(theirs, sketch, records.summary()),
            ask: VecDeque::new(),
            give: VecDeque::new(),
            open: 0,
            calls: 0,
            differences: 0,
            asked: now,
            brought: vec![],
        };
        let found = session.finding.on_cells(cells, counters);
        session.found(found, counters);
        self.session = Some(session);
    }

    /// The peer of the reconciliation under way.
    pub fn peer(&self) -> Option<NodeId> {
        self.session.as_ref().and_then(|session| session.peer.id)
    }

    /// That peer has too much to do: it is left alone for a while, drawn from half to one and a half of what is due.
    pub fn pause(&mut self, peer: NodeId, now: Instant, rng: &mut impl rand::Rng, counters: &mut Counters) {
        counters.reconciliations_refused += 1;
        self.pauses.retain(|_, pause| now.since(pause.until) < FIRST_PAUSE * 2_u32.pow(MAX_DOUBLINGS));
        let doublings = self.pauses.get(&peer).map_or(0, |pause| (pause.doublings + 1).min(MAX_DOUBLINGS));
        let until = now + FIRST_PAUSE * 2_u32.pow(doublings) * rng.random_range(500..1500_u32) / 1000;
        self.pauses.insert(peer, Pause { until, doublings });
    }

    /// The next call, if one can be made now.
    pub fn next_call<S: Store>(
        &mut self,
        records: &Records<S>,
        now: Instant,
        counters: &mut Counters,
    ) -> Result<Option<(Target, Request, Step)>, StoreFault> {
        let Some(session) = &mut self.session else { return Ok(None) };
        if session.open >= MAX_CALLS_AT_ONCE || session.calls >= MAX_CALLS {
            return Ok(None);
        }
        let (request, asked) = if let Some(search) = session.finding.next() {
            session.finding.call(search)
        } else if session.ask.is_empty() && session.give.is_empty() {
            return Ok(None);
        } else {
            session.page(records)?
        };
        session.asked = now;
        session.open += 1;
        session.calls += 1;
        counters.reconciliation_calls += 1;
        Ok(Some((session.peer.clone(), request, Step { session: session.number, asked })))
    }

    /// The peer told something of its set.
    pub fn on_told<S: Store>(
        &mut self,
        step: &Step,
        answer: Answer,
        records: &Records<S>,
        counters: &mut Counters,
    ) -> Result<Result<(), Unfit>, StoreFault> {
        let Some(session) = self.session.as_mut().filter(|session| session.number == step.session) else { return Ok(Ok(())) };
        session.open -= 1;
        if is_planted(Bug::CellsOfTwoInstants) {
            session.finding.freeze_anew(records.summary());
        }
        let found = match (&step.asked, answer) {
            (Asked::Cells { to }, Answer::Cells(answer)) if session.finding.length() + answer.cells.len() == *to => {
                session.finding.on_cells(&answer.cells, counters)
            }
            (Asked::Partitions, Answer::Partitions(answer)) => {
                session.finding.on_partitions(&answer.roots, records.summary().partitions());
                vec![]
            }
            (Asked::Sketches { partitions, cells }, Answer::Sketches(answer)) if answer.cells.len().is_multiple_of(*cells) => {
                session.finding.on_sketches(partitions, *cells, &answer.cells, records, counters)?
            }
            (Asked::Items { partitions, from }, Answer::Items(answer)) => {
                session.finding.on_items(partitions, *from, &answer, records, counters)?
            }
            (Asked::Cells { .. } | Asked::Partitions | Asked::Sketches { .. } | Asked::Items { .. } | Asked::Records(_), _) => {
                return Ok(Err(Unfit));
            }
        };
        session.found(found, counters);
        Ok(Ok(()))
    }

    /// The peer gave records, which were merged and changed those of `changed`.
    pub fn on_records<S: Store>(
        &mut self,
        step: &Step,
        answer: &RecordsAnswer,
        changed: &[RecordKey],
        records: &Records<S>,
    ) -> Result<Result<(), Unfit>, StoreFault> {
        let Some(session) = self.session.as_mut().filter(|session| session.number == step.session) else { return Ok(Ok(())) };
        session.open -= 1;
        let Asked::Records(asked) = &step.asked else { return Ok(Err(Unfit)) };
        // A peer that looks at nothing would be asked for ever.
        let (seen, later) = asked.split_at(answer.seen.max(1).min(asked.len()));
        later.iter().rev().for_each(|hash| session.ask.push_front(*hash));
        for hash in seen {
            for key in records.keys(*hash)? {
                let came = answer.give.iter().find(|entry| entry.id == key.blob);
                let ours = records.record(key)?;
                if came.is_none_or(|entry| entry.versions != ours) {
                    session.give.push_back(*hash);
                }
            }
        }
        let room = (MAX_PUSHED_ON + 1).saturating_sub(session.brought.len());
        session.brought.extend(changed.iter().take(room));
        Ok(Ok(()))
    }

    /// Whether the reconciliation under way has nothing more to ask and nothing to wait for.
    pub fn is_over(&self) -> bool {
        self.session.as_ref().is_some_and(|session| {
            let idle = session.finding.is_over() && session.ask.is_empty() && session.give.is_empty();
            session.open == 0 && (idle || session.calls >= MAX_CALLS)
        })
    }

    /// Whether that call is one of the reconciliation under way.
    pub fn is_current(&self, step: &Step) -> bool {
        self.session.as_ref().is_some_and(|session| session.number == step.session)
    }

    /// Ends it; returns the records to push on: all it brought, if they were few.
    pub fn end(&mut self, outcome: Outcome, counters: &mut Counters) -> Vec<RecordKey> {
        let Some(session) = self.session.take() else { return vec![] };
        match outcome {
            Outcome::Done => counters.reconciliations_done += 1,
            Outcome::Broken => counters.reconciliations_broken += 1,
            // Counted with the pause that follows.
            Outcome::Refused => {}
        }
        if session.brought.len() <= MAX_PUSHED_ON { session.brought } else { vec![] }
    }

    /// What must hold at all times.
    pub fn check(&self) {
        let Some(session) = &self.session else { return };
        assert!(session.open <= MAX_CALLS_AT_ONCE && session.calls <= MAX_CALLS, "no more calls are made than said");
        // One answer more may come on top.
        assert!(session.ask.len() <= 2 * MAX_FOUND && session.give.len() <= 2 * MAX_FOUND, "the queues are bounded");
    }
}

impl Session {
    /// Queues what was found: a record that both sides have in different states is asked for, and given back where it then differs.
    fn found(&mut self, found: Vec<(KeyHash, Side)>, counters: &mut Counters) {
        counters.differences_found += found.len() as u64;
        self.differences += found.len();
        let mut theirs: Vec<KeyHash> = found.iter().filter(|(_, side)| *side == Side::Theirs).map(|(hash, _)| *hash).collect();
        theirs.sort_unstable();
        theirs.dedup();
        let ours = found.iter().filter(|(hash, side)| *side == Side::Ours && theirs.binary_search(hash).is_err());
        self.give.extend(ours.map(|(hash, _)| *hash));
        self.ask.extend(theirs);
        if self.ask.len() + self.give.len() >= MAX_FOUND {
            self.finding.give_up();
        }
    }

    /// The next page of records to give, read now, and of those to ask for.
    fn page<S: Store>(&mut self, records: &Records<S>) -> Result<(Request, Asked), StoreFault> {
        let page = records_of(self.give.make_contiguous(), records)?;
        self.give.drain(..page.seen);
        let ask: Vec<KeyHash> = self.ask.drain(..self.ask.len().min(wire::MAX_RECORDS)).collect();
        let last = self.open == 0 && self.give.is_empty() && self.ask.is_empty() && self.finding.is_over();
        Ok((Request::Records(RecordsRequest { give: page.give, ask: ask.clone(), last }), Asked::Records(ask)))
    }
}
