//! Nodes that belong to one history and all vote in it.

use gossip_cdn_cluster::{Node, Server, bootstrap};
use tempfile::TempDir;

use crate::agreement::PATIENCE;
use crate::client::Client;
use crate::histories::voters;
use crate::report::Broken;
use crate::waiting::wait;

/// A bootstrap node and voters, up to seven.
pub(crate) struct Assembly {
    pub(crate) nodes: Vec<Node>,
    pub(crate) bootstrap: Server,
    _folder: TempDir,
}

impl Assembly {
    /// Starts it and waits until all vote.
    pub(crate) fn of(count: usize) -> Result<Self, Broken> {
        let (bootstrap, folder) = bootstrap();
        let founder = Node::start(&["--bootstrap", &bootstrap.url, "--found"]);
        let others = (1..count).map(|_| Node::joined(&bootstrap));
        let assembly = Self { nodes: std::iter::once(founder).chain(others).collect(), bootstrap, _folder: folder };
        let mut clients = assembly.clients()?;
        wait("all of them vote", PATIENCE, || clients.iter_mut().try_fold(true, |all, client| Ok(all && voters(client)? == count)))?;
        Ok(assembly)
    }

    /// A connection to each.
    pub(crate) fn clients(&self) -> Result<Vec<Client>, Broken> {
        Ok(self.nodes.iter().map(|node| Client::new(&node.server.url)).collect::<Result<_, _>>()?)
    }
}
