//! What a delete leaves on disk for ever.

use std::path::Path;

use gossip_cdn_cluster::Node;
use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableDefinition, TableStats};

use crate::client::Client;
use crate::filling::upload;
use crate::report::{Amount, Broken, Report, claim};

/// How many clients delete at once.
const CLIENTS: usize = 32;

pub(crate) fn measure(count: u64) -> Result<Report, Broken> {
    let mut report = Report::default();
    let mut node = Node::alone();
    let written = upload(|| Ok(Client::new(&node.server.url)?), 0..count, 0)?;
    let pages: Vec<&[(u64, String)]> = written.chunks(written.len() / CLIENTS + 1).collect();
    let delete = |page: &[(u64, String)]| -> Result<(), Broken> {
        let mut client = Client::new(&node.server.url)?;
        page.iter().try_for_each(|(_, path)| {
            let status = client.send("DELETE", path, &[])?.status;
            claim(status == 204, || format!("a delete was answered with {status}"))
        })
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = pages.iter().map(|page| scope.spawn(|| delete(page))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| Broken::new("a client panicked"))?)
    })?;
    claim(node.server.terminate().success(), || "the node did not end as it should".into())?;
    let (stored, pages) = tables(&node.data.join("store.redb"))?;
    let each = |bytes: u64| Amount::Bytes(bytes as f64 / count.max(1) as f64);
    report.row(&format!("a tombstone on disk, of {count}: its rows"), each(stored), Amount::Bytes(100.0));
    report.note("the pages that they are in", &each(pages).to_string());
    Ok(report)
}

/// What the rows of records and of the index of tombstones take, and the pages that they are in.
fn tables(path: &Path) -> Result<(u64, u64), Broken> {
    let database = Database::open(path)?;
    let transaction = database.begin_read()?;
    let records = transaction.open_table(TableDefinition::<&[u8; 24], &[u8]>::new("records_v2"))?.stats()?;
    let index = transaction.open_table(TableDefinition::<&[u8; 24], ()>::new("tombstones_by_stamp_v1"))?.stats()?;
    let pages = |stats: &TableStats| stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes();
    Ok((records.stored_bytes() + index.stored_bytes(), pages(&records) + pages(&index)))
}
