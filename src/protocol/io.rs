//! The two doors of the core: what goes in, what comes out.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::history::disk::{Founding, Order, Place};
use crate::history::epoch::Epoch;
use crate::history::message::{Body, Channel, Message, MessageId};
use crate::history::replica::Full;
use crate::history::transaction::Transaction;
use crate::identity::Conflict;
use crate::ids::{BlobId, ContentHash, NodeId};
use crate::item::{RecordKey, StateHash};
use crate::lan::Heartbeat;
use crate::member::{Member, MemberState};
use crate::record::Record;
use crate::store::{Missing, StoreFault};
use crate::summary::Root;
use crate::time::WallTime;
use crate::version::{Payload, VersionId};
use crate::wire::{Answer, Envelope, Introduction, Join, Request};

/// A client's call, numbered by the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientCall(pub u64);

/// A peer's request waiting for its answer, numbered by the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerCall(pub u64);

/// A call to another node, numbered by the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnCall(pub u64);

/// A persist, numbered by the core in the order in which they are to be made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Token(pub u64);

/// A transfer of payloads from one holder, numbered by the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId(pub u64);

/// What happens to a node.
#[derive(Debug, Clone)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// A client wants something.
    Command(ClientCall, Command),
    /// A peer asks.
    Request(PeerCall, Envelope<Request>),
    /// A peer answered a call, or did not.
    Answered(OwnCall, Result<Envelope<Answer>, CallFault>),
    /// A bootstrap node answered, or did not.
    Joined(OwnCall, Result<Introduction, CallFault>),
    /// A persist is durable, or never will be.
    Persisted(Token, Result<(), StoreFault>),
    /// A transfer ended: for each payload, whether it is here durably now.
    Fetched(TransferId, Vec<(ContentHash, Result<(), FetchFault>)>),
    /// A datagram came over the local network, from whomever.
    Datagram(Vec<u8>),
}

/// What a node wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Call another node; report with [`Input::Answered`].
    Call(OwnCall, Target, Envelope<Request>),
    /// Register with a bootstrap node at that address; report with [`Input::Joined`].
    Join(OwnCall, String, Envelope<Join>),
    /// Answer a peer.
    Answer(PeerCall, Result<Envelope<Answer>, Refusal>),
    /// Answer a client.
    Reply(ClientCall, Reply),
    /// Make this durable; report with [`Input::Persisted`].
    Persist(Persist),
    /// Fetch payloads from a holder, verify them, make them durable; report with [`Input::Fetched`].
    Fetch(Fetch),
    /// Send this to everybody on the local network, as JSON.
    Heartbeat(Heartbeat),
    /// Something for logs and metrics.
    Event(Event),
    /// This core is at its end: build a new one from the store.
    Stop(StoreFault),
    /// This core is at its end, its identity with it: take a new key, durably, and build a new core with it from the store.
    IdentityTaken(Conflict),
}

/// Outputs in the order in which they are to be performed.
pub type Outbox = Vec<Output>;

/// Whom to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The node expected there; unknown when an address was given by hand.
    pub id: Option<NodeId>,
    /// Base URL.
    pub address: String,
}

/// Why a call brought no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallFault {
    /// No connection, no answer in time.
    Unreachable,
    /// It is there and asks to come back later.
    Busy,
    /// It refused: another cluster, another protocol version.
    Refused(String),
    /// What it sent is not an answer.
    Malformed(String),
}

/// Why a peer's request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// From a node of another cluster.
    #[error("this node belongs to the cluster {ours:?}, the message to {theirs:?}")]
    OtherCluster {
        /// This node's.
        ours: String,
        /// The sender's.
        theirs: String,
    },
    /// Of a protocol version that is not spoken here.
    #[error("this node speaks protocol version {ours}, the message is of version {theirs}")]
    UnknownVersion {
        /// This node's.
        ours: u32,
        /// The sender's.
        theirs: u32,
    },
    /// Its body breaks a rule.
    #[error("{0}")]
    Malformed(String),
    /// It has as much to do for others as it does at once.
    #[error("this node reconciles with as many others as it can; come back in {retry_after} s")]
    Busy {
        /// After so many seconds.
        retry_after: u32,
    },
    /// The node is at its end and about to be built anew.
    #[error("this node of the cluster {cluster:?} cannot read or write its store for now")]
    Stopped {
        /// This node's.
        cluster: String,
    },
    /// It claims to come from this very node.
    #[error("the message bears this node's own id")]
    FromSelf,
}

