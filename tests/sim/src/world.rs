//! The world: hosts with their cores and disks, the network between them, and a queue of events in virtual time.
//!
//! 1. Events happen one at a time, in the order of their time and then of their making.
//! 2. A host is a shell as the core's contract wants it: it performs outputs in order, ticks at the deadline, reports completions.
//!    What belongs to an earlier life of its process is dropped.
//! 3. After the first broken rule nothing more happens.
//!
//! A test drives a world by hand ([`World::add`], [`World::write`], [`World::run_for`], [`World::split`] ...);
//! [`World::swarm`] drives it by dice.

mod folders;
mod host;
mod messages;
mod perform;
mod swarm;

pub use folders::Again;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use gossip_cdn_protocol::history::epoch::MAX_VOTERS;
use gossip_cdn_protocol::io::{CallFault, ClientCall, Fetch, OwnCall, Reply, TransferId};
use gossip_cdn_protocol::wire::{Answer, Entry, Envelope, Introduction, Join, Request};
use gossip_cdn_protocol::{BlobId, Command, ContentHash, Input, Member, MemberState, NodeId, Record, planted};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use crate::base::Base;
use crate::broadcasts::Broadcasts;
use crate::checker::Checker;
use crate::chronicle::Chronicle;
use crate::client::{Client, Wish};
use crate::disk::Bytes;
use crate::faults::{Cpu, FaultKind, Plan, Tally};
use crate::meter::Report;
use crate::network::{Cut, Latency, Network, Weather};
use crate::plant::Plant;
use crate::quorum::Quorums;
use crate::transcript::Transcript;
use crate::watch::Watch;
use host::Host;

/// Microseconds.
const SECOND: u64 = 1_000_000;
/// The name of every simulated cluster: the default of the real one, since it is in every message that is weighed.
const CLUSTER: &str = "gossip-cdn";
/// The address under which the bootstrap node is reached.
pub(crate) const BOOTSTRAP: &str = "http://bootstrap";
/// The bootstrap node's place in the network; no host has it.
const BOOTSTRAP_HOST: usize = usize::MAX;
/// A call that does not get there fails after so long, in microseconds, as a connection does.
const CONNECT_TIMEOUT: u64 = 2_000_000;
/// A registration without an answer fails after so long, in microseconds.
const JOIN_TIMEOUT: u64 = 3_000_000;
/// A transfer without progress fails after so long, in microseconds.
const FETCH_TIMEOUT: u64 = 5_000_000;
/// One message in so many is written as JSON and read back, drawn from their order.
const WRITTEN_OUT: u64 = 16;
/// Up to so many hosts the core's own assertions are asked after every event; beyond it after one in so many, since each is a pass
/// over all members. All other checks are made at every event whatever the size.
const SMALL_WORLD: usize = 16;
const CHECKED_IN_LARGE_WORLD: u64 = 256;
/// A clock is wrong by its rate when it is off by more than so many microseconds.
const NOTABLE_DRIFT: u64 = 100_000;
/// When every world begins: some day in 2026, in milliseconds since 1970.
const EPOCH: u64 = 1_767_225_600_000;

/// A time as the world counts it.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// How a seed is run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many hosts there are at the beginning; drawn from 5 to 9 if not given.
    pub nodes: Option<usize>,
    /// How long faults last, in simulated seconds.
    pub seconds: u64,
    /// How many writes are tried.
    pub writes: u64,
    /// A bug to put in.
    pub plant: Option<Plant>,
    /// Whether to write down what happens.
    pub trace: bool,
    /// Whether to weigh messages.
    pub weigh: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { nodes: None, seconds: 60, writes: 150, plant: None, trace: false, weigh: false }
    }
}

/// How the hosts and the network of a world driven by hand are.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    /// How long messages take.
    pub latency: Latency,
    /// Of a thousand requests, and of a thousand answers, so many are lost.
    pub loss: u32,
    /// Bytes that a host sends in a microsecond; no limit if there is none.
    pub bandwidth: Option<u64>,
    /// What handling a message takes.
    pub cpu: Option<Cpu>,
    /// Usual time of an fsync, in microseconds.
    pub fsync: u64,
    /// Whether there is a bootstrap node.
    pub bootstrap: bool,
}

