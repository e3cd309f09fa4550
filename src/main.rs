//! The `gossip-cdn` binary: reads the command line, runs what it asks for, and is the only place where the process ends.

use std::io::{self, Write};

use actix_web::rt::{System, SystemRunner};
use gossip_cdn::app::{self, RunError, StartError};
use gossip_cdn::cli::{self, Invocation, Misuse, USAGE};
use gossip_cdn::config::{DemoConfig, NodeConfig};
use gossip_cdn_shell::logging::{self, LogFormat};

/// The memory of connections that are gone goes back to the system within seconds; with the C library's allocator it stays.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    // The system lives as long as the process: a thread may still wait for standard input, which would keep it from being dropped.
    let (code, _system) = match cli::parse(std::env::args_os()) {
        Ok(Invocation::Node(config)) => (node(*config), None),
        Ok(Invocation::Demo(config)) => (demo(config), None),
        Ok(Invocation::Print(text)) => (print(&text), None),
        Ok(Invocation::Client(command)) => {
            let system = System::new();
            (system.block_on(cli::run(command)), Some(system))
        }
        Err(Misuse::Arguments(error)) => (show(&error), None),
        Err(Misuse::Config(error)) => (complain(&error, USAGE), None::<SystemRunner>),
    };
    std::process::exit(code)
}

fn node(config: NodeConfig) -> i32 {
    if let Some(code) = log(config.log_format, &config.log) {
        return code;
    }
    if config.is_open() {
        tracing::warn!(listen = %config.listen, "anybody who reaches this address can write and delete: set --write-token, or listen on 127.0.0.1");
    }
    let announce = |node: &app::RunningNode| {
        print(format!("listening on http://{} node {}\n", node.address(), node.id()).as_bytes());
    };
    ended(System::new().block_on(app::run_node(config, announce)))
}

fn demo(config: DemoConfig) -> i32 {
    if let Some(code) = log(config.log_format, &config.log) {
        return code;
    }
    let announce = |demo: &app::RunningDemo| {
        let mut text = format!("listening on http://{} bootstrap\n", demo.bootstrap());
        for node in demo.nodes() {
            text.push_str(&format!("listening on http://{} node {}\n", node.address(), node.id()));
        }
        print(text.as_bytes());
    };
    ended(System::new().block_on(app::run_demo(config, announce)))
}

/// Starts the log; gives the exit code if it does not start.
fn log(format: LogFormat, filter: &str) -> Option<i32> {
    logging::init(format, filter).err().map(|error| complain(&format!("--log: {error}"), USAGE))
}

fn ended(outcome: Result<(), RunError>) -> i32 {
    match outcome {
        Ok(()) => 0,
        // The machine's fault, not the operator's.
        Err(error @ (RunError::Store(_) | RunError::Start(StartError::System(_)))) => complain(&error, 1),
        Err(error @ RunError::Start(_)) => complain(&error, USAGE),
    }
}

/// Shows help, the version or what is wrong with the arguments.
fn show(error: &clap::Error) -> i32 {
    match error.print() {
        Ok(()) => error.exit_code(),
        Err(_) => 1,
    }
}

fn print(text: &[u8]) -> i32 {
    let mut output = io::stdout().lock();
    match output.write_all(text).and_then(|()| output.flush()) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

/// One sentence on standard error; where even that fails, the code must do.
fn complain(error: &dyn std::fmt::Display, code: i32) -> i32 {
    writeln!(io::stderr(), "gossip-cdn: {error}").ok();
    code
}
