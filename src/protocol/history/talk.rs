//! What nodes say to each other about a history, and what they answer.
//!
//! All of it travels as one kind of call that names its history: a node of another one refuses it whole, whatever is in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::history::causal::{MAX_TOLD, Tell};
use crate::history::disk::Founding;
use crate::history::message::{BadMessage, Channel, Message, MessageId};
use crate::history::ordered::{Ballot, Batch, Entry, MAX_BATCH, Step, Vote};
use crate::ids::NodeId;

/// Most origins in a list of what a node has. A network of so many nodes that all send messages is beyond this version.
pub const MAX_ORIGINS: usize = 10_000;
/// Most slots in one letter; others are learned when histories are compared.
pub const MAX_SLOTS: usize = 8;
/// Most pieces of one page of history.
pub const MAX_PIECES: usize = 512;
/// A page is filled until it holds about so many bytes of bodies.
pub const PAGE_BUDGET: usize = 1 << 20;

/// Something said about a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryCall {
    /// Which history.
    #[serde(rename = "h")]
    pub history: Uuid,
    /// What.
    pub ask: Ask,
}

/// What is said or asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// Of causal messages, and slots decided lately. Answered by [`HistoryAnswer::Told`].
    Tell(Letter),
    /// A coordinator's step. Answered by [`HistoryAnswer::Vote`].
    Step(Step),
    /// Ordered messages for whoever coordinates. Answered by [`HistoryAnswer::Taken`], or, by a coordinator that proposes all of them at once, by its
    /// own [`Vote::Received`].
    HandOver(Vec<Message>),
    /// What do you have beyond this? Answered by [`HistoryAnswer::Versions`].
    Versions(Known),
    /// Update me: answered by [`HistoryAnswer::Update`].
    UpdateMe(UpdateMe),
    /// The sender, a learner, has everything up to that slot and would vote. Answered by [`HistoryAnswer::Taken`].
    Seat(u64),
    /// Which messages do you have, in that epoch? Answered by [`HistoryAnswer::Holdings`].
    Settle(u64),
}

/// What a node has to say to another one, gathered while it waited for an answer to the letter before.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Letter {
    /// Of causal messages.
    pub tell: Tell,
    /// Slots decided, as rumors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub slots: BTreeMap<u64, Batch>,
}

/// How far a node is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Known {
    /// The last slot decided there.
    pub slot: u64,
    /// The last causal message delivered of each origin, or of those only that changed lately.
    pub origins: BTreeMap<NodeId, u64>,
    /// Whether `origins` names every origin.
    pub full: bool,
    /// In an answer: what was seen of the asker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traces: Option<Traces>,
}

/// What a node has seen of another one, which that one must remember if it forgot nothing and is alone with its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traces {
    /// The greatest number of its causal messages; 0 for none.
    pub causal: u64,
    /// The greatest number of its ordered messages.
    pub ordered: u64,
    /// The greatest ballot that it started, or that it gave its vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ballot: Option<Ballot>,
    /// The last slot for which it took a batch under the greatest ballot that it gave its vote.
    pub slot: u64,
}

/// Something that is said, and that its maker remembers.
#[derive(Debug, Clone, Copy)]
pub enum Named<'a> {
    /// A message.
    Message(&'a Message),
    /// The name of one.
    Name(MessageId),
    /// A ballot.
    Ballot(Ballot),
    /// What was seen of the node that hears it.
    Traces(&'a Traces),
}

/// A question for what follows in the history of the node asked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UpdateMe {
    /// The last slot known: later ones are wanted.
    pub slot: u64,
    /// Later messages of these origins are wanted.
    pub origins: BTreeMap<NodeId, u64>,
    /// Go on from that index of the node asked; 0 at first.
    pub from: u64,
}

/// A page of a history, in the order in which the node asked has delivered.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Update {
    /// The pieces.
    pub pieces: Vec<Piece>,
    /// Where to go on; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A piece of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Piece {
    /// A causal message.
    Message(Message),
    /// A slot.
    Slot(u64, Batch),
}

/// What a voter has, all of it durable.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Holdings {
    /// The epoch it is in.
    pub epoch: u64,
    /// The last slot decided there.
    pub slot: u64,
    /// The last causal message delivered of each origin.
    pub delivered: BTreeMap<NodeId, u64>,
    /// Causal messages kept undelivered.
    pub kept: Vec<MessageId>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HistoryAnswer {
    /// What the asked node has to say in turn.
    Told(Tell),
    /// A voter's.
    Vote(Vote),
    /// It was heard; whose ballot the asked node follows, if any.
    Taken(Option<NodeId>),
    /// How far the asked node is, where it is farther.
    Versions(Known),
    /// A page.
    Update(Update),
    /// What the asked node has.
    Holdings(Holdings),
    /// The asked node serves as many others as it can.
    Busy,
    /// The asked node belongs to no history, or to that one.
    Elsewhere(Option<Head>),
}

/// What tells one node's history from another's, and how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The history.
    pub founding: Founding,
    /// Nothing is decided or delivered in it, as far as the sender knows: it yields to any other.
    pub young: bool,
}

impl Ask {
    /// Checks what must hold of everything from outside.
    pub fn validate(&self) -> Result<(), BadMessage> {
        match self {
            Self::Tell(letter) => {
                at_most(letter.slots.len(), MAX_SLOTS)?;
                letter.slots.values().try_for_each(validate_batch)?;
                validate_tell(&letter.tell)
            }
            Self::Step(Step::Update { batch, .. }) => validate_batch(batch),
            Self::HandOver(messages) => validate_all(messages, MAX_BATCH),
            Self::Versions(Known { origins, .. }) | Self::UpdateMe(UpdateMe { origins, .. }) => at_most(origins.len(), MAX_ORIGINS),
            Self::Step(Step::Start { .. } | Step::Commit { .. } | Step::Rollback { .. }) | Self::Seat(_) | Self::Settle(_) => Ok(()),
        }
    }
}