impl Default for Model {
    fn default() -> Self {
        Self { latency: Latency::Constant(1000), loss: 0, bandwidth: None, cpu: None, fsync: 2000, bootstrap: true }
    }
}

/// What a process leaves behind when it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// So many of what waited for the disk got there, in order.
    Keep(usize),
    /// All of it got there.
    KeepAll,
}

/// Which life of which host; what is addressed to an earlier one is dropped.
type Life = (usize, u64);

#[derive(Debug)]
enum Event {
    Tick(Life),
    Request {
        to: usize,
        back: Option<(Life, OwnCall)>,
        request: Envelope<Request>,
        bytes: u64,
    },
    Answered(Life, OwnCall, Result<Envelope<Answer>, CallFault>, u64),
    Join {
        from: Life,
        call: OwnCall,
        join: Envelope<Join>,
    },
    Joined(Life, OwnCall, Result<Introduction, CallFault>),
    Serve {
        from: usize,
        to: Life,
        fetch: Fetch,
    },
    Arrive {
        to: Life,
        transfer: TransferId,
        results: Vec<(ContentHash, Arrived)>,
    },
    Synced(Life),
    Input(Life, Box<Input>),
    Start(usize),
    Stop(Life),
    Write,
    Say,
    Trouble,
    Mend(u64),
    Relief(usize),
    Doom(Life),
    BootstrapUp,
    /// The disk of a host is put back to the state that was kept of it.
    PutBack(usize),
    /// The identity of a host has ended.
    NewKey(Life),
    /// A host that was stopped or busy goes on.
    Wake(Life),
}

impl Event {
    /// Whose process handles it; `None` where no process does.
    fn handled_by(&self) -> Option<usize> {
        match self {
            Self::Tick((host, _))
            | Self::Request { to: host, .. }
            | Self::Answered((host, _), ..)
            | Self::Joined((host, _), ..)
            | Self::Serve { from: host, .. }
            | Self::Arrive { to: (host, _), .. }
            | Self::Synced((host, _))
            | Self::Input((host, _), _) => Some(*host),
            Self::Join { .. }
            | Self::Start(_)
            | Self::Stop(_)
            | Self::Write
            | Self::Say
            | Self::Trouble
            | Self::Mend(_)
            | Self::Relief(_)
            | Self::Doom(_)
            | Self::BootstrapUp
            | Self::PutBack(_)
            | Self::NewKey(_)
            | Self::Wake(_) => None,
        }
    }
}

/// What a holder sent for a payload.
#[derive(Debug, Clone, Copy)]
enum Arrived {
    Bytes(Bytes),
    Absent,
    /// They ended early.
    Short(Bytes),
    Unreachable,
}

/// A simple bootstrap node: it remembers who registered.
#[derive(Debug, Default)]
struct Registry {
    members: BTreeMap<NodeId, Member>,
    down: bool,
    /// Whether it names a founder, and whom it named.
    names: bool,
    founder: Option<NodeId>,
}

/// Many hosts and what is between them.
#[derive(Debug)]
pub struct World {
    settings: Settings,
    plan: Plan,
    rng: ChaCha8Rng,
    now: u64,
    next_event: u64,
    next_call: u64,
    handled: u64,
    queue: BTreeMap<(u64, u64), Event>,
    hosts: Vec<Host>,
    addresses: BTreeMap<String, usize>,
    network: Network,
    /// Addresses that nobody has any more.
    vacant: Vec<String>,
    moved: u64,
    bootstraps: Vec<String>,
    registry: Registry,
    checker: Checker,
    chronicle: Chronicle,
    quorums: Quorums,
    /// How the causal messages of clients get around, if anybody wants to know.
    broadcasts: Option<Broadcasts>,
    /// The hosts that found a message history at their first start; without any no client sends messages.
    founders: BTreeSet<usize>,
    /// How many vote at most.
    seats: usize,
    /// Nobody says `--restored` where a disk was put back or copied: the message history promises nothing.
    careless: bool,
    /// The disk of a voter was put back.
    voter_lost: bool,
    watch: Watch,
    report: Report,
    counted_from: u64,
    /// Only the calls of this host are counted, if there is one.
    counted_alone: Option<usize>,
    /// When the last answer came to a call that looks for differences, exchanges apart.
    searched_until: u64,
    /// When two hosts first met in an exchange; in small worlds.
    meetings: BTreeMap<(usize, usize), u64>,
    client: Client,
    tally: Tally,
    transcript: Transcript,
    /// Replies that no client has looked at yet.
    replies: BTreeMap<ClientCall, Reply>,
    tried: u64,
    /// By how many milliseconds the clocks on the walls jumped ahead together.
    leaped: i64,
    /// How many writes came at once.
    flood: u64,
    /// Faults and clients are at their end.
    healing: bool,
}

