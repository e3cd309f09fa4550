//! Disks that are copied, or put back to an earlier state: what holds all the same, and what is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use gossip_cdn_protocol::io::{Reply, Written};
use gossip_cdn_protocol::{BlobId, Content, Version, VersionId};
use gossip_cdn_sim::world::Again;
use gossip_cdn_sim::{Wish, World};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn blob(n: u128) -> BlobId {
    BlobId(uuid::Uuid::from_u128(n))
}

/// Three hosts that know each other, and three blobs that all of them have.
fn network() -> World {
    let mut world = World::calm(1, false);
    (0..3).for_each(|_| {
        let host = world.add();
        world.start(host);
    });
    world.run_for(seconds(10));
    (1..=3).for_each(|n| _ = write(&mut world, 0, Wish::put(Some(blob(u128::from(n))), n, 1000)));
    world.run_for(seconds(5));
    world
}

/// A write that is acknowledged within a second.
fn write(world: &mut World, host: usize, wish: Wish) -> Written {
    let call = world.write(host, wish);
    world.run_for(seconds(1));
    let reply = call.and_then(|call| world.reply(call));
    let Some(Reply::Write(Ok(written))) = reply else { panic!("not written: {reply:?}, {:?}", world.failure()) };
    written
}

#[track_caller]
fn assert_at_rest(world: &World) {
    assert_eq!((world.failure(), world.gap()), (None, None));
}

/// The live versions of a blob at each of the first three hosts.
fn versions(world: &World, blob: BlobId) -> [Vec<VersionId>; 3] {
    [0, 1, 2].map(|host| world.record(host, blob).versions().iter().map(Version::id).collect())
}

fn is_deleted(world: &World, blob: BlobId) -> bool {
    (0..3).all(|host| world.record(host, blob).winner().is_some_and(|winner| winner.content == Content::Tombstone))
}

#[test]
fn a_copied_disk_makes_two_nodes_and_what_both_wrote_apart_is_kept() {
    for running in [true, false] {
        let mut world = network();
        if !running {
            world.crash(0, gossip_cdn_sim::world::Unsynced::KeepAll);
        }
        let copy = world.copy_disk(0, Again::Unawares);
        let cut = world.split([copy]);
        world.start(copy);
        world.start(0);
        world.run_for(seconds(5));
        let ours = write(&mut world, 0, Wish::put(Some(blob(4)), 4, 4000));
        let theirs = write(&mut world, copy, Wish::put(Some(blob(5)), 5, 5000));
        write(&mut world, copy, Wish::delete(blob(1)));
        world.mend(cut);
        world.run_for(seconds(100));
        assert_at_rest(&world);
        let ids: BTreeSet<_> = (0..4).map(|host| world.id(host)).collect();
        assert_eq!(ids.len(), 4);
        assert!(versions(&world, blob(4)).iter().all(|versions| *versions == [ours.version]));
        assert!(versions(&world, blob(5)).iter().all(|versions| *versions == [theirs.version]));
        assert!(is_deleted(&world, blob(1)));
        world.run_for(seconds(100));
        assert_eq!((0..4).map(|host| world.id(host)).collect::<BTreeSet<_>>(), ids, "nobody changes its key again");
    }
}

#[test]
fn a_disk_put_back_within_one_life_has_everything_again_under_a_new_key() {
    let mut world = network();
    let was = world.id(0);
    world.back_up(0);
    let replaced = write(&mut world, 0, Wish::put(Some(blob(1)), 7, 7000));
    write(&mut world, 0, Wish::delete(blob(2)));
    let forgotten = write(&mut world, 0, Wish::put(Some(blob(4)), 4, 4000));
    world.run_for(seconds(5));
    world.put_back(0, Again::Unawares);
    world.run_for(seconds(30));
    assert_at_rest(&world);
    assert_ne!(world.id(0), was);
    assert!(is_deleted(&world, blob(2)));
    for (n, written) in [(1, &replaced), (4, &forgotten)] {
        assert!(versions(&world, blob(n)).iter().all(|versions| *versions == [written.version]));
        let later = write(&mut world, 0, Wish::put(Some(blob(n)), 80 + u64::try_from(n).expect("small"), 8000));
        world.run_for(seconds(10));
        assert!(versions(&world, blob(n)).iter().all(|versions| *versions == [later.version]), "it had seen what it had forgotten");
    }
    assert_at_rest(&world);
}

#[test]
fn what_was_on_no_other_disk_is_lost_with_the_disk_and_nothing_else() {
    let mut world = network();
    let cut = world.split([0]);
    world.back_up(0);
    write(&mut world, 0, Wish::put(Some(blob(4)), 4, 4000));
    write(&mut world, 0, Wish::delete(blob(2)));
    let elsewhere = write(&mut world, 1, Wish::put(Some(blob(3)), 9, 9000));
    let was = world.id(0);
    world.put_back(0, Again::Unawares);
    world.run_for(seconds(10));
    world.mend(cut);
    world.run_for(seconds(100));
    assert_at_rest(&world);
    assert!(versions(&world, blob(4)).iter().all(Vec::is_empty));
    assert!((0..3).all(|host| world.holds_winner(host, blob(2))), "the delete is gone, as if it had never been");
    assert!(versions(&world, blob(3)).iter().all(|versions| *versions == [elsewhere.version]));
    assert_eq!(world.id(0), was, "nobody knows of what it forgot, so nothing tells it apart");
}

#[test]
fn a_write_to_a_blob_before_its_forgotten_write_is_heard_of_replaces_it_everywhere() {
    let mut world = network();
    world.back_up(0);
    let forgotten = write(&mut world, 0, Wish::put(Some(blob(1)), 7, 7000));
    let other = write(&mut world, 0, Wish::put(Some(blob(2)), 8, 8000));
    world.run_for(seconds(5));
    let cut = world.split([0]);
    world.put_back(0, Again::Unawares);
    world.run_for(seconds(10));
    let blind = write(&mut world, 0, Wish::put(Some(blob(1)), 9, 9000));
    assert_eq!(forgotten.version.origin, blind.version.origin);
    world.mend(cut);
    world.run_for(seconds(100));
    assert_at_rest(&world);
    assert!(versions(&world, blob(1)).iter().all(|versions| *versions == [blind.version]));
    assert!(versions(&world, blob(2)).iter().all(|versions| *versions == [other.version]), "what it did not write to is kept");
    assert_ne!(world.id(0), blind.version.origin, "by that it has found out");
}
