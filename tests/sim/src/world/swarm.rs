//! A world driven by dice: clients write, faults come and go, then everything heals and must come to rest.

use std::collections::BTreeSet;
use std::time::Duration;

use gossip_cdn_protocol::io::ClientCall;
use gossip_cdn_protocol::{Command, ContentHash, Input, Node, StoreFault};
use rand::{Rng, RngExt};

use super::{Event, SECOND, World};
use crate::faults::FaultKind;
use crate::network::Cut;

/// Milliseconds.
const YEAR: i64 = 365 * 86_400_000;
/// A healed network must be at rest after so long, in microseconds: some of the longest pauses of the core.
const HEALING: u64 = 120 * SECOND;
/// At most so many hosts join later.
const NEWCOMERS: usize = 2;
/// The fewest kinds of fault that must have acted in a seed.
const FEWEST_ACTED: usize = 3;
/// The fewest messages that must have been delivered in a seed.
const FEWEST_DELIVERED: u64 = 20;
/// So many messages are said while the network forms.
const EARLY: u32 = 16;
/// The fewest writes that must have been tried in a seed.
const FEWEST_WRITES: u64 = 100;

/// Faults that begin at a moment; the others are weather.
const TROUBLES: [FaultKind; 19] = [
    FaultKind::OneWayCut,
    FaultKind::Partition,
    FaultKind::CrashKeeping,
    FaultKind::CrashLosing,
    FaultKind::DiskFault,
    FaultKind::SlowDisk,
    FaultKind::ClockJump,
    FaultKind::Join,
    FaultKind::Leave,
    FaultKind::WrongBytes,
    FaultKind::BootstrapDown,
    FaultKind::SlowHost,
    FaultKind::Pause,
    FaultKind::NewAddress,
    FaultKind::Flood,
    FaultKind::YearsAway,
    FaultKind::RestoredDisk,
    FaultKind::CopiedDisk,
    FaultKind::RottenByte,
];

impl World {
    /// Runs the whole life of a seed.
    pub(crate) fn swarm(&mut self) {
        let count = self.settings.nodes.unwrap_or_else(|| self.rng.random_range(5..10));
        let end = self.settings.seconds * SECOND;
        if self.rng.random() {
            self.founds(0);
        } else {
            self.names_a_founder();
        }
        for _ in 0..count {
            let host = self.add();
            self.skew(host);
            let at = self.rng.random_range(0..2 * SECOND);
            self.at(at, Event::Start(host));
        }
        for _ in 0..self.settings.writes {
            let at = self.rng.random_range(SECOND..end.max(2 * SECOND));
            self.at(at, Event::Write);
        }
        for _ in 0..self.settings.writes {
            let at = self.rng.random_range(SECOND..end.max(2 * SECOND));
            self.at(at, Event::Say);
        }
        // While the first epochs follow each other.
        for _ in 0..EARLY {
            let at = self.rng.random_range(SECOND / 2..4 * SECOND);
            self.at(at, Event::Say);
        }
        if self.plan.has(FaultKind::TwoFounders) && self.rng.random() {
            self.found_twice();
        }
        let forgetful = self.plan.has(FaultKind::RestoredDisk) || self.plan.has(FaultKind::CopiedDisk);
        self.careless = forgetful && self.rng.random_ratio(1, 4);
        self.at(3 * SECOND, Event::Trouble);
        self.run_until(end);
        self.heal();
        self.found_after_all();
        self.come_to_rest(count + NEWCOMERS);
        self.check_validity();
    }

    pub(super) fn skew(&mut self, host: usize) {
        if self.plan.has(FaultKind::ClockSkew) {
            self.hosts[host].skew += self.rng.random_range(-300_000..300_000);
            self.acted(FaultKind::ClockSkew);
        }
        if self.plan.has(FaultKind::ClockDrift) {
            // A good clock errs by a hundredth of this.
            self.hosts[host].drift = self.rng.random_range(-10_000..10_000);
        }
    }