/// One atomic change of the durable state.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Persist {
    /// Its number.
    pub token: Token,
    /// Records to replace.
    pub records: Vec<RecordChange>,
    /// Members to replace.
    pub members: Vec<Member>,
    /// This node's incarnation, if it grew.
    pub incarnation: Option<u64>,
    /// The addresses introduced by hand that never answered yet, if they changed.
    pub contacts: Option<Vec<String>>,
    /// Changes of the message history, in this order.
    pub history: Vec<crate::history::disk::Change>,
}

impl Persist {
    /// Whether it changes nothing but the message history.
    pub fn is_history_alone(&self) -> bool {
        let Self { token: _, records, members, incarnation, contacts, history: _ } = self;
        records.is_empty() && members.is_empty() && incarnation.is_none() && contacts.is_none()
    }
}

/// The new state of one record.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordChange {
    /// Which.
    pub key: RecordKey,
    /// Its versions.
    pub record: Record,
    /// Their hash, to be kept beside them so that a scan of items reads no record.
    pub state: StateHash,
}

/// Payloads to fetch from one holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// Its number.
    pub transfer: TransferId,
    /// The holder.
    pub from: Target,
    /// What to fetch: one payload of any size, or several small ones.
    pub wants: Vec<Missing>,
}

/// Why a payload did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchFault {
    /// The holder does not have it.
    Absent,
    /// The holder does not answer, or went silent midway.
    Unreachable,
    /// The holder has too much to do, or refuses: a sign of life.
    Busy,
    /// The bytes do not match the hash. Misbehaviour.
    WrongBytes,
    /// The bytes ended early. Misbehaviour, though a holder that is killed midway looks alike.
    ShortBody,
    /// It could not be stored here.
    Local,
}

/// What clients want.
#[derive(Debug, Clone)]
pub enum Command {
    /// Write, delete or restore a blob.
    Write(Write),
    /// The payload is not here and a reader waits: fetch it now.
    Want(Missing),
    /// Who holds the winner's payload durably?
    Holders(BlobId),
    /// There is a node at that address.
    Introduce(String),
    /// How is this node?
    Status,
    /// Take a message into the history.
    Say(Say),
    /// Which messages are known here and not delivered? At most so many of those behind that one, in the order of their names.
    Undelivered(Option<MessageId>, usize),
    /// Leave this node's history for that one, which another node belongs to.
    AdoptHistory(uuid::Uuid),
    /// Whom does this node know?
    Members,
    /// That member, dead or gone, will not come back.
    Forget(NodeId),
    /// This node is about to stop: from now on no client waits for other nodes. Who waits for copies or a delivery is told what was reached.
    Conclude,
    /// This node stops.
    Leave,
}

/// A message for the history.
#[derive(Debug, Clone)]
pub struct Say {
    /// How it is ordered among others.
    pub channel: Channel,
    /// Media type of its body.
    pub media_type: String,
    /// Its body, at most [`crate::history::message::MAX_BODY`] bytes.
    pub body: Body,
    /// How long to wait until it is delivered here; `None` not to wait.
    pub wait: Option<Duration>,
}

/// A message that is durable here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// Its name.
    pub id: MessageId,
    /// How far it is.
    pub standing: Standing,
}

/// How far a message is at the node that took it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It waits.
    Pending,
    /// It stands in the common order for good: a majority has the decision on disk, and everything before it is here. Its delivery is on its way to
    /// this node's disk; who reads the history from now on waits for that.
    Ordered(Order),
    /// It is delivered, durably.
    Delivered(Place),
}

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SayFault {
    /// Too many wait to be delivered, or the node is just joining a history.
    Full(Full),
    /// The node gives up its key, which is not its own alone, and does not have another yet.
    KeyTaken,
    /// The disk refused.
    Store(StoreFault),
}

