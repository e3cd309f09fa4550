//! The driver: owns the protocol core, turns inputs into outputs and outputs into actions.
//!
//! 1. Everything about the core happens in one task on one thread; others reach it through [`Handle`], a bounded channel.
//! 2. Actions under way are futures that this task polls itself, so nothing is spawned and nothing outlives the driver.
//! 3. Persists are handed to the writer in the order in which the core asked for them: at once where it has nothing to do, else those that follow each
//!    other and change the message history alone, as one.
//! 4. A client may be answered before what the answer says is durable here, where others have it ([`Standing::Ordered`]). Who reads the history waits for
//!    what was asked of the disk before ([`Handle::settled`]), so nobody sees less than was answered.
//! 5. A core whose identity has ended is followed by one with another key when the key is on disk; those who wait, wait for that one.
//! 6. A core whose store failed is followed by one that is built from it when it is open again. Who waited is told, nothing that was queued for the
//!    old one is written, and an upload whose bytes were stored before is not published by the new one.
//! 7. Payload transfers run elsewhere ([`crate::peers::Transfers`]), so that gigabytes never delay an answer to a probe.

mod changes;
mod exchanged;
mod mending;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::future::{LocalBoxFuture, OptionFuture};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use gossip_cdn_protocol::history::disk::Founding;
use gossip_cdn_protocol::history::message::{self, MessageId};
use gossip_cdn_protocol::io::{
    AdoptFault, CallFault, ClientCall, ForgetFault, Holders, MemberView, NoHolder, PeerCall, Refusal, Said, Say, SayFault, Status, Token,
    Write, WriteFault, Written,
};
use gossip_cdn_protocol::store::Missing;
use gossip_cdn_protocol::wire::{Answer, Envelope, Program, Request};
use gossip_cdn_protocol::{BlobId, Command, Event, Input, Member, MemberState, Node, NodeId, Output, Persist, Reply, StoreFault};
use gossip_cdn_shell::events::Feed;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::changes::Change;
use self::changes::Changes;
use self::exchanged::Exchanged;
use self::mending::{Patience, mend};
use crate::clock::{self, Clock};
use crate::lan::RunningLan;
use crate::peers::{Peers, Transfers};
use crate::store::{Life, Store};

/// Most commands and requests waiting for the core.
const MAX_WAITING: usize = 1024;
/// Most inputs of one kind that the core is given one after the other, before what they want of the disk is handed on.
const MAX_AT_ONCE: usize = 64;
/// Most persists that are handed on as one.
const MAX_PERSISTS: usize = 256;
/// How long a stopping node waits for its farewells to be heard.
const FAREWELL: Duration = Duration::from_secs(1);

type Asked = (Envelope<Request>, oneshot::Sender<Result<Envelope<Answer>, Refusal>>);

/// A command, of which life of the store what it relies on is, and who waits for the reply.
type Commanded = (Command, Option<Life>, oneshot::Sender<Reply>);

enum Message {
    Command(Box<Commanded>),
    Request(Box<Asked>),
}

/// The driver has ended: the node is stopping, or its store failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node is stopping")]
pub struct Stopped;

/// How the rest of the node reaches the core.
#[derive(Debug, Clone)]
pub struct Handle {
    messages: mpsc::Sender<Message>,
    delivered: watch::Receiver<u64>,
    settling: watch::Receiver<Settling>,
    changes: Feed<Change>,
    exchanged: Exchanged,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Command(_) => "Command",
            Self::Request(_) => "Request",
        })
    }
}

/// The receiving end of a [`Handle`], for [`run`].
#[derive(Debug)]
pub struct Inbox {
    messages: mpsc::Receiver<Message>,
    delivered: watch::Sender<u64>,
    settling: watch::Sender<Settling>,
    changes: Feed<Change>,
    exchanged: Exchanged,
}

/// How many changes of the message history the core asked for, and how many of them are durable or never will be.
///
/// A reader of messages does not wait for uploads.
#[derive(Debug, Clone, Copy, Default)]
struct Settling {
    asked: u64,
    done: u64,
}

/// A handle and the inbox behind it.
pub fn channel() -> (Handle, Inbox) {
    let (sender, receiver) = mpsc::channel(MAX_WAITING);
    let (telling, delivered) = watch::channel(0);
    let (settle, settling) = watch::channel(Settling::default());
    let (changes, exchanged) = (Feed::default(), Exchanged::default());
    let inbox = Inbox { messages: receiver, delivered: telling, settling: settle, changes: changes.clone(), exchanged: exchanged.clone() };
    (Handle { messages: sender, delivered, settling, changes, exchanged }, inbox)
}

