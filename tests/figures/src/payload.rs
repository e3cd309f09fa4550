//! A large payload on its way to two newcomers while one of its holders dies, and one of the newcomers, which comes back.

use std::io::{Read, Seek, SeekFrom, Write};

use gossip_cdn_cluster::interruption::go_on;
use gossip_cdn_cluster::{Node, noise};
use tempfile::TempDir;

use crate::agreement::{PATIENCE, acquainted, introduce, number, settled};
use crate::client::Client;
use crate::namespaces::{Place, Places};
use crate::report::{Amount, Broken, Report, claim};
use crate::waiting::wait;

const HOLDERS: usize = 3;
const NEWCOMERS: u8 = 2;

pub(crate) fn measure(mebibytes: u64) -> Result<Report, Broken> {
    let mut report = Report::default();
    let size = mebibytes << 20;
    let folder = TempDir::new()?;
    let mut file = tempfile::tempfile()?;
    for piece in 0..mebibytes {
        file.write_all(&noise(1 << 20, 2 * piece + 1))?;
    }
    let places = Places::of(&[u8::try_from(HOLDERS)? + NEWCOMERS])?;
    let data = |number: usize| folder.path().join(number.to_string());
    let start = |number: usize| places.all()[number].node(&data(number), &[]);
    let mut holders = (0..HOLDERS).map(start).collect::<Result<Vec<Node>, _>>()?;
    let mut clients = places.all()[..HOLDERS].iter().map(Place::client).collect::<Result<Vec<_>, _>>()?;
    for place in &places.all()[1..HOLDERS] {
        introduce(&mut clients[0], &place.address())?;
    }
    acquainted(&mut clients, HOLDERS as u64)?;
    let path = clients[0].write_from(&mut file, size)?;
    wait("all holders hold it", PATIENCE, || Ok(settled(&mut clients)? && number(&mut clients[0], "payloads")? == 1))?;

    let mut newcomers = (HOLDERS..places.all().len()).map(start).collect::<Result<Vec<Node>, _>>()?;
    let mut arriving = places.all()[HOLDERS..].iter().map(Place::client).collect::<Result<Vec<_>, _>>()?;
    let before = places.all()[..HOLDERS].iter().map(Place::traffic).collect::<Result<Vec<_>, _>>()?;
    for client in &mut arriving {
        introduce(client, &places.all()[0].address())?;
    }
    let received = |place: &Place| -> Result<u64, Broken> { Ok(place.traffic()?.received.http()) };
    let half = wait("half of it is there", PATIENCE, || {
        let most = places.all()[HOLDERS..].iter().map(received).try_fold(0, |most: u64, bytes| Ok::<u64, Broken>(most.max(bytes?)))?;
        Ok(most >= size / 2)
    })?;
    let sent = places.all()[..HOLDERS].iter().zip(&before).map(|(place, before)| Ok(place.traffic()?.sent.since(before.sent).bytes));
    let sent = sent.collect::<Result<Vec<u64>, Broken>>()?;
    // Whoever gives most, so that its death matters.
    let busiest = (0..HOLDERS).max_by_key(|number| sent[*number]).unwrap_or_default();
    holders[busiest].server.kill();
    // What the network counted of both its lives is one sum.
    newcomers[1].server.kill();
    newcomers[1] = start(HOLDERS + 1)?;
    arriving[1] = places.all()[HOLDERS + 1].client()?;
    let rest = wait("both newcomers have it", PATIENCE, || {
        arriving.iter_mut().try_fold(true, |all, client| Ok(all && number(client, "payloads")? == 1))
    })?;
    let shares = sent.iter().map(|bytes| percent(*bytes, size)).collect::<Vec<_>>().join(", ");
    report.note("sent by the three holders until one was killed, of the payload", &shares);
    report.note(&format!("{mebibytes} MiB at both newcomers"), &Amount::Time(half + rest).to_string());
    for (number, place) in places.all()[HOLDERS..].iter().enumerate() {
        let factor = received(place)? as f64 / size as f64;
        let what = format!("received by newcomer {}, all HTTP, per byte of the payload", number + 1);
        report.row(&what, Amount::Factor(factor), Amount::Factor(1.05));
    }
    let resumed = arriving[1].status()?["transfers"]["payload_bytes_resumed"].as_u64().unwrap_or_default();
    report.note("newcomer 2 was killed and started again: found on its disk, of the payload", &percent(resumed, size));
    for client in &mut arriving {
        file.seek(SeekFrom::Start(0))?;
        check(client, &path, &mut file, size)?;
    }
    report.row("wrong bytes", Amount::Count(0), Amount::Count(0));
    Ok(report)
}

fn percent(bytes: u64, of: u64) -> String {
    format!("{:.0} %", 100.0 * bytes as f64 / of as f64)
}

/// An error unless the node answers with the bytes of the file.
fn check(client: &mut Client, path: &str, file: &mut impl Read, size: u64) -> Result<(), Broken> {
    let mut wanted = vec![0; 1 << 20];
    let same = client.compare(path, size, |found| {
        go_on().map_err(|broken| std::io::Error::other(broken.to_string()))?;
        let wanted = &mut wanted[..found.len()];
        file.read_exact(wanted)?;
        Ok(wanted == found)
    })?;
    claim(same, || format!("{path} has other bytes at a newcomer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_reaches_two_newcomers_though_the_busiest_holder_dies_and_one_of_them_too() {
        measure(64).expect("both have it");
    }
}
