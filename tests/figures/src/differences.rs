//! What it takes to find where two nodes differ.

use std::time::Duration;

use crate::agreement::{counter, number};
use crate::filling::Giver;
use crate::idle::listen;
use crate::pair::Pair;
use crate::report::{Amount, Broken, Report, claim};
use crate::waiting::pause;

/// How long it is listened to what nothing costs, in seconds.
const IDLE: u64 = 30;
/// For the last answers.
const LAST: Duration = Duration::from_secs(2);
/// How often each number of differences is made.
const TIMES: usize = 5;

/// What one difference cost, or many at once.
struct Cost {
    /// Bytes of HTTP beyond those of idle exchanges and the JSON of the records.
    finding: f64,
    records: f64,
    calls: u64,
    took: Duration,
}

pub(crate) fn measure(records: u64, differences: &[u64]) -> Result<Report, Broken> {
    let mut report = Report::default();
    let mut pair = Pair::with(records)?;
    let idle = listen(&mut pair, records, IDLE, &mut report)?;
    let mut next = records;
    for count in differences {
        let mut costs = Vec::new();
        for _ in 0..TIMES {
            costs.push(cost(&mut pair, next, *count, idle)?);
            next += count;
        }
        costs.sort_by(|one, other| one.finding.total_cmp(&other.finding));
        let (median, worst) = (&costs[TIMES / 2], &costs[TIMES - 1]);
        let what = format!("finding {count} differences in {records} records, median of {TIMES}");
        let (bytes, each) = (Amount::Bytes(median.finding), Amount::Bytes(median.finding / (*count).max(1) as f64));
        match count {
            1 => report.row(&what, bytes, Amount::Bytes(2048.0)),
            100 => report.row(&what, bytes, Amount::Bytes(12_288.0)),
            600..=2800 => report.row(&format!("{what}, for each"), each, Amount::Bytes(64.0)),
            _ => report.note(&what, &bytes.to_string()),
        }
        let calls = format!("{} calls beyond the exchange, the records' own among them", median.calls);
        let took = format!("same records {:.2} s after the write; worst {:.0} B", median.took.as_secs_f64(), worst.finding);
        report.note("with", &format!("{calls}; {:.0} B of records; {took}", median.records));
    }
    Ok(report)
}

/// Gives one of them records that the other finds with its next exchange.
fn cost(pair: &mut Pair, first: u64, count: u64, idle: f64) -> Result<Cost, Broken> {
    // As if they came from the other: so they are not passed on there at once, but found.
    let giver = Giver::like(&mut pair.clients[0])?;
    let before = (pair.traffic()?, calls(pair)?, number(&mut pair.clients[1], "records")?);
    let records = giver.give(&mut pair.clients[1], first..first + count)? as f64;
    let took = pair.agree()?;
    pause(LAST)?;
    let found = number(&mut pair.clients[0], "records")?;
    claim(found == before.2 + count, || format!("{found} records instead of {}", before.2 + count))?;
    let http = pair.traffic()?.since(before.0).http() as f64;
    let finding = (http - records - idle * (took + LAST).as_secs_f64()).max(0.0);
    Ok(Cost { finding, records, calls: calls(pair)? - before.1, took })
}

fn calls(pair: &mut Pair) -> Result<u64, Broken> {
    pair.clients.iter_mut().try_fold(0, |sum, client| Ok(sum + counter(client, "reconciliation_calls")?))
}
