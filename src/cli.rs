//! The command line.
//!
//! Two commands serve (`node`, `demo`: see [`crate::app`]), the others are clients of a node's public routes and know nothing that curl
//! could not do. Results go to standard output, remarks and bars to standard error; the exit codes are listed in `cli/fault.rs`.
//!
//! | file | what |
//! |---|---|
//! | `cli/address.rs` | how nodes and blobs are named |
//! | `cli/client.rs`, `cli/described.rs` | HTTP to a node, its JSON |
//! | `cli/put.rs`, `cli/get.rs` | bytes there and back |
//! | `cli/list.rs`, `cli/network.rs`, `cli/doctor.rs` | what there is, who is there, what is wrong |
//! | `cli/screen.rs`, `cli/fault.rs` | what is written, how it ends |

mod address;
mod client;
mod described;
mod doctor;
mod fault;
mod get;
mod list;
mod messages;
mod network;
mod put;
mod screen;
mod scrub;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::{ConfigError, DemoArgs, DemoConfig, NodeArgs, NodeConfig};
use address::NodeUrl;
use client::Client;
use fault::{Fault, Tally};
use screen::Screen;

/// The exit code of a command that was called wrongly, a configuration value out of range included.
pub const USAGE: i32 = 2;

#[derive(Debug, Parser)]
#[command(
    name = "gossip-cdn",
    version,
    about = "A network of equal nodes that stores blobs: upload to any node, download from every node",
    after_help = "Example: gossip-cdn demo, and in another terminal: gossip-cdn put photo.jpg",
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node
    #[command(after_help = "Example: gossip-cdn node --listen 127.0.0.1:7701 --data ./node-1 --bootstrap http://127.0.0.1:7700")]
    Node(Box<NodeArgs>),
    /// Run a bootstrap node and several nodes in one process, to try things out
    #[command(after_help = "Example: gossip-cdn demo --nodes 5")]
    Demo(DemoArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Example: gossip-cdn completions bash > ~/.local/share/bash-completion/completions/gossip-cdn")]
    Completions {
        /// The shell
        shell: Shell,
    },
    #[command(flatten)]
    Client(ClientCommand),
}

/// A command that asks a node for something.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Upload files, folders or standard input; prints a link a line
    #[command(after_help = "Example: gossip-cdn put photo.jpg holidays/\n         tar c src | gossip-cdn put - --name src.tar --copies 2")]
    Put(put::PutArgs),
    /// Download blobs, verified; a partial download is resumed
    #[command(
        after_help = "Example: gossip-cdn get http://127.0.0.1:7701/blobs/67e55044-10b1-426f-9247-bb680e5fe0c8 -o photo.jpg\n         \
                            gossip-cdn get 67e55044-10b1-426f-9247-bb680e5fe0c8 -o big.iso --from http://127.0.0.1:7701,http://127.0.0.1:7702"
    )]
    Get(get::GetArgs),
    /// List blobs
    #[command(after_help = "Example: gossip-cdn ls --name photo --all")]
    Ls(list::LsArgs),
    /// Delete blobs, on every node
    #[command(after_help = "Example: gossip-cdn rm 67e55044-10b1-426f-9247-bb680e5fe0c8")]
    Rm(list::RmArgs),
    /// List the live versions of a blob and say why the winner won
    #[command(after_help = "Example: gossip-cdn versions 67e55044-10b1-426f-9247-bb680e5fe0c8")]
    Versions(list::BlobArgs),
    /// List the nodes that hold a blob durably
    #[command(after_help = "Example: gossip-cdn holders 67e55044-10b1-426f-9247-bb680e5fe0c8")]
    Holders(list::BlobArgs),
    /// Say something to all nodes, for ever in their history; prints the message's id
    #[command(
        after_help = "Example: gossip-cdn say 'the release is out' --wait\n         gossip-cdn say - --ordered --type application/json < decision.json"
    )]
    Say(messages::SayArgs),
    /// Read the message history
    #[command(after_help = "Example: gossip-cdn history --follow")]
    History(messages::HistoryArgs),
    /// Leave a node's message history for another one that it met
    #[command(after_help = "Example: gossip-cdn adopt-history 67e55044-10b1-426f-9247-bb680e5fe0c8")]
    AdoptHistory(messages::AdoptArgs),
    /// Show how a node is
    #[command(after_help = "Example: gossip-cdn status --node http://127.0.0.1:7702 --json")]
    Status(network::StatusArgs),
    /// List the members of the network, as a node sees them
    #[command(after_help = "Example: gossip-cdn members --watch")]
    Members(network::MembersArgs),
    /// Forget members that are dead or have left and will not come back, on every node
    #[command(after_help = "Example: gossip-cdn forget 5f0a9fa1-7c1c-8d6e-9a55-2f3b6a0d1c42")]
    Forget(network::ForgetArgs),
    /// Have a node read and check every payload it has, and fetch again what is damaged
    #[command(after_help = "Example: gossip-cdn scrub --node http://127.0.0.1:7702")]
    Scrub(scrub::ScrubArgs),
    /// Find out what is wrong, with a remedy for each fault
    #[command(after_help = "Example: gossip-cdn doctor --node http://127.0.0.1:7702")]
    Doctor(doctor::DoctorArgs),
}

