//! Figures: what the design promises of networks too large, or of times too long, for real processes; each beside its goal.
//!
//! Every figure comes from one world of one seed with the model it names; the same commit prints the same bytes.

mod messages;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::str::FromStr;
use std::time::Duration;

use gossip_cdn_protocol::BlobId;
use gossip_cdn_protocol::history::message::Channel;
use gossip_cdn_protocol::wire::Kind;

use crate::client::Wish;
use crate::faults::Cpu;
use crate::meter::{Report, Samples, ratio, seconds};
use crate::network::Latency;
use crate::world::{Model, Unsynced, World};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// How fast a record reaches 1000 nodes, and in how many copies.
    Spread,
    /// How fast a failure is noticed among 1000 nodes.
    Detection,
    /// How many running nodes of 1000 are believed dead within an hour of a lossy network.
    FalseDeaths,
    /// What 1000 nodes say to each other that have nothing to say.
    Idle,
    /// What finding few, and many, differences in 1,000,000 records costs.
    Difference,
    /// How fast two halves agree that were cut apart and wrote.
    Cut,
    /// Whether months apart, or years away, lose anything or bring anything back.
    Apart,
    /// In how many rounds a causal message reaches 1000 nodes.
    Broadcast,
    /// What 25 nodes far from each other say to each other for each operation of their clients, and how long deliveries take.
    Batches,
}

/// How a figure is told.
type Teller = fn(&mut Table);

impl Figure {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Spread,
        Self::Detection,
        Self::FalseDeaths,
        Self::Idle,
        Self::Difference,
        Self::Cut,
        Self::Apart,
        Self::Broadcast,
        Self::Batches,
    ];

    /// As it is named on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spread => "spread",
            Self::Detection => "detection",
            Self::FalseDeaths => "false-deaths",
            Self::Idle => "idle",
            Self::Difference => "difference",
            Self::Cut => "cut",
            Self::Apart => "apart",
            Self::Broadcast => "broadcast",
            Self::Batches => "batches",
        }
    }

    /// Measures it: the figures beside their goals, and how many goals were missed.
    pub fn measure(self) -> (String, u64) {
        let tell: Teller = match self {
            Self::Spread => spread,
            Self::Detection => detection,
            Self::FalseDeaths => false_deaths,
            Self::Idle => idle,
            Self::Difference => difference,
            Self::Cut => cut,
            Self::Apart => apart,
            Self::Broadcast => messages::broadcast,
            Self::Batches => messages::batches,
        };
        let mut table = Table { text: format!("{}\n", self.name()), missed: 0 };
        tell(&mut table);
        (table.text, table.missed)
    }
}

impl FromStr for Figure {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|figure| figure.name() == text).ok_or_else(|| format!("no such figure; there are: {}", all()))
    }
}

/// Figures beside their goals.
struct Table {
    text: String,
    missed: u64,
}

impl Table {
    fn line(&mut self, what: std::fmt::Arguments<'_>) {
        let written = writeln!(self.text, "  {what}");
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
    }

    /// What is no figure and is not as it must be.
    fn missed(&mut self, what: std::fmt::Arguments<'_>) {
        self.missed += 1;
        self.line(what);
    }

    /// A figure that must not exceed its goal.
    fn at_most(&mut self, what: &str, figure: u64, goal: u64, shown: fn(u64) -> String, unit: &str) {
        let verdict = if figure <= goal { "met" } else { "MISSED" };
        self.missed += u64::from(figure > goal);
        self.line(format_args!("{what}: {}{unit}, goal {}{unit}: {verdict}", shown(figure), shown(goal)));
    }

    fn time(&mut self, what: &str, micros: u64, goal_millis: u64) {
        self.at_most(what, micros, goal_millis * 1000, seconds, " s");
    }

    fn bytes(&mut self, what: &str, bytes: u64, goal: u64) {
        self.at_most(what, bytes, goal, |bytes| bytes.to_string(), " B");
    }

    /// What must hold at the end of every run.
    fn sound(&mut self, world: &World) {
        if let Some(failure) = world.failure() {
            self.missed(format_args!("BROKEN: {failure}"));
        }
    }