impl HistoryAnswer {
    /// Checks what must hold of everything from outside.
    pub fn validate(&self) -> Result<(), BadMessage> {
        match self {
            Self::Told(tell) => validate_tell(tell),
            Self::Vote(vote) => match vote {
                Vote::Confirm { accepted, decided, .. } => {
                    accepted.values().map(|accepted| &accepted.batch).chain(decided.values()).try_for_each(validate_batch)
                }
                Vote::Decided { batch, .. } => validate_batch(batch),
                Vote::Received { .. } | Vote::Refused { .. } | Vote::Ahead { .. } | Vote::Behind | Vote::Taken => Ok(()),
            },
            Self::Versions(known) => at_most(known.origins.len(), MAX_ORIGINS),
            Self::Update(update) => {
                at_most(update.pieces.len(), MAX_PIECES)?;
                update.pieces.iter().try_for_each(|piece| match piece {
                    Piece::Message(message) => message.validate(),
                    Piece::Slot(_, batch) => validate_batch(batch),
                })
            }
            Self::Holdings(holdings) => at_most(holdings.delivered.len(), MAX_ORIGINS),
            Self::Taken(_) | Self::Busy | Self::Elsewhere(_) => Ok(()),
        }
    }
}

type See<'a> = &'a mut dyn FnMut(Named<'_>);

impl Ask {
    /// Shows everything in it that its maker remembers.
    pub fn each(&self, see: See<'_>) {
        match self {
            Self::Tell(Letter { tell, slots }) => {
                each_told(tell, see);
                slots.values().flat_map(Batch::messages).for_each(|message| each_message(message, see));
            }
            Self::Step(Step::Start { ballot, .. } | Step::Commit { ballot, .. } | Step::Rollback { ballot }) => see(Named::Ballot(*ballot)),
            Self::Step(Step::Update { ballot, batch, .. }) => {
                see(Named::Ballot(*ballot));
                batch.messages().for_each(|message| each_message(message, see));
            }
            Self::HandOver(messages) => messages.iter().for_each(|message| each_message(message, see)),
            Self::Versions(Known { origins, .. }) | Self::UpdateMe(UpdateMe { origins, .. }) => each_origin(origins, see),
            Self::Seat(_) | Self::Settle(_) => {}
        }
    }
}

impl HistoryAnswer {
    /// Shows everything in it that its maker remembers.
    pub fn each(&self, see: See<'_>) {
        match self {
            Self::Told(tell) => each_told(tell, see),
            Self::Vote(Vote::Confirm { ballot, accepted, decided }) => {
                see(Named::Ballot(*ballot));
                accepted.values().for_each(|accepted| see(Named::Ballot(accepted.ballot)));
                let batches = accepted.values().map(|accepted| &accepted.batch).chain(decided.values());
                batches.flat_map(Batch::messages).for_each(|message| each_message(message, see));
            }
            Self::Vote(Vote::Received { ballot, .. } | Vote::Refused { promised: ballot }) => see(Named::Ballot(*ballot)),
            Self::Vote(Vote::Decided { batch, .. }) => batch.messages().for_each(|message| each_message(message, see)),
            Self::Versions(known) => {
                each_origin(&known.origins, see);
                known.traces.iter().for_each(|traces| see(Named::Traces(traces)));
            }
            Self::Update(update) => update.pieces.iter().for_each(|piece| match piece {
                Piece::Message(message) => each_message(message, see),
                Piece::Slot(_, batch) => batch.messages().for_each(|message| each_message(message, see)),
            }),
            Self::Holdings(holdings) => {
                each_origin(&holdings.delivered, see);
                holdings.kept.iter().for_each(|id| see(Named::Name(*id)));
            }
            Self::Vote(Vote::Ahead { .. } | Vote::Behind | Vote::Taken) | Self::Taken(_) | Self::Busy | Self::Elsewhere(_) => {}
        }
    }
}

fn each_told(tell: &Tell, see: See<'_>) {
    tell.messages.iter().for_each(|message| each_message(message, see));
    tell.holds.iter().chain(&tell.delivered).chain(&tell.lacks).for_each(|id| see(Named::Name(*id)));
}

fn each_message(message: &Message, see: See<'_>) {
    see(Named::Message(message));
    message.frontier.newest.iter().for_each(|id| see(Named::Name(*id)));
}

fn each_origin(origins: &BTreeMap<NodeId, u64>, see: See<'_>) {
    let name = |(origin, last): (&NodeId, &u64)| MessageId { origin: *origin, channel: Channel::Causal, sequence: *last };
    origins.iter().map(name).for_each(|id| see(Named::Name(id)));
}

fn at_most(found: usize, bound: usize) -> Result<(), BadMessage> {
    if found <= bound { Ok(()) } else { Err(BadMessage::TooMany) }
}

fn validate_all(messages: &[Message], bound: usize) -> Result<(), BadMessage> {
    at_most(messages.len(), bound)?;
    messages.iter().try_for_each(Message::validate)
}

fn validate_tell(tell: &Tell) -> Result<(), BadMessage> {
    let names = tell.holds.len().max(tell.delivered.len()).max(tell.lacks.len());
    at_most(names, MAX_TOLD)?;
    validate_all(&tell.messages, MAX_TOLD)
}

fn validate_batch(batch: &Batch) -> Result<(), BadMessage> {
    // An epoch on top.
    at_most(batch.entries.len(), MAX_BATCH + 1)?;
    batch.entries.iter().try_for_each(|entry| match entry {
        Entry::Message(message) => message.validate(),
        Entry::Epoch(_) => Ok(()),
    })
}