impl World {
    /// An empty world without faults, to be driven by hand.
    pub fn calm(seed: u64, trace: bool) -> Self {
        let settings = Settings { trace, ..Settings::default() };
        Self::new(seed, settings, |_| Plan::calm())
    }

    pub(crate) fn new(seed: u64, settings: Settings, plan: impl FnOnce(&mut ChaCha8Rng) -> Plan) -> Self {
        planted::plant(settings.plant.and_then(Plant::of_core));
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let plan = plan(&mut rng);
        Self {
            network: Network::new(plan.weather),
            transcript: Transcript::new(settings.trace),
            settings,
            plan,
            rng,
            now: 0,
            next_event: 0,
            next_call: 0,
            handled: 0,
            queue: BTreeMap::new(),
            hosts: Vec::new(),
            addresses: BTreeMap::new(),
            vacant: Vec::new(),
            moved: 0,
            bootstraps: vec![BOOTSTRAP.into()],
            registry: Registry::default(),
            checker: Checker::default(),
            chronicle: Chronicle::default(),
            quorums: Quorums::default(),
            broadcasts: None,
            founders: BTreeSet::new(),
            seats: MAX_VOTERS,
            careless: false,
            voter_lost: false,
            watch: Watch::default(),
            report: Report::default(),
            counted_from: 0,
            counted_alone: None,
            searched_until: 0,
            meetings: BTreeMap::new(),
            client: Client::default(),
            tally: Tally::default(),
            replies: BTreeMap::new(),
            tried: 0,
            leaped: 0,
            flood: 0,
            healing: false,
        }
    }

    /// An empty world of that model, to be driven by hand; its messages are weighed.
    pub fn modelled(seed: u64, model: Model) -> Self {
        let Model { latency, loss, bandwidth, cpu, fsync, bootstrap } = model;
        let settings = Settings { weigh: true, ..Settings::default() };
        let weather = Weather { latency, lost_requests: loss, lost_answers: loss, bandwidth, ..Weather::FAIR };
        let mut world = Self::new(seed, settings, |_| Plan { weather, fsync, cpu, ..Plan::calm() });
        if !bootstrap {
            world.bootstraps.clear();
        }
        world
    }

    /// So many hosts that know each other from an earlier life, started at once, so that none calls one that does not run yet.
    pub fn acquainted(&mut self, count: usize) {
        let hosts: Vec<usize> = (0..count).map(|_| self.add()).collect();
        let members: Vec<Member> = hosts.iter().map(|host| self.hosts[*host].member()).collect();
        for host in hosts {
            let id = self.hosts[host].id;
            let others = members.iter().filter(|member| member.id != id).cloned().collect();
            self.hosts[host].disk.remember(others);
            self.at(self.now, Event::Start(host));
        }
        for member in members {
            self.checker.on_issued(member.id, member.incarnation);
        }
    }

    /// Puts so many records of long ago on the disks of all hosts.
    pub fn lay_over(&mut self, count: u32) {
        let base = Rc::new(Base::new(CLUSTER, count));
        self.hosts.iter().for_each(|host| host.disk.lay_over(&base));
    }

    /// A new host, not started yet; gives its number.
    pub fn add(&mut self) -> usize {
        let number = self.hosts.len();
        let mut host = Host::new(number, self.settings.plant, &mut self.rng);
        host.skew = self.leaped;
        self.transcript.name(host.id, number);
        self.addresses.insert(host.address.clone(), number);
        self.hosts.push(host);
        number
    }

