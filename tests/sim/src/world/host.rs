//! One host: a disk that lasts, and a process that comes and goes.

use std::collections::{BTreeMap, BTreeSet};

use gossip_cdn_protocol::io::{ClientCall, FetchFault, OwnCall, PeerCall, TransferId};
use gossip_cdn_protocol::item::RecordKey;
use gossip_cdn_protocol::{Config, ContentHash, Identity, Instant, Node, NodeId, Now, PublicKey, Record, WallTime};
use rand::rngs::ChaCha8Rng;
use rand::{Rng, RngExt};

use super::{BOOTSTRAP, EPOCH, Event, Life, World};
use crate::disk::{Disk, View};
use crate::faults::FaultKind;
use crate::plant::Plant;

/// A core that has much to do may come back at once so often; one that comes back more often keeps its shell spinning.
const MOST_HURRIES: u32 = 1000;

/// A transfer whose payloads are on their way to the disk.
#[derive(Debug, Default)]
pub(super) struct Landing {
    pub(super) from: Option<NodeId>,
    pub(super) open: usize,
    pub(super) results: Vec<(ContentHash, Result<(), FetchFault>)>,
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) number: usize,
    pub(super) id: NodeId,
    pub(super) address: String,
    key: PublicKey,
    pub(super) disk: Disk,
    /// Runs while this is something.
    pub(super) core: Option<Node<View>>,
    /// Counts the starts of the process; 0 before the first.
    pub(super) life: u64,
    /// When the process started, in the world's microseconds.
    born: u64,
    /// How wrong its wall clock is, in milliseconds.
    pub(super) skew: i64,
    /// The place of its tick in the queue of events.
    pub(super) tick: Option<(u64, u64)>,
    pub(super) calls: BTreeSet<OwnCall>,
    pub(super) fetches: BTreeSet<TransferId>,
    pub(super) landings: BTreeMap<TransferId, Landing>,
    /// Where the answer of a peer's request goes; nowhere if it is a twin.
    pub(super) asked: BTreeMap<PeerCall, Option<(Life, OwnCall)>>,
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
            core: None,
            life: 0,
            born: 0,
            skew: 0,
            tick: None,
            calls: BTreeSet::new(),
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
            next_peer_call: 0,
            hurries: 0,
        }
    }

    /// What time it is by this host's clocks.
    pub(super) fn now(&self, world: u64) -> Now {
        let wall = (EPOCH + world / 1000).saturating_add_signed(self.skew);
        Now { instant: Instant(world - self.born), wall: WallTime(wall) }
    }

    /// When a deadline of the core's is in the world's time.
    pub(super) fn world_time(&self, instant: Instant) -> u64 {
        self.born.saturating_add(instant.0)
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
    }
}

impl World {
    pub(super) fn start_process(&mut self, number: usize) {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let now = self.now;
        let Some(host) = self.hosts.get_mut(number).filter(|host| host.core.is_none()) else { return };
        let (incarnation, members, contacts) = host.disk.open();
        host.life += 1;
        host.born = now;
        let config = Config { cluster: "sim".into(), address: host.address.clone(), bootstraps: vec![BOOTSTRAP.into()] };
        let identity = Identity { key: host.key, incarnation };
        let (told, again) = (host.told, host.life > 1);
        match Node::new(config, identity, members, contacts, host.disk.view(), seed, host.now(now)) {
            Ok(core) => host.core = Some(core),
            Err(fault) => self.checker.fail(format!("n{number} cannot start: {fault}")),
        }
        self.checker.require(incarnation > told, || format!("n{number} starts again as incarnation {incarnation}, which it was before"));
        if again {
            self.acted(FaultKind::Restart);
        }
        self.note(Some(number), format_args!("starts, incarnation {incarnation}"));
        self.arm(number);
    }

    /// The process of a host ends at once; so many of what waits for the disk still gets there.
    pub(super) fn kill(&mut self, number: usize, keep: usize) {
        let Some(host) = self.hosts.get_mut(number).filter(|host| host.core.is_some()) else { return };
        let (kept, lost) = host.disk.crash(keep);
        let tick = host.tick.take();
        host.forget_process();
        if let Some(tick) = tick {
            self.queue.remove(&tick);
        }
        self.note(Some(number), format_args!("is killed; {} of what waited reached the disk, {lost} did not", kept.len()));
        if lost > 0 {
            self.acted(FaultKind::CrashLosing);
        } else {
            self.acted(FaultKind::CrashKeeping);
        }
        for committed in &kept {
            self.check_commit(number, committed);
        }
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
