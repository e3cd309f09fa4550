//! A node of Gossip CDN: a peer-to-peer blob network. Upload to any node, download from every node.
//!
//! # A map of the code
//!
//! | room | what is in it |
//! |---|---|
//! | `gossip_cdn_protocol` (`src/protocol`) | the protocol core: a value without sockets, files, clock and threads |
//! | [`app`] | wiring and lifetime; the only place that makes threads and runtimes |
//! | [`cli`] | the command line |
//! | [`config`] | flags, environment, file; the only reader of the environment |
//! | [`clock`] | the only reader of OS time and entropy |
//! | [`driver`] | owns the core: inputs in, outputs out, outputs into actions |
//! | [`lan`] | heartbeats on the local network |
//! | [`peers`] | calls of other nodes, transfers of payloads |
//! | [`scrub`] | reads and checks everything once in a while |
//! | [`store`] | the database, the payload files, the one writer |
//! | [`http`] | public routes and peer routes; [`http::errors`] alone knows status codes |
//! | `src/web` | the page's modules, style and picture, embedded in node and bootstrap node |
//! | `gossip_cdn_shell` (`src/shell`) | what node and bootstrap node share |
//!
//! Arrows go one way: `cli` → `app` → `http` → `driver`, `store`; `driver` → the core, `lan`, `peers`, `store`; `peers`, `scrub` → `store`. Control goes through
//! the core, payload bytes go beside it. The proposals say why.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod driver;
pub mod http;
pub mod lan;
pub mod peers;
pub mod scrub;
pub mod store;
