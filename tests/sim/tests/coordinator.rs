//! A coordinator dies at every event of a transaction: what was accepted is lost nowhere, stands in the order once, and blocks nobody.

use std::time::Duration;

use gossip_cdn_protocol::history::message::{Channel, MessageId};
use gossip_cdn_protocol::io::{ClientCall, Reply, Standing};
use gossip_cdn_sim::World;
use gossip_cdn_sim::world::Unsynced;

const VOTERS: usize = 3;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Three voters, the founder their coordinator.
fn voters() -> World {
    let mut world = World::calm(1, false);
    let hosts: Vec<usize> = (0..VOTERS).map(|_| world.add()).collect();
    world.founds(hosts[0]);
    hosts.iter().for_each(|host| world.start(*host));
    world.run_for(seconds(10));
    assert!(hosts.iter().all(|host| world.voters(*host) == VOTERS), "{:?}", world.failure());
    assert_eq!(world.coordinator(), Some(hosts[0]));
    world
}

/// Says something at a host, to be answered when it is delivered there.
fn say(world: &mut World, host: usize) -> ClientCall {
    world.say(host, Channel::Ordered, Some(seconds(60))).expect("it runs")
}

fn is_delivered(world: &mut World, call: ClientCall) -> Option<MessageId> {
    match world.reply(call) {
        Some(Reply::Say(Ok(said))) => (said.standing != Standing::Pending).then_some(said.id),
        _ => None,
    }
}

/// Who coordinates dies after so many events; `true` if the flow was over by then.
fn dies(mut world: World, victim: impl Fn(&World) -> usize, after: usize, unsynced: Unsynced) -> bool {
    let (mut calls, running): (Vec<ClientCall>, Vec<usize>) = (vec![], (0..VOTERS).filter(|host| world.voters(*host) > 0).collect());
    for host in &running {
        calls.push(say(&mut world, *host));
    }
    (0..after).for_each(|_| _ = world.step());
    let (said, delivered) = world.messages();
    let over = said == delivered && world.history_gap().is_none();
    let victim = victim(&world);
    world.crash(victim, unsynced);
    // The rest go on with those who were down before.
    (0..VOTERS).filter(|host| !running.contains(host)).for_each(|host| world.start(host));
    world.run_for(seconds(20));
    for (host, call) in running.iter().zip(calls).filter(|(host, _)| **host != victim) {
        assert!(is_delivered(&mut world, call).is_some(), "event {after}, {unsynced:?}: n{host} is blocked, {:?}", world.failure());
    }
    world.start(victim);
    world.run_for(seconds(10));
    assert_eq!((world.history_gap(), world.failure()), (None, None), "event {after}, {unsynced:?}");
    over
}

/// Kills at every event until the flow is over, with nothing, the oldest, and all of what waited for the disk on it.
fn at_every_event(prepared: impl Fn() -> World, victim: impl Fn(&World) -> usize + Copy) -> usize {
    for after in 0..10_000 {
        let unsynced = [Unsynced::Keep(0), Unsynced::Keep(1), Unsynced::KeepAll];
        let over = unsynced.map(|unsynced| dies(prepared(), victim, after, unsynced));
        if over == [true; 3] {
            return after;
        }
    }
    panic!("the flow does not end");
}

#[test]
fn a_steady_coordinator_dies_at_every_event() {
    let events = at_every_event(voters, |_| 0);
    assert!(events > 20, "only {events} events were tried");
}

#[test]
fn who_takes_over_dies_at_every_event() {
    let prepared = || {
        let mut world = voters();
        world.crash(0, Unsynced::KeepAll);
        world.run_for(seconds(5));
        world
    };
    let events = at_every_event(prepared, |world| world.coordinator().unwrap_or(1));
    assert!(events > 20, "only {events} events were tried");
}

#[test]
fn a_participant_dies_at_every_event() {
    let events = at_every_event(voters, |_| 1);
    assert!(events > 20, "only {events} events were tried");
}
