//! Ordered messages a second, and how soon one is decided, beside etcd on the same machine in the same run.
//!
//! 1. Both have three processes on loopback, in folders of the same file system, and every answer follows an fsync at a majority.
//! 2. Both are asked by as many clients, each of which waits for its answer before it asks again, spread over all three processes.
//! 3. What asks is as cheap for the one as for the other: one thread, and what comes at once is read at once.
//! 4. They take turns, and what is compared are medians.
//! 5. What one client waits for is compared with what it is made of, each measured as the nodes do it: a synchronous append to a journal, and a call between
//!    nodes that does nothing. What threads wait for each other is not allowed for; how much that is [`bare`] tells.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gossip_cdn_cluster::interruption::go_on;
use gossip_cdn_protocol::NodeId;
use gossip_cdn_protocol::wire::{Envelope, PayloadsRequest, VERSION};

use crate::agreement::counter;
use crate::assembly::Assembly;
use crate::bare::{self, Journal};
use crate::client::Client;
use crate::etcd::Etcd;
use crate::processes::processor_time;
use crate::report::{Amount, Broken, Report, claim, quantile};
use crate::speakers;
use crate::waiting::pause;

const NODES: usize = 3;
/// Bytes of a message, and of a value.
const SIZE: usize = 256;
/// How long they are asked before it counts.
const WARMING: Duration = Duration::from_secs(2);
/// How many are asked one after the other for the latency.
const ALONE: usize = 600;
/// How many blocks are written, and how many calls made, for the median of each.
const APPENDS: usize = 500;
const CALLS: usize = 1000;

/// One turn of one of the two.
#[derive(Debug, Clone, Copy)]
struct Turn {
    /// Answered a second.
    rate: f64,
    /// Seconds of processor time of the three processes for one.
    cost: f64,
    /// Commits to the disk for one, of all three together.
    commits: f64,
    /// Median of one client alone, in seconds.
    alone: f64,
}

pub(crate) fn measure(clients: usize, duration: Duration, turns: usize) -> Result<Report, Broken> {
    let mut report = Report::default();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..turns {
        theirs.push(etcd(clients, duration)?);
        ours.push(our_own(clients, duration)?);
    }
    let (fsync, round_trip) = (fsync()?, round_trip()?);
    let [rate, their_rate] = [&ours, &theirs].map(|turns| median(turns, |turn| turn.rate));
    let [cost, their_cost] = [&ours, &theirs].map(|turns| seconds(median(turns, |turn| turn.cost)));
    let [alone, theirs_alone] = [&ours, &theirs].map(|turns| seconds(median(turns, |turn| turn.alone)));
    let what = format!("{NODES} nodes, {clients} clients, {SIZE} bytes, {} s, median of {turns}", duration.as_secs());
    report.note(&format!("{what}: ordered messages delivered a second"), &format!("{rate:.0}"));
    report.note(&format!("{what}: puts of etcd a second"), &format!("{their_rate:.0}"));
    report.row("1.5 x etcd's, in terms of ours", Amount::Factor(1.5 * their_rate / rate), Amount::Factor(1.0));
    report.note("processor time of the three for one message, and for one put", &format!("{cost}, {their_cost}"));
    report.note("commits of the three for one message", &format!("{:.3}", median(&ours, |turn| turn.commits)));
    let what = format!("one client, median: 3 fsyncs of {} + 2 round trips of {}", Amount::Time(fsync), Amount::Time(round_trip));
    report.row(&what, alone, Amount::Time(3 * fsync + 2 * round_trip));
    let folder = tempfile::tempdir()?;
    let least = quantile(&mut bare::one_after_the_other(folder.path(), ALONE, SIZE)?, 500);
    report.note(
        "three writes and two round trips one after the other, by servers that do nothing else, median",
        &Amount::Time(least).to_string(),
    );
    report.note("one client of etcd, median", &theirs_alone.to_string());
    Ok(report)
}

