//! The one network of this process: the registry, its disk, its counters, and what is shown of it.
//!
//! 1. A change is answered after it is durable, together with the changes of others that waited for the same commit.
//! 2. Rows are read from the registry when they are written, so no older row ever covers a newer one.
//! 3. A failing disk stops no introduction; it is logged once, and `/readyz` says so.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use gossip_cdn_protocol::wire::{Envelope, Introduction, Join, VERSION};
use gossip_cdn_protocol::{MemberState, NodeId};
use gossip_cdn_shell::events::{Feed, Listener};

use crate::clock::Clock;
use crate::disk::{Disk, Found};
use crate::events::Change;
use crate::registry::{Registry, Shown, Taken, Unsaved};

/// The state that all requests share.
#[derive(Debug)]
pub struct Network {
    cluster: String,
    id: NodeId,
    clock: Clock,
    registry: Mutex<Registry>,
    /// None once it is closed.
    disk: Mutex<Option<Disk>>,
    failed: AtomicBool,
    changes: Feed<Change>,
}

impl Network {
    /// Goes on with what was on disk.
    pub fn new(cluster: String, clock: Clock, disk: Disk, found: Found, seed: [u8; 32]) -> Self {
        let registry = Registry::new(clock.now(), found.members, found.founder, seed);
        let id = NodeId::from_public_key(&found.key);
        Self {
            cluster,
            id,
            clock,
            registry: Mutex::new(registry),
            disk: Mutex::new(Some(disk)),
            failed: AtomicBool::new(false),
            changes: Feed::default(),
        }
    }

    /// The name of the cluster.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Takes a member's word and says whom to tell it about. What is to be saved is not saved yet.
    pub fn join(&self, join: Join) -> (Taken, Envelope<Introduction>) {
        let now = self.clock.now();
        let (taken, body) = {
            let mut registry = self.registry();
            let taken = registry.join(now, join.clone());
            let founder = registry.names(&join, taken);
            (taken, Introduction { members: registry.introduce(now.instant, &join.member, taken), founder })
        };
        Change::of(&join, taken).into_iter().for_each(|change| self.changes.tell(change));
        // A bootstrap has no life that others could mistake: its incarnation stays 1.
        (taken, Envelope { version: VERSION, cluster: self.cluster.clone(), sender: self.id, incarnation: 1, body })
    }

    /// Lets time pass.
    pub fn expire(&self) {
        let died = self.registry().expire(self.clock.now().instant);
        died.into_iter().for_each(|id| self.changes.tell(Change::Member(id, MemberState::Dead)));
    }

    /// Whether all changes so far are durable.
    pub fn is_saved(&self) -> bool {
        self.registry().is_saved()
    }

    /// Writes what is unsaved and returns when it is durable. It blocks.
    pub fn save(&self) {
        // Who waits here finds its change saved by the commit before, most times.
        let disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(disk) = disk.as_ref() else { return };
        let unsaved = self.registry().take_unsaved();
        if unsaved.is_empty() {
            return;
        }
        match disk.write(&unsaved) {
            Ok(()) => {
                self.registry().on_saved(Unsaved::default());
                if self.failed.swap(false, Ordering::Relaxed) {
                    tracing::info!("the registry is written again");
                }
            }
            Err(fault) => {
                self.registry().on_saved(unsaved);
                if !self.failed.swap(true, Ordering::Relaxed) {
                    tracing::error!("the registry cannot be written, going on from memory: {fault}");
                }
            }
        }
    }

    /// Saves and closes the file, whoever still holds this network: the threads of a server end a little later than it says.
    pub fn close(&self) {
        self.save();
        drop(self.disk.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Whether the registry is being kept on disk.
    pub fn ready(&self) -> Result<(), String> {
        if self.failed.load(Ordering::Relaxed) { Err("the registry cannot be written to disk".to_owned()) } else { Ok(()) }
    }

    /// All members.
    pub fn shown(&self) -> Vec<Shown> {
        let now = self.clock.now().instant;
        self.registry().shown(now)
    }

    /// What changes from now on.
    pub fn changes(&self) -> Listener<Change> {
        self.changes.listen(Change::event)
    }

    /// How many members are in which state.
    pub fn counts(&self) -> [(MemberState, u64); 3] {
        let now = self.clock.now().instant;
        self.registry().counts(now)
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        // A panic in between would leave counters, not invariants, behind.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
