//! Many nodes, of which a third dies and comes back while writes go on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gossip_cdn_cluster::Network;

use crate::agreement::{PATIENCE, check, number, same_records};
use crate::client::Client;
use crate::filling::bytes;
use crate::report::{Amount, Broken, Report};
use crate::waiting::{pause, wait};

const WRITERS: usize = 4;
const SIZE: usize = 1024;

/// What was acknowledged while nodes died, and how often there was no answer.
struct Written {
    paths: BTreeMap<u64, String>,
    unanswered: u64,
    killed: usize,
}

pub(crate) fn measure(count: usize, seconds: u64) -> Result<Report, Broken> {
    let mut report = Report::default();
    let begin = Instant::now();
    let mut network = Network::of(count);
    report.note(&format!("{count} nodes are started one by one and know each other"), &Amount::Time(begin.elapsed()).to_string());
    let urls: Vec<String> = network.nodes.iter().map(|node| node.server.url.clone()).collect();
    let written = write(&mut network, &urls, Duration::from_secs(seconds))?;
    let stopped = Instant::now();
    let what = format!("1 KiB written at all {count} nodes for {seconds} s, {} of them killed with -9 and started again", written.killed);
    report.note(&what, &format!("{} acknowledged, {} unanswered", written.paths.len(), written.unanswered));

    let mut clients = urls.iter().map(|url| Client::new(url)).collect::<Result<Vec<_>, _>>()?;
    wait("all have the same records", PATIENCE, || same_records(&mut clients))?;
    report.note("all have the same records, from the last write", &Amount::Time(stopped.elapsed()).to_string());
    let least = written.paths.len() as u64;
    wait("all have all bytes", PATIENCE, || {
        clients.iter_mut().try_fold(true, |all, client| Ok(all && number(client, "payloads")? >= least && number(client, "wanted")? == 0))
    })?;
    report.note("and all bytes", &Amount::Time(stopped.elapsed()).to_string());
    let expected = written.paths.into_iter().map(|(number, path)| (path, Some(bytes(number, SIZE)))).collect();
    check(&mut clients, &expected)?;
    report.row("acknowledged blobs that are not at every node with the same bytes", Amount::Count(0), Amount::Count(0));
    Ok(report)
}

/// Writes at all nodes in turn, while a third of them dies and comes back.
fn write(network: &mut Network, urls: &[String], duration: Duration) -> Result<Written, Broken> {
    let (acknowledged, unanswered, over) = (Mutex::new(BTreeMap::new()), AtomicU64::new(0), AtomicBool::new(false));
    let next = AtomicU64::new(0);
    let write = || {
        while !over.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let url = &urls[usize::try_from(number).unwrap_or_default() % urls.len()];
            match Client::new(url).and_then(|mut client| client.write(&bytes(number, SIZE))) {
                Ok(path) => drop(acknowledged.lock().unwrap_or_else(PoisonError::into_inner).insert(number, path)),
                // Its node is dead, or died on the way.
                Err(_) => drop(unanswered.fetch_add(1, Ordering::Relaxed)),
            }
        }
    };
    let killed = std::thread::scope(|scope| {
        (0..WRITERS).for_each(|_| drop(scope.spawn(write)));
        let killed = kill(network, duration);
        over.store(true, Ordering::Relaxed);
        killed
    })?;
    let paths = acknowledged.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Written { paths, unanswered: unanswered.into_inner(), killed })
}

/// Kills a third one after the other, starts them again, and lets all write on until the time is over.
fn kill(network: &mut Network, duration: Duration) -> Result<usize, Broken> {
    let begin = Instant::now();
    let third = network.nodes.len() / 3;
    let step = duration / u32::try_from(4 * third.max(1))?;
    pause(duration / 4)?;
    for node in network.nodes.iter_mut().take(third) {
        node.server.kill();
        pause(step)?;
    }
    for node in network.nodes.iter_mut().take(third) {
        node.restart();
        pause(step)?;
    }
    pause(duration.saturating_sub(begin.elapsed()))?;
    Ok(third)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_five_nodes_of_which_a_third_dies_and_comes_back_lose_nothing() {
        measure(25, 6).expect("all converge");
    }
}