    pub(super) fn write_by_dice(&mut self) {
        let live: Vec<usize> = self.hosts.iter().filter(|host| host.core.is_some()).map(|host| host.number).collect();
        if live.is_empty() {
            self.at(self.now + SECOND / 2, Event::Write);
            return;
        }
        let host = live[self.rng.random_range(0..live.len())];
        self.write_at(host);
    }

    fn write_at(&mut self, host: usize) {
        let blob = self.client.choose(&mut self.rng);
        let record = blob.and_then(|blob| self.hosts[host].core.as_ref().map(|core| core.records().record(core.records().key(blob))));
        let record = record.and_then(Result::ok).unwrap_or_default();
        let wish = self.client.wish(blob, &record, &mut self.rng);
        self.ask_for_write(host, wish);
        if let Some(blob) = blob.filter(|_| self.rng.random_ratio(1, 8)) {
            self.ask_by_dice(host, blob);
        }
    }

    /// Clients also read.
    fn ask_by_dice(&mut self, host: usize, blob: gossip_cdn_protocol::BlobId) {
        let call: ClientCall = self.client_call();
        let mut middle = [0; 32];
        self.rng.fill_bytes(&mut middle);
        let missing = self.hosts[host].disk.lacks(ContentHash(middle)).or_else(|| self.hosts[host].disk.lacks(ContentHash([0; 32])));
        let command = match (self.rng.random_range(0..5), missing) {
            (0, _) => Command::Status,
            (1, _) => Command::Members,
            (2, _) => Command::Introduce(self.some_address()),
            (3, Some(missing)) => Command::Want(missing),
            _ => Command::Holders(blob),
        };
        self.hosts[host].clients.insert(call, None);
        self.input(host, Input::Command(call, command));
    }

    /// An address that somebody has, or had.
    fn some_address(&mut self) -> String {
        let all: Vec<&String> = self.addresses.keys().chain(&self.vacant).collect();
        all[self.rng.random_range(0..all.len())].clone()
    }

    /// Some fault begins, and the next is arranged.
    pub(super) fn trouble(&mut self) {
        let next = self.now + self.rng.random_range(SECOND / 5..2 * SECOND);
        if next < self.settings.seconds * SECOND {
            self.at(next, Event::Trouble);
        }
        let on: Vec<FaultKind> = TROUBLES.into_iter().filter(|kind| self.plan.has(*kind)).collect();
        if on.is_empty() || self.healing {
            return;
        }
        let kind = on[self.rng.random_range(0..on.len())];
        let host = self.rng.random_range(0..self.hosts.len());
        self.note(Some(host), format_args!("trouble: {kind}"));
        self.begin(kind, host);
    }

    fn begin(&mut self, kind: FaultKind, host: usize) {
        match kind {
            FaultKind::OneWayCut => {
                let others: BTreeSet<usize> = (0..self.hosts.len()).filter(|other| *other != host && self.rng.random_bool(0.5)).collect();
                let one = BTreeSet::from([host]);
                let cut = if self.rng.random_bool(0.5) { Cut::OneWay(one, others) } else { Cut::OneWay(others, one) };
                self.cut_for_a_while(cut, 15);
            }
            FaultKind::Partition => {
                let side: BTreeSet<usize> = (0..self.hosts.len()).filter(|_| self.rng.random_bool(0.5)).collect();
                self.cut_for_a_while(Cut::Split(side), 25);
            }
            FaultKind::CrashKeeping => {
                let kept = self.hosts[host].disk.queued();
                self.crash_for_a_while(host, kept);
            }
            FaultKind::CrashLosing => self.hosts[host].doomed = true,
            FaultKind::DiskFault => self.refuse_persist(host),
            FaultKind::SlowDisk => {
                self.hosts[host].slow = true;
                self.relieve_later(host);
            }
            FaultKind::WrongBytes => {
                if self.rng.random_bool(0.7) {
                    self.hosts[host].lies = true
                } else {
                    self.hosts[host].full = true
                }
                self.relieve_later(host);
            }
            FaultKind::ClockJump => {
                // Up to an hour: beyond the ten minutes that a node follows.
                self.hosts[host].skew += self.rng.random_range(-3_600_000..3_600_000);
                self.acted(kind);
            }
            FaultKind::Join => self.newcomer(),
            FaultKind::Leave => self.leave_for_a_while(host),
            FaultKind::BootstrapDown => {
                self.registry.down = true;
                let at = self.now + self.rng.random_range(SECOND..20 * SECOND);
                self.at(at, Event::BootstrapUp);
            }
            FaultKind::SlowHost => {
                let times = self.rng.random_range(5..50);
                self.network.slow_down(host, Some(times));
                self.relieve_later(host);
            }
            FaultKind::Pause => {
                if self.hosts[host].core.is_some() {
                    self.hosts[host].paused_until = self.now + self.rng.random_range(SECOND / 2..10 * SECOND);
                }
            }
            FaultKind::NewAddress => {
                self.hosts[host].moves = true;
                self.crash_for_a_while(host, usize::MAX);
            }
            FaultKind::Flood => self.flood(host),
            FaultKind::YearsAway => self.send_away(host),
            FaultKind::RestoredDisk => self.put_back_later(host),
            FaultKind::CopiedDisk => self.copy_by_dice(host),
            FaultKind::RottenByte => self.rot_by_dice(host),
            FaultKind::ClockDrift
            | FaultKind::LostRequest
            | FaultKind::LostAnswer
            | FaultKind::Duplicate
            | FaultKind::Reorder
            | FaultKind::Restart
            | FaultKind::ClockSkew
            | FaultKind::BrokenTransfer
            | FaultKind::TwoFounders => {}
        }
    }