fn median(turns: &[Turn], of: impl Fn(&Turn) -> f64) -> f64 {
    let mut values: Vec<f64> = turns.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn seconds(seconds: f64) -> Amount {
    Amount::Time(Duration::from_secs_f64(seconds))
}

fn etcd(clients: usize, duration: Duration) -> Result<Turn, Broken> {
    let etcd = Etcd::of(NODES)?;
    let alone = quantile(&mut etcd.alone(ALONE, SIZE)?, 500);
    let pids: Vec<u32> = etcd.pids().collect();
    etcd.under_load(clients, SIZE, |done| watch(done, duration, &pids, || Ok(0), alone))
}

fn our_own(clients: usize, duration: Duration) -> Result<Turn, Broken> {
    let assembly = Assembly::of(NODES)?;
    let urls: Vec<String> = assembly.nodes.iter().map(|node| node.server.url.clone()).collect();
    let pids: Vec<u32> = assembly.nodes.iter().map(|node| node.server.pid()).collect();
    let mut asking = assembly.clients()?;
    let alone = quantile(&mut one_after_the_other(&urls)?, 500);
    let commits = || asking.iter_mut().try_fold(0, |sum, client| Ok(sum + counter(client, "commits")?));
    speakers::under_load(&urls, clients, SIZE, |done| watch(done, duration, &pids, commits, alone))
}

/// Counts what is done while it is asked for.
fn watch(
    done: &AtomicU64,
    duration: Duration,
    pids: &[u32],
    mut commits: impl FnMut() -> Result<u64, Broken>,
    alone: Duration,
) -> Result<Turn, Broken> {
    pause(WARMING)?;
    let used = || pids.iter().map(|pid| processor_time(*pid)).sum::<Result<Duration, Broken>>();
    let (used_before, commits_before, done_before, begin) = (used()?, commits()?, done.load(Ordering::Relaxed), Instant::now());
    pause(duration)?;
    let (made, took) = ((done.load(Ordering::Relaxed) - done_before).max(1) as f64, begin.elapsed().as_secs_f64());
    let (cost, commits) = ((used()? - used_before).as_secs_f64() / made, (commits()? - commits_before) as f64 / made);
    Ok(Turn { rate: made / took, cost, commits, alone: alone.as_secs_f64() })
}

/// Gives one message and waits for its delivery.
fn say(client: &mut Client) -> Result<(), Broken> {
    let answer = client.send("POST", "/messages?channel=ordered&wait=delivered&timeout=30", &[b'm'; SIZE])?;
    claim(answer.status == 201, || format!("an ordered message was answered with {}", answer.status))
}

/// How long each message of one client takes, at each node in turn.
fn one_after_the_other(urls: &[String]) -> Result<Vec<Duration>, Broken> {
    let mut took = Vec::with_capacity(ALONE);
    for url in urls {
        let mut client = Client::new(url)?;
        for _ in 0..ALONE / urls.len() {
            go_on()?;
            let begin = Instant::now();
            say(&mut client)?;
            took.push(begin.elapsed());
        }
    }
    Ok(took)
}

/// How long it takes to add a block to a file as a node's journal does, median.
fn fsync() -> Result<Duration, Broken> {
    let folder = tempfile::tempdir()?;
    let mut journal = Journal::new(&folder.path().join("journal"))?;
    let mut took = Vec::with_capacity(APPENDS);
    for _ in 0..APPENDS {
        let begin = Instant::now();
        journal.append()?;
        took.push(begin.elapsed());
    }
    Ok(quantile(&mut took, 500))
}

/// How long a call takes that one node makes of another and that does nothing, median: a question for no payload, by the client that nodes have, over a
/// connection that is kept.
fn round_trip() -> Result<Duration, Broken> {
    let node = gossip_cdn_cluster::Node::alone();
    let body = PayloadsRequest { hashes: vec![] };
    let sender = NodeId::from_public_key(&[1; 32]);
    let call = serde_json::to_vec(&Envelope { version: VERSION, cluster: "gossip-cdn".into(), sender, incarnation: 1, body })
        .map_err(|fault| Broken::new(fault.to_string()))?;
    let url = node.url("/gossip/payloads");
    let mut took = actix_rt::System::new().block_on(async {
        let client = awc::Client::builder().disable_redirects().no_default_headers().finish();
        let mut took = Vec::new();
        for _ in 0..CALLS {
            let begin = Instant::now();
            let sent = client.post(&url).content_type("application/json").no_decompress().send_body(call.clone()).await;
            let mut answer = sent.map_err(|fault| Broken::new(fault.to_string()))?;
            claim(answer.status().is_success(), || format!("a call was answered with {}", answer.status()))?;
            answer.body().await.map_err(|fault| Broken::new(fault.to_string()))?;
            took.push(begin.elapsed());
        }
        Ok::<_, Broken>(took)
    })?;
    Ok(quantile(&mut took, 500))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordered_messages_of_many_clients_share_their_commits() {
        let turn = our_own(48, Duration::from_secs(2)).expect("all are delivered");
        // One alone: kept once, accepted by three, decided and delivered by three.
        assert!(turn.commits < 7.0 / 3.0, "{turn:?}");
    }
}