/// Why another history was not adopted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdoptFault {
    /// No node of it was met.
    Unknown,
    /// This node belongs to it.
    Current,
    /// This node belonged to it before.
    Left,
    /// The node gives up its key, which is not its own alone, and does not have another yet.
    KeyTaken,
    /// The disk refused.
    Store(StoreFault),
}

/// A write.
#[derive(Debug, Clone)]
pub struct Write {
    /// The blob; the core makes a new GUID where none is given.
    pub blob: Option<BlobId>,
    /// What it becomes.
    pub change: Change,
    /// What must hold before, checked in one step with the write.
    pub condition: Condition,
    /// On how many nodes it must be durable before the reply; at least 1, this one.
    pub copies: usize,
    /// How long to wait for the others.
    pub timeout: Duration,
}

/// What a write makes of a blob.
#[derive(Debug, Clone)]
pub enum Change {
    /// These bytes, durably stored or on their way to disk ahead of the record.
    Put(Payload),
    /// Deleted.
    Delete,
    /// The content of that live version again, over all others.
    Restore(VersionId),
}

/// HTTP's preconditions on a write (RFC 9110 section 13), about the winner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    /// `If-Match`.
    pub if_match: Option<Tags>,
    /// `If-None-Match`.
    pub if_none_match: Option<Tags>,
}

/// Entity tags of a precondition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tags {
    /// `*`: any live winner.
    Any,
    /// One of these: the first 16 bytes of the hash.
    Of(Vec<[u8; 16]>),
}

impl Tags {
    /// Whether a winner of that hash is among them; `None` is an unknown or deleted blob.
    pub fn matches(&self, winner: Option<ContentHash>) -> bool {
        match (self, winner) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::Of(tags), Some(hash)) => tags.contains(&hash.tag()),
        }
    }
}

impl Condition {
    /// Whether a write may go on, in the order of RFC 9110 section 13.2.2.
    pub fn holds(&self, winner: Option<ContentHash>) -> bool {
        self.if_match.as_ref().is_none_or(|tags| tags.matches(winner))
            && self.if_none_match.as_ref().is_none_or(|tags| !tags.matches(winner))
    }
}

/// Answers to clients.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// To [`Command::Write`].
    Write(Result<Written, WriteFault>),
    /// To [`Command::Want`]: it is here durably; or no holder could be reached.
    Want(Result<(), NoHolder>),
    /// To [`Command::Holders`]; `None` of a blob that has no payload.
    Holders(Option<Holders>),
    /// To [`Command::Introduce`].
    Introduce(Result<Member, CallFault>),
    /// To [`Command::Status`].
    Status(Box<Status>),
    /// To [`Command::Say`].
    Say(Result<Said, SayFault>),
    /// To [`Command::Undelivered`].
    Undelivered(Vec<Message>),
    /// To [`Command::AdoptHistory`]: done, durably.
    AdoptHistory(Result<Founding, AdoptFault>),
    /// To [`Command::Members`].
    Members(Vec<MemberView>),
    /// To [`Command::Forget`]: the claim, durable here, as it now spreads.
    Forget(Result<Member, ForgetFault>),
    /// To [`Command::Conclude`].
    Concluded,
    /// To [`Command::Leave`].
    Left,
}

/// No holder of a payload could be reached for now; the search goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoHolder;

/// A write that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The blob.
    pub blob: BlobId,
    /// The version made.
    pub version: VersionId,
    /// What it says; `None` of a delete.
    pub payload: Option<Payload>,
    /// Whether a live winner was replaced.
    pub replaced: bool,
    /// On how many nodes it is known to be durable, this one included.
    pub copies: usize,
}

/// Why a write was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteFault {
    /// A precondition does not hold; the winner's hash, if there is a live winner.
    Condition(Option<ContentHash>),
    /// To be deleted or restored, but never written.
    Unknown,
    /// To be deleted, but deleted already, by that version.
    Deleted(VersionId),
    /// To be restored, but that version is not live, or is a tombstone.
    NoSuchVersion,
    /// To be restored, but the bytes of that version are still on their way here: writing it again now could leave them with nobody.
    NotHere(ContentHash),
    /// Too many writes wait for the disk.
    Busy,
    /// Some version of this blob bears the last stamp before the year 10000: nothing can be written after it.
    StampsExhausted,
    /// The node gives up its key, which is not its own alone, and does not have another yet.
    KeyTaken,
    /// The disk refused.
    Store(StoreFault),
}