    pub(super) fn cut_for_a_while(&mut self, cut: Cut, seconds: u64) {
        let number = self.network.cut(cut);
        let at = self.now + self.rng.random_range(SECOND..seconds * SECOND);
        self.at(at, Event::Mend(number));
    }

    fn crash_for_a_while(&mut self, host: usize, kept: usize) {
        if self.hosts[host].core.is_some() {
            self.kill(host, kept);
            let at = self.now + self.rng.random_range(SECOND / 10..15 * SECOND);
            self.at(at, Event::Start(host));
        }
    }

    /// Kills a host and loses what waits for its disk, or all but the first of it.
    pub(super) fn crash_losing(&mut self, host: usize) {
        let waiting = self.hosts[host].disk.queued();
        let kept = if waiting > 1 && self.rng.random_bool(0.5) { self.rng.random_range(0..waiting) } else { 0 };
        self.crash_for_a_while(host, kept);
    }

    /// The disk refuses what waits for it: the core must end, and a new one is built.
    fn refuse_persist(&mut self, host: usize) {
        let Some(token) = self.hosts[host].disk.next_persist().filter(|_| self.hosts[host].core.is_some()) else { return };
        self.acted(FaultKind::DiskFault);
        self.input(host, Input::Persisted(token, Err(StoreFault("simulated".into()))));
        let stopped = self.hosts[host].core.as_ref().is_some_and(|core| Node::deadline(core).is_none());
        self.checker.require(stopped, || format!("n{host} goes on after a persist failed"));
        // What waited is lost with the core.
        self.kill(host, 0);
    }

    /// Hundreds of writes at once, in one seed once.
    fn flood(&mut self, host: usize) {
        if self.flood > 0 || self.hosts[host].core.is_none() {
            return;
        }
        self.flood = self.rng.random_range(100..400);
        self.acted(FaultKind::Flood);
        for _ in 0..self.flood {
            self.write_at(host);
        }
    }

    /// It does not run for a long while, and years pass on the clocks on the walls.
    fn send_away(&mut self, host: usize) {
        if self.hosts[host].core.is_none() {
            return;
        }
        self.kill(host, usize::MAX);
        self.hosts[host].long_away = true;
        let years = self.rng.random_range(YEAR..5 * YEAR);
        self.leap(years);
        let at = self.now + self.rng.random_range(10 * SECOND..40 * SECOND);
        self.at(at, Event::Start(host));
    }

    fn relieve_later(&mut self, host: usize) {
        let at = self.now + self.rng.random_range(SECOND..10 * SECOND);
        self.at(at, Event::Relief(host));
    }