    /// Which kinds of call it took.
    fn calls(&mut self, report: &Report) {
        for (kind, traffic) in &report.calls {
            let (calls, bytes) = (traffic.calls, traffic.bytes());
            self.line(format_args!("  {}: {calls} calls, {bytes} B, {} B a call", kind.name(), bytes / calls.max(1)));
        }
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const MANY: usize = 1000;
/// 50 ms one way.
const FAR: Latency = Latency::Constant(50_000);

fn many(loss: u32) -> World {
    let mut world = World::modelled(1, Model { latency: FAR, loss, bootstrap: false, ..Model::default() });
    world.acquainted(MANY);
    world.run_for(secs(10));
    world.reset_report();
    world
}

fn spread(table: &mut Table) {
    for (loss, goals) in [(0, [500, 1500, 4000]), (200, [700, 3000, 6000])] {
        let (mut world, writes) = (many(loss), 5);
        for n in 0..writes {
            world.write(usize::try_from(n * 97).unwrap_or(0), Wish::put(None, n, 1024));
            world.run_for(secs(12));
        }
        let report = world.report();
        table.line(format_args!("{MANY} nodes, 50 ms one way, {} % of messages lost, {writes} writes of 1 KiB", loss / 10));
        times(table, "record", &report.spread, goals);
        let wanted = writes * (MANY as u64 - 1);
        table.at_most("nodes that did not get it", wanted.saturating_sub(report.needed), 0, |count| count.to_string(), "");
        table.at_most("record copies for each one needed", report.copies * 100 / report.needed.max(1), 500, |c| ratio(c, 100), "");
        table.at_most(
            "payload bytes for each one stored",
            report.payload_received * 100 / report.payload_stored.max(1),
            105,
            |c| ratio(c, 100),
            "",
        );
        table.calls(&report);
        table.sound(&world);
    }
}

fn times(table: &mut Table, what: &str, samples: &Samples, goals: [u64; 3]) {
    let found = [("p50", samples.percentile(50)), ("p99", samples.percentile(99)), ("all", samples.greatest())];
    for ((name, micros), goal) in found.into_iter().zip(goals) {
        table.time(&format!("{what}, {name}"), micros, goal);
    }
}

fn detection(table: &mut Table) {
    for silent in [true, false] {
        detect(table, silent);
    }
}

/// A host that is gone answers nothing; one whose process was killed refuses connections, and is noticed sooner.
fn detect(table: &mut Table, silent: bool) {
    let (mut world, kills) = (many(0), 20);
    for n in 0..kills {
        if silent {
            world.split([n * 47]);
        }
        world.crash(n * 47, Unsynced::KeepAll);
        world.run_for(secs(45));
    }
    let report = world.report();
    let how = if silent { "hosts vanish" } else { "processes are killed, their hosts refuse" };
    table.line(format_args!("{MANY} nodes, 50 ms one way, {kills} {how}, one after the other"));
    for (what, samples, goal) in
        [("suspected", &report.suspected, 4000), ("dead", &report.dead, 10_000), ("known to all", &report.known, 13_000)]
    {
        table.time(&format!("{what}, median"), samples.percentile(50), goal);
        let (most, all) = (seconds(samples.percentile(99)), seconds(samples.greatest()));
        table.line(format_args!("  p99 {most} s, all {all} s, noticed {} of {kills}", samples.count()));
    }
    table.line(format_args!("false suspicions {}, false deaths {}", report.false_suspicions, report.false_deaths));
    table.sound(&world);
}

fn false_deaths(table: &mut Table) {
    let mut world = many(50);
    world.run_for(secs(3600));
    let report = world.report();
    table.line(format_args!("{MANY} nodes, 50 ms one way, 5 % of messages lost, one hour"));
    table.at_most("false deaths", report.false_deaths, 0, |count| count.to_string(), "");
    table.line(format_args!("false suspicions {}, refutations {}", report.false_suspicions, report.refutations));
    table.line(format_args!("bytes a node and second {}", ratio(report.bytes(), report.node_seconds)));
    table.calls(&report);
    table.sound(&world);
}

fn idle(table: &mut Table) {
    let mut world = World::modelled(1, Model { latency: FAR, bootstrap: false, ..Model::default() });
    world.founds(0);
    world.acquainted(MANY);
    world.run_for(secs(60));
    world.say(0, Channel::Causal, None);
    world.run_for(secs(10));
    world.reset_report();
    world.run_for(secs(60));
    let report = world.report();
    let exchange = report.traffic(Kind::Exchange);
    table.line(format_args!("{MANY} nodes in one message history, no writes, one minute; heads as measured at the real node"));
    table.bytes("an exchange, both ways", exchange.bytes() / exchange.calls.max(1), 512);
    table.bytes("a node and second", report.bytes() / report.node_seconds.max(1), 1024);
    table.calls(&report);
    table.sound(&world);
    for records in [1000, RECORDS] {
        idle_with(table, records);
    }
}

fn idle_with(table: &mut Table, records: u32) {
    let mut world = World::modelled(1, Model { bootstrap: false, ..Model::default() });
    world.founds(0);
    world.acquainted(3);
    world.lay_over(records);
    world.run_for(secs(10));
    world.reset_report();
    world.run_for(secs(60));
    let exchange = world.report().traffic(Kind::Exchange);
    table.bytes(&format!("an exchange, both ways, of nodes with {records} records"), exchange.bytes() / exchange.calls.max(1), 512);
    table.sound(&world);
}

/// Differences, the most bytes for finding them, and the most calls.
const DIFFERENCES: [(u64, u64, u64); 6] =
    [(1, 2 << 10, 1), (100, 12 << 10, 10), (600, 600 * 64, 10), (2000, 2000 * 64, 10), (2800, 2800 * 64, 10), (50_000, 4 << 20, 10)];
const RECORDS: u32 = 1_000_000;
/// Between the two, in microseconds; whatever else takes time here is less by far.
const ROUND_TRIP: u64 = 100_000;
/// From so many on the heads of the calls that carry records are few beside the records.
const MANY_RECORDS: u64 = 10_000;

fn difference(table: &mut Table) {
    for (count, most_bytes, most_calls) in DIFFERENCES {
        let latency = Latency::Constant(ROUND_TRIP / 2);
        let mut world = World::modelled(1, Model { latency, bootstrap: false, ..Model::default() });
        world.acquainted(2);
        world.lay_over(RECORDS);
        world.run_for(secs(3));
        world.crash(1, Unsynced::KeepAll);
        world.run_for(secs(60));
        for n in 0..count {
            world.write(0, Wish::put(None, n, 1024));
            world.run_for(Duration::from_millis(u64::from(n % 100 == 99) * 50));
        }
        world.run_for(secs(5));
        world.reset_report();
        // The other one looks too, when it hears that this one is back: that is a second finding.
        world.count_alone(1);
        world.start(1);
        let began = world.now();
        while !world.roots_agree() && world.now() < began + 600_000_000 && world.failure().is_none() {
            world.run_for(Duration::from_millis(1));
        }
        let report = world.report();
        table.line(format_args!("{count} differences in {RECORDS} records, found and given in {} s", seconds(world.now() - began)));
        if !world.roots_agree() {
            table.missed(format_args!("MISSED: not equal after ten minutes"));
        }
        let (finding, transfer) = found_and_given(&report);
        let json = world.weight_of_records(0);
        table.bytes("finding", finding.1, most_bytes);
        // The exchange that began it, and then as many calls as there was time for, one after the other.
        let sequential = world.searched_until().saturating_sub(began) / ROUND_TRIP;
        table.at_most("calls to find them, one after the other", sequential.max(1), most_calls, |calls| calls.to_string(), "");
        table.line(format_args!("records themselves: {} calls, {} B, {} B each", transfer.0, transfer.1, transfer.1 / count));
        if count >= MANY_RECORDS {
            table.at_most("their bytes for each one of their JSON", transfer.1 * 100 / json.max(1), 110, |c| ratio(c, 100), "");
        }
        table.calls(&report);
        table.sound(&world);
    }
}

/// Calls and bytes of what finds a difference, and of what carries the records.
fn found_and_given(report: &Report) -> ((u64, u64), (u64, u64)) {
    let sum = |carries: bool| {
        let chosen = report.calls.iter().filter(|(kind, _)| kind_of(**kind) == Some(carries));
        chosen.fold((0, 0), |(calls, bytes), (_, traffic)| (calls + traffic.calls, bytes + traffic.bytes()))
    };
    (sum(false), sum(true))
}

/// Whether a kind of call carries records; `None` of what has to do with neither finding nor giving.
fn kind_of(kind: Kind) -> Option<bool> {
    match kind {
        Kind::Records | Kind::Snapshot | Kind::Rumors => Some(true),
        Kind::Exchange | Kind::Cells | Kind::Partitions | Kind::Sketches | Kind::Items => Some(false),
        Kind::Members | Kind::Receipts | Kind::Holds | Kind::Probe | Kind::History => None,
    }
}

fn cut(table: &mut Table) {
    let cpu = Cpu { per_message: 50, bytes_per_micro: 50 };
    let model = Model { latency: Latency::Constant(10_000), bandwidth: Some(125), cpu: Some(cpu), bootstrap: false, ..Model::default() };
    let (nodes, writes) = (20, 10_000);
    let mut world = World::modelled(1, model);
    world.acquainted(nodes);
    world.run_for(secs(10));
    let side: BTreeSet<usize> = (0..nodes / 2).collect();
    let cut = world.split(side.clone());
    world.run_for(secs(120));
    for n in 0..writes {
        let host = usize::try_from(n).unwrap_or(0) % (nodes / 2);
        world.write(host, Wish::put(None, 2 * n + 1, 1024));
        world.write(host + nodes / 2, Wish::put(None, 2 * n + 2, 1024));
        world.run_for(Duration::from_millis(20));
    }
    world.run_for(secs(60));
    world.reset_report();
    world.mend(cut);
    let mended = world.now();
    let limit = mended + 600_000_000;
    let wait = |world: &mut World, step: u64, done: &dyn Fn(&World) -> bool| {
        while !done(world) && world.now() < limit && world.failure().is_none() {
            world.run_for(Duration::from_millis(step));
        }
        world.now()
    };
    wait(&mut world, 10, &|world| world.met_across(&side).is_some());
    let met = world.met_across(&side).unwrap_or(limit);
    let merged = wait(&mut world, 100, &World::roots_agree);
    let here = wait(&mut world, 500, &|world| world.gap().is_none());
    table.line(format_args!("{nodes} nodes in two halves, {writes} writes of 1 KiB a side, cut for over five minutes"));
    table.line(format_args!("10 ms one way, 125 B a microsecond out of each node, 50 microseconds a message and one for 50 B"));
    table.time("first exchange across", met - mended, 60_000);
    table.time("records merged, after that", merged.saturating_sub(met), 10_000);
    table.time("payloads everywhere, after that", here.saturating_sub(merged), 10_000);
    if let Some(gap) = world.gap() {
        table.missed(format_args!("MISSED: after ten minutes {gap}"));
    }
    let report = world.report();
    table.at_most(
        "payload bytes for each one stored",
        report.payload_received * 100 / report.payload_stored.max(1),
        105,
        |c| ratio(c, 100),
        "",
    );
    table.at_most("record copies for each one needed", report.copies * 100 / report.needed.max(1), 500, |c| ratio(c, 100), "");
    table.calls(&report);
    table.sound(&world);
}

const DAY: i64 = 86_400_000;

fn blob(n: u64) -> BlobId {
    BlobId(uuid::Uuid::from_u128(u128::from(n) << 64 | 1))
}

/// Lets everybody come to rest; says how long it took, or what is missing.
fn rest(table: &mut Table, world: &mut World, what: &str) {
    let began = world.now();
    while world.gap().is_some() && world.now() < began + 600_000_000 && world.failure().is_none() {
        world.run_for(Duration::from_millis(500));
    }
    match world.gap() {
        Some(gap) => table.missed(format_args!("{what}: MISSED, {gap}")),
        None => table.line(format_args!("{what}: nothing lost, nothing back, at rest after {} s", seconds(world.now() - began))),
    }
    table.sound(world);
}

/// 500 blobs, of which each side deletes a fifth, writes over a fifth, and leaves the rest; and as many new ones.
fn write_apart(world: &mut World, sides: &[usize]) {
    for (side, host) in sides.iter().enumerate() {
        let side = side as u64;
        for n in 0..200 {
            let seed = 10_000 * (side + 1) + n;
            let wish = match n {
                0..100 => Wish::delete(blob(side * 50 + n)),
                100..150 => Wish::put(Some(blob(200 + side * 25 + n)), seed, 1000),
                _ => Wish::put(None, seed, 1000),
            };
            world.write(*host, wish);
            world.run_for(Duration::from_millis(20));
        }
    }
}

fn apart(table: &mut Table) {
    let mut world = World::modelled(1, Model { bootstrap: false, ..Model::default() });
    world.acquainted(8);
    world.run_for(secs(5));
    for n in 0..500 {
        world.write(usize::try_from(n % 8).unwrap_or(0), Wish::put(Some(blob(n)), n, 1000));
        world.run_for(Duration::from_millis(10));
    }
    rest(table, &mut world, "500 blobs on 8 nodes");
    let cut = world.split(0..4);
    for _ in 0..3 {
        world.run_for(secs(600));
        world.leap(60 * DAY);
        write_apart(&mut world, &[1, 6]);
    }
    world.run_for(secs(600));
    world.mend(cut);
    rest(table, &mut world, "two groups, cut for six months by their clocks, both writing and deleting");
    world.crash(7, Unsynced::KeepAll);
    world.run_for(secs(600));
    write_apart(&mut world, &[0]);
    world.leap(5 * 365 * DAY);
    world.run_for(secs(600));
    world.start(7);
    rest(table, &mut world, "a node, away for five years by the clocks");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a figure of which no goal may be missed tells.
    pub(super) fn held(figure: Figure) -> String {
        let (told, missed) = figure.measure();
        assert_eq!(missed, 0, "{told}");
        told
    }

    #[test]
    fn months_apart_and_years_away_lose_nothing_and_bring_nothing_back() {
        let told = held(Figure::Apart);
        assert!(told.lines().count() == 4 && told.lines().skip(1).all(|line| line.contains("nothing lost")), "{told}");
    }

    #[test]
    fn a_goal_is_met_or_missed() {
        let mut table = Table { text: String::new(), missed: 0 };
        table.time("fast", 500_000, 500);
        table.bytes("large", 513, 512);
        assert_eq!(table.text, "  fast: 0.50 s, goal 0.50 s: met\n  large: 513 B, goal 512 B: MISSED\n");
        assert_eq!(table.missed, 1);
    }
}
