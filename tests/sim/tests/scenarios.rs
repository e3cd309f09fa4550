//! Named histories: what the design promises, and what seeds have found.

use std::time::Duration;

use gossip_cdn_protocol::history::message::{Body, Channel};
use gossip_cdn_protocol::io::{ClientCall, Counters, ForgetFault, Reply, Said, Say, Standing, WriteFault, Written};
use gossip_cdn_protocol::{BlobId, Command, Content, MemberState, Record};
use gossip_cdn_sim::world::Unsynced;
use gossip_cdn_sim::{Wish, World};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn blob(n: u128) -> BlobId {
    BlobId(uuid::Uuid::from_u128(n))
}

/// So many hosts that know each other.
fn network(count: usize) -> World {
    let mut world = World::calm(1, false);
    for _ in 0..count {
        let host = world.add();
        world.start(host);
    }
    world.run_for(seconds(10));
    world
}

fn reply(world: &mut World, call: Option<ClientCall>) -> Option<Reply> {
    world.reply(call.expect("the host runs"))
}

/// A write that is acknowledged within a second.
fn write(world: &mut World, host: usize, wish: Wish) -> Written {
    let call = world.write(host, wish);
    world.run_for(seconds(1));
    let Some(Reply::Write(Ok(written))) = reply(world, call) else { panic!("not written: {:?}", world.failure()) };
    written
}

#[track_caller]
fn assert_at_rest(world: &World) {
    assert_eq!((world.failure(), world.gap()), (None, None));
}

fn is_deleted(record: &Record) -> bool {
    record.versions().len() == 1 && record.winner().is_some_and(|winner| winner.content == Content::Tombstone)
}

#[test]
fn a_copy_that_rotted_is_fetched_again_whoever_reads_it_first() {
    let mut world = network(3);
    write(&mut world, 0, Wish::put(Some(blob(1)), 1, 5000));
    world.run_for(seconds(5));
    let payload = world.record(0, blob(1)).winner().and_then(|winner| winner.content.payload().cloned()).unwrap();
    // A scrub.
    world.rot(1, payload.hash);
    world.scrub(1);
    assert!(!world.holds_winner(1, blob(1)));
    world.run_for(seconds(30));
    assert_at_rest(&world);
    // A newcomer, who asks each of them.
    (0..2).for_each(|host| world.rot(host, payload.hash));
    let newcomer = world.add();
    world.start(newcomer);
    world.run_for(seconds(60));
    (0..2).for_each(|host| world.scrub(host));
    world.run_for(seconds(30));
    assert_at_rest(&world);
    assert!((0..4).all(|host| world.holds_winner(host, blob(1))));
}

#[test]
fn two_halves_write_and_delete_apart_and_agree_when_they_meet() {
    let mut world = network(6);
    (1..=3).for_each(|n| _ = write(&mut world, 0, Wish::put(Some(blob(n)), 1, 1000)));
    world.run_for(seconds(5));
    let cut = world.split([0, 1, 2]);
    let left = write(&mut world, 0, Wish::put(Some(blob(1)), 2, 2000));
    write(&mut world, 1, Wish::delete(blob(2)));
    write(&mut world, 2, Wish::delete(blob(3)));
    let right = write(&mut world, 3, Wish::put(Some(blob(1)), 3, 3000));
    let kept = write(&mut world, 4, Wish::put(Some(blob(2)), 4, 4000));
    world.run_for(seconds(90));
    assert!(world.gap().is_some(), "they are apart");
    world.mend(cut);
    world.run_for(seconds(100));
    assert_at_rest(&world);
    for host in 0..6 {
        let both = world.record(host, blob(1));
        assert!(both.version(left.version).is_some() && both.version(right.version).is_some(), "siblings are kept");
        let record = world.record(host, blob(2));
        assert_eq!(record.winner().map(gossip_cdn_protocol::Version::id), Some(kept.version), "the later of two concurrent wins");
        assert_eq!(record.versions().len(), 2);
        assert!(is_deleted(&world.record(host, blob(3))));
    }
}

