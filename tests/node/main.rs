//! Black-box tests of the real binaries: each starts what it needs on free ports, with folders of its own.
//!
//! Tests read as claims. What is eventually true is waited for, never slept for.

mod bad_input;
mod cluster;
mod durability;
mod fake_peer;
mod gossip;
