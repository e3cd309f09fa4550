//! A node as it is shipped, alone, with its log in a file.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use gossip_cdn_cluster::{Server, node_binary};

use crate::table::Failed;

/// A running node.
pub(crate) struct Served {
    pub(crate) server: Server,
}

impl Served {
    /// Starts it in that folder: defaults, but for the port, the folder, and that it asks nobody for members.
    pub(crate) fn start(folder: &Path) -> Result<Self, Failed> {
        fs::create_dir_all(folder)?;
        let mut command = Command::new(node_binary());
        command.args(["node", "--listen", "127.0.0.1:0", "--no-bootstrap", "--data"]).arg(folder.join("data"));
        command.env_remove("RUST_LOG").env_remove("GOSSIP_CDN_LOG").stderr(File::create(folder.join("log"))?);
        Ok(Self { server: Server::start(&mut command) })
    }

    /// Forgets the most memory it had so far.
    pub(crate) fn forget_peak(&self) -> Result<(), Failed> {
        // proc(5), clear_refs: 5 resets the peak resident set size.
        Ok(fs::write(format!("/proc/{}/clear_refs", self.server.pid()), "5")?)
    }

    /// The most memory it had since then, in bytes.
    pub(crate) fn peak(&self) -> Result<u64, Failed> {
        self.told("VmHWM:").map(|kibibytes| kibibytes << 10)
    }

    /// What it has now, in bytes.
    pub(crate) fn resident(&self) -> Result<u64, Failed> {
        self.told("VmRSS:").map(|kibibytes| kibibytes << 10)
    }

    /// How many files it has open, connections included.
    pub(crate) fn open_files(&self) -> Result<usize, Failed> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.server.pid()))?.count())
    }

    fn told(&self, name: &str) -> Result<u64, Failed> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.pid()))?;
        let number = |line: &str| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok();
        status.lines().find_map(number).ok_or_else(|| Failed(format!("the kernel does not tell {name}")))
    }
}
