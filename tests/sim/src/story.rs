//! Stories: short histories of a calm world, written down line by line and kept as golden transcripts.
//!
//! A change of the protocol shows as a change of their text, which a person can read. They are told again with
//! `cargo run -p gossip-cdn-sim -- story --bless`.

use std::time::Duration;

use gossip_cdn_protocol::BlobId;

use crate::client::Wish;
use crate::world::World;

/// A history worth reading.
#[derive(Debug, Clone, Copy)]
pub struct Story {
    /// The name of its transcript.
    pub name: &'static str,
    tell: fn(&mut World),
}

/// All stories.
pub const STORIES: [Story; 2] = [Story { name: "two_nodes", tell: two_nodes }, Story { name: "three_nodes", tell: three_nodes }];

impl Story {
    /// Tells it.
    pub fn transcript(self) -> String {
        let mut world = World::calm(1, true);
        (self.tell)(&mut world);
        let end = world.failure().or(world.gap().as_ref()).map_or_else(|| "at rest\n".into(), |what| format!("NOT AT REST: {what}\n"));
        world.transcript().text().to_owned() + &end
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn blob(n: u128) -> BlobId {
    BlobId(uuid::Uuid::from_u128(n << 112))
}

/// Two nodes meet at the bootstrap node; one stores a blob on both; the other deletes it; the first is killed and comes back.
fn two_nodes(world: &mut World) {
    let (first, second) = (world.add(), world.add());
    world.start(first);
    world.run_for(millis(100));
    world.start(second);
    world.run_for(millis(1500));
    world.write(first, Wish::put(Some(blob(1)), 1, 1000).copies(2, Duration::from_secs(5)));
    world.run_for(millis(1000));
    world.crash(first, crate::world::Unsynced::KeepAll);
    world.write(second, Wish::delete(blob(1)));
    world.run_for(millis(1000));
    world.start(first);
    world.run_for(millis(2500));
}

/// One of three nodes is cut off while both sides write the same blob; both versions live until a later write covers them.
fn three_nodes(world: &mut World) {
    let nodes = [world.add(), world.add(), world.add()];
    nodes.into_iter().for_each(|node| world.start(node));
    world.run_for(millis(1500));
    world.write(nodes[0], Wish::put(Some(blob(1)), 1, 1000));
    world.run_for(millis(500));
    let cut = world.split([nodes[2]]);
    world.write(nodes[0], Wish::put(Some(blob(1)), 2, 2000));
    world.run_for(millis(100));
    world.write(nodes[2], Wish::put(Some(blob(1)), 4, 4000));
    world.run_for(millis(2400));
    world.mend(cut);
    world.run_for(millis(3000));
    world.write(nodes[1], Wish::put(Some(blob(1)), 7, 7000));
    world.run_for(millis(1000));
}
