//! One host: a disk that lasts, and a process that comes and goes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gossip_cdn_protocol::io::{ClientCall, Counters, FetchFault, OwnCall, PeerCall, TransferId};
use gossip_cdn_protocol::item::RecordKey;
use gossip_cdn_protocol::wire::{Kind, SnapshotRequest};
use gossip_cdn_protocol::{Config, ContentHash, Identity, Instant, Member, MemberState, Node, NodeId, Now, PublicKey, Record, WallTime};
use rand::rngs::ChaCha8Rng;
use rand::{Rng, RngExt};

use super::folders::Kept;
use super::{CLUSTER, EPOCH, Event, Life, World};
use crate::disk::{Disk, View};
use crate::faults::FaultKind;
use crate::plant::Plant;

/// Microseconds.
const SECOND: i64 = 1_000_000;
/// A core that has much to do may come back at once so often; one that comes back more often keeps its shell spinning.
const MOST_HURRIES: u32 = 1000;

/// A transfer whose payloads are on their way to the disk.
#[derive(Debug, Default)]
pub(super) struct Landing {
    pub(super) from: Option<NodeId>,
    pub(super) open: usize,
    pub(super) results: Vec<(ContentHash, Result<(), FetchFault>)>,
}

/// A peer's request.
#[derive(Debug)]
pub(super) struct Asked {
    /// Where the answer goes; nowhere if it is a twin.
    pub(super) back: Option<(Life, OwnCall)>,
    pub(super) kind: Kind,
    /// Which page of a snapshot it asks for, if it does.
    pub(super) stretch: Option<SnapshotRequest>,
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) number: usize,
    pub(super) id: NodeId,
    pub(super) address: String,
    /// On its disk.
    pub(super) key: PublicKey,
    pub(super) disk: Disk,
    /// An earlier state of its disk, about to be put back.
    pub(super) kept: Option<Kept>,
    /// What an earlier core of this process has counted, if its identity ended.
    pub(super) follows: Option<Counters>,
    /// Runs while this is something.
    pub(super) core: Option<Node<View>>,
    /// Counts the starts of the process; 0 before the first.
    pub(super) life: u64,
    /// When the process started, in the world's microseconds.
    born: u64,
    /// How wrong its wall clock is, in milliseconds.
    pub(super) skew: i64,
    /// How many microseconds its clocks gain in a second.
    pub(super) drift: i64,
    /// The place of its tick in the queue of events.
    pub(super) tick: Option<(u64, u64)>,
    /// Calls under way and their kind; `None` to the bootstrap node.
    pub(super) calls: BTreeMap<OwnCall, Option<Kind>>,
    pub(super) fetches: BTreeSet<TransferId>,
    pub(super) landings: BTreeMap<TransferId, Landing>,
    /// Requests that wait for their answer.
    pub(super) asked: BTreeMap<PeerCall, Asked>,
    /// Clients that wait, with the payload their upload holds on to.
    pub(super) clients: BTreeMap<ClientCall, Option<ContentHash>>,
    /// What the core last asked to persist of each record.
    pub(super) shadow: BTreeMap<RecordKey, Record>,
    /// Incarnation told in an earlier life.
    pub(super) told: u64,
    /// It sends wrong bytes.
    pub(super) lies: bool,
    /// Its disk takes long.
    pub(super) slow: bool,
    /// There is no room for payloads.
    pub(super) full: bool,
    /// It is to be killed while its next record waits for the disk.
    pub(super) doomed: bool,
    /// It starts under another address next time.
    pub(super) moves: bool,
    /// It has told others that it stops.
    pub(super) leaving: bool,
    /// Years passed while it did not run.
    pub(super) long_away: bool,
    /// It is stopped until then, or has its hands full.
    pub(super) paused_until: u64,
    pub(super) busy_until: u64,
    /// What came meanwhile.
    pub(super) inbox: VecDeque<Event>,
    pub(super) next_peer_call: u64,
    /// How often in a row the core wanted a tick at once.
    hurries: u32,
}

