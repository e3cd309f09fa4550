//! The message history of a small network: what is said while it begins, and on disks that are copied or put back.

use std::time::Duration;

use gossip_cdn_protocol::history::message::Channel;
use gossip_cdn_protocol::io::{ClientCall, Reply, SayFault};
use gossip_cdn_sim::World;
use gossip_cdn_sim::world::{Again, Unsynced};

const CHANNELS: [Channel; 2] = [Channel::Causal, Channel::Ordered];

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// So many hosts, all of them voters.
fn voters(count: usize) -> World {
    let mut world = World::calm(1, false);
    (0..count).for_each(|_| _ = world.add());
    world.founds(0);
    (0..count).for_each(|host| world.start(host));
    world.run_for(seconds(20));
    assert!((0..count).all(|host| world.voters(host) == count), "{:?}", world.failure());
    world
}

fn say_all(world: &mut World, host: usize) -> Vec<ClientCall> {
    CHANNELS.iter().map(|channel| world.say(host, *channel, None).expect("it runs")).collect()
}

#[track_caller]
fn assert_all_alike(world: &World) {
    assert_eq!((world.failure(), world.gap(), world.history_gap()), (None, None, None));
}

#[test]
fn what_is_said_while_a_node_founds_its_history_is_taken() {
    let mut world = World::calm(1, false);
    let host = world.add();
    world.founds(host);
    world.start(host);
    let mut calls = Vec::new();
    for _ in 0..200 {
        calls.extend(say_all(&mut world, host));
        world.run_for(Duration::from_millis(1));
    }
    world.run_for(seconds(5));
    for call in calls {
        let reply = world.reply(call);
        assert!(matches!(reply, Some(Reply::Say(Ok(_)))), "{reply:?}");
    }
    assert_eq!(world.messages(), (400, 400));
    assert_all_alike(&world);
}

#[test]
fn a_voter_that_is_put_back_takes_another_key_and_what_it_says_then_is_delivered_once() {
    for again in [Again::Unawares, Again::Restored] {
        let mut world = voters(3);
        let was = world.id(1);
        say_all(&mut world, 1);
        world.run_for(seconds(2));
        world.back_up(1);
        // What it forgets: messages of its own, ballots and votes.
        (0..3).for_each(|host| _ = say_all(&mut world, host));
        world.run_for(seconds(2));
        world.put_back(1, again);
        world.run_for(seconds(6));
        let calls = say_all(&mut world, 1);
        world.run_for(seconds(60));
        assert_ne!(world.id(1), was, "it finds out where it was not told, {again:?}");
        for call in calls {
            let reply = world.reply(call);
            assert!(matches!(reply, Some(Reply::Say(Ok(_) | Err(SayFault::KeyTaken)))), "{reply:?}");
        }
        let (said, delivered) = world.messages();
        assert!(delivered >= said - 2, "{delivered} of {said}");
        assert_all_alike(&world);
    }
}

#[test]
fn a_copy_of_a_voters_disk_becomes_a_node_of_its_own_and_nothing_accepted_is_lost() {
    for again in [Again::Unawares, Again::Restored] {
        let mut world = voters(3);
        say_all(&mut world, 2);
        world.run_for(seconds(2));
        let copy = world.copy_disk(2, again);
        (0..3).for_each(|host| _ = say_all(&mut world, host));
        world.run_for(seconds(2));
        world.start(copy);
        world.run_for(seconds(2));
        (0..4).for_each(|host| _ = world.say(host, Channel::Causal, None));
        world.run_for(seconds(100));
        assert_eq!(world.failure(), None, "{again:?}");
        let ids: std::collections::BTreeSet<_> = (0..4).map(|host| world.id(host)).collect();
        assert_eq!(ids.len(), 4);
        assert_all_alike(&world);
    }
}

/// More than a voter tells itself: what the others hear they hear as a rumor, or find when they compare histories.
#[test]
fn among_forty_nodes_rumors_and_comparisons_bring_everything_everywhere() {
    const NODES: usize = 40;
    let mut world = World::calm(1, false);
    (0..NODES).for_each(|_| _ = world.add());
    world.founds(0);
    (0..NODES).for_each(|host| world.start(host));
    world.run_for(seconds(60));
    assert!((0..NODES).all(|host| world.voters(host) == 7), "{:?}", world.failure());
    let said_by_some = |world: &mut World| (0..NODES).step_by(5).for_each(|host| _ = say_all(world, host));
    (0..NODES).step_by(5).for_each(|host| _ = world.say(host, Channel::Causal, None));
    world.run_for(seconds(2));
    assert_eq!((world.messages(), world.history_gap()), ((8, 8), None), "everywhere, in hops of milliseconds or when it is told again");
    // Some hear no rumor, and a coordinator dies while others speak.
    let cut = world.split(NODES - 5..NODES);
    let coordinator = world.coordinator().expect("somebody coordinates");
    said_by_some(&mut world);
    world.crash(coordinator, Unsynced::Keep(0));
    world.run_for(seconds(5));
    world.start(coordinator);
    world.mend(cut);
    world.run_for(seconds(120));
    assert_all_alike(&world);
    let (said, delivered) = world.messages();
    // What the coordinator had just taken, and had not on its disk, nobody was told.
    assert!(said > 16 && delivered + 2 >= said, "{delivered} of {said}");
}
