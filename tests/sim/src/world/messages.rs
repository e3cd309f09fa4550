//! The message history of a world: who founds it, who says something, and whether all of it is everywhere.

use std::collections::BTreeSet;
use std::time::Duration;

use gossip_cdn_protocol::history::disk::Founding;
use gossip_cdn_protocol::history::memory::MemoryHistory;
use gossip_cdn_protocol::history::message::Channel;
use gossip_cdn_protocol::io::{ClientCall, Say};
use gossip_cdn_protocol::{Command, Input, NodeId};
use rand::RngExt;

use super::{Event, SECOND, World};
use crate::broadcasts::Broadcasts;
use crate::chronicle::has_majority;
use crate::faults::FaultKind;
use crate::network::Cut;

impl World {
    /// This host founds a message history at its first start.
    pub fn founds(&mut self, host: usize) {
        self.founders.insert(host);
    }

    /// At most so many hosts vote; said before any is started.
    pub(crate) fn seats(&mut self, count: usize) {
        self.seats = count;
    }

    /// The bootstrap node names who founds the message history.
    pub fn names_a_founder(&mut self) {
        self.registry.names = true;
    }

    /// A client says something at a host; the answer is found with [`Self::reply`] when time has passed. `None`: it does not run.
    pub fn say(&mut self, host: usize, channel: Channel, wait: Option<Duration>) -> Option<ClientCall> {
        let id = self.hosts.get(host).filter(|host| host.core.is_some())?.id;
        let call = self.client_call();
        let body = self.chronicle.body(id);
        self.note(Some(host), format_args!("client c{} says message {}", call.0, self.chronicle.said()));
        self.hosts[host].clients.insert(call, None);
        if let Some(broadcasts) = &mut self.broadcasts {
            broadcasts.on_said(call, self.now);
        }
        self.input(host, Input::Command(call, Command::Say(Say { channel, media_type: "text/plain".into(), body, wait })));
        Some(call)
    }

    /// From now on it is followed how causal messages get around.
    pub(crate) fn follow_broadcasts(&mut self) {
        self.broadcasts = Some(Broadcasts::default());
    }

    /// How those got around that were said since.
    pub(crate) fn broadcasts(&self) -> Option<&Broadcasts> {
        self.broadcasts.as_ref()
    }

    /// The host that coordinates the ordered channel, if one does.
    pub fn coordinator(&self) -> Option<usize> {
        let coordinates = |host: &&super::Host| host.core.as_ref().is_some_and(|core| core.history().coordinator() == Some(host.id));
        self.hosts.iter().find(coordinates).map(|host| host.number)
    }

    /// Why the histories of the hosts that run are not alike, with everything in them that anybody accepted or delivered; `None` if they are.
    pub fn history_gap(&self) -> Option<String> {
        self.with_histories(|disks| self.chronicle.gap(disks))
    }

    /// Whether the history's voters that are still there are a majority.
    pub(super) fn has_majority(&self) -> bool {
        self.with_histories(has_majority)
    }

    fn with_histories<T>(&self, look: impl FnOnce(&[(usize, NodeId, &MemoryHistory)]) -> T) -> T {
        let running = self.hosts.iter().filter(|host| host.core.is_some());
        let disks: Vec<_> = running.map(|host| (host.number, host.id, host.disk.history())).collect();
        look(&disks.iter().map(|(host, id, disk)| (*host, *id, &**disk)).collect::<Vec<_>>())
    }

    /// How many messages clients said, and how many of them were delivered somewhere.
    pub fn messages(&self) -> (u64, u64) {
        (self.chronicle.said(), self.chronicle.delivered())
    }

    /// How many voters count in the host's view.
    pub fn voters(&self, host: usize) -> usize {
        self.hosts[host].core.as_ref().map_or(0, |core| core.history().epoch().voters.len())
    }

    /// A client says something, and may wait until it is delivered.
    pub(super) fn say_by_dice(&mut self) {
        let live: Vec<usize> = self.hosts.iter().filter(|host| host.core.is_some()).map(|host| host.number).collect();
        if live.is_empty() {
            self.at(self.now + SECOND / 2, Event::Say);
            return;
        }
        let host = live[self.rng.random_range(0..live.len())];
        let channel = if self.rng.random() { Channel::Causal } else { Channel::Ordered };
        let wait = self.rng.random_ratio(1, 4).then_some(Duration::from_secs(5));
        self.say(host, channel, wait);
    }

    /// Another host founds a history, and can reach only some of the others at first.
    pub(super) fn found_twice(&mut self) {
        let rival = self.rng.random_range(1..self.hosts.len());
        self.founders.insert(rival);
        self.acted(FaultKind::TwoFounders);
        let its: BTreeSet<usize> = (1..self.hosts.len()).filter(|host| *host == rival || self.rng.random()).collect();
        self.cut_for_a_while(Cut::Split(its), 10);
    }

    /// What must hold of the message history, as long as no disk forgets unawares what its node said and promised.
    pub(super) fn require_of_history(&mut self, checked: Result<(), String>) {
        if let Err(what) = checked
            && !self.careless
        {
            self.checker.fail(what);
        }
    }

    /// What is missing for the network to be at rest.
    pub(super) fn any_gap(&self) -> Option<String> {
        self.gap().or_else(|| self.history_gap().filter(|_| !self.careless && !self.stays_apart()))
    }

    /// The histories that running nodes belong to, and of these one that none of them has left.
    fn foundings(&self) -> (BTreeSet<Founding>, Option<Founding>) {
        let running = || self.hosts.iter().filter_map(|host| Some(host.core.as_ref()?.history()));
        let all: BTreeSet<Founding> = running().filter_map(|history| history.founding()).collect();
        let fits = |founding: &&Founding| running().all(|history| !history.has_left(founding.id));
        let chosen = all.iter().find(fits).copied();
        (all, chosen)
    }

    /// There are several histories, and each was left by somebody for another one: they stay apart.
    fn stays_apart(&self) -> bool {
        let (all, chosen) = self.foundings();
        self.plan.has(FaultKind::TwoFounders) && all.len() > 1 && chosen.is_none()
    }

    /// An operator sees that there are two histories, and makes the nodes of one of them adopt the other: one that none of them has left.
    pub(super) fn join_histories(&mut self) {
        let (all, Some(chosen)) = self.foundings() else { return };
        let belongs = |host: &&super::Host| host.core.as_ref().is_some_and(|core| core.history().founding() == Some(chosen));
        let others: Vec<usize> = self.hosts.iter().filter(|host| host.core.is_some() && !belongs(host)).map(|host| host.number).collect();
        for host in others.into_iter().filter(|_| all.len() > 1) {
            self.ask(host, Command::AdoptHistory(chosen.id));
        }
    }

    /// An operator sees that there is no history, because who was named never came back to found it, and starts some host with `--found`.
    pub(super) fn found_after_all(&mut self) {
        let gone = self.registry.founder.is_some_and(|named| self.hosts.iter().all(|host| host.id != named));
        if gone && self.hosts.iter().all(|host| host.disk.history().founding().is_none()) {
            self.founders.insert(0);
            self.kill(0, usize::MAX);
            self.start_process(0);
        }
    }
}
