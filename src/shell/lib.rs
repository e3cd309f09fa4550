//! What the node and the bootstrap node share: how they refuse, log, listen, stop, and say how they are.
//!
//! | module | what |
//! |---|---|
//! | [`problem`] | every error as `application/problem+json` |
//! | [`request`] | request ids, the line in the log, `HEAD` where a route knows only `GET` |
//! | [`guard`] | which hosts and origins may talk to us from a browser |
//! | [`service`] | `/healthz`, `/readyz`, `/metrics`, `/openapi.json` |
//! | [`page`], [`assets`] | the frame of a page, what it may do, and its files |
//! | [`events`] | what happens, as server-sent events |
//! | [`serve`] | listening, and the settings of the HTTP server |
//! | [`logging`], [`signals`] | the log on stderr; SIGINT and SIGTERM |
//!
//! # How an application is put together
//!
//! Middlewares run from the last `wrap` to the first, so the one that renders problems comes last:
//!
//! ```
//! use actix_web::{App, middleware::from_fn, web};
//! use gossip_cdn_shell::{guard, problem, request};
//!
//! let app = App::new()
//!     .configure(problem::configure)
//!     .default_service(web::to(problem::not_found))
//!     .wrap(from_fn(request::head_as_get))
//!     .wrap(guard::origins(guard::Origins::default()))
//!     .wrap(guard::hosts(guard::Hosts::default()))
//!     .wrap(from_fn(request::observe));
//! # drop(app);
//! ```
//!
//! The shell knows nothing of blobs, members and messages.

pub mod assets;
pub mod events;
pub mod guard;
pub mod logging;
pub mod page;
pub mod problem;
pub mod request;
pub mod serve;
pub mod service;
pub mod signals;
