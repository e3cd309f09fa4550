//! How soon after the answer a blob is readable at every node.

use std::time::{Duration, Instant};

use gossip_cdn_cluster::Network;
use gossip_cdn_cluster::interruption::go_on;

use crate::client::Client;
use crate::filling::bytes;
use crate::report::{Amount, Broken, Report, claim, quantile};

/// Between two looks at a node that does not have it yet; so much may be added to a figure, and a GET.
const LOOK: Duration = Duration::from_micros(200);
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn measure(writes: u64) -> Result<Report, Broken> {
    let network = Network::of(3);
    let mut clients = network.nodes.iter().map(|node| Client::new(&node.server.url)).collect::<Result<Vec<_>, _>>()?;
    let (mut written, mut spread, mut read) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..writes {
        go_on()?;
        let body = bytes(number, 1024);
        let begin = Instant::now();
        let path = clients[0].write(&body)?;
        let answered = Instant::now();
        written.push(answered - begin);
        for client in &mut clients {
            loop {
                let look = Instant::now();
                if let Some(found) = client.read(&path)? {
                    claim(found == body, || format!("the bytes of {path} differ"))?;
                    read.push(look.elapsed());
                    break;
                }
                claim(answered.elapsed() < PATIENCE, || format!("{path} is not readable everywhere within {PATIENCE:?}"))?;
                std::thread::sleep(LOOK);
            }
        }
        spread.push(answered.elapsed());
        // Who wrote goes to the end, so that all take turns.
        clients.rotate_left(1);
    }
    let mut report = Report::default();
    let what = format!("3 nodes, {writes} writes of 1 KiB: 201 at one, readable at all");
    report.row(&format!("{what}, p50"), Amount::Time(quantile(&mut spread, 500)), Amount::millis(20));
    report.row(&format!("{what}, p99"), Amount::Time(quantile(&mut spread, 990)), Amount::millis(100));
    report.note(&format!("{what}, all"), &Amount::Time(quantile(&mut spread, 1000)).to_string());
    let last = Amount::Time(quantile(&mut read, 500));
    report.note("of that the GET that succeeds, p50", &format!("{last}, looks {LOOK:?} apart"));
    let (p50, p99) = (Amount::Time(quantile(&mut written, 500)), Amount::Time(quantile(&mut written, 990)));
    report.note("the write itself", &format!("p50 {p50}, p99 {p99}"));
    Ok(report)
}
