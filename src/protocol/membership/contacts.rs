//! Addresses that are not members: bootstrap nodes, and those that somebody gave by hand.

use std::time::Duration;

use rand::rngs::ChaCha8Rng;

use super::Addresses;
use super::retry::{FIRST_PAUSE, LONGEST_PAUSE, Retry};
use crate::time::Instant;

/// How often a node renews its registration with a bootstrap node that answers.
pub const RENEWAL: Duration = Duration::from_secs(5);
/// Most addresses introduced by hand that have not answered yet; the oldest gives way.
pub const MAX_CONTACTS: usize = 64;

#[derive(Debug, Clone)]
struct Contact {
    address: String,
    retry: Retry,
    calling: bool,
}

/// The addresses, and when each is called next.
#[derive(Debug)]
pub(super) struct Contacts {
    bootstraps: Vec<Contact>,
    introduced: Vec<Contact>,
}

impl Contacts {
    pub(super) fn new(addresses: Addresses, now: Instant) -> Self {
        let contact = |address: String| Contact { address, retry: Retry::starting(now), calling: false };
        let contacts = |addresses: Vec<String>| addresses.into_iter().map(contact).collect();
        Self { bootstraps: contacts(addresses.bootstraps), introduced: contacts(addresses.introduced) }
    }

    pub(super) fn bootstraps(&self) -> Vec<String> {
        self.bootstraps.iter().map(|contact| contact.address.clone()).collect()
    }

    pub(super) fn introduced(&self) -> Vec<String> {
        self.introduced.iter().map(|contact| contact.address.clone()).collect()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let idle = self.bootstraps.iter().chain(&self.introduced).filter(|contact| !contact.calling);
        idle.map(|contact| contact.retry.at).min()
    }

    pub(super) fn due_bootstraps(&mut self, now: Instant) -> Vec<String> {
        due(&mut self.bootstraps, now)
    }

    pub(super) fn due_introduced(&mut self, now: Instant) -> Vec<String> {
        due(&mut self.introduced, now)
    }

    pub(super) fn on_join_ended(&mut self, address: &str, answered: bool, now: Instant, rng: &mut ChaCha8Rng) {
        for contact in self.bootstraps.iter_mut().filter(|contact| contact.address == address) {
            contact.calling = false;
            if answered {
                contact.retry = Retry { at: now + RENEWAL, pause: FIRST_PAUSE };
            } else {
                contact.retry.back_off(now, rng);
            }
        }
    }

    pub(super) fn introduce(&mut self, address: String, now: Instant) -> bool {
        if self.introduced.iter().any(|contact| contact.address == address) {
            return false;
        }
        if self.introduced.len() >= MAX_CONTACTS {
            self.introduced.remove(0);
        }
        let retry = Retry { at: now + LONGEST_PAUSE, pause: LONGEST_PAUSE };
        self.introduced.push(Contact { address, retry, calling: false });
        true
    }

    pub(super) fn on_introduction_ended(&mut self, address: &str, settled: bool, now: Instant, rng: &mut ChaCha8Rng) -> bool {
        let before = self.introduced.len();
        if settled {
            self.introduced.retain(|contact| contact.address != address);
        }
        for contact in self.introduced.iter_mut().filter(|contact| contact.address == address) {
            contact.calling = false;
            contact.retry.back_off(now, rng);
        }
        self.introduced.len() != before
    }

    pub(super) fn check(&self) {
        assert!(self.introduced.len() <= MAX_CONTACTS, "the list is bounded");
    }
}

fn due(contacts: &mut [Contact], now: Instant) -> Vec<String> {
    let mut addresses = Vec::new();
    for contact in contacts.iter_mut().filter(|contact| !contact.calling && contact.retry.at <= now) {
        contact.calling = true;
        addresses.push(contact.address.clone());
    }
    addresses
}
