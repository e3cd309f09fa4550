//! The demo: a bootstrap node and some nodes in one process, each with a data folder and a port of its own.
//!
//! Started again on the same folder it goes on where it was.

use std::net::SocketAddr;

use futures_util::future::{join_all, select_all};

use super::{RunError, RunningNode, StartError, start};
use crate::config::DemoConfig;

/// A network in one process that runs.
#[derive(Debug)]
pub struct RunningDemo {
    bootstrap: gossip_cdn_bootstrap::Running,
    nodes: Vec<RunningNode>,
}

impl RunningDemo {
    /// Where the bootstrap node listens.
    pub fn bootstrap(&self) -> SocketAddr {
        self.bootstrap.address
    }

    /// The nodes, in the order of their ports.
    pub fn nodes(&self) -> &[RunningNode] {
        &self.nodes
    }

    async fn stop(self) {
        // All at once: a farewell to a node that stops as well need not be answered.
        join_all(self.nodes.into_iter().map(RunningNode::stop)).await;
        self.bootstrap.stop().await;
    }
}

/// Runs the demo until SIGINT or SIGTERM, or until a store fails. `announce` is told when all serve.
pub async fn run_demo(config: DemoConfig, announce: impl FnOnce(&RunningDemo)) -> Result<(), RunError> {
    let shutdown = gossip_cdn_shell::signals::shutdown().map_err(StartError::System)?;
    let mut demo = start_demo(config).await?;
    announce(&demo);
    let fault = tokio::select! {
        () = shutdown => None,
        (fault, ..) = select_all(demo.nodes.iter_mut().map(|node| Box::pin(node.failed()))) => Some(fault),
    };
    demo.stop().await;
    fault.map_or(Ok(()), |fault| Err(fault.into()))
}

/// Starts a bootstrap node and all nodes; where one cannot start, those before it are stopped again.
async fn start_demo(config: DemoConfig) -> Result<RunningDemo, StartError> {
    let bootstrap = gossip_cdn_bootstrap::start(config.bootstrap()).await.map_err(of_demo)?;
    let mut demo = RunningDemo { nodes: Vec::new(), bootstrap };
    for node in config.nodes(demo.bootstrap.address) {
        match start(node).await {
            Ok(node) => demo.nodes.push(node),
            Err(fault) => {
                demo.stop().await;
                return Err(of_demo(fault));
            }
        }
    }
    Ok(demo)
}

/// The same fault with the demo's own remedy: it has no `--listen`.
fn of_demo(fault: impl Into<StartError>) -> StartError {
    match fault.into() {
        StartError::Listen(error) | StartError::Bootstrap(gossip_cdn_bootstrap::StartError::Listen(error)) => StartError::Ports(error),
        other @ (StartError::Ports(_)
        | StartError::Store(_)
        | StartError::Unreadable(_)
        | StartError::Lan(..)
        | StartError::Config(_)
        | StartError::Bootstrap(_)
        | StartError::System(_)) => other,
    }
}