/// Why a member was not forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForgetFault {
    /// No member of that id is known.
    Unknown,
    /// It is this node.
    Myself,
    /// It is alive or suspect: only who is dead or has left is forgotten.
    Live,
    /// The disk refused.
    Store(StoreFault),
}

/// Who holds a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holders {
    /// The winner.
    pub version: VersionId,
    /// The nodes that said so, this one included where it does.
    pub holders: Vec<(NodeId, String)>,
    /// How many members were asked.
    pub asked: usize,
    /// How many live members there are, this one included.
    pub members: usize,
}

/// How a node is.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// Its identity.
    pub id: NodeId,
    /// Its cluster.
    pub cluster: String,
    /// Its incarnation.
    pub incarnation: u64,
    /// Root of the record set; the count includes tombstones.
    pub root: Root,
    /// Bytes of all payloads here.
    pub payload_bytes: u64,
    /// Payloads wanted and not here yet, of those at hand.
    pub wanted: usize,
    /// Live members, this one included.
    pub live_members: usize,
    /// By how much this node's own strain stretches its patience with others: 1 when well, 8 at worst.
    pub local_health: u32,
    /// Counters since the start.
    pub counters: Counters,
    /// The message history.
    pub history: HistoryStatus,
    /// Misbehaviour by sender and kind.
    pub misbehaviour: BTreeMap<(NodeId, Misbehaviour), u64>,
}

/// How the message history of a node is.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryStatus {
    /// Which it is; `None` before any was joined.
    pub founding: Option<Founding>,
    /// Histories met that neither yielded nor made this node yield.
    pub apart: Vec<Founding>,
    /// Who votes.
    pub epoch: Epoch,
    /// Whose ballot this node follows.
    pub coordinator: Option<NodeId>,
    /// The last slot decided here.
    pub slot: u64,
    /// Messages delivered here.
    pub delivered: u64,
    /// Of them, ordered ones.
    pub number: u64,
    /// Messages known here and not delivered.
    pub pending: usize,
    /// Whether all that a majority of the voters had is here.
    pub synchronised: bool,
    /// What is under way.
    pub transaction: Transaction,
    /// When it came into its present state, by the wall clock as it is now.
    pub since: WallTime,
    /// Pages of history fetched since the start.
    pub pages_fetched: u64,
    /// Pages of history sent since the start.
    pub pages_sent: u64,
}

