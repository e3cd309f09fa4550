//! The background verification, and what is told of it.

use crate::io::{Event, Outbox, Output};
use crate::node::Node;
use crate::store::{Store, StoreFault};
use crate::time::Now;
use crate::verification::Finding;

impl<S: Store> Node<S> {
    pub(super) fn verify(&mut self, now: Now, out: &mut Outbox) -> Result<(), StoreFault> {
        match self.verification.on_deadline(now.instant, &mut self.records)? {
            None => {}
            Some(Finding::Agrees(_)) => self.counters.partitions_verified += 1,
            Some(Finding::Disagrees(partition)) => {
                self.counters.partitions_verified += 1;
                self.counters.summary_disagreements += 1;
                out.push(Output::Event(Event::SummaryDisagrees(partition)));
            }
            Some(Finding::Repaired(before, after)) => {
                self.counters.summary_repairs += 1;
                out.push(Output::Event(Event::SummaryRepaired(before, after)));
            }
        }
        Ok(())
    }
}
