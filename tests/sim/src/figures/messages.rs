//! What the message history costs networks that are too large, or too far apart, for real processes.

use std::collections::BTreeSet;
use std::time::Duration;

use gossip_cdn_protocol::history::epoch::MAX_VOTERS;
use gossip_cdn_protocol::history::message::Channel;

use super::{FAR, MANY, Table, secs};
use crate::broadcasts::Broadcasts;
use crate::meter::{Report, Samples, ratio, seconds};
use crate::network::Latency;
use crate::world::{Model, World};

/// Hosts that know each other and belong to one history, all of whose seats are taken.
fn assembled(count: usize, voters: usize, latency: Latency) -> World {
    let mut world = World::modelled(1, Model { latency, bootstrap: false, ..Model::default() });
    world.seats(voters);
    world.founds(0);
    world.acquainted(count);
    while world.voters(0) < voters && world.now() < 600_000_000 && world.failure().is_none() {
        world.run_for(secs(1));
    }
    world.run_for(secs(10));
    world.reset_report();
    world.follow_broadcasts();
    world
}

fn samples(values: impl IntoIterator<Item = u64>) -> Samples {
    let mut samples = Samples::default();
    values.into_iter().for_each(|value| samples.add(value));
    samples
}

/// How so many messages got around, and whether all of them were delivered everywhere.
fn delivered<'a>(table: &mut Table, world: &'a World, nodes: usize, messages: usize) -> Option<&'a Broadcasts> {
    let ids: BTreeSet<_> = (0..nodes).map(|host| world.id(host)).collect();
    let broadcasts = world.broadcasts()?;
    let unsaid = messages.saturating_sub(broadcasts.count());
    let missing = u64::try_from(broadcasts.missing(&ids) + unsaid * nodes).unwrap_or(u64::MAX);
    table.at_most("deliveries that are missing", missing, 0, |count| count.to_string(), "");
    Some(broadcasts)
}

pub(super) fn broadcast(table: &mut Table) {
    let (mut world, messages) = (assembled(MANY, MAX_VOTERS, FAR), 20);
    for n in 0..messages {
        world.say(n * 97 % MANY, Channel::Causal, None);
        world.run_for(secs(8));
    }
    let voters = world.voters(0);
    table
        .line(format_args!("{MANY} nodes, {voters} of them voters, 50 ms one way, nothing lost, {messages} messages, one after the other"));
    table.line(format_args!("a round is a call, whichever half of it brings the news; a page of history takes three"));
    if let Some(broadcasts) = delivered(table, &world, MANY, messages) {
        let (had, delivered) = broadcasts.rounds();
        let goal = u64::from(MANY.ilog2()) + 2;
        for (what, rounds) in [("has it", samples(had)), ("has delivered it", samples(delivered))] {
            table.at_most(&format!("rounds until every node {what}"), rounds.greatest(), goal, |count| count.to_string(), "");
            table.line(format_args!("  p50 {}, p99 {}", rounds.percentile(50), rounds.percentile(99)));
        }
        let times = samples(broadcasts.times());
        let (median, worst) = (seconds(times.percentile(50)), seconds(times.greatest()));
        table.line(format_args!("until the last node has delivered it: median {median} s, worst {worst} s"));
    }
    table.calls(&world.report());
    table.sound(&world);
}

/// Requests and answers between nodes.
fn sent(report: &Report) -> u64 {
    report.calls.values().map(|traffic| traffic.calls + traffic.delivered).sum()
}

/// As the broadcast challenges of Gossip Glomers have it (3d and 3e): they count every message between servers, answers too, and reads as
/// operations.
pub(super) fn batches(table: &mut Table) {
    batch(table, 5, true);
    batch(table, MAX_VOTERS, false);
}

fn batch(table: &mut Table, voters: usize, has_goals: bool) {
    const NODES: usize = 25;
    /// One in 20 ms, and a read in between, which its node answers by itself.
    const BROADCASTS: usize = 1000;
    let mut world = assembled(NODES, voters, Latency::Constant(100_000));
    for n in 0..BROADCASTS {
        world.say(n * 7 % NODES, Channel::Causal, None);
        world.run_for(Duration::from_millis(20));
    }
    // Until all have the last one, and no longer: what follows is idle.
    world.run_for(secs(1));
    let report = world.report();
    world.run_for(secs(9));
    let found = world.voters(0);
    table
        .line(format_args!("{NODES} nodes, {found} of them voters, 100 ms one way; a message and a read each 20 ms, {BROADCASTS} of each"));
    let broadcasts = delivered(table, &world, NODES, BROADCASTS);
    let times = broadcasts.map(|broadcasts| samples(broadcasts.times())).unwrap_or_default();
    let each = sent(&report) * 100 / (2 * BROADCASTS as u64);
    let (median, most) = (times.percentile(50), times.greatest());
    if has_goals {
        table.at_most("calls and answers between nodes for each operation, idle exchanges too", each, 2000, |c| ratio(c, 100), "");
        table.time("from the client's question until all have delivered, median", median, 400);
        table.time("the same, greatest", most, 600);
    } else {
        let (each, median, most) = (ratio(each, 100), seconds(median), seconds(most));
        table.line(format_args!("the usual number of voters: {each} for each operation, median {median} s, greatest {most} s"));
    }
    table.line(format_args!("  p99 {} s", seconds(times.percentile(99))));
    table.calls(&report);
    table.sound(&world);
}

#[cfg(test)]
mod tests {
    use super::super::Figure;
    use super::super::tests::held;

    #[test]
    fn far_apart_messages_are_few_and_deliveries_quick() {
        let told = held(Figure::Batches);
        assert_eq!(told.matches(": met").count(), 5, "{told}");
    }
}
