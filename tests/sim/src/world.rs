//! The world: hosts with their cores and disks, the network between them, and a queue of [`events`] in virtual time.
//!
//! A host is a shell as the core's contract wants it: it performs outputs in order, ticks at the deadline, reports completions.
//!
//! A test drives a world by hand ([`World::add`], [`World::write`], [`World::run_for`], [`World::split`] ...);
//! [`World::swarm`] drives it by dice.

mod events;
mod folders;
mod host;
mod looks;
mod messages;
mod model;
mod perform;
mod rot;
mod swarm;

pub use folders::Again;
pub use model::{Model, Settings};

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use gossip_cdn_protocol::history::epoch::MAX_VOTERS;
use gossip_cdn_protocol::io::{ClientCall, Reply};
use gossip_cdn_protocol::{Command, Input, Member, NodeId, planted};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use crate::base::Base;
use crate::broadcasts::Broadcasts;
use crate::checker::Checker;
use crate::chronicle::Chronicle;
use crate::client::{Client, Wish};
use crate::faults::{FaultKind, Plan, Tally};
use crate::meter::Report;
use crate::network::{Cut, Network, Weather};
use crate::plant::Plant;
use crate::quorum::Quorums;
use crate::transcript::Transcript;
use crate::watch::Watch;
use events::{Arrived, Event, Life};
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

/// What a process leaves behind when it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// So many of what waited for the disk got there, in order.
    Keep(usize),
    /// All of it got there.
    KeepAll,
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

    fn client_call(&mut self) -> ClientCall {
        self.next_call += 1;
        ClientCall(self.next_call)
    }

    fn acted(&mut self, kind: FaultKind) {
        self.tally.acted(kind);
    }
}