#[test]
fn a_crash_between_the_steps_of_a_write_leaves_none_of_it() {
    for kept in 0..3 {
        let mut world = network(3);
        let call = world.write(0, Wish::put(Some(blob(1)), 1, 1000));
        assert_eq!(world.unsynced(0), 3, "the file of the payload, its row and, behind both, the record");
        world.crash(0, Unsynced::Keep(kept));
        world.run_for(seconds(1));
        world.start(0);
        world.run_for(seconds(30));
        assert_eq!(reply(&mut world, call), None, "nobody was told that it was written");
        assert_at_rest(&world);
        assert_eq!(world.record(0, blob(1)), Record::default());
    }
}

#[test]
fn a_file_that_a_crash_kept_from_being_unlinked_goes_at_the_next_start() {
    let mut world = network(2);
    write(&mut world, 0, Wish::put(Some(blob(1)), 1, 1000));
    world.write(0, Wish::delete(blob(1)));
    while world.unsynced(0) > 0 && world.record(0, blob(1)).winner().is_some_and(|winner| winner.content != Content::Tombstone) {
        world.run_for(Duration::from_micros(100));
    }
    assert_eq!(world.unsynced(0), 1, "the file is to be unlinked, behind the commit");
    world.crash(0, Unsynced::Keep(0));
    world.run_for(seconds(5));
    assert!(world.gap().is_some(), "it does not run");
    world.start(0);
    world.run_for(seconds(10));
    assert_at_rest(&world);
}

#[test]
fn a_crash_behind_the_record_leaves_both_though_nobody_was_told() {
    let mut world = network(3);
    let call = world.write(0, Wish::put(Some(blob(1)), 1, 1000));
    world.crash(0, Unsynced::Keep(3));
    world.start(0);
    world.run_for(seconds(30));
    assert_eq!(reply(&mut world, call), None);
    assert_at_rest(&world);
    assert!((0..3).all(|host| world.holds_winner(host, blob(1))));
}

#[test]
fn a_node_that_was_away_for_a_day_brings_nothing_deleted_back() {
    let mut world = network(3);
    (1..=20).for_each(|n| _ = write(&mut world, 0, Wish::put(Some(blob(n)), 1, 1000)));
    world.run_for(seconds(5));
    world.crash(2, Unsynced::KeepAll);
    (1..=10).for_each(|n| _ = write(&mut world, 1, Wish::delete(blob(n))));
    world.run_for(seconds(24 * 3600));
    world.start(2);
    world.run_for(seconds(60));
    assert_at_rest(&world);
    assert!((0..3).all(|host| (1..=10).all(|n| is_deleted(&world.record(host, blob(n))))));
    assert!((0..3).all(|host| (11..=20).all(|n| world.holds_winner(host, blob(n)))));
}

#[test]
fn a_newcomer_gets_everything() {
    let mut world = network(4);
    for n in 0..300 {
        world.write(usize::try_from(n % 4).expect("four"), Wish::put(Some(blob(u128::from(n))), n, 1000));
    }
    world.run_for(seconds(20));
    let newcomer = world.add();
    world.start(newcomer);
    world.run_for(seconds(20));
    assert_at_rest(&world);
    assert!((0..300).all(|n| world.holds_winner(newcomer, blob(n))));
}

#[test]
fn copies_are_counted_on_the_disks() {
    let mut world = network(4);
    let written = write(&mut world, 0, Wish::put(Some(blob(1)), 1, 1000).copies(4, seconds(10)));
    assert_eq!(written.copies, 4);
    assert!((0..4).all(|host| world.holds_winner(host, blob(1))));
}

