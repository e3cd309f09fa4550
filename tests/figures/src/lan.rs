//! Nodes that know nobody and have no bootstrap node, on one segment.

use std::time::{Duration, Instant};

use gossip_cdn_cluster::Node;
use gossip_cdn_cluster::interruption::go_on;
use serde_json::Value;
use tempfile::TempDir;

use crate::agreement::number;
use crate::client::Client;
use crate::namespaces::{Place, Places};
use crate::report::{Amount, Broken, Report, claim, quantile};

const NODES: u8 = 3;
/// Between two looks; so much may be added to a figure.
const LOOK: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn measure(times: u64) -> Result<Report, Broken> {
    let (mut meetings, mut suspicions) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let places = Places::of(&[NODES])?;
        let folder = TempDir::new()?;
        let mut nodes: Vec<Node> = Vec::new();
        for (number, place) in places.all().iter().enumerate() {
            nodes.push(place.node(&folder.path().join(number.to_string()), &["--cluster", "lan", "--lan"])?);
        }
        // From when the last one serves.
        let start = Instant::now();
        let mut clients = places.all().iter().map(Place::client).collect::<Result<Vec<_>, _>>()?;
        meetings.push(until(start, "all know each other", || {
            clients.iter_mut().try_fold(true, |all, client| Ok(all && number(client, "live_members")? == u64::from(NODES)))
        })?);
        let stopped = nodes[0].id().to_owned();
        nodes[0].server.signal("STOP");
        let start = Instant::now();
        suspicions.push(until(start, "both others suspect the one that stands still", || {
            clients[1..].iter_mut().try_fold(true, |all, client| Ok(all && state(client, &stopped)? != "alive"))
        })?);
    }
    let mut report = Report::default();
    let what = format!("three nodes without a bootstrap on one segment know each other, {times} times");
    report.row(&format!("{what}, median"), Amount::Time(quantile(&mut meetings, 500)), Amount::seconds(1));
    report.row(&format!("{what}, worst"), Amount::Time(quantile(&mut meetings, 1000)), Amount::seconds(1));
    let what = format!("one stopped with SIGSTOP is suspected by both others, {times} times");
    report.row(&format!("{what}, median"), Amount::Time(quantile(&mut suspicions, 500)), Amount::millis(500));
    report.row(&format!("{what}, worst"), Amount::Time(quantile(&mut suspicions, 1000)), Amount::millis(500));
    Ok(report)
}

fn until(start: Instant, what: &str, mut holds: impl FnMut() -> Result<bool, Broken>) -> Result<Duration, Broken> {
    while !holds()? {
        go_on()?;
        claim(start.elapsed() < PATIENCE, || format!("not within {PATIENCE:?}: {what}"))?;
        std::thread::sleep(LOOK);
    }
    Ok(start.elapsed())
}

/// How a node sees another.
fn state(client: &mut Client, id: &str) -> Result<String, Broken> {
    let members: Value = serde_json::from_slice(&client.send("GET", "/members", &[])?.body)?;
    let member = members["members"].as_array().and_then(|members| members.iter().find(|member| member["id"] == *id));
    let member = member.ok_or_else(|| Broken::new(format!("{id} is not a member")))?;
    Ok(member["state"].as_str().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_in_networks_of_their_own_find_each_other_by_their_heartbeats() {
        measure(1).expect("they find and suspect each other");
    }
}
