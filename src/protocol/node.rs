//! One node: the machines put together behind one door.
//!
//! [`Node::handle`] takes an input, lets the machine it concerns move, and then does what has become due: the calls, transfers,
//! rumors and receipts that follow. See the crate documentation for the contract.
//!
//! What leaves before the disk has it, and what does not:
//!
//! 1. This node's own versions leave (as rumors, in reconciliation, as replies) only after [`Input::Persisted`].
//! 2. Its incarnation in envelopes and lists is the persisted one.
//! 3. Receipts are sent only for persisted records and held payloads.
//! 4. What others made may be passed on at once.

mod commands;
mod exchanging;
mod fetching;
mod hearing;
mod history;
mod identity;
mod meeting;
mod merging;
mod peers;
mod probing;
mod snapshot;
mod verification;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use self::identity::ending;
use crate::history::replica::{Asked, Replica};
use crate::identity::{Conflict, SETTLING, Uniqueness};
use crate::ids::{NodeId, PublicKey};
use crate::io::{
    AdoptFault, CallFault, ClientCall, Command, Counters, Event, ForgetFault, Input, Misbehaviour, NoHolder, Outbox, Output, OwnCall,
    PeerCall, Persist, Refusal, Reply, SayFault, Token, WriteFault, Written,
};
use crate::item::{ItemHasher, RecordKey};
use crate::lan::Lan;
use crate::member::{Member, MemberState};
use crate::membership::probing::Probes;
use crate::membership::schedule::Schedule;
use crate::membership::{Addresses, Membership};
use crate::node::history::Telling;
use crate::receipts::{Copies, Owed};
use crate::reconciliation::{Reconciliation, Served, Step};
use crate::records::Records;
use crate::snapshot::{Question, Snapshot};
use crate::spread::Spread;
use crate::stamp::HybridClock;
use crate::store::{Store, StoreFault};
use crate::time::{Instant, Now};
use crate::transfer::Transfers;
use crate::verification::Verification;
use crate::wire::{Envelope, VERSION};

/// Time between two exchanges that a node begins, jittered by a tenth.
pub const EXCHANGE_INTERVAL: Duration = Duration::from_secs(1);
/// Most senders whose misbehaviour is counted; beyond it further senders are not told apart.
pub const MAX_SENDERS: usize = 1024;

/// Beyond so many persists under way a reconciliation waits for the disk.
const MAX_RECONCILED_AT_ONCE: usize = 64;

/// What a node is told at its birth.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the cluster.
    pub cluster: String,
    /// Base URL under which others reach this node.
    pub address: String,
    /// Base URLs of the bootstrap nodes.
    pub bootstraps: Vec<String>,
    /// Whether heartbeats are exchanged on the local network.
    pub heartbeats: bool,
    /// Whether to found a message history if this node belongs to none.
    pub found: bool,
    /// How many nodes are to vote on messages at most; up to [`crate::history::epoch::MAX_VOTERS`].
    pub voters: usize,
}

/// Who a node is.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// Public key; the node id is made from it.
    pub key: PublicKey,
    /// Incarnation of this life, already on disk.
    pub incarnation: u64,
}

/// What a call of this node's own is about.
#[derive(Debug, Clone)]
enum Purpose {
    Exchange(NodeId),
    Reconcile(NodeId, Step),
    Snapshot(NodeId, Question),
    /// Whether the whole lists are exchanged.
    Members(NodeId, bool),
    Rumors(NodeId),
    Receipts(NodeId),
    Holds(NodeId, ClientCall),
    History(NodeId, Asked),
    Introduction(String, Option<ClientCall>),
    /// The second direct call of a probe.
    Probe(NodeId),
    /// The first is asked whether it reaches the second.
    Ask(NodeId, NodeId),
    /// A probe of that node on a peer's behalf.
    Vouch(NodeId, PeerCall),
    /// A suspect is told that it is one, and thereby called.
    Warning(NodeId),
    Farewell,
    Join(String),
}

