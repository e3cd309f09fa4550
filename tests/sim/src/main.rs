//! Runs seeds of the simulator, or tells its stories.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use gossip_cdn_sim::figures::Figure;
use gossip_cdn_sim::plant::ENOUGH;
use gossip_cdn_sim::report::{summary, swarm};
use gossip_cdn_sim::story::STORIES;
use gossip_cdn_sim::{Plant, Report, Settings};

/// Simulates networks of Gossip CDN nodes with every fault, and checks that nothing is lost.
#[derive(Debug, Parser)]
#[command(name = "gossip-cdn-sim", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
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
    /// Weigh messages, and print what each seed, and all together, cost.
    #[arg(long)]
    report: bool,
    /// How many seeds run at once.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures large and long-lived networks, and prints each figure beside its goal. Fails if a goal is missed.
    Figures {
        /// Which; all if none is named.
        figures: Vec<Figure>,
    },
    /// Puts in one planted bug after the other, and prints how many seeds it takes to notice it.
    Plants {
        /// Which; all that this build can put in if none is named.
        plants: Vec<Plant>,
    },
    /// Tells the stories of which transcripts are kept.
    Story {
        /// Write the transcripts to be kept, rather than show them.
        #[arg(long)]
        bless: bool,
        /// Where they are kept.
        #[arg(long, default_value = "tests/sim/transcripts")]
        folder: PathBuf,
    },
}

fn tell(bless: bool, folder: &Path) -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    for story in STORIES {
        if bless {
            std::fs::write(folder.join(format!("{}.txt", story.name)), story.transcript())?;
        } else {
            writeln!(out, "{}\n{}", story.name, story.transcript())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(figures: &[Figure]) -> io::Result<ExitCode> {
    let figures = if figures.is_empty() { &Figure::ALL } else { figures };
    let mut all_missed = 0;
    for figure in figures {
        let (text, missed) = figure.measure();
        io::stdout().lock().write_all(text.as_bytes())?;
        all_missed += missed;
    }
    Ok(if all_missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Fails if one of them goes unnoticed.
fn plant(plants: Vec<Plant>) -> io::Result<ExitCode> {
    // A core that breaks its own assertions is a finding, which is told below.
    std::panic::set_hook(Box::new(|_| {}));
    let plants = if plants.is_empty() { Plant::all() } else { plants };
    let mut out = io::stdout().lock();
    let mut unnoticed = 0;
    for plant in &plants {
        match plant.caught() {
            Some((1, what)) => writeln!(out, "{plant}: 1 seed, {what}")?,
            Some((seeds, what)) => writeln!(out, "{plant}: {seeds} seeds, {what}")?,
            None => {
                unnoticed += 1;
                writeln!(out, "{plant}: UNNOTICED by {ENOUGH} seeds")?;
            }
        }
    }
    writeln!(out, "{} bugs, {} noticed", plants.len(), plants.len() - unnoticed)?;
    Ok(if unnoticed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
    match &arguments.command {
        Some(Command::Plants { plants }) => return plant(plants.clone()),
        Some(Command::Story { bless, folder }) => return tell(*bless, folder),
        Some(Command::Figures { figures }) => return measure(figures),
        None => {}
    }
    let settings = Settings {
        nodes: arguments.nodes,
        seconds: arguments.seconds,
        writes: arguments.writes,
        plant: arguments.plant,
        trace: arguments.trace,
        weigh: arguments.report,
    };
    let outcomes = swarm(arguments.seed, arguments.seeds, &settings, arguments.threads);
    let mut out = io::stdout().lock();
    for outcome in &outcomes {
        out.write_all(outcome.transcript.as_bytes())?;
        if arguments.report && outcomes.len() > 1 {
            write!(out, "seed {}\n{}", outcome.seed, outcome.report)?;
        }
    }
    if arguments.report {
        let mut all = Report::default();
        outcomes.iter().for_each(|outcome| all.merge(&outcome.report));
        write!(out, "all seeds\n{all}")?;
    }
    out.write_all(summary(&outcomes, &arguments.replay()).as_bytes())?;
    let passed = outcomes.iter().all(|outcome| outcome.failure.is_none());
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