/// Found by seeds 2, 3 and 5.
#[test]
fn a_version_whose_bytes_are_not_here_is_not_restored() {
    let mut world = network(2);
    let written = write(&mut world, 0, Wish::put(Some(blob(1)), 1, 1 << 30));
    assert!(!world.holds_winner(1, blob(1)), "a gibibyte is under way");
    let call = world.write(1, Wish::restore(blob(1), written.version));
    assert!(matches!(reply(&mut world, call), Some(Reply::Write(Err(WriteFault::NotHere(_))))));
}

/// Found by seed 936.
#[test]
fn a_version_that_waits_for_the_disk_is_not_restored() {
    let mut world = network(2);
    let first = write(&mut world, 0, Wish::put(Some(blob(1)), 1, 1000));
    world.write(0, Wish::put(Some(blob(2)), 1, 1000));
    world.write(0, Wish::delete(blob(1)));
    let queued = world.pending(0, blob(2)).winner().map(gossip_cdn_protocol::Version::id).expect("it was written");
    let call = world.write(0, Wish::restore(blob(2), queued));
    assert_eq!(reply(&mut world, call), None, "even a refusal does not tell of what the disk does not have");
    world.run_for(seconds(1));
    assert!(matches!(reply(&mut world, call), Some(Reply::Write(Err(WriteFault::NotHere(_))))), "{first:?}");
    world.run_for(seconds(10));
    assert_at_rest(&world);
}

/// Found by seeds 1 and 4.
#[test]
fn a_leaving_node_rests_and_answers_who_waits() {
    let mut world = network(2);
    let waiting = world.write(0, Wish::put(Some(blob(1)), 1, 1000).copies(5, seconds(600)));
    world.run_for(seconds(5));
    assert_eq!(reply(&mut world, waiting), None);
    world.ask(0, Command::Leave);
    let Some(Reply::Write(Ok(written))) = reply(&mut world, waiting) else { panic!("it waits for ever") };
    assert_eq!(written.copies, 2);
    let late = world.write(0, Wish::put(Some(blob(2)), 2, 1000).copies(5, seconds(600)));
    world.run_for(seconds(5));
    assert!(matches!(reply(&mut world, late), Some(Reply::Write(Ok(_)))));
    assert_eq!(world.failure(), None);
}

#[test]
fn a_node_that_is_about_to_stop_lets_nobody_wait_for_others_and_goes_on() {
    let mut world = network(2);
    let say = |wait| Command::Say(Say { channel: Channel::Ordered, media_type: "text/plain".into(), body: Body::Text("x".into()), wait });
    // Nobody founded a history, so nothing is delivered.
    let saying = world.ask(0, say(Some(seconds(300))));
    let waiting = world.write(0, Wish::put(Some(blob(1)), 1, 1000).copies(5, seconds(600)));
    world.run_for(seconds(5));
    assert_eq!((reply(&mut world, waiting), reply(&mut world, saying)), (None, None));
    let concluded = world.ask(0, Command::Conclude);
    assert_eq!(reply(&mut world, concluded), Some(Reply::Concluded));
    let Some(Reply::Write(Ok(written))) = reply(&mut world, waiting) else { panic!("it waits for ever") };
    assert_eq!(written.copies, 2);
    assert!(matches!(reply(&mut world, saying), Some(Reply::Say(Ok(Said { standing: Standing::Pending, .. })))));
    let late = world.write(0, Wish::put(Some(blob(2)), 2, 1000).copies(5, seconds(600)));
    let said = world.ask(0, say(Some(seconds(300))));
    world.run_for(seconds(1));
    assert!(matches!(reply(&mut world, late), Some(Reply::Write(Ok(Written { copies: 1, .. })))), "it does not begin to wait");
    assert!(matches!(reply(&mut world, said), Some(Reply::Say(Ok(Said { standing: Standing::Pending, .. })))));
    world.run_for(seconds(10));
    assert!(world.holds_winner(1, blob(2)), "what it took goes to others until it leaves");
    assert_eq!(world.failure(), None);
}

