//! A node that joins five others late, when there is much to be read.

use std::time::Instant;

use gossip_cdn_cluster::Node;

use crate::agreement::PATIENCE;
use crate::assembly::Assembly;
use crate::client::Client;
use crate::histories::{check, read, settle};
use crate::processes::processor_time;
use crate::report::{Amount, Broken, Report, claim};
use crate::voices::{Manner, Tally, speak_all};
use crate::waiting::wait;

const NODES: usize = 5;
const CLIENTS: usize = 100;

pub(crate) fn measure(messages: u64) -> Result<Report, Broken> {
    let mut report = Report::default();
    let assembly = Assembly::of(NODES)?;
    let begin = Instant::now();
    let tally = Tally::default();
    let most = messages.div_ceil(CLIENTS as u64);
    let manner = Manner { ordered: 2, answers: 0, waits: 0 };
    let posted =
        speak_all(CLIENTS, manner, |client| Ok(Client::new(&assembly.nodes[client % NODES].server.url)?), &tally, most, || Ok(()))?;
    let took = begin.elapsed();
    let mut clients = assembly.clients()?;
    settle(&mut clients, posted.len() as u64)?;
    let rate = posted.len() as f64 / took.as_secs_f64();
    let what = format!("{} messages given to {NODES} nodes by {CLIENTS} clients, half of them ordered", posted.len());
    report.note(
        &what,
        &format!("{} until accepted, {rate:.0} a second; {} until delivered everywhere", Amount::Time(took), Amount::Time(begin.elapsed())),
    );
    let used = assembly.nodes.iter().map(|node| processor_time(node.server.pid())).sum::<Result<std::time::Duration, Broken>>()?;
    report.note("processor time of the five for that", &Amount::Time(used).to_string());

    let begin = Instant::now();
    let latecomer = Node::joined(&assembly.bootstrap);
    let mut client = Client::new(&latecomer.server.url)?;
    let all = posted.len() as u64;
    wait("the latecomer has everything and knows it", PATIENCE, || {
        let status = client.status()?;
        Ok(status["history"]["messages"] == all && status["synchronised"] == true)
    })?;
    let what = format!("a sixth node starts, joins, and has all {all} messages");
    report.note(
        &what,
        &format!("{}, {} of processor time", Amount::Time(begin.elapsed()), Amount::Time(processor_time(latecomer.server.pid())?)),
    );
    clients.push(client);
    let histories = clients.iter_mut().map(read).collect::<Result<Vec<_>, _>>()?;
    claim(histories.iter().all(|history| history.len() as u64 == all), || "a history has more or less than was accepted".to_owned())?;
    check(&histories, &posted)?;
    report.row("accepted and not exactly once in all six histories", Amount::Count(0), Amount::Count(0));
    report.row("ordered messages whose numbers differ or leave a gap", Amount::Count(0), Amount::Count(0));
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sixth_node_gets_the_whole_history_by_itself() {
        measure(2000).expect("it is identical");
    }
}
