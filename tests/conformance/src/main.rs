//! The node's HTTP beside other servers' and under other clients.
//!
//! [`differences`] sends the same generated requests to a node, to nginx and to Apache httpd, and explains every difference between
//! the answers. [`resuming`] has curl, wget and aria2 take downloads up again, at other nodes too.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the answer")]
#![expect(clippy::disallowed_methods, reason = "other servers and clients are processes, and waiting needs a clock")]

mod asked;
mod differences;
mod model;
mod peers;
mod resuming;
mod seen;