/// What follows when a persist is on disk.
#[derive(Debug, Default)]
struct After {
    keys: Vec<RecordKey>,
    write: Option<(ClientCall, Written, RecordKey, Copying)>,
    incarnation: Option<u64>,
    /// Replies that tell of what is being persisted.
    replies: Vec<(ClientCall, Reply)>,
    forgotten: Option<(ClientCall, Member)>,
}

impl After {
    /// The disk refused: nothing of this happened, as far as anybody will ever know.
    fn fail(self, fault: &StoreFault, out: &mut Outbox) {
        let calls = self.write.map(|(call, ..)| call).into_iter().chain(self.replies.into_iter().map(|(call, _)| call));
        out.extend(calls.map(|call| Output::Reply(call, Reply::Write(Err(WriteFault::Store(fault.clone()))))));
        let forget = self.forgotten.map(|(call, _)| Output::Reply(call, Reply::Forget(Err(ForgetFault::Store(fault.clone())))));
        out.extend(forget);
    }
}

/// How many copies a write wants, and until when it waits for them.
#[derive(Debug, Clone, Copy)]
struct Copying {
    wanted: usize,
    timeout: Duration,
}

/// A search for holders under way.
#[derive(Debug)]
struct HolderSearch {
    found: crate::io::Holders,
    open: usize,
}

/// One member of the network, without its sockets, files, clock and threads.
#[derive(Debug)]
pub struct Node<S> {
    cluster: String,
    records: Records<S>,
    clock: HybridClock,
    membership: Membership,
    history: Replica,
    /// What follows from the history, on its way.
    telling: Telling,
    /// Calls about the history that brought no answer, not yet reported.
    unanswered: Vec<(NodeId, Asked)>,
    uniqueness: Uniqueness,
    /// Why this core ends as soon as the disk has what it was asked for.
    renounced: Option<Conflict>,
    /// Only where heartbeats are exchanged.
    lan: Option<Lan>,
    probes: Probes,
    /// Until when each peer that asked for a probe is told what came of it.
    vouches: Schedule<PeerCall>,
    /// A persist under way, and since when.
    watched: Option<(Token, Instant)>,
    spread: Spread,
    reconciliation: Reconciliation,
    served: Served,
    snapshot: Snapshot,
    verification: Verification,
    transfers: Transfers,
    copies: Copies,
    owed: Owed,
    searches: BTreeMap<ClientCall, HolderSearch>,
    calls: BTreeMap<OwnCall, Purpose>,
    after: BTreeMap<Token, After>,
    /// Records whose receipts may have become due.
    unsettled: BTreeSet<RecordKey>,
    receipts_due: BTreeMap<NodeId, BTreeSet<crate::wire::Receipt>>,
    exchanged: BTreeSet<NodeId>,
    counters: Counters,
    misbehaviour: BTreeMap<(NodeId, Misbehaviour), u64>,
    rng: ChaCha8Rng,
    next_number: u64,
    next_exchange: Instant,
    next_refill: Instant,
    refill_after: Option<crate::ids::ContentHash>,
    /// No client waits for other nodes any more.
    concluding: bool,
    leaving: bool,
    stopped: Option<StoreFault>,
}

