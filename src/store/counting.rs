//! The summary of the records, counted at start, before anything is served.
//!
//! Nothing of it is kept on disk, so it is that of the records after any crash. It is a pass over the table of records, which costs half a microsecond
//! a record; the partitions are divided between the processors, and the sums of their shares are joined.
//!
//! 1. Every record is in exactly one share, so what is joined is what one pass over all would find.
//! 2. The threads made here end before the count is given: with those of [`super::rows`] and [`super::settling`] the only ones that [`crate::app`] does not make.

use std::num::NonZero;
use std::ops::RangeInclusive;
use std::panic::resume_unwind;
use std::thread;

use gossip_cdn_protocol::StoreFault;
use gossip_cdn_protocol::sketch::SketchHasher;
use gossip_cdn_protocol::store::Store;
use gossip_cdn_protocol::summary::Summary;

/// Most threads. A guess: beyond it they wait for the same disk.
pub(super) const MOST_THREADS: u8 = 8;

/// Counts all records of a store.
pub(super) fn count<S: Store + Sync>(store: &S, hasher: &SketchHasher) -> Result<Summary, StoreFault> {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = u8::try_from(processors).unwrap_or(u8::MAX).min(MOST_THREADS);
    thread::scope(|scope| {
        let counting: Vec<_> = shares(threads).map(|share| scope.spawn(|| count_share(store, hasher, share))).collect();
        counting.into_iter().try_fold(Summary::new(hasher.clone()), |mut summary, share| {
            summary.join(&share.join().unwrap_or_else(|panic| resume_unwind(panic))?);
            Ok(summary)
        })
    })
}

fn count_share<S: Store>(store: &S, hasher: &SketchHasher, share: RangeInclusive<u8>) -> Result<Summary, StoreFault> {
    let mut summary = Summary::new(hasher.clone());
    store.scan(share, &mut |item| summary.add(item))?;
    Ok(summary)
}

/// Divides the partitions evenly.
pub(super) fn shares(count: u8) -> impl Iterator<Item = RangeInclusive<u8>> {
    let (count, all) = (u16::from(count.max(1)), u16::from(u8::MAX) + 1);
    let start = move |share: u16| all * share / count;
    let place = |partition: u16| u8::try_from(partition).unwrap_or(u8::MAX);
    (0..count).map(move |share| place(start(share))..=place(start(share + 1) - 1))
}

#[cfg(test)]
mod tests {
    use gossip_cdn_protocol::Record;
    use gossip_cdn_protocol::item::ItemHasher;

    use super::super::fixture::{CLUSTER, Fixture, blob, content, write};
    use super::*;

    #[test]
    fn every_partition_is_in_one_share_however_many_there_are() {
        for count in 0..=MOST_THREADS {
            let partitions: Vec<u8> = shares(count).flatten().collect();
            assert_eq!(partitions, Vec::from_iter(0..=u8::MAX));
        }
    }

    #[tokio::test]
    async fn what_is_counted_at_start_is_what_the_records_add_up_to() {
        let fixture = Fixture::new();
        let hasher = ItemHasher::new(CLUSTER);
        let mut expected = Summary::new(hasher.sketch().clone());
        for n in 0..1000 {
            let record = write(&Record::default(), 1, 5 + n, content(&[1], None));
            expected.add(hasher.item(blob(n.into()), &record));
            fixture.persist(&[(blob(n.into()), &record)]).await;
        }
        let fixture = fixture.after_a_crash();
        assert_eq!(fixture.store.count(hasher.sketch()), Ok(expected.clone()));
        // As a store counts that does nothing to be fast.
        assert_eq!(count_share(&fixture.store, hasher.sketch(), 0..=u8::MAX), Ok(expected));
    }
}
