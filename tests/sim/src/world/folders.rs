//! Disks that are copied, or put back to an earlier state, and the keys that nodes take then.

use gossip_cdn_protocol::identity::Conflict;
use gossip_cdn_protocol::{Node, NodeId, PublicKey};
use rand::{Rng, RngExt};

use super::{Event, SECOND, World};
use crate::disk::Platter;
use crate::faults::FaultKind;
use crate::plant::Plant;

/// How a node begins on a disk that was copied or put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// With `--restored`: it takes another key before anything else.
    Restored,
    /// As if nothing had happened: it finds out by itself.
    Unawares,
}

/// An earlier state of a disk.
#[derive(Debug)]
pub(super) struct Kept {
    platter: Platter,
    key: PublicKey,
    /// Since when the stamps of the key prove nothing once it is put back.
    horizon: u64,
}

impl World {
    /// Keeps the state of a host's disk, as a backup does.
    pub fn back_up(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        if host.life > 0 && host.kept.is_none() {
            self.chronicle.on_copy(&host.disk.history(), self.plan.has(FaultKind::TwoFounders));
            host.kept = Some(Kept { platter: host.disk.image(), key: host.key, horizon: self.checker.horizon(host.id) });
        }
    }

    /// Keeps the state of a host's disk, and puts it back later.
    pub(super) fn put_back_later(&mut self, number: usize) {
        self.back_up(number);
        let at = self.now + self.rng.random_range(SECOND / 2..10 * SECOND);
        self.at(at, Event::PutBack(number));
    }

    /// Puts a disk back if what is promised holds all the same: the message history needs the disks of a majority of its voters.
    pub(super) fn put_back_by_dice(&mut self, number: usize) {
        let again = if self.careless { Again::Unawares } else { Again::Restored };
        if again == Again::Unawares || self.spend_voter_loss(number) {
            self.put_back(number, again);
        }
    }

    fn spend_voter_loss(&mut self, number: usize) -> bool {
        let (id, founding) = (self.hosts[number].id, self.hosts[number].disk.history().founding());
        let disks = self.hosts.iter().map(|host| host.disk.history());
        let epochs = disks.filter(|disk| disk.founding() == founding).filter_map(|disk| disk.epoch());
        let Some(epoch) = epochs.max_by_key(|epoch| epoch.number).filter(|epoch| epoch.voters.contains(&id)) else { return true };
        let others = self.hosts.iter().map(|host| host.id).filter(|other| *other != id).collect();
        let may = !self.voter_lost && epoch.is_majority(&others);
        self.voter_lost |= may;
        may
    }

    /// A host's process is killed, if it runs, and its disk put back to the state that was kept.
    pub fn put_back(&mut self, number: usize, again: Again) {
        let Some(Kept { platter, key, horizon }) = self.hosts[number].kept.take() else { return };
        let was_running = self.hosts[number].core.is_some();
        self.kill(number, usize::MAX);
        let host = &mut self.hosts[number];
        let before = host.disk.put_back(platter);
        let other_key = host.key != key;
        (host.key, host.id, host.told) = (key, NodeId::from_public_key(&key.0), 0);
        let id = host.id;
        self.transcript.name(id, number);
        self.note(Some(number), format_args!("has its disk put back"));
        if other_key || before.differs(&self.hosts[number].disk.platter()) {
            if again == Again::Unawares {
                self.checker.on_doubt(id, horizon);
            }
            let disks: Vec<_> = self.hosts.iter().map(|host| host.disk.platter()).collect();
            let platters: Vec<_> = disks.iter().map(|disk| &**disk).collect();
            self.checker.on_put_back(number, id, &before, &platters);
            self.chronicle.on_put_back(number, platters[number].history());
            drop(platters);
            drop(disks);
            self.acted(FaultKind::RestoredDisk);
        }
        if again == Again::Restored {
            self.checker.on_given_up(number, id);
            self.change_key(number);
        }
        if was_running && !self.healing {
            let at = self.now + self.rng.random_range(0..5 * SECOND);
            self.at(at, Event::Start(number));
        }
    }

    /// A new host on a copy of another's disk, not started yet; gives its number.
    pub fn copy_disk(&mut self, number: usize, again: Again) -> usize {
        let copy = self.add();
        let (of, key, id) = (&self.hosts[number], self.hosts[number].key, self.hosts[number].id);
        let (image, horizon) = (of.disk.image(), self.checker.horizon(id));
        self.chronicle.on_copy(image.history(), self.plan.has(FaultKind::TwoFounders));
        let host = &mut self.hosts[copy];
        (host.key, host.id) = (key, id);
        host.disk.put_back(image);
        match again {
            Again::Restored => self.change_key(copy),
            Again::Unawares => self.checker.on_doubt(id, horizon),
        }
        self.note(Some(copy), format_args!("has a copy of the disk of n{number}"));
        self.acted(FaultKind::CopiedDisk);
        copy
    }

    /// Some disk is copied, and a node started on it.
    pub(super) fn copy_by_dice(&mut self, number: usize) {
        let again = if self.careless { Again::Unawares } else { Again::Restored };
        if self.hosts[number].life > 0 && self.has_room() {
            let copy = self.copy_disk(number, again);
            self.skew(copy);
            self.start_process(copy);
        }
    }

    /// The core of a host has ended with its identity.
    pub(super) fn give_up(&mut self, number: usize, conflict: &Conflict) {
        self.note(Some(number), format_args!("gives up its key: {conflict}"));
        let id = self.hosts[number].id;
        self.checker.on_renounced(number, id, &conflict.to_string());
        let life = self.hosts[number].this_life();
        self.at(self.now, Event::NewKey(life));
    }

    /// What was handed over to the disk gets there, then the key, and a core with it follows. (A core that ends has nothing more on its way
    /// there: it is payloads that wait.)
    pub(super) fn take_key(&mut self, number: usize) {
        let persists = self.hosts[number].disk.next_persist();
        self.checker.require(persists.is_none(), || format!("n{number} takes another key before the disk has what it was asked for"));
        let waiting = self.hosts[number].disk.queued();
        let handed_over = self.rng.random_range(0..=waiting);
        let counters = self.hosts[number].core.as_ref().map(Node::counters);
        self.end_process(number, handed_over);
        self.checker.on_given_up(number, self.hosts[number].id);
        if self.settings.plant != Some(Plant::OldKey) {
            self.change_key(number);
        }
        self.hosts[number].follows = counters;
        self.start_process(number);
    }

    /// A host whose process does not run has another key on its disk from now on.
    fn change_key(&mut self, number: usize) {
        let mut key = PublicKey([0; 32]);
        self.rng.fill_bytes(&mut key.0);
        let host = &mut self.hosts[number];
        let (was, is) = (host.id, NodeId::from_public_key(&key.0));
        host.disk.take_key();
        (host.key, host.id, host.told) = (key, is, 0);
        self.chronicle.on_key(was, is);
        self.transcript.name(is, number);
    }
}