impl Handle {
    async fn command(&self, command: Command) -> Result<Reply, Stopped> {
        self.command_in(command, None).await
    }

    async fn command_in(&self, command: Command, life: Option<Life>) -> Result<Reply, Stopped> {
        let (sender, receiver) = oneshot::channel();
        self.messages.send(Message::Command(Box::new((command, life, sender)))).await.map_err(|_| Stopped)?;
        receiver.await.map_err(|_| Stopped)
    }

    /// Writes, deletes or restores a blob; resolves when the write is durable, on as many nodes as it asked for or at its timeout.
    pub async fn write(&self, write: Write) -> Result<Written, WriteFault> {
        self.write_in(write, None).await
    }

    /// The same of a payload that was stored here in that life of the store: later ones may not have it.
    pub async fn publish(&self, write: Write, life: Life) -> Result<Written, WriteFault> {
        self.write_in(write, Some(life)).await
    }

    async fn write_in(&self, write: Write, life: Option<Life>) -> Result<Written, WriteFault> {
        match self.command_in(Command::Write(write), life).await {
            Ok(Reply::Write(result)) => result,
            Ok(_) | Err(Stopped) => Err(WriteFault::Store(StoreFault(Stopped.to_string()))),
        }
    }

    /// Has a payload fetched ahead of others; resolves when it is here durably, or when no holder answered.
    pub async fn want(&self, missing: Missing) -> Result<(), NoHolder> {
        match self.command(Command::Want(missing)).await {
            Ok(Reply::Want(result)) => result,
            Ok(_) | Err(Stopped) => Err(NoHolder),
        }
    }

    /// Who holds the winner's payload durably; `None` of a blob that has no payload.
    pub async fn holders(&self, blob: BlobId) -> Result<Option<Holders>, Stopped> {
        let Reply::Holders(holders) = self.command(Command::Holders(blob)).await? else { return Err(Stopped) };
        Ok(holders)
    }

    /// Makes the node at that address known to this one, and this one to it.
    pub async fn introduce(&self, address: String) -> Result<Result<Member, CallFault>, Stopped> {
        let Reply::Introduce(result) = self.command(Command::Introduce(address)).await? else { return Err(Stopped) };
        Ok(result)
    }

    /// How this node is.
    pub async fn status(&self) -> Result<Status, Stopped> {
        let Reply::Status(status) = self.command(Command::Status).await? else { return Err(Stopped) };
        Ok(*status)
    }

    /// Whom this node knows, itself included.
    pub async fn members(&self) -> Result<Vec<MemberView>, Stopped> {
        let Reply::Members(members) = self.command(Command::Members).await? else { return Err(Stopped) };
        Ok(members)
    }

    /// Forgets a member that is dead or has left.
    pub async fn forget(&self, id: NodeId) -> Result<Result<Member, ForgetFault>, Stopped> {
        let Reply::Forget(result) = self.command(Command::Forget(id)).await? else { return Err(Stopped) };
        Ok(result)
    }

    /// Takes a message into the history; resolves when it is durable here, or, where it waits, when it is delivered,
    /// ordered (a majority has the decision, readers here wait for it), or its time is over.
    pub async fn say(&self, say: Say) -> Result<Said, SayFault> {
        match self.command(Command::Say(say)).await {
            Ok(Reply::Say(result)) => result,
            Ok(_) | Err(Stopped) => Err(SayFault::Store(StoreFault(Stopped.to_string()))),
        }
    }

    /// At most so many messages that are known here and not delivered, behind that one in the order of their names.
    pub async fn undelivered(&self, after: Option<MessageId>, limit: usize) -> Result<Vec<message::Message>, Stopped> {
        let Reply::Undelivered(messages) = self.command(Command::Undelivered(after, limit)).await? else { return Err(Stopped) };
        Ok(messages)
    }

    /// Leaves this node's history for that one, durably.
    pub async fn adopt_history(&self, id: uuid::Uuid) -> Result<Founding, AdoptFault> {
        match self.command(Command::AdoptHistory(id)).await {
            Ok(Reply::AdoptHistory(result)) => result,
            Ok(_) | Err(Stopped) => Err(AdoptFault::Store(StoreFault(Stopped.to_string()))),
        }
    }

