//! An empty node joins a full one; the full one dies and starts again.

use std::time::{Duration, Instant};

use gossip_cdn_cluster::Node;
use gossip_cdn_protocol::records::MAX_PENDING;

use crate::agreement::{number, root};
use crate::client::Client;
use crate::cost;
use crate::filling::Giver;
use crate::report::{Amount, Broken, Report, claim};
use crate::waiting::wait;

const PATIENCE: Duration = Duration::from_secs(900);

pub(crate) fn measure(records: u64) -> Result<Report, Broken> {
    let mut report = Report::default();
    let mut old = Node::alone();
    let mut client = Client::new(&old.server.url)?;
    let path = client.write(b"")?;
    Giver::stranger(&mut client)?.give(&mut client, 0..records)?;
    let root = root(&mut client)?;
    let goal = Duration::from_secs(60).mul_f64(records as f64 / 1e6);

    let newcomer = Node::alone();
    let begin = Instant::now();
    newcomer.introduce(&old);
    let mut client = Client::new(&newcomer.server.url)?;
    wait("the newcomer has all records", PATIENCE, || Ok(self::root(&mut client)? == root))?;
    report.row(&format!("a newcomer has {records} records"), Amount::Time(begin.elapsed()), Amount::Time(goal));
    cost::note(&mut report, "the newcomer", newcomer.server.pid())?;
    cost::note(&mut report, "its giver, which was given them before", old.server.pid())?;
    drop((client, newcomer));

    let mut newcomer = Node::alone();
    newcomer.introduce(&old);
    let mut client = Client::new(&newcomer.server.url)?;
    let begin = Instant::now();
    wait("half of the records are there", PATIENCE, || Ok(number(&mut client, "records")? >= records / 2))?;
    let before = begin.elapsed();
    newcomer.server.kill();
    newcomer.restart();
    let again = Instant::now();
    let mut client = Client::new(&newcomer.server.url)?;
    let kept = number(&mut client, "records")?;
    wait("the newcomer that was killed has all records", PATIENCE, || Ok(self::root(&mut client)? == root))?;
    let (before, after) = (Amount::Time(before), Amount::Time(again.elapsed()));
    report.note("the same, killed with -9 halfway", &format!("{before}; then {kept} records were on disk; {after} more"));
    // What it counts and has not on disk is what waits for the disk.
    let expected = (records / 2).saturating_sub(MAX_PENDING as u64);
    claim(kept >= expected, || format!("only {kept} of about {} records were on disk after kill -9", records / 2))?;

    old.server.kill();
    let begin = Instant::now();
    old.restart();
    let found = Client::new(&old.server.url)?.read(&path)?;
    let what = format!("start with {records} records of empty blobs after kill -9, to the answer of a GET");
    report.row(&what, Amount::Time(begin.elapsed()), Amount::seconds(2));
    claim(found == Some(vec![]), || format!("{path} does not read back after kill -9"))?;
    let there = number(&mut Client::new(&old.server.url)?, "records")?;
    claim(there == records + 1, || format!("{there} records are there after kill -9, {} were", records + 1))?;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newcomer_that_is_killed_halfway_goes_on_from_what_it_has() {
        measure(80_000).expect("all records are there in the end");
    }
}