/// Counters since the start of the process: a core that follows another goes on with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Exchanges begun by this node.
    pub exchanges: u64,
    /// Exchanges that found both sets equal.
    pub exchanges_equal: u64,
    /// Reconciliations begun by this node.
    pub reconciliations: u64,
    /// Of them, those that came to their end.
    pub reconciliations_done: u64,
    /// Of them, those that ended because a call brought no fitting answer.
    pub reconciliations_broken: u64,
    /// Times that a peer had too much to do to reconcile with this node.
    pub reconciliations_refused: u64,
    /// Calls made in reconciliations, the exchanges that began them apart.
    pub reconciliation_calls: u64,
    /// Cells sent to peers.
    pub cells_sent: u64,
    /// Items of peers compared one by one, where sketches were not enough.
    pub items_compared: u64,
    /// Differences found: items that one side has and the other lacks.
    pub differences_found: u64,
    /// Sketches that were not those of two sets. None, unless a node mixes cells of two instants or lies.
    pub decode_failures: u64,
    /// Reconciliations for which the sketch of the whole set was not enough.
    pub fallbacks: u64,
    /// Calls that brought no answer.
    pub calls_failed: u64,
    /// Clients' writes, deletes included.
    pub writes: u64,
    /// Records pushed as rumors, once for each peer.
    pub rumors_sent: u64,
    /// Records received, by rumor or reconciliation.
    pub records_received: u64,
    /// Of them, those that changed something.
    pub records_changed: u64,
    /// Writes found concurrent with others.
    pub conflicts: u64,
    /// Requests for payloads to one holder: for one large payload, or for many small ones.
    pub fetches: u64,
    /// Payloads fetched.
    pub payloads_fetched: u64,
    /// Fetches of a payload that failed at one holder.
    pub fetches_failed: u64,
    /// Stamps too far ahead of the local clock to be followed.
    pub stamps_far_ahead: u64,
    /// Times this node refuted a rumor of its suspicion or death.
    pub refutations: u64,
    /// Heartbeats sent on the local network.
    pub heartbeats_sent: u64,
    /// Heartbeats of other nodes heard there.
    pub heartbeats_heard: u64,
    /// Datagrams heard there that were no heartbeats of this cluster and version, or of a newcomer for whom there was no room.
    pub heartbeats_ignored: u64,
    /// Members probed directly.
    pub probes: u64,
    /// Others asked to probe a member that did not answer.
    pub probes_indirect: u64,
    /// Members that this node suspected because neither it nor others reached them.
    pub suspicions: u64,
    /// Members suspect by others' word.
    pub suspicions_heard: u64,
    /// Further nodes' word, or this node's own experience, that a suspect does not answer.
    pub confirmations: u64,
    /// Suspects that came back.
    pub suspicions_false: u64,
    /// Suspects that this node declared dead.
    pub deaths: u64,
    /// Snapshots taken to their end.
    pub snapshots: u64,
    /// Pages of snapshots taken from peers.
    pub snapshot_pages: u64,
    /// Records in them.
    pub snapshot_records: u64,
    /// Partitions not taken, as they were equal already.
    pub snapshot_partitions_skipped: u64,
    /// Pages of snapshots given to peers.
    pub snapshot_pages_served: u64,
    /// Partitions whose records were counted again in the background.
    pub partitions_verified: u64,
    /// Of them, those whose summary was found to be wrong.
    pub summary_disagreements: u64,
    /// Times the summary was made anew because of that.
    pub summary_repairs: u64,
    /// Times this node found that its key is not its own alone and took a new one.
    pub keys_taken: u64,
}

/// A member as shown to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// The claim held.
    pub member: Member,
    /// Whether it is this node.
    pub is_self: bool,
    /// How long ago it was last heard; `None` if never since the start.
    pub last_heard: Option<Duration>,
}

/// What a peer did that it must not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Misbehaviour {
    /// A message that breaks a rule.
    Malformed,
    /// Payload bytes that do not match their hash.
    WrongBytes,
    /// Payload bytes that ended early.
    ShortBody,
    /// A message of another cluster or protocol version.
    Foreign,
}

impl Misbehaviour {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Malformed, Self::WrongBytes, Self::ShortBody, Self::Foreign];

    /// As it is written in JSON and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::WrongBytes => "wrong_bytes",
            Self::ShortBody => "short_body",
            Self::Foreign => "foreign",
        }
    }
}

/// Something for logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A member is believed in another state, or is new.
    MemberChanged(NodeId, MemberState),
    /// Concurrent versions of a blob met.
    Conflict(BlobId),
    /// A peer did what it must not do.
    Misbehaved(NodeId, Misbehaviour, String),
    /// This node was believed suspect, dead or gone and raised its incarnation.
    Refuted(u64),
    /// A payload could not be had from any holder so far.
    NoHolder(ContentHash),
    /// An address answered with another id than the member known there.
    AddressTaken(NodeId, NodeId),
    /// A message of the history was delivered, durably.
    Delivered(Place),
    /// This node belongs to that history now.
    HistoryJoined(Founding),
    /// That node belongs to another history, and neither yields.
    HistoriesApart(NodeId, Founding),
    /// A member's heartbeats have stopped: it is called at once.
    Silent(NodeId),
    /// The records of that partition do not add up to its summary.
    SummaryDisagrees(u8),
    /// The summary was made anew from the records: what it was, what it is.
    SummaryRepaired(Root, Root),
}