    /// Changes whenever a message is delivered, durably.
    pub fn delivered(&self) -> watch::Receiver<u64> {
        self.delivered.clone()
    }

    /// Resolves when everything that the core has asked for by now of the message history is on disk, and so to be read, or never will be.
    pub async fn settled(&self) {
        let mut settling = self.settling.clone();
        let asked = settling.borrow().asked;
        // A driver that has ended asks for nothing more.
        drop(settling.wait_for(|settling| settling.done >= asked).await);
    }

    /// What changes, told to those who listen.
    pub fn changes(&self) -> &Feed<Change> {
        &self.changes
    }

    /// Who exchanged with this node in the last minute: who called, whom, and when.
    pub fn exchanged(&self) -> Vec<(NodeId, NodeId, tokio::time::Instant)> {
        self.exchanged.shown()
    }

    /// A peer's request.
    pub async fn request(&self, request: Envelope<Request>) -> Result<Result<Envelope<Answer>, Refusal>, Stopped> {
        let (sender, receiver) = oneshot::channel();
        self.messages.send(Message::Request(Box::new((request, sender)))).await.map_err(|_| Stopped)?;
        receiver.await.map_err(|_| Stopped)
    }

    /// Lets no client wait for other nodes any more: this node is about to stop.
    pub async fn conclude(&self) -> Result<(), Stopped> {
        self.command(Command::Conclude).await.map(|_| ())
    }

    /// Says goodbye to the other nodes and ends the driver.
    pub async fn leave(&self) -> Result<(), Stopped> {
        self.command(Command::Leave).await.map(|_| ())
    }
}

/// Builds a core over the store, for who this node is by now.
pub type Build = Box<dyn Fn() -> Result<Node<Store>, StoreFault>>;

/// Performs what the core wants done, until it has left or its store failed.
pub struct Driver {
    node: Node<Store>,
    build: Build,
    clock: Clock,
    store: Store,
    peers: Peers,
    transfers: Transfers,
    lan: Option<RunningLan>,
    actions: FuturesUnordered<LocalBoxFuture<'static, Done>>,
    persists: VecDeque<Persist>,
    /// How many handed to the writer are not durable yet.
    unwritten: usize,
    commands: BTreeMap<ClientCall, oneshot::Sender<Reply>>,
    requests: BTreeMap<PeerCall, oneshot::Sender<Result<Envelope<Answer>, Refusal>>>,
    next_call: u64,
    leaving: bool,
    /// The core has ended with its store.
    failed: bool,
    patience: Patience,
    life: Life,
    key_taken: bool,
    delivered: Option<watch::Sender<u64>>,
    settling: watch::Sender<Settling>,
    changes: Changes,
    /// Empty; kept for its memory.
    outputs: Vec<Output>,
}

/// What comes of an action.
enum Done {
    /// One input.
    Input(Box<Input>),
    /// These persists are durable, or never will be.
    Persisted(Submitted, Result<(), StoreFault>),
}

/// What was handed to the writer as one.
struct Submitted {
    tokens: Vec<Token>,
    /// How many changes of the message history are in it.
    history: u64,
}

type Submission = LocalBoxFuture<'static, (Submitted, oneshot::Receiver<Result<(), StoreFault>>)>;

impl Driver {
    /// A driver of the core that `build` gives, which reads from `store` and, where there is a `lan`, hears and is heard there.
    pub fn new(
        build: Build,
        clock: Clock,
        store: Store,
        peers: Peers,
        transfers: Transfers,
        lan: Option<RunningLan>,
    ) -> Result<Self, StoreFault> {
        // Nobody hears them before `run` brings the feed of the handles.
        let changes = Changes { feed: Feed::default(), exchanged: Exchanged::default(), me: store.identity().id };
        Ok(Self {
            node: build()?,
            build,
            clock,
            life: store.life(),
            store,
            peers,
            transfers,
            lan,
            actions: FuturesUnordered::new(),
            persists: VecDeque::new(),
            unwritten: 0,
            commands: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_call: 0,
            leaving: false,
            failed: false,
            patience: Patience::default(),
            key_taken: false,
            delivered: None,
            settling: watch::Sender::default(),
            changes,
            outputs: Vec::new(),
        })
    }

