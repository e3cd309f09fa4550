//! Measures the real binaries: each subcommand starts what it needs, prints rows of a table, figure beside goal, and ends all of it.
//!
//! 1. What is measured are the binaries beside this one, built by whoever asks. Figures of a debug build are worth nothing.
//! 2. Every process that was started is ended by its id, and every folder removed, also after a failure, Ctrl-C or a polite kill.
//! 3. Networks are namespaces of the kernel that nobody can name: they are gone with the last process in them.
//! 4. A goal that is missed is a figure. A claim that is broken (something lost, bytes that differ) is an error, and the exit code is 1.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

mod agreement;
mod assembly;
mod bare;
mod chronicle;
mod client;
mod cost;
mod crowd;
mod cut;
mod decisions;
mod differences;
mod etcd;
mod filling;
mod histories;
mod idle;
mod lan;
mod latecomer;
mod load;
mod minority;
mod namespaces;
mod newcomer;
mod pair;
mod payload;
mod processes;
mod report;
mod restored;
mod speakers;
mod spread;
mod start;
mod succession;
mod tombstones;
mod voices;
mod waiting;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::report::{Broken, Report};

/// Measures the release binaries of Gossip CDN: build them first, with `cargo build --release --workspace`.
#[derive(Debug, Parser)]
#[command(name = "gossip-cdn-figures")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// From the answer at one node to readable at all three.
    Spread {
        /// How many blobs of 1 KiB.
        #[arg(long, default_value_t = 1000)]
        writes: u64,
    },
    /// Bytes between two nodes that have nothing to tell each other. Needs root.
    Idle {
        /// How many records both have, one number after the other.
        #[arg(long, value_delimiter = ',', default_value = "1000,1000000")]
        records: Vec<u64>,
        /// How long it is listened to, in seconds.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
    },
    /// The cost of finding where two nodes differ. Needs root.
    Differences {
        /// How many records both have.
        #[arg(long, default_value_t = 1_000_000)]
        records: u64,
        /// Differences to make and to find, one number after the other.
        #[arg(long, value_delimiter = ',', default_value = "1,100,2000")]
        differences: Vec<u64>,
    },
    /// A start after kill -9.
    Start {
        /// How many blobs of 1 KiB.
        #[arg(long, default_value_t = 1_000_000)]
        records: u64,
    },
    /// What a delete leaves on disk.
    Tombstones {
        /// How many deletes.
        #[arg(long, default_value_t = 100_000)]
        count: u64,
    },
    /// An empty node joins a full one; then again, killed halfway. The full one is killed too and starts again.
    Newcomer {
        /// How many records.
        #[arg(long, default_value_t = 1_000_000)]
        records: u64,
    },
    /// Two halves of a network that cannot reach each other, and their reunion. Needs root.
    Cut {
        /// Writes and deletes of each side.
        #[arg(long, default_value_t = 10_000)]
        writes: u64,
        /// How long they are apart at least, in seconds.
        #[arg(long, default_value_t = 90)]
        seconds: u64,
    },
    /// Many nodes, of which a third is killed and started again while writes go on.
    Crowd {
        /// How many nodes.
        #[arg(long, default_value_t = 25)]
        nodes: usize,
        /// How long is written, in seconds.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
    },
    /// A large payload on its way to two newcomers while one of its three holders dies, and one of them, which is started again. Needs root,
    /// and disk for six times its size.
    Payload {
        /// Its size.
        #[arg(long, default_value_t = 1024)]
        mebibytes: u64,
    },
    /// Heartbeats on a segment: meeting, and suspicion of one that stands still. Needs root.
    Lan {
        /// How often.
        #[arg(long, default_value_t = 10)]
        times: u64,
    },
    /// A node put back from an old copy of its folder, with and without --restored.
    Restored,
    /// Messages at five nodes, of which two die and come back and one is cut off; what the five histories say afterwards. Needs root.
    Chronicle {
        /// How many clients, all nodes in turn.
        #[arg(long, default_value_t = 20)]
        clients: usize,
        /// How long they speak, in seconds.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
    },
    /// A sixth node joins when there is much to be read.
    Latecomer {
        /// How many messages.
        #[arg(long, default_value_t = 100_000)]
        messages: u64,
    },
    /// Ordered messages a second, and one client's latency, beside etcd. Needs etcd of the package etcd-server.
    Decisions {
        /// How many clients, all nodes in turn.
        #[arg(long, default_value_t = 192)]
        clients: usize,
        /// How long they are counted, in seconds.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// How often each of the two has its turn.
        #[arg(long, default_value_t = 3)]
        turns: usize,
    },
    /// Two of three nodes are down for a while; what the third one takes waits, and shows, and is delivered with the help of one that comes back.
    Minority {
        /// How long they are down, in minutes.
        #[arg(long, default_value_t = 3)]
        minutes: u64,
    },
    /// The coordinator of ordered messages is killed again and again.
    Succession {
        /// How often.
        #[arg(long, default_value_t = 100)]
        times: u64,
    },
}

fn measure(what: What) -> Result<Report, Broken> {
    match what {
        What::Spread { writes } => spread::measure(writes),
        What::Idle { records, seconds } => idle::measure(&records, seconds),
        What::Differences { records, differences } => differences::measure(records, &differences),
        What::Start { records } => start::measure(records),
        What::Tombstones { count } => tombstones::measure(count),
        What::Newcomer { records } => newcomer::measure(records),
        What::Cut { writes, seconds } => cut::measure(writes, seconds),
        What::Crowd { nodes, seconds } => crowd::measure(nodes, seconds),
        What::Payload { mebibytes } => payload::measure(mebibytes),
        What::Lan { times } => lan::measure(times),
        What::Restored => restored::measure(),
        What::Chronicle { clients, seconds } => chronicle::measure(clients, Duration::from_secs(seconds)),
        What::Latecomer { messages } => latecomer::measure(messages),
        What::Decisions { clients, seconds, turns } => decisions::measure(clients, Duration::from_secs(seconds), turns),
        What::Minority { minutes } => minority::measure(Duration::from_secs(60 * minutes)),
        What::Succession { times } => succession::measure(times),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    gossip_cdn_cluster::interruption::heed();
    // What the harness cannot go on from is a panic; it has been told on standard error by then, and all is ended on the way here.
    let broken = match catch_unwind(|| measure(arguments.what)) {
        Ok(Ok(report)) => report.print(),
        Ok(Err(broken)) => Err(broken),
        Err(_) => return ExitCode::FAILURE,
    };
    match broken {
        Ok(()) => ExitCode::SUCCESS,
        Err(broken) => {
            report::remark(&broken.to_string());
            ExitCode::FAILURE
        }
    }
}