impl Host {
    pub(super) fn new(number: usize, plant: Option<Plant>, rng: &mut ChaCha8Rng) -> Self {
        let mut key = PublicKey([0; 32]);
        rng.fill_bytes(&mut key.0);
        Self {
            number,
            id: NodeId::from_public_key(&key.0),
            address: format!("http://n{number}:7700"),
            key,
            disk: Disk::new(plant),
            kept: None,
            follows: None,
            core: None,
            life: 0,
            born: 0,
            skew: 0,
            drift: 0,
            tick: None,
            calls: BTreeMap::new(),
            fetches: BTreeSet::new(),
            landings: BTreeMap::new(),
            asked: BTreeMap::new(),
            clients: BTreeMap::new(),
            shadow: BTreeMap::new(),
            told: 0,
            lies: false,
            slow: false,
            full: false,
            doomed: false,
            moves: false,
            leaving: false,
            long_away: false,
            paused_until: 0,
            busy_until: 0,
            inbox: VecDeque::new(),
            next_peer_call: 0,
            hurries: 0,
        }
    }

    /// What time it is by this host's clocks.
    pub(super) fn now(&self, world: u64) -> Now {
        let instant = self.instant(world);
        let wall = (EPOCH + (self.born + instant) / 1000).saturating_add_signed(self.skew);
        Now { instant: Instant(instant), wall: WallTime(wall) }
    }

    fn instant(&self, world: u64) -> u64 {
        let elapsed = i128::from(world - self.born);
        u64::try_from(elapsed * i128::from(SECOND + self.drift) / i128::from(SECOND)).unwrap_or(u64::MAX)
    }

    /// How far this process' clocks are from the right time by their rate.
    pub(super) fn drifted(&self, world: u64) -> u64 {
        self.instant(world).abs_diff(world - self.born)
    }

    /// When a deadline of the core's is in the world's time.
    pub(super) fn world_time(&self, instant: Instant) -> u64 {
        let (scaled, rate) = (i128::from(instant.0) * i128::from(SECOND), i128::from(SECOND + self.drift));
        self.born.saturating_add(u64::try_from((scaled + rate - 1) / rate).unwrap_or(u64::MAX))
    }

    /// Until when nothing is handled here.
    pub(super) fn held_until(&self) -> u64 {
        self.paused_until.max(self.busy_until)
    }

    /// For how many seconds it has run since `from`.
    pub(super) fn ran(&self, from: u64, world: u64) -> u64 {
        (world - self.born.max(from)) / 1_000_000
    }

    /// Its claim about itself at its first start.
    pub(super) fn member(&self) -> Member {
        let (id, address, key) = (self.id, self.address.clone(), self.key);
        Member { id, address, incarnation: 1, state: MemberState::Alive, key }
    }

    pub(super) fn this_life(&self) -> Life {
        (self.number, self.life)
    }

    fn forget_process(&mut self) {
        self.core = None;
        self.calls.clear();
        self.fetches.clear();
        self.landings.clear();
        self.asked.clear();
        self.clients.clear();
        self.shadow.clear();
        self.inbox.clear();
        (self.paused_until, self.busy_until, self.leaving) = (0, 0, false);
    }
}

impl World {
    pub(super) fn start_process(&mut self, number: usize) {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let now = self.now;
        if self.hosts.get(number).is_none_or(|host| host.core.is_some()) {
            return;
        }
        if std::mem::take(&mut self.hosts[number].moves) {
            self.move_away(number);
        }
        let host = &mut self.hosts[number];
        let (incarnation, members, contacts) = host.disk.open();
        let unfounded = host.disk.platter().unfounded();
        self.checker.require(unfounded.is_none(), || format!("n{number} starts with a row and without the file of a payload"));
        let host = &mut self.hosts[number];
        host.life += 1;
        host.born = now;
        let (address, bootstraps) = (host.address.clone(), self.bootstraps.clone());
        let (found, voters) = (self.founders.contains(&number), self.seats);
        let config = Config { cluster: CLUSTER.into(), address, bootstraps, heartbeats: false, found, voters };
        let identity = Identity { key: host.key, incarnation };
        let (told, again, id, life) = (host.told, host.life > 1, host.id, host.life);
        let (long_away, follows) = (std::mem::take(&mut host.long_away), host.follows.take());
        match Node::new(config, identity, members, contacts, host.disk.view(), seed, host.now(now)) {
            Ok(mut core) => {
                if let Some(counters) = follows {
                    core.follow(counters, host.now(now).instant);
                }
                host.core = Some(core);
            }
            Err(fault) => self.checker.fail(format!("n{number} cannot start: {fault}")),
        }
        self.checker.require(incarnation > told, || format!("n{number} starts again as incarnation {incarnation}, which it was before"));
        let told_before = self.chronicle.on_start(number, &self.hosts[number].disk.history());
        self.require_of_history(told_before);
        self.quorums.on_start(id, &self.hosts[number].disk.history());
        self.checker.on_issued(id, incarnation);
        self.watch.on_start(id, life);
        if again && follows.is_none() {
            self.acted(FaultKind::Restart);
        }
        if long_away {
            self.acted(FaultKind::YearsAway);
        }
        self.note(Some(number), format_args!("starts, incarnation {incarnation}"));
        self.arm(number);
    }