    /// Runs until the core has left, or every [`Handle`] is gone.
    pub async fn run(mut self, inbox: Inbox) {
        let Inbox { mut messages, delivered, settling, changes, exchanged } = inbox;
        (self.changes.feed, self.changes.exchanged, self.settling) = (changes, exchanged, settling);
        self.delivered = Some(delivered);
        let mut submitting: OptionFuture<Submission> = None.into();
        let mut idle_submission = true;
        // What to tell of the commit that is being submitted.
        let mut told = Vec::new();
        let mut until: Option<tokio::time::Instant> = None;
        let mut ailing = self.store.ailing();
        let mut mending: Option<LocalBoxFuture<Patience>> = None;
        self.handle(Input::Tick);
        loop {
            if std::mem::take(&mut self.key_taken) {
                submitting = None.into();
                idle_submission = true;
                if let Err(fault) = self.take_key().await {
                    self.fail(fault);
                }
            }
            if self.failed && mending.is_none() {
                submitting = None.into();
                idle_submission = true;
                mending = Some(self.begin_mending());
            }
            while idle_submission && let Some((tokens, persist)) = self.next_persist() {
                told = self.changes.of_persist(&persist);
                let mut submission = self.submit(tokens, persist);
                // Nearly always there is room in the queue. What follows from the commit is awaited before anything later is heard of.
                if let Some((submitted, durable)) = (&mut submission).now_or_never() {
                    self.await_commit(submitted, durable, std::mem::take(&mut told));
                } else {
                    submitting = Some(submission).into();
                    idle_submission = false;
                }
            }
            if self.leaving && until.is_none() {
                until = Some(tokio::time::Instant::now() + FAREWELL);
            }
            if self.leaving && self.actions.is_empty() && idle_submission {
                return;
            }
            let tick = self.node.deadline().map_or(Duration::from_secs(1), |deadline| self.clock.until(deadline));
            tokio::select! {
                Some(done) = self.actions.next() => self.on_done(done),
                Some((submitted, durable)) = &mut submitting, if !idle_submission => {
                    idle_submission = true;
                    self.await_commit(submitted, durable, std::mem::take(&mut told));
                }
                message = messages.recv(), if !self.leaving => match message {
                    Some(message) => self.on_messages(message, &mut messages),
                    None => return,
                },
                ailment = ailing.wait_for(Option::is_some), if !self.failed => {
                    let why = ailment.ok().and_then(|ailment| ailment.clone()).map_or_else(String::new, |ailment| ailment.why);
                    self.fail(StoreFault(why));
                }
                patience = mended(&mut mending), if !self.leaving => {
                    mending = None;
                    self.patience = patience;
                    self.resume();
                }
                datagram = hear(&mut self.lan), if !self.leaving => self.handle(Input::Datagram(datagram)),
                () = tokio::time::sleep(tick), if !self.leaving => self.handle(Input::Tick),
                () = tokio::time::sleep_until(until.unwrap_or_else(tokio::time::Instant::now)), if self.leaving => return,
            }
        }
    }

    /// The core ends, because its store failed.
    fn fail(&mut self, fault: StoreFault) {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.node.fail(fault, &mut outputs);
        outputs.drain(..).for_each(|output| self.perform(output));
        self.outputs = outputs;
        self.failed = true;
    }

    /// Nothing goes on of what an earlier core wanted done.
    fn let_go(&mut self) {
        self.actions.clear();
        self.unwritten = 0;
        self.settling.send_modify(|settling| settling.done = settling.asked);
    }