/// How a host sees another.
fn state(world: &mut World, host: usize, other: usize) -> Option<MemberState> {
    let call = world.ask(host, Command::Members);
    let Some(Reply::Members(members)) = reply(world, call) else { panic!("it always knows") };
    let id = world.id(other);
    members.iter().find(|view| view.member.id == id).map(|view| view.member.state)
}

#[test]
fn who_is_forgotten_stays_so_everywhere_and_is_a_member_again_when_it_comes_back() {
    let mut world = network(5);
    let call = world.ask(0, Command::Forget(world.id(4)));
    assert_eq!(reply(&mut world, call), Some(Reply::Forget(Err(ForgetFault::Live))), "it is alive");
    world.crash(4, Unsynced::KeepAll);
    world.run_for(seconds(30));
    let call = world.ask(0, Command::Forget(world.id(4)));
    assert_eq!(reply(&mut world, call), None, "not before it is on disk");
    world.run_for(seconds(60));
    assert!(matches!(reply(&mut world, call), Some(Reply::Forget(Ok(_)))));
    assert!((0..4).all(|host| state(&mut world, host, 4) == Some(MemberState::Forgotten)));
    world.crash(1, Unsynced::KeepAll);
    world.start(1);
    world.run_for(seconds(60));
    assert_eq!(state(&mut world, 1, 4), Some(MemberState::Forgotten), "by a restarted node too");
    world.start(4);
    world.run_for(seconds(60));
    assert!((0..4).all(|host| state(&mut world, host, 4) == Some(MemberState::Alive)));
    assert_eq!(world.failure(), None);
}

/// So many blobs, some of them deleted again, written to the hosts in turn and settled everywhere.
fn fill(world: &mut World, hosts: usize, blobs: u64) {
    for n in 0..blobs {
        world.write(usize::try_from(n).expect("few") % hosts, Wish::put(Some(blob(u128::from(n))), n, 100));
        if n % 100 == 99 {
            world.run_for(seconds(1));
        }
    }
    for n in (0..blobs).step_by(10) {
        world.write(usize::try_from(n).expect("few") % hosts, Wish::delete(blob(u128::from(n))));
    }
    world.run_for(seconds(30));
    assert_at_rest(world);
}

fn counters(world: &mut World, host: usize) -> Counters {
    let call = world.ask(host, Command::Status);
    let Some(Reply::Status(status)) = reply(world, call) else { panic!("no status") };
    status.counters
}

/// Everything that [`fill`] wrote is at that host.
fn assert_filled(world: &World, host: usize, blobs: u64) {
    for n in 0..blobs {
        let id = blob(u128::from(n));
        assert!(if n % 10 == 0 { is_deleted(&world.record(host, id)) } else { world.holds_winner(host, id) }, "blob {n}");
    }
}

#[test]
fn a_newcomer_takes_each_record_about_once_from_several_peers() {
    let (hosts, blobs) = (5, 4000);
    let mut world = network(hosts);
    fill(&mut world, hosts, blobs);
    let before: Vec<u64> = (0..hosts).map(|host| counters(&mut world, host).snapshot_pages_served).collect();
    let newcomer = world.add();
    world.start(newcomer);
    world.run_for(seconds(60));
    assert_at_rest(&world);
    assert_filled(&world, newcomer, blobs);
    let counted = counters(&mut world, newcomer);
    assert_eq!((counted.snapshots, counted.conflicts), (1, 0));
    assert!(counted.snapshot_pages >= blobs / 1024);
    assert_eq!(counted.snapshot_records, blobs, "a snapshot gives each record once");
    assert!(counted.records_received * 100 <= blobs * 105, "{} records came", counted.records_received);
    let served: Vec<u64> = (0..hosts).map(|host| counters(&mut world, host).snapshot_pages_served).collect();
    let givers = served.iter().zip(&before).filter(|(after, before)| after > before).count();
    assert!((2..=4).contains(&givers), "{givers} peers gave");
    assert_eq!(served.iter().sum::<u64>() - before.iter().sum::<u64>(), counted.snapshot_pages);
}

