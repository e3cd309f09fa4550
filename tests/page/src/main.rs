//! The page in a real browser (Chromium, by WebDriver), against real nodes: what people do with it, and what they see.
//!
//! Two of the tests also measure ([`scale`]); this prints the figures, of the nodes that `cargo build --workspace` made:
//! `cargo test -p gossip-cdn-page scale -- --nocapture --test-threads 1 2>/dev/null`.
//!
//! Tests read as claims. What is eventually true is waited for, never slept for. A browser that is not there is a failure: `tests/run` installs it.

#![expect(unreachable_pub, reason = "the browser is a room of its own; what it offers is public there")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the answer")]
#![expect(clippy::disallowed_methods, reason = "waiting needs a clock")]

mod access;
mod blobs;
mod browser;
mod conflicts;
mod hostile;
mod messages;
mod network;
mod scale;
mod uploads;
