//! A node that is put back from an old copy of its folder.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use gossip_cdn_cluster::Network;
use gossip_cdn_cluster::interruption::go_on;

use crate::agreement::{Expected, PATIENCE, acquainted, check, settled};
use crate::client::Client;
use crate::filling::{bytes, upload};
use crate::report::{Amount, Broken, Report, claim};
use crate::waiting::wait;

const SIZE: usize = 1024;
/// How many blobs are written before the copy is made, and how many after it.
const BLOBS: u64 = 100;
/// How long it may take until a node notices that it has forgotten writes of its own.
const NOTICE: Duration = Duration::from_secs(30);
/// A number for the bytes that replace others.
const LATER: u64 = 1 << 40;

pub(crate) fn measure() -> Result<Report, Broken> {
    let mut report = Report::default();
    put_back(true, &mut report)?;
    put_back(false, &mut report)?;
    Ok(report)
}

fn put_back(told: bool, report: &mut Report) -> Result<(), Broken> {
    let mut network = Network::of(3);
    let urls: Vec<String> = network.nodes.iter().map(|node| node.server.url.clone()).collect();
    let connect = || urls.iter().map(|url| Client::new(url)).collect::<Result<Vec<_>, _>>();
    let (copies, data) = (tempfile::TempDir::new()?, network.nodes[0].data.clone());
    let old = upload(|| Ok(Client::new(&urls[0])?), 0..4 * BLOBS, SIZE)?;
    let mut clients = connect()?;
    wait("all have the first blobs", PATIENCE, || settled(&mut clients))?;
    network.nodes[0].server.kill();
    copy(&data, copies.path())?;
    network.nodes[0].restart();

    let mut clients = connect()?;
    acquainted(&mut clients, 3)?;
    let mut expected: Expected = old.iter().map(|(number, path)| (path.clone(), Some(bytes(*number, SIZE)))).collect();
    for (node, old) in old.chunks(usize::try_from(2 * BLOBS)?).enumerate() {
        expected.extend(change(&mut clients[node], old)?);
        let first = 1000 * (node as u64 + 1);
        let new = upload(|| Ok(Client::new(&urls[node])?), first..first + BLOBS, SIZE)?;
        expected.extend(new.into_iter().map(|(number, path)| (path, Some(bytes(number, SIZE)))));
    }
    wait("all have the changes", PATIENCE, || settled(&mut clients))?;

    let id = network.nodes[0].id().to_owned();
    network.nodes[0].server.kill();
    std::fs::remove_dir_all(&data)?;
    copy(&copies.path().join("data"), data.parent().unwrap_or(&data))?;
    let mut flags = vec!["--bootstrap", &network.bootstrap.url];
    flags.extend(told.then_some("--restored"));
    network.nodes[0].restart_with(&flags);
    let start = Instant::now();
    // At once, before it can have heard of anything. What is refused while it takes a new key was not acknowledged.
    for number in 9000..9000 + BLOBS {
        go_on()?;
        if let Ok(path) = Client::new(&urls[0]).and_then(|mut client| client.write(&bytes(number, SIZE))) {
            expected.insert(path, Some(bytes(number, SIZE)));
        }
    }
    let how = if told { "with --restored" } else { "without --restored" };
    if !told {
        let notices = wait("it takes a new key", NOTICE, || {
            // While it does so it may not answer.
            let status = Client::new(&urls[0]).and_then(|mut client| client.status());
            Ok(status.is_ok_and(|status| status["id"].as_str() != Some(&id)))
        });
        go_on()?;
        let figure = notices.map_or_else(|broken| broken.to_string(), |_| Amount::Time(start.elapsed()).to_string());
        report.note("put back without --restored, it takes a new key by itself", &figure);
    }
    let mut clients = connect()?;
    wait("all agree", PATIENCE, || settled(&mut clients))?;
    report.note(&format!("put back {how}: all agree"), &Amount::Time(start.elapsed()).to_string());
    check(&mut clients, &expected)?;
    let what = format!("put back {how}: deleted or replaced blobs that are back, acknowledged ones that are lost, of {}", expected.len());
    report.row(&what, Amount::Count(0), Amount::Count(0));
    Ok(())
}

/// Deletes some blobs and replaces others; what must come of it.
fn change(client: &mut Client, old: &[(u64, String)]) -> Result<Expected, Broken> {
    let (doomed, rest) = old.split_at(old.len() / 3);
    let mut expected = Expected::new();
    for (_, path) in doomed {
        claim(client.send("DELETE", path, &[])?.status == 204, || format!("{path} cannot be deleted"))?;
        expected.insert(path.clone(), None);
    }
    for (number, path) in &rest[..rest.len() / 2] {
        let bytes = bytes(number + LATER, SIZE);
        claim(client.send("PUT", path, &bytes)?.status == 200, || format!("{path} cannot be replaced"))?;
        expected.insert(path.clone(), Some(bytes));
    }
    Ok(expected)
}

/// Copies a folder into another.
fn copy(folder: &Path, into: &Path) -> Result<(), Broken> {
    let status = Command::new("cp").arg("-a").arg(folder).arg(into).status()?;
    claim(status.success(), || format!("cp ended with {status}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_put_back_from_an_old_copy_brings_nothing_back_and_loses_nothing() {
        put_back(true, &mut Report::default()).expect("all agree in the end");
    }
}
