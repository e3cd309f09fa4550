//! What a test may ask of a world: whether it is at rest, and what its hosts hold.

use std::collections::{BTreeMap, BTreeSet};

use gossip_cdn_protocol::wire::Entry;
use gossip_cdn_protocol::{BlobId, MemberState, Record};

use super::World;
use super::host::Host;

impl World {
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
}
