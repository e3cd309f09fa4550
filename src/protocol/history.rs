//! The message history: what any node took from a client, delivered by every node, in two channels.
//!
//! | machine | what it decides |
//! |---|---|
//! | [`causal`] | when a causal message is delivered: uniform reliable causal broadcast |
//! | [`ordered`] | which batch of ordered messages stands in which slot: Paxos under the names of a transaction's steps |
//!
//! Each can be built and driven alone. [`message`] and [`epoch`] hold the values that they share.

pub mod causal;
pub mod epoch;
pub mod message;
pub mod ordered;
