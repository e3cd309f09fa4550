//! What the bootstrap counts.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use gossip_cdn_shell::service;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::network::Network;
use crate::registry::Taken;

type Labels = [(&'static str, &'static str); 1];

/// The counters that requests raise.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    joins: Family<Labels, Counter>,
    refusals: Family<Labels, Counter>,
    members: Family<Labels, Gauge<u64, AtomicU64>>,
}

impl Metrics {
    /// A claim was taken.
    pub fn joined(&self, taken: Taken) {
        let outcome = match taken {
            Taken::New => "new",
            Taken::Changed => "changed",
            Taken::Renewed => "renewed",
            Taken::Stale => "stale",
            Taken::Unremembered => "unremembered",
        };
        self.joins.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// A claim was refused.
    pub fn refused(&self, kind: &'static str) {
        self.refusals.get_or_create(&[("kind", kind)]).inc();
    }

    /// What `/metrics` shows: the counters, and the members of `network` at that moment.
    pub fn exposition(&self, network: Arc<Network>) -> service::Metrics {
        let mut registry = Registry::with_prefix("gossip_cdn_bootstrap");
        registry.register("joins", "Claims of members taken, by outcome", self.joins.clone());
        registry.register("refusals", "Claims of members refused, by kind of problem", self.refusals.clone());
        registry.register("members", "Members known, by state", self.members.clone());
        let members = self.members.clone();
        service::Metrics::new(Arc::new(registry)).refreshed_by(move || {
            for (state, count) in network.counts() {
                members.get_or_create(&[("state", state.name())]).set(count);
            }
        })
    }
}