#[test]
fn a_newcomer_gets_everything_though_a_giver_dies() {
    let (hosts, blobs) = (3, 3000);
    let mut world = network(hosts);
    fill(&mut world, hosts, blobs);
    let newcomer = world.add();
    world.start(newcomer);
    let mut died = None;
    for _ in 0..20_000 {
        world.run_for(Duration::from_micros(500));
        if counters(&mut world, newcomer).snapshot_pages > 0 {
            died = (0..hosts).find(|host| counters(&mut world, *host).snapshot_pages_served > 0);
            break;
        }
    }
    let died = died.expect("a page came");
    world.crash(died, Unsynced::KeepAll);
    world.run_for(seconds(60));
    assert_eq!(world.failure(), None);
    assert_filled(&world, newcomer, blobs);
    let counted = counters(&mut world, newcomer);
    assert!(counted.records_received <= blobs + 1024, "what was under way may come twice, but {} came", counted.records_received);
}

#[test]
fn a_newcomer_that_crashes_goes_on_where_it_was() {
    let (hosts, blobs) = (3, 8000);
    let mut world = network(hosts);
    fill(&mut world, hosts, blobs);
    let newcomer = world.add();
    world.start(newcomer);
    let mut taken = 0;
    for _ in 0..20_000 {
        world.run_for(Duration::from_micros(500));
        taken = counters(&mut world, newcomer).snapshot_records;
        if taken > 0 {
            break;
        }
    }
    assert!((1000..blobs / 2).contains(&taken), "{taken} records are taken");
    world.crash(newcomer, Unsynced::KeepAll);
    world.start(newcomer);
    world.run_for(seconds(60));
    assert_at_rest(&world);
    assert_filled(&world, newcomer, blobs);
    let counted = counters(&mut world, newcomer);
    assert!(counted.snapshot_partitions_skipped > 10, "{} partitions were equal", counted.snapshot_partitions_skipped);
    assert!(taken + counted.records_received <= blobs * 115 / 100, "{taken} before and {} after", counted.records_received);
}

#[test]
fn a_newcomer_misses_nothing_of_what_its_peers_write_and_delete_meanwhile() {
    let (hosts, blobs) = (3, 6000);
    let mut world = network(hosts);
    fill(&mut world, hosts, blobs);
    let newcomer = world.add();
    world.start(newcomer);
    let (mut taking, mut fresh) = (0, blobs);
    for step in 0..20_000 {
        world.run_for(Duration::from_micros(200));
        let counted = counters(&mut world, newcomer);
        if counted.snapshots > 0 {
            break;
        }
        if counted.snapshot_records == 0 {
            continue;
        }
        taking += 1;
        let host = step % hosts;
        // Old blobs are deleted and written over on either side of what is taken, new ones come.
        world.write(host, Wish::delete(blob(u128::from(fresh % blobs))));
        world.write(host, Wish::put(Some(blob(u128::from((fresh * 7 + 3) % blobs))), fresh, 100));
        world.write(host, Wish::put(Some(blob(u128::from(fresh))), fresh, 100));
        fresh += 1;
    }
    assert!(taking >= 5, "writes came between the pages, {taking} times");
    world.run_for(seconds(60));
    assert_at_rest(&world);
    let records: Vec<Vec<Record>> =
        [0, newcomer].iter().map(|host| (0..fresh).map(|n| world.record(*host, blob(u128::from(n)))).collect()).collect();
    assert_eq!(records[0], records[1]);
    let counted = counters(&mut world, newcomer);
    assert_eq!(counted.snapshots, 1);
    assert!(counted.records_received <= blobs * 115 / 100, "{} records came", counted.records_received);
}
