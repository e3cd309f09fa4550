//! The tail of the history: changes that are in the journal and not in the tables yet.
//!
//! 1. A piece is added when it is in the journal, and taken off when the tables have it durably. So who looks at the tail first and at the tables
//!    afterwards misses nothing.
//! 2. A transaction of the tables knows up to which record of the journal it has everything: earlier pieces are passed over, so nothing is
//!    read twice.
//! 3. A tail that somebody reads does not change: the writer goes on with another one, of the same pieces.
//! 4. Looking for a name costs a comparison for each piece and origin, and for each change of the few pieces that may have it, not of all.

use std::collections::BTreeMap;
use std::sync::Arc;

use gossip_cdn_protocol::NodeId;
use gossip_cdn_protocol::history::disk::{Change, Place};
use gossip_cdn_protocol::history::message::{Channel, Message, MessageId};
use gossip_cdn_protocol::history::ordered::Batch;
use uuid::Uuid;

use super::front::Front;
use super::rows::State;

/// The changes of one record of the journal.
#[derive(Debug)]
pub(super) struct Piece {
    /// Of the record.
    pub(super) sequence: u64,
    /// How many messages are delivered, and slots decided, with it.
    index: u64,
    decided: u64,
    /// Which names they keep, decide or deliver: of each origin and channel none before the first number and none behind the second.
    names: BTreeMap<(NodeId, Channel), (u64, u64)>,
    pub(super) changes: Vec<Change>,
}

impl Piece {
    fn new(sequence: u64, state: &State, changes: Vec<Change>) -> Self {
        let mut names = BTreeMap::new();
        let mut note = |id: MessageId| {
            let (first, last) = names.entry((id.origin, id.channel)).or_insert((id.sequence, id.sequence));
            (*first, *last) = (id.sequence.min(*first), id.sequence.max(*last));
        };
        for change in &changes {
            match change {
                Change::Keep(message) | Change::Deliver(_, message) => note(message.id),
                Change::Decide(_, batch, _) => batch.messages().for_each(|message| note(message.id)),
                Change::Promise(_) | Change::Accept(..) | Change::Reach(_) => {}
                Change::Join(_) | Change::Withhold(_) | Change::Release | Change::Forget(_) | Change::Own(_) => {}
            }
        }
        Self { sequence, index: state.index, decided: state.decided, names, changes }
    }

    fn may_name(&self, id: MessageId) -> bool {
        self.names.get(&(id.origin, id.channel)).is_some_and(|(first, last)| (*first..=*last).contains(&id.sequence))
    }
}

/// All pieces, in their order.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct Tail {
    /// The history that they are of.
    pub(super) history: Uuid,
    /// How far that is behind the last of them.
    pub(super) state: State,
    pub(super) pieces: Vec<Arc<Piece>>,
}

impl Tail {
    /// Adds the changes of a record, `front` being behind them.
    pub(in crate::store) fn push(&mut self, sequence: u64, changes: Vec<Change>, front: &Front) {
        self.history = front.id;
        self.state.clone_from(&front.state);
        self.pieces.push(Arc::new(Piece::new(sequence, &self.state, changes)));
    }

    /// All its changes.
    pub(in crate::store) fn changes(&self) -> impl Iterator<Item = &Change> {
        changes(&self.pieces)
    }
}

/// The changes of these pieces.
pub(super) fn changes(pieces: &[Arc<Piece>]) -> impl DoubleEndedIterator<Item = &Change> {
    pieces.iter().flat_map(|piece| piece.changes.iter())
}

/// What they deliver, from that index on.
pub(super) fn delivered(pieces: &[Arc<Piece>], from: u64) -> impl Iterator<Item = (&Place, &Message)> {
    let before = pieces.partition_point(|piece| piece.index < from);
    let delivered = changes(pieces.get(before..).unwrap_or_default()).filter_map(|change| match change {
        Change::Deliver(place, message) => Some((place, message)),
        Change::Keep(_) | Change::Promise(_) | Change::Accept(..) | Change::Decide(..) | Change::Reach(_) => None,
        Change::Join(_) | Change::Withhold(_) | Change::Release | Change::Forget(_) | Change::Own(_) => None,
    });
    delivered.skip_while(move |(place, _)| place.index < from)
}

/// The slots that they decide, from that one on.
pub(super) fn decided(pieces: &[Arc<Piece>], from: u64) -> impl Iterator<Item = (u64, &Batch)> {
    let before = pieces.partition_point(|piece| piece.decided < from);
    let decided = changes(pieces.get(before..).unwrap_or_default()).filter_map(|change| match change {
        Change::Decide(slot, batch, _) => Some((*slot, batch)),
        Change::Keep(_) | Change::Promise(_) | Change::Accept(..) | Change::Deliver(..) | Change::Reach(_) => None,
        Change::Join(_) | Change::Withhold(_) | Change::Release | Change::Forget(_) | Change::Own(_) => None,
    });
    decided.skip_while(move |(slot, _)| *slot < from)
}

/// The changes of those pieces that may name a message.
fn naming(pieces: &[Arc<Piece>], id: MessageId) -> impl DoubleEndedIterator<Item = &Change> {
    pieces.iter().filter(move |piece| piece.may_name(id)).flat_map(|piece| piece.changes.iter())
}

/// Where they deliver a message of that name.
pub(super) fn delivered_as(pieces: &[Arc<Piece>], id: MessageId) -> Option<(&Place, &Message)> {
    naming(pieces, id).find_map(|change| match change {
        Change::Deliver(place, message) if place.id == id => Some((place, message)),
        Change::Deliver(..) | Change::Keep(_) | Change::Promise(_) | Change::Accept(..) | Change::Decide(..) | Change::Reach(_) => None,
        Change::Join(_) | Change::Withhold(_) | Change::Release | Change::Forget(_) | Change::Own(_) => None,
    })
}

/// The first message of that name that they decide.
pub(super) fn decided_as(pieces: &[Arc<Piece>], id: MessageId) -> Option<&Message> {
    naming(pieces, id).find_map(|change| match change {
        Change::Decide(_, batch, _) => batch.messages().find(|message| message.id == id),
        Change::Deliver(..) | Change::Keep(_) | Change::Promise(_) | Change::Accept(..) | Change::Reach(_) => None,
        Change::Join(_) | Change::Withhold(_) | Change::Release | Change::Forget(_) | Change::Own(_) => None,
    })
}

/// The last message of that name that they keep.
pub(super) fn kept(pieces: &[Arc<Piece>], id: MessageId) -> Option<&Message> {
    naming(pieces, id).rev().find_map(|change| match change {
        Change::Keep(message) if message.id == id => Some(message),
        Change::Keep(_) | Change::Promise(_) | Change::Accept(..) | Change::Decide(..) | Change::Deliver(..) | Change::Reach(_) => None,
        Change::Join(_) | Change::Withhold(_) | Change::Release | Change::Forget(_) | Change::Own(_) => None,
    })
}