impl<S: Store> Node<S> {
    /// A node over `store`, with what it remembers of others. Counts the store's items once.
    ///
    /// The same `seed` and inputs give the same outputs.
    pub fn new(
        config: Config,
        identity: Identity,
        members: Vec<Member>,
        introduced: Vec<String>,
        store: S,
        seed: [u8; 32],
        now: Now,
    ) -> Result<Self, StoreFault> {
        let me = Member {
            id: NodeId::from_public_key(&identity.key.0),
            address: config.address,
            incarnation: identity.incarnation,
            state: MemberState::Alive,
            key: identity.key,
        };
        let first_verified = me.id.0.as_bytes()[0];
        let hasher = ItemHasher::new(&config.cluster);
        let mut rng = ChaCha8Rng::from_seed(seed);
        let addresses = Addresses { bootstraps: config.bootstraps, introduced };
        let pauses = ChaCha8Rng::from_rng(&mut rng);
        Ok(Self {
            history: Replica::new(me.id, config.voters, store.history(), now.instant)?,
            telling: Telling::new(config.found, now.instant),
            unanswered: vec![],
            records: Records::open(store, hasher.clone())?,
            cluster: config.cluster,
            clock: HybridClock::default(),
            membership: Membership::new(me, members, addresses, hasher, pauses, now.instant),
            uniqueness: Uniqueness::new(identity.incarnation),
            renounced: None,
            lan: config.heartbeats.then(|| Lan::new(now.instant)),
            probes: Probes::default(),
            vouches: Schedule::default(),
            watched: None,
            spread: Spread::default(),
            reconciliation: Reconciliation::default(),
            served: Served::default(),
            snapshot: Snapshot::default(),
            // Nodes begin at different partitions, for no other reason than that somebody looks at each of them soon.
            verification: Verification::new(first_verified, now.instant),
            transfers: Transfers::default(),
            copies: Copies::default(),
            owed: Owed::default(),
            searches: BTreeMap::new(),
            calls: BTreeMap::new(),
            after: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            receipts_due: BTreeMap::new(),
            exchanged: BTreeSet::new(),
            counters: Counters::default(),
            misbehaviour: BTreeMap::new(),
            rng,
            next_number: 0,
            next_exchange: now.instant,
            next_refill: now.instant,
            refill_after: None,
            concluding: false,
            leaving: false,
            stopped: None,
        })
    }

    /// This node's id.
    pub fn id(&self) -> NodeId {
        self.membership.me().id
    }

    /// This core follows one that ended with its identity: it goes on counting, and keeps its new key for a while whatever others say.
    pub fn follow(&mut self, counters: Counters, now: Instant) {
        self.counters = counters;
        self.uniqueness.settle(now + SETTLING);
    }

    /// This core follows one whose store failed and was opened again: it goes on counting.
    pub fn resume(&mut self, counters: Counters) {
        self.counters = counters;
    }

    /// The store has failed: who waits is told, and nothing is done any more.
    pub fn fail(&mut self, fault: StoreFault, out: &mut Outbox) {
        if self.stopped.is_none() {
            self.stop(fault, out);
        }
    }

    /// The record set, for the simulator's checks.
    pub fn records(&self) -> &Records<S> {
        &self.records
    }

    /// Who it believes to be there, for the simulator's checks.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// What it has counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes an input; what follows is appended to `out`.
    pub fn handle(&mut self, now: Now, input: Input, out: &mut Outbox) {
        if let Some(fault) = &self.stopped {
            if let Input::Command(call, command @ (Command::Status | Command::Members)) = input {
                // Who asks how it is learns that, where it can be read.
                self.on_command(now, call, command, out).ok();
            } else {
                refuse(fault, false, input, &self.cluster, out);
            }
            return;
        }
        let done = match &self.renounced {
            Some(conflict) => self.wind_up(now, input, &ending(conflict), out),
            None => self.take(now, input, out).and_then(|()| self.work(now, out)),
        };
        match done {
            Ok(()) => self.write_history(out),
            Err(fault) => self.stop(fault, out),
        }
        self.end_identity(out);
        #[cfg(debug_assertions)]
        self.check();
    }