    /// The core has ended: nothing goes on of what it wanted done, and who still waits is not answered any more.
    fn begin_mending(&mut self) -> LocalBoxFuture<'static, Patience> {
        self.let_go();
        self.persists.clear();
        self.commands.clear();
        self.requests.clear();
        Box::pin(mend(self.store.clone(), std::mem::take(&mut self.patience)))
    }

    /// The store is open again: lets a core follow that knows what is on disk.
    fn resume(&mut self) {
        match (self.build)() {
            Ok(mut node) => {
                node.resume(self.node.counters());
                self.node = node;
                self.life = self.store.life();
                self.failed = false;
                self.store.recovered();
                self.handle(Input::Tick);
            }
            Err(fault) => tracing::warn!(%fault, "the store is open again, and cannot be read"),
        }
    }

    /// Lets a core with a new key follow. The old one has waited for everything that it asked of the disk, so the new one sees it.
    async fn take_key(&mut self) -> Result<(), StoreFault> {
        self.let_go();
        let secret = clock::entropy().map_err(|error| StoreFault(error.to_string()))?;
        self.store.take_key(secret).await?;
        let mut node = (self.build)()?;
        node.follow(self.node.counters(), self.clock.now().instant);
        tracing::info!(was = %self.node.id(), is = %node.id(), "goes on with a new key");
        self.changes.me = node.id();
        self.node = node;
        self.handle(Input::Tick);
        Ok(())
    }

    /// The next persist, and those that may be handed on with it.
    fn next_persist(&mut self) -> Option<(Vec<Token>, Persist)> {
        let mut persist = self.persists.pop_front()?;
        let mut tokens = vec![persist.token];
        while persist.is_history_alone()
            && tokens.len() < MAX_PERSISTS
            && let Some(next) = self.persists.pop_front_if(|next| next.is_history_alone())
        {
            tokens.push(next.token);
            persist.history.extend(next.history);
        }
        Some((tokens, persist))
    }

    fn submit(&self, tokens: Vec<Token>, persist: Persist) -> Submission {
        let store = self.store.clone();
        let submitted = Submitted { tokens, history: persist.history.len() as u64 };
        Box::pin(async move { (submitted, store.persist(persist).await) })
    }

    /// These persists are in the writer's queue; what changed with them is told when they are durable.
    fn await_commit(&mut self, submitted: Submitted, durable: oneshot::Receiver<Result<(), StoreFault>>, told: Vec<Change>) {
        let changes = self.changes.clone();
        self.unwritten += 1;
        self.actions.push(Box::pin(async move {
            let result = durable.await.unwrap_or_else(|_| Err(StoreFault("the writer has ended".into())));
            changes.tell(told.into_iter().filter(|_| result.is_ok()));
            Done::Persisted(submitted, result)
        }));
    }

    /// Whether the core goes on: neither its store nor its identity has ended.
    fn goes_on(&self) -> bool {
        !self.failed && !self.key_taken
    }

    /// The writer has nothing to do, and could have: what else there is waits. Calls, that are begun as they are awaited, too.
    fn lets_writer_wait(&self) -> bool {
        self.unwritten == 0 && !self.persists.is_empty()
    }

    /// An action has ended; others may have too.
    fn on_done(&mut self, first: Done) {
        self.take(first);
        for _ in 1..MAX_AT_ONCE {
            if !self.goes_on() || self.lets_writer_wait() {
                return;
            }
            let Some(Some(done)) = self.actions.next().now_or_never() else { return };
            self.take(done);
        }
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::Input(input) => self.handle(*input),
            Done::Persisted(Submitted { tokens, history }, result) => {
                self.unwritten -= 1;
                self.settling.send_modify(|settling| settling.done += history);
                tokens.into_iter().for_each(|token| self.handle(Input::Persisted(token, result.clone())));
            }
        }
    }

    /// Somebody wants something; others may too.
    fn on_messages(&mut self, first: Message, others: &mut mpsc::Receiver<Message>) {
        self.on_message(first);
        for _ in 1..MAX_AT_ONCE {
            if self.leaving || !self.goes_on() || self.lets_writer_wait() {
                return;
            }
            let Ok(message) = others.try_recv() else { return };
            self.on_message(message);
        }
    }

    fn on_message(&mut self, message: Message) {
        self.next_call += 1;
        match message {
            Message::Command(asked) => {
                let (command, life, reply) = *asked;
                let call = ClientCall(self.next_call);
                if life.is_some_and(|life| life != self.life) {
                    let fault = StoreFault("it was opened again since the payload came".to_owned());
                    // Who asked may have gone away.
                    reply.send(Reply::Write(Err(WriteFault::Store(fault)))).ok();
                    return;
                }
                self.leaving |= matches!(command, Command::Leave);
                self.commands.insert(call, reply);
                self.handle(Input::Command(call, command));
            }
            Message::Request(asked) => {
                let (request, answer) = *asked;
                let call = PeerCall(self.next_call);
                self.changes.on_request(request.sender, &request.body);
                self.requests.insert(call, answer);
                self.handle(Input::Request(call, request));
            }
        }
    }

    fn handle(&mut self, input: Input) {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.node.handle(self.clock.now(), input, &mut outputs);
        for output in outputs.drain(..) {
            self.perform(output);
        }
        self.outputs = outputs;
    }

    fn act(&self, action: impl Future<Output = Input> + 'static) {
        self.actions.push(Box::pin(async move { Done::Input(Box::new(action.await)) }));
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Call(call, target, request) => {
                let calling = self.changes.on_call(target.id, &request.body);
                let answer = self.peers.call(target.address, request);
                self.act(async move {
                    let answer = answer.await;
                    calling.answered(answer.is_ok());
                    Input::Answered(call, answer)
                });
            }
            Output::Join(call, address, mut join) => {
                let blobs = self.store.usage().live_blobs;
                join.body.program = Some(Program { version: env!("CARGO_PKG_VERSION").to_owned(), blobs });
                let answer = self.peers.join(address, join);
                self.act(async move { Input::Joined(call, answer.await) });
            }
            Output::Persist(persist) => {
                let changes = persist.history.len() as u64;
                self.settling.send_modify(|settling| settling.asked += changes);
                self.persists.push_back(persist);
            }
            Output::Fetch(fetch) => {
                let transfer = fetch.transfer;
                let (changes, wanted) = (self.changes.clone(), self.changes.of_fetch(&fetch));
                let results = self.transfers.fetch(fetch);
                self.act(async move {
                    let results = results.await;
                    changes.fetched(wanted, &results);
                    Input::Fetched(transfer, results)
                });
            }
            // Who asked may have gone away meanwhile: then nobody wants the answer.
            Output::Answer(call, answer) => {
                if let Some(sender) = self.requests.remove(&call) {
                    sender.send(answer).ok();
                }
            }
            Output::Reply(call, reply) => {
                if let Some(sender) = self.commands.remove(&call) {
                    sender.send(reply).ok();
                }
            }
            Output::Heartbeat(heartbeat) => {
                if let Some(lan) = &mut self.lan {
                    lan.send(&heartbeat);
                }
            }
            Output::Event(event) => {
                if let (Event::Delivered(place), Some(delivered)) = (&event, &self.delivered) {
                    delivered.send_replace(place.index);
                }
                self.changes.on_event(&event);
                log(&event);
            }
            Output::Stop(fault) => {
                tracing::debug!(%fault, "the core has ended");
                self.failed = true;
            }
            Output::IdentityTaken(conflict) => {
                tracing::warn!(
                    "{conflict}: the data folder was copied, or put back from a backup, without --restored; this node takes a new key and keeps its blobs"
                );
                self.key_taken = true;
            }
        }
    }
}