    pub(super) fn has_room(&self) -> bool {
        self.hosts.len() < self.settings.nodes.unwrap_or(9) + NEWCOMERS
    }

    fn newcomer(&mut self) {
        if self.has_room() {
            let host = self.add();
            self.skew(host);
            self.acted(FaultKind::Join);
            self.start_process(host);
        }
    }

    fn leave_for_a_while(&mut self, host: usize) {
        if self.hosts[host].core.is_none() {
            return;
        }
        self.acted(FaultKind::Leave);
        let call = self.client_call();
        self.input(host, Input::Command(call, Command::Leave));
        let life = self.hosts[host].this_life();
        self.at(self.now + SECOND / 2, Event::Stop(life));
        let at = self.now + self.rng.random_range(SECOND..15 * SECOND);
        self.at(at, Event::Start(host));
    }

    /// No more faults; everybody runs.
    fn heal(&mut self) {
        self.note(None, format_args!("heals"));
        self.healing = true;
        self.network.heal();
        self.registry.down = false;
        let is_trouble = |event: &Event| {
            matches!(event, Event::Write | Event::Say | Event::Trouble | Event::Stop(_) | Event::Doom(_) | Event::PutBack(_))
        };
        self.queue.retain(|_, event| !is_trouble(event));
        for host in 0..self.hosts.len() {
            self.happen(Event::Relief(host));
            self.scrub(host);
            self.resume(host);
            self.start_process(host);
            // One that was about to stop has told everybody so: it starts again.
            let leaving = self.hosts[host].core.as_ref().is_some_and(|core| Node::deadline(core).is_none());
            if leaving {
                self.kill(host, usize::MAX);
                self.start_process(host);
            }
        }
    }

    /// A stopped process goes on at once.
    fn resume(&mut self, host: usize) {
        if self.hosts[host].paused_until > self.now {
            self.hosts[host].paused_until = self.now;
            let life = self.hosts[host].this_life();
            self.at(self.now, Event::Wake(life));
        }
    }

    fn come_to_rest(&mut self, most_hosts: usize) {
        self.checker.require(self.hosts.len() <= most_hosts.max(11), || "too many hosts".into());
        let end = self.now + HEALING;
        while self.now < end && self.checker.failure().is_none() && self.any_gap().is_some() {
            self.run_for(Duration::from_millis(500));
            self.join_histories();
        }
        if let Some(gap) = self.any_gap() {
            self.checker.fail(format!("{gap}, {} s after the network healed", HEALING / SECOND));
        }
        for host in &self.hosts {
            if let Some(core) = &host.core {
                let equal = core.records().verify_summary() == Ok(true);
                self.checker.require(equal, || format!("the summary of n{} is not that of its records", host.number));
            }
        }
        for number in 0..self.hosts.len() {
            let confused = self.hosts[number].core.as_ref().map_or(0, |core| core.counters().decode_failures);
            self.check_decoding(number, confused);
        }
        // Replies to clients wait at most for the timeout of a write, or of a call.
        let end = self.now + 40 * SECOND;
        while self.now < end && self.hosts.iter().any(|host| !host.clients.is_empty()) {
            self.run_for(Duration::from_secs(1));
        }
        for host in &self.hosts {
            let waits = host.clients.keys().next();
            self.checker.require(waits.is_none(), || format!("n{} never answered its client {waits:?}", host.number));
        }
    }

    /// A seed in which too little happened proves nothing.
    fn check_validity(&mut self) {
        let kinds = self.tally.kinds();
        self.checker.require(kinds >= FEWEST_ACTED, || format!("invalid seed: only {kinds} kinds of fault acted"));
        let delivered = self.chronicle.delivered();
        let few = delivered < FEWEST_DELIVERED && self.has_majority() && !self.careless;
        self.checker.require(!few, || format!("invalid seed: only {delivered} messages were delivered"));
        let tried = self.tried.saturating_sub(self.flood);
        self.checker.require(tried >= FEWEST_WRITES, || format!("invalid seed: only {tried} writes were tried"));
    }
}
