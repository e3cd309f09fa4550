//! The node of Gossip CDN.

pub mod store;
