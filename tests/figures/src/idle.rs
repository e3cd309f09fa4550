//! What two nodes send each other when they have nothing to tell.

use std::time::Duration;

use crate::agreement::counter;
use crate::pair::Pair;
use crate::report::{Amount, Broken, Report};
use crate::waiting::pause;

pub(crate) fn measure(records: &[u64], seconds: u64) -> Result<Report, Broken> {
    let mut report = Report::default();
    for records in records {
        listen(&mut Pair::with(*records)?, *records, seconds, &mut report)?;
    }
    Ok(report)
}

/// Listens to a pair that has so many records; bytes of HTTP a second of both.
pub(crate) fn listen(pair: &mut Pair, records: u64, seconds: u64, report: &mut Report) -> Result<f64, Broken> {
    let before = (pair.traffic()?, exchanges(pair)?);
    pause(Duration::from_secs(seconds))?;
    let (traffic, count) = (pair.traffic()?.since(before.0), exchanges(pair)? - before.1);
    let each = |bytes: u64| bytes as f64 / count.max(1) as f64;
    let what = format!("an idle exchange at {records} records, both ways, HTTP heads included");
    report.row(&what, Amount::Bytes(each(traffic.http())), Amount::Bytes(512.0));
    report.note("of that on the wire with the heads of TCP, IP and Ethernet", &Amount::Bytes(each(traffic.bytes)).to_string());
    // What the two sent together is what each of them sent and received.
    let rate = traffic.http() as f64 / seconds.max(1) as f64;
    let what = format!("sent and received by an idle node, {count} exchanges of both in {seconds} s");
    report.row(&what, Amount::Rate(rate), Amount::Rate(1024.0));
    Ok(rate)
}

fn exchanges(pair: &mut Pair) -> Result<u64, Broken> {
    pair.clients.iter_mut().try_fold(0, |sum, client| Ok(sum + counter(client, "exchanges")?))
}
