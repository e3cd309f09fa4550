//! Half of a journal on its way into the database, on a thread beside the writer's.
//!
//! 1. Whatever was journaled before is in the database durably when this is over, and readers found it all the while.
//! 2. The writer begins one at a time, and itself leaves the database alone meanwhile.
//! 3. The thread ends with the commit, and the writer with neither before it.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{Builder, Scope};

use redb::{Error, WriteTransaction};

use super::commit::Batch;
use super::fresh::Rows;
use super::tables::Tables;
use super::{Shared, history, unless_damaged};

/// A commit under way.
pub(super) struct Settling {
    /// The sequence behind the last record of the journal that it takes.
    until: u64,
    over: Arc<AtomicBool>,
    result: Receiver<Result<(), Error>>,
}

impl Settling {
    /// Begins to put rows into the tables that are all that the tables lack of the journal before `until`, and that are about to leave.
    pub(super) fn begin<'scope>(scope: &'scope Scope<'scope, '_>, shared: Arc<Shared>, rows: Arc<Rows>, until: u64) -> io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let (sender, result) = sync_channel(1);
        let settle = move || {
            let settled = unless_damaged(|| settle(&shared, &rows, until));
            // The writer waits for it, or has ended by a panic.
            sender.send(settled).ok();
            ended.store(true, Ordering::Release);
        };
        Builder::new().name("store-settler".into()).spawn_scoped(scope, settle)?;
        Ok(Self { until, over, result })
    }

    /// Whether waiting for it takes no time.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Waits for its end; the sequence behind what the database has then.
    pub(super) fn wait(self) -> Result<u64, Error> {
        self.result.recv().unwrap_or_else(|_| Err(Error::Io(io::Error::other("the thread is gone"))))?;
        Ok(self.until)
    }
}

fn settle(shared: &Shared, rows: &Rows, until: u64) -> Result<(), Error> {
    let mut transaction = shared.database.begin_write()?;
    transaction.set_quick_repair(true);
    write_fresh(shared, &transaction, rows)?;
    history::note_journaled(&transaction, until)?;
    transaction.commit()?;
    shared.commits.fetch_add(1, Ordering::Relaxed);
    shared.fresh.left();
    Ok(())
}

/// Puts what is fresh into the tables.
pub(super) fn write_fresh(shared: &Shared, transaction: &WriteTransaction, rows: &Rows) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let tables = Tables::open(transaction)?;
    let usage = tables.usage()?;
    let mut changes = Batch::new(tables, &shared.pins, usage, BTreeSet::new());
    changes.fresh(rows)?;
    changes.finish().map(drop)
}
