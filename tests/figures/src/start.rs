//! A start after kill -9.

use std::time::Instant;

use gossip_cdn_cluster::Node;

use crate::client::Client;
use crate::filling::{bytes, upload};
use crate::report::{Amount, Broken, Report, claim};

pub(crate) fn measure(records: u64) -> Result<Report, Broken> {
    let mut report = Report::default();
    let mut node = Node::alone();
    let begin = Instant::now();
    let written = upload(|| Ok(Client::new(&node.server.url)?), 0..records, 1024)?;
    let rate = records as f64 / begin.elapsed().as_secs_f64();
    report.note(&format!("{records} blobs of 1 KiB uploaded, 240 clients"), &format!("{rate:.0} a second"));
    node.server.kill();
    let begin = Instant::now();
    node.restart();
    let (number, path) = written.last().ok_or_else(|| Broken::new("there is nothing to read"))?;
    let found = Client::new(&node.server.url)?.read(path)?;
    let serving = begin.elapsed();
    claim(found.as_ref() == Some(&bytes(*number, 1024)), || format!("{path} does not read back after kill -9"))?;
    let count = Client::new(&node.server.url)?.status()?["blobs"].as_u64();
    claim(count == Some(records), || format!("{records} blobs were acknowledged, {count:?} are there after kill -9"))?;
    let what = format!("start with {records} blobs of 1 KiB after kill -9, to the answer of a GET");
    report.row(&what, Amount::Time(serving), Amount::seconds(2));
    let file = std::fs::metadata(node.data.join("store.redb"))?.len();
    report.note("the database file then", &format!("{} MiB, {} B a blob", file >> 20, file / records.max(1)));
    Ok(report)
}