    /// When [`Input::Tick`] is wanted at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        // One that is leaving begins nothing any more, so nothing becomes due.
        if self.stopped.is_some() || self.renounced.is_some() || self.leaving {
            return None;
        }
        let timers = [
            self.membership.deadline(),
            self.probes.deadline(),
            self.vouches.first(),
            self.spread.deadline(),
            self.transfers.deadline(),
            self.history.deadline(),
            self.telling.deadline(),
            self.copies.deadline(),
            self.lan.as_ref().map(Lan::deadline),
            self.snapshot.deadline(),
            Some(self.verification.deadline()),
            Some(self.next_exchange),
            Some(self.next_refill),
        ];
        timers.into_iter().flatten().min()
    }

    fn take(&mut self, now: Now, input: Input, out: &mut Outbox) -> Result<(), StoreFault> {
        match input {
            Input::Tick => Ok(()),
            Input::Command(call, command) => self.on_command(now, call, command, out),
            Input::Request(call, request) => {
                let answer = self.on_request(now, call, request, out)?;
                let ended = self.renounced.as_ref().map(|_| Refusal::Stopped { cluster: self.cluster.clone() });
                out.extend(ended.map(Err).or(answer).map(|answer| Output::Answer(call, answer)));
                Ok(())
            }
            Input::Answered(call, result) => self.on_answered(now, call, result, out),
            Input::Joined(call, result) => {
                self.on_joined(now, call, result, out);
                Ok(())
            }
            Input::Persisted(token, result) => self.on_persisted(now, token, result, out),
            Input::Fetched(transfer, results) => self.on_fetched(now, transfer, results, out),
            Input::Datagram(bytes) => {
                self.on_datagram(now, &bytes, out);
                Ok(())
            }
        }
    }

    fn on_persisted(&mut self, now: Now, token: Token, result: Result<(), StoreFault>, out: &mut Outbox) -> Result<(), StoreFault> {
        let Some(after) = self.after.remove(&token) else { return Ok(()) };
        self.watch_disk(now, token);
        if let Err(fault) = result {
            after.fail(&fault, out);
            return Err(fault);
        }
        self.records.on_persisted(token, &after.keys);
        self.on_history_persisted(now, token, out)?;
        out.extend(after.replies.into_iter().map(|(call, reply)| Output::Reply(call, reply)));
        out.extend(after.forgotten.map(|(call, member)| Output::Reply(call, Reply::Forget(Ok(member)))));
        self.unsettled.extend(after.keys);
        if let Some(incarnation) = after.incarnation {
            self.membership.raise(incarnation);
            self.counters.refutations += 1;
            out.push(Output::Event(Event::Refuted(incarnation)));
            self.spread.tell_member(self.id(), None);
        }
        if let Some((call, written, key, copying)) = after.write {
            self.push_fresh(key, &[]);
            if copying.wanted > 1 && !self.concluding && !self.leaving && self.renounced.is_none() {
                self.copies.wait(call, written, key, copying.wanted, now.instant, now.instant + copying.timeout);
            } else {
                out.push(Output::Reply(call, Reply::Write(Ok(written))));
            }
        }
        Ok(())
    }

    /// The core is at its end: who waits for the disk, a payload or copies is told.
    fn stop(&mut self, fault: StoreFault, out: &mut Outbox) {
        self.end(fault.clone(), Output::Stop(fault), out);
    }

    fn end(&mut self, fault: StoreFault, told: Output, out: &mut Outbox) {
        self.telling.stop(&fault, matches!(told, Output::IdentityTaken(_)), out);
        for after in std::mem::take(&mut self.after).into_values() {
            after.fail(&fault, out);
        }
        for purpose in std::mem::take(&mut self.calls).into_values() {
            if let Purpose::Introduction(_, Some(call)) = purpose {
                out.push(Output::Reply(call, Reply::Introduce(Err(CallFault::Refused(fault.to_string())))));
            }
        }
        self.let_go(out);
        for (call, search) in std::mem::take(&mut self.searches) {
            out.push(Output::Reply(call, Reply::Holders(Some(search.found))));
        }
        out.push(told);
        self.stopped = Some(fault);
    }

    /// Nothing is fetched, probed or pushed any more: who waits for copies is told how many there are, who waits for a payload that there is
    /// none.
    fn let_go(&mut self, out: &mut Outbox) {
        self.end_vouches(Instant(u64::MAX), out);
        self.settle_copies(out);
        for call in self.transfers.drop_all() {
            out.push(Output::Reply(call, Reply::Want(Err(NoHolder))));
        }
    }

    /// Who waits for copies is told how many there are.
    fn settle_copies(&mut self, out: &mut Outbox) {
        for (call, written) in self.copies.on_deadline(Instant(u64::MAX)) {
            out.push(Output::Reply(call, Reply::Write(Ok(written))));
        }
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn envelope<T>(&self, body: T) -> Envelope<T> {
        let me = self.membership.me();
        Envelope { version: VERSION, cluster: self.cluster.clone(), sender: me.id, incarnation: me.incarnation, body }
    }

    /// Counts and reports what a peer must not do.
    fn misbehaved(&mut self, sender: NodeId, kind: Misbehaviour, what: String, out: &mut Outbox) {
        let known = self.misbehaviour.contains_key(&(sender, kind));
        let sender = if known || self.misbehaviour.len() < MAX_SENDERS { sender } else { NodeId(uuid::Uuid::nil()) };
        *self.misbehaviour.entry((sender, kind)).or_default() += 1;
        out.push(Output::Event(Event::Misbehaved(sender, kind, what)));
    }

    /// Asks for members to be persisted and reports how they are seen now.
    fn keep_members(&mut self, changed: Vec<Member>, refute: Option<u64>, out: &mut Outbox) {
        let refute = refute.filter(|_| !self.leaving);
        if self.renounced.is_some() || changed.is_empty() && refute.is_none() {
            return;
        }
        out.extend(changed.iter().map(|member| Output::Event(Event::MemberChanged(member.id, member.state))));
        if refute.is_some() {
            self.membership.health().on_strain();
        }
        let persist = Persist { token: self.token(), members: changed, incarnation: refute, ..Persist::default() };
        self.after.insert(persist.token, After { incarnation: refute, ..After::default() });
        out.push(Output::Persist(persist));
    }

    fn token(&mut self) -> Token {
        Token(self.number())
    }

    /// What must hold at all times; asserted in debug builds after every input.
    pub fn check(&self) {
        self.membership.check();
        self.history.check();
        self.lan.iter().for_each(Lan::check);
        self.probes.check();
        self.spread.check();
        self.reconciliation.check();
        self.served.check();
        self.transfers.check();
        self.snapshot.check();
        self.owed.check();
    }
}