    /// The process of a host is killed; so many of what waits for the disk still gets there.
    pub(super) fn kill(&mut self, number: usize, keep: usize) {
        let Some((kept, lost)) = self.end_process(number, keep) else { return };
        self.note(Some(number), format_args!("is killed; {kept} of what waited reached the disk, {lost} did not"));
        self.acted(if lost > 0 { FaultKind::CrashLosing } else { FaultKind::CrashKeeping });
    }

    /// The process of a host ends at once, if it runs. Gives how much of what waited for the disk got there, and how much did not.
    pub(super) fn end_process(&mut self, number: usize, keep: usize) -> Option<(usize, usize)> {
        let host = self.hosts.get_mut(number).filter(|host| host.core.is_some())?;
        let (kept, lost) = host.disk.crash(keep);
        let confused = host.core.as_ref().map_or(0, |core| core.counters().decode_failures);
        let (tick, id, leaving, ran) = (host.tick.take(), host.id, host.leaving, host.ran(self.counted_from, self.now));
        host.forget_process();
        self.watch.on_end(id, !leaving, self.now);
        self.report.node_seconds += ran;
        self.report.decode_failures += confused;
        self.check_decoding(number, confused);
        if let Some(tick) = tick {
            self.queue.remove(&tick);
        }
        for committed in &kept {
            self.check_commit(number, committed);
        }
        Some((kept.len(), lost))
    }

    /// The cells that it subtracted were always those of two sets.
    pub(super) fn check_decoding(&mut self, number: usize, failures: u64) {
        self.checker.require(failures == 0, || format!("n{number} met {failures} sketches that are not those of two sets"));
    }

    /// From now on it has another address: a new one, or one that another host left.
    fn move_away(&mut self, number: usize) {
        self.moved += 1;
        let vacant = self.vacant.pop().filter(|_| self.rng.random_bool(0.5));
        let new = vacant.unwrap_or_else(|| format!("http://n{number}-{}:7700", self.moved));
        let old = std::mem::replace(&mut self.hosts[number].address, new.clone());
        self.addresses.remove(&old);
        self.addresses.insert(new, number);
        self.vacant.push(old);
    }

    /// Puts the next tick where the core wants it.
    pub(super) fn arm(&mut self, number: usize) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(number) else { return };
        let life = host.this_life();
        let wanted = host.core.as_ref().and_then(Node::deadline).map(|deadline| host.world_time(deadline));
        if host.tick.map(|(at, _)| at) == wanted {
            return;
        }
        if let Some(tick) = host.tick.take() {
            self.queue.remove(&tick);
        }
        if let Some(at) = wanted {
            let host = &mut self.hosts[number];
            host.hurries = if at > now { 0 } else { host.hurries + 1 };
            let spins = host.hurries > MOST_HURRIES;
            self.checker.require(!spins, || format!("n{number} wants a tick at {at}, it is {now} already, and nothing comes of it"));
            let tick = self.at(at.max(now), Event::Tick(life));
            self.hosts[number].tick = Some(tick);
        }
    }

    /// How long an fsync takes there.
    pub(super) fn fsync(&mut self, number: usize) -> u64 {
        let usual = self.plan.fsync;
        let drawn = self.rng.random_range(usual / 2..usual * 2);
        if self.hosts[number].slow { drawn * 10 } else { drawn }
    }
}
