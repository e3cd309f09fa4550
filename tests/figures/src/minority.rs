//! One node of three goes on alone for minutes: it takes messages, shows them as pending, and delivers none until another one is back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::assembly::Assembly;
use crate::client::Client;
use crate::histories::{Posted, check, read, settle};
use crate::report::{Amount, Broken, Report, claim};
use crate::waiting::pause;

const NODES: usize = 3;
/// Those that are killed, the first ones.
const KILLED: usize = NODES - 1;
/// The one that is left.
const LEFT: usize = KILLED;
/// Between two looks at what is pending, and at the start of each a message on either channel.
const LOOK: Duration = Duration::from_secs(1);

pub(crate) fn measure(alone: Duration) -> Result<Report, Broken> {
    let mut report = Report::default();
    let mut assembly = Assembly::of(NODES)?;
    let mut client = Client::new(&assembly.nodes[LEFT].server.url)?;
    let mut posted = vec![post(&mut client, "causal", 0)?, post(&mut client, "ordered", 0)?];
    let before = posted.len();
    settle(&mut assembly.clients()?, before as u64)?;
    (0..KILLED).for_each(|node| assembly.nodes[node].server.kill());

    let (begin, mut looks) = (Instant::now(), 0);
    while begin.elapsed() < alone {
        looks += 1;
        posted.push(post(&mut client, "causal", looks)?);
        posted.push(post(&mut client, "ordered", looks)?);
        pause(LOOK)?;
        look(&mut client, before, posted.get(before..).unwrap_or_default())?;
    }
    let waiting = posted.len() - before;
    let what = format!("{} of {NODES} nodes down for {}", KILLED, Amount::Time(begin.elapsed()));
    report.note(&what, &format!("{waiting} messages accepted by the third, half of them ordered; looked at {looks} times"));

    let back = Instant::now();
    assembly.nodes[0].restart();
    let serving = back.elapsed();
    let mut two = vec![client, Client::new(&assembly.nodes[0].server.url)?];
    settle(&mut two, posted.len() as u64)?;
    let took = Amount::Time(back.elapsed());
    report
        .note("one of them is started again", &format!("it serves after {}, all is delivered at both after {took}", Amount::Time(serving)));
    (1..KILLED).for_each(|node| assembly.nodes[node].restart());
    let mut clients = assembly.clients()?;
    settle(&mut clients, posted.len() as u64)?;
    let histories = clients.iter_mut().map(read).collect::<Result<Vec<_>, _>>()?;
    check(&histories, &posted)?;
    report.row("delivered by the minority", Amount::Count(0), Amount::Count(0));
    report.row("accepted and not shown as pending at every look", Amount::Count(0), Amount::Count(0));
    report.row("accepted and not exactly once in all three histories afterwards", Amount::Count(0), Amount::Count(0));
    Ok(report)
}

fn post(client: &mut Client, channel: &str, number: u64) -> Result<Posted, Broken> {
    let body = format!("{channel} {number}");
    let answer = client.send("POST", &format!("/messages?channel={channel}"), body.as_bytes())?;
    claim(answer.status == 202, || format!("{body} was not accepted: {}", answer.status))?;
    let taken: Value = serde_json::from_slice(&answer.body)?;
    Ok(Posted { body, id: taken["id"].as_str().map(ToOwned::to_owned), answers: None })
}

/// Everything that waits is listed, and nothing was delivered since.
fn look(client: &mut Client, before: usize, waiting: &[Posted]) -> Result<(), Broken> {
    let delivered = read(client)?;
    claim(delivered.len() == before, || format!("the minority delivered {}", delivered.len() - before))?;
    let listed = pending(client)?;
    let named: Vec<&str> = waiting.iter().filter_map(|posted| posted.id.as_deref()).collect();
    let hidden = named.iter().find(|id| !listed.contains(**id));
    claim(hidden.is_none(), || format!("{} is not listed as pending", hidden.copied().unwrap_or_default()))?;
    claim(listed.len() == waiting.len(), || format!("{} are pending, {} wait", listed.len(), waiting.len()))?;
    for id in named.first().into_iter().chain(named.last()) {
        let answer = client.send("GET", &format!("/messages/{id}"), &[])?;
        let shown: Value = serde_json::from_slice(&answer.body)?;
        claim(shown["status"] == "pending", || format!("{id} is shown as {shown}"))?;
    }
    Ok(())
}

/// The names of all that is listed as pending.
fn pending(client: &mut Client) -> Result<BTreeSet<String>, Broken> {
    let (mut names, mut after) = (BTreeSet::new(), String::new());
    loop {
        let answer = client.send("GET", &format!("/messages?status=pending&limit=100{after}"), &[])?;
        let page: Value = serde_json::from_slice(&answer.body)?;
        let messages = page["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        names.extend(messages.iter().filter_map(|message| message["id"].as_str().map(ToOwned::to_owned)));
        let Some(next) = page["next"].as_str() else { return Ok(names) };
        after = format!("&after={next}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alone_of_three_a_node_keeps_what_it_takes_and_delivers_it_with_another() {
        measure(Duration::from_secs(5)).expect("the promises hold");
    }
}
