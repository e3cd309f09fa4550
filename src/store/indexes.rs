//! The indexes behind the lists of blobs: what one commit changes in them.
//!
//! Nobody reads an index within a commit, so its changes are collected and applied at the end in the order of the keys. A page of the
//! database is then visited once, however many rows of it change; in the order in which records come, whose keys are hashes, it would be
//! once for each row.
//!
//! 1. Every live blob is in all three indexes of live blobs and every deleted one in that of tombstones, under its winner.
//! 2. Every blob with several live versions is in the index of conflicts, under its winner, whether that says deleted or not.
//! 3. Of several changes of one row the last counts.

use gossip_cdn_protocol::{BlobId, Record};
use redb::{Error, ReadableTable, Table};

use super::tables::{self, StampBytes, Tables};
use super::{Usage, encoding};

/// A row, and whether it is there.
type Row<K> = (K, bool);

/// The changes of one commit.
#[derive(Default)]
pub(super) struct Indexes {
    newest: Vec<Row<StampBytes>>,
    tombstones: Vec<Row<StampBytes>>,
    conflicts: Vec<Row<StampBytes>>,
    names: Vec<Row<(String, [u8; 16])>>,
    ids: Vec<Row<[u8; 16]>>,
}

impl Indexes {
    /// The record of a blob is `new`, and was `old`.
    pub(super) fn update(&mut self, blob: BlobId, old: Option<&Record>, new: &Record, usage: &mut Usage) {
        for (record, there) in [(old, false), (Some(new), true)] {
            let Some((record, winner)) = record.and_then(|record| Some((record, record.winner()?))) else { continue };
            let stamp = tables::stamp_bytes(winner.stamp, blob);
            let tally = |count: &mut u64| *count = if there { *count + 1 } else { count.saturating_sub(1) };
            if is_conflict(record) {
                self.conflicts.push((stamp, there));
                tally(&mut usage.conflicts);
            }
            tally(match winner.content.payload() {
                Some(payload) => {
                    self.newest.push((stamp, there));
                    self.names.push(((payload.file_name.clone().unwrap_or_default(), *blob.0.as_bytes()), there));
                    self.ids.push((*blob.0.as_bytes(), there));
                    &mut usage.live_blobs
                }
                None => {
                    self.tombstones.push((stamp, there));
                    &mut usage.tombstones
                }
            });
        }
    }

    /// Writes all changes.
    pub(super) fn apply(&mut self, tables: &mut Tables<'_>) -> Result<(), Error> {
        apply_stamps(&mut self.newest, &mut tables.newest)?;
        apply_stamps(&mut self.tombstones, &mut tables.tombstones)?;
        apply_stamps(&mut self.conflicts, &mut tables.conflicts)?;
        for ((name, id), there) in last_words(&mut self.names) {
            let key = (name.as_str(), &id);
            if there { tables.names.insert(key, ()).map(drop)? } else { tables.names.remove(key).map(drop)? }
        }
        for (key, there) in last_words(&mut self.ids) {
            if there { tables.ids.insert(&key, ()).map(drop)? } else { tables.ids.remove(&key).map(drop)? }
        }
        Ok(())
    }
}

fn apply_stamps(rows: &mut Vec<Row<StampBytes>>, table: &mut Table<'_, &'static StampBytes, ()>) -> Result<(), Error> {
    for (key, there) in last_words(rows) {
        if there { table.insert(&key, ()).map(drop)? } else { table.remove(&key).map(drop)? }
    }
    Ok(())
}

/// Whether versions of a blob do not know of each other.
fn is_conflict(record: &Record) -> bool {
    record.versions().len() > 1
}

/// Makes the index of conflicts of all records, for a folder of a time before there was one.
pub(super) fn find_conflicts(tables: &mut Tables<'_>, usage: &mut Usage) -> Result<(), Error> {
    usage.conflicts = 0;
    for row in tables.records.iter()? {
        let (key, row) = row?;
        let record = encoding::record_of(row.value())?;
        if let Some(winner) = record.winner().filter(|_| is_conflict(&record)) {
            tables.conflicts.insert(&tables::stamp_bytes(winner.stamp, tables::key_of(key.value()).blob), ())?;
            usage.conflicts += 1;
        }
    }
    Ok(())
}

/// Takes the rows, in order; of those with one key the last.
fn last_words<K: Ord>(rows: &mut Vec<Row<K>>) -> Vec<Row<K>> {
    let mut rows = std::mem::take(rows);
    rows.reverse();
    rows.sort_by(|(a, _), (b, _)| a.cmp(b));
    rows.dedup_by(|(later, _), (kept, _)| later == kept);
    rows
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn of_several_changes_of_a_row_the_last_counts(rows in prop::collection::vec((0..5u8, any::<bool>()), 0..20)) {
            let expected: std::collections::BTreeMap<u8, bool> = rows.iter().copied().collect();
            prop_assert_eq!(last_words(&mut rows.clone()), Vec::from_iter(expected));
        }
    }
}
