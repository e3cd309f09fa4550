//! Runs seeds of the simulator, or tells its stories.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use gossip_cdn_sim::report::{summary, swarm};
use gossip_cdn_sim::{Plant, Settings};

/// Simulates networks of Gossip CDN nodes with every fault, and checks that nothing is lost.
#[derive(Debug, Parser)]
#[command(name = "gossip-cdn-sim")]
struct Arguments {
    /// The seed, or the first of several.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds to run, one after the other.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// How many nodes there are at the beginning; drawn from 5 to 9 if not given.
    #[arg(long)]
    nodes: Option<usize>,
    /// How many simulated seconds faults last.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many writes are tried.
    #[arg(long, default_value_t = 150)]
    writes: u64,
    /// A bug to put in, to see it caught.
    #[arg(long)]
    plant: Option<Plant>,
    /// Write down what happens.
    #[arg(long)]
    trace: bool,
    /// How many seeds run at once.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

impl Arguments {
    /// The command that runs a seed again, but for the seed.
    fn replay(&self) -> String {
        let mut replay = String::from("cargo run --release -p gossip-cdn-sim --");
        if let Some(nodes) = self.nodes {
            replay += &format!(" --nodes {nodes}");
        }
        let (seconds, writes) = (Settings::default().seconds, Settings::default().writes);
        if self.seconds != seconds {
            replay += &format!(" --seconds {}", self.seconds);
        }
        if self.writes != writes {
            replay += &format!(" --writes {}", self.writes);
        }
        if let Some(plant) = self.plant {
            replay += &format!(" --plant {plant}");
        }
        replay
    }
}

fn main() -> io::Result<ExitCode> {
    let arguments = Arguments::parse();
    let settings = Settings {
        nodes: arguments.nodes,
        seconds: arguments.seconds,
        writes: arguments.writes,
        plant: arguments.plant,
        trace: arguments.trace,
    };
    let outcomes = swarm(arguments.seed, arguments.seeds, &settings, arguments.threads);
    let mut out = io::stdout().lock();
    for outcome in &outcomes {
        out.write_all(outcome.transcript.as_bytes())?;
    }
    out.write_all(summary(&outcomes, &arguments.replay()).as_bytes())?;
    let passed = outcomes.iter().all(|outcome| outcome.failure.is_none());
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