/// What a stopped core says, or one that ends with its key.
fn refuse(fault: &StoreFault, key_taken: bool, input: Input, cluster: &str, out: &mut Outbox) {
    match input {
        Input::Command(call, Command::Write(_)) => {
            let fault = if key_taken { WriteFault::KeyTaken } else { WriteFault::Store(fault.clone()) };
            out.push(Output::Reply(call, Reply::Write(Err(fault))));
        }
        Input::Command(call, Command::Want(_)) => out.push(Output::Reply(call, Reply::Want(Err(NoHolder)))),
        Input::Command(call, Command::Holders(_)) => out.push(Output::Reply(call, Reply::Holders(None))),
        Input::Command(call, Command::Conclude) => out.push(Output::Reply(call, Reply::Concluded)),
        Input::Command(call, Command::Leave) => out.push(Output::Reply(call, Reply::Left)),
        Input::Command(call, Command::Introduce(_)) => {
            out.push(Output::Reply(call, Reply::Introduce(Err(CallFault::Refused(fault.to_string())))));
        }
        Input::Command(call, Command::Forget(_)) => {
            out.push(Output::Reply(call, Reply::Forget(Err(ForgetFault::Store(fault.clone())))));
        }
        Input::Command(call, Command::Say(_)) => {
            let fault = if key_taken { SayFault::KeyTaken } else { SayFault::Store(fault.clone()) };
            out.push(Output::Reply(call, Reply::Say(Err(fault))));
        }
        Input::Command(call, Command::Undelivered(..)) => out.push(Output::Reply(call, Reply::Undelivered(vec![]))),
        Input::Command(call, Command::AdoptHistory(_)) => {
            let fault = if key_taken { AdoptFault::KeyTaken } else { AdoptFault::Store(fault.clone()) };
            out.push(Output::Reply(call, Reply::AdoptHistory(Err(fault))));
        }
        Input::Command(call, Command::Members) => out.push(Output::Reply(call, Reply::Members(vec![]))),
        Input::Request(call, _) => out.push(Output::Answer(call, Err(Refusal::Stopped { cluster: cluster.to_owned() }))),
        Input::Command(_, Command::Status)
        | Input::Tick
        | Input::Answered(..)
        | Input::Joined(..)
        | Input::Persisted(..)
        | Input::Fetched(..)
        | Input::Datagram(_) => {}
    }
}