    /// The identity of a host's node.
    pub fn id(&self, host: usize) -> NodeId {
        self.hosts[host].id
    }

    /// Starts the process of a host that does not run.
    pub fn start(&mut self, host: usize) {
        self.start_process(host);
    }

    /// Kills the process of a host, if it runs.
    pub fn crash(&mut self, host: usize, unsynced: Unsynced) {
        let count = match unsynced {
            Unsynced::Keep(count) => count,
            Unsynced::KeepAll => usize::MAX,
        };
        self.kill(host, count);
    }

    /// Cuts these hosts off from all others; gives a number for [`Self::mend`].
    pub fn split(&mut self, side: impl IntoIterator<Item = usize>) -> u64 {
        let side: BTreeSet<usize> = side.into_iter().collect();
        self.note(None, format_args!("cut between {side:?} and the others"));
        self.network.cut(Cut::Split(side))
    }

    /// Ends a cut.
    pub fn mend(&mut self, cut: u64) {
        self.note(None, format_args!("cut {cut} mended"));
        self.network.mend(cut);
    }

    /// A client asks a host for a write; the answer is found with [`Self::reply`] when time has passed. `None`: it does not run.
    pub fn write(&mut self, host: usize, wish: Wish) -> Option<ClientCall> {
        self.ask_for_write(host, wish)
    }

    /// A client asks a host for something else than a write.
    pub fn ask(&mut self, host: usize, command: Command) -> Option<ClientCall> {
        self.hosts.get(host).filter(|host| host.core.is_some())?;
        let call = self.client_call();
        self.input(host, Input::Command(call, command));
        Some(call)
    }

    /// The answer to a client's call, once.
    pub fn reply(&mut self, call: ClientCall) -> Option<Reply> {
        self.replies.remove(&call)
    }

    /// Lets one event happen; `false` if there is none.
    pub fn step(&mut self) -> bool {
        let next = self.queue.first_key_value().map(|((at, _), _)| *at).filter(|_| self.checker.failure().is_none());
        next.inspect(|_| self.happen_next()).is_some()
    }

