//! Black-box tests of the real binary.

#![expect(clippy::unwrap_used, reason = "clippy knows test functions as tests, and not what they share")]

mod failures;
mod network;
mod process;
mod service;
