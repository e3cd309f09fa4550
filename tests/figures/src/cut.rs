//! Two halves of a network that cannot reach each other, writes and deletes on both sides, and their reunion.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gossip_cdn_cluster::Node;
use gossip_cdn_cluster::interruption::go_on;
use tempfile::TempDir;

use crate::agreement::{Expected, PATIENCE, acquainted, check, introduce, root, same_records, settled};
use crate::client::Client;
use crate::filling::{bytes, upload};
use crate::namespaces::Places;
use crate::report::{Amount, Broken, Report, claim};
use crate::waiting::{pause, wait};

const SIZE: usize = 1024;
/// One in so many changes of a side is the delete of a blob that both sides had.
const DELETES: u64 = 10;
/// Blobs that both sides write over while they are apart.
const DISPUTED: u64 = 100;
/// A number for the bytes that a side writes over a disputed blob.
const DISPUTE: u64 = 1 << 40;

pub(crate) fn measure(writes: u64, seconds: u64) -> Result<Report, Broken> {
    let mut report = Report::default();
    let places = Places::of(&[2, 2])?;
    let folder = TempDir::new()?;
    let data = |number: usize| folder.path().join(number.to_string());
    let nodes = places.all().iter().enumerate().map(|(number, place)| place.node(&data(number), &[]));
    let _nodes: Vec<Node> = nodes.collect::<Result<_, _>>()?;
    let mut clients = places.all().iter().map(|place| place.client()).collect::<Result<Vec<_>, _>>()?;
    for place in &places.all()[1..] {
        introduce(&mut clients[0], &place.address())?;
    }
    acquainted(&mut clients, 4)?;
    let (deletes, shared) = (writes / DELETES, 2 * (writes / DELETES) + DISPUTED);
    let common = upload(|| places.all()[0].client(), 0..shared, SIZE)?;
    wait("all have the common blobs", PATIENCE, || settled(&mut clients))?;
    let (disputed, doomed) = common.split_at(usize::try_from(DISPUTED)?);

    places.cable(false)?;
    let parted = Instant::now();
    let mut expected = Expected::new();
    for (side, doomed) in doomed.chunks(usize::try_from(deletes.max(1))?).take(2).enumerate() {
        let first = shared + side as u64 * writes;
        let written = upload(|| places.all()[2 * side].client(), first..first + writes - deletes, SIZE)?;
        expected.extend(written.into_iter().map(|(number, path)| (path, Some(bytes(number, SIZE)))));
        expected.extend(change(&mut clients[2 * side], side as u64, doomed, disputed)?);
    }
    acquainted(&mut clients, 2)?;
    pause(Duration::from_secs(seconds).saturating_sub(parted.elapsed()))?;
    let apart = Amount::Time(parted.elapsed());

    let before = clients.iter_mut().map(root).collect::<Result<Vec<_>, _>>()?;
    places.cable(true)?;
    let begin = wait("the halves exchange", PATIENCE, || {
        let roots = clients.iter_mut().map(root).collect::<Result<Vec<_>, _>>()?;
        Ok(roots != before)
    })?;
    let what = format!("2 + 2 nodes cut for {apart}, {writes} writes and deletes a side: exchange begins");
    report.row(&what, Amount::Time(begin), Amount::seconds(60));
    let merged = wait("all have the same records", PATIENCE, || same_records(&mut clients))?;
    report.row("records merged, from then", Amount::Time(merged), Amount::seconds(10));
    let fetched = wait("all have all bytes", PATIENCE, || settled(&mut clients))?;
    report.row("payloads everywhere, from then", Amount::Time(fetched), Amount::seconds(10));
    check(&mut clients, &expected)?;
    check_winners(&mut clients, disputed)?;
    report.row("acknowledged writes and deletes that some node does not show", Amount::Count(0), Amount::Count(0));
    report.row("of 100 blobs written on both sides, winners that differ", Amount::Count(0), Amount::Count(0));
    Ok(report)
}

/// What one side does while it is alone, beside new blobs; what must come of it.
fn change(client: &mut Client, side: u64, doomed: &[(u64, String)], disputed: &[(u64, String)]) -> Result<Expected, Broken> {
    let mut expected = Expected::new();
    for (_, path) in doomed {
        go_on()?;
        claim(client.send("DELETE", path, &[])?.status == 204, || format!("{path} cannot be deleted"))?;
        expected.insert(path.clone(), None);
    }
    for (number, path) in disputed {
        go_on()?;
        let status = client.send("PUT", path, &bytes(number + DISPUTE * (side + 1), SIZE))?.status;
        claim(status == 200, || format!("{path} cannot be replaced: {status}"))?;
    }
    Ok(expected)
}

/// Every node shows the same winner of what both halves wrote, and one that was written.
fn check_winners(clients: &mut [Client], disputed: &[(u64, String)]) -> Result<(), Broken> {
    let mut winners: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    for client in clients {
        for (number, path) in disputed {
            go_on()?;
            let found = client.read(path)?.ok_or_else(|| Broken::new(format!("{path} is gone")))?;
            let written = [1, 2].map(|side| bytes(number + DISPUTE * side, SIZE));
            claim(written.contains(&found), || format!("{path} has bytes that nobody wrote last"))?;
            let winner = winners.entry(path).or_insert_with(|| found.clone());
            claim(*winner == found, || format!("nodes disagree about {path}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_halves_that_were_cut_from_each_other_lose_nothing_and_agree_on_every_winner() {
        measure(200, 0).expect("the halves agree");
    }
}
