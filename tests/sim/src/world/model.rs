//! What a world is made with.

use crate::faults::Cpu;
use crate::network::Latency;
use crate::plant::Plant;

/// How a seed is run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many hosts there are at the beginning; drawn from 5 to 9 if not given.
    pub nodes: Option<usize>,
    /// How long faults last, in simulated seconds.
    pub seconds: u64,
    /// How many writes are tried.
    pub writes: u64,
    /// A bug to put in.
    pub plant: Option<Plant>,
    /// Whether to write down what happens.
    pub trace: bool,
    /// Whether to weigh messages.
    pub weigh: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { nodes: None, seconds: 60, writes: 150, plant: None, trace: false, weigh: false }
    }
}

/// How the hosts and the network of a world driven by hand are.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    /// How long messages take.
    pub latency: Latency,
    /// Of a thousand requests, and of a thousand answers, so many are lost.
    pub loss: u32,
    /// Bytes that a host sends in a microsecond; no limit if there is none.
    pub bandwidth: Option<u64>,
    /// What handling a message takes.
    pub cpu: Option<Cpu>,
    /// Usual time of an fsync, in microseconds.
    pub fsync: u64,
    /// Whether there is a bootstrap node.
    pub bootstrap: bool,
}

impl Default for Model {
    fn default() -> Self {
        Self { latency: Latency::Constant(1000), loss: 0, bandwidth: None, cpu: None, fsync: 2000, bootstrap: true }
    }
}
