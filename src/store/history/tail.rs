//! The tail of the history: changes that are in the journal and not in the tables yet.
//!
//! 1. A piece is added when it is in the journal, and taken off when the tables have it durably. So who looks at the tail first and at the tables
//!    afterwards misses nothing.
//! 2. A transaction of the tables knows up to which record of the journal it has everything: earlier pieces are passed over, so nothing is
//!    read twice.
//! 3. A tail that somebody reads does not change: the writer goes on with another one, of the same pieces.

use std::sync::Arc;

use gossip_cdn_protocol::history::disk::{Change, Place};
use gossip_cdn_protocol::history::message::{Message, MessageId};
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
    pub(super) changes: Vec<Change>,
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
        self.pieces.push(Arc::new(Piece { sequence, index: self.state.index, decided: self.state.decided, changes }));
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

/// The last of them that keeps a message of that name.
pub(super) fn kept(pieces: &[Arc<Piece>], id: MessageId) -> Option<&Message> {
    changes(pieces).rev().find_map(|change| match change {
        Change::Keep(message) if message.id == id => Some(message),
        Change::Keep(_) | Change::Promise(_) | Change::Accept(..) | Change::Decide(..) | Change::Deliver(..) | Change::Reach(_) => None,
        Change::Join(_) | Change::Withhold(_) | Change::Release | Change::Forget(_) | Change::Own(_) => None,
    })
}
