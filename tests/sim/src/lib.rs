//! A deterministic simulator of Gossip CDN networks: many cores of `gossip-cdn-protocol`, one seed, every fault.
//!
//! ```text
//!   client --> Command --\                 /--> Call, Fetch, Join --> network, registry
//!   network --> Request --> Node (a core) -----> Persist -----------> disk
//!   disk --> Persisted --/                 \--> Reply --------------> client
//!                     \_________ every arrow passes the checker _________/
//! ```
//!
//! 1. Everything random comes from one generator, and only ordered collections are walked: the same seed gives the same bytes.
//! 2. Time is virtual. A simulated minute of a handful of nodes takes some hundredths of a second.
//! 3. The checker knows what was written from the outside, by what each writer had before it; it does not trust vector clocks.
//! 4. A seed whose faults did not act, or whose clients did not write, proves nothing and counts as a failure.
//!
//! Start at [`world`] for how a network is run, at [`story`] for how a scenario is told, at [`report`] for the swarm.

mod base;
mod broadcasts;
mod checker;
mod chronicle;
mod client;
mod disk;
mod network;
mod quorum;
mod watch;
mod wire;

pub mod faults;
pub mod figures;
pub mod meter;
pub mod plant;
pub mod report;
pub mod story;
pub mod transcript;
pub mod world;

pub use client::Wish;
pub use faults::Cpu;
pub use meter::Report;
pub use network::Latency;
pub use plant::Plant;
pub use report::{Outcome, simulate};
pub use world::{Model, Settings, World};
