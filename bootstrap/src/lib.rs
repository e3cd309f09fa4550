//! The bootstrap node of Gossip CDN: the well-known process that remembers the network's members and introduces newcomers.
//!
//! Nothing depends on it but the first meeting: members that know each other go on without it, and bring it up to date when it is back.
//!
//! | module | what |
//! |---|---|
//! | [`registry`] | who is in the network, as a plain value |
//! | [`disk`] | the registry on disk |
//! | [`network`] | both together, shared by all requests |
//! | [`routes`], [`views`], [`events`], [`page`], [`metrics`] | HTTP: the routes, their JSON, what changes, the page, the counters |
//! | [`clock`] | the only reader of time and entropy |
//!
//! Proposal 0006 says why it is so.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::web::{self, Data};
use actix_web::{App, HttpServer};
use gossip_cdn_shell::events::Streams;
use gossip_cdn_shell::{guard, problem, request, serve, service, tuned};
use tokio::task::{JoinError, JoinHandle};
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder};
use utoipa_actix_web::AppExt;

use crate::clock::Clock;
use crate::disk::{Disk, OpenError};
use crate::metrics::Metrics;
use crate::network::Network;
use crate::routes::Context;

pub mod clock;
pub mod disk;
pub mod events;
pub mod metrics;
pub mod network;
pub mod page;
pub mod registry;
pub mod routes;
pub mod views;

/// How often silent members are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// How a bootstrap node is started.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The folder of its registry; made if it is not there.
    pub data: PathBuf,
    /// The name of the cluster.
    pub cluster: String,
    /// Names it may be spoken to by, beside IP addresses and `localhost`.
    pub hosts: Vec<String>,
    /// What differs between servers.
    pub server: serve::Settings,
}

impl Config {
    /// The defaults: cluster `gossip-cdn`, two threads.
    pub fn new(listen: SocketAddr, data: impl Into<PathBuf>) -> Self {
        let server = serve::Settings { workers: Some(2), drain: Duration::from_secs(2) };
        Self { listen, data: data.into(), cluster: "gossip-cdn".to_owned(), hosts: Vec::new(), server }
    }
}

/// Why a bootstrap node does not start. Each text is one sentence that names the flag and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is not to be had.
    #[error("--listen: {0}; name another address, or port 0 for any free one")]
    Listen(io::Error),
    /// The registry is not to be had.
    #[error(transparent)]
    Registry(#[from] OpenError),
    /// The operating system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Entropy(#[from] rand::rngs::SysError),
    /// The server does not start.
    #[error("the server does not start: {0}")]
    Server(io::Error),
}

/// A bootstrap node that runs until it is stopped. Dropped, it runs on.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    server: ServerHandle,
    streams: Streams,
    task: JoinHandle<io::Result<()>>,
    network: Arc<Network>,
}

impl Running {
    /// Answers the requests in flight, saves, and ends.
    pub async fn stop(self) {
        self.streams.end();
        self.server.stop(true).await;
        ended(self.task.await);
        self.network.close();
    }

    /// Resolves if the server ends by itself, which it only does when it fails.
    pub async fn failed(&mut self) {
        ended((&mut self.task).await);
    }
}

fn ended(result: Result<io::Result<()>, JoinError>) {
    match result {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!("the server ended: {error}"),
        Err(error) => tracing::error!("the server ended: {error}"),
    }
}

/// Starts a bootstrap node on the runtime of the caller; its requests are served by threads of its own.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let listener = serve::listen(config.listen).map_err(StartError::Listen)?;
    let address = listener.local_addr().map_err(StartError::Listen)?;
    let (disk, found) = Disk::open(&config.data, &config.cluster, clock::entropy()?)?;
    let network = Arc::new(Network::new(config.cluster, Clock::start(), disk, found, clock::entropy()?));
    let metrics = Metrics::default();
    let exposition = Data::new(metrics.exposition(Arc::clone(&network)));
    let streams = Streams::default();
    let context = Context { network: Arc::clone(&network), metrics, streams: streams.clone() };
    let hosts = guard::Hosts::new(config.hosts);

    let server = HttpServer::new(move || {
        let (app, api) = App::new().into_utoipa_app().openapi(description()).configure(routes::configure(&context)).split_for_parts();
        app.app_data(exposition.clone())
            .app_data(Data::new(service::Document::new(&api)))
            .app_data(Data::new(service::routes(&api)))
            .configure(problem::configure)
            .default_service(web::to(problem::not_found))
            .wrap(from_fn(request::head_as_get))
            .wrap(guard::origins(guard::Origins::default()))
            .wrap(guard::hosts(hosts.clone()))
            .wrap(from_fn(request::observe))
    });
    let server = tuned!(server, &config.server).listen(listener).map_err(StartError::Server)?.run();
    let handle = server.handle();
    let sweep = sweep(Arc::clone(&network));
    let serving = async {
        tokio::select! {
            result = server => result,
            () = sweep => Ok(()),
        }
    };
    #[expect(clippy::disallowed_methods, reason = "the one task of a bootstrap node, which `Running` waits for")]
    let task = tokio::spawn(serving);
    Ok(Running { address, server: handle, streams, task, network })
}

/// Lets time pass in the registry, for ever.
async fn sweep(network: Arc<Network>) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        network.expire();
        if !network.is_saved() {
            let network = Arc::clone(&network);
            if let Err(error) = tokio::task::spawn_blocking(move || network.save()).await {
                tracing::error!("the registry was not saved: {error}");
            }
        }
    }
}

fn description() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Gossip CDN bootstrap node")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Remembers the members of a network and introduces newcomers."))
        .build();
    OpenApiBuilder::new().info(info).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn one_that_was_stopped_can_start_again_in_the_same_process() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            let running = start(Config::new(SocketAddr::from(([127, 0, 0, 1], 0)), dir.path())).await.unwrap();
            assert!(matches!(
                start(Config::new(SocketAddr::from(([127, 0, 0, 1], 0)), dir.path())).await,
                Err(StartError::Registry(OpenError::Locked { .. }))
            ));
            running.stop().await;
        }
    }
}
