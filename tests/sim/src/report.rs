//! The swarm: many seeds, one summary.

use std::fmt::Write;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::faults::{Plan, Tally};
use crate::meter::Report;
use crate::world::{Settings, World};

/// What became of a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The rule it broke, if it broke one.
    pub failure: Option<String>,
    /// Events handled.
    pub events: u64,
    /// Writes tried.
    pub tried: u64,
    /// Writes acknowledged.
    pub acknowledged: u64,
    /// Faults that acted.
    pub tally: Tally,
    /// What it cost.
    pub report: Report,
    /// What happened, if it was traced.
    pub transcript: String,
}

/// Runs one seed.
pub fn simulate(seed: u64, settings: &Settings) -> Outcome {
    let mut world = World::new(seed, settings.clone(), Plan::draw);
    // A core that breaks its own assertions is a finding like any other: it must not take the other seeds with it.
    let ran = std::panic::catch_unwind(AssertUnwindSafe(|| world.swarm()));
    let broken = ran.err().map(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        format!("panicked: {}", text.unwrap_or("without a word"))
    });
    let (events, tried, acknowledged) = world.totals();
    Outcome {
        seed,
        failure: broken.or(world.failure().cloned()),
        events,
        tried,
        acknowledged,
        tally: world.tally().clone(),
        report: world.report(),
        transcript: world.transcript().text().to_owned(),
    }
}

/// Runs `count` seeds from `first` on, on so many threads; the outcomes come in the order of the seeds.
pub fn swarm(first: u64, count: u64, settings: &Settings, threads: usize) -> Vec<Outcome> {
    let next = AtomicU64::new(0);
    let work = || {
        let mut outcomes = Vec::new();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                return outcomes;
            }
            outcomes.push(simulate(first + n, settings));
        }
    };
    let mut outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    outcomes.sort_by_key(|outcome| outcome.seed);
    outcomes
}

/// The summary of a swarm; `replay` is how a seed is run again, but for its number.
pub fn summary(outcomes: &[Outcome], replay: &str) -> String {
    let mut tally = Tally::default();
    outcomes.iter().for_each(|outcome| tally.add(&outcome.tally));
    let total = |count: fn(&Outcome) -> u64| outcomes.iter().map(count).sum::<u64>();
    let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.failure.is_some()).collect();
    let mut text = String::new();
    for outcome in &failed {
        let what = outcome.failure.as_deref().unwrap_or_default();
        let written = writeln!(text, "seed {} failed: {what}\n  again: {replay} --seed {}", outcome.seed, outcome.seed);
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
    }
    let (events, tried, acknowledged) =
        (total(|outcome| outcome.events), total(|outcome| outcome.tried), total(|outcome| outcome.acknowledged));
    text + &format!(
        "seeds {}, failed {}\nevents {events}\nwrites {tried}, acknowledged {acknowledged}\nfaults that acted: {tally}\n",
        outcomes.len(),
        failed.len()
    )
}
