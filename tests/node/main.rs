//! Black-box tests of the real binaries: each starts what it needs on free ports, with folders of its own.
//!
//! Tests read as claims. What is eventually true is waited for, never slept for.

#![expect(unreachable_pub, reason = "the middleman and the fake peer are rooms of their own; what they offer is public there")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the answer")]
#![expect(clippy::disallowed_methods, reason = "a test measures time and makes threads of its own")]

mod bad_input;
mod cli;
mod cli_messages;
mod conditional;
mod curl;
mod damage;
mod demo;
mod disk_faults;
mod disposition;
mod download;
mod durability;
mod events;
mod expected;
mod fake_peer;
mod faults;
mod forget;
mod gossip;
mod identity;
mod lan;
mod lists;
mod messages;
mod middleman;
mod network;
mod openapi;
mod page;
mod ranges;
mod readers;
mod replace;
mod service;
mod transfers;
mod upload_answers;
mod upload_names;
mod uploads;
mod writers;