/// Which node to ask.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
struct Connection {
    /// Base URL of the node to ask
    #[arg(long, value_name = "URL", env = "GOSSIP_CDN_NODE", default_value = "http://127.0.0.1:7701")]
    node: NodeUrl,
    /// Token that the node wants for writing (its --write-token)
    #[arg(long, value_name = "TOKEN", env = "GOSSIP_CDN_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// What was asked for on the command line.
pub enum Invocation {
    /// Serve as a node.
    Node(Box<NodeConfig>),
    /// Serve as a small network.
    Demo(DemoConfig),
    /// Print this and be done.
    Print(Vec<u8>),
    /// Ask a node; see [`run`].
    Client(ClientCommand),
}

/// Why there is no [`Invocation`].
pub enum Misuse {
    /// The command line itself is wrong, or asks for help or the version.
    Arguments(clap::Error),
    /// A value is out of range, or the configuration file cannot be read.
    Config(ConfigError),
}

/// Reads the command line, and for the commands that serve also the environment and the configuration file.
pub fn parse(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Invocation, Misuse> {
    let matches = Cli::command().try_get_matches_from(arguments).map_err(Misuse::Arguments)?;
    let command = Cli::from_arg_matches(&matches).map_err(Misuse::Arguments)?.command;
    match command {
        Command::Node(arguments) => {
            let by_hand = |name: &str| {
                let node = matches.subcommand_matches("node");
                node.and_then(|node| node.value_source(name)) == Some(clap::parser::ValueSource::CommandLine)
            };
            NodeConfig::resolve(*arguments, by_hand).map(|config| Invocation::Node(Box::new(config))).map_err(Misuse::Config)
        }
        Command::Demo(arguments) => DemoConfig::resolve(arguments).map(Invocation::Demo).map_err(Misuse::Config),
        Command::Completions { shell } => Ok(Invocation::Print(completions(shell))),
        Command::Client(command) => Ok(Invocation::Client(command)),
    }
}

fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "gossip-cdn", &mut script);
    script
}

/// Performs a client's command and returns the exit code; wants to run in an actix system.
pub async fn run(command: ClientCommand) -> i32 {
    let screen = Screen::new();
    let outcome = match command {
        ClientCommand::Put(arguments) => put::run(&screen, arguments).await,
        ClientCommand::Get(arguments) => get::run(&screen, arguments).await,
        ClientCommand::Ls(arguments) => list::ls(&screen, arguments).await,
        ClientCommand::Rm(arguments) => list::rm(&screen, arguments).await,
        ClientCommand::Versions(arguments) => list::versions(&screen, arguments).await,
        ClientCommand::Holders(arguments) => list::holders(&screen, arguments).await,
        ClientCommand::Say(arguments) => messages::say(&screen, arguments).await,
        ClientCommand::History(arguments) => messages::history(&screen, arguments).await,
        ClientCommand::AdoptHistory(arguments) => messages::adopt(&screen, arguments).await,
        ClientCommand::Status(arguments) => network::status(&screen, arguments).await,
        ClientCommand::Members(arguments) => network::members(&screen, arguments).await,
        ClientCommand::Forget(arguments) => network::forget(&screen, arguments).await,
        ClientCommand::Scrub(arguments) => scrub::run(&screen, arguments).await,
        ClientCommand::Doctor(arguments) => doctor::run(&screen, arguments).await,
    };
    match outcome {
        Ok(tally) => tally.exit_code(),
        Err(fault) => {
            if fault != Fault::ReaderGone {
                screen.note(&fault.to_string());
            }
            fault.exit_code()
        }
    }
}

impl Connection {
    fn client(self) -> (Client, NodeUrl) {
        (Client::new(self.token), self.node)
    }
}

/// What a command leaves: its faults that were told already, or the one that stopped it.
type Outcome = Result<Tally, Fault>;

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Invocation, Misuse> {
        parse(line.split(' ').map(Into::into))
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_after_help().is_some_and(|help| help.to_string().starts_with("Example: gossip-cdn ")), "{command}");
            assert!(command.get_about().is_some(), "{command}");
        }
    }

    #[test]
    fn wrong_calls_are_told_from_requests_for_help() {
        let code = |line| match parsed(line) {
            Err(Misuse::Arguments(error)) => error.exit_code(),
            Err(Misuse::Config(_)) => USAGE,
            Ok(_) => -1,
        };
        assert_eq!(code("gossip-cdn --version"), 0);
        assert_eq!(code("gossip-cdn put --help"), 0);
        for wrong in [
            "gossip-cdn",
            "gossip-cdn fly",
            "gossip-cdn get",
            "gossip-cdn get x",
            "gossip-cdn ls --node nowhere",
            "gossip-cdn demo --nodes 0",
        ] {
            assert_eq!(code(wrong), USAGE, "{wrong}");
        }
    }

    #[test]
    fn every_shell_gets_its_completions() {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let Ok(Invocation::Print(script)) = parsed(&format!("gossip-cdn completions {shell}")) else { panic!("{shell}") };
            assert!(String::from_utf8(script).unwrap().contains("holders"), "{shell}");
        }
    }
}
