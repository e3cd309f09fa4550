//! Bytes that rot on a disk, and those who find it.
//!
//! 1. Rotten bytes are found when they are read: by a peer that asks for them, or by a scrub.
//! 2. Who reads them does not get them. From then on the payload is missing at that host, and its core has it fetched.

use gossip_cdn_protocol::ContentHash;
use rand::RngExt;

use super::{Event, SECOND, World};
use crate::disk::Disk;
use crate::faults::FaultKind;

impl World {
    /// Some payload rots on the disk of a host, and a scrub comes by later.
    pub(super) fn rot_by_dice(&mut self, number: usize) {
        let here: Vec<ContentHash> = self.hosts[number].disk.platter().rows().collect();
        if !here.is_empty() {
            let hash = here[self.rng.random_range(0..here.len())];
            self.rot(number, hash);
            let at = self.now + self.rng.random_range(0..30 * SECOND);
            self.at(at, Event::Scrub(number));
        }
    }

    /// The bytes of a payload rot on the disk of a host.
    pub fn rot(&mut self, number: usize, hash: ContentHash) {
        self.spoil(number, |disk| disk.rot(hash));
    }

    /// Everything that is on the disk of a host is read.
    pub fn scrub(&mut self, number: usize) {
        for hash in self.hosts[number].disk.rotten() {
            self.find_rotten(number, hash);
        }
    }

    /// The bytes of a payload are about to be read.
    pub(super) fn look_at(&mut self, number: usize, hash: ContentHash) {
        if self.hosts[number].disk.bytes(hash).is_some_and(|bytes| bytes.hash() != hash) {
            self.find_rotten(number, hash);
        }
    }

    fn find_rotten(&mut self, number: usize, hash: ContentHash) {
        self.note(Some(number), format_args!("finds the bytes of {} rotten", crate::transcript::hash(hash)));
        self.acted(FaultKind::RottenByte);
        self.checker.on_rotten(number, hash);
        self.spoil(number, |disk| disk.lose(hash));
    }

    fn spoil(&mut self, number: usize, spoil: impl FnOnce(&mut Disk)) {
        let before = self.hosts[number].disk.image();
        spoil(&mut self.hosts[number].disk);
        let disks: Vec<_> = self.hosts.iter().map(|host| host.disk.platter()).collect();
        let platters: Vec<_> = disks.iter().map(|disk| &**disk).collect();
        self.checker.on_lost(number, &before, &platters);
    }
}