/// The end of the mending; never, while there is none.
async fn mended(mending: &mut Option<LocalBoxFuture<'static, Patience>>) -> Patience {
    match mending {
        Some(mending) => mending.await,
        None => std::future::pending().await,
    }
}

/// The next datagram of the local network; never, without one.
async fn hear(lan: &mut Option<RunningLan>) -> Vec<u8> {
    match lan {
        Some(lan) => lan.hear().await,
        None => std::future::pending().await,
    }
}

fn log(event: &Event) {
    match event {
        Event::MemberChanged(id, MemberState::Alive) => tracing::info!(member = %id, "member is alive"),
        Event::MemberChanged(id, state) => tracing::warn!(member = %id, "member is {}", state.name()),
        Event::Conflict(blob) => tracing::info!(%blob, "concurrent versions met; the winner is decided, the losers are kept"),
        Event::Misbehaved(sender, kind, what) => tracing::warn!(%sender, kind = kind.name(), "peer misbehaved: {what}"),
        Event::Refuted(incarnation) => tracing::info!(incarnation, "refuted a rumor of this node's death"),
        Event::NoHolder(hash) => tracing::warn!(%hash, "no holder of a payload answers; trying again later"),
        Event::Delivered(place) => tracing::debug!(message = %place.id, index = place.index, "message delivered"),
        Event::HistoryJoined(founding) => tracing::info!(history = %founding.id, founder = %founding.founder, "joined a message history"),
        Event::HistoriesApart(member, founding) => tracing::warn!(
            %member, history = %founding.id,
            "another message history was met, and neither yields; adopt-history on the nodes of one of them joins them"
        ),
        Event::Silent(member) => tracing::info!(%member, "no heartbeat for half a second; calling it"),
        Event::SummaryDisagrees(partition) => tracing::warn!(partition, "the records of a partition do not add up to its summary"),
        Event::SummaryRepaired(before, after) => tracing::error!(%before, %after, "the summary was wrong and was counted afresh"),
        Event::AddressTaken(member, found) => tracing::warn!(%member, %found, "another node answers at the address of a member"),
    }
}