    /// Lets time pass.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + micros(duration);
        self.run_until(end);
    }

    fn run_until(&mut self, end: u64) {
        while self.checker.failure().is_none() {
            if self.queue.first_key_value().is_none_or(|((at, _), _)| *at > end) {
                break;
            }
            self.happen_next();
        }
        self.now = end.max(self.now);
    }

    fn happen_next(&mut self) {
        let Some(((at, _), event)) = self.queue.pop_first() else { return };
        self.now = at;
        self.checker.set_now(at);
        self.handled += 1;
        self.come_about(event);
    }

    /// Why the network is not yet at rest with everything everywhere; `None` when it is.
    pub fn gap(&self) -> Option<String> {
        let running: Vec<&Host> = self.hosts.iter().filter(|host| host.life > 0).collect();
        if let Some(host) = running.iter().find(|host| host.core.is_none()) {
            return Some(format!("n{} does not run", host.number));
        }
        let mut keys = BTreeMap::new();
        if let Some((one, other)) = running.iter().find_map(|host| keys.insert(host.id, host.number).map(|other| (other, host.number))) {
            return Some(format!("n{one} and n{other} have one key"));
        }
        let root = |host: &&Host| host.core.as_ref().map(|core| core.records().summary().root());
        if let Some(pair) = running.windows(2).find(|pair| root(&pair[0]) != root(&pair[1])) {
            return Some(format!("n{} and n{} have different roots", pair[0].number, pair[1].number));
        }
        if let Some(doubt) = self.doubt(&running) {
            return Some(doubt);
        }
        let expected = self.checker.expected();
        running.iter().find_map(|host| self.checker.gap(host.number, &host.disk, &expected))
    }

    /// A node that runs and that another does not believe to be alive.
    fn doubt(&self, running: &[&Host]) -> Option<String> {
        let believed = |host: &Host, other: &Host| {
            let member = host.core.as_ref().and_then(|core| core.membership().member(other.id));
            member.is_some_and(|member| member.state == MemberState::Alive)
        };
        let pairs = running.iter().flat_map(|host| running.iter().map(move |other| (*host, *other)));
        let doubted = pairs.into_iter().find(|(host, other)| !believed(host, other));
        doubted.map(|(host, other)| format!("n{} does not believe that n{} is alive", host.number, other.number))
    }

    /// The first rule that was broken, if one was.
    pub fn failure(&self) -> Option<&String> {
        self.checker.failure()
    }

    /// The durable record of a blob at a host.
    pub fn record(&self, host: usize, blob: BlobId) -> Record {
        let records = self.hosts[host].core.as_ref().map(|core| core.records().key(blob));
        records.map(|key| self.hosts[host].disk.record(key)).unwrap_or_default()
    }

    /// The record of a blob as a host's core sees it, durable or not.
    pub fn pending(&self, host: usize, blob: BlobId) -> Record {
        let records = self.hosts[host].core.as_ref().map(|core| core.records());
        records.and_then(|records| records.record(records.key(blob)).ok()).unwrap_or_default()
    }

    /// Whether a host holds the bytes of a blob's winner.
    pub fn holds_winner(&self, host: usize, blob: BlobId) -> bool {
        let record = self.record(host, blob);
        let hash = record.winner().and_then(|winner| winner.content.payload()).map(|payload| payload.hash);
        hash.is_some_and(|hash| self.hosts[host].disk.bytes(hash).is_some())
    }

    /// What waits for a host's disk.
    pub fn unsynced(&self, host: usize) -> usize {
        self.hosts[host].disk.queued()
    }

    /// What happened, as text.
    pub fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    /// What it cost so far.
    pub fn report(&self) -> Report {
        let mut report = self.report.clone();
        report.weighed = self.weighs();
        for host in &self.hosts {
            let Some(core) = &host.core else { continue };
            report.node_seconds += host.ran(self.counted_from, self.now);
            report.decode_failures += core.counters().decode_failures;
        }
        report
    }

    /// From now on costs are counted afresh.
    pub fn reset_report(&mut self) {
        self.report = Report::default();
        self.counted_from = self.now;
        self.meetings.clear();
    }

    /// From now on only the calls that this host makes are counted, with their answers.
    pub fn count_alone(&mut self, host: usize) {
        self.counted_alone = Some(host);
    }

    fn counts(&self, caller: usize) -> bool {
        self.counted_alone.is_none_or(|host| host == caller)
    }

    /// When the last answer came to a call that looks for differences, exchanges apart.
    pub fn searched_until(&self) -> u64 {
        self.searched_until
    }

    fn weighs(&self) -> bool {
        self.settings.weigh || self.plan.cpu.is_some() || self.plan.weather.bandwidth.is_some()
    }

    /// Bytes of JSON of all the records that a host has got since those that were laid over.
    pub(crate) fn weight_of_records(&self, host: usize) -> u64 {
        let platter = self.hosts[host].disk.platter();
        let entries = platter.records().map(|(key, record)| Entry { id: key.blob, versions: record.clone() });
        entries.map(|entry| crate::wire::weight(&entry)).sum()
    }

    /// Whether all running hosts have the same set of records.
    pub fn roots_agree(&self) -> bool {
        let mut roots = self.hosts.iter().filter_map(|host| host.core.as_ref()).map(|core| core.records().summary().root());
        let first = roots.next();
        roots.all(|root| Some(root) == first)
    }

    /// When the first exchange between a host of `side` and another was answered, since costs are counted.
    pub fn met_across(&self, side: &BTreeSet<usize>) -> Option<u64> {
        let across = self.meetings.iter().filter(|((one, other), _)| side.contains(one) != side.contains(other));
        across.map(|(_, at)| *at).min()
    }

    /// Now, in microseconds since the world began.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// All clocks on the walls jump ahead together: years pass between two moments.
    pub fn leap(&mut self, millis: i64) {
        self.leaped += millis;
        self.hosts.iter_mut().for_each(|host| host.skew += millis);
        self.note(None, format_args!("{} days pass", millis / 86_400_000));
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Events handled, writes tried, writes acknowledged.
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        (self.handled, self.tried, self.checker.acknowledged())
    }

    fn note(&mut self, host: Option<usize>, what: std::fmt::Arguments<'_>) {
        self.transcript.line(self.now, host, what);
    }

    fn at(&mut self, at: u64, event: Event) -> (u64, u64) {
        self.next_event += 1;
        let key = (at, self.next_event);
        self.queue.insert(key, event);
        key
    }

    fn client_call(&mut self) -> ClientCall {
        self.next_call += 1;
        ClientCall(self.next_call)
    }

    fn lives(&self, (host, life): Life) -> bool {
        self.hosts.get(host).is_some_and(|host| host.life == life && host.core.is_some())
    }

    /// An event happens now, or when the process that handles it has the time.
    fn come_about(&mut self, event: Event) {
        let Some(number) = event.handled_by() else { return self.happen(event) };
        let (now, host) = (self.now, &mut self.hosts[number]);
        if host.core.is_none() || host.held_until() <= now && host.inbox.is_empty() {
            return self.happen(event);
        }
        let paused = host.paused_until > now;
        if matches!(event, Event::Tick(_)) {
            host.tick = None;
        }
        host.inbox.push_back(event);
        if host.inbox.len() == 1 {
            let (at, life) = (host.held_until(), host.this_life());
            self.at(at, Event::Wake(life));
        }
        if paused {
            self.acted(FaultKind::Pause);
        }
    }

    /// Handles what came first of what waits, and comes back for the next.
    fn wake(&mut self, life: Life) {
        let number = life.0;
        if self.hosts[number].held_until() <= self.now
            && let Some(event) = self.hosts[number].inbox.pop_front()
        {
            self.happen(event);
        }
        // Handling may have ended this life.
        if self.lives(life) && !self.hosts[number].inbox.is_empty() {
            let at = self.hosts[number].held_until().max(self.now);
            self.at(at, Event::Wake(life));
        }
    }

    /// The process of a host has its hands full for a while.
    fn occupy(&mut self, number: usize, bytes: u64) {
        if let Some(Cpu { per_message, bytes_per_micro }) = self.plan.cpu {
            self.hosts[number].busy_until = self.now + per_message + bytes / bytes_per_micro;
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick(life) if self.lives(life) => {
                self.hosts[life.0].tick = None;
                if self.hosts[life.0].drifted(self.now) > NOTABLE_DRIFT {
                    self.acted(FaultKind::ClockDrift);
                }
                self.input(life.0, Input::Tick);
            }
            Event::Request { to, back, request, bytes } => self.deliver(to, back, request, bytes),
            Event::Answered(life, call, result, bytes) => self.answered(life, call, result, bytes),
            Event::Join { from, call, join } => self.register(from, call, &join),
            Event::Joined(life, call, result) => self.joined(life, call, result),
            Event::Serve { from, to, fetch } => self.serve(from, to, &fetch),
            Event::Arrive { to, transfer, results } => self.arrive(to, transfer, results),
            Event::Synced(life) if self.lives(life) => self.synced(life.0),
            Event::Input(life, input) if self.lives(life) => self.input(life.0, *input),
            Event::Start(host) => self.start_process(host),
            Event::Stop(life) if self.lives(life) => self.kill(life.0, usize::MAX),
            Event::Doom(life) if self.lives(life) => self.crash_losing(life.0),
            Event::NewKey(life) if self.lives(life) => self.take_key(life.0),
            Event::Wake(life) if self.lives(life) => self.wake(life),
            Event::Tick(_) | Event::Synced(_) | Event::Input(..) | Event::Stop(_) | Event::Doom(_) | Event::NewKey(_) | Event::Wake(_) => {}
            Event::PutBack(host) => self.put_back_by_dice(host),
            Event::Write => self.write_by_dice(),
            Event::Say => self.say_by_dice(),
            Event::Trouble => self.trouble(),
            Event::Mend(cut) => self.mend(cut),
            Event::Relief(host) => {
                self.network.slow_down(host, None);
                let host = &mut self.hosts[host];
                (host.lies, host.slow, host.full, host.doomed) = (false, false, false, false);
            }
            Event::BootstrapUp => self.registry.down = false,
        }
    }

    fn acted(&mut self, kind: FaultKind) {
        self.tally.acted(kind);
    }
}
