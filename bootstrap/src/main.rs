//! `gossip-cdn-bootstrap`: starts a bootstrap node and stops it at SIGINT or SIGTERM.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use gossip_cdn_bootstrap::{Config, StartError};
use gossip_cdn_shell::logging::{self, LogFormat, LoggingError};
use gossip_cdn_shell::signals;

/// Remembers the members of a Gossip CDN network and introduces newcomers.
#[derive(Debug, Parser)]
#[command(version, after_help = "Example:\n  gossip-cdn-bootstrap --listen 127.0.0.1:7700 --data ./bootstrap")]
struct Flags {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7700")]
    listen: SocketAddr,
    /// Folder of the registry; made if it is not there
    #[arg(long, value_name = "DIR", default_value = "./gossip-cdn-data/bootstrap")]
    data: PathBuf,
    /// Name of the cluster; nodes of another one are refused
    #[arg(long, value_name = "NAME", default_value = "gossip-cdn")]
    cluster: String,
    /// Name it may be spoken to by, beside IP addresses and localhost; may be given again
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// How the log on stderr looks: pretty or json
    #[arg(long, value_name = "FORMAT", default_value_t)]
    log_format: LogFormat,
    /// What is logged, such as info or warn,gossip_cdn_bootstrap=debug
    #[arg(long, value_name = "FILTER", default_value = logging::DEFAULT_FILTER)]
    log: String,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("--log: {0}")]
    Logging(#[from] LoggingError),
    #[error("{0}")]
    Start(#[from] StartError),
    #[error("{0}")]
    System(#[from] io::Error),
}

fn main() -> ExitCode {
    match run(Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody is left to tell that stderr is closed.
            _ = writeln!(io::stderr(), "gossip-cdn-bootstrap: {failure}");
            match failure {
                Failure::Logging(_) | Failure::Start(_) => ExitCode::from(2),
                Failure::System(_) => ExitCode::FAILURE,
            }
        }
    }
}

fn run(flags: Flags) -> Result<(), Failure> {
    logging::init(flags.log_format, &flags.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let shutdown = signals::shutdown()?;
        let config = Config { cluster: flags.cluster, hosts: flags.host, ..Config::new(flags.listen, flags.data) };
        let mut running = gossip_cdn_bootstrap::start(config).await?;
        let mut stdout = io::stdout();
        writeln!(stdout, "listening on http://{} bootstrap", running.address)?;
        stdout.flush()?;
        tokio::select! {
            () = shutdown => running.stop().await,
            () = running.failed() => return Err(io::Error::other("the server ended by itself").into()),
        }
        Ok(())
    })
}
