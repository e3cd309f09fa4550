//! The coordinator of ordered messages dies, again and again, while they come.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gossip_cdn_cluster::noise;

use crate::agreement::PATIENCE;
use crate::assembly::Assembly;
use crate::client::Client;
use crate::histories::{check, read, settle};
use crate::report::{Amount, Broken, Report, claim, quantile};
use crate::voices::{Manner, Tally, speak_all};
use crate::waiting::{pause, wait};

const NODES: usize = 3;
const CLIENTS: usize = 6;
/// A message that is not delivered so long after its coordinator died is blocked.
const BLOCKED: u64 = 60;

pub(crate) fn measure(rounds: u64) -> Result<Report, Broken> {
    let mut report = Report::default();
    let mut assembly = Assembly::of(NODES)?;
    let urls: Vec<String> = assembly.nodes.iter().map(|node| node.server.url.clone()).collect();
    let connect = |client: usize| Ok(Client::new(&urls[client % NODES])?);
    let tally = Tally::default();
    let manner = Manner { ordered: 1, answers: 5, waits: 3 };
    let (mut took, mut killed) = (Vec::new(), [0_u64; NODES]);
    let mut own = Vec::new();
    let mut posted = speak_all(CLIENTS, manner, connect, &tally, u64::MAX, || {
        for round in 0..rounds {
            let dice = noise(8, round + 1);
            let moment = |at: usize| Duration::from_millis(2 * u64::from(dice.get(at).copied().unwrap_or_default()));
            let victim = coordinator(&assembly, &urls)?;
            pause(moment(0))?;
            assembly.nodes[victim].server.kill();
            killed[victim] += 1;
            let begin = Instant::now();
            own.push(insist(&urls[(victim + 1) % NODES], round)?);
            took.push(begin.elapsed());
            pause(moment(1))?;
            assembly.nodes[victim].restart();
        }
        Ok(())
    })?;
    posted.extend(own);
    let stopped = Instant::now();
    let accepted = tally.accepted.load(Ordering::Relaxed) + rounds;
    let mut clients = assembly.clients()?;
    settle(&mut clients, accepted)?;
    let settled = Amount::Time(stopped.elapsed());
    let histories = clients.iter_mut().map(read).collect::<Result<Vec<_>, _>>()?;
    check(&histories, &posted)?;
    let what = format!("{NODES} nodes, {CLIENTS} clients, the coordinator of the moment killed with -9 and started again {rounds} times");
    let unanswered = tally.unanswered.load(Ordering::Relaxed);
    report.note(
        &what,
        &format!("{accepted} accepted, {unanswered} unanswered; nodes died {killed:?} times; settled {settled} after the last"),
    );
    let (median, worst) = (Amount::Time(quantile(&mut took, 500)), Amount::Time(quantile(&mut took, 1000)));
    report.note("from the kill to the delivery of a message given to another node then", &format!("median {median}, worst {worst}"));
    report.row("ordered messages accepted and lost", Amount::Count(0), Amount::Count(0));
    report.row("delivered twice, or with numbers that differ or leave a gap", Amount::Count(0), Amount::Count(0));
    report.row(&format!("blocked for {BLOCKED} s"), Amount::Count(0), Amount::Count(0));
    Ok(report)
}

/// The node that coordinates, as any of them tells.
fn coordinator(assembly: &Assembly, urls: &[String]) -> Result<usize, Broken> {
    let mut found = None;
    wait("somebody coordinates", PATIENCE, || {
        for url in urls {
            let status = Client::new(url)?.status()?;
            let told = status["epoch"]["coordinator"].as_str().unwrap_or_default();
            found = assembly.nodes.iter().position(|node| node.id() == told);
            if found.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    })?;
    found.ok_or_else(|| Broken::new("nobody coordinates"))
}

/// Gives an ordered message to that node and waits for its delivery.
fn insist(url: &str, round: u64) -> Result<crate::histories::Posted, Broken> {
    let body = format!("round {round}");
    let path = format!("/messages?channel=ordered&wait=delivered&timeout={BLOCKED}");
    let answer = Client::patient(url, Duration::from_secs(BLOCKED + 10))?.send("POST", &path, body.as_bytes())?;
    claim(answer.status == 201, || format!("round {round}: not delivered within {BLOCKED} s: {}", answer.status))?;
    let taken: serde_json::Value = serde_json::from_slice(&answer.body)?;
    Ok(crate::histories::Posted { body, id: taken["id"].as_str().map(ToOwned::to_owned), answers: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_doubled_or_blocked_when_coordinators_die() {
        measure(5).expect("the promises hold");
    }
}
