//! How fast bytes come out of a node and go in, beside nginx on the same machine in the same minutes.
//!
//! 1. What is measured is the release binary beside this one, as it is shipped: every header, the log at `info` into a file, what is counted counted.
//! 2. Peer and node are given the same load by the same program, in turn; a figure is the median of the turns.
//! 3. A goal that is missed is a figure. A request that failed is an error, and the exit code is 1.
//! 4. Every process that was started is ended, and every folder removed, after a failure and Ctrl-C too.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock, and waits on threads of its own")]

mod bytes;
mod connections;
mod load;
mod memory;
mod nginx;
mod plain;
mod rows;
mod served;
mod table;

use std::panic::catch_unwind;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::table::Failed;

/// Measures the release binaries: `cargo build --release -p gossip-cdn -p gossip-cdn-benches`, or all in one with `benches/run`.
#[derive(Debug, Parser)]
#[command(name = "gossip-cdn-benches")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Downloads and uploads, beside nginx of the system's package and `dd`. Needs wrk, nginx, and 16 GB of disk.
    Bytes(Bytes),
    /// Ten thousand idle connections, slow readers and slow writers, and how long others wait meanwhile. Needs twice as many open files, half of them in
    /// a process of its own.
    Connections(connections::Connections),
    /// Ten uploads and ten downloads of 1 GiB at once, and one upload of 10 GiB: how much memory a node has meanwhile. Needs 13 GiB of disk.
    Memory(memory::Memory),
    /// Holds connections open; what `connections` starts.
    #[command(hide = true)]
    Hold {
        /// Host and port.
        authority: String,
        /// How many.
        count: usize,
    },
}

/// How long, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Bytes {
    /// Rows whose name begins so, in any case of letters; all without one.
    pub(crate) rows: Option<String>,
    /// The folder to work in, on the disk that is meant; it is left as it was.
    #[arg(long, default_value = ".")]
    pub(crate) data: PathBuf,
    /// How often each of the two has its turn.
    #[arg(long, default_value_t = 5)]
    pub(crate) pairs: usize,
    /// How long a turn takes, in seconds.
    #[arg(long, default_value_t = 4)]
    pub(crate) seconds: u64,
    /// Connections of the load.
    #[arg(long, default_value_t = 32)]
    pub(crate) connections: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    gossip_cdn_cluster::interruption::heed();
    let measured = catch_unwind(|| match arguments.what {
        What::Bytes(bytes) => bytes::measure(&bytes).and_then(|table| table.print()),
        What::Connections(connections) => connections::measure(&connections),
        What::Memory(memory) => memory::measure(&memory),
        What::Hold { authority, count } => connections::hold(&authority, count),
    });
    // What the harness cannot go on from is a panic; it has been told by then, and all is ended on the way here.
    let Ok(measured) = measured else { return ExitCode::FAILURE };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(why)) => {
            table::remark(&why);
            ExitCode::FAILURE
        }
    }
}
