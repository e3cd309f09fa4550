//! The message history: what any node took from a client, delivered by every node, in two channels.
//!
//! | machine | what it decides |
//! |---|---|
//! | [`causal`] | when a causal message is delivered: uniform reliable causal broadcast |
//! | [`ordered`] | which batch of ordered messages stands in which slot: Paxos under the names of a transaction's steps |
//! | [`replica`] | everything put together: delivery in one order, synchronisation, seats |
//!
//! Each can be built and driven alone. [`message`] and [`epoch`] hold the values that they share, [`disk`] what a node remembers, [`talk`]
//! what nodes say to each other.

mod asking;
pub mod causal;
mod delivery;
pub mod disk;
pub mod epoch;
mod letters;
pub mod memory;
pub mod message;
pub mod ordered;
pub mod replica;
mod seats;
mod sending;
pub mod talk;
pub mod transaction;
