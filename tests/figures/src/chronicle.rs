//! Messages given to five nodes at once while two of them die and come back and one is cut off, and what the five histories say afterwards.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gossip_cdn_cluster::Node;
use tempfile::TempDir;

use crate::agreement::{PATIENCE, acquainted, introduce};
use crate::histories::{check, read, settle, voters};
use crate::namespaces::Places;
use crate::report::{Amount, Broken, Report};
use crate::voices::{Manner, Tally, speak_all};
use crate::waiting::{pause, wait};

const NODES: usize = 5;

pub(crate) fn measure(clients: usize, duration: Duration) -> Result<Report, Broken> {
    let mut report = Report::default();
    let places = Places::of(&[4, 1])?;
    let folder = TempDir::new()?;
    let start = |number: usize| {
        let flags: &[&str] = if number == 0 { &["--found"] } else { &[] };
        places.all()[number].node(&folder.path().join(number.to_string()), flags)
    };
    let mut nodes = (0..NODES).map(start).collect::<Result<Vec<Node>, _>>()?;
    let mut asking = places.all().iter().map(|place| place.client()).collect::<Result<Vec<_>, _>>()?;
    for place in &places.all()[1..] {
        introduce(&mut asking[0], &place.address())?;
    }
    acquainted(&mut asking, NODES as u64)?;
    wait("all five vote", PATIENCE, || asking.iter_mut().try_fold(true, |all, client| Ok(all && voters(client)? == NODES)))?;

    let tally = Tally::default();
    let manner = Manner { ordered: 2, answers: 3, waits: 4 };
    let connect = |client: usize| places.all()[client % NODES].client();
    let posted = speak_all(clients, manner, connect, &tally, u64::MAX, || disturb(&mut nodes, &places, duration))?;
    let stopped = Instant::now();
    let [accepted, refused, unanswered] = [&tally.accepted, &tally.refused, &tally.unanswered].map(|count| count.load(Ordering::Relaxed));
    let what = format!(
        "{clients} clients at {NODES} nodes for {} s, two nodes killed with -9 and started again, one cut off and healed",
        duration.as_secs()
    );
    report.note(&what, &format!("{accepted} messages accepted, {refused} refused, {unanswered} unanswered"));

    let mut clients = places.all().iter().map(|place| place.client()).collect::<Result<Vec<_>, _>>()?;
    settle(&mut clients, accepted)?;
    report.note("all five have delivered everything, from the last message", &Amount::Time(stopped.elapsed()).to_string());
    let histories = clients.iter_mut().map(read).collect::<Result<Vec<_>, _>>()?;
    check(&histories, &posted)?;
    let answers = posted.iter().filter(|posted| posted.id.is_some() && posted.answers.is_some()).count();
    let delivered = histories.first().map_or(0, Vec::len);
    report.note("messages in each of the five histories, answers among them", &format!("{delivered}, {answers}"));
    report.row("accepted and not exactly once in all five histories", Amount::Count(0), Amount::Count(0));
    report.row("answers before their questions, anywhere", Amount::Count(0), Amount::Count(0));
    report.row("ordered messages whose numbers differ or leave a gap", Amount::Count(0), Amount::Count(0));
    report.row("an origin's messages out of their order", Amount::Count(0), Amount::Count(0));
    Ok(report)
}

/// Kills two nodes and cuts one off so that for a while only two of five can talk to each other; all are well at the end.
fn disturb(nodes: &mut [Node], places: &Places, duration: Duration) -> Result<(), Broken> {
    let step = duration / 8;
    pause(step)?;
    nodes[0].server.kill();
    pause(step)?;
    places.cable(false)?;
    pause(step)?;
    nodes[1].server.kill();
    pause(step)?;
    places.all()[0].restart(&mut nodes[0])?;
    pause(step)?;
    places.cable(true)?;
    pause(step)?;
    places.all()[1].restart(&mut nodes[1])?;
    pause(2 * step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_histories_hold_every_accepted_message_once_and_in_order_whoever_dies_or_is_cut_off() {
        measure(10, Duration::from_secs(6)).expect("the promises hold");
    }
}
